"""Rows whose primary key is compared, and moves: swaps, circles, ids that others give up; and back again."""

from __future__ import annotations

from typing import Any

import pytest
from edges import MakeDatabase, Stand, add, execute, result, rows, stand_of
from replaying import Replayed, replay, way_back
from servers import checksums

from cellsync import run
from cellsync.report import sql
from cellsync.run import telling

pytestmark = pytest.mark.slow

RULE = """
defaults: {limits: {updates: unlimited, deletes: unlimited}}
rules:
  - {id: t, table: t, key: [k], on_extra: delete}
"""
PLAIN = "CREATE TABLE t (id int PRIMARY KEY, k varchar(9) {}, v int)"

Rows = list[tuple[Any, ...]]


def made(stand: Stand, parent: Rows, child: Rows, columns: str = "id, k, v") -> Stand:
    """Fill t on both sides."""
    names = columns.split(", ")
    for url, some in zip(stand.urls.values(), (parent, child), strict=True):
        add(url, "t", *(dict(zip(names, row, strict=True)) for row in some))
    return stand


def check_there_and_back(stand: Stand, columns: str = "id, k, v") -> None:
    """One repair brings the child in step, an undo brings each byte back; and so do the SQL statements."""
    parent, child = stand.urls.values()
    before, wanted = checksums(child)["t"], checksums(parent)["t"]
    request, prepared = stand.prepare("s1", ["empty-desired"])
    planned = sum(len(edge.plan.changes) for edge in prepared.edges)
    text = "".join(sql.render(telling.with_whole_rows(request, prepared)))
    done = result(stand.repair("r1", ["empty-desired"]), "c1")
    assert (done.problems, done.skipped) == ((), ())
    query = f"SELECT {columns} FROM t ORDER BY {columns}"
    assert rows(child, query) == rows(parent, query)
    assert result(stand.repair("again"), "c1").counts.planned == 0
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(child)["t"] == before
    assert result(stand.undo("u1", "u2"), "c1").problems == ()
    assert rows(child, query) == rows(parent, query)
    assert result(stand.undo("u2", "u3"), "c1").problems == ()
    assert checksums(child)["t"] == before
    assert replay(child, text) == Replayed(code=0, planned=planned, made=planned)
    assert rows(child, query) == rows(parent, query)
    assert replay(child, way_back(text)) == Replayed(code=0, planned=planned, made=planned)
    assert checksums(child)["t"] == before
    assert checksums(parent)["t"] == wanted


@pytest.mark.usefixtures("compared_by")
@pytest.mark.parametrize("unique", ["", "UNIQUE"])
@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ([(2, "b", 2)], [(1, "b", 9)]),
        ([(1, "a", 1), (2, "b", 2)], [(1, "b", 1), (2, "a", 2)]),
        ([(1, "a", 1), (2, "b", 2), (3, "c", 3)], [(2, "a", 1), (3, "b", 2), (1, "c", 0)]),
        ([(1, "a", 1), (2, "b", 2), (3, "c", 3)], [(2, "a", 1), (3, "b", 2), (4, "c", 0)]),
        ([(1, "new", 1), (2, "b", 2)], [(1, "b", 2)]),
        ([(1, "new", 1), (2, "b", 2)], [(1, "b", 2), (2, "gone", 3)]),
        ([(1, "new", 1)], [(1, "gone", 2)]),
        ([(2, "b", 1)], [(1, "b", 1), (2, "gone", 1)]),
        ([(1, "a", 1), (2, "b", 2), (3, "new", 3)], [(1, "b", 1), (2, "a", 2), (3, "gone", 2)]),
    ],
    ids=["move", "swap", "three", "chain", "given up", "given up and gone", "gone", "into gone", "all"],
)
def test_an_identity_moves(database: MakeDatabase, parent: Rows, child: Rows, unique: str) -> None:
    """Whatever the others do with the ids."""
    check_there_and_back(made(stand_of(database, RULE, PLAIN.format(unique)), parent, child))


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("int unsigned", (1, 2)),
        ("bigint unsigned", (2**64 - 1, 5)),
        ("tinyint", (1, 2)),
        ("mediumint unsigned", (1, 2)),
        ("varchar(30) COLLATE utf8mb4_general_ci", ("Foo", "bar")),
        ("char(3)", ("a", "B")),
        ("varbinary(8)", (b"\0x", b"b")),
    ],
)
def test_primary_keys_of_any_type_are_swapped(database: MakeDatabase, kind: str, ids: Any) -> None:
    """Parked on a value that no row has."""
    stand = stand_of(database, RULE, PLAIN.replace("id int", f"id {kind}").format("UNIQUE"))
    one, two = ids
    check_there_and_back(made(stand, [(one, "a", 1), (two, "b", 2)], [(one, "b", 1), (two, "a", 2)]))


