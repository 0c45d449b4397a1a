"""Which planned rows would clash with keys of the written table, and which of them must be made first.

A planned row *claims*: a unique value that another row has, a row to which it refers, or, when it is
deleted, that nothing refers to it. A claim holds where the plan itself frees the value, brings the row, or
moves what refers. A row whose claim does not hold is set aside, and then what waits for it is, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from cellsync.model import (
    Action,
    Cascade,
    Change,
    Column,
    Finding,
    ForeignKey,
    Identity,
    Index,
    Key,
    Kind,
    Pairing,
    Reference,
    ServerTime,
    Stored,
    Table,
    TableDiff,
    Value,
)
from cellsync.plan.inputs import Compared
from cellsync.plan.ordering import comparable

UNKNOWN = object()
"""Stands for a value that only the server makes."""


class Planned(NamedTuple):
    """A planned change, by its rule and key."""

    rule: str
    key: Key


class Place(NamedTuple):
    """A row of the written database, by its primary key."""

    table: str
    identity: Identity


class Bringing(NamedTuple):
    """What a row must hold so that others can refer to it."""

    table: str
    columns: tuple[str, ...]
    values: tuple[object, ...]
    """Folded, as a collation does."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What must be so when a planned change is made."""

    by: Planned
    phase: int
    finding: Finding
    """What is wrong where it does not hold."""
    leaving: Place | None = None
    """The row that must give something up."""
    columns: frozenset[str] = frozenset()
    """What it must give up: one of these columns, lower case, is written; or it is deleted."""
    coming: Bringing | Planned | None = None
    """The row that must come first."""
    index: str = ""
    """The unique index that it is about."""
    brings_key: bool = True
    """Whether the row gets its key by the change."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """A planned change that takes a row away, moves it, or brings one."""

    by: Planned
    phase: int
    writes: frozenset[str] | None
    """The columns that it writes, lower case; None where it deletes the row."""
    references: tuple[Reference, ...] = ()
    early: bool = True
    """Whether it could be made before all inserts."""
    known: frozenset[str] = frozenset()
    """The columns, lower case, of which it says what the row has before or after it."""
    brings_key: bool = True
    """Whether the row gets its key by it."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of the claims of one plan."""

    failed: Mapping[Planned, Claim]
    """The changes that must not be made, each with a claim that does not hold."""
    early: frozenset[Planned]
    """The changes that must be made before all inserts."""
    waits: Mapping[Planned, Mapping[str, Planned]]
    """Change -> unique index -> the change that frees its value there."""
    unordered: frozenset[str]
    """Rules of which some changes can only be made where all of them are put in one order."""


LATER = "what this plan writes ends that, but only afterwards; repair once more"
"""What to do about a change that would have to be made in the middle of others."""

INSERT, UPDATE, REMOVE = range(3)
PHASES = {
    INSERT: {Action.INSERT},
    UPDATE: {Action.UPDATE},
    REMOVE: {Action.DELETE, Action.SOFT_DELETE},
}
"""In which order a plan makes them."""


# -- What is to be asked ------------------------------------------------------------------------


def find_checked_indexes(pairing: Pairing, table: Table) -> list[Index]:
    """Return the unique indexes that the comparison of a rule's keys says nothing about.

    An index that has the whole key of the rule can only clash where the rule leaves rows out that are there.
    """
    key = {name.lower() for name in pairing.rule.key}
    soft = pairing.rule.soft_delete
    checked = []
    for index in table.unique_indexes:
        columns = {name.lower() for name in index.columns}
        deleted_apart = soft is None or soft.column.lower() in columns
        seen = key <= columns and pairing.existing.where is None and deleted_apart and not index.prefixes
        if not seen and table.base_columns(index):
            checked.append(index)
    return checked


def find_checked_keys(pairing: Pairing, table: Table) -> list[ForeignKey]:
    """Return the foreign keys that are no reference of the rule."""
    declared = {name.lower() for name in pairing.rule.references}
    return [
        key for key in table.foreign_keys if len(key.columns) > 1 or key.columns[0].lower() not in declared
    ]


