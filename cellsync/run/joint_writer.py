"""Write the plans of several databases together, or none of them: both rows that register a child.

All changes are made in open transactions first, one inside the other, and only then committed, the
innermost first. Where a later commit fails, what was committed before it is taken back by an undo of its
own. A process that is killed between two commits leaves one database written: ``cells list`` and ``cells
check`` say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from cellsync import apply
from cellsync.errors import CellsyncError, ReadFailed, TransactionLost, Unreachable, WriteFailed
from cellsync.model import (
    Action,
    Cell,
    CellFailure,
    CellResult,
    Change,
    Direction,
    Fate,
    Outcome,
    Refusal,
    Report,
    Secrets,
    Skipped,
    name_change,
)
from cellsync.run import holding
from cellsync.run.past import prepare_undo_in
from cellsync.run.request import Edge, Request, bounded
from cellsync.run.writing import (
    Held,
    Written,
    begin_run,
    fail_edge,
    find_unlike,
    find_unwritable,
    finish_run,
    hold_database,
    number_outcomes,
    write,
)

P = ParamSpec("P")
R = TypeVar("R")

Results = dict[str, "list[Written] | CellFailure"]

TRIES = 3
"""How often all of it is made anew where it was lost before anything was committed."""


@dataclass(frozen=True)
class _Part:
    """What is written in one database."""

    edge: Edge
    held: Held
    notes: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        return self.edge.cell.name


class _NotMade(Exception):
    """A change was not made in one database, so that nothing may be committed in any."""

    def __init__(self, part: _Part, outcomes: Sequence[Outcome]) -> None:
        super().__init__()
        self.part, self.outcomes = part, outcomes


def write_together(request: Request, edges: Sequence[Edge]) -> Results:
    """Write the plan of each edge, each in a database of its own, all or none; return what became of them.

    What could not be made, in whichever database, is said of its cell, and the others say that they were not
    written without it.
    """
    with ExitStack() as stack:
        opened = _open_all(request, _put_in_order(edges), stack)
        if isinstance(opened, dict):
            return opened
        results, committed = _write_all(request, opened)
    if not committed or len(committed) == len(edges):
        return results
    for part in committed:
        results[part.cell] = [_take_back(request, part, results)]
    return results


def _put_in_order(edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges so that the first one is committed last.

    A parent that sends to a child which cannot answer hangs, and the other way round nothing is lost: its row
    comes last, and goes first.
    """
    parent_first = sorted(edges, key=lambda edge: edge.direction is not Direction.UP)
    return parent_first if any(map(_adds_row, parent_first[0].plan.changes)) else parent_first[::-1]


def _adds_row(change: Change) -> bool:
    return change.action is Action.INSERT or (change.after or {}).get("deleted") == 0


# -- Before anything is written --------------------------------------------------------------------


def _open_all(request: Request, edges: Sequence[Edge], stack: ExitStack) -> list[_Part] | Results:
    """Take every lock, and only then record that the run begins; return what stands against it."""
    held: dict[str, Held] = {}
    for edge in edges:
        found = _try(edge, hold_database, request, [edge], stack)
        if not isinstance(found, Held):
            return _held_up(edges, edge.cell.name, found)
        held[edge.cell.name] = found
    for edge in edges:
        refused = _try(edge, _refuse_denied, edge, held[edge.cell.name])
        if refused:
            return _held_up(edges, edge.cell.name, refused)
    parts: list[_Part] = []
    for edge in edges:
        own = held[edge.cell.name]
        begun = _try(edge, begin_run, request, [edge], own, stack)
        if not isinstance(begun, tuple):
            results = _held_up(edges, edge.cell.name, begun)
            for part in parts:
                results[part.cell] = finish_run(request, part.held, results[part.cell])  # type: ignore[arg-type]
            return results
        parts.append(_Part(edge, own, begun))
    return parts


