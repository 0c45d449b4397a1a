"""The output of ``explain``: what a feature needs, what is there, and the first thing that is missing."""

from __future__ import annotations

from collections.abc import Iterator

from cellsync.errors import ExitCode
from cellsync.model import Explained, Explanation, Found, HopStatus
from cellsync.report import words
from cellsync.report.json import VERSION, Object, whole
from cellsync.report.page import Line, Style, Tone, compose

_WORDS = {
    HopStatus.OK: ("there", Tone.PLAIN),
    HopStatus.WARN: ("warn", Tone.STRONG),
    HopStatus.BROKEN: ("missing", Tone.BAD),
    HopStatus.UNKNOWN: ("unknown", Tone.STRONG),
}
_EXIT = {
    ExitCode.IN_STEP: "everything that it needs is there",
    ExitCode.DIFFERENCES: "something that it needs is missing",
    ExitCode.INCOMPLETE: "something could not be looked at",
}


def text(explanation: Explanation, code: ExitCode, style: Style) -> Iterator[str]:
    """Yield the explanation, cell by cell."""
    return compose(_lines(explanation, code, style), style)


def _lines(explanation: Explanation, code: ExitCode, style: Style) -> Iterator[Line]:
    lost = f": {explanation.lost}" if explanation.lost else ""
    yield Line(f"{explanation.feature}{lost}", tone=Tone.TITLE)
    for cell in explanation.cells:
        yield Line("")
        yield from _cell(cell, style)
    yield Line("")
    warned = any(each.status is HopStatus.WARN for cell in explanation.cells for each in cell.found)
    said = _EXIT.get(code, words.EXIT[code])
    if code is ExitCode.IN_STEP and warned:
        said = "nothing that it needs is missing, and there are warnings"
    yield Line(f"exit code {int(code)}: {said}", tone=Tone.QUIET)


def _cell(cell: Explained, style: Style) -> Iterator[Line]:
    first = cell.first_missing
    unknown = sum(each.status is HopStatus.UNKNOWN for each in cell.found)
    warned = sum(each.status is HopStatus.WARN for each in cell.found)
    if first is not None:
        broken = cell.found[first - 1]
        evidence = words.shorten(broken.evidence, style.prose)
        yield Line(f"{cell.cell}: does not work, step {first} is missing: {evidence}", tone=Tone.BAD)
        if broken.do:
            yield Line(f"do: {broken.do}", 1, Tone.STRONG)
    elif unknown:
        yield Line(f"{cell.cell}: nothing is missing, {unknown} could not be looked at", tone=Tone.STRONG)
    elif warned:
        yield Line(f"{cell.cell}: nothing is missing, {words.counted(warned, 'warning')}", tone=Tone.STRONG)
    else:
        yield Line(f"{cell.cell}: everything that it needs is there", tone=Tone.GOOD)
    for number, each in enumerate(cell.found, 1):
        yield from _found(number, each, style)


def _found(number: int, found: Found, style: Style) -> Iterator[Line]:
    note = found.status is HopStatus.OK and not found.evidence
    word, tone = ("note", Tone.PLAIN) if note else _WORDS[found.status]
    yield Line(f"{number} {word:<8} {found.needs}", 1, tone)
    if found.evidence:
        yield Line(words.shorten(found.evidence, style.prose), 3, Tone.QUIET)
    if found.do:
        yield Line(f"do: {found.do}", 3)


def json(explanation: Explanation, code: ExitCode) -> Iterator[str]:
    """Yield the same as JSON."""
    return whole(
        {
            "version": VERSION,
            "feature": explanation.feature,
            "lost": explanation.lost,
            "cells": [_cell_json(cell) for cell in explanation.cells],
            "exit_code": int(code),
        }
    )


def _cell_json(cell: Explained) -> Object:
    return {
        "cell": cell.cell,
        "first_missing": cell.first_missing,
        "steps": [
            {"needs": each.needs, "status": each.status.value, "evidence": each.evidence, "do": each.do}
            for each in cell.found
        ],
    }
