"""Hold what cellsync reports against what the oracle sees: each disagreement in one line.

A line begins with a stable word for its class, so that failures of many cases can be counted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import oracle
from oracle_writes import Written

from cellsync.model import (
    OUTCOMES,
    Action,
    CellFailure,
    CellResult,
    Change,
    Dangling,
    Difference,
    Kind,
    Reference,
    TableDiff,
    TableResult,
)

Pair = tuple[str, oracle.Key]
"""(kind, key)"""


def make_plain(part: Any) -> Any:
    """Return a key of cellsync as the oracle writes it."""
    if isinstance(part, Dangling):
        return oracle.Dangling(part.raw)
    return tuple(map(make_plain, part)) if isinstance(part, tuple) else part


def fold_key(part: Any) -> Any:
    """Fold a key more than any collation does: what is equal in one of them is equal here."""
    if isinstance(part, tuple):
        return tuple(map(fold_key, part))
    if not isinstance(part, str):
        return part
    apart = unicodedata.normalize("NFKD", part.rstrip(" ").casefold())
    # The collations without weights for them find all characters beyond the first plane equal.
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if c > "\uffff" else c for c in apart if not unicodedata.combining(c)
    )


def split_difference(difference: Difference) -> Iterator[tuple[Pair, Action]]:
    """Yield a difference as the oracle sees it: a row with another key is one missing and one extra."""
    desired, existing = difference.desired, difference.existing
    moved = difference.kind is Kind.CHANGED and desired and existing and desired.key != existing.key
    if moved and desired and existing:
        yield ("missing", make_plain(desired.key)), difference.action
        yield ("extra", make_plain(existing.key)), difference.action
    else:
        yield (difference.kind.value, make_plain(difference.key)), difference.action


@dataclass
class Said:
    """What a report says about one rule."""

    failed: bool = False
    differences: dict[Pair, Action] = field(default_factory=dict)
    findings: dict[str, set[oracle.Key]] = field(default_factory=dict)
    """Code -> keys."""
    left: set[oracle.Key] = field(default_factory=set)
    """The keys of what was skipped."""
    refused: bool = False

    def names_key(self, key: oracle.Key) -> bool:
        """Say whether a finding is about this key, or about one that a collation finds equal."""
        keys = {fold_key(each) for found in self.findings.values() for each in found}
        return fold_key(key) in keys

    def explains(self, pair: Pair) -> bool:
        """Say whether it was announced that this difference stays."""
        staying = self.differences.get(pair) in (Action.REPORT, Action.IGNORE)
        named = pair[1] in self.left or self.names_key(pair[1]) or self.names_dangling(pair[1])
        return self.failed or self.refused or staying or named

    def names_dangling(self, key: oracle.Key) -> bool:
        """Say whether a finding is about this key when what it refers to had not come yet."""
        return any(
            all(
                isinstance(now, tuple) if isinstance(was, oracle.Dangling) else was == now
                for was, now in zip(each, key)  # noqa: B905
            )
            for each in self.findings.get("dangling-reference", ())
        )


def read_report(cell: CellResult | CellFailure, rules: Collection[str]) -> dict[str, Said]:
    """Return what a cell's result says about each rule."""
    said = {rule: Said() for rule in rules}
    if isinstance(cell, CellFailure):
        return {rule: Said(failed=True) for rule in rules}
    for table in cell.tables:
        if table.rule in said:
            _read_table(said[table.rule], table)
    for refusal in cell.refusals:
        for rule in [refusal.rule] if refusal.rule else rules:
            if rule in said:
                said[rule].refused = True
    for skipped in cell.skipped:
        if skipped.rule in said:
            said[skipped.rule].left.add(make_plain(skipped.key))
    return said


def _read_table(said: Said, table: TableResult) -> None:
    if not isinstance(table, TableDiff):
        said.failed = True
        return
    for difference in table.differences:
        said.differences.update(split_difference(difference))
    for finding in table.findings:
        if finding.key is not None:
            said.findings.setdefault(finding.code, set()).add(make_plain(finding.key))


def check_compared(
    cell: CellResult | CellFailure, judged: Mapping[str, oracle.Judged], *, quiet: bool = True
) -> Iterator[str]:
    """Yield where a comparison and the oracle disagree."""
    for rule, said in read_report(cell, judged).items():
        mine = judged[rule]
        if said.failed:
            continue
        if mine.broken:
            yield f"not-named {rule}: {mine.broken}, and the report has no error"
            continue
        for kind, key in sorted(said.differences.keys() - mine.differences, key=repr):
            if quiet:
                yield f"invented {rule}: {kind} {key!r}"
        for kind, key in sorted(mine.differences - said.differences.keys(), key=repr):
            if not said.names_key(key):
                yield f"overlooked {rule}: {kind} {key!r}"
        for key, why in mine.aside.items():
            if not said.names_key(key):
                yield f"no-finding {rule}: {key!r}: {why}"
        for key in mine.limbo:
            if not said.names_key(key):
                yield f"no-finding {rule}: {key!r}: its soft-delete column is NULL"
        for code in ("duplicate-key", "dangling-reference"):
            for key in said.findings.get(code, set()) - mine.aside.keys():
                yield f"false-finding {rule}: {code} of {key!r}"


