"""Start and stop a MariaDB server of our own, as root or as an ordinary user.

The demonstration and the tests live on it. No service of the system is started, stopped or
asked: the server has its own folder, listens on the loopback address and a free port, and is
stopped by its process id.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa
from sqlalchemy.engine import URL

from cellsync.demo.database import connected

START_SECONDS = 60
STOP_SECONDS = 20


class ServerFailed(Exception):
    """Say why a server could not be made or started, with the end of its log."""


class PrivateServer:
    """One MariaDB server process of our own: its own folder, loopback only, a free port.

    Works as root and as an ordinary user; no service of the system is touched. A context
    manager: entering initialises the data folder (about 1 s) and starts the server, leaving
    stops it. The folder itself belongs to the caller.
    """

    host = "127.0.0.1"
    user = "cellsync"

    def __init__(self, directory: Path, *, options: Sequence[str] = ()) -> None:
        """``options`` are added to the server's command line, ``("--default-time-zone=+08:00",)``."""
        self.directory = directory
        self.options = tuple(options)
        self.password = secrets.token_urlsafe(16)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateServer:
        with ExitStack() as failing:
            failing.callback(self.stop)
            self.initialise()
            self.start()
            failing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self.directory / "mariadb.log"

    def url(self, schema: str = "") -> URL:
        """Return the SQLAlchemy URL of a schema, with the password in it."""
        return URL.create(
            "mysql+pymysql",
            username=self.user,
            password=self.password,
            host=self.host,
            port=self.port,
            database=schema or None,
            query={"charset": "utf8mb4"},
        )

    def initialise(self) -> None:
        """Make the data folder, with one user who has every right and a password."""
        installer = executable("mariadb-install-db", "mysql_install_db")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        (self.directory / "tmp").mkdir(exist_ok=True)
        statements = (
            f"CREATE USER IF NOT EXISTS '{self.user}'@'{self.host}' IDENTIFIED BY '{self.password}';",
            f"GRANT ALL ON *.* TO '{self.user}'@'{self.host}' WITH GRANT OPTION;",
        )
        first = self.directory / "first.sql"
        first.touch(mode=0o600)
        first.write_text("\n".join(statements) + "\n", encoding="utf-8")
        command = (
            installer,
            "--no-defaults",
            *_as_root(),
            f"--datadir={self.directory / 'data'}",
            "--auth-root-authentication-method=socket",  # the server's root has no password to guess
            "--skip-test-db",
            "--skip-name-resolve",
        )
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise ServerFailed(f"{installer} failed:\n{_tail(done.stdout)}")

    def start(self) -> None:
        """Start the server, on the port that it had or on a free one, and wait until it answers.

        Raises ServerFailed, with the end of the server's log, when it does not come up.
        """
        self.port = self.port or _free_port()
        self.process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; we stop the server when we are done with it
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"the MariaDB server did not start:\n{_tail(self.log.read_bytes())}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server by its process id; does nothing when it is not running."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _command(self) -> tuple[str, ...]:
        return (
            executable("mariadbd", "mysqld"),
            "--no-defaults",
            *_as_root(),
            f"--datadir={self.directory / 'data'}",
            f"--log-error={self.log}",
            f"--init-file={self.directory / 'first.sql'}",
            # Relative to the data folder: the full path of a socket may have 107 characters only.
            "--socket=server.sock",
            "--pid-file=server.pid",
            # A starting server removes all temporary tables from its tmpdir, another server's too.
            f"--tmpdir={self.directory / 'tmp'}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            # Nothing here must outlive the machine, but a server killed with SIGKILL must find its
            # commits again: written to the file at each commit (2, not 0), never waited for.
            "--innodb-flush-log-at-trx-commit=2",
            "--skip-innodb-doublewrite",
            "--character-set-server=utf8mb4",
            *self.options,
        )

    def _answers(self) -> bool:
        try:
            with connected(self.url()) as connection:
                connection.execute(sa.text("SELECT 1"))
        except sa.exc.OperationalError:
            return False
        return True


def is_installed() -> bool:
    """Say whether this machine has the programs of a MariaDB server."""
    return bool(find("mariadbd", "mysqld") and find("mariadb-install-db", "mysql_install_db"))


def executable(*names: str) -> str:
    """Return the path of the first of these programs that is installed, or raise ServerFailed."""
    found = find(*names)
    if found is None:
        raise ServerFailed(f"{names[0]} was not found: install MariaDB (Debian: mariadb-server-core)")
    return found


def find(*names: str) -> str | None:
    """Return the path of the first of these programs that is installed, or None."""
    # An ordinary user's PATH lacks the sbin folders, where Debian has the server.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _as_root() -> tuple[str, ...]:
    # The server refuses to run as root unless told; for others the option is an error or a warning.
    return ("--user=root",) if os.geteuid() == 0 else ()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((PrivateServer.host, 0))
        return int(probe.getsockname()[1])


def _tail(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-15:])
