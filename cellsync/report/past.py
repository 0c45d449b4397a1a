"""What the journals remember, as text: runs, the changes of one, rows that are written again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from cellsync.model import (
    Drifted,
    JournaledChange,
    JournaledRun,
    Kind,
    Look,
    Repeated,
    Sighting,
    Spell,
    Triage,
)
from cellsync.report import facts, words
from cellsync.report.change_list import change_lines
from cellsync.report.page import Block, Grid, Line, Style, Tone, compose
from cellsync.report.verdict import drift
from cellsync.report.words import counted


def history(runs: Sequence[JournaledRun], style: Style, *, unseen: Sequence[str] = ()) -> Iterator[str]:
    """Yield one line for every run, in the order given, newest first.

    ``unseen`` here and below: the cells of whose journal nothing is known, so that none is no "none".
    """
    return compose([grid(runs)] if runs else [_none("no run has written anything yet", unseen)], style)


def _none(claim: str, unseen: Sequence[str]) -> Line:
    return Line(f"as far as journals are seen, {claim}" if unseen else claim)


def repeated(rows: Sequence[Repeated], style: Style, *, unseen: Sequence[str] = ()) -> Iterator[str]:
    """Yield one line for every row that several repairs wrote."""
    none = _none("no row was repaired again and again", unseen)
    return compose(map(_repeated, rows) if rows else [none], style)


def _repeated(row: Repeated) -> Line:
    key = words.key(facts.named(row.key_columns, row.key))
    when = f"{row.runs} repairs from {row.first} to {row.last}"
    return Line(f"{row.cell} {row.rule} {key}: written by {when}: somebody else writes it too")


ROWS = 20
"""So many rows that drifted are shown, unless more is asked for."""


def course(
    runs: Sequence[JournaledRun], of: Triage, style: Style, *, unseen: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the runs of a time, newest first, what drifted in it, and which rows came back."""
    return compose(course_blocks(runs, of, style, unseen=unseen), style)


def course_blocks(
    runs: Sequence[JournaledRun], of: Triage, style: Style, *, unseen: Sequence[str] = ()
) -> Iterator[Block]:
    """Yield the blocks of that text."""
    since = clock(of.since)
    found = {look.first.run: saw(look.first) for look in of.looks}
    wrote = {each.run.id for each in runs}
    rows = [_looked(each) for each in of.looks if each.first.run not in wrote]
    rows += [_wrote(each, found.get(each.run.id, "")) for each in runs]
    if rows:
        head = ("run", "verb", "started (UTC)", "status", "cells", "rows", "remarks")
        ordered = [row for _, row in sorted(rows, key=lambda each: each[0], reverse=True)]
        yield Grid((head, *ordered), tuple(Tone.PLAIN for _ in ordered), whole=3, numbers=len(head))
    else:
        yield _none(f"no run has written anything or kept what it saw since {since}", unseen)
    yield from _rules(of, since)
    yield from _rows(of, style)


def _looked(look: Look) -> tuple[datetime, tuple[str, ...]]:
    first = look.first
    alike = f"{counted(look.runs - 1, 'more run')} saw the same, until {clock(look.last)}"
    remark = "; ".join([saw(first), *([alike] if look.runs > 1 else [])])
    cells = ",".join(cell.cell for cell in first.cells)
    return first.started, (first.run, first.verb, clock(first.started), "looked", cells, "", remark)


def saw(seen: Sighting) -> str:
    """Return what a run saw, in a few words: "5 rows missing, 1 changed; c2 could not be compared"."""
    counts: Counter[Kind] = Counter()
    for cell in seen.cells:
        for rule in cell.rules:
            counts.update(rule.counts)
    tally = facts.Tally(missing=counts[Kind.MISSING], changed=counts[Kind.CHANGED], extra=counts[Kind.EXTRA])
    blind = [cell.cell for cell in seen.cells if cell.error or cell.unknown]
    findings = sum(rule.findings for cell in seen.cells for rule in cell.rules)
    parts = [
        drift(tally),
        counted(findings, "finding") if findings else "",
        f"not all of {words.listed(blind)} could be compared" if blind else "",
    ]
    return "; ".join(filter(None, parts)) or "in step"