def test_a_primary_key_of_two_columns_is_swapped(database: MakeDatabase) -> None:
    """One of them moves."""
    table = "CREATE TABLE t (r int, id int, k varchar(9), v int, PRIMARY KEY (r, id))"
    stand = stand_of(database, RULE, table)
    made(stand, [(1, 1, "a", 1), (1, 2, "b", 2)], [(1, 1, "b", 1), (1, 2, "a", 2)], "r, id, k, v")
    check_there_and_back(stand, "r, id, k, v")


def test_a_case_of_a_primary_key_moves(database: MakeDatabase) -> None:
    """'foo' becomes 'Foo': to the server it is the same value."""
    stand = stand_of(
        database, RULE, PLAIN.replace("id int", "id varchar(9) COLLATE utf8mb4_general_ci").format("")
    )
    check_there_and_back(made(stand, [("Foo", "a", 1)], [("foo", "a", 2)]))


def test_an_id_that_counts_goes_on_counting_where_it_did(database: MakeDatabase) -> None:
    """A row that is parked does not take the server's next number to the end of the type."""
    stand = stand_of(
        database,
        RULE.replace("key: [k]", "key: [k], columns: {include: [id, v]}"),
        PLAIN.replace("PRIMARY KEY", "PRIMARY KEY AUTO_INCREMENT").format("UNIQUE"),
    )
    made(stand, [(1, "a", 1), (2, "b", 2)], [(1, "b", 1), (2, "a", 2)])
    check_there_and_back(stand)
    execute(stand.urls["c1"], "INSERT INTO t (k) VALUES ('next')")
    assert rows(stand.urls["c1"], "SELECT id FROM t WHERE k = 'next'") == [{"id": 3}]


def test_a_pushed_row_is_known_by_the_id_that_it_has_now(database: MakeDatabase) -> None:
    """Pushed, moved by a repair, taken back, moved again, renamed in the parent: one row all the time."""
    stand = stand_of(database, RULE.replace(", on_extra: delete", ""), PLAIN.format("UNIQUE"))
    made(stand, [(1, "a", 1), (2, "b", 2)], [])
    parent, child = stand.urls.values()
    stand.repair("r1")
    moves = ("UPDATE t SET id = 9 WHERE id = 1", "UPDATE t SET id = 1 WHERE id = 2")
    execute(parent, *moves)
    assert result(stand.repair("r2"), "c1").problems == ()
    assert result(stand.undo("r2", "u2"), "c1").problems == ()
    assert result(stand.repair("r3"), "c1").problems == ()
    execute(parent, "UPDATE t SET k = 'c' WHERE id = 1")
    assert result(stand.repair("r4"), "c1").problems == ()
    assert rows(child, "SELECT id, k FROM t ORDER BY id") == [{"id": 1, "k": "c"}, {"id": 9, "k": "a"}]


