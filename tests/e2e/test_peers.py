"""What the regression tests of other sync tools hold, on the same data (facts/peers.md, section 3).

The number in each docstring is the case's there; N1 to N15 are in test_peers_new.py. Not here:
27 (resume inside a table, oversize chunks): cellsync does not write by chunks of a table; a repair
   that was cut off is gone on with by the next one (tests/faults), a stopped server is in
   test_unreachable.py.
12 ("and in printed SQL"): the report shows bytes as 0x..., there is no SQL to print.
30 ("order-insensitive mode"): a JSON column is compared as the text that it is; there is no such mode.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from edges import MakeDatabase, Stand, add, converged, execute, result, rows, ruleset, stand_of, table
from servers import checksums

from cellsync.errors import ConfigurationError
from cellsync.model import CellFailure, Kind, Report, Status, TableFailure


def counts(report: Report, rule: str, cell: str = "c1") -> tuple[int, int, int]:
    """Return how many rows are missing, changed and extra."""
    found = table(report, cell, rule)
    return found.count(Kind.MISSING), found.count(Kind.CHANGED), found.count(Kind.EXTRA)


def codes(report: Report, rule: str, cell: str = "c1") -> list[str]:
    """Return the codes of a rule's findings."""
    return [finding.code for finding in table(report, cell, rule).findings]


def values(stand: Stand, query: str, cell: str = "c1") -> list[tuple[object, ...]]:
    """Return rows of a cell as tuples."""
    return [tuple(row.values()) for row in rows(stand.urls[cell], query)]


@contextmanager
def holding(url: str, statement: str) -> Iterator[sa.Connection]:
    """Hold what a statement locks, in a transaction that is rolled back in the end."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
        yield connection
        connection.rollback()


# -- pt-table-sync -------------------------------------------------------------------------------


def test_a_table_that_is_all_key_is_filled(database: MakeDatabase) -> None:
    """Case 1: two rows into an empty table, exactly those."""
    stand = stand_of(
        database,
        "rules: [{table: test1, key: [a, b]}]",
        "CREATE TABLE test1 (a int NOT NULL, b char(2) NOT NULL, PRIMARY KEY (a, b))",
    )
    add(stand.urls["api"], "test1", {"a": 1, "b": "en"}, {"a": 2, "b": "ca"})
    assert counts(stand.diff(), "test1") == (2, 0, 0)
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT a, b FROM test1 ORDER BY a") == [(1, "en"), (2, "ca")]
    assert converged(stand)


def test_digits_in_text_are_text(database: MakeDatabase) -> None:
    """Case 2: '51707' is not '051707', and '001' is not '1'."""
    stand = stand_of(
        database,
        "rules: [{table: test3, key: [id]}]",
        "CREATE TABLE test3 (id int PRIMARY KEY, name varchar(20) NOT NULL)",
    )
    add(stand.urls["api"], "test3", {"id": 15034, "name": "51707"}, {"id": 1, "name": "001"})
    add(stand.urls["c1"], "test3", {"id": 15034, "name": "051707"}, {"id": 1, "name": "1"})
    assert counts(stand.diff(), "test3") == (0, 2, 0)
    stand.repair("r1")
    assert values(stand, "SELECT name FROM test3 ORDER BY id") == [("001",), ("51707",)]
    assert converged(stand)


def test_one_run_brings_each_child_what_it_lacks(database: MakeDatabase) -> None:
    """Case 3: {1,2,3} against {2,3} and {3}: one row here, two there."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [x]}]",
        "CREATE TABLE t (x int PRIMARY KEY)",
        cells=("d1", "d2", "d3"),
    )
    for cell, held in {"d1": (1, 2, 3), "d2": (2, 3), "d3": (3,)}.items():
        add(stand.urls[cell], "t", *({"x": x} for x in held))
    done = stand.repair("r1")
    assert [result(done, cell).counts.applied for cell in ("d2", "d3")] == [1, 2]
    assert [values(stand, "SELECT x FROM t ORDER BY x", cell) for cell in ("d2", "d3")] == [
        [(1,), (2,), (3,)]
    ] * 2
    assert converged(stand)


ON_DEL_CAS = (
    "CREATE TABLE parent (id int PRIMARY KEY, v varchar(9), u int UNIQUE)",
    "CREATE TABLE child2 (id int PRIMARY KEY, parent_id int, "
    "CONSTRAINT of_parent FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE)",
)


