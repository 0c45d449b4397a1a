"""`cells check`: does every database and every host of every broker let us in, and take messages?

Reads only, but for what ``Isolation`` asks: then how often each broker failed in a row is kept from
check to check, and children are taken out of the parent's table and brought back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cellsync import broker as brokers
from cellsync import db, diff, journal
from cellsync.errors import CellsyncError, ExitCode
from cellsync.journal import streaks
from cellsync.journal.streaks import Streak
from cellsync.model import (
    Cell,
    CellFailure,
    CellResult,
    CellRow,
    CheckedCell,
    Decision,
    HostStatus,
    Report,
    Role,
)
from cellsync.plan import registering as plans
from cellsync.run import registering
from cellsync.run.probing import ask_brokers, ask_databases
from cellsync.run.request import Prepared, Request
from cellsync.run.writing import write


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """When checks in a row make a child go, and come back."""

    after: int | None = None
    """Failed checks in a row before a child is isolated; None isolates none."""
    silent_after: int | None = None
    """Checks in a row with a living broker where nobody takes messages, before a child is isolated."""
    restore_after: int | None = None
    """Answered checks in a row before a child that a check isolated comes back; None brings none back."""
    most: str | None = None
    """How many children may be isolated at once."""
    rehearse: bool = False
    """True to say what would be done, and to write nothing."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found and did."""

    cells: tuple[CheckedCell, ...]
    """The parent first, then the children in scope, in configured order."""
    written: tuple[Report, ...] = field(default=())
    """What was isolated and restored, each as a run's report."""
    error: str = ""
    """Why nothing could be decided, where it was to be."""

    @property
    def exit_code(self) -> ExitCode:
        """Return IN_STEP when everything answered, else INCOMPLETE."""
        codes = [report.exit_code for report in self.written if report.exit_code is not ExitCode.DIFFERENCES]
        sound = all(cell.sound for cell in self.cells) and not self.error
        return max([ExitCode.IN_STEP if sound else ExitCode.INCOMPLETE, *codes])


def check(request: Request, *, timeout: float, isolation: Isolation | None = None) -> Check:
    """Probe the parent and the children in scope, databases first, for they say where brokers are."""
    topology = request.topology
    cells = [topology.parent, *request.children]
    request.progress("asking databases")
    answers = ask_databases(cells, timeouts=request.timeouts, clock=time.monotonic, timeout=timeout)
    tables = {name: rows for name, (_, rows) in answers.items()}
    releases = {name: probe.release for name, (probe, _) in answers.items()}
    register = diff.Register(topology, tables, releases)
    known = register.brokers
    request.progress("asking brokers")
    asked = {cell.name: known[cell.name] for cell in cells if cell.name in known}
    probes = ask_brokers(asked, timeout=timeout, queues=brokers.NOVA_CELLS)
    above = tables[topology.parent.name]
    # A database that does not answer says nothing of Nova: that it does not is reported by itself.
    answered = [rows for probe, rows in answers.values() if probe.status is HostStatus.OK]
    has_register = any(not isinstance(rows, str) or "has no table" not in rows for rows in answered)
    found = tuple(
        CheckedCell(
            cell=cell.name,
            database=answers[cell.name][0],
            broker=probes.get(cell.name, ()),
            half_registered="" if cell.role is Role.PARENT else register.half_registered(cell),
            awaited=_awaited(request, cell, tables),
            unknown=""
            if cell.name in known
            else _unknown(request, cell.name, tables, has_register=has_register),
            isolated=cell.role is Role.CHILD
            and not isinstance(above, str)
            and diff.is_isolated(above, cell.name),
        )
        for cell in cells
    )
    if isolation is None:
        return Check(cells=found)
    if isinstance(above, str):
        return Check(cells=found, error=f"nobody could be isolated or restored: {above}")
    return _decide(request, found, above, isolation, timeout)


