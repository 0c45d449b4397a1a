"""Columns of which SQL says less than it seems: computed, invisible, and ENUMs with their error value.

A repair, its undo, and the same through the mariadb client, there and back.
"""

from __future__ import annotations

import pytest
from edges import MakeDatabase, Stand, execute, result, rows, stand_of
from replaying import Replayed, replay, way_back
from servers import checksums

from cellsync.report import sql
from cellsync.run import telling


def check_there_and_back(stand: Stand, query: str, planned: int) -> None:
    """A repair and its undo, and then the same statements by the client, and its way back."""
    parent, child = stand.urls.values()
    before = checksums(child)["t"]
    request, prepared = stand.prepare("s1")
    text = "".join(sql.render(telling.with_whole_rows(request, prepared)))
    done = result(stand.repair("r1"), "c1")
    assert (done.counts.applied, done.problems, done.skipped) == (planned, (), ())
    assert rows(child, query) == rows(parent, query)
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(child)["t"] == before
    forth = replay(child, text)
    assert forth == Replayed(code=0, planned=planned, made=planned), forth.said
    assert rows(child, query) == rows(parent, query)
    back = replay(child, way_back(text))
    assert back == Replayed(code=0, planned=planned, made=planned), back.said
    assert checksums(child)["t"] == before


RULE = """
defaults: {{limits: {{updates: unlimited, deletes: unlimited}}}}
rules:
  - {{id: t, table: t, key: [k], on_extra: delete, {}}}
"""
NOT_STRICT = "SET SESSION sql_mode = ''"


@pytest.mark.parametrize("key", ["PRIMARY KEY", "UNIQUE"])
def test_an_enum_gets_its_error_value_and_gives_it_up(database: MakeDatabase, key: str) -> None:
    """No strict session writes one: inserted, updated to and from, and deleted."""
    number = "" if key == "PRIMARY KEY" else "id int AUTO_INCREMENT PRIMARY KEY, "
    table = f"CREATE TABLE t ({number}k int {key}, e enum('x', 'y') NOT NULL, v varchar(9) NOT NULL)"
    stand = stand_of(database, RULE.format(""), table)
    parent, child = stand.urls.values()
    fill = "INSERT INTO t (k, e, v) VALUES "
    execute(parent, NOT_STRICT, fill + "(1, 'no', 'new'), (2, 'no', 'b'), (3, 'x', 'c'), (4, 'no', 'other')")
    execute(child, NOT_STRICT, fill + "(2, 'y', 'b'), (3, 'no', 'c'), (4, 'no', 'd'), (5, 'no', 'e')")
    check_there_and_back(stand, "SELECT k, e, v FROM t ORDER BY k", planned=5)


@pytest.mark.parametrize("where", ["", "where: 'o = 1', on_insert: {o: 1}"])
def test_an_invisible_column_is_the_key(database: MakeDatabase, where: str) -> None:
    """SELECT * does not have it."""
    table = (
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, k int NOT NULL DEFAULT 0 INVISIBLE, o int, v int)"
    )
    stand = stand_of(database, RULE.format(where), table)
    parent, child = stand.urls.values()
    fill = "INSERT INTO t (k, o, v) VALUES "
    execute(parent, fill + "(1, 1, 1), (2, 1, 2)")
    execute(child, fill + "(2, 1, 9), (3, 1, 3)")
    check_there_and_back(stand, "SELECT k, o, v FROM t ORDER BY k", planned=3)


@pytest.mark.parametrize("kind", ["STORED", "VIRTUAL"])
@pytest.mark.parametrize("where", ["", "where: 'o = 1', on_insert: {o: 1}"])
@pytest.mark.parametrize("unique", ["", ", UNIQUE KEY (g)"])
def test_a_computed_column_is_the_key(database: MakeDatabase, kind: str, where: str, unique: str) -> None:
    """It is written nowhere; whoever has its value is in the way all the same."""
    table = (
        f"CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, k int, g varchar(9) AS (concat('g', k)) {kind}, "
        f"o int, v int{unique})"
    )
    stand = stand_of(database, RULE.format(where).replace("[k]", "[g]"), table)
    parent, child = stand.urls.values()
    fill = "INSERT INTO t (k, o, v) VALUES "
    execute(parent, fill + "(1, 1, 1), (2, 1, 2), (4, 1, 3)")
    execute(child, fill + "(2, 1, 9), (3, 1, 3), (NULL, 1, 3)")
    check_there_and_back(stand, "SELECT k, g, o, v FROM t ORDER BY k", planned=5)


def test_the_way_back_takes_the_row_that_was_inserted(database: MakeDatabase) -> None:
    """What a new row is computed from is filled in by the rule; another row is all the same but for that."""
    table = (
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, k int, g varchar(9) AS (concat('g', k)) STORED, "
        "o int, v int)"
    )
    rule = RULE.format("columns: {include: [v]}, on_insert: {k: 1, o: 1}, where: 'k < 3'").replace(
        "[k]", "[g]"
    )
    stand = stand_of(database, rule, table)
    parent, child = stand.urls.values()
    fill = "INSERT INTO t (k, o, v) VALUES "
    execute(parent, fill + "(1, 1, 1), (2, 1, 1)")
    execute(child, fill + "(9, 1, 1), (2, 1, 1)")
    check_there_and_back(stand, "SELECT k, g, o, v FROM t WHERE k < 9 ORDER BY k", planned=1)


SCOPED = "where: 'o = 1', on_insert: {o: 1}"
T_SCOPED = "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, k int, up int, o int)"
Q_SCOPED = "SELECT k, up FROM t WHERE o = 1 ORDER BY k"


def test_the_way_back_leaves_a_row_outside_the_rule(database: MakeDatabase) -> None:
    """It has the key of the new row, and a lower number."""
    stand = stand_of(database, RULE.format(SCOPED), T_SCOPED)
    parent, child = stand.urls.values()
    execute(parent, "INSERT INTO t (k, o) VALUES (1, 1), (2, 1)")
    execute(child, "INSERT INTO t (k, o) VALUES (1, 2), (2, 1)")
    check_there_and_back(stand, Q_SCOPED, planned=1)


def test_the_way_back_of_a_row_that_was_emptied_first(database: MakeDatabase) -> None:
    """A row that refers to itself is emptied, then removed: what it was is known all the same."""
    stand = stand_of(database, RULE.format(f"{SCOPED}, references: {{up: t}}"), T_SCOPED)
    parent, child = stand.urls.values()
    execute(parent, "INSERT INTO t (id, k, o) VALUES (1, 1, 1)")
    execute(child, "INSERT INTO t (id, k, up, o) VALUES (1, 1, NULL, 1), (4, 9, 4, 1), (5, 8, NULL, 2)")
    check_there_and_back(stand, Q_SCOPED, planned=2)


@pytest.mark.parametrize("removed", ["A", "a "])
def test_the_way_back_of_a_row_whose_key_equals_another(database: MakeDatabase, removed: str) -> None:
    """The collation finds them equal, and no key of the table forbids that: both were there."""
    stand = stand_of(
        database,
        RULE.format("columns: {include: [v]}"),
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, k varchar(9) COLLATE utf8mb4_unicode_ci, v int)",
    )
    parent, child = stand.urls.values()
    for url in (parent, child):
        execute(url, "INSERT INTO t (k, v) VALUES ('a', 1)")
    execute(child, f"INSERT INTO t (k, v) VALUES ('{removed}', 1)")
    check_there_and_back(stand, "SELECT HEX(k), v FROM t ORDER BY id", planned=1)
