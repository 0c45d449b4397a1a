"""The drift log: whole lines whatever happens to the writers, bounded growth, and nothing read as clean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from cellsync import driftlog
from cellsync.errors import DriftLogUnavailable, ExitCode
from cellsync.model import (
    Counts,
    Dangling,
    Kind,
    Reference,
    SeenCell,
    SeenRow,
    SeenRule,
    Sighting,
    Status,
    Told,
)

STARTED = datetime(2026, 11, 23, 3, 0, 0, tzinfo=timezone.utc)


def seen(number: int = 0, *cells: SeenCell, told: Told | None = None) -> Sighting:
    """Return what a run saw, so many minutes after the first one."""
    started = STARTED + timedelta(minutes=number)
    return Sighting(
        run=f"run-{number}",
        verb="diff",
        started=started,
        finished=started + timedelta(seconds=1),
        topology="api",
        exit_code=ExitCode.DIFFERENCES if cells else ExitCode.IN_STEP,
        rules=("aggregates", "flavors"),
        cells=cells or (SeenCell(cell="c1", status=Status.IN_STEP),),
        told=told,
    )


def drifted(*keys: object, rule: str = "aggregates", more: int = 0) -> SeenCell:
    """Return a cell in which rows of these keys are missing, and so many others that are not listed."""
    rows = tuple(SeenRow(kind=Kind.MISSING, key=(key,)) for key in keys)  # type: ignore[arg-type]
    counts = {Kind.MISSING: len(rows) + more, Kind.CHANGED: 0, Kind.EXTRA: 0}
    found = SeenRule(rule=rule, key=("name",), counts=counts, rows=rows)
    return SeenCell(cell="c1", status=Status.DIFFERS, rules=(found,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the place of a log."""
    return tmp_path / "drift.jsonl"


def test_what_is_written_is_read(file: Path) -> None:
    """Every part of it, with keys of every type, failures, unknown rules and what was told."""
    keys = ("a", "", None, b"\x00\xff", Decimal("1.10"), 0.1, "\ud800\u2028", 7, ("x", 1))
    keys += (Reference(rule="aggregates", key=("west",)), Dangling(raw=9, deleted=False))
    down = SeenCell(cell="c2", status=Status.UNREACHABLE, error="cannot connect to c2")
    counts = Counts(planned=3, applied=2, conflicts=1)
    done = SeenCell(cell="c3", status=Status.INCOMPLETE, unknown=("flavors",), counts=counts)
    written = [
        seen(0, drifted(*keys, more=5), down, done),
        seen(1, told=Told(stream="s", cells={"c1": "m", "": "n"})),
    ]
    for each in written:
        driftlog.append(file, each)
    assert driftlog.read(file) == driftlog.Reading(sightings=tuple(written))
    assert file.stat().st_mode & 0o777 == 0o600


def test_no_file_is_an_empty_log(file: Path) -> None:
    """Before the first run there is nothing to read."""
    assert driftlog.read(file) == driftlog.Reading()
    assert driftlog.last_told(file, "s") is None


def test_a_run_that_saw_the_same_takes_a_short_line(file: Path) -> None:
    """A check every minute must not fill the file with what stands in it already."""
    many = drifted(*(f"row-{number}" for number in range(100)))
    for number in range(50):
        driftlog.append(file, seen(number, many if number % 2 else drifted("x")))
    lines = file.read_bytes().splitlines()
    assert max(map(len, lines[2:])) < 250
    read = driftlog.read(file).sightings
    assert [each.cells[0] for each in read[:4]] == [drifted("x"), many] * 2
    assert len(read) == 50


def test_it_rotates_by_itself_and_both_files_are_read(file: Path) -> None:
    """The new file stands alone: no line of it refers to the old one. Two files are all that there are."""
    for number in range(40):
        driftlog.append(file, seen(number, drifted("x" * 300)), limit=3000)
    older = file.with_name("drift.jsonl.1")
    assert sorted(file.parent.iterdir()) == [file, older]
    assert max(file.stat().st_size, older.stat().st_size) <= 3000
    reading = driftlog.read(file)
    assert reading.torn == 0
    assert [each.run for each in reading.sightings] == [
        f"run-{number}" for number in range(40 - len(reading.sightings), 40)
    ]
    older.unlink()
    assert driftlog.read(file).torn == 0


