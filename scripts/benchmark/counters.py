"""What a server counts, and what a process uses: figures that do not depend on the machine's mood."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from cellsync.demo.database import connected
from cellsync.demo.server import PrivateServer

COUNTERS = {
    "queries": ["Questions"],
    "rows sent": ["Rows_sent"],
    "bytes sent": ["Bytes_sent"],
    "reads": [f"Handler_read_{how}" for how in ("first", "key", "next", "rnd", "rnd_next")],
}


def counters(server: PrivateServer) -> dict[str, int]:
    """Return a server's counters since it was started."""
    with connected(server.url("mysql")) as connection:
        found = {str(name): value for name, value in connection.execute(sa.text("SHOW GLOBAL STATUS"))}
    return {name: sum(int(found.get(each, 0)) for each in names) for name, names in COUNTERS.items()}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One process, from its start to its end."""

    seconds: float
    code: int
    out: Path
    peak_mb: float
    user: float
    """Seconds of CPU time, without those of the system: what a busy machine changes least."""


def measured(command: Sequence[str], out: Path, patience: float = 3600) -> Measured:
    """Run a command to its end; its output goes to a file, what it says to another one beside it.

    It is killed after ``patience`` seconds.
    """
    with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL)
        end = threading.Timer(patience, os.kill, (process.pid, signal.SIGKILL))
        end.start()
        _, status, usage = os.wait4(process.pid, 0)
        end.cancel()
        seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(
        seconds=seconds,
        code=process.returncode,
        out=out,
        peak_mb=usage.ru_maxrss / 1024,
        user=usage.ru_utime,
    )
