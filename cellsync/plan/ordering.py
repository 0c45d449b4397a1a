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
    Change,
    Column,
    Difference,
    Family,
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
    before, moved = change.before or {}, change.after or {}
    slots: list[Slot] = []
    for index in table.indexes:
        if not index.unique or moved.keys().isdisjoint(index.columns):
            continue
        if all(name in before or name in moved for name in index.columns):
            values = tuple({**before, **after}.get(name) for name in index.columns)
            if None not in values:  # NULL clashes with nothing
                slots.append((index.name, tuple(map(_comparable, values))))
    return slots


def _comparable(value: Stored) -> object:
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
    for index in (index for index in table.indexes if index.name in moved):
        names = table.base_columns(index) or index.columns
        columns = [c for name in names if (c := table.column(name)) and c.name in first.after]
        places = [(column.name, _parking(column, first)) for column in columns]
        free = [place for place, column in zip(places, columns, strict=True) if place[1] or column.nullable]
        if not free:
            return []
        parking.update(free[:1])
    reason = "parked for a moment, so that other rows can take its unique value"
    parked = replace(first, after=parking, reason=reason)
    rest = replace(first, before={**first.before, **parking})
    return [replace(each, together=token) for each in (parked, *reversed(others), rest)]


def _parking(column: Column, change: Change) -> Value:
    """Return a value for a moment: NULL where it may be, else one that no row should have."""
    if column.nullable:
        return None
    if column.family is Family.TEXT and (length := _length(column)) >= 12:
        mark = hashlib.sha256(repr((change.table, change.identity)).encode()).hexdigest()
        return f"~{mark}"[: min(length, 32)]
    if column.family is Family.INTEGER and column.type.startswith(("int", "bigint")):
        bits = 63 if column.type.startswith("bigint") else 31
        # A number at the far end, told apart by the row's own.
        apart = int(hashlib.sha256(repr(change.identity).encode()).hexdigest()[:6], 16)
        return (1 << bits) - 1 - apart
    return None


def _length(column: Column) -> int:
    found = re.search(r"\((\d+)\)", column.type)
    return int(found.group(1)) if found else 32