def test_a_delete_never_takes_rows_of_other_tables_along(database: MakeDatabase) -> None:
    """Case 6: refused while child2 cascades, with its name; nothing was deleted anywhere."""
    rule = "rules: [{table: parent, key: [id], on_extra: delete, limits: {deletes: unlimited}}]"
    stand = stand_of(database, rule, *ON_DEL_CAS)
    for url, numbers in zip(stand.urls.values(), ((1,), (1, 2)), strict=True):
        add(url, "parent", *({"id": number, "v": "x"} for number in numbers))
    add(stand.urls["c1"], "child2", {"id": 1, "parent_id": 1}, {"id": 2, "parent_id": 2})
    before = checksums(stand.urls["c1"])
    done = stand.repair("r1")
    (refusal,) = result(done, "c1").refusals
    assert (done.exit_code, refusal.code, refusal.rule) == (3, "cascade", "parent")
    assert "child2.of_parent" in refusal.message
    assert checksums(stand.urls["c1"]) == before
    waived = replace(stand, judged=False).repair("r2", ["cascade:parent"])
    assert waived.exit_code == 0
    assert values(stand, "SELECT id FROM child2") == [(1,)]


def test_a_unique_conflict_never_cascades(database: MakeDatabase) -> None:
    """Case 6, u=20/10 swapped: no row is replaced, so the two rows that cascade stay."""
    rule = "rules: [{table: parent, key: [id], on_extra: delete}]"
    stand = stand_of(database, rule, *ON_DEL_CAS)
    add(stand.urls["api"], "parent", {"id": 1, "u": 20}, {"id": 2, "u": 10})
    add(stand.urls["c1"], "parent", {"id": 1, "u": 10}, {"id": 2, "u": 20})
    add(stand.urls["c1"], "child2", {"id": 1, "parent_id": 1}, {"id": 2, "parent_id": 2})
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT id, u FROM parent ORDER BY id") == [(1, 20), (2, 10)]
    assert values(stand, "SELECT id, parent_id FROM child2 ORDER BY id") == [(1, 1), (2, 2)]
    assert converged(stand)


def test_a_table_with_a_trigger_is_refused_and_the_others_go_on(database: MakeDatabase) -> None:
    """Case 7: what a trigger writes is neither planned nor undone; the waiver lets it."""
    stand = stand_of(
        database,
        "rules: [{table: a, key: [i]}, {table: b, key: [i]}]",
        "CREATE TABLE a (i int PRIMARY KEY)",
        "CREATE TABLE b (i int PRIMARY KEY)",
        "CREATE TABLE log (i int)",
    )
    execute(
        stand.urls["c1"], "CREATE TRIGGER a_bi BEFORE INSERT ON a FOR EACH ROW INSERT INTO log VALUES (NEW.i)"
    )
    for name in "ab":
        add(stand.urls["api"], name, {"i": 1}, {"i": 2})
    done = stand.repair("r1")
    (refusal,) = result(done, "c1").refusals
    assert (done.exit_code, refusal.code, refusal.rule) == (3, "triggers", "a")
    assert "a_bi" in refusal.message
    assert values(stand, "SELECT COUNT(*) FROM a UNION ALL SELECT COUNT(*) FROM b") == [(0,), (2,)]
    assert replace(stand, judged=False).repair("r2", ["triggers:a"]).exit_code == 0
    assert values(stand, "SELECT i FROM log ORDER BY i") == [(1,), (2,)]


@pytest.mark.parametrize("on_extra", ["report", "delete"])
def test_extra_rows_among_missing_ones_follow_the_rule(on_extra: str, database: MakeDatabase) -> None:
    """Case 10: 1, 11, .. 51 arrive with their values, never NULL; 22, 32, 42 as the rule says."""
    stand = stand_of(
        database,
        f"rules: [{{table: t, key: [id], on_extra: {on_extra}}}]",
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(20))",
    )
    add(stand.urls["api"], "t", *({"id": number, "name": "from master"} for number in range(1, 52, 10)))
    add(stand.urls["c1"], "t", *({"id": number, "name": "from slave"} for number in (22, 32, 42)))
    done = stand.repair("r1")
    master = [(number, "from master") for number in range(1, 52, 10)]
    slave = [] if on_extra == "delete" else [(number, "from slave") for number in (22, 32, 42)]
    assert values(stand, "SELECT id, name FROM t ORDER BY id") == sorted(master + slave)
    assert done.exit_code == (0 if on_extra == "delete" else 1)