def find_doubled_index(
    pairing: Pairing, index: Index, desired: Table, existing: Table
) -> list[tuple[str, str | None, int | None]] | None:
    """Return the columns of an index, as the desired side has them, where that side allows doubles in it.

    Each with the collation of the written side and how much of it counts. None where it keeps them apart
    itself, and where what is written is not simply what stands there.
    """
    rule = pairing.rule
    compared = {part.column.lower(): part for part in (*pairing.desired.key, *pairing.desired.columns)}
    carried = {part.column.lower() for part in pairing.desired.carried}
    constant = {name.lower() for name in rule.on_insert}
    if rule.soft_delete is not None:
        constant.add(rule.soft_delete.column.lower())
    overridden = {name.lower() for columns in rule.overrides.values() for name in columns}
    found: list[tuple[str, str | None, int | None]] = []
    for name, length in zip(index.columns, index.prefixes or (None,) * len(index.columns), strict=True):
        if name.lower() in constant:
            continue
        column, there = existing.column(name), desired.column(name)
        part = compared.get(name.lower())
        written = part is not None or name.lower() in carried or (column is not None and column.generated)
        if column is None or there is None or not written or name.lower() in overridden:
            return None
        if part is not None and part.transform is not None:
            return None
        found.append((there.name, None if part is not None and part.join else column.collation, length))
    alike = {name.lower(): collation for name, collation, _ in found}
    for other in desired.unique_indexes:
        columns = {name.lower() for name in other.columns}
        same = all(
            alike.get(name) is None or ((known := desired.column(name)) and known.collation == alike[name])
            for name in columns & alike.keys()
        )
        apart = not columns - alike.keys() - constant
        if apart and same and not (other.prefixes or index.prefixes):
            return None
    return found


def find_lacking(each: Compared, compared: Sequence[Compared]) -> Iterator[str]:
    """Yield the referenced rules of which rows may be lacking or doubled, as nobody compared them."""
    references = set(each.pairing.rule.references.values())
    for other in compared:
        if other.pairing.rule.id not in references:
            continue
        reported = any(
            sort.kind is Kind.MISSING and sort.action is not Action.INSERT for sort in other.table.tally
        )
        # A new row that refers to nothing is a finding, and does not come.
        broken = any(finding.code == "dangling-reference" for finding in other.table.findings)
        scoped = other.pairing.desired.where is not None or other.pairing.rule.route is not None
        if reported or broken or scoped:
            yield other.pairing.rule.id


def find_moving_links(each: Compared, compared: Sequence[Compared]) -> Iterator[Cascade]:
    """Yield the references of rules that lead to columns which updates of this rule write.

    Without a name, as they are no foreign keys; those that a foreign key holds together are left out.
    """
    moving, table = each.table.updated_columns, each.written
    held = {(key.table.lower(), *map(str.lower, key.columns)) for key in (*table.referrers, *table.cascades)}
    for other in compared if moving else ():
        for column, join in other.pairing.existing.joins.items():
            leads = join.rule == each.pairing.rule.id and join.column in moving
            if leads and (other.written.name.lower(), column.lower()) not in held:
                yield Cascade(
                    name="",
                    table=other.written.name,
                    columns=(column,),
                    references=(join.column,),
                    on_delete=False,
                    on_update=False,
                )


def find_default(column: Column | None) -> object:
    """Return what a new row has in a column that is not written; UNKNOWN where only the server can say."""
    if column is None or column.auto_increment or column.generated:
        return UNKNOWN
    text = column.default
    if text is None:
        return None if column.nullable else UNKNOWN
    if len(text) > 1 and text[0] == text[-1] == "'" and "\\" not in text:
        return text[1:-1].replace("''", "'")
    return int(text) if text.lstrip("-").isdigit() else UNKNOWN


def find_references(values: Iterable[Stored | None]) -> Iterator[Reference]:
    """Yield the references among the values of a row."""
    return (value for value in values if isinstance(value, Reference))


