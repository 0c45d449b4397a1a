"""The course of drift for the page: a chart as numbers, and in words what drifted and came back.

``course.html`` beside this file lays it out. The chart is drawn by the numbers alone, and all that it
shows stands in a table below it, for whoever does not see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from cellsync.model import Drifted, JournaledRun, Kind, Level, Triage
from cellsync.report import facts, past, words

WIDTH, HEIGHT = 720, 150
"""The drawing area in units of the SVG; the page scales it."""
COLUMNS = 360
"""More levels than this are joined: each column of the chart shows the highest of its time."""
ROWS = 200
"""So many rows that drifted are in a page; ``history --since`` has them all."""
LONG = 200


class Step(NamedTuple):
    """One level as the table below the chart has it."""

    at: str
    missing: int
    changed: int
    extra: int
    unknown: str


class Subject(NamedTuple):
    """A rule or a row that drifted."""

    cell: str
    rule: str
    key: str
    said: str
    spells: Sequence[str]
    contested: str


def section(of: Triage, runs: Sequence[JournaledRun]) -> Mapping[str, Any]:
    """Return what the section shows; plain values, of which the template escapes every text."""
    levels = _thinned(of.levels, of)
    return {
        "since": past.clock(of.since),
        "until": past.clock(of.until),
        "looked": sum(look.runs for look in of.looks),
        "torn": of.torn,
        "unread": of.unread,
        "chart": _chart(levels, of, runs) if levels else None,
        "steps": [_step(level) for level in levels],
        "rules": [_subject(each) for each in of.rules],
        "rows": [_subject(each) for each in of.rows[:ROWS]],
        "left_out": max(0, len(of.rows) - ROWS),
    }


def _thinned(levels: Sequence[Level], of: Triage) -> Sequence[Level]:
    """Return the levels, or the highest one of each column of the chart where there are too many."""
    if len(levels) <= COLUMNS:
        return levels
    columns: dict[int, Level] = {}
    for level in levels:
        place = int(_x(level.at, of) * COLUMNS / WIDTH)
        known = columns.get(place)
        if known is None or (bool(level.unknown), level.total) > (bool(known.unknown), known.total):
            columns[place] = level
    return list(columns.values())


def _x(at: datetime, of: Triage) -> float:
    whole = (of.until - of.since).total_seconds() or 1.0
    return round(min(1.0, max(0.0, (at - of.since).total_seconds() / whole)) * WIDTH, 1)


def _chart(levels: Sequence[Level], of: Triage, runs: Sequence[JournaledRun]) -> Mapping[str, Any]:
    top = max(level.total for level in levels) or 1
    places = [*(_x(level.at, of) for level in levels), float(WIDTH)]
    heights = [round(HEIGHT * (1 - level.total / top), 1) for level in levels]
    outline = " ".join(
        f"L{begin:g} {height:g} L{end:g} {height:g}"
        for (begin, end), height in zip(pairwise(places), heights, strict=True)
    )
    blind = [
        (begin, max(2.0, round(end - begin, 1)))
        for (begin, end), level in zip(pairwise(places), levels, strict=True)
        if level.unknown
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "top": top,
        "area": f"M{places[0]:g} {HEIGHT} {outline} L{WIDTH} {HEIGHT} Z",
        "line": f"M{outline[1:]}",
        "blind": blind,
        "repairs": [_x(each.run.started, of) for each in runs if _repaired(each, of)],
        "now": levels[-1].total,
        "described": " ".join(_described(levels, top)),
    }


def _repaired(journaled: JournaledRun, of: Triage) -> bool:
    return journaled.run.verb == "repair" and journaled.applied > 0 and journaled.run.started >= of.since


def _described(levels: Sequence[Level], top: int) -> Iterator[str]:
    """Yield what the chart shows, in sentences."""
    highest = max(levels, key=lambda level: level.total)
    first, last = levels[0], levels[-1]
    yield f"Rows out of step: {first.total} at {past.clock(first.at)},"
    if highest.total:
        yield f"at most {top} at {past.clock(highest.at)},"
    yield f"{last.total} at the last look, {past.clock(last.at)}."
    if any(level.unknown for level in levels):
        yield "At times not every cell could be compared."


def _step(level: Level) -> Step:
    missing, changed, extra = (level.counts[kind] for kind in (Kind.MISSING, Kind.CHANGED, Kind.EXTRA))
    return Step(past.clock(level.at), missing, changed, extra, words.listed(level.unknown))


def _subject(of: Drifted) -> Subject:
    key = words.key(facts.named(of.key_columns, of.key), LONG) if of.key is not None else ""
    most = f"{words.counted(of.most, 'row')} at most" if of.key is None else ""
    kinds = words.listed([kind.value for kind in of.kinds])
    times = f"{len(of.spells)} times" if len(of.spells) > 1 else ""
    return Subject(
        cell=of.cell,
        rule=of.rule,
        key=key,
        said=", ".join(filter(None, [most, kinds, times])),
        spells=[past.lasted(each) for each in reversed(of.spells)],
        contested=past.contested(of),
    )
