"""Questions of which only a part of the answer is wanted: the rows that another answer has not.

Whole tables of two databases are compared as rules compare them: digests first, then the rows of those
buckets that differ. Each stage is asked of all cells at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cellsync.db import narrowing
from cellsync.model import Answer, Value
from cellsync.run.asking import Question, Told

MOST_FETCHED = 1_000_000
"""So many rows of differing buckets are read, to find those that differ."""

Asking = Callable[[Iterable[Question]], Mapping[Question, Told]]


@dataclass(frozen=True)
class Pair:
    """A question whose answer is wanted without what that to another one has; of children, one for each."""

    wanted: tuple[Question, ...]
    other: tuple[Question, ...]
    most: int

    @property
    def both(self) -> tuple[Question, ...]:
        """All questions, the wanted ones first."""
        return (*self.wanted, *self.other)


def without(pairs: Iterable[Pair], ask: Asking) -> dict[Pair, dict[str, Told]]:
    """Return for each pair what is wanted of it, by cell. Asks three times, however many pairs there are."""
    every = list(dict.fromkeys(pairs))
    columns = _columns(every, ask)
    sound = {pair: names for pair, names in columns.items() if not isinstance(names, str)}
    judged = _judged(sound, ask)
    buckets = {pair: chosen for pair, chosen in judged.items() if not isinstance(chosen, str)}
    rows = _rows(sound, buckets, ask)
    told: dict[Pair, dict[str, Told]] = {}
    for pair in every:
        failed = next((why for why in (columns[pair], judged.get(pair)) if isinstance(why, str)), None)
        if failed is None:
            told[pair] = _left(pair, sound[pair], rows[pair])
        else:
            told[pair] = dict.fromkeys((question.cell for question in pair.wanted), failed)
    return told


def _columns(pairs: Iterable[Pair], ask: Asking) -> dict[Pair, tuple[str, ...] | str]:
    """Return the columns that both answers of each pair have, or why it is not known."""
    empty = {each: replace(each, sql=narrowing.no_rows(each.sql)) for pair in pairs for each in pair.both}
    told = ask(set(empty.values()))
    return {pair: _same([told[empty[each]] for each in pair.both]) for pair in pairs}


def _same(told: Iterable[Told]) -> tuple[str, ...] | str:
    names = set()
    for answer in told:
        if isinstance(answer, str):
            return answer
        names.add(answer.columns)
    return names.pop() if len(names) == 1 else "answers that are compared have not the same columns"


# -- Digests ------------------------------------------------------------------------------------


def _judged(pairs: Mapping[Pair, tuple[str, ...]], ask: Asking) -> dict[Pair, frozenset[int] | str]:
    """Return the buckets in which the answers of each pair differ, or why it is not known."""
    hashed = {
        each: replace(each, sql=narrowing.digests(each.sql, names), most=narrowing.BUCKETS)
        for pair, names in pairs.items()
        for each in pair.both
    }
    told = ask(set(hashed.values()))
    return {pair: _differing([told[hashed[each]] for each in pair.both], len(pair.wanted)) for pair in pairs}


def _differing(told: Iterable[Told], wanted: int) -> frozenset[int] | str:
    """Return the buckets that one side has otherwise than the other; the cells of a side count as one."""
    one: _Side = {}
    other: _Side = {}
    for place, answer in enumerate(told):
        if isinstance(answer, str):
            return answer
        side = one if place < wanted else other
        for bucket, number, checksum in answer.rows:
            before = side.get(_whole(bucket), (0, 0))
            side[_whole(bucket)] = (before[0] + _whole(number), before[1] ^ _whole(checksum))
    chosen = {bucket for bucket in one.keys() | other.keys() if one.get(bucket) != other.get(bucket)}
    rows = sum(side[bucket][0] for side in (one, other) for bucket in chosen if bucket in side)
    if rows > MOST_FETCHED:
        return f"{rows} rows would have to be read to find those that differ, and at most {MOST_FETCHED} are"
    return frozenset(chosen)


_Side = dict[int, tuple[int, int]]
"""Bucket -> the number of its rows, and their checksum."""


def _whole(value: Value) -> int:
    assert value is not None
    return int(value)


# -- Rows ---------------------------------------------------------------------------------------


def _rows(
    columns: Mapping[Pair, tuple[str, ...]], buckets: Mapping[Pair, frozenset[int]], ask: Asking
) -> dict[Pair, list[Told]]:
    """Return the rows of the buckets that differ, of both questions of each pair; [] where none does."""
    wanted = {
        pair: [
            replace(each, sql=narrowing.rows(each.sql, columns[pair], chosen), most=MOST_FETCHED)
            for each in (pair.both if chosen else ())
        ]
        for pair, chosen in buckets.items()
    }
    told = ask({each for questions in wanted.values() for each in questions})
    return {pair: [told[each] for each in questions] for pair, questions in wanted.items()}


def _left(pair: Pair, columns: tuple[str, ...], told: Sequence[Told]) -> dict[str, Told]:
    """Return the rows of the wanted answers that the other ones have not."""
    failed = next((answer for answer in told if isinstance(answer, str)), None)
    if failed is not None:
        return dict.fromkeys((question.cell for question in pair.wanted), failed)
    rows = [answer.rows for answer in told if isinstance(answer, Answer)]
    other = {row for each in rows[len(pair.wanted) :] for row in each}
    left: dict[str, Told] = {}
    for place, question in enumerate(pair.wanted):
        mine = tuple(row for row in rows[place] if row not in other) if rows else ()
        many = f"{question.cell}: {len(mine)} rows differ, and at most {pair.most} are taken"
        left[question.cell] = Answer(columns=columns, rows=mine) if len(mine) <= pair.most else many
    return left
