"""The statements of SQL output where care is needed: what they write, leave alone, and take back."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nova
import pytest
from deployment import Deploy, Deployment
from edges import add, execute, rows
from replaying import COPY, Replayed, replay, way_back
from servers import checksums

Database = Callable[..., str]


@dataclass(frozen=True)
class Twins:
    """A parent, a child that cellsync writes, and its twin that the client writes."""

    cells: Deployment
    twin: str

    def planned(self) -> str:
        """Return the plan as SQL."""
        return self.cells.run("repair", "c1", "--dry-run", "--format", "sql").out

    def child(self, query: str) -> list[dict[str, object]]:
        return rows(self.cells.urls["c1"], query)

    def there(self, query: str) -> list[dict[str, object]]:
        return rows(self.twin, query)


@pytest.fixture
def twins(database: Database, tmp_path: Path) -> Callable[..., Twins]:
    """Make three databases with the same tables; the child and its twin hold the same rows."""

    def make(rules: str, tables: list[str], parent: list[str], child: list[str]) -> Twins:
        urls = {"api": database(), "c1": database()}
        twin = database()
        execute(urls["api"], *tables, *parent)
        for url in (urls["c1"], twin):
            execute(url, *tables, *child)
        return Twins(Deployment(urls=urls, folder=tmp_path).configure().rule_file(rules), twin)

    return make


def test_nova_cells_are_repaired_by_the_client(deploy: Deploy, database: Database) -> None:
    """Aggregates with their metadata and hosts, and flavors: referenced rows have other ids in c2."""
    cells = deploy()
    twin = database(charset="utf8mb3")
    nova.fill(twin, cell="c2", variant=nova.LIBERTY)
    before = checksums(twin)
    text = cells.run("repair", "c2", "--dry-run", "--format", "sql").out
    applied = cells.repair("c2").cell("c2")["changes"]["applied"]
    assert replay(twin, text, COPY) == Replayed(code=0, planned=applied, made=applied)
    for table in ("aggregates", "aggregate_metadata", "aggregate_hosts", "instance_types", "key_pairs"):
        names = [each["Field"] for each in rows(twin, f"SHOW COLUMNS FROM {table}")]
        chosen = ", ".join(f"`{name}`" for name in names if name not in ("created_at", "updated_at"))
        query = f"SELECT {chosen} FROM {table} ORDER BY id"
        assert rows(twin, query) == rows(cells.urls["c2"], query)
    ((fresh,),) = cells.sql("c2", "SELECT COUNT(*) FROM aggregates WHERE created_at > NOW() - INTERVAL 1 DAY")
    query = "SELECT COUNT(*) AS fresh FROM aggregates WHERE created_at > NOW() - INTERVAL 1 DAY"
    assert rows(twin, query) == [{"fresh": fresh}] != [{"fresh": 0}]
    assert replay(twin, way_back(text), COPY) == Replayed(code=0, planned=applied, made=applied)
    assert checksums(twin) == before


PEOPLE = """
CREATE TABLE people (id int AUTO_INCREMENT PRIMARY KEY, name varchar(40) NOT NULL UNIQUE, age int, note text,
    own varchar(9) DEFAULT 'own', stamp timestamp(6) NULL ON UPDATE CURRENT_TIMESTAMP(6),
    twice int AS (age * 2) PERSISTENT) COLLATE utf8mb4_general_ci"""
PACK = """
rules:
  - table: people
    key: [name]
    on_extra: delete
    columns: {exclude: [own, stamp, twice]}
    limits: {updates: 100%, deletes: 100%}
