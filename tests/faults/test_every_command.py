"""A small repair, disturbed at every one of its commands, on both sides: it is never half done.

After each: what the run said is true, the journal and the data agree row by row, and the next run
ends where the undisturbed one did.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from agreement import Contents, contents, journaled, query, quiet, unlike
from edges import Stand, execute, opened, ruleset
from proxy import Fault, Proxy
from servers import AnyServer

from cellsync import db
from cellsync.errors import CellsyncError, ExitCode
from cellsync.model import CellFailure, CellResult, Report

EVERY = "id int PRIMARY KEY AUTO_INCREMENT, created_at datetime"
TABLES = {
    "things": "name varchar(20) NOT NULL, size int, UNIQUE KEY (name)",
    "parts": "thing_id int NOT NULL REFERENCES things (id), label varchar(20), qty int",
    "reports": "host varchar(20) NOT NULL, state varchar(20), UNIQUE KEY (host)",
}
RULES = """
defaults:
  on_insert: {created_at: now}
  columns: {exclude: [created_at]}
  limits: {updates: 100%, deletes: 100%}
rules:
  - {table: things, key: [name], on_extra: delete}
  - {table: parts, key: [thing_id, label], references: {thing_id: things}, on_extra: delete}
  - {table: reports, key: [host], direction: up}
"""
ROWS = {
    "api": (
        "INSERT INTO things (id, name, size) VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
        "INSERT INTO parts (thing_id, label, qty) VALUES (1, 'x', 1), (2, 'x', 2), (3, 'x', 3), (3, 'y', 4)",
        "INSERT INTO reports (id, host, state) VALUES (1, 'h1', 'old')",
    ),
    "c1": (
        "INSERT INTO things (id, name, size) VALUES (1, 'gone', 9), (2, 'a', 7)",
        "INSERT INTO parts (id, thing_id, label, qty) VALUES (1, 1, 'x', 1), (2, 2, 'x', 7)",
        "INSERT INTO reports (host, state) VALUES ('h1', 'new'), ('h2', 'new')",
    ),
}
STATE = {
    "things": "SELECT name, size FROM things ORDER BY 1",
    "parts": "SELECT things.name, label, qty FROM parts JOIN things ON things.id = thing_id ORDER BY 1, 2",
    "reports": "SELECT host, state FROM reports ORDER BY 1",
    "what was there keeps its id": "SELECT id, name FROM things WHERE name = 'a'",
}
WRITTEN = {"api": 2, "c1": 9}
"""Cell -> changes of the undisturbed repair."""

FIRST_RUN = re.compile(r"cellsync-journal|^\s*CREATE |^INSERT IGNORE")
"""Commands that only the first of all runs gives: it makes the journal."""

DISTURBED = {
    Fault.BEFORE: re.compile(r"^(?!SELECT (VERSION|DATABASE|@@)|ROLLBACK)"),
    Fault.AFTER: re.compile(r"^(?!SET |SELECT (VERSION|DATABASE|@@)|ROLLBACK)"),
    Fault.HALF: re.compile(r"FROM `|^COMMIT"),
    Fault.LATE: re.compile(r"^COMMIT|^(INSERT INTO|UPDATE) cellsync.runs"),
}
"""At which commands: at all of them, but for what the driver asks in the middle of opening or closing a
connection; where the server may do something that lasts; where there is something to halve; where something
is committed."""


@dataclass(frozen=True)
class Undisturbed:
    """How the repair goes when nothing happens."""

    commands: Mapping[str, Sequence[str]]
    """Cell -> what its server was sent."""
    state: Any
    made: frozenset[tuple[object, ...]]


@dataclass(frozen=True)
class Found:
    """What a run left behind."""

    made: frozenset[tuple[object, ...]]
    """The changes that the journals have: cell, action, rule, key."""
    untouched: bool
    """Nothing at all was written, not even a journal's first line."""
    disagreements: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """A parent and a child on servers of their own, each behind a proxy."""

    direct: Mapping[str, db.Database]
    """Past the proxies, for the test to look and to set up."""
    proxies: Mapping[str, Proxy]
    through: Stand

    def reset(self, *, journal: bool = True) -> Mapping[str, Contents]:
        """Put both databases out of step again, their journals empty; return what is there."""
        for name, database in self.direct.items():
            self.proxies[name].arm()
            statements = [*(f"DELETE FROM {table}" for table in reversed(TABLES)), *ROWS[name]]
            if not journal:
                query(database, "DROP DATABASE IF EXISTS cellsync")
            elif database.has_table("runs", schema="cellsync"):
                statements += [f"DELETE FROM cellsync.{table}" for table in ("runs", "changes", "pushed")]
            for statement in ("BEGIN", *statements, "COMMIT"):
                query(database, statement)
        return self.contents()

    def contents(self) -> Mapping[str, Contents]:
        """Return every row of both."""
        return {name: contents(database, *TABLES) for name, database in self.direct.items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what is to be compared: everything but created_at and the ids of new rows."""
        return {
            name: {what: query(database, statement) for what, statement in STATE.items()}
            for name, database in self.direct.items()
        }

    def found(self, before: Mapping[str, Contents]) -> Found:
        """Return what is there now."""
        journals = {name: journaled(database) for name, database in self.direct.items()}
        now = self.contents()
        return Found(
            made=frozenset(
                (name, each.change.action.value, each.change.rule, each.change.key)
                for name, (_, changes) in journals.items()
                for each in changes
            ),
            untouched=now == before and not any(runs for runs, _ in journals.values()),
            disagreements=tuple(
                line
                for name, (_, changes) in journals.items()
                for line in unlike(before[name], changes, now[name])
            ),
        )

    def repair(self, run_id: str) -> tuple[ExitCode, Report | None]:
        """Repair through the proxies; a run that ends without a report has its error's exit code."""
        try:
            report = self.through.repair(run_id)
        except CellsyncError as error:
            return error.exit_code, None
        return report.exit_code, report

    def undisturbed(self) -> Undisturbed:
        """Repair, and return how it went."""
        before = self.reset()
        code, report = self.repair("r0")
        assert report
        assert (code, applied(report)) == (ExitCode.IN_STEP, sum(WRITTEN.values()))
        found = self.found(before)
        assert Counter(cell for cell, *_ in found.made) == WRITTEN
        assert found.disagreements == ()
        commands = {name: tuple(proxy.commands) for name, proxy in self.proxies.items()}
        return Undisturbed(commands, self.state(), found.made)


@pytest.fixture
def bench(servers: Mapping[str, AnyServer], database: Callable[..., str]) -> Iterator[Bench]:
    """Give the bench, without journals."""
    urls = {"api": database(servers["parent"]), "c1": database(servers["c1"])}
    for url in urls.values():
        execute(url, *(f"CREATE TABLE {table} ({EVERY}, {columns})" for table, columns in TABLES.items()))
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(Proxy(url)) for name, url in urls.items()}
        direct = {name: stack.enter_context(opened(url)) for name, url in urls.items()}
        disturbed = {name: proxy.url for name, proxy in proxies.items()}
        yield Bench(direct, proxies, Stand(disturbed, ruleset(RULES), direct=urls))


