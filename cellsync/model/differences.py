"""What was found: differences, findings, and the tables that could not be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, Union

from cellsync import spool
from cellsync.model.making import made
from cellsync.model.reading import Fold, Packed, Row
from cellsync.model.rules import Action, Direction, Way
from cellsync.model.schemas import SchemaDifference
from cellsync.model.values import Identity, Key, KeyPart
from cellsync.spool import Mapped, tallied


class Kind(str, Enum):
    """MISSING on the existing side, CHANGED there, or EXTRA there."""

    MISSING = "missing"
    CHANGED = "changed"
    EXTRA = "extra"


class ColumnDifference(NamedTuple):
    """A compared column that holds another value."""

    column: str
    desired: KeyPart
    existing: KeyPart


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row that differs, and what a repair does about it."""

    kind: Kind
    key: Key
    desired: Row | None
    existing: Row | None
    columns: tuple[ColumnDifference, ...] = ()
    """What changed; empty where a whole row is missing or extra (see ``TableDiff.columns_of``)."""
    action: Action = Action.REPORT
    reason: str = ""
    """What it means, in the users' words."""
    origin: Identity = ()
    """The primary key of the row that cellsync made the existing one from; () for one of the cell's own."""
    accepted: str = ""
    """Why people live with it, "being retired (until 2026-12-31)"; empty when it counts. The action
    of an accepted difference is IGNORE, but not all that is ignored is accepted: a rule may say so."""
    tombstone: str | None = None
    """When the side that lacks the row deleted one of that key, as text, in UTC: of an extra row the
    desired side; of a missing one the existing side, where the rule does not revive."""
    left_out: bool = False
    """True when the side that lacks the row has one of that key that the rule does not compare, because of
    ``where``, ``route`` or a soft delete that is NULL; told only where the rule does not revive."""
    aside: bool = False
    """True for an extra row that a finding names: nothing is done about it."""
    turned: Kind | None = None
    """What it was at the first reading, of a row that is extra at the recheck alone: the desired side lost it
    while it was compared."""
    claimed: tuple[str, ...] = ()
    """The children that have the row where several do and each would insert it into the parent."""

    @classmethod
    def found(
        cls,
        kind: Kind,
        key: Key,
        desired: Row | None = None,
        existing: Row | None = None,
        columns: tuple[ColumnDifference, ...] = (),
    ) -> Difference:
        """Return a difference of which no more is known: of a suspicion not even the rows."""
        rows = {"desired": desired, "existing": existing, "columns": columns}
        return made(Difference, {**_BARE, "kind": kind, "key": key, **rows})

    @property
    def pushed(self) -> bool:
        """Tell whether cellsync wrote the existing row."""
        return bool(self.origin)

    def decided(self, action: Action, reason: str) -> Difference:
        """Return the difference with what is done about it."""
        return made(Difference, {**vars(self), "action": action, "reason": reason})

    def left(self) -> Difference:
        """Return the difference of a row that is set aside."""
        return made(Difference, {**vars(self), "aside": True})

    def packed(self) -> dict[str, Any]:
        """Return the difference as plain values (see ``spool``)."""
        plain = {**vars(self), "kind": _VALUES[self.kind], "action": _VALUES[self.action]}
        if self.turned is not None:
            plain["turned"] = _VALUES[self.turned]
        if self.desired is not None:
            plain["desired"] = tuple(self.desired)
        if self.existing is not None:
            plain["existing"] = tuple(self.existing)
        if self.columns:
            plain["columns"] = tuple(map(tuple, self.columns))
        return plain

    @classmethod
    def unpacked(cls, plain: dict[str, Any]) -> Difference:
        """Return what ``packed`` gave these values."""
        plain["kind"], plain["action"] = _KINDS[plain["kind"]], _ACTIONS[plain["action"]]
        if (turned := plain["turned"]) is not None:
            plain["turned"] = _KINDS[turned]
        if (desired := plain["desired"]) is not None:
            plain["desired"] = _row(desired)
        if (existing := plain["existing"]) is not None:
            plain["existing"] = _row(existing)
        if columns := plain["columns"]:
            plain["columns"] = tuple(map(_column, columns))
        return made(Difference, plain)


_row, _column = partial(tuple.__new__, Row), partial(tuple.__new__, ColumnDifference)
"""What ``_make`` does, without a call in Python."""
_BARE = vars(Difference(kind=Kind.MISSING, key=(), desired=None, existing=None))
_KINDS, _ACTIONS = {each.value: each for each in Kind}, {each.value: each for each in Action}
_VALUES = {each: each.value for each in (*Kind, *Action)}
"""Looked up for every difference: an enum takes three times as long."""


class Sort(NamedTuple):
    """What a difference is to those who count."""

    kind: Kind
    action: Action
    accepted: bool
    updated: tuple[str, ...] = ()
    """The columns that an UPDATE sets; () of any other action."""


