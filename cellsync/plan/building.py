"""The plan of one edge: guarded, ordered, with what people must do afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, filterfalse, groupby
from typing import Union

from cellsync.model import (
    Action,
    Change,
    Gate,
    Join,
    Key,
    Kind,
    Load,
    Plan,
    Projected,
    Reference,
    Refusal,
    Rule,
    Skipped,
    Value,
    deed_of,
    shown,
)
from cellsync.plan.changing import changes as changes_of
from cellsync.plan.changing import load as load_of
from cellsync.plan.guarding import refuse, refuse_all, with_dependents
from cellsync.plan.inputs import Compared, Target, Words
from cellsync.plan.joining import joined
from cellsync.plan.linking import Linked, can_open
from cellsync.plan.ordering import untangled
from cellsync.plan.precedence import Early, chosen, find_early
from cellsync.plan.replacing import replace_rows
from cellsync.plan.sequencing import find_moving_rules, sequence
from cellsync.plan.withholding import Waiting, hold_back, list_held, list_stopped
from cellsync.spool import Collector

Step = Union[Change, Skipped]
"""What is done, or left, in its place in the order."""


def build(
    compared: Sequence[Compared],
    target: Target,
    *,
    waived: Collection[str] = (),
    failed: Collection[str] = (),
    coming: Mapping[str, str] | None = None,
    refusals: Sequence[Refusal] | None = None,
) -> Plan:
    """Return the plan for one edge.

    ``compared`` holds decided results of the rules that write to the target; ``failed`` names the
    rules that could not be compared there, and ``coming`` says of rules whose rows come with others'
    with those of which rule. ``refusals`` are found where none are given. Rows of referenced tables are
    inserted first and deleted last, whether a rule or only a foreign key of the schema says that they are
    referenced.
    Rows that get another key are updated before new rows that refer to them by it, others after all inserts.
    """
    ordered = every = _ordered(compared)
    refusals = find_refusals(ordered, target, waived) if refusals is None else refusals
    stopped, ordered = list_stopped(refusals), hold_back(ordered, refusals)
    going = [each for each in ordered if each.pairing.rule.id not in stopped]
    changes: Collector[Change] = Collector(tally=deed_of)
    skipped: Collector[Skipped] = Collector()
    aside = {each.pairing.rule.id: set(find_aside(each)) for each in ordered}
    held = _held(ordered)
    sooner = find_early(going, target, failed)
    moving = find_moving_rules(going) | {each.pairing.rule.id for each in going if each.clashes.sequenced}
    early = {
        each.pairing.rule.id: None if each.pairing.rule.id in moving else _before_inserts(each, going, sooner)
        for each in going
    }
    apart: list[Step] = []
    removing = {Action.SOFT_DELETE, Action.DELETE}
    linked = Linked(going, lambda each, actions: changes_of(each, actions, target, failed))
    leaving = [each for each in reversed(going) if sooner.get(each.pairing.rule.id, Early()).removals]
    joins = {each.pairing.rule.id: each.pairing.existing.joins for each in ordered}
    for actions, part in (
        (removing, leaving),
        ({Action.INSERT}, going),
        ({Action.UPDATE}, going),
        (removing, [*reversed(going)]),
    ):
        emptied: list[tuple[Compared, Iterable[Step]]] = []
        for each in part:
            if each.pairing.rule.comes_with is not None:
                continue  # they are made with the rows that they come with
            if (
                actions == {Action.INSERT}
                and each.pairing.rule.id not in moving
                and (load := _load(each, ordered, target, coming or {})) is not None
                and linked.takes_as_it_is(each, load)
            ):
                changes.attach(load)
                continue
            steps = changes_of(each, actions, target, failed)
            first = early[each.pairing.rule.id]
            if actions == {Action.INSERT}:
                lacking = _lacking(each, stopped | list_held(refusals, "inserts"), failed, coming or {})
                steps = _whole(steps, each, ordered, target, lacking=lacking)
                if first is not None:
                    updates = filter(first, changes_of(each, {Action.UPDATE}, target, failed))
                    steps = chain(_written_in_order(updates, each), steps)
            if part is not going:
                keys = chosen(sooner.get(each.pairing.rule.id, Early()).removals)
                steps = filter(keys, steps) if part is leaving else filterfalse(keys, steps)
                steps = _kept(steps, each, ordered, stopped, held)
            if actions == {Action.UPDATE}:
                rest = filterfalse(first, steps) if first is not None else steps
                steps = _written_in_order(rest, each)
            steps = _placed(steps, aside, joins)
            if actions == {Action.INSERT}:
                steps = linked.insert(each, steps, aside)
            if part is not going and linked.removals:
                emptied.append((each, [*steps]))  # some of them are emptied before any is removed
                continue
            _sort_out(steps, changes, skipped, apart if each.pairing.rule.id in moving else None)
        late: Iterable[Step] = linked.filled if actions == {Action.INSERT} else linked.remove(emptied)
        for rule, steps in groupby(late, key=lambda step: step.rule):
            _sort_out(steps, changes, skipped, apart if rule in moving else None)
    _sort_out(chain(sequence(apart, going), replace_rows(every, going, target, failed)), changes, skipped)
    plan = Plan(
        child=target.child,
        written=target.written,
        database=target.database,
        changes=changes.kept(),
        skipped=skipped.kept(),
        refusals=tuple(refusals),
    )
    return _with_notices(plan, going, target)


def find_refusals(compared: Sequence[Compared], target: Target, waived: Collection[str]) -> list[Refusal]:
    """Return why rules of an edge must not write, or not all, those that refer to a refused one among them.

    Limits are judged on what is left of a rule without the rows that wait for those of others.
    """
    ordered = _ordered(compared)
    refusals = [*refuse_all(ordered, target, waived)]
    waiting = Waiting()
    for each in ordered:
        less, keys = waiting.hold_dependents(each)
        if keys:
            refusals.append(_describe_waiting(each, len(keys)))
        found = [*refuse(less, waived)]
        waiting.hold(less, found)
        refusals += found
    return with_dependents(refusals, ordered)


def _describe_waiting(each: Compared, number: int) -> Refusal:
    rule = each.pairing.rule
    named = ", ".join(sorted({join.rule for join in each.pairing.existing.joins.values()}))
    message = f"{number} deletes wait: the rows of {named} to which they belong stay, as was said"
    return Refusal(code="depends", rule=rule.id, message=message, holds=("deletes",))


def arrange_held(compared: Sequence[Compared], refusals: Sequence[Refusal]) -> list[Compared]:
    """Return the rules as they stand without what waits by these refusals."""
    left = {each.pairing.rule.id: each for each in hold_back(_ordered(compared), refusals)}
    return [left[each.pairing.rule.id] for each in compared]


def _written_in_order(updates: Iterable[Step], each: Compared) -> Iterator[Step]:
    """Return updates of a rule so that no unique value is taken before it is given up."""
    return untangled(updates, each.written, each.clashes.waits)


def _sort_out(
    steps: Iterable[Step],
    changes: Collector[Change],
    skipped: Collector[Skipped],
    apart: list[Step] | None = None,
) -> None:
    """Keep changes, and what is left out; changes in ``apart``, where their order is not decided yet."""
    to: Collector[Change] | list[Step] = changes if apart is None else apart
    for step in steps:
        if isinstance(step, Change):
            to.append(step)
        else:
            skipped.append(step)


def _load(
    each: Compared, ordered: Sequence[Compared], target: Target, coming: Mapping[str, str]
) -> Load | None:
    """Return the INSERTs of a rule as one; None where each must be looked at."""
    name = each.pairing.rule.id
    led = any((with_ := other.pairing.rule.comes_with) and with_.rule == name for other in ordered)
    return None if led or name in coming.values() else load_of(each, target)


def _before_inserts(
    each: Compared, going: Sequence[Compared], sooner: Mapping[str, Early]
) -> Callable[[Step], bool] | None:
    """Return which updates of a rule stand before its inserts; None where none does.

    Those that give up what new rows take (see ``precedence``), and those that rename rows.
    """
    renames, keys = _renames(each, going), sooner.get(each.pairing.rule.id, Early()).updates
    if not keys:
        return renames
    return lambda step: step.key in keys or (renames is not None and renames(step))


def _renames(each: Compared, going: Sequence[Compared]) -> Callable[[Step], bool] | None:
    """Return which updates of a rule stand before its inserts because they rename rows.

    Where rows get other keys, these are all: new rows that refer to them find them by these. In a table that
    refers to itself, those that give another one, but to no row that comes to refer to a new one.
    """
    rule, table, names = each.pairing.rule, each.table, {*each.pairing.rule.key}
    referring = [
        other
        for other in going
        if any(join.rule == rule.id for join in other.pairing.existing.joins.values())
    ]
    if not referring or table.updated_columns.isdisjoint(names):
        return None
    if not any(other is each for other in referring):
        return lambda step: isinstance(step, Change)
    new = {Reference(rule=rule.id, key=d.key) for d in table.select({Action.INSERT})}

    def renames(step: Step) -> bool:
        after = (step.after if isinstance(step, Change) else None) or {}
        references = {value for value in after.values() if isinstance(value, Reference)}
        return not after.keys().isdisjoint(names) and new.isdisjoint(references)

    return renames


def _lacking(
    leader: Compared, stopped: Collection[str], failed: Collection[str], coming: Mapping[str, str]
) -> dict[str, str]:
    """Return which rules' rows, that come with those of another, cannot be had, and why."""
    mine = [rule for rule, of in coming.items() if of == leader.pairing.rule.id]
    refused = {rule: "it was refused" for rule in mine if rule in stopped}
    return {**refused, **{rule: "it could not be compared" for rule in mine if rule in failed}}