def test_the_case_of_column_and_index_names_does_not_matter(database: MakeDatabase) -> None:
    """Case 11: a rule in lower case for columns in mixed case: one row is inserted."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [accountid, id2], columns: {exclude: [note]}}]",
        "CREATE TABLE t (Id int PRIMARY KEY AUTO_INCREMENT, AccountId int NOT NULL, ID2 int NOT NULL, "
        "Note varchar(9), UNIQUE KEY Purchases_AccountId (accountID, iD2))",
    )
    for url in stand.urls.values():
        add(url, "t", {"AccountId": 1, "ID2": 1})
    execute(stand.urls["c1"], "UPDATE t SET Note = 'own'")
    add(stand.urls["api"], "t", {"AccountId": 999, "ID2": 999})
    assert counts(stand.diff(), "t") == (1, 0, 0)
    assert stand.repair("r1").exit_code == 0
    expected = [(1, 1, "own"), (999, 999, None)]
    assert values(stand, "SELECT AccountId, ID2, Note FROM t ORDER BY 1") == expected
    assert converged(stand)


def test_the_sides_may_spell_their_columns_differently(database: MakeDatabase) -> None:
    """Case 11: references, soft deletes, overrides and what is filled in too, on both sides."""
    soft = "soft_delete: {column: deleted, live: 0, tombstone: id}"
    stand = stand_of(
        database,
        f"""
        rules:
          - {{table: t, key: [name], {soft}, on_insert: {{made: now}}, overrides: {{c1: {{size: 7}}}}}}
          - {{table: u, key: [t_id, host], references: {{t_id: t}}}}
        """,
    )
    for cell, spelled in {"api": str, "c1": str.upper}.items():
        names = "(id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), size int, deleted int, made datetime)"
        execute(
            stand.urls[cell],
            f"CREATE TABLE t {spelled(names)}",
            f"CREATE TABLE u {spelled('(id int PRIMARY KEY AUTO_INCREMENT, t_id int, host char(9), w int)')}",
        )
    for number, name in enumerate("ab", 1):
        add(stand.urls["api"], "t", {"id": number, "name": name, "size": number, "deleted": 0})
        add(stand.urls["api"], "u", {"t_id": number, "host": "h", "w": 5})
    add(stand.urls["c1"], "t", {"id": 9, "name": "b", "size": 1, "deleted": 0})
    add(stand.urls["c1"], "u", {"t_id": 9, "host": "h", "w": 4})
    assert result(stand.repair("r1"), "c1").problems == ()
    assert values(stand, "SELECT id, name, size, deleted FROM t ORDER BY id") == [
        (9, "b", 7, 0),
        (10, "a", 7, 0),
    ]
    assert values(stand, "SELECT t_id, host, w FROM u ORDER BY id") == [(9, "h", 5), (10, "h", 5)]
    assert converged(stand)


PNG = bytes.fromhex("89504E470D0A1A0A0000000D4948445200000010") + bytes(range(256))


def test_bytes_stay_bytes(database: MakeDatabase) -> None:
    """Case 12: the head of a PNG file, and every byte there is."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [id]}]",
        "CREATE TABLE t (id int PRIMARY KEY, b blob, k varbinary(300))",
    )
    add(stand.urls["api"], "t", {"id": 1, "b": PNG, "k": PNG})
    add(stand.urls["c1"], "t", {"id": 1, "b": PNG[:-1], "k": None})
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT b, k FROM t") == [(PNG, PNG)]
    assert converged(stand)


def test_a_table_that_the_child_lacks_is_named_and_the_others_go_on(database: MakeDatabase) -> None:
    """Case 17: table and child in the message, exit 4, the next table is written."""
    stand = stand_of(
        database,
        "rules: [{table: a, key: [i]}, {table: b, key: [i]}]",
        "CREATE TABLE a (i int PRIMARY KEY)",
        "CREATE TABLE b (i int PRIMARY KEY)",
    )
    execute(stand.urls["c1"], "DROP TABLE a")
    for name in "ab":
        add(stand.urls["api"], name, {"i": 1})
    done = stand.repair("r1")
    failed, written = result(done, "c1").tables
    assert isinstance(failed, TableFailure)
    assert failed.error == "c1 has no table a"
    assert (done.exit_code, written.status) == (4, Status.REPAIRED)


