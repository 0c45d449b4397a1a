"""Clashes are said before anything is tried: a planned row against the other keys of its table.

Each is a finding in a diff, in a plan and in a dry run, with the row that holds the value; the row is set
aside, and all others are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from edges import MakeDatabase, Stand, add, converged, execute, result, rows, ruleset, stand_of, table
from servers import checksums

from cellsync import spool
from cellsync.apply import executing
from cellsync.diff import digests
from cellsync.errors import ExitCode
from cellsync.model import Finding, Report

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compared_by")]


def findings(report: Report, rule: str = "t") -> list[Finding]:
    """Return the findings of a rule in c1, by key."""
    return sorted(table(report, "c1", rule).findings, key=lambda each: str(each.key))


def codes(report: Report, rule: str = "t") -> list[tuple[str, Any]]:
    """Return code and key of the findings of a rule in c1."""
    return [(each.code, each.key) for each in findings(report, rule)]


def repaired(stand: Stand, run_id: str = "r1") -> Report:
    """Repair, and say that all that was planned was written."""
    done = stand.repair(run_id)
    counts = result(done, "c1").counts
    assert (counts.conflicts, counts.failed, counts.applied) == (0, 0, counts.planned), result(done, "c1")
    return done


# -- Unique keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["latin1", "utf16", "ucs2", "utf8mb3", "cp1251", "koi8r", "utf8mb4"])
def test_a_clash_is_found_in_any_character_set(database: MakeDatabase, charset: str) -> None:
    """Planned values are sent in utf8mb4, which no UNION mixes with another."""
    made = (
        f"CREATE TABLE t (k int PRIMARY KEY, v varchar(20) CHARACTER SET {charset}, "
        f"w varchar(20) CHARACTER SET {charset}, UNIQUE KEY own (v, w))"
    )
    value = {"cp1251": "Ж", "koi8r": "Ж"}.get(charset, "é")
    stand = stand_of(database, "rules: [{table: t, key: [k]}]", made)
    above = [(1, value, "x"), (2, f"{value}2", "x"), (3, None, value), (4, "?", value)]
    add(stand.urls["api"], "t", *({"k": k, "v": v, "w": w} for k, v, w in above))
    add(stand.urls["c1"], "t", {"k": 9, "v": value.swapcase(), "w": "X"}, {"k": 8, "v": None, "w": value})
    assert codes(stand.diff()) == [("unique-clash", (1,))]
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT k FROM t ORDER BY k") == [{"k": k} for k in (2, 3, 4, 8, 9)]


def test_a_value_that_the_character_set_lacks_is_no_question_mark(database: MakeDatabase) -> None:
    """Converted, it would be one, and clash with a row that has one; the row cannot be written as it is."""
    made = "CREATE TABLE t (k int PRIMARY KEY, v varchar(20) CHARACTER SET {}, UNIQUE KEY own (v))"
    stand = stand_of(database, "rules: [{table: t, key: [k]}]")
    for name, charset in (("api", "utf8mb4"), ("c1", "latin1")):
        execute(stand.urls[name], made.format(charset))
    add(stand.urls["api"], "t", {"k": 1, "v": "Ж"}, {"k": 2, "v": "é"})
    add(stand.urls["c1"], "t", {"k": 9, "v": "?"})
    assert "unique-clash" not in {code for code, _ in codes(stand.diff())}


USER = """CREATE TABLE user (
    id varchar(64) NOT NULL PRIMARY KEY, extra text, enabled tinyint, domain_id varchar(64) NOT NULL,
    UNIQUE KEY ixu_user_id_domain_id (id, domain_id))"""
LOCAL_USER = """CREATE TABLE local_user (
    id int NOT NULL AUTO_INCREMENT PRIMARY KEY, user_id varchar(64) NOT NULL, domain_id varchar(64) NOT NULL,
    name varchar(255) NOT NULL, failed_auth_count int,
    UNIQUE KEY user_id (user_id), UNIQUE KEY domain_id (domain_id, name),
    CONSTRAINT local_user_user_id_fkey FOREIGN KEY (user_id, domain_id) REFERENCES user (id, domain_id)
        ON DELETE CASCADE ON UPDATE CASCADE)"""
PROJECT = """CREATE TABLE project (
    id varchar(64) NOT NULL PRIMARY KEY, name varchar(64) NOT NULL, extra text, description text,
    enabled tinyint, domain_id varchar(64) NOT NULL, parent_id varchar(64),
    is_domain tinyint NOT NULL DEFAULT 0,
    UNIQUE KEY ixu_project_name_domain_id (domain_id, name),
    CONSTRAINT project_domain_id_fkey FOREIGN KEY (domain_id) REFERENCES project (id),
    CONSTRAINT project_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES project (id))"""
KEYSTONE = """
rules:
  - {id: project, table: project, key: [id]}
  - {id: user, table: user, key: [id]}
  - {id: local_user, table: local_user, key: [user_id]}
