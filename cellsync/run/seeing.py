"""What a run saw, for the drift log; and which cells are in trouble, for whoever hears of changes alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from cellsync import codec, driftlog
from cellsync.errors import DriftLogUnavailable, ExitCode
from cellsync.model import (
    Action,
    CellFailure,
    CellResult,
    CheckedCell,
    Counts,
    Decision,
    HostStatus,
    Kind,
    Report,
    Run,
    Secrets,
    SeenCell,
    SeenRow,
    SeenRule,
    Sighting,
    TableDiff,
    TableFailure,
    Told,
)
from cellsync.report import facts

ROWS_OF_A_RULE = 100
"""So many rows of one rule in one cell are in a line of the drift log, ..."""
ROWS = 500
"""... and so many of all of them."""
LONG = 500
"""A row with a longer key, in characters of JSON, is counted and not listed."""
CONFIGURATION = ""
"""Stands for a cell where it is the configuration that people should know something about."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What has changed since the last run of the same command told people."""

    changed: tuple[str, ...] = ()
    """Cells whose trouble is new or another one."""
    well: tuple[str, ...] = ()
    """Cells that were in trouble and are no more."""
    trouble: bool = False
    """True when some cell is in trouble, new or not."""


def sighting(report: Report, told: Told | None = None) -> Sighting:
    """Return what a run saw, as far as a line of the drift log has room for it."""
    budget = [ROWS]
    return Sighting(
        run=report.run.id,
        verb=report.run.verb,
        started=report.run.started,
        finished=report.finished,
        topology=report.run.topology,
        exit_code=report.exit_code,
        rules=_rules(report),
        cells=tuple(_cell(cell, report, budget) for cell in report.cells),
        told=told,
    )


def _rules(report: Report) -> tuple[str, ...]:
    """Return the rules that were compared, or were to be: not those that are not for this version."""
    known = {table.rule for cell in facts.results(report) for table in cell.tables}
    return tuple(rule for rule in report.rule_features if rule in known or not known)


def _cell(cell: CellResult | CellFailure, report: Report, budget: list[int]) -> SeenCell:
    if isinstance(cell, CellFailure):
        error = cell.error.split("\n")[0][:LONG]
        return SeenCell(cell=cell.cell, status=cell.status, error=error)
    compared = facts.compared(cell)
    unsure = {table.rule for table in cell.tables if isinstance(table, TableFailure) or table.unknown}
    absent = set(_rules(report)) - {table.rule for table in cell.tables}
    made = replace(cell.counts, planned=0)
    return SeenCell(
        cell=cell.cell,
        status=cell.status,
        rules=tuple(seen for table in compared if (seen := _rule(table, budget, report.secrets)) is not None),
        unknown=tuple(sorted(unsure | absent)),
        counts=cell.counts if made != Counts() else Counts(),
    )


def _rule(table: TableDiff, budget: list[int], secrets: Secrets) -> SeenRule | None:
    counts: Counter[Kind] = Counter()
    for sort, number in table.tally.items():
        counts[sort.kind] += number if facts.counting(sort) else 0
    findings = sum(not finding.accepted for finding in table.findings)
    if not (any(counts.values()) or findings):
        return None
    rows = tuple(islice(_rows(table, secrets), min(ROWS_OF_A_RULE, budget[0])))
    budget[0] -= len(rows)
    by_kind = {kind: counts[kind] for kind in Kind}
    return SeenRule(rule=table.rule, key=table.key, counts=by_kind, findings=findings, rows=rows)


def _rows(table: TableDiff, secrets: Secrets) -> Iterator[SeenRow]:
    """Yield the rows that differ and count, where the key may be written down."""
    if any(secrets.hides(column, table=table.table) for column in table.key):
        return
    for found in facts.ordered(table):
        if facts.counting(found) and len(codec.tuple_to_text(found.key)) <= LONG:
            yield SeenRow(kind=found.kind, key=found.key)


# -- Trouble -------------------------------------------------------------------------------------


def stream(run: Run) -> str:
    """Return which runs this one is compared with: those of the same command for the same parent."""
    return _mark([run.topology, run.verb, run.dry_run, run.command])


def told(report: Report) -> Told:
    """Return what a run has to tell people: the cells in trouble, each with a mark of its trouble."""
    marks = {cell.cell: _mark(parts) for cell in report.cells if (parts := list(_trouble(cell, report)))}
    if report.notes:
        marks[CONFIGURATION] = _mark(list(report.notes))
    return Told(stream=stream(report.run), cells=marks)


def news(report: Report, now: Told, before: Told | None) -> News:
    """Compare what is to be told with what was told before; None stands for a first run."""
    known = before.cells if before else {}
    changed = [cell for cell, mark in now.cells.items() if known.get(cell) != mark]
    changed += [cell.cell for cell in facts.results(report) if _due(cell, report)]
    if report.exit_code is not ExitCode.IN_STEP and not now.cells:
        changed += [cell.cell for cell in report.cells]  # whatever it is, it is not silent
    well = [cell.cell for cell in report.cells if cell.cell in known and cell.cell not in now.cells]
    return News(
        changed=tuple(dict.fromkeys(changed)),
        well=tuple(well),
        trouble=any(cell != CONFIGURATION for cell in now.cells),
    )


