"""What one cell may cost a run: its time, and its failures. The others do not wait for it."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from edges import Stand, add, cell, execute, result, rows, ruleset, table
from proxy import Fault, Proxy
from rich.status import Status as Shown
from rich.text import Text
from servers import DatabaseFactory

from cellsync import db, run
from cellsync.apply import executing
from cellsync.cli.options import Common
from cellsync.cli.preparing import progress
from cellsync.db import reading
from cellsync.db.connect import Deadline
from cellsync.errors import ExitCode, ReadFailed
from cellsync.model import Budget, CellFailure, Report, Status, TableFailure
from cellsync.run import request as asking

TABLE = "CREATE TABLE {} (id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) NOT NULL, note varchar(20))"
TABLES = ("others", "things")
RULES = """
defaults: {limits: {updates: 100%}}
rules:
  - {table: things, key: [name]}
  - {table: others, key: [name]}
"""


def stand(database: DatabaseFactory, rules: str = RULES) -> Stand:
    """Return a parent and two children that lack its rows."""
    urls = {name: database() for name in ("api", "c1", "c2")}
    for url in urls.values():
        execute(url, *map(TABLE.format, TABLES))
    for name in TABLES:
        add(urls["api"], name, *({"name": f"n{n}", "note": f"note {n}"} for n in range(6)))
    return Stand(urls, ruleset(rules))


def bounded(request: run.Request, name: str, budget: Budget) -> run.Request:
    """Return a request in which one cell has another budget."""
    topology = request.topology
    cells = [
        replace(c, budget=budget) if c.name == name else c for c in (topology.parent, *topology.children)
    ]
    return replace(request, topology=replace(topology, parent=cells[0], children=tuple(cells[1:])))


def errors(report: Report, name: str) -> list[str]:
    """Return why tables of a cell could not be compared, or the cell where its time was over before that."""
    whole = [each.error for each in report.cells if isinstance(each, CellFailure) and each.cell == name]
    return whole or [each.error for each in result(report, name).tables if isinstance(each, TableFailure)]


@pytest.mark.parametrize("name", ["c1", "api"])
def test_a_cell_that_no_longer_answers_is_given_up_when_its_time_is_over(
    database: DatabaseFactory, name: str
) -> None:
    """Long before the limits of a connection, and the other child is compared to the end."""
    place = stand(database)
    with Proxy(place.urls[name]) as proxy:
        proxy.arm(1, Fault.STALL, holding="SELECT .* FROM `things`")
        away = Stand({**place.urls, name: proxy.url}, place.rules, direct=place.urls)
        request = replace(away.request("diff", "d"), timeouts=db.Timeouts(statement=60, answer=60))
        started = time.monotonic()
        report = run.compare(bounded(request, name, Budget(time=timedelta(seconds=1)))).report
        assert time.monotonic() - started < 30
        assert proxy.struck
    assert report.exit_code is ExitCode.INCOMPLETE
    late = f"{name} was not read within 1 s (budget: time)"
    assert errors(report, "c1") == [late, late]
    assert errors(report, "c2") == ([] if name == "c1" else [late, late])


def test_the_time_that_a_cell_waits_for_another_is_not_its_own(database: DatabaseFactory) -> None:
    """All have the same budget, and one child uses it up: the others are read again, and to the end."""
    place = stand(database)
    with Proxy(place.urls["c1"]) as proxy:
        proxy.arm(1, Fault.STALL, holding="SELECT .* FROM `things`")
        request = Stand({**place.urls, "c1": proxy.url}, place.rules).request("diff", "d")
        for name in place.urls:
            request = bounded(request, name, Budget(time=timedelta(seconds=2)))
        report = run.compare(request).report
        assert proxy.struck
    assert len(errors(report, "c1")) == 2
    assert errors(report, "c2") == []
    assert [len(table(report, "c2", name).differences) for name in TABLES] == [6, 6]


def test_people_are_told_which_cell_the_others_wait_for(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, however long it takes, and not of cells that answer at once."""
    monkeypatch.setattr(asking, "PATIENCE", 0.2)
    place = stand(database)
    told: list[str] = []
    with Proxy(place.urls["c1"]) as proxy:
        proxy.arm(1, Fault.STALL, holding="SELECT .* FROM `things`")
        request = Stand({**place.urls, "c1": proxy.url}, place.rules).request("diff", "d")
        request = replace(request, progress=told.append)
        run.compare(bounded(request, "c1", Budget(time=timedelta(seconds=2))))
    assert told.count("reading, waiting for c1") == 1
    assert told[0] == "connecting"


def test_of_many_cells_that_the_others_wait_for_some_are_named(database: DatabaseFactory) -> None:
    told: list[str] = []
    waiting = replace(stand(database).request("diff", "d"), progress=told.append).waiting("reading")
    waiting(["api", "c1", "c2", "c3", "c4"])
    waiting(["c4"])
    waiting(["c4"])
    assert told == ["reading, waiting for api, c1, c2 and 2 more", "reading, waiting for c4"]


