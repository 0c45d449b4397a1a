"""One parent and its children for tests: cells from URLs, rules from YAML text, runs over them.

Everything goes through the doors that the command line uses: ``rules.load``, ``run.compare``,
``run.write`` and ``run.prepare_undo``.
"""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import judging
import oracle
import pytest
import sqlalchemy as sa
from oracle_edges import take_edges
from oracle_writes import explain_writes

from cellsync import db, rules, run, spool
from cellsync.apply import verifying
from cellsync.demo.database import connected
from cellsync.diff import Pairing, digests, pair
from cellsync.model import (
    Action,
    Bucketing,
    Cell,
    CellResult,
    Endpoint,
    Pair,
    Projection,
    Report,
    Role,
    Rule,
    RuleSet,
    Run,
    Secret,
    Status,
    TableDiff,
    Topology,
)
from cellsync.run import confirming, digesting

MakeDatabase = Callable[..., str]
"""The fixture ``database``."""

TIMEOUTS = db.Timeouts(connect=5, statement=60, lock=1)


def cell(name: str, url: str, role: Role = Role.CHILD) -> Cell:
    """Return a cell that is reached by this URL."""
    return Cell(name=name, role=role, database=Endpoint(url=Secret(url), shown="..."))


@contextmanager
def opened(url: str, name: str = "c1") -> Iterator[db.Database]:
    """Open one connection to a cell's database."""
    with db.connect(cell(name, url), TIMEOUTS) as database:
        yield database


def as_if_large(patch: pytest.MonkeyPatch) -> None:
    """Have the smallest table compared by digests, on disk, and two keys at a time."""
    patch.setattr(digests, "READ_WHOLE", -1)
    patch.setattr(digests, "MOST_IN_BUNDLE", 2)
    patch.setattr(digests, "ROWS_AT_ONCE", 2)
    patch.setattr(digesting, "MOST_IN_BLOCK", 2)
    patch.setattr(confirming, "KEYS_AT_ONCE", 2)
    patch.setattr(verifying, "KEYS_AT_ONCE", 2)
    patch.setattr(spool, "SHORT", 0)
    patch.setattr(spool, "BLOCK", 2)


def pairs(
    database: db.Database, projection: Projection, bucketing: Bucketing, parts: int = 1
) -> Iterator[Pair]:
    """Yield the keys and checksums of all rows of a projection, as the server writes them."""
    taken_apart = database.pairs(projection)
    for bundle in database.bundles(projection, bucketing, parts=parts):
        yield from map(taken_apart, bundle.texts)


_TEXTS: dict[str, str] = {}
"""Digest of rules -> their text, which the oracle reads itself."""


def ruleset(text: str) -> RuleSet:
    """Return the rules of a rule file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pack.yaml"
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        loaded = rules.load([str(file)])
    _TEXTS[loaded.digest] = textwrap.dedent(text)
    return loaded


def execute(url: str, *statements: str) -> None:
    """Run statements through one connection, as they stand, dates as loose as they come."""
    with connected(sa.make_url(url)) as connection:
        if connection.dialect.name == "mysql":
            connection.exec_driver_sql("SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'")
        for statement in statements:
            connection.execute(sa.text(statement.replace(":", "\\:")))


def add(url: str, table: str, *rows: Mapping[str, Any]) -> None:
    """Insert rows, column -> value."""
    with connected(sa.make_url(url)) as connection:
        if connection.dialect.name == "mysql":
            connection.exec_driver_sql("SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'")
        for row in rows:
            quote = connection.dialect.identifier_preparer.quote_identifier
            names = ", ".join(quote(name) for name in row).replace(":", "\\:")
            values = {f"v{index}": value for index, value in enumerate(row.values())}
            marks = ", ".join(f":{name}" for name in values)
            place = quote(table).replace(":", "\\:")
            connection.execute(sa.text(f"INSERT INTO {place} ({names}) VALUES ({marks})"), values)


def rows(url: str, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query, column -> value."""
    with connected(sa.make_url(url)) as connection:
        found = connection.execute(sa.text(query.replace(":", "\\:")))
        return [dict(row) for row in found.mappings()]


def paired(rule: Rule, known: RuleSet, desired: db.Database, existing: db.Database) -> Pairing:
    """Return how both sides of a rule are read, from the schemas of two databases."""
    parent_tables = desired.tables([each.table for each in known.rules])
    child_tables = existing.tables([each.child_table for each in known.rules])
    made = pair(rule, known, parent_tables=parent_tables, child_tables=child_tables, parent="api", child="c1")
    assert isinstance(made, Pairing), made
    return made


