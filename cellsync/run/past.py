"""Look back: the runs that the journals know, and the plan that takes one of them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cellsync import db, journal
from cellsync.errors import ExitCode, UsageError
from cellsync.model import (
    Cell,
    CellFailure,
    CellResult,
    Counts,
    DatabaseIdentity,
    Direction,
    JournaledChange,
    JournaledRun,
    Plan,
    Report,
    Role,
    Status,
)
from cellsync.run.request import Edge, Prepared, Request, each_cell, executor, exit_code


@dataclass(frozen=True, kw_only=True)
class History:
    """The runs of all journals, newest first, and the cells whose journal could not be read."""

    runs: tuple[JournaledRun, ...]
    failures: tuple[CellFailure, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Return IN_STEP, or INCOMPLETE when a journal could not be read."""
        return ExitCode.INCOMPLETE if self.failures else ExitCode.IN_STEP


@dataclass(frozen=True, kw_only=True)
class _Past:
    """What the journal of one database says of it."""

    identity: DatabaseIdentity
    runs: tuple[JournaledRun, ...]
    changes: tuple[JournaledChange, ...]


def history(request: Request, run_id: str | None = None) -> History:
    """Return the runs that the journals of the parent and of all children know. Reads only.

    With ``run_id`` only that one. Raises UsageError when no journal knows it and all were read.
    """
    past, failures = _read(request, run_id)
    runs = journal.merged(run for each in past.values() for run in each.runs)
    chosen = tuple(each for each in runs if run_id in (None, each.run.id))
    if run_id is not None and not chosen and not failures:
        raise _unknown(run_id)
    return History(runs=chosen, failures=tuple(failures.values()))


def changes(request: Request, run_id: str) -> Mapping[str, tuple[JournaledChange, ...]]:
    """Return the changes of one run, by the cell that was written."""
    past, _ = _read(request, run_id)
    return {name: each.changes for name, each in past.items() if each.changes}


def prepare_undo(request: Request, run_id: str) -> Prepared:
    """Plan the inverse of a run, on every database that it wrote.

    Raises UsageError when no journal knows the run, or when it was taken back already. A cell
    that cannot be reached is in the report as such: the others are undone all the same.
    """
    past, failures = _read(request, run_id)
    runs = journal.merged(run for each in past.values() for run in each.runs)
    _check(run_id, runs, complete=not failures)
    edges = tuple(_edge(_cell(request, name), each, run_id) for name, each in past.items() if each.changes)
    cells: list[CellResult | CellFailure] = [*failures.values(), *(_planned(edge) for edge in edges)]
    report = Report(
        run=request.run,
        finished=request.clock(),
        cells=tuple(cells),
        exit_code=exit_code(cells, remaining=False, refusals=True),
    )
    return Prepared(report=report, edges=edges)


def _read(request: Request, run_id: str | None) -> tuple[dict[str, _Past], dict[str, CellFailure]]:
    def task(cell: Cell) -> _Past:
        with db.connect(cell, request.timeouts) as database:
            identity = database.identity()
            about = {"database": identity.schema, "cell": cell.name}
            made = journal.changes(database, run_id, **about) if run_id else ()
            return _Past(identity=identity, runs=journal.runs(database, **about), changes=made)

    cells = [request.topology.parent, *request.topology.children]
    with executor(request.jobs) as pool:
        results = each_cell(pool, task, cells)
    failures = {name: each for name, each in results.items() if isinstance(each, CellFailure)}
    return {name: each for name, each in results.items() if isinstance(each, _Past)}, failures


def _unknown(run_id: str) -> UsageError:
    return UsageError(f"no journal knows a run {run_id}: `cellsync history` lists the runs")


def _check(run_id: str, runs: Iterable[JournaledRun], *, complete: bool) -> None:
    known = next((each for each in runs if each.run.id == run_id), None)
    if known is None and complete:
        raise _unknown(run_id)
    if known is not None and known.undone_by:
        raise UsageError(
            f"run {run_id} was taken back already, by {', '.join(known.undone_by)}: undo that run to have "
            f"it again"
        )


def _cell(request: Request, name: str) -> Cell:
    cell = request.topology.cell(name)
    assert cell is not None, name
    return cell


def _edge(cell: Cell, past: _Past, run_id: str) -> Edge:
    plan = Plan(
        child=cell.name,
        written=cell.name,
        database=past.identity,
        changes=tuple(journal.inverses(past.changes)),
    )
    direction = Direction.UP if cell.role is Role.PARENT else Direction.DOWN
    return Edge(cell=cell, child=cell.name, direction=direction, plan=plan, targets={}, undoes=run_id)


def _planned(edge: Edge) -> CellResult:
    return CellResult(
        cell=edge.cell.name,
        status=Status.DIFFERS,
        tables=(),
        counts=Counts(planned=len(edge.plan.changes)),
        plans=(edge.plan,),
    )
