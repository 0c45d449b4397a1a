"""The HTML report: one file that needs nothing else, for whoever was not there.

What the page says is worked out here, as plain values; ``page.html`` beside this file only lays it
out, with ``page.css``, and escapes every value. ``page.js`` filters and opens folds; without it the
page is complete. The page's own policy allows exactly this style and this script, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cellsync.masking import escape_controls
from cellsync.model import (
    Accepted,
    CellFailure,
    CellResult,
    CheckedCell,
    Direction,
    Dossier,
    HostStatus,
    JournaledRun,
    Kind,
    Report,
    Status,
    TableDiff,
    TableFailure,
    TableResult,
    Vitals,
)
from cellsync.report import course, facts, standing, words
from cellsync.report.cards import LONG, Card, Names, Room, cards, shares
from cellsync.report.facts import Stage
from cellsync.report.page import PROSE, Style
from cellsync.report.register import say_silence
from cellsync.report.sql import excerpt
from cellsync.report.standing import Life, State, Works
from cellsync.report.verdict import drift, verdict

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDED = 50
"""A table with more differences is folded when the page opens."""
LINES = 500
"""So many lines has a list of what was skipped or went wrong, and so many rows the list of findings."""

STATES = {
    Status.IN_STEP: "good",
    Status.REPAIRED: "good",
    Status.DIFFERS: "drift",
    Status.REFUSED: "bad",
    Status.INCOMPLETE: "bad",
    Status.UNREACHABLE: "bad",
}
EDGES = {State.IN_STEP: "good", State.REPAIRED: "good", State.FINDINGS: "drift", State.DRIFT: "drift"}
"""The colour of an edge; of every other state it is that of what is bad."""
WORKS = {Works.IN_STEP: "good", Works.DRIFT: "drift", Works.FINDINGS: "drift", Works.NONE: "none"}

LIVES = {Life.DOWN: "bad", Life.LOST: "drift", Life.PART: "drift", Life.ALIVE: "good"}


class Table(NamedTuple):
    """One rule in one cell."""

    rule: str
    state: str
    summary: str
    why: str
    breaks: Sequence[str]
    error: str
    command: str
    names: Names
    cards: Sequence[Card]
    folded: bool
    left_out: int
    untold: int
    """So many cards of rows that a repair would write have no SQL, for want of room."""
    statements: str
    """The command that shows the SQL of all of them."""


class Schema(NamedTuple):
    """One schema difference of a cell."""

    table: str
    path: str
    existing: str
    desired: str
    blocking: bool


class Cell(NamedTuple):
    """One child."""

    name: str
    state: str
    status: str
    summary: str
    isolated: str
    breaks: Sequence[tuple[str, str]]
    """The features that do not work, and what is lost without them."""
    tables: Sequence[Table]
    in_step: Sequence[str]
    nothing_found: Sequence[str]
    """The detectors that found nothing."""
    lists: Sequence[tuple[str, Sequence[str]]]
    """Title and lines: refusals, what was skipped, what went wrong, notices."""
    schema: Sequence[Schema]


def render(report: Report, style: Style | None = None) -> Iterator[str]:
    """Yield the page of a run alone, as ``--format html`` of any verb has it."""
    features = tuple(dict.fromkeys(name for names in report.rule_features.values() for name in names))
    return dossier(Dossier(report=report, features=features))


def dossier(of: Dossier) -> Iterator[str]:
    """Yield the page in pieces."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_disarmed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = {name: _hash(environment, f"page.{name}") for name in ("css", "js")}
    return environment.get_template("page.html").generate(policy=policy, **_page(of))


def _disarmed(value: object) -> object:
    """Show what does not print as an escape, in whatever the page takes from outside."""
    return escape_controls(value) if isinstance(value, str) else value


def _hash(environment: Environment, name: str) -> str:
    """Return the hash of a part of the page as a Content-Security-Policy has it (CSP level 3, 2.3.1)."""
    text = environment.get_template(name).render()
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _page(of: Dossier) -> dict[str, Any]:
    report = of.report
    written = facts.stage(report) is Stage.WRITTEN
    room = Room(shares(facts.results(report)), excerpt.told(report, longest=excerpt.LONG), written)
    found = list(_findings(report))
    return {
        "parent": report.run.topology,
        "sound": standing.parent(of),
        "outage": standing.outage(of),
        "verdict": verdict(report),
        "state": _state(report),
        "silent": words.listed([cell.cell for cell in of.checked if not cell.sound]),
        "first": list(standing.first(of)),
        "run": report.run,
        "started": words.instant(report.run.started),
        "finished": words.instant(report.finished),
        "exit_code": int(report.exit_code),
        "ended": standing.ended(of),
        "edges": [_edge(edge) for edge in standing.edges(of)],
        "cells": [_cell(cell, report, room) for cell in report.cells],
        "features": [(name, report.features.get(name, "")) for name in of.features],
        "matrix": [
            (cell, [(WORKS.get(works, "bad"), said) for works, said in stands.values()])
            for cell, stands in standing.features(of)
        ],
        "findings": found[:LINES],
        "more_findings": len(found[LINES:]),
        "checked": [_checked(cell, of.vitals) for cell in of.checked],
        "course": course.section(of.triage, of.runs) if of.triage else None,
        "runs": [_run(each) for each in of.runs],
        "unread": of.unread,
        "unseen": words.unseen(of.unseen) if of.unseen else "",
        "settings": of.settings,
        "accepts": [_accept(each) for each in of.accepts],
        "notes": [*report.notes, *report.left_out],
    }


