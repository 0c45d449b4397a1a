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
    """Those that were compared, or were to be: none in a check of the cells."""
    told: Told | None = None


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair that was not taken back wrote, as a journal has it."""

    run: str
    cell: str
    """The cell that was written: the parent, for a rule whose rows come up."""
    rule: str
    key: Key | None
    """None stands for the rule as a whole."""
    at: datetime
    rows: int = 1


@dataclass(frozen=True, kw_only=True)
class Spell:
    """One time that something drifted, from the first run that saw it to its end."""

    first: datetime
    last: datetime
    """When runs saw it first and last."""
    from_the_start: bool = False
    """True when the log's first look found it already: it may be older."""
    ended: datetime | None = None
    """When a run first saw it no more; None where none has looked since."""
    repaired: datetime | None = None
    repair: str = ""
    """When cellsync repaired it, and by which run."""

    @property
    def open(self) -> bool:
        """Say whether it still is as it was, for all that is known."""
        return self.ended is None and self.repaired is None


@dataclass(frozen=True, kw_only=True)
class Drifted:
    """What drifted in one cell by one rule: a row, or the rule's rows together."""

    cell: str
    rule: str
    spells: tuple[Spell, ...]
    """In order; at least one."""
    key_columns: tuple[str, ...] = ()
    key: Key | None = None
    """None stands for the rule's rows together."""
    kinds: tuple[Kind, ...] = ()
    most: int = 1
    """How many rows there were at most at one time."""

    @property
    def open(self) -> bool:
        """Say whether it drifts now."""
        return self.spells[-1].open

    @property
    def repairs(self) -> int:
        """Return how many of its spells a repair ended."""
        return sum(spell.repaired is not None for spell in self.spells)

    @property
    def returns(self) -> int:
        """Return how many times it was back after a repair."""
        return sum(spell.repaired is not None for spell in self.spells[:-1])

    @property
    def contested(self) -> bool:
        """Say whether somebody else writes it too: it was back after two repairs or more."""
        return self.returns >= CONTESTED


CONTESTED = 2
"""A row that came back after so many repairs has another writer; once may be chance."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A run that saw something else than the run before it, and those after it that saw the same."""

    first: Sighting
    last: datetime
    """When the last of them began."""
    runs: int = 1


@dataclass(frozen=True, kw_only=True)
class Level:
    """How much drift there was at one time, as far as runs had seen by then."""

    at: datetime
    counts: Mapping[Kind, int]
    unknown: tuple[str, ...] = ()
    """Cells of which the last look knew nothing, or not all."""

    @property
    def total(self) -> int:
        """Return how many rows were out of step."""
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Triage:
    """What drifted in a time, when it was first seen, when it was repaired, and what came back."""

    since: datetime
    until: datetime
    looks: tuple[Look, ...] = ()
    """The oldest first."""
    rules: tuple[Drifted, ...] = ()
    """By cell and rule, in order of appearance."""
    rows: tuple[Drifted, ...] = ()
    """Those rows that were named; what came back most often first."""
    levels: tuple[Level, ...] = ()
    """One at each change, in order of time."""
    torn: int = 0
    """Lines of the log that could not be understood."""
    unread: str = ""
    """Why the log could not be read."""
