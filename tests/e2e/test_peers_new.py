"""The cases that other sync tools fail (facts/peers.md, section 3: N1 to N15).

N12 (a row lock on the child) is with case 26 in test_peers.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from deployment import Deployment
from edges import MakeDatabase, Stand, add, converged, execute, result, rows, stand_of, table
from servers import checksums
from test_peers import codes, counts, values

from cellsync import run
from cellsync.model import CellFailure, Kind, Status, TableFailure

ONE = "rules: [{{table: t, key: [{}], on_extra: delete, limits: {{updates: unlimited}}}}]"


def both(stand: Stand, *held: dict[str, object]) -> None:
    """Give both sides the same rows of t."""
    for url in stand.urls.values():
        add(url, "t", *held)


# -- What a checksum must see --------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 200, 201, 500])
def test_the_same_change_in_many_rows_is_seen(many: int, database: MakeDatabase) -> None:
    """N1: disabled 0 -> 1 in 200 of 500 rows, or a counter in all 500: an XOR of checksums says equal."""
    stand = stand_of(
        database,
        ONE.format("host"),
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, host varchar(20), disabled int, count int)",
    )
    both(stand, *({"host": f"compute-{n:03}", "disabled": 0, "count": 0} for n in range(500)))
    column = "`count`" if many == 500 else "disabled"
    execute(stand.urls["api"], f"UPDATE t SET {column} = 1 WHERE id <= {many}")
    found = stand.diff()
    assert (found.exit_code, counts(found, "t")) == (1, (0, many, 0))
    assert stand.repair("r1").exit_code == 0
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])


def test_two_values_that_changed_places_are_seen(database: MakeDatabase) -> None:
    """N2: the limits 20 and 10 of two quotas, swapped: no sum and no XOR of the rows changes."""
    stand = stand_of(database, ONE.format("k"), "CREATE TABLE t (k varchar(9) PRIMARY KEY, hard_limit int)")
    for url, limits in zip(stand.urls.values(), ((20, 10), (10, 20)), strict=True):
        add(url, "t", *({"k": k, "hard_limit": limit} for k, limit in zip("ab", limits, strict=True)))
    assert counts(stand.diff(), "t") == (0, 2, 0)
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT hard_limit FROM t ORDER BY k") == [(20,), (10,)]


@pytest.mark.parametrize(
    ("above", "below"),
    [
        *((("x" + mark + "y", "z"), ("x", "y" + mark + "z")) for mark in ("#", "|", "/", "", ",", "\0")),
        ((None, ""), ("<null>", "")),
        ((None, "x"), ("", "x")),
        (("", None), (None, "")),
        (("a", "\\'"), ("a", "'")),
    ],
)
def test_values_never_run_into_each_other(
    above: tuple[str, str], below: tuple[str, str], database: MakeDatabase
) -> None:
    """N4: whatever separates the columns, and NULL against '' as the only change of a hundred rows."""
    stand = stand_of(
        database, ONE.format("id"), "CREATE TABLE t (id int PRIMARY KEY, a varchar(9), b varchar(9))"
    )
    both(stand, *({"id": n, "a": "a", "b": "b"} for n in range(100)))
    for url, (a, b) in zip(stand.urls.values(), (above, below), strict=True):
        add(url, "t", {"id": 100, "a": a, "b": b})
    assert counts(stand.diff(), "t") == (0, 1, 0)
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT a, b FROM t WHERE id = 100") == [above]


@pytest.mark.parametrize("kind", ["float", "double"])
def test_zero_is_not_null(kind: str, database: MakeDatabase) -> None:
    """N5: 0 above and NULL below differ; a 0 beside another change stays 0."""
    stand = stand_of(
        database, ONE.format("id"), f"CREATE TABLE t (id int PRIMARY KEY, f {kind}, s varchar(9))"
    )
    add(
        stand.urls["api"],
        "t",
        {"id": 1, "f": 0, "s": "x"},
        {"id": 2, "f": 0, "s": "new"},
        {"id": 3, "f": None},
    )
    add(
        stand.urls["c1"],
        "t",
        {"id": 1, "f": None, "s": "x"},
        {"id": 2, "f": 0, "s": "old"},
        {"id": 3, "f": 0},
    )
    assert counts(stand.diff(), "t") == (0, 3, 0)
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT f, s FROM t ORDER BY id") == [(0.0, "x"), (0.0, "new"), (None, None)]
    assert converged(stand)


def test_two_emoji_are_two(database: MakeDatabase) -> None:
    """N6: neither reads as '?', as a value or as a key."""
    stand = stand_of(
        database,
        ONE.format("k"),
        "CREATE TABLE t (k varchar(9) COLLATE utf8mb4_bin PRIMARY KEY, v varchar(9))",
    )
    add(stand.urls["api"], "t", {"k": "v", "v": "😀"}, {"k": "🍏", "v": "x"})
    add(stand.urls["c1"], "t", {"k": "v", "v": "😁"}, {"k": "🍎", "v": "x"})
    assert counts(stand.diff(), "t") == (1, 1, 1)
    assert stand.repair("r1").exit_code == 0
    # Where an emoji stands among letters depends on the server's collation.
    assert set(values(stand, "SELECT k, v FROM t")) == {("v", "😀"), ("🍏", "x")}


def test_foo_above_and_foo_below_is_said_and_not_written(database: MakeDatabase) -> None:
    """N7: 'Foo' against 'foo' in a case-insensitive primary key: a finding, in each run the same one."""
    stand = stand_of(
        database,
        ONE.format("k").replace("delete", "report"),
        "CREATE TABLE t (k varchar(9) PRIMARY KEY, v int)",
    )
    add(stand.urls["api"], "t", {"k": "Foo", "v": 1})
    add(stand.urls["c1"], "t", {"k": "foo", "v": 1})
    for number in range(2):
        done = stand.repair(f"r{number}")
        assert (done.exit_code, codes(done, "t")) == (1, ["collation-twin"])
        assert result(done, "c1").counts.planned == 0
        (finding,) = table(done, "c1", "t").findings
        assert "Foo" in finding.message and "foo" in finding.message
    assert values(stand, "SELECT k FROM t") == [("foo",)]


# -- A read that ends early ----------------------------------------------------------------------

# The first half of the wide rows streams at once; the second half comes slowly.
SLOW = (
    "rules: [{table: t, key: [id], on_extra: delete, limits: {deletes: unlimited}, "
    "where: {desired: id < 200 OR SLEEP(0.2) = 0}}, {table: u, key: [id]}]"
)


@pytest.mark.parametrize("kill", ["KILL CONNECTION", "KILL QUERY"])
def test_a_parent_that_dies_while_it_is_read_deletes_nothing(kill: str, database: MakeDatabase) -> None:
    """N3: the rows that did not come are no rows to delete: no counts, exit 4, nothing written."""
    stand = stand_of(
        database,
        SLOW,
        "CREATE TABLE t (id int PRIMARY KEY, wide mediumtext)",
        "CREATE TABLE u (id int PRIMARY KEY)",
    )
    for url in stand.urls.values():
        execute(url, "INSERT INTO t SELECT seq, REPEAT('x', 10000) FROM seq_1_to_250")
    add(stand.urls["api"], "u", {"id": 1})
    before = checksums(stand.urls["c1"])
    with killed(stand.urls["api"], kill):
        # What is killed would also be a query of the oracle.
        done = replace(stand, judged=False).repair("r1")
    cell = result(done, "c1")
    assert (done.exit_code, cell.status) == (4, Status.INCOMPLETE)
    wide = cell.tables[0]
    assert isinstance(wide, TableFailure)
    assert wide.error.startswith("api: ")
    assert checksums(stand.urls["c1"])["t"] == before["t"]
    if kill == "KILL QUERY":  # the connection lives, and so do the other rules
        assert values(stand, "SELECT id FROM u") == [(1,)]


@contextmanager
def killed(url: str, kill: str) -> Iterator[None]:
    """Kill whatever sleeps in a query on that schema, once, after it has sent rows."""
    schema, slept = sa.make_url(url).database, threading.Event()
    find = f"SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{schema}' AND STATE = 'User sleep'"

    def watch() -> None:
        deadline = time.monotonic() + 30
        while not slept.is_set() and time.monotonic() < deadline:
            for row in rows(url, find):
                execute(url, f"{kill} {row['ID']}")
                slept.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    watcher.join()
    assert slept.is_set(), "nothing was killed"


# -- Order, identity, tombstones -----------------------------------------------------------------


def test_one_run_orders_tables_and_rows_by_their_foreign_keys(database: MakeDatabase) -> None:
    """N8: a_child refers to z_parent, row 1 of a table to its row 5: one run, exit 0."""
    stand = stand_of(
        database,
        "rules: [{table: a_child, key: [id]}, {table: z_parent, key: [id]}, "
        "{table: tree, key: [name], references: {up: tree}}]",
        "CREATE TABLE z_parent (id int PRIMARY KEY)",
        "CREATE TABLE a_child (id int PRIMARY KEY, p int NOT NULL, FOREIGN KEY (p) REFERENCES z_parent (id))",
        "CREATE TABLE tree (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9) UNIQUE, up int, "
        "FOREIGN KEY (up) REFERENCES tree (id))",
    )
    add(stand.urls["api"], "z_parent", {"id": 7})
    add(stand.urls["api"], "a_child", {"id": 1, "p": 7})
    add(stand.urls["api"], "tree", {"id": 5, "name": "five"}, {"id": 1, "name": "one", "up": 5})
    done = stand.repair("r1")
    assert (done.exit_code, result(done, "c1").problems) == (0, ())
    assert converged(stand)


def test_an_id_that_means_another_row_below_is_no_obstacle(database: MakeDatabase) -> None:
    """N9: one uuid has two ids, the parent's id is another uuid's below, and both are referred to."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [uuid]}, {table: u, key: [t_id, name], references: {t_id: t}}]",
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, uuid varchar(9) UNIQUE, v int)",
        "CREATE TABLE u (id int PRIMARY KEY AUTO_INCREMENT, t_id int NOT NULL, name varchar(9), w int, "
        "FOREIGN KEY (t_id) REFERENCES t (id) ON DELETE CASCADE)",
    )
    for cell, ids in {"api": {"u-a": 1, "u-b": 2, "u-c": 3}, "c1": {"u-b": 1, "u-a": 5, "own": 3}}.items():
        for uuid, number in ids.items():
            add(stand.urls[cell], "t", {"id": number, "uuid": uuid, "v": len(cell)})
            add(stand.urls[cell], "u", {"t_id": number, "name": f"of {uuid}", "w": len(cell)})
    done = stand.repair("r1")
    assert result(done, "c1").problems == ()
    joined = "SELECT t.id, t.uuid, t.v, u.name, u.w FROM t JOIN u ON u.t_id = t.id ORDER BY t.id"
    assert values(stand, joined) == [
        (1, "u-b", 3, "of u-b", 3),
        (3, "own", 2, "of own", 2),
        (5, "u-a", 3, "of u-a", 3),
        (6, "u-c", 3, "of u-c", 3),
    ]
    before = checksums(stand.urls["c1"])
    assert stand.repair("r2").exit_code == 1  # the child's own row is reported, and stays
    assert checksums(stand.urls["c1"]) == before