def _whole(
    steps: Iterator[Step],
    leader: Compared,
    ordered: Sequence[Compared],
    target: Target,
    *,
    lacking: Mapping[str, str],
) -> Iterator[Step]:
    """Put the rows that come with new rows of a rule to them, where any do."""
    name = leader.pairing.rule.id
    mine = [each for each in ordered if (with_ := each.pairing.rule.comes_with) and with_.rule == name]
    if not mine and not lacking:
        return steps
    companions = [each for each in mine if each.pairing.rule.id not in lacking]
    return joined(steps, leader, companions, target, lacking=lacking)


def _held(ordered: Sequence[Compared]) -> dict[Reference, str]:
    """Return which rows are referred to by extra rows that stay, and by which rule's."""
    removing = {
        each.pairing.rule.id for each in ordered if each.table.does(Action.DELETE, Action.SOFT_DELETE)
    }
    held: dict[Reference, str] = {}
    for each in ordered:
        rule, projection = each.pairing.rule, each.pairing.existing
        if removing.isdisjoint(rule.references.values()):
            continue
        staying = (d for d in each.table.differences if d.action in (Action.REPORT, Action.IGNORE))
        extra = (d.existing for d in staying if d.kind is Kind.EXTRA and d.existing)
        for row in chain(extra, each.table.aside):
            columns, parts = (*projection.key, *projection.columns), (*row.key, *row.values)
            for column, part in zip(columns, parts, strict=True):
                if column.join is not None and isinstance(part, tuple):
                    held[Reference(rule=column.join.rule, key=part)] = rule.id
    return held


