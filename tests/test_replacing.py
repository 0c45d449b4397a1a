"""A row that was made again has another preserved id: it is replaced where nothing uses the old one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from edges import MakeDatabase, Stand, converged, execute, result, rows, stand_of, table

from cellsync import run
from cellsync.model import Action

RULES = """
rules:
  - table: types
    key: [name]
    surrogate: {id: preserve}
    soft_delete: {column: deleted, live: 0, tombstone: id}
    on_insert: {deleted: 0}
    replaces: {unless_used_in: [{table: users, column: type_id, where: "deleted = 0"}]}
  - table: specs
    key: [type_id, k]
    references: {type_id: types}
    soft_delete: {column: deleted, live: 0, tombstone: id}
    on_insert: {deleted: 0}
"""
TABLES = (
    "CREATE TABLE types (id int AUTO_INCREMENT PRIMARY KEY, name varchar(9), v int, deleted int, "
    "UNIQUE (name, deleted))",
    "CREATE TABLE specs (id int AUTO_INCREMENT PRIMARY KEY, type_id int NOT NULL, k varchar(9), v int, "
    "deleted int, UNIQUE (type_id, k, deleted), FOREIGN KEY (type_id) REFERENCES types (id))",
    "CREATE TABLE users (id int AUTO_INCREMENT PRIMARY KEY, type_id int, deleted int)",
)
EVERYTHING = ("SELECT * FROM types ORDER BY id", "SELECT * FROM specs ORDER BY id")


def make_stand(database: MakeDatabase, rules: str = RULES) -> Stand:
    """Return a parent that made the type a again as 9, with specs, and a child that has it as 5."""
    # The oracle does not know rows that are replaced: these tests read the tables themselves.
    stand = replace(stand_of(database, rules, *TABLES), judged=False)
    execute(
        stand.urls["api"],
        "INSERT INTO types VALUES (5, 'a', 1, 5), (9, 'a', 2, 0), (3, 'b', 1, 0)",
        "INSERT INTO specs VALUES (1, 5, 'x', 1, 1), (2, 9, 'x', 1, 0), (3, 9, 'z', 3, 0)",
    )
    execute(
        stand.urls["c1"],
        "INSERT INTO types VALUES (5, 'a', 1, 0), (3, 'b', 1, 0)",
        "INSERT INTO specs VALUES (1, 5, 'x', 1, 0), (2, 5, 'y', 2, 0)",
    )
    return stand


def read_all(stand: Stand) -> list[list[dict[str, Any]]]:
    """Return all rows of the child."""
    return [rows(stand.urls["c1"], query) for query in EVERYTHING]


def test_it_is_replaced_with_what_refers_to_it_and_undone(database: MakeDatabase) -> None:
    """In step or not: the specs are removed with the old row, and inserted under the new id."""
    stand = make_stand(database)
    before = read_all(stand)
    done = stand.repair("r1")
    assert done.exit_code == 0, result(done, "c1").problems
    live = "SELECT id, v FROM types WHERE name = 'a' AND deleted = 0"
    assert rows(stand.urls["c1"], live) == [{"id": 9, "v": 2}]
    assert rows(stand.urls["c1"], "SELECT deleted FROM types WHERE id = 5") == [{"deleted": 5}]
    specs = rows(stand.urls["c1"], "SELECT type_id, k, v FROM specs WHERE deleted = 0 ORDER BY k")
    assert [tuple(each.values()) for each in specs] == [(9, "x", 1), (9, "z", 3)]
    assert stand.undo("r1", "u1").exit_code == 0
    assert read_all(stand) == before
    again = stand.repair("r2")
    assert again.exit_code == 0, (result(again, "c1").problems, result(again, "c1").skipped)
    assert converged(stand)


@pytest.mark.parametrize("rules", ["opted in", "not opted in"])
def test_a_row_in_use_is_a_finding_that_says_what_to_do(database: MakeDatabase, rules: str) -> None:
    """Nothing is written, and the finding has the columns, who uses it, and statements."""
    text = RULES if rules == "opted in" else "\n".join(x for x in RULES.split("\n") if "replaces" not in x)
    stand = make_stand(database, text)
    execute(stand.urls["c1"], "INSERT INTO users VALUES (1, 5, 0), (2, 5, 2)")
    before = read_all(stand)
    done = stand.repair("r1")
    (finding,) = table(done, "c1", "types").findings
    assert finding.code == "preserved-id" and "v is 1 instead of 2" in finding.message
    assert finding.do is not None and finding.do.cell == "c1"
    if rules == "opted in":
        assert "1 row of users in c1 use its id by type_id" in finding.message
        assert "SELECT * FROM `users` WHERE `type_id` = 5 AND (deleted = 0);" in finding.do.text
    else:
        assert "UPDATE `types` SET `deleted` = `id` WHERE `id` = 5 AND `deleted` = 0;" in finding.do.text
    assert read_all(stand) == before


def test_an_id_that_a_deleted_row_has_is_taken(database: MakeDatabase) -> None:
    """A tombstone of the child counts."""
    stand = make_stand(database)
    execute(stand.urls["c1"], "INSERT INTO types VALUES (9, 'q', 1, 9)")
    (finding,) = table(stand.repair("r1"), "c1", "types").findings
    assert "another row of types in c1 has id 9" in finding.message


def test_a_use_that_comes_after_the_plan_stops_the_piece(database: MakeDatabase) -> None:
    """It is looked for again in the transaction."""
    stand = make_stand(database)
    before = read_all(stand)
    request, prepared = stand.prepare("r1")
    assert table(prepared.report, "c1", "types").does(Action.REPLACE) == 1
    execute(stand.urls["c1"], "INSERT INTO users VALUES (1, 5, 0)")
    report = run.write(request, prepared)
    assert report.exit_code == 4
    assert any("users" in each for each in result(report, "c1").problems)
    assert read_all(stand) == before


def test_a_limit_holds_the_whole_piece_back(database: MakeDatabase) -> None:
    """Of the rows that refer to it, too: they count as what they are."""
    stand = make_stand(database, RULES + "    limits: {deletes: 0, free: 0}\n")
    before = read_all(stand)
    assert stand.repair("r1").exit_code != 0
    assert read_all(stand) == before
