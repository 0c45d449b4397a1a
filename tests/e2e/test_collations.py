"""Keys that a collation takes for one: each row is read once, and twins are left alone on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from edges import MakeDatabase, Stand, add, execute, result, rows, stand_of, table
from servers import checksums

from cellsync.model import Difference
from cellsync.run import confirming
from cellsync.run.digesting import Block, Edge

PARENTS = "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) UNIQUE) COLLATE {}"
CHILDREN = (
    "CREATE TABLE u (id int PRIMARY KEY AUTO_INCREMENT, t_id int, n int, v int, UNIQUE (t_id, n)) COLLATE {}"
)
RULES = """
rules:
  - {id: t, table: t, key: [name]}
  - {id: u, table: u, key: [t_id, n], references: {t_id: t}}
"""


@pytest.mark.parametrize("collation", ["utf8mb4_general_ci", "utf8mb4_unicode_ci"])
def test_a_row_that_two_batches_of_keys_match_is_one_row(database: MakeDatabase, collation: str) -> None:
    """20 of 100 names in capitals in the child, 8,000 rows that refer to them: no duplicates are found."""
    tables = [each.format(collation) for each in (PARENTS, CHILDREN)]
    stand = stand_of(database, RULES, *tables)
    for url in stand.urls.values():
        execute(url, "INSERT INTO t SELECT seq, CONCAT('name', seq) FROM seq_1_to_100")
        execute(url, "INSERT INTO u SELECT seq, seq % 100 + 1, seq DIV 100, 0 FROM seq_1_to_7999")
    execute(stand.urls["c1"], "UPDATE t SET name = UPPER(name) WHERE id % 5 = 0")
    report = stand.diff()
    found = table(report, "c1", "u")
    assert [finding for finding in found.findings if finding.code == "duplicate-key"] == []
    assert {finding.code for finding in table(report, "c1", "t").findings} == {"collation-twin"}


ONE = """
defaults: {limits: {updates: unlimited, deletes: unlimited}}
rules:
  - {id: t, table: t, key: [k], on_extra: delete}
"""
SOFT = """
defaults: {limits: {updates: unlimited, deletes: unlimited}}
rules:
  - {id: t, table: t, key: [k], on_extra: soft_delete,
     soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}}
"""


def check_left_alone(stand: Stand, *, rule: str = "t", findings: int = 1) -> None:
    """Each diff, plan and repair says the same twins, and none of their rows is written."""
    before = checksums(stand.urls["c1"])
    for done in (stand.diff(), stand.repair("r1"), stand.repair("r2")):
        assert [each.code for each in table(done, "c1", rule).findings] == ["collation-twin"] * findings
        assert (done.exit_code, result(done, "c1").problems) == (1, ())
        assert result(done, "c1").counts.planned == 0
    assert checksums(stand.urls["c1"]) == before


@pytest.mark.usefixtures("compared_by")
@pytest.mark.parametrize(
    ("above", "below"), [("Foo", "foo"), ("😀", "😁"), ("ß", "s"), ("a ", "a"), ("é", "E")]
)
def test_both_rows_of_a_twin_are_left_alone(database: MakeDatabase, above: str, below: str) -> None:
    """The server says which two are one; neither is inserted, and neither deleted."""
    made = "CREATE TABLE t (k varchar(9) PRIMARY KEY, v int) COLLATE utf8mb4_general_ci"
    stand = stand_of(database, ONE, made)
    add(stand.urls["api"], "t", {"k": above, "v": 1}, {"k": "x", "v": 1})
    add(stand.urls["c1"], "t", {"k": below, "v": 1}, {"k": "x", "v": 1})
    check_left_alone(stand)


@pytest.mark.usefixtures("compared_by")
def test_a_twin_is_not_deleted_softly(database: MakeDatabase) -> None:
    """The parent deleted 'foo' and has 'Foo': which of the two the child's row is is open."""
    made = (
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k varchar(9), deleted int, deleted_at datetime,"
        " UNIQUE (k, deleted)) COLLATE utf8mb4_general_ci"
    )
    stand = stand_of(database, SOFT, made)
    dead = {"deleted": 1, "deleted_at": "2026-06-01 00:00:00"}
    add(stand.urls["api"], "t", {"id": 1, "k": "foo", **dead}, {"id": 2, "k": "Foo", "deleted": 0})
    add(stand.urls["c1"], "t", {"id": 7, "k": "foo", "deleted": 0})
    check_left_alone(stand)