def test_a_tombstone_and_a_live_row_of_one_name_live_side_by_side(database: MakeDatabase) -> None:
    """N10: the parent re-created the name; the child's live row, with another id, is that live row."""
    soft = "soft_delete: {column: deleted, live: 0, tombstone: id}"
    stand = stand_of(
        database,
        f"rules: [{{table: t, key: [name], {soft}, on_extra: soft_delete}}]",
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), v int, deleted int, "
        "UNIQUE (name, deleted))",
    )
    add(
        stand.urls["api"],
        "t",
        {"id": 3, "name": "az", "v": 1, "deleted": 3},
        {"id": 4, "name": "az", "v": 2, "deleted": 0},
    )
    add(stand.urls["c1"], "t", {"id": 7, "name": "az", "v": 1, "deleted": 0})
    done = stand.repair("r1")
    assert (done.exit_code, result(done, "c1").counts.applied) == (0, 1)
    assert values(stand, "SELECT id, name, v, deleted FROM t") == [(7, "az", 2, 0)]
    assert converged(stand)


@pytest.mark.parametrize("on_extra", ["report", "delete"])
def test_an_emptied_parent_empties_no_child(on_extra: str, database: MakeDatabase) -> None:
    """N11: truncated by mistake, against 1000 rows: 1000 extras are said, none is deleted."""
    stand = stand_of(
        database,
        f"rules: [{{table: t, key: [id], on_extra: {on_extra}, limits: {{deletes: unlimited}}}}]",
        "CREATE TABLE t (id int PRIMARY KEY)",
    )
    execute(stand.urls["c1"], "INSERT INTO t SELECT seq FROM seq_1_to_1000")
    done = stand.repair("r1", ["limit"])
    refusals = [(r.code, "1000 rows" in r.message) for r in result(done, "c1").refusals]
    assert (done.exit_code, refusals) == ((3, [("empty-desired", True)]) if on_extra == "delete" else (1, []))
    assert counts(done, "t") == (0, 0, 1000)
    assert values(stand, "SELECT COUNT(*) FROM t") == [(1000,)]