def _state(report: Report) -> str:
    states = {STATES[cell.status] for cell in report.cells}
    return next((state for state in ("bad", "drift") if state in states), "good")


def _edge(edge: standing.Edge) -> Mapping[str, Any]:
    said = [(EDGES.get(state, "bad"), words_) for state, words_ in edge.said]
    return {"cell": edge.cell, "state": edge.state.value, "colour": said[0][0], "said": said}


# -- Cells ---------------------------------------------------------------------------------------


def _cell(cell: CellResult | CellFailure, report: Report, room: Room) -> Cell:
    if isinstance(cell, CellFailure):
        nothing: dict[str, Sequence[Any]] = dict.fromkeys(
            ("breaks", "tables", "in_step", "nothing_found", "lists", "schema"), ()
        )
        return Cell(cell.cell, "bad", "could not be compared", cell.error, cell.isolated, **nothing)
    quiet = [table for table in facts.compared(cell) if facts.in_step(table)]
    open_ = (table for table in facts.compared(cell) if table.status is not Status.REPAIRED)
    broken = facts.unique(name for table in open_ for name in _breaks(table, report))
    return Cell(
        name=cell.cell,
        state=STATES[cell.status],
        status=words.STATUS[cell.status],
        summary=drift(facts.tally(facts.compared(cell))),
        isolated=cell.isolated,
        breaks=[(name, report.features.get(name, "")) for name in broken],
        tables=[_table(table, cell, report, room) for table in cell.tables if not facts.in_step(table)],
        in_step=[f"{t.rule} ({words.counted(t.desired_rows, 'row')})" for t in quiet if not t.detector],
        nothing_found=[table.rule for table in quiet if table.detector],
        lists=[(title, lines) for title, lines in _lists(cell, report) if lines],
        schema=[
            Schema(table, d.path, d.existing or "absent", d.desired or "absent", d.blocking)
            for table, d in facts.schema(cell)
        ],
    )


def _lists(cell: CellResult, report: Report) -> Iterator[tuple[str, Sequence[str]]]:
    refusals = facts.refusals(cell)
    refused = [each for refusal in refusals if not refusal.holds for each in _refusal(refusal)]
    held = [each for refusal in refusals if refusal.holds for each in _refusal(refusal)]
    yield "Refused: these rules, and those that refer to them, write nothing", refused
    yield "Held back: these changes wait, the others do not", held
    names = facts.key_names(cell)
    skipped = (
        f"{each.rule} {words.key(facts.named(names.get(each.rule, ()), each.key), LONG)}: {each.reason}"
        for each in facts.skipped(cell)
    )
    yield "Skipped", _some(skipped, len(facts.skipped(cell)))
    yield "Went wrong", _some(iter(cell.problems), len(cell.problems))
    written = facts.stage(report) is Stage.WRITTEN
    yield "Do now" if written else f"After {facts.doing(report)}", list(facts.notices(cell))


def _refusal(refusal: Any) -> Iterator[str]:
    yield f"{refusal.rule} {refusal.code}: {refusal.message}".strip()
    waiver = words.waiver(refusal)
    if waiver and waiver not in refusal.message:
        yield f"to allow it, after a look at the rows: --waive {waiver}"


def _some(lines: Iterator[str], count: int) -> list[str]:
    """Return as many lines as a page has room for, and how many more there are."""
    shown = [words.shorten(line, PROSE) for line in islice(lines, LINES)]
    return shown + ([f"and {count - LINES} more, which --format json has"] if count > LINES else [])


