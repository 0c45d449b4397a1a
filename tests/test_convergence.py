"""Repairs that never ended: each of these schemas converges in one run, or is refused by name before it.

What a server does by itself (it computes columns, keeps old rows, has values that no literal makes) is no
reason to fail in the same way in every run.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from edges import MakeDatabase, Stand, add, converged, execute, result, rows, ruleset, stand_of, table
from servers import PrivateServer, checksums

from cellsync.errors import ExitCode
from cellsync.model import Report, TableFailure

ServerWith = Callable[..., PrivateServer]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compared_by")]


def rule(key: str = "k", more: str = "") -> str:
    """Return a rule for the table t that pushes everything."""
    return (
        f"rules: [{{table: t, key: [{key}], on_extra: delete{more}, "
        f"limits: {{updates: unlimited, deletes: unlimited}}}}]"
    )


def fill(stand: Stand, above: list[str], below: list[str], columns: str = "") -> None:
    """Insert rows into t, as they stand in VALUES."""
    for url, side in zip(stand.urls.values(), (above, below), strict=True):
        for row in side:
            execute(url, f"INSERT INTO t {columns} VALUES ({row})")


def repaired(stand: Stand, select: str = "*") -> Report:
    """Repair in one run, converge, and take it back to the byte."""
    before = checksums(stand.urls["c1"])
    done = stand.repair("r1")
    counts = result(done, "c1").counts
    assert (done.exit_code, counts.applied) == (ExitCode.IN_STEP, counts.planned), result(done, "c1")
    want, have = (rows(url, f"SELECT {select} FROM t ORDER BY 1, 2") for url in stand.urls.values())
    assert want == have
    assert converged(stand)
    if counts.applied:
        undone = result(stand.undo("r1", "u1"), "c1")
        assert undone.problems == ()
    assert checksums(stand.urls["c1"]) == before
    return done


def failure(stand: Stand) -> str:
    """Return why the rule could not be compared, in a diff and in a repair."""
    said = set()
    for report in (stand.diff(), stand.repair("r1")):
        (found,) = result(report, "c1").tables
        assert isinstance(found, TableFailure) and report.exit_code is ExitCode.INCOMPLETE
        said.add(found.error)
    (error,) = said
    return error


# -- Unique values that only the server knows -----------------------------------------------------


@pytest.mark.parametrize("stored", ["VIRTUAL", "STORED"])
@pytest.mark.parametrize(
    "made",
    ["varchar(40) AS (CONCAT(a, '/', b)) {}, UNIQUE (g)", "int AS (LENGTH(a)) {}, UNIQUE (g, b)"],
)
def test_a_unique_key_over_a_generated_column(made: str, stored: str, database: MakeDatabase) -> None:
    """Values that change places, take the place of others, and of a row that goes."""
    stand = stand_of(
        database,
        rule(),
        f"CREATE TABLE t (k int PRIMARY KEY, a varchar(20), b int, g {made.format(stored)})",
    )
    columns = "(k, a, b)"
    fill(
        stand,
        ["1, 'x', 1", "2, 'yy', 1", "3, 'zzz', 1", "5, 'vvvvv', 1"],
        ["1, 'yy', 1", "2, 'x', 1", "3, 'uuuu', 1", "4, 'zzz', 1"],
        columns,
    )
    repaired(stand)


def test_a_unique_key_with_a_column_that_stays(database: MakeDatabase) -> None:
    """UNIQUE (name, scope): the names change places, the scope is the same before and after."""
    stand = stand_of(
        database,
        rule(),
        "CREATE TABLE t (k int PRIMARY KEY, name varchar(20), scope int, UNIQUE (name, scope))",
    )
    fill(stand, ["1, 'a', 7", "2, 'b', 7", "3, 'c', 7"], ["1, 'b', 7", "2, 'c', 7", "3, 'a', 7"])
    repaired(stand)


def test_a_unique_key_whose_values_are_equal_to_the_server_alone(database: MakeDatabase) -> None:
    """Two emoji are one value in general_ci: whoever takes one waits for who has the other."""
    stand = stand_of(
        database,
        rule(),
        "CREATE TABLE t (k int PRIMARY KEY, name varchar(20) COLLATE utf8mb4_general_ci UNIQUE)",
    )
    fill(stand, ["1, '😀'", "2, 'x'"], ["1, 'x'", "2, '😁'"])
    repaired(stand)


# -- A generated column as key ----------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["VIRTUAL", "STORED"])
def test_a_generated_column_as_key(stored: str, database: MakeDatabase) -> None:
    """It is compared and looked up, and the server computes it: it is never written."""
    stand = stand_of(
        database,
        rule("g"),
        f"CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, a varchar(20), "
        f"g varchar(20) AS (UPPER(a)) {stored} UNIQUE, v int)",
    )
    columns = "(id, a, v)"
    fill(stand, ["1, 'x', 1", "2, 'y', 2", "3, 'w', 3"], ["7, 'x', 5", "9, 'z', 2"], columns)
    repaired(stand, "g, a, v")


def test_a_generated_column_as_part_of_a_key(database: MakeDatabase) -> None:
    """A new row is found again by it, where the base column is compared too."""
    stand = stand_of(
        database,
        rule("g, n"),
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, a varchar(20), "
        "g varchar(20) AS (UPPER(a)) STORED, n int)",
    )
    fill(stand, ["1, 'x', 1", "2, 'y', 2"], ["7, 'x', 5"], "(id, a, n)")
    repaired(stand, "g, n, a")


def test_a_generated_column_that_another_side_has_as_an_ordinary_one(database: MakeDatabase) -> None:
    """The child computes what the parent stores: only a difference of the schema, where values agree."""
    stand = stand_of(database, rule())
    execute(stand.urls["api"], "CREATE TABLE t (k int PRIMARY KEY, a varchar(9), g varchar(9))")
    execute(stand.urls["c1"], "CREATE TABLE t (k int PRIMARY KEY, a varchar(9), g varchar(9) AS (UPPER(a)))")
    execute(stand.urls["api"], "INSERT INTO t VALUES (1, 'x', 'X'), (2, 'y', 'Y')")
    execute(stand.urls["c1"], "INSERT INTO t (k, a) VALUES (1, 'q')")
    done = stand.repair("r1")
    assert (done.exit_code, result(done, "c1").counts.applied) == (ExitCode.IN_STEP, 2)
    assert converged(stand)


COMPUTED = "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, a {}, g varchar(90) AS ({}) {}, v int)"


@pytest.mark.parametrize("stored", ["VIRTUAL", "STORED"])
@pytest.mark.parametrize(
    ("kinds", "value", "same"),
    [
        (("datetime", "datetime(6)"), "'2024-01-01 10:00:00'", False),
        (("time(2)", "time"), "'10:00:00'", False),
        (("decimal(9,2)", "decimal(9,4)"), "1.5", False),
        (("varchar(9)", "varchar(20)"), "'x'", True),
        (("int", "bigint"), "7", True),
    ],
)
def test_a_generated_key_that_the_written_server_computes_otherwise(
    stored: str, kinds: tuple[str, str], value: str, same: bool, database: MakeDatabase
) -> None:
    """A row that would get another key is a finding before anything is written; the server is asked."""
    stand = stand_of(database, rule("g"))
    for url, kind in zip(stand.urls.values(), kinds, strict=True):
        execute(url, COMPUTED.format(kind, "CONCAT('g', a)", stored))
    execute(stand.urls["api"], f"INSERT INTO t (a, v) VALUES ({value}, 1)")
    found = table(stand.diff(), "c1", "t").findings
    assert [each.code for each in found] == ([] if same else ["unwritable-value"])
    done = stand.repair("r1")
    assert result(done, "c1").counts.applied == same
    assert (done.exit_code, result(done, "c1").counts.failed) == (int(not same), 0)


# -- Values that no literal makes -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["enum('a','b','1','')", "enum('a','b','1')", "set('a','b','1')"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_error_value_of_an_enum(kind: str, count: int, database: MakeDatabase) -> None:
    """'' with the number 0 is what an ENUM has after an insert that was not strict; numbers stay numbers."""
    stand = stand_of(database, rule(), f"CREATE TABLE t (k int PRIMARY KEY, e {kind}, v int)")
    values = ["'a'", "''", "'b'", "NULL", "'1'", "1"]
    execute(
        stand.urls["api"],
        "SET sql_mode = ''",
        *(f"INSERT IGNORE INTO t VALUES ({k}, {e}, 1)" for k, e in enumerate(values * count)),
        *(f"INSERT IGNORE INTO t VALUES ({k + 100}, 'nonsense', 1)" for k in range(count)),
        *(f"INSERT IGNORE INTO t VALUES ({k + 200}, 'a', 1)" for k in range(count)),
    )
    execute(
        stand.urls["c1"],
        "SET sql_mode = ''",
        *(f"INSERT IGNORE INTO t VALUES ({k + 100}, 'b', 1)" for k in range(count)),
        *(f"INSERT IGNORE INTO t VALUES ({k + 200}, 'nonsense', 1)" for k in range(count)),
    )
    # Where '' is a value too, no comparison tells the two apart.
    repaired(stand, "k, e, v" if "''" in kind else "k, e, e + 0, v")


def test_the_error_value_of_an_enum_into_a_narrower_one(database: MakeDatabase) -> None:
    """The child's ENUM lacks a value: that row is not written, the error value of another one is."""
    stand = stand_of(database, rule())
    execute(stand.urls["api"], "CREATE TABLE t (k int PRIMARY KEY, e enum('a','b','c'))")
    execute(stand.urls["c1"], "CREATE TABLE t (k int PRIMARY KEY, e enum('a','b'))")
    execute(
        stand.urls["api"],
        "SET sql_mode = ''",
        "INSERT IGNORE INTO t VALUES (1, 'a'), (2, 'nonsense'), (3, 'c')",
    )
    (finding,) = table(stand.diff(), "c1", "t").findings
    assert (finding.code, finding.key) == ("unwritable-value", (3,)) and "enum('a','b')" in finding.message
    done = stand.repair("r1")
    counts = result(done, "c1").counts
    assert (counts.applied, counts.planned) == (2, 2)
    assert rows(stand.urls["c1"], "SELECT k, e + 0 AS n FROM t ORDER BY k") == [
        {"k": 1, "n": 1},
        {"k": 2, "n": 0},
    ]


