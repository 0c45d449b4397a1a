"""Foreign keys that no rule names: rows are written in their order, and circles are opened."""

from __future__ import annotations

from typing import Any

import pytest
from edges import MakeDatabase, Stand, add, execute, result, rows, stand_of
from replaying import Replayed, replay, way_back
from servers import checksums

from cellsync.apply import verifying
from cellsync.report import sql
from cellsync.run import telling

HEAD = "defaults: {limits: {updates: unlimited, deletes: unlimited}, on_extra: delete}\nrules:\n"
T = "  - {id: t, table: t, key: [id]}\n"
U = "  - {id: u, table: u, key: [id]}\n"
SELF = "CREATE TABLE t (id int PRIMARY KEY, v int, up int {}, FOREIGN KEY (up) REFERENCES t (id))"

Rows = list[tuple[Any, ...]]


def refill(url: str, tables: dict[str, tuple[str, Rows]]) -> None:
    """Put rows into tables, foreign keys unchecked: table -> columns, rows."""
    for name, (columns, some) in tables.items():
        for row in some:
            values = ", ".join("NULL" if each is None else repr(each) for each in row)
            execute(
                url,
                f"SET STATEMENT foreign_key_checks = 0 FOR INSERT INTO {name} ({columns}) VALUES ({values})",
            )


def check_there_and_back(stand: Stand) -> None:
    """One repair brings the child in step, an undo brings each byte back; so do the SQL statements."""
    parent, child = stand.urls.values()
    before = checksums(child)
    request, prepared = stand.prepare("s1", ["empty-desired"])
    planned = sum(len(edge.plan.changes) for edge in prepared.edges)
    text = "".join(sql.render(telling.with_whole_rows(request, prepared)))
    done = result(stand.repair("r1", ["empty-desired"]), "c1")
    assert (done.problems, done.skipped) == ((), ())
    assert checksums(child) == checksums(parent)
    assert result(stand.repair("again"), "c1").counts.planned == 0
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(child) == before
    assert replay(child, text) == Replayed(code=0, planned=planned, made=planned)
    assert checksums(child) == checksums(parent)
    assert replay(child, way_back(text)) == Replayed(code=0, planned=planned, made=planned)
    assert checksums(child) == before


@pytest.mark.parametrize("direction", ["insert", "delete"])
@pytest.mark.parametrize(
    "some",
    [
        [(5, 2, None), (1, 1, 5), (2, 1, 1)],
        [(1, 1, 2), (2, 1, 1)],
        [(1, 1, 2), (2, 1, 3), (3, 1, 1), (4, 1, 2), (0, 1, 4)],
        [(1, 1, 1), (2, 1, 1)],
        [(1, 1, 2), (2, 1, 1), (3, 1, 4), (4, 1, 3), (5, 1, 3)],
    ],
    ids=["tree", "circle", "three", "itself", "two circles"],
)
def test_rows_of_a_table_that_refers_to_itself(database: MakeDatabase, some: Rows, direction: str) -> None:
    """By a raw column: no reference is declared."""
    stand = stand_of(database, HEAD + T, SELF.format("NULL"))
    parent, child = stand.urls.values()
    refill(parent if direction == "insert" else child, {"t": ("id, v, up", some)})
    check_there_and_back(stand)


@pytest.mark.parametrize("direction", ["insert", "delete"])
@pytest.mark.parametrize("column", ["declared", "excluded"])
def test_rows_whose_own_ids_are_not_compared(database: MakeDatabase, column: str, direction: str) -> None:
    """A declared reference in a circle; a foreign key that the rule leaves out."""
    made = (
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), up int NULL,"
        " FOREIGN KEY (up) REFERENCES t (id))"
    )
    more = {"declared": "references: {up: t}", "excluded": "columns: {exclude: [up]}"}[column]
    stand = stand_of(database, f"{HEAD}  - {{id: t, table: t, key: [name], {more}}}", made)
    parent, child = stand.urls.values()
    some = [(1, "a", 3), (2, "b", 1), (3, "c", 2), (4, "d", 4), (5, "e", 2)]
    refill(parent if direction == "insert" else child, {"t": ("id, name, up", some)})
    done = result(stand.repair("r1", ["empty-desired"]), "c1")
    assert (done.problems, done.skipped) == ((), ())
    query = "SELECT a.name, b.name AS up FROM t AS a LEFT JOIN t AS b ON b.id = a.up ORDER BY a.name"
    if column == "declared" or direction == "delete":
        assert rows(child, query) == rows(parent, query)
    assert result(stand.repair("again"), "c1").counts.planned == 0
    before = [] if direction == "insert" else some
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert [tuple(row.values()) for row in rows(child, "SELECT * FROM t ORDER BY id")] == before