@dataclass(frozen=True)
class Stand:
    """A topology and its rules, ready to be compared, repaired and undone."""

    urls: Mapping[str, str]
    """Name -> URL; the first one is the parent."""
    rules: RuleSet
    scope: tuple[str, ...] = ()
    """The children to compare; empty for all of them."""
    judged: bool = True
    """False where others write during a repair: the oracle, which reads before and after, is not asked."""
    announced: bool = False
    """True where nothing may fail that was not announced before the first write. Otherwise changes may fail,
    as in tests that disturb connections, but still nothing wrong is written or said."""
    direct: Mapping[str, str] | None = None
    """Name -> URL for the oracle, where ``urls`` lead through proxies."""

    @property
    def topology(self) -> Topology:
        """Return the topology of the URLs."""
        parent, *children = self.urls
        return Topology(
            parent=cell(parent, self.urls[parent], Role.PARENT),
            children=tuple(cell(name, self.urls[name]) for name in children),
        )

    def request(self, verb: str, run_id: str, waived: Sequence[str] = ()) -> run.Request:
        """Return what a verb is asked."""
        started = datetime.now(timezone.utc)
        made = Run(
            id=run_id, verb=verb, started=started, topology="api", operator="o", host="h", command="cellsync"
        )
        return run.Request(
            run=made,
            topology=self.topology,
            ruleset=self.rules,
            cells=self.scope,
            settle=timedelta(0),
            waived=tuple(waived),
            timeouts=TIMEOUTS,
        )

    def diff(self) -> Report:
        """Compare; writes nothing."""
        return run.compare(self.request("diff", "d")).report

    def prepare(self, run_id: str, waived: Sequence[str] = ()) -> tuple[run.Request, run.Prepared]:
        """Compare and plan; writes nothing."""
        request = self.request("repair", run_id, waived)
        return request, run.compare(request)

    def repair(self, run_id: str, waived: Sequence[str] = ()) -> Report:
        """Compare, plan and write; the oracle must agree with the report and with every write."""
        text = _TEXTS.get(self.rules.digest)
        known = oracle.read_rules(text) if text and self.judged and self._is_readable() else []
        before = self._take_edges(known) if known else {}
        request, prepared = self.prepare(run_id, waived)
        report = run.write(request, prepared)
        after = self._take_edges(known) if known else {}
        lines = [
            f"{name}: {line}"
            for name, edge in after.items()
            for line in self._judge(name, (before[name], edge), (prepared.report, report))
        ]
        answering = after.keys() if known else {each.cell for each in report.cells}
        lines += [
            f"{each.cell}: {each.status.value}, and it does not answer"
            for each in report.cells
            if each.cell not in answering and each.status is not Status.UNREACHABLE
        ]
        assert not lines, "\n".join(["the oracle disagrees:", *lines])
        return report

    def _judge(
        self, name: str, edges: tuple[oracle.Edge, oracle.Edge], reports: tuple[Report, Report]
    ) -> Iterator[str]:
        """Yield where the oracle disagrees about one child; both pairs are of before and after the repair."""
        before, after = edges
        planned, done = (next(c for c in each.cells if c.cell == name) for each in reports)
        judged, now = oracle.judge_rules(before), oracle.judge_rules(after)
        upward = {rule.is_upward for rule in before.rules}
        # What several children wrote into their parent cannot be told apart.
        alone = len(reports[1].cells) == 1 and len(upward) == 1
        written = explain_writes(before, after, judged, of_parent=upward == {True}) if alone else None
        code = int(reports[1].exit_code)
        if code and len(reports[1].cells) > 1:  # perhaps another child's
            code = int(_is_open(done))
        yield from judging.check_compared(planned, judged)
        yield from judging.check_repaired(planned, done, now, written, exit_code=code, quiet=self.announced)

    def _is_readable(self) -> bool:
        """Say whether the oracle can read these databases."""
        return all(sa.make_url(url).get_backend_name() == "mysql" for url in self.urls.values())

    def _take_edges(self, known: Sequence[oracle.Rule]) -> dict[str, oracle.Edge]:
        """Return child -> both sides as the oracle reads them."""
        urls = self.direct or self.urls
        parent, *children = urls
        edges = take_edges((parent, urls[parent]), {name: urls[name] for name in children}, known)
        return {name: edge for name, edge in edges.items() if name in (self.scope or children)}

    def undo(self, undone: str, run_id: str, waived: Sequence[str] = ()) -> Report:
        """Take a run back."""
        request = self.request("undo", run_id, waived)
        return run.write(request, run.prepare_undo(request, undone))


def _is_open(cell: object) -> bool:
    """Say whether a cell's result says that something remains."""
    return (
        not isinstance(cell, CellResult)
        or cell.status.value not in ("in_step", "repaired")
        or bool(cell.skipped)
        or any(
            each.action is Action.REPORT
            for found in cell.tables
            if isinstance(found, TableDiff)
            for each in found.differences
        )
    )


def result(report: Report, cell_name: str) -> CellResult:
    """Return the result of a cell that was compared."""
    found = next(each for each in report.cells if each.cell == cell_name)
    assert isinstance(found, CellResult), found
    return found


def table(report: Report, cell_name: str, rule_id: str) -> TableDiff:
    """Return the result of a rule that was compared."""
    found = next(each for each in result(report, cell_name).tables if each.rule == rule_id)
    assert isinstance(found, TableDiff), found
    return found


def stand_of(
    database: MakeDatabase, rules_text: str, *tables: str, cells: Sequence[str] = ("api", "c1")
) -> Stand:
    """Return a topology of fresh schemas on one server, each with these tables."""
    urls = {name: database() for name in cells}
    for url in urls.values():
        execute(url, *tables)
    return Stand(urls, ruleset(rules_text))


def converged(stand: Stand) -> bool:
    """Say whether a diff finds nothing, and a repair writes nothing."""
    found, repaired = stand.diff(), stand.repair("again")
    cells = [each for each in repaired.cells if isinstance(each, CellResult)]
    quiet = len(cells) == len(repaired.cells) and not any(each.counts.planned for each in cells)
    return quiet and found.exit_code == 0 and repaired.exit_code == 0
