"""The drift log: a local file with one line of JSON for every run that compared.

A comparison may read databases and write to none, so what it saw is kept here, beside the tool:
counts by cell, rule and kind, and the keys of some of the rows that differed, never their values.

The file is opened anew for each line and locked while it is written, so several runs may share
it, and logrotate may take it away at any time. It rotates by itself, too: at ``LIMIT`` it becomes
FILE.1, and both are read. A run that saw what a run before it saw says so in a short line, so
that a check every minute fills it in weeks, not in hours. A line that a crash tore is ended
before the next one is written, and left out when the log is read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cellsync import codec
from cellsync.errors import DriftLogUnavailable, ExitCode
from cellsync.model import Counts, Kind, SeenCell, SeenRow, SeenRule, Sighting, Status, Told
from cellsync.symlinks import open_trusted

VERSION = 1
"""The version of a line; one of a newer version is not understood."""

LIMIT = 8 << 20
"""Bytes at which a file is full. Some 30,000 runs that saw the same: three weeks of every minute."""

PATIENCE = 5.0
"""Seconds that a run waits for others that are writing their line, which takes them milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a drift log holds, the oldest first."""

    sightings: tuple[Sighting, ...] = ()
    torn: int = 0
    """Lines that could not be understood: torn by a crash, or of a newer version."""


# -- Writing -------------------------------------------------------------------------------------


def append(path: str | os.PathLike[str], sighting: Sighting, *, limit: int = LIMIT) -> None:
    """Add one line, all of it or nothing.

    A file that is not there is made, readable by its owner alone. Raises DriftLogUnavailable.
    """
    file = Path(path)
    body = _body(sighting)
    digest = hashlib.sha256(_line(body)).hexdigest()[:20]
    head = {**_head(sighting), "found": digest}
    with _failing(file, "write"):
        mode = 0o600
        while True:
            with _locked(file, mode) as descriptor:
                size = os.fstat(descriptor).st_size
                known = size and _knows(file, digest)
                line = _line(head if known else {**head, **body})
                if size and size + len(line) > limit:
                    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                    file.replace(_older(file))
                    continue
                _write(descriptor, size, line)
                return


def _write(descriptor: int, size: int, line: bytes) -> None:
    """Write at the end; what could not be written whole is taken away again."""
    torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
    text = b"\n" + line if torn else line
    try:
        if os.write(descriptor, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _knows(file: Path, digest: str) -> bool:
    """Say whether a whole line of this file has what was found."""
    mark = f'"found":"{digest}","rules":'.encode()
    with file.open("rb") as lines:
        return any(mark in line and _parsed(line) is not None for line in lines)


@contextmanager
def _locked(file: Path, mode: int) -> Iterator[int]:
    """Open the file for appending and lock it: the one that has the name now, and no other."""
    ended = time.monotonic() + PATIENCE
    while True:
        # Without O_NONBLOCK, a pipe that nobody reads would hold the run up for ever.
        descriptor = open_trusted(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, mode)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file")
            if _lock(descriptor) and _is_named(descriptor, file):
                yield descriptor
                return
        finally:
            os.close(descriptor)
        if time.monotonic() > ended:
            raise OSError(errno.EAGAIN, f"another process has held its lock for {PATIENCE:g} s")
        time.sleep(0.01)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(descriptor: int, file: Path) -> bool:
    """Say whether nobody has put another file in the place of this one meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _older(file: Path) -> Path:
    return file.with_name(f"{file.name}.1")


