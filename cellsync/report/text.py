"""The text output: what a tired person at 3 a.m. understands.

The verdict comes first, then every cell in order with what differs and why it matters, then what
no repair mends by itself, what was refused, and what to do next. For a pipe or a file there is
one fact a line, never wrapped, so that grep finds it; a terminal gets colours and an overview.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import TypeVar

from cellsync.errors import ExitCode
from cellsync.model import (
    Action,
    CellFailure,
    CellResult,
    ColumnDifference,
    Difference,
    Direction,
    Kind,
    Load,
    Refusal,
    Report,
    SchemaDifference,
    Skipped,
    Status,
    TableDiff,
    TableFailure,
)
from cellsync.report import facts, words
from cellsync.report.change_list import MOST, list_plans
from cellsync.report.facts import Stage
from cellsync.report.page import Block, Grid, Line, Style, Tone, compose
from cellsync.report.verdict import drift, question, verdict
from cellsync.report.words import counted
from cellsync.spool import kept, parts

T = TypeVar("T")

FEW_ALIKE = 3
"""So many failures with one cause, in a row, are shown each; of more the first, with a count."""

TONES = {
    Status.IN_STEP: Tone.GOOD,
    Status.REPAIRED: Tone.GOOD,
    Status.DIFFERS: Tone.STRONG,
}


def render(report: Report, style: Style) -> Iterator[str]:
    """Yield the whole report: of a diff, a plan, a repair (dry or not), or an undo."""
    return compose(_report(report, style), style)


def plan(report: Report, style: Style) -> Iterator[str]:
    """Yield what a repair or undo is about to write, in short; the question is the caller's."""
    return compose(_question(report, replace(style, secrets=report.secrets)), style)


def schema(report: Report, style: Style) -> Iterator[str]:
    """Yield the schema differences alone, all of them."""
    return compose(_schema_report(report), style)


# -- The whole report ----------------------------------------------------------------------------


def _report(report: Report, style: Style) -> Iterator[Block]:
    yield from body(report, style)
    yield Line("")
    yield from advice(report)
    yield Line(f"exit code {int(report.exit_code)}: {words.EXIT[report.exit_code]}", tone=Tone.QUIET)


def body(report: Report, style: Style) -> Iterator[Block]:
    """Yield the report but for what to do next and the exit code."""
    style = replace(style, secrets=report.secrets)
    yield Line(verdict(report), tone=_tone_of(report))
    if len(report.cells) > 1:
        yield _overview(report)
    yield from _cells(report, style)
    for title, lines in _sections(report, style):
        if lines:
            yield from (Line(""), Line(title, tone=Tone.TITLE), *lines)


def _cells(report: Report, style: Style) -> Iterator[Line]:
    """Yield the cells, an empty line between them where there is more than a line to say."""
    apart = True
    for cell in report.cells:
        lines = list(_cell(cell, report, style))
        if apart or len(lines) > 1:
            yield Line("")
        apart = len(lines) > 1
        yield from lines


def _sections(report: Report, style: Style) -> Iterator[tuple[str, Sequence[Line]]]:
    yield "findings (no repair mends these by itself):", list(_findings(report, style))
    yield "accepted findings (not counted):", list(_findings(report, style, accepted=True))
    yield "schema differences:", list(_schema_section(report, style))
    yield "refused (these rules, and those that refer to them, write nothing):", list(_refusals(report))
    yield "held back (these changes wait, the others do not):", list(_refusals(report, partly=True))
    yield "skipped:", list(_skipped(report, style))
    yield "went wrong:", list(_problems(report, style))
    yield _notices_title(report), list(_notices(report))


def _tone_of(report: Report) -> Tone:
    if report.exit_code == ExitCode.IN_STEP:
        return Tone.GOOD
    return Tone.STRONG if report.exit_code == ExitCode.DIFFERENCES else Tone.BAD


def _overview(report: Report) -> Grid:
    """Return the cells at a glance: "?" where nothing could be compared, "3+" where not all could."""
    head = ("cell", "status", "missing", "changed", "extra")
    tones = tuple(TONES.get(cell.status, Tone.BAD) for cell in report.cells)
    return Grid((head, *map(_overview_row, report.cells)), tones, whole=2, numbers=2, terminal_only=True)


