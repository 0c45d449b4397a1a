"""Carry out what was prepared: lock, journal, apply and verify, one database at a time each.

The children are written concurrently, the parent after them. A repair and an undo differ only
in where their plans come from.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, islice
from typing import TypeVar

from cellsync import apply, db
from cellsync.errors import JournalUnavailable, Locked, ReadFailed, TransactionLost, Unreachable, WriteFailed
from cellsync.journal import Journal, prepare, runs
from cellsync.model import (
    OUTCOMES,
    Action,
    Cell,
    CellFailure,
    CellResult,
    Change,
    Counts,
    Direction,
    Fate,
    JournaledRun,
    Load,
    Plan,
    Refusal,
    Report,
    Secrets,
    Skipped,
    Status,
    TableDiff,
    TableResult,
    name_change,
)
from cellsync.run import holding
from cellsync.run.request import Edge, Prepared, Request, each_cell, executor, exit_code
from cellsync.run.upstream import DesiredSide, open_upstream
from cellsync.spool import Collector, kept, parts, without

LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of one edge's plan."""

    edge: Edge
    fates: Counter[tuple[str, Fate]] = field(default_factory=Counter)
    """(rule, fate) -> number of changes."""
    problems: Sequence[str] = ()
    unmade: Sequence[Skipped] = ()
    """The changes that were not made, but for those of refused rules."""
    refusals: tuple[Refusal, ...] = ()
    locked: bool = False
    notes: tuple[str, ...] = ()
    """What people should know, though nothing is wrong."""
    outcomes: bytes = b""
    """As those of a plan; empty where nothing was tried."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """One database under its lock, and the journal of this run in it."""

    database: db.Database
    lock: db.NamedLock
    journal: Journal
    schema: str


def write(request: Request, prepared: Prepared) -> Report:
    """Carry out the plans and return the report as it was found, with what became of it.

    Writes one transaction for every batch of changes, with its journal rows.
    """
    due = [edge for edge in prepared.edges if edge.plan.changes]
    by_cell: dict[str, list[Edge]] = {}
    for edge in due:
        by_cell.setdefault(edge.cell.name, []).append(edge)
    parent = request.topology.parent.name
    children = [edges[0].cell for name, edges in by_cell.items() if name != parent]
    if prepared.all_or_none and len(by_cell) > 1:
        from cellsync.run.joint_writer import write_together

        request.progress("writing")
        return report_written(request, prepared, write_together(request, due))
    results: dict[str, list[Written] | CellFailure] = {}
    with executor(request.jobs) as pool:
        request.progress("writing")
        for cells in (children, [request.topology.parent] if parent in by_cell else []):
            waiting = request.waiting("writing")
            results.update(
                each_cell(pool, lambda cell: _write(request, by_cell[cell.name]), cells, waiting=waiting)
            )
    return report_written(request, prepared, results)


def _write(request: Request, edges: Sequence[Edge]) -> list[Written]:
    """Write all that is due in one database, under one lock."""
    cell = edges[0].cell
    with ExitStack() as stack:
        held = hold_database(request, edges, stack)
        if isinstance(held, list):
            return held
        notes = begin_run(request, edges, held, stack)
        if isinstance(notes, list):
            return notes
        until = _Until(request, cell, undoing=any(edge.undoes for edge in edges))
        done = [_carry_out(edge, held.database, held.journal, request, until) for edge in edges]
        return finish_run(request, held, [replace(each, notes=notes) for each in done])


def hold_database(request: Request, edges: Sequence[Edge], stack: ExitStack) -> Held | list[Written]:
    """Take a database's lock and see to its journal; return why nothing is written where that cannot be."""
    cell = edges[0].cell
    database = stack.enter_context(db.connect(cell, request.timeouts))
    identity = database.identity()
    wrong = [edge for edge in edges if edge.plan.database != identity]
    if wrong:
        message = f"the plan is for {wrong[0].plan.database.schema} on another server than {cell.name} is now"
        return [refuse_edge(edge, "wrong-database", message) for edge in edges]
    lock = db.NamedLock(stack.enter_context(db.connect(cell, request.timeouts)), identity.schema)
    stack.callback(lock.release)

    def hold() -> Held:
        lock.acquire()
        database.wait_for_cluster()
        holding.try_again(database, lambda: prepare(database, cell=cell.name))
        journal = Journal(database, request.run, cell=cell.name, database=identity.schema)
        return Held(database=database, lock=lock, journal=journal, schema=identity.schema)

    return _or_refused(edges, database, identity.schema, hold)


