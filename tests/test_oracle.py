"""The oracle itself: it shares no code with cellsync, and it sees what is wrong."""

from __future__ import annotations

import ast
from pathlib import Path

import judging
import oracle
import pytest
from edges import Stand, execute, result, stand_of
from oracle_writes import Written, explain_writes
from servers import DatabaseFactory

RULES = """
rules:
  - {table: owners, key: [name], where: "scope = 1", columns: {exclude: [own]}, on_insert: {scope: 1}}
  - {table: things, key: [owner_id, label], references: {owner_id: owners}, on_extra: delete}
"""
TABLES = (
    """CREATE TABLE owners (id int AUTO_INCREMENT PRIMARY KEY, name varchar(9), size int, own int,
    scope int NOT NULL, touched timestamp DEFAULT '2000-01-01')""",
    "CREATE TABLE things (id int AUTO_INCREMENT PRIMARY KEY, owner_id int, label varchar(9), n int)",
    "CREATE TABLE others (id int PRIMARY KEY, v text)",
)
PARENT = (
    "INSERT INTO owners (id, name, size, own, scope) VALUES (1,'a',1,1,1), (2,'b',2,2,1), (3,'x',1,1,2)",
    "INSERT INTO things VALUES (1,1,'p',1), (2,2,'q',2), (3,2,'r',3), (4,9,'lost',1)",
)
CHILD = (
    "INSERT INTO owners (id, name, size, own, scope) VALUES (5,'a',7,9,1), (6,'c',2,9,1), (7,'x',5,5,2)",
    "INSERT INTO things VALUES (1,5,'p',1), (2,5,'old',2)",
    "INSERT INTO others VALUES (1,'v')",
)


@pytest.fixture
def stand(database: DatabaseFactory) -> Stand:
    """Give a parent and a child that differ in each way."""
    made = stand_of(database, RULES, *TABLES)
    execute(made.urls["api"], *PARENT)
    execute(made.urls["c1"], *CHILD)
    return made


def take_edge(stand: Stand) -> oracle.Edge:
    """Read both sides."""
    rules = oracle.read_rules(RULES)
    parent, child = stand.urls.values()
    above = oracle.take_snapshot(parent, rules, of_parent=True)
    return oracle.Edge(rules, above, oracle.take_snapshot(child, rules, of_parent=False))


def explain(before: oracle.Edge, after: oracle.Edge) -> Written:
    """Explain what was written into the child."""
    return explain_writes(before, after, oracle.judge_rules(before), of_parent=False)


@pytest.mark.parametrize("name", ["oracle.py", "oracle_edges.py", "oracle_writes.py"])
def test_the_oracle_shares_no_code_with_cellsync(name: str) -> None:
    """Nor does it go through another module of the tests, which may."""
    tree = ast.parse((Path(__file__).parent / name).read_text(encoding="utf-8"))
    imported = {
        each.split(".")[0]
        for node in ast.walk(tree)
        for each in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    allowed = {"__future__", "collections", "dataclasses", "decimal", "functools", "oracle", "pymysql", "re"}
    assert imported <= allowed | {"sqlalchemy", "typing", "yaml"}


def test_it_sees_what_is_missing_changed_and_extra(stand: Stand) -> None:
    """References are compared by the key of the row that they refer to, and where holds."""
    judged = oracle.judge_rules(take_edge(stand))
    owners, things = judged["owners"], judged["things"]
    # A time outside the rules is compared too: only what is excluded is left alone.
    assert owners.columns == ("size", "touched")
    assert (owners.missing, owners.changed, owners.extra) == ({("b",)}, {("a",): {"size"}}, {("c",)})
    assert things.missing == {(("b",), "q"), (("b",), "r")}
    assert things.extra == {(("a",), "old")}
    assert things.aside == {(oracle.Dangling(9), "lost"): "it refers to a row that is not there"}


def test_a_versioned_table_is_known_by_its_primary_key(database: DatabaseFactory) -> None:
    """The server counts the end of a version in, which is in no list of columns."""
    url = database()
    execute(url, "CREATE TABLE owners (name varchar(9) PRIMARY KEY) WITH SYSTEM VERSIONING")
    execute(url, "INSERT INTO owners VALUES ('a')")
    table = oracle.take_snapshot(url, [], of_parent=False).tables["owners"]
    assert [table.identify(row) for row in table.rows] == [("a",)]


def test_it_agrees_with_a_repair(stand: Stand) -> None:
    """``Stand.repair`` asks it; here its numbers are looked at."""
    before = take_edge(stand)
    counts = result(stand.repair("r1"), "c1").counts
    written = explain(before, take_edge(stand))
    assert (written.inserted, written.updated, written.removed, written.wrong) == (3, 1, 1, [])
    assert counts.applied == written.total


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("UPDATE owners SET size = 6 WHERE name = 'x'", "which no rule asked for"),
        (
            "UPDATE owners SET own = 1, size = 1 WHERE name = 'a'",
            "['own'] changed, which the rule leaves out",
        ),
        ("UPDATE owners SET size = 3 WHERE name = 'c'", "which no rule asked for"),
        ("DELETE FROM owners WHERE name = 'c'", "is gone, which no rule asked for"),
        ("INSERT INTO things VALUES (9,5,'new',1)", "came, which no rule asked for"),
        ("UPDATE others SET v = 'w'", "which no rule asked for"),
    ],
)
def test_it_names_a_write_that_no_rule_asks_for(stand: Stand, statement: str, wrong: str) -> None:
    """Whoever made it."""
    before = take_edge(stand)
    execute(stand.urls["c1"], statement)
    (line,) = explain(before, take_edge(stand)).wrong
    assert wrong in line


def test_a_report_that_is_too_good_is_a_disagreement(stand: Stand) -> None:
    """What a repair announced and wrote is held against the rows, not against its own word."""
    _, prepared = stand.prepare("r1")
    announced = result(prepared.report, "c1")
    report = stand.repair("r2")
    execute(stand.urls["c1"], "DELETE FROM things WHERE label = 'q'")
    after = oracle.judge_rules(take_edge(stand))
    lines = [*judging.check_repaired(announced, result(report, "c1"), after, None, exit_code=0)]
    assert any(line.startswith("clean-word things: exit 0, and missing") for line in lines)
    assert any(line.startswith("unannounced things: missing") for line in lines)


def test_a_comparison_that_overlooks_or_invents_is_a_disagreement(stand: Stand) -> None:
    """Differences are held key by key."""
    found = result(stand.diff(), "c1")
    execute(
        stand.urls["c1"],
        "UPDATE things SET n = 5 WHERE label = 'p'",
        "DELETE FROM things WHERE label = 'old'",
    )
    lines = [*judging.check_compared(found, oracle.judge_rules(take_edge(stand)))]
    assert lines == [
        "invented things: extra (('a',), 'old')",
        "overlooked things: changed (('a',), 'p')",
    ]
