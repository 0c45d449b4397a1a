"""What the outputs take from a ``Report``: totals, and each thing once that several edges repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from cellsync import spool
from cellsync.model import (
    OUTCOMES,
    Action,
    CellFailure,
    CellResult,
    Change,
    Counts,
    Difference,
    Finding,
    Key,
    KeyPart,
    Kind,
    Load,
    Plan,
    Refusal,
    Report,
    SchemaDifference,
    Skipped,
    Sort,
    Status,
    Stored,
    TableDiff,
    TableFailure,
    TableResult,
    rank,
)

T = TypeVar("T")
K = TypeVar("K")

Named = tuple[tuple[str, KeyPart], ...]
"""A key with the names of its columns."""

Rows = frozenset[tuple[str, Key]]
"""Rows by rule and key."""

WRITES = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE, Action.SOFT_DELETE, Action.REPLACE})


class Stage(str, Enum):
    """How far a run went."""

    COMPARED = "compared"
    PLANNED = "planned"
    WRITTEN = "written"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many differences of each kind count: not those that are accepted or that the rule ignores."""

    missing: int = 0
    changed: int = 0
    extra: int = 0

    @property
    def total(self) -> int:
        """Return the number of differences of all kinds."""
        return self.missing + self.changed + self.extra


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finding with its rule and the names of its key."""

    rule: str
    finding: Finding
    key: Named


def compares(report: Report) -> bool:
    """Tell runs that compare rows from those that only write: an undo, and the verbs of ``cells``."""
    return report.run.verb != "undo" and not report.run.verb.startswith("cells ")


def doing(report: Report) -> str:
    """Return the run as a noun: "a repair", "an undo", "cells isolate"."""
    nouns = {"undo": "an undo"}
    return nouns.get(report.run.verb, "a repair" if compares(report) else report.run.verb)


def stage(report: Report) -> Stage:
    """Tell a comparison from a plan or dry run, and that from a run that was meant to write."""
    if compares(report) and report.run.verb not in ("plan", "repair"):
        return Stage.COMPARED
    return Stage.PLANNED if report.run.verb == "plan" or report.run.dry_run else Stage.WRITTEN


def results(report: Report) -> tuple[CellResult, ...]:
    """Return the cells that were compared, in configured order."""
    return tuple(cell for cell in report.cells if isinstance(cell, CellResult))


def failures(report: Report) -> tuple[CellFailure, ...]:
    """Return the cells that could not be compared at all."""
    return tuple(cell for cell in report.cells if isinstance(cell, CellFailure))


def compared(cell: CellResult) -> tuple[TableDiff, ...]:
    """Return the tables of the cell that were compared to the end."""
    return tuple(table for table in cell.tables if isinstance(table, TableDiff))


def broken(cell: CellResult) -> tuple[TableFailure, ...]:
    """Return the tables of the cell that could not be compared."""
    return tuple(table for table in cell.tables if isinstance(table, TableFailure))


def tables(cells: Iterable[CellResult]) -> Iterator[TableDiff]:
    """Yield the compared tables of all the cells."""
    for cell in cells:
        yield from compared(cell)


def tally(of: Iterable[TableDiff]) -> Tally:
    """Count the differences of the tables by kind, those that count."""
    kinds: Counter[Kind] = Counter()
    for table in of:
        for sort, number in table.tally.items():
            kinds[sort.kind] += number if counting(sort) else 0
    return Tally(missing=kinds[Kind.MISSING], changed=kinds[Kind.CHANGED], extra=kinds[Kind.EXTRA])


def counting(difference: Difference | Sort) -> bool:
    """Return whether a difference counts: nobody accepted it and the rule does not ignore it."""
    return difference.action is not Action.IGNORE and not difference.accepted


def accepted(of: Iterable[TableDiff]) -> int:
    """Count the differences that people have decided to live with."""
    return _count(of, lambda sort: sort.accepted)


def ignored(of: Iterable[TableDiff]) -> int:
    """Count the differences that their rule ignores."""
    return _count(of, lambda sort: not counting(sort) and not sort.accepted)


def _count(of: Iterable[TableDiff], chosen: Callable[[Sort], bool]) -> int:
    return sum(number for table in of for sort, number in table.tally.items() if chosen(sort))


def acting(of: Iterable[TableDiff], *actions: Action) -> int:
    """Count the differences about which a repair does one of ``actions``."""
    return sum(table.does(*actions) for table in of)


def totals(report: Report) -> Counts:
    """Add up what became of the changes in the cells that were compared."""
    counts = [cell.counts for cell in results(report)]
    return Counts(
        planned=sum(c.planned for c in counts),
        applied=sum(c.applied for c in counts),
        conflicts=sum(c.conflicts for c in counts),
        failed=sum(c.failed for c in counts),
    )


def dealt(lengths: Mapping[K, int], most: int) -> Mapping[K, int]:
    """Deal ``most`` places out: what is short is whole, what is long gets the same share."""
    shares: dict[K, int] = {}
    for place, (each, length) in enumerate(sorted(lengths.items(), key=lambda pair: pair[1])):
        shares[each] = min(length, most // (len(lengths) - place))
        most -= shares[each]
    return shares


def unique(items: Iterable[T]) -> tuple[T, ...]:
    """Return the items without repetitions, in the order of their first appearance."""
    return tuple(dict.fromkeys(items))


def refusals(cell: CellResult) -> tuple[Refusal, ...]:
    """Return the refusals of the cell and of its plans, each once."""
    return unique([*cell.refusals, *(r for plan in cell.plans for r in plan.refusals)])


def skipped(cell: CellResult) -> Sequence[Skipped]:
    """Return what was skipped in the cell."""
    return cell.skipped or spool.kept(each for plan in cell.plans for each in plan.skipped)


def notices(cell: CellResult) -> tuple[str, ...]:
    """Return what people must do after the writes to this cell, each once."""
    return unique(cell.notices)


def found(report: Report, *, accepted: bool = False) -> Mapping[str, Sequence[Found]]:
    """Group the findings by the cell whose rows are wrong, in order of appearance.

    Those that count, or those that are accepted. What is wrong in the parent is found again on
    the edge of every child; it stands here once.
    """
    every = unique(
        Found(rule=table.rule, finding=finding, key=named(table.key, finding.key or ()))
        for table in tables(results(report))
        for finding in ordered_findings(table)
        if bool(finding.accepted) is accepted
    )
    cells = unique(each.finding.cell for each in every)
    return {cell: [each for each in every if each.finding.cell == cell] for cell in cells}


def schema(cell: CellResult) -> tuple[tuple[str, SchemaDifference], ...]:
    """Return the schema differences of the cell with their tables; two rules may share a table."""
    return unique((table.table, difference) for table in cell.tables for difference in table.schema)


def named(names: Sequence[str], key: Key) -> Named:
    """Pair a key with the names of its columns; parts without a name get their number."""
    if len(names) != len(key):
        names = [str(number) for number in range(1, len(key) + 1)]
    return tuple(zip(names, key, strict=True))


def key_names(cell: CellResult) -> Mapping[str, tuple[str, ...]]:
    """Return rule -> names of its key columns, from all that the cell knows about its rules."""
    names = {table.rule: table.key for table in compared(cell)}
    if all(each.rule in names for each in cell.skipped):
        return names
    planned = {change.rule: change.key_columns for plan in cell.plans for change in plan.changes}
    return {**planned, **names}


def subject(change: Change) -> tuple[tuple[str, Stored | KeyPart], ...]:
    """Return what names the row of a change: its key, else its key columns, else its identity.

    The changes of an undo have no key: a journal holds the rows as they are stored.
    """
    if change.key:
        return named(change.key_columns, change.key)
    row = change.before or change.after or {}
    stored = tuple((column, row[column]) for column in change.key_columns if column in row)
    return stored or tuple(zip(change.identity_columns, change.identity, strict=True))


def soft_deleted(cell: CellResult) -> Rows:
    """Return (rule, key) of the rows that a repair soft deletes: their changes are updates."""
    return frozenset(
        (table.rule, difference.key)
        for table in compared(cell)
        for difference in (table.differences if table.does(Action.SOFT_DELETE, Action.REPLACE) else ())
        if difference.action in (Action.SOFT_DELETE, Action.REPLACE)
    )


def deed(change: Change, soft: Rows) -> Action:
    """Return what a change is to people: an update of a row in ``soft`` is a soft delete."""
    if change.action is Action.UPDATE and (change.rule, change.key) in soft:
        return Action.SOFT_DELETE
    return change.action


def since(difference: Difference) -> str | None:
    """Return when the later of the two rows became what it is, as text, in UTC; None if no row says it.

    From then on they differ, unless one of them was written without its application, which is what
    stamps ``created_at`` and ``updated_at``.
    """
    rows = (difference.desired, difference.existing)
    return max([row.since for row in rows if row is not None and row.since], default=None)


def in_step(table: TableResult) -> bool:
    """Return whether there is nothing to say about the rows of the table."""
    return isinstance(table, TableDiff) and not (table.differences or table.findings or table.unknown)


def ordered(table: TableDiff) -> Sequence[Difference]:
    """Return the differences by kind and key, so that two runs over the same rows read the same.

    The order is for readers; it is none that a server would give. Very many stay in the order in
    which they were found, which is also the same for the same rows.
    """
    kinds = list(Kind)
    return spool.ordered(table.differences, key=lambda each: (kinds.index(each.kind), rank(each.key)))


def ordered_findings(table: TableDiff) -> list[Finding]:
    """Return the findings by code and key."""
    return sorted(table.findings, key=lambda each: (each.code, rank(each.key or ()), each.message))


def kinds(table: TableDiff) -> Iterator[tuple[Kind, Iterable[Difference]]]:
    """Yield the differences of the table by kind, in order, those kinds that it has.

    Within a kind, those that count come first: a list that is cut short must not hide them.
    """
    every = ordered(table)
    for kind in (kind for kind in Kind if table.count(kind)):
        yield kind, _of_kind(every, kind)


def _of_kind(every: Sequence[Difference], kind: Kind) -> Iterator[Difference]:
    for first in (True, False):
        yield from (each for each in every if each.kind is kind and counting(each) is first)


def unplanned(table: TableDiff, cell: CellResult) -> TableDiff:
    """Return the table with those differences alone that no plan of the cell is about to mend."""
    every = [part for plan in cell.plans for part in spool.parts(plan.changes)]
    if any(isinstance(part, Load) and part.sample.rule == table.rule for part in every):
        return replace(table, differences=())  # all rows are missing, and all are loaded
    planned = {change.key for plan in cell.plans for change in plan.changes if change.rule == table.rule}
    return replace(table, differences=spool.kept(d for d in table.differences if d.key not in planned))


def is_held(table: TableDiff, action: Action) -> bool:
    """Say whether a guard holds back what a repair would do about a difference."""
    return table.status is Status.REFUSED and (not table.waits or action in table.waits)


def writable(report: Report) -> int:
    """Count the differences that a repair would mend, were it run as things stand."""
    return count_writable(tables(results(report)))


def count_writable(of: Iterable[TableDiff]) -> int:
    """Count the differences of the tables that a repair would mend: not those that a guard holds back."""
    return sum(acting([table], *(action for action in WRITES if not is_held(table, action))) for table in of)


def unknown(cell: CellResult) -> int:
    """Count the rules of which some rows could not be judged."""
    return sum(bool(table.unknown) for table in compared(cell))


def is_partly_made(plan: Plan) -> bool:
    """Say whether a run wrote, and did not make each change of a plan."""
    return any(OUTCOMES[each] != "applied" for each in {*plan.outcomes})


def describe_outcome(plan: Plan, number: int) -> str:
    """Return what became of the change of that number, the first being 1; "" before a run that writes."""
    return OUTCOMES[plan.outcomes[number - 1]] if plan.outcomes else ""