def image_row(
    change: Change,
    columns: Collection[str],
    table: Table,
    *,
    ids: Mapping[Reference, Value],
    held: Mapping[str, Value] | None,
    nulls: bool = False,
) -> tuple[Value, ...] | None:
    """Return what a row will hold in some columns; None where one is NULL, or only the server knows it.

    With ``nulls`` NULL is a value like others.

    ``ids`` are those that references have in the written database, ``held`` what an updated row has now.
    """
    after, before = change.after or {}, change.before or {}
    image: list[Value] = []
    for name in columns:
        value: object
        if name in after:
            value = after[name]
        elif change.action is Action.INSERT:
            value = find_default(table.column(name))
        elif held is not None and name in held:
            value = held[name]
        else:
            value = before.get(name, UNKNOWN)
        if isinstance(value, Reference):
            value = ids.get(value, UNKNOWN)
        if (value is None and not nulls) or value is UNKNOWN or isinstance(value, ServerTime):
            return None
        image.append(value)  # type: ignore[arg-type]
    return tuple(image)


def touches(change: Change, columns: Iterable[str]) -> bool:
    """Say whether a change writes one of the columns; a new row has them all."""
    return change.action is Action.INSERT or not (change.after or {}).keys().isdisjoint(columns)


def has_touching(table: TableDiff, columns: Collection[str]) -> bool:
    """Say whether an update of a table writes one of the columns: most write others alone."""
    return bool(columns) and not table.updated_columns.isdisjoint(columns)


def fold(values: Iterable[Stored | None]) -> tuple[object, ...]:
    """Return values such that those are equal which a collation takes for the same, roughly."""
    return tuple(None if value is None else comparable(value) for value in values)


def bring(table: str, columns: Iterable[str], values: Iterable[Value]) -> Bringing:
    """Return what a row brings that has these values."""
    return Bringing(table, tuple(name.lower() for name in columns), fold(values))


# -- What becomes of it -------------------------------------------------------------------------


@dataclass
class _Claims:
    """The claims of one plan, and what answers them."""

    claims: Collection[Claim]
    movers: Mapping[Place, Collection[Move]]
    bringers: Mapping[Bringing | Planned, Collection[Move]]
    refused: Collection[str] = ()
    """Rules that write nothing: nothing of another rule can wait for them."""
    sequenced: Collection[str] = ()
    """Rules of which all changes are put in one order."""
    failed: dict[Planned, Claim] = field(default_factory=dict)
    void: set[Planned] = field(default_factory=set)
    """Changes that are not made: those that failed, and those that refer to rows that do not come."""
    lost: set[Planned] = field(default_factory=set)
    """Those of them by which a row would get its key: nothing can refer to it by that."""

    unordered: set[str] = field(default_factory=set)
    """Rules of which all changes must be put in one order as well."""

    def settle(self) -> None:
        """Fail the changes whose claims do not hold, until no more are found."""
        every = [move for moves in (*self.movers.values(), *self.bringers.values()) for move in moves]
        again = True
        while again:
            again = False
            for claim in self.claims:
                if claim.by not in self.failed and self.answer(claim) is None:
                    self.fail(claim)
                    again = True
            for move in every:
                if move.by not in self.void and self._refers_to_lost(move):
                    self.void.add(move.by)
                    if move.brings_key:
                        self.lost.add(move.by)
                    again = True

    def fail(self, claim: Claim) -> None:
        self.failed.setdefault(claim.by, claim)
        self.void.add(claim.by)
        if claim.brings_key:
            self.lost.add(claim.by)

    def answer(self, claim: Claim) -> Move | None:
        """Return the change that makes a claim hold; None where there is none."""
        if claim.leaving is not None:
            moves = [m for m in self.movers.get(claim.leaving, ()) if _frees(m, claim)]
        else:
            moves = list(self.bringers.get(claim.coming, ())) if claim.coming is not None else []
        return next((move for move in moves if self._is_made(move, claim)), None)

    def _is_made(self, move: Move, claim: Claim) -> bool:
        refused = move.by.rule in self.refused and move.by.rule != claim.by.rule
        # A new row may refer to itself; what it takes from another it cannot free itself.
        apart = claim.coming is not None or move.by != claim.by or self._is_sequenced(move, claim)
        return apart and move.by not in self.void and not refused

    def _is_sequenced(self, move: Move, claim: Claim) -> bool:
        """Say whether a change is made before the one that needs what it frees, wherever both stand."""
        return {move.by.rule, claim.by.rule} <= {*self.sequenced} and self._can_sequence(move, claim)

    @staticmethod
    def _can_sequence(move: Move, claim: Claim) -> bool:
        """Say whether their order can be told from what the two changes say."""
        if claim.index:
            return move.by.rule == claim.by.rule and move.by != claim.by
        return claim.columns <= move.known

    def _refers_to_lost(self, move: Move) -> bool:
        return any(Planned(each.rule, each.key) in self.lost for each in move.references)

    def order(self) -> set[Planned]:
        """Return what must be made before all inserts; fail what waits for a change that cannot be."""
        early: set[Planned] = set()
        waiting = [claim for claim in self.claims if claim.leaving is not None]
        again = True
        while again:
            again = False
            for claim in waiting:
                move = None if claim.by in self.void else self.answer(claim)
                if move is None or move.by in early or self._is_sequenced(move, claim):
                    continue
                if not _is_too_late(move, claim, early):
                    continue
                # What refers to a row goes first of all, or it would have to be written twice.
                fits = move.phase == REMOVE or claim.index
                needed = self.find_needed(move, {claim.by}) if fits else None
                if needed is not None:
                    early |= needed
                    again = True
                elif self._can_sequence(move, claim):
                    self.unordered |= {move.by.rule, claim.by.rule}
                else:
                    self.fail(_say_later(claim))
                    self.settle()
                    again = True
        return early

    def find_needed(self, move: Move, waiting: Collection[Planned]) -> set[Planned] | None:
        """Return what must come early so that a change can: it, and what refers to its row.

        None where it cannot; ``waiting`` is what waits for it.
        """
        if not move.early or move.by in waiting:
            return None
        needed = {move.by}
        for claim in self.by_change.get(move.by, ()) if move.phase == REMOVE else ():
            other = self.answer(claim)
            if other is None or other.phase != REMOVE:
                return None
            before = self.find_needed(other, {*waiting, move.by})
            if before is None:
                return None
            needed |= before
        return needed

    @cached_property
    def by_change(self) -> Mapping[Planned, Sequence[Claim]]:
        """Change -> its claims."""
        found: dict[Planned, list[Claim]] = {}
        for claim in self.claims:
            found.setdefault(claim.by, []).append(claim)
        return found


