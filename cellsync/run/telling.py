"""What statements are spelled from, beside a plan: the whole rows it changes, or what a run has made.

A comparison reads the compared columns. To take back what a plan deletes or updates, the rest of the
row must be known too, so it is read here, for the outputs that show the way back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from cellsync import db
from cellsync.model import (
    Action,
    Cell,
    CellFailure,
    CellResult,
    Change,
    Identity,
    JournaledRun,
    Key,
    Plan,
    Reference,
    Report,
    ServerTime,
    Status,
    Stored,
    Table,
    Value,
)
from cellsync.run.past import made_by
from cellsync.run.request import Edge, Prepared, Request, each_cell, executor, exit_code
from cellsync.spool import Collector, kept

AT_ONCE = 1_000
"""Changes whose rows are read together."""

Rows = Mapping[tuple[str, Identity], Mapping[str, Value]]
"""(table, primary key) -> the row as the server has it, whole."""


Chosen = Collection[tuple[str, str, Key]]
"""Child, rule and key of differences."""


def with_whole_rows(request: Request, prepared: Prepared, chosen: Chosen | None = None) -> Report:
    """Return the report of what was prepared, with all in its plans that taking them back needs.

    Reads only, by primary key: the rows of all changes, or of ``chosen`` differences alone. A row that is
    no longer as planned, or whose database does not answer any more, stays as it was.
    """
    due: dict[str, list[Edge]] = {}
    for edge in prepared.edges:
        if _asks_for_rows(edge.plan, chosen):
            due.setdefault(edge.cell.name, []).append(edge)
    with executor(request.jobs) as pool:
        request.progress("reading the rows that would change")
        waiting = request.waiting("reading the rows that would change")
        cells = [edges[0].cell for edges in due.values()]
        read = each_cell(
            pool, lambda cell: _completed(request, cell, due[cell.name], chosen), cells, waiting=waiting
        )
    plans = {
        (plan.child, plan.written): plan
        for each in read.values()
        for plan in (() if isinstance(each, CellFailure) else each)
    }
    return replace(
        prepared.report,
        cells=tuple(
            replace(cell, plans=tuple(plans.get((each.child, each.written), each) for each in cell.plans))
            if isinstance(cell, CellResult)
            else cell
            for cell in prepared.report.cells
        ),
    )


def _asks_for_rows(plan: Plan, chosen: Chosen | None) -> bool:
    asked = chosen is None or any(child == plan.child for child, _, _ in chosen)
    return asked and any(deed.action is not Action.INSERT for deed in plan.deeds)


def _completed(request: Request, cell: Cell, edges: Sequence[Edge], chosen: Chosen | None) -> list[Plan]:
    with db.connect(cell, request.timeouts) as database, database.snapshot():
        database.tables({deed.table for edge in edges for deed in edge.plan.deeds})  # all at once
        return [replace(edge.plan, changes=_changes(edge.plan, database, chosen)) for edge in edges]


def _changes(plan: Plan, database: db.Database, chosen: Chosen | None) -> Sequence[Change]:
    collected: Collector[Change] = Collector()
    waiting = iter(plan.changes)
    # A row that is parked is changed twice, and one that is emptied before it is removed: what the first
    # change leaves is what the second finds.
    emptied = {deed.table for deed in plan.deeds if deed.action is Action.DELETE}
    left: dict[tuple[str, Identity], Mapping[str, Value]] = {}
    while part := list(islice(waiting, AT_ONCE)):
        asking = (c for c in part if chosen is None or (plan.child, c.rule, c.key) in chosen)
        rows = {**_rows(asking, database), **left}
        for change in part:
            at = (change.table, change.identity)
            collected.append(_with(change, plan.tables.get(change.table), rows.get(at)))
            empties = change.table in emptied and {*(change.after or {}).values()} == {None}
            if (change.together or empties) and at in rows:
                then = (change.table, change.identity_after)
                rows[then] = left[then] = {**rows[at], **_plain(change.after)}
    return collected.kept()


def _plain(row: Mapping[str, Stored] | None) -> dict[str, Value]:
    return {
        name: value for name, value in (row or {}).items() if not isinstance(value, (Reference, ServerTime))
    }


def _rows(changes: Iterable[Change], database: db.Database) -> Rows:
    wanted: dict[tuple[str, tuple[str, ...]], list[Identity]] = {}
    for change in changes:
        if change.action is not Action.INSERT and change.identity:
            wanted.setdefault((change.table, change.identity_columns), []).append(change.identity)
    return {
        (table, identity): row
        for (table, columns), identities in wanted.items()
        for identity, row in database.read_back(table, columns, list(dict.fromkeys(identities))).items()
    }


def _with(change: Change, table: Table | None, row: Mapping[str, Value] | None) -> Change:
    """Return a change whose ``before`` is the whole row of a deletion, or all that an update writes."""
    if row is None or table is None or not _as_planned(change, row):
        return change
    before = change.before or {}
    if change.action is Action.DELETE:
        return replace(change, before=row)
    written = change.after or {}
    return replace(change, before={**before, **{n: row[n] for n in row if n in written and n not in before}})


def _as_planned(change: Change, row: Mapping[str, Value]) -> bool:
    """Say whether a row still is what the plan saw; what it refers to is left to the guards."""
    return all(name in row and row[name] == value for name, value in _plain(change.before).items())


def as_made(request: Request, report: Report) -> Report:
    """Return the report of a run that wrote, with what it made, as the journals have it, for its plans.

    Reads only. What a journal does not tell any more becomes a problem of its cell.
    """
    cells = [cell for cell in report.cells if isinstance(cell, CellResult)]
    written = {plan.written for cell in cells for plan in cell.plans}
    plans, failures = made_by(request, report.run.id, written)
    told = {cell.cell: _told(cell, plans, failures) for cell in cells}
    return replace(report, cells=tuple(told.get(cell.cell, cell) for cell in report.cells))


def of_run(request: Request, past: JournaledRun) -> Report:
    """Return a report of an earlier run whose plans are what it made. Reads only."""
    plans, failures = made_by(request, past.run.id, past.cells)
    cells = [
        failures.get(name)
        or CellResult(
            cell=name,
            status=Status.REPAIRED,
            tables=(),
            plans=(plans[name],) if name in plans else (),
            notices=plans[name].notices if name in plans else (),
        )
        for name in past.cells
    ]
    return Report(
        run=past.run,
        finished=past.finished or request.clock(),
        cells=tuple(cells),
        secrets=request.topology.secrets,
        exit_code=exit_code(cells, remaining=False, refusals=False),
    )


def _told(cell: CellResult, plans: dict[str, Plan], failures: Mapping[str, CellFailure]) -> CellResult:
    """Return a cell with what was made; takes it out of ``plans``.

    What went up to the parent stands once, with the first child that had something for it.
    """
    written = dict.fromkeys(plan.written for plan in cell.plans)
    untold = [
        f"what was made in {name} could not be read from its journal: {failures[name].error}"
        for name in written
        if name in failures
    ]
    return replace(
        cell,
        plans=tuple(plans.pop(name) for name in written if name in plans),
        problems=kept(chain(cell.problems, untold)),
    )
