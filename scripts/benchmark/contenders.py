"""The contenders: the bare scan, cellsync, and other tools. Each says whether its answer was right."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from counters import measured
from data import KEYS, SCHEMA

from cellsync.demo.database import connected
from cellsync.demo.server import PrivateServer


@dataclass(frozen=True, kw_only=True)
class Place:
    """Two servers with the data in them, a folder for files, and what is to be found."""

    parent: PrivateServer
    child: PrivateServer
    folder: Path
    key: str
    counts: tuple[int, int, int]
    """How many rows are missing, changed and extra."""
    columns: Sequence[str]

    @property
    def servers(self) -> tuple[PrivateServer, PrivateServer]:
        """Return both servers."""
        return self.parent, self.child


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How long it took, and what was wrong with it ("" when it is right)."""

    seconds: float
    wrong: str = ""
    peak_mb: float = 0.0


PATIENCE = 120
"""Seconds that another tool has for its answer."""

NO_ANSWER = f"no answer in {PATIENCE} s"


class Contender(Protocol):
    """Something that compares."""

    name: str

    def run(self, place: Place) -> Answer:
        """Compare once."""


@dataclass
class Scan:
    """One statement on both servers at once: the least that any comparison by it can take."""

    name: str
    expression: str | None = None
    """None: the digest that cellsync itself sends."""
    _sent: dict[str, list[str]] = field(default_factory=dict)

    def run(self, place: Place) -> Answer:
        """Scan both sides."""
        if self.expression is None:
            statements = self._sent.get(place.key) or digest_statements(place)
            self._sent[place.key] = statements
        else:
            row = ", ".join(f"IFNULL({name}, x'1e')" for name in place.columns)
            digest = self.expression.format(row=f"CONCAT_WS(x'1f', {row})")
            statements = [f"SELECT COUNT(*), BIT_XOR({digest}) FROM instances"] * 2
        threads = [
            threading.Thread(target=_scan, args=(server, statement))
            for server, statement in zip(place.servers, statements, strict=True)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Answer(seconds=time.monotonic() - started)


def _scan(server: PrivateServer, statement: str) -> None:
    with connected(server.url(SCHEMA)) as connection:
        connection.connection.cursor().execute(statement)


def digest_statements(place: Place) -> list[str]:
    """Return the digest statements that cellsync sends to both servers, from their own logs."""
    _log(place, "SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1")
    Cellsync().run(place)
    _log(place, "SET GLOBAL general_log = 0")
    found = []
    for server in place.servers:
        with connected(server.url("mysql")) as connection:
            # Not those of a few buckets, by which it is told whether digests are worth it.
            like = "argument LIKE '%BIT_XOR%' AND argument NOT LIKE '%BETWEEN%'"
            sql = f"SELECT CONVERT(argument USING utf8mb4) FROM general_log WHERE {like}"
            found += [str(row[0]) for row in connection.exec_driver_sql(sql.replace("%", "%%"))][:1]
    if len(found) != 2:
        raise SystemExit(
            "bench: cellsync sent no digests: the tables are too small (--rows), or most of them differs and "
            "no case of the same key was measured in step before"
        )
    return found


def _log(place: Place, *statements: str) -> None:
    for server in place.servers:
        with connected(server.url("mysql")) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


@dataclass
class Cellsync:
    """cellsync, as people run it."""

    name: str = "cellsync diff"

    def run(self, place: Place) -> Answer:
        """Run ``cellsync diff`` and count what it found."""
        rules = place.folder / f"{place.key}.yaml"
        rules.write_text(f"pack: bench\nrules:\n  - {KEYS[place.key]}\n")
        config = place.folder / "cellsync.yaml"
        urls = [server.url(SCHEMA).render_as_string(hide_password=False) for server in place.servers]
        config.write_text(
            f"parent: {{name: api, database: {json.dumps(urls[0])}}}\n"
            f"children: [{{name: c1, database: {json.dumps(urls[1])}}}]\nrules: [./{rules.name}]\n"
        )
        command = [sys.executable, "-m", "cellsync", "-c", str(config), "diff", "--format", "json"]
        done = measured(command, place.folder / "cellsync.out")
        if done.code not in (0, 1):
            return Answer(seconds=done.seconds, wrong=f"exit code {done.code}", peak_mb=done.peak_mb)
        # Not the whole document: a process begins with the memory of the one that starts it.
        with done.out.open() as out:
            head = out.read(4096)
        found = tuple(int(number) for number in re.findall(r'"(?:missing|changed|extra)": (\d+)', head))
        wrong = "" if found == place.counts else f"found {found} instead of {place.counts}"
        return Answer(seconds=done.seconds, wrong=wrong, peak_mb=done.peak_mb)


@dataclass
class PtTableSync:
    """pt-table-sync of Percona Toolkit, printing what it would write."""

    name: str = "pt-table-sync --print"

    def run(self, place: Place) -> Answer:
        """Run it and count the statements that it prints."""
        both = [
            f"h={server.host},P={server.port},u={server.user},p={server.password},D={SCHEMA},t=instances"
            for server in place.servers
        ]
        command = ["pt-table-sync", "--print", "--no-check-slave", "--charset=utf8", *both]
        command += ["--ignore-columns=updated_at"]
        done = measured(command, place.folder / "pt.out", PATIENCE)
        deletes, writes = begun(done.out, "DELETE"), begun(done.out, "REPLACE", "INSERT", "UPDATE")
        missing, changed, extra = place.counts
        right = (deletes, writes) == (extra, missing + changed)
        wrong = "" if right else f"exit code {done.code}, {deletes} deletes and {writes} writes"
        wrong = NO_ANSWER if done.code == -signal.SIGKILL else wrong
        return Answer(seconds=done.seconds, wrong=wrong, peak_mb=done.peak_mb)


@dataclass
class Reladiff:
    """reladiff, in a virtual environment of its own, in the setting that works for NULLs."""

    program: str
    name: str = "reladiff"

    def run(self, place: Place) -> Answer:
        """Run it and count the rows that it prints."""
        urls = [
            f"mysql://{server.user}:{server.password}@{server.host}:{server.port}/{SCHEMA}"
            for server in place.servers
        ]
        command = [self.program, urls[0], "instances", urls[1], "instances", "-k", "id"]
        command += ["--skip-sort-results", "--assume-unique-key"]
        command += [part for name in place.columns if name != "id" for part in ("-c", name)]
        done = measured(command, place.folder / "reladiff.out", PATIENCE)
        minus, plus = (begun(done.out, sign) for sign in "-+")
        missing, changed, extra = place.counts
        right = (minus, plus) == (missing + changed, changed + extra)
        wrong = "" if right else f"exit code {done.code}, {minus} rows only there and {plus} only here"
        wrong = NO_ANSWER if done.code == -signal.SIGKILL else wrong
        return Answer(seconds=done.seconds, wrong=wrong, peak_mb=done.peak_mb)


def peers(folder: Path) -> tuple[list[Contender], list[str]]:
    """Install what can be installed; return the contenders, and why others are missing."""
    found: list[Contender] = []
    missing: list[str] = []
    if shutil.which("pt-table-sync") is None:
        _try(["apt-get", "-qq", "install", "--no-install-recommends", "-y", "percona-toolkit"])
    if shutil.which("pt-table-sync"):
        found.append(PtTableSync())
    else:
        missing.append("pt-table-sync was not measured: percona-toolkit is not installed and could not be")
    venv = folder / "peers"
    _try([sys.executable, "-m", "venv", str(venv)])
    _try([str(venv / "bin" / "pip"), "install", "-q", "reladiff[mysql]"])
    program = venv / "bin" / "reladiff"
    if program.exists():
        found.append(Reladiff(program=str(program)))
    else:
        missing.append("reladiff was not measured: pip could not install it")
    return found, missing


def _try(command: list[str]) -> None:
    if shutil.which(command[0]):
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def begun(file: Path, *words: str) -> int:
    """Count the lines that begin with one of the words."""
    with file.open(errors="replace") as lines:
        return sum(line.startswith(words) for line in lines)


SCANS = (
    Scan("scan: digest of cellsync"),
    Scan("scan: CRC32 * CRC32C", "CRC32(@s := {row}) * CRC32C(@s)"),
    Scan("scan: SHA-1, folded", "(CRC32(@s := SHA1({row})) << 32) | CRC32C(@s)"),
)
