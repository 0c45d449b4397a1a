"""Random rows whose ids move, or that refer to each other: a repair, and an undo to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import servers
from edges import Stand, execute, result, ruleset
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from replaying import Replayed, replay, way_back
from servers import Server, checksums

from cellsync.report import sql
from cellsync.run import telling

pytestmark = pytest.mark.slow

MOVING = "CREATE TABLE moving (id int PRIMARY KEY, k varchar(9) UNIQUE, n int UNIQUE, v int)"
LINKED = (
    "CREATE TABLE linked (id int PRIMARY KEY, one int, two int, v int,"
    " FOREIGN KEY (one) REFERENCES linked (id), FOREIGN KEY (two) REFERENCES linked (id))"
)
TREE = (
    "CREATE TABLE tree (id int PRIMARY KEY, k varchar(9) UNIQUE, up int,"
    " FOREIGN KEY (up) REFERENCES tree (id))"
)
LEAF = "CREATE TABLE leaf (n int PRIMARY KEY, r int, FOREIGN KEY (r) REFERENCES tree (id))"
RULES = """
defaults: {limits: {updates: unlimited, deletes: unlimited}, on_extra: delete}
rules:
  - {table: moving, key: [k]}
  - {table: linked, key: [id]}
"""
IDS = range(1, 6)


@st.composite
def moving(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Draw rows with keys, ids and unique numbers from the same few."""
    keys = draw(st.lists(st.sampled_from("abcde"), unique=True))
    ids = draw(st.permutations(IDS))
    numbers = draw(st.permutations([*IDS]))
    kept = [number if draw(st.booleans()) else None for number in numbers]
    return [(ids[at], f"'{key}'", kept[at], draw(st.integers(0, 1))) for at, key in enumerate(keys)]


@st.composite
def linked(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Draw rows that refer to each other, themselves, or nothing."""
    ids = draw(st.lists(st.sampled_from(IDS), unique=True))
    to = st.sampled_from([None, *ids])
    return [(number, draw(to), draw(to), draw(st.integers(0, 1))) for number in ids]


@pytest.fixture(scope="module")
def urls(server: Server) -> Iterator[dict[str, str]]:
    """Give two schemas with the same empty tables."""
    with servers.pair(server, "i") as urls:
        for url in urls.values():
            execute(url, MOVING, LINKED, TREE, LEAF)
        yield urls


def refill(url: str, table: str, some: list[tuple[Any, ...]]) -> None:
    """Put these rows into a table, and no others."""
    values = ["(" + ", ".join("NULL" if v is None else str(v) for v in row) + ")" for row in some]
    inserts = [f"INSERT INTO {table} VALUES {', '.join(values)}"] if values else []
    execute(url, "SET foreign_key_checks = 0", f"DELETE FROM {table}", *inserts)


_runs = count(1)


def check_there_and_back(stand: Stand, table: str) -> None:
    """diff -> repair -> diff is empty, an undo is to the byte; the same by the mariadb client alone."""
    parent, child = stand.urls.values()
    before, wanted = checksums(child), checksums(parent)[table]
    request, prepared = stand.prepare(f"i{next(_runs)}", ["empty-desired"])
    planned = sum(len(edge.plan.changes) for edge in prepared.edges)
    text = "".join(sql.render(telling.with_whole_rows(request, prepared)))
    run_id = f"i{next(_runs)}"
    repaired = result(stand.repair(run_id, ["empty-desired"]), "c1")
    assert (repaired.problems, repaired.skipped, repaired.refusals) == ((), (), ())
    assert checksums(child)[table] == wanted
    assert result(stand.repair(f"{run_id}-again"), "c1").counts.planned == 0
    if planned:
        assert result(stand.undo(run_id, f"{run_id}-undo"), "c1").problems == ()
    assert checksums(child) == before
    if planned:
        assert replay(child, text) == Replayed(code=0, planned=planned, made=planned)
        assert checksums(child)[table] == wanted
        assert replay(child, way_back(text)) == Replayed(code=0, planned=planned, made=planned)
    assert checksums(child) == before


SETTINGS = settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@SETTINGS
@given(desired=moving(), existing=moving())
def test_rows_take_what_others_give_up(urls: dict[str, str], desired: Any, existing: Any) -> None:
    """Ids and unique numbers change hands among rows that stay, come and go."""
    for url, some in zip(urls.values(), (desired, existing), strict=True):
        refill(url, "moving", some)
        refill(url, "linked", [])
    check_there_and_back(Stand(urls, ruleset(RULES)), "moving")


@SETTINGS
@given(desired=linked(), existing=linked())
def test_rows_refer_to_each_other(urls: dict[str, str], desired: Any, existing: Any) -> None:
    """Through two foreign keys, in trees and circles, rows that stay, come and go."""
    for url, some in zip(urls.values(), (desired, existing), strict=True):
        refill(url, "linked", some)
        refill(url, "moving", [])
    check_there_and_back(Stand(urls, ruleset(RULES)), "linked")


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Draw named rows that refer to each other by their ids, and rows of another table that refer to them."""
    keys = draw(st.lists(st.sampled_from("abcd"), unique=True))
    ids = draw(st.permutations(IDS))[: len(keys)]
    to = st.sampled_from([None, *ids])
    tree = [(number, f"'{key}'", draw(to)) for number, key in zip(ids, keys, strict=True)]
    return tree, [(n, draw(to)) for n in draw(st.lists(st.sampled_from(IDS[:3]), unique=True))]


TREES = """
defaults: {limits: {updates: unlimited, deletes: unlimited}, on_extra: delete}
rules:
  - {table: tree, key: [k], columns: {include: [id, up]}%s}
  - {table: leaf, key: [n]%s}
"""
REFERRING = {"names": (", references: {up: tree}", ", references: {r: tree}"), "numbers": ("", "")}


@pytest.mark.parametrize("by", [*REFERRING])
@settings(SETTINGS, max_examples=60)
@given(desired=trees(), existing=trees())
def test_ids_move_to_which_rows_refer(urls: dict[str, str], by: str, desired: Any, existing: Any) -> None:
    """Nothing fails: what cannot be ordered is said before, and an undo is to the byte."""
    for url, (tree, leaf) in zip(urls.values(), (desired, existing), strict=True):
        for table, some in (("leaf", []), ("tree", tree), ("leaf", leaf), ("moving", []), ("linked", [])):
            refill(url, table, some)
    stand = Stand(urls, ruleset(TREES % REFERRING[by]))
    parent, child = urls.values()
    before = checksums(child)
    run_id = f"i{next(_runs)}"
    repaired = result(stand.repair(run_id, ["empty-desired"]), "c1")
    assert (repaired.problems, repaired.refusals) == ((), ())
    findings = [each for table in repaired.tables for each in getattr(table, "findings", ())]
    if not findings and not repaired.skipped:
        assert checksums(child) == checksums(parent)
        assert result(stand.repair(f"{run_id}-again"), "c1").counts.planned == 0
    if repaired.counts.planned:
        assert result(stand.undo(run_id, f"{run_id}-undo"), "c1").problems == ()
    assert checksums(child) == before
