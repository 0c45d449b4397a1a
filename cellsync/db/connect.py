"""Open a connection to a cell's database, in a session whose settings are known.

Every session runs in UTC, in strict mode, with four-byte text, and with time limits, so that a
stuck cellsync holds up nobody for long. Errors come out as cellsync's own, with the server's
message and without statement, parameters or password.
"""

from __future__ import annotations

import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Any

import pymysql
import sqlalchemy
from oslo_db import exception as oslo_errors
from oslo_db.sqlalchemy import exc_filters
from pymysql.constants import SERVER_STATUS
from sqlalchemy import event, pool

from cellsync import transforms
from cellsync.db import tls
from cellsync.errors import (
    CellsyncError,
    NotAllowed,
    ReadFailed,
    Rejected,
    TransactionLost,
    Unreachable,
    WriteFailed,
)
from cellsync.masking import mask_urls
from cellsync.model import (
    Cell,
    Tls,
    Value,
)
from cellsync.model import tls as tls_of

if TYPE_CHECKING:
    import sqlite3

SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"
"""Strict, so that nothing is cut or mangled; lenient where a row that exists must be copied as it
is (an id of 0, a date of 0000-00-00)."""


_AT_ONCE = 0.001
"""Seconds; a socket takes 0 for something else."""

NOT_A_SERVER = (struct.error, IndexError, ValueError, AssertionError)
"""What PyMySQL raises where the other side of a connection does not speak MariaDB's protocol."""


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Time limits of a session, in whole seconds."""

    connect: int = 5
    login: int = 10
    """How long the server may take for its part of the login: it may ask a slow name server who we are."""
    statement: int = 600
    lock: int = 5
    """How long to wait for a row lock or a metadata lock."""
    answer: int = 30
    """How long the network may take beyond a statement's own time, before the connection is given up."""
    idle_transaction: int = 60
    """How long a transaction of ours may stand still, also in the middle of an answer that we do not
    fetch: after that it keeps nobody from altering a table."""
    idle_writer: int = 20
    """The same for one that has written: its locks must go before our own tries to do it again end."""
    whole: timedelta | None = None
    """How long all that is done through one connection may take, with opening it, without the time between
    its snapshots; None for as long as it takes. SQLite, which reads a file, knows none of these limits."""

    def within(self, whole: timedelta | None) -> Timeouts:
        """Return the limits of a connection that may be used for so long."""
        return replace(self, whole=whole)


class Deadline:
    """How long a connection may still be used; the time in which it stands idle is not counted."""

    def __init__(self, whole: timedelta | None) -> None:
        """Count from now; None is for ever."""
        self.whole = whole
        self._left = inf if whole is None else whole.total_seconds()
        self._since: float | None = time.monotonic()

    @property
    def left(self) -> float:
        """The seconds that are left, not more than 0 when it is over."""
        return self._left - (0 if self._since is None else time.monotonic() - self._since)

    @property
    def over(self) -> bool:
        """True when no time is left."""
        return self.left <= 0

    def pause(self) -> None:
        """Count no more: nobody works with the connection, which waits for other cells."""
        self._left, self._since = self.left, None

    def go_on(self) -> None:
        """Count again; where it counts already, go on with that."""
        if self._since is None:
            self._since = time.monotonic()


def engine(cell: Cell, timeouts: Timeouts, deadline: Deadline) -> sqlalchemy.Engine:
    """Return an engine that connects to a cell's database; it connects when first used."""
    url = sqlalchemy.make_url(cell.database.url.reveal())
    if url.get_backend_name() == "sqlite":
        made = sqlalchemy.create_engine(
            url, poolclass=pool.NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True
        )
        event.listen(made, "connect", _prepare_sqlite)
    else:
        # Under the dialect's own name "mariadb" oslo.db maps no errors and retries nothing.
        encryption = _encryption(url)
        # Arguments for other programs that use the same URL are left out.
        query = {name: value for name, value in url.query.items() if name in _FOR_THE_DRIVER}
        url = url.set(drivername="mysql+pymysql", query={**query, "charset": "utf8mb4"})
        made = sqlalchemy.create_engine(
            url,
            poolclass=pool.NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args={
                "connect_timeout": min(timeouts.connect, max(deadline.left, _AT_ONCE)),
                "read_timeout": min(timeouts.login, max(deadline.left, _AT_ONCE)),
                "write_timeout": timeouts.answer,
                # PyMySQL would switch it off, for SQLAlchemy to switch it on: two round trips.
                "autocommit": True,
                **_password(url.password),
                **encryption,
            },
        )
        event.listen(made, "do_connect", _connect)
        # First of all: SQLAlchemy looks at the session's sql_mode and quotes names by what it finds,
        # so it must not see the ANSI_QUOTES of a server whose sessions we then set otherwise.
        event.listen(made, "connect", _Prepare(timeouts, deadline), insert=True)
        event.listen(made, "before_cursor_execute", _hurry)
    exc_filters.register_engine(made)
    return made