"""


def test_the_way_back_restores_what_no_rule_knows(twins: Callable[..., Twins]) -> None:
    """Columns that a rule leaves out, stamps of the server, numbers of deleted rows."""
    made = twins(
        PACK,
        [PEOPLE],
        ["INSERT INTO people (name, age) VALUES ('ann', 1), ('bob', 2)"],
        [
            "INSERT INTO people (id, name, age, own, stamp) "
            "VALUES (7, 'bob', 3, 'b', '2020-01-01 00:00:00.25'), (9, 'eve', NULL, NULL, NULL)",
        ],
    )
    before, text = checksums(made.twin), made.planned()
    assert replay(made.twin, text, COPY) == Replayed(code=0, planned=3, made=3)
    made.cells.repair()
    query = "SELECT name, age, own, stamp > '2026-01-01' AS stamped, twice FROM people ORDER BY name"
    assert made.there(query) == made.child(query)
    assert [row["stamped"] for row in made.there(query)] == [None, 0]  # an UPDATE leaves the stamp alone
    assert replay(made.twin, way_back(text), COPY) == Replayed(code=0, planned=3, made=3)
    assert checksums(made.twin) == before


def test_the_way_back_leaves_what_has_moved_since(twins: Callable[..., Twins]) -> None:
    """A row that was made and then changed is somebody else's now; so is one that takes a freed key."""
    made = twins(
        PACK,
        [PEOPLE],
        ["INSERT INTO people (name, age) VALUES ('ann', 1), ('bob', 2)"],
        ["INSERT INTO people (id, name, age) VALUES (7, 'bob', 3), (9, 'eve', 4)"],
    )
    text = made.planned()
    assert replay(made.twin, text, COPY).made == 3
    execute(
        made.twin, "UPDATE people SET age = 5 WHERE name = 'ann'", "INSERT INTO people (name) VALUES ('EVE')"
    )
    assert replay(made.twin, way_back(text), COPY) == Replayed(code=0, planned=3, made=1, left=(1, 3))
    assert made.there("SELECT name, age FROM people ORDER BY name") == [
        {"name": "ann", "age": 5},
        {"name": "bob", "age": 3},
        {"name": "EVE", "age": None},
    ]


def test_what_was_not_made_is_not_taken_back(twins: Callable[..., Twins]) -> None:
    """The row that another made, just as the plan has it, stays where the person names its number."""
    made = twins(PACK, [PEOPLE], ["INSERT INTO people (name, age) VALUES ('ann', 1), ('bob', 2)"], [])
    execute(made.twin, "INSERT INTO people (name, age) VALUES ('ann', 1)")
    text = made.planned()
    assert replay(made.twin, text, COPY) == Replayed(code=0, planned=2, made=1, left=(1,))
    back = replay(made.twin, way_back(text), f"{COPY}, @cellsync_left = '1'")
    assert back == Replayed(code=0, planned=2, made=1, left=(1,))
    assert made.there("SELECT name, age FROM people") == [{"name": "ann", "age": 1}]


SWAPPED = ["INSERT INTO people (name, age) VALUES ('x', 1), ('y', 2), ('z', 3), ('w', 4)"]
BY_AGE = PACK.replace("key: [name]", "key: [age]")


def test_names_that_are_swapped_are_swapped_by_the_client(twins: Callable[..., Twins]) -> None:
    """A circle of unique values is opened by parking, there and back."""
    child = ["INSERT INTO people (name, age) VALUES ('y', 1), ('z', 2), ('x', 3), ('v', 4)"]
    made = twins(BY_AGE, [PEOPLE], SWAPPED, child)
    before, text = checksums(made.twin), made.planned()
    assert "SAVEPOINT" in text
    done = replay(made.twin, text, COPY)
    assert done == Replayed(code=0, planned=done.planned, made=done.planned)
    made.cells.repair()
    query = "SELECT id, name, age FROM people ORDER BY id"
    assert made.there(query) == made.child(query)
    assert replay(made.twin, way_back(text), COPY) == done
    assert checksums(made.twin) == before