def test_a_table_without_any_key_needs_one_in_its_rule(database: MakeDatabase) -> None:
    """Case 18: a rule says what tells rows apart; by it NULL on both sides is one equal row."""
    with pytest.raises(ConfigurationError) as raised:
        ruleset("rules: [{table: t}]")
    assert "key" in str(raised.value)
    stand = stand_of(database, "rules: [{table: t, key: [i]}]", "CREATE TABLE t (i int)")
    for url in stand.urls.values():
        add(url, "t", {"i": None})
    assert converged(stand)


def test_equal_rows_without_a_key_are_named_and_never_written(database: MakeDatabase) -> None:
    """Case 19: 4/4/2 against 3/6/0/1 equal rows: cellsync does not guess which row is which."""
    stand = stand_of(
        database, "rules: [{table: t, key: [i], on_extra: delete}]", "CREATE TABLE t (i int, j int)"
    )
    for cell, many in {"api": {1: 4, 2: 4, 3: 2, 5: 1}, "c1": {1: 3, 2: 6, 4: 1}}.items():
        add(stand.urls[cell], "t", *({"i": i, "j": 0} for i, times in many.items() for _ in range(times)))
    before = checksums(stand.urls["c1"])
    found = stand.diff()
    assert counts(found, "t") == (1, 0, 1)  # 5, and 4; the others cannot be told apart
    assert codes(found, "t") == ["duplicate-key"] * 5
    done = stand.repair("r1")
    (refusal,) = result(done, "c1").refusals
    assert (done.exit_code, refusal.code) == (3, "no-primary-key")
    assert "t in c1 has no primary key" in refusal.message
    assert checksums(stand.urls["c1"]) == before


def test_every_table_is_read_by_its_own_structure(database: MakeDatabase) -> None:
    """Case 20: 5, 6, 7 are missing in one table, three rows are updated in the other; exit 1, then 0."""
    stand = stand_of(
        database,
        "rules: [{table: aaa, key: [id]}, {table: zzz, key: [id]}]",
        "CREATE TABLE aaa (id int PRIMARY KEY, a varchar(9))",
        "CREATE TABLE zzz (id int PRIMARY KEY, z int, b varchar(9), t datetime)",
    )
    for url, upto, z in zip(stand.urls.values(), (8, 5), (1, 2), strict=True):
        add(url, "aaa", *({"id": number, "a": "x"} for number in range(1, upto)))
        add(url, "zzz", *({"id": number, "z": z, "b": "x"} for number in range(1, 4)))
    found = stand.diff()
    assert (found.exit_code, counts(found, "aaa"), counts(found, "zzz")) == (1, (3, 0, 0), (0, 3, 0))
    assert stand.repair("r1").exit_code == 0
    assert converged(stand)


@pytest.mark.parametrize("columns", ["exclude: [name]", "include: [size]"])
def test_a_column_that_is_left_out_is_never_overwritten(columns: str, database: MakeDatabase) -> None:
    """Case 22: not compared, and not reset by the update or the insert of its row."""
    stand = stand_of(
        database,
        f"rules: [{{table: t, key: [id], columns: {{{columns}}}}}]",
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(9) DEFAULT 'theirs', size int)",
    )
    add(stand.urls["api"], "t", *({"id": n, "name": "parent", "size": n} for n in (1, 2, 3)))
    add(stand.urls["c1"], "t", {"id": 1, "name": "own", "size": 1}, {"id": 2, "name": "own", "size": 9})
    assert counts(stand.diff(), "t") == (1, 1, 0)
    stand.repair("r1")
    assert values(stand, "SELECT id, name, size FROM t ORDER BY id") == [
        (1, "own", 1),
        (2, "own", 2),
        (3, "theirs", 3),
    ]


