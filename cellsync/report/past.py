"""What the journals remember, as text: runs, the changes of one, rows that are written again and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cellsync.model import JournaledChange, JournaledRun, Repeated
from cellsync.report import facts, words
from cellsync.report.page import Grid, Line, Style, Tone, compose
from cellsync.report.text import change_lines
from cellsync.report.words import counted


def history(runs: Sequence[JournaledRun], style: Style) -> Iterator[str]:
    """Yield one line for every run, in the order given, newest first."""
    return compose([_runs(runs)] if runs else [Line("no run has written anything yet")], style)


def repeated(rows: Sequence[Repeated], style: Style) -> Iterator[str]:
    """Yield one line for every row that several repairs wrote."""
    return compose(map(_repeated, rows) if rows else [Line("no row was repaired again and again")], style)


def _repeated(row: Repeated) -> Line:
    key = words.key(facts.named(row.key_columns, row.key))
    when = f"{row.runs} repairs from {row.first} to {row.last}"
    return Line(f"{row.cell} {row.rule} {key}: written by {when}: somebody else writes it too")


def changes(made: Mapping[str, Sequence[JournaledChange]], style: Style) -> Iterator[str]:
    """Yield the changes of one run as its journals have them, by the cell that was written."""
    return compose(_journaled(made, style), style)


def _journaled(made: Mapping[str, Sequence[JournaledChange]], style: Style) -> Iterator[Line]:
    for cell, entries in made.items():
        yield Line("")
        yield Line(f"{counted(len(entries), 'change')} to {cell}:", tone=Tone.TITLE)
        for number, each in enumerate(entries, 1):
            title = f"{number} {words.ACTION[each.change.action]} {each.change.rule}"
            yield from change_lines(title, each.change, style)


def _runs(runs: Sequence[JournaledRun]) -> Grid:
    head = ("run", "verb", "started (UTC)", "status", "cells", "rows", "remarks")
    tones = tuple(Tone.BAD if run.finished is None else Tone.PLAIN for run in runs)
    return Grid((head, *map(_run_row, runs)), tones, whole=3, numbers=len(head))


def _run_row(journaled: JournaledRun) -> tuple[str, ...]:
    run, cells = journaled.run, ",".join(journaled.cells)
    started = words.instant(run.started).replace("T", " ").rstrip("Z")
    return (run.id, run.verb, started, _end(journaled), cells, str(journaled.applied), _remarks(journaled))


def _end(journaled: JournaledRun) -> str:
    return "cut off, or still running" if journaled.finished is None else journaled.status.replace("_", " ")


def _remarks(journaled: JournaledRun) -> str:
    undoes = f"undoes {journaled.undoes}" if journaled.undoes else ""
    undone = f"undone by {words.listed(journaled.undone_by)}" if journaled.undone_by else ""
    return "; ".join(filter(None, [undoes, undone, journaled.run.reason]))
