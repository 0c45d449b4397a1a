"""Whether a rule may write at all, and what of it: limits, and what its table or its server forbids."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from cellsync.model import (
    Action,
    Health,
    Kind,
    Limit,
    Refusal,
)
from cellsync.plan.inputs import Compared, Target
from cellsync.plan.withholding import list_stopped

FREE_TO_GO = 10
"""So many rows may always leave the desired side between two readings: as many as limits always allow."""


_Found = tuple[str, ...]
"""A code, a message, and the kinds of changes that wait; without these the whole rule waits."""


def has_fallen(before: int, now: int) -> bool:
    """Say whether a table, or a sample of it, lost so much between two readings that nothing may rely on it.

    Readings of one run are seconds apart. In this time applications delete a few rows; a TRUNCATE, a
    restore under way or a DELETE without its WHERE take most of them. Half of the rows is far from both.
    """
    return before > now and (now == 0 or (before - now > FREE_TO_GO and now * 2 < before))


def refuse(compared: Compared, waived: Collection[str] = ()) -> Iterator[Refusal]:
    """Yield the guards that stop a rule, or some of its changes, each with its numbers and what to do.

    ``waived`` holds what people waived: "CODE" for every rule, or "CODE:RULE".
    """
    rule = compared.pairing.rule
    for guard in (_over_limit, _empty_desired, _desired_fell, _acts_on_others, _without_transactions):
        for code, message, *holds in guard(compared):
            if not {code, f"{code}:{rule.id}"} & set(waived):
                said = f"{message} (--waive {code}:{rule.id})"
                yield Refusal(code=code, rule=rule.id, message=said, holds=tuple(holds))
    if any(counted(compared).values()) and not compared.pairing.existing.identity:
        table, cell = compared.written.name, compared.pairing.existing_cell
        message = (
            f"{table} in {cell} has no primary key, and no unique index without NULLs, to find a row again "
            f"by: add one; nothing can be written without"
        )
        yield Refusal(code="no-primary-key", rule=rule.id, message=message)


def counted(compared: Compared) -> Mapping[str, int]:
    """Return how many rows a rule would insert, update and delete."""
    does, replaced = compared.table.does, _count_replaced
    return {
        "inserts": does(Action.INSERT) + replaced(compared, but=Kind.EXTRA),
        "updates": does(Action.UPDATE),
        "deletes": does(Action.DELETE, Action.SOFT_DELETE) + replaced(compared, but=Kind.MISSING),
    }


def _count_replaced(compared: Compared, *, but: Kind) -> int:
    """Return how many rows are replaced: a missing one is only inserted then, an extra one only removed."""
    tally = compared.table.tally.items()
    return sum(count for sort, count in tally if sort.action is Action.REPLACE and sort.kind is not but)


def _over_limit(compared: Compared) -> Iterator[_Found]:
    limits, existing = compared.pairing.rule.limits, compared.table.existing_rows
    given: Mapping[str, Limit | None] = {
        "inserts": limits.inserts,
        "updates": limits.updates,
        "deletes": limits.deletes,
    }
    for name, count in counted(compared).items():
        limit = given[name]
        if limit is None or count <= max(limits.free, limit.allowance(existing)):
            continue
        yield (
            "limit",
            f"{count} {name} of the {existing} rows of {compared.written.name} in "
            f"{compared.pairing.existing_cell} are more than the limit of {limit} "
            f"({limit.allowance(existing)} rows, {limits.free} are always allowed); look whether "
            f"{compared.pairing.desired_cell} is what it should be, then raise the limit or waive it",
            name,
        )


def _empty_desired(compared: Compared) -> Iterator[_Found]:
    deletes, first = counted(compared)["deletes"], compared.desired_first
    before = compared.table.desired_rows if first is None else first  # of all children
    if deletes and 0 in (before, compared.desired_again):
        yield (
            "empty-desired",
            f"{compared.written.name} is empty in {compared.pairing.desired_cell}, and {deletes} rows would "
            f"be deleted in {compared.pairing.existing_cell}; no limit allows that",
        )


def _desired_fell(compared: Compared) -> Iterator[_Found]:
    first = compared.desired_first
    before, now = compared.table.desired_rows if first is None else first, compared.desired_again
    if now is not None and has_fallen(before, now):
        rule, cell = compared.pairing.rule, compared.pairing.desired_cell
        yield "desired-fell", describe_fall(rule.table, cell, before, now, "it was compared")


def describe_fall(table: str, cell: str, before: int, now: int, since: str) -> str:
    """Return the words in which a sharp fall is refused; ``since`` says since when."""
    return (
        f"{table} had {before} rows in {cell} when {since}, and has {now} now: look whether it was emptied "
        f"or is being restored, and run again"
    )


def _acts_on_others(compared: Compared) -> Iterator[_Found]:
    counts, table, cell = counted(compared), compared.written, compared.pairing.existing_cell
    if table.triggers and any(counts.values()):
        yield (
            "triggers",
            f"{table.name} in {cell} has triggers ({', '.join(table.triggers)}): what they write is "
            f"neither planned nor undone",
        )
    gone = compared.table.does(Action.DELETE)
    if compared.pairing.rule.soft_delete is None:
        gone += _count_replaced(compared, but=Kind.MISSING)
    falling = [str(key) for key in table.cascades if key.on_delete and gone]
    if falling:
        yield "cascade", _cascade(f"deleting rows of {table.name} in {cell}", falling), "deletes"
    moving = {name.lower() for name in compared.table.updated_columns}
    following = [
        str(key)
        for key in table.cascades
        if key.on_update and moving & {name.lower() for name in key.references}
    ]
    if following:
        what = f"updating {', '.join(sorted(moving))} of {table.name} in {cell}"
        yield "cascade", _cascade(what, following), "updates"


def _cascade(what: str, keys: Sequence[str]) -> str:
    return (
        f"{what} changes or deletes rows of other tables through {', '.join(keys)}, which is neither "
        f"planned nor undone"
    )


def _without_transactions(compared: Compared) -> Iterator[_Found]:
    table, cell = compared.written, compared.pairing.existing_cell
    if not any(counted(compared).values()):
        return
    if table.engine and table.engine.lower() not in {"innodb", "sqlite"}:
        yield (
            "engine",
            f"{table.name} in {cell} is {table.engine}, which has no transactions: a change and its record "
            f"could not be made together",
        )


def _unwritable(health: Health, cell: str) -> Iterator[tuple[str, str]]:
    """Yield the guards about the database as a whole."""
    if health.read_only:
        yield "read-only", f"{cell} is read-only (@@read_only): is it the database that is in use?"
    if health.replica:
        yield (
            "replica",
            f"{cell} is a replica, and replication is running into it: write to its primary instead",
        )
    if health.galera_status not in (None, "Primary"):
        yield (
            "galera-not-primary",
            f"{cell} is a Galera node without a quorum (wsrep_cluster_status {health.galera_status})",
        )
    if health.galera_state not in (None, "Synced"):
        yield (
            "galera-not-synced",
            f"{cell} is a Galera node that is behind (wsrep_local_state_comment {health.galera_state})",
        )


def refuse_all(compared: Sequence[Compared], target: Target, waived: Collection[str]) -> Iterator[Refusal]:
    """Yield the guards about the database as a whole, for every rule that would write to it."""
    rules = [each.pairing.rule.id for each in compared if any(counted(each).values())]
    yield from unwritable(target.health, target.written, rules, waived)


def unwritable(
    health: Health, cell: str, rules: Collection[str], waived: Collection[str]
) -> Iterator[Refusal]:
    """Yield why these rules must not write to a cell, whatever they would write."""
    for code, message in _unwritable(health, cell):
        for rule in rules:
            if not {code, f"{code}:{rule}"} & set(waived):
                yield Refusal(code=code, rule=rule, message=f"{message} (--waive {code})")


def with_dependents(refusals: Sequence[Refusal], compared: Sequence[Compared]) -> list[Refusal]:
    """Add the rules that reference a refused rule: their rows would lead nowhere."""
    result = list(refusals)
    stopped = list_stopped(refusals)
    for each in compared:
        rule = each.pairing.rule
        causes = sorted(stopped & set(rule.references.values()) - {rule.id})
        if causes and rule.id not in stopped and any(counted(each).values()):
            result.append(
                Refusal(
                    code="depends",
                    rule=rule.id,
                    message=f"refers to rows of {', '.join(causes)}, which was refused; waive that first",
                )
            )
            stopped.add(rule.id)
    return result