class _Connection(pymysql.connections.Connection):  # type: ignore[misc]
    """A connection with a deadline; it shares its TLS context, where nothing is said about it.

    It writes text faster than its base.
    """

    deadline: Deadline | None = None
    patience: float = 0
    """How long one answer may keep us waiting, in seconds."""

    def hurry(self) -> None:
        """Wait for the next answer until the deadline at most; PyMySQL has no other way to say so."""
        if self.deadline is not None:
            self._read_timeout = min(self.patience, max(self.deadline.left, _AT_ONCE))

    def escape(self, obj: object, mapping: Mapping[type, Any] | None = None) -> str:
        """Return a value as a literal.

        In a string the server takes only three characters otherwise than as they are. PyMySQL escapes
        seven, looking at each character: 10 us for a row of 24 columns in the journal instead of 1.
        """
        if type(obj) is not str or not self.backslashes:
            literal: str = str(obj) if type(obj) is int else super().escape(obj, mapping)
            return literal
        return "'" + obj.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"

    @property
    def backslashes(self) -> bool:
        """Say whether the server takes a backslash in text for more than it is."""
        return not self.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        return super()._create_ssl_ctx(sslp) if sslp else tls.unverified()


def _connect(dialect: object, record: object, arguments: list[Any], named: dict[str, Any]) -> _Connection:
    return _Connection(*arguments, **named)


def _hurry(connection: object, cursor: Any, *statement: object) -> None:
    cursor.connection.hurry()


_FOR_THE_DRIVER = {"unix_socket", "bind_address"}


def _encryption(url: sqlalchemy.URL) -> dict[str, object]:
    """Return PyMySQL's arguments for TLS; none where the URL leaves it to client and server.

    SQLAlchemy hands some of them on in a way in which PyMySQL forgets the CA.
    """
    wanted = tls_of(url.query)
    if isinstance(wanted, Tls):
        return {"ssl": tls.context(wanted)}
    return {"ssl_disabled": True} if wanted is False else {}


def _password(password: str | None) -> dict[str, bytes]:
    """Return the password as MariaDB's own client sends it; PyMySQL would send Latin-1, or fail."""
    return {} if password is None else {"password": password.encode("utf-8", "surrogateescape")}


class _Prepare:
    """Set the session variables of one new MariaDB connection."""

    def __init__(self, timeouts: Timeouts, deadline: Deadline) -> None:
        self._deadline = deadline
        self._patience = timeouts.statement + timeouts.answer
        # No statement may outlive its client by more than that: the server does not see that we have gone.
        longest = timeouts.statement if timeouts.whole is None else timeouts.whole.total_seconds() + 1
        self._settings = {
            "time_zone": "'+00:00'",
            "sql_mode": f"'{SQL_MODE}'",
            "group_concat_max_len": 16 * 1024 * 1024,
            "lock_wait_timeout": timeouts.lock,
            "innodb_lock_wait_timeout": timeouts.lock,
            "max_statement_time": min(timeouts.statement, longest),
            "idle_transaction_timeout": timeouts.idle_transaction,
            "idle_write_transaction_timeout": timeouts.idle_writer,
            "net_write_timeout": timeouts.idle_transaction,
        }

    def __call__(self, connection: _Connection, record: Any) -> None:
        assigned = ", ".join(f"SESSION {name} = {value}" for name, value in self._settings.items())
        with connection.cursor() as cursor:
            cursor.execute(f"SET {assigned}")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # PyMySQL has one time limit for the login, in which a server that is stuck says nothing, and
        # for all later reading, which waits for statements; it offers no way to change it.
        connection.deadline, connection.patience = self._deadline, self._patience
        connection.hurry()


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    for name, transform in transforms.REGISTRY.items():
        connection.create_function(name, 3, _null_safe(transform.function), deterministic=True)
    # Detectors of packs for MariaDB say them; SQLite before 3.44 lacks the one, and every SQLite the other.
    connection.create_function("CONCAT", -1, _concat, deterministic=True)
    connection.create_function("SUBSTRING_INDEX", 3, _substring_index, deterministic=True)
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    # Beside the data, as the schema "cellsync" is beside the data on a MariaDB server.
    connection.execute("ATTACH DATABASE ? AS cellsync", (f"{path}-cellsync" if path else ":memory:",))
    connection.execute("PRAGMA foreign_keys = ON")


def _concat(*parts: Value) -> str | None:
    """Join values as MariaDB does, to which anything with NULL is NULL."""
    return None if None in parts else "".join(map(str, parts))


def _substring_index(text: str | None, delimiter: str, count: int) -> str | None:
    """Return what stands before so many delimiters, or, counted from the end, behind them."""
    if text is None:
        return None
    parts = text.split(delimiter)
    return delimiter.join(parts[:count] if count >= 0 else parts[count:])


def _null_safe(function: transforms.Function) -> Any:
    def call(value: Value, parent: str, child: str) -> Value:
        return None if value is None else function(str(value), parent=parent, child=child)

    return call


