"""Rows that the server would keep otherwise than they are written: nothing of them is left behind."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from edges import Stand, add, execute, result, rows, ruleset, stand_of, table
from servers import DatabaseFactory, checksums

from cellsync import run
from cellsync.errors import ExitCode

pytestmark = pytest.mark.slow


class Kind(NamedTuple):
    """A type of the parent and a narrower one of the child, with values."""

    desired: str
    existing: str
    fits: object
    misfits: object
    more: str = ""


KINDS = {
    "datetime": Kind("datetime(6)", "datetime", "2024-01-01 00:00:01", "2024-01-01 00:00:00.123456"),
    "time": Kind("time(6)", "time", "10:00:01", "10:00:00.5"),
    "date": Kind("datetime", "date", None, "2024-01-01 10:00:00"),
    "timestamp": Kind("datetime", "timestamp", "2024-01-01 00:00:01", "1960-01-01 00:00:00"),
    "decimal": Kind("decimal(20,10)", "decimal(20,4)", "1.5", "1.00001"),
    "decimal range": Kind("decimal(20,4)", "decimal(6,4)", "99.5", "100.5"),
    "double": Kind("double", "float", 0.5, 0.1),
    "spaces": Kind("varchar(20)", "char(20)", "a", "a  "),
    "length": Kind("varchar(20)", "varchar(5)", "a", "abcdef"),
    "spaces beyond": Kind("varchar(20)", "varchar(5)", "abcde", "abcde  "),
    "text": Kind("varchar(600)", "tinytext", "a", "é" * 200),
    "enum": Kind("varchar(20)", "enum('a', 'B')", "a", "b"),
    "enum member": Kind("enum('a', 'b')", "enum('a')", "a", "b"),
    "set": Kind("varchar(20)", "set('a', 'b')", "a,b", "b,a"),
    "latin1": Kind("varchar(20)", "varchar(20) CHARACTER SET latin1", "é", "主"),
    "utf8mb3": Kind("varchar(20)", "varchar(20) CHARACTER SET utf8mb3", "主", "😀"),
    "ascii": Kind("varchar(20)", "varchar(20) CHARACTER SET ascii", "e", "é"),
    "bit": Kind("int", "bit(4)", 7, 16),
    "year": Kind("int", "year", 2024, 20),
    "year zero": Kind("int", "year", 0, 2200),
    "unsigned": Kind("int", "int unsigned", 7, -1),
    "tinyint": Kind("bigint", "tinyint", -128, 128),
    "unsigned bigint": Kind("bigint unsigned", "bigint", 7, 2**63),
    "binary": Kind("varbinary(8)", "binary(4)", b"abcd", b"abc"),
    "varbinary": Kind("varbinary(8)", "varbinary(2)", b"a", b"abc"),
}
NOPAD = "COLLATE utf8mb4_nopad_bin"


def narrowed(database: DatabaseFactory, kind: Kind, *, as_key: bool, rule: str = "") -> Stand:
    """Return a stand whose child has a narrower column, which is the key or not."""
    urls = {"api": database(), "c1": database()}
    for url, type_ in zip(urls.values(), (kind.desired, kind.existing), strict=True):
        names = ("v", "k") if as_key else ("k", "v")
        length = "(9)" if type_ == "tinytext" and as_key else ""
        nulls = " NOT NULL" if as_key else ""
        execute(
            url,
            f"CREATE TABLE t (v {type_}{nulls}, k int NOT NULL, PRIMARY KEY ({names[0]}{length})) {NOPAD}",
        )
    key = "v" if as_key else "k"
    return Stand(urls, ruleset(f"rules: [{{table: t, key: [{key}], limits: {{updates: 100%}}{rule}}}]"))


@pytest.mark.parametrize("as_key", [True, False], ids=["key", "data"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_value_that_cannot_be_kept_is_found_before_writing(
    database: DatabaseFactory, kind: Kind, as_key: bool
) -> None:
    """The rows that fit are repaired; those that do not are findings, in a diff too."""
    stand = narrowed(database, kind, as_key=as_key)
    add(stand.urls["api"], "t", {"k": 1, "v": kind.misfits})
    fitting = int(kind.fits is not None)
    if fitting:
        add(stand.urls["api"], "t", {"k": 2, "v": kind.fits})
    report = stand.diff()
    assert report.exit_code is ExitCode.DIFFERENCES
    (finding,) = table(report, "c1", "t").findings
    assert finding.code == "unwritable-value"
    assert "does not fit into the column in c1, which is" in finding.message
    done = stand.repair("r1")
    assert done.exit_code is ExitCode.DIFFERENCES
    cell = result(done, "c1")
    assert (cell.counts.applied, cell.counts.failed, cell.problems) == (fitting, 0, ())
    assert [row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t")] == [2] * fitting
    again = stand.repair("r2")
    assert (result(again, "c1").counts.planned, len(table(again, "c1", "t").findings)) == (0, 1)
    if fitting:
        assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP


@pytest.mark.parametrize("held", [False, True], ids=["insert", "update"])
def test_null_for_a_column_that_takes_none_is_found_before_writing(
    database: DatabaseFactory, held: bool
) -> None:
    """The whole row is set aside, with the columns that would fit."""
    stand = stand_of(database, "rules: [{table: t, key: [k], limits: {updates: 100%}}]")
    execute(stand.urls["api"], "CREATE TABLE t (k int PRIMARY KEY, v int, w int)")
    execute(stand.urls["c1"], "CREATE TABLE t (k int PRIMARY KEY, v int NOT NULL, w int)")
    add(stand.urls["api"], "t", {"k": 1, "v": None, "w": 2}, {"k": 2, "v": 3, "w": 2})
    if held:
        add(stand.urls["c1"], "t", {"k": 1, "v": 1, "w": 1}, {"k": 2, "v": 1, "w": 1})
    (finding,) = table(stand.diff(), "c1", "t").findings
    assert (finding.code, finding.key) == ("unwritable-value", (1,))
    assert "v NULL does not fit into the column in c1, which is int(11) NOT NULL" in finding.message
    cell = result(stand.repair("r1"), "c1")
    assert (cell.counts.applied, cell.counts.failed, cell.problems) == (1, 0, ())
    assert [row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t WHERE w = 2")] == [2]


def test_a_constant_of_a_rule_that_does_not_fit_is_found_before_writing(database: DatabaseFactory) -> None:
    """No new row can have it."""
    text = "rules: [{table: t, key: [k], columns: {exclude: [v]}, on_insert: {v: '{child} of {parent}'}}]"
    stand = stand_of(database, text, "CREATE TABLE t (k int PRIMARY KEY, v varchar(4))")
    add(stand.urls["api"], "t", {"k": 1, "v": "x"})
    (finding,) = table(stand.diff(), "c1", "t").findings
    assert (finding.code, finding.key) == ("unwritable-value", (1,))
    assert "v 'c1 of api' does not fit" in finding.message
    assert result(stand.repair("r1"), "c1").counts.planned == 0


def test_a_long_value_of_a_narrow_charset_fits(database: DatabaseFactory) -> None:
    """It takes one byte a character there, and two here."""
    stand = stand_of(database, "rules: [{table: t, key: [k]}]")
    execute(stand.urls["api"], "CREATE TABLE t (k int PRIMARY KEY, v text)")
    execute(stand.urls["c1"], "CREATE TABLE t (k int PRIMARY KEY, v tinytext CHARACTER SET latin1)")
    add(stand.urls["api"], "t", {"k": 1, "v": "é" * 255})
    assert stand.repair("r1").exit_code is ExitCode.IN_STEP


@pytest.mark.parametrize("charset", ["latin1", "ascii", "utf8mb3"])
def test_a_key_of_two_columns_may_have_text_that_the_charset_lacks(
    database: DatabaseFactory, charset: str
) -> None:
    """One key that no row can have must not stop the rule, nor find the rows whose key is NULL there."""
    urls = {"api": database(), "c1": database()}
    for url, more in zip(urls.values(), ("", f"CHARACTER SET {charset}"), strict=True):
        execute(url, f"CREATE TABLE t (id int PRIMARY KEY, a int, b varchar(20) {more}, w int, INDEX (a, b))")
        add(url, "t", {"id": 1, "a": 1, "b": None, "w": 1}, {"id": 2, "a": 1, "b": "?", "w": 1})
    add(urls["api"], "t", {"id": 3, "a": 1, "b": "😀", "w": 1}, {"id": 4, "a": 1, "b": "new", "w": 1})
    stand = Stand(urls, ruleset("rules: [{table: t, key: [a, b]}]"))
    cell = result(stand.repair("r1"), "c1")
    assert (cell.counts.applied, cell.problems, len(cell.skipped)) == (1, (), 0)
    assert [each.key for each in cell.tables[0].findings] == [(1, "😀")]  # type: ignore[union-attr]
    assert [row["b"] for row in rows(urls["c1"], "SELECT b FROM t ORDER BY id")] == [None, "?", "new"]


# -- Found while writing: the table is another one by then -------------------------------------


LATE = {
    name: KINDS[name]
    for name in ("datetime", "time", "decimal", "double", "spaces", "binary", "length", "year", "latin1")
}


@pytest.fixture(params=["returned", "one by one"])
def known_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server return inserted rows, or not."""
    if request.param == "one by one":
        monkeypatch.setattr("cellsync.db.writing._RETURNING", (99,))


