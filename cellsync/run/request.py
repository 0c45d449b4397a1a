"""What a verb is asked to do, and what one stage of a run hands to the next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from cellsync.db import Timeouts
from cellsync.diff import Owners
from cellsync.errors import CellsyncError, ExitCode, Unreachable
from cellsync.model import (
    Cell,
    CellFailure,
    CellResult,
    Counts,
    DatabaseIdentity,
    Direction,
    Plan,
    Projection,
    Report,
    Rule,
    RuleSet,
    Run,
    Status,
    Table,
    TableFailure,
    Topology,
)
from cellsync.spool import kept

LOG = logging.getLogger(__name__)

R = TypeVar("R")

PATIENCE = 2.0
"""Seconds after which, again and again, it is told which cells the others wait for."""

FEW_NAMES = 3
"""So many of them are named."""

Waiting = Callable[[Sequence[str]], None]
"""Is told the names of the cells that something is still being done in."""


def utc_now() -> datetime:
    """Return the time of this machine's clock, in UTC."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a verb: the topology and rules, the scope, and what comes from outside."""

    run: Run
    topology: Topology
    ruleset: RuleSet
    unused: tuple[Rule, ...] = ()
    """The rules that stand in the files, for a command that works without them and goes by none."""
    cells: tuple[str, ...] = ()
    """The children to compare; empty for all of them."""
    jobs: int = 8
    """How many cells are worked on at once."""
    settle: timedelta = timedelta(seconds=0.5)
    waived: tuple[str, ...] = ()
    drift_log: str | None = None
    """The file that knows what earlier runs saw."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    clock: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep
    elapsed: Callable[[], float] = time.monotonic
    """Seconds since some moment, on a clock that nobody sets."""
    progress: Callable[[str], None] = field(default=lambda text: None)
    stopping: Callable[[], bool] = field(default=lambda: False)
    """Says whether the writing is to end after the batch that is under way."""

    @property
    def children(self) -> tuple[Cell, ...]:
        """The children in scope, in configured order."""
        chosen = set(self.cells)
        return tuple(child for child in self.topology.children if not chosen or child.name in chosen)

    def waiting(self, doing: str) -> Waiting:
        """Return what shows which cells are still at something, once for each set of them."""
        told = ""

        def waiting(left: Sequence[str]) -> None:
            nonlocal told
            more = len(left) - FEW_NAMES
            shown = ", ".join(left[:FEW_NAMES]) + (f" and {more} more" if more > 0 else "")
            if shown != told:
                self.progress(f"{doing}, waiting for {shown}")
            told = shown

        return waiting


@dataclass(frozen=True, kw_only=True)
class Desired:
    """What the desired side of an edge was when it was compared; it is looked at again when it is written."""

    cell: Cell
    child: str
    """The child of the edge; rows of a routed rule may belong to others."""
    database: DatabaseIdentity
    projections: Mapping[str, Projection]
    """Rule -> how the desired side is read."""
    tables: Mapping[str, Table]
    """The tables of the cell that were read, as they were."""
    rows: Mapping[str, int]
    """Rule -> how many rows there were; in a plan file's edge, when the plan was made."""
    owners: Mapping[str, Owners] = field(default_factory=dict)
    """Of routed rules: who owns which rows."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One plan, and what is needed to carry it out later, through a new connection."""

    cell: Cell
    """The cell that is written."""
    child: str
    direction: Direction
    plan: Plan
    desired: Desired | None = None
    """None where the plan does not come from a comparison: in an undo, and for the register of cells."""
    undoes: str | None = None

    @property
    def targets(self) -> Mapping[str, Projection]:
        """Rule -> the projection through which the written side is read."""
        return self.plan.targets


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that was found, and what could be done about it; no connection is held."""

    report: Report
    edges: tuple[Edge, ...]
    all_or_none: bool = False
    """True where what is written in one database is wrong without what is written in the others."""


@contextmanager
def executor(jobs: int) -> Iterator[Executor]:
    """Give something that runs tasks for several cells at once."""
    with ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="cellsync") as pool:
        yield pool


def each_cell(
    pool: Executor, task: Callable[[Cell], R], cells: Sequence[Cell], *, waiting: Waiting = lambda left: None
) -> dict[str, R | CellFailure]:
    """Run a task for every cell and return the results by name; a failure stays with its cell."""
    futures = {cell.name: pool.submit(bounded, task, cell) for cell in cells}
    left: Collection[Future[R | CellFailure]] = futures.values()
    while left := wait(left, PATIENCE).not_done:
        waiting([name for name, future in futures.items() if future in left])
    return {name: future.result() for name, future in futures.items()}


def bounded(task: Callable[[Cell], R], cell: Cell) -> R | CellFailure:
    """Return what a task for a cell returns; whatever happens, the others go on, and it is never clean."""
    try:
        return task(cell)
    except Unreachable as error:
        return CellFailure(cell=cell.name, status=Status.UNREACHABLE, error=str(error))
    except CellsyncError as error:
        return CellFailure(cell=cell.name, status=Status.INCOMPLETE, error=str(error))
    except Exception as error:
        LOG.debug("%s", cell.name, exc_info=True, extra={"cell": cell.name})
        detail = cell.database.scrub(f"{type(error).__name__}: {error}".splitlines()[0])
        return CellFailure(
            cell=cell.name, status=Status.INCOMPLETE, error=f"a bug in cellsync, please report it: {detail}"
        )


def with_plans(cell: CellResult, plans: Sequence[Plan]) -> CellResult:
    """Return a cell's result with the plans that were made for it, and what they add up to."""
    return replace(
        cell,
        plans=tuple(plans),
        counts=Counts(planned=sum(len(plan.changes) for plan in plans)),
        refusals=tuple(refusal for plan in plans for refusal in plan.refusals),
        skipped=kept(skipped for plan in plans for skipped in plan.skipped),
        notices=tuple(notice for plan in plans for notice in plan.notices),
    )


def exit_code(cells: Sequence[CellResult | CellFailure], *, remaining: bool, refusals: bool) -> ExitCode:
    """Return the highest code that applies.

    ``remaining`` says whether differences or findings count (they are what is left, for a repair),
    ``refusals`` whether refused rules do (a diff only shows them).
    """
    codes = [ExitCode.DIFFERENCES] if remaining else [ExitCode.IN_STEP]
    for cell in cells:
        if isinstance(cell, CellFailure) or _incomplete(cell):
            codes.append(ExitCode.INCOMPLETE)
        if isinstance(cell, CellResult) and cell.refusals and refusals:
            codes.append(ExitCode.REFUSED)
        if isinstance(cell, CellResult) and cell.locked:
            codes.append(ExitCode.LOCKED)
    return max(codes)


def _incomplete(cell: CellResult) -> bool:
    unjudged = any(isinstance(table, TableFailure) or table.unknown for table in cell.tables)
    return unjudged or bool(cell.problems) or bool(cell.counts.conflicts or cell.counts.failed)
