"""CHECK constraints of the written table: what breaks one is a finding, before anything is written."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from edges import Stand, add, execute, result, rows, ruleset, table
from servers import DatabaseFactory

from cellsync import run
from cellsync.errors import ExitCode


class Kind(NamedTuple):
    """A column of both sides, or of each, the child's CHECK, and values."""

    above: str
    below: str
    fits: object
    breaks: object
    check: str = ""


KINDS = {
    "number": Kind("int", "int", 5, 50, "CHECK (v < 10)"),
    "text": Kind("varchar(9)", "varchar(9)", "a", "B", "CHECK (v = 'a')"),
    "json": Kind("varchar(9)", "json", "[1]", "[1"),
    "date": Kind("date", "date", "2024-01-02", "1999-01-01", "CHECK (v >= '2000-01-01')"),
    "time": Kind("datetime(6)", "datetime(6)", "2024-01-02", "1999-01-01", "CHECK (v >= '2024-01-02')"),
    "two": Kind("int", "int", 7, 2, "CHECK (v > k + w)"),
    "generated": Kind("int", "int", 7, 3, ", g int AS (v + w) STORED CHECK (g > 5)"),
    "null": Kind("int", "int", 1, None, "CHECK (v IS NOT NULL)"),
    "unknown": Kind("int", "int", None, 3, "CHECK (v > 5)"),
    "decimal": Kind("decimal(9,2)", "decimal(9,2)", "1.50", "1.51", "CHECK (v <= 1.5)"),
}


def stand_of_kind(database: DatabaseFactory, kind: Kind, both: bool = False) -> Stand:
    """Return a stand whose child has a CHECK, or both have it."""
    urls = {"api": database(), "c1": database()}
    checks = (kind.check if both else "", kind.check)
    for url, type_, check in zip(urls.values(), (kind.above, kind.below), checks, strict=True):
        execute(url, f"CREATE TABLE t (k int PRIMARY KEY, w int, v {type_} {check})")
    return Stand(urls, ruleset("rules: [{table: t, key: [k], limits: {updates: 100%}}]"))


@pytest.mark.parametrize("held", [False, True], ids=["insert", "update"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_row_that_breaks_a_check_is_found_before_writing(
    database: DatabaseFactory, kind: Kind, held: bool
) -> None:
    """The others are written; a diff says it, too."""
    stand = stand_of_kind(database, kind)
    add(stand.urls["api"], "t", {"k": 1, "w": 1, "v": kind.breaks}, {"k": 2, "w": 1, "v": kind.fits})
    if held:
        below = {"w": 0, "v": kind.fits if kind.fits != 7 else 9}
        add(stand.urls["c1"], "t", {"k": 1, **below}, {"k": 2, **below})
    (finding,) = table(stand.diff(), "c1", "t").findings
    assert (finding.code, finding.key) == ("unwritable-value", (1,))
    assert "breaks the CHECK" in finding.message and "api does not keep" in finding.message
    report = stand.repair("r1")
    cell = result(report, "c1")
    assert report.exit_code is ExitCode.DIFFERENCES
    assert (cell.counts.applied, cell.counts.failed, cell.problems) == (1, 0, ())
    assert [row["k"] for row in rows(stand.urls["c1"], "SELECT k FROM t WHERE w = 1")] == [2]
    assert result(stand.repair("r2"), "c1").counts.planned == 0


def test_a_column_that_is_not_written_is_held_against_a_check(database: DatabaseFactory) -> None:
    """The child's own value of it counts, with the new value of another one."""
    stand = stand_of_kind(database, Kind("int", "int", 0, 0, ", own int DEFAULT 4, CHECK (v < own)"))
    add(stand.urls["api"], "t", *({"k": k, "w": 1, "v": 5} for k in (1, 2)))
    add(stand.urls["c1"], "t", {"k": 1, "w": 1, "v": 1, "own": 9})
    assert [each.key for each in table(stand.diff(), "c1", "t").findings] == [(2,)]
    assert result(stand.repair("r1"), "c1").counts.applied == 1


def test_a_check_that_both_sides_have_is_not_asked_about(
    database: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """The desired side's rows are held to it already."""
    stand = stand_of_kind(database, KINDS["number"], both=True)
    add(stand.urls["api"], "t", {"k": 1, "w": 1, "v": 5})
    with caplog.at_level("DEBUG"):
        assert stand.repair("r1").exit_code is ExitCode.IN_STEP
    assert "WHERE NOT" not in caplog.text


def test_a_check_that_comes_after_the_plan_fails_its_row_alone(database: DatabaseFactory) -> None:
    """What nobody could foresee fails when it is written, and is named then."""
    stand = stand_of_kind(database, KINDS["number"]._replace(check=""))
    add(stand.urls["api"], "t", {"k": 1, "w": 1, "v": 50}, {"k": 2, "w": 1, "v": 5})
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], "ALTER TABLE t ADD CHECK (v < 10)")
    cell = result(run.write(request, prepared), "c1")
    assert (cell.counts.applied, cell.counts.failed) == (1, 1)
    assert "insert t k=1: failed: c1: CONSTRAINT" in cell.problems[0]