def begin_run(
    request: Request, edges: Sequence[Edge], held: Held, stack: ExitStack
) -> tuple[str, ...] | list[Written]:
    """Record that the run begins; return what to say of runs that were cut off, or why nothing is written."""
    database, lock = held.database, held.lock
    begun = _or_refused(
        edges, database, held.schema, lambda: _begin(edges[0], database, lock, held.journal, request)
    )
    if isinstance(begun, list):
        return begun
    if database.is_clustered:
        stack.enter_context(holding.Heart(lock, schema=held.schema, run=request.run.id))
    return tuple(map(_note, begun))


def _or_refused(
    edges: Sequence[Edge], database: db.Database, schema: str, action: Callable[[], T]
) -> T | list[Written]:
    """Return what the action returns, or that the edges are not written: another run is, or no journal."""
    try:
        return action()
    except Locked as error:
        held = f"{error}{_holder(database, schema, edges[0].cell.name)}"
        return [
            Written(edge=edge, problems=(held,), unmade=_unmade(edge.plan.changes, held), locked=True)
            for edge in edges
        ]
    except JournalUnavailable as error:
        return [refuse_edge(edge, "journal", str(error)) for edge in edges]
    except TransactionLost:
        raise
    except WriteFailed as error:
        return [refuse_edge(edge, "journal", str(error)) for edge in edges]


def finish_run(
    request: Request, held: Held, written: Sequence[Written], *, whole: bool = True
) -> list[Written]:
    """Record the end of the run, and add why that could not be to what became of the edges.

    ``whole`` is False where the run is incomplete for what happened in another database.
    """
    unsaid = _finish(held.database, held.journal, written, whole=whole, at=request.clock())
    return [replace(each, problems=kept(chain(each.problems, unsaid))) for each in written]


def _begin(
    edge: Edge, database: db.Database, lock: db.NamedLock, journal: Journal, request: Request
) -> tuple[JournaledRun, ...]:
    """Record that the run begins; return the runs that were cut off here. Raises Locked, and WriteFailed."""

    def begin() -> tuple[JournaledRun, ...]:
        cut_off = journal.settle_cut_off(at=request.clock())
        journal.begin(undoes=edge.undoes)
        return cut_off

    if not database.is_clustered:
        return begin()
    schema = edge.plan.database.schema
    return holding.take_database(database, lock, schema=schema, run=request.run.id, begin=begin)


def _finish(
    database: db.Database, journal: Journal, written: Sequence[Written], *, whole: bool, at: datetime
) -> tuple[str, ...]:
    """Record the end of the run; return why that could not be, which takes nothing of it back."""
    clean = not any(each.problems or each.refusals for each in written)
    status = "done" if clean and whole else "incomplete"
    try:
        database.reconnect()
        holding.try_again(database, lambda: journal.finish(status=status, at=at))
    except (WriteFailed, Unreachable) as error:
        return (f"the end of the run could not be recorded, and history shows it as cut off: {error}",)
    return ()


def _holder(database: db.Database, schema: str, cell: str) -> str:
    """Return which run has begun here and not ended: the one that holds the lock."""
    running = next(
        (each.run for each in runs(database, database=schema, cell=cell) if not each.finished), None
    )
    if running is None:
        return ""
    return f"; run {running.id}, {running.verb} by {running.operator} on {running.host}"


