"""Write a projection as one SELECT, and read its result back as rows.

Text is rendered here rather than through SQLAlchemy's expressions, because what matters are the
very expressions: which cast, which comparison, which join. Values always travel as parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cellsync.db import encoding
from cellsync.db.dialects import Dialect, escaped
from cellsync.db.encoding import Scalar
from cellsync.model import (
    Bucketing,
    Column,
    Dangling,
    Digest,
    Family,
    Join,
    Key,
    KeyPart,
    Pair,
    Projected,
    Projection,
    Row,
    SoftDelete,
    Value,
)

Record = Sequence[Value]
Decode = Callable[[Record], KeyPart]


def canonical(value: Value, family: Family) -> Value:
    """Return the canonical form of a value as the driver gives it.

    Only fractions of a second need a hand: DATETIME and DATETIME(6) print the same instant as
    "12:00:00" and "12:00:00.000000".
    """
    if family is Family.TEMPORAL and isinstance(value, str) and "." in value:
        return value.rstrip("0").rstrip(".")
    return value


@dataclass(frozen=True)
class Statement:
    """SQL text with named parameters (":k0"), and their values."""

    sql: str
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass
class _Encoded:
    """What some columns of a row are encoded from."""

    scalars: list[Scalar] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    """For each reference whether it is NULL (0), leads to a live row (1), or does not (2)."""


class Select:
    """The SELECTs of one projection in one dialect: its rows, or their digests.

    ``columns`` holds the columns of each table by name. With ``tombstones`` it reads the
    soft-deleted rows, and follows references to deleted rows as well.
    """

    def __init__(
        self,
        projection: Projection,
        dialect: Dialect,
        columns: Mapping[str, Mapping[str, Column]],
        *,
        tombstones: bool = False,
    ) -> None:
        self._projection = projection
        self._dialect = dialect
        self._known = columns
        self._tombstones = tombstones
        self._outputs: list[str] = []
        self._joins: list[str] = []
        # How each part of the key compares with parameters: one expression for each scalar.
        self._comparable: list[list[str]] = []
        self._encoded = _Encoded()
        self._key = [self._key_part(p) for p in projection.key]
        self._encoded_key = _Encoded([*self._encoded.scalars], [*self._encoded.flags])
        self._key_end = len(self._outputs)
        self._columns = [self._part("t", projection.table, p, []) for p in projection.columns]
        self._identity_at = len(self._outputs)
        for name, family in zip(projection.identity, projection.identity_families, strict=True):
            self._outputs.append(self._read("t", projection.table, name, family))
        self._route_at = self._optional(projection.route)
        self._age_at = len(self._outputs)

    def statement(self, *, keys: Sequence[Key] | None = None, suffix: str = "") -> Statement:
        """Return the SELECT for all rows in scope, or for those whose key matches one of ``keys``."""
        outputs = [*self._outputs, *self._times(), self._limbo()]
        condition, parameters = self._matching(keys) if keys is not None else (None, {})
        return Statement(self._select(outputs, condition, suffix=suffix) + suffix, parameters)

    def _select(self, outputs: Sequence[str], condition: str | None = None, *, suffix: str = "") -> str:
        """Return the SELECT of some outputs for all rows in scope, or for those under a condition."""
        projection = self._projection
        source = self._dialect.quote(projection.table)
        if projection.where is not None and not self._tombstones:
            # Inside as well: FOR UPDATE does not reach into a derived table.
            source = f"(SELECT * FROM {source} WHERE ({escaped(projection.where)}){suffix})"
        conditions = [self._liveness(projection.soft_delete)] if projection.soft_delete is not None else []
        conditions += [condition] if condition is not None else []
        sql = f"SELECT {', '.join(outputs)} FROM {source} AS t{''.join(self._joins)}"
        return sql + (" WHERE " + " AND ".join(conditions) if conditions else "")

    def row(self, record: Record) -> Row:
        """Return the row of one record of ``statement``'s result."""
        projection, start = self._projection, self._identity_at
        times = [str(value) for value in record[self._age_at : -1] if value is not None]
        return Row(
            key=tuple(decode(record) for decode in self._key),
            values=tuple(decode(record) for decode in self._columns),
            identity=tuple(
                canonical(value, family)
                for value, family in zip(
                    record[start : start + len(projection.identity)],
                    projection.identity_families,
                    strict=True,
                )
            ),
            route=None if self._route_at is None else record[self._route_at],
            since=max(times, default=None),
            limbo=bool(record[-1]),
        )

    # -- Digests ---------------------------------------------------------------------------

    def span(self) -> Statement:
        """Return the SELECT of the smallest and the largest key there is, deleted rows included."""
        raw = f"t.{self._dialect.quote(self._projection.key[0].column)}"
        return Statement(
            f"SELECT MIN({raw}), MAX({raw}) FROM {self._dialect.quote(self._projection.table)} AS t"
        )

    def digests(self, bucketing: Bucketing) -> Statement:
        """Return the SELECT of all digests: one pass over the table."""
        grouped = [f"{self._bucket(bucketing)} AS bucket", f"{self._owner()} AS owner"]
        rows, odd = f"COUNT(IF({self._limbo()}, NULL, 1))", f"COUNT(IF({self._odd()}, 1, NULL))"
        sql = self._select([*grouped, rows, f"BIT_XOR({self._hash(bucketing)})", odd])
        # In no order: the server would sort the groups.
        return Statement(f"{sql} GROUP BY bucket, owner ORDER BY NULL")

    def digest(self, record: Record) -> Digest:
        """Return the digest of one record of ``digests``'s result."""
        bucket, owner, rows, checksum, odd = record
        return Digest(int(bucket), int(rows), int(checksum), bool(odd), owner)  # type: ignore[arg-type]

    def doubles(self, bucketing: Bucketing) -> Statement:
        """Return the SELECT of the buckets in which a key occurs more than once.

        Where the schema keeps keys apart, only those with a NULL are looked at.
        """
        nulls = [f"t.{self._dialect.quote(name)} IS NULL" for name in self._projection.nullable]
        condition = f"({' OR '.join(nulls) or '0'})" if self._projection.unique else None
        key = encoding.hashed(self._key_encoding(), bucketing.fold)
        grouped = [f"{self._bucket(bucketing)} AS bucket", f"{key} AS hash"]
        sql = self._select(grouped, condition)
        return Statement(
            f"SELECT DISTINCT bucket FROM (SELECT bucket FROM ({sql}) AS h GROUP BY bucket, hash "
            "HAVING COUNT(*) > 1) AS d"
        )

    def pairs(self, bucketing: Bucketing, buckets: Sequence[int] | None) -> Statement:
        """Return the SELECT of keys and checksums, of some buckets or of all."""
        owner = "NULL" if self._route_at is None else self._outputs[self._route_at]
        bucket = self._bucket(bucketing)
        outputs = [*self._outputs[: self._key_end], self._hash(bucketing), bucket, self._odd(), owner]
        if buckets is None:
            return Statement(self._select(outputs))
        return Statement(self._select(outputs, encoding.within(self._raw_key(), bucket, bucketing, buckets)))

    def pair(self, record: Record) -> Pair:
        """Return the pair of one record of ``pairs``'s result."""
        checksum, bucket, odd, owner = record[-4:]
        key = tuple(decode(record) for decode in self._key)
        return Pair(key, checksum, bucket, bool(odd), owner)  # type: ignore[arg-type]

    def _raw_key(self) -> str:
        return f"t.{self._dialect.quote(self._projection.key[0].column)}"

    def _key_encoding(self) -> str:
        return encoding.encoded(self._encoded_key.scalars, self._encoded_key.flags)

    def _bucket(self, bucketing: Bucketing) -> str:
        key = self._encoded_key
        return encoding.bucket(key.scalars, key.flags, self._raw_key(), bucketing)

    def _hash(self, bucketing: Bucketing) -> str:
        return encoding.hashed(encoding.encoded(self._encoded.scalars, self._encoded.flags), bucketing.fold)

    def _odd(self) -> str:
        return "(" + " OR ".join([self._limbo(), *(f"{flag} = 2" for flag in self._encoded.flags)]) + ")"

    def _owner(self) -> str:
        """Return what tells the rows of one child from another's: the path up to the last "@", or all."""
        if self._route_at is None:
            return "NULL"
        raw = f"CONVERT({self._outputs[self._route_at]} USING utf8mb4) COLLATE utf8mb4_nopad_bin"
        path = f"LEFT({raw}, CHAR_LENGTH({raw}) - LOCATE('@', REVERSE({raw})) + 1)"
        return f"IF(LOCATE('@', {raw}) > 0, {path}, {raw})"

    # -- Parts -----------------------------------------------------------------------------

    def _optional(self, column: str | None) -> int | None:
        if column is None:
            return None
        self._outputs.append(f"t.{self._dialect.quote(column)}")
        return len(self._outputs) - 1

    def _times(self) -> list[str]:
        soft_delete = self._projection.soft_delete
        stamped = [soft_delete.at] if self._tombstones and soft_delete else list(self._projection.age)
        return [
            self._read("t", self._projection.table, name, Family.TEMPORAL) if name else "NULL"
            for name in stamped
        ]

    def _limbo(self) -> str:
        soft_delete = self._projection.soft_delete
        return f"t.{self._dialect.quote(soft_delete.column)} IS NULL" if soft_delete else "0"

    def _liveness(self, soft_delete: SoftDelete) -> str:
        column = f"t.{self._dialect.quote(soft_delete.column)}"
        live = _literal(self._dialect, soft_delete.live)
        return f"{column} <> {live}" if self._tombstones else f"({column} = {live} OR {column} IS NULL)"

    def _read(self, alias: str, table: str, column: str, family: Family) -> str:
        known = self._known.get(table, {}).get(column)
        kind = known.type if known else ""
        return self._dialect.canonical(f"{alias}.{self._dialect.quote(column)}", kind, family)

    def _key_part(self, projected: Projected) -> Decode:
        comparable: list[str] = []
        decode = self._part("t", self._projection.table, projected, comparable)
        self._comparable.append(comparable)
        return decode

    def _part(self, alias: str, table: str, projected: Projected, comparable: list[str]) -> Decode:
        """Add the outputs of one column; add to ``comparable`` what its scalars compare as."""
        if projected.join is not None:
            return self._reference(alias, projected.column, projected.join, comparable)
        names = {"parent": self._projection.parent, "child": self._projection.child}
        raw = f"{alias}.{self._dialect.quote(projected.column)}"
        read = self._read(alias, table, projected.column, projected.family)
        # Compared uncast, a column can use its index; only a FLOAT must be compared as a double.
        plain = read if projected.family is Family.FLOAT else raw
        comparable.append(self._dialect.transformed(projected, plain, **names))
        self._outputs.append(self._dialect.transformed(projected, read, **names))
        known = self._known.get(table, {}).get(projected.column)
        if known is not None:
            self._encoded.scalars.append(Scalar(self._outputs[-1], known))
        return _scalar(len(self._outputs) - 1, projected.family)

    def _reference(self, alias: str, column: str, join: Join, comparable: list[str]) -> Decode:
        quote = self._dialect.quote
        joined, raw = f"r{len(self._joins)}", f"{alias}.{quote(column)}"
        surrogate = f"{joined}.{quote(join.column)}"
        self._joins.append(f" LEFT JOIN {quote(join.table)} AS {joined} ON {surrogate} = {raw}")
        live = "1"
        if join.soft_delete is not None and not self._tombstones:
            live_value = _literal(self._dialect, join.soft_delete.live)
            live = f"{joined}.{quote(join.soft_delete.column)} = {live_value}"
        at, found = len(self._outputs), f"{surrogate} IS NOT NULL"
        self._outputs += [raw, found, live]
        self._encoded.flags.append(f"IF({raw} IS NULL, 0, IF({found} AND {live}, 1, 2))")
        return _referenced(at, [self._part(joined, join.table, part, comparable) for part in join.key])

    def _matching(self, keys: Sequence[Key]) -> tuple[str, dict[str, Value]]:
        """Return a condition that holds for the rows of these keys, and its parameters.

        It may hold for more: for what is equal under a collation, or refers to nothing as well.
        """
        parameters: dict[str, Value] = {}

        def parameter(value: Value) -> str:
            name = f"k{len(parameters)}"
            parameters[name] = value
            return f":{name}"

        alternatives = []
        if len(self._projection.key) == 1 and self._projection.key[0].join is None:
            plain = [part for (part,) in keys if part is not None and not isinstance(part, (tuple, Dangling))]
            if plain:
                alternatives.append(f"{self._comparable[0][0]} IN ({', '.join(map(parameter, plain))})")
            keys = [key for key in keys if key[0] is None]
        for key in keys:
            terms = []
            for projected, expressions, part in zip(self._projection.key, self._comparable, key, strict=True):
                for expression, value in zip(expressions, _scalars(part, projected), strict=True):
                    if not isinstance(value, Dangling):
                        terms.append(f"{expression} {self._dialect.same} {parameter(value)}")
                if projected.join is not None:
                    terms.append(self._held(projected.column, part, parameter))
            alternatives.append("(" + " AND ".join(terms) + ")")
        return ("(" + " OR ".join(alternatives) + ")" if alternatives else "1 = 0"), parameters

    def _held(self, column: str, part: KeyPart, parameter: Callable[[Value], str]) -> str:
        """Return a condition for what a reference itself holds, whatever it leads to."""
        raw = f"t.{self._dialect.quote(column)}"
        if isinstance(part, Dangling):
            return f"{raw} {self._dialect.same} {parameter(part.raw)}"
        # No reference, and one to a row whose key is NULL, join to the same NULLs.
        return f"{raw} IS NULL" if part is None else f"{raw} IS NOT NULL"


def _scalars(part: KeyPart, projected: Projected) -> list[Value | Dangling]:
    """Return the scalars of one key part: those of a reference's key, or as many NULLs as it has.

    Where a reference leads to nothing, each of them is that.
    """
    if projected.join is None:
        return [None if isinstance(part, tuple) else part]
    keys = projected.join.key
    parts = part if isinstance(part, tuple) else (part,) * len(keys)
    return [scalar for each, inner in zip(parts, keys, strict=True) for scalar in _scalars(each, inner)]


def _literal(dialect: Dialect, value: Value) -> str:
    return str(value) if isinstance(value, int) else dialect.literal(str(value))


def _scalar(at: int, family: Family) -> Decode:
    if family is Family.TEMPORAL:
        return lambda record: canonical(record[at], family)
    return lambda record: record[at]


def _referenced(at: int, parts: Sequence[Decode]) -> Decode:
    def decode(record: Record) -> KeyPart:
        raw, found, live = record[at : at + 3]
        if raw is None:
            return None
        if not found or not live:
            return Dangling(raw=raw, deleted=bool(found))
        return tuple(part(record) for part in parts)

    return decode
