"""Rows whose keys refer to nothing until a plan inserts what they refer to: then they have a key.

A new row of the same key would be the second one. Where the plan writes the number of what it inserts, that
is certain; where the server numbers it, it is possible for numbers that the table has not had yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from cellsync import db
from cellsync.model import Change, Dangling, Join, Key, KeyPart, Reference, ServerTime, Value, shown
from cellsync.plan import Compared
from cellsync.plan import clashes as rules

ChangesOf = Callable[[Compared, int], Iterable[Change]]


def find_woken_rows(
    database: db.Database,
    each: Compared,
    dangling: Sequence[Key],
    others: Iterable[Compared],
    changes_of: ChangesOf,
) -> Iterator[tuple[Change, str]]:
    """Yield the new rows of a rule that may be there twice once a plan is made, and what would come about.

    ``dangling`` are the keys of the rows of the written side that refer to nothing in their key, ``others``
    the rules whose rows are inserted or get other numbers. Raises ReadFailed.
    """
    joins = [part.join for part in each.pairing.existing.key]
    given, numbered = _find_numbers(joins, others, changes_of)
    if not given and not numbered:
        return
    highest = {join.rule: _find_highest(database, join) for join in joins if join and join.rule in numbered}
    waiting: dict[tuple[tuple[int, ...], Key], list[Key]] = {}
    for key in dangling:
        places = tuple(at for at, part in enumerate(key) if isinstance(part, Dangling))
        waiting.setdefault((places, _without(key, places)), []).append(key)
    masks = {places for places, _ in waiting}

    def describe(key: KeyPart, held: KeyPart, join: Join | None) -> str:
        """Return how a row comes to have a part of a key instead of what it holds; "" where it does not."""
        if join is None or not isinstance(held, Dangling) or not isinstance(key, tuple):
            return ""
        if given.get((join.rule, held.raw)) == key:
            return "what it refers to comes with this plan: repair once more"
        free = isinstance(held.raw, int) and held.raw > highest.get(join.rule, held.raw)
        if key in numbered.get(join.rule, ()) and free:
            number = shown(held.raw)
            return f"the server may give the number {number}, to which it refers, to a new row: remove it"
        return ""

    for change in changes_of(each, rules.INSERT):
        for places in masks:
            for held in waiting.get((places, _without(change.key, places)), ()):
                how = [describe(change.key[at], held[at], joins[at]) for at in places]
                if all(how):
                    yield change, how[-1]
                    break


def _find_numbers(
    joins: Iterable[Join | None], others: Iterable[Compared], changes_of: ChangesOf
) -> tuple[dict[tuple[str, Value], Key], dict[str, set[Key]]]:
    """Return which rows get which numbers by a plan, and the new rows that the server numbers, by rule."""
    given: dict[tuple[str, Value], Key] = {}
    numbered: dict[str, set[Key]] = {}
    columns = {join.rule: join.column for join in joins if join is not None}
    for other in others:
        name = other.pairing.rule.id
        for phase in (rules.INSERT, rules.UPDATE) if name in columns else ():
            for change in changes_of(other, phase):
                value = (change.after or {}).get(columns[name])
                if value is not None and not isinstance(value, (Reference, ServerTime)):
                    given[name, value] = change.key
                elif value is None and phase == rules.INSERT:
                    numbered.setdefault(name, set()).add(change.key)
    return given, numbered


def _find_highest(database: db.Database, join: Join) -> int:
    """Return the highest number that rows of a table have; 0 where there are none, or no numbers."""
    number = database.find_highest(join.table, join.column)
    return number if isinstance(number, int) else 0


def _without(key: Key, places: Iterable[int]) -> Key:
    """Return a key with nothing in some places."""
    left: list[KeyPart] = [*key]
    for at in places:
        left[at] = None
    return tuple(left)
