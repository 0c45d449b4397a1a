"""One open connection: what it is connected to, and its transactions."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Any, TypeVar

import sqlalchemy
from oslo_db import exception as oslo_errors

from cellsync.db import literals, schema
from cellsync.db.connect import Deadline, absent, forbidden, translated, unreachable
from cellsync.db.dialects import Dialect, MariaDB, SQLite
from cellsync.db.select import Select
from cellsync.errors import ReadFailed, Rejected
from cellsync.model import (
    Cell,
    DatabaseIdentity,
    Health,
    Join,
    Projection,
    SchemaVersion,
    ServerTime,
    Table,
)

LOG = logging.getLogger(__name__)

KEYS_PER_QUERY = 200
SINGLE_KEYS_PER_QUERY = 1_000
"""Keys of one value are one IN, which a server looks up in its index one by one."""
SMALLEST_PACKET = 16 * 1024
"""Less than any server allows that can hold a journal."""
_ESCAPED = tuple(bytes((byte,)) for byte in b"\0\n\r\x1a\"'\\")
"""What PyMySQL writes as two bytes."""

_VARIABLES = "'server_uid', 'version', 'read_only', 'wsrep_on', 'max_allowed_packet'"
_STATUS = (
    "'slave_running', 'slaves_running', "
    "'wsrep_cluster_status', 'wsrep_local_state_comment', 'wsrep_cluster_state_uuid'"
)

_WAIT_FOR_CLUSTER = "SET SESSION wsrep_sync_wait = 1"
"""1: before BEGIN and SELECT. What writes is in a transaction, or is certified by its primary key alone."""

S = TypeVar("S", bound="Session")


class Session:
    """One connection to a cell's database. Not for several threads at once."""

    def __init__(
        self, cell: Cell, made: sqlalchemy.Engine, connection: sqlalchemy.Connection, deadline: Deadline
    ) -> None:
        self.cell = cell
        self.deadline = deadline
        self.connection = connection
        self.makes_schemas = connection.dialect.name != "sqlite"
        self.has_locks = self.makes_schemas
        self._engine = made
        self._dialect: Dialect = SQLite() if connection.dialect.name == "sqlite" else MariaDB()
        self._tables: dict[str, Table] = {}
        self._facts: dict[str, str] = {}
        self._waits_for_cluster = False
        self._error_columns: dict[str, list[str]] = {}

    def __enter__(self: S) -> S:
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

    @property
    def is_clustered(self) -> bool:
        """Say whether the server is a node of a Galera cluster. No query after ``identity``."""
        return self._dialect.name != "sqlite" and self._server().get("wsrep_on") == "ON"

    @property
    def cluster(self) -> str:
        """What tells a Galera cluster from others; "" elsewhere. No query after ``identity``."""
        return self._server().get("wsrep_cluster_state_uuid", "") if self.is_clustered else ""

    def node(self) -> str:
        """Return what tells this node of a Galera cluster from the others, until it is restarted; else ""."""
        if not self.is_clustered:
            return ""
        sql = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = :name"
        return str((self.query(sql, name="wsrep_gcomm_uuid") or [[""]])[0][0])

    def wait_for_cluster(self) -> None:
        """Begin no transaction and no reading from now on before the node has what the others have.

        On a node of a Galera cluster, which may be a moment behind; elsewhere does nothing. One round trip
        in the cluster for each transaction and for each SELECT outside of one.
        """
        self._waits_for_cluster = self.is_clustered
        if self._waits_for_cluster:
            with translated(self.cell.name, writing=True):
                self.connection.exec_driver_sql(_WAIT_FOR_CLUSTER)

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

    def table_names(self) -> list[str]:
        """Return the names of all tables, views left out, sorted. One query."""
        return schema.names(self.query, sqlite=self._dialect.name == "sqlite")

    def tables(self, names: Iterable[str]) -> Mapping[str, Table]:
        """Return those of the named tables that exist. Two queries on MariaDB, or three."""
        missing = set(names) - set(self._tables)
        read = schema.sqlite if self._dialect.name == "sqlite" else schema.mariadb
        if missing:
            self._tables.update(read(self.query, missing))
        return {name: self._tables[name] for name in names if name in self._tables}

    def find_others(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return what those of the names are that are no tables: "view", "sequence". One query on MariaDB."""
        return {} if self._dialect.name == "sqlite" else schema.find_others(self.query, names)

    def columns_now(self, names: Iterable[str]) -> Mapping[str, Table]:
        """Return those of the named tables that exist now, with their columns alone. One query on MariaDB."""
        read = schema.sqlite if self._dialect.name == "sqlite" else schema.columns_alone
        return read(self.query, names)

    def version(self, table: str) -> SchemaVersion:
        """Return what a version table says; the value is None when there is no such table.

        sqlalchemy-migrate's ``migrate_version`` has one number for each repository, and names it; a
        database holds one repository. Alembic's ``alembic_version`` has a name.
        """
        known = self.tables([table]).get(table)
        column = next((c for c in (known.columns if known else ()) if c.name.startswith("version")), None)
        if known is None or column is None:
            return SchemaVersion(table=table, value=None)
        quote = self._dialect.quote
        repository = quote("repository_id") if known.column("repository_id") else "NULL"
        sql = f"SELECT {quote(column.name)}, {repository} FROM {quote(table)} ORDER BY 1"
        value, owner = (self.query(sql) or [(None, None)])[-1]
        return SchemaVersion(table=table, value=value, repository=owner)

    def _select(self, projection: Projection, *, tombstones: bool = False) -> Select:
        known = schema.columns(self._needed(projection))
        return Select(projection, self._dialect, known, tombstones=tombstones)

    def _needed(self, projection: Projection) -> Mapping[str, Table]:
        joins = [part.join for part in (*projection.key, *projection.columns) if part.join]
        names = {projection.table, *(table for join in joins for table in _joined(join))}
        return self.tables(names)

    def query(self, sql: str, **parameters: Any) -> list[Sequence[Any]]:
        """Return all rows of a query with named parameters."""
        LOG.debug("%s: %s", self.cell.name, sql, extra={"cell": self.cell.name})
        with self._in_time():
            return list(self._run(sql, parameters).all())

    def _run(self, sql: str, parameters: Mapping[str, Any], **options: Any) -> sqlalchemy.CursorResult[Any]:
        """Execute SQL that is written as for SQLAlchemy's ``text``, which takes longer to read it."""
        given = dict(parameters)
        if self._dialect.name == "sqlite":
            lists = [name for name, value in given.items() if isinstance(value, tuple)]
            text = sqlalchemy.text(sql).bindparams(
                *(sqlalchemy.bindparam(name, expanding=True) for name in lists)
            )
            return self.connection.execute(text, given, execution_options=options)
        return self.connection.exec_driver_sql(for_driver(sql), given or None, execution_options=options)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Translate errors of reading; those of a connection whose time is over have that reason."""
        try:
            if self.deadline.over:
                raise ReadFailed
            with translated(self.cell.name):
                yield
        except ReadFailed:
            if not self.deadline.over or self.deadline.whole is None:
                raise
            took = f"{self.deadline.whole.total_seconds():g} s"
            raise ReadFailed(f"{self.cell.name} was not read within {took} (budget: time)") from None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count what happens inside against the deadline, and what comes after it not."""
        self.deadline.go_on()
        try:
            yield
        finally:
            self.deadline.pause()

    # -- Transactions ----------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything inside as of one instant."""
        with self.busy():
            with self._in_time():
                self.connection.exec_driver_sql(self._dialect.begin_read)
            try:
                yield
            finally:
                self._end("ROLLBACK")

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
                self.connection = self._connect()
            except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
                raise unreachable(self.cell, error) from None

    def _connect(self) -> sqlalchemy.Connection:
        """Return a new connection that is set as the one before."""
        made = self._engine.connect()
        if self._waits_for_cluster:
            try:
                made.exec_driver_sql(_WAIT_FOR_CLUSTER)
            except BaseException:
                made.invalidate()
                made.close()
                raise
        return made

    def _end(self, how: str) -> None:
        """End a transaction whose outcome no longer matters; a lost connection has ended it too."""
        try:
            self.connection.exec_driver_sql(how)
        except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError) as error:
            LOG.debug("%s: %s: %s", self.cell.name, how, type(error).__name__, extra={"cell": self.cell.name})
            self.connection.invalidate()

    # -- For the journal, whose rows are written in the transaction of the changes -----------

    def has_table(self, name: str, *, schema: str) -> bool:
        """Say whether there is such a table, as far as this login may see."""
        if self._dialect.name == "sqlite":
            with self._in_time():
                return sqlalchemy.inspect(self.connection).has_table(name, schema=schema)
        # Not SQLAlchemy's way, DESCRIBE: that is an error where this login may not see the table.
        sql = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = :schema AND TABLE_NAME = :name"
        return bool(self.query(sql, schema=schema, name=name))

    def hides(self, name: str, *, schema: str) -> bool:
        """Say whether this login may not read a table, so that it cannot tell whether there is one.

        One query. The server itself is asked, for what a login may stands in many places: its own
        grants, patterns of names, roles, PUBLIC. It looks at them before it looks for the table.
        """
        if not self.makes_schemas:
            return False
        place = f"{self._dialect.quote(schema)}.{self._dialect.quote(name)}"
        with self._in_time():
            try:
                self.connection.exec_driver_sql(f"SELECT 1 FROM {place} LIMIT 0")
            except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError) as error:
                if not (forbidden(error) or absent(error)):
                    raise
                return forbidden(error)
        return False

    def execute(
        self, statement: sqlalchemy.Executable, rows: Sequence[Mapping[str, Any]] = ()
    ) -> sqlalchemy.Result[Any]:
        """Execute a statement of SQLAlchemy, once or for many rows."""
        with translated(self.cell.name, writing=True):
            if rows:
                return self.connection.execute(statement, list(rows))
            return self.connection.execute(statement)

    def run(self, sql: str) -> sqlalchemy.CursorResult[Any]:
        """Execute a statement that holds its values already, just as it is.

        Raises Rejected where it is longer than the server takes: that would close the connection.
        """
        if len(sql) > SMALLEST_PACKET // 4 and len(sql.encode()) > self.packet():
            raise Rejected(
                f"{self.cell.name}: a statement is longer than max_allowed_packet, {self.packet()}"
            )
        with translated(self.cell.name, writing=True):
            return self.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

    def literal(self, value: object, *, writing: bool = True) -> str:
        """Return a value as it stands in a statement, which is one that reads where it is not ``writing``."""
        driver = self._driver(writing=writing)
        return str(driver.escape(value, driver.encoders))

    def _driver(self, *, writing: bool) -> Any:
        """Return the driver's own connection; where it is lost, raises what a statement would raise."""
        with translated(self.cell.name, writing=True) if writing else self._in_time():
            return self.connection.connection.dbapi_connection

    def append(self, table: sqlalchemy.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows into a table of SQLAlchemy's; all have the same columns, in the same order.

        One statement, without SQLAlchemy's and the driver's way for many rows: these look at each value
        several times, and at those that all rows have, too.
        """
        if self._dialect.name == "sqlite":
            self.execute(table.insert(), rows)
            return
        names = ", ".join(map(self._dialect.quote, rows[0]))
        place = ".".join(self._dialect.quote(name) for name in (table.schema, table.name) if name)
        columns = self._literals(zip(*(row.values() for row in rows), strict=True))
        self.run(f"{plain(f'INSERT INTO {place} ({names}) VALUES ')}{tuples(columns)}")

    def _literals(self, columns: Iterable[Sequence[object]], *, writing: bool = True) -> list[Sequence[str]]:
        """Return the values of columns as literals, the time of the server among them; see ``literal``."""
        driver = self._driver(writing=writing)

        def escape(value: object) -> str:
            literal: str = (
                self._dialect.now if isinstance(value, ServerTime) else driver.escape(value, driver.encoders)
            )
            return literal

        return [literals.of(values, escape, backslashes=driver.backslashes) for values in columns]

    def sent(self, values: Iterable[object]) -> int:
        """Return how many bytes values take in a statement, what is escaped included."""
        return sent(values)

    def packet(self) -> int:
        """Return how large a statement may be, in bytes. No query after ``identity``."""
        if self._dialect.name == "sqlite":
            return sys.maxsize
        return int(self._server().get("max_allowed_packet", SMALLEST_PACKET))


def sent(values: Iterable[object]) -> int:
    """Return how many bytes values take in a statement, what is escaped included.

    Of few bytes, which every server takes, it says only that they are no more.
    """
    every = [*values]
    texts = [value for value in every if isinstance(value, (str, bytes))]
    most = 4 * sum(map(len, texts)) + 16 * len(texts) + 96 * (len(every) - len(texts))
    if most < SMALLEST_PACKET:
        return most
    # The driver writes bytes as hexadecimal digits. A statement that is longer than it was taken for ends in
    # error 1153, which closes the connection, and with it the rows beside the long one fail.
    size = sum(2 * len(value) + 16 for value in every if isinstance(value, bytes))
    spelled = [str(value).encode() for value in every if not isinstance(value, bytes)]
    return size + sum(len(text) + 16 + sum(map(text.count, _ESCAPED)) for text in spelled)


def _joined(join: Join) -> Iterator[str]:
    yield join.table
    for part in join.key:
        if part.join is not None:
            yield from _joined(part.join)


def tuples(columns: Iterable[Sequence[str]]) -> str:
    """Return columns of literals as the rows of an INSERT."""
    return ", ".join([f"({', '.join(row)})" for row in zip(*columns, strict=True)])


@lru_cache(maxsize=64)
def for_driver(sql: str) -> str:
    """Return SQL that was written for SQLAlchemy's ``text`` as PyMySQL takes it.

    Batch after batch asks in the same words for as many keys.
    """
    return _COLON.sub("", _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%")))


def plain(sql: str) -> str:
    """Return SQL that was written for SQLAlchemy's ``text``, without parameters, as a server takes it."""
    return _COLON.sub("", sql)


_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
_COLON = re.compile(r"\\(?=:)")


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def at_once(projection: Projection) -> int:
    """Return about how many keys of a projection one statement may ask."""
    single = len(projection.key) == 1 and projection.key[0].join is None
    return SINGLE_KEYS_PER_QUERY if single else KEYS_PER_QUERY


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of "10.11.19-MariaDB-log"; () for another server than MariaDB.

    "5.5.5-10.3.1-MariaDB" begins with what is for old replicas.
    """
    numbers = text.removeprefix("5.5.5-").partition("-")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdigit()) if "MariaDB" in text else ()


def _sqlite_version() -> str:
    import sqlite3

    return sqlite3.sqlite_version
