"""Fixtures: private MariaDB servers and RabbitMQ nodes on the loopback address, and fresh databases.

``server``            one server for the whole session
``servers``           three: {"parent": ..., "c1": ..., "c2": ...}; the parent is ``server``
``server_with``       a server with options of its own, kept for the session: server_with("--x=y")
``throwaway_server``  a server of the test's own, which it may stop, kill and start again
``database``          a fresh schema, dropped after the test: its URL as text
``galera``            a Galera cluster of three servers; a test that kills a node calls ``galera.recover()``
``rabbit``            a RabbitMQ node for the whole session, which nobody disturbs
``other_rabbit``      another one, which a test may kill, stop or block; the next test finds it sound
``browser``           a headless Chromium for the whole session, with its size and media as at the start

Nothing starts before a test asks for it. Without MariaDB, Galera, RabbitMQ or Chromium they fail; no test is
skipped.
"""

from __future__ import annotations

import itertools
import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser import Browser, chromium
from edges import as_if_large
from galera import Cluster, running_cluster
from hypothesis import settings
from pytest_mysql.executor import MySQLExecutor
from pytest_mysql.factories import mysql_proc
from rabbitmq import RabbitMQ
from servers import AnyServer, DatabaseFactory, PrivateServer, Server
from servers import database as make_database

from cellsync.demo.server import executable, find

# PyMySQL reads the machine's certificates anew for every connection, which takes longer (80 ms) than
# anything else in most tests, and no test trusts a certificate.
os.environ["SSL_CERT_FILE"] = os.devnull

# A database on a busy machine is slow at times, which is no fault of the property under test.
settings.register_profile("cellsync", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("cellsync")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: one that began last would run alone at the end.

    Within both halves files and tests keep the order that pytest-randomly gave them.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


_ME = pwd.getpwuid(os.geteuid()).pw_name
_OPTIONS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--character-set-server=utf8mb4",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=32M",
    # 2: a server killed by a test finds its commits again; only the machine's death would lose them.
    "--innodb-flush-log-at-trx-commit=2",
    "--skip-innodb-doublewrite",
)


def _mysql_proc() -> Callable[..., Iterator[MySQLExecutor]]:
    return mysql_proc(
        mysqld_exec=Path(find("mariadbd", "mysqld") or "mariadbd"),
        mysqld_safe=Path(__file__).parent / "mariadbd-foreground",
        admin_executable=find("mariadb-admin", "mysqladmin") or "mariadb-admin",
        install_db=find("mariadb-install-db", "mysql_install_db") or "mariadb-install-db",
        host="127.0.0.1",
        user=_ME,
        params=" ".join(_OPTIONS),
    )


parent_proc = _mysql_proc()
c1_proc = _mysql_proc()
c2_proc = _mysql_proc()


def _server(request: pytest.FixtureRequest, name: str) -> Server:
    executable("mariadbd", "mysqld")  # says what to install, where pytest-mysql finds no file
    process: MySQLExecutor = request.getfixturevalue(name)
    server = Server(port=process.port, socket=process.unixsocket)
    server.add_user(administrator=_ME)
    return server


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """One server for the whole session."""
    return _server(request, "parent_proc")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest, server: Server) -> Mapping[str, Server]:
    """Three distinct servers: "parent", "c1" and "c2"."""
    return {"parent": server, "c1": _server(request, "c1_proc"), "c2": _server(request, "c2_proc")}


@pytest.fixture(scope="session")
def server_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., PrivateServer]]:
    """Give the server with these options; the same options give the same server."""
    running: dict[tuple[str, ...], PrivateServer] = {}
    with ExitStack() as leaving:

        def server_with(*options: str) -> PrivateServer:
            if options not in running:
                folder = tmp_path_factory.mktemp("server")
                running[options] = leaving.enter_context(PrivateServer(folder, options=options))
            return running[options]

        yield server_with


@pytest.fixture
def throwaway_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """Give a server of the test's own: ``.process.kill()``, ``.stop()``, ``.start()``."""
    with PrivateServer(tmp_path / "server") as server:
        yield server


@pytest.fixture(scope="session")
def galera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a cluster of three nodes."""
    with running_cluster(tmp_path_factory.mktemp("galera")) as cluster:
        yield cluster


VHOSTS = ("parent", "c1", "c2")


@pytest.fixture(scope="session")
def rabbit() -> Iterator[RabbitMQ]:
    """Give a broker with virtual hosts for three cells."""
    with RabbitMQ(vhosts=VHOSTS) as node:
        yield node


@pytest.fixture(scope="session")
def _other_rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ(vhosts=VHOSTS) as node:
        yield node


@pytest.fixture
def other_rabbit(_other_rabbit: RabbitMQ) -> Iterator[RabbitMQ]:
    """Give a broker that a test may disturb."""
    yield _other_rabbit
    _other_rabbit.recover()


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(_browser: Browser) -> Browser:
    """Give a browser with a light screen of 1200 pixels, whose log is empty."""
    _browser.reset()
    return _browser


_numbers = itertools.count(1)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[DatabaseFactory]:
    """Make a fresh schema in a server (``server`` unless given); its URL as text.

    The schema is dropped after the test, and with it the journal on that server.
    """
    with ExitStack() as leaving:

        def database(
            server: AnyServer | None = None, *, name: str = "", charset: str = "utf8mb4", collate: str = ""
        ) -> str:
            where = server or request.getfixturevalue("server")
            unique = name or f"t{os.getpid()}_{next(_numbers)}"
            return leaving.enter_context(make_database(where, name=unique, charset=charset, collate=collate))

        yield database


@pytest.fixture(params=["rows", "digests"])
def compared_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare small tables as large ones are compared, too."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "digests":
            as_if_large(patch)
        yield
