"""The changes of a plan in the text output, in their order, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice

from cellsync.model import OUTCOMES, Action, CellResult, Change, Load, Plan, Report
from cellsync.report import facts, words
from cellsync.report.facts import Stage
from cellsync.report.page import Line, Style, Tone
from cellsync.report.words import counted
from cellsync.spool import parts

MOST = 20
"""So many of one sort are shown unless more is asked for."""


def list_plans(cell: CellResult, report: Report, style: Style) -> Iterator[Line]:
    """Yield the changes of each plan of a cell, with what became of them where not all were made."""
    soft = facts.soft_deleted(cell)
    for plan in cell.plans:
        if plan.changes:
            yield Line(f"{_title(plan, cell, report)}:", 1, Tone.TITLE)
            yield from _list_changes(plan, soft, style)


def _title(plan: Plan, cell: CellResult, report: Report) -> str:
    counts, number = cell.counts, counted(len(plan.changes), "change")
    if facts.stage(report) is Stage.PLANNED:
        return f"{number} to {plan.written}, in this order"
    if counts.applied == counts.planned:
        return f"{number} made to {plan.written}"
    came = Counter(OUTCOMES[each] for each in plan.outcomes)
    numbers = ", ".join(f"{came[each]} {each}" for each in OUTCOMES if came[each])
    details = f" ({numbers})" if numbers else ""
    return f"{number} to {plan.written}, made but for those that conflicted or failed{details}"


def _list_changes(plan: Plan, soft: facts.Rows, style: Style) -> Iterator[Line]:
    """Yield the changes in their order, numbered; of each sort only so many.

    Where not all of them were made, each has a word of what became of it.
    """
    partly = facts.is_partly_made(plan)
    seen: Counter[str] = Counter()
    begin = 1
    for part in parts(plan.changes):
        # Those that are of one sort need not be made, where they are not shown.
        few = not style.verbose and isinstance(part, Load)
        for number, change in enumerate(islice(part, MOST) if few else part, begin):
            sort = f"{words.ACTION[facts.deed(change, soft)]} {change.rule}"
            seen[sort] += 1
            if style.verbose or seen[sort] <= MOST:
                mark = f"{facts.describe_outcome(plan, number)}: " if partly else ""
                yield from change_lines(f"{number} {mark}{sort}", change, style)
        if few:
            seen[sort] += max(0, len(part) - MOST)
        begin += len(part)
    for sort, count in seen.items():
        if count > MOST and not style.verbose:
            yield Line(f"... and {count - MOST} more {sort} (-v shows all)", 2, Tone.QUIET)


def change_lines(title: str, change: Change, style: Style) -> Iterator[Line]:
    """Yield one change, with its columns where more is asked for."""
    reason = f": {words.shorten(change.reason, style.prose)}" if change.reason else ""
    yield Line(f"{title} {words.key(facts.subject(change), style.short)}{reason}", 2)
    if style.verbose:
        yield from (Line(text, 3, Tone.QUIET) for text in _list_columns(change, style))


def _list_columns(change: Change, style: Style) -> Iterator[str]:
    safe = partial(style.secrets.safe, table=change.table)
    before, after = change.before or {}, change.after or {}
    if change.action is Action.UPDATE:
        pairs = (
            (column, safe(column, before.get(column)), safe(column, value)) for column, value in after.items()
        )
        yield ", ".join(f"{column}: {words.value(old)} -> {words.value(new)}" for column, old, new in pairs)
    elif before or after:
        row = (after or before).items()
        yield ", ".join(f"{column}: {words.value(safe(column, value))}" for column, value in row)