def _overview_row(cell: CellResult | CellFailure) -> tuple[str, ...]:
    if isinstance(cell, CellFailure):
        return (cell.cell, _failure_word(cell), "?", "?", "?")
    tally = facts.tally(facts.compared(cell))
    doubt = "+" if facts.broken(cell) else ""
    counts = (f"{number}{doubt}" for number in (tally.missing, tally.changed, tally.extra))
    return (cell.cell, words.STATUS[cell.status], *counts)


def _failure_word(cell: CellFailure) -> str:
    return words.STATUS[cell.status] if cell.status is Status.UNREACHABLE else "could not be compared"


# -- One cell ------------------------------------------------------------------------------------


def _cell(cell: CellResult | CellFailure, report: Report, style: Style) -> Iterator[Line]:
    tone = TONES.get(cell.status, Tone.BAD)
    if isinstance(cell, CellFailure):
        title = filter(None, [cell.cell, _isolated(cell), _failure_word(cell), cell.error])
        yield Line(": ".join(title), tone=tone)
        return
    title = filter(None, [cell.cell, _isolated(cell), _standing(cell, report), _summary(cell, report)])
    yield Line(": ".join(title), tone=tone)
    yield from _tables(cell, report, style)
    yield from _in_step(cell, style)
    partly = any(facts.is_partly_made(plan) for plan in cell.plans)
    if facts.stage(report) is Stage.PLANNED or not facts.compares(report) or partly:
        yield from list_plans(cell, report, style)


def _isolated(cell: CellResult | CellFailure) -> str:
    """Return that no request reaches the cell, and what brings it back."""
    back = f"cellsync cells restore {cell.cell} brings it back"
    return f"isolated since {cell.isolated} UTC ({back})" if cell.isolated else ""


def _standing(cell: CellResult, report: Report) -> str:
    """Return the status in words; of an undo, and of a plan that writes, the summary says it."""
    unsaid = not facts.compares(report) and cell.status in (Status.IN_STEP, Status.DIFFERS, Status.REPAIRED)
    return "" if unsaid and cell.counts.planned else words.STATUS[cell.status]


def _summary(cell: CellResult, report: Report) -> str:
    groups = (_writes(cell, report), _state(cell, report))
    return "; ".join(filter(None, (", ".join(filter(None, group)) for group in groups)))


def _state(cell: CellResult, report: Report) -> Iterator[str]:
    tally = facts.tally(facts.compared(cell))
    found = drift(tally)
    yield f"found {found}" if found and facts.stage(report) is Stage.WRITTEN else found
    every = facts.unique(finding for table in facts.compared(cell) for finding in table.findings)
    findings = [finding for finding in every if not finding.accepted]
    yield counted(len(findings), "finding") if findings else ""
    accepted = facts.accepted(facts.compared(cell)) + len(every) - len(findings)
    yield f"{accepted} accepted" if accepted else ""
    broken = facts.broken(cell)
    yield f"{counted(len(broken), 'rule')} could not be compared" if broken else ""
    unknown = facts.unknown(cell)
    yield f"some rows of {counted(unknown, 'rule')} could not be judged" if unknown else ""
    yield "another run holds the lock" if cell.locked else ""
    if cell.status is Status.IN_STEP and cell.tables and facts.compares(report):
        rows = sum(table.desired_rows for table in facts.compared(cell))
        ruled = sum(not table.detector for table in cell.tables)
        yield f"{counted(ruled, 'rule')}, {counted(rows, 'row')}" if ruled else ""
        detectors = len(cell.tables) - ruled
        yield counted(detectors, "detector") if detectors else ""


def _writes(cell: CellResult, report: Report) -> Iterator[str]:
    counts, undo = cell.counts, report.run.verb == "undo"
    if facts.stage(report) is Stage.PLANNED and counts.planned:
        yield f"{counted(counts.planned, 'change')} planned"
    if facts.stage(report) is Stage.WRITTEN and counts.planned:
        part = f"{counts.applied} of " if counts.applied < counts.planned else ""
        yield f"{part}{counted(counts.planned, 'change')} {'taken back' if undo else 'written'}"
        yield f"{counts.conflicts} conflicted" if counts.conflicts else ""
        yield f"{counts.failed} failed" if counts.failed else ""