@pytest.mark.usefixtures("compared_by")
@pytest.mark.parametrize(
    ("table", "more"),
    [
        (
            "k varchar(9), v int, deleted int",
            "on_insert: {}, soft_delete: {column: deleted, live: 0, tombstone: id}",
        ),
        (
            "k varchar(9), v int, deleted int, UNIQUE (k, deleted)",
            "on_insert: {}, soft_delete: {column: deleted, live: 0, tombstone: id}",
        ),
        ("k varchar(9), v int, deleted int", "where: deleted = 0, on_insert: {deleted: 0}"),
    ],
)
def test_a_row_that_does_not_hold_its_key_is_no_reason_to_leave_an_undo(
    table: str, more: str, database: MakeDatabase
) -> None:
    """A soft-deleted row of the same key, or one that the rule does not see, was there all the time."""
    rules = f"""
    defaults: {{limits: {{updates: unlimited, deletes: unlimited}}}}
    rules:
      - {{id: t, table: t, key: [k], on_extra: delete, columns: {{exclude: [deleted]}}, {more}}}
    """
    stand = stand_of(database, rules, f"CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, {table})")
    columns = "id, k, v, deleted"
    made(stand, [(7, "new", 1, 0)], [(1, "old", 1, 1), (2, "old", 1, 0), (7, "new", 3, 7)], columns)
    child = stand.urls["c1"]
    before = checksums(child)["t"]
    done = result(stand.repair("r1"), "c1")
    assert (done.problems, done.counts.applied) == ((), 2)
    request = stand.request("undo", "s1")
    text = "".join(sql.render(telling.with_whole_rows(request, run.prepare_undo(request, "r1"))))
    assert replay(child, text) == Replayed(code=0, planned=2, made=2)
    assert checksums(child)["t"] == before
    assert replay(child, way_back(text)) == Replayed(code=0, planned=2, made=2)
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(child)["t"] == before


def test_a_key_that_another_row_has_by_now_is_not_given_back(database: MakeDatabase) -> None:
    """The row that somebody made after the repair stays, and the deleted one does not come back."""
    rules = """
    rules:
      - {id: t, table: t, key: [k], on_extra: delete, soft_delete: {column: deleted, live: 0, tombstone: id},
         limits: {deletes: unlimited}}
    """
    table = "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k varchar(9), deleted int)"
    stand = stand_of(database, rules, table)
    made(stand, [(1, "a", 0)], [(1, "a", 0), (2, "old", 0)], "id, k, deleted")
    assert result(stand.repair("r1"), "c1").counts.applied == 1
    add(stand.urls["c1"], "t", {"id": 3, "k": "old", "deleted": 0})
    undone = result(stand.undo("r1", "u1"), "c1")
    assert undone.problems == ("insert t k=old: conflict: the key is taken by id 3",)


@pytest.mark.parametrize("more", ["", ", UNIQUE (gk, k2)"])
def test_a_key_that_the_server_computes_is_given_back(more: str, database: MakeDatabase) -> None:
    """Another row with the same rest of the key does not hold it; a row that has all of it does."""
    rules = """
    defaults: {limits: {updates: unlimited, deletes: unlimited}}
    rules:
      - {id: t, table: t, key: [gk, k2], on_extra: delete}
    """
    columns = "k int, k2 int, gk varchar(9) AS (CONCAT('g', k)) STORED, PRIMARY KEY (k, k2)"
    stand = stand_of(database, rules, f"CREATE TABLE t ({columns}{more})")
    made(stand, [(1, 1)], [(3, 1), (4, 1)], "k, k2")
    child = stand.urls["c1"]
    before = checksums(child)["t"]
    assert result(stand.repair("r1"), "c1").counts.applied == 3
    request = stand.request("undo", "s1")
    text = "".join(sql.render(telling.with_whole_rows(request, run.prepare_undo(request, "r1"))))
    assert replay(child, text) == Replayed(code=0, planned=3, made=3)
    assert checksums(child)["t"] == before
    assert replay(child, way_back(text)) == Replayed(code=0, planned=3, made=3)
    execute(child, "INSERT INTO t (k, k2) VALUES (4, 1)")
    (problem,) = result(stand.undo("r1", "u1"), "c1").problems
    assert problem.startswith("insert t gk=g4 k2=1: failed: ") and "Duplicate entry" in problem