def _note(cut_off: JournaledRun) -> str:
    run = cut_off.run
    return (
        f"run {run.id} ({run.verb} by {run.operator} on {run.host}) was cut off after "
        f"{cut_off.applied} changes to {cut_off.cells[0]}; they are complete and in the journal, and this "
        f"run went on from there"
    )


def refuse_edge(edge: Edge, code: str, message: str) -> Written:
    """Refuse a whole edge: no rule is at fault, and none can be waived."""
    return Written(edge=edge, refusals=(Refusal(code=code, rule="", message=message),))


class _Until:
    """Says when the writing of one cell is to end, and why."""

    def __init__(self, request: Request, cell: Cell, *, undoing: bool) -> None:
        self._request = request
        self._cell = cell
        # A run that is half taken back is worse than one that still stands.
        self._time = None if undoing else cell.budget.time
        self._begun = request.elapsed()
        self.why = ""

    def __call__(self) -> bool:
        """Say whether nothing more is to be begun; ``why`` is set then."""
        if self._request.stopping():
            self.why = "told to stop"
        elif self._time is not None:
            seconds = self._time.total_seconds()
            if self._request.elapsed() - self._begun >= seconds:
                self.why = f"{self._cell.name} was written for {seconds:g} s (budget: time)"
        return bool(self.why)


def _carry_out(
    edge: Edge, database: db.Database, journal: Journal, request: Request, until: _Until
) -> Written:
    try:
        denied = apply.denied(edge.plan.deeds, writer=database)
    except (ReadFailed, TransactionLost) as error:
        return fail_edge(edge, str(error))
    if denied and edge.undoes:
        # As above: all of it, or nothing.
        messages = "; ".join(chain.from_iterable(each.messages for each in denied.values()))
        if all(each.privilege for each in denied.values()):
            return refuse_edge(edge, "privilege", messages)
        return refuse_edge(edge, "not-writable", messages)
    refused = dict(find_unwritable(denied))
    with ExitStack() as stack:
        desired: DesiredSide | None = None
        if edge.desired is not None:
            try:
                desired = open_upstream(edge.desired, edge.plan.deeds, request, stack)
                refused = {**{refusal.rule: refusal for refusal in desired.refusals()}, **refused}
            except (ReadFailed, Unreachable) as error:
                return fail_edge(edge, f"what the changes were planned from could not be read again: {error}")
        return _make_changes(edge, database, journal, request, until, refused=refused, desired=desired)


def find_unwritable(denied: Mapping[str, apply.Denial]) -> Iterator[tuple[str, Refusal]]:
    """Yield the rules of which the server takes no change."""
    for rule, denial in denied.items():
        said = "; ".join(denial.messages)
        if denial.privilege:
            message = f"{said}; grant it, nothing was tried"
            yield rule, Refusal(code="privilege", rule=rule, message=message)
        else:
            message = f"{said}: the server takes no such change; see to table or rule, nothing was tried"
            yield rule, Refusal(code="not-writable", rule=rule, message=message)


