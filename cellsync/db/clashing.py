"""Ask a server which rows planned ones would meet: holders of unique values, referenced and referring rows.

The planned values are sent as rows of a derived table whose columns have the types and collations of the
written table's, so the server itself compares them, through its own index: 4,000 rows of two columns take
30 ms. An IN of literals would not say which of them a row has met under the collation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from cellsync.db.canonical import canonical
from cellsync.db.session import LOG, Session, batches, plain, tuples
from cellsync.model import (
    Cascade,
    Column,
    Family,
    ForeignKey,
    Identity,
    Index,
    Join,
    Projection,
    Table,
    Value,
)

_ROWS_PER_QUERY = 4_000
_NUMBER = "`#`"
"""What a planned row is called by: its place among those that were asked about."""
_BARE = ("uuid", "inet4", "inet6")
"""Types that a server takes from text; a derived table of theirs is one that MariaDB calls corrupt."""
_UNSEARCHED = ("enum", "set", "float", "double")
"""Types that a server compares with others one by one, whatever index there is."""
_MOST_COMPARED = 20_000_000

_TIMES = {"date": "DATE", "time": "TIME", "datetime": "DATETIME", "timestamp": "DATETIME"}
_QUOTED = re.compile(r"`((?:[^`]|``)+)`")

Planned = Sequence[tuple[Value, ...]]
"""Rows by place: the values of the columns that were named."""


class Met(NamedTuple):
    """A planned row, by its place among those that were asked about, and the primary key of what it meets."""

    place: int
    identity: Identity


class Check(NamedTuple):
    """A CHECK constraint: of a column it has that one's name."""

    name: str
    clause: str


