"""What runs saw over time: one sighting for each run, and what came of every row that drifted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cellsync.errors import ExitCode
from cellsync.model.differences import Kind, Status
from cellsync.model.results import Counts
from cellsync.model.values import Key


@dataclass(frozen=True, kw_only=True)
class SeenRow:
    """A row that differed, by its natural key; its values are not kept."""

    kind: Kind
    key: Key


@dataclass(frozen=True, kw_only=True)
class SeenRule:
    """What differed by one rule in one cell, as it was found; only what counts."""

    rule: str
    key: tuple[str, ...]
    """The names of the key columns, for reading ``SeenRow.key``."""
    counts: Mapping[Kind, int]
    """Kind -> rows; every kind is there."""
    findings: int = 0
    rows: tuple[SeenRow, ...] = ()
    """Some of the rows that differ, or all of them."""

    @property
    def total(self) -> int:
        """Return how many rows differed."""
        return sum(self.counts.values())

    @property
    def whole(self) -> bool:
        """Say whether ``rows`` are all that differed, so that another row was in step."""
        return len(self.rows) == self.total


@dataclass(frozen=True, kw_only=True)
class SeenCell:
    """How one child stood in one run."""

    cell: str
    status: Status
    error: str = ""
    """Why nothing is known of it; empty where it was compared."""
    rules: tuple[SeenRule, ...] = ()
    """The rules by which something differed or was found."""
    unknown: tuple[str, ...] = ()
    """Rules of which nothing, or not all, is known. A rule that is neither here nor above was in step."""
    counts: Counts = field(default_factory=Counts)
    """What became of the changes, where the run made any."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a run told the people who want to hear of changes alone, for the next one to compare with."""

    stream: str
    """Which runs are compared with each other: those of one command."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """Cell in trouble -> a mark that is another one when the trouble is another one."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one run saw, as a line of the drift log has it. Times are UTC, of the machine that ran it."""

    run: str
    verb: str
    started: datetime
    finished: datetime
    topology: str
    exit_code: ExitCode
    rules: tuple[str, ...]
    """The ids of the rules that were in scope."""
    cells: tuple[SeenCell, ...]
    told: Told | None = None