def test_rotation_keeps_the_mode_that_an_administrator_gave(file: Path) -> None:
    """A group that may read the log may read the next one."""
    file.touch()
    file.chmod(0o640)
    for number in range(20):
        driftlog.append(file, seen(number), limit=1000)
    assert file.with_name("drift.jsonl.1").exists()
    assert file.stat().st_mode & 0o777 == 0o640


def test_logrotate_may_take_the_file_away(file: Path) -> None:
    """Renamed, or emptied in its place: the next line is whole, and says all that it saw."""
    driftlog.append(file, seen(0, drifted("x")))
    file.rename(file.with_name("drift.jsonl.1"))
    driftlog.append(file, seen(1, drifted("x")))
    assert [each.run for each in driftlog.read(file).sightings] == ["run-0", "run-1"]
    os.truncate(file, 0)
    driftlog.append(file, seen(2, drifted("x")))
    reading = driftlog.read(file)
    assert ([each.run for each in reading.sightings], reading.torn) == (["run-0", "run-2"], 0)


@pytest.mark.parametrize("cut", range(1, 400, 13))
def test_a_torn_line_costs_itself_alone(file: Path, cut: int) -> None:
    """Wherever it was torn: what follows is a line of its own, and does not refer to it."""
    driftlog.append(file, seen(0))
    begin = file.stat().st_size
    driftlog.append(file, seen(1, drifted("x")))
    os.truncate(file, min(begin + cut, file.stat().st_size - 1))
    driftlog.append(file, seen(2, drifted("x")))
    driftlog.append(file, seen(3, drifted("x")))
    reading = driftlog.read(file)
    whole = [each for each in reading.sightings if each.run != "run-1"]
    assert [(each.run, each.cells) for each in whole] == [
        (seen(0).run, seen(0).cells),
        ("run-2", (drifted("x"),)),
        ("run-3", (drifted("x"),)),
    ]
    # With nothing but its newline gone, a line is whole.
    assert reading.torn + len(reading.sightings) == 4


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"version":2}',
        b'{"version":1,"run":"x"}',
        b'{"version":1,"run":"x","verb":"diff","started":"2026-11-23T03:00:00Z","finished":"2026-11-23T03:00:00Z"'
        b',"topology":"api","exit_code":0,"found":"0000"}',
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_line_is_counted_and_left_out(file: Path, line: bytes) -> None:
    """It is never read as a run that found nothing; lines of a newer version neither."""
    driftlog.append(file, seen(0))
    with file.open("ab") as log:
        log.write(line + b"\n")
    driftlog.append(file, seen(1))
    reading = driftlog.read(file)
    assert ([each.run for each in reading.sightings], reading.torn) == (["run-0", "run-1"], 1)


LIMIT = 30_000
"""The size at which the writers rotate, in bytes."""

WRITER = """
import sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from cellsync import driftlog
from test_driftlog import LIMIT, drifted, seen
for number in range(100):
    mine = seen(1000 * int(sys.argv[2]) + number, drifted("x" * 500, number))
    driftlog.append(Path(sys.argv[1]), mine, limit=LIMIT)
"""


def _writer(file: Path, number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(number), *sys.path])