# -- Names and kinds of tables --------------------------------------------------------------------


def test_a_server_that_has_lower_case_table_names(database: MakeDatabase, server_with: ServerWith) -> None:
    """The rule names Hosts and Owners, as the parent does; the child's server has hosts and owners."""
    lower = server_with("--lower-case-table-names=1")
    text = """
rules:
  - {id: owners, table: Owners, key: [name], on_extra: delete, limits: {deletes: unlimited}}
  - {id: hosts, table: Hosts, key: [name], references: {owner_id: owners}, on_extra: delete}
"""
    stand = Stand({"api": database(), "c1": database(lower)}, ruleset(text))
    for url in stand.urls.values():
        execute(
            url,
            "CREATE TABLE Owners (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9) UNIQUE)",
            "CREATE TABLE Hosts (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9) UNIQUE, owner_id int, "
            "FOREIGN KEY (owner_id) REFERENCES Owners (id))",
        )
    execute(
        stand.urls["api"],
        "INSERT INTO Owners VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO Hosts VALUES (1, 'h', 1), (2, 'i', 2)",
    )
    execute(stand.urls["c1"], "INSERT INTO Owners VALUES (5, 'b')", "INSERT INTO Hosts VALUES (1, 'i', NULL)")
    before = checksums(stand.urls["c1"])
    done = stand.repair("r1")
    assert (done.exit_code, result(done, "c1").counts.applied) == (ExitCode.IN_STEP, 3), result(done, "c1")
    assert converged(stand)
    stand.undo("r1", "u1")
    assert checksums(stand.urls["c1"]) == before


