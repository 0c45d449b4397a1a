"""The course of drift on the page: a chart that says what happened, also to whoever does not see it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

from test_driftlog import drifted
from test_html import Page
from test_report import HOSTILE, REPORTS
from test_triaging import DOWN, IN_STEP, at, repaired, triage

from cellsync.model import Dossier, JournaledRun, Level, Run, Triage
from cellsync.report import course, dossiers, html
from cellsync.report import json as documents

SVG = re.compile(r'<svg viewBox="-40.*?</svg>', re.S)
"""The chart: the page has other drawings, of its cells."""
NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")


def journaled(minutes: float, verb: str = "repair", applied: int = 1) -> JournaledRun:
    """Return a run that wrote."""
    run = Run(
        id=f"run-{minutes}",
        verb=verb,
        started=at(minutes),
        topology="api",
        operator="o",
        host="h",
        command="c",
    )
    return JournaledRun(run=run, finished=at(minutes), status="done", cells=("c1",), applied=applied)


def dossier(of: Triage, *runs: JournaledRun) -> Dossier:
    return Dossier(report=REPORTS["drift"], triage=of, runs=runs)


def page(of: Triage, *runs: JournaledRun) -> str:
    return "".join(html.dossier(dossier(of, *runs)))


def test_the_line_follows_the_levels() -> None:
    """Steps at the times of the runs, as high as the rows that were out of step; the highest is the top."""
    found = triage(IN_STEP, drifted("x", more=3), drifted("x"), IN_STEP, since=0)
    chart = course.section(found, ())["chart"]
    assert chart["top"] == 4
    numbers = list(map(float, NUMBERS.findall(chart["line"])))
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    quarter = course.WIDTH / 4
    whole = float(course.HEIGHT)
    heights = [(0, whole), (1, 0.0), (2, whole * 0.75), (3, whole)]
    assert points == [
        (place * quarter, round(height, 1)) for begin, height in heights for place in (begin, begin + 1)
    ]


def test_it_is_said_in_words_too() -> None:
    """In the description of the picture, in a sentence below it, and as a table."""
    found = triage(IN_STEP, drifted("x", more=3), DOWN, drifted("x"), IN_STEP)
    text = page(found, journaled(3.2))
    said = (
        "Rows out of step: 0 at 2026-11-23 03:00:00, at most 4 at 2026-11-23 03:01:00, "
        "0 at the last look, 2026-11-23 03:04:00. At times not every cell could be compared."
    )
    svg = ElementTree.fromstring(SVG.findall(text)[0])
    named = {svg.find(f".//*[@id='{name}']") for name in svg.attrib["aria-labelledby"].split()}
    assert svg.attrib["role"] == "img"
    assert {element.text for element in named if element is not None} == {"Rows out of step over time", said}
    seen_text = Page(text).text
    assert f"{said} 5 runs looked." in seen_text
    assert "2026-11-23 03:02:00 4 0 0 c1" in " ".join(seen_text.split())


def test_repairs_and_blind_spots_have_marks() -> None:
    """A dashed line for each repair that wrote, a bar where not every cell was compared."""
    found = triage(drifted("x"), DOWN, IN_STEP, IN_STEP, since=0)
    runs = (journaled(1), journaled(2, "undo"), journaled(3, applied=0), journaled(-1))
    chart = course.section(found, runs)["chart"]
    assert chart["repairs"] == [course.WIDTH / 4]
    assert chart["blind"] == [(course.WIDTH / 4, course.WIDTH / 4)]


def test_many_levels_are_thinned_and_no_peak_is_lost() -> None:
    """A week of every minute is as many points as the picture has columns."""
    levels = [Level(at=at(number), counts={}) for number in range(10_000)]
    counts = triage(drifted("x", more=41)).levels[0].counts
    levels[4321] = replace(levels[4321], counts=counts)
    levels[7777] = replace(levels[7777], unknown=("c1",))
    for number, level in enumerate(levels):
        if not level.counts:
            levels[number] = replace(level, counts=dict.fromkeys(counts, 0))
    section = course.section(Triage(since=at(0), until=at(10_000), levels=tuple(levels)), ())
    assert len(section["steps"]) == course.COLUMNS
    assert (section["chart"]["top"], len(section["chart"]["blind"])) == (42, 1)


def test_rows_and_the_other_writer_are_named() -> None:
    """With when they were repaired, and what to do."""
    repairs = tuple(repaired(minute + 0.1) for minute in (1, 2))
    found = triage(IN_STEP, drifted("x"), drifted("x", "y"), drifted("x"), repairs=repairs)
    text = Page(page(found)).text
    assert "back 2 times after a repair: somebody else writes it too; find the other writer" in text
    assert "repaired 2026-11-23 03:02:06 by run-2" in text
    assert "name=y" in text


def test_the_json_has_what_the_chart_shows() -> None:
    """The keys of ``history --since --format json``, whole: programs rely on them."""
    repairs = (repaired(1.1),)
    found = triage(IN_STEP, drifted("x"), DOWN, drifted("x"), repairs=repairs)
    content = json.loads("".join(dossiers.json(dossier(found, journaled(1)))))["course"]
    assert content == json.loads("".join(documents.course((journaled(1),), found)))
    assert list(content) == ["version", "since", "until", "runs", "drift", "rows", "log", "unseen"]
    ways = {"first_seen", "or_earlier", "last_seen", "gone", "repaired", "repair"}
    assert [set(each["spells"][0]) for each in (*content["drift"], *content["rows"])] == [ways, ways]
    [drift], [row] = content["drift"], content["rows"]
    assert list(drift) == ["cell", "rule", "most", "open", "spells"]
    assert list(row) == ["cell", "rule", "key", "kinds", "times", "repairs", "contested", "open", "spells"]
    assert (row["key"], row["times"], row["repairs"], row["spells"][0]["repair"]) == (
        {"name": "x"},
        2,
        1,
        "run-1",
    )
    assert content["log"] == {"error": None, "torn": 0}
    looked = {"run", "verb", "started", "finished", "status", "cells", "applied", "saw", "alike", "until"}
    assert all(looked <= set(each) for each in content["runs"]) and len(content["runs"]) == 4
    assert "".join(dossiers.json(Dossier(report=REPORTS["drift"]))).count('"course": null') == 1


def test_hostile_keys_do_no_harm() -> None:
    """They are text, whatever they hold; the picture takes numbers alone."""
    text = page(triage(drifted(f"<script>alert(1)</script>{HOSTILE}")))
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "script" not in SVG.findall(text)[0]


def test_rows_that_are_left_out_are_counted() -> None:
    """With the command that has them all."""
    keys = [f"row-{number}" for number in range(course.ROWS + 5)]
    text = Page(page(triage(drifted(*keys)))).text
    assert "5 more rows are left out" in text
    assert "cellsync history --since 2026-11-23T02:59:00 --format json" in text


def test_without_looks_there_is_no_picture() -> None:
    """It says how to have one; what could not be read is said."""
    empty = Triage(since=at(0), until=at(1))
    text = page(empty)
    assert SVG.findall(text) == []
    assert "No run has kept what it saw" in Page(text).text
    assert (
        "cannot read the drift log x" in Page(page(replace(empty, unread="cannot read the drift log x"))).text
    )
    assert "left out: 3" in Page(page(replace(empty, torn=3))).text


def test_a_page_without_the_question_has_no_course() -> None:
    """Nothing of it."""
    assert 'id="course"' not in "".join(html.dossier(Dossier(report=REPORTS["drift"])))


def test_a_time_of_no_length_is_drawn() -> None:
    """All at once is a picture, too, and no division by zero."""
    found = triage(drifted("x"))
    assert course.section(replace(found, since=at(0), until=at(0)), ())["chart"]["top"] == 1