@pytest.mark.parametrize("age", [1, 2, 3])
def test_a_circle_that_cannot_be_made_whole_is_not_made(twins: Callable[..., Twins], age: int) -> None:
    """Whichever of its rows has moved: half a circle is worse than none. What is outside it is made."""
    child = ["INSERT INTO people (name, age) VALUES ('y', 1), ('z', 2), ('x', 3), ('v', 4)"]
    made = twins(BY_AGE, [PEOPLE], SWAPPED, child)
    text = made.planned()
    execute(made.twin, f"UPDATE people SET name = 'moved' WHERE age = {age}")
    circle = made.there("SELECT name FROM people WHERE age < 4 ORDER BY id")
    done = replay(made.twin, text, COPY)
    assert (done.code, done.planned, done.made, len(done.left)) == (0, 5, 1, 4), done.said
    assert made.there("SELECT name FROM people WHERE age < 4 ORDER BY id") == circle
    assert made.there("SELECT name FROM people WHERE age = 4") == [{"name": "w"}]


ORDERS = """
pack: orders
rules:
  - {id: orders, table: orders, key: [number], columns: {include: [state]}, carries: {exclude: [id]}}
  - id: order-lines
    table: order_line
    key: [order_number, position]
    comes_with: {rule: orders, by: {order_number: number}}
"""
ORDER_TABLES = (
    "CREATE TABLE orders (id int PRIMARY KEY AUTO_INCREMENT, number varchar(9) UNIQUE, state varchar(9), "
    "who text)",
    "CREATE TABLE order_line (id int PRIMARY KEY AUTO_INCREMENT, order_number varchar(9), position int, "
    "good varchar(9), FOREIGN KEY (order_number) REFERENCES orders (number))",
)
ORDERED = (
    "INSERT INTO orders (number, state, who) VALUES ('a', 'new', 'Ann'), ('b', 'new', 'Bob')",
    "INSERT INTO order_line (order_number, position, good) "
    "VALUES ('a', 1, 'tea'), ('a', 2, 'rum'), ('b', 1, 'ale')",
)


def test_rows_come_with_others_through_the_client_too(twins: Callable[..., Twins]) -> None:
    """An order with its lines, there and back."""
    made = twins(ORDERS, list(ORDER_TABLES), list(ORDERED), [])
    before, text = checksums(made.twin), made.planned()
    done = replay(made.twin, text, COPY)
    assert done == Replayed(code=0, planned=5, made=5)
    made.cells.repair()
    for table in ("orders", "order_line"):
        assert made.there(f"SELECT * FROM {table} ORDER BY id") == made.child(
            f"SELECT * FROM {table} ORDER BY id"
        )
    assert replay(made.twin, way_back(text), COPY) == done
    assert checksums(made.twin) == before


def test_half_an_order_is_not_made_by_the_client(twins: Callable[..., Twins]) -> None:
    """A line that is there already keeps its order back, and no other one."""
    made = twins(ORDERS, list(ORDER_TABLES), list(ORDERED), [])
    text = made.planned()
    execute(
        made.twin,
        "SET foreign_key_checks = 0",
        "INSERT INTO order_line (order_number, position, good) VALUES ('a', 2, 'old')",
    )
    done = replay(made.twin, text, COPY)
    assert (done.code, done.planned, done.made, len(done.left)) == (0, 5, 2, 3), done.said
    assert [row["number"] for row in made.there("SELECT number FROM orders")] == ["b"]
    assert [row["good"] for row in made.there("SELECT good FROM order_line ORDER BY good")] == ["ale", "old"]


def test_a_key_is_handed_on_from_row_to_row(twins: Callable[..., Twins]) -> None:
    """cellsync follows rows that it pushed under their new keys; the client does the same renames."""
    tables = [PEOPLE.replace("UNIQUE", "")]
    made = twins(PACK, tables, ["INSERT INTO people (name, age) VALUES ('a', 1), ('b', 2)"], [])
    made.cells.repair()
    execute(
        made.twin,
        *[f"INSERT INTO people (id, name, age) VALUES ({n}, '{c}', {n})" for n, c in ((1, "a"), (2, "b"))],
    )
    execute(
        made.cells.urls["api"],
        "UPDATE people SET name = 'c' WHERE name = 'b'",
        "UPDATE people SET name = 'B' WHERE name = 'a'",
    )
    text = made.planned()
    done = replay(made.twin, text, COPY)
    made.cells.repair()
    query = "SELECT id, name, age FROM people ORDER BY id"
    assert made.there(query) == made.child(query)
    assert done == Replayed(code=0, planned=2, made=2)
    assert replay(made.twin, way_back(text), COPY) == Replayed(code=0, planned=2, made=2)
    assert [row["name"] for row in made.there(query)] == ["a", "b"]


