"""What is to be written: changes with their guards, and what was refused or skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from cellsync.model.making import made
from cellsync.model.reading import Fold, Packed, Projection
from cellsync.model.rules import Action, Rule, ServerTime
from cellsync.model.schemas import DatabaseIdentity, Table
from cellsync.model.values import Identity, Key, KeyPart, Value, shown
from cellsync.spool import Mapped, tallied


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A value to be written: the surrogate id of the row with ``key``, looked up in the target."""

    rule: str
    key: Key


Stored = Union[Value, Reference, ServerTime]


class Use(NamedTuple):
    """Rows that use another one: those of a table that hold a value, where a condition admits them."""

    table: str
    column: str
    value: Value
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One guarded write to one row; a pure function of it is its inverse.

    INSERT has no ``before`` and DELETE no ``after``. Every column of ``before`` must still hold
    its value when the change is made; it may name more columns than ``after`` writes.
    """

    rule: str
    table: str
    action: Action
    """INSERT, UPDATE or DELETE: a soft delete is an update."""
    key: Key
    """For people, and to find the row of an INSERT again; empty in an undo."""
    key_columns: tuple[str, ...]
    identity_columns: tuple[str, ...]
    identity: Identity
    """The primary key of the written row; empty for an INSERT that lets the server number it."""
    before: Mapping[str, Stored] | None
    after: Mapping[str, Stored] | None
    origin: Identity = ()
    """The desired row's primary key in its own database."""
    reason: str = ""
    together: str = ""
    """Changes that follow each other with the same text here are made together or not at all."""
    replaced: bool = False
    """True for the removal of a row that another one replaces, or that goes with such a row."""
    unless: tuple[Use, ...] = ()
    """Rows that must not be there when the change is made."""
    unwritten_columns: tuple[str, ...] = ()
    """Of an UPDATE by a rule: the compared columns that it leaves alone, for the verification."""
    unwritten_values: tuple[KeyPart, ...] = ()
    """What these columns hold before and after it, references as keys."""

    @property
    def unwritten(self) -> dict[str, KeyPart]:
        """What the columns hold that an update leaves alone, by name."""
        return dict(zip(self.unwritten_columns, self.unwritten_values, strict=True))

    @property
    def writes_identity(self) -> bool:
        """True for an update that writes columns of the primary key."""
        after = self.after
        return (
            after is not None
            and self.action is Action.UPDATE
            and not after.keys().isdisjoint(self.identity_columns)
        )

    @property
    def moves_row(self) -> bool:
        """True for an update that gives the row another primary key."""
        after = self.after
        if after is None or not self.writes_identity:
            return False
        held = zip(self.identity_columns, self.identity, strict=False)
        return any(name in after and after[name] != part for name, part in held)

    @property
    def identity_after(self) -> Identity:
        """The primary key of the row once the change is made.

        It is another one where an update writes its columns; () where it holds a reference, whose number
        only the target knows.
        """
        if not self.writes_identity:
            return self.identity
        after = self.after or {}
        held = zip(self.identity_columns, self.identity, strict=True)
        parts = [after.get(name, part) for name, part in held]
        plain = [part for part in parts if not isinstance(part, (Reference, ServerTime))]
        return tuple(plain) if len(plain) == len(parts) else ()

    def inverse(self) -> Change:
        """Return the change that takes this one back; its own guard is this one's ``after``."""
        action = {Action.INSERT: Action.DELETE, Action.DELETE: Action.INSERT}.get(self.action, self.action)
        return Change(
            rule=self.rule,
            table=self.table,
            action=action,
            key=self.key,
            key_columns=self.key_columns,
            identity_columns=self.identity_columns,
            identity=self.identity_after,
            before=self.after,
            after=self.before,
            origin=self.origin,
            together=self.together,
            reason=f"undo of {self.action.value}",
        )

    def but(self, **fields: object) -> Change:
        """Return the change with other values in some fields; thousands of them, in a quarter of the time
        that ``dataclasses.replace`` takes."""
        return made(Change, {**vars(self), **fields})

    def packed(self) -> dict[str, Any]:
        """Return the change as plain values (see ``spool``); references are none."""
        plain = {**vars(self), "action": _VALUES[self.action]}
        if self.unless:
            plain["unless"] = tuple(map(tuple, self.unless))
        return plain

    @classmethod
    def unpacked(cls, plain: dict[str, Any]) -> Change:
        """Return what ``packed`` gave these values."""
        if plain["unless"]:
            plain["unless"] = tuple(Use(*each) for each in plain["unless"])
        return made(Change, {**plain, "action": _ACTIONS[plain["action"]]})