def test_every_column_keeps_its_own_charset(database: MakeDatabase) -> None:
    """Case 23: latin1, cp1251 and utf8mb4 columns in one latin1 table: no '?', and equal at once."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [id]}]",
        "CREATE TABLE t (id int PRIMARY KEY, l varchar(20), c varchar(20) CHARACTER SET cp1251, "
        "u varchar(20) CHARACTER SET utf8mb4) CHARACTER SET latin1",
    )
    add(stand.urls["api"], "t", {"id": 1, "l": "Müller €", "c": "Света", "u": "😀 Света"})
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT l, c, u FROM t") == [("Müller €", "Света", "😀 Света")]
    assert converged(stand)


# -- pt-table-checksum ---------------------------------------------------------------------------


def test_a_row_lock_that_goes_away_is_waited_for(database: MakeDatabase) -> None:
    """Case 26, N12: the child's row is locked for 2 s, longer than one wait: tried again, all written."""
    stand = _two_tables(database)
    with holding(stand.urls["c1"], "SELECT * FROM a WHERE i = 1 FOR UPDATE") as lock:
        timer = threading.Timer(2, lock.rollback)
        timer.start()
        done = stand.repair("r1")
        timer.join()
    assert result(done, "c1").problems == ()
    assert done.exit_code == 0
    assert converged(stand)


def test_a_row_lock_that_stays_stops_its_rule_alone(
    database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 26, N12: the cause is named, exit 4; half a rule is not written, the next table is right."""
    monkeypatch.setattr("cellsync.apply.executing.TRIES", 1)
    stand = _two_tables(database)
    with holding(stand.urls["c1"], "SELECT * FROM a WHERE i = 1 FOR UPDATE"):
        done = stand.repair("r1")
    cell = result(done, "c1")
    assert (done.exit_code, cell.status, cell.counts.applied, cell.counts.failed) == (
        4,
        Status.INCOMPLETE,
        2,
        2,
    )
    assert "Lock wait timeout exceeded" in cell.problems[0]
    assert values(stand, "SELECT v FROM a ORDER BY i") == [(0,), (0,)]
    assert values(stand, "SELECT v FROM b ORDER BY i") == [(7,), (7,)]
    assert stand.repair("r2").exit_code == 0
    assert converged(stand)


def _two_tables(database: MakeDatabase) -> Stand:
    stand = stand_of(
        database,
        "rules: [{table: a, key: [i]}, {table: b, key: [i]}]",
        "CREATE TABLE a (i int PRIMARY KEY, v int)",
        "CREATE TABLE b (i int PRIMARY KEY, v int)",
    )
    for url, v in zip(stand.urls.values(), (7, 0), strict=True):
        for name in "ab":
            add(url, name, {"i": 1, "v": v}, {"i": 2, "v": v})
    return stand


def test_a_column_that_the_child_lacks_stops_its_rule_alone(database: MakeDatabase) -> None:
    """Case 26: named with its table, exit 4, the next table is written."""
    stand = _two_tables(database)
    execute(stand.urls["c1"], "ALTER TABLE a DROP COLUMN v")
    done = stand.repair("r1")
    failed, written = result(done, "c1").tables
    assert isinstance(failed, TableFailure)
    assert failed.error == "table a in c1 has no column v"
    assert (done.exit_code, written.status) == (4, Status.REPAIRED)


# -- sync_diff_inspector, reladiff, ghostferry ---------------------------------------------------


def test_true_false_and_null_are_three_values(database: MakeDatabase) -> None:
    """Case 30: and a JSON text with its keys in another order is another text."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [id], limits: {updates: unlimited}}]",
        "CREATE TABLE t (id int PRIMARY KEY, b bool, j json)",
    )
    for cell, held in {
        "api": [(1, '{"a": 1, "b": 2}'), (1, "true"), (None, None), (0, "null")],
        "c1": [(1, '{"b": 2, "a": 1}'), (0, "false"), (0, "null"), (0, "null")],
    }.items():
        add(stand.urls[cell], "t", *({"id": at, "b": b, "j": j} for at, (b, j) in enumerate(held)))
    assert counts(stand.diff(), "t") == (0, 3, 0)
    stand.repair("r1")
    assert values(stand, "SELECT b, j FROM t ORDER BY id") == values(
        stand, "SELECT b, j FROM t ORDER BY id", "api"
    )
    assert converged(stand)