def _due(cell: CellResult, report: Report) -> bool:
    """Say whether the run wrote something after which people must do something."""
    return facts.stage(report) is facts.Stage.WRITTEN and bool(cell.counts.applied and cell.notices)


def _mark(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _trouble(cell: CellResult | CellFailure, report: Report) -> Iterator[list[Any]]:
    """Yield what is wrong with a cell; nothing for one that lets a run end with exit code 0.

    Of a repair it is what is left: a cell that was repaired is well.
    """
    if isinstance(cell, CellFailure):
        yield ["error", cell.status.value, _still(cell.error)]
        return
    written = facts.stage(report) is facts.Stage.WRITTEN
    found = [part for table in cell.tables for part in _of_table(table, written=written)]
    if written:
        counts = cell.counts
        left = [counts.planned - counts.applied, counts.conflicts, counts.failed, len(cell.skipped)]
        found += [["left", *left]] if any(left) else []
    found += [["problems", len(cell.problems)]] if cell.problems else []
    found += [["locked"]] if cell.locked else []
    refused = sorted({(each.code, each.rule) for each in facts.refusals(cell)})
    if refused and (found or report.run.verb != "diff"):
        found.append(["refused", *map(list, refused)])
    yield from found
    if found and cell.isolated:
        yield ["isolated"]


def _of_table(table: TableDiff | TableFailure, *, written: bool) -> Iterator[list[Any]]:
    if isinstance(table, TableFailure):
        yield ["failed", table.rule, _still(table.error)]
        return
    counts: Counter[str] = Counter()
    for sort, number in table.tally.items():
        if sort.action is Action.REPORT or (facts.counting(sort) and not written):
            counts[sort.kind.value] += number
    yield from _counted(table.rule, counts)
    yield from _counted(table.rule, Counter(each.code for each in table.findings if not each.accepted))
    if table.unknown:
        yield ["unknown", table.rule, *map(_still, table.unknown)]


def _counted(rule: str, counts: Counter[str]) -> Iterable[list[Any]]:
    return ([rule, name, number] for name, number in sorted(counts.items()))


def _still(text: str) -> str:
    """Return an error without what may be another one each time: ports, connections, milliseconds."""
    return re.sub(r"\d+", "#", text)


# -- Checks of cells -----------------------------------------------------------------------------


def told_of_check(run: Run, cells: Iterable[CheckedCell], error: str) -> Told:
    """Return what a check has to tell people: the cells that do not answer, and what could not be decided."""
    marks = {cell.cell: _mark(parts) for cell in cells if (parts := list(_of_checked(cell, run)))}
    if error:
        marks[CONFIGURATION] = _mark([_still(error)])
    return Told(stream=stream(run), cells=marks)


def _of_checked(cell: CheckedCell, run: Run) -> Iterator[list[Any]]:
    """Yield what is wrong with a cell; how often it has failed is another number each time, and no news."""
    if cell.database.status is not HostStatus.OK:
        yield ["database", cell.database.status.value]
    for probe in cell.broker:
        if probe.status is not HostStatus.OK:
            yield ["broker", probe.host, probe.status.value]
    if cell.unknown:
        yield ["unknown", _still(cell.unknown)]
    if cell.half_registered:
        yield ["half registered"]
    if cell.silent:
        yield ["nova-cells", "silent"]
    if cell.isolated and not cell.sound:
        yield ["isolated"]
    if cell.decision in _STANDING or (run.dry_run and cell.decision in _DONE):
        yield ["decided", cell.decision.value]


_STANDING = (Decision.REFUSED, Decision.DAMPED)
_DONE = (Decision.ISOLATED, Decision.RESTORED)


def news_of_check(
    run: Run, cells: Sequence[CheckedCell], code: ExitCode, now: Told, before: Told | None
) -> News:
    """Compare what a check is to tell with what was told before; None stands for a first one."""
    known = before.cells if before else {}
    changed = [name for name, mark in now.cells.items() if known.get(name) != mark]
    changed += [cell.cell for cell in cells if cell.decision in _DONE and not run.dry_run]
    if code is not ExitCode.IN_STEP and not now.cells:
        changed += [cell.cell for cell in cells]  # whatever it is, it is not silent
    return News(
        changed=tuple(dict.fromkeys(changed)),
        well=tuple(cell.cell for cell in cells if cell.cell in known and cell.cell not in now.cells),
        trouble=bool(now.cells),
    )


# -- The log -------------------------------------------------------------------------------------


def last_told(path: str, stream: str) -> Told | None:
    """Return what the last run of a stream told; None for a first one. Raises DriftLogUnavailable."""
    return driftlog.last_told(path, stream)


def record_check(path: str, run: Run, finished: datetime, code: ExitCode, told: Told) -> str:
    """Add what a check told to the drift log, as ``record`` does. It compared nothing, and says so."""
    seen = Sighting(
        run=run.id,
        verb=run.verb,
        started=run.started,
        finished=finished,
        topology=run.topology,
        exit_code=code,
        rules=(),
        cells=(),
        told=told,
    )
    try:
        driftlog.append(path, seen)
    except DriftLogUnavailable as error:
        return str(error)
    return ""


def record(path: str, report: Report, told: Told | None = None) -> str:
    """Add a run to the drift log; return why it could not be, "" when it was."""
    try:
        driftlog.append(path, sighting(report, told))
    except DriftLogUnavailable as error:
        return str(error)
    return ""
