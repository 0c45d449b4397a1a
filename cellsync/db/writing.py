"""The Writer of apply: rows locked, looked up, written and read back, inside its transactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import sqlalchemy

from cellsync.db import joining, packing
from cellsync.db.canonical import canonical_columns
from cellsync.db.connect import SQL_MODE, translated
from cellsync.db.encoding import Scalar
from cellsync.db.joining import Field
from cellsync.db.select import Statement
from cellsync.db.session import (
    KEYS_PER_QUERY,
    LOG,
    SMALLEST_PACKET,
    Session,
    at_once,
    batches,
    plain,
    sent,
    tuples,
    version,
)
from cellsync.errors import Rejected
from cellsync.model import (
    Action,
    Cascade,
    Change,
    Column,
    Family,
    Identity,
    Join,
    Key,
    Projection,
    Row,
    ServerTime,
    Spelled,
    Table,
    Value,
)

_RETURNING = (10, 5)
"""The first version of MariaDB whose INSERT returns the rows; MySQL's does not."""

_AS_JSON = 16
"""More times than a packed row grows as JSON, where a character has four bytes, or six if it is escaped."""

_IN_A_CASE = 64
"""More bytes than stand around one value of a CASE, with the number of its row."""


_NOT_STRICT = f"SET STATEMENT sql_mode = '{SQL_MODE.replace('STRICT_ALL_TABLES,', '')}' FOR "


class _Whole(NamedTuple):
    """How whole rows of a table are read."""

    columns: Sequence[Column]
    outputs: str
    """The expressions that read them."""
    fields: Sequence[Field]
    """The same as parts of one value; () where one of them cannot be that."""

    @property
    def joined(self) -> str:
        """The expression that reads them as one value."""
        return joining.record(self.fields)

    def rows(self, records: Sequence[Sequence[Value]]) -> list[Mapping[str, Value]]:
        """Return rows as the server has them."""
        return self._rows([*zip(*records, strict=True)]) if records else []

    def taken_apart(self, records: Sequence[Sequence[Value]]) -> list[Mapping[str, Value]] | None:
        """Return the rows of joined records; None where one is too long to be joined, or is no text."""
        values = [value for (value,) in records]
        try:
            return None if None in values else self._rows(joining.columns(self.fields, values))  # type: ignore[arg-type]
        except UnicodeDecodeError:
            return None

    def _rows(self, values: Sequence[Sequence[Value]]) -> list[Mapping[str, Value]]:
        """Return rows from the values of each column, which get their canonical form."""
        alike = canonical_columns(values, [column.family for column in self.columns])
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*alike, strict=True)]