def _make_changes(
    edge: Edge,
    database: db.Database,
    journal: Journal,
    request: Request,
    until: _Until,
    *,
    refused: Mapping[str, Refusal],
    desired: DesiredSide | None,
) -> Written:
    """Make the changes of all rules that are not ``refused``, nor refer to one that is."""
    refusals = tuple(_with_dependents(edge, refused))
    stopped = {refusal.rule for refusal in refusals}
    changes = edge.plan.changes
    if stopped:
        torn = {change.together for change in changes if change.together and change.rule in stopped}
        refusals = (*refusals, *_torn(changes, torn, stopped))
        changes = without(changes, lambda change: change.rule in stopped or change.together in torn)
    if edge.direction is Direction.UP and not edge.undoes:
        journal.takes_from(edge.child)
    # A repair was planned with a look at its cascades; what an undo removes may have got followers since.
    rules = {change.rule for change in changes} if edge.undoes else set()
    sparing = {rule for rule in rules if not {"cascade", f"cascade:{rule}"} & set(request.waived)}
    fates: Counter[tuple[str, Fate]] = Counter()
    applied, outcomes = bytearray(), bytearray()
    problems: Collector[str] = Collector()
    unmade: Collector[Skipped] = Collector()
    late: dict[str, Refusal] = {}
    with ExitStack() as stack:
        # On Galera all transactions of a run update one row: two connections would wait for each other.
        second = None if database.is_clustered else _second(edge, changes, journal, request, stack)
        for outcome in apply.execute(
            changes,
            writer=database,
            recorder=journal,
            targets=edge.targets,
            sparing=sparing,
            failures=None if edge.undoes else edge.cell.budget.failures,
            stopping=until,
            second=second,
            desired=desired,
            rules=edge.plan.rules,
            secrets=request.topology.secrets,
            cascaded=_find_cascaded(edge, request.waived),
        ):
            if isinstance(outcome, apply.Withheld):
                late.update(
                    {refusal.rule: refusal for refusal in outcome.refusals if refusal.rule not in late}
                )
                applied += bytes(outcome.rows)
                outcomes += bytes(outcome.rows)
                continue
            if isinstance(outcome, apply.Loaded):
                fates[outcome.load.sample.rule, Fate.APPLIED] += outcome.rows
                applied += bytes([True]) * outcome.rows
                outcomes += bytes([_NUMBERS[Fate.APPLIED]]) * outcome.rows
                continue
            fates[outcome.change.rule, outcome.fate] += 1
            applied.append(outcome.fate is Fate.APPLIED)
            outcomes.append(_NUMBERS[outcome.fate])
            if outcome.fate is not Fate.APPLIED:
                problems.append(f"{name_change(outcome.change)}: {outcome.fate.value}: {outcome.message}")
                unmade.extend(_unmade([outcome.change], f"{outcome.fate.value}: {outcome.message}"))
    if len(applied) < len(changes):
        unmade.extend(_unmade(islice(changes, len(applied), None), f"{until.why}, and it was not begun"))
        problems.append(f"{until.why}: {len(changes) - len(applied)} changes were not begun")
    if any(applied):
        problems.extend(find_unlike(edge, database, changes, applied, request.topology.secrets))
    refusals = (*refusals, *(_with_number(refusal, fates) for refusal in late.values()))
    if stopped:
        tried = iter(outcomes)
        untried = (change.rule in stopped or change.together in torn for change in edge.plan.changes)
        outcomes = bytearray(0 if each else next(tried, 0) for each in untried)
    return Written(
        edge=edge,
        fates=fates,
        problems=problems.kept(),
        unmade=unmade.kept(),
        refusals=refusals,
        outcomes=bytes(outcomes),
    )


def number_outcomes(fate: Fate, changes: int) -> bytes:
    """Return that so many changes had the same outcome, as a plan keeps it."""
    return bytes([_NUMBERS[fate]]) * changes


_NUMBERS = {fate: OUTCOMES.index(fate.value) for fate in Fate}


def _with_number(refusal: Refusal, fates: Mapping[tuple[str, Fate], int]) -> Refusal:
    """Say in a refusal that came in mid-write how many changes of its rule were made before."""
    made = fates.get((refusal.rule, Fate.APPLIED), 0)
    return (
        replace(refusal, message=f"{refusal.message}; {made} changes of it were made before")
        if made
        else refusal
    )


def _second(
    edge: Edge, changes: Sequence[Change], journal: Journal, request: Request, stack: ExitStack
) -> apply.Lane | None:
    """Return another way to the same database where rows can go two ways; None where it cannot be had."""
    if not any(isinstance(part, Load) and part.apart for part in parts(changes)):
        return None
    try:
        database = stack.enter_context(db.connect(edge.cell, request.timeouts))
        if database.identity() == edge.plan.database:  # what balances connections may lead to another server
            return apply.Lane(database, journal.through(database))
    except (Unreachable, ReadFailed) as error:
        LOG.debug("%s: no second connection: %s", edge.cell.name, error, extra={"cell": edge.cell.name})
    return None