def _in_step(cell: CellResult, style: Style) -> Iterator[Line]:
    """Name the tables in step in one line; a cell in step names them only when asked."""
    if cell.status is Status.IN_STEP and not style.verbose:
        return
    quiet = [table for table in facts.compared(cell) if facts.in_step(table)]
    names = [f"{table.rule} ({counted(table.desired_rows, 'row')})" for table in quiet if not table.detector]
    if names:
        yield Line(f"in step: {', '.join(names)}", 1, Tone.QUIET)
    if nothing := [table.rule for table in quiet if table.detector]:
        yield Line(f"nothing found by: {', '.join(nothing)}", 1, Tone.QUIET)


def _tables(cell: CellResult, report: Report, style: Style) -> Iterator[Line]:
    said: set[str] = set()
    for table in cell.tables:
        if isinstance(table, TableFailure):
            yield Line(f"{table.rule}: could not be compared: {table.error}", 1, Tone.BAD)
        elif not facts.in_step(table):
            yield from _table(table, cell, report, style, said)


def _table(
    table: TableDiff, cell: CellResult, report: Report, style: Style, said: set[str]
) -> Iterator[Line]:
    yield Line(f"{table.rule}: {_table_summary(table, cell, report)}", 1, Tone.TITLE)
    yield from _features(table, report, said)
    for reason in table.unknown:
        yield Line(f"unknown: {words.shorten(reason, style.prose)}", 2, Tone.BAD)
    shown = _shown(table, cell, report, style)
    for kind, differences in facts.kinds(shown):
        sort, lines = f"{kind.value} in {table.rule}", _difference_of(table, style)
        yield from _some(differences, shown.count(kind), style, sort, lines)


def _table_summary(table: TableDiff, cell: CellResult, report: Report) -> str:
    up = table.direction is Direction.UP
    place = f"{report.run.topology}, whose rows come up from {cell.cell}" if up else cell.cell
    found = drift(facts.tally([table]))
    parts = [f"{found} in {place}"] if found else [*_none(table)]
    if accepted := facts.accepted([table]):
        parts.append(f"{accepted} accepted")
    if ignored := facts.ignored([table]):
        parts.append(f"{ignored} ignored by the rule")
    if table.findings:
        lived_with = sum(bool(finding.accepted) for finding in table.findings)
        marked = f", {lived_with} accepted" if lived_with else ""
        parts.append(f"{counted(len(table.findings), 'finding')}{marked} (below)")
    if table.status in (Status.REPAIRED, Status.REFUSED, Status.INCOMPLETE):
        parts.append(words.STATUS[table.status])
    return "; ".join(parts)


def _none(table: TableDiff) -> Iterator[str]:
    """Say that a rule has no differences, where nothing else is said of it or unknown."""
    if table.differences:
        yield "no difference that counts"
    elif table.unknown:
        yield "no difference in what could be compared"
    elif not (table.detector or table.findings):
        yield "no differences"


def _features(table: TableDiff, report: Report, said: set[str]) -> Iterator[Line]:
    """Say what the drift breaks, every feature once in a cell: ``said`` collects them.

    A row that is only extra breaks nothing that anybody misses.
    """
    lacking = any(facts.counting(sort) and sort.kind is not Kind.EXTRA for sort in table.tally)
    broken = facts.tally([table]).total and lacking and report.rule_features.get(table.rule, ())
    for name in broken or ():
        if name not in said:
            said.add(name)
            lost = report.features.get(name, "")
            verb = "broke" if table.status is Status.REPAIRED else "breaks"
            yield Line(f"{verb} {name}" + (f": {lost}" if lost else ""), 2, Tone.STRONG)


