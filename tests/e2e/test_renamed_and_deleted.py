"""A row that cellsync pushed is followed by its origin: renamed and then deleted, it is the same row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edges import MakeDatabase, Stand, converged, execute, result, rows, stand_of
from servers import checksums

from cellsync.model import Action, TableDiff

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compared_by")]

RULES = """
defaults:
  on_extra: soft_delete
  removes: pushed
  soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}
  on_insert: {created_at: now}
  columns: {exclude: [created_at, deleted_at]}
rules:
  - {id: t, table: t, key: [name]}
  - {id: u, table: u, key: [t_id, host], references: {t_id: t}}
"""
MARKS = "created_at datetime, deleted_at datetime, deleted int DEFAULT 0"
T = f"CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, name varchar(20), {MARKS})"
U = f"CREATE TABLE u (id int AUTO_INCREMENT PRIMARY KEY, t_id int, host varchar(20), {MARKS})"
GONE = "deleted = id, deleted_at = '2026-02-01 00:00:00'"


@pytest.fixture
def pushed(database: MakeDatabase) -> Stand:
    """Give a zone with a host, which cellsync has pushed to a child that has other ids."""
    stand = stand_of(database, RULES, T, U)
    api, c1 = stand.urls.values()
    execute(c1, "INSERT INTO t (id, name) VALUES (7, 'own')")
    execute(api, "INSERT INTO t (name) VALUES ('ra'), ('keep')", "INSERT INTO u (t_id, host) VALUES (1, 'h')")
    execute(api, "INSERT INTO u (t_id, host) VALUES (2, 'k')")
    assert result(stand.repair("r1"), "c1").problems == ()
    return stand


def live(stand: Stand) -> tuple[list[str], list[str]]:
    """Return the live names and hosts of the child."""
    names = rows(stand.urls["c1"], "SELECT name FROM t WHERE deleted = 0 ORDER BY name")
    hosts = rows(stand.urls["c1"], "SELECT host FROM u WHERE deleted = 0 ORDER BY host")
    return [row["name"] for row in names], [row["host"] for row in hosts]


@pytest.mark.parametrize("again", [False, True])
def test_renamed_and_deleted_between_two_runs(pushed: Stand, again: bool) -> None:
    """Gone in the child with its hosts, whether or not another row has taken the old name since."""
    api, c1 = pushed.urls.values()
    execute(api, "UPDATE t SET name = 'rb' WHERE id = 1", f"UPDATE t SET {GONE} WHERE id = 1")
    execute(api, f"UPDATE u SET {GONE} WHERE t_id = 1")
    if again:
        execute(api, "INSERT INTO t (name) VALUES ('ra2')")
    before = checksums(c1)
    assert result(pushed.repair("r2"), "c1").problems == ()
    assert live(pushed) == (["keep", "own", *(["ra2"] if again else [])], ["k"])
    assert result(pushed.repair("again"), "c1").counts.planned == 0
    assert result(pushed.undo("r2", "u2"), "c1").problems == ()
    assert checksums(c1) == before


def test_that_a_row_was_never_deleted_is_said_when_it_is_true(pushed: Stand) -> None:
    """Of one whose origin is gone without a trace, only that nothing says so."""
    api, _ = pushed.urls.values()
    execute(api, "DELETE FROM u WHERE t_id = 1", "DELETE FROM t WHERE id = 1")
    table = next(each for each in result(pushed.diff(), "c1").tables if each.rule == "t")
    assert isinstance(table, TableDiff)
    said = {d.key[0]: (d.action, d.reason) for d in table.differences}
    assert said["ra"][0] is Action.REPORT
    assert "nothing in api says that it was deleted" in said["ra"][1]
    assert "cellsync did not write it, so it stays" in said["own"][1]
    assert pushed.repair("r2").exit_code == 1
    assert live(pushed) == (["keep", "own", "ra"], ["h", "k"])


def test_a_renamed_row_that_lives_is_renamed(pushed: Stand) -> None:
    """As before."""
    api, _ = pushed.urls.values()
    execute(api, "UPDATE t SET name = 'rb' WHERE id = 1")
    replace(pushed, judged=False).repair("r2")
    assert live(pushed) == (["keep", "own", "rb"], ["h", "k"])
    assert not converged(pushed)  # the child's own row is reported