class Writing(Session):
    """Writes rows, guarded by what it locks."""

    def lock(
        self, table: str, identity: tuple[str, ...], identities: Sequence[Identity]
    ) -> Mapping[Identity, Mapping[str, Value]]:
        """Return whole rows by primary key, kept from changing until the transaction ends.

        A row that is not there is not in the result. Generated columns are left out.
        """
        return self._whole(table, identity, identities, self._dialect.lock_rows)

    def read_back(
        self, table: str, identity: tuple[str, ...], identities: Sequence[Identity]
    ) -> Mapping[Identity, Mapping[str, Value]]:
        """Return whole rows by primary key, as this transaction sees them."""
        return self._whole(table, identity, identities, "")

    def taken(self, projection: Projection, keys: Sequence[Key]) -> Sequence[Row]:
        """Return the rows that hold one of ``keys`` under the collation, and keep it that way.

        Until the transaction ends nobody can add a row with one of these keys (InnoDB locks the
        gaps that it searched).
        """
        select = self._select(projection)
        found: list[Row] = []
        for part in batches(keys, at_once(projection)):
            statement = select.statement(keys=part, suffix=self._dialect.lock_rows)
            found += [select.row(record) for record in self._write_query(statement)]
        return found

    def project_join(self, join: Join) -> Projection:
        """Return how the rows that a reference leads to are read: their keys, and the referenced column."""
        held = self.tables([join.table])[join.table].column(join.column)
        return Projection(
            rule=join.rule,
            table=join.table,
            key=join.key,
            columns=(),
            identity=(join.column,),
            identity_families=(held.family if held else Family.INTEGER,),
            soft_delete=join.soft_delete,
            parent="",
            child="",
        )

    def resolve(self, join: Join, keys: Sequence[Key]) -> Mapping[Key, tuple[Value, ...]]:
        """Return the surrogate ids of the live rows that hold each key, kept until the end.

        Compared binary: a row whose key is equal under the collation only is another row.
        """
        projection = self.project_join(join)
        select = self._select(projection)
        found: dict[Key, tuple[Value, ...]] = {}
        for part in batches(keys, at_once(projection)):
            statement = select.statement(keys=part, suffix=self._dialect.share_rows)
            for row in map(select.row, self._write_query(statement)):
                if not row.limbo:
                    # A row that two batches of keys match under the collation is still one.
                    found[row.key] = tuple(dict.fromkeys((*found.get(row.key, ()), row.identity[0])))
        return found

    def insert(self, table: str, values: Mapping[str, Value | ServerTime]) -> int:
        """Insert one row and return the number that the server gave it (0 where it gives none).

        Raises Rejected when the server does not take this row; the transaction goes on.
        """
        quote = self._dialect.quote
        names = ", ".join(quote(name) for name in values)
        expressions, parameters = self._assigned(values)
        head = f"{self._mode(table, values)}INSERT INTO {quote(table)}"
        sql = f"{head} ({names}) VALUES ({', '.join(expressions)})"
        return int(self._write(Statement(sql, parameters)).lastrowid or 0)

    def insert_many(
        self, table: str, rows: Sequence[Mapping[str, Value | ServerTime]]
    ) -> Sequence[Mapping[str, Value]] | None:
        """Insert rows with the same columns and return them whole, in order, as the server has them.

        None, with nothing inserted, where the server cannot return them (MariaDB before 10.5). Raises
        Rejected when the server does not take one of them: then none is inserted.
        """
        if self._dialect.name == "sqlite" or version(self._server()["version"]) < _RETURNING:
            return None
        if self._has_errors(table, rows):
            return None
        whole = self._whole_rows(table)
        names = ", ".join(map(self._dialect.quote, rows[0]))
        head = f"INSERT INTO {self._dialect.quote(table)} ({names}) VALUES "
        tail = f" RETURNING {whole.joined if whole.fields else whole.outputs}"
        made: list[Mapping[str, Value]] = []
        with self.all_or_none("many"):
            for part in self._parted(rows, len(head) + len(tail)):
                more = ", ..." if len(part) > 1 else ""
                LOG.debug(
                    "%s: %s%s%s%s",
                    self.cell.name,
                    head,
                    self._places(part[0]),
                    more,
                    tail,
                    extra={"cell": self.cell.name},
                )
                values = self._literals([row[name] for row in part] for name in rows[0])
                records = self.run(f"{plain(head)}{tuples(values)}{plain(tail)}").all()
                read = whole.taken_apart(records) if whole.fields else whole.rows(records)
                if read is None:
                    raise Rejected(f"{self.cell.name}: rows of {table} are too long to be returned together")
                made += read
        return made

    def load(
        self,
        table: str,
        columns: Sequence[str],
        filled: Mapping[str, Value | ServerTime],
        texts: Sequence[str],
        *,
        numbered: bool,
    ) -> Sequence[int]:
        """Insert packed rows and return the primary keys that the server gave them, in order.

        One statement. Rows that are ``numbered`` are given none. ``columns`` are those of the texts;
        ``filled`` is written with each row besides. Raises Rejected where the server does not take one of
        them, or all of it at once: then none is inserted; and where one is so long that ``spelled`` may not
        be able to spell it.
        """
        if _AS_JSON * max(map(len, texts)) > self.packet():
            raise Rejected(f"{self.cell.name}: a row is too long to be recorded like this")
        quote = self._dialect.quote
        names = ", ".join(map(quote, (*filled, *columns)))
        (number,) = self.tables([table])[table].identity
        now = self._dialect.now
        constant = [now if isinstance(v, ServerTime) else self.literal(v) for v in filled.values()]
        before = "".join(f"{each}, " for each in constant)
        rows = f"), ({before}".join(texts)
        head = f"INSERT INTO {quote(table)} ({names}) VALUES "
        tail = "" if numbered else f" RETURNING {quote(number)}"
        sql = f"{plain(head)}({before}{rows}){plain(tail)}"
        self._check_size(4 * len(sql))
        LOG.debug(
            "%s: %s... %s rows%s", self.cell.name, head, len(texts), tail, extra={"cell": self.cell.name}
        )
        result = self.run(sql)
        return [] if numbered else [int(row[0]) for row in result.all()]

    @property
    def loads(self) -> bool:
        """Say whether ``load`` can be used here. No query after ``identity``."""
        return self._dialect.name != "sqlite" and version(self._server()["version"]) >= _RETURNING

    def spelled(self, table: str, key: Sequence[str]) -> Spelled:
        """Return how this server spells rows of a table with these key columns, as the journal has them.

        For tables that ``load`` is for.
        """
        known, quote = self.tables([table])[table], self._dialect.quote
        scalars = {
            c.name.lower(): Scalar(self._dialect.canonical(f"t.{quote(c.name)}", c.type, c.family), c)
            for c in known.columns
        }
        row = [each for each in scalars.values() if not each.column.generated]
        # With its schema's name no other name of a statement hides it. A server that takes the table for
        # empty, by statistics of yesterday, would read all of it again and again.
        place = (
            f"{quote(self.identity().schema)}.{quote(table)} AS t FORCE INDEX ({quote(known.identity_index)})"
        )
        return Spelled(
            table=plain(place),
            number=plain(f"t.{quote(known.identity[0])}"),
            key=plain(packing.as_json_list([scalars[name.lower()] for name in key])),
            row=plain(packing.as_json(row)),
        )

    @contextmanager
    def all_or_none(self, savepoint: str = "alone") -> Iterator[None]:
        """Take back what was written inside where a row of it is Rejected; a nested one has another name."""
        with translated(self.cell.name, writing=True):
            self.connection.exec_driver_sql(f"SAVEPOINT {savepoint}")
        try:
            yield
        except Rejected:
            with translated(self.cell.name, writing=True):
                self.connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {savepoint}")
            raise

    def _places(self, row: Mapping[str, Value | ServerTime]) -> str:
        """Return where the values of one row stand in an INSERT."""
        now = self._dialect.now
        return f"({', '.join([now if isinstance(value, ServerTime) else '%s' for value in row.values()])})"

    def _parted(
        self, rows: Sequence[Mapping[str, Value | ServerTime]], around: int
    ) -> Iterator[list[Mapping[str, Value | ServerTime]]]:
        """Yield the rows in parts that fit into one statement each; raises Rejected where one does not."""
        part: list[Mapping[str, Value | ServerTime]] = []
        size, most = around, self.packet()
        for row in rows:
            more = sent(row.values())
            if part and size + more > most:
                yield part
                part, size = [], around
            self._check_size(more + around)
            part.append(row)
            size += more
        if part:
            yield part

    def update(
        self,
        table: str,
        identity: Mapping[str, Value],
        values: Mapping[str, Value | ServerTime],
    ) -> int:
        """Update the row of that primary key and return how many rows matched.

        Columns with ON UPDATE that are not among the values keep their own.
        """
        quote = self._dialect.quote
        expressions, parameters = self._assigned(values)
        assigned = [f"{quote(name)} = {each}" for name, each in zip(values, expressions, strict=True)]
        assignments = ", ".join([*assigned, *self._keep_stamped(table, values)])
        where, located = self._located(identity)
        sql = f"{self._mode(table, values)}UPDATE {quote(table)} SET {assignments} WHERE {where}"
        return int(self._write(Statement(sql, {**parameters, **located})).rowcount)

    def update_many(
        self, table: str, identity: tuple[str, ...], rows: Mapping[Identity, Mapping[str, Value | ServerTime]]
    ) -> bool:
        """Update rows, by primary key, with values of the same columns; say whether it was done.

        False, with nothing updated, where one statement cannot say it. Raises Rejected when the server does
        not take one of the rows, or when not each of them matched: then none is updated.
        """
        if self._dialect.name == "sqlite" or len(identity) > 1 or not _alike(rows):
            return False
        if self._has_errors(table, rows.values()):
            return False
        # Not a join with a table of the values: for that, MariaDB keeps them in one of its own, and with
        # shapes and UUIDs among them it says that its file is corrupt.
        number = plain(self._dialect.quote(identity[0]))
        names = {name: plain(self._dialect.quote(name)) for name in next(iter(rows.values()))}
        head, tail = f"UPDATE {plain(self._dialect.quote(table))} SET ", f" WHERE {number} IN "
        kept = [plain(each) for each in self._keep_stamped(table, names)]
        around = len(head) + len(tail) + sum(map(len, kept)) + _IN_A_CASE * len(names) * len(rows)
        # Under "", which is no name of a column, the number of the row.
        keyed: list[Mapping[str, Value | ServerTime]] = [{"": key[0], **row} for key, row in rows.items()]
        with self.all_or_none("many"):
            for part in self._parted(keyed, around):
                about = {"cell": self.cell.name}
                LOG.debug("%s: %s... of %s rows%s", self.cell.name, head, len(part), tail, extra=about)
                ids, *columns = self._literals([row[name] for row in part] for name in ("", *names))
                assigned = [
                    f"{quoted} = {self._case(part[0][name], number, ids, values)}"
                    for (name, quoted), values in zip(names.items(), columns, strict=True)
                ]
                changed = ", ".join([*assigned, *kept])
                matched = self.run(f"{head}{changed}{tail}({', '.join(ids)})").rowcount
                if matched != len(part):
                    raise Rejected(f"{self.cell.name}: {matched} of {len(part)} rows of {table} matched")
        return True

    def _keep_stamped(self, table: str, written: Iterable[str]) -> list[str]:
        """Return assignments that keep the columns which the server would else write with the row.

        A column with ON UPDATE that an UPDATE assigns, be it to itself, is not written by the server.
        """
        known = {name.lower() for name in written}
        names = [c.name for c in self.tables([table])[table].columns if c.stamped]
        quoted = [self._dialect.quote(name) for name in names if name.lower() not in known]
        return [f"{name} = {name}" for name in quoted]

    def _case(self, first: Value | ServerTime, number: str, ids: Sequence[str], values: Sequence[str]) -> str:
        """Return an expression for a column's values, the first of which is given, by the row's number."""
        if isinstance(first, ServerTime):  # then all are
            return self._dialect.now
        cases = [f" WHEN {each} THEN {value}" for each, value in zip(ids, values, strict=True)]
        return f"CASE {number}{''.join(cases)} END"

    def _mode(self, table: str, values: Mapping[str, Value | ServerTime]) -> str:
        """Return what a statement begins with where an ENUM gets its error value, "" with the number 0.

        In strict mode nothing writes that. What else the server would change in such a row is seen when it
        is read back.
        """
        return _NOT_STRICT if self._has_errors(table, (values,)) else ""

    def _has_errors(self, table: str, rows: Iterable[Mapping[str, Value | ServerTime]]) -> bool:
        """Say whether one of the rows has the error value of an ENUM."""
        columns = self._error_columns.get(table)
        if columns is None:
            known = self.tables([table]).get(table)
            columns = [c.name for c in (known.columns if known else ()) if c.takes_error]
            self._error_columns[table] = columns
        return bool(columns) and any(row.get(name) == "" for row in rows for name in columns)

    def delete(self, table: str, identity: Mapping[str, Value]) -> int:
        """Delete the row of that primary key and return how many rows there were."""
        where, parameters = self._located(identity)
        sql = f"DELETE FROM {self._dialect.quote(table)} WHERE {where}"
        return int(self._write(Statement(sql, parameters)).rowcount)

    def follows(self, cascade: Cascade, row: Mapping[str, Value]) -> bool:
        """Say whether any row refers to a row through a foreign key; none is added until the end."""
        quote = self._dialect.quote
        held = {name.lower(): value for name, value in row.items()}
        pairs = zip(cascade.columns, cascade.references, strict=True)
        where, parameters = self._located({column: held[name.lower()] for column, name in pairs})
        sql = f"SELECT 1 FROM {quote(cascade.table)} WHERE {where} LIMIT 1{self._dialect.lock_rows}"
        return bool(self._write_query(Statement(sql, parameters)))

    def _assigned(self, values: Mapping[str, Value | ServerTime]) -> tuple[list[str], dict[str, Value]]:
        expressions, parameters = [], {}
        for index, value in enumerate(values.values()):
            if isinstance(value, ServerTime):
                expressions.append(self._dialect.now)
            else:
                expressions.append(f":v{index}")
                parameters[f"v{index}"] = self._bound(value)
        return expressions, parameters

    def _located(self, identity: Mapping[str, Value]) -> tuple[str, dict[str, Value]]:
        terms = [f"{self._dialect.quote(name)} = :i{index}" for index, name in enumerate(identity)]
        return " AND ".join(terms), {f"i{index}": value for index, value in enumerate(identity.values())}

    def _bound(self, value: Value) -> Value:
        # sqlite3 has no decimals; its own columns have none either.
        plain = value is None or isinstance(value, (int, float, str, bytes))
        return value if plain or self._dialect.name != "sqlite" else str(value)

    def _whole(
        self, table: str, identity: tuple[str, ...], identities: Sequence[Identity], suffix: str
    ) -> dict[Identity, Mapping[str, Value]]:
        known, whole = self.tables([table])[table], self._whole_rows(table)
        spelled = [known_name(known, name) for name in identity]
        quoted = tuple(map(self._dialect.quote, identity))
        found: dict[Identity, Mapping[str, Value]] = {}
        for part in batches(identities, KEYS_PER_QUERY):
            names, where = _one_of(quoted, len(part))
            tail = f" FROM {self._dialect.quote(table)} WHERE {where}{suffix}"
            parameters = dict(zip(names, chain.from_iterable(part), strict=True))
            for row in self._whole_of(whole, tail, parameters):
                found[tuple([row[name] for name in spelled])] = row
        return found

    def _whole_of(
        self, whole: _Whole, tail: str, parameters: Mapping[str, Value]
    ) -> list[Mapping[str, Value]]:
        """Return whole rows; each is one value on the wire, unless it is too long for that."""
        if whole.fields:
            joined = self._write_query(Statement(f"SELECT {whole.joined}{tail}", parameters))
            if (rows := whole.taken_apart(joined)) is not None:
                return rows
        return whole.rows(self._write_query(Statement(f"SELECT {whole.outputs}{tail}", parameters)))

    def _whole_rows(self, table: str) -> _Whole:
        """Return how whole rows of a table are read."""
        columns = [column for column in self.tables([table])[table].columns if not column.generated]
        quote = self._dialect.quote
        outputs = [
            self._dialect.canonical(quote(column.name), column.type, column.family) for column in columns
        ]
        pairs = zip(outputs, columns, strict=True)
        fields = [joining.field(Scalar(output, column)) for output, column in pairs]
        exact = [field for field in fields if field is not None]
        joins = self._dialect.name != "sqlite" and len(exact) == len(fields)
        return _Whole(columns, ", ".join(outputs), exact if joins else ())

    def probe(self, table: str, action: Action, columns: Sequence[str]) -> None:
        """Do what a change does, to no row: raises WriteFailed where this login may not."""
        quote = self._dialect.quote
        name, names = quote(table), ", ".join(map(quote, columns))
        kept = [f"{quote(column)} = {quote(column)}" for column in columns]
        same = ", ".join([*kept, *self._keep_stamped(table, columns)])
        sql = {
            Action.INSERT: f"INSERT INTO {name} ({names}) SELECT {names} FROM {name} WHERE 1 = 0",
            Action.UPDATE: f"UPDATE {name} SET {same} WHERE 1 = 0",
            Action.DELETE: f"DELETE FROM {name} WHERE 1 = 0",
        }[action]
        self._write(Statement(sql))

    def _write(self, statement: Statement) -> sqlalchemy.CursorResult[Any]:
        LOG.debug("%s: %s", self.cell.name, statement.sql, extra={"cell": self.cell.name})
        self._check_size(sent(statement.parameters.values()) + len(statement.sql))
        with translated(self.cell.name, writing=True):
            return self._run(statement.sql, statement.parameters)

    def describe_excess(self, change: Change) -> str:
        """Say why a change takes more than one statement; "" where it does not, but for a few bytes."""
        names = sum(2 * len(name) + 8 for name in change.after or {})
        try:
            self._check_size(sent([*(change.after or {}).values(), *change.identity]) + names)
        except Rejected as error:
            return str(error)
        return ""

    def _check_size(self, size: int) -> None:
        """Refuse a row that the server would answer by closing the connection."""
        if size > SMALLEST_PACKET and size > self.packet():
            raise Rejected(
                f"{self.cell.name}: the row takes {size} bytes on its way, more than the server's "
                f"max_allowed_packet of {self.packet()}; raise that"
            )

    def _write_query(self, statement: Statement) -> Sequence[Sequence[Value]]:
        result = self._write(statement)
        with translated(self.cell.name, writing=True):
            return result.all()