def _shown(table: TableDiff, cell: CellResult, report: Report, style: Style) -> TableDiff:
    """Return the table with the differences to be listed.

    Not those that a list of changes has, nor, unless more is asked for, what the rule ignores.
    """
    if facts.stage(report) is Stage.PLANNED:
        table = facts.unplanned(table, cell)
    if style.verbose or all(facts.counting(sort) or sort.accepted for sort in table.tally):
        return table
    return replace(table, differences=kept(d for d in table.differences if facts.counting(d) or d.accepted))


def _difference_of(table: TableDiff, style: Style) -> Callable[[Difference], Iterator[Line]]:
    def lines(difference: Difference) -> Iterator[Line]:
        """Yield what the difference means, then what it is: reason first, for it is read first."""
        fact = _fact(difference, table, style)
        if difference.reason:
            yield Line(words.shorten(difference.reason, style.prose), 2, Tone.TITLE)
        yield Line(fact, 3 if difference.reason else 2, Tone.QUIET if difference.reason else Tone.PLAIN)
        row = table.columns_of(difference) if style.verbose and difference.kind is not Kind.CHANGED else ()
        if row:
            yield Line(_row(difference.kind, row, table, style), 3, Tone.QUIET)

    return lines


def _fact(difference: Difference, table: TableDiff, style: Style) -> str:
    """Return "changed aggregate_id=west key=ratio, value: 2.0 -> 4.0 (update)", or why it is accepted."""
    key = words.key(facts.named(table.key, difference.key), style.short)
    steps = _steps(difference, table, style) if difference.kind is Kind.CHANGED else []
    fact = ", ".join([f"{difference.kind.value} {key}", *steps])
    if difference.accepted:
        return f"{fact}, accepted: {words.shorten(difference.accepted, style.prose)}"
    return f"{fact} ({_action(difference.action, table)})"


def _action(action: Action, table: TableDiff) -> str:
    """Return what a repair does about a difference, or did, or was refused to do."""
    if action in facts.WRITES and table.status is Status.REPAIRED:
        return words.DONE[action]
    refused = action in facts.WRITES and facts.is_held(table, action)
    return words.ACTION[action] + (" refused" if refused else "")


def _steps(difference: Difference, table: TableDiff, style: Style) -> list[str]:
    safe = partial(style.secrets.safe, table=table.table)
    return [
        f"{c.column}: {words.step(safe(c.column, c.existing), safe(c.column, c.desired), style.short)}"
        for c in difference.columns
    ]


def _row(kind: Kind, row: Sequence[ColumnDifference], table: TableDiff, style: Style) -> str:
    safe = partial(style.secrets.safe, table=table.table)
    values = ((c.column, c.desired if kind is Kind.MISSING else c.existing) for c in row)
    return ", ".join(f"{column}: {words.value(safe(column, value), style.short)}" for column, value in values)


def _some(
    items: Iterable[T], count: int, style: Style, sort: str, lines: Callable[[T], Iterable[Line]]
) -> Iterator[Line]:
    """Yield the lines of the first items, and how many more of this sort there are."""
    most = count if style.verbose else MOST
    for item in islice(items, most):
        yield from lines(item)
    if count > most:
        yield Line(f"... and {count - most} more {sort} (-v shows all)", 2, Tone.QUIET)


# -- The sections after the cells ----------------------------------------------------------------


def _findings(report: Report, style: Style, *, accepted: bool = False) -> Iterator[Line]:
    for cell, found in facts.found(report, accepted=accepted).items():
        yield Line(f"in {cell}:", 1)
        for sort, of_sort in _by(found, lambda each: f"{each.finding.code} in {each.rule}").items():
            yield from _some(of_sort, len(of_sort), style, sort, lambda each: _finding(each, style))


def _finding(found: facts.Found, style: Style) -> Iterator[Line]:
    """Yield what is wrong, and what to do about it, of which nothing is cut: people copy it."""
    key = words.key(found.key, style.short)
    # A detector's findings have its id as their code.
    head = " ".join(filter(None, dict.fromkeys([found.rule, found.finding.code, key])))
    accepted = found.finding.accepted
    why = f"; accepted: {words.shorten(accepted, style.prose)}" if accepted else ""
    tone = Tone.QUIET if accepted else Tone.STRONG
    yield Line(f"{head}: {words.shorten(found.finding.message, style.prose)}{why}", 2, tone)
    if found.finding.do is not None:
        first, *more = words.remedy(found.finding.do).split("\n")
        yield Line(first, 3, tone)
        yield from (Line(f"| {text}", 3, tone) for text in more)


