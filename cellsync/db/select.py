"""Write a projection as one SELECT, and read its result back as rows.

Text is rendered here rather than through SQLAlchemy's expressions, because what matters are the
very expressions: which cast, which comparison, which join. Values always travel as parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cellsync.db.dialects import Dialect, escaped
from cellsync.model import Dangling, Family, Join, Key, KeyPart, Projected, Projection, Row, SoftDelete, Value

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


class Select:
    """The SELECT of one projection in one dialect.

    ``types`` holds the types of the columns of each table by name. With ``tombstones`` it reads
    the soft-deleted rows, and follows references to deleted rows as well.
    """

    def __init__(
        self,
        projection: Projection,
        dialect: Dialect,
        types: Mapping[str, Mapping[str, str]],
        *,
        tombstones: bool = False,
    ) -> None:
        self._projection = projection
        self._dialect = dialect
        self._types = types
        self._tombstones = tombstones
        self._outputs: list[str] = []
        self._joins: list[str] = []
        # How each part of the key compares with parameters: one expression for each scalar.
        self._comparable: list[list[str]] = []
        self._key = [self._key_part(p) for p in projection.key]
        self._columns = [self._part("t", projection.table, p, []) for p in projection.columns]
        self._identity_at = len(self._outputs)
        for name, family in zip(projection.identity, projection.identity_families, strict=True):
            self._outputs.append(self._read("t", projection.table, name, family))
        self._route_at = self._optional(projection.route)
        self._age_at = len(self._outputs)

    def statement(self, *, keys: Sequence[Key] | None = None, suffix: str = "") -> Statement:
        """Return the SELECT for all rows in scope, or for those whose key matches one of ``keys``."""
        projection, quote = self._projection, self._dialect.quote
        outputs = [*self._outputs, *self._times(), self._limbo()]
        conditions: list[str] = []
        parameters: dict[str, Value] = {}
        if projection.soft_delete is not None:
            conditions.append(self._liveness(projection.soft_delete))
        if keys is not None:
            condition, parameters = self._matching(keys)
            conditions.append(condition)
        source = quote(projection.table)
        if projection.where is not None and not self._tombstones:
            # Inside as well: FOR UPDATE does not reach into a derived table.
            source = f"(SELECT * FROM {source} WHERE ({escaped(projection.where)}){suffix})"
        sql = f"SELECT {', '.join(outputs)} FROM {source} AS t{''.join(self._joins)}"
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        return Statement(sql + suffix, parameters)

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
        kind = self._types.get(table, {}).get(column, "")
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
        at = len(self._outputs)
        self._outputs += [raw, f"{surrogate} IS NOT NULL", live]
        return _referenced(at, [self._part(joined, join.table, part, comparable) for part in join.key])

    def _matching(self, keys: Sequence[Key]) -> tuple[str, dict[str, Value]]:
        parameters: dict[str, Value] = {}
        alternatives = []
        for key in keys:
            terms = []
            for projected, expressions, part in zip(self._projection.key, self._comparable, key, strict=True):
                for expression, value in zip(expressions, _scalars(part, projected), strict=True):
                    name = f"k{len(parameters)}"
                    parameters[name] = value
                    terms.append(f"{expression} {self._dialect.same} :{name}")
                if projected.join is not None and not isinstance(part, Dangling):
                    # No reference, and one to a row whose key is NULL, join to the same NULLs.
                    negation = "" if part is None else "NOT "
                    terms.append(f"t.{self._dialect.quote(projected.column)} IS {negation}NULL")
            alternatives.append("(" + " AND ".join(terms) + ")")
        return ("(" + " OR ".join(alternatives) + ")" if alternatives else "1 = 0"), parameters


def _scalars(part: KeyPart, projected: Projected) -> list[Value]:
    """Return the scalars of one key part: those of a reference's key, or as many NULLs as it has."""
    if projected.join is None:
        return [None if isinstance(part, (tuple, Dangling)) else part]
    keys = projected.join.key
    parts = part if isinstance(part, tuple) else (None,) * len(keys)
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