def test_a_key_that_another_row_has_in_another_spelling_is_given_back(database: MakeDatabase) -> None:
    """Nothing but the collation takes the two for one, and both were there before the repair."""
    table = "CREATE TABLE t (id int PRIMARY KEY, k varchar(9) COLLATE utf8mb4_unicode_ci)"
    rules = "rules: [{id: t, table: t, key: [k], on_extra: delete, limits: {deletes: unlimited}}]"
    stand = stand_of(database, rules, table)
    made(stand, [(4, "e")], [(4, "é"), (5, "e")], "id, k")
    child = stand.urls["c1"]
    before = checksums(child)["t"]
    text = "".join(sql.render(telling.with_whole_rows(*stand.prepare("s1"))))
    planned = result(stand.repair("r1"), "c1").counts.planned
    request = stand.request("undo", "s2")
    undo = "".join(sql.render(telling.with_whole_rows(request, run.prepare_undo(request, "r1"))))
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(child)["t"] == before
    for there, back in ((text, way_back(text)), (text, undo)):
        assert replay(child, there) == Replayed(code=0, planned=planned, made=planned)
        assert replay(child, back) == Replayed(code=0, planned=planned, made=planned)
        assert checksums(child)["t"] == before


def test_rows_that_refer_to_one_that_is_removed_early_are_removed_before_it(database: MakeDatabase) -> None:
    """In a table that refers to itself, without a foreign key; a chain of them."""
    rules = """
    defaults: {limits: {updates: unlimited, deletes: unlimited}}
    rules:
      - {id: t, table: t, key: [k], on_extra: delete, references: {up: t}, columns: {include: [id, up]}}
    """
    stand = stand_of(database, rules, "CREATE TABLE t (id int PRIMARY KEY, k varchar(9), up int)")
    parent: Rows = [(1, "new", None), (9, "same", None)]
    made(stand, parent, [(1, "old", None), (2, "mid", 1), (3, "end", 2), (9, "same", None)], "id, k, up")
    before = checksums(stand.urls["c1"])["t"]
    done = result(stand.repair("r1"), "c1")
    assert (done.problems, done.skipped, done.counts.applied) == ((), (), 4)
    assert result(stand.repair("again"), "c1").counts.planned == 0
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(stand.urls["c1"])["t"] == before


ALL_AT_ONCE: list[tuple[Rows, Rows]] = [
    (
        [(4, "b", 4, 0), (3, "c", 3, 0), (5, "d", None, 0), (1, "a", 1, 1), (2, "e", 5, 0)],
        [(3, "e", None, 0), (5, "b", None, 1), (4, "a", None, 0), (2, "d", None, 0), (1, "c", 5, 0)],
    ),
    (
        [(1, "a", 1, 0), (2, "b", 2, 0), (3, "c", 3, 0), (4, "d", 4, 0)],
        [(2, "a", 3, 0), (1, "b", 4, 0), (4, "c", 1, 0), (3, "d", 2, 0)],
    ),
]


@pytest.mark.parametrize(("parent", "child"), ALL_AT_ONCE)
def test_rows_that_wait_for_several_others_in_circles(
    database: MakeDatabase, parent: Rows, child: Rows
) -> None:
    """By the id for one row and by a unique number for another: more than one row is parked."""
    stand = stand_of(database, RULE, PLAIN.format("UNIQUE").replace("v int", "n int UNIQUE, v int"))
    check_there_and_back(made(stand, parent, child, "id, k, n, v"), "id, k, n, v")


