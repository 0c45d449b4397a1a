"""A repair that is killed with SIGKILL at any moment: nothing is lost, nothing half recorded.

``scripts/soak`` runs this with more kills; CELLSYNC_KILLS says how many, CELLSYNC_SEED from where.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from agreement import Contents, contents, journaled, query, quiet, unlike
from edges import execute, opened
from servers import AnyServer

from cellsync import cli, db
from cellsync.errors import ExitCode
from cellsync.model import JournaledChange, JournaledRun

KILLS = int(os.environ.get("CELLSYNC_KILLS", "40"))
SEED = int(os.environ.get("CELLSYNC_SEED", "20150"))
WHILE_WRITING = 0.7
"""The share of the kills that wait for the writing to begin; the others fall anywhere."""

TABLES = {
    "things": "id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) NOT NULL, size int, created_at datetime, "
    "touched timestamp(6) NOT NULL DEFAULT now(6) ON UPDATE now(6), UNIQUE KEY (name)",
    "parts": "id int PRIMARY KEY AUTO_INCREMENT, thing_id int NOT NULL REFERENCES things (id), "
    "label varchar(20), qty int, created_at datetime",
}
RULES = """
pack: killed
defaults:
  on_insert: {created_at: now}
  columns: {exclude: [created_at, touched]}
  limits: {updates: 100%, deletes: 100%}
rules:
  - {table: things, key: [name], on_extra: delete}
  - {table: parts, key: [thing_id, label], references: {thing_id: things}, on_extra: delete}
"""
NUMBERS = "(SELECT seq AS n FROM seq_1_to_480) AS s"
ROWS = {
    "api": (
        f"INSERT INTO things (name, size) SELECT CONCAT('t', n), n FROM {NUMBERS}",
        "INSERT INTO parts (thing_id, label, qty) SELECT id, 'x', size FROM things",
    ),
    # Of 480 things 320 are missing and 80 changed, and so are their parts; 80 are too many.
    "c1": (
        "INSERT INTO things (name, size, touched) SELECT CONCAT('t', n), IF(n <= 80, n, -n), '2001-01-01' "
        f"FROM {NUMBERS} WHERE n <= 160",
        "INSERT INTO things (name, size, touched) SELECT CONCAT('extra', n), n, '2001-01-01' "
        f"FROM {NUMBERS} WHERE n <= 80",
        "INSERT INTO parts (thing_id, label, qty) SELECT id, 'x', size FROM things",
    ),
}
PLANNED = 2 * (320 + 80 + 80)
STATE = (
    "SELECT name, size FROM things ORDER BY 1",
    "SELECT things.name, label, qty FROM parts JOIN things ON things.id = thing_id ORDER BY 1, 2",
)


LOADED = multiprocessing.get_context("forkserver")
"""Starts processes that have loaded already what they need: that takes longer than the repair."""
LOADED.set_forkserver_preload(
    ["pytest", *(f"cellsync.{name}" for name in ("cli", "cells", "rules", "run", "report"))]
)


@dataclass(frozen=True)
class Place:
    """A parent, a child, and the cell file that names them."""

    databases: Mapping[str, db.Database]
    config: Path
    rows: Mapping[str, Contents] = field(default_factory=dict)

    @property
    def child(self) -> db.Database:
        """Return the database that is repaired."""
        return self.databases["c1"]

    def reset(self) -> Contents:
        """Put the child out of step again, without a journal's rows; return what is there."""
        statements = [f"DELETE FROM {table}" for table in reversed(TABLES)]
        statements += [f"INSERT INTO {table} SELECT * FROM was_{table}" for table in TABLES]
        if self.child.has_table("runs", schema="cellsync"):
            statements += [f"DELETE FROM cellsync.{table}" for table in ("runs", "changes", "pushed")]
        for statement in ("BEGIN", *statements, "COMMIT"):
            query(self.child, statement)
        return contents(self.child, *TABLES)

    def state(self, cell: str = "c1") -> list[Any]:
        """Return what is to be compared: everything but times and the ids of new rows."""
        return [query(self.databases[cell], statement) for statement in STATE]

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run a command in this process; return its exit code and its JSON."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
            cli.main(["-c", str(self.config), *arguments, "--format", "json"])
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(out.getvalue())

    def start(self) -> BaseProcess:
        """Start a repair as a process of its own."""
        words = ["-c", str(self.config), "repair", "--yes", "--output", str(self.config.with_suffix(".said"))]
        process = LOADED.Process(target=cli.main, args=(words,))
        process.start()
        return process

    def begun(self, process: BaseProcess) -> None:
        """Wait until a repair has begun to write, or has ended."""
        while process.is_alive():
            if query(self.child, "SELECT COUNT(*) FROM cellsync.runs")[0][0]:
                return
            time.sleep(0.001)


