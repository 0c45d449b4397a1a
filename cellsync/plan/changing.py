"""Differences of one rule as changes: what is written, and what must still hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cellsync.model import (
    Action,
    Change,
    Dangling,
    Difference,
    Identity,
    Join,
    KeyPart,
    Load,
    Missing,
    Pairing,
    Reference,
    Rule,
    ServerTime,
    Skipped,
    Stored,
    Value,
)
from cellsync.model.making import made
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
    steps = map(_Maker(each.pairing, target).make_change, chosen)
    computed = find_computed(each)
    yield from (_without_computed(step, computed) for step in steps) if computed else steps


def load(each: Compared, target: Target) -> Load | None:
    """Return the INSERTs of a rule whose rows are all missing, as one; None where they are not."""
    pairing, rows = each.pairing, each.table.differences
    if not isinstance(rows, Missing) or rows.action is not Action.INSERT or find_computed(each):
        return None
    make, columns, maker = rows.make, _columns(pairing), _Maker(pairing, target)
    return Load(
        rows.packed,
        lambda packed: maker.make_insert(make(packed)),
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


class _Maker:
    """Makes the changes of one rule; what they have in common is found once."""

    def __init__(self, pairing: Pairing, target: Target) -> None:
        rule, existing = pairing.rule, pairing.existing
        self._rule = rule
        self._constants = dict(find_constants(rule, target))
        self._live = {rule.soft_delete.column: rule.soft_delete.live} if rule.soft_delete else {}
        self._existing = existing
        self._joins = existing.joins
        # Spelled as the written table does: a server does not mind, a journal that is compared does.
        self._key = tuple(part.column for part in existing.key)
        self._compared = tuple(part.column for part in existing.columns)
        self._inserted = (*(part.column for part in pairing.desired.carried), *self._key, *self._compared)
        self._common = {
            "rule": rule.id,
            "table": existing.table,
            "key_columns": rule.key,
            "identity_columns": existing.identity,
            "together": "",
        }

    def make_change(self, difference: Difference) -> Change:
        """Return the change that does what was decided about a difference."""
        if difference.action is Action.INSERT:
            return self.make_insert(difference)
        if difference.action is Action.UPDATE:
            return self._make_update(difference)
        return self._make_removal(difference)

    def make_insert(self, difference: Difference) -> Change:
        """Return the INSERT of a missing row."""
        row = difference.desired
        assert row is not None
        after = {**self._constants, **self._store(self._inserted, (*row.carried, *row.key, *row.values))}
        return self._make(difference, Action.INSERT, before=None, after=after, identity=())

    def _make_update(self, difference: Difference) -> Change:
        held, columns = difference.existing, difference.columns
        assert held is not None
        names = [column.column for column in columns]
        before = self._store(self._key, held.key)
        before.update(self._store(names, [column.existing for column in columns]))
        before.update(self._live)
        after = self._store(names, [column.desired for column in columns])
        if len(after) > 1:
            after = {name: after[name] for name in sorted(after)}
        # What a rule tolerates may move at any time: it is no part of what a row must be.
        tolerated = self._rule.tolerance
        unwritten = {
            name: part
            for name, part in zip(self._compared, held.values, strict=True)
            if name not in after and name not in tolerated
        }
        change = self._make(difference, Action.UPDATE, before=before, after=after, identity=held.identity)
        return change.but(unwritten=unwritten) if unwritten else change

    def _make_removal(self, difference: Difference) -> Change:
        rule, held = self._rule, difference.existing
        assert held is not None
        before = self._store((*self._key, *self._compared), (*held.key, *held.values))
        before.update(self._live)
        if difference.action is Action.DELETE:  # the order of the removals goes by them
            carried = [part.column for part in self._existing.carried]
            before.update(self._store(carried, held.carried))
        after: dict[str, Stored] | None = None
        if difference.action is Action.SOFT_DELETE:
            assert rule.soft_delete is not None
            marks = dict(zip(self._existing.identity, held.identity, strict=True))
            after = {rule.soft_delete.column: marks[rule.soft_delete.tombstone]}
            if rule.soft_delete.at:
                after[rule.soft_delete.at] = ServerTime.NOW
        action = Action.UPDATE if after is not None else Action.DELETE
        return self._make(difference, action, before=before, after=after, identity=held.identity)

    def _store(self, names: Sequence[str], parts: Sequence[KeyPart]) -> dict[str, Any]:
        """Return parts of a row as they are written, references still as keys."""
        if not self._joins:
            return dict(zip(names, parts, strict=True))
        pairs = zip(names, parts, strict=True)
        return {name: _storable(part, self._joins.get(name)) for name, part in pairs}

    def _make(
        self,
        difference: Difference,
        action: Action,
        *,
        before: Mapping[str, Stored] | None,
        after: Mapping[str, Stored] | None,
        identity: Identity,
    ) -> Change:
        own = {
            "action": action,
            "key": difference.key,
            "identity": identity,
            "before": before,
            "after": after,
            "origin": difference.desired.identity if difference.desired else difference.origin,
            "reason": difference.reason,
            "unwritten": {},
        }
        return made(Change, {**self._common, **own})


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