def test_writers_do_not_disturb_each_other(file: Path) -> None:
    """Four processes, through many rotations: every line whole, each writer's in order, none twice."""
    writers = [_writer(file, number) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    reading = driftlog.read(file)
    assert reading.torn == 0
    runs = [each.run for each in reading.sightings]
    older = file.with_name("drift.jsonl.1")
    lines = [line for path in (older, file) for line in path.read_bytes().splitlines(keepends=True)]
    assert len(runs) == len(set(runs)) == len(lines)
    # What was rotated is full: a file goes only when the next line does not fit.
    assert LIMIT - max(map(len, lines)) < older.stat().st_size <= LIMIT
    in_files = [json.loads(line)["run"] for line in lines]
    for number in range(4):
        mine = [int(run[4:]) for run in in_files if int(run[4:]) // 1000 == number]
        assert mine == sorted(mine)


def test_writers_that_are_killed_leave_a_log_that_goes_on(file: Path) -> None:
    """kill -9 at any moment: at most their last line is torn, and the next one is whole."""
    for number in range(8):
        writer = _writer(file, number)
        size = file.stat().st_size if file.exists() else 0
        while not file.exists() or file.stat().st_size == size:
            time.sleep(0.001)
        time.sleep(0.003 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait(60)
    before = driftlog.read(file)
    assert before.torn <= 8
    driftlog.append(file, seen(90_000))
    after = driftlog.read(file)
    assert (after.sightings[-1].run, after.torn) == ("run-90000", before.torn)


def test_a_lock_that_nobody_gives_back_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run does not wait for ever for a process that was stopped in the middle."""
    monkeypatch.setattr(driftlog, "PATIENCE", 0.05)
    driftlog.append(file, seen(0))
    with driftlog._locked(file, 0o600), pytest.raises(DriftLogUnavailable, match="has held its lock"):
        driftlog.append(file, seen(1))
    driftlog.append(file, seen(2))
    assert len(driftlog.read(file).sightings) == 2


FULL = """
import resource, signal, sys
sys.path[:0] = sys.argv[3:]
from cellsync import driftlog
from cellsync.errors import DriftLogUnavailable
from test_driftlog import drifted, seen
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    driftlog.append(sys.argv[1], seen(1, drifted("y" * 400)))
except DriftLogUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_disk_that_is_full_leaves_the_file_as_it_was(file: Path, room: int) -> None:
    """No half of a line stays, and the error names the file."""
    driftlog.append(file, seen(0))
    before = file.read_bytes()
    command = [sys.executable, "-c", FULL, str(file), str(len(before) + room), *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"cannot write the drift log {file}" in done.stdout
    assert file.read_bytes() == before


def test_a_place_that_is_no_file_is_an_error(tmp_path: Path) -> None:
    """A folder, a pipe that nobody reads, a path through a file: named, and nothing hangs."""
    pipe, plain = tmp_path / "pipe", tmp_path / "plain"
    os.mkfifo(pipe)
    plain.touch()
    for place in (tmp_path, pipe, plain / "x", tmp_path / "no" / "x"):
        with pytest.raises(DriftLogUnavailable, match=f"cannot write the drift log {place}"):
            driftlog.append(place, seen(0))
    for place in (tmp_path, pipe):
        with pytest.raises(DriftLogUnavailable, match="cannot read the drift log"):
            driftlog.read(place)


def test_the_last_told_is_that_of_the_same_stream(file: Path) -> None:
    """Other runs add lines between; after a rotation the older file still knows."""
    driftlog.append(file, seen(0, told=Told(stream="mine", cells={"c1": "old"})))
    driftlog.append(file, seen(1, told=Told(stream="mine", cells={"c1": "new"})))
    driftlog.append(file, seen(2, told=Told(stream="other", cells={})))
    driftlog.append(file, seen(3, drifted("mine")))
    assert driftlog.last_told(file, "mine") == Told(stream="mine", cells={"c1": "new"})
    file.rename(file.with_name("drift.jsonl.1"))
    driftlog.append(file, seen(4))
    assert driftlog.last_told(file, "mine") == Told(stream="mine", cells={"c1": "new"})
    assert driftlog.last_told(file, "none") is None


def test_threads_of_one_process_are_writers_too(file: Path) -> None:
    """A lock of the process would let them in together; this one is of the open file."""
    threads = [
        threading.Thread(target=driftlog.append, args=(file, replace(seen(number), run=f"t{number}")))
        for number in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reading = driftlog.read(file)
    assert (len(reading.sightings), reading.torn) == (30, 0)