def _table(table: TableResult, cell: CellResult, report: Report, room: Room) -> Table:
    up = table.direction is Direction.UP
    names = Names(report.run.topology, cell.cell) if up else Names(cell.cell, report.run.topology)
    why = report.rule_whys.get(table.rule, "")
    if isinstance(table, TableFailure):
        command = "" if table.detector else f"cellsync schema {cell.cell} --rule {table.rule}"
        failed = "could not be compared"
        return Table(table.rule, "bad", failed, why, (), table.error, command, names, (), False, 0, 0, "")
    shown, untold = cards(table, cell, room, report.secrets, names)
    return Table(
        rule=table.rule,
        state=STATES[table.status],
        summary=_summary(table),
        why=why,
        breaks=_breaks(table, report),
        error="; ".join(table.unknown),
        command=_command(table, cell, report),
        names=names,
        cards=shown,
        folded=len(shown) > FOLDED,
        left_out=len(table.differences) - len(shown),
        untold=untold,
        statements=_statements(table, cell, report) if untold else "",
    )


def _summary(table: TableDiff) -> str:
    said = [] if table.detector else [drift(facts.tally([table])) or "no difference that counts"]
    if accepted := facts.accepted([table]):
        said.append(f"{accepted} accepted")
    if findings := len(table.findings):
        said.append(f"{words.counted(findings, 'finding')} (below)")
    return "; ".join(said)


def _breaks(table: TableDiff, report: Report) -> Sequence[str]:
    """Return the features that the drift breaks: what is only extra breaks nothing that anybody misses."""
    lacking = any(facts.counting(sort) and sort.kind is not Kind.EXTRA for sort in table.tally)
    return report.rule_features.get(table.rule, ()) if lacking else ()


def _command(table: TableDiff, cell: CellResult, report: Report) -> str:
    """Return what mends the differences of a table; "" where no repair would."""
    refused = any(each.rule == table.rule and not each.holds for each in facts.refusals(cell))
    free = [action for action in facts.WRITES if action not in table.waits]
    done = table.status is Status.REPAIRED or (table.status is Status.REFUSED and not table.waits)
    due = table.does(*free) and not done and not refused
    return f"cellsync repair {cell.cell} --rule {table.rule}" if due and facts.compares(report) else ""


def _statements(table: TableDiff, cell: CellResult, report: Report) -> str:
    """Return what shows the SQL of all that a repair would write by a rule, or of all that it wrote."""
    if facts.stage(report) is Stage.WRITTEN:
        return f"cellsync history {report.run.id} --format sql"
    return f"cellsync plan {cell.cell} --rule {table.rule} --format sql"


# -- Around the cells ----------------------------------------------------------------------------


def _findings(report: Report) -> Iterator[Mapping[str, str]]:
    for cell, found in facts.found(report).items():
        for each in found:
            yield {
                "cell": cell,
                "rule": each.rule,
                "code": each.finding.code,
                "key": words.key(each.key, LONG),
                "message": words.shorten(each.finding.message, PROSE),
                "do": words.remedy(each.finding.do) if each.finding.do else "",
            }


def _checked(cell: CheckedCell, vitals: Sequence[Vitals]) -> Mapping[str, Any]:
    database = cell.database
    mine = next((each for each in vitals if each.cell == cell.cell), None)
    return {
        "name": cell.cell,
        "isolated": cell.isolated,
        "state": "good" if cell.sound and not (mine and mine.down) else "bad",
        "database": _answer(database.status, database.latency, database.error),
        "server": database.server,
        "version": mine.version if mine else "",
        "broker": [(probe.host, _answer(probe.status, probe.latency, probe.error)) for probe in cell.broker],
        "unknown": "; ".join(filter(None, [cell.unknown, cell.half_registered, say_silence(cell)])),
        "services": [(LIVES[life], said) for life, said in standing.services(mine)] if mine else [],
        "unread": mine.error if mine else "",
    }


def _answer(status: HostStatus, latency: float | None, error: str) -> str:
    if latency is not None and not error:
        return f"ok, {latency * 1000:.0f} ms"
    return f"{words.ANSWER[status]}: {error}"


def _run(journaled: JournaledRun) -> Mapping[str, str]:
    run = journaled.run
    return {
        "id": run.id,
        "verb": run.verb,
        "started": words.instant(run.started),
        "status": "cut off, or still running" if journaled.finished is None else journaled.status,
        "cells": ", ".join(journaled.cells),
        "applied": str(journaled.applied),
        "by": f"{run.operator} on {run.host}",
        "reason": run.reason,
        "undone": ", ".join(journaled.undone_by),
    }


def _accept(entry: Accepted) -> Mapping[str, str]:
    key = words.key(entry.key.items(), LONG) if entry.key else "every row"
    until = f"until {entry.until:%Y-%m-%d}" if entry.until else "for good"
    return {"cell": entry.cell, "rule": entry.rule, "key": key, "why": entry.why, "until": until}
