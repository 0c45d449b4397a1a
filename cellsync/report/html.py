"""The HTML report: one file that needs nothing else, for whoever was not there.

What the page says is worked out here, as plain values; ``page.html`` beside this file only lays it
out, and escapes every value. Secrets are masked: see ``SECRET``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cellsync.model import (
    CellFailure,
    CellResult,
    CheckedCell,
    Difference,
    Dossier,
    HostStatus,
    KeyPart,
    Kind,
    Report,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
    safe,
)
from cellsync.report import course, facts, words
from cellsync.report.page import Style, escape
from cellsync.report.verdict import drift, verdict

MOST = 10_000
"""So many differences are in a page; more would keep a browser busy. JSON has them all."""
LONG = 400
"""The longest value that a page shows whole, in characters."""
SECRET = re.compile(r"pass|secret|token|private|key_data|public_key|user_data|credential", re.IGNORECASE)
"""Columns whose values a page does not show; URLs with passwords lose those alone."""
HIDDEN = "(not shown)"

STATES = {
    Status.IN_STEP: "good",
    Status.REPAIRED: "good",
    Status.DIFFERS: "drift",
    Status.REFUSED: "bad",
    Status.INCOMPLETE: "bad",
    Status.UNREACHABLE: "bad",
}


class Part(NamedTuple):
    """One side of a value that changed: what both sides share, and between it what they do not."""

    head: str
    changed: str
    tail: str


class Column(NamedTuple):
    """One column of a difference."""

    name: str
    existing: Part
    desired: Part


class Shown(NamedTuple):
    """One difference as the page shows it."""

    kind: str
    key: str
    reason: str
    action: str
    since: str
    columns: Sequence[Column]


class Table(NamedTuple):
    """One rule in one cell."""

    rule: str
    state: str
    summary: str
    breaks: Sequence[str]
    error: str
    differences: Sequence[Shown]
    left_out: int


class Cell(NamedTuple):
    """One child."""

    name: str
    state: str
    status: str
    summary: str
    isolated: str
    tables: Sequence[Table]
    in_step: Sequence[str]
    refusals: Sequence[str]
    skipped: Sequence[str]
    problems: Sequence[str]
    notices: Sequence[str]
    schema: Sequence[str]


def render(report: Report, style: Style | None = None) -> Iterator[str]:
    """Yield the page of a run alone, as ``--format html`` of any verb has it."""
    features = tuple(dict.fromkeys(name for names in report.rule_features.values() for name in names))
    return dossier(Dossier(report=report, features=features))


def dossier(of: Dossier) -> Iterator[str]:
    """Yield the page in pieces."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_disarmed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").generate(_page(of))


def _disarmed(value: object) -> object:
    """Show what does not print as an escape, in whatever the page takes from outside."""
    return escape(value) if isinstance(value, str) else value


def _page(of: Dossier) -> dict[str, Any]:
    report, budget = of.report, [MOST]
    cells = [_cell(cell, report, budget) for cell in report.cells]
    return {
        "parent": report.run.topology,
        "verdict": verdict(report),
        "state": _state(report),
        "silent": words.listed([cell.cell for cell in of.checked if not cell.sound]),
        "first": list(_first(of)),
        "run": report.run,
        "started": words.instant(report.run.started),
        "finished": words.instant(report.finished),
        "exit_code": int(report.exit_code),
        "cells": cells,
        "features": [(name, report.features.get(name, "")) for name in of.features],
        "matrix": _matrix(of),
        "findings": list(_findings(report)),
        "checked": [_checked(cell) for cell in of.checked],
        "course": course.section(of.triage, of.runs) if of.triage else None,
        "runs": [_run(each) for each in of.runs],
        "unread": of.unread,
        "settings": of.settings,
        "notes": [*report.notes, *report.left_out],
    }


def _state(report: Report) -> str:
    states = {STATES[cell.status] for cell in report.cells}
    return next((state for state in ("bad", "drift") if state in states), "good")


def _first(of: Dossier) -> Iterator[str]:
    """Yield what to do, the most urgent first."""
    report = of.report
    for checked in of.checked[1:]:
        if checked.broker_down and not checked.isolated:
            why = "no host of its broker takes messages, and the parent hangs with it"
            yield f"cellsync cells isolate {checked.cell}: {why}"
    for failure in facts.failures(report):
        yield f"cellsync cells check {failure.cell}: it could not be compared, so nothing is known of it"
    if any(
        facts.acting([table], *facts.WRITES)
        for cell in facts.results(report)
        for table in facts.compared(cell)
    ):
        yield "cellsync repair --dry-run shows what a repair would write; cellsync repair does it"
    for cell in facts.results(report):
        yield from facts.notices(cell) if facts.totals(report).applied else ()
    if facts.found(report):
        yield "look at the findings below: no repair mends them by itself"


