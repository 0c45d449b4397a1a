"""Differences as a page shows them: one card each, with what both sides share told from what they do not.

A page has room for so many and no more. Every table gets its share, so that a large one hides no small one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape as html_escape
from itertools import islice
from typing import NamedTuple

from cellsync.masking import escape_controls
from cellsync.model import (
    Action,
    CellResult,
    Difference,
    Key,
    KeyPart,
    Kind,
    Secrets,
    Status,
    TableDiff,
)
from cellsync.report import facts, words
from cellsync.report.page import PROSE
from cellsync.report.sql.excerpt import Place, Told

MOST = 10_000
"""So many differences are in a page; more would keep a browser busy. JSON has them all."""
BYTES = 7_500_000
"""So large may all cards of a page be, as HTML and without their SQL; what surrounds them is small."""
SQL_BYTES = 1_200_000
"""So large may the SQL of all cards be."""
LONG = 400
"""The longest value that a page shows whole, in characters."""
CARD, COLUMNS, COLUMN, PAIR = 190, 230, 130, 30
"""The bytes of markup of a card, its table of columns, one of these, and one value of a row; rounded up."""
TOLD, NOTED = 330, 60
"""The same of one change as SQL, and of a note to it."""


class Part(NamedTuple):
    """One side of a value that changed: what both sides share, and between it what they do not."""

    head: str
    changed: str
    tail: str


class Column(NamedTuple):
    """A column that changed."""

    name: str
    existing: Part
    desired: Part


class Card(NamedTuple):
    """One difference."""

    kind: str
    key: str
    reason: str
    deed: str
    """What a repair does about it, or did, and why."""
    since: str
    columns: Sequence[Column]
    """What changed, side by side."""
    row: Sequence[tuple[str, str]]
    """The columns and values of a row that one side alone has."""
    told: Sequence[Told] = ()
    """What a repair would run, and what takes it back."""


Shares = Mapping[tuple[str, str], int]
"""Child and rule -> how many of its differences are in the page."""


def shares(cells: Sequence[CellResult], most: int = MOST) -> Shares:
    """Deal ``most`` places out to all tables: the small ones are whole, the large ones get the same."""
    lengths = {(c.cell, t.rule): len(t.differences) for c in cells for t in facts.compared(c)}
    return facts.dealt(lengths, most)


class Room(NamedTuple):
    """What of the differences has its place on a page."""

    dealt: Shares
    told: Mapping[Place, Sequence[Told]]
    """The statements of those that come with them."""
    written: bool = False
    """Whether the run was one that writes."""


class Dealt(NamedTuple):
    """The cards of a table."""

    cards: Sequence[Card]
    untold: int
    """So many of the rows that a repair would write come without their SQL, for want of room."""


def cards(table: TableDiff, cell: CellResult, room: Room, secrets: Secrets, names: Names) -> Dealt:
    """Return the cards of a table, as many as its share of places and of bytes allows."""
    share = room.dealt[cell.cell, table.rule]
    left = BYTES * share // max(1, sum(room.dealt.values()))
    mine = sum((cell.cell, table.rule) == (child, rule) for child, rule, _ in room.told)
    left_for_sql = SQL_BYTES * mine // max(1, len(room.told))
    left_alone, unmade = (
        {each.key: each.reason for each in islice(every, MOST) if each.rule == table.rule}
        for every in (facts.skipped(cell), cell.unmade)
    )
    refused = ", ".join(each.code for each in facts.refusals(cell) if each.rule == table.rule)
    made: list[Card] = []
    untold = 0
    for difference in islice(facts.ordered(table), share):
        statements = room.told.get((cell.cell, table.rule, difference.key))
        unplanned = statements == []
        telling = _Telling(
            names, table.status, refused, left_alone, unmade, room.written, unplanned, table.waits
        )
        card = _card(difference, table, secrets, telling)
        left -= size(card, names)
        if left < 0:
            break
        if _why_not(difference, telling):
            statements = []
        elif statements is None or sum(map(size_of_sql, statements)) > left_for_sql:
            untold, statements = untold + 1, []
        left_for_sql -= sum(map(size_of_sql, statements))
        made.append(card._replace(told=statements))
    return Dealt(made, untold)


class Names(NamedTuple):
    """The cells of the two sides of a table."""

    existing: str
    desired: str


class _Telling(NamedTuple):
    names: Names
    status: Status
    refused: str
    """The codes of the guards that stop the rule."""
    skipped: Mapping[Key, str]
    unmade: Mapping[Key, str]
    written: bool
    unplanned: bool
    """Whether no plan has a change for it."""
    waits: frozenset[Action]
    """The actions that a guard holds back; () where it holds back all, or none does."""


def _card(found: Difference, table: TableDiff, secrets: Secrets, told: _Telling) -> Card:
    value = partial(_value, secrets, table.table)
    changed = found.kind is Kind.CHANGED
    columns = [
        column(each.column, value(each.column, each.existing), value(each.column, each.desired))
        for each in (found.columns if changed else ())
    ]
    row = () if changed else tuple(_row(table, found, secrets))
    return Card(
        kind=found.kind.value,
        key=words.key(facts.named(table.key, found.key), LONG),
        reason=words.shorten(found.reason, PROSE),
        deed=_deed(found, told),
        since=facts.since(found) or "",
        columns=columns,
        row=row,
    )


def _row(table: TableDiff, found: Difference, secrets: Secrets) -> Iterator[tuple[str, str]]:
    for each in table.columns_of(found):
        part = each.desired if found.kind is Kind.MISSING else each.existing
        yield each.column, _value(secrets, table.table, each.column, part)


def _value(secrets: Secrets, table: str, name: str, part: KeyPart) -> str:
    return words.value(secrets.safe(name, part, table=table), LONG)


def column(name: str, existing: str, desired: str) -> Column:
    """Return a changed column with what its two values share at the beginning and at the end."""
    head = _shared(existing, desired)
    tail = _shared(existing[head:][::-1], desired[head:][::-1])
    parts = [Part(t[:head], t[head : len(t) - tail], t[len(t) - tail :]) for t in (existing, desired)]
    return Column(name, *parts)


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts have in common from their beginning on."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


# -- What is done about it -----------------------------------------------------------------------

_WHY = {
    Action.INSERT: "insert it, as {desired} has it",
    Action.UPDATE: "update it, as {desired} is right",
    Action.DELETE: "delete it, as {desired} does not have it",
    Action.SOFT_DELETE: "soft delete it, as {desired} deleted it",
    Action.REPLACE: "replace it: remove it, and insert the row of {desired} with its id",
    Action.REPORT: "leave it: it is only reported",
    Action.IGNORE: "leave it: the rule ignores rows that are {kind}",
}


def _deed(found: Difference, told: _Telling) -> str:
    """Return what a repair would do, or did, and why, and why there is no SQL for it."""
    why_not = _why_not(found, told)
    if why_not:
        return f"{why_not}; so it has no SQL"
    if told.status is Status.REPAIRED or told.written:
        return f"The repair has {words.DONE[found.action]} it"
    return _would(found, told)


def _why_not(found: Difference, told: _Telling) -> str:
    """Return why a repair does not write it; "" where it would, or has."""
    if found.accepted:
        return f"A repair leaves it: it is accepted, {found.accepted}"
    if found.key in told.skipped:
        return f"A repair leaves it: {words.shorten(told.skipped[found.key], PROSE)}"
    if found.action not in facts.WRITES:
        return _would(found, told)
    if (told.refused or told.status is Status.REFUSED) and (not told.waits or found.action in told.waits):
        return f"{_would(found, told)}, but is refused{told.refused and f' ({told.refused})'}"
    if found.key in told.unmade:
        return f"The repair has not written it: {words.shorten(told.unmade[found.key], PROSE)}"
    if told.unplanned and told.status is not Status.REPAIRED:
        return f"{_would(found, told)}, but no plan has a change for it"
    return ""


def _would(found: Difference, told: _Telling) -> str:
    why = _WHY[found.action].format(desired=told.names.desired, kind=found.kind.value)
    wrote = ", and cellsync wrote it" if found.pushed and found.action in _REMOVING else ""
    return f"A repair would {why}{wrote}"


_REMOVING = (Action.DELETE, Action.SOFT_DELETE)


# -- Room ----------------------------------------------------------------------------------------


def size(card: Card, names: Names) -> int:
    """Return how many bytes a card takes in the page without its SQL, or a little more."""
    texts = [card.key, card.reason, card.deed, card.since]
    texts += [text for name, old, new in card.columns for text in (name, *old, *new)]
    texts += [text for pair in card.row for text in pair]
    texts += names if card.columns else ()
    markup = CARD + COLUMNS * bool(card.columns) + COLUMN * len(card.columns) + PAIR * len(card.row)
    return markup + sum(map(_bytes, texts))


def size_of_sql(told: Told) -> int:
    """Return how many bytes one change takes as SQL, or a little more."""
    ways = (told.forward, told.backward)
    texts = [told.written, *(way.statement for way in ways), *(way.note for way in ways)]
    return TOLD + NOTED * sum(bool(way.note) for way in ways) + sum(map(_bytes, texts))


def _bytes(text: str) -> int:
    return len(html_escape(escape_controls(text)).encode())