"""


def _keystone(database: MakeDatabase) -> Stand:
    """Return two regions that were bootstrapped separately: the same names under other ids."""
    stand = stand_of(database, KEYSTONE, PROJECT, USER, LOCAL_USER)
    root = {"id": "root", "name": "root", "domain_id": "root", "is_domain": 1}
    for url in stand.urls.values():
        add(url, "project", root, {"id": "default", "name": "Default", "domain_id": "root", "is_domain": 1})
    for url, side in zip(stand.urls.values(), "pc", strict=True):
        names = ["admin", "service", *([f"new-{n}" for n in range(3)] if side == "p" else [])]
        for name in names:
            project = {"id": f"{side}-{name}", "name": name, "domain_id": "default", "parent_id": "default"}
            add(url, "project", {**project, "is_domain": 0})
        for name in ["admin", "nova", *(["alice"] if side == "p" else ["bob"])]:
            add(url, "user", {"id": f"{side}-{name}", "domain_id": "default"})
            add(
                url, "local_user", {"user_id": f"{side}-{name}", "domain_id": "default", "name": name.title()}
            )
    execute(stand.urls["c1"], "UPDATE local_user SET name = LOWER(name)")  # the same under the collation
    return stand


def test_two_regions_of_keystone(database: MakeDatabase) -> None:
    """Names that the child has under other ids are findings; what is new is written in the same run."""
    stand = _keystone(database)
    seen = stand.diff()
    assert codes(seen, "project") == [("unique-clash", ("p-admin",)), ("unique-clash", ("p-service",))]
    assert codes(seen, "local_user") == [("unique-clash", ("p-admin",)), ("unique-clash", ("p-nova",))]
    for number, finding in enumerate(findings(seen, "local_user"), 1):
        name = ("Admin", "Nova")[number - 1]
        for part in (
            "c1",
            f"local_user id {number}",
            f"domain_id default, name {name}",
            "unique key domain_id",
        ):
            assert part in finding.message, finding.message
    assert result(seen, "c1").counts.planned == 3 + 3 + 1
    done = repaired(stand)
    assert done.exit_code is ExitCode.DIFFERENCES
    names = rows(stand.urls["c1"], "SELECT name FROM local_user WHERE user_id LIKE 'p-%'")
    assert names == [{"name": "Alice"}]
    again = stand.repair("r2")
    assert result(again, "c1").counts.planned == 0 and codes(again, "project") == codes(seen, "project")


def test_a_dry_run_says_the_same(database: MakeDatabase, tmp_path: Path) -> None:
    """The code, the key and the holder are in the JSON of a plan, and in its text."""
    made = Deployment(urls=_keystone(database).urls, folder=tmp_path).rule_file(KEYSTONE)
    for command, code in (("diff",), 1), (("plan",), 1), (("repair", "--dry-run"), 1):
        done = made.json(*command)
        assert done.code == code
        assert [
            (found, "project id c-" in said or "local_user id " in said) for _, found, said in done.findings()
        ] == [("unique-clash", True)] * 4
        assert "unique-clash" in made.run(*command).said


ONE = "rules: [{table: t, key: [k], on_extra: delete, limits: {updates: unlimited, deletes: unlimited}}]"
NAMED = "CREATE TABLE t (k int PRIMARY KEY, name varchar(20) UNIQUE, v int)"


def _sides(stand: Stand, above: list[tuple[Any, ...]], below: list[tuple[Any, ...]], name: str = "t") -> None:
    for url, side in zip(stand.urls.values(), (above, below), strict=True):
        for row in side:
            execute(url, f"INSERT INTO {name} VALUES {row!r}".replace("None", "NULL").replace(",)", ")"))


def test_an_update_that_meets_a_row_which_the_rule_leaves_out(database: MakeDatabase) -> None:
    """Another region's row has the value: outside of the rule's where, so nothing moves it."""
    stand = stand_of(database, ONE.replace("key: [k]", "key: [k], where: 'k < 100'"), NAMED)
    _sides(stand, [(1, "x", 1), (2, "y", 1)], [(1, "w", 1), (2, "z", 1), (100, "X", 1)])
    assert codes(stand.diff()) == [("unique-clash", (1,))]
    (finding,) = findings(repaired(stand))
    assert "k 100" in finding.message and "x" in finding.message
    assert rows(stand.urls["c1"], "SELECT k, name FROM t ORDER BY k") == [
        {"k": 1, "name": "w"}, {"k": 2, "name": "y"}, {"k": 100, "name": "X"}]  # fmt: skip


def test_a_row_outside_where_has_the_key(database: MakeDatabase) -> None:
    """The rule's own key, held by a row that its where leaves out."""
    stand = stand_of(database, ONE.replace("key: [k]", "key: [k], where: 'v < 9'"), NAMED)
    _sides(stand, [(1, "x", 1), (2, "y", 1)], [(1, "z", 9)])
    assert codes(repaired(stand)) == [("unique-clash", (1,))]


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ([(1, "a", 1)], [(2, "a", 1)]),  # held by a row that is deleted
        ([(1, "a", 1), (2, "b", 1)], [(2, "A", 1)]),  # by one that is renamed
        ([(1, "a", 1), (2, "b", 1), (3, "c", 1)], [(2, "a", 1), (3, "b", 1)]),  # by a chain of them
        ([(1, "a", 1), (2, "b", 1)], [(2, "a", 1), (3, "b", 1)]),  # whose last one is deleted
        ([(1, "a", 1), (2, "b", 1)], [(1, "b", 1), (2, "a", 1)]),  # a swap
        ([(1, "a", 1), (2, "b", 1), (3, "c", 1)], [(1, "b", 1), (2, "a", 1), (4, "c", 1)]),
    ],
)
def test_a_value_that_the_plan_frees_is_no_clash(
    above: list[tuple[Any, ...]], below: list[tuple[Any, ...]], database: MakeDatabase
) -> None:
    """What is freed is freed first: one run brings the sides in step, and undo takes it back."""
    stand = stand_of(database, ONE, NAMED)
    _sides(stand, above, below)
    assert codes(stand.diff()) == []
    assert repaired(stand).exit_code is ExitCode.IN_STEP
    assert converged(stand)
    stand.undo("r1", "u1")
    assert rows(stand.urls["c1"], "SELECT k, name FROM t ORDER BY k") == [
        {"k": k, "name": name} for k, name, _ in below
    ]


