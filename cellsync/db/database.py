"""One open connection to a cell's database: the Reader of diff and the Writer of apply."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import sqlalchemy
from oslo_db import exception as oslo_errors

from cellsync.db import schema
from cellsync.db.connect import NOT_A_SERVER, Timeouts, engine, translated, unreachable
from cellsync.db.dialects import Dialect, MariaDB, SQLite, escaped
from cellsync.db.select import Select, Statement, canonical
from cellsync.errors import ReadFailed, Rejected, Unreachable
from cellsync.model import (
    Action,
    Bucketing,
    Bundle,
    Cascade,
    Cell,
    DatabaseIdentity,
    Digest,
    Family,
    Fold,
    Health,
    Identity,
    Join,
    Key,
    LookUp,
    Pair,
    Projection,
    Row,
    SchemaVersion,
    ServerTime,
    Table,
    Value,
)

LOG = logging.getLogger(__name__)

KEYS_PER_QUERY = 200
BUCKETS_PER_QUERY = 4000
ROWS_PER_FETCH = 2000
SMALLEST_PACKET = 16 * 1024
"""Less than any server allows that can hold a journal."""
_CRC32C = (10, 8)
"""The first version of MariaDB that has it; MySQL has not."""
_ESCAPED = tuple(bytes((byte,)) for byte in b"\0\n\r\x1a\"'\\")
"""What PyMySQL writes as two bytes."""

_VARIABLES = "'server_uid', 'version', 'read_only', 'wsrep_on', 'max_allowed_packet'"
_STATUS = "'slave_running', 'slaves_running', 'wsrep_cluster_status', 'wsrep_local_state_comment'"


def connect(cell: Cell, timeouts: Timeouts) -> Database:
    """Open one connection to a cell's database.

    Raises Unreachable when the server does not answer, refuses the login, or has no such schema.
    """
    try:
        made = engine(cell, timeouts)
    except ValueError as error:
        raise Unreachable(f"cannot connect to {cell.name} at {cell.database.shown}: {error}") from None
    try:
        connection = made.connect()
    except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError, OSError, *NOT_A_SERVER) as error:
        made.dispose()
        raise unreachable(cell, error) from None
    return Database(cell, made, connection)


class Database:
    """A cell's database, read and written through one connection. Not for several threads at once."""

    def __init__(self, cell: Cell, made: sqlalchemy.Engine, connection: sqlalchemy.Connection) -> None:
        self.cell = cell
        self.connection = connection
        self.makes_schemas = connection.dialect.name != "sqlite"
        self.has_locks = self.makes_schemas
        self._engine = made
        self._dialect: Dialect = SQLite() if connection.dialect.name == "sqlite" else MariaDB()
        self._tables: dict[str, Table] = {}
        self._facts: dict[str, str] = {}

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was not committed is rolled back."""
        if not self.connection.closed:
            self.connection.invalidate()
            self.connection.close()
        self._engine.dispose()

    @property
    def lost(self) -> bool:
        """Say whether the connection broke; ``reconnect`` opens it again."""
        return self.connection.closed or self.connection.invalidated

    # -- What it is ------------------------------------------------------------------------

    def identity(self) -> DatabaseIdentity:
        """Return what tells this database from others. One query."""
        if self._dialect.name == "sqlite":
            path = os.path.realpath(self.connection.engine.url.database or ":memory:")
            return DatabaseIdentity(server=path, schema="main", version=f"SQLite {_sqlite_version()}")
        found = self._server()
        return DatabaseIdentity(
            server=found.get("server_uid", ""), schema=found["schema"], version=found["version"]
        )

    def health(self) -> Health:
        """Return whether the server lets itself be written. No query after ``identity``."""
        if self._dialect.name == "sqlite":
            return Health()
        found = self._server()
        galera = found.get("wsrep_on") == "ON"
        return Health(
            read_only=found.get("read_only", "OFF") != "OFF",
            # One says ON or OFF for the default connection, the other counts them all.
            replica=found.get("slave_running") == "ON" or found.get("slaves_running", "0") != "0",
            galera_status=found.get("wsrep_cluster_status") if galera else None,
            galera_state=found.get("wsrep_local_state_comment") if galera else None,
        )

    def _server(self) -> dict[str, str]:
        """Return what the server says of itself, by lower-case name; asked once."""
        if not self._facts:
            rows = self.query(
                "SELECT 'schema', DATABASE() "
                "UNION ALL SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES "
                f"WHERE VARIABLE_NAME IN ({_VARIABLES}) "
                "UNION ALL SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "
                f"WHERE VARIABLE_NAME IN ({_STATUS})"
            )
            self._facts = {str(name).lower(): str(value) for name, value in rows}
        return self._facts

    def tables(self, names: Iterable[str]) -> Mapping[str, Table]:
        """Return those of the named tables that exist. Two queries on MariaDB, or three."""
        missing = set(names) - set(self._tables)
        read = schema.sqlite if self._dialect.name == "sqlite" else schema.mariadb
        if missing:
            self._tables.update(read(self.query, missing))
        return {name: self._tables[name] for name in names if name in self._tables}

    def version(self, table: str) -> SchemaVersion:
        """Return what a version table says; the value is None when there is no such table.

        sqlalchemy-migrate's ``migrate_version`` has one number for each repository; a database
        holds one repository. Alembic's ``alembic_version`` has a name.
        """
        known = self.tables([table]).get(table)
        column = next((c for c in (known.columns if known else ()) if c.name.startswith("version")), None)
        if column is None:
            return SchemaVersion(table=table, value=None)
        quote = self._dialect.quote
        values = [row[0] for row in self.query(f"SELECT {quote(column.name)} FROM {quote(table)} ORDER BY 1")]
        return SchemaVersion(table=table, value=values[-1] if values else None)

    # -- Reading ---------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything inside as of one instant."""
        with translated(self.cell.name):
            self.connection.exec_driver_sql(self._dialect.begin_read)
        try:
            yield
        finally:
            self._end("ROLLBACK")

    def rows(
        self, projection: Projection, *, keys: Sequence[Key] | None = None, tombstones: bool = False
    ) -> Iterator[Row]:
        """Yield the rows of a projection; see ``diff.Reader``."""
        select = self._select(projection, tombstones=tombstones)
        statements = (
            [select.statement()]
            if keys is None
            else [select.statement(keys=part) for part in _batches(keys, KEYS_PER_QUERY)]
        )
        for statement in statements:
            for record in self._stream(statement):
                yield select.row(record)

    @property
    def digests(self) -> bool:
        """Say whether the server can compute digests; where it cannot, rows are read."""
        return self._dialect.name != "sqlite"

    @property
    def fold(self) -> Fold:
        """Return the best way of folding that this server knows. No query after ``identity``."""
        return Fold.CRC if _version(self._server()["version"]) >= _CRC32C else Fold.CUT

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
    ) -> Iterator[Bundle]:
        """Yield keys and checksums of the rows of a projection; see ``diff.Reader``."""
        select = self._select(projection)
        # By hashes every statement is a pass over the table, by ranges a long one is slow to parse.
        most = BUCKETS_PER_QUERY if bucketing.width is not None else len(buckets or ())
        some = [None] if buckets is None else _batches(sorted(buckets), max(1, most))
        for batch in some:
            yield from map(select.bundle, self._stream(select.bundles(bucketing, batch, parts)))

    def pairs(self, projection: Projection) -> Callable[[str], Pair]:
        """Return what takes the texts of a bundle apart."""
        return self._select(projection).pair

    def _select(self, projection: Projection, *, tombstones: bool = False) -> Select:
        known = schema.columns(self._needed(projection))
        return Select(projection, self._dialect, known, tombstones=tombstones)

    def look_up(self, where: LookUp) -> frozenset[str]:
        """Return the distinct values that a child says are its own."""
        if where.table not in self.tables([where.table]):
            raise ReadFailed(f"{self.cell.name} has no table {where.table} to look {where.column} up in")
        quote = self._dialect.quote
        sql = f"SELECT DISTINCT {quote(where.column)} FROM {quote(where.table)}"
        if where.where:
            sql += f" WHERE ({escaped(where.where)})"
        return frozenset(str(row[0]) for row in self.query(sql) if row[0] is not None)

    def _needed(self, projection: Projection) -> Mapping[str, Table]:
        joins = [part.join for part in (*projection.key, *projection.columns) if part.join]
        names = {projection.table, *(table for join in joins for table in _joined(join))}
        return self.tables(names)

    def _stream(self, statement: Statement) -> Iterator[Sequence[Value]]:
        LOG.debug("%s: %s", self.cell.name, statement.sql)
        with translated(self.cell.name):
            result = self.connection.execute(
                sqlalchemy.text(statement.sql),
                dict(statement.parameters),
                execution_options={"stream_results": True, "max_row_buffer": ROWS_PER_FETCH},
            )
            try:
                for partition in result.partitions(ROWS_PER_FETCH):
                    yield from partition
            except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError):
                _abandon(result)
                raise
            finally:
                result.close()

    def query(self, sql: str, **parameters: Any) -> list[Sequence[Any]]:
        """Return all rows of a query with named parameters."""
        LOG.debug("%s: %s", self.cell.name, sql)
        with translated(self.cell.name):
            return list(self.connection.execute(sqlalchemy.text(sql), parameters).all())

    # -- For the journal, whose rows are written in the transaction of the changes -----------

    def has_table(self, name: str, *, schema: str) -> bool:
        """Say whether there is such a table, as far as this login may see."""
        if self._dialect.name == "sqlite":
            with translated(self.cell.name):
                return sqlalchemy.inspect(self.connection).has_table(name, schema=schema)
        # Not SQLAlchemy's way, DESCRIBE: that is an error where this login may not see the table.
        sql = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = :schema AND TABLE_NAME = :name"
        return bool(self.query(sql, schema=schema, name=name))

    def execute(
        self, statement: sqlalchemy.Executable, rows: Sequence[Mapping[str, Any]] = ()
    ) -> sqlalchemy.Result[Any]:
        """Execute a statement of SQLAlchemy, once or for many rows."""
        with translated(self.cell.name, writing=True):
            if rows:
                return self.connection.execute(statement, list(rows))
            return self.connection.execute(statement)

    # -- Writing ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is written inside when it ends well, and roll it back when it raises."""
        with translated(self.cell.name, writing=True):
            self.connection.exec_driver_sql(self._dialect.begin_write)
        try:
            yield
        except BaseException:
            self._end("ROLLBACK")
            raise
        with translated(self.cell.name, writing=True):
            self.connection.exec_driver_sql("COMMIT")

    def reconnect(self) -> None:
        """Open the connection again if it is lost; a server's refusal is raised as Unreachable."""
        try:
            self.connection.exec_driver_sql("SELECT 1")
        except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError):
            if not self.connection.closed:  # as it is after a try that did not get through
                self.connection.invalidate()
                self.connection.close()
            try:
                self.connection = self._engine.connect()
            except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
                raise unreachable(self.cell, error) from None

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
        for part in _batches(keys, KEYS_PER_QUERY):
            statement = select.statement(keys=part, suffix=self._dialect.lock_rows)
            found += [select.row(record) for record in self._write_query(statement)]
        return found

    def resolve(self, join: Join, keys: Sequence[Key]) -> Mapping[Key, tuple[Value, ...]]:
        """Return the surrogate ids of the live rows that hold each key, kept until the end.

        Compared binary: a row whose key is equal under the collation only is another row.
        """
        held = self.tables([join.table])[join.table].column(join.column)
        projection = Projection(
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
        select = self._select(projection)
        found: dict[Key, tuple[Value, ...]] = {}
        for part in _batches(keys, KEYS_PER_QUERY):
            statement = select.statement(keys=part, suffix=self._dialect.share_rows)
            for row in map(select.row, self._write_query(statement)):
                if not row.limbo:
                    found[row.key] = (*found.get(row.key, ()), row.identity[0])
        return found

    def insert(self, table: str, values: Mapping[str, Value | ServerTime]) -> int:
        """Insert one row and return the number that the server gave it (0 where it gives none).

        Raises Rejected when the server does not take this row; the transaction goes on.
        """
        quote = self._dialect.quote
        names = ", ".join(quote(name) for name in values)
        expressions, parameters = self._assigned(values)
        sql = f"INSERT INTO {quote(table)} ({names}) VALUES ({', '.join(expressions)})"
        return int(self._write(Statement(sql, parameters)).lastrowid or 0)

    def update(
        self,
        table: str,
        identity: Mapping[str, Value],
        values: Mapping[str, Value | ServerTime],
    ) -> int:
        """Update the row of that primary key and return how many rows matched."""
        quote = self._dialect.quote
        expressions, parameters = self._assigned(values)
        assignments = ", ".join(
            f"{quote(name)} = {each}" for name, each in zip(values, expressions, strict=True)
        )
        where, located = self._located(identity)
        sql = f"UPDATE {quote(table)} SET {assignments} WHERE {where}"
        return int(self._write(Statement(sql, {**parameters, **located})).rowcount)

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
        known = self.tables([table])[table]
        columns = [column for column in known.columns if not column.generated]
        quote = self._dialect.quote
        outputs = ", ".join(self._dialect.canonical(quote(c.name), c.type, c.family) for c in columns)
        found: dict[Identity, Mapping[str, Value]] = {}
        for part in _batches(identities, KEYS_PER_QUERY):
            terms, parameters = [], {}
            for index, each in enumerate(part):
                located = [f"{quote(name)} = :i{index}_{n}" for n, name in enumerate(identity)]
                terms.append("(" + " AND ".join(located) + ")")
                parameters.update({f"i{index}_{n}": value for n, value in enumerate(each)})
            sql = f"SELECT {outputs} FROM {quote(table)} WHERE {' OR '.join(terms)}{suffix}"
            for record in self._write_query(Statement(sql, parameters)):
                row = {c.name: canonical(value, c.family) for c, value in zip(columns, record, strict=True)}
                found[tuple(row[known_name(known, name)] for name in identity)] = row
        return found

    def probe(self, table: str, action: Action, columns: Sequence[str]) -> None:
        """Do what a change does, to no row: raises WriteFailed where this login may not."""
        quote = self._dialect.quote
        name, names = quote(table), ", ".join(map(quote, columns))
        same = ", ".join(f"{quote(column)} = {quote(column)}" for column in columns)
        sql = {
            Action.INSERT: f"INSERT INTO {name} ({names}) SELECT {names} FROM {name} WHERE 1 = 0",
            Action.UPDATE: f"UPDATE {name} SET {same} WHERE 1 = 0",
            Action.DELETE: f"DELETE FROM {name} WHERE 1 = 0",
        }[action]
        self._write(Statement(sql))

    def _write(self, statement: Statement) -> sqlalchemy.CursorResult[Any]:
        LOG.debug("%s: %s", self.cell.name, statement.sql)
        self._check_size(statement)
        with translated(self.cell.name, writing=True):
            return self.connection.execute(sqlalchemy.text(statement.sql), dict(statement.parameters))

    def _check_size(self, statement: Statement) -> None:
        """Refuse a row that the server would answer by closing the connection."""
        size = sent(statement.parameters.values()) + len(statement.sql)
        if size > SMALLEST_PACKET and size > self.packet():
            raise Rejected(
                f"{self.cell.name}: the row takes {size} bytes on its way, more than the server's "
                f"max_allowed_packet of {self.packet()}; raise that"
            )

    def sent(self, values: Iterable[object]) -> int:
        """Return how many bytes values take in a statement, what is escaped included."""
        return sent(values)

    def packet(self) -> int:
        """Return how large a statement may be, in bytes. No query after ``identity``."""
        if self._dialect.name == "sqlite":
            return sys.maxsize
        return int(self._server().get("max_allowed_packet", SMALLEST_PACKET))

    def _write_query(self, statement: Statement) -> Sequence[Sequence[Value]]:
        result = self._write(statement)
        with translated(self.cell.name, writing=True):
            return result.all()

    def _end(self, how: str) -> None:
        """End a transaction whose outcome no longer matters; a lost connection has ended it too."""
        try:
            self.connection.exec_driver_sql(how)
        except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError) as error:
            LOG.debug("%s: %s: %s", self.cell.name, how, type(error).__name__)
            self.connection.invalidate()


def _abandon(result: sqlalchemy.CursorResult[Any]) -> None:
    """Let PyMySQL forget the rest of a result that failed.

    It would read on when the cursor is closed or collected, from a socket that is gone, and print
    an AttributeError to stderr.
    """
    unfinished = getattr(result.cursor, "_result", None)
    if unfinished is not None:
        unfinished.unbuffered_active = False
        unfinished.connection = None


def sent(values: Iterable[object]) -> int:
    """Return how many bytes values take in a statement, what is escaped included."""
    texts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return sum(len(text) + 16 + sum(map(text.count, _ESCAPED)) for text in texts)


def known_name(table: Table, name: str) -> str:
    """Return a column's name as the table spells it."""
    column = table.column(name)
    return column.name if column else name


def _joined(join: Join) -> Iterator[str]:
    yield join.table
    for part in join.key:
        if part.join is not None:
            yield from _joined(part.join)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers of "10.11.19-MariaDB-log"; () for another server than MariaDB.

    "5.5.5-10.3.1-MariaDB" begins with what is for old replicas.
    """
    numbers = text.removeprefix("5.5.5-").partition("-")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdigit()) if "MariaDB" in text else ()


def _sqlite_version() -> str:
    import sqlite3

    return sqlite3.sqlite_version