@pytest.mark.usefixtures("compared_by")
def test_a_key_of_several_columns_has_twins(database: MakeDatabase) -> None:
    """('a', 1, 'B') and ('A', 1, 'b') are one; ('a', 2, 'B') is another, and is written."""
    made = "CREATE TABLE t (k varchar(9), n int, m varchar(9) CHARACTER SET latin1, PRIMARY KEY (k, n, m))"
    stand = stand_of(database, ONE.replace("[k]", "[k, n, m]"), f"{made} COLLATE utf8mb4_general_ci")
    add(stand.urls["api"], "t", {"k": "a", "n": 1, "m": "B"}, {"k": "a", "n": 2, "m": "B"})
    add(stand.urls["c1"], "t", {"k": "A", "n": 1, "m": "b"})
    done = stand.repair("r1")
    assert result(done, "c1").problems == ()
    check_left_alone(stand)
    assert rows(stand.urls["c1"], "SELECT k, n FROM t ORDER BY n") == [
        {"k": "A", "n": 1},
        {"k": "a", "n": 2},
    ]


@pytest.mark.usefixtures("compared_by")
@pytest.mark.parametrize("unique", ["PRIMARY KEY", "NOT NULL, id int PRIMARY KEY AUTO_INCREMENT"])
def test_two_new_rows_that_are_one_below_are_a_finding(database: MakeDatabase, unique: str) -> None:
    """Two rows of a binary parent, one key to the child, whose table is empty: neither is inserted."""
    made = "CREATE TABLE t (k varchar(9) {} {}, v int)"
    stand = stand_of(database, ONE)
    execute(stand.urls["api"], made.format("COLLATE utf8mb4_bin", unique))
    execute(stand.urls["c1"], made.format("COLLATE utf8mb4_general_ci", unique))
    add(stand.urls["api"], "t", *({"k": k, "v": 1} for k in ("Foo", "bar", "foo", "😀", "zoo", "😁")))
    first = stand.repair("r1")
    assert (first.exit_code, result(first, "c1").problems) == (1, ())
    assert {row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t")} == {"bar", "zoo"}
    check_left_alone(stand, findings=2)


def test_a_row_of_both_sides_is_repaired_beside_its_twin(database: MakeDatabase) -> None:
    """The parent has 'foo' and 'Foo', the child 'foo': only 'Foo' is in doubt."""
    made = "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k varchar(9), v int)"
    stand = stand_of(database, ONE, f"{made} COLLATE utf8mb4_general_ci")
    add(stand.urls["api"], "t", {"k": "foo", "v": 1}, {"k": "Foo", "v": 1})
    add(stand.urls["c1"], "t", {"k": "foo", "v": 2})
    done = stand.repair("r1")
    assert (result(done, "c1").counts.applied, result(done, "c1").problems) == (1, ())
    assert rows(stand.urls["c1"], "SELECT k, v FROM t") == [{"k": "foo", "v": 1}]
    check_left_alone(stand)


REFERRING = """
defaults: {limits: {updates: unlimited, deletes: unlimited}, on_extra: delete}
rules:
  - {id: p, table: p, key: [name]}
  - {id: t, table: t, key: [name], references: {p_id: p}}
  - {id: u, table: u, key: [t_id, n], references: {t_id: t}}
  - {id: w, table: w, key: [u_id], references: {u_id: u}}
"""


@pytest.mark.parametrize("code", ["collation-twin", "duplicate-key", "preserved-id"])
def test_what_refers_to_a_row_set_aside_is_left_alone(database: MakeDatabase, code: str) -> None:
    """Rows that refer to the twin in the child, and the row that it refers to, are not deleted."""
    tables = (
        "CREATE TABLE p (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9)) COLLATE utf8mb4_general_ci",
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), p_id int)"
        " COLLATE utf8mb4_general_ci",
        "CREATE TABLE u (id int PRIMARY KEY AUTO_INCREMENT, t_id int, n int)",
        "CREATE TABLE w (id int PRIMARY KEY AUTO_INCREMENT, u_id int)",
    )
    text = REFERRING
    if code == "preserved-id":
        text = text.replace("{id: t, table: t,", "{id: t, table: t, surrogate: {id: preserve},")
    stand = stand_of(database, text, *tables)
    parent, child = stand.urls.values()
    if code != "duplicate-key":
        add(parent, "t", {"id": 5, "name": "Foo" if code == "collation-twin" else "other"})
    add(child, "p", {"id": 3, "name": "p"}, {"id": 4, "name": "gone"})
    add(child, "t", {"id": 5, "name": "foo", "p_id": 3}, {"id": 7, "name": "gone", "p_id": 4})
    if code == "duplicate-key":
        add(child, "t", {"id": 6, "name": "foo", "p_id": 3})
        add(parent, "t", {"id": 5, "name": "stays"})
        add(child, "t", {"id": 8, "name": "stays"})
    add(child, "u", {"id": 1, "t_id": 5, "n": 1}, {"id": 2, "t_id": 7, "n": 1})
    add(child, "w", {"id": 1, "u_id": 1}, {"id": 2, "u_id": 2})
    done = stand.repair("r1", ["empty-desired"])
    assert result(done, "c1").problems == ()
    assert code in [finding.code for finding in table(done, "c1", "t").findings]
    left = {name: [row["id"] for row in rows(child, f"SELECT id FROM {name} ORDER BY id")] for name in "ptuw"}
    twins = {"collation-twin": [5], "duplicate-key": [5, 6, 8], "preserved-id": [5]}[code]
    assert left == {"p": [3], "t": twins, "u": [1], "w": [1]}