def test_what_waits_for_a_row_that_is_set_aside_is_set_aside(database: MakeDatabase) -> None:
    """2 cannot give up its name, as 9 stays: so 1 cannot have it either. Both are said."""
    stand = stand_of(database, ONE.replace("key: [k]", "key: [k], where: 'k < 9'"), NAMED)
    _sides(stand, [(1, "a", 1), (2, "b", 1), (3, "c", 1)], [(2, "a", 1), (9, "b", 1)])
    assert codes(stand.diff()) == [("unique-clash", (1,)), ("unique-clash", (2,))]
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT k, name FROM t ORDER BY k") == [
        {"k": 2, "name": "a"}, {"k": 3, "name": "c"}, {"k": 9, "name": "b"}]  # fmt: skip


def test_two_planned_rows_clash_with_each_other(database: MakeDatabase) -> None:
    """The desired side lacks the unique index: both are named, and neither is written."""
    stand = stand_of(database, ONE, NAMED)
    execute(stand.urls["api"], "ALTER TABLE t DROP INDEX name")
    _sides(stand, [(1, "a", 1), (2, "A", 1), (3, "b", 1)], [])
    seen = stand.diff()
    assert codes(seen) == [("unique-clash", (1,)), ("unique-clash", (2,))]
    assert "k=2" in findings(seen)[0].message and "k=1" in findings(seen)[1].message
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT k FROM t") == [{"k": 3}]