def name_change(change: Change) -> str:
    """Return what a change does to which row: "update hosts name=h1"; an undo has no key, but an identity."""
    names, values = (
        (change.key_columns, change.key) if change.key else (change.identity_columns, change.identity)
    )
    pairs = " ".join(f"{name}={shown(value)}" for name, value in zip(names, values, strict=False))
    return f"{change.action.value} {change.table} {pairs}"


_VALUES = {action: action.value for action in Action}
_ACTIONS = {value: action for action, value in _VALUES.items()}


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A change that was not planned, or planned and then not made, and why."""

    rule: str
    key: Key
    reason: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A guard that stopped a rule and those that reference it, or some changes of a rule."""

    code: str
    """What ``--waive`` takes: "limit", "empty-desired", "triggers", ..."""
    rule: str
    message: str
    holds: tuple[str, ...] = ()
    """Which changes wait: "inserts", "updates" and "deletes"; () where the rule writes nothing at all."""


class Deed(NamedTuple):
    """What many changes have in common."""

    rule: str
    table: str
    action: Action
    columns: tuple[str, ...]
    """The columns that are written."""


def deed_of(change: Change) -> Deed:
    """Return what a change has in common with others."""
    return Deed(change.rule, change.table, change.action, tuple(change.after or ()))


class Spelled(NamedTuple):
    """SQL with which a server spells what the journal has of its own rows."""

    table: str
    """Where they are, under the name t."""
    number: str
    """Their primary key."""
    key: str
    """Their key by the rule, as JSON."""
    row: str
    """All of a row, as JSON."""


class Load(Mapped[Packed, Change]):
    """The INSERTs of all rows of a rule into a table that has none of them, each a change when looked at.

    They can be made as they are, without being looked at: the server that is read spells them for
    the one that is written.
    """

    def __init__(
        self,
        packed: Sequence[Packed],
        make: Callable[[Packed], Change],
        *,
        fold: Fold,
        columns: tuple[str, ...],
        filled: Mapping[str, Stored],
        alike: bool,
        linked: bool,
    ) -> None:
        """``columns`` are those of the packed rows; ``filled`` is written with each row besides.

        ``alike`` says that all changes have the same reason, ``linked`` that rows may refer to each other.
        """
        self.sample = make(packed[0])
        """The first change: rule, table and the names of columns are the same for all."""
        self.numbered = {*map(str.lower, self.sample.identity_columns)} <= {*map(str.lower, columns)}
        """True where the rows bring their primary keys along; else the server numbers them, in order."""
        self.apart = self.numbered and not linked
        """True where it is all the same which of them are inserted first."""
        super().__init__(packed, make, {deed_of: Counter({deed_of(self.sample): len(packed)})})
        self.packed = packed
        self.make = make
        self.fold = fold
        self.columns = columns
        self.alike = alike
        self.filled = filled


OUTCOMES = ("not made", "applied", "conflict", "failed")
"""What may become of a planned change, in words: it was not begun, or it had one of the fates."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The ordered changes for one edge. Unlike a TableDiff, a Plan is ordered."""

    child: str
    written: str
    """The cell whose database is written: the child, or the parent for rules that go up."""
    database: DatabaseIdentity
    changes: Sequence[Change] = ()
    """In the order in which they are made; there may be more than memory holds (see ``spool``)."""
    skipped: Sequence[Skipped] = ()
    refusals: tuple[Refusal, ...] = ()
    notices: tuple[str, ...] = ()
    targets: Mapping[str, Projection] = field(default_factory=dict)
    """Rule -> the projection through which the written side is read; of an undo there is none."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Of an undo: the rules as they are now, by id. They say which rows of a table hold a key."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """What is known of the tables that are written, and of those that their references lead to."""
    desired_rows: Mapping[str, int] = field(default_factory=dict)
    """Rule -> how many rows the desired side had when it was compared; far fewer at the writing stop it."""
    outcomes: bytes = b""
    """After a run that wrote: for each change, in order, the place in OUTCOMES of what became of it."""

    @property
    def deeds(self) -> Counter[Deed]:
        """Return how many changes of each sort there are."""
        return tallied(self.changes, deed_of)
