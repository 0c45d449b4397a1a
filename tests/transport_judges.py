"""The real parsers of transport URLs, release by release: ``Judge`` asks one in a process of its own.

The old releases are where ``scripts/setup`` unpacks them; without them the tests fail, and none is skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

RAW = ("2.5.0", "4.6.1")
"""Liberty's and Mitaka's: they take user, password and virtual host as they stand."""
PERCENT = ("5.2.0", "current")
"""The first one that decodes them, and the installed one."""

_HERE = Path(__file__).resolve().parent


class JudgedHost(NamedTuple):
    """One host as oslo.messaging reads it."""

    host: str | None
    port: int | None
    username: str | None
    password: str | None


class Judged(NamedTuple):
    """What oslo.messaging reads from a URL: ``error`` is its exception, "" where it has none."""

    hosts: tuple[JudgedHost, ...] = ()
    virtual_host: str | None = None
    written: str = ""
    error: str = ""


class Judge:
    """The parser of one release, which answers one URL after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, url: str) -> Judged:
        """Return what the real parser makes of a URL."""
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None and answered is not None
        asked.write(f"{json.dumps(url)}\n")
        asked.flush()
        line = answered.readline()
        assert line, "oslo.messaging gave no answer: its traceback is above"
        said = json.loads(line)
        return Judged(**{**said, "hosts": tuple(JudgedHost(*host) for host in said.get("hosts", ()))})


@contextmanager
def open_judge(version: str) -> Iterator[Judge]:
    """Start the parser of a release of ``RAW`` or ``PERCENT``. Raises FileNotFoundError with what to do."""
    command = [sys.executable, "-W", "ignore", str(_HERE / "parse_transport_url.py")]
    if version != "current":
        folder = _HERE.parent / ".venv" / "oslo.messaging" / f"oslo.messaging-{version}"
        if not folder.exists():
            raise FileNotFoundError(f"{folder} is not there: run MESSAGING=require scripts/setup test docs")
        command.append(str(folder))
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        yield Judge(process)