@contextmanager
def _failing(file: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DriftLogUnavailable(f"cannot {verb} the drift log {file}: {error.strerror}") from None


# -- Reading -------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Reading:
    """Return all that the log and the one before it hold; nothing where there is none yet.

    Raises DriftLogUnavailable where a file is there and cannot be read.
    """
    file = Path(path)
    sightings: list[Sighting] = []
    torn = 0
    for each in (_older(file), file):
        bodies: dict[str, _Body] = {}
        for line in _lines(each):
            sighting = _sighting(_parsed(line), bodies)
            if sighting is None:
                torn += 1
            else:
                sightings.append(sighting)
    return Reading(sightings=tuple(sorted(sightings, key=lambda each: (each.started, each.run))), torn=torn)


def last_told(path: str | os.PathLike[str], stream: str) -> Told | None:
    """Return what the last run of a stream told; None where no line has any. Raises as ``read``."""
    mark = json.dumps(stream).encode()
    file = Path(path)
    for each in (file, _older(file)):
        found = None
        for line in _lines(each):
            data = _parsed(line) if mark in line else None
            told = _told(data.get("told")) if data else None
            found = told if told and told.stream == stream else found
        if found is not None:
            return found
    return None


def _lines(file: Path) -> Iterator[bytes]:
    with _failing(file, "read"):
        if not file.exists():
            return
        if not file.is_file():
            raise OSError(errno.EINVAL, "it is no ordinary file")
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield line


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and data.get("version") == VERSION else None


# -- Lines ---------------------------------------------------------------------------------------

_Body = tuple[tuple[str, ...], tuple[SeenCell, ...]]
"""The rules and the cells of a line; runs that saw the same share them."""


def _line(content: Mapping[str, Any]) -> bytes:
    # ASCII: a key may hold what UTF-8 does not have.
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _head(sighting: Sighting) -> dict[str, Any]:
    told = sighting.told
    return {
        "version": VERSION,
        "run": sighting.run,
        "verb": sighting.verb,
        "started": _instant(sighting.started),
        "finished": _instant(sighting.finished),
        "topology": sighting.topology,
        "exit_code": int(sighting.exit_code),
        **({"told": {"stream": told.stream, "cells": dict(told.cells)}} if told else {}),
    }


def _instant(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _body(sighting: Sighting) -> dict[str, Any]:
    return {"rules": list(sighting.rules), "cells": [_cell(cell) for cell in sighting.cells]}


def _cell(cell: SeenCell) -> dict[str, Any]:
    content: dict[str, Any] = {"cell": cell.cell, "status": cell.status.value}
    if cell.error:
        content["error"] = cell.error
    if cell.rules:
        content["differs"] = [_rule(rule) for rule in cell.rules]
    if cell.unknown:
        content["unknown"] = list(cell.unknown)
    if cell.counts != Counts():
        content["changes"] = vars(cell.counts)
    return content


def _rule(rule: SeenRule) -> dict[str, Any]:
    content: dict[str, Any] = {"rule": rule.rule}
    content.update({kind.value: number for kind, number in rule.counts.items() if number})
    if rule.findings:
        content["findings"] = rule.findings
    if rule.rows:
        rows = [[row.kind.value, *map(codec.encode, row.key)] for row in rule.rows]
        content.update(key=list(rule.key), rows=rows)
    return content


def _sighting(data: Mapping[str, Any] | None, bodies: dict[str, _Body]) -> Sighting | None:
    """Return the value of a line; None where it is none, or refers to what is not there."""
    if data is None:
        return None
    try:
        if "rules" in data:
            cells = tuple(_seen_cell(cell) for cell in data["cells"])
            bodies[data["found"]] = (tuple(data["rules"]), cells)
        rules, cells = bodies[data["found"]]
        return Sighting(
            run=str(data["run"]),
            verb=str(data["verb"]),
            started=_moment(data["started"]),
            finished=_moment(data["finished"]),
            topology=str(data["topology"]),
            exit_code=ExitCode(data["exit_code"]),
            rules=rules,
            cells=cells,
            told=_told(data.get("told")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return None


def _told(data: Any) -> Told | None:
    if not (isinstance(data, dict) and isinstance(data.get("cells"), dict)):
        return None
    return Told(stream=str(data.get("stream")), cells={str(k): str(v) for k, v in data["cells"].items()})


def _seen_cell(data: Mapping[str, Any]) -> SeenCell:
    return SeenCell(
        cell=data["cell"],
        status=Status(data["status"]),
        error=data.get("error", ""),
        rules=tuple(_seen_rule(rule) for rule in data.get("differs", ())),
        unknown=tuple(data.get("unknown", ())),
        counts=Counts(**data.get("changes", {})),
    )


def _seen_rule(data: Mapping[str, Any]) -> SeenRule:
    return SeenRule(
        rule=data["rule"],
        key=tuple(data.get("key", ())),
        counts={kind: int(data.get(kind.value, 0)) for kind in Kind},
        findings=int(data.get("findings", 0)),
        rows=tuple(
            SeenRow(kind=Kind(kind), key=tuple(codec.decode(part) for part in key))
            for kind, *key in data.get("rows", ())
        ),
    )