def test_of_a_row_that_is_there_and_a_planned_one_the_planned_one_is_named(database: MakeDatabase) -> None:
    """1 is in step already, 2 is new: 2 meets 1."""
    stand = stand_of(database, ONE, NAMED)
    execute(stand.urls["api"], "ALTER TABLE t DROP INDEX name")
    _sides(stand, [(1, "a", 1), (2, "A", 1)], [(1, "a", 1)])
    assert codes(stand.diff()) == [("unique-clash", (2,))]


def test_a_column_that_is_not_compared_counts_as_it_is(database: MakeDatabase) -> None:
    """UNIQUE (name, region), where region is the child's own: its value decides what clashes."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [k], columns: {exclude: [region]}}]",
        "CREATE TABLE t (k int PRIMARY KEY, name varchar(20), region int NOT NULL DEFAULT 7, "
        "UNIQUE (name, region))",
    )
    _sides(
        stand,
        [(1, "a", 1), (2, "b", 1), (3, "c", 1)],
        [(1, "x", 5), (2, "y", 6), (8, "a", 5), (9, "b", 5), (10, "c", 7)],
    )
    assert codes(repaired(stand)) == [("unique-clash", (1,)), ("unique-clash", (3,))]
    assert rows(stand.urls["c1"], "SELECT name FROM t WHERE k = 2") == [{"name": "b"}]


def test_a_prefix_index_and_nulls(database: MakeDatabase) -> None:
    """Unique in its first four letters; NULL clashes with nothing."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [k]}]",
        "CREATE TABLE t (k int PRIMARY KEY, name varchar(20), n int, UNIQUE (name(4)), UNIQUE (n))",
    )
    _sides(stand, [(1, "abcdx", None), (2, "abcex", None)], [(8, "abcdy", None)])
    assert codes(repaired(stand)) == [("unique-clash", (1,))]


def test_a_secret_value_is_not_shown(database: MakeDatabase) -> None:
    """The finding names the column and hides what is in it."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [k]}]",
        "CREATE TABLE t (k int PRIMARY KEY, password varchar(20) UNIQUE)",
    )
    _sides(stand, [(1, "hunter2")], [(2, "hunter2")])
    (finding,) = findings(stand.diff())
    assert "hunter2" not in finding.message and "password" in finding.message


REFERRING = """
rules:
  - {table: u, key: [name], columns: {include: [code]}}
  - {table: t, key: [u_id, n], references: {u_id: u}}
"""
U = "CREATE TABLE u (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9) UNIQUE, code int UNIQUE)"
T = "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, u_id int, n int, {}, UNIQUE (u_id, n), {})"


def test_what_refers_to_a_row_that_is_set_aside_is_not_planned(database: MakeDatabase) -> None:
    """By a declared reference it is skipped, and says to what it refers."""
    stand = stand_of(database, REFERRING, U, T.format("x int", "KEY (x)"))
    _sides(stand, [(1, "a", 1), (2, "b", 2)], [(1, "c", 1)], "u")
    _sides(stand, [(1, 1, 1, 1), (2, 2, 2, 2)], [])
    done = repaired(stand)
    assert codes(done, "u") == [("unique-clash", ("a",))]
    (skipped,) = result(done, "c1").skipped
    assert (skipped.rule, skipped.key) == ("t", (("a",), 1)) and "set aside" in skipped.reason


def test_a_unique_key_over_a_reference(database: MakeDatabase) -> None:
    """UNIQUE (u_id, x) with other ids on both sides: compared as the ids that will be written."""
    stand = stand_of(database, REFERRING, U, T.format("x int", "UNIQUE (u_id, x)"))
    _sides(stand, [(1, "a", 1), (2, "b", 2)], [(11, "a", 1)], "u")
    _sides(stand, [(1, 1, 1, 5), (2, 1, 2, 6), (3, 2, 1, 5)], [(1, 11, 9, 5)])
    assert codes(repaired(stand), "t") == [("unique-clash", (("a",), 1))]


# -- Rows that refer -----------------------------------------------------------------------------


PLAIN = """
rules:
  - {table: u, key: [k]}
  - {table: t, key: [k], on_extra: delete, limits: {deletes: unlimited}}