def test_a_table_or_a_column_on_one_side_only(database: MakeDatabase) -> None:
    """Case 31: a table above or below only cannot be compared; a column below only is a schema difference."""
    names = ("above", "below", "wider")
    stand = stand_of(
        database,
        "rules: [" + ", ".join(f"{{table: {name}, key: [i]}}" for name in names) + "]",
        *(f"CREATE TABLE {name} (i int PRIMARY KEY)" for name in names),
    )
    execute(stand.urls["c1"], "DROP TABLE above", "ALTER TABLE wider ADD extra int DEFAULT 5")
    execute(stand.urls["api"], "DROP TABLE below")
    add(stand.urls["api"], "wider", {"i": 1})
    found = stand.diff()
    above, below, wider = result(found, "c1").tables
    assert isinstance(above, TableFailure) and isinstance(below, TableFailure)
    assert (above.error, below.error) == ("c1 has no table above", "api has no table below")
    assert [(d.path, d.desired, d.existing) for d in wider.schema] == [("column extra", None, "int(11)")]
    assert (found.exit_code, counts(found, "wider")) == (4, (1, 0, 0))


@pytest.mark.parametrize(
    ("change", "path", "blocking"),
    [
        ("ALTER TABLE t ADD UNIQUE KEY more (`a``;sad`)", "index more", False),
        ("ALTER TABLE t CHANGE b c int", "column b", True),
        ("ALTER TABLE t MODIFY b varchar(9)", "column b: family", True),
        ("ALTER TABLE t MODIFY b bigint", "column b: type", False),
    ],
)
def test_only_what_a_rule_cannot_do_without_stops_it(
    change: str, path: str, blocking: bool, database: MakeDatabase
) -> None:
    """Case 32: an index more or a wider type is said; a column renamed or of another kind stops the rule."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [id]}]",
        "CREATE TABLE t (id int PRIMARY KEY, `a``;sad` int, b int)",
    )
    add(stand.urls["api"], "t", {"id": 1, "a`;sad": 3, "b": 4})
    execute(stand.urls["c1"], change)
    done = stand.repair("r1")
    (found,) = result(done, "c1").tables
    assert (path, blocking) in [(d.path, d.blocking) for d in found.schema]
    assert isinstance(found, TableFailure) == blocking
    assert values(stand, "SELECT COUNT(*) FROM t") == [(0 if blocking else 1,)]


def test_keys_that_are_equal_only_below_are_never_inserted(database: MakeDatabase) -> None:
    """Case 33: {a,B,c,D} binary above, {A,b,c,D} case-insensitive below: two twins, named."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [k]}]",
        "CREATE TABLE t (k varchar(9) COLLATE utf8mb4_bin PRIMARY KEY)",
    )
    execute(stand.urls["c1"], "ALTER TABLE t MODIFY k varchar(9) COLLATE utf8mb4_general_ci")
    add(stand.urls["api"], "t", *({"k": k} for k in "aBcD"))
    add(stand.urls["c1"], "t", *({"k": k} for k in "AbcD"))
    done = stand.repair("r1")
    assert counts(done, "t") == (0, 0, 2)
    assert codes(done, "t") == ["collation-twin"] * 2
    assert (done.exit_code, result(done, "c1").counts.planned) == (1, 0)
    assert values(stand, "SELECT k FROM t ORDER BY k") == [("A",), ("b",), ("c",), ("D",)]