@pytest.mark.parametrize("references", ["", ", references: {up: t}"])
@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ([(1, "a", 1)], [(21, "a", None)]),
        ([(1, "a", 1), (7, "b", None)], [(21, "a", 7), (7, "b", None)]),
        ([(1, "a", 1), (2, "b", 2)], [(2, "a", None), (1, "b", None)]),
    ],
    ids=["of none", "of another", "swapped"],
)
def test_a_row_that_moves_comes_to_refer_to_itself(
    database: MakeDatabase, parent: Rows, child: Rows, references: str
) -> None:
    """Moved first and linked then, so an undo can unlink it and move it back."""
    table = "CREATE TABLE t (id int PRIMARY KEY, k varchar(9), up int, FOREIGN KEY (up) REFERENCES t (id))"
    rule = RULE.replace("key: [k]", f"key: [k], columns: {{include: [id, up]}}{references}")
    stand = stand_of(database, rule, table)
    for url, some in zip(stand.urls.values(), (parent, child), strict=True):
        values = ", ".join(f"({i}, '{k}', {'NULL' if up is None else up})" for i, k, up in some)
        execute(url, "SET foreign_key_checks = 0", f"INSERT INTO t VALUES {values}")
    check_there_and_back(stand, "id, k, up")


LINKED = """
defaults: {limits: {updates: unlimited, deletes: unlimited}}
rules:
  - {id: t, table: t, key: [k]}
  - {id: u, table: u, key: [n], references: {r: t}, on_extra: delete}
"""
U = "CREATE TABLE u (n int PRIMARY KEY, r int)"


def test_rows_that_refer_to_an_id_that_moves(database: MakeDatabase) -> None:
    """By a reference of a rule alone: new ones get the new id, and those that go are gone before."""
    stand = made(stand_of(database, LINKED, PLAIN.format("UNIQUE"), U), [(1, "a", 1)], [(21, "a", 1)])
    execute(stand.urls["api"], "INSERT INTO u VALUES (1, 1)")
    execute(stand.urls["c1"], "INSERT INTO u VALUES (9, 21)")
    assert result(stand.repair("r1"), "c1").problems == ()
    assert rows(stand.urls["c1"], "SELECT n, r FROM u") == [{"n": 1, "r": 1}]
    assert result(stand.repair("again"), "c1").counts.planned == 0
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert rows(stand.urls["c1"], "SELECT n, r FROM u") == [{"n": 9, "r": 21}]


def test_an_id_stays_that_rows_in_step_refer_to(database: MakeDatabase) -> None:
    """To move it would let them refer to nothing: a finding, and nothing is written."""
    stand = made(stand_of(database, LINKED, PLAIN.format("UNIQUE"), U), [(1, "a", 1)], [(21, "a", 1)])
    execute(stand.urls["api"], "INSERT INTO u VALUES (1, 1)")
    execute(stand.urls["c1"], "INSERT INTO u VALUES (1, 21)")
    done = result(stand.repair("r1"), "c1")
    (finding,) = next(each for each in done.tables if each.rule == "t").findings  # type: ignore[union-attr]
    assert (finding.code, done.counts.planned) == ("still-referenced", 0)
    assert "u n 1 still refers to it (by r)" in finding.message


@pytest.mark.parametrize("kept", [(21, 2), (5, 2), (2, 1)], ids=str)
def test_rows_of_one_table_that_refer_to_ids_that_move(database: MakeDatabase, kept: tuple[int, int]) -> None:
    """By a foreign key that no rule names, to ids that are swapped among them: in one repair, and back."""
    own = (
        "CREATE TABLE t (id int PRIMARY KEY, k varchar(9) UNIQUE, up int, FOREIGN KEY (up) REFERENCES t (id))"
    )
    one, two = kept
    wanted: Rows = [(1, "a", None), (2, "b", 1), (3, "new", 1)]
    stand = made(stand_of(database, RULE, own), wanted, [(one, "a", None), (two, "b", None)], "id, k, up")
    before = checksums(stand.urls["c1"])["t"]
    assert result(stand.repair("r1"), "c1").problems == ()
    query = "SELECT id, k, up FROM t ORDER BY id"
    assert rows(stand.urls["c1"], query) == rows(stand.urls["api"], query)
    assert result(stand.repair("again"), "c1").counts.planned == 0
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(stand.urls["c1"])["t"] == before
