"""The changes that replace rows: an old row goes with what refers to it, and the new one comes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from cellsync.model import (
    Action,
    Change,
    Dangling,
    Difference,
    Key,
    KeyPart,
    Pairing,
    Skipped,
    Surrogate,
    Table,
    Use,
    Value,
)
from cellsync.plan.changing import make_replacement
from cellsync.plan.inputs import Compared, Target

Part = tuple[Compared, Difference]


def find_preserved(pairing: Pairing) -> str | None:
    """Return the column whose id the rows of a rule keep everywhere; None where there is not just one."""
    surrogate = pairing.rule.surrogate
    names = [name for name in pairing.columns if surrogate.get(name) is Surrogate.PRESERVE]
    return names[0] if len(names) == 1 else None


def list_uses(pairing: Pairing, table: Table, others: Iterable[Pairing], value: Value) -> tuple[Use, ...]:
    """Return which rows must not be there when a row with this preserved id is removed.

    Those that the rule names, those of ``others`` that refer to the row by a column outside their key, and
    those of tables with a foreign key to ``table`` that no rule writes along with it.
    """
    rule, column = pairing.rule, find_preserved(pairing)
    named = rule.replaces.unless_used_in if rule.replaces is not None else ()
    uses = [Use(each.table, each.column, value, each.where) for each in named]
    covered: set[str] = set()
    for other in others:
        for name, target in other.rule.references.items():
            if target == rule.id and name in other.rule.key:
                covered.add(other.existing.table)
            elif target == rule.id:
                soft = other.existing.soft_delete
                live = f"`{soft.column}` = {soft.live!r}" if soft is not None else None
                uses.append(Use(other.existing.table, name, value, live))
    known = {(use.table, use.column) for use in uses}
    for key in (*table.referrers, *table.cascades):
        if column not in key.references or key.table in covered:
            continue
        # Of a key of several columns this one alone is looked at: rather a use too many than one too few.
        place = (key.table, key.columns[key.references.index(column)])
        if place not in known:
            uses.append(Use(*place, value))
    return tuple(uses)


def replace_rows(
    every: Sequence[Compared], going: Sequence[Compared], target: Target, failed: Collection[str]
) -> Iterator[Change | Skipped]:
    """Yield the changes of all rows that are replaced, each with what refers to it in one piece.

    ``every`` are the compared rules as they were found, referenced rules first, and ``going`` what guards
    have left of them. Where one row of a piece is not to be written, none of it is.
    """
    if not any(each.table.does(Action.REPLACE) for each in every):
        return
    left = {each.pairing.rule.id: {d.key for d in each.table.select({Action.REPLACE})} for each in going}
    number = 0
    for each in every:
        rule = each.pairing.rule
        for difference in each.table.select({Action.REPLACE}) if rule.replaces is not None else ():
            parts = list(_find_parts(every, rule.id, difference.key))
            whole = [(each, difference), *parts]
            held = {one.pairing.rule.id for one, d in whole if d.key not in left.get(one.pairing.rule.id, ())}
            held |= {*failed} & {one.pairing.rule.id for one, _ in whole}
            if held:
                if rule.id not in held:
                    why = f"it is replaced with rows of {', '.join(sorted(held))}, which are not written"
                    yield Skipped(rule=rule.id, key=difference.key, reason=why)
                continue
            number += 1
            uses = list_uses(
                each.pairing, each.written, (e.pairing for e in every), _read_old_id(each, difference)
            )
            removal, insert = make_replacement(each, difference, target, unless=uses)
            made = [make_replacement(one, part, target) for one, part in parts]
            piece = (*(old for old, _ in reversed(made)), removal, insert, *(new for _, new in made))
            name = f"replace:{rule.id[:40]}:{number}"
            yield from (change.but(together=name) for change in piece if change is not None)


def _read_old_id(each: Compared, difference: Difference) -> Value:
    column, row = find_preserved(each.pairing), difference.existing
    assert column is not None and row is not None
    return plain_value(row.values[each.pairing.columns.index(column)])


def plain_value(part: KeyPart) -> Value:
    """Return a value of a row that is no reference."""
    assert not isinstance(part, (tuple, Dangling)), part
    return part


def _find_parts(every: Sequence[Compared], rule: str, key: Key) -> Iterator[Part]:
    """Yield the differences of rows that refer to a row by their keys."""
    for other in every:
        names = other.pairing.rule.key
        places = [at for at, name in enumerate(names) if other.pairing.rule.references.get(name) == rule]
        for difference in other.table.differences if places else ():
            if any(difference.key[at] == key for at in places):
                yield other, difference