class Clashing(Session):
    """Finds what planned rows would clash with. Reads only; MariaDB alone."""

    def find_highest(self, table: str, column: str) -> Any:
        """Return the highest value of a column; None where there is none."""
        quote = self._dialect.quote
        ((value,),) = self.query(f"SELECT MAX({quote(column)}) FROM {quote(table)}")
        return value

    def has_rows(self, table: str) -> bool:
        """Say whether a table has any row, in the scope of a rule or not."""
        return bool(self._ask(f"SELECT 1 FROM {self._name(table)} LIMIT 1"))

    def can_find_holders(self, table: str, index: Index, rows: int) -> bool:
        """Say whether the holders of so many values are found in a time that makes sense."""
        known = self.tables([table])[table]
        kinds = {_kind(column) for name in index.columns if (column := known.column(name))}
        searched = not index.prefixes and kinds.isdisjoint(_UNSEARCHED)
        return searched or rows * max(1, known.estimate) <= _MOST_COMPARED

    def find_holders(
        self, table: str, index: Index, columns: Sequence[str], planned: Planned
    ) -> Iterator[Met]:
        """Yield the rows of a table that have the same in a unique index as a planned row.

        ``columns`` are ``Table.base_columns`` of the index. NULL meets nothing.
        """
        known = self.tables([table])[table]
        outputs = [self._computed(known, name) for name in index.columns]
        prefixes = index.prefixes or (None,) * len(index.columns)
        same = " AND ".join(
            f"{_cut(f't.{self._name(name)}', length)} = {_cut(f'd.{self._name(name)}', length)}"
            for name, length in zip(index.columns, prefixes, strict=True)
        )
        for first, rows in self._parts(known, columns, planned):
            sql = (
                f"SELECT d.{_NUMBER}, {self._identity('t', known)} FROM (SELECT {_NUMBER}, "
                f"{', '.join(outputs)} FROM ({rows}) AS v) AS d JOIN {self._name(table)} AS t ON {same}"
            )
            yield from self._met(sql, known, first)

    def find_referenced(self, key: ForeignKey, planned: Planned) -> Iterator[Met]:
        """Yield the rows to which planned ones refer through a foreign key."""
        known = self.tables([key.table])[key.table]
        for first, rows in self._parts(known, key.references, planned):
            same = " AND ".join(f"t.{self._name(name)} = d.{self._name(name)}" for name in key.references)
            sql = (
                f"SELECT d.{_NUMBER}, {self._identity('t', known)} FROM ({rows}) AS d "
                f"JOIN {self._name(key.table)} AS t ON {same}"
            )
            yield from self._met(sql, known, first)

    def find_referrers(
        self, table: str, key: Cascade, identities: Sequence[Identity], *, every: bool, itself: bool
    ) -> Iterator[Met]:
        """Yield the rows that refer through a foreign key to rows of a table with these primary keys.

        All of them with ``every``, else the first one of each. A row that refers to itself is one only with
        ``itself``.
        """
        known = self.tables([table])[table]
        other = self.tables([key.table])[key.table]
        names = known.identity
        found = " AND ".join(f"t.{self._name(name)} = d.{self._name(name)}" for name in names)
        pairs = zip(key.columns, key.references, strict=True)
        refers = " AND ".join(f"c.{self._name(column)} = t.{self._name(name)}" for column, name in pairs)
        if key.table == table and not itself:
            same = " AND ".join(f"c.{self._name(name)} = t.{self._name(name)}" for name in names)
            refers += f" AND NOT ({same})"
        for first, rows in self._parts(known, names, identities):
            source = f"FROM ({rows}) AS d JOIN {self._name(table)} AS t ON {found}"
            those = f"{self._name(key.table)} AS c"
            if every:
                outputs = self._identity("c", other)
                sql = f"SELECT d.{_NUMBER}, {outputs} {source} JOIN {those} ON {refers}"
            else:
                order = ", ".join(f"c.{self._name(name)}" for name in other.identity or key.columns)
                least = [
                    f"(SELECT {each} FROM {those} WHERE {refers} ORDER BY {order} LIMIT 1)"
                    for each in self._identities("c", other)
                ]
                there = f"EXISTS (SELECT 1 FROM {those} WHERE {refers})"
                sql = f"SELECT d.{_NUMBER}, {', '.join(least)} {source} WHERE {there}"
            yield from self._met(sql, other, first)

    def read_checks(self, table: str) -> list[Check]:
        """Return the CHECK constraints of a table, those of its JSON columns among them."""
        name = self.literal(table, writing=False)
        sql = (
            f"SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS "
            f"WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = {name} ORDER BY 1, 2"
        )
        return [Check(name, clause) for name, clause in self._ask(sql)]

    def find_broken(
        self, table: str, check: Check, columns: Sequence[str], planned: Planned
    ) -> Iterator[int]:
        """Yield the places of the planned rows that a CHECK does not take.

        ``columns`` are ``Table.base_columns`` of the columns that it names.
        """
        known = self.tables([table])[table]
        outputs = [self._cast(known, name) for name in columns]
        named = (known.column(name) for name in find_named(known, check.clause))
        outputs += [self._computed(known, each.name) for each in named if each and each.generated]
        for first, rows in self._parts(known, columns, planned):
            inner = f"SELECT {_NUMBER}, {', '.join(outputs)} FROM ({rows}) AS v"
            for (place,) in self._ask(f"SELECT d.{_NUMBER} FROM ({inner}) AS d WHERE NOT ({check.clause})"):
                yield first + int(place)

    def compute_values(
        self, table: str, name: str, columns: Sequence[str], planned: Planned
    ) -> Iterator[tuple[int, Value]]:
        """Yield the places of the planned rows, and what the server would compute of them in a column.

        ``columns`` are ``Table.base_columns`` of it.
        """
        known = self.tables([table])[table]
        column = known.column(name)
        assert column is not None and column.generated, name
        outputs = ", ".join([_NUMBER, *(self._cast(known, each) for each in columns)])
        value = plain(self._dialect.canonical(f"({column.expression})", column.type, column.family))
        for first, rows in self._parts(known, columns, planned):
            inner = f"SELECT {outputs} FROM ({rows}) AS v"
            for place, computed in self._ask(f"SELECT d.{_NUMBER}, {value} FROM ({inner}) AS d"):
                yield first + int(place), canonical(computed, column.family)

    def find_doubles(
        self, projection: Projection, index: Sequence[tuple[str, str | None, int | None]]
    ) -> list[list[Identity]]:
        """Return the rows in scope that would have the same in a unique index of another server, by group.

        ``index`` has each column with the collation that it has there, and how much of it counts. One query,
        which groups the whole table.
        """
        known = self.tables([projection.table])[projection.table]
        parts = [
            _cut(f"t.{self._name(name)}", length)
            if collation is None
            else _collated(self._name(name), collation, length)
            for name, collation, length in index
        ]
        conditions = [f"{self._name(name)} IS NOT NULL" for name, _, _ in index]
        if projection.where is not None:
            conditions.append(f"({projection.where})")
        if projection.soft_delete is not None:
            live = self.literal(projection.soft_delete.live, writing=False)
            conditions.append(f"{self._name(projection.soft_delete.column)} = {live}")
        columns = ", ".join(self._name(column.name) for column in known.columns)
        source = f"(SELECT {columns} FROM {self._name(projection.table)} WHERE {' AND '.join(conditions)})"
        label = f"MIN(CONCAT_WS('/', {', '.join(f'HEX(t.{self._name(n)})' for n in known.identity)}))"
        names = [f"p{number}" for number in range(len(parts))]
        grouped = ", ".join(f"{part} AS {name}" for part, name in zip(parts, names, strict=True))
        same = " AND ".join(f"{part} = g.{name}" for part, name in zip(parts, names, strict=True))
        doubled = (
            f"SELECT {grouped}, {label} AS label FROM {source} AS t GROUP BY {', '.join(names)} "
            f"HAVING COUNT(*) > 1"
        )
        outputs = self._identity("t", known)
        sql = f"SELECT g.label, {outputs} FROM {source} AS t JOIN ({doubled}) AS g ON {same}"
        groups: dict[Any, list[Identity]] = {}
        for place, *identity in self._ask(sql):
            groups.setdefault(place, []).append(self._canonical(known, identity))
        return [*groups.values()]

    def find_ambiguous(self, projection: Projection, column: str, join: Join) -> list[tuple[Value, int]]:
        """Return a value of a reference that more than one row has, and how many; [] where none is.

        Of the rows in scope. One query.
        """
        known = self.tables([projection.table])[projection.table].column(column)
        name = self._name(column)
        conditions = [f"{name} IS NOT NULL"]
        if projection.where is not None:
            conditions.append(f"({projection.where})")
        if projection.soft_delete is not None:
            live = self.literal(projection.soft_delete.live, writing=False)
            conditions.append(f"{self._name(projection.soft_delete.column)} = {live}")
        values = (
            f"SELECT DISTINCT {name} FROM {self._name(projection.table)} WHERE {' AND '.join(conditions)}"
        )
        sql = (
            f"SELECT t.{name}, COUNT(*) FROM ({values}) AS t JOIN {self._name(join.table)} AS r "
            f"ON r.{self._name(join.column)} = t.{name} GROUP BY t.{name} HAVING COUNT(*) > 1 "
            f"ORDER BY t.{name} LIMIT 1"
        )
        assert known is not None
        return [(canonical(value, known.family), int(count)) for value, count in self._ask(sql)]

    # -- Statements ------------------------------------------------------------------------

    def _parts(self, table: Table, columns: Sequence[str], planned: Planned) -> Iterator[tuple[int, str]]:
        """Yield the planned rows as SELECTs that fit into a statement, with the place of the first one."""
        head = ", ".join(self._header(table, name) for name in columns)
        first = 0
        for part in batches(planned, _ROWS_PER_QUERY):
            for place, sql in self._within_packet(f"SELECT 0 AS {_NUMBER}, {head}", table, part, first):
                yield place, self._converted_back(sql, table, columns)
            first += len(part)

    def _converted_back(self, sql: str, table: Table, columns: Sequence[str]) -> str:
        """Return the SELECT of planned rows with each text in the character set of its column.

        NULL, which meets nothing, where the character set does not have it: nor can a row then.
        """
        if not any(_is_converted(table.column(name)) for name in columns):
            return sql
        outputs = []
        for name in columns:
            column, quoted = table.column(name), self._name(name)
            if column is None or not _is_converted(column):
                outputs.append(quoted)
                continue
            there = f"CONVERT({quoted} USING {column.charset})"
            kept = f"CONVERT({there} USING utf8mb4) = {quoted} COLLATE utf8mb4_nopad_bin"
            outputs.append(f"IF({kept}, {there}, NULL) COLLATE {column.collation} AS {quoted}")
        return f"SELECT {_NUMBER}, {', '.join(outputs)} FROM ({sql}) AS w"

    def _within_packet(self, head: str, table: Table, rows: Planned, first: int) -> Iterator[tuple[int, str]]:
        columns = self._literals(zip(*rows, strict=True), writing=False)
        sql = (
            f"{head} FROM {self._name(table.name)} WHERE 0 UNION ALL VALUES "
            f"{tuples([[*map(str, range(len(rows)))], *columns])}"
        )
        if len(rows) > 1 and 4 * len(sql) > self.packet():
            half = len(rows) // 2
            yield from self._within_packet(head, table, rows[:half], first)
            yield from self._within_packet(head, table, rows[half:], first + half)
        else:
            yield first, sql

    def _header(self, table: Table, name: str) -> str:
        column = table.column(name)
        assert column is not None, name
        if _is_converted(column):
            return f"CONVERT({self._name(name)} USING utf8mb4) AS {self._name(name)}"
        return f"'' AS {self._name(name)}" if _kind(column) in _BARE else self._name(name)

    def _cast(self, table: Table, name: str) -> str:
        """Return the expression of a column, of its own type: beside text a time is text, too."""
        column = table.column(name)
        assert column is not None, name
        kind = _TIMES.get(_kind(column))
        # With as many digits as the column keeps: what is computed from it may show them.
        digits = column.type.partition("(")[2].partition(")")[0] or "0"
        size = "" if kind == "DATE" else f"({digits})"
        return f"CAST({self._name(name)} AS {kind}{size}) AS {self._name(name)}" if kind else self._name(name)

    def _computed(self, table: Table, name: str) -> str:
        """Return the expression of an index column, from the columns that decide it."""
        column = table.column(name)
        assert column is not None, name
        if not column.generated:
            return self._name(name)
        made = f"({column.expression})"
        if column.charset not in (None, "binary"):
            made = f"CONVERT({made} USING {column.charset}) COLLATE {column.collation}"
        return f"{made} AS {self._name(name)}"

    def _identities(self, alias: str, table: Table) -> list[str]:
        columns = [table.column(name) for name in table.identity]
        made = [
            plain(self._dialect.canonical(f"{alias}.{self._dialect.quote(c.name)}", c.type, c.family))
            for c in columns
            if c is not None
        ]
        return made or ["NULL"]

    def _identity(self, alias: str, table: Table) -> str:
        return ", ".join(self._identities(alias, table))

    def _name(self, name: str) -> str:
        return plain(self._dialect.quote(name))

    def _met(self, sql: str, table: Table, first: int) -> Iterator[Met]:
        for place, *identity in self._ask(sql):
            yield Met(first + int(place), self._canonical(table, identity))

    def _canonical(self, table: Table, identity: Collection[Value]) -> Identity:
        families = [column.family for name in table.identity if (column := table.column(name))]
        return tuple(map(canonical, identity, families or [Family.TEXT]))

    def _ask(self, sql: str) -> Sequence[Sequence[Any]]:
        """Run a query that holds its values already, just as it is."""
        shown = f"{sql.partition(' VALUES ')[0]} VALUES ..." if " VALUES " in sql else sql
        LOG.debug("%s: clashes: %s", self.cell.name, shown, extra={"cell": self.cell.name})
        with self._in_time():
            return self.connection.exec_driver_sql(sql, execution_options={"no_parameters": True}).all()


def find_named(table: Table, clause: str) -> list[str]:
    """Return the columns of a table that an expression of its server names."""
    names = (table.column(each.replace("``", "`")) for each in _QUOTED.findall(clause))
    return [*dict.fromkeys(column.name for column in names if column is not None)]


def _kind(column: Column) -> str:
    return column.type.partition("(")[0].partition(" ")[0]


def _is_converted(column: Column | None) -> bool:
    """Say whether a column has another character set than planned values are sent in: no UNION mixes them."""
    return column is not None and column.charset not in (None, "binary", "utf8mb4") and _is_plain_text(column)


def _is_plain_text(column: Column) -> bool:
    return _kind(column).endswith(("char", "text"))


def _cut(expression: str, length: int | None) -> str:
    return expression if length is None else f"LEFT({expression}, {length})"


def _collated(name: str, collation: str, length: int | None) -> str:
    charset = collation.partition("_")[0]
    return f"{_cut(f'CONVERT(t.{name} USING {charset})', length)} COLLATE {collation}"
