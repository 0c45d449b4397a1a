"""Differences of one rule as changes: what is written, and what must still hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from cellsync.model import (
    Action,
    Change,
    Dangling,
    Difference,
    Join,
    KeyPart,
    Kind,
    Load,
    Missing,
    Pairing,
    Projection,
    Reference,
    Rule,
    ServerTime,
    Skipped,
    Stored,
    Use,
    Value,
)
from cellsync.model.making import Pick, made, make_pick
from cellsync.plan.inputs import Compared, Target, Words
from cellsync.plan.ordering import self_ordered


def changes(
    each: Compared, actions: Collection[Action], target: Target, failed: Collection[str]
) -> Iterator[Change | Skipped]:
    """Yield the changes of one rule that do one of ``actions``, in order, and those that cannot be made."""
    rule = each.pairing.rule
    if not each.table.does(*actions):
        return
    chosen: Iterable[Difference] = each.table.select(actions)
    if rule.id in rule.references.values():
        chosen = self_ordered(list(chosen), rule)
    lost = sorted(set(failed) & set(rule.references.values()))
    if lost:
        reason = f"{', '.join(lost)} could not be compared, and this row refers to it"
        yield from (Skipped(rule=rule.id, key=difference.key, reason=reason) for difference in chosen)
        return
    steps = map(partial(_make_change, _find_common(each.pairing, target)), chosen)
    computed = find_computed(each)
    yield from (_without_computed(step, computed) for step in steps) if computed else steps


def load(each: Compared, target: Target) -> Load | None:
    """Return the INSERTs of a rule whose rows are all missing, as one; None where they are not."""
    pairing, rows = each.pairing, each.table.differences
    if not isinstance(rows, Missing) or rows.action is not Action.INSERT or find_computed(each):
        return None
    make, columns, common = rows.make, _columns(pairing), _find_common(pairing, target)
    return Load(
        rows.packed,
        lambda packed: _make_insert(common, make(packed)),
        fold=rows.fold,
        columns=columns,
        filled={name: value for name, value in find_constants(pairing.rule, target) if name not in columns},
        alike=all(saying.missing is None for saying in pairing.rule.says),
        linked=any(key.table == each.written.name for key in each.written.foreign_keys),
    )


def make_replacement(
    each: Compared, difference: Difference, target: Target, *, unless: Iterable[Use] = ()
) -> tuple[Change | None, Change | None]:
    """Return the change that removes the existing row of a difference, and the one that inserts the desired.

    None for a row that there is not. The first is made only where no row is there that ``unless`` describes.
    """
    common, computed = _find_common(each.pairing, target), find_computed(each)
    removal = insert = None
    if difference.existing is not None:
        action = Action.DELETE if common.rule.soft_delete is None else Action.SOFT_DELETE
        old = replace(difference, kind=Kind.EXTRA, desired=None, columns=(), action=action)
        removal = _make_removal(common, old).but(replaced=True, unless=tuple(unless))
    if difference.desired is not None:
        new = replace(difference, kind=Kind.MISSING, existing=None, columns=(), action=Action.INSERT)
        made_insert = _without_computed(_make_insert(common, new), computed)
        insert = made_insert if isinstance(made_insert, Change) else None
    return removal, insert


def find_computed(each: Compared) -> frozenset[str]:
    """Return the columns that a rule compares and the written server computes: nobody can write them."""
    parts = (*each.pairing.existing.key, *each.pairing.existing.columns)
    known = (each.written.column(part.column) for part in parts)
    return frozenset(column.name for column in known if column is not None and column.generated)


def _without_computed(change: Change, computed: Collection[str]) -> Change | Skipped:
    """Return a change without the columns that the server computes from others."""

    def left(row: Mapping[str, Stored] | None) -> dict[str, Stored] | None:
        return None if row is None else {name: v for name, v in row.items() if name not in computed}

    after = left(change.after)
    if change.action is Action.UPDATE and not after:
        names = ", ".join(sorted(change.after or {}))
        reason = (
            f"it differs in {names} alone, which the written server computes: correct what that is "
            f"computed from, or exclude it"
        )
        return Skipped(rule=change.rule, key=change.key, reason=reason)
    return change.but(before=left(change.before), after=after)


def _columns(pairing: Pairing) -> tuple[str, ...]:
    """Return the columns of a row as it is packed, spelled as the written table does."""
    written, read = pairing.existing, pairing.desired
    return tuple(part.column for part in (*written.key, *written.columns, *read.carried))


class _Common(NamedTuple):
    """What the changes of one rule have in common: found once, for a hundred thousand of them."""

    rule: Rule
    existing: Projection
    joins: Mapping[str, Join]
    key: tuple[str, ...]
    """Spelled as the written table does: a server does not mind, a journal that is compared does."""
    compared: tuple[str, ...]
    inserted: tuple[str, ...]
    """The columns of a new row, in the order of ``carried``, ``key`` and ``values``."""
    constants: Mapping[str, Stored]
    live: Mapping[str, Stored]
    fields: Mapping[str, Any]
    """Those of a change, with what is the same in all."""
    unwritten: dict[tuple[str, ...], tuple[tuple[str, ...], Pick]]
    """The columns that an update writes -> those that it must leave alone, and what picks their values."""


def _find_common(pairing: Pairing, target: Target) -> _Common:
    rule, existing = pairing.rule, pairing.existing
    key = tuple(part.column for part in existing.key)
    compared = tuple(part.column for part in existing.columns)
    return _Common(
        rule=rule,
        existing=existing,
        joins=existing.joins,
        key=key,
        compared=compared,
        inserted=(*(part.column for part in pairing.desired.carried), *key, *compared),
        constants=dict(find_constants(rule, target)),
        live={rule.soft_delete.column: rule.soft_delete.live} if rule.soft_delete else {},
        fields={
            "rule": rule.id,
            "table": existing.table,
            "key_columns": rule.key,
            "identity_columns": existing.identity,
            "identity": (),
            "before": None,
            "after": None,
            "together": "",
            "replaced": False,
            "unless": (),
            "unwritten_columns": (),
            "unwritten_values": (),
        },
        unwritten={},
    )


def _make_change(common: _Common, difference: Difference) -> Change:
    """Return the change that does what was decided about a difference."""
    if difference.action is Action.INSERT:
        return _make_insert(common, difference)
    if difference.action is Action.UPDATE:
        return _make_update(common, difference)
    return _make_removal(common, difference)


def _make_insert(common: _Common, difference: Difference) -> Change:
    row = difference.desired
    assert row is not None
    after = _store(common.inserted, (*row.carried, *row.key, *row.values), common.joins)
    return _fill_change(common, difference, action=Action.INSERT, after={**common.constants, **after})


def _make_update(common: _Common, difference: Difference) -> Change:
    held, joins = difference.existing, common.joins
    assert held is not None
    written = tuple([column.column for column in difference.columns])
    before = _store(common.key, held.key, joins)
    before.update(_store(written, [column.existing for column in difference.columns], joins))
    before.update(common.live)
    after = _store(written, [column.desired for column in difference.columns], joins)
    known = common.unwritten.get(written)
    if known is None:
        known = common.unwritten[written] = _find_unwritten(common, written)
    return _fill_change(
        common,
        difference,
        action=Action.UPDATE,
        identity=held.identity,
        before=before,
        after={name: after[name] for name in sorted(after)} if len(after) > 1 else after,
        unwritten_columns=known[0],
        unwritten_values=known[1](held.values),
    )


def _find_unwritten(common: _Common, written: Collection[str]) -> tuple[tuple[str, ...], Pick]:
    # What a rule tolerates may move at any time: it is no part of what a row must be.
    left = {*written, *common.rule.tolerance}
    places = [at for at, name in enumerate(common.compared) if name not in left]
    return tuple(common.compared[at] for at in places), make_pick(places)


def _make_removal(common: _Common, difference: Difference) -> Change:
    rule, held = common.rule, difference.existing
    assert held is not None
    before = _store((*common.key, *common.compared), (*held.key, *held.values), common.joins)
    before.update(common.live)
    if difference.action is Action.DELETE:  # the order of the removals goes by them
        carried = [part.column for part in common.existing.carried]
        before.update(_store(carried, held.carried, common.joins))
        return _fill_change(common, difference, action=Action.DELETE, identity=held.identity, before=before)
    assert rule.soft_delete is not None
    marks = dict(zip(common.existing.identity, held.identity, strict=True))
    after: dict[str, Stored] = {rule.soft_delete.column: marks[rule.soft_delete.tombstone]}
    if rule.soft_delete.at:
        after[rule.soft_delete.at] = ServerTime.NOW
    return _fill_change(
        common, difference, action=Action.UPDATE, identity=held.identity, before=before, after=after
    )


def _store(names: Sequence[str], parts: Sequence[KeyPart], joins: Mapping[str, Join]) -> dict[str, Any]:
    """Return parts of a row as they are written, references still as keys."""
    if not joins:
        return dict(zip(names, parts, strict=True))
    return {name: _storable(part, joins.get(name)) for name, part in zip(names, parts, strict=True)}


def _fill_change(common: _Common, difference: Difference, **fields: object) -> Change:
    desired = difference.desired
    return made(
        Change,
        {
            **common.fields,
            "key": difference.key,
            "origin": desired.identity if desired is not None else difference.origin,
            "reason": difference.reason,
            **fields,
        },
    )


def find_constants(rule: Rule, target: Target) -> Iterator[tuple[str, Stored]]:
    """Yield what is written with a new row, besides what is read of it."""
    yield from ((name, _filled(value, target)) for name, value in rule.on_insert.items())
    if rule.soft_delete is not None:
        # Its ORM would write it; a NULL here makes the row invisible and switches unique keys off.
        yield rule.soft_delete.column, rule.soft_delete.live


def _filled(value: Value | ServerTime, target: Target) -> Stored:
    template = isinstance(value, str) and not isinstance(value, ServerTime)
    return str(value).format_map(Words(target.names)) if template else value


def _storable(part: KeyPart, join: Join | None) -> Stored:
    if isinstance(part, Dangling):
        return part.raw
    if isinstance(part, tuple):
        assert join is not None
        return Reference(rule=join.rule, key=part)
    return part