def _kept(
    removals: Iterator[Step],
    each: Compared,
    ordered: Sequence[Compared],
    stopped: Collection[str],
    held: dict[Reference, str],
) -> Iterator[Step]:
    """Keep the rows of a rule that rows which stay refer to; adds to ``held`` what those refer to.

    All of them, where a rule that refers to them was refused.
    """
    rule = each.pairing.rule.id
    staying = [
        other.pairing.rule.id
        for other in ordered
        if other.pairing.rule.id in stopped
        and rule in other.pairing.rule.references.values()
        and other.table.does(Action.DELETE, Action.SOFT_DELETE)
    ]
    refused = f"rows of {', '.join(staying)} may refer to it, and that rule was refused"
    for step in removals:
        by = held.get(Reference(rule=rule, key=step.key))
        if not isinstance(step, Change) or not (staying or by):
            yield step
            continue
        held.update({v: rule for v in (step.before or {}).values() if isinstance(v, Reference)})
        reason = refused if staying else f"rows of {by} that stay refer to it"
        yield Skipped(rule=rule, key=step.key, reason=reason)


def find_kept_removals(
    compared: Sequence[Compared], target: Target, failed: Collection[str]
) -> Iterator[Skipped]:
    """Yield the removals that are not made: a row that stays refers to theirs, or theirs to no one row."""
    ordered = _ordered(compared)
    held = _held(ordered)
    aside = {each.pairing.rule.id: set(find_aside(each)) for each in ordered}
    joins = {each.pairing.rule.id: each.pairing.existing.joins for each in ordered}
    for each in reversed(ordered) if held or any(aside.values()) else ():
        removals = changes_of(each, {Action.SOFT_DELETE, Action.DELETE}, target, failed)
        for step in _placed(_kept(removals, each, ordered, (), held), aside, joins):
            if isinstance(step, Skipped):
                yield step