def _try(edge: Edge, action: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R | CellFailure:
    return bounded(lambda _: action(*arguments, **named), edge.cell)


def _refuse_denied(edge: Edge, held: Held) -> list[Written]:
    """Return that a plan is refused where the server would not take it; nothing where it would."""
    denied = apply.denied(edge.plan.deeds, writer=held.database)
    refusals = tuple(refusal for _, refusal in find_unwritable(denied))
    return [Written(edge=edge, refusals=refusals)] if refusals else []


def _held_up(edges: Sequence[Edge], cell: str, found: list[Written] | CellFailure) -> Results:
    """Return that nothing is written in any database, as it cannot be in one."""
    message = f"it is written together with {cell} or not at all, and {cell} cannot be: {_reason(found)}"
    results: Results = {
        edge.cell.name: [Written(edge=edge, refusals=(Refusal(code="depends", rule="", message=message),))]
        for edge in edges
    }
    return {**results, cell: found}


def _reason(found: list[Written] | CellFailure) -> str:
    if isinstance(found, CellFailure):
        return found.error
    said = [refusal.message for each in found for refusal in each.refusals]
    return "; ".join([*said, *(problem for each in found for problem in each.problems)])


# -- Writing ---------------------------------------------------------------------------------------


def _write_all(request: Request, parts: Sequence[_Part]) -> tuple[Results, list[_Part]]:
    """Make and commit everything; return what became of it, and the parts that were committed."""
    for tried in range(TRIES):
        why, lost = "", False
        try:
            _make(parts)
            committed: dict[str, bool | None] = {part.cell: True for part in parts}
        except _NotMade as error:
            return _finish(request, parts, _stopped(parts, error)), []
        except (ReadFailed, Unreachable, WriteFailed) as error:
            why, lost = str(error), isinstance(error, (ReadFailed, TransactionLost, Unreachable))
            committed = {part.cell: _is_committed(part) for part in parts}
        if not lost or any(each is not False for each in committed.values()) or tried + 1 == TRIES:
            break
    secrets = request.topology.secrets
    written = {part.cell: _written(part, committed[part.cell], why, secrets) for part in parts}
    return _finish(request, parts, written), [part for part in parts if committed[part.cell]]


def _make(parts: Sequence[_Part]) -> None:
    """Make the first part's changes, then those of the rest, and commit in the opposite order."""
    if not parts:
        return
    first = parts[0]
    database, journal, plan = first.held.database, first.held.journal, first.edge.plan
    if first.edge.direction is Direction.UP:
        journal.takes_from(first.edge.child)
    with database.transaction():
        outcomes = apply.make_inside(
            list(plan.changes), writer=database, recorder=journal, targets=first.edge.targets
        )
        if any(outcome.fate is not Fate.APPLIED for outcome in outcomes):
            raise _NotMade(first, outcomes)
        _make(parts[1:])


def _is_committed(part: _Part) -> bool | None:
    """Say whether a part is in its database, by its journal; None where that cannot be found out."""
    changes = list(part.edge.plan.changes)

    def ask() -> bool:
        part.held.database.reconnect()
        return all(part.held.journal.recorded(changes))

    try:
        return holding.try_again(part.held.database, ask)
    except CellsyncError:
        return None


def _stopped(parts: Sequence[_Part], error: _NotMade) -> dict[str, Written]:
    """Return that nothing was made, as one database did not take a change."""
    at_fault = [outcome for outcome in error.outcomes if outcome.fate is not Fate.APPLIED]
    problems = [f"{name_change(each.change)}: {each.fate.value}: {each.message}" for each in at_fault]
    why = f"{error.part.cell} was not written: {'; '.join(problems)}"
    written = {part.cell: fail_edge(part.edge, why) for part in parts}
    written[error.part.cell] = Written(
        edge=error.part.edge,
        fates=Counter((each.change.rule, each.fate) for each in at_fault),
        problems=tuple(problems),
        unmade=tuple(
            Skipped(rule=each.change.rule, key=each.change.key, reason=problem)
            for each, problem in zip(at_fault, problems, strict=True)
        ),
    )
    return written


def _written(part: _Part, committed: bool | None, why: str, secrets: Secrets) -> Written:
    if committed is None:
        unknown = f"{why}; whether it was written is not known: cellsync cells list shows it"
        return fail_edge(part.edge, unknown)
    if not committed:
        return fail_edge(part.edge, why)
    changes = part.edge.plan.changes
    applied = bytes([True]) * len(changes)
    unlike = find_unlike(part.edge, part.held.database, changes, applied, secrets)
    return Written(
        edge=part.edge,
        fates=Counter((change.rule, Fate.APPLIED) for change in changes),
        problems=tuple(unlike),
        outcomes=number_outcomes(Fate.APPLIED, len(changes)),
    )


def _finish(request: Request, parts: Sequence[_Part], written: Mapping[str, Written]) -> Results:
    whole = all(
        each.fates and {fate for _, fate in each.fates} == {Fate.APPLIED} for each in written.values()
    )
    results: Results = {}
    for part in parts:
        own = replace(written[part.cell], notes=part.notes)
        made = finish_run(request, part.held, [own], whole=whole)
        results[part.cell] = made
    return results


# -- Taking back -----------------------------------------------------------------------------------


def _take_back(request: Request, part: _Part, results: Results) -> Written:
    """Undo what was committed in one database, for another one was not written."""
    reasons = [_reason(found) for cell, found in results.items() if cell != part.cell]
    why = "; ".join(filter(None, reasons))
    (made,) = results[part.cell]  # type: ignore[misc]
    run = replace(
        request.run,
        id=f"{request.run.id}-undo",
        verb="undo",
        reason=f"made with another database or not at all: {why}",
    )
    back = _try(part.edge, _undo, replace(request, run=run), request.run.id, part.edge.cell)
    if isinstance(back, Report) and _is_taken_back(back):
        taken = f"it was written and taken back by run {run.id}, as the other side was not written: {why}"
        return replace(fail_edge(part.edge, taken), notes=made.notes)
    error = back.error if isinstance(back, CellFailure) else "; ".join(_problems(back))
    alone = (
        f"it stands alone, for the other side was not written ({why}), and could not be taken back: {error}. "
        f"cellsync undo {request.run.id} takes it back"
    )
    return replace(made, problems=(*made.problems, alone))


def _undo(request: Request, run_id: str, cell: Cell) -> Report:
    return write(request, prepare_undo_in(request, run_id, cell.name))


def _is_taken_back(report: Report) -> bool:
    results = [cell for cell in report.cells if isinstance(cell, CellResult)]
    return bool(results) and not any(_problems(report)) and all(cell.counts.applied for cell in results)


def _problems(report: Report) -> list[str]:
    said = [cell.error for cell in report.cells if isinstance(cell, CellFailure)]
    for cell in report.cells:
        if isinstance(cell, CellResult):
            said += [*(refusal.message for refusal in cell.refusals), *cell.problems]
    return said
