"""The order in which the rows of one table can be written.

Two things force an order: a row that refers to another row of its own table, and a unique value
that one row gives up and another takes. A circle of such values (two names swapped) is opened by
parking one row on a value that nobody has, and several circles that share rows by parking one row after
the other; all these writes share one transaction.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cellsync.model import (
    Action,
    Change,
    Column,
    Difference,
    Family,
    Index,
    Key,
    Kind,
    Rule,
    Skipped,
    Stored,
    Table,
    Value,
    folded,
)


def self_ordered(differences: Sequence[Difference], rule: Rule) -> list[Difference]:
    """Order the rows of a table that refers to itself: a row after the row that it refers to."""
    if rule.id not in rule.references.values() or not differences:
        return list(differences)
    by_key = {difference.key: difference for difference in differences}
    placed: dict[Key, Difference] = {}
    for start in by_key:
        # A chain of keys, each needed by the one before it; a circle is cut where it closes.
        chain = {start: None}
        while chain:
            key = next(reversed(chain))
            needed = _own_references(by_key[key], by_key)
            fresh = next((other for other in needed if other not in placed and other not in chain), None)
            if fresh is not None:
                chain[fresh] = None
            else:
                chain.pop(key)
                placed[key] = by_key[key]
    ordered = list(placed.values())
    return ordered if differences[0].kind is not Kind.EXTRA else ordered[::-1]


def _own_references(difference: Difference, known: Mapping[Key, Difference]) -> Iterator[Key]:
    rows = [row for row in (difference.desired, difference.existing) if row is not None]
    for part in (part for row in rows for part in (*row.key, *row.values)):
        if isinstance(part, tuple) and part in known and part != difference.key:
            yield part


# -- Unique values -----------------------------------------------------------------------------


Slot = tuple[str, tuple[object, ...]]
"""The name of a unique index and the values that one row has there, folded as a collation does."""


Waits = Mapping[Key, Mapping[str, Key]]
"""Row -> unique index -> the row that must give up its value there before, as a server has said."""


def untangled(
    steps: Iterable[Change | Skipped], table: Table, waits: Waits | None = None
) -> Iterator[Change | Skipped]:
    """Order the updates of a table so that no unique value is taken before it is given up.

    Yields those that move no unique value as they come, then the others in order, with parking
    changes in each circle, and the changes of circles that cannot be opened, and what waits for them. Only
    indexes whose columns a rule knows can be looked after, and those of which ``waits`` speaks: there the
    server was asked, which knows what it computes, and what is equal to it.
    """
    moving: list[Change] = []
    waits = waits or {}
    entangled = {*waits, *(key for needs in waits.values() for key in needs.values())}
    unique = frozenset(name for index in table.unique_indexes for name in index.columns)
    for step in steps:
        touched = isinstance(step, Change) and not unique.isdisjoint(step.after or ())
        if isinstance(step, Change) and (step.key in entangled or (touched and _slots(step, {}, table))):
            moving.append(step)
        else:
            yield step
    yield from _untangled(moving, table, waits)


def _untangled(updates: Sequence[Change], table: Table, waits: Waits) -> Iterator[Change | Skipped]:
    """Yield the updates that wait for none, then those that waited for them, and so on.

    Rows that wait for each other, in one circle or in several that share rows, are one knot.
    """
    blockers = _find_blockers(updates, table, waits)
    layers: list[list[list[int]]] = []
    layer_of: dict[int, int] = {}
    for knot in find_knots(blockers):
        others = {other for at in knot for other in blockers[at]}.difference(knot)
        layer = max((layer_of[other] + 1 for other in others), default=0)
        layer_of.update(dict.fromkeys(knot, layer))
        if layer == len(layers):
            layers.append([])
        layers[layer].append(sorted(knot))
    circles = 0
    stuck: set[int] = set()
    for knots in layers:
        for knot in sorted(knots):
            changes = [updates[at] for at in knot]
            if not stuck.isdisjoint(other for at in knot for other in blockers[at]):
                stuck.update(knot)
                yield from map(_describe_waiting, changes)
            elif len(knot) == 1:
                yield from changes
            else:
                circles += 1
                opened = _Knot(changes, table, waits).open_up(f"circle-{circles}")
                stuck.update(() if opened else knot)
                yield from opened or map(_stuck, changes)


def _describe_waiting(change: Change) -> Skipped:
    reason = "it takes a unique value of a row that cannot give it up, for it swaps it with others"
    return Skipped(rule=change.rule, key=change.key, reason=reason)


def find_knots(blockers: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the numbers of changes that wait for each other, together; each after those it waits for.

    Tarjan's algorithm, without recursion: a chain of rows may be as long as a table.
    """
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    open_ones: list[int] = []
    placed: set[int] = set()
    for start in range(len(blockers)):
        walk = [(start, iter(blockers[start]))] if start not in number else []
        while walk:
            at, rest = walk[-1]
            if at not in number:
                number[at] = lowest[at] = len(number)
                open_ones.append(at)
            for other in rest:
                if other not in number:
                    walk.append((other, iter(blockers[other])))
                    break
                if other not in placed:
                    lowest[at] = min(lowest[at], number[other])
            else:
                walk.pop()
                if walk:
                    above = walk[-1][0]
                    lowest[above] = min(lowest[above], lowest[at])
                if lowest[at] == number[at]:
                    knot = [open_ones.pop()]
                    while knot[-1] != at:
                        knot.append(open_ones.pop())
                    placed.update(knot)
                    yield knot