def test_a_circle_that_cannot_be_opened_is_said_and_not_tried(database: MakeDatabase) -> None:
    """NOT NULL: nothing of it is written; other rows are."""
    stand = stand_of(database, HEAD + T, SELF.format("NOT NULL"))
    parent, child = stand.urls.values()
    refill(parent, {"t": ("id, v, up", [(1, 1, 2), (2, 1, 1), (3, 1, 2), (4, 1, 4), (5, 1, 4)])})
    for run in ("r1", "r2"):
        done = result(stand.repair(run), "c1")
        assert done.problems == ()
        assert sorted(each.key for each in done.skipped) == [(1,), (2,), (3,)]
        assert all("in a circle through up" in each.reason for each in done.skipped)
        assert [row["id"] for row in rows(child, "SELECT id FROM t ORDER BY id")] == [4, 5]


@pytest.mark.parametrize("direction", ["insert", "delete"])
@pytest.mark.parametrize("first", ["tu", "ut"])
def test_two_tables_that_refer_to_each_other(database: MakeDatabase, first: str, direction: str) -> None:
    """One of them can be NULL for a moment, whichever rule stands first."""
    tables = (
        "CREATE TABLE t (id int PRIMARY KEY, u_id int NULL)",
        "CREATE TABLE u (id int PRIMARY KEY, t_id int NOT NULL, FOREIGN KEY (t_id) REFERENCES t (id))",
        "ALTER TABLE t ADD FOREIGN KEY (u_id) REFERENCES u (id)",
    )
    stand = stand_of(database, HEAD + (T + U if first == "tu" else U + T), *tables)
    parent, child = stand.urls.values()
    some = {"t": ("id, u_id", [(1, 7), (2, None), (3, 8)]), "u": ("id, t_id", [(7, 1), (8, 1)])}
    refill(parent if direction == "insert" else child, some)
    check_there_and_back(stand)


@pytest.mark.parametrize("direction", ["insert", "delete"])
def test_foreign_keys_of_two_columns(database: MakeDatabase, direction: str) -> None:
    """In a chain, and in a circle; a NULL in one column refers to nothing."""
    made = (
        "CREATE TABLE t (r int, id int, up int NULL, PRIMARY KEY (r, id),"
        " FOREIGN KEY (r, up) REFERENCES t (r, id))"
    )
    stand = stand_of(database, HEAD + T.replace("[id]", "[r, id]"), made)
    parent, child = stand.urls.values()
    some = [(1, 1, 3), (1, 2, 1), (1, 3, None), (2, 1, 2), (2, 2, 1), (2, 3, 1)]
    refill(parent if direction == "insert" else child, {"t": ("r, id, up", some)})
    check_there_and_back(stand)


@pytest.mark.parametrize("step", [1, -1])
def test_many_rows_into_an_empty_table(database: MakeDatabase, step: int) -> None:
    """The rows of a chain, in the order of their ids and against it."""
    stand = stand_of(database, HEAD + T, SELF.format("NULL"))
    parent, child = stand.urls.values()
    execute(
        parent,
        "SET STATEMENT foreign_key_checks = 0 FOR INSERT INTO t"
        f" SELECT seq, 0, IF(seq IN (1, 6000), NULL, seq - {step}) FROM seq_1_to_6000",
        "ANALYZE TABLE t",
    )
    done = result(stand.repair("r1"), "c1")
    assert (done.problems, done.skipped) == ((), ())
    assert checksums(child) == checksums(parent)
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert rows(child, "SELECT * FROM t") == []


def test_a_new_row_and_an_update_that_refers_to_it(database: MakeDatabase) -> None:
    """And an extra row that a changed row referred to."""
    stand = stand_of(database, HEAD + T, SELF.format("NULL"))
    parent, child = stand.urls.values()
    add(parent, "t", {"id": 9, "v": 1}, {"id": 1, "v": 1, "up": 9})
    add(child, "t", {"id": 8, "v": 1}, {"id": 1, "v": 1, "up": 8})
    check_there_and_back(stand)


@pytest.mark.parametrize("direction", ["insert", "delete"])
def test_a_circle_of_rows_is_verified_as_it_is_in_the_end(
    direction: str, database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fills a row, or removes it, may be far behind what it is written without; others come between."""
    monkeypatch.setattr(verifying, "KEYS_AT_ONCE", 2)
    stand = stand_of(
        database, HEAD + T + U, SELF.format("NULL"), "CREATE TABLE u (id int PRIMARY KEY, v int)"
    )
    parent, child = stand.urls.values()
    some: Rows = [(1, None, 2), (2, 1, 3), (3, 1, 1), (4, 1, 4), (5, None, 4)]
    refill(parent if direction == "insert" else child, {"t": ("id, v, up", some)})
    refill(parent if direction == "insert" else child, {"u": ("id, v", [(n, n) for n in range(5)])})
    check_there_and_back(stand)
