"""Rows that come with others: each new row with all of its own, in one transaction or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cellsync.model import Action, Change, Key, Kind, Pairing, Skipped, shown
from cellsync.plan.changing import changes as changes_of
from cellsync.plan.inputs import Compared, Target


@dataclass
class _Coming:
    """What comes with the new rows of one rule, by what it has in common with them; held in memory."""

    changes: dict[Key, list[Change]] = field(default_factory=dict)
    obstacles: dict[Key, str] = field(default_factory=dict)
    """Why a row with these values cannot be made whole."""


def joined(
    steps: Iterable[Change | Skipped],
    leader: Compared,
    companions: Sequence[Compared],
    target: Target,
    *,
    lacking: Mapping[str, str],
) -> Iterator[Change | Skipped]:
    """Yield the new rows of a rule, each before those that come with it, all with one ``together``.

    ``lacking`` says of rules whose rows come along, and which are not among ``companions``, why not:
    then no row is made.
    """
    coming = {each.pairing.rule.id: _coming(each, target) for each in companions}
    pairings = {each.pairing.rule.id: each.pairing for each in companions}
    for step in steps:
        if isinstance(step, Skipped):
            yield step
            continue
        led = {rule: pairing.rule.led(leader.pairing.rule, step.key) for rule, pairing in pairings.items()}
        obstacles = {
            rule: coming[rule].obstacles[key] for rule, key in led.items() if key in coming[rule].obstacles
        }
        reason = "; ".join(f"{rule}: {why}" for rule, why in {**lacking, **obstacles}.items())
        if reason:
            yield Skipped(
                rule=step.rule, key=step.key, reason=f"not all that comes with it can be made: {reason}"
            )
            continue
        own = [change for rule, key in led.items() for change in coming[rule].changes.get(key, ())]
        token = _token(step) if own else ""
        yield from (replace(change, together=token) for change in (step, *own))


def _coming(each: Compared, target: Target) -> _Coming:
    coming, pairing = _Coming(), each.pairing
    for finding in each.table.findings:
        if finding.key is not None:
            coming.obstacles[pairing.rule.leading(finding.key)] = finding.message
    for difference in each.table.differences:
        if difference.kind is not Kind.MISSING:
            there = f"{pairing.existing_cell} has {_named(pairing, difference.key)} already"
            coming.obstacles[pairing.rule.leading(difference.key)] = there
        elif difference.action is not Action.INSERT:
            kept_out = f"{_named(pairing, difference.key)} is not to be inserted"
            coming.obstacles[pairing.rule.leading(difference.key)] = kept_out
    for step in changes_of(each, {Action.INSERT}, target, ()):
        if isinstance(step, Change):
            coming.changes.setdefault(pairing.rule.leading(step.key), []).append(step)
        else:
            coming.obstacles[pairing.rule.leading(step.key)] = step.reason
    return coming


def _named(pairing: Pairing, key: Key) -> str:
    return f"{pairing.rule.table} {pairing.rule.named(key)}"


def _token(change: Change) -> str:
    """Return a name for what belongs together, the same whenever it is planned."""
    text = "/".join((change.rule, *map(shown, change.key)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