VERSIONED = [
    "CREATE TABLE t (k int PRIMARY KEY, v int, name varchar(9) UNIQUE) WITH SYSTEM VERSIONING",
    "CREATE TABLE t (k int PRIMARY KEY, v int, name varchar(9) UNIQUE, "
    "s timestamp(6) GENERATED ALWAYS AS ROW START, "
    "e timestamp(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
    "CREATE TABLE t (k int, v int, name varchar(9), s timestamp(6) GENERATED ALWAYS AS ROW START INVISIBLE, "
    "e timestamp(6) GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (s, e), "
    "PRIMARY KEY (k, e), UNIQUE (name, e)) WITH SYSTEM VERSIONING",
    "CREATE TABLE t (k int PRIMARY KEY, v int WITHOUT SYSTEM VERSIONING, name varchar(9) UNIQUE) "
    "WITH SYSTEM VERSIONING",
]


@pytest.mark.parametrize("number", range(len(VERSIONED)))
@pytest.mark.parametrize("both", [True, False])
def test_a_system_versioned_table(number: int, both: bool, database: MakeDatabase) -> None:
    """Its current rows are compared and written like those of any table; its history is the server's."""
    stand = stand_of(database, rule())
    plain = "CREATE TABLE t (k int PRIMARY KEY, v int, name varchar(9) UNIQUE)"
    execute(stand.urls["api"], VERSIONED[number] if both else plain)
    execute(stand.urls["c1"], VERSIONED[number])
    fill(
        stand,
        ["1, 1, 'a'", "2, 2, 'b'", "3, 3, 'c'"],
        ["1, 9, 'b'", "2, 2, 'a'", "4, 4, 'c'"],
        "(k, v, name)",
    )
    execute(stand.urls["c1"], "UPDATE t SET v = 8 WHERE k = 1", "DELETE FROM t WHERE k = 3")
    before = rows(stand.urls["c1"], "SELECT k, v, name FROM t ORDER BY k")
    done = stand.repair("r1")
    counts = result(done, "c1").counts
    assert (done.exit_code, counts.applied) == (ExitCode.IN_STEP, counts.planned), result(done, "c1")
    want, have = (rows(url, "SELECT k, v, name FROM t ORDER BY k") for url in stand.urls.values())
    assert want == have
    assert converged(stand)
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert rows(stand.urls["c1"], "SELECT k, v, name FROM t ORDER BY k") == before