def _unmade(changes: Iterable[Change], why: str) -> Sequence[Skipped]:
    return kept(Skipped(rule=change.rule, key=change.key, reason=why) for change in changes)


def find_unlike(
    edge: Edge,
    database: db.Database,
    changes: Sequence[Change],
    applied: Sequence[int],
    secrets: Secrets,
) -> Iterator[str]:
    """Yield what does not read as it was written."""
    try:
        with database.snapshot():
            yield from apply.verify_all(
                changes, applied, reader=database, targets=edge.targets, secrets=secrets
            )
    except ReadFailed as error:
        yield f"what was written could not be read again: {error}"


def fail_edge(edge: Edge, cause: str) -> Written:
    """Return that none of an edge's changes was made, and why."""
    failed: Counter[tuple[str, Fate]] = Counter()
    for deed, number in edge.plan.deeds.items():
        failed[deed.rule, Fate.FAILED] += number
    unmade = _unmade(edge.plan.changes, cause)
    return Written(edge=edge, fates=failed, problems=(cause,), unmade=unmade)


def _find_cascaded(edge: Edge, waived: Collection[str]) -> frozenset[str]:
    """Return the tables on whose rows foreign keys may act because somebody waived that."""
    tables = {table.name: table for table in edge.plan.tables.values()}
    deeds = edge.plan.deeds if waived else ()
    todo = [deed.table for deed in deeds if {"cascade", f"cascade:{deed.rule}"} & {*waived}]
    found: set[str] = set()
    for name in todo:
        acting = tables[name].cascades if name in tables else ()
        fresh = {key.table for key in acting} - found
        found |= fresh
        todo += fresh
    return frozenset(found)


def _with_dependents(edge: Edge, refused: Mapping[str, Refusal]) -> Iterator[Refusal]:
    """Yield the refusals of rules that the plan writes, and of those whose rows would refer to theirs.

    Rows to which those of a refused rule may refer are not removed either.
    """
    removing = {deed.rule for deed in edge.plan.deeds if deed.action is Action.DELETE}
    for rule in dict.fromkeys(deed.rule for deed in edge.plan.deeds):
        causes = sorted(apply.reached(rule, edge.targets) & refused.keys())
        referring = sorted(
            other
            for other in refused
            if rule in removing and other in removing and rule in apply.reached(other, edge.targets)
        )
        if rule in refused:
            yield refused[rule]
        elif causes:
            message = f"refers to rows of {', '.join(causes)}, which was refused"
            yield Refusal(code="depends", rule=rule, message=message)
        elif referring:
            message = f"rows of {', '.join(referring)} may refer to its rows, and that rule was refused"
            yield Refusal(code="depends", rule=rule, message=message)


def _torn(changes: Iterable[Change], torn: Collection[str], stopped: Collection[str]) -> Iterator[Refusal]:
    """Yield the rules of which rows are not made, because others of one transaction with them are not."""
    rules = {change.rule for change in changes if change.together in torn} - {*stopped}
    for rule in sorted(rules):
        message = f"rows of it are made together with rows of {', '.join(sorted(stopped))}, which was refused"
        yield Refusal(code="depends", rule=rule, message=message)


# -- The report ---------------------------------------------------------------------------------


def report_written(
    request: Request, prepared: Prepared, results: Mapping[str, list[Written] | CellFailure]
) -> Report:
    """Return the report that was prepared, with what became of its plans."""
    report = prepared.report
    cells = [_cell(cell, prepared, results) for cell in report.cells]
    remaining = any(_left(cell) for cell in cells if isinstance(cell, CellResult))
    return replace(
        report,
        finished=request.clock(),
        cells=tuple(cells),
        exit_code=exit_code(cells, remaining=remaining, refusals=True),
    )


