"""Triage: from what runs saw and what repairs wrote to what drifted, since when, and what came back.

Pure: sightings and repairs in, spells out. A row is taken for gone only where a run compared its
rule to the end and named all rows that differed; a cell that could not be asked says nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cellsync import codec
from cellsync.model import Drifted, Kind, Level, Look, Repair, SeenCell, SeenRule, Sighting, Spell, Triage

WHOLE = ""
"""Stands for a row's key where a rule's rows are meant together."""

Place = tuple[str, str]
"""(cell, rule)."""


@dataclass
class _Span:
    """Runs one after another that saw the same."""

    first: Sighting
    times: list[datetime]


@dataclass
class _Subject:
    """A row, or a rule as a whole, while the log is gone through."""

    key_columns: tuple[str, ...] = ()
    kinds: list[Kind] = field(default_factory=list)
    most: int = 1
    now: int = 0
    """How many rows there were when it was seen last."""
    spells: list[Spell] = field(default_factory=list)
    open: bool = False
    repairs: deque[Repair] = field(default_factory=deque)
    """Those of a row that may still end a spell of it, in order."""


def triage(
    sightings: Sequence[Sighting],
    repairs: Iterable[Repair],
    *,
    since: datetime,
    until: datetime,
    parent: str,
) -> Triage:
    """Return what came of everything that drifted and was seen after ``since``.

    ``sightings`` are in order of time and may begin earlier, which says how old a spell is.
    ``repairs`` have one entry for each rule that a run wrote in a cell, and those of the rows that
    are asked about. ``parent`` is the cell that rules write whose rows come up.
    """
    spans = list(_spans(sightings))
    drifted = []
    for (place, key), subject in _followed(spans, _Written(sightings, repairs, parent)).items():
        if spells := [spell for spell in subject.spells if _end(spell) >= since]:
            drifted.append(_drifted(place, key, subject, spells))
    rows = [each for each in drifted if each.key is not None]
    return Triage(
        since=since,
        until=until,
        looks=tuple(
            Look(first=span.first, last=span.times[-1], runs=len(span.times))
            for span in spans
            if span.times[-1] >= since
        ),
        rules=tuple(each for each in drifted if each.key is None),
        rows=tuple(sorted(rows, key=_urgency)),
        levels=tuple(_levels(spans, since)),
    )


def named(sightings: Iterable[Sighting], since: datetime) -> frozenset[str]:
    """Return the keys of all rows that the log names after a time, as a journal has them."""
    seen = {id(each.cells): each.cells for each in sightings if each.started >= since}
    return frozenset(
        codec.tuple_to_text(row.key)
        for cells in seen.values()
        for cell in cells
        for rule in cell.rules
        for row in rule.rows
    )


def _urgency(row: Drifted) -> tuple[bool, int, bool, float]:
    return not row.contested, -len(row.spells), not row.open, -row.spells[-1].last.timestamp()


def _end(spell: Spell) -> datetime:
    return max(filter(None, (spell.last, spell.ended, spell.repaired)))


def _drifted(place: Place, key: str, subject: _Subject, spells: Sequence[Spell]) -> Drifted:
    return Drifted(
        cell=place[0],
        rule=place[1],
        spells=tuple(spells),
        key_columns=subject.key_columns,
        key=None if key == WHOLE else codec.tuple_from_text(key),
        kinds=tuple(kind for kind in Kind if kind in subject.kinds),
        most=subject.most,
    )


class _Written:
    """What repairs wrote, by the place where runs see it."""

    def __init__(self, sightings: Iterable[Sighting], repairs: Iterable[Repair], parent: str) -> None:
        self._parent = parent
        self._found: dict[tuple[Place, str], list[Repair]] = {}
        began = {each.run: each.started for each in sightings}
        for each in repairs:
            key = WHOLE if each.key is None else codec.tuple_to_text(each.key)
            # What a run repaired it had seen before, whatever the clocks say.
            moved = replace(each, at=max(each.at, began.get(each.run, each.at)))
            self._found.setdefault(((each.cell, each.rule), key), []).append(moved)

    def of(self, place: Place, key: str) -> list[Repair]:
        """Return what was written there, in order: in the child, or in the parent if the rows come up."""
        above = (self._parent, place[1])
        made = self._found.get((place, key), []) + self._found.get((above, key), [])
        return sorted(made, key=lambda each: each.at)


# -- Going through the log -----------------------------------------------------------------------


def _spans(sightings: Iterable[Sighting]) -> Iterator[_Span]:
    """Join runs that saw the same and wrote nothing; of a check every minute there are many."""
    span: _Span | None = None
    for each in sightings:
        wrote = any(cell.counts.applied for cell in each.cells)
        if span is not None and not wrote and _saw(span.first) == _saw(each):
            span.times.append(each.started)
            continue
        if span is not None:
            yield span
        span = _Span(each, [each.started])
    if span is not None:
        yield span


def _saw(sighting: Sighting) -> tuple[object, ...]:
    return sighting.cells, sighting.rules


def _compared(span: _Span) -> Iterator[tuple[Place, SeenRule | None]]:
    """Yield what is known after a look: for each rule of each cell what differed, None for nothing."""
    for cell in span.first.cells:
        if cell.error:
            continue
        differs = {rule.rule: rule for rule in cell.rules}
        for rule in span.first.rules:
            if rule not in cell.unknown:
                yield (cell.cell, rule), differs.get(rule)


def _followed(spans: Iterable[_Span], written: _Written) -> dict[tuple[Place, str], _Subject]:
    """Return every rule and every named row that ever drifted, with its spells."""
    subjects: dict[tuple[Place, str], _Subject] = {}
    open_rows: dict[Place, set[str]] = {}
    looked: set[Place] = set()
    for span in spans:
        for place, rule in _compared(span):
            now = _present(rule)
            before = open_rows.get(place, set())
            for key, (kind, number) in now.items():
                if (place, key) not in subjects:
                    subjects[place, key] = _Subject(
                        repairs=deque(written.of(place, key) if key != WHOLE else ())
                    )
                subject = subjects[place, key]
                subject.key_columns = rule.key if rule else ()
                subject.most, subject.now = max(subject.most, number), number
                if kind is not None and kind not in subject.kinds:
                    subject.kinds.append(kind)
                _see(subject, span, first_look=place not in looked)
            gone = before - set(now) if rule is None or rule.whole else set()
            for key in gone:
                _miss(subjects[place, key], span.times[0])
            open_rows[place] = (before | set(now)) - gone
            looked.add(place)
    for (place, key), subject in subjects.items():
        if key == WHOLE:
            subject.spells = list(_closed(subject, written.of(place, key)))
        elif subject.open:
            _end_by_repair(subject, None)
    return subjects


def _present(rule: SeenRule | None) -> dict[str, tuple[Kind | None, int]]:
    """Return what drifts: each row that is named, and the rule as a whole."""
    if rule is None or not rule.total:
        return {}
    rows: dict[str, tuple[Kind | None, int]] = {
        codec.tuple_to_text(row.key): (row.kind, 1) for row in rule.rows
    }
    return {WHOLE: (None, rule.total), **rows}


def _see(subject: _Subject, span: _Span, *, first_look: bool) -> None:
    """Open or lengthen a spell; one that was repaired, and is seen again, ends, and another begins."""
    times = span.times
    if not subject.open:
        subject.spells.append(Spell(first=times[0], last=times[0], from_the_start=first_look))
        subject.open = True
        while subject.repairs and subject.repairs[0].at < times[0]:
            subject.repairs.popleft()
    while subject.repairs and subject.repairs[0].at < times[-1]:
        repair = subject.repairs.popleft()
        if repair.at < subject.spells[-1].first:
            continue  # a second one, before anybody looked
        again = bisect_right(times, repair.at)
        last = times[again - 1] if again else subject.spells[-1].last
        subject.spells[-1] = replace(subject.spells[-1], last=last, repaired=repair.at, repair=repair.run)
        subject.spells.append(Spell(first=times[again], last=times[again]))
    subject.spells[-1] = replace(subject.spells[-1], last=times[-1])


def _miss(subject: _Subject, at: datetime) -> None:
    """End the spell: a run that looked saw nothing any more."""
    subject.spells[-1] = replace(subject.spells[-1], ended=at)
    subject.open = False
    _end_by_repair(subject, at)


def _end_by_repair(subject: _Subject, before: datetime | None) -> None:
    """Note the first repair since the row was seen last, if there was one before a time."""
    if subject.repairs and (before is None or subject.repairs[0].at <= before):
        repair = subject.repairs.popleft()
        subject.spells[-1] = replace(subject.spells[-1], repaired=repair.at, repair=repair.run)


def _closed(subject: _Subject, repairs: Sequence[Repair]) -> Iterator[Spell]:
    """Yield the spells of a rule as a whole, with the repair after which it was in step.

    Where nobody has looked since, that is one which wrote as many rows as there were.
    """
    for spell in subject.spells:
        end = spell.ended
        after = [each for each in repairs if spell.last <= each.at and (end is None or each.at <= end)]
        enough = end is not None or sum(each.rows for each in after) >= subject.now
        last = after[-1] if after and enough else None
        yield replace(spell, repaired=last.at, repair=last.run) if last else spell


# -- The course of it ----------------------------------------------------------------------------


def _levels(spans: Sequence[_Span], since: datetime) -> Iterator[Level]:
    """Yield how much drift there was at the first and the last run of each span."""
    known: dict[Place, Mapping[Kind, int]] = {}
    for span in spans:
        for place, rule in _compared(span):
            known[place] = rule.counts if rule else {}
        counts = {kind: sum(each.get(kind, 0) for each in known.values()) for kind in Kind}
        unknown = tuple(cell.cell for cell in span.first.cells if _is_unknown(cell))
        for at in dict.fromkeys((span.times[0], span.times[-1])):
            if at >= since:
                yield Level(at=at, counts=counts, unknown=unknown)


def _is_unknown(cell: SeenCell) -> bool:
    return bool(cell.error or cell.unknown)