@pytest.mark.usefixtures("known_by")
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("kind", LATE.values(), ids=LATE)
def test_a_key_that_the_server_alters_leaves_nothing_behind(
    database: DatabaseFactory, kind: Kind, several: bool
) -> None:
    """No row, no record; an undo finds what there is, and the next repair is not in its own way."""
    wide = Kind(kind.desired, kind.desired, kind.fits, kind.misfits)
    stand = narrowed(database, wide, as_key=True)
    add(stand.urls["api"], "t", {"k": 1, "v": kind.misfits})
    if several:
        add(stand.urls["api"], "t", {"k": 2, "v": kind.fits})
    before = checksums(stand.urls["c1"])
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], f"ALTER TABLE t MODIFY v {kind.existing} NOT NULL")
    done = run.write(request, prepared)
    cell = result(done, "c1")
    assert done.exit_code is ExitCode.INCOMPLETE
    assert (cell.counts.failed, cell.counts.applied) == (1, int(several)), cell.problems
    assert [row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t")] == [2] * several
    recorded = rows(stand.urls["c1"], "SELECT after_row FROM cellsync.changes WHERE run = 'r1'")
    assert len(recorded) == int(several)
    assert all(each["after_row"] for each in recorded)
    execute(stand.urls["c1"], f"ALTER TABLE t MODIFY v {kind.desired} NOT NULL")
    again = stand.repair("r2")
    assert (again.exit_code, result(again, "c1").counts.applied) == (ExitCode.IN_STEP, 1)
    assert stand.undo("r2", "u2").exit_code is ExitCode.IN_STEP
    assert not several or stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == before


@pytest.mark.usefixtures("known_by")
def test_keys_that_the_server_makes_one_do_not_stand_in_the_way(database: DatabaseFactory) -> None:
    """The altered keys of many rows are the key of another one (1062), which is written."""
    stand = narrowed(database, Kind("datetime(6)", "datetime(6)", None, None), as_key=True)
    for k in range(1, 31):
        add(stand.urls["api"], "t", {"k": k, "v": f"2024-01-01 00:00:00.0000{k:02}"})
    add(stand.urls["api"], "t", {"k": 40, "v": "2024-01-01 00:00:00"}, {"k": 41, "v": "2024-01-02 00:00:00"})
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], "ALTER TABLE t MODIFY v datetime NOT NULL")
    cell = result(run.write(request, prepared), "c1")
    assert (cell.counts.applied, cell.counts.failed) == (2, 30), cell.problems
    assert [row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t ORDER BY k")] == [40, 41]
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_an_altered_column_of_an_update_leaves_the_row_as_it_was(
    database: DatabaseFactory, several: bool
) -> None:
    """And those beside it are updated."""
    stand = narrowed(database, Kind("datetime(6)", "datetime(6)", None, None), as_key=False)
    add(stand.urls["api"], "t", {"k": 1, "v": "2024-01-01 00:00:00.5"})
    if several:
        add(stand.urls["api"], "t", {"k": 2, "v": "2024-01-01 00:00:00"})
    add(stand.urls["c1"], "t", *({"k": k + 1, "v": "2020-01-01 00:00:00"} for k in range(1 + several)))
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], "ALTER TABLE t MODIFY v datetime")
    cell = result(run.write(request, prepared), "c1")
    assert (cell.counts.applied, cell.counts.failed) == (int(several), 1)
    assert (
        "it does not fit: the server keeps v 2024-01-01 00:00:00.5 as 2024-01-01 00:00:0" in cell.problems[0]
    )
    assert str(rows(stand.urls["c1"], "SELECT v FROM t WHERE k = 1")[0]["v"]) == "2020-01-01 00:00:00"


