"""What waits where a guard holds back some of what a rule would write, and not the rule.

Deletes beyond a limit stop neither the inserts and updates of their rule nor other rules. What depends on a
row that waits, waits too: rows that are to go with it, and rows that refer to a new one which does not come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from cellsync.model import Action, Difference, Key, Kind, Refusal, keep_differences
from cellsync.plan.inputs import Compared

KINDS: Mapping[str, frozenset[Action]] = {
    "inserts": frozenset({Action.INSERT, Action.REPLACE}),
    "updates": frozenset({Action.UPDATE}),
    "deletes": frozenset({Action.DELETE, Action.SOFT_DELETE, Action.REPLACE}),
}
"""What a limit is about -> the actions."""


def list_stopped(refusals: Sequence[Refusal]) -> set[str]:
    """Return the rules that write nothing."""
    return {refusal.rule for refusal in refusals if not refusal.holds}


def list_held(refusals: Sequence[Refusal], kind: str) -> set[str]:
    """Return the rules of which all changes of a kind wait."""
    return {each.rule for each in refusals if kind in each.holds and each.code != "depends"}


def list_waiting(refusals: Sequence[Refusal]) -> dict[str, frozenset[Action]]:
    """Return the actions that wait, of the rules of which others do not."""
    stopped = list_stopped(refusals)
    found: dict[str, frozenset[Action]] = {}
    for refusal in refusals:
        for kind in refusal.holds if refusal.rule not in stopped else ():
            found[refusal.rule] = found.get(refusal.rule, frozenset()) | KINDS[kind]
    return found


class Waiting:
    """The rows that wait, rule after rule: each after the rules that it refers to."""

    def __init__(self) -> None:
        self._staying: dict[str, set[Key]] = {}
        """Rule -> the keys of rows that were to go."""

    def hold_dependents(self, each: Compared) -> tuple[Compared, set[Key]]:
        """Return a rule without the removals of rows that refer to rows which stay, and their keys."""
        if not self._staying or not each.table.does(*KINDS["deletes"]):
            return each, set()
        found = {
            difference.key
            for difference in each.table.select(KINDS["deletes"])
            if self._refers_to_staying(difference, each)
        }
        self._staying.setdefault(each.pairing.rule.id, set()).update(found)
        return leave_out(each, found), found

    def _refers_to_staying(self, difference: Difference, each: Compared) -> bool:
        row, projection = difference.existing, each.pairing.existing
        columns = (*projection.key, *projection.columns)
        parts = (*row.key, *row.values) if row is not None else ()
        return any(
            column.join is not None and part in self._staying.get(column.join.rule, ())
            for column, part in zip(columns, parts, strict=False)
        )

    def hold(self, each: Compared, refusals: Sequence[Refusal]) -> Compared:
        """Return a rule without what its own refusals hold back."""
        rule = each.pairing.rule.id
        keys: set[Key] = set()
        for refusal in refusals:
            for kind in refusal.holds if refusal.rule == rule and refusal.code != "depends" else ():
                found = {d.key for d in each.table.select(KINDS[kind]) if _is_about(refusal, d, each)}
                if kind == "deletes":
                    self._staying.setdefault(rule, set()).update(found)
                keys |= found
        return leave_out(each, keys)


def hold_back(ordered: Sequence[Compared], refusals: Sequence[Refusal]) -> list[Compared]:
    """Return the rules without what waits by these refusals; ``ordered`` has referenced rules first."""
    if not any(refusal.holds for refusal in refusals):
        return [*ordered]
    waiting = Waiting()
    return [waiting.hold(waiting.hold_dependents(each)[0], refusals) for each in ordered]


def _is_about(refusal: Refusal, difference: Difference, each: Compared) -> bool:
    """Say whether a guard is about this row, too: an update sets a cascade off by some columns alone."""
    if refusal.code != "cascade" or difference.action is not Action.UPDATE:
        return True
    followed = {name.lower() for key in each.written.cascades if key.on_update for name in key.references}
    return any(column.column.lower() in followed for column in difference.columns)


def leave_out(each: Compared, keys: Collection[Key]) -> Compared:
    """Return a compared rule without the rows of some keys; what they refer to stays with them."""
    if not keys:
        return each
    differences = each.table.differences
    referring = differences if each.pairing.existing.joins else ()
    staying = (d.existing for d in referring if d.key in keys and d.kind is not Kind.MISSING)
    table = replace(
        each.table,
        differences=keep_differences(d for d in differences if d.key not in keys),
        aside=(*each.table.aside, *(row for row in staying if row is not None)),
    )
    lost = each.clashes.lost.union(_find_lost(each, keys))
    return replace(each, table=table, clashes=replace(each.clashes, lost=lost))


def _find_lost(each: Compared, keys: Collection[Key]) -> Iterator[Key]:
    """Yield the keys that no row will have: of rows that are not inserted, or do not get them."""
    names = each.pairing.rule.key
    for difference in each.table.differences:
        renamed = any(column.column in names for column in difference.columns)
        if difference.key in keys and (difference.kind is Kind.MISSING or renamed):
            yield difference.key