def _frees(move: Move, claim: Claim) -> bool:
    return move.writes is None or not claim.columns.isdisjoint(move.writes)


def _is_too_late(move: Move, claim: Claim, early: Collection[Planned]) -> bool:
    """Say whether a change would be made after the one that needs what it frees."""
    if claim.by in early:
        return True
    if not claim.index and claim.phase == REMOVE:
        return False  # what refers to a row is written, or removed, before it
    # Updates of one table are in order by what is unique, not by what refers to their rows.
    unordered = not claim.index and claim.phase == move.phase and move.by != claim.by
    return unordered or move.phase > claim.phase or move.by.rule != claim.by.rule


def _say_later(claim: Claim) -> Claim:
    """Return a claim that says of what is in the way that the plan ends it, but not in time."""
    # What to do stands behind the last colon.
    fact, _, _ = claim.finding.message.rpartition(": ")
    return replace(claim, finding=replace(claim.finding, message=f"{fact}: {LATER}"))


def settle(
    claims: Collection[Claim],
    movers: Mapping[Place, Collection[Move]],
    bringers: Mapping[Bringing | Planned, Collection[Move]],
    *,
    refused: Collection[str] = (),
    void: Collection[Planned] = (),
    sequenced: Collection[str] = (),
) -> Settled:
    """Say which changes must not be made, which must be made early, and which wait for which.

    ``void`` are changes that are not made anyway, ``sequenced`` the rules that are put in one order.
    """
    every = _Claims(claims, movers, bringers, refused, sequenced, void={*void}, lost={*void})
    every.settle()
    early = every.order()
    waits: dict[Planned, dict[str, Planned]] = {}
    for claim in claims:
        move = every.answer(claim) if claim.index and claim.by not in every.void else None
        if move is not None and move.by.rule == claim.by.rule:
            waits.setdefault(claim.by, {})[claim.index] = move.by
    return Settled(
        failed=every.failed,
        early=frozenset(early - every.void),
        waits=waits,
        unordered=frozenset(every.unordered),
    )