def _awaited(request: Request, cell: Cell, tables: diff.Tables) -> bool:
    """Say whether a cell must have a nova-cells that takes messages: it is in the register of cells v1."""
    parent = request.topology.parent
    above = tables[parent.name]
    if isinstance(above, str):
        own = tables[cell.name]
        return cell is not parent and not isinstance(own, str) and bool(diff.live(own, parent.name))
    if cell is parent:
        return any(row.live and not row.is_parent for row in above)
    return bool(diff.live(above, cell.name)) or diff.is_isolated(above, cell.name)


def _unknown(request: Request, name: str, tables: diff.Tables, *, has_register: bool) -> str:
    """Return why the broker of a cell is not known; "" where the cells have none (no table of cells)."""
    cell = request.topology.cell(name)
    if request.topology.mapped is not None:
        return cell.broker.fault if cell is not None and cell.broker is not None else ""
    if not has_register:
        return ""
    parent = request.topology.parent.name
    sources = [rows for cell, rows in tables.items() if (cell == parent) is (name != parent)]
    unread = next((rows for rows in sources if isinstance(rows, str)), "")
    why = unread or "no row of the table cells says where it is (cellsync cells list)"
    return f"its broker is not known: cellsync.yaml names none, and {why}"


# -- Isolating and restoring ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Decided:
    """What is to be done about one child."""

    streak: Streak
    decision: Decision
    said: str


def _decide(
    request: Request,
    found: Sequence[CheckedCell],
    above: Sequence[CellRow],
    isolation: Isolation,
    timeout: float,
) -> Check:
    try:
        before, schema = _load(request, isolation)
    except CellsyncError as error:
        return Check(cells=tuple(found), error=f"how often brokers failed is not known: {error}")
    now = request.clock()
    decided: dict[str, _Decided] = {}
    for cell in found[1:]:
        streak = before.get(cell.cell, Streak(cell=cell.cell))
        if cell.broker:
            decided[cell.cell] = _judge(cell, streak, above, isolation, request)
    written: list[Report] = []
    for decision in (Decision.ISOLATED, Decision.RESTORED):
        names = [name for name, each in decided.items() if each.decision is decision]
        if not names:
            continue
        prepared = _prepare(request, decision, names, isolation, timeout)
        if isolation.rehearse:
            written.append(prepared.report)
            continue
        report = write(_as(request, decision), prepared)
        written.append(report)
        after, _ = registering.look(request, [request.topology.parent])
        rows = [row for each in after.values() for row in each.rows]
        for name in names:
            decided[name] = _came_of(decided[name], name, report, rows, now)
            seen = f" (run {report.run.id}); {plans.say_when_seen(request.topology.parent)}"
            if decided[name].decision is decision:
                decided[name] = replace(decided[name], said=decided[name].said + seen)
    streaks_now = [each.streak for each in decided.values()]
    unsaved = "" if isolation.rehearse else _save(request, schema, streaks_now)
    cells = tuple(_with(cell, decided.get(cell.cell), rehearsed=isolation.rehearse) for cell in found)
    return Check(cells=cells, written=tuple(written), error=unsaved)