def test_a_name_that_was_given_up_and_taken_is_not_taken_back(twins: Callable[..., Twins]) -> None:
    """A renamed row keeps its new name where another has its old one now, in whatever spelling."""
    tables = [PEOPLE.replace("UNIQUE", "")]
    made = twins(PACK, tables, ["INSERT INTO people (name, age) VALUES ('ann', 1)"], [])
    made.cells.repair()
    execute(made.twin, "INSERT INTO people (name, age) VALUES ('ann', 1)")
    execute(made.cells.urls["api"], "UPDATE people SET name = 'eve'")
    text = made.planned()
    assert "SET `name` = 'eve'" in text
    assert replay(made.twin, text, COPY) == Replayed(code=0, planned=1, made=1)
    execute(made.twin, "INSERT INTO people (name) VALUES ('ANN ')")
    assert replay(made.twin, way_back(text), COPY) == Replayed(code=0, planned=1, made=0, left=(1,))
    execute(made.twin, "DELETE FROM people WHERE name = 'ANN '")
    assert replay(made.twin, way_back(text), COPY) == Replayed(code=0, planned=1, made=1)
    made.cells.repair()
    assert made.cells.run("history").out.count("repair") == 2
    past = made.cells.sql("c1", "SELECT run FROM cellsync.runs ORDER BY started DESC")[0][0]
    done = made.cells.run("history", past, "--format", "sql").out
    assert replay(made.twin, done, COPY) == Replayed(code=0, planned=1, made=1)
    execute(made.twin, "INSERT INTO people (name) VALUES ('Ann')")
    assert replay(made.twin, way_back(done), COPY) == Replayed(code=0, planned=1, made=0, left=(1,))


# -- Where they run, and what they leave alone ---------------------------------------------------


def test_statements_run_in_no_other_database(twins: Callable[..., Twins]) -> None:
    """Not in another schema of the same server unless one says so, and without saying in the right one."""
    made = twins(PACK, [PEOPLE], ["INSERT INTO people (name) VALUES ('ann')"], [])
    text, before = made.planned(), checksums(made.twin)
    refused = replay(made.twin, text)
    assert refused.code == 1
    assert "not the database of the plan" in refused.said
    assert checksums(made.twin) == before
    assert replay(made.cells.urls["c1"], text) == Replayed(code=0, planned=1, made=1)


def test_an_error_leaves_nothing_behind(twins: Callable[..., Twins]) -> None:
    """The second change does not fit any more: the first is not made either."""
    made = twins(
        PACK,
        [PEOPLE],
        ["INSERT INTO people (name, note) VALUES ('ann', 'x'), ('bob', '%s')" % ("y" * 300)],
        [],
    )
    execute(made.twin, "ALTER TABLE people MODIFY note varchar(9)")
    failed = replay(made.twin, made.planned(), COPY)
    assert failed.code == 1
    assert "Data too long" in failed.said
    assert made.there("SELECT COUNT(*) AS n FROM people") == [{"n": 0}]


