"""Look back: the runs that the journals know, and the plan that takes one of them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cellsync import db, driftlog, journal, plan
from cellsync.errors import DriftLogUnavailable, ExitCode, UsageError
from cellsync.model import (
    Action,
    Cell,
    CellFailure,
    CellResult,
    DatabaseIdentity,
    Direction,
    Health,
    Identity,
    JournaledChange,
    JournaledRun,
    Plan,
    Repair,
    Repeated,
    Report,
    Role,
    Rule,
    Sighting,
    Status,
    Table,
    Triage,
    Value,
)
from cellsync.plan import registering
from cellsync.report import words
from cellsync.run import holding, look, triaging
from cellsync.run.request import Edge, Prepared, Request, each_cell, executor, exit_code, with_plans


@dataclass(frozen=True, kw_only=True)
class History:
    """The runs of all journals, newest first, and the cells whose journal could not be read."""

    runs: tuple[JournaledRun, ...]
    failures: tuple[CellFailure, ...]
    unseen: tuple[str, ...] = ()
    """The cells whose journal, if there is one, this login may not see: their runs are not known."""

    @property
    def exit_code(self) -> ExitCode:
        """Return IN_STEP, or INCOMPLETE when a journal could not be read."""
        return ExitCode.INCOMPLETE if self.failures else ExitCode.IN_STEP


@dataclass(frozen=True, kw_only=True)
class Course:
    """What happened in a time: the runs that wrote, and what drifted."""

    history: History
    triage: Triage

    @property
    def exit_code(self) -> ExitCode:
        """Return IN_STEP, or INCOMPLETE when a journal or the drift log could not be read."""
        return ExitCode.INCOMPLETE if self.triage.unread else self.history.exit_code


@dataclass(frozen=True, kw_only=True)
class Fights:
    """The rows that several repairs wrote, the most often written first, and what is not known of them."""

    rows: tuple[Repeated, ...]
    failures: tuple[CellFailure, ...]
    unseen: tuple[str, ...]
    """As in History."""


@dataclass(frozen=True, kw_only=True)
class _Past:
    """What the journal of one database says of it."""

    identity: DatabaseIdentity
    unseen: bool
    health: Health
    version: Value
    """The schema version, for the gates of notices; None when there is none."""
    runs: tuple[JournaledRun, ...]
    changes: tuple[JournaledChange, ...]
    tables: Mapping[str, Table]
    """The tables of those changes, as they are now."""


def history(request: Request, run_id: str | None = None) -> History:
    """Return the runs that the journals of the parent and of all children know. Reads only.

    With ``run_id`` only that one. Raises UsageError when no journal knows it and all were read.
    """
    past, failures = _read(request, run_id)
    runs = journal.merged(run for each in past.values() for run in each.runs)
    chosen = tuple(each for each in runs if run_id in (None, each.run.id))
    unseen = _unseen(past)
    if run_id is not None and not chosen and not failures:
        raise _unknown(run_id, unseen)
    return History(runs=chosen, failures=tuple(failures.values()), unseen=unseen)


def course(request: Request, *, since: datetime, also: Sequence[Sighting] = ()) -> Course:
    """Return the runs and the drift since a time, from the journals and from the drift log.

    Reads only. ``also`` is what the log does not know yet. A log that cannot be read is in the result
    as such, as a journal is.
    """
    past = history(request)
    reading, unread = driftlog.Reading(), ""
    if request.drift_log is not None:
        try:
            reading = driftlog.read(request.drift_log)
        except DriftLogUnavailable as error:
            unread = str(error)
    keys = triaging.named(reading.sightings, since)
    mine = [each for each in reading.sightings if each.topology == request.topology.parent.name]
    made = triaging.triage(
        [*(each for each in mine if each.cells), *also],  # a check of the cells compared none
        _repairs(request, since, keys),
        since=since,
        until=request.clock(),
        parent=request.topology.parent.name,
    )
    runs = tuple(each for each in past.runs if each.finished is None or each.finished >= since)
    return Course(history=replace(past, runs=runs), triage=replace(made, torn=reading.torn, unread=unread))


def _repairs(request: Request, since: datetime, keys: Collection[str]) -> Iterator[Repair]:
    """Yield what repairs wrote; a journal that cannot be read is named by ``history``."""

    def task(cell: Cell) -> tuple[Repair, ...]:
        with db.connect(cell, request.timeouts) as database:
            schema = database.identity().schema
            return journal.repairs(database, database=schema, cell=cell.name, since=since, keys=keys)

    with executor(request.jobs) as pool:
        results = each_cell(pool, task, [request.topology.parent, *request.topology.children])
    for each in results.values():
        yield from each if not isinstance(each, CellFailure) else ()


def changes(request: Request, run_id: str) -> Mapping[str, tuple[JournaledChange, ...]]:
    """Return the changes of one run, by the cell that was written."""
    past, _ = _read(request, run_id)
    return {name: each.changes for name, each in past.items() if each.changes}


def made_by(
    request: Request, run_id: str, written: Collection[str]
) -> tuple[dict[str, Plan], dict[str, CellFailure]]:
    """Return what a run made in each of these cells, as plans: whole rows, in the order of the writing.

    Beside them the cells whose journal could not be read. Reads only.
    """
    past, failures = _read(request, run_id, only=written)
    plans = {
        name: Plan(
            child=name,
            written=name,
            database=each.identity,
            changes=tuple(made.change for made in each.changes),
            tables=each.tables,
            rules=_rules(request),
            notices=tuple(
                _list_notices(
                    request, _cell(request, name), each, {made.change.rule for made in each.changes}
                )
            ),
        )
        for name, each in past.items()
        if each.changes
    }
    return plans, failures


def repeated(request: Request, *, since: timedelta, times: int) -> Fights:
    """Return the rows that so many repairs or more wrote, of all cells. Reads only."""
    before = request.clock() - since

    def task(cell: Cell) -> tuple[Repeated, ...] | None:
        with db.connect(cell, request.timeouts) as database:
            if journal.unseen(database):
                return None
            schema = database.identity().schema
            return journal.repeated(database, database=schema, cell=cell.name, since=before, times=times)

    cells = [request.topology.parent, *request.topology.children]
    with executor(request.jobs) as pool:
        results = each_cell(pool, task, cells)
    rows = [row for each in results.values() if isinstance(each, tuple) for row in each]
    return Fights(
        rows=tuple(sorted(rows, key=lambda row: -row.runs)),
        failures=tuple(each for each in results.values() if isinstance(each, CellFailure)),
        unseen=tuple(name for name, each in results.items() if each is None),
    )


def find_logins(request: Request) -> tuple[dict[str, list[str]], tuple[CellFailure, ...]]:
    """Return the logins of this configuration, each with its cells, and the cells that could not be asked.

    A login is the account that the server takes it for, as GRANT spells it.
    """

    def task(cell: Cell) -> str:
        with db.connect(cell, request.timeouts) as database:
            return journal.name_login(database)

    with executor(request.jobs) as pool:
        results = each_cell(pool, task, [request.topology.parent, *request.topology.children])
    logins: dict[str, list[str]] = {}
    for name, each in results.items():
        if isinstance(each, str):
            logins.setdefault(each, []).append(name)
    return logins, tuple(each for each in results.values() if isinstance(each, CellFailure))


def prune(request: Request, *, keep: timedelta) -> Mapping[str, int | CellFailure | None]:
    """Forget the runs that started longer ago than ``keep``, and say how many for each cell.

    None for a cell whose journal, if there is one, this login may not see. Writes to every journal.
    Which rows cellsync pushed is not forgotten; runs that were forgotten can no longer be taken back.
    """
    before = request.clock() - keep

    def task(cell: Cell) -> int | None:
        with db.connect(cell, request.timeouts) as database:
            if journal.unseen(database):
                return None
            schema = database.identity().schema
            return holding.try_again(
                database, lambda: journal.prune(database, database=schema, before=before)
            )

    cells = [request.topology.parent, *request.topology.children]
    with executor(request.jobs) as pool:
        return each_cell(pool, task, cells)


def prepare_undo(request: Request, run_id: str) -> Prepared:
    """Plan the inverse of a run, on every database that it wrote.

    Raises UsageError when no journal knows the run, or when it was taken back already. A cell
    that cannot be reached is in the report as such: the others are undone all the same. A note
    names those whose journal this login may not see.
    """
    past, failures = _read(request, run_id)
    runs = journal.merged(run for each in past.values() for run in each.runs)
    unseen = _unseen(past)
    undone_by = _check(run_id, runs, unseen, complete=not failures)
    for earlier in undone_by:
        past = _without(past, _read(request, earlier)[0])
    edges = tuple(_edge(request, name, each, run_id) for name, each in past.items() if each.changes)
    if undone_by and not edges and not failures:
        raise UsageError(
            f"run {run_id} was taken back already, by {', '.join(undone_by)}: undo that run to have it again"
        )
    cells: list[CellResult | CellFailure] = [*failures.values(), *(_planned(edge) for edge in edges)]
    report = Report(
        run=request.run,
        finished=request.clock(),
        cells=tuple(cells),
        exit_code=exit_code(cells, remaining=False, refusals=True),
        notes=(words.unseen(unseen),) if unseen else (),
        secrets=request.topology.secrets,
    )
    paired = any(each.run.id == run_id and each.run.verb in _PAIRED for each in runs)
    return Prepared(report=report, edges=edges, all_or_none=paired)


_PAIRED = ("cells create", "cells delete")
"""What these wrote in two databases is taken back in both, or in none."""


def prepare_undo_in(request: Request, run_id: str, cell: str) -> Prepared:
    """Plan the inverse of what a run made in one cell, where it had to be made in others too, and was not.

    Raises UsageError where its journal has no changes of the run.
    """
    past, failures = _read(request, run_id, only=[cell])
    edges = tuple(_edge(request, name, each, run_id) for name, each in past.items() if each.changes)
    if not edges and not failures:
        raise _unknown(run_id, _unseen(past))
    cells: list[CellResult | CellFailure] = [*failures.values(), *(_planned(edge) for edge in edges)]
    code = exit_code(cells, remaining=False, refusals=True)
    report = Report(run=request.run, finished=request.clock(), cells=tuple(cells), exit_code=code)
    return Prepared(report=report, edges=edges)


def _read(
    request: Request, run_id: str | None, *, only: Collection[str] | None = None
) -> tuple[dict[str, _Past], dict[str, CellFailure]]:
    def task(cell: Cell) -> _Past:
        with db.connect(cell, request.timeouts) as database:
            identity = database.identity()
            about = {"database": identity.schema, "cell": cell.name}
            made = journal.changes(database, run_id, **about) if run_id else ()
            found = journal.runs(database, **about)
            return _Past(
                identity=identity,
                unseen=journal.unseen(database),
                health=database.health(),
                version=look.read_version(database) if made else None,
                runs=found,
                changes=made,
                tables=database.tables(journal.written(made)) if made else {},
            )

    every = [request.topology.parent, *request.topology.children]
    cells = [cell for cell in every if only is None or cell.name in only]
    with executor(request.jobs) as pool:
        results = each_cell(pool, task, cells)
    failures = {name: each for name, each in results.items() if isinstance(each, CellFailure)}
    return {name: each for name, each in results.items() if isinstance(each, _Past)}, failures


def _unseen(past: Mapping[str, _Past]) -> tuple[str, ...]:
    return tuple(name for name, each in past.items() if each.unseen)


def _unknown(run_id: str, unseen: Sequence[str]) -> UsageError:
    if unseen:
        return UsageError(f"no journal that is seen knows a run {run_id}; {words.unseen(unseen)}")
    return UsageError(f"no journal knows a run {run_id}: `cellsync history` lists the runs")


def _check(
    run_id: str, runs: Iterable[JournaledRun], unseen: Sequence[str], *, complete: bool
) -> tuple[str, ...]:
    """Return the runs that took this one back before, in part or as a whole."""
    known = next((each for each in runs if each.run.id == run_id), None)
    if known is None and complete:
        raise _unknown(run_id, unseen)
    return known.undone_by if known else ()


def _without(past: dict[str, _Past], undone: Mapping[str, _Past]) -> dict[str, _Past]:
    """Leave out what an earlier undo has taken back: it may have been cut off, or have met conflicts."""
    left = {}
    for name, each in past.items():
        done = Counter(map(_inverted, undone[name].changes)) if name in undone else Counter()
        kept = []
        for made in reversed(each.changes):
            change = made.change
            mark = (change.table, change.action, change.identity)
            if done[mark]:
                done[mark] -= 1
            else:
                kept.append(made)
        left[name] = replace(each, changes=tuple(reversed(kept)))
    return left


def _inverted(made: JournaledChange) -> tuple[str, Action, Identity]:
    back = made.change.inverse()
    return back.table, back.action, back.identity


def _cell(request: Request, name: str) -> Cell:
    cell = request.topology.cell(name)
    assert cell is not None, name
    return cell


def _edge(request: Request, name: str, past: _Past, run_id: str) -> Edge:
    cell = _cell(request, name)
    changes = tuple(journal.inverses(past.changes))
    rules = dict.fromkeys(change.rule for change in changes)
    refusals = tuple(plan.unwritable(past.health, name, list(rules), request.waived))
    return Edge(
        cell=cell,
        child=name,
        direction=Direction.UP if cell.role is Role.PARENT else Direction.DOWN,
        plan=Plan(
            child=name,
            written=name,
            database=past.identity,
            changes=() if refusals else changes,
            refusals=refusals,
            tables=past.tables,
            rules=_rules(request),
            notices=() if refusals else tuple(_list_notices(request, cell, past, rules)),
        ),
        undoes=run_id,
    )


def _list_notices(request: Request, cell: Cell, past: _Past, written: Collection[str]) -> Iterator[str]:
    """Yield what people must do after these rules, as far as they are still known, have written in a cell."""
    parent = request.topology.parent.name
    child = "its children" if cell.role is Role.PARENT else cell.name
    rules = [rule for rule in (*request.ruleset.rules, *request.unused) if rule.id in written]
    yield from plan.list_notices(rules, {"parent": parent, "child": child}, past.version)
    if registering.RULE in written:
        yield registering.say_when_seen(cell)


def _rules(request: Request) -> dict[str, Rule]:
    return {rule.id: rule for rule in request.ruleset.rules}


def _planned(edge: Edge) -> CellResult:
    status = Status.REFUSED if edge.plan.refusals else Status.DIFFERS
    return with_plans(CellResult(cell=edge.cell.name, status=status, tables=()), [edge.plan])
