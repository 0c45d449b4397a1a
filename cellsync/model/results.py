"""What came of a run: outcomes, reports, and what the journal remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from cellsync.errors import ExitCode
from cellsync.model.differences import Status, TableResult
from cellsync.model.plans import Change, Plan, Refusal, Skipped
from cellsync.model.secrets import Secrets
from cellsync.model.values import Key


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution: who, what and when. Times are UTC."""

    id: str
    verb: str
    started: datetime
    topology: str
    """The name of the parent."""
    operator: str
    host: str
    command: str
    reason: str = ""
    dry_run: bool = False
    """True when it was to show what it would write, and to write nothing."""


class Fate(str, Enum):
    """What became of a planned change."""

    APPLIED = "applied"
    CONFLICT = "conflict"
    """The row, or one that it needs, is no longer what the plan saw; nothing was written."""
    FAILED = "failed"
    """The server did not take the change; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one change. ``change`` holds the rows as the server gave them back."""

    change: Change
    fate: Fate
    message: str = ""
    written: bool = True
    """False of an applied change that a waived cascade had made already: there is nothing to record."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The numbers of a repair, by the fate of each planned change."""

    planned: int = 0
    applied: int = 0
    conflicts: int = 0
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """All edges of one child, compared (and, after a repair, written)."""

    cell: str
    status: Status
    tables: tuple[TableResult, ...]
    counts: Counts = Counts()
    refusals: tuple[Refusal, ...] = ()
    skipped: Sequence[Skipped] = ()
    problems: Sequence[str] = ()
    """Conflicts, failures and what the verification found, each in one line."""
    unmade: Sequence[Skipped] = ()
    """The changes that a run which writes has not made, and why; ``problems`` tell of them, too."""
    plans: tuple[Plan, ...] = ()
    notices: tuple[str, ...] = ()
    isolated: str = ""
    """Since when (UTC) the child is out of the parent's register of cells; empty when it is in it."""
    locked: bool = False
    """True when another run held the lock of a database that this cell's plan writes."""


@dataclass(frozen=True, kw_only=True)
class CellFailure:
    """A child that could not be compared at all; it has no tables and no counts."""

    cell: str
    status: Status
    """UNREACHABLE, or INCOMPLETE when it answers but must not be compared."""
    error: str
    isolated: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one run, children in configured order."""

    run: Run
    finished: datetime
    cells: tuple[CellResult | CellFailure, ...]
    features: Mapping[str, str] = field(default_factory=dict)
    """Feature -> what is lost without it, for the features of the rules that were compared."""
    rule_features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rule id -> names of the features that it serves."""
    rule_whys: Mapping[str, str] = field(default_factory=dict)
    """Rule id -> why there is such a rule, in its file's words."""
    notes: tuple[str, ...] = ()
    """What people should know about the configuration of this run, though nothing is wrong with a cell."""
    secrets: Secrets = field(default_factory=Secrets)
    """The columns whose values no output shows."""
    left_out: tuple[str, ...] = ()
    """Which cells the parent lists that were not compared, and why; nothing is wrong with that."""
    exit_code: ExitCode


@dataclass(frozen=True, kw_only=True)
class JournaledRun:
    """A run as the journals of all its databases tell it; ``finished`` is None if it was cut off."""

    run: Run
    finished: datetime | None
    status: str
    cells: tuple[str, ...]
    applied: int
    undoes: str | None = None
    undone_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """A row that several repairs have written: somebody else writes it too."""

    cell: str
    rule: str
    table: str
    key_columns: tuple[str, ...]
    key: Key
    runs: int
    """How many repairs wrote it."""
    first: str
    last: str
    """When the first and the last of them did, in UTC."""


@dataclass(frozen=True, kw_only=True)
class JournaledChange:
    """One change as a journal recorded it: ``change`` holds the whole rows, as they were read."""

    sequence: int
    cell: str
    change: Change
    at: str