def _wrote(journaled: JournaledRun, found: str) -> tuple[datetime, tuple[str, ...]]:
    *row, remarks = _run_row(journaled)
    remark = "; ".join(filter(None, [f"found {found}" if found else "", remarks]))
    return journaled.run.started, (*row, remark)


def _rules(of: Triage, since: str) -> Iterator[Line]:
    if not of.looks:
        return
    yield Line("")
    seen = f"({counted(sum(look.runs for look in of.looks), 'run')} looked)"
    if not of.rules:
        yield Line(f"nothing drifted since {since} {seen}", tone=Tone.GOOD)
        return
    yield Line(f"what drifted since {since} {seen}:", tone=Tone.TITLE)
    for each in of.rules:
        most = counted(each.most, "row")
        times = f" in {len(each.spells)} spells" if len(each.spells) > 1 else ""
        yield Line(f"{each.cell} {each.rule}: {most} at most{times}; {lasted(each.spells[-1])}", 1)


def _rows(of: Triage, style: Style) -> Iterator[Line]:
    if not of.rows:
        return
    shown = of.rows if style.verbose else of.rows[:ROWS]
    yield Line("")
    yield Line("rows, those first that came back most often:", tone=Tone.TITLE)
    for each in shown:
        yield from _row(each, style)
    if len(shown) < len(of.rows):
        yield Line(f"{len(of.rows) - len(shown)} more; -v shows all", 1, Tone.QUIET)


def _row(row: Drifted, style: Style) -> Iterator[Line]:
    key = words.key(facts.named(row.key_columns, row.key or ()), style.short)
    kinds = words.listed([kind.value for kind in row.kinds])
    spells = row.spells if style.verbose else row.spells[-1:]
    times = f"{kinds} {len(row.spells)} times" if len(row.spells) > 1 else kinds
    yield Line(f"{row.cell} {row.rule} {key}: {times}; {lasted(spells[-1])}", 1)
    if contest := contested(row):
        yield Line(contest, 2, Tone.BAD)
    for spell in reversed(spells[:-1]):
        yield Line(f"before: {lasted(spell)}", 2, Tone.QUIET)


def contested(row: Drifted) -> str:
    """Return what is to be said of a row that another writer fights over; "" for others."""
    if not row.contested:
        return ""
    return f"back {row.returns} times after a repair: somebody else writes it too; find the other writer"


def lasted(spell: Spell) -> str:
    """Return since when a spell is known of, and how it ended."""
    began = f"first seen {clock(spell.first)}{', or earlier' if spell.from_the_start else ''}"
    return f"{began}, {end(spell)}"


def end(spell: Spell) -> str:
    """Return how a spell ended: "repaired 2026-11-23 10:00:00 by RUN", or that it has not."""
    if spell.repaired is not None:
        return f"repaired {clock(spell.repaired)} by {spell.repair}"
    if spell.ended is not None:
        return f"gone {clock(spell.ended)}, not by a repair of cellsync"
    return f"still there {clock(spell.last)}"


def clock(moment: datetime) -> str:
    """Return a time as people read it, in UTC: "2026-11-23 10:00:00"."""
    return words.instant(moment).replace("T", " ").rstrip("Z")


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


def grid(runs: Sequence[JournaledRun]) -> Grid:
    """Return the runs as a table, one row each."""
    head = ("run", "verb", "started (UTC)", "status", "cells", "rows", "remarks")
    tones = tuple(Tone.BAD if run.finished is None else Tone.PLAIN for run in runs)
    return Grid((head, *map(_run_row, runs)), tones, whole=3, numbers=len(head))


def _run_row(journaled: JournaledRun) -> tuple[str, ...]:
    run, cells = journaled.run, ",".join(journaled.cells)
    return (
        run.id,
        run.verb,
        clock(run.started),
        _end(journaled),
        cells,
        str(journaled.applied),
        _remarks(journaled),
    )


def _end(journaled: JournaledRun) -> str:
    return "cut off, or still running" if journaled.finished is None else journaled.status.replace("_", " ")


def _remarks(journaled: JournaledRun) -> str:
    undoes = f"undoes {journaled.undoes}" if journaled.undoes else ""
    undone = f"undone by {words.listed(journaled.undone_by)}" if journaled.undone_by else ""
    return "; ".join(filter(None, [undoes, undone, journaled.run.reason]))
