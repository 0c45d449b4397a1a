"""The SQL output: the statements of every plan, for the mariadb client, and what takes them back.

Each written database has a section of its own: the session as cellsync sets it, one transaction, a
statement for each change in the order of the plan, and then, as comments that begin with ``-- undo: ``,
the same for the way back, the last change first. What is to be known beside it stands in comments.

spelling    values, names and comparisons
statements  one change as one guarded statement
excerpt     the statements of single differences, for the page and the JSON of a report
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

from cellsync.masking import escape_controls
from cellsync.model import (
    CellFailure,
    CellResult,
    Change,
    DatabaseIdentity,
    Plan,
    Report,
    TableFailure,
    safe,
)
from cellsync.report import facts, words
from cellsync.report.page import Style
from cellsync.report.sql.spelling import Untold, literal
from cellsync.report.sql.statements import SQL_MODE, Statements

__all__ = ["Statements", "Untold", "by_database", "render"]

SESSION = (
    "SET NAMES utf8mb4",
    "SET SESSION time_zone = '+00:00', SESSION foreign_key_checks = 1, SESSION unique_checks = 1,\n"
    f"    SESSION sql_mode = '{SQL_MODE}'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
)
"""The session in which cellsync itself writes."""

UNDO = "-- undo: "
BLOCK = 500
"""Changes that are turned round together: those of a long plan are read from disk in order only."""


def render(report: Report, style: Style | None = None) -> Iterator[str]:
    """Yield everything as one text, in which each database has a section."""
    style = style or Style()
    sections = _sections(report)
    yield from _head(report, style)
    if len(sections) > 1:
        yield from _comments(_HOW_TO_CUT)
    for written, plans in sections.items():
        yield from _section(report, written, plans, style)


def by_database(report: Report, style: Style | None = None) -> Mapping[str, Iterator[str]]:
    """Return a text of its own for each cell whose database is in the report."""
    style = style or Style()
    return {
        written: chain(_head(report, style), _section(report, written, plans, style))
        for written, plans in _sections(report).items()
    }


def _sections(report: Report) -> dict[str, list[Plan]]:
    """Return the plans by the cell that they write, the children before the parent."""
    sections: dict[str, list[Plan]] = {cell.cell: [] for cell in report.cells}
    for plan in (plan for cell in facts.results(report) for plan in cell.plans):
        if plan.changes or plan.written in sections:
            sections.setdefault(plan.written, []).append(plan)
    return sections


# -- Comments ------------------------------------------------------------------------------------

_HOW_TO_CUT = (
    "Each database has its own section, for a server of its own. To run one of several:",
    "  sed -n '/^-- cellsync: begin CELL$/,/^-- cellsync: end CELL$/p' FILE | mariadb ... SCHEMA",
    "or name the cell on the command line, or let cellsync write a file for each: -o 'FILE-{cell}.sql'",
)


def _comments(lines: Iterable[str]) -> Iterator[str]:
    """Yield comments; no value in them can end one.

    A line must not begin with what others wrote: it could pass for a line of an undo.
    """
    return (f"-- {escape_controls(line)}".rstrip() + "\n" for line in lines)


def _head(report: Report, style: Style) -> Iterator[str]:
    run = report.run
    made = run.verb not in ("diff", "plan") and not run.dry_run
    doing = "the undo" if run.verb == "undo" else "a repair"
    what = f"what {run.verb} wrote" if made else f"what {doing} would write"
    yield from _comments(
        [
            f"cellsync: {what}, as SQL for the mariadb client",
            f"run {run.id} of topology {run.topology}",
            f"started: {words.instant(run.started)} by {run.operator} on {run.host}",
            f"command: {run.command}",
            *([f"reason: {run.reason}"] if run.reason else ()),
            "It holds rows of the databases as they are, secrets too: keep it as you keep those.",
            _JOURNALED if made else _NOT_JOURNALED,
            *(f"note: {note}" for note in report.notes),
        ]
    )


_JOURNALED = "It is in the journal too: `cellsync undo` takes it back, and knows what has moved since."
_NOT_JOURNALED = (
    "What is run from here is not in cellsync's journal, so `cellsync undo` does not know it: keep this file."
)


def _about(report: Report, written: str, style: Style) -> Iterator[str]:
    """Yield what is to be known of a cell beside its statements."""
    cell = next((each for each in report.cells if each.cell == written), None)
    if isinstance(cell, CellFailure):
        yield f"error: {words.STATUS[cell.status]}: {cell.error}"
    if not isinstance(cell, CellResult):
        return
    names = facts.key_names(cell)
    yield from (f"error: {each.rule}: {each.error}" for each in cell.tables if isinstance(each, TableFailure))
    for each in facts.refusals(cell):
        yield f"refused: {f'{each.rule}: ' if each.rule else ''}{each.message}"
    for skip in facts.skipped(cell):
        key = words.key(facts.named(names.get(skip.rule, ()), skip.key), style.short)
        yield f"skipped: {skip.rule} {key}: {skip.reason}"
    yield from (f"problem: {problem}" for problem in cell.problems)
    yield from (f"afterwards: {notice}" for notice in facts.notices(cell))


# -- One database --------------------------------------------------------------------------------


def _section(report: Report, written: str, plans: Sequence[Plan], style: Style) -> Iterator[str]:
    yield "\n"
    yield from _comments([f"cellsync: begin {written}"])
    for plan in plans:
        if plan.changes:
            yield from _plan(plan, style)
    if not any(plan.changes for plan in plans):
        yield from _comments(["no statements"])
    yield from _comments(_about(report, written, style))
    yield from _comments([f"cellsync: end {written}"])


def _plan(plan: Plan, style: Style) -> Iterator[str]:
    yield from _comments([_what(plan)])
    if plan.database.version.startswith("SQLite"):
        yield from _comments(["This is no MariaDB, so there is nothing to run."])
        return
    yield from _comments(_how_to_run(plan))
    statements, shown = Statements(plan), _Shown(style)
    way = _Way(statements.forward, lambda change: f"{change.action.value} {shown(change)}")
    yield from _transaction(plan, _steps(enumerate(plan.changes, 1), way), "not made")
    yield from _comments(["The way back, the last change first:"])
    back = _Way(
        statements.backward, lambda change: f"undo of {change.action.value} {shown(change)}", LEFT_OUT
    )
    undo = _transaction(plan, _steps(_backwards(plan.changes), back), "not taken back")
    yield from (f"{UNDO}{line}\n" for piece in undo for line in piece.removesuffix("\n").split("\n"))


def _what(plan: Plan) -> str:
    database = plan.database
    number = words.counted(len(plan.changes), "change")
    return (
        f"{number} to {plan.written}: schema {database.schema}, {database.version}, server {database.server}"
    )


def _how_to_run(plan: Plan) -> Iterator[str]:
    schema = shlex.quote(plan.database.schema)
    yield f"run it:       mariadb --host=... {schema} < FILE"
    yield "on a copy:    the same with --init-command='SET @cellsync_copy = 1'"
    yield "It refuses any other database. An error ends it, and then nothing of this section is written."
    yield "Rows that are no longer as planned are left alone; it ends with the numbers of those changes."
    yield f"take it back: sed -n 's/^{UNDO}//p' FILE | mariadb --host=... {schema}"
    yield "and where some were not made: --init-command=\"SET @cellsync_left = '17,20'\""


def _transaction(plan: Plan, steps: Iterator[str], left: str) -> Iterator[str]:
    yield from (f"{each};\n" for each in SESSION)
    yield from _block(f"IF @cellsync_copy IS NULL AND NOT ({_here(plan.database)}) THEN", (ELSEWHERE,))
    yield "SET @cellsync_made = 0, @cellsync_open = '', @cellsync_left = IFNULL(@cellsync_left, '');\n"
    yield "START TRANSACTION;\n"
    yield from steps
    yield "\nCOMMIT;\n"
    yield (
        f"SELECT {literal(plan.written)} AS cell, {len(plan.changes)} AS planned, @cellsync_made AS made,\n"
        f"    TRIM(LEADING ',' FROM @cellsync_open) AS `{left}`;\n"
    )


ELSEWHERE = "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not the database of the plan: nothing is written'"


def _here(database: DatabaseIdentity) -> str:
    terms = [f"DATABASE() <=> {literal(database.schema)}"]
    if database.server:
        source = "information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME = 'SERVER_UID'"
        terms.append(f"(SELECT VARIABLE_VALUE FROM {source}) <=> {literal(database.server)}")
    return "\n    AND ".join(terms)


def _block(condition: str, body: Sequence[str]) -> Iterator[str]:
    """Yield a compound statement: plain ones have no conditions."""
    inside = "".join(f"    {each};\n" for each in body)
    yield f"DELIMITER //\nBEGIN NOT ATOMIC\n  {condition}\n{inside}  END IF;\nEND//\nDELIMITER ;\n"


# -- Changes -------------------------------------------------------------------------------------

Numbered = tuple[int, Change]

LEFT_OUT = "FIND_IN_SET({number}, @cellsync_left) = 0"
"""Holds where the change of that number was made."""


@dataclass(frozen=True)
class _Shown:
    """How a change reads in a comment."""

    style: Style

    def __call__(self, change: Change) -> str:
        key = words.key(((n, safe(n, v)) for n, v in facts.subject(change)), self.style.short)
        return f"{change.table} {key} (rule {change.rule}): {change.reason}"


@dataclass(frozen=True)
class _Way:
    """There, or back: how a change is spelled, how it reads, and one more condition for each."""

    spell: Callable[[Change, Sequence[str]], str]
    show: Callable[[Change], str]
    condition: str = ""

    def step(self, number: int, change: Change, more: Sequence[str] = ()) -> Iterator[str]:
        """Yield one change, and the counting of it."""
        conditions = [*([self.condition.format(number=number)] if self.condition else ()), *more]
        yield "\n"
        yield from _comments([f"{number}: {self.show(change)}"])
        try:
            statement = self.spell(change, conditions)
        except Untold as untold:
            yield from _comments([f"{number} has no statement: {untold}"])
            yield f"SET @cellsync_open = CONCAT_WS(',', @cellsync_open, {number});\n"
            return
        yield f"{statement};\n"
        yield (
            "SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), "
            f"@cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, {number}));\n"
        )


def _steps(changes: Iterable[Numbered], way: _Way) -> Iterator[str]:
    for together, group in groupby(changes, key=lambda each: each[1].together):
        if together:
            yield from _whole(list(group), way)
        else:
            yield from chain.from_iterable(way.step(number, change) for number, change in group)


def _whole(group: Sequence[Numbered], way: _Way) -> Iterator[str]:
    """Yield changes that are made together or not at all."""
    yield "\nSAVEPOINT cellsync_together;\n"
    yield "SET @cellsync_before = @cellsync_made, @cellsync_open_before = @cellsync_open;\n"
    for at, (number, change) in enumerate(group):
        yield from way.step(number, change, (f"@cellsync_made = @cellsync_before + {at}",))
    numbers = ",".join(str(number) for number, _ in group)
    yield from _block(
        f"IF @cellsync_made <> @cellsync_before + {len(group)} THEN",
        (
            "ROLLBACK TO SAVEPOINT cellsync_together",
            f"SET @cellsync_made = @cellsync_before, "
            f"@cellsync_open = CONCAT_WS(',', @cellsync_open_before, '{numbers}')",
        ),
    )


def _backwards(changes: Sequence[Change]) -> Iterator[Numbered]:
    """Yield the changes with their numbers, the last one first; long plans are read block by block."""
    for end in range(len(changes), 0, -BLOCK):
        start = max(0, end - BLOCK)
        block = list(changes[start:end])
        yield from zip(range(end, start, -1), reversed(block), strict=True)
