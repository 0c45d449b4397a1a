"""The JSON lines output: one difference, finding or failure a line, each complete in itself.

``kind`` says what a line is: missing, changed or extra (a difference), finding, unknown (rows that
could not be judged), refusal, skipped, problem (a change that conflicted or failed), or error (a
cell, or with a ``rule`` a table, that could not be compared). What people accepted says so in
``accepted`` and does not count, nor does a difference whose ``action`` is ignore; but for those,
nothing at all means in step.
"""

from __future__ import annotations

from collections.abc import Iterator

from cellsync.codec import Text
from cellsync.model import (
    CellFailure,
    CellResult,
    Finding,
    Report,
    Secrets,
    TableDiff,
    TableFailure,
    TableResult,
)
from cellsync.report import facts, json
from cellsync.report.page import Style


def render(report: Report, style: Style | None = None) -> Iterator[str]:
    """Yield the report as JSON lines; ``style`` makes no difference."""
    lines = (each for cell in report.cells for each in _cell(cell, report.secrets))
    return (json.line(json.joined({"run": report.run.id}, content)) for content in lines)


def _cell(cell: CellResult | CellFailure, secrets: Secrets) -> Iterator[json.Object | Text]:
    """Yield the content of a line for everything that is wrong; ``cell`` is always the child."""
    head = {"cell": cell.cell}
    if isinstance(cell, CellFailure):
        yield {**head, "kind": "error", "status": cell.status.value, "error": cell.error}
        return
    for table in cell.tables:
        address = {**head, **_address(table)}
        yield from (json.joined(address, content) for content in _table(table, secrets))
    yield from ({**head, **content} for content in _repair(cell))


def _address(table: TableResult) -> json.Object:
    if table.detector:
        return {"rule": table.rule, "table": None, "direction": None}
    return {"rule": table.rule, "table": table.table, "direction": table.direction.value}


def _table(table: TableResult, secrets: Secrets) -> Iterator[json.Object | Text]:
    if isinstance(table, TableFailure):
        yield {"kind": "error", "status": table.status.value, "error": table.error}
        return
    yield from map(json.Differences(table, secrets).text, facts.ordered(table))
    yield from (_finding(each, table) for each in facts.ordered_findings(table))
    yield from ({"kind": "unknown", "reason": reason} for reason in table.unknown)


def _finding(finding: Finding, table: TableDiff) -> json.Object:
    """Return a finding; ``found_in`` is the cell whose rows are wrong, maybe the parent."""
    content = json.finding(finding, table)
    return {"kind": "finding", "found_in": content.pop("cell"), **content}


def _repair(cell: CellResult) -> Iterator[json.Object]:
    names = facts.key_names(cell)
    yield from ({"kind": "refusal", **json.refusal(each)} for each in facts.refusals(cell))
    yield from ({"kind": "skipped", **json.skipped(each, names)} for each in facts.skipped(cell))
    yield from ({"kind": "problem", "message": problem} for problem in cell.problems)