@pytest.mark.parametrize(("collation", "one_key"), [("unicode_520_ci", True), ("general_ci", False)])
def test_the_server_says_which_letters_are_one(collation: str, one_key: bool, database: MakeDatabase) -> None:
    """Case 33: to unicode_520_ci 'æ' is 'ae' and stays out, to general_ci it is a key of its own."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [k]}]",
        f"CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k varchar(9) COLLATE utf8mb4_{collation})",
    )
    add(stand.urls["api"], "t", {"k": "æ"})
    add(stand.urls["c1"], "t", {"k": "ae"})
    done = stand.repair("r1")
    assert sorted(values(stand, "SELECT k FROM t")) == ([("ae",)] if one_key else [("ae",), ("æ",)])
    assert done.exit_code == 1
    assert codes(done, "t") == (["collation-twin"] if one_key else [])


def test_random_drift_converges_whatever_the_names(database: MakeDatabase) -> None:
    """Case 34: 2000 rows, a key named "a`b" of dates, a column `table`; updated, deleted, added; one run."""
    names = "`a``b` date NOT NULL, `table` varchar(30), b int, c double, d decimal(12,4), e bigint"
    stand = stand_of(
        database,
        "rules: [{table: t, key: ['a`b'], on_extra: delete, limits: {updates: unlimited}}]",
        f"CREATE TABLE t ({names}, PRIMARY KEY (`a``b`))",
    )
    chance = random.Random(34)
    held = [
        {
            "a`b": f"{2000 + at // 336}-{at // 28 % 12 + 1:02}-{at % 28 + 1:02}",
            "table": chance.choice(["", "x", "Ünïcode", "it's", "a\\b", None]),
            "b": chance.choice([None, 0, -(2**31), 2**31 - 1]),
            "c": chance.choice([None, 0.0, chance.random()]),
            "d": chance.choice([None, "0.0000", "-1.5000"]),
            "e": chance.randrange(-(2**63), 2**63),
        }
        for at in range(2000)
    ]
    add(stand.urls["api"], "t", *held)
    copied = str(sa.make_url(stand.urls["api"]).database)
    execute(
        stand.urls["c1"],
        f"INSERT INTO t SELECT * FROM `{copied}`.t",
        "UPDATE t SET e = IF(e > 0, e - 1, e + 1) WHERE DAY(`a``b`) = 3",
        "DELETE FROM t WHERE DAY(`a``b`) = 4",
        "INSERT INTO t (`a``b`, b) VALUES ('1999-01-01', 1), ('1999-01-02', NULL)",
    )
    assert counts(stand.diff(), "t") == (72, 72, 2)
    assert stand.repair("r1").exit_code == 0
    query = "SELECT * FROM t ORDER BY `a``b`"
    assert values(stand, query) == values(stand, query, "api")
    assert converged(stand)


def test_every_null_is_seen(database: MakeDatabase) -> None:
    """Case 35: a table of one row that is all NULL, and eight rows that differ in nothing but a NULL."""
    stand = stand_of(
        database,
        "rules: [{table: one, key: [id]}, {table: t, key: [id]}]",
        "CREATE TABLE one (id int PRIMARY KEY, c1 int, c2 varchar(9))",
        "CREATE TABLE t (id int PRIMARY KEY, c1 varchar(9), c2 varchar(9))",
    )
    add(stand.urls["api"], "one", {"id": 1})
    for url, c2 in zip(stand.urls.values(), (None, "v"), strict=True):
        add(url, "t", *({"id": n, "c1": "x", "c2": c2} for n in range(8)))
    found = stand.diff()
    assert (counts(found, "one"), counts(found, "t")) == ((1, 0, 0), (0, 8, 0))
    assert stand.repair("r1").exit_code == 0
    assert converged(stand)


@pytest.mark.parametrize("side", ["api", "c1"])
def test_a_key_that_is_there_twice_is_never_silent(side: str, database: MakeDatabase) -> None:
    """Case 37: also the key NULL; both rows are named, exit 1, and nothing of that key is written."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [k]}]",
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k varchar(9), v int)",
    )
    add(stand.urls[side], "t", *({"id": n, "k": k, "v": n} for n, k in enumerate(["a", "a", None, None], 3)))
    done = stand.repair("r1")
    messages = [finding.message for finding in table(done, "c1", "t").findings]
    assert codes(done, "t") == ["duplicate-key"] * 2
    assert "3" in messages[0] and "4" in messages[0]
    assert (done.exit_code, result(done, "c1").counts.planned) == (1, 0)