def _stuck(change: Change) -> Skipped:
    reason = "it swaps a unique value with other rows, and there is no value to park one of them on"
    return Skipped(rule=change.rule, key=change.key, reason=reason)


def _slots(change: Change, after: Mapping[str, Stored], table: Table) -> list[Slot]:
    """Return what a row holds in the unique indexes that the change moves it in.

    With ``after`` empty, what it holds before the change; with the change's own, afterwards.
    """
    moved = change.after or {}
    indexes = [each for each in table.unique_indexes if not moved.keys().isdisjoint(each.columns)]
    if not indexes:
        return []
    known = {**_known_before(change), **moved}
    held = {**known, **_known_before(change), **after}
    return [*_held_slots(held, [each for each in indexes if known.keys() >= {*each.columns}])]


def _known_before(change: Change) -> dict[str, Stored]:
    return {**dict(zip(change.identity_columns, change.identity, strict=False)), **(change.before or {})}


def _held_slots(row: Mapping[str, Stored], indexes: Iterable[Index]) -> Iterator[Slot]:
    """Yield what a row holds in unique indexes of which all columns are known."""
    for index in indexes:
        if row.keys() >= {*index.columns}:
            values = tuple(row[name] for name in index.columns)
            if None not in values:  # NULL clashes with nothing
                yield index.name, tuple(map(comparable, values))


def given_up(change: Change, indexes: Sequence[Index]) -> set[Slot]:
    """Return what a row holds in unique indexes before a change, and does not hold afterwards."""
    if change.action is Action.INSERT:
        return set()
    return {*_held_slots(_known_before(change), indexes)} - taken(change, indexes)


def taken(change: Change, indexes: Sequence[Index]) -> set[Slot]:
    """Return what a row holds in unique indexes once a change is made."""
    if change.after is None:
        return set()
    return {*_held_slots({**_known_before(change), **change.after}, indexes)}


def comparable(value: Stored) -> object:
    """Return a value such that what a collation takes for one is equal, roughly."""
    return folded((value,))[0] if isinstance(value, str) else value


def _find_blockers(changes: Sequence[Change], table: Table, waits: Waits) -> list[list[int]]:
    """Return the numbers of the changes that must give up a value before each change can take it."""
    holding: dict[Slot, list[int]] = {}
    for at, change in enumerate(changes):
        for slot in _slots(change, {}, table):
            holding.setdefault(slot, []).append(at)
    by_key = {change.key: at for at, change in enumerate(changes)} if waits else {}
    blockers: list[list[int]] = []
    for at, change in enumerate(changes):
        found = [
            other for slot in _slots(change, change.after or {}, table) for other in holding.get(slot, ())
        ]
        found += [by_key[key] for key in waits.get(change.key, {}).values() if key in by_key]
        blockers.append([other for other in dict.fromkeys(found) if other != at])
    return blockers


