"""Which changes come before others because they give up a value that those take.

Rows are inserted, updated and removed in this order, for the sake of what refers to them. Where a new row
takes the primary key of a row that is moved or removed in the same plan, or another unique value of it, that
order is turned round: for these rows alone, and for what refers to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cellsync.model import Action, Change, Index, Key, Reference, Skipped
from cellsync.plan.changing import changes as changes_of
from cellsync.plan.inputs import Compared, Target
from cellsync.plan.ordering import given_up, taken

_REMOVING = frozenset({Action.DELETE, Action.SOFT_DELETE})


@dataclass(frozen=True, kw_only=True)
class Early:
    """The rows of one rule whose changes come first, by key."""

    updates: Collection[Key] = ()
    """Before the new rows of the rule."""
    removals: Collection[Key] = ()
    """Before all new rows and updates."""


def find_early(going: Sequence[Compared], target: Target, failed: Collection[str]) -> Mapping[str, Early]:
    """Return the rules that have changes which come first, referenced rules first, as ``going`` is.

    What the server said of its keys (``Compared.clashes``) counts, and what the rows themselves show.
    """
    found: dict[str, Early] = {}
    removals: dict[Reference, None] = {}
    for each in going:
        rule = each.pairing.rule.id
        own, first = _find_own(each, target, failed), each.clashes.first
        keys = {*own.removals}
        if first and each.table.does(*_REMOVING):
            keys.update(step.key for step in _changes(each, _REMOVING, target, failed) if step.key in first)
        removals.update((Reference(rule=rule, key=key), None) for key in keys)
        if removals and each.table.does(*_REMOVING):
            keys.update(_find_referring(_list_removals(each, target, failed), removals))
        if own.updates or first or keys:
            found[rule] = Early(updates={*own.updates, *first}, removals=keys)
    return found


def _list_removals(each: Compared, target: Target, failed: Collection[str]) -> Iterable[Change]:
    """Return the removals of a rule, referenced rows first where its table refers to itself."""
    steps = _changes(each, _REMOVING, target, failed)
    rule = each.pairing.rule
    return reversed([*steps]) if rule.id in rule.references.values() else steps


def _find_referring(steps: Iterable[Change], removals: dict[Reference, None]) -> Iterator[Key]:
    """Yield the keys of rows to be removed that refer to rows which are removed early; adds to those."""
    for step in steps:
        values = (step.before or {}).values()
        if any(isinstance(value, Reference) and value in removals for value in values):
            removals[Reference(rule=step.rule, key=step.key)] = None
            yield step.key


def _find_own(each: Compared, target: Target, failed: Collection[str]) -> Early:
    """Return which rows of a rule give up what other rows of it take."""
    does, indexes = each.table.does, _shared_indexes(each)
    taking, leaving = does(Action.INSERT, Action.UPDATE), does(Action.UPDATE, *_REMOVING)
    if not indexes or not taking or not leaving:
        return Early()
    shared = {name for index in indexes for name in index.columns}
    if not does(*_REMOVING) and shared.isdisjoint(each.table.updated_columns):
        return Early()  # no row gives anything up
    moved = {
        slot: step.key
        for step in _changes(each, {Action.UPDATE}, target, failed)
        for slot in given_up(step, indexes)
    }
    freed = {
        slot: step.key
        for step in _changes(each, _REMOVING, target, failed)
        for slot in given_up(step, indexes)
    }
    if not moved and not freed:
        return Early()
    updates: set[Key] = set()
    removals: set[Key] = set()
    for step in _changes(each, {Action.INSERT, Action.UPDATE}, target, failed):
        for slot in taken(step, indexes):
            if slot in freed:
                removals.add(freed[slot])
            if slot in moved and step.action is Action.INSERT:
                updates.add(moved[slot])
    # What an early update takes is given up before it.
    return Early(updates={*moved.values()} if updates else (), removals=removals)


def _shared_indexes(each: Compared) -> list[Index]:
    """Return the unique indexes in which rows of different keys may have the same value.

    Only those of which the rule knows all columns.
    """
    rule, projection = each.pairing.rule, each.pairing.existing
    soft_delete = {rule.soft_delete.column} if rule.soft_delete else set()
    known = {*projection.names, *soft_delete, *rule.on_insert}
    return [
        index
        for index in each.written.unique_indexes
        if known >= {*index.columns} and {*index.columns} - soft_delete != {*rule.key}
    ]


def _changes(
    each: Compared, actions: Collection[Action], target: Target, failed: Collection[str]
) -> Iterator[Change]:
    return (step for step in changes_of(each, actions, target, failed) if isinstance(step, Change))


def chosen(keys: Collection[Key]) -> Callable[[Change | Skipped], bool]:
    """Return what says whether a step is about one of these keys."""
    return lambda step: step.key in keys