def _matrix(of: Dossier) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return for each child the state and the words of every feature."""
    return [
        (cell.cell, [_feature(cell, name, of.report) for name in of.features]) for cell in of.report.cells
    ]


def _feature(cell: CellResult | CellFailure, name: str, report: Report) -> tuple[str, str]:
    if isinstance(cell, CellFailure):
        return "bad", "unknown"
    tables = [table for table in cell.tables if name in report.rule_features.get(table.rule, ())]
    if any(isinstance(table, TableFailure) for table in tables):
        return "bad", "unknown"
    compared = [table for table in tables if isinstance(table, TableDiff)]
    found = drift(facts.tally(compared))
    if found:
        return "drift", found
    return ("good", "in step") if compared else ("none", "not for this version")


# -- Cells ---------------------------------------------------------------------------------------


def _cell(cell: CellResult | CellFailure, report: Report, budget: list[int]) -> Cell:
    if isinstance(cell, CellFailure):
        nothing: dict[str, Sequence[Any]] = dict.fromkeys(
            ("tables", "in_step", "refusals", "skipped", "problems", "notices", "schema"), ()
        )
        status = "could not be compared"
        return Cell(cell.cell, "bad", status, cell.error, cell.isolated, **nothing)
    loud = [table for table in cell.tables if not facts.in_step(table)]
    return Cell(
        name=cell.cell,
        state=STATES[cell.status],
        status=words.STATUS[cell.status],
        summary=drift(facts.tally(facts.compared(cell))),
        isolated=cell.isolated,
        tables=[_table(table, report, budget) for table in loud],
        in_step=[
            f"{t.rule} ({words.counted(t.desired_rows, 'row')})"
            for t in facts.compared(cell)
            if facts.in_step(t)
        ],
        refusals=[f"{each.rule} {each.code}: {each.message}".strip() for each in facts.refusals(cell)],
        skipped=[f"{each.rule}: {each.reason}" for each in islice(facts.skipped(cell), MOST)],
        problems=list(islice(cell.problems, MOST)),
        notices=list(facts.notices(cell)),
        schema=[
            f"{table}: {each.path}: {each.existing or 'absent'} -> {each.desired or 'absent'}"
            for table, each in facts.schema(cell)
        ],
    )


def _table(table: TableResult, report: Report, budget: list[int]) -> Table:
    breaks = [f"{name}: {report.features.get(name, '')}" for name in report.rule_features.get(table.rule, ())]
    if isinstance(table, TableFailure):
        return Table(table.rule, "bad", "could not be compared", (), table.error, (), 0)
    most = max(0, budget[0])
    shown = [_difference(each, table) for each in islice(facts.ordered(table), most)]
    budget[0] -= len(shown)
    lacking = any(facts.counting(sort) and sort.kind is not Kind.EXTRA for sort in table.tally)
    return Table(
        rule=table.rule,
        state=STATES[table.status],
        summary=drift(facts.tally([table])) or "no difference that counts",
        breaks=breaks if lacking else (),
        error="; ".join(table.unknown),
        differences=shown,
        left_out=len(table.differences) - len(shown),
    )


def _difference(found: Difference, table: TableDiff) -> Shown:
    row = found.desired or found.existing
    action = f"accepted: {found.accepted}" if found.accepted else words.ACTION[found.action]
    return Shown(
        kind=found.kind.value,
        key=words.key(facts.named(table.key, found.key), LONG),
        reason=found.reason,
        action=action,
        since=(row.since or "") if row else "",
        columns=[
            _column(each.column, each.existing, each.desired, found.kind) for each in table.columns_of(found)
        ],
    )


def _column(name: str, existing: KeyPart, desired: KeyPart, kind: Kind) -> Column:
    old, new = _value(name, existing), _value(name, desired)
    if kind is Kind.MISSING:
        return Column(name, Part("", "", ""), Part("", new, ""))
    if kind is Kind.EXTRA:
        return Column(name, Part("", old, ""), Part("", "", ""))
    head = _shared(old, new)
    tail = _shared(old[head:][::-1], new[head:][::-1])
    return Column(name, *(Part(t[:head], t[head : len(t) - tail], t[len(t) - tail :]) for t in (old, new)))


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts have in common from their beginning on."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _value(column: str, part: KeyPart) -> str:
    if SECRET.search(column) and part is not None:
        return HIDDEN
    return words.value(safe(column, part), LONG)


# -- Around the cells ----------------------------------------------------------------------------


def _findings(report: Report) -> Iterator[Mapping[str, str]]:
    for cell, found in facts.found(report).items():
        for each in found:
            yield {
                "cell": cell,
                "rule": each.rule,
                "code": each.finding.code,
                "key": words.key(each.key, LONG),
                "message": each.finding.message,
                "do": words.remedy(each.finding.do) if each.finding.do else "",
            }


def _checked(cell: CheckedCell) -> Mapping[str, Any]:
    database = cell.database
    return {
        "name": cell.cell,
        "isolated": cell.isolated,
        "state": "good" if cell.sound else "bad",
        "database": _answer(database.status, database.latency, database.error),
        "broker": [(probe.host, _answer(probe.status, probe.latency, probe.error)) for probe in cell.broker],
        "unknown": cell.unknown,
    }


def _answer(status: HostStatus, latency: float | None, error: str) -> str:
    return f"ok, {latency * 1000:.0f} ms" if latency is not None and not error else f"{status.value}: {error}"


def _run(journaled: Any) -> Mapping[str, str]:
    run = journaled.run
    return {
        "id": run.id,
        "verb": run.verb,
        "started": words.instant(run.started),
        "status": "cut off, or still running" if journaled.finished is None else journaled.status,
        "cells": ", ".join(journaled.cells),
        "applied": str(journaled.applied),
        "by": f"{run.operator} on {run.host}",
        "reason": run.reason,
        "undone": ", ".join(journaled.undone_by),
    }
