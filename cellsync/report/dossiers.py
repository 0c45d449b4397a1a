"""A dossier as text and as JSON: the comparison, and around it what `report` found besides.

The text is short; what is long (the differences, all that answers) is in the page and in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from cellsync.codec import Lines
from cellsync.model import Accepted, Dossier, Report, Vitals
from cellsync.report import facts, register, standing, words
from cellsync.report import json as documents
from cellsync.report import text as texts
from cellsync.report.json import Object
from cellsync.report.page import Block, Grid, Line, Style, Tone, compose
from cellsync.report.past import course_blocks, grid
from cellsync.report.sql import excerpt
from cellsync.report.standing import Life
from cellsync.report.verdict import verdict

RUNS = 5
"""So many of the last runs are in the text, unless more is asked for."""


def text(of: Dossier, style: Style) -> Iterator[str]:
    """Yield the text of a report: what differs, what answers, which services live, the last runs."""
    return compose(_text(of, style), style)


def _text(of: Dossier, style: Style) -> Iterator[Block]:
    if outage := standing.outage(of):
        yield Line(f"outage: {outage}", tone=Tone.BAD)
    yield from texts.body(of.report, style)
    for title, lines in _sections(of, style):
        yield from (Line(""), Line(title, tone=Tone.TITLE), *lines)
    yield Line("")
    yield from texts.advice(of.report)
    yield Line(f"exit code {int(of.report.exit_code)}: {standing.ended(of)}", tone=Tone.QUIET)


def _sections(of: Dossier, style: Style) -> Iterator[tuple[str, Sequence[Block]]]:
    if of.checked:
        title = "databases and brokers:" if register.has_brokers(of.checked) else "databases:"
        yield title, list(register.answers(of.checked, style, depth=1))
    if services := list(chain.from_iterable(map(_services, of.vitals))):
        yield "services:", services
    if of.unread or of.unseen or (of.runs and of.triage is None):
        unread = [
            Line(f"{cell}: could not be read: {error}", 1, Tone.BAD) for cell, error in of.unread.items()
        ]
        unseen = [Line(words.unseen(of.unseen), 1, Tone.STRONG)] if of.unseen else []
        yield "the last runs that wrote:", [*unread, *unseen, *_runs(of, style)]
    if of.triage is not None:
        yield "the course of drift:", list(course_blocks(of.runs, of.triage, style, unseen=of.unseen))
    yield "versions:", list(_versions(of, style))


def _services(vitals: Vitals) -> Iterator[Line]:
    """Yield what of a cell's services is down; one line where all are alive."""
    if vitals.error:
        yield Line(f"{vitals.cell}: unknown: {vitals.error}", 1, Tone.BAD)
    said = list(standing.services(vitals))
    for life, text in said:
        if life is not Life.ALIVE:
            yield Line(f"{vitals.cell}: {text}", 1, Tone.BAD if life is Life.DOWN else Tone.STRONG)
    names = [text.partition(" ")[0] for life, text in said if life is Life.ALIVE]
    if names:
        yield Line(f"{vitals.cell}: alive: {', '.join(names)}", 1)


def _runs(of: Dossier, style: Style) -> Sequence[Grid]:
    """Return the last runs; where the course of drift is shown they are in it."""
    if of.triage is not None:
        return []
    shown = of.runs if style.verbose else of.runs[:RUNS]
    return [grid(shown)] if shown else []


def _versions(of: Dossier, style: Style) -> Iterator[Line]:
    schemas = {vitals.cell: vitals.version for vitals in of.vitals if vitals.version}
    servers = {cell.cell: cell.database.server for cell in of.checked if cell.database.server}
    for cell, server in servers.items():
        yield Line(", ".join(filter(None, [f"{cell}: {server}", schemas.get(cell)])), 1)
    named = ((name, value) for name, value in of.settings.items() if style.verbose or name in SHORT)
    yield from (Line(f"{name}: {value}", 1, Tone.QUIET) for name, value in named)


SHORT = ("cellsync", "rules", "settle")
"""The settings that are in the text, unless more is asked for."""


# -- JSON ----------------------------------------------------------------------------------------


def json(of: Dossier) -> Iterator[str]:
    """Yield the JSON of the comparison with further keys (DESIGN section 8)."""
    return documents.whole(
        {
            **documents.content(of.report),
            "outage": standing.outage(of) or None,
            "verdict": verdict(of.report),
            "do_first": [{"command": command or None, "why": why} for command, why in standing.first(of)],
            "ended": standing.ended(of),
            "command": of.report.run.command,
            "operator": of.report.run.operator,
            "host": of.report.run.host,
            "rules": [
                {"rule": rule, "why": of.report.rule_whys.get(rule) or None, "features": list(names)}
                for rule, names in of.report.rule_features.items()
            ],
            "lost": {name: of.report.features.get(name, "") for name in of.features},
            "statements": Lines(_statements(of.report)),
            "edges": [
                {"cell": edge.cell, "state": edge.state.value, "states": dict(_states(edge))}
                for edge in standing.edges(of)
            ],
            "features": [
                {"cell": cell, "features": {name: works.value for name, (works, _) in stands.items()}}
                for cell, stands in standing.features(of)
            ],
            "check": [register.checked_cell(cell) for cell in of.checked],
            "vitals": [_vitals(vitals) for vitals in of.vitals],
            "runs": [documents.journaled(run) for run in of.runs],
            "unread": dict(of.unread),
            "unseen": [*of.unseen],
            "course": of.triage and documents.course_content(of.runs, of.triage, unseen=of.unseen),
            "settings": dict(of.settings),
            "accept": [_accepted(entry) for entry in of.accepts],
        }
    )


def _statements(report: Report) -> Iterator[Object]:
    """Yield the changes of the differences that come with their SQL, as on the page, but for long values."""
    names = {(c.cell, t.rule): t.key for c in facts.results(report) for t in facts.compared(c)}
    for (cell, rule, key), changes in excerpt.told(report, longest=None).items():
        named = documents.key(facts.named(names[cell, rule], key))
        for each in changes:
            yield {
                "cell": cell,
                "rule": rule,
                "key": named,
                "written": each.written,
                "together": each.together,
                "sql": each.forward.statement or None,
                "sql_note": each.forward.note or None,
                "undo": each.backward.statement or None,
                "undo_note": each.backward.note or None,
            }


def _states(edge: standing.Edge) -> Iterator[tuple[str, str]]:
    return ((state.value, said) for state, said in edge.said)


def _vitals(vitals: Vitals) -> Object:
    return {
        "cell": vitals.cell,
        "schema_version": vitals.version or None,
        "services": [
            {
                "service": service.name,
                "host": service.host or None,
                "alive": service.alive,
                "seen_seconds_ago": service.age,
                "needed": not service.optional,
                "lost_with_broker": service.lost_with_broker,
            }
            for service in vitals.services
        ],
        "error": vitals.error or None,
    }


def _accepted(entry: Accepted) -> Object:
    until = None if entry.until is None else entry.until.isoformat()
    return {"cell": entry.cell, "rule": entry.rule, "key": dict(entry.key), "why": entry.why, "until": until}
