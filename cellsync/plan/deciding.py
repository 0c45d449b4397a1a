"""What is done about one difference, and what it means in the users' words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cellsync.model import (
    Action,
    Difference,
    KeyPart,
    Kind,
    Missing,
    Pairing,
    Removes,
    Saying,
    Secrets,
    TableDiff,
    keep_differences,
    rank,
    shown,
)
from cellsync.plan.inputs import Words
from cellsync.spool import ordered


def decide(
    pairing: Pairing, table: TableDiff, names: Mapping[str, str], secrets: Secrets | None = None
) -> TableDiff:
    """Give every difference its action and its meaning in words, which name no value that is hidden."""
    told = _telling(pairing, names, secrets or Secrets())
    if isinstance(table.differences, Missing):
        # With one action, for what would speak against it is such that it is not found like this.
        alike = table.differences.decided(pairing.rule.on_missing, lambda each: _decided(each, told))
        return replace(table, differences=alike)
    every = (_decided(d, told) for d in table.differences)
    decided = keep_differences(every)
    return replace(table, differences=ordered(decided, key=_order))


@dataclass(frozen=True)
class _Telling:
    """What the differences of one table are told with."""

    pairing: Pairing
    names: Mapping[str, str]
    secrets: Secrets
    actions: Mapping[Kind, Action]
    """What the rule does about each kind."""
    sayings: Mapping[Kind, Sequence[tuple[Saying, str]]]
    """What it says about each kind, in order: the first that is about the row's values is taken."""
    plain: Mapping[Kind, str]
    """What is said about all others."""

    def safe(self, column: str, value: KeyPart) -> KeyPart:
        """Return a value as it may be shown."""
        return self.secrets.safe(column, value, table=self.pairing.rule.table)


def _telling(pairing: Pairing, names: Mapping[str, str], secrets: Secrets) -> _Telling:
    rule = pairing.rule
    cells = {"here": pairing.existing_cell, "there": pairing.desired_cell}
    return _Telling(
        pairing,
        names,
        secrets,
        actions={Kind.MISSING: rule.on_missing, Kind.CHANGED: rule.on_changed, Kind.EXTRA: rule.on_extra},
        sayings={kind: [(each, text) for each in rule.says if (text := _said(each, kind))] for kind in Kind},
        plain={kind: text.format(**cells) for kind, text in _PLAIN.items()},
    )


def _order(difference: Difference) -> tuple[int, tuple[Any, ...]]:
    return list(Kind).index(difference.kind), rank(difference.key)


def _decided(difference: Difference, told: _Telling) -> Difference:
    if difference.action is Action.REPLACE:  # whether it may be was seen when it was found
        bare = difference.kind is Kind.CHANGED and not difference.columns
        parts = [] if bare else [_meaning(difference, told)]
        return difference.decided(Action.REPLACE, "; ".join([*parts, difference.reason]))
    rule = told.pairing.rule
    action, meaning = told.actions[difference.kind], _meaning(difference, told)
    if rule.comes_with is not None and difference.kind is not Kind.MISSING:
        action = Action.REPORT
    if difference.aside and action not in (Action.REPORT, Action.IGNORE):
        return difference.decided(Action.REPORT, f"{meaning}; it is set aside: see the findings")
    if (
        difference.kind is Kind.MISSING
        and action is not Action.IGNORE
        and (why := _held_back(difference, told))
    ):
        action, meaning = Action.REPORT, f"{meaning}; {why}"
    removes = action in (Action.DELETE, Action.SOFT_DELETE)
    if removes and difference.turned is not None:
        there = told.pairing.desired_cell
        action, meaning = (
            Action.REPORT,
            f"{meaning}; {there} still had it when it was read first, so it stays until the next run",
        )
    elif removes and not difference.pushed and rule.removes is Removes.PUSHED:
        action, meaning = Action.REPORT, f"{meaning}; cellsync did not write it, so it stays"
    elif action is Action.SOFT_DELETE:
        action, why = _soft_delete(difference, told.pairing)
        meaning = f"{meaning}; {why}"
    return difference.decided(action, meaning)


def _held_back(difference: Difference, told: _Telling) -> str:
    """Say why a missing row must not be inserted; "" where nothing speaks against it."""
    there = told.pairing.existing_cell
    if difference.tombstone is not None and not told.pairing.rule.revives:
        return f"{there} deleted it at {difference.tombstone}, so it is not brought back"
    if difference.left_out:
        return f"{there} has a row of that key, which this rule leaves out, so it is not inserted"
    if difference.claimed:
        return f"{' and '.join(difference.claimed)} have it, so it is not inserted from any of them"
    return ""


def _soft_delete(difference: Difference, pairing: Pairing) -> tuple[Action, str]:
    """Decide about an extra row: only a deletion that is newer than the row is pushed."""
    made = difference.existing.since if difference.existing else None
    if difference.tombstone is None:
        cell = pairing.desired_cell
        unsaid = (
            f"nothing in {cell} says that it was deleted" if difference.pushed else f"{cell} never deleted it"
        )
        return Action.REPORT, unsaid
    if difference.pushed:
        return Action.SOFT_DELETE, f"cellsync wrote it, and {pairing.desired_cell} deleted it since"
    if made is None:
        return Action.REPORT, f"nothing says whether it is older than the deletion of {difference.tombstone}"
    if made > difference.tombstone:
        return Action.REPORT, f"it was made after the deletion of {difference.tombstone}"
    return Action.SOFT_DELETE, f"{pairing.desired_cell} deleted it at {difference.tombstone} UTC"


def _meaning(difference: Difference, told: _Telling) -> str:
    if said := told.sayings[difference.kind]:
        row = difference.desired or difference.existing
        values = dict(zip(told.pairing.rule.key, difference.key, strict=True))
        if row is not None:
            values.update(zip(told.pairing.columns, row.values, strict=True))
        for saying, text in said:
            if all(values.get(name) == value for name, value in saying.rows.items()):
                return text.format_map(_words(difference, values, told))
    return told.plain[difference.kind]


def _words(difference: Difference, values: Mapping[str, KeyPart], told: _Telling) -> Words:
    """Return what a saying may name: the row's columns, the cells, and what changed."""
    key, changed = told.pairing.rule.key, difference.columns
    words = Words(told.names)
    words.update({n: shown(value if n in key else told.safe(n, value)) for n, value in values.items()})
    words["was"] = _listed((d.column, told.safe(d.column, d.existing)) for d in changed)
    words["now"] = _listed((d.column, told.safe(d.column, d.desired)) for d in changed)
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