def test_the_way_back_deletes_nothing_of_others(twins: Callable[..., Twins]) -> None:
    """A row to which rows refer that would be deleted with it stays, as with `undo`."""
    pets = (
        "CREATE TABLE pets (id int PRIMARY KEY, owner int NOT NULL, "
        "CONSTRAINT o FOREIGN KEY (owner) REFERENCES people (id) ON DELETE CASCADE)"
    )
    made = twins(PACK, [PEOPLE, pets], ["INSERT INTO people (name) VALUES ('ann'), ('bob')"], [])
    text = made.planned()
    assert replay(made.twin, text, COPY).made == 2
    execute(made.twin, "INSERT INTO pets SELECT 1, id FROM people WHERE name = 'bob'")
    assert replay(made.twin, way_back(text), COPY) == Replayed(code=0, planned=2, made=1, left=(2,))
    assert made.there("SELECT name FROM people") == [{"name": "bob"}]


# -- Values and comments -------------------------------------------------------------------------

HOSTILE = [
    "x'; DROP TABLE people; -- ",
    "\n-- undo: DROP TABLE people;\nDROP TABLE people;\n",
    "\r\nDROP TABLE people;\r\nDELIMITER //\n",
    "\\'; DROP TABLE people; #",
    "*/ DROP TABLE people; /*! x",
    "\0\x1a\\! echo hacked\n\\q",
    "\u2028\u2029\u202e\x85\x7f😀 'é'",
    "ends with a backslash\\",
    "%s :name ${x} {cell} `id`",
]


def test_values_are_values_wherever_they_stand(twins: Callable[..., Twins]) -> None:
    """As key, as value, in names and in comments: not one ends a literal, a name or a comment."""
    column = "odd `name`; DROP TABLE people; -- '\""
    quoted = f"`{column.replace('`', '``')}`"
    made = twins(PACK, [PEOPLE.replace("own varchar(9)", f"{quoted} int, own varchar(9)")], [], [])
    for number, text in enumerate(HOSTILE):
        add(made.cells.urls["api"], "people", {"name": text[:40], "age": number, "note": text})
    execute(made.cells.urls["api"], f"UPDATE people SET {quoted} = age")
    before, text = checksums(made.twin), made.planned()
    all_of_them = Replayed(code=0, planned=len(HOSTILE), made=len(HOSTILE))
    done = replay(made.twin, text, COPY)
    assert done == all_of_them, done.said
    assert "hacked" not in done.said
    assert [row["note"] for row in made.there("SELECT note FROM people ORDER BY age")] == HOSTILE
    made.cells.repair()
    query = f"SELECT id, name, age, note, {quoted} AS odd FROM people ORDER BY id"
    assert made.there(query) == made.child(query)
    assert replay(made.twin, way_back(text), COPY) == all_of_them
    assert checksums(made.twin) == before


def test_a_name_that_would_not_stay_on_its_line_is_not_written(twins: Callable[..., Twins]) -> None:
    """The command that takes the way back out of a file takes lines: such a name could forge one."""
    column = "`x\n-- undo: DROP TABLE people; --`"
    table = PEOPLE.replace("own varchar(9)", f"{column} int DEFAULT 1, own varchar(9)")
    made = twins(PACK, [table], ["INSERT INTO people (name) VALUES ('ann')"], [])
    text = made.planned()
    assert r"-- 1 has no statement: 'x\n-- undo: DROP TABLE people; --' can be written on no line" in text
    for way in (text, way_back(text)):
        assert replay(made.twin, way, COPY) == Replayed(code=0, planned=1, left=(1,), made=0)


def test_json_lines_are_one_difference_each(twins: Callable[..., Twins]) -> None:
    """Whatever the database holds: as many lines as differences, and each gives back its value."""
    made = twins(PACK, [PEOPLE], [], [])
    texts = [*HOSTILE, "[red]x[/red] [/bold]", "\x1b[31m\x9b", "\ufeff\ufffe\U000e0001\ufff9", "x" * 10_000]
    for number, text in enumerate(texts):
        add(made.cells.urls["api"], "people", {"name": f"{number}", "age": number, "note": text})
    out = made.cells.run("diff", "--format", "jsonl").out
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == len(texts) == out.count("\n")
    by_name = {line["key"]["name"]: line["columns"]["note"]["desired"] for line in lines}
    assert by_name == {str(number): text for number, text in enumerate(texts)}
    assert {line["kind"] for line in lines} == {"missing"}


