"""What a plan is made of: compared rules, and the database that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cellsync.model import (
    Action,
    DatabaseIdentity,
    Health,
    Key,
    Pairing,
    Table,
    TableDiff,
    Value,
)

WRITING = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE, Action.SOFT_DELETE, Action.REPLACE})


@dataclass(frozen=True, kw_only=True)
class Clashes:
    """What a look at the written table's keys says about the planned rows of one rule."""

    first: frozenset[Key] = frozenset()
    """The rows that are removed or updated before anything is inserted: others need what they free."""
    waits: Mapping[Key, Mapping[str, Key]] = field(default_factory=dict)
    """Row -> unique index -> the row of the same rule that must give up its value there before."""
    sequenced: bool = False
    """Whether the changes of the rule, and of those connected to it, are ordered together."""
    lost: frozenset[Key] = frozenset()
    """The keys of rows that were set aside, so that no row has them: nothing may refer to one."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One rule of an edge, compared: the pairing, the result, and the table to be written."""

    pairing: Pairing
    table: TableDiff
    written: Table
    clashes: Clashes = Clashes()
    desired_again: int | None = None
    """How many rows the desired side had after the recheck, where the rule would delete; None elsewhere."""
    desired_first: int | None = None
    """The same at the first reading, where ``table.desired_rows`` counts only this child's rows of it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The database that the changes of a plan are for."""

    child: str
    written: str
    """The cell that is written: the child, or the parent for rules that go up."""
    database: DatabaseIdentity
    names: Mapping[str, str]
    """{"parent": ..., "child": ...} for the templates of rules."""
    version: Value
    """The schema version, for the gates of notices; None when there is none."""
    health: Health


class Words(dict[str, str]):
    """What a saying may name; a column that this row does not have stays in braces."""

    def __missing__(self, name: str) -> str:
        return "{" + name + "}"
