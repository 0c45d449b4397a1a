"""Foreign keys that act by themselves: only what sets them off is held back; their work is done work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edges import MakeDatabase, add, converged, result, stand_of
from servers import checksums
from test_guards import refused
from test_peers import values

FOLLOWED = (
    "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), code int UNIQUE, v int)",
    "CREATE TABLE f (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), t_id int, "
    "CONSTRAINT of_t FOREIGN KEY (t_id) REFERENCES t (id) ON DELETE CASCADE)",
    "CREATE TABLE g (code int, CONSTRAINT of_code FOREIGN KEY (code) REFERENCES t (code) ON UPDATE CASCADE)",
)
FOLLOWED_RULES = """
rules:
  - {table: t, key: [name], on_extra: delete, limits: {deletes: unlimited}}
  - {table: f, key: [name], on_extra: delete, references: {t_id: t}, limits: {deletes: unlimited}}
"""


def test_a_cascade_holds_back_only_what_would_cascade(database: MakeDatabase) -> None:
    """A row that goes and one whose followed code changes stay, with what refers to them."""
    stand = replace(stand_of(database, FOLLOWED_RULES, *FOLLOWED), judged=False)
    rows = [{"name": name, "code": number, "v": 1} for number, name in enumerate("abc", start=1)]
    add(stand.urls["api"], "t", *rows)
    add(stand.urls["api"], "f", {"name": "fa", "t_id": 1})
    stale = [
        {"name": "b", "code": 2, "v": 0},
        {"name": "c", "code": 9, "v": 1},
        {"name": "x", "code": 7, "v": 1},
    ]
    add(stand.urls["c1"], "t", *stale)
    add(stand.urls["c1"], "f", {"name": "fx", "t_id": 3}, {"name": "fb", "t_id": 1})
    add(stand.urls["c1"], "g", {"code": 9})
    done = stand.repair("r1")
    assert (done.exit_code, refused(done)) == (3, [("cascade", "t"), ("cascade", "t"), ("depends", "f")])
    assert result(done, "c1").counts.applied == 4  # a, fa, v of b, and fb, which refers to no row that stays
    assert values(stand, "SELECT name, code, v FROM t ORDER BY name") == [
        ("a", 1, 1),
        ("b", 2, 1),
        ("c", 9, 1),
        ("x", 7, 1),
    ]
    assert values(stand, "SELECT name FROM f ORDER BY name") == [("fa",), ("fx",)]
    assert refused(stand.repair("r2")) == refused(done)
    assert stand.repair("r3", ["cascade"]).exit_code == 0
    assert values(stand, "SELECT name, code FROM t ORDER BY name") == [("a", 1), ("b", 2), ("c", 3)]
    assert values(stand, "SELECT code FROM g") == [(3,)]


def test_a_new_row_that_needs_what_a_held_row_has_is_a_finding(database: MakeDatabase) -> None:
    """The row that should go keeps its unique value, and nothing is tried."""
    stand = stand_of(database, FOLLOWED_RULES, *FOLLOWED)
    stand = replace(stand, judged=False)
    add(stand.urls["api"], "t", {"name": "a", "code": 7, "v": 1}, {"name": "b", "code": 1, "v": 1})
    add(stand.urls["c1"], "t", {"name": "x", "code": 7, "v": 1})
    done = stand.repair("r1")
    assert (done.exit_code, refused(done)) == (3, [("cascade", "t")])
    assert [f.code for table in result(done, "c1").tables for f in table.findings] == ["unique-clash"]
    assert values(stand, "SELECT name FROM t ORDER BY name") == [("b",), ("x",)]
    assert stand.repair("r2", ["cascade"]).exit_code == 0
    assert values(stand, "SELECT name, code FROM t ORDER BY name") == [("a", 7), ("b", 1)]


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("key", ["PRIMARY KEY", "UNIQUE, id int PRIMARY KEY AUTO_INCREMENT"])
def test_a_cascade_that_did_the_work_is_done(key: str, swap: bool, database: MakeDatabase) -> None:
    """The rule of the rows that follow asks for what the cascade has just written; an undo is exact."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [name], on_extra: delete}, {table: f, key: [code], on_extra: delete}]",
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), code int NOT NULL UNIQUE)",
        f"CREATE TABLE f (code int NOT NULL {key}, name varchar(9), "
        "CONSTRAINT of_t FOREIGN KEY (code) REFERENCES t (code) ON UPDATE CASCADE ON DELETE CASCADE)",
    )
    stand = replace(stand, judged=False)
    for cell, codes in {"api": (1, 2), "c1": (2, 1, 4) if swap else (1, 3, 4)}.items():
        rows = [{"name": name, "code": code} for name, code in zip("abx", codes, strict=False)]
        add(stand.urls[cell], "t", *rows)
        add(stand.urls[cell], "f", *rows)
    before = checksums(stand.urls["c1"])
    done = stand.repair("r1", ["cascade", "limit"])
    counts = result(done, "c1").counts
    assert (done.exit_code, counts.applied, counts.conflicts) == (0, counts.planned, 0)
    assert converged(stand)
    assert stand.undo("r1", "u1", ["cascade"]).exit_code == 0
    if swap:  # else a row went with the one that it refers to, which no undo knows of
        assert checksums(stand.urls["c1"]) == before