@pytest.fixture
def place(servers: Mapping[str, AnyServer], database: Callable[..., str], tmp_path: Path) -> Iterator[Place]:
    """Give a parent and a child that is out of step by a thousand rows."""
    urls = {"api": database(servers["parent"]), "c1": database(servers["c1"])}
    for name, url in urls.items():
        execute(url, *(f"CREATE TABLE {table} ({columns})" for table, columns in TABLES.items()), *ROWS[name])
        execute(url, *(f"CREATE TABLE was_{table} AS SELECT * FROM {table}" for table in TABLES))
    (tmp_path / "killed.yaml").write_text(RULES)
    lines = [
        f"parent: {json.dumps({'name': 'api', 'database': urls['api']})}",
        f"children: [{json.dumps({'name': 'c1', 'database': urls['c1']})}]",
        "rules: [./killed.yaml]",
        "settle: 0",
    ]
    config = tmp_path / "cellsync.yaml"
    config.write_text("\n".join(lines) + "\n")
    with ExitStack() as stack:
        yield Place({name: stack.enter_context(opened(url)) for name, url in urls.items()}, config)


def measured(place: Place) -> tuple[float, float]:
    """Return how long a repair takes to begin to write, and how long from there to the end.

    The shortest of three: where one is held up, kills by its time would all come after the end.
    """
    place.run("repair", "--yes")  # makes the journal
    before, writing = zip(*(timed(place) for _ in range(3)), strict=True)
    return min(before), min(writing)


def timed(place: Place) -> tuple[float, float]:
    """Repair once, and return both times."""
    place.reset()
    started = time.monotonic()
    process = place.start()
    place.begun(process)
    begun = time.monotonic()
    process.join(60)
    assert process.exitcode == ExitCode.IN_STEP
    assert len(journaled(place.child)[1]) == PLANNED
    assert place.state() == place.state("api")
    return begun - started, time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_repair_may_be_killed_at_any_moment(place: Place) -> None:
    """Journal and data agree; history shows it; the next run finishes; undo restores the bytes."""
    before_writing, writing = measured(place)
    moments: Counter[str] = Counter()
    stages: Counter[int] = Counter()
    span = writing
    for number in range(KILLS):
        chosen = random.Random(SEED + number)
        before = place.reset()
        process = place.start()
        if chosen.random() < WHILE_WRITING:
            place.begun(process)
            time.sleep(chosen.uniform(0, span))
        else:
            time.sleep(chosen.uniform(0, before_writing + writing))
        process.kill()
        process.join()
        quiet(place.child)
        runs, changes = journaled(place.child)
        at = f"kill {number} (seed {SEED + number}), after {len(changes)} of {PLANNED} changes"
        cut_off = [each.run.id for each in runs if each.finished is None]
        moment = "after" if runs and not cut_off else "in" if runs else "before"
        moments[moment] += 1
        # A machine that was busy when the time was taken, and is not now, ends before the kill.
        span = min(writing, span * {"after": 0.8, "in": 1.2, "before": 1}[moment])
        stages[len(changes)] += 1
        assert unlike(before, changes, contents(place.child, *TABLES)) == [], at
        check_history(place, cut_off, at)
        runs, changes = check_next(place, cut_off, len(changes), at)
        assert unlike(before, changes, contents(place.child, *TABLES)) == [], at
        check_undo(place, before, runs, at)
    print(
        f"\n{KILLS} kills: {moments['before']} before the writing, {moments['in']} in it, {moments['after']} "
        f"after it; changes made when killed: {dict(sorted(stages.items()))}; 0 disagreements"
    )
    assert moments["in"] >= KILLS // 5, "the moments miss what they are for"


def check_history(place: Place, cut_off: list[str], at: str) -> None:
    """What was cut off is shown so."""
    code, told = place.run("history")
    shown = [each["run"] for each in told["runs"] if each["finished"] is None]
    assert (code, shown) == (ExitCode.IN_STEP, cut_off), at


def check_next(
    place: Place, cut_off: list[str], done: int, at: str
) -> tuple[list[JournaledRun], list[JournaledChange]]:
    """The next run goes on from ``done``, says what it found, and closes the one that was cut off.

    Returns the runs and the changes that are in the journal then.
    """
    code, report = place.run("repair", "--yes")
    assert code == ExitCode.IN_STEP, f"{at}: {report}"
    assert place.state() == place.state("api"), at
    (cell,) = report["cells"]
    assert cell["changes"]["applied"] == PLANNED - done, at
    runs, changes = journaled(place.child)
    if done < PLANNED:
        for run in cut_off:
            assert any(run in notice and "cut off" in notice for notice in cell["notices"]), f"{at}: {cell}"
        assert all(each.finished for each in runs), at
    return runs, changes


def check_undo(place: Place, before: Contents, runs: Sequence[JournaledRun], at: str) -> None:
    """Taking back every run, the last one first, restores every byte."""
    for each in reversed(runs):
        if each.applied:
            code, report = place.run("undo", each.run.id, "--yes")
            assert code == ExitCode.IN_STEP, f"{at}: undo: {report}"
    assert contents(place.child, *TABLES) == before, f"{at}: undone"