def _by(items: Iterable[T], sort: Callable[[T], str]) -> Mapping[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(sort(item), []).append(item)
    return groups


def _schema_section(report: Report, style: Style) -> Iterator[Line]:
    every = [(cell.cell, *each) for cell in facts.results(report) for each in facts.schema(cell)]
    for name, table, difference in every:
        if difference.blocking or style.verbose:
            yield _schema_line(f"{name} {table}", difference)
    harmless = sum(not difference.blocking for _, _, difference in every)
    if harmless and not style.verbose:
        verb = "stops" if harmless == 1 else "stop"
        yield Line(f"{harmless} {verb} no rule (-v shows all)", 1, Tone.QUIET)


def _schema_line(place: str, difference: SchemaDifference) -> Line:
    sides = f"{_side(difference.existing)} -> {_side(difference.desired)}"
    stops = " (stops the rule)" if difference.blocking else ""
    tone = Tone.BAD if difference.blocking else Tone.PLAIN
    return Line(f"{place}: {difference.path}: {sides}{stops}", 1, tone)


def _side(text: str | None) -> str:
    return "absent" if text is None else text


def _refusals(report: Report, *, partly: bool = False) -> Iterator[Line]:
    for cell in facts.results(report):
        for refusal in facts.refusals(cell):
            if bool(refusal.holds) is partly:
                yield from _refusal(cell.cell, refusal)


def _refusal(cell: str, refusal: Refusal) -> Iterator[Line]:
    """Yield the refusal and how to waive it, unless its message says so.

    Further lines of the message (statements to copy) keep a margin.
    """
    first, *more = refusal.message.split("\n")
    head = " ".join(filter(None, [cell, refusal.rule, refusal.code]))
    yield Line(f"{head}: {first}", 1, Tone.BAD)
    yield from (Line(f"| {text}", 2) for text in more)
    waiver = words.waiver(refusal)
    if waiver and waiver not in refusal.message:
        yield Line(f"to allow it, after a look at the rows: --waive {waiver}", 2)


def _skipped(report: Report, style: Style) -> Iterator[Line]:
    for cell in facts.results(report):
        names = facts.key_names(cell)
        for rule, of_rule in _by(facts.skipped(cell), lambda each: each.rule).items():
            line = _skipped_line(cell.cell, names.get(rule, ()), style)
            yield from _some(of_rule, len(of_rule), style, f"in {rule} of {cell.cell}", line)


def _skipped_line(cell: str, names: tuple[str, ...], style: Style) -> Callable[[Skipped], Sequence[Line]]:
    def line(skipped: Skipped) -> Sequence[Line]:
        key = words.key(facts.named(names, skipped.key), style.short)
        head = " ".join(filter(None, [cell, skipped.rule, key]))
        return [Line(f"{head}: {words.shorten(skipped.reason, style.prose)}", 1)]

    return line


def _problems(report: Report, style: Style) -> Iterator[Line]:
    for cell in facts.results(report):
        for _, alike in groupby(cell.problems, lambda problem: problem.partition(": failed: ")[2] or problem):
            rest = iter(alike)
            first = [*islice(rest, None if style.verbose else FEW_ALIKE)]
            more = sum(1 for _ in rest)
            # A server that goes away fails all that is left, each row with the same words.
            for problem in first[:1] if more else first:
                yield Line(f"{cell.cell}: {words.shorten(problem, style.prose)}", 1, Tone.BAD)
            if more:
                others = counted(more + len(first) - 1, "more change")
                yield Line(f"{cell.cell}: {others} failed for the same reason (-v shows all)", 1, Tone.BAD)


def _notices_title(report: Report) -> str:
    written = facts.stage(report) is Stage.WRITTEN
    return "do now:" if written else f"after {facts.doing(report)}:"


def _notices(report: Report) -> Iterator[Line]:
    every = facts.unique(notice for cell in facts.results(report) for notice in facts.notices(cell))
    yield from (Line(notice, 1, Tone.STRONG) for notice in every)


def advice(report: Report) -> Iterator[Line]:
    """Yield what to do next, and what people should know."""
    run, stage = report.run, facts.stage(report)
    if any(isinstance(cell, CellFailure) or facts.broken(cell) for cell in report.cells):
        yield Line("what could not be compared is unknown, not in step")
    if stage is Stage.COMPARED and facts.writable(report):
        yield Line("cellsync repair --dry-run shows what a repair would write; cellsync repair does it")
    if stage is Stage.PLANNED and facts.totals(report).planned:
        does = "cellsync repair" if run.verb == "plan" else "the same command without --dry-run"
        yield Line(f"{does} does it")
    if stage is Stage.WRITTEN and facts.totals(report).applied:
        yield Line(f"cellsync undo {run.id} takes this run back")
    yield from (Line(note) for note in (*report.notes, *report.left_out))


# -- What a repair shows before it asks ----------------------------------------------------------


def _question(report: Report, style: Style) -> Iterator[Line]:
    yield Line(question(report), tone=Tone.TITLE)
    for cell in report.cells:
        yield from _question_cell(cell)
    for title, lines in _sections(report, style):
        if lines and not title.startswith(("findings", "accepted", "schema")):
            yield from (Line(title, tone=Tone.TITLE), *lines)


def _question_cell(cell: CellResult | CellFailure) -> Iterator[Line]:
    if isinstance(cell, CellFailure):
        yield Line(f"{cell.cell}: {_failure_word(cell)}: {cell.error}", 1, Tone.BAD)
        return
    for table in facts.broken(cell):
        yield Line(f"{cell.cell} {table.rule}: could not be compared: {table.error}", 1, Tone.BAD)
    soft = facts.soft_deleted(cell)
    for plan in cell.plans:
        counts: dict[str, Counter[Action]] = {}
        for part in parts(plan.changes):
            if isinstance(part, Load):
                counts.setdefault(part.sample.rule, Counter())[Action.INSERT] += len(part)
                continue
            for change in part:
                counts.setdefault(change.rule, Counter())[facts.deed(change, soft)] += 1
        for rule, deeds in counts.items():
            yield Line(f"{plan.written} {rule}: {_deeds(deeds)}", 1)


def _deeds(counts: Counter[Action]) -> str:
    return ", ".join(counted(counts[action], words.ACTION[action]) for action in Action if counts[action])


# -- Schema --------------------------------------------------------------------------


def _schema_report(report: Report) -> Iterator[Line]:
    blocking = [d for cell in facts.results(report) for _, d in facts.schema(cell) if d.blocking]
    every = sum(len(facts.schema(cell)) for cell in facts.results(report))
    tone = Tone.BAD if blocking else Tone.PLAIN
    yield Line(_schema_verdict(every, len(blocking), len(facts.failures(report))), tone=tone)
    for cell in report.cells:
        yield from _schema_cell(cell)


def _schema_verdict(every: int, blocking: int, failed: int) -> str:
    stops = f"{blocking} of which {'stops' if blocking == 1 else 'stop'} a rule"
    found = f"{counted(every, 'schema difference')}, {stops}"
    unknown = f"{counted(failed, 'cell')} could not be compared" if failed else ""
    return "; ".join(filter(None, [found if every else "no schema differences", unknown]))


def _schema_cell(cell: CellResult | CellFailure) -> Iterator[Line]:
    if isinstance(cell, CellFailure):
        yield Line(f"{cell.cell}: {_failure_word(cell)}: {cell.error}", 1, Tone.BAD)
        return
    for table, difference in facts.schema(cell):
        yield _schema_line(f"{cell.cell} {table}", difference)
    for failed in facts.broken(cell):
        if not failed.schema:
            yield Line(f"{cell.cell} {failed.table}: could not be compared: {failed.error}", 1, Tone.BAD)
