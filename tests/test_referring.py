"""A reference by a column that is not unique: where more than one row is meant, that is an error."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from edges import MakeDatabase, Stand, add, as_if_large, converged, execute, result, rows, stand_of, table
from servers import checksums

from cellsync.errors import ExitCode
from cellsync.model import CellResult, TableDiff, TableFailure

RULES = """
rules:
  - {table: owners, key: [k, k2]}
  - {table: things, key: [k], references: {r: owners}, on_extra: delete}
  - {table: parts, key: [thing], references: {thing: things}}
"""
TABLES = (
    "CREATE TABLE owners (k varchar(9), k2 int, v int, PRIMARY KEY (k, k2))",
    "CREATE TABLE things (id int PRIMARY KEY, k int, r varchar(9), v int)",
    "CREATE TABLE parts (id int AUTO_INCREMENT PRIMARY KEY, thing int, v int)",
)
ERROR = (
    "r is ambiguous: it refers to k of owners, which is not unique: in {} 2 rows of owners have k a: refer "
    "to a column that is unique, or take the column out of the rule"
)


def fill(stand: Stand, cell: str, owners: Sequence[tuple[str, int]], things: Sequence[object]) -> None:
    """Fill one side."""
    add(stand.urls[cell], "owners", *({"k": k, "k2": k2, "v": 1} for k, k2 in owners))
    add(stand.urls[cell], "things", *({"id": at, "k": at, "r": r, "v": 1} for at, r in enumerate(things, 1)))
    add(stand.urls[cell], "parts", {"thing": 1, "v": 1})


def list_errors(cell: CellResult) -> dict[str, str]:
    """Return rule -> error."""
    return {each.rule: each.error for each in cell.tables if isinstance(each, TableFailure)}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("cell", ["api", "c1"])
def test_what_may_mean_two_rows_is_not_compared(
    database: MakeDatabase, cell: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever side has it; never two rows with the number of one, and nothing is written by it."""
    if large:
        as_if_large(monkeypatch)
    stand = stand_of(database, RULES, *TABLES)
    for each in ("api", "c1"):
        owners = [("a", 1), ("b", 1), *([("a", 2)] if each == cell else [])]
        fill(stand, each, owners, ["a", "b", *(["b"] if each == "api" else [])])
    done = result(stand.repair("r1"), "c1")
    assert list_errors(done) == {
        "things": ERROR.format(cell),
        "parts": "refers to things, which could not be compared",
    }
    assert len(rows(stand.urls["c1"], "SELECT * FROM things")) == 2
    assert stand.diff().exit_code is ExitCode.INCOMPLETE


def test_it_is_compared_where_only_one_row_is_meant(database: MakeDatabase) -> None:
    """Doubles that nothing in scope refers to are no matter."""
    stand = stand_of(database, RULES.replace("references: {r", "where: 'v = 1', references: {r"), *TABLES)
    for cell in ("api", "c1"):
        fill(stand, cell, [("a", 1), ("a", 2), ("b", 1)], ["b", *(["b"] if cell == "api" else [])])
        execute(stand.urls[cell], "INSERT INTO things VALUES (9, 9, 'a', 2)")
    assert result(stand.repair("r1"), "c1").counts.applied == 1
    assert converged(stand)


def test_a_secret_reference_is_not_shown(database: MakeDatabase) -> None:
    """The value may be one that is hidden."""
    rules = RULES.replace("{r:", "{password:")
    stand = stand_of(database, rules, *(each.replace(" r ", " password ") for each in TABLES))
    for url in stand.urls.values():
        execute(url, "INSERT INTO owners VALUES ('hunter2', 1, 1), ('hunter2', 2, 1)")
        execute(url, "INSERT INTO things VALUES (1, 1, 'hunter2', 1)")
    assert "hunter2" not in str(list_errors(result(stand.diff(), "c1")))


TREE = """
rules:
  - {table: owners, key: [k], where: "k2 = 1", on_insert: {k2: 1}}
  - {table: things, key: [k], references: {r: owners}, on_extra: delete}
"""
NUMBERED = (
    "CREATE TABLE owners (id int PRIMARY KEY AUTO_INCREMENT, k varchar(9), k2 int)",
    "CREATE TABLE things (id int AUTO_INCREMENT PRIMARY KEY, k int, r int, v int)",
)


def make_doubled(database: MakeDatabase, parent: Sequence[str], child: Sequence[str]) -> Stand:
    """Return a stand whose child has the owner a twice (numbers 1 and 2) outside the rule, and b."""
    stand = stand_of(database, TREE, *NUMBERED)
    for cell, things in (("api", parent), ("c1", child)):
        execute(
            stand.urls[cell],
            "INSERT INTO owners VALUES (3, 'b', 1), (1, 'a', 2)" + (", (2, 'a', 2)" if cell == "c1" else ""),
            *(f"INSERT INTO things (k, r, v) VALUES {each}" for each in things),
        )
    return stand