def check_repaired(
    announced: CellResult | CellFailure,
    cell: CellResult | CellFailure,
    after: Mapping[str, oracle.Judged],
    written: Written | None,
    *,
    exit_code: int,
    quiet: bool = True,
) -> Iterator[str]:
    """Yield where the outcome of a repair is not what was announced, or not what is in the databases.

    ``announced`` is the comparison and the plan, before the first write. ``quiet`` says that nobody
    else wrote meanwhile; then nothing may fail or conflict.
    """
    before = read_report(announced, after)
    remaining = list(_list_remaining(before, after, cell))
    said_clean = exit_code == 0
    for rule, pair, why in remaining:
        if said_clean and why != "ignored":
            yield f"clean-word {rule}: exit 0, and {pair[0]} {pair[1]!r} remains"
        if quiet and not why:
            yield f"unannounced {rule}: {pair[0]} {pair[1]!r} remains"
    if isinstance(cell, CellFailure):
        if quiet and not isinstance(announced, CellFailure):
            yield f"cell-failed: {cell.error}"
        return
    if quiet and (cell.counts.conflicts or cell.counts.failed or list(cell.problems)):
        for problem in list(cell.problems)[:3] or [str(cell.counts)]:
            yield f"problem: {problem}"
    if written is not None:
        yield from (f"wrong-write {each}" for each in written.wrong)
        made = list(_list_applied(cell))
        same, most = len(_list_unmoved(made)), count_rows(made)
        if quiet and (cell.counts.applied != len(made) or not most - same <= written.total <= most):
            yield (
                f"wrong-count: {cell.counts.applied} applied, {len(made)} changes made of {count_rows(made)} "
                f"rows, {written.total} rows are other ones"
            )
    nothing = not [each for each in remaining if each[2] != "ignored"]
    open_keys = any(each.aside or each.limbo or each.broken for each in after.values())
    named = any(said.findings or said.failed or said.refused or said.left for said in before.values())
    if quiet and exit_code and nothing and not (open_keys or named or cell.problems):
        yield f"needless-word: exit {exit_code}, and nothing remains"


def _list_applied(cell: CellResult) -> Iterator[Change]:
    """Yield the changes of a cell's plans that were made."""
    for plan in cell.plans:
        for change, outcome in zip(plan.changes, plan.outcomes, strict=False):
            if OUTCOMES[outcome] == "applied":
                yield change


def _list_unmoved(made: Iterable[Change]) -> list[Reference]:
    """Return the rows that updates may leave as they were: they refer to another row, by the same number.

    A number that led nowhere may be that of a row which came since; two rows may have changed numbers, or one
    have come with that of another which went.
    """
    rows: dict[Reference, list[Change]] = {}
    for change in made:
        rows.setdefault(Reference(rule=change.rule, key=change.key), []).append(change)
    return [row for row, changes in rows.items() if _may_be_as_before(changes)]


def _may_be_as_before(changes: Sequence[Change]) -> bool:
    was: dict[str, object] = {}
    now: dict[str, object] = {}
    for change in changes:
        if change.action is not Action.UPDATE:
            return False
        for name, value in (change.after or {}).items():
            was.setdefault(name, (change.before or {}).get(name))
            now[name] = value
    return all(isinstance(now[name], Reference) and was[name] not in (None, now[name]) for name in now)


def count_rows(changes: Iterable[Change]) -> int:
    """Return how many rows some changes are about, in order.

    One is changed more than once where it is parked, or written without what is not there yet. A new row
    that takes the primary key of a removed one is the same row with other values, to who sees the rows alone.
    """
    rows: dict[tuple[str, tuple[Any, ...]], int] = {}
    numbers = count()
    seen = set()
    for change in changes:
        after = change.after or {}
        own: tuple[Any, ...] = change.identity
        if change.action is Action.INSERT:
            own = tuple(after.get(name) for name in change.identity_columns)
        if not own or any(part is None or isinstance(part, Reference) for part in own):
            own = ("key", change.key)
        number = rows.pop((change.table, own), None)
        number = next(numbers) if number is None else number
        seen.add(number)
        moved = change.action is Action.UPDATE and change.identity and change.identity_after
        rows[change.table, moved or own] = number
    return len(seen)


def _list_remaining(
    said: Mapping[str, Said], after: Mapping[str, oracle.Judged], cell: CellResult | CellFailure
) -> Iterator[tuple[str, Pair, str]]:
    """Yield (rule, difference, why it stays) of all that the oracle still sees."""
    unmade = {(each.rule, make_plain(each.key)) for each in getattr(cell, "skipped", ())}
    for rule, judged in after.items():
        for pair in sorted(judged.differences, key=repr):
            ignored = said[rule].differences.get(pair) is Action.IGNORE
            known = said[rule].explains(pair) or (rule, pair[1]) in unmade
            yield rule, pair, "ignored" if ignored else "announced" if known else ""


def compare_snapshots(
    before: oracle.Snapshot, after: oracle.Snapshot, *, but: Sequence[str] = ()
) -> list[str]:
    """Return which tables differ in any row or column."""
    names = sorted({*before.tables, *after.tables} - {*but})
    return [name for name in names if _list_rows(before, name) != _list_rows(after, name)]


def _list_rows(snapshot: oracle.Snapshot, name: str) -> list[str] | None:
    table = snapshot.tables.get(name)
    if table is None:
        return None
    # What the server stamps a version with is another time after every write.
    plain = [n for n, column in table.columns.items() if "row start" not in column.extra]
    return sorted(repr([row[each] for each in plain]) for row in table.rows)