def _judge(
    cell: CheckedCell, before: Streak, above: Sequence[CellRow], isolation: Isolation, request: Request
) -> _Decided:
    there = [queue for queue in cell.queues if queue.consumers is not None]
    # Where none is there, they may have other names (rpc_driver_queue_base), unless they were seen before.
    sure = bool(there) or before.heard
    silent = bool(cell.silent)
    streak = before.seen(
        down=cell.broker_down, silent=silent and sure, heard=bool(there) and not silent and cell.awaited
    )
    name, now = cell.cell, request.clock()
    gone = diff.last_removed(above, name)
    if not cell.isolated:
        streak = streak.returned()
        registered = any(row.live and row.name == name for row in above)
        if cell.broker_down:
            number, most = streak.failed, isolation.after
            count = f"{name}: its broker failed {_times(number)} in a row"
        else:
            number, most = streak.silent if silent else 0, isolation.silent_after
            count = f"{name}: nobody took messages at its broker {_times(number)} in a row"
        if silent and not sure and registered and most is not None:
            unsure = "no queue of nova-cells was ever seen at its broker, and it is not isolated for that"
            return _Decided(streak, Decision.NONE, f"{name}: {unsure}")
        if not number or most is None or not registered:
            return _Decided(streak, Decision.NONE, "")
        if number < most:
            return _Decided(streak, Decision.COUNTING, f"{count}; isolated at {most}")
        return _Decided(streak, Decision.ISOLATED, f"{count}: isolated")
    by_us = gone is not None and streak.isolated_row == gone.id
    if cell.broker_down or silent or isolation.restore_after is None or not by_us:
        return _Decided(streak, Decision.NONE, "")
    needed = streak.needed(isolation.restore_after, now)
    count = f"{name}: its broker answered {_times(streak.answered)} in a row"
    if streak.answered >= needed:
        return _Decided(streak, Decision.RESTORED, f"{count}: restored")
    if needed > isolation.restore_after:
        often = sum(now - each <= streaks.REMEMBERED for each in streak.isolations)
        return _Decided(
            streak,
            Decision.DAMPED,
            f"{count}; it went {_times(often)} within an hour, so it comes back at {needed}",
        )
    return _Decided(streak, Decision.COUNTING, f"{count}; restored at {needed}")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _prepare(
    request: Request, decision: Decision, names: Sequence[str], isolation: Isolation, timeout: float
) -> Prepared:
    if decision is Decision.ISOLATED:
        return registering.isolate(_as(request, decision), names, most=isolation.most)
    return registering.restore(_as(request, decision), names, timeout=timeout)


def _as(request: Request, decision: Decision) -> Request:
    """Return the request under the name by which its run is journaled."""
    verb = "isolate" if decision is Decision.ISOLATED else "restore"
    run = replace(
        request.run, id=f"{request.run.id}-{verb}", verb=f"cells {verb}", reason="decided by cells check"
    )
    return replace(request, run=run)


def _came_of(
    decided: _Decided, name: str, report: Report, rows: Sequence[CellRow], now: datetime
) -> _Decided:
    """Return a decision and its streak by what stands in the parent's table after the writing."""
    gone = diff.last_removed(rows, name)
    isolated = diff.is_isolated(rows, name)
    if decided.decision is Decision.ISOLATED and isolated and gone is not None:
        return replace(decided, streak=decided.streak.isolated(gone.id, now))
    if decided.decision is Decision.RESTORED and rows and not isolated:
        return replace(decided, streak=decided.streak.returned())
    count = decided.said.rpartition(":")[0]
    failed = f"{count}: not {decided.decision.value}: {_failure(report)}"
    return _Decided(decided.streak, Decision.REFUSED, failed)


def _failure(report: Report) -> str:
    """Return why a run did not do what it was to do, or ""."""
    said = []
    for cell in report.cells:
        if isinstance(cell, CellFailure):
            said.append(cell.error)
        elif isinstance(cell, CellResult):
            said += [refusal.message for refusal in cell.refusals] + list(cell.problems)
    return "; ".join(said)


def _with(cell: CheckedCell, decided: _Decided | None, *, rehearsed: bool) -> CheckedCell:
    if decided is None:
        return cell
    if rehearsed:
        return replace(cell, decision=decided.decision, said=decided.said and f"{decided.said} (dry run)")
    isolated = {Decision.ISOLATED: True, Decision.RESTORED: False}.get(decided.decision, cell.isolated)
    return replace(cell, decision=decided.decision, said=decided.said, isolated=isolated)


def _load(request: Request, isolation: Isolation) -> tuple[Mapping[str, Streak], str]:
    parent = request.topology.parent
    with db.connect(parent, request.timeouts) as database:
        name = database.identity().schema
        if not isolation.rehearse:
            journal.prepare(database, cell=parent.name)
            streaks.make(database)
        elif not database.has_table("streaks", schema=journal.SCHEMA):
            return {}, name
        return streaks.load(database, database=name), name


def _save(request: Request, schema: str, made: Sequence[Streak]) -> str:
    """Keep the streaks for the next check; return why that could not be, or ""."""
    try:
        with db.connect(request.topology.parent, request.timeouts) as database, database.transaction():
            streaks.save(database, made, database=schema, at=request.clock())
    except CellsyncError as error:
        return f"how often brokers failed could not be kept: {error}"
    return ""