def _cell(
    cell: CellResult | CellFailure,
    prepared: Prepared,
    results: Mapping[str, list[Written] | CellFailure],
) -> CellResult | CellFailure:
    if isinstance(cell, CellFailure):
        return cell
    written: list[Written] = []
    for edge in prepared.edges:
        if edge.child == cell.cell and edge.plan.changes:
            written.append(_written(edge, results[edge.cell.name]))
    notes = dict.fromkeys(note for each in written for note in each.notes)
    fates: Counter[Fate] = Counter()
    for each in written:
        for (_, fate), number in each.fates.items():
            fates[fate] += number
    refusals = (*cell.refusals, *(refusal for each in written for refusal in each.refusals))
    refused = {refusal.rule for refusal in refusals}
    whole = [each for each in written if any(not refusal.rule for refusal in each.refusals)]
    refused |= {deed.rule for each in whole for deed in each.edge.plan.deeds}
    result = replace(
        cell,
        counts=Counts(
            planned=cell.counts.planned,
            applied=fates[Fate.APPLIED],
            conflicts=cell.counts.conflicts + fates[Fate.CONFLICT],
            failed=fates[Fate.FAILED],
        ),
        refusals=refusals,
        problems=kept(chain(cell.problems, *(each.problems for each in written))),
        unmade=kept(chain(cell.unmade, *(each.unmade for each in written))),
        locked=any(each.locked for each in written),
        notices=(*(cell.notices if Fate.APPLIED in fates else ()), *notes),
        plans=tuple(_with_outcomes(plan, written) for plan in cell.plans),
        tables=tuple(_table(table, written, refused) for table in cell.tables),
    )
    return replace(result, status=_status(result))


def _with_outcomes(plan: Plan, written: Sequence[Written]) -> Plan:
    """Return a plan with what became of each of its changes; those that were not begun were not made."""
    if not plan.changes:
        return plan
    every = (each.outcomes for each in written if each.edge.cell.name == plan.written)
    return replace(plan, outcomes=next(every, b"").ljust(len(plan.changes), b"\0"))


def _written(edge: Edge, result: list[Written] | CellFailure) -> Written:
    if isinstance(result, CellFailure):
        return fail_edge(edge, result.error)
    return next(each for each in result if each.edge is edge)


def _table(table: TableResult, written: Sequence[Written], refused: set[str]) -> TableResult:
    fates = {fate for each in written for rule, fate in each.fates if rule == table.rule}
    if not isinstance(table, TableDiff) or table.rule in refused:
        return replace(table, status=Status.REFUSED) if table.rule in refused else table
    # It is already where a plan file asks for what is not due any more.
    if fates & {Fate.CONFLICT, Fate.FAILED} or table.status is Status.INCOMPLETE:
        return replace(table, status=Status.INCOMPLETE)
    return replace(table, status=Status.REPAIRED) if Fate.APPLIED in fates else table


def _status(cell: CellResult) -> Status:
    """Return how a cell stands after a repair: repaired, when all that could be written was."""
    unjudged = any(not isinstance(table, TableDiff) or table.unknown for table in cell.tables)
    if unjudged or cell.counts.conflicts or cell.counts.failed or cell.problems:
        return Status.INCOMPLETE
    if cell.refusals:
        return Status.REFUSED
    return Status.REPAIRED if cell.counts.applied else cell.status


def _left(cell: CellResult) -> bool:
    """Say whether something remains that counts: what is only reported, or was not written."""
    stuck = cell.counts.planned != cell.counts.applied
    reported = any(
        any(not finding.accepted for finding in table.findings) or table.does(Action.REPORT)
        for table in cell.tables
        if isinstance(table, TableDiff)
    )
    return stuck or bool(cell.skipped) or reported