@contextmanager
def translated(cell: str, *, writing: bool = False) -> Iterator[None]:
    """Turn the driver's errors into cellsync's, named after the cell they happened in."""
    try:
        yield
    except (oslo_errors.DBError, sqlalchemy.exc.SQLAlchemyError, UnicodeError) as error:
        raise _translation(cell, error, writing=writing) from None


def unreachable(cell: Cell, error: Exception) -> Unreachable:
    """Return the error of a connection that could not be made."""
    garbled = isinstance(error, NOT_A_SERVER) and not isinstance(error, UnicodeError)
    message = "what answers there is no MariaDB server" if garbled else _message(error)
    hint = _about_tls(cell, error, message)
    text = f"cannot connect to {cell.name} at {cell.database.shown}: {message}{hint}"
    return Unreachable(text, reason=_reason(error, message))


def _reason(error: Exception, message: str) -> str:
    code = _code(error)
    if code in _REASONS:
        return _REASONS[code]
    if "Connection refused" in message or "No such file" in message:
        return "refused"
    return "timeout" if "timed out" in message else "error"


def _about_tls(cell: Cell, error: Exception, message: str) -> str:
    """Return what the arguments for TLS may have to do with it: the server says only "Access denied"."""
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return "; is ssl_ca the CA of this server, and is the host one that its certificate names?"
    if _code(error) != _ACCESS_DENIED:
        return ""
    wanted = tls_of(sqlalchemy.make_url(cell.database.url.reveal()).query)
    if not isinstance(wanted, Tls):
        return "; it says so too where it requires TLS: see ssl_ca"
    return "; it says so too where the user needs a certificate: see ssl_cert" if wanted.cert is None else ""


def forbidden(error: Exception) -> bool:
    """Say whether the server wants a privilege; it does not say then whether there is what was asked for."""
    return _code(error) in _FORBIDDEN


def absent(error: Exception) -> bool:
    """Say whether there is no such table, or no such schema."""
    return _code(error) in _ABSENT


_ACCESS_DENIED = 1045
# Access denied to a user, a host, or for lack of a password; and to a schema, or there is none.
_REASONS = {_ACCESS_DENIED: "auth", 1130: "auth", 1698: "auth", 1044: "schema", 1049: "schema"}
# To a schema, a table, a column.
_FORBIDDEN = {1044, 1142, 1143}
# The login itself, since the connection was made: it was locked, dropped, or its password has run out. A
# privilege for the whole server, for a routine, for functions where there is a binary log.
_PRIVILEGES = _FORBIDDEN | {1045, 1130, 1227, 1370, 1419, 1698, 1820, 1862, 4151}
_ABSENT = {1049, 1146}
_LOST = (oslo_errors.DBDeadlock, oslo_errors.DBConnectionError)
# The row has changed since the snapshot, a Galera node that is not ready, found a conflict at COMMIT (oslo.db
# does not know every wording of it) or lost its cluster in one (1180), a server that is being shut down.
_LOST_CODES = {1020, 1047, 1053, 1180, 1205, 1213, 1927}
_ROW = (
    oslo_errors.DBDuplicateEntry,
    oslo_errors.DBDataError,
    oslo_errors.DBReferenceError,
    oslo_errors.DBConstraintError,
)
# Out of range, too long, wrong for its charset, NULL where there may be none, no default, no shape,
# no partition for it, a trigger that says no, a CHECK, longer together than max_allowed_packet.
_ROW_CODES = {
    *(1048, 1054, 1062, 1264, 1265, 1292, 1301, 1364, 1366, 1406, 1411, 1416, 1451, 1452, 1526, 1644, 1690),
    *(3140, 3819, 4025),
}


def _translation(cell: str, error: Exception, *, writing: bool) -> CellsyncError:
    # After a connection was lost, SQLAlchemy asks for a rollback; people want to hear what happened.
    lost = isinstance(error, (sqlalchemy.exc.PendingRollbackError, sqlalchemy.exc.ResourceClosedError))
    message = f"{cell}: {'the connection was lost' if lost else _message(error)}"
    if not writing:
        return ReadFailed(message)
    if lost or isinstance(error, _LOST) or _code(error) in _LOST_CODES:
        return TransactionLost(message)
    if _code(error) in _PRIVILEGES:
        return NotAllowed(message)
    import sqlite3

    refused = isinstance(_driver_error(error), sqlite3.IntegrityError)
    if refused or isinstance(error, _ROW) or _code(error) in _ROW_CODES:
        return Rejected(message)
    return WriteFailed(message)


def _driver_error(error: BaseException) -> BaseException:
    inner = getattr(error, "inner_exception", None) or error
    return getattr(inner, "orig", None) or inner


def _code(error: Exception) -> int | None:
    arguments = _driver_error(error).args
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def _message(error: Exception) -> str:
    """Return the server's own words; a URL in them loses its password."""
    driver = _driver_error(error)
    arguments = driver.args
    if len(arguments) > 1 and isinstance(arguments[0], int):
        text = f"{arguments[1]} (error {arguments[0]})"
    else:
        text = str(driver) or type(driver).__name__
    return mask_urls((text.splitlines() or [""])[0])
