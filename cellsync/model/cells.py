"""Who takes part: cells, where their databases are, the topology, and what people accept in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum

from cellsync.model.values import Secret


class Role(str, Enum):
    """What a cell is to the others."""

    PARENT = "parent"
    CHILD = "child"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a database or a broker is: the full URL for drivers, and one that may be shown."""

    url: Secret
    shown: str
    """The same URL with stars for the password: "mysql+pymysql://cellsync:***@10.0.0.1/nova"."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A parent or a child, with a database and (optionally) a broker."""

    name: str
    role: Role
    database: Endpoint
    broker: Endpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Differences and findings that people have decided to live with."""

    cell: str
    """A child, the parent, or "*" for every cell."""
    rule: str
    key: Mapping[str, str | None]
    """Key column -> its value as ``shown`` has it, None for NULL; empty for every row of the rule."""
    why: str
    until: date | None = None
    """The last day, in UTC, on which they do not count; None for ever."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """One parent and its children, in configured order; names are unique."""

    parent: Cell
    children: tuple[Cell, ...]
    rules: tuple[str, ...] = ()
    """The packs and rule files that the configuration names, in its order."""
    settle: timedelta = timedelta(seconds=0.5)
    """How long a run waits before differences are read again, where a rule does not say."""
    accepted: tuple[Accepted, ...] = ()
    """In the order of the configuration: the first one that applies says why."""

    def cell(self, name: str) -> Cell | None:
        """Return the cell of that name, parent included, or None."""
        return next((cell for cell in (self.parent, *self.children) if cell.name == name), None)
