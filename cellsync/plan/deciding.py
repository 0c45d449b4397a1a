"""What is done about one difference, and what it means in the users' words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cellsync.model import (
    Action,
    Difference,
    KeyPart,
    Kind,
    Pairing,
    Removes,
    Rule,
    Saying,
    TableDiff,
    rank,
    shown,
    sort_of,
)
from cellsync.plan.inputs import Words
from cellsync.spool import kept, ordered


def decide(pairing: Pairing, table: TableDiff, names: Mapping[str, str]) -> TableDiff:
    """Give every difference its action and its meaning in words."""
    every = (_decided(pairing.rule, d, pairing, names) for d in table.differences)
    decided = kept(every, tally=sort_of)
    return replace(table, differences=ordered(decided, key=_order))


def _order(difference: Difference) -> tuple[int, tuple[Any, ...]]:
    return list(Kind).index(difference.kind), rank(difference.key)


def _decided(rule: Rule, difference: Difference, pairing: Pairing, names: Mapping[str, str]) -> Difference:
    action = {Kind.MISSING: rule.on_missing, Kind.CHANGED: rule.on_changed, Kind.EXTRA: rule.on_extra}[
        difference.kind
    ]
    meaning = _meaning(rule, difference, pairing, names)
    if rule.comes_with is not None and difference.kind is not Kind.MISSING:
        action = Action.REPORT
    if action is Action.INSERT and not rule.revives and difference.tombstone is not None:
        deleted = f"{pairing.existing_cell} deleted it at {difference.tombstone}"
        action, meaning = Action.REPORT, f"{meaning}; {deleted}, so it is not brought back"
    if (
        action in (Action.DELETE, Action.SOFT_DELETE)
        and not difference.pushed
        and rule.removes is Removes.PUSHED
    ):
        action, meaning = Action.REPORT, f"{meaning}; cellsync did not write it, so it stays"
    elif action is Action.SOFT_DELETE:
        action, why = _soft_delete(difference, pairing)
        meaning = f"{meaning}; {why}"
    return replace(difference, action=action, reason=meaning)


def _soft_delete(difference: Difference, pairing: Pairing) -> tuple[Action, str]:
    """Decide about an extra row: only a deletion that is newer than the row is pushed."""
    made = difference.existing.since if difference.existing else None
    if difference.tombstone is None:
        return Action.REPORT, f"{pairing.desired_cell} never deleted it"
    if difference.pushed:
        return Action.SOFT_DELETE, f"cellsync wrote it, and {pairing.desired_cell} deleted it since"
    if made is None:
        return Action.REPORT, f"nothing says whether it is older than the deletion of {difference.tombstone}"
    if made > difference.tombstone:
        return Action.REPORT, f"it was made after the deletion of {difference.tombstone}"
    return Action.SOFT_DELETE, f"{pairing.desired_cell} deleted it at {difference.tombstone} UTC"


def _meaning(rule: Rule, difference: Difference, pairing: Pairing, names: Mapping[str, str]) -> str:
    said = [(saying, text) for saying in rule.says if (text := _said(saying, difference.kind))]
    row = difference.desired or difference.existing
    values: dict[str, KeyPart] = dict(zip(rule.key, difference.key, strict=True)) if said else {}
    if row is not None and said:
        values.update(zip(pairing.columns, row.values, strict=True))
    for saying, text in said:
        if all(values.get(name) == value for name, value in saying.rows.items()):
            return text.format_map(_words(difference, values, names))
    return _PLAIN[difference.kind].format(here=pairing.existing_cell, there=pairing.desired_cell)


def _words(difference: Difference, values: Mapping[str, KeyPart], names: Mapping[str, str]) -> Words:
    """Return what a saying may name: the row's columns, the cells, and what changed."""
    words = Words(names)
    words.update({name: shown(value) for name, value in values.items()})
    words["was"] = _listed((d.column, d.existing) for d in difference.columns)
    words["now"] = _listed((d.column, d.desired) for d in difference.columns)
    return words


_PLAIN = {
    Kind.MISSING: "is in {there}, but missing in {here}",
    Kind.CHANGED: "is different in {here}",
    Kind.EXTRA: "is in {here}, but not in {there}",
}


def _said(saying: Saying, kind: Kind) -> str | None:
    return {Kind.MISSING: saying.missing, Kind.CHANGED: saying.changed, Kind.EXTRA: saying.extra}[kind]


def _listed(columns: Iterable[tuple[str, KeyPart]]) -> str:
    pairs = list(columns)
    if len(pairs) == 1:
        return shown(pairs[0][1])
    return ", ".join(f"{name} {shown(value)}" for name, value in pairs)