@pytest.mark.parametrize(
    ("above", "below", "differ"),
    [
        ((None, "x"), ("", "x"), True),
        ((None, "x"), ("NULL", "x"), True),
        ((None, "data"), ("data", None), True),
        (("ascii", "é"), ("ascii", "é"), False),
        (("日本", None), ("日本", None), False),
    ],
)
def test_values_that_other_tools_confuse(
    above: tuple[str | None, ...], below: tuple[str | None, ...], differ: bool, database: MakeDatabase
) -> None:
    """Case 38: between a utf8mb3 and a utf8mb4 column too; what is equal is not written."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [id]}]",
        "CREATE TABLE t (id int PRIMARY KEY, a varchar(9), b varchar(9))",
    )
    execute(stand.urls["c1"], "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb3")
    for url, (a, b) in zip(stand.urls.values(), (above, below), strict=True):
        add(url, "t", {"id": 1, "a": a, "b": b})
    assert counts(stand.diff(), "t") == (0, int(differ), 0)
    assert stand.repair("r1").exit_code == 0
    assert values(stand, "SELECT a, b FROM t") == [above]


def test_minus_zero_is_zero(database: MakeDatabase) -> None:
    """Case 38: 0.0 and -0.0 are equal."""
    stand = stand_of(
        database, "rules: [{table: t, key: [id]}]", "CREATE TABLE t (id int PRIMARY KEY, f float, d double)"
    )
    add(stand.urls["api"], "t", {"id": 1, "f": 0.0, "d": 0.0})
    add(stand.urls["c1"], "t", {"id": 1, "f": -0.0, "d": -0.0})
    assert converged(stand)


def test_an_emoji_for_a_column_of_three_bytes_fails_by_name(database: MakeDatabase) -> None:
    """Case 38: it differs for ever, as the child cannot hold it: a finding, and never a '?'."""
    stand = stand_of(
        database, "rules: [{table: t, key: [id]}]", "CREATE TABLE t (id int PRIMARY KEY, a varchar(9))"
    )
    execute(stand.urls["c1"], "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb3")
    for url, a in zip(stand.urls.values(), ("😀", "x"), strict=True):
        add(url, "t", {"id": 1, "a": a})
    done = stand.repair("r1")
    (finding,) = table(done, "c1", "t").findings
    assert (done.exit_code, finding.code, finding.key) == (1, "unwritable-value", (1,))
    assert values(stand, "SELECT a FROM t") == [("x",)]


# -- The OpenStack peers -------------------------------------------------------------------------


def test_a_row_is_the_same_by_its_name_whatever_its_id(database: MakeDatabase) -> None:
    """Case 41: (name, domain) is there with another id: updated, and what refers to its id stays."""
    stand = stand_of(
        database,
        "rules: [{table: user, key: [name, domain_id]}]",
        "CREATE TABLE user (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9), domain_id varchar(9), "
        "enabled bool, UNIQUE (name, domain_id))",
        "CREATE TABLE assignment (actor_id int, FOREIGN KEY (actor_id) REFERENCES user (id))",
    )
    add(stand.urls["api"], "user", {"id": 1, "name": "admin", "domain_id": "default", "enabled": True})
    add(stand.urls["c1"], "user", {"id": 42, "name": "admin", "domain_id": "default", "enabled": False})
    add(stand.urls["c1"], "assignment", {"actor_id": 42})
    done = stand.repair("r1")
    assert (done.exit_code, result(done, "c1").counts.applied) == (0, 1)
    assert values(stand, "SELECT id, enabled FROM user") == [(42, 1)]
    assert values(stand, "SELECT actor_id FROM assignment") == [(42,)]
    assert converged(stand)


def test_the_lock_of_a_run_that_died_is_free(database: MakeDatabase) -> None:
    """Case 42: a second run ends with 5; a lock goes with the connection that held it, so none is stale."""
    stand = _two_tables(database)
    name = f"cellsync:{sa.make_url(stand.urls['c1']).database}"
    with holding(stand.urls["c1"], f"SELECT GET_LOCK('{name}', 0)".replace(":", "\\:")) as holder:
        number = holder.execute(sa.text("SELECT CONNECTION_ID()")).scalar()
        locked = stand.repair("r1")
        assert (locked.exit_code, result(locked, "c1").locked) == (5, True)
        assert str(number) in result(locked, "c1").problems[0]
        execute(stand.urls["api"], f"KILL {number}")
        deadline = time.monotonic() + 5
        while rows(stand.urls["api"], f"SELECT ID FROM information_schema.PROCESSLIST WHERE ID = {number}"):
            assert time.monotonic() < deadline
        holder.invalidate()
        assert stand.repair("r2").exit_code == 0
    assert converged(stand)


def test_looking_changes_nothing_and_repairing_everything(database: MakeDatabase) -> None:
    """Case 43: diff and plan write nothing at all, no journal either; repair rebuilds an empty child."""
    stand = _two_tables(database)
    execute(stand.urls["c1"], "DELETE FROM a", "DELETE FROM b WHERE i = 1")
    before = {cell: checksums(url) for cell, url in stand.urls.items()}
    stand.diff()
    stand.prepare("p1")
    assert {cell: checksums(url) for cell, url in stand.urls.items()} == before
    assert rows(stand.urls["c1"], "SHOW DATABASES LIKE 'cellsync'") == []
    assert stand.repair("r1").exit_code == 0
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])
    assert not [cell for cell in stand.diff().cells if isinstance(cell, CellFailure)]
    assert converged(stand)
