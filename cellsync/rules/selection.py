"""Rules as a set: their order, their digest, and a part of them with all that it needs."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from cellsync.errors import UsageError
from cellsync.model import Gate, Notice, Pack, Requirement, Rule, RuleSet

_NOT_MEANING = ("position", "changed", "pack", "why", "says")
"""Fields of a rule that tell people something and change no plan."""


def assemble(packs: Iterable[Pack]) -> RuleSet:
    """Return the rules of these packs, every rule after those that it references.

    The references must be known and free of cycles; `meaning` sees to both.
    """
    found = tuple(packs)
    rules = _ordered([rule for pack in found for rule in pack.rules])
    return RuleSet(packs=found, rules=rules, digest=_digest(found))


def select(ruleset: RuleSet, *, rules: Sequence[str], features: Sequence[str]) -> RuleSet:
    """Return the named rules, and those that serve a named feature, with all they reference.

    A detector is named as a rule is. With neither rules nor features, everything. The digest is
    that of what is selected. Raises UsageError for a rule or feature that is not there.
    """
    if not rules and not features:
        return ruleset
    every = ruleset.named
    _require(rules, {each.id for each in every}, "rule")
    _require(features, {feature for each in every for feature in each.features}, "feature")
    wanted = {each.id for each in every if each.id in rules or set(features) & set(each.features)}
    asked = (ask.differs for each in ruleset.detectors if each.id in wanted for ask in each.asks)
    wanted |= {rule for rule in asked if rule}
    # Referrers stand after what they reference: backwards, one pass finds everything.
    for rule in reversed(ruleset.rules):
        if rule.id in wanted:
            wanted |= set(rule.references.values()) | ({rule.comes_with.rule} if rule.comes_with else set())
    # A row without those that come with it would be half a row.
    wanted |= {rule.id for rule in ruleset.rules if rule.comes_with and rule.comes_with.rule in wanted}
    parts = (_part(pack, wanted) for pack in ruleset.packs)
    selected = assemble(pack for pack in parts if pack.rules or pack.detectors)
    left_out = ruleset.left_out | {each.id for each in every} - wanted
    torn = {rule.id: _find_torn(rule, ruleset, wanted) for rule in selected.rules if rule.replaces}
    return dataclasses.replace(selected, left_out=left_out, torn={**ruleset.torn, **torn})


def _find_torn(rule: Rule, ruleset: RuleSet, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the rules that refer to a rule, and that a selection leaves out."""
    return tuple(r.id for r in ruleset.rules if r.id not in wanted and rule.id in r.references.values())


def _part(pack: Pack, wanted: Iterable[str]) -> Pack:
    rules = tuple(rule for rule in pack.rules if rule.id in wanted)
    detectors = tuple(detector for detector in pack.detectors if detector.id in wanted)
    return dataclasses.replace(pack, rules=rules, detectors=detectors)


def _require(names: Sequence[str], known: Iterable[str], what: str) -> None:
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        wrong = "; ".join(f"there is no {what} {name!r}{_near(name, known)}" for name in unknown)
        raise UsageError(f"{wrong} (known: {', '.join(sorted(known)) or 'none'})")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known))
    return f", did you mean {' or '.join(map(repr, near))}?" if near else ""


def _ordered(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Put every rule after those it references; of those that may come next, the first in the files does."""
    place = {rule.id: index for index, rule in enumerate(rules)}
    awaited = {rule.id: _needed(rule) for rule in rules}
    referrers: dict[str, list[str]] = {rule.id: [] for rule in rules}
    for rule_id, targets in awaited.items():
        for target in targets:
            referrers[target].append(rule_id)
    ready = [place[rule_id] for rule_id, targets in awaited.items() if not targets]
    ordered: list[Rule] = []
    while ready:
        rule = rules[heapq.heappop(ready)]
        ordered.append(rule)
        for referrer in referrers[rule.id]:
            awaited[referrer].discard(rule.id)
            if not awaited[referrer]:
                heapq.heappush(ready, place[referrer])
    return tuple(ordered)


def _needed(rule: Rule) -> set[str]:
    leader = {rule.comes_with.rule} if rule.comes_with else set()
    return (set(rule.references.values()) | leader) - {rule.id}


def _digest(packs: Sequence[Pack]) -> str:
    meanings = sorted(_canonical(rule, pack.requires) for pack in packs for rule in pack.rules)
    return hashlib.sha256("\n".join(meanings).encode()).hexdigest()


def _canonical(rule: Rule, requires: Requirement) -> str:
    bare = dataclasses.replace(
        rule, when=_wordless(rule.when), after=tuple(map(_wordless_notice, rule.after))
    )
    fields = {name: value for name, value in _fields(bare).items() if name not in _NOT_MEANING}
    if rule.replaces is None:  # so rules have the digest that they had before there was such a key
        del fields["replaces"]
    version = _wordless(requires.parent_version)
    required = _fields(dataclasses.replace(requires, parent_version=version))
    del required["otherwise"]  # words
    return json.dumps([fields, required], sort_keys=True, default=_plain)


def _wordless(gate: Gate | None) -> Gate | None:
    # The comparisons say it all; the text may hold other blanks or quotes.
    return dataclasses.replace(gate, text="") if gate else None


def _wordless_notice(notice: Notice) -> Notice:
    return dataclasses.replace(notice, when=_wordless(notice.when))


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _plain(value: object) -> str | dict[str, Any]:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.6f}s"
    if dataclasses.is_dataclass(value):
        return _fields(value)  # not asdict, which copies all that it holds
    raise TypeError(f"{value!r} has no canonical form")