"""
U_PLAIN = "CREATE TABLE u (k int PRIMARY KEY, name varchar(9) UNIQUE)"
T_PLAIN = "CREATE TABLE t (k int PRIMARY KEY, u int, CONSTRAINT of_u FOREIGN KEY (u) REFERENCES u (k))"


def test_a_plain_foreign_key_without_its_row(database: MakeDatabase) -> None:
    """Neither there nor planned, dangling in the parent too: a finding, the others are written."""
    stand = stand_of(database, PLAIN, U_PLAIN, T_PLAIN)
    _sides(stand, [(1, "a"), (2, "b")], [(1, "a"), (5, "b")], "u")
    execute(
        stand.urls["api"],
        "SET foreign_key_checks = 0",
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 99), (4, NULL), (5, 98)",
    )
    execute(stand.urls["c1"], "INSERT INTO t VALUES (5, 1)")
    seen = stand.diff()
    assert codes(seen, "u") == [("unique-clash", (2,))]
    assert codes(seen) == [("foreign-key-clash", (n,)) for n in (2, 3, 5)]
    for part in ("of_u", "u 99", "c1"):
        assert part in findings(seen)[1].message
    done = repaired(stand)
    assert done.exit_code is ExitCode.DIFFERENCES
    assert rows(stand.urls["c1"], "SELECT k, u FROM t ORDER BY k") == [
        {"k": 1, "u": 1}, {"k": 4, "u": None}, {"k": 5, "u": 1}]  # fmt: skip


@pytest.mark.parametrize("what", ["on_missing: report", "where: 'name <> \\'b\\''"])
def test_a_declared_reference_to_a_row_that_does_not_come(what: str, database: MakeDatabase) -> None:
    """The parent has the row; the child will not get it, as its rule says."""
    rules = REFERRING.replace(
        "include: [code]}", "include: [code]}, " + what.replace("\\'", "''").replace("'name", "'name")
    )
    stand = stand_of(database, rules, U, T.format("x int", "KEY (x)"))
    _sides(stand, [(1, "a", 1), (2, "b", 2)], [(7, "a", 1)], "u")
    _sides(stand, [(1, 1, 1, 1), (2, 2, 2, 2)], [])
    assert codes(stand.diff(), "t") == [("foreign-key-clash", (("b",), 2))]
    repaired(stand)


def test_a_declared_reference_that_dangles_in_the_parent(database: MakeDatabase) -> None:
    """It leads nowhere on the desired side: a finding, and nothing is planned."""
    stand = stand_of(
        database, REFERRING, U, T.format("r int", "KEY (r)").replace("UNIQUE (u_id, n)", "KEY (u_id)")
    )
    _sides(stand, [(1, "a", 1)], [(7, "a", 1)], "u")
    _sides(stand, [(1, 1, 1, 1), (2, 99, 2, 2)], [])
    assert [code for code, _ in codes(stand.diff(), "t")] == ["dangling-reference"]
    repaired(stand)
    assert len(rows(stand.urls["c1"], "SELECT * FROM t")) == 1


GONE = """
rules:
  - {table: u, key: [k], on_extra: delete, limits: {deletes: unlimited}}
  - {table: t, key: [k], on_extra: delete, limits: {deletes: unlimited}}
"""


@pytest.mark.parametrize("foreign", [True, False])
def test_a_row_to_which_others_still_refer_is_not_deleted(foreign: bool, database: MakeDatabase) -> None:
    """Rows that stay, of the rules' tables or of one that no rule knows; those that go do not count."""
    stand = stand_of(
        database, GONE.replace("k], on_extra", "k], where: 'k < 100', on_extra"), U_PLAIN, T_PLAIN
    )
    for url in stand.urls.values():
        execute(
            url,
            "CREATE TABLE other (id int PRIMARY KEY, u int, "
            "CONSTRAINT there FOREIGN KEY (u) REFERENCES u (k))",
        )
    _sides(stand, [(1, "a")], [(1, "a"), (2, "b"), (3, "c")], "u")
    _sides(stand, [(3, None)], [(1, 2), (2, 3), *([] if foreign else [(100, 2)])])
    if foreign:
        execute(stand.urls["c1"], "INSERT INTO other VALUES (77, 2)")
    seen = stand.diff()
    assert codes(seen, "u") == [("still-referenced", (2,))]
    (finding,) = findings(seen, "u")
    assert ("other id 77" if foreign else "t k 100") in finding.message
    assert ("there" if foreign else "of_u") in finding.message
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT k FROM u ORDER BY k") == [{"k": 1}, {"k": 2}]


