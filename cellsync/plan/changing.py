"""Differences of one rule as changes: what is written, and what must still hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from cellsync.model import (
    Action,
    Change,
    Dangling,
    Difference,
    Join,
    KeyPart,
    Load,
    Missing,
    Pairing,
    Reference,
    Row,
    Rule,
    ServerTime,
    Skipped,
    Stored,
    Value,
)
from cellsync.plan.inputs import Compared, Target, Words
from cellsync.plan.ordering import self_ordered


def changes(
    each: Compared, actions: Collection[Action], target: Target, failed: Collection[str]
) -> Iterator[Change | Skipped]:
    """Yield the changes of one rule that do one of ``actions``, in order, and those that cannot be made."""
    rule = each.pairing.rule
    if not each.table.does(*actions):
        return
    chosen: Iterable[Difference] = (d for d in each.table.differences if d.action in actions)
    if rule.id in rule.references.values():
        chosen = self_ordered(list(chosen), rule)
    lost = sorted(set(failed) & set(rule.references.values()))
    if lost:
        reason = f"{', '.join(lost)} could not be compared, and this row refers to it"
        yield from (Skipped(rule=rule.id, key=difference.key, reason=reason) for difference in chosen)
        return
    make = {Action.INSERT: _insert, Action.UPDATE: _update}
    steps = (make.get(d.action, _remove)(each.pairing, d, target) for d in chosen)
    computed = find_computed(each)
    yield from (_without_computed(step, computed) for step in steps) if computed else steps


def load(each: Compared, target: Target) -> Load | None:
    """Return the INSERTs of a rule whose rows are all missing, as one; None where they are not."""
    pairing, rows = each.pairing, each.table.differences
    if not isinstance(rows, Missing) or rows.action is not Action.INSERT or find_computed(each):
        return None
    make, columns = rows.make, _columns(pairing)
    return Load(
        rows.packed,
        lambda packed: _insert(pairing, make(packed), target),
        fold=rows.fold,
        columns=columns,
        filled={name: value for name, value in find_constants(pairing.rule, target) if name not in columns},
        alike=all(saying.missing is None for saying in pairing.rule.says),
        linked=any(key.table == each.written.name for key in each.written.foreign_keys),
    )


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


def _insert(pairing: Pairing, difference: Difference, target: Target) -> Change:
    rule, row = pairing.rule, difference.desired
    assert row is not None
    after: dict[str, Stored] = dict(find_constants(rule, target))
    # Spelled as the written table does: a server does not mind, a journal that is compared does.
    for projected, part in zip(pairing.desired.carried, row.carried, strict=True):
        after[projected.column] = _storable(part, None)
    after.update(_stored(pairing, row))
    return _change(pairing, difference, Action.INSERT, before=None, after=after, identity=())


def find_constants(rule: Rule, target: Target) -> Iterator[tuple[str, Stored]]:
    """Yield what is written with a new row, besides what is read of it."""
    yield from ((name, _filled(value, target)) for name, value in rule.on_insert.items())
    if rule.soft_delete is not None:
        # Its ORM would write it; a NULL here makes the row invisible and switches unique keys off.
        yield rule.soft_delete.column, rule.soft_delete.live


def _filled(value: Value | ServerTime, target: Target) -> Stored:
    template = isinstance(value, str) and not isinstance(value, ServerTime)
    return str(value).format_map(Words(target.names)) if template else value


def _update(pairing: Pairing, difference: Difference, target: Target) -> Change:
    held = difference.existing
    assert held is not None
    joins = pairing.existing.joins
    before = {
        part.column: _storable(value, part.join)
        for part, value in zip(pairing.existing.key, held.key, strict=True)
    }
    after: dict[str, Stored] = {}
    for name, wanted, there in difference.columns:
        before[name] = _storable(there, joins.get(name))
        after[name] = _storable(wanted, joins.get(name))
    before.update(_liveness(pairing.rule))
    after = {name: after[name] for name in sorted(after)}
    # What a rule tolerates may move at any time: it is no part of what a row must be.
    unwritten = {
        name: part
        for name, part in zip(pairing.columns, held.values, strict=True)
        if name not in after and name not in pairing.rule.tolerance
    }
    return _change(
        pairing,
        difference,
        Action.UPDATE,
        before=before,
        after=after,
        identity=held.identity,
        unwritten=unwritten,
    )


def _remove(pairing: Pairing, difference: Difference, target: Target) -> Change:
    rule, held = pairing.rule, difference.existing
    assert held is not None
    before = {**_stored(pairing, held), **_liveness(rule)}
    if difference.action is Action.DELETE:  # the order of the removals goes by them
        carried = zip(pairing.existing.carried, held.carried, strict=True)
        before.update((part.column, _storable(value, None)) for part, value in carried)
    after: dict[str, Stored] | None = None
    if difference.action is Action.SOFT_DELETE:
        assert rule.soft_delete is not None
        marks = dict(zip(pairing.existing.identity, held.identity, strict=True))
        after = {rule.soft_delete.column: marks[rule.soft_delete.tombstone]}
        if rule.soft_delete.at:
            after[rule.soft_delete.at] = ServerTime.NOW
    action = Action.UPDATE if after is not None else Action.DELETE
    return _change(pairing, difference, action, before=before, after=after, identity=held.identity)


def _change(
    pairing: Pairing,
    difference: Difference,
    action: Action,
    *,
    before: Mapping[str, Stored] | None,
    after: Mapping[str, Stored] | None,
    identity: tuple[Value, ...],
    unwritten: Mapping[str, KeyPart] | None = None,
) -> Change:
    return Change(
        rule=pairing.rule.id,
        table=pairing.existing.table,
        action=action,
        key=difference.key,
        key_columns=pairing.rule.key,
        identity_columns=pairing.existing.identity,
        identity=identity,
        before=before,
        after=after,
        origin=difference.desired.identity if difference.desired else difference.origin,
        reason=difference.reason,
        unwritten=unwritten or {},
    )


def _liveness(rule: Rule) -> dict[str, Stored]:
    return {rule.soft_delete.column: rule.soft_delete.live} if rule.soft_delete else {}


def _stored(pairing: Pairing, row: Row) -> dict[str, Stored]:
    """Return a row's key and compared columns as they are written, references still as keys."""
    projection, parts = pairing.existing, (*row.key, *row.values)
    stored: dict[str, Any] = dict(zip(projection.names, parts, strict=True))
    if projection.joins:
        for projected in (*projection.key, *projection.columns):
            stored[projected.column] = _storable(stored[projected.column], projected.join)
    return stored


def _storable(part: KeyPart, join: Join | None) -> Stored:
    if isinstance(part, Dangling):
        return part.raw
    if isinstance(part, tuple):
        assert join is not None
        return Reference(rule=join.rule, key=part)
    return part
