"""What people have decided to live with does not count, until its date. Pure.

An entry is about a difference when it names the child or the cell that would be written, about a
finding when it names the child or the cell whose rows are wrong; and when the rule is the same and
every key column that it names holds the value that it gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Union

from cellsync.model import (
    Accepted,
    Action,
    Difference,
    Finding,
    Key,
    KeyPart,
    Kind,
    Pairing,
    Rule,
    RuleSet,
    TableDiff,
    TableFailure,
    TableResult,
    keep_differences,
    shown,
)


def day(now: datetime) -> date:
    """Return the day in UTC, by which acceptances end; a time without a zone is UTC already."""
    return (now.astimezone(timezone.utc) if now.tzinfo else now).date()


def accept(
    decided: Mapping[str, TableResult],
    pairs: Mapping[str, Union[Pairing, TableFailure]],
    entries: Sequence[Accepted],
    *,
    child: str,
    today: date,
) -> dict[str, TableResult]:
    """Mark the decided differences and findings of one child that are accepted on that day.

    ``decided`` is in the order of the rules, referenced ones first. What refers to a row that is
    accepted as missing cannot be written, and is reported. What was accepted until a day before
    ``today`` counts, and says so.
    """
    accepted = dict(decided)
    lacking: dict[str, set[Key]] = {}
    for rule, table in decided.items():
        pairing = pairs[rule]
        if isinstance(table, TableDiff) and isinstance(pairing, Pairing):
            mine = [entry for entry in entries if entry.rule == rule]
            marked = _marked(table, mine, {child, pairing.existing_cell}, child, today)
            accepted[rule] = _held_back(pairing.rule, marked, lacking)
    return accepted


def accept_findings(
    found: Mapping[str, TableResult], entries: Sequence[Accepted], *, child: str, today: date
) -> Iterator[TableResult]:
    """Yield what detectors found in one child, with what is accepted on that day marked."""
    for name, table in found.items():
        mine = [entry for entry in entries if entry.rule == name]
        yield _marked(table, mine, {child}, child, today) if isinstance(table, TableDiff) else table


def notes(entries: Sequence[Accepted], ruleset: RuleSet) -> tuple[str, ...]:
    """Say which entries can accept nothing, as there is no such rule or key column.

    Not an error: what such an entry names is counted, so nothing is hidden, and a changed rule
    file must not stop the cron jobs of a cell file that stayed the same.
    """
    return tuple(dict.fromkeys(note for entry in entries for note in _notes(entry, ruleset)))


def _notes(entry: Accepted, ruleset: RuleSet) -> Iterator[str]:
    rule = ruleset.rule(entry.rule) or ruleset.detector(entry.rule)
    if rule is None:
        if entry.rule not in ruleset.left_out:
            yield f"accept names the rule {entry.rule}, which the rules in use lack: it accepts nothing"
        return
    for column in entry.key:
        if column not in rule.key:
            key = ", ".join(rule.key)
            yield f"accept names the column {column}, but the key of {rule.id} is {key}: it accepts nothing"


# -- One table ---------------------------------------------------------------------------------


def _marked(
    table: TableDiff, entries: Sequence[Accepted], cells: Collection[str], child: str, today: date
) -> TableDiff:
    if not entries:
        return table

    def about(key: Key | None, cells: Collection[str]) -> list[Accepted]:
        values = dict(zip(table.key, key or (), strict=False))
        return [e for e in entries if (e.cell == "*" or e.cell in cells) and _matches(e, values)]

    return replace(
        table,
        differences=keep_differences(_difference(d, about(d.key, cells), today) for d in table.differences),
        findings=tuple(_finding(f, about(f.key, {child, f.cell}), today) for f in table.findings),
    )


def _matches(entry: Accepted, values: Mapping[str, KeyPart]) -> bool:
    return all(name in values and _is(values[name], given) for name, given in entry.key.items())


def _is(part: KeyPart, given: str | None) -> bool:
    """Say whether a person means this value: NULL and 'NULL' differ, 0xAB and 0xab do not."""
    if part is None or given is None:
        return part is None and given is None
    return shown(part) == (given.lower() if isinstance(part, bytes) else given)


def _difference(difference: Difference, about: Sequence[Accepted], today: date) -> Difference:
    if live := _live(about, today):
        return replace(difference, action=Action.IGNORE, accepted=_why(live))
    if about:
        return _with(difference, _lapsed(about))
    return difference


def _finding(finding: Finding, about: Sequence[Accepted], today: date) -> Finding:
    if live := _live(about, today):
        return replace(finding, accepted=_why(live))
    return replace(finding, message=f"{finding.message}; {_lapsed(about)}") if about else finding


def _live(about: Sequence[Accepted], today: date) -> Accepted | None:
    return next((entry for entry in about if entry.until is None or today <= entry.until), None)


def _why(entry: Accepted) -> str:
    return entry.why if entry.until is None else f"{entry.why} (until {entry.until})"


def _lapsed(about: Sequence[Accepted]) -> str:
    entry = max(about, key=lambda each: each.until or date.min)
    return f"accepted until {entry.until}, which has passed ({entry.why})"


# -- What refers to it -------------------------------------------------------------------------


def _held_back(rule: Rule, table: TableDiff, lacking: dict[str, set[Key]]) -> TableDiff:
    """Report what refers to a row that will go on missing: to write it could only fail.

    ``lacking`` are such rows of the rules so far, and gets those of this one; a rule that refers
    to itself is gone through until no more are found.
    """
    own = lacking.setdefault(rule.id, set())
    if any(sort.accepted for sort in table.tally):
        own |= {d.key for d in table.differences if d.accepted and _is_lacking(rule, d)}
    more = any(lacking.values())
    while more:
        held: list[Difference] = []
        table = replace(table, differences=keep_differences(_all_held(rule, table, lacking, held)))
        own |= {difference.key for difference in held if _is_lacking(rule, difference)}
        more = bool(held)
    return table


def _all_held(
    rule: Rule, table: TableDiff, lacking: Mapping[str, set[Key]], held: list[Difference]
) -> Iterator[Difference]:
    """Yield the differences of a table, and add those that are held back to ``held``."""
    for difference in table.differences:
        now = _held(rule, table, difference, lacking)
        if now is not difference:
            held.append(now)
        yield now


def _is_lacking(rule: Rule, difference: Difference) -> bool:
    """Say whether the existing side has no row of this key: it is missing, or has an older key."""
    renamed = any(column.column in rule.key for column in difference.columns)
    return difference.kind is Kind.MISSING or (difference.kind is Kind.CHANGED and renamed)


def _held(
    rule: Rule, table: TableDiff, difference: Difference, lacking: Mapping[str, set[Key]]
) -> Difference:
    row = difference.desired
    if row is None or difference.action not in (Action.INSERT, Action.UPDATE):
        return difference
    parts = dict(zip(rule.key, row.key, strict=True))
    parts.update({column.column: column.desired for column in table.columns_of(difference)})
    for column, other in rule.references.items():
        key = parts.get(column)
        if isinstance(key, tuple) and key in lacking.get(other, ()):
            why = f"not written, as {other} {shown(key)} is accepted as it is: accept this too"
            return _with(replace(difference, action=Action.REPORT), why)
    return difference


def _with(difference: Difference, remark: str) -> Difference:
    return replace(difference, reason="; ".join(filter(None, [difference.reason, remark])))
