"""A small repair, disturbed at every one of its commands, on both sides: it is never half done.

After each: what the run said is true, the journal and the data agree row by row, and the next run
ends where the undisturbed one did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import time
T0 = time.monotonic()
import pytest
import sqlalchemy as sa
from agreement import Contents, contents, disagreements, journaled, quiet
from edges import Stand, result, ruleset
from proxy import Fault, Proxy
from servers import AnyServer, sql

from cellsync import run
from cellsync.demo.database import connected
from cellsync.errors import CellsyncError, ExitCode
from cellsync.model import CellFailure, CellResult, Report

TABLES = {
    "things": "name varchar(20) NOT NULL, size int, UNIQUE KEY (name)",
    "parts": "thing_id int NOT NULL, label varchar(20), qty int, FOREIGN KEY (thing_id) REFERENCES things (id)",
    "reports": "host varchar(20) NOT NULL, state varchar(20), UNIQUE KEY (host)",
}
EVERY = "id int PRIMARY KEY AUTO_INCREMENT, created_at datetime"
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


@dataclass(frozen=True)
class Bench:
    """A parent and a child on servers of their own, each behind a proxy."""

    direct: Mapping[str, str]
    proxies: Mapping[str, Proxy]
    through: Stand

    def reset(self) -> Mapping[str, Contents]:
        """Put both databases out of step again, without journals; return what is there."""
        for proxy in self.proxies.values():
            proxy.arm()
        for name, url in self.direct.items():
            with connected(sa.make_url(url)) as connection:
                for statement in ("DROP DATABASE IF EXISTS cellsync", *_emptied(), *ROWS[name]):
                    connection.exec_driver_sql(statement)
        return {name: contents(url, *TABLES) for name, url in self.direct.items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what is to be compared: everything but created_at and the ids of new rows."""
        return {
            name: {table: sql(url, query) for table, query in STATE.items()}
            for name, url in self.direct.items()
        }

    def repair(self, run_id: str) -> tuple[ExitCode, Report | None]:
        """Repair through the proxies; a run that ends without a report has its error's exit code."""
        try:
            report = self.through.repair(run_id)
        except CellsyncError as error:
            return error.exit_code, None
        return report.exit_code, report

    def quiet(self) -> None:
        """Wait until the servers have done with what was cut off."""
        for url in self.direct.values():
            quiet(url)


def _emptied() -> list[str]:
    return [f"DELETE FROM {table}" for table in reversed(TABLES)]


@pytest.fixture
def bench(servers: Mapping[str, AnyServer], database: Callable[..., str]) -> Iterator[Bench]:
    """Give the bench, out of step."""
    direct = {"api": database(servers["parent"]), "c1": database(servers["c1"])}
    for url in direct.values():
        for table, columns in TABLES.items():
            sql(url, f"CREATE TABLE {table} ({EVERY}, {columns})")
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(Proxy(url)) for name, url in direct.items()}
        through = Stand({name: proxy.url for name, proxy in proxies.items()}, ruleset(RULES))
        yield Bench(direct, proxies, through)


@dataclass(frozen=True)
class Undisturbed:
    """How the repair goes when nothing happens."""

    commands: int
    """To one side's server."""
    state: Any
    made: frozenset[object]


def undisturbed(bench: Bench, side: str) -> Undisturbed:
    """Repair, and return how it went."""
    before = bench.reset()
    code, report = bench.repair("r0")
    assert (code, report and result(report, "c1").counts.applied) == (ExitCode.IN_STEP, 11)
    assert {name: len(journaled(url)[1]) for name, url in bench.direct.items()} == WRITTEN
    assert story(bench, before) == []
    return Undisturbed(len(bench.proxies[side].commands), bench.state(), made(bench))


def made(bench: Bench) -> frozenset[object]:
    """Return the changes that the journals have: cell, action, rule, key."""
    return frozenset(
        (name, each.change.action.value, each.change.rule, each.change.key)
        for name, url in bench.direct.items()
        for each in journaled(url)[1]
    )


def story(bench: Bench, before: Mapping[str, Contents]) -> list[str]:
    """Say where a journal and its data disagree."""
    return [line for name, url in bench.direct.items() for line in disagreements(before[name], url)]


def applied(report: Report | None) -> int:
    """Return how many changes a report says were made."""
    cells = report.cells if report else ()
    return sum(cell.counts.applied for cell in cells if isinstance(cell, CellResult))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.HALF, Fault.LATE], ids=lambda f: f.name)
@pytest.mark.parametrize("side", ["api", "c1"])
def test_a_repair_that_is_disturbed_at_any_command_is_finished_by_the_next(
    bench: Bench, side: str, fault: Fault
) -> None:
    """All n: said is what happened, nothing is half done, nothing twice, and the end is the same."""
    normal = undisturbed(bench, side)
    most = normal.commands
    assert most > 20
    codes: Counter[str] = Counter()
    wrong = []
    for n in range(1, most + 1):
        before = bench.reset()
        bench.proxies[side].arm(n, fault)
        code, report = bench.repair("r1")
        bench.quiet()
        struck = bench.proxies[side].struck
        print(n, most, code, time.monotonic() - T0, struck[:80], flush=True)
        codes[code.name] += 1
        lines = [*untrue(bench, code, report, normal), *story(bench, before)]
        for each in bench.proxies.values():
            each.arm()
        again, report = bench.repair("r2")
        lines += [f"the next run ends with {again.name}: {report}"] if again is not ExitCode.IN_STEP else []
        lines += ["the next run ends elsewhere"] if bench.state() != normal.state else []
        lines += story(bench, before)
        wrong += [f"command {n} of {most} ({struck!r}), {code.name}: {line}" for line in dict.fromkeys(lines)]
    print(f"{side}, {fault.name}: {most} commands disturbed; runs that ended with {dict(codes)}")
    assert not wrong, "\n".join(wrong)
    assert set(codes) <= {"IN_STEP", "INCOMPLETE"}


def untrue(bench: Bench, code: ExitCode, report: Report | None, normal: Undisturbed) -> Iterator[str]:
    """Yield where a disturbed run said other than it did."""
    done = made(bench)
    clean = code is ExitCode.IN_STEP
    if clean and bench.state() != normal.state:
        yield "it said that all is done, and it is not"
    if done - normal.made:
        yield f"a read error became a difference: {done - normal.made}"
    if report is None:
        return
    if applied(report) != len(done):
        yield f"it said {applied(report)} were made, and the journal has {len(done)}: {said(report)}"
    if clean and any(isinstance(cell, CellFailure) for cell in report.cells):
        yield "a cell failed in a clean run"
    if not clean and not said(report):
        yield f"incomplete, and no word why: {report}"


def said(report: Report) -> list[str]:
    """Return every reason that a report gives for being incomplete."""
    lines = []
    for cell in report.cells:
        if isinstance(cell, CellFailure):
            lines.append(cell.error)
        else:
            lines += [*cell.problems, *(str(getattr(table, "error", "")) for table in cell.tables)]
    return [line for line in lines if line]