def test_what_a_refused_rule_would_remove_stays(database: MakeDatabase) -> None:
    """t is empty in the parent, so its rule is refused: the rows to which its rows refer stay as well."""
    stand = stand_of(database, GONE, U_PLAIN, T_PLAIN)
    _sides(stand, [(1, "a")], [(1, "a"), (2, "b"), (3, "c")], "u")
    _sides(stand, [], [(1, 2)])
    assert codes(stand.diff(), "u") == [("still-referenced", (2,))]
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT k FROM u ORDER BY k") == [{"k": 1}, {"k": 2}]


def test_a_row_that_comes_to_refer_elsewhere_does_not_hold_it(database: MakeDatabase) -> None:
    """t refers to 2 now and to 1 afterwards: 2 can go."""
    stand = stand_of(database, GONE, U_PLAIN, T_PLAIN)
    _sides(stand, [(1, "a")], [(1, "a"), (2, "b")], "u")
    _sides(stand, [(1, 1)], [(1, 2)])
    assert repaired(stand).exit_code is ExitCode.IN_STEP
    assert converged(stand)


NUMBERED = (
    "CREATE TABLE u (k varchar(9) PRIMARY KEY, n int NOT NULL, UNIQUE KEY un (n))",
    "CREATE TABLE t (k int PRIMARY KEY, u int, CONSTRAINT of_u FOREIGN KEY (u) REFERENCES u (n))",
)


def _fill_numbered(stand: Stand, u: tuple[Any, Any], t: tuple[Any, Any]) -> None:
    for url, of_u, of_t in zip(stand.urls.values(), u, t, strict=True):
        add(url, "u", *(dict(zip("kn", row, strict=True)) for row in of_u))
        add(url, "t", *(dict(zip("ku", row, strict=True)) for row in of_t))


@pytest.mark.parametrize("kept", [(), (("keep", 9),)])
def test_what_refers_to_a_row_that_must_go_first_goes_before_it(
    kept: tuple[Any, ...], database: MakeDatabase
) -> None:
    """A new row takes the number of one that goes, and a row that goes as well refers to that."""
    stand = stand_of(database, GONE, *NUMBERED)
    _fill_numbered(stand, ([("new", 1), *kept], [("old", 1), *kept]), ([(2, None)], [(1, 1), (2, None)]))
    assert repaired(stand).exit_code is ExitCode.IN_STEP
    assert converged(stand)


def test_a_number_changes_once_nothing_refers_to_it(database: MakeDatabase) -> None:
    """The row that refers to it goes in the same plan, and before it for that."""
    stand = stand_of(database, GONE, *NUMBERED)
    _fill_numbered(stand, ([("a", 2)], [("a", 1)]), ([(2, None)], [(1, 1), (2, None)]))
    assert repaired(stand).exit_code is ExitCode.IN_STEP
    assert converged(stand)


@pytest.mark.parametrize("after", [None, 5])
def test_what_refers_to_a_row_that_goes_is_updated_before_new_rows_come(
    after: int | None, database: MakeDatabase
) -> None:
    """Updates come after the inserts elsewhere; here a new row takes the number of the one that goes."""
    stand = stand_of(database, GONE, *NUMBERED)
    _fill_numbered(stand, ([("new", 1), ("x", 5)], [("old", 1), ("x", 5)]), ([(1, after)], [(1, 1)]))
    before = checksums(stand.urls["c1"])
    assert findings(stand.diff(), "u") == []
    assert repaired(stand).exit_code is ExitCode.IN_STEP
    assert converged(stand)
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(stand.urls["c1"]) == before


# -- Large, and what it costs ----------------------------------------------------------------------