@pytest.mark.slow
@pytest.mark.parametrize("fault", DISTURBED, ids=lambda fault: fault.name)
@pytest.mark.parametrize("side", ["api", "c1"])
def test_a_repair_that_is_disturbed_at_any_command_is_finished_by_the_next(
    bench: Bench, side: str, fault: Fault
) -> None:
    """All n: said is what happened, nothing is half done, nothing twice, and the end is the same."""
    bench.undisturbed()
    normal = bench.undisturbed()
    commands = normal.commands[side]
    disturb(bench, normal, side, fault, [n for n, c in enumerate(commands, 1) if DISTURBED[fault].search(c)])


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER], ids=lambda fault: fault.name)
def test_a_first_run_may_be_disturbed_while_it_makes_the_journal(bench: Bench, fault: Fault) -> None:
    """The next one makes the rest of it."""
    normal = bench.undisturbed()
    making = [n for n, command in enumerate(normal.commands["c1"], 1) if FIRST_RUN.search(command)]
    assert len(making) > 5
    disturb(bench, normal, "c1", fault, making, journal=False)


def disturb(
    bench: Bench,
    normal: Undisturbed,
    side: str,
    fault: Fault,
    chosen: Sequence[int],
    *,
    journal: bool = True,
) -> None:
    """Disturb a repair at each of these commands; fail with all that went wrong, each with its n."""
    codes: Counter[str] = Counter()
    wrong = []
    before = bench.reset(journal=journal)
    for n in chosen:
        bench.proxies[side].arm(n, fault)
        code, report = bench.repair("r1")
        struck = bench.proxies[side].struck
        for each in bench.direct.values():
            quiet(each)
        codes[code.name] += 1
        found = bench.found(before)
        lines = [*untrue(bench, found, code, report, normal), *found.disagreements]
        bench.proxies[side].arm()
        # Where nothing was written, the next run is the first one over again; where all was, it has
        # nothing to do.
        if code is not ExitCode.IN_STEP and not (journal and found.untouched):
            lines += finished(bench, normal, before)
        if not (journal and found.untouched):
            before = bench.reset(journal=journal)
        wrong += [f"command {n} ({struck!r}), {code.name}: {line}" for line in dict.fromkeys(lines)]
    print(f"{side}: {fault.name} at {len(chosen)} commands; the runs ended with {dict(codes)}")
    assert not wrong, "\n".join(wrong)


def untrue(
    bench: Bench, found: Found, code: ExitCode, report: Report | None, normal: Undisturbed
) -> Iterator[str]:
    """Yield where a disturbed run said other than it did."""
    done = found.made
    clean = code is ExitCode.IN_STEP
    if code not in (ExitCode.IN_STEP, ExitCode.INCOMPLETE):
        yield f"a lost connection is no reason for this code: {report and said(report)}"
    if clean and bench.state() != normal.state:
        yield "it said that all is done, and it is not"
    if done - normal.made:
        yield f"a read error became a difference: {done - normal.made}"
    if report is None:
        yield "there is no report"
        return
    if applied(report) != len(done):
        yield f"it said {applied(report)} were made, and the journal has {len(done)}: {said(report)}"
    if clean and any(isinstance(cell, CellFailure) for cell in report.cells):
        yield "a cell failed in a clean run"
    if not clean and not said(report):
        yield f"incomplete, and no word why: {report}"


def finished(bench: Bench, normal: Undisturbed, before: Mapping[str, Contents]) -> Iterator[str]:
    """Run once more and yield in what it does not end as if nothing had happened."""
    code, report = bench.repair("r2")
    if code is not ExitCode.IN_STEP:
        yield f"the next run ends with {code.name}: {report and said(report)}"
    if bench.state() != normal.state:
        yield "the next run ends elsewhere"
    yield from bench.found(before).disagreements


def applied(report: Report) -> int:
    """Return how many changes a report says were made."""
    return sum(cell.counts.applied for cell in report.cells if isinstance(cell, CellResult))


def said(report: Report) -> list[str]:
    """Return every reason that a report gives for being incomplete."""
    lines = []
    for cell in report.cells:
        if isinstance(cell, CellFailure):
            lines.append(cell.error)
        else:
            lines += [*cell.problems, *(refusal.message for refusal in cell.refusals)]
            lines += [str(getattr(table, "error", "")) for table in cell.tables]
    return [line for line in lines if line]