def test_on_a_terminal_a_name_is_shown_as_it_is(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets in it are no colours."""
    shown: list[object] = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(Shown, "update", lambda _, text: shown.append(text))
    with progress(Common(), stand(database).request("diff", "d")) as request:
        request.waiting("reading")(["c[b]"])
    (line,) = shown
    plain = line if isinstance(line, Text) else Text.from_markup(str(line))
    assert plain.plain == "reading, waiting for c[b]"


def test_a_statement_does_not_outlive_the_budget_of_its_cell(database: DatabaseFactory) -> None:
    """The server stops it, for it does not see that nobody waits any more."""
    place = stand(database, 'rules: [{table: things, key: [name], where: {existing: "SLEEP(20) = 0"}}]')
    add(place.urls["c1"], "things", {"name": "n0"})
    request = bounded(place.request("diff", "d"), "c1", Budget(time=timedelta(seconds=0.5)))
    report = run.compare(request).report
    assert errors(report, "c1") == ["c1 was not read within 0.5 s (budget: time)"]
    assert result(report, "c2").tables[0].status is Status.DIFFERS
    running = "INFO LIKE '%SLEEP(20)%' AND ID <> CONNECTION_ID()"
    busy = f"SELECT ID FROM information_schema.PROCESSLIST WHERE {running}"
    deadline = time.monotonic() + 10
    while rows(place.urls["c1"], busy):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_cell_whose_rows_only_trickle_in_is_given_up_too(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row comes in time, and all of them do not; what was left unread does no harm."""
    monkeypatch.setattr(reading, "ROWS_PER_FETCH", 1)
    place = stand(database)
    report_of = place.diff()
    projection = run.compare(place.request("diff", "d")).edges[0].targets["things"]
    assert report_of.exit_code is ExitCode.DIFFERENCES
    timeouts = db.Timeouts().within(timedelta(seconds=60))
    with db.connect(cell("api", place.urls["api"]), timeouts) as opened, opened.snapshot():
        found = opened.rows(projection)
        next(found)
        opened.deadline = Deadline(timedelta(seconds=60))
        later = time.monotonic() + 61
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(ReadFailed, match=r"api was not read within 60 s \(budget: time\)"):
            list(found)
        with pytest.raises(ReadFailed, match="api was not read within 60 s"):
            opened.query("SELECT 1")


def test_connecting_counts(database: DatabaseFactory) -> None:
    """A server that takes the connection and says nothing is not waited for longer than the cell is worth."""
    place = stand(database)
    with Proxy(place.urls["c1"]) as proxy:
        proxy.arm(1, Fault.STALL)
        away = Stand({**place.urls, "c1": proxy.url}, place.rules, direct=place.urls)
        request = replace(away.request("diff", "d"), timeouts=db.Timeouts(connect=60, login=60))
        started = time.monotonic()
        report = run.compare(bounded(request, "c1", Budget(time=timedelta(seconds=1)))).report
        assert time.monotonic() - started < 30
    assert report.cells[0].status is Status.UNREACHABLE
    assert result(report, "c2").tables[0].status is Status.DIFFERS


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that goes on by so much whenever somebody looks at it."""
    ticks: Any = count(0, seconds)
    return lambda: next(ticks)


def test_writing_ends_after_a_batch_when_its_time_is_over(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not begun is counted, and another run makes it."""
    monkeypatch.setattr(executing, "INSERTS", 1)
    place = stand(database)
    request, prepared = place.prepare("r1")
    prepared = replace(
        prepared,
        edges=tuple(
            replace(edge, cell=replace(edge.cell, budget=Budget(time=timedelta(seconds=10))))
            for edge in prepared.edges
        ),
    )
    # Nobody but the writer of one cell looks at it: by so much from batch to batch.
    one = replace(prepared, edges=prepared.edges[:1])
    report = run.write(replace(request, elapsed=ticking(2.5)), one)
    (said,) = result(report, "c1").problems
    assert said == "c1 was written for 10 s (budget: time): 9 changes were not begun"
    assert len(rows(place.urls["c1"], "SELECT id FROM things")) == 3
    assert report.exit_code is ExitCode.INCOMPLETE
    assert place.repair("r2").exit_code is ExitCode.IN_STEP


def test_a_rule_whose_changes_fail_again_and_again_is_left_and_the_others_go_on(
    database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its reason; those that were not tried say so. The rule is the unit of failure."""
    monkeypatch.setattr(executing, "INSERTS", 1)
    place = stand(database)
    request, prepared = place.prepare("r1")
    # After the plan, which would have named these rows.
    execute(place.urls["c1"], "ALTER TABLE things ADD CHECK (note NOT IN ('note 1', 'note 3', 'note 4'))")
    budget = Budget(failures=2)
    edges = tuple(replace(edge, cell=replace(edge.cell, budget=budget)) for edge in prepared.edges)
    report = run.write(request, replace(prepared, edges=edges))
    found = result(report, "c1")
    assert (found.counts.applied, found.counts.failed) == (2 + 6, 4)
    first, second, third, fourth = found.problems
    assert "n1" in first and "CONSTRAINT" in first
    assert "n3" in second and "CONSTRAINT" in second
    assert "n4" in third and "2 changes of things were not made before (budget: failures)" in third
    assert "n5" in fourth and "2 changes of things were not made before (budget: failures)" in fourth
    assert result(report, "c2").counts.applied == 12
    assert report.exit_code is ExitCode.INCOMPLETE


def test_an_undo_knows_no_budget(database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is half taken back is worse than one that still stands."""
    monkeypatch.setattr(executing, "BATCH", 1)
    place = stand(database)
    place.repair("r1")
    request = place.request("undo", "u1")
    for name in ("c1", "c2"):
        request = bounded(request, name, Budget(time=timedelta(seconds=1), failures=1))
    execute(place.urls["c1"], "UPDATE things SET note = 'else' WHERE name IN ('n1', 'n2', 'n4')")
    prepared = run.prepare_undo(request, "r1")
    report = run.write(replace(request, elapsed=ticking(10)), prepared)
    left = {row["name"] for row in rows(place.urls["c1"], "SELECT name FROM things")}
    assert left == {"n1", "n2", "n4"}
    assert rows(place.urls["c1"], "SELECT name FROM others") == []
    assert report.exit_code is ExitCode.INCOMPLETE
