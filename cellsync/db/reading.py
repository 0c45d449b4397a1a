"""The Reader of diff: rows, digests and keys with checksums, through projections."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from itertools import chain
from operator import xor
from typing import Any, cast

import sqlalchemy
from oslo_db import exception as oslo_errors

from cellsync.db import bundling, collation, schema
from cellsync.db.dialects import escaped
from cellsync.db.select import Select, Statement
from cellsync.db.session import LOG, SINGLE_KEYS_PER_QUERY, Session, at_once, batches, version
from cellsync.errors import ReadFailed
from cellsync.model import (
    Answer,
    Bucketing,
    Bundle,
    Column,
    Digest,
    Family,
    Fold,
    Identity,
    Key,
    KeyPart,
    LookUp,
    Packed,
    Pair,
    Projection,
    Row,
    Use,
    Value,
    folded,
)

BUCKETS_PER_QUERY = 4000
ROWS_PER_FETCH = 2000
_CRC32C = (10, 8)
"""The first version of MariaDB that has it; MySQL has not."""


class Reading(Session):
    """Reads through projections; ``diff.Reader`` says what each call does."""

    def rows(
        self, projection: Projection, *, keys: Sequence[Key] | None = None, tombstones: bool = False
    ) -> Iterator[Row]:
        """Yield the rows of a projection; see ``diff.Reader``."""
        select = self._select(projection, tombstones=tombstones)
        if keys is None:
            yield from map(select.row, self._stream(select.statement()))
            return
        parts = [*batches(keys, at_once(projection))]
        found = chain.from_iterable(self._rows_of(select, part) for part in parts)
        exact = all(part.family is Family.INTEGER and part.join is None for part in projection.key)
        yield from found if exact or len(parts) < 2 else _read_once(found)

    def classify_keys(self, projection: Projection, keys: Sequence[Key]) -> Sequence[Hashable]:
        """Return for each key what the server's collations take it for; see ``diff.Reader``."""
        known = schema.columns(self._needed(projection))
        columns = [*collation.key_columns(projection.table, projection.key, known)]
        leads = any(part.join is not None for part in projection.key)
        flat = [tuple(collation.flatten_key(key, projection.key)) for key in keys] if leads else keys
        if self._dialect.name == "sqlite":
            return [folded(key) for key in flat]
        classes: list[Sequence[KeyPart]] = []
        for column, values in zip(columns, zip(*flat, strict=True), strict=True):
            texts = {*filter(_is_text, values)} if collation.is_loose(column) else set()
            found = self._classify_texts(column, texts) if texts else {}
            classes.append([found.get(value, value) for value in values] if found else values)
        if not leads:
            return [*zip(*classes, strict=True)]
        # A NULL reference, and one to a row whose key is NULL, have the same scalars.
        shapes = [tuple(part is None for part in key) for key in keys]
        return [*zip(shapes, *classes, strict=True)]

    def _classify_texts(self, column: Column, texts: Collection[Any]) -> Mapping[KeyPart, KeyPart]:
        """Return what the collation of a column takes each text for; the same value for equal ones."""
        found: dict[KeyPart, KeyPart] = {}
        for part in batches(sorted(texts), SINGLE_KEYS_PER_QUERY):
            found.update(self._weigh_texts(column, part))
        return found

    def _weigh_texts(self, column: Column, texts: Sequence[Any]) -> Mapping[KeyPart, KeyPart]:
        parameters = {f"v{at}": text for at, text in enumerate(texts)}
        ((count, answer),) = self.query(collation.classes(column, list(parameters)), **parameters)
        weights = collation.read_weights(int(count), answer)
        if weights is None:
            assert len(texts) > 1, "an answer about one text is shorter than any limit"
            half = len(texts) // 2
            return {**self._weigh_texts(column, texts[:half]), **self._weigh_texts(column, texts[half:])}
        return {texts[at]: (weight,) for at, weight in weights.items()}

    def _rows_of(self, select: Select, keys: Sequence[Key]) -> Iterable[Row]:
        """Return the rows of some keys; each is one value on the wire, unless it is too long for that."""
        joined = select.joined(keys) if self._dialect.name != "sqlite" else None
        if joined is not None:
            values = [value for (value,) in self._stream(joined.statement)]
            if None not in values:
                return select.rows(joined.fields, cast("Sequence[bytes]", values))
        return map(select.row, self._stream(select.statement(keys=keys)))

    @property
    def digests(self) -> bool:
        """Say whether the server can compute digests; where it cannot, rows are read."""
        return self._dialect.name != "sqlite"

    @property
    def fold(self) -> Fold:
        """Return the best way of folding that this server knows. No query after ``identity``."""
        return Fold.CRC if version(self._server()["version"]) >= _CRC32C else Fold.CUT

    def span(self, projection: Projection) -> tuple[int, int] | None:
        """Return the smallest and the largest key of a ranged projection; None for an empty table."""
        ((low, high),) = self.query(self._select(projection).span().sql)
        return None if low is None else (int(low), int(high))

    def digest(
        self, projection: Projection, bucketing: Bucketing, buckets: Sequence[int] | None = None
    ) -> Iterator[Digest]:
        """Yield the digests of a projection; see ``diff.Reader``."""
        select = self._select(projection)
        doubled: set[int] = set()
        if buckets is None and (projection.nullable or not projection.unique):
            doubled = {int(row[0]) for row in self._stream(select.doubles(bucketing))}  # type: ignore[arg-type]
        for record in self._stream(select.digests(bucketing, buckets)):
            digest = select.digest(record)
            yield digest._replace(odd=True) if digest.bucket in doubled else digest

    def sizes(self, projection: Projection, bucketing: Bucketing) -> Iterator[Digest]:
        """Yield how many rows each bucket holds; see ``diff.Reader``."""
        select = self._select(projection)
        yield from map(select.digest, self._stream(select.sizes(bucketing)))

    def bundles(
        self,
        projection: Projection,
        bucketing: Bucketing,
        buckets: Sequence[int] | None = None,
        *,
        parts: int = 1,
        apart: bool = False,
    ) -> Iterator[Bundle]:
        """Yield keys and checksums of the rows of a projection; see ``diff.Reader``."""
        select = self._select(projection)
        if apart:
            for number in sorted(buckets or ()):
                records = self._stream(select.bundled(bucketing, number))
                yield from (select.bundle(record) for record in records if record[3])
            return
        # By hashes every statement is a pass over the table, by ranges a long one is slow to parse.
        most = BUCKETS_PER_QUERY if bucketing.width is not None else len(buckets or ())
        some = [None] if buckets is None else batches(sorted(buckets), max(1, most))
        for batch in some:
            yield from map(select.bundle, self._stream(select.bundles(bucketing, batch, parts)))

    def summed(self, bucket: int, bundles: Sequence[Bundle]) -> Digest:
        """Return the digest that bundles add up to; see ``diff.Reader``."""
        texts = [text for bundle in bundles for text in bundle.texts]
        odd = any(bundle.odd for bundle in bundles)
        return Digest(bucket, len(texts), reduce(xor, map(bundling.checksum, texts), 0), odd)

    def packed(self, projection: Projection, fold: Fold) -> Iterator[Packed]:
        """Yield the rows of a projection, packed; see ``diff.Reader``."""
        select = self._select(projection)
        yield from map(select.packed_row, self._stream(select.packed(fold)))

    def total(
        self, projection: Projection, fold: Fold, numbers: Sequence[int] | None = None
    ) -> tuple[int, int]:
        """Return how many rows there are, with those in limbo, and their checksum; see ``diff.Reader``."""
        index = self.tables([projection.table])[projection.table].identity_index
        sql = self._select(projection).total(fold, numbers, index).sql
        shown = sql if numbers is None else f"{sql.rpartition(' BETWEEN ')[0]} IN (...)"
        LOG.debug("%s: %s", self.cell.name, shown, extra={"cell": self.cell.name})
        with self._in_time():
            rows, checksum = tuple(self._run(sql, {}).one())
        return int(rows), int(checksum)

    def count_rows(self, projection: Projection, identities: Sequence[Identity] | None = None) -> int:
        """Return how many rows a projection has, or how many of those with some primary keys."""
        quote, conditions = self._dialect.quote, []
        if projection.soft_delete is not None:
            conditions.append(f"t.{quote(projection.soft_delete.column)} IS NOT NULL")
        names = [f"t.{quote(name)}" for name in projection.identity]
        parameters = {f"i{at}": value for at, value in enumerate(chain(*(identities or ())))}
        if identities is not None and len(names) == 1:
            conditions.append(f"{names[0]} IN ({', '.join(f':{name}' for name in parameters)})")
        elif identities is not None:
            each = [f"{names[at % len(names)]} = :{name}" for at, name in enumerate(parameters)]
            rows = (" AND ".join(part) for part in batches(each, len(names)))
            conditions.append(f"(({') OR ('.join(rows)}))")
        condition = " AND ".join(conditions) or None
        ((number,),) = self.query(self._select(projection).count(condition), **parameters)
        return int(number)

    def count_uses(self, use: Use) -> int:
        """Return how many rows use another one. Locks none: often no index begins with the column."""
        if use.table not in self.tables([use.table]):
            raise ReadFailed(f"{self.cell.name} has no table {use.table} to look {use.column} up in")
        quote = self._dialect.quote
        sql = f"SELECT COUNT(*) FROM {quote(use.table)} WHERE {quote(use.column)} = :value"
        if use.where:
            sql += f" AND ({escaped(use.where)})"
        ((number,),) = self.query(sql, value=use.value)
        return int(number)

    def unpack(self, projection: Projection) -> Callable[[Packed], Row]:
        """Return what makes the rows of packed ones."""
        return self._select(projection).unpack()

    def pairs(self, projection: Projection) -> Callable[[str], Pair]:
        """Return what takes the texts of a bundle apart."""
        return self._select(projection).pair

    def look_up(self, where: LookUp) -> frozenset[str]:
        """Return the distinct values that a child says are its own."""
        if where.table not in self.tables([where.table]):
            raise ReadFailed(f"{self.cell.name} has no table {where.table} to look {where.column} up in")
        quote = self._dialect.quote
        sql = f"SELECT DISTINCT {quote(where.column)} FROM {quote(where.table)}"
        if where.where:
            sql += f" WHERE ({escaped(where.where)})"
        return frozenset(str(row[0]) for row in self.query(sql) if row[0] is not None)

    def answer(self, sql: str, *, parameters: Mapping[str, str | tuple[Value, ...]], most: int) -> Answer:
        """Return all rows of a SELECT that somebody wrote, whose columns have names of their own.

        A parameter that holds several values stands behind IN, without brackets. One query, and
        another one where there are more rows than ``most``: then ReadFailed says how many. An answer
        is never cut.
        """
        LOG.debug("%s: %s", self.cell.name, sql, extra={"cell": self.cell.name})
        with self._in_time():
            # A table of its own, so that it is one SELECT and nothing else, and has each name once.
            result = self._run(f"SELECT * FROM (\n{sql}\n) AS answer LIMIT {most + 1}", parameters)
            columns, records = tuple(result.keys()), result.all()
        if len(records) > most:
            ((rows,),) = self.query(f"SELECT COUNT(*) FROM (\n{sql}\n) AS answer", **parameters)
            raise ReadFailed(f"{self.cell.name}: the answer has {rows} rows, and at most {most} are taken")
        return Answer(columns=columns, rows=tuple(tuple(map(_plain, record)) for record in records))

    def _stream(self, statement: Statement) -> Iterator[Sequence[Value]]:
        LOG.debug("%s: %s", self.cell.name, statement.sql, extra={"cell": self.cell.name})
        with self._in_time():
            result = self._run(
                statement.sql, statement.parameters, stream_results=True, max_row_buffer=ROWS_PER_FETCH
            )
            try:
                for partition in result.partitions(ROWS_PER_FETCH):
                    yield from partition
                    if self.deadline.over:
                        raise ReadFailed("too late")
            except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError, ReadFailed):
                _abandon(result)
                raise
            finally:
                result.close()


def _read_once(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield each row once: keys that are equal under a collation may be in different queries."""
    seen: set[Identity | tuple[Key, tuple[KeyPart, ...]]] = set()
    for row in rows:
        # Without a primary key a row is told by all that is read of it; then nothing of it is written.
        mark = row.identity or (row.key, row.values)
        if mark not in seen:
            seen.add(mark)
            yield row


def _is_text(value: KeyPart) -> bool:
    return isinstance(value, str)


def _plain(value: Any) -> Value:
    """Return a value as the driver gives it in canonical form: times are text, as the server prints them."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return str(value)
    if isinstance(value, datetime.timedelta):
        seconds = abs(value) // datetime.timedelta(seconds=1)
        sign = "-" if value < datetime.timedelta() else ""
        return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    assert value is None or isinstance(value, (int, float, Decimal, str, bytes)), type(value)
    return value


def _abandon(result: sqlalchemy.CursorResult[Any]) -> None:
    """Let PyMySQL forget the rest of a result that failed.

    It would read on when the cursor is closed or collected, from a socket that is gone, and print
    an AttributeError to stderr.
    """
    unfinished = getattr(result.cursor, "_result", None)
    if unfinished is not None:
        unfinished.unbuffered_active = False
        unfinished.connection = None