# -- Files ---------------------------------------------------------------------------------------


def test_a_file_for_each_database(cells: Deployment) -> None:
    """Each is whole, for the cell in its name, and for nobody else to read; a cell in step has one too."""
    name = str(cells.folder / "fix-{cell}.sql")
    done = cells.run("repair", "--dry-run", "--rule", "aggregates", "--format", "sql", "-o", name)
    files = {path.name: path for path in cells.folder.glob("fix-*")}
    assert (sorted(files), done.out) == (["fix-c1.sql", "fix-c2.sql"], "")
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    for cell in ("c1", "c2"):
        assert replay(cells.urls[cell], files[f"fix-{cell}.sql"].read_text()).left == ()
    cells.run("repair", "--dry-run", "--rule", "aggregates", "--format", "sql", "-o", name)
    assert "-- no statements" in files["fix-c1.sql"].read_text()


def test_one_file_for_all_is_cut_as_its_header_says(cells: Deployment) -> None:
    """It is for its owner alone; run as a whole, it ends where the next database begins."""
    file = cells.folder / "all.sql"
    cells.run("diff", "--rule", "aggregates", "--format", "sql", "-o", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    command = "sed -n '/^-- cellsync: begin c2$/,/^-- cellsync: end c2$/p'"
    assert command.replace("c2", "CELL") in file.read_text()
    cut = subprocess.run(f"{command} {file}", shell=True, capture_output=True, text=True, check=True).stdout
    assert replay(cells.urls["c2"], cut).left == ()
    before = cells.checksums()["c2"]
    whole = replay(cells.urls["c1"], file.read_text())
    assert (whole.code, "not the database of the plan" in whole.said) == (1, True)
    assert cells.checksums()["c2"] == before
    assert cells.json("diff", "--rule", "aggregates").counts() == {
        "c1": {"aggregates": (0, 0, 0)},
        "c2": {"aggregates": (0, 0, 1)},
    }


def test_what_a_repair_wrote_is_shown_with_what_it_did_not(cells: Deployment) -> None:
    """The statements are those of the journal; the history gives the same ones, and asks for a run."""
    shown = cells.run("repair", "c1", "--yes", "--reason", "ticket 4711", "--format", "sql")
    run = cells.sql("c1", "SELECT run FROM cellsync.runs")[0][0]
    assert "-- cellsync: what repair wrote" in shown.out
    assert "-- reason: ticket 4711\n" in shown.out
    assert "-- afterwards: restart nova-scheduler in c1: it caches aggregates\n" in shown.out
    past = cells.run("history", run, "--format", "sql")
    assert "-- afterwards: restart nova-scheduler in c1: it caches aggregates\n" in past.out
    assert past.code == 0
    assert shown.out.count("INSERT INTO") == past.out.count("INSERT INTO") == 28
    for text in (shown.out, past.out):
        assert replay(cells.urls["c1"], text).made == 0
    assert cells.run("history", "--format", "sql").code == 2


def test_what_goes_up_has_a_section_of_its_own(twins: Callable[..., Twins]) -> None:
    """A child's rows for the parent are written in the parent's database."""
    made = twins(
        PACK.replace("on_extra", "direction: up\n    on_extra"),
        [PEOPLE],
        [],
        ["INSERT INTO people (name, age) VALUES ('ann', 1)"],
    )
    text = made.planned()
    assert "-- no statements\n-- cellsync: end c1\n" in text
    cut = text[text.index("-- cellsync: begin api") :]
    assert replay(made.cells.urls["api"], cut) == Replayed(code=0, planned=1, made=1)
    assert made.cells.json("diff").code == 0
    assert replay(made.cells.urls["api"], way_back(cut)).made == 1
    done = made.cells.run("repair", "--yes", "--format", "sql")
    assert done.out.count("-- cellsync: begin api\n") == 1
    assert replay(made.cells.urls["api"], way_back(done.out)).made == 1
