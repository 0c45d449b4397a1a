"""Open a database, and tell whether it still holds the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import URL


@contextmanager
def connected(url: URL) -> Iterator[sa.Connection]:
    """Open one connection and one transaction, committed at the end."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        yield connection


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
        return {name: _checksum(connection, name, inspector.get_columns(name)) for name in sorted(names)}


def _checksum(connection: sa.Connection, table: str, columns: Sequence[Any]) -> str:
    quote = connection.dialect.identifier_preparer.quote_identifier
    exact = _exact_sqlite if connection.dialect.name == "sqlite" else _exact_mariadb
    chosen = ", ".join(exact(quote(column["name"]), column["type"]) for column in columns)
    rows = connection.exec_driver_sql(f"SELECT {chosen} FROM {quote(table)}")
    digest = hashlib.sha256(repr([column["name"] for column in columns]).encode())
    for line in sorted(repr(tuple(row)) for row in rows):
        digest.update(line.encode())
    return digest.hexdigest()


def _exact_mariadb(column: str, kind: Any) -> str:
    # A FLOAT prints six digits; as a DOUBLE it prints them all.
    value = f"CAST({column} AS DOUBLE)" if isinstance(kind, mysql.FLOAT) else column
    return f"HEX(CAST({value} AS BINARY))"


def _exact_sqlite(column: str, kind: Any) -> str:
    return f"quote({column})"