def test_a_row_that_was_edited_since_it_was_read_keeps_its_edit(database: MakeDatabase) -> None:
    """N13: edited, gone, or its key taken between diff and apply: skipped, named, exit 4; others go on."""
    stand = stand_of(database, ONE.format("k"), "CREATE TABLE t (k varchar(9) PRIMARY KEY, v int)")
    add(stand.urls["api"], "t", *({"k": k, "v": 1} for k in ("edited", "gone", "taken", "still", "new")))
    add(stand.urls["c1"], "t", *({"k": k, "v": 0} for k in ("edited", "gone", "still", "extra", "own")))
    request, prepared = stand.prepare("r1")
    execute(
        stand.urls["c1"],
        "UPDATE t SET v = 42 WHERE k = 'edited'",
        "DELETE FROM t WHERE k = 'gone'",
        "INSERT INTO t VALUES ('taken', 42)",
        "UPDATE t SET v = 42 WHERE k = 'own'",
    )
    done = run.write(request, prepared)
    cell = result(done, "c1")
    assert (done.exit_code, cell.counts.applied, cell.counts.conflicts) == (4, 3, 4)
    assert "update t k=edited: conflict: v was 0 and is 42" in cell.problems
    assert dict(values(stand, "SELECT k, v FROM t")) == {
        "edited": 42,
        "taken": 42,
        "own": 42,
        "still": 1,
        "new": 1,
    }


