"""The order in which the rows of one table can be written.

Two things force an order: a row that refers to another row of its own table, and a unique value
that one row gives up and another takes. A circle of such values (two names swapped) is opened by
parking one row on a value that nobody has; all writes of the circle share one transaction.
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

    Yields those that move no unique value as they come, then the others in order, with a parking
    change before each circle, and the changes of circles that cannot be opened. Only indexes whose
    columns a rule knows can be looked after, and those of which ``waits`` speaks: there the server was
    asked, which knows what it computes, and what is equal to it.
    """
    moving: list[Change] = []
    waits = waits or {}
    entangled = {*waits, *(key for needs in waits.values() for key in needs.values())}
    for step in steps:
        if isinstance(step, Change) and (step.key in entangled or _slots(step, {}, table)):
            moving.append(step)
        else:
            yield step
    yield from _untangled(moving, table, waits)


def _untangled(updates: Sequence[Change], table: Table, waits: Waits) -> Iterator[Change | Skipped]:
    waiting = list(updates)
    circles = 0
    while waiting:
        holders = _Holders(waiting, table, waits)
        free = [change for change in waiting if holders.blocking(change) is None]
        circle = [] if free else _circle(waiting[0], holders)
        if circle:
            circles += 1
            yield from _opened(circle, table, waits, f"circle-{circles}") or map(_stuck, circle)
        yield from free
        placed = set(map(id, free or circle))
        waiting = [change for change in waiting if id(change) not in placed]


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


class _Holders:
    """Which changes must still give up a unique value."""

    def __init__(self, waiting: Sequence[Change], table: Table, waits: Waits) -> None:
        self._by_slot = {slot: change for change in waiting for slot in _slots(change, {}, table)}
        self._by_key = {change.key: change for change in waiting}
        self._table = table
        self._waits = waits

    def blocking(self, change: Change) -> Change | None:
        """Return the change that must give up a value before this one can take it."""
        slots = _slots(change, change.after or {}, self._table)
        keys = self._waits.get(change.key, {}).values()
        for holder in (*map(self._by_slot.get, slots), *map(self._by_key.get, keys)):
            if holder is not None and holder is not change:
                return holder
        return None


def _circle(start: Change, holders: _Holders) -> list[Change]:
    """Return a circle of changes, each blocked by the next, the last one by the first."""
    chain = [start]
    while (blocker := holders.blocking(chain[-1])) is not None:
        if blocker in chain:
            return chain[chain.index(blocker) :]
        chain.append(blocker)
    raise AssertionError("a change that nothing blocks is no part of a circle")


def _opened(circle: Sequence[Change], table: Table, waits: Waits, token: str) -> list[Change]:
    """Return the changes of a circle with one of them made in two steps; [] where that cannot be.

    The first row is parked, so the last one can take its value, the one before it the last one's,
    and so on; in the end the first row takes what the second one gave up.
    """
    first, others = circle[0], circle[1:]
    assert first.before is not None and first.after is not None
    # The last one takes what the first one has: in the indexes that it waits for.
    moved = {slot[0] for slot in _slots(first, {}, table)} | {*waits.get(circle[-1].key, {})}
    parking: dict[str, Stored] = {}
    for index in (index for index in table.unique_indexes if index.name in moved):
        names = table.base_columns(index) or index.columns
        columns = [c for name in names if (c := table.column(name)) and c.name in first.after]
        places = [(column.name, _parking(column, first)) for column in columns]
        free = [place for place, column in zip(places, columns, strict=True) if place[1] or column.nullable]
        if not free:
            return []
        parking.update(free[:1])
    reason = "parked for a moment, so that other rows can take its unique value"
    parked = replace(first, after=parking, reason=reason)
    # Where the primary key is parked, that is what the row is known by until it has its own.
    rest = replace(first, before={**first.before, **parking}, identity=parked.identity_after)
    return [replace(each, together=token) for each in (parked, *reversed(others), rest)]


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
