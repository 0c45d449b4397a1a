"""Write a projection as one SELECT, and read its result back as rows.

Text is rendered here rather than through SQLAlchemy's expressions, because what matters are the
very expressions: which cast, which comparison, which join. Values always travel as parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import cast

from cellsync.db import bundling, charsets, encoding, joining, packing
from cellsync.db.bundling import Parse
from cellsync.db.canonical import canonical, canonical_columns
from cellsync.db.dialects import Dialect, escaped
from cellsync.db.encoding import Scalar
from cellsync.db.joining import Field
from cellsync.errors import ReadFailed
from cellsync.model import (
    Bucketing,
    Bundle,
    Column,
    Dangling,
    Digest,
    Family,
    Fold,
    Identity,
    Join,
    Key,
    KeyPart,
    Packed,
    Pair,
    Projected,
    Projection,
    Row,
    SoftDelete,
    Value,
)

Record = Sequence[Value]


@dataclass(frozen=True)
class Decode:
    """How one part of a row is read from a record."""

    at: int
    """Where it stands, or begins."""
    by_hand: Callable[[Record], KeyPart] | None = None
    """What reads it where it is not simply what stands there."""

    def __call__(self, record: Record) -> KeyPart:
        """Return the part."""
        return record[self.at] if self.by_hand is None else self.by_hand(record)


Parts = Callable[[Record], tuple[KeyPart, ...]]


@dataclass(frozen=True)
class Statement:
    """SQL text with named parameters (":k0"), and their values."""

    sql: str
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Joined:
    """A SELECT that has each record as one value."""

    statement: Statement
    fields: Sequence[Field]


@dataclass
class _Encoded:
    """What some columns of a row are encoded from."""

    scalars: list[Scalar] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    """For each reference whether it is NULL (0), leads to a live row (1), or does not (2)."""
    fields: list[str] = field(default_factory=list)
    """The same values as the fields of a text that can be read back."""


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
        # The same as parts of one value, for ``joined``; None where one cannot be that.
        self._fields: list[Field | None] = []
        self._joins: list[str] = []
        # How each part of the key compares with parameters: one expression for each scalar.
        self._comparable: list[list[str]] = []
        # Columns of a charset that does not have every character, by how they compare.
        self._limited: dict[str, Column] = {}
        self._encoded = _Encoded()
        keys = [self._key_part(p) for p in projection.key]
        self._key = _together([decode for decode, _ in keys])
        self._parse = [parse for _, parse in keys]
        known = self._encoded
        self._encoded_key = _Encoded([*known.scalars], [*known.flags], [*known.fields])
        self._columns = _together([self._part("t", projection.table, p, [])[0] for p in projection.columns])
        # Not encoded: what is carried is no part of a comparison.
        compared, self._encoded = self._encoded, _Encoded()
        self._carried = _together([self._part("t", projection.table, p, [])[0] for p in projection.carried])
        self._scalars = [*compared.scalars, *self._encoded.scalars]
        self._encoded = compared
        identity: list[Decode] = []
        for name, family in zip(projection.identity, projection.identity_families, strict=True):
            identity.append(_scalar(len(self._outputs), family))
            read = self._read("t", projection.table, name, family)
            self._add(read, self._field(read, projection.table, name))
        self._identity = cast(Callable[[Record], Identity], _together(identity))
        self._route_at = self._optional(projection.route)
        self._age_at = len(self._outputs)

    def statement(self, *, keys: Sequence[Key] | None = None, suffix: str = "") -> Statement:
        """Return the SELECT for all rows in scope, or for those whose key matches one of ``keys``."""
        outputs = [*self._outputs, *self._times(), self._limbo()]
        condition, parameters = self._matching(keys) if keys is not None else (None, {})
        return Statement(self._select(outputs, condition, suffix=suffix) + suffix, parameters)

    def joined(self, keys: Sequence[Key]) -> Joined | None:
        """Return the same for some keys, with each record as one value; None where one is not exact so."""
        known = [field for field in self._fields if field is not None]
        if len(known) < len(self._fields):
            return None
        known += [*map(joining.text, self._times()), joining.number(self._limbo())]
        condition, parameters = self._matching(keys)
        return Joined(Statement(self._select([joining.record(known)], condition), parameters), known)

    def rows(self, fields: Sequence[Field], values: Sequence[bytes]) -> Iterator[Row]:
        """Return the rows of the result of a ``Joined``. Raises ReadFailed."""
        try:
            columns = joining.columns(fields, values)
        except UnicodeDecodeError as error:  # a server takes half of a surrogate pair
            raise ReadFailed(f"a row of {self._projection.table}: {error.reason}") from None
        if self._joins or self._projection.age or self._tombstones:
            return map(self.row, zip(*columns, strict=True))
        return self._plain_rows(columns, len(values))

    def _plain_rows(self, columns: Sequence[Sequence[Value]], number: int) -> Iterator[Row]:
        """Return what ``row`` does of each record, column by column: without references and times."""
        projection = self._projection

        def parts(first: int, count: int, families: Iterable[Family]) -> Iterable[tuple[KeyPart, ...]]:
            some = canonical_columns(columns[first : first + count], families)
            return zip(*some, strict=True) if some else repeat((), number)

        every, at = [], 0
        for projected in (projection.key, projection.columns, projection.carried):
            every.append(parts(at, len(projected), [part.family for part in projected]))
            at += len(projected)
        key, compared, carried = every
        identity = parts(at, len(projection.identity), projection.identity_families)
        route = repeat(None, number) if self._route_at is None else columns[self._route_at]
        limbo = map(bool, columns[-1])
        return map(Row, key, compared, identity, route, repeat(None, number), limbo, carried)

    def _select(
        self, outputs: Sequence[str], condition: str | None = None, *, suffix: str = "", hint: str = ""
    ) -> str:
        """Return the SELECT of some outputs for all rows in scope, or for those under a condition."""
        projection = self._projection
        source = self._dialect.quote(projection.table)
        if projection.where is not None and not self._tombstones:
            # Inside as well: FOR UPDATE does not reach into a derived table.
            source = (
                f"(SELECT {self._every()} FROM {source}{hint} WHERE ({escaped(projection.where)}){suffix})"
            )
            hint = ""
        conditions = [self._liveness(projection.soft_delete)] if projection.soft_delete is not None else []
        conditions += [condition] if condition is not None else []
        sql = f"SELECT {', '.join(outputs)} FROM {source} AS t{hint}{''.join(self._joins)}"
        return sql + (" WHERE " + " AND ".join(conditions) if conditions else "")

    def _every(self) -> str:
        """Return what selects all columns of the table; * leaves the invisible ones out."""
        known = self._known.get(self._projection.table, {}).values()
        names = ", ".join(self._dialect.quote(column.name) for column in known)
        return names if any(column.invisible for column in known) else "*"

    def row(self, record: Record) -> Row:
        """Return the row of one record of ``statement``'s result."""
        times = [str(value) for value in record[self._age_at : -1] if value is not None]
        return Row(
            self._key(record),
            self._columns(record),
            self._identity(record),
            route=None if self._route_at is None else record[self._route_at],
            since=max(times, default=None),
            limbo=bool(record[-1]),
            carried=self._carried(record),
        )

    # -- Packed rows -----------------------------------------------------------------------

    def packed(self, fold: Fold) -> Statement:
        """Return the SELECT of all rows in scope as literals; only where there are no references.

        What belongs to a row is one value, which a driver reads in half the time of three.
        """
        checksum = encoding.hashed(encoding.encoded(self._encoded.scalars, ()), fold)
        row = f"CONCAT({self._identified()}, ',', {checksum}, ',', {packing.literals(self._scalars)})"
        return Statement(self._select([f"IF({self._limbo()}, NULL, {row})", *self._times()]))

    def packed_row(self, record: Record) -> Packed:
        """Return the row of one record of ``packed``'s result. Raises ReadFailed where it has none."""
        row, *times = record
        if not isinstance(row, bytes):
            raise ReadFailed(f"a row of {self._projection.table} is too long, or in limbo")
        since = max((str(value) for value in times if value is not None), default=None)
        number, checksum, text = row.split(b",", 2)
        try:
            return Packed(text.decode("utf-8"), int(number), int(checksum), since)
        except UnicodeDecodeError as error:  # a server takes half of a surrogate pair
            raise ReadFailed(f"a row of {self._projection.table}: {error.reason}") from None

    def unpack(self) -> Callable[[Packed], Row]:
        """Return what makes the row of a packed one."""
        projection = self._projection
        parts = (*projection.key, *projection.columns, *projection.carried)
        values = packing.unpacked([part.family for part in parts], canonical)
        first, last = len(projection.key), len(projection.key) + len(projection.columns)

        def row(packed: Packed) -> Row:
            every = values(packed.text)
            return Row(
                every[:first],
                every[first:last],
                (packed.number,),
                since=packed.since,
                carried=every[last:],
            )

        return row

    def total(self, fold: Fold, numbers: Sequence[int] | None, index: str) -> Statement:
        """Return the SELECT of how many rows there are, and their checksum.

        Of some by primary key, through the ``index`` of that: by statistics of yesterday a server may
        take the table for empty, and would read all of it.
        """
        row = encoding.hashed(encoding.encoded(self._encoded.scalars, self._encoded.flags), fold)
        outputs = ["COUNT(*)", f"BIT_XOR({row})"]
        if numbers is None:
            return Statement(self._select(outputs))
        number = self._identified()
        within = f"{number} BETWEEN {min(numbers)} AND {max(numbers)} AND {number} IN "
        condition = f"{within}({', '.join(map(str, numbers))})"
        return Statement(
            self._select(outputs, condition, hint=f" FORCE INDEX ({self._dialect.quote(index)})")
        )

    def count(self, condition: str | None = None) -> str:
        """Return the SELECT of how many rows there are, those in limbo included."""
        return self._select(["COUNT(*)"], condition)

    def _identified(self) -> str:
        return f"t.{self._dialect.quote(self._projection.identity[0])}"

    # -- Digests ---------------------------------------------------------------------------

    def span(self) -> Statement:
        """Return the SELECT of the smallest and the largest key there is, deleted rows included."""
        raw = f"t.{self._dialect.quote(self._projection.key[0].column)}"
        return Statement(
            f"SELECT MIN({raw}), MAX({raw}) FROM {self._dialect.quote(self._projection.table)} AS t"
        )

    def digests(self, bucketing: Bucketing, buckets: Sequence[int] | None = None) -> Statement:
        """Return the SELECT of all digests, in one pass over the table, or of some buckets."""
        grouped = [f"{self._bucket(bucketing)} AS bucket", f"{self._owner()} AS owner"]
        rows, odd = f"COUNT(IF({self._limbo()}, NULL, 1))", f"COUNT(IF({self._odd()}, 1, NULL))"
        outputs = [*grouped, rows, f"BIT_XOR({self._hash(bucketing)})", odd]
        sql = self._select(outputs, self._within(bucketing, buckets))
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

    def sizes(self, bucketing: Bucketing) -> Statement:
        """Return the SELECT of how many rows each bucket has, as digests without a checksum."""
        grouped = [f"{self._bucket(bucketing)} AS bucket", f"{self._owner()} AS owner"]
        sql = self._select([*grouped, f"COUNT(IF({self._limbo()}, NULL, 1))", "0", "0"])
        return Statement(f"{sql} GROUP BY bucket, owner ORDER BY NULL")

    def bundles(self, bucketing: Bucketing, buckets: Sequence[int] | None, parts: int) -> Statement:
        """Return the SELECT of keys and checksums, of some buckets or of all, in order."""
        bucket, key = self._bucket(bucketing), self._encoded_key
        part = encoding.part(key.scalars, key.flags, parts)
        grouped = [f"{bucket} AS bucket", f"{part} AS part", f"{self._owner()} AS owner"]
        sql = self._select([*grouped, *self._together(bucketing)], self._within(bucketing, buckets))
        return Statement(f"{sql} GROUP BY bucket, part, owner ORDER BY bucket, part")

    def bundled(self, bucketing: Bucketing, bucket: int) -> Statement:
        """Return the SELECT of keys and checksums of one bucket of a ranged key, without a route."""
        outputs = [str(bucket), "0", "NULL", *self._together(bucketing)]
        return Statement(self._select(outputs, self._within(bucketing, [bucket])))

    def _together(self, bucketing: Bucketing) -> list[str]:
        """Return the outputs of a group of rows: how many they are, how many odd, and their texts."""
        row = bundling.text(self._encoded_key.fields, self._odd(), self._hash(bucketing))
        together = f"GROUP_CONCAT({row} SEPARATOR '{bundling.BETWEEN}')"
        return ["COUNT(*)", f"COUNT(IF({self._odd()}, 1, NULL))", together]

    def bundle(self, record: Record) -> Bundle:
        """Return the bundle of one record of ``bundles``'s result. Raises ReadFailed if it was cut."""
        bucket, part, owner, rows, odd, together = record
        assert isinstance(together, str)
        texts = tuple(together.split(bundling.BETWEEN))
        # Cut by group_concat_max_len or max_allowed_packet, with a warning at most.
        if len(texts) != int(rows) or not texts[-1].endswith(bundling.END):  # type: ignore[arg-type]
            raise ReadFailed(
                f"{len(texts)} keys and more of {self._projection.table} are too long for one answer of the "
                f"server: raise max_allowed_packet"
            )
        return Bundle(int(bucket), int(part), texts, bool(odd), owner)  # type: ignore[arg-type]

    def pair(self, text: str) -> Pair:
        """Return the pair of one text of a bundle."""
        fields = iter(text.removesuffix(bundling.END).split(","))
        key = tuple(parse(fields) for parse in self._parse)
        return Pair(key, odd=next(fields) == "1", checksum=int(next(fields)))

    def _raw_key(self) -> str:
        return f"t.{self._dialect.quote(self._projection.key[0].column)}"

    def _within(self, bucketing: Bucketing, buckets: Sequence[int] | None) -> str | None:
        if buckets is None:
            return None
        return encoding.within(self._raw_key(), self._bucket(bucketing), bucketing, buckets)

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
        table, output = self._projection.table, f"t.{self._dialect.quote(column)}"
        known = self._known.get(table, {}).get(column)
        # It is read without a cast; where it needs one to be exact, only the driver's value is what it is.
        same = known is not None and self._dialect.canonical(output, known.type, known.family) == output
        return self._add(output, self._field(output, table, column) if same else None)

    def _add(self, output: str, field: Field | None) -> int:
        """Add an output, and say where it stands."""
        self._outputs.append(output)
        self._fields.append(field)
        return len(self._outputs) - 1

    def _field(self, output: str, table: str, column: str) -> Field | None:
        known = self._known.get(table, {}).get(column)
        return None if known is None else joining.field(Scalar(output, known))

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

    def _key_part(self, projected: Projected) -> tuple[Decode, Parse]:
        comparable: list[str] = []
        both = self._part("t", self._projection.table, projected, comparable)
        self._comparable.append(comparable)
        return both

    def _part(
        self, alias: str, table: str, projected: Projected, comparable: list[str]
    ) -> tuple[Decode, Parse]:
        """Add the outputs of one column; add to ``comparable`` what its scalars compare as."""
        if projected.join is not None:
            return self._reference(alias, table, projected, projected.join, comparable)
        names = {"parent": self._projection.parent, "child": self._projection.child}
        raw = f"{alias}.{self._dialect.quote(projected.column)}"
        read = self._read(alias, table, projected.column, projected.family)
        # Compared uncast, a column can use its index; only a FLOAT must be compared as a double.
        plain = read if projected.family is Family.FLOAT else raw
        comparable.append(self._dialect.transformed(projected, plain, **names))
        column = self._known.get(table, {}).get(projected.column)
        if column is not None and charsets.is_limited(column) and projected.transform is None:
            self._limited[plain] = column
        output = self._dialect.transformed(projected, read, **names)
        # What a transform makes is text, whatever the column holds.
        readable = projected.transform is None or projected.family is Family.TEXT
        at = self._add(output, self._field(output, table, projected.column) if readable else None)
        known = self._known.get(table, {}).get(projected.column)
        if known is not None:
            # A time that is sent to nobody need not be cast to text first.
            quick = projected.family is Family.TEMPORAL and projected.transform is None
            scalar = Scalar(output, known, raw if quick else None)
            self._encoded.scalars.append(scalar)
            self._encoded.fields.append(bundling.field(scalar))
        return _scalar(at, projected.family), bundling.parsed(projected.family, canonical)

    def _reference(
        self, alias: str, table: str, projected: Projected, join: Join, comparable: list[str]
    ) -> tuple[Decode, Parse]:
        quote = self._dialect.quote
        joined, raw = f"r{len(self._joins)}", f"{alias}.{quote(projected.column)}"
        surrogate = f"{joined}.{quote(join.column)}"
        self._joins.append(f" LEFT JOIN {quote(join.table)} AS {joined} ON {surrogate} = {raw}")
        live = "1"
        if join.soft_delete is not None and not self._tombstones:
            live_value = _literal(self._dialect, join.soft_delete.live)
            live = f"{joined}.{quote(join.soft_delete.column)} = {live_value}"
        found = f"{surrogate} IS NOT NULL"
        read = self._read(alias, table, projected.column, projected.family)
        at = self._add(read, self._field(read, table, projected.column))
        self._add(found, joining.number(found))
        self._add(live, joining.number(live))
        self._encoded.flags.append(f"IF({raw} IS NULL, 0, IF({found} AND {live}, 1, 2))")
        known = self._known.get(table, {}).get(projected.column)
        if known is not None:
            quick = raw if projected.family is Family.TEMPORAL else None
            self._encoded.fields.append(bundling.reference(Scalar(read, known, quick), found, live))
        parts = [self._part(joined, join.table, part, comparable) for part in join.key]
        return (
            _referenced(at, projected.family, [decode for decode, _ in parts]),
            bundling.referenced(projected.family, [parse for _, parse in parts], canonical),
        )

    def _matching(self, keys: Sequence[Key]) -> tuple[str, dict[str, Value]]:
        """Return a condition that holds for the rows of these keys, and its parameters.

        It may hold for more: for what is equal under a collation, or refers to nothing as well.
        """
        parameters: dict[str, Value] = {}

        def parameter(value: Value) -> str:
            name = f"k{len(parameters)}"
            parameters[name] = value
            return f":{name}"

        def comparand(expression: str, value: Value) -> str:
            column, mark = self._limited.get(expression), parameter(value)
            return mark if column is None else charsets.limit_to_charset(mark, value, column)

        alternatives = []
        if len(self._projection.key) == 1 and self._projection.key[0].join is None:
            plain = [part for (part,) in keys if part is not None and not isinstance(part, (tuple, Dangling))]
            if plain:
                (expression,) = self._comparable[0]
                limited = expression in self._limited
                listed = [comparand(expression, part) if limited else parameter(part) for part in plain]
                alternatives.append(f"{expression} IN ({', '.join(listed)})")
            keys = [key for key in keys if key[0] is None]
        for key in keys:
            terms = []
            for projected, expressions, part in zip(self._projection.key, self._comparable, key, strict=True):
                for expression, value in zip(expressions, _scalars(part, projected), strict=True):
                    if not isinstance(value, Dangling):
                        # <=> with NULL, which stands for what no row can have, would find others.
                        plainly = expression in self._limited and value is not None
                        same = "=" if plainly else self._dialect.same
                        terms.append(f"{expression} {same} {comparand(expression, value)}")
                if projected.join is not None:
                    terms.append(self._held(projected, part, parameter))
            alternatives.append("(" + " AND ".join(terms) + ")")
        return ("(" + " OR ".join(alternatives) + ")" if alternatives else "1 = 0"), parameters

    def _held(self, projected: Projected, part: KeyPart, parameter: Callable[[Value], str]) -> str:
        """Return a condition for what a reference itself holds, whatever it leads to."""
        raw = f"t.{self._dialect.quote(projected.column)}"
        if isinstance(part, Dangling):
            exact = projected.family is Family.FLOAT
            held = self._read("t", self._projection.table, projected.column, Family.FLOAT) if exact else raw
            return f"{held} {self._dialect.same} {parameter(part.raw)}"
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
        return Decode(at, lambda record: canonical(record[at], family))
    return Decode(at)


def _referenced(at: int, family: Family, parts: Sequence[Decode]) -> Decode:
    def decode(record: Record) -> KeyPart:
        raw, found, live = record[at : at + 3]
        if raw is None:
            return None
        if not found or not live:
            return Dangling(raw=canonical(raw, family), deleted=bool(found))
        return tuple(part(record) for part in parts)

    return Decode(at, decode)


def _together(parts: Sequence[Decode]) -> Parts:
    """Return what reads several parts; most stand there as they are, and cost no call each."""
    if not parts:
        return lambda record: ()
    if len(parts) == 1:  # itemgetter would return it bare
        (only,) = parts
        return lambda record: (only(record),)
    plain = itemgetter(*(part.at for part in parts))
    by_hand = [(number, part.by_hand) for number, part in enumerate(parts) if part.by_hand is not None]
    if not by_hand:
        return plain

    def read(record: Record) -> tuple[KeyPart, ...]:
        values = [*plain(record)]
        for number, decode in by_hand:
            values[number] = decode(record)
        return tuple(values)

    return read
