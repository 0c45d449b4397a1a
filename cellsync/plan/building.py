"""The plan of one edge: guarded, ordered, with what people must do afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cellsync.model import (
    Action,
    Change,
    Gate,
    Plan,
    Skipped,
    Value,
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
    for actions, sequence in (
        ({Action.INSERT}, going),
        ({Action.UPDATE}, going),
        ({Action.SOFT_DELETE, Action.DELETE}, list(reversed(going))),
    ):
        for each in sequence:
            made, left = changes_of(each, actions, target, failed)
            if actions == {Action.UPDATE}:
                made, tangled = untangled(made, each.written)
                left = [*left, *tangled]
            changes += made
            skipped += left
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


def _ordered(compared: Sequence[Compared]) -> list[Compared]:
    """Order the rules so that every table comes after the tables that it references.

    References of the rules are acyclic (rules.load checks it); a foreign key that would close a
    circle orders nothing.
    """
    by_rule = {each.pairing.rule.id: each for each in compared}
    by_table: dict[str, list[str]] = {}
    for each in compared:
        by_table.setdefault(each.written.name, []).append(each.pairing.rule.id)

    def needed(each: Compared) -> Iterator[str]:
        yield from each.pairing.rule.references.values()
        for key in each.written.foreign_keys:
            yield from by_table.get(key.table, ())

    placed: dict[str, Compared] = {}

    def place(rule_id: str, above: frozenset[str]) -> None:
        if rule_id in placed or rule_id in above or rule_id not in by_rule:
            return
        for other in needed(by_rule[rule_id]):
            place(other, above | {rule_id})
        placed[rule_id] = by_rule[rule_id]

    for rule_id in by_rule:
        place(rule_id, frozenset())
    return list(placed.values())


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