@pytest.mark.parametrize(
    ("made", "what"),
    [
        ("CREATE VIEW t AS SELECT * FROM base", "view"),
        ("CREATE SEQUENCE t", "sequence"),
    ],
)
@pytest.mark.parametrize("cell", ["api", "c1"])
def test_what_is_no_table_is_called_what_it_is(
    made: str, what: str, cell: str, database: MakeDatabase
) -> None:
    """A view or a sequence, on either side: named, before anything is tried."""
    stand = stand_of(database, rule(), "CREATE TABLE base (k int PRIMARY KEY, v int)")
    for name, url in stand.urls.items():
        execute(url, made if name == cell else "CREATE TABLE t (k int PRIMARY KEY, v int)")
    error = failure(stand)
    assert f"t in {cell} is a {what}" in error and "has no table" not in error


def test_a_partitioned_table(database: MakeDatabase) -> None:
    """Rows move between partitions with their values."""
    stand = stand_of(
        database,
        rule("k, p"),
        "CREATE TABLE t (k int, p int, v varchar(9), PRIMARY KEY (k, p)) "
        "PARTITION BY RANGE (p) (PARTITION a VALUES LESS THAN (5), PARTITION b VALUES LESS THAN MAXVALUE)",
    )
    fill(stand, ["1, 1, 'x'", "2, 9, 'y'", "3, 4, 'z'"], ["1, 9, 'x'", "2, 9, 'q'"])
    repaired(stand)


@pytest.mark.parametrize("where", ["", ", where: 'v < 100'"])
def test_invisible_columns(where: str, database: MakeDatabase) -> None:
    """SELECT * does not have them; they are compared and written all the same."""
    stand = stand_of(
        database,
        rule("k", where),
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT INVISIBLE, k int UNIQUE INVISIBLE, v int, "
        "s varchar(9) INVISIBLE DEFAULT 'd')",
    )
    columns = "(id, k, v, s)"
    fill(stand, ["1, 1, 1, 'a'", "2, 2, 2, 'b'"], ["1, 1, 1, 'x'", "5, 3, 3, 'c'"], columns)
    repaired(stand, "k, v, s")


def test_a_reference_to_a_table_with_invisible_columns(database: MakeDatabase) -> None:
    """The key that a reference leads to is invisible."""
    stand = stand_of(
        database,
        "rules: [{table: u, key: [name]}, {table: t, key: [k], references: {u: u}}]",
        "CREATE TABLE u (id int PRIMARY KEY AUTO_INCREMENT INVISIBLE, name varchar(9) INVISIBLE UNIQUE, "
        "v int)",
        "CREATE TABLE t (k int PRIMARY KEY, u int INVISIBLE)",
    )
    add(stand.urls["api"], "u", {"id": 1, "name": "a"}, {"id": 2, "name": "b"})
    add(stand.urls["c1"], "u", {"id": 7, "name": "b"})
    add(stand.urls["api"], "t", {"k": 1, "u": 2}, {"k": 2, "u": 1})
    done = stand.repair("r1")
    assert (done.exit_code, result(done, "c1").counts.applied) == (ExitCode.IN_STEP, 3), result(done, "c1")
    assert converged(stand)
    assert table(stand.diff(), "c1", "t").columns == ("u",)