def find_aside(each: Compared) -> Iterator[Key]:
    """Yield the keys that nothing may refer to: which row they mean, or whether it comes, is open."""
    yield from each.clashes.lost
    for finding in each.table.findings:
        if finding.key is not None and finding.code in ("duplicate-key", "collation-twin", "preserved-id"):
            yield finding.key
            yield from finding.twins


def _placed(
    steps: Iterator[Step], aside: Mapping[str, set[Key]], joins: Mapping[str, Mapping[str, Join]]
) -> Iterator[Step]:
    """Skip the changes that refer to rows which cannot be told; adds to ``aside``.

    What refers to a row that was set aside would only be a conflict when it is written. ``joins`` says of
    each rule where its columns lead.
    """
    for step in steps:
        lost = None
        if isinstance(step, Change) and any(aside.values()):
            lost = _find_lost(step, aside, joins.get(step.rule, {}))
        if lost is None:
            yield step
            continue
        reason = f"it refers to {shown(lost.key)} of {lost.rule}, which was set aside: see the findings"
        yield Skipped(rule=step.rule, key=step.key, reason=reason)
        if isinstance(step, Change) and step.action is Action.INSERT:
            aside[step.rule].add(step.key)


def _find_lost(change: Change, aside: Mapping[str, set[Key]], joins: Mapping[str, Join]) -> Reference | None:
    """Return the row set aside that a change refers to, or a row that it refers to does, and so on."""
    for column, value in (item for row in (change.before, change.after) for item in (row or {}).items()):
        if isinstance(value, Reference):
            join = joins.get(column)
            lost = _find_aside(value, join.key if join is not None else (), aside)
            if lost is not None:
                return lost
    return None


def _find_aside(
    reference: Reference, key: Sequence[Projected], aside: Mapping[str, set[Key]]
) -> Reference | None:
    if reference.key in aside.get(reference.rule, ()):
        return reference
    for part, projected in zip(reference.key, key, strict=False):
        if projected.join is not None and isinstance(part, tuple):
            inner = Reference(rule=projected.join.rule, key=part)
            lost = _find_aside(inner, projected.join.key, aside)
            if lost is not None:
                return lost
    return None


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
        rule: (set(each.pairing.rule.references.values()) | _led(each)) & set(by_rule) - {rule}
        for rule, each in by_rule.items()
    }
    # Those that can be NULL for a moment last: it is them that a circle is opened at (see ``linking``).
    for can_be_empty in (False, True):
        for rule, each in by_rule.items():
            for key in each.written.foreign_keys:
                for other in by_table.get(key.table, ()) if can_open(each, key) is can_be_empty else ():
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


def _led(each: Compared) -> set[str]:
    comes_with = each.pairing.rule.comes_with
    return {comes_with.rule} if comes_with is not None else set()


def _reached(start: str, needed: Mapping[str, Collection[str]]) -> set[str]:
    """Return a rule and all that it needs, directly or not."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        rule = waiting.pop()
        waiting += needed[rule] if rule not in reached else ()
        reached.add(rule)
    return reached


def _with_notices(plan: Plan, going: Sequence[Compared], target: Target) -> Plan:
    writing = {deed.rule for deed in plan.deeds}
    rules = (each.pairing.rule for each in going if each.pairing.rule.id in writing)
    return replace(plan, notices=tuple(list_notices(rules, target.names, target.version)))


def list_notices(rules: Iterable[Rule], names: Mapping[str, str], version: Value) -> Iterator[str]:
    """Yield what people must do after these rules have written, each text once.

    ``names`` is {"parent": ..., "child": ...}; ``version`` is the schema version of the written
    database, for the gates, or None.
    """
    said: set[str] = set()
    for rule in rules:
        for notice in rule.after:
            text = notice.text.format_map(Words(names))
            if text not in said and _applies(notice.when, version):
                said.add(text)
                yield text


def _applies(gate: Gate | None, version: Value) -> bool:
    # A notice too many costs a restart; a notice too few leaves the repair without effect.
    return gate is None or gate.admits(version) is not False
