"""`explain`: what a feature needs, step by step, and in each child the first thing that is missing.

The steps stand in the pack: rules that must be in step, or queries that must find something, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cellsync import db, rules
from cellsync.errors import CellsyncError
from cellsync.model import (
    Action,
    Cell,
    CellFailure,
    CellResult,
    Difference,
    Explained,
    Explanation,
    Finding,
    Found,
    HopStatus,
    Kind,
    Need,
    TableDiff,
    TableFailure,
    Value,
    shown,
)
from cellsync.run.compare import compare
from cellsync.run.look import read_version
from cellsync.run.request import Request, each_cell, executor

WRITES = (Action.INSERT, Action.UPDATE, Action.DELETE, Action.SOFT_DELETE)
UNTOLD = "whether it is needed cannot be told: the parent's schema has no version that can be compared"
SHOWN = 5
"""So many of the values that a query finds are shown."""

Rows = Sequence[Sequence[Value]]
Asked = Mapping[tuple[str, Need], "Rows | str"]
"""Child and need -> what its query found, or why it could not be asked."""


class _Seen(NamedTuple):
    """All that a step is judged by."""

    parent: str
    version: Value
    results: Mapping[str, CellResult | CellFailure]
    asked: Asked


def explain(request: Request, feature: str) -> Explanation:
    """Say what a feature needs and what of it is there. Reads only.

    Raises UsageError for a feature that no rule serves.
    """
    every = _needs(request, feature)
    # A step may name a rule of another feature.
    named = [name for need in every for name in need.rules]
    ruleset = rules.select(request.ruleset, rules=named, features=[feature])
    described = request.ruleset.feature(feature)
    report = compare(replace(request, ruleset=ruleset)).report
    results = {cell.cell: cell for cell in report.cells}
    version = _version(request)
    needs = [need for need in every if _admits(need, version) is not False]
    seen = _Seen(request.topology.parent.name, version, results, _ask(request, needs))
    cells = []
    for child in request.children:
        found = [_found(need, child, seen) for need in needs]
        cells.append(Explained(cell=child.name, found=tuple(found)))
    return Explanation(feature=feature, lost=described.lost if described else "", cells=tuple(cells))


def _admits(need: Need, version: Value) -> bool | None:
    """Say whether a step is for this version of the parent; None where that cannot be told."""
    return True if need.when is None else need.when.admits(version)


def _needs(request: Request, feature: str) -> Sequence[Need]:
    """Return what the packs say of a feature, then the rules and detectors of it that no step has named."""
    said = [need for pack in request.ruleset.packs for need in pack.explains.get(feature, ())]
    named = {name for need in said for name in need.rules}
    serving = [
        Need(says=rule.why or f"{rule.table} is in step", rules=(rule.id,), when=rule.when)
        for rule in request.ruleset.rules
        if feature in rule.features and rule.id not in named
    ]
    looking = [
        Need(says=each.why or f"{each.id} finds nothing", rules=(each.id,))
        for each in request.ruleset.detectors
        if feature in each.features and each.id not in named
    ]
    return [*said, *serving, *looking]


def _version(request: Request) -> Value:
    """Return the schema version of the parent, None where it cannot be read: then no gate opens."""
    try:
        with db.connect(request.topology.parent, request.timeouts) as database:
            return read_version(database)
    except CellsyncError:
        return None  # the comparison has said why the parent cannot be read


def _ask(request: Request, needs: Sequence[Need]) -> Asked:
    """Run every query for every child, in the child or in the parent; each cell through one connection."""
    parent = request.topology.parent
    children = [child.name for child in request.children]
    about = {
        cell.name: [
            (child, need)
            for need in needs
            for child in (children if cell is parent else [cell.name])
            if need.query and need.cell is cell.role
        ]
        for cell in (parent, *request.children)
    }

    def task(cell: Cell) -> dict[tuple[str, Need], Rows | str]:
        within = request.timeouts.within(cell.budget.time)
        with db.connect(cell, within) as database, database.snapshot():
            return {
                (child, need): _rows(database, need, parent.name, child) for child, need in about[cell.name]
            }

    found: dict[tuple[str, Need], Rows | str] = {}
    cells = [cell for cell in (parent, *request.children) if about[cell.name]]
    with executor(request.jobs) as pool:
        for name, answers in each_cell(pool, task, cells).items():
            failed = isinstance(answers, CellFailure)
            found.update(dict.fromkeys(about[name], answers.error) if failed else answers)  # type: ignore[union-attr, arg-type]
    return found


def _rows(database: db.Database, need: Need, parent: str, child: str) -> Rows | str:
    try:
        return database.query(need.query, parent=parent, child=child)
    except CellsyncError as error:
        return str(error)


# -- Judging -------------------------------------------------------------------------------------


def _found(need: Need, child: Cell, seen: _Seen) -> Found:
    names = {"parent": seen.parent, "child": child.name}
    if _admits(need, seen.version) is None:
        status, evidence, advice = HopStatus.UNKNOWN, UNTOLD, ""
    elif need.query:
        status, evidence = _of_query(need, seen.asked[child.name, need])
        advice = ""
    elif need.rules:
        status, evidence, advice = _of_rules(need, seen.results[child.name], child)
    else:
        status, evidence, advice = HopStatus.OK, "", ""
    if status is HopStatus.BROKEN and need.optional:
        status = HopStatus.WARN
    do = need.do.format(**names) or advice
    noted = not need.query and not need.rules
    return Found(
        needs=need.says.format(**names),
        status=status,
        evidence=evidence,
        do=do if noted or status in (HopStatus.BROKEN, HopStatus.WARN) else "",
    )


def _of_query(need: Need, rows: Rows | str) -> tuple[HopStatus, str]:
    if isinstance(rows, str):
        return HopStatus.UNKNOWN, f"cannot be asked: {rows}"
    values = ["/".join(map(shown, row)) for row in rows]
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    listed = ", ".join(values[:SHOWN]) + more
    met = bool(rows) is not need.none
    return HopStatus.OK if met else HopStatus.BROKEN, listed or ("none" if need.none else "nothing is there")


def _of_rules(need: Need, cell: CellResult | CellFailure, child: Cell) -> tuple[HopStatus, str, str]:
    if isinstance(cell, CellFailure):
        return HopStatus.UNKNOWN, f"could not be compared: {cell.error}", ""
    tables = {table.rule: table for table in cell.tables}
    rows = 0
    doubts: list[Finding] = []
    for rule in need.rules:
        table = tables.get(rule)
        if table is None:
            continue  # its gate is shut for this version
        if isinstance(table, TableFailure):
            return HopStatus.UNKNOWN, f"{rule} could not be compared: {table.error}", ""
        lacking = list(_lacking(table))
        if lacking:
            verb = "repair" if any(each.action in WRITES for each in lacking) else "diff"
            return HopStatus.BROKEN, _words(table, lacking), f"cellsync {verb} {child.name} --rule {rule}"
        doubts += [finding for finding in table.findings if not finding.accepted]
        rows += table.desired_rows
    if doubts:
        do = next((doubt.do.text for doubt in doubts if doubt.do), "")
        evidence = "; ".join(doubt.message for doubt in doubts)
        return HopStatus.WARN, evidence, do or f"cellsync diff {child.name} has the findings"
    judged = [tables[rule] for rule in need.rules if rule in tables]
    if judged and all(table.detector for table in judged):
        return HopStatus.OK, "nothing is found", ""
    return HopStatus.OK, f"{rows} {'row is' if rows == 1 else 'rows are'} in step", ""


def _lacking(table: TableDiff) -> Iterator[Difference]:
    """Yield what of a rule's rows is not as it should be: not what only the child has."""
    for each in table.differences:
        if each.kind is not Kind.EXTRA and each.action is not Action.IGNORE and not each.accepted:
            yield each


def _words(table: TableDiff, lacking: Sequence[Difference]) -> str:
    first = lacking[0]
    key = ", ".join(f"{name}={shown(part)}" for name, part in zip(table.key, first.key, strict=True))
    more = f", and {len(lacking) - 1} more in {table.rule}" if len(lacking) > 1 else ""
    return (first.reason or f"{first.kind.value} {key}") + more