def test_a_row_that_does_not_fit_takes_those_that_refer_to_it_along(database: DatabaseFactory) -> None:
    """It is a finding, they are skipped, and the others are written."""
    urls = {"api": database(), "c1": database()}
    for url, length in zip(urls.values(), (20, 3), strict=True):
        execute(
            url,
            f"CREATE TABLE a (id int PRIMARY KEY AUTO_INCREMENT, name varchar({length}) UNIQUE)",
            "CREATE TABLE b (id int PRIMARY KEY AUTO_INCREMENT, a_id int, n int, FOREIGN KEY (a_id) "
            "REFERENCES a (id))",
        )
    add(urls["api"], "a", {"id": 1, "name": "long"}, {"id": 2, "name": "one"})
    add(urls["api"], "b", {"a_id": 1, "n": 1}, {"a_id": 2, "n": 1})
    text = "rules: [{table: a, key: [name]}, {table: b, key: [a_id, n], references: {a_id: a}}]"
    stand = Stand(urls, ruleset(text))
    report = stand.repair("r1")
    cell = result(report, "c1")
    assert (cell.counts.applied, cell.problems) == (2, ())
    assert [each.key for each in table(report, "c1", "a").findings] == [("long",)]
    assert [(each.rule, each.key) for each in cell.skipped] == [("b", (("long",), 1))]