def sort_of(difference: Difference) -> Sort:
    """Return what a difference is counted as."""
    action = difference.action
    updated = tuple([column.column for column in difference.columns]) if action is Action.UPDATE else ()
    return Sort(difference.kind, action, bool(difference.accepted), updated)


action_of = attrgetter("action")
"""What a repair does about a difference."""


def keep_differences(differences: Iterable[Difference]) -> Sequence[Difference]:
    """Return differences as a sequence that takes little memory (see ``spool``), apart by their action."""
    return spool.kept(differences, tally=sort_of, apart=action_of)


class Missing(Mapped[Packed, Difference]):
    """The rows of a table that the existing side has none of, each a difference when it is looked at."""

    def __init__(
        self,
        packed: Sequence[Packed],
        make: Callable[[Packed], Difference],
        *,
        fold: Fold,
        action: Action = Action.REPORT,
    ) -> None:
        """``action`` is what a repair does about each of them."""
        super().__init__(packed, make, {sort_of: Counter({Sort(Kind.MISSING, action, False): len(packed)})})
        self.packed = packed
        self.make = make
        self.fold = fold
        self.action = action

    def decided(self, action: Action, decide: Callable[[Difference], Difference]) -> Missing:
        """Return the same rows as ``decide`` makes their differences, all of them with one action."""
        make = self.make
        return Missing(self.packed, lambda packed: decide(make(packed)), fold=self.fold, action=action)


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What to do about a finding, to the letter."""

    text: str
    way: Way
    cell: str = ""
    """In whose database statements are to be run; empty for any other way."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong that no push mends by itself."""

    code: str
    """A stable name: "duplicate-key", "orphan", "deleted-is-null", ..."""
    cell: str
    """The cell whose rows are wrong."""
    message: str
    key: Key | None = None
    twins: tuple[Key, ...] = ()
    """The keys of other rows that it is about: like ``key``, they are set aside for every action."""
    accepted: str = ""
    """Why people live with it, as in a difference; empty when it counts."""
    do: Remedy | None = None


class Status(str, Enum):
    """How a table or a cell stands."""

    IN_STEP = "in_step"
    DIFFERS = "differs"
    REPAIRED = "repaired"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class TableDiff:
    """One rule on one edge, compared to the end. Differences are in no order that means anything.

    They may be more than memory holds (see ``spool``): whoever goes through them does so in order.
    """

    rule: str
    table: str
    direction: Direction
    key: tuple[str, ...]
    """The names of the key columns, for reading ``Difference.key``."""
    columns: tuple[str, ...] = ()
    """The names of the compared columns, for reading ``Row.values``."""
    desired_rows: int
    existing_rows: int
    differences: Sequence[Difference] = ()
    findings: tuple[Finding, ...] = ()
    schema: tuple[SchemaDifference, ...] = ()
    status: Status = Status.IN_STEP
    aside: tuple[Row, ...] = ()
    """The rows of the existing side that findings set aside, and which are no differences."""
    unknown: tuple[str, ...] = ()
    """Why some rows could not be judged (a child that should own them did not answer)."""
    detector: bool = False
    """True for what a detector found: ``rule`` is its id, and there are findings alone."""
    waits: frozenset[Action] = frozenset()
    """The actions that a guard holds back, where it holds back no others of the rule."""

    @property
    def tally(self) -> Counter[Sort]:
        """Return how many differences of each sort there are."""
        return tallied(self.differences, sort_of)

    def count(self, kind: Kind) -> int:
        """Return the number of differences of that kind."""
        return sum(number for sort, number in self.tally.items() if sort.kind is kind)

    def does(self, *actions: Action) -> int:
        """Return about how many differences a repair does one of ``actions``."""
        return sum(number for sort, number in self.tally.items() if sort.action in actions)

    @property
    def updated_columns(self) -> frozenset[str]:
        """The columns that a repair updates in any row."""
        return frozenset(chain.from_iterable(sort.updated for sort in self.tally))

    def select(self, actions: Collection[Action]) -> Iterator[Difference]:
        """Yield the differences of which a repair does one of ``actions``."""
        return spool.select(self.differences, action_of, actions)

    def columns_of(self, difference: Difference) -> tuple[ColumnDifference, ...]:
        """Return what changed; of a missing row all desired, of an extra one all existing values."""
        row = difference.desired or difference.existing
        if difference.columns or difference.kind is Kind.CHANGED or row is None:
            return difference.columns
        wanted = difference.kind is Kind.MISSING
        return tuple(
            ColumnDifference(name, value if wanted else None, None if wanted else value)
            for name, value in zip(self.columns, row.values, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class TableFailure:
    """One rule on one edge that could not be compared; it has no counts."""

    rule: str
    table: str
    direction: Direction
    error: str
    schema: tuple[SchemaDifference, ...] = ()
    status: Status = Status.INCOMPLETE
    detector: bool = False
    """True for a detector: ``rule`` is its id, and something that it asks did not answer."""


TableResult = Union[TableDiff, TableFailure]