def _alike(rows: Mapping[Identity, Mapping[str, Value | ServerTime]]) -> bool:
    """Say whether rows are known by numbers, and the values of each column are of one type.

    Beside each other in one expression the server would give them one.
    """
    for held in zip(*(row.values() for row in rows.values()), strict=True):
        kinds = {*map(type, held)}
        if len(kinds - {type(None)}) > 1 or kinds == {type(None), ServerTime}:
            return False
    return all(type(part) is int for key in rows for part in key)


@lru_cache(maxsize=16)
def _one_of(columns: tuple[str, ...], number: int) -> tuple[list[str], str]:
    """Return the names of the parameters for so many primary keys, key by key, and a condition with them."""
    names = [[f"i{index}_{n}" for n in range(len(columns))] for index in range(number)]
    if len(columns) == 1:
        where = f"{columns[0]} IN ({', '.join(f':{name}' for (name,) in names)})"
    else:
        located = [zip(columns, row, strict=True) for row in names]
        terms = (" AND ".join(f"{column} = :{name}" for column, name in row) for row in located)
        where = " OR ".join(f"({term})" for term in terms)
    return [*chain.from_iterable(names)], where


def known_name(table: Table, name: str) -> str:
    """Return a column's name as the table spells it."""
    column = table.column(name)
    return column.name if column else name
