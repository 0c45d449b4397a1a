"""Columns with ON UPDATE, and what else a server does by itself to a row that is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from edges import Stand, add, converged, execute, result, rows, stand_of
from replaying import COPY, Replayed, replay, way_back
from servers import DatabaseFactory, checksums

from cellsync import codec, run
from cellsync.errors import ExitCode
from cellsync.report import sql
from cellsync.run import planfile

OLD = "2020-02-02 02:02:02"
MICRO = "2020-02-02 02:02:02.123456"
TABLE = """CREATE TABLE t (
    k int PRIMARY KEY,
    seen timestamp NOT NULL DEFAULT current_timestamp ON UPDATE current_timestamp,
    at datetime(6) NULL ON UPDATE current_timestamp(6),
    w int, u varchar(40), deleted int NOT NULL DEFAULT 0, deleted_at datetime, made datetime
)"""
RULE = "{id: t, table: t, key: [k], limits: {updates: 100%, deletes: 100%}}"
OUTSIDE = "{id: t, table: t, key: [k], columns: {exclude: [seen, at]}, limits: {updates: 100%}}"
UP = "{id: t, table: t, key: [k], direction: up, limits: {updates: 100%, deletes: 100%}}"
SOFT = """{id: t, table: t, key: [k], on_extra: soft_delete, limits: {deletes: 100%},
    soft_delete: {column: deleted, live: 0, tombstone: k, at: deleted_at}, on_insert: {made: now}}"""


def stand_with(database: DatabaseFactory, rule: str, count: int = 1, table: str = TABLE) -> Stand:
    """Return a stand whose child has other values in ``w`` alone."""
    stand = stand_of(database, f"rules: [{rule}]", table)
    for url, w in zip(stand.urls.values(), (1, 9), strict=True):
        add(url, "t", *({"k": k, "seen": OLD, "at": MICRO, "w": w} for k in range(count)))
    return stand


def stamps(url: str) -> set[tuple[str, str]]:
    """Return the different times that the server could have written."""
    return {(str(row["seen"]), str(row["at"])) for row in rows(url, "SELECT seen, at FROM t")}


@pytest.mark.usefixtures("compared_by")
@pytest.mark.parametrize("rule", [RULE, OUTSIDE, UP], ids=["compared", "left out", "up"])
@pytest.mark.parametrize("count", [1, 3], ids=["one row", "many rows"])
def test_an_update_keeps_what_the_server_would_stamp(
    database: DatabaseFactory, rule: str, count: int
) -> None:
    """Whether the rule compares the columns or leaves them out; to the byte, and back."""
    stand = stand_with(database, rule, count)
    before = {name: checksums(url) for name, url in stand.urls.items()}
    done = stand.repair("r1")
    assert (done.exit_code, result(done, "c1").problems) == (ExitCode.IN_STEP, ())
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])
    assert converged(stand)
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert {name: checksums(url) for name, url in stand.urls.items()} == before


def test_a_stamp_that_differs_is_written(database: DatabaseFactory) -> None:
    """In one row with another column, in one by itself, and in one beside a row that keeps its stamp."""
    stand = stand_with(database, RULE, 4)
    execute(stand.urls["c1"], "UPDATE t SET seen = '2001-01-01', at = '2001-01-01 00:00:00.5' WHERE k < 2")
    execute(stand.urls["c1"], f"UPDATE t SET w = 1, seen = '{OLD}', at = '{MICRO}' WHERE k = 3")
    before = checksums(stand.urls["c1"])
    assert stand.repair("r1").exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == before


def test_a_soft_delete_and_its_undo_keep_the_stamps(database: DatabaseFactory) -> None:
    """They are updates too."""
    stand = stand_with(database, SOFT, 2)
    execute(stand.urls["c1"], f"UPDATE t SET w = 1, made = '{OLD}', seen = '{OLD}', at = '{MICRO}'")
    execute(stand.urls["api"], "UPDATE t SET deleted = k, deleted_at = '2021-01-01' WHERE k = 1")
    before, stamped = checksums(stand.urls["c1"]), stamps(stand.urls["c1"])
    done = stand.repair("r1")
    assert (result(done, "c1").counts.applied, result(done, "c1").problems) == (1, ())
    assert stamps(stand.urls["c1"]) == stamped
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == before


def test_values_that_change_places_keep_the_stamps(database: DatabaseFactory) -> None:
    """A circle is opened by parking a row, which is an update of its own."""
    stand = stand_with(database, RULE, 0, TABLE.replace("u varchar(40)", "u varchar(40) UNIQUE"))
    for url, names in zip(stand.urls.values(), ("ab", "ba"), strict=True):
        add(url, "t", *({"k": k, "seen": OLD, "at": MICRO, "u": u} for k, u in enumerate(names)))
    before = checksums(stand.urls["c1"])
    assert stand.repair("r1").exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == before


@pytest.mark.parametrize("rule", [RULE, OUTSIDE], ids=["compared", "left out"])
def test_the_statements_keep_the_stamps(database: DatabaseFactory, rule: str) -> None:
    """Those of the SQL output, there and back; a copy takes them where the repair does not write."""
    stand = stand_with(database, rule, 2)
    _, prepared = stand.prepare("r1")
    text = "".join(sql.render(prepared.report))
    before = checksums(stand.urls["c1"])
    assert replay(stand.urls["c1"], text, COPY) == Replayed(code=0, planned=2, made=2)
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])
    assert replay(stand.urls["c1"], way_back(text), COPY) == Replayed(code=0, planned=2, made=2)
    assert checksums(stand.urls["c1"]) == before


def test_a_plan_file_keeps_the_stamps_and_is_verified(database: DatabaseFactory) -> None:
    """What a row must be all the same is in the file too; a file of an older cellsync has no word of it."""
    stand = stand_with(database, RULE, 2)
    request, prepared = stand.prepare("r1")
    text = "".join(planfile.to_text(request, prepared))
    (edge,) = prepared.edges
    assert edge.plan.changes[0].unwritten == {
        "seen": OLD,
        "at": MICRO,
        "u": None,
        "deleted": 0,
        "deleted_at": None,
        "made": None,
    }
    adopted = planfile.adopt(request, prepared, planfile.from_text(text, file="f"))
    assert adopted.edges[0].plan.changes == edge.plan.changes
    older = codec.plan_from_data(_without_unwritten(codec.plan_to_data(edge.plan)))
    assert [change.unwritten for change in older.changes] == [{}, {}]
    assert run.write(request, adopted).exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == checksums(stand.urls["api"])


def _without_unwritten(data: dict[str, Any]) -> dict[str, Any]:
    changes = [{n: v for n, v in each.items() if n != "unwritten"} for each in data["changes"].items]
    return {**data, "changes": changes, "skipped": [], "refusals": []}


# -- What a trigger does to a row that is written ----------------------------------------------


TOUCHING = "CREATE TRIGGER touching BEFORE UPDATE ON t FOR EACH ROW SET NEW.u = 'touched'"


@pytest.mark.parametrize("count", [1, 3], ids=["one row", "many rows"])
def test_a_row_that_a_trigger_changes_besides_is_not_kept(database: DatabaseFactory, count: int) -> None:
    """The trigger writes a compared column that the repair does not: the row would never be in step."""
    stand = stand_with(database, RULE, count)
    add(stand.urls["api"], "t", {"k": 10, "seen": OLD, "at": MICRO, "w": 1})
    before = checksums(stand.urls["c1"])
    execute(stand.urls["c1"], TOUCHING)
    report = stand.repair("r1", ["triggers"])
    done = result(report, "c1")
    assert report.exit_code is ExitCode.INCOMPLETE
    assert done.counts.failed == count
    assert done.problems[0] == (
        "update t k=0: failed: it does not fit: the server keeps u NULL as touched; "
        "the table has the trigger touching"
    )
    execute(stand.urls["c1"], "DROP TRIGGER touching", "DELETE FROM t WHERE k = 10")
    assert checksums(stand.urls["c1"]) == before


def test_a_trigger_may_write_what_no_rule_compares(database: DatabaseFactory) -> None:
    """The waiver says so; the journal has what it wrote, and an undo takes it back."""
    stand = stand_with(database, RULE.replace("limits", "columns: {exclude: [u]}, limits"))
    before = checksums(stand.urls["c1"])
    execute(stand.urls["c1"], TOUCHING)
    assert replace(stand, judged=False).repair("r1", ["triggers"]).exit_code is ExitCode.IN_STEP
    assert rows(stand.urls["c1"], "SELECT u, w FROM t") == [{"u": "touched", "w": 1}]
    execute(stand.urls["c1"], "DROP TRIGGER touching")
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert checksums(stand.urls["c1"]) == before


def test_a_column_that_moved_beside_the_written_one_is_named(database: DatabaseFactory) -> None:
    """The repair does not write it, and yet the row is not what the plan says it must be."""
    stand = stand_with(database, RULE)
    request, prepared = stand.prepare("r1")
    execute(stand.urls["c1"], f"UPDATE t SET u = 'moved', seen = '{OLD}', at = '{MICRO}'")
    written = run.write(request, prepared)
    assert written.exit_code is ExitCode.INCOMPLETE
    assert result(written, "c1").problems == (
        "t 0 was written, but u is moved instead of NULL, which was not written",
    )


def test_a_generated_column_that_comes_out_otherwise_is_named(database: DatabaseFactory) -> None:
    """The two sides compute it differently: a rule that compares it can only say so."""
    rule = RULE.replace("limits", "columns: {include: [w, twice]}, limits")
    stand = stand_of(database, f"rules: [{rule}]")
    for url, factor, w in zip(stand.urls.values(), (2, 3), (3, 2), strict=True):
        execute(url, f"CREATE TABLE t (k int PRIMARY KEY, w int, twice int AS (w * {factor}) STORED)")
        add(url, "t", {"k": 1, "w": w})
    written = stand.repair("r1")
    assert written.exit_code is ExitCode.INCOMPLETE
    assert "twice is 9 instead of 6" in result(written, "c1").problems[0]
