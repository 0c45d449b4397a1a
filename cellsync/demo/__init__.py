"""Show cellsync on a parent and two compute cells of its own, from the fault to the undo.

Everything is made for the demonstration and thrown away: a private MariaDB server (``server``) or
three SQLite files, with databases like Nova's (``nova``). cellsync runs as a person would run it,
as a command; what the demonstration claims about the databases, it reads from them itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from cellsync.demo import nova
from cellsync.demo.database import checksums, connected
from cellsync.demo.server import PrivateServer, ServerFailed, is_installed
from cellsync.errors import ExitCode

BACKENDS = ("auto", "mariadb", "sqlite")
PASSWORD_VARIABLE = "CELLSYNC_DEMO_PASSWORD"
COMMAND_SECONDS = 120

Echo = Callable[[str], None]


class StepFailed(Exception):
    """Name the step that did not do what the demonstration promises."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The databases of the demonstration and the way to run cellsync on them."""

    folder: Path
    databases: Mapping[str, URL]
    """Cell -> its database, the parent first."""
    password: str
    """The MariaDB user's; empty for SQLite."""
    cellsync: Sequence[str]
    echo: Echo

    @property
    def config(self) -> Path:
        """The cell file, which names the password's environment variable and not the password."""
        return self.folder / "cellsync.yaml"

    def command(self, *arguments: str, expected: ExitCode, shown: bool = True) -> str:
        """Run one cellsync command, show it and what it says, and return its standard output.

        Raises StepFailed when the exit code is not the expected one.
        """
        title = " ".join(("cellsync", *arguments))
        if shown:
            self.echo(f"$ {title}")
        done = subprocess.run(
            (*self.cellsync, "-c", str(self.config), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if shown else subprocess.PIPE,
            env=self._environment(),
            text=True,
            encoding="utf-8",
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if shown:
            self.echo(f"{done.stdout.rstrip()}\n")
        if done.returncode != expected:
            said = "" if shown else f":\n{done.stderr or done.stdout}"
            raise StepFailed(f"'{title}' ended with {done.returncode}, not with {int(expected)}{said}")
        return done.stdout

    def checksums(self) -> dict[str, dict[str, str]]:
        """Return cell -> table -> checksum over Nova's tables; the journal is not among them."""
        tables = tuple(nova.NOVA.tables)
        return {cell: checksums(url, tables=tables) for cell, url in self.databases.items()}

    def _environment(self) -> dict[str, str]:
        width = {"COLUMNS": str(shutil.get_terminal_size((100, 24)).columns)}
        return {**os.environ, **width, "PYTHONIOENCODING": "utf-8", PASSWORD_VARIABLE: self.password}


def run(*, backend: str, keep: bool, echo: Echo, cellsync: Sequence[str]) -> int:
    """Build the cells, break them, repair them, undo it, and return the exit code.

    ``backend`` is one of BACKENDS; "auto" takes MariaDB where it is installed. ``cellsync`` is the
    command to run, ``[sys.executable, "-m", "cellsync"]``. ``keep`` leaves the databases in place,
    repaired and undone, and says how to use and remove them. Returns 0 when every step gave the
    exit code it must and the databases ended as they began, else 1. On Ctrl-C and on SIGTERM the
    server is stopped and the folder removed too. Takes about half a minute.
    """
    try:
        with _termination_unwinds(), ExitStack() as leaving:
            folder = Path(tempfile.mkdtemp(prefix="cellsync-demo-"))
            leaving.callback(shutil.rmtree, folder, ignore_errors=True)
            stage = _build(backend, folder=folder, leaving=leaving, echo=echo, cellsync=cellsync)
            _play(stage)
            if keep:
                _say_what_stays(stage)
                leaving.pop_all()
    except (ServerFailed, StepFailed) as error:
        echo(f"The demonstration failed: {error}")
        return 1
    return 0


# -- Building ----------------------------------------------------------------------------------


def _build(backend: str, *, folder: Path, leaving: ExitStack, echo: Echo, cellsync: Sequence[str]) -> Stage:
    if backend == "auto":
        backend = "mariadb" if is_installed() else "sqlite"
        if backend == "sqlite":
            echo("No MariaDB server is installed here: the embedded SQLite stands in for it.\n")
    password = ""
    if backend == "mariadb":
        echo("Starting a private MariaDB server ...")
        server = leaving.enter_context(PrivateServer(folder / "server"))
        password = server.password
        databases = {cell: server.url(f"{cell}_nova") for cell in nova.CELLS}
        with connected(server.url()) as connection:
            for url in databases.values():
                connection.execute(sa.text(f"CREATE DATABASE {url.database} CHARACTER SET utf8mb3"))
        where = f"three schemas of MariaDB on {server.host}:{server.port}"
    else:
        databases = {cell: URL.create("sqlite", database=str(folder / f"{cell}.db")) for cell in nova.CELLS}
        where = "three SQLite files"
    for cell, url in databases.items():
        nova.fill(url, cell=cell)
    stage = Stage(folder=folder, databases=databases, password=password, cellsync=cellsync, echo=echo)
    _write_config(stage)
    children = " and ".join(nova.CHILDREN)
    echo(f"A parent cell '{nova.PARENT}' and its children {children} are up: {where}, in {folder}.")
    return stage


def _write_config(stage: Stage) -> None:
    text = {
        cell: url.set(query={})
        .render_as_string(hide_password=True)
        .replace("***", f"${{{PASSWORD_VARIABLE}}}")
        for cell, url in stage.databases.items()
    }
    lines = [
        f'parent: {{name: {nova.PARENT}, database: "{text[nova.PARENT]}"}}',
        "children:",
        *(f'  - {{name: {child}, database: "{text[child]}"}}' for child in nova.CHILDREN),
        "rules: [nova-cells-v1]",
    ]
    stage.config.write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- Playing -----------------------------------------------------------------------------------


def _play(stage: Stage) -> None:
    echo = stage.echo
    echo("They are broken as Nova cells are in real life:")
    for line in nova.FAULTS:
        echo(f"    {line.lstrip()}" if line.startswith(" ") else f"  - {line}")
    echo(f"\nThe commands below read {stage.config}:\n")
    echo(stage.config.read_text(encoding="utf-8"))
    before = stage.checksums()
    _show_zones(stage)

    _chapter(echo, "What differs, and what does it mean?")
    stage.command("diff", expected=ExitCode.DIFFERENCES)

    _chapter(echo, "What would a repair write? (It writes nothing yet.)")
    stage.command("repair", "--dry-run", expected=ExitCode.DIFFERENCES)
    _must(stage.checksums() == before, "the dry run changed a database")

    _chapter(echo, "Repair.")
    stage.command("repair", "--yes", expected=ExitCode.DIFFERENCES)
    run_id = _last_run(stage)
    found = _show_zones(stage)
    _must(found == nova.ZONES_AFTER, f"the availability zones are not those of the parent: {found}")
    echo("az-east exists in c1 now, and az-west in c2: read from their databases, not from cellsync.\n")

    _chapter(echo, "What is left?")
    stage.command("diff", expected=ExitCode.DIFFERENCES)
    _must(_only_reported(stage), "the second diff still finds rows that a repair would write")
    echo("Exit code 1, because two things are reported and never touched: c2's own aggregate (a child")
    echo("may own rows), and vm-c1, whose state only Nova itself may mend.\n")

    _chapter(echo, "Take it all back.")
    stage.command("undo", run_id, "--yes", expected=ExitCode.IN_STEP)
    _must_be_equal(before, stage.checksums())
    tables = sum(len(found) for found in before.values())
    echo(f"Every row of all {tables} tables in {len(before)} databases is again what it was, byte for byte.")
    echo("That was cellsync. For your own cells, README.rst has the first real use in five minutes.")


def _chapter(echo: Echo, title: str) -> None:
    echo(f"-- {title} ".ljust(78, "-"))


def _show_zones(stage: Stage) -> dict[str, nova.Zones]:
    found = {child: nova.zones(stage.databases[child]) for child in nova.CHILDREN}
    stage.echo("Availability zones, as each child's own Nova sees them:")
    for child, zones in found.items():
        shown = "; ".join(f"{zone}: {', '.join(hosts)}" for zone, hosts in zones.items())
        stage.echo(f"    {child}   {shown}")
    stage.echo("")
    return found


def _last_run(stage: Stage) -> str:
    history = json.loads(stage.command("history", "--format", "json", expected=ExitCode.IN_STEP, shown=False))
    _must(bool(history["runs"]), "the history does not know the repair")
    return str(history["runs"][0]["run"])


def _only_reported(stage: Stage) -> bool:
    text = stage.command("diff", "--format", "json", expected=ExitCode.DIFFERENCES, shown=False)
    report: Mapping[str, Any] = json.loads(text)
    tables = [table for cell in report["cells"] for table in cell["tables"]]
    actions = {difference["action"] for table in tables for difference in table["differences"]}
    return actions <= {"report", "ignore"}


def _must(kept: bool, broken_promise: str) -> None:
    if not kept:
        raise StepFailed(broken_promise)


def _must_be_equal(before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]) -> None:
    tables = ((cell, table) for cell in before for table in before[cell])
    wrong = [f"{cell}.{table}" for cell, table in tables if before[cell][table] != after[cell][table]]
    _must(not wrong, f"the undo left these tables different: {', '.join(wrong)}")


# -- Ending ------------------------------------------------------------------------------------


def _say_what_stays(stage: Stage) -> None:
    stage.echo(f"\nKept in {stage.folder}; remove that folder when you are done.")
    if stage.password:
        secret = stage.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(stage.password, encoding="utf-8")
        pid_file = stage.folder / "server" / "data" / "server.pid"
        stage.echo(f"  export {PASSWORD_VARIABLE}=$(cat {secret})    # before you use it")
        stage.echo(f"  kill $(cat {pid_file})    # before you remove it")
    stage.echo(f"  cellsync -c {stage.config} diff")


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit meanwhile, so that what was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    caught = (signal.SIGTERM, signal.SIGHUP)
    previous = [(number, signal.signal(number, unwind)) for number in caught]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