def test_a_row_that_would_refer_to_one_of_two_is_a_finding(database: MakeDatabase) -> None:
    """Nobody has compared the two, which are outside the rule's scope."""
    stand = make_doubled(database, ["(1, 1, 1)", "(2, 1, 1)"], ["(1, 3, 1)"])
    stand = Stand(stand.urls, stand.rules, announced=True)
    done = result(stand.repair("r1"), "c1")
    (things,) = [each for each in done.tables if each.rule == "things"]
    assert isinstance(things, TableDiff)
    assert [(each.code, each.key) for each in things.findings] == [
        ("foreign-key-clash", (2,)),
        ("foreign-key-clash", (1,)),
    ]
    assert all("which c1 has more than once: keep one of those rows" in f.message for f in things.findings)
    assert (done.counts.planned, done.counts.conflicts) == (0, 0)


def test_a_row_that_refers_to_one_of_two_is_written(database: MakeDatabase) -> None:
    """It refers to one of them now, and that is the one that it holds: it moves, or goes."""
    stand = make_doubled(database, ["(1, 3, 1)", "(2, 1, 5)"], ["(1, 2, 1)", "(2, 2, 1)", "(3, 2, 1)"])
    stand = Stand(stand.urls, stand.rules, announced=True)
    before = checksums(stand.urls["c1"])["things"]
    done = result(stand.repair("r1"), "c1")
    assert (done.counts.applied, done.problems) == (3, ())
    assert rows(stand.urls["c1"], "SELECT k, r, v FROM things ORDER BY k") == [
        {"k": 1, "r": 3, "v": 1},
        {"k": 2, "r": 2, "v": 5},
    ]
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(stand.urls["c1"])["things"] == before


KEEPING = """
rules:
  - {table: owners, key: [k], on_extra: delete, limits: {deletes: unlimited}}
  - {table: things, key: [k], references: {r: owners}, on_extra: ACTION, limits: {deletes: unlimited}}
"""
KEPT = (
    "CREATE TABLE owners (id int AUTO_INCREMENT PRIMARY KEY, k int UNIQUE, u int UNIQUE)",
    "CREATE TABLE things (id int AUTO_INCREMENT PRIMARY KEY, k int UNIQUE, r int)",
    "CREATE TABLE besides (n int PRIMARY KEY, thing int, FOREIGN KEY (thing) REFERENCES things (id))",
)


@pytest.mark.parametrize("action", ["report", "ignore", "delete"])
def test_a_row_that_is_kept_gives_up_nothing(database: MakeDatabase, action: str) -> None:
    """A new row takes a unique value of one that another row keeps: said before, and nothing fails.

    The row that keeps it stays because its rule says so, or because yet another one refers to it.
    """
    stand = stand_of(database, KEEPING.replace("ACTION", action), *KEPT)
    execute(stand.urls["api"], "INSERT INTO owners VALUES (1, 10, 5)")
    execute(stand.urls["c1"], "INSERT INTO owners VALUES (7, 20, 5)", "INSERT INTO things VALUES (3, 1, 7)")
    if action == "delete":
        execute(stand.urls["c1"], "INSERT INTO besides VALUES (1, 3)")
    found = [each.code for each in table(stand.diff(), "c1", "owners").findings]
    assert found == ["unique-clash"]
    counts = result(stand.repair("r1"), "c1").counts
    assert (counts.planned, counts.failed, counts.conflicts) == (0, 0, 0)


CHAIN = """
defaults: {limits: {deletes: unlimited}}
rules:
  - {table: owners, key: [k]}
  - {table: things, key: [k], references: {r: owners, up: things}, on_extra: delete}
"""
CHAINED = (
    "CREATE TABLE owners (id int AUTO_INCREMENT PRIMARY KEY, k varchar(9))",
    "CREATE TABLE things (id int AUTO_INCREMENT PRIMARY KEY, k int UNIQUE, r int, up int, u int UNIQUE)",
)


def test_a_row_refers_to_one_that_refers_to_nothing(database: MakeDatabase) -> None:
    """Neither comes: both are findings before anything is written, the third row is written."""
    stand = stand_of(database, CHAIN, *CHAINED)
    execute(stand.urls["api"], "INSERT INTO things (id, k, up) VALUES (1, 1, 2), (2, 2, 77), (3, 3, NULL)")
    found = {each.key: each.code for each in table(stand.diff(), "c1", "things").findings}
    assert found == {(1,): "foreign-key-clash", (2,): "dangling-reference"}
    counts = result(stand.repair("r1"), "c1").counts
    assert (counts.applied, counts.failed, counts.conflicts) == (1, 0, 0)


def test_a_row_that_cannot_go_gives_up_nothing(database: MakeDatabase) -> None:
    """It refers to a key that two rows have: it stays, and what it has in a unique index with it."""
    stand = stand_of(database, CHAIN, *CHAINED)
    execute(stand.urls["api"], "INSERT INTO things (k, u) VALUES (1, 5)")
    execute(stand.urls["c1"], "INSERT INTO owners VALUES (1, 'x'), (2, 'x')")
    execute(stand.urls["c1"], "INSERT INTO things (k, u, r) VALUES (1, NULL, NULL), (2, 5, 1)")
    assert [each.code for each in table(stand.diff(), "c1", "things").findings] == ["unique-clash"]
    counts = result(stand.repair("r1"), "c1").counts
    assert (counts.planned, counts.failed, counts.conflicts) == (0, 0, 0)
