"""``except`` of a detector: what one answer has and another has not, found by digests."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import pytest
from edges import execute, opened
from servers import sql

from cellsync import db
from cellsync.errors import ReadFailed
from cellsync.model import Answer
from cellsync.run import narrowing
from cellsync.run.asking import Question, Told

TEXTS = ["", "-", ",", "a,b", "a", "A", "a ", "NULL", "é", "😀", "0", None]
NUMBERS = [0, 1, -1, 2**40, None]
ROWS = list(itertools.product(TEXTS, NUMBERS))
"""Rows of which some would be one another in a careless encoding."""

SELECT = "SELECT word, number FROM pairs"


def asking(urls: Mapping[str, str], seen: list[Question]) -> narrowing.Asking:
    """Return what asks these cells' databases, and what it was asked in ``seen``."""

    def ask(wanted: Iterable[Question]) -> dict[Question, Told]:
        told: dict[Question, Told] = {}
        for question in wanted:
            seen.append(question)
            with opened(urls[question.cell], question.cell) as database:
                told[question] = _answer(database, question)
        return told

    return ask


def _answer(database: db.Database, question: Question) -> Told:
    try:
        return database.answer(question.sql, parameters={}, most=question.most)
    except ReadFailed as error:
        return str(error)


def question(cell: str, sql: str = SELECT) -> Question:
    return Question(cell=cell, database="", sql=sql, child="", given=(), most=10_000)


@pytest.fixture
def urls(database: Callable[..., str]) -> dict[str, str]:
    """Three databases with a table of pairs; those of one have another charset and collation."""
    found = {"api": database(), "c1": database(), "c2": database(charset="utf8mb3")}
    for cell, url in found.items():
        charset = "utf8mb4 COLLATE utf8mb4_general_ci" if cell == "c2" else "utf8mb4 COLLATE utf8mb4_bin"
        execute(url, f"CREATE TABLE pairs (word VARCHAR(9) CHARACTER SET {charset}, number BIGINT)")
    return found


def fill(url: str, rows: Iterable[tuple[str | None, int | None]]) -> None:
    sql(url, "DELETE FROM pairs")
    for word, number in rows:
        sql(url, "INSERT INTO pairs VALUES (:word, :number)", word=word, number=number)


def left(told: Mapping[str, Told]) -> dict[str, set[tuple[object, ...]]]:
    assert all(isinstance(each, Answer) for each in told.values()), told
    return {cell: set(each.rows) for cell, each in told.items() if isinstance(each, Answer)}


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_is_the_difference_of_the_sets(urls: dict[str, str], seed: int) -> None:
    """To the byte, NULL included; the answers of several cells count as one."""
    chance = random.Random(seed)
    common = chance.sample(ROWS, 20)
    rest = [row for row in ROWS if row not in common]
    chance.shuffle(rest)
    above, below = rest[:6], rest[6:12]
    fill(urls["api"], [*common, *above])
    fill(urls["c1"], [*common[:9], *below[:2]])
    fill(urls["c2"], [*common[9:], *below[2:]])
    parent, children = (question("api"),), (question("c1"), question("c2"))
    down = narrowing.Pair(parent, children, 10_000)
    up = narrowing.Pair(children, parent, 10_000)
    told = narrowing.without([down, up], asking(urls, []))
    assert left(told[down]) == {"api": set(above)}
    assert left(told[up]) == {"c1": set(below[:2]), "c2": set(below[2:])}


def test_equal_answers_are_told_by_their_digests_alone(urls: dict[str, str]) -> None:
    """No row of theirs is read, and both directions cost what one does."""
    for cell in ("api", "c1"):
        fill(urls[cell], ROWS)
    seen: list[Question] = []
    one, other = (question("api"),), (question("c1"),)
    pairs = [narrowing.Pair(one, other, 10), narrowing.Pair(other, one, 10)]
    told = narrowing.without(pairs, asking(urls, seen))
    assert [left(told[pair]) for pair in pairs] == [{"api": set()}, {"c1": set()}]
    assert len(seen) == 4
    assert all("1 = 0" in each.sql or "BIT_XOR" in each.sql for each in seen)


def test_rows_that_are_there_twice_are_not_equal_to_one(urls: dict[str, str]) -> None:
    """A row that is given twice cancels itself out of a checksum; its number does not."""
    fill(urls["api"], [("a", 1), ("a", 1), ("b", 2)])
    fill(urls["c1"], [("b", 2)])
    pair = narrowing.Pair((question("api"),), (question("c1"),), 10)
    assert left(narrowing.without([pair], asking(urls, []))[pair]) == {"api": {("a", 1)}}


def test_what_cannot_be_told_is_an_error_of_its_pair(
    urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing table, other columns, more rows than are taken; another pair goes on."""
    fill(urls["api"], ROWS[:4])
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(narrowing, "MOST_FETCHED", 3)
        many = narrowing.Pair((question("api"),), (question("c1"),), 10)
        told = narrowing.without([many], asking(urls, []))[many]["api"]
        assert told == "4 rows would have to be read to find those that differ, and at most 3 are"
    few = narrowing.Pair((question("api"),), (question("c1"),), 3)
    lost = narrowing.Pair((question("api"),), (question("c1", "SELECT word, number FROM gone"),), 10)
    other = narrowing.Pair((question("api"),), (question("c1", "SELECT word FROM pairs"),), 10)
    sound = narrowing.Pair((question("c1"),), (question("api"),), 10)
    found = narrowing.without([few, lost, other, sound], asking(urls, []))
    assert found[few]["api"] == "api: 4 rows differ, and at most 3 are taken"
    assert "gone' doesn't exist" in str(found[lost]["api"])
    assert found[other]["api"] == "answers that are compared have not the same columns"
    assert left(found[sound]) == {"c1": set()}