def _statements(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("cellsync.db")]


def test_the_rules_key_and_the_primary_key_cost_nothing(
    database: MakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """A table without other keys is asked nothing more."""
    stand = stand_of(
        database,
        "rules: [{table: t, key: [name], on_extra: delete, limits: {deletes: unlimited}}]",
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, name varchar(9) UNIQUE, v int)",
    )
    _sides(stand, [(n, f"n{n}", n) for n in range(1, 9)], [(1, "n1", 5), (2, "x", 1)])
    with caplog.at_level("DEBUG", logger="cellsync.db"):
        stand.diff()
    asked = [each for each in _statements(caplog) if "clashes: " in each]
    # Which CHECKs there are is asked, once for the table.
    assert [each for each in asked if "CHECK_CONSTRAINTS" not in each] == []
    assert len(asked) <= 1


def test_a_load_into_an_empty_table(database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of many rows clash, and one leads nowhere: three findings, and the others are written."""
    monkeypatch.setattr(spool, "SHORT", 5)
    many = 5500  # more than are read whole, and than one batch takes
    if digests.READ_WHOLE < 0:
        many = 300
        monkeypatch.setattr(executing, "LOADED", 100)
    stand = stand_of(
        database,
        PLAIN,
        U_PLAIN,
        "CREATE TABLE t (k int PRIMARY KEY, u int, name varchar(9), UNIQUE (name), "
        "CONSTRAINT of_u FOREIGN KEY (u) REFERENCES u (k))",
    )
    execute(stand.urls["api"], "ALTER TABLE t DROP INDEX name")
    for url in stand.urls.values():
        execute(url, "INSERT INTO u VALUES (1, 'a')")
    execute(
        stand.urls["api"],
        "SET foreign_key_checks = 0",
        f"INSERT INTO t SELECT seq, 1, CONCAT('n', seq) FROM seq_1_to_{many}",
        f"UPDATE t SET name = 'N{many - 1}' WHERE k = 10",
        "UPDATE t SET u = 99 WHERE k = 20",
    )
    seen = stand.diff()
    assert sorted(codes(seen)) == [
        ("foreign-key-clash", (20,)), ("unique-clash", (10,)), ("unique-clash", (many - 1,))]  # fmt: skip
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT COUNT(*) AS n FROM t") == [{"n": many - 3}]


def test_a_row_of_a_table_without_a_primary_key_refers(database: MakeDatabase) -> None:
    """It cannot be named by one, and holds the row all the same."""
    stand = stand_of(database, GONE, U_PLAIN, "CREATE TABLE t (k int PRIMARY KEY)")
    for url in stand.urls.values():
        execute(url, "CREATE TABLE bare (u int, CONSTRAINT bared FOREIGN KEY (u) REFERENCES u (k))")
    _sides(stand, [(1, "a")], [(1, "a"), (2, "b")], "u")
    execute(stand.urls["c1"], "INSERT INTO bare VALUES (2), (2), (1)")
    assert codes(stand.diff(), "u") == [("still-referenced", (2,))]
    assert "bared" in findings(stand.diff(), "u")[0].message


ITSELF = (
    "CREATE TABLE t (id int PRIMARY KEY, k int, up int, CONSTRAINT of_t FOREIGN KEY (up) REFERENCES t (id))"
)


def test_a_row_that_refers_to_itself_gets_no_other_key(database: MakeDatabase) -> None:
    """The server lets it go, but not move; where the rule leaves the reference alone, that is said before."""
    stand = stand_of(database, "rules: [{table: t, key: [k], columns: {exclude: [up]}}]", ITSELF)
    _sides(stand, [(1, 10, None)], [(3, 10, 3)])
    seen = stand.diff()
    assert codes(seen) == [("still-referenced", (10,))]
    assert "t id 3 still refers to it (foreign key of_t)" in findings(seen)[0].message
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT * FROM t") == [{"id": 3, "k": 10, "up": 3}]


def test_a_row_that_stops_to_refer_to_itself_gets_another_key(database: MakeDatabase) -> None:
    """In two steps, and another one comes to refer to itself."""
    stand = stand_of(database, "rules: [{table: t, key: [k]}]", ITSELF)
    _sides(stand, [(1, 10, None), (2, 20, 2)], [(3, 10, 3), (2, 20, None)])
    repaired(stand)
    query = "SELECT * FROM t ORDER BY k"
    assert rows(stand.urls["c1"], query) == rows(stand.urls["api"], query)
    assert converged(stand)


@pytest.mark.parametrize("declared", [True, False])
def test_what_refers_to_a_row_that_does_not_fit_is_said_before(
    declared: bool, database: MakeDatabase
) -> None:
    """Also through a chain: the row in between refers to the one whose key the column cannot hold."""
    stand = stand_of(database, "rules: [{table: t, key: [k]}]")
    for url, kind in zip(stand.urls.values(), ("varchar(9)", "varchar(3)"), strict=True):
        execute(
            url,
            f"CREATE TABLE t (id int PRIMARY KEY, k {kind}, up int, "
            "CONSTRAINT of_t FOREIGN KEY (up) REFERENCES t (id))",
        )
    if declared:
        stand = Stand(stand.urls, ruleset("rules: [{table: t, key: [k], references: {up: t}}]"))
    _sides(stand, [(3, "too long", None), (2, "mid", 3), (1, "end", 2), (4, "ok", None)], [])
    seen = stand.diff()
    named = {(code, key[0]) for code, key in codes(seen)}
    assert ("unwritable-value", "too long") in named
    if not declared:
        assert named >= {("foreign-key-clash", "end"), ("foreign-key-clash", "mid")}
    left = {str(skipped.key[0]) for skipped in result(seen, "c1").skipped}
    assert left | {key for _, key in named} == {"too long", "mid", "end"}
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT k FROM t") == [{"k": "ok"}]


def test_a_key_that_a_row_outside_the_rule_has_as_well(database: MakeDatabase) -> None:
    """A row that refers to one of the two can go; what would refer to either cannot be written."""
    rules = """
    rules:
      - {table: u, key: [k], where: seen = 1, on_insert: {seen: 1}, columns: {include: [k]}}
      - {table: t, key: [k], references: {r: u}, on_extra: delete, limits: {deletes: unlimited}}
    """
    stand = stand_of(
        database,
        rules,
        "CREATE TABLE u (id int PRIMARY KEY AUTO_INCREMENT, k int, seen int)",
        "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, k int, r int)",
    )
    _sides(stand, [(1, 10, 1), (2, 20, 1)], [(4, 10, 1), (5, 10, 2), (6, 20, 1)], "u")
    _sides(stand, [(1, 1, 1), (2, 2, 2)], [(8, 3, 5), (9, 4, 4)])
    seen = stand.diff()
    assert codes(seen) == [("foreign-key-clash", (1,))]
    assert "more than once" in findings(seen)[0].message
    repaired(stand)
    assert rows(stand.urls["c1"], "SELECT k, r FROM t") == [{"k": 2, "r": 6}]
    assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert rows(stand.urls["c1"], "SELECT k, r FROM t ORDER BY k") == [{"k": 3, "r": 5}, {"k": 4, "r": 4}]


def test_a_new_row_that_refers_to_itself_while_a_row_outside_the_rule_has_its_key(
    database: MakeDatabase,
) -> None:
    """Once it is there, two rows have the key, and nobody can say which one it means."""
    rules = """
    rules:
      - {table: t, key: [k], where: seen = 1, on_insert: {seen: 1}, columns: {include: [id, up]},
         references: {up: t}}
    """
    own = "CREATE TABLE t (id int PRIMARY KEY, k int, up int, seen int)"
    stand = stand_of(database, rules, own)
    parent, child = stand.urls.values()
    execute(parent, "INSERT INTO t VALUES (2, 10, 2, 1), (3, 20, 2, 1), (4, 30, NULL, 1)")
    execute(child, "INSERT INTO t VALUES (21, 10, NULL, 0)")
    seen = stand.diff()
    assert codes(seen) == [("foreign-key-clash", (10,)), ("foreign-key-clash", (20,))]
    assert "more than once" in findings(seen)[0].message
    repaired(stand)
    assert rows(child, "SELECT k FROM t ORDER BY k") == [{"k": 10}, {"k": 30}]