class _Knot:
    """Changes that wait for each other: made together, some of them in two steps."""

    def __init__(self, changes: Sequence[Change], table: Table, waits: Waits) -> None:
        self._changes = changes
        self._table = table
        self._waits = waits
        blockers = _find_blockers(changes, table, waits)
        self._needs = [set(needed) for needed in blockers]
        self._takers: list[list[int]] = [[] for _ in changes]
        for at, needed in enumerate(blockers):
            for other in needed:
                self._takers[other].append(at)

    def open_up(self, token: str) -> list[Change]:
        """Return the changes in order, with rows parked where none can be first; [] where that cannot be."""
        made: list[Change] = []
        rest = dict(enumerate(self._changes))
        to_park = iter(range(len(self._changes)))
        ready: list[int] = []
        while rest:
            for at in ready:  # grows meanwhile
                made.append(rest.pop(at))
                ready += self._release(at)
            ready = []
            while rest and not ready:
                at = next(to_park, -1)
                if at < 0:
                    return []
                if at in rest and (parking := self._find_parking(at)):
                    made.append(_park(rest[at], parking))
                    rest[at] = _after_parking(rest[at], parking)
                    ready = self._release(at)
        return [replace(each, together=token) for each in made]

    def _release(self, at: int) -> list[int]:
        """Say that a row has given up its values; returns the changes that can be made by that."""
        freed = []
        for taker in self._takers[at]:
            self._needs[taker].discard(at)
            if not self._needs[taker]:
                freed.append(taker)
        self._takers[at] = []
        return freed

    def _find_parking(self, at: int) -> dict[str, Stored]:
        """Return values for a moment, in each index that a row is moved in; {} where there are none."""
        change, table = self._changes[at], self._table
        assert change.after is not None
        # Others take what it has: in the indexes that they wait for, as the server said.
        moved = {slot[0] for slot in _slots(change, {}, table)}
        for taker in self._takers[at]:
            waits = self._waits.get(self._changes[taker].key, {})
            moved.update(index for index, key in waits.items() if key == change.key)
        parking: dict[str, Stored] = {}
        for index in (index for index in table.unique_indexes if index.name in moved):
            names = table.base_columns(index) or index.columns
            columns = [c for name in names if (c := table.column(name)) and c.name in change.after]
            places = [(column.name, _parking(column, change)) for column in columns]
            free = [
                place for place, column in zip(places, columns, strict=True) if place[1] or column.nullable
            ]
            if not free:
                return {}
            parking.update(free[:1])
        return parking


def _park(change: Change, parking: Mapping[str, Stored]) -> Change:
    reason = "parked for a moment, so that other rows can take its unique value"
    return replace(change, after=parking, reason=reason)


def _after_parking(change: Change, parking: Mapping[str, Stored]) -> Change:
    """Return what is left of a change; a row whose primary key is parked is known by that meanwhile."""
    identity = _park(change, parking).identity_after
    return replace(change, before={**(change.before or {}), **parking}, identity=identity)


def _parking(column: Column, change: Change) -> Value:
    """Return a value for a moment: NULL where it may be, else one that no row should have.

    None where there is no such value.
    """
    if column.nullable:
        return None
    mark = hashlib.sha256(repr((change.table, change.identity)).encode()).hexdigest()
    kind, _, _ = column.type.partition("(")
    if column.family is Family.TEXT and kind in ("char", "varchar"):
        return f"~{mark}"[: min(_length(column), 32)]
    if column.family is Family.BINARY and kind in ("binary", "varbinary"):
        whole = _length(column) if kind == "binary" else min(_length(column), 32)
        return f"~{mark * 4}".encode()[:whole]
    bits = _BITS.get(kind.partition(" ")[0])
    if column.family is not Family.INTEGER or bits is None:
        return None
    # Numbers at the far end, told apart by the row's own.
    apart = int(mark[:6], 16) % (1 << min(bits, 24) - 2)
    unsigned = "unsigned" in column.type
    if column.auto_increment:
        # A server goes on counting from the largest number that it has seen, even where an UPDATE wrote it.
        return 0 if unsigned else apart - (1 << bits)
    return (1 << bits + unsigned) - 1 - apart


_BITS = {"tinyint": 7, "smallint": 15, "mediumint": 23, "int": 31, "bigint": 63}
"""Of the positive numbers of a type that has a sign."""


def _length(column: Column) -> int:
    found = re.search(r"\((\d+)\)", column.type)
    return int(found.group(1)) if found else 32
