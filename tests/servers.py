"""Databases for tests: real MariaDB servers, fresh schemas, and a look at what is in them.

A URL is text here, as people write it; ``servers.sql(url, ...)`` and its neighbours take it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import URL

from cellsync.demo.database import checksums, connected
from cellsync.demo.server import PrivateServer, executable

__all__ = ["AnyServer", "PrivateServer", "Server", "checksums", "database", "load", "sql"]

JOURNAL = "cellsync"


class AnyServer(Protocol):
    """A running server: pytest-mysql's (Server) or one with options of its own (PrivateServer)."""

    @property
    def port(self) -> int: ...

    def url(self, schema: str = "") -> URL: ...


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that pytest-mysql runs, with a user who has every right and a password."""

    port: int
    socket: str
    host: str = "127.0.0.1"
    user: str = "cellsync"
    password: str = "a p@ss:w/rd%41"
    """Awkward on purpose: every place that puts it into a URL must quote it."""

    def url(self, schema: str = "") -> URL:
        """Return the URL of a schema, with the password in it."""
        name = schema or None
        place = {"host": self.host, "port": self.port, "database": name, "query": {"charset": "utf8mb4"}}
        return URL.create("mysql+pymysql", username=self.user, password=self.password, **place)

    def add_user(self, *, administrator: str) -> None:
        """Make the user; the server lets its own ``administrator`` in through the socket."""
        client = (executable("mariadb", "mysql"), "--no-defaults", f"--socket={self.socket}")
        account = f"'{self.user}'@'{self.host}'"
        statements = (
            f"CREATE USER {account} IDENTIFIED BY '{self.password}'; "
            f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION"
        )
        subprocess.run((*client, f"--user={administrator}", "-e", statements), check=True)


def sql(url: str | URL, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Run one statement in a transaction of its own and return its rows, [] where it has none.

    Parameters are named (``:name``); a colon that is not one is written ``\\:``.
    """
    with connected(sa.make_url(url)) as connection:
        result = connection.execute(sa.text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []


def load(url: str | URL, dump: Path | str) -> None:
    """Run a file of SQL, or its text, through the ``mariadb`` client."""
    made = sa.make_url(url)
    client = (executable("mariadb", "mysql"), "--no-defaults", "--default-character-set=utf8mb4")
    place = (f"--host={made.host}", f"--port={made.port}", f"--user={made.username}")
    text = dump.read_bytes() if isinstance(dump, Path) else dump.encode()
    environment = {**os.environ, "MYSQL_PWD": str(made.password)}
    subprocess.run((*client, *place, made.database or ""), input=text, env=environment, check=True)


@contextmanager
def database(server: AnyServer, *, name: str, charset: str, collate: str = "") -> Iterator[str]:
    """Make a schema, give its URL as text, and drop it and the server's journal at the end."""
    collation = f"COLLATE {collate}" if collate else ""
    sql(server.url(), f"CREATE DATABASE `{name}` CHARACTER SET {charset} {collation}")
    yield server.url(name).render_as_string(hide_password=False)
    for schema in (name, JOURNAL):
        sql(server.url(), f"DROP DATABASE IF EXISTS `{schema}`")


@contextmanager
def pair(server: AnyServer, prefix: str) -> Iterator[dict[str, str]]:
    """Make two schemas on one server, of a parent and a child, and give their URLs by cell."""
    with (
        database(server, name=f"{prefix}_api", charset="utf8mb4") as parent,
        database(server, name=f"{prefix}_c1", charset="utf8mb4") as child,
    ):
        yield {"api": parent, "c1": child}


class DatabaseFactory(Protocol):
    """What the fixture ``database`` gives."""

    def __call__(
        self, server: AnyServer | None = None, *, name: str = "", charset: str = "utf8mb4", collate: str = ""
    ) -> str: ...
