"""Open a database, and tell whether it still holds the same bytes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL


@contextmanager
def connected(url: URL) -> Iterator[sa.Connection]:
    """Open one connection and one transaction, committed at the end."""
    with _make_engine(url).begin() as connection:
        yield connection


@functools.lru_cache(maxsize=64)
def _make_engine(url: URL) -> sa.Engine:
    """Return an engine that keeps no connection; at its first one it asks the server what it is."""
    return sa.create_engine(url, poolclass=sa.pool.NullPool)


def checksums(url: URL | str, *, tables: Sequence[str] | None = None) -> dict[str, str]:
    """Return table -> checksum over the bytes of every row. Reads only.

    ``tables`` defaults to all tables of the schema. Two tables with one checksum hold the same
    rows, whatever their physical order; a NULL, a case, a trailing space or the last bit of a
    FLOAT makes a difference. The next AUTO_INCREMENT number is not looked at. Each table is read
    into memory: this is for demonstrations and tests.
    """
    with connected(sa.make_url(url)) as connection:
        inspector = sa.inspect(connection)
        names = inspector.get_table_names() if tables is None else tables
        if connection.dialect.name == "mysql":
            connection.execute(sa.text("SET SESSION time_zone = '+00:00'"))  # TIMESTAMP is shown in it
        return {name: _checksum(connection, name, _columns(connection, name)) for name in sorted(names)}


def _columns(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the columns of a table and their types; SQLAlchemy does not know all types of MariaDB."""
    if connection.dialect.name == "sqlite":
        return {column["name"]: str(column["type"]) for column in sa.inspect(connection).get_columns(table)}
    sql = (
        "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS "
        "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = :name ORDER BY ORDINAL_POSITION"
    )
    return {str(row[0]): str(row[1]) for row in connection.execute(sa.text(sql), {"name": table})}


def _checksum(connection: sa.Connection, table: str, columns: Mapping[str, str]) -> str:
    quote = connection.dialect.identifier_preparer.quote_identifier
    exact = _exact_sqlite if connection.dialect.name == "sqlite" else _exact_mariadb
    chosen = ", ".join(exact(quote(name), kind) for name, kind in columns.items())
    rows = connection.exec_driver_sql(f"SELECT {chosen} FROM {quote(table)}")
    digest = hashlib.sha256(repr([*columns]).encode())
    for line in sorted(repr(tuple(row)) for row in rows):
        digest.update(line.encode())
    return digest.hexdigest()


def _exact_mariadb(column: str, kind: str) -> str:
    # A FLOAT prints six digits; as a DOUBLE it prints them all.
    value = f"CAST({column} AS DOUBLE)" if kind == "float" else column
    return f"HEX(CAST({value} AS BINARY))"


def _exact_sqlite(column: str, kind: str) -> str:
    return f"quote({column})"