def test_one_child_of_twenty_that_is_down_is_named_and_the_others_are_done(database: MakeDatabase) -> None:
    """N14: it is neither in step nor the end of the run."""
    names = [f"c{number:02}" for number in range(1, 21)]
    stand = stand_of(
        database, "rules: [{table: t, key: [k]}]", "CREATE TABLE t (k int PRIMARY KEY)", cells=("api", *names)
    )
    add(stand.urls["api"], "t", {"k": 1})
    lost = sa.make_url(stand.urls["c07"]).set(port=1).render_as_string(hide_password=False)
    broken = Stand({**stand.urls, "c07": lost}, stand.rules)
    done = broken.repair("r1")
    failures = [cell for cell in done.cells if isinstance(cell, CellFailure)]
    assert [(cell.cell, cell.status) for cell in failures] == [("c07", Status.UNREACHABLE)]
    assert done.exit_code == 4
    others = [name for name in names if name != "c07"]
    assert {result(done, name).status for name in others} == {Status.REPAIRED}
    assert all(rows(stand.urls[name], "SELECT k FROM t") for name in others)
    assert not rows(stand.urls["c07"], "SELECT k FROM t")


MARKS = ["[red]x[/red]", "[/bold]", "a\nb", "\x1b[31mred", "\u2028", "x" * 500, 'a"b\\', "😀"]


@pytest.mark.parametrize("as_process", [False, True])
def test_what_goes_into_a_pipe_can_be_parsed(as_process: bool, database: MakeDatabase, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """N15: each line is one JSON value; no markup is read, nothing is wrapped, every value comes back."""
    urls = {cell: database() for cell in ("api", "c1")}
    for url in urls.values():
        execute(url, "CREATE TABLE t (k varchar(9) PRIMARY KEY, v text)")
    add(urls["api"], "t", *({"k": str(at), "v": mark} for at, mark in enumerate(MARKS)))
    cells = Deployment(urls=urls, folder=tmp_path).rule_file("rules: [{table: t, key: [k]}]")
    say = cells.process if as_process else cells.run
    lines = say("diff", "--format", "jsonl")
    found = [json.loads(line) for line in lines.out.split("\n")[:-1]]
    assert lines.out.endswith("\n")
    assert {line["kind"] for line in found} == {Kind.MISSING.value}
    assert sorted(line["columns"]["v"]["desired"] for line in found) == sorted(MARKS)
    whole = json.loads(say("diff", "--format", "json").out)
    (told,) = whole["cells"][0]["tables"]
    assert sorted(each["columns"]["v"]["desired"] for each in told["differences"]) == sorted(MARKS)
    text = say("diff", "-v").out
    assert "[red]x[/red]" in text and "[/bold]" in text
    assert "\x1b" not in text