@pytest.mark.usefixtures("compared_by")
def test_a_row_whose_fellow_is_in_limbo_is_not_removed(database: MakeDatabase) -> None:
    """The parent's row has `deleted` NULL, which is a finding: the child's is neither extra nor deleted."""
    made = (
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k varchar(9), deleted int, deleted_at datetime)"
    )
    stand = stand_of(database, SOFT.replace("on_extra: soft_delete", "on_extra: delete"), made)
    add(stand.urls["api"], "t", {"k": "a"}, {"k": "b"}, {"k": "b", "deleted": 0})
    add(stand.urls["c1"], "t", {"k": "a", "deleted": 0}, {"k": "gone", "deleted": 0})
    done = stand.repair("r1")
    assert result(done, "c1").problems == ()
    assert [row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t ORDER BY k")] == ["a", "b"]


def test_twins_are_found_where_a_batch_has_one_key(
    database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two new rows that are one key to the child, each of them alone in what is read again together."""

    def batch_singly(blocks: Iterable[Block]) -> Iterator[dict[Edge, list[Difference]]]:
        for block in blocks:
            for edge, differences in block.found.items():
                yield from ({edge: [difference]} for difference in differences)

    monkeypatch.setattr(confirming, "_batches", batch_singly)
    made = "CREATE TABLE t (k varchar(20) COLLATE {} PRIMARY KEY, v int)"
    stand = stand_of(database, ONE, made.format("utf8mb4_nopad_bin"))
    execute(stand.urls["c1"], "DROP TABLE t", made.format("utf8mb4_general_ci"))
    for name in ("Foo", "foo"):
        add(stand.urls["api"], "t", {"k": name, "v": 1})
    check_left_alone(stand)
