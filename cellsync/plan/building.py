"""The plan of one edge: guarded, ordered, with what people must do afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from cellsync.model import (
    Action,
    Change,
    Gate,
    Key,
    Plan,
    Reference,
    Skipped,
    TableDiff,
    Value,
    shown,
)
from cellsync.plan.changing import changes as changes_of
from cellsync.plan.guarding import refuse, refuse_all, with_dependents
from cellsync.plan.inputs import Compared, Target, Words
from cellsync.plan.ordering import untangled


def build(
    compared: Sequence[Compared],
    target: Target,
    *,
    waived: Collection[str] = (),
    failed: Collection[str] = (),
) -> Plan:
    """Return the plan for one edge.

    ``compared`` holds decided results of the rules that write to the target; ``failed`` names the
    rules that could not be compared there. Rows of referenced tables are inserted first and
    deleted last, whether a rule or only a foreign key of the schema says that they are referenced.
    """
    ordered = _ordered(compared)
    refusals = [*refuse_all(ordered, target, waived)]
    refusals += [refusal for each in ordered for refusal in refuse(each, waived)]
    refusals = with_dependents(refusals, ordered)
    stopped = {refusal.rule for refusal in refusals}
    going = [each for each in ordered if each.pairing.rule.id not in stopped]
    changes: list[Change] = []
    skipped: list[Skipped] = []
    aside = {each.pairing.rule.id: set(_set_aside(each.table)) for each in ordered}
    for actions, sequence in (
        ({Action.INSERT}, going),
        ({Action.UPDATE}, going),
        ({Action.SOFT_DELETE, Action.DELETE}, list(reversed(going))),
    ):
        for each in sequence:
            made, left = changes_of(each, actions, target, failed)
            if sequence is not going:
                made, kept = _kept(made, each, ordered, stopped)
                left = [*left, *kept]
            if actions == {Action.UPDATE}:
                made, tangled = untangled(made, each.written)
                left = [*left, *tangled]
            made, waiting = _placed(made, aside)
            changes += made
            skipped += [*left, *waiting]
    writing = {change.rule for change in changes}
    return Plan(
        child=target.child,
        written=target.written,
        database=target.database,
        changes=tuple(changes),
        skipped=tuple(skipped),
        refusals=tuple(refusals),
        notices=tuple(_notices(going, writing, target)),
    )


def _kept(
    removals: list[Change], each: Compared, ordered: Sequence[Compared], stopped: Collection[str]
) -> tuple[list[Change], list[Skipped]]:
    """Keep all rows of a rule where rows that refer to them stay, as their own rule was refused."""
    rule = each.pairing.rule.id
    staying = [
        other.pairing.rule.id
        for other in ordered
        if other.pairing.rule.id in stopped
        and rule in other.pairing.rule.references.values()
        and any(d.action in (Action.DELETE, Action.SOFT_DELETE) for d in other.table.differences)
    ]
    if not staying:
        return removals, []
    reason = f"rows of {', '.join(staying)} may refer to it, and that rule was refused"
    return [], [Skipped(rule=rule, key=change.key, reason=reason) for change in removals]


def _set_aside(table: TableDiff) -> Iterator[Key]:
    """Yield the keys that nothing may refer to: which row they mean, or whether it comes, is open."""
    for finding in table.findings:
        if finding.key is not None and finding.code in ("duplicate-key", "collation-twin", "preserved-id"):
            yield finding.key


def _placed(changes: Sequence[Change], aside: Mapping[str, set[Key]]) -> tuple[list[Change], list[Skipped]]:
    """Divide changes by whether all rows that they refer to can be told; adds to ``aside``.

    What refers to a row that was set aside would only be a conflict when it is written.
    """
    made: list[Change] = []
    waiting: list[Skipped] = []
    for change in changes:
        values = [*(change.before or {}).values(), *(change.after or {}).values()]
        lost = [v for v in values if isinstance(v, Reference) and v.key in aside.get(v.rule, ())]
        if not lost:
            made.append(change)
            continue
        reason = f"it refers to {shown(lost[0].key)} of {lost[0].rule}, which was set aside: see the findings"
        waiting.append(Skipped(rule=change.rule, key=change.key, reason=reason))
        if change.action is Action.INSERT:
            aside[change.rule].add(change.key)
    return made, waiting


def _ordered(compared: Sequence[Compared]) -> list[Compared]:
    """Order the rules so that every table comes after the tables that it references.

    References of the rules are acyclic (rules.load checks it) and always hold; a foreign key that
    would close a circle orders nothing.
    """
    by_rule = {each.pairing.rule.id: each for each in compared}
    by_table: dict[str, list[str]] = {}
    for each in compared:
        by_table.setdefault(each.written.name, []).append(each.pairing.rule.id)

    needed: dict[str, set[str]] = {
        rule: set(each.pairing.rule.references.values()) & set(by_rule) - {rule}
        for rule, each in by_rule.items()
    }
    for rule, each in by_rule.items():
        for other in (other for key in each.written.foreign_keys for other in by_table.get(key.table, ())):
            if rule not in _reached(other, needed):
                needed[rule].add(other)
    placed: dict[str, Compared] = {}

    def place(rule: str) -> None:
        for other in by_rule:
            if other in needed[rule] and other not in placed:
                place(other)
        placed[rule] = by_rule[rule]

    for rule in by_rule:
        if rule not in placed:
            place(rule)
    return list(placed.values())


def _reached(start: str, needed: Mapping[str, Collection[str]]) -> set[str]:
    """Return a rule and all that it needs, directly or not."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        rule = waiting.pop()
        waiting += needed[rule] if rule not in reached else ()
        reached.add(rule)
    return reached


def _notices(going: Sequence[Compared], writing: Collection[str], target: Target) -> Iterator[str]:
    said: set[str] = set()
    for each in going:
        if each.pairing.rule.id not in writing:
            continue
        for notice in each.pairing.rule.after:
            text = notice.text.format_map(Words(target.names))
            if text not in said and _applies(notice.when, target.version):
                said.add(text)
                yield text


def _applies(gate: Gate | None, version: Value) -> bool:
    # A notice too many costs a restart; a notice too few leaves the repair without effect.
    return gate is None or gate.admits(version) is not False
