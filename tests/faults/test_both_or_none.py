"""cells create: both rows are written or none, whatever fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from deployment import Deployment
from edges import execute
from galera import Cluster
from proxy import Fault, Proxy
from registered import CELLS_TABLE, brokers_of, configured, rows, with_tables
from servers import AnyServer, sql

pytestmark = pytest.mark.slow

PAIR = ("parent", "c1")
BROKERS = {name: f"rabbit://guest:guest@127.0.0.1:1/{name}" for name in PAIR}
CREATE = ("cells", "create", "c1", "--waive", "broker", "--yes")
WRITES = r"^(BEGIN|START|COMMIT|INSERT|UPDATE)"


@pytest.fixture
def apart(servers: Mapping[str, AnyServer], database: Callable[..., str], tmp_path: Path) -> Deployment:
    """Give a parent and a child on two servers that are not registered; their brokers are names only."""
    urls = {name: database(servers[name], charset="utf8mb3") for name in PAIR}
    version = "CREATE TABLE migrate_version (repository_id varchar(250) PRIMARY KEY, version int)"
    for url in urls.values():
        execute(url, version, "INSERT INTO migrate_version VALUES ('nova', 302)")
    return brokers_of(with_tables(Deployment(urls=urls, folder=tmp_path).configure()), **BROKERS)


@pytest.fixture
def through(apart: Deployment) -> Iterator[tuple[Deployment, dict[str, Proxy]]]:
    """Give the same cells, the parent and c1 behind a proxy each; the journals are made."""
    assert apart.run(*CREATE).code == 0
    forget(apart)
    with ExitStack() as leaving:
        proxies = {name: leaving.enter_context(Proxy(apart.urls[name])) for name in PAIR}
        config: dict[str, Mapping[str, Any]] = {
            name: {"database": proxies[name].url, "broker": BROKERS[name]} for name in PAIR
        }
        yield configured(apart, **config), proxies


def forget(cells: Deployment) -> None:
    """Remove all rows again."""
    for name in PAIR:
        cells.sql(name, "DELETE FROM cells")


def there(cells: Deployment) -> tuple[int, int]:
    """Return how many live rows the parent and c1 have."""
    return len(rows(cells, "parent", "deleted = 0")), len(rows(cells, "c1", "deleted = 0"))


# -- Both or none --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("struck", PAIR)
def test_a_connection_lost_at_any_write_leaves_both_rows_or_none(
    through: tuple[Deployment, dict[str, Proxy]], struck: str, fault: Fault
) -> None:
    """On either side, before the server has the command, or before its answer is there."""
    cells, proxies = through
    proxies[struck].arm(holding=WRITES)
    assert cells.run(*CREATE).code == 0
    number = len(proxies[struck].commands)
    assert number > 4
    for at in range(1, number + 1):
        forget(cells)
        proxies[struck].arm(at, fault, holding=WRITES)
        done = cells.run(*CREATE)
        proxies[struck].arm()
        made = there(cells)
        assert made in ((1, 1), (0, 0)), (at, done.said)
        unread = "could not be recorded" in done.said or "could not be read again" in done.said
        assert (made == (1, 1)) is (done.code == 0) or unread, (at, done.said)


def commit_of_the_row(proxy: Proxy, statement: str = "INSERT INTO") -> int:
    """Return which COMMIT of a clean run, counted from 1, was of the row of the register."""
    texts = proxy.commands
    at = next(place for place, text in enumerate(texts) if text.startswith(f"{statement} `cells`"))
    return 1 + sum(text == "COMMIT" for text in texts[:at])


def test_a_second_commit_that_fails_takes_the_first_one_back(
    through: tuple[Deployment, dict[str, Proxy]],
) -> None:
    """The parent's server is gone at its COMMIT, after the child's: no row is left, and it is said."""
    cells, proxies = through
    parent = proxies["parent"]
    parent.arm(holding=r"^COMMIT$|^INSERT INTO `cells`")
    assert cells.run(*CREATE).code == 0
    forget(cells)

    def vanish() -> None:
        parent.refuse()
        parent.cut()

    parent.arm_action(commit_of_the_row(parent), vanish, holding="^COMMIT$")
    done = cells.run(*CREATE)
    parent.listen()
    assert there(cells) == (0, 0), done.said
    assert done.code == 4
    assert "it was written and taken back by run" in done.said
    assert "whether it was written is not known: cellsync cells list shows it" in done.said
    undone = cells.json("history").report["runs"]
    assert [run["verb"] for run in undone][:2] == ["undo", "cells create"]
    assert cells.run(*CREATE).code == 0
    assert there(cells) == (1, 1)


@pytest.mark.parametrize("refusing", PAIR)
def test_a_journal_that_is_refused_stops_both_sides(apart: Deployment, refusing: str) -> None:
    """Its version is newer: exit code 3, and why on both sides; nothing is written, no run is left open."""
    assert apart.run(*CREATE).code == 0
    forget(apart)
    apart.sql(refusing, "INSERT INTO cellsync.format VALUES (99)")
    try:
        done = apart.run(*CREATE)
    finally:
        apart.sql(refusing, "DELETE FROM cellsync.format WHERE version = 99")
    assert (done.code, there(apart)) == (3, (0, 0)), done.said
    assert "was written by a newer cellsync" in done.said
    assert f"it is written together with {refusing} or not at all, and {refusing} cannot be" in done.said
    assert apart.run(*CREATE).code == 0


@pytest.mark.parametrize("refusing", PAIR)
def test_a_row_that_one_server_does_not_take_is_written_on_neither_side(
    apart: Deployment, refusing: str
) -> None:
    """A trigger refuses it."""
    apart.sql(
        refusing,
        "CREATE TRIGGER no_cells BEFORE INSERT ON cells FOR EACH ROW SIGNAL SQLSTATE '45000' "
        "SET MESSAGE_TEXT = 'not here'",
    )
    done = apart.run(*CREATE)
    assert (done.code, there(apart)) == (4, (0, 0)), done.said
    assert "not here" in done.said
    assert f"{refusing} was not written" in done.said
    apart.sql(refusing, "DROP TRIGGER no_cells")
    assert apart.run(*CREATE).code == 0
    assert there(apart) == (1, 1)


@pytest.mark.parametrize("refusing", PAIR)
def test_a_row_that_cannot_be_deleted_stays_on_both_sides(apart: Deployment, refusing: str) -> None:
    """A child that is half deleted is as bad as one that is half registered."""
    assert apart.run(*CREATE).code == 0
    apart.sql(
        refusing,
        "CREATE TRIGGER kept BEFORE UPDATE ON cells FOR EACH ROW SIGNAL SQLSTATE '45000' "
        "SET MESSAGE_TEXT = 'not here'",
    )
    done = apart.run("cells", "delete", "c1", "--yes")
    assert (done.code, there(apart)) == (4, (1, 1)), done.said
    apart.sql(refusing, "DROP TRIGGER kept")
    assert apart.run("cells", "delete", "c1", "--yes").code == 0
    assert there(apart) == (0, 0)


@pytest.mark.parametrize("refusing", PAIR)
def test_an_undo_of_a_registration_is_made_on_both_sides_or_on_none(apart: Deployment, refusing: str) -> None:
    """As the registration was."""
    assert apart.run(*CREATE).code == 0
    run = apart.json("history").report["runs"][0]["run"]
    apart.sql(
        refusing,
        "CREATE TRIGGER kept BEFORE DELETE ON cells FOR EACH ROW SIGNAL SQLSTATE '45000' "
        "SET MESSAGE_TEXT = 'not here'",
    )
    assert apart.run("undo", run, "--yes").code == 4
    assert there(apart) == (1, 1)
    apart.sql(refusing, "DROP TRIGGER kept")
    assert apart.run("undo", run, "--yes").code == 0
    assert there(apart) == (0, 0)


def test_the_parents_row_comes_last_and_goes_first(
    through: tuple[Deployment, dict[str, Proxy]],
) -> None:
    """Between the two commits the parent never sends to a child that cannot answer it."""
    cells, proxies = through
    seen: list[tuple[int, int]] = []
    delete = ("cells", "delete", "c1", "--yes")
    for command, late, row in ((CREATE, "parent", "INSERT INTO"), (delete, "c1", "UPDATE")):
        if command is delete:
            assert cells.run(*CREATE).code == 0
        proxies[late].arm(holding=f"^COMMIT$|^{row} `cells`")
        assert cells.run(*command).code == 0
        forget(cells)
        if command is delete:
            assert cells.run(*CREATE).code == 0
        at = commit_of_the_row(proxies[late], row)
        proxies[late].arm_action(at, lambda: seen.append(there(cells)), holding="^COMMIT$")
        assert cells.run(*command).code == 0
        forget(cells)
    assert seen == [(0, 1), (0, 1)]


def test_a_lock_that_another_run_holds_stops_both_sides(apart: Deployment) -> None:
    """Nothing is written in the database whose lock was to be had."""
    url = sa.make_url(apart.urls["c1"])
    holder = pymysql.connect(
        host=url.host, port=url.port or 3306, user=url.username, password=str(url.password or "")
    )
    with holder, holder.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (f"cellsync:{url.database}",))
        done = apart.run(*CREATE)
    assert (done.code, there(apart)) == (5, (0, 0)), done.said
    assert "another cellsync run writes to this database" in done.said


def test_sigkill_between_the_commits_leaves_a_half_that_is_named(
    through: tuple[Deployment, dict[str, Proxy]],
) -> None:
    """By cells check (exit code 4) and cells list; create makes the other half."""
    cells, proxies = through
    parent = proxies["parent"]
    parent.arm(holding=r"^COMMIT$|^INSERT INTO `cells`")
    assert cells.run(*CREATE).code == 0
    forget(cells)
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            time.sleep(0.01)
        os.kill(killed[0], signal.SIGKILL)
        parent.cut()

    parent.arm_action(commit_of_the_row(parent), kill, holding="^COMMIT$")
    code = "from cellsync.cli import main; main()"
    command = [sys.executable, "-c", code, "-c", str(cells.config), *CREATE]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        killed.append(process.pid)
        assert process.wait(60) == -signal.SIGKILL
    assert there(cells) == (0, 1)
    done = cells.run("cells", "check", "--timeout", "1", "--format", "json")
    said = "parent has no row for c1: c1 is half registered, and requests do not reach c1"
    assert (done.code, said in done.cell("c1")["half_registered"]) == (4, True)
    assert said in cells.run("cells", "check", "--timeout", "1").out
    listed = cells.run("cells", "list")
    assert (listed.code, said in listed.out) == (1, True)
    again = cells.run(*CREATE)
    assert (again.code, there(cells)) == (0, (1, 1)), again.said
    assert cells.json("cells", "list").report["missing"][:1] != [said]


def test_both_rows_are_written_in_two_schemas_of_one_galera_cluster(galera: Cluster, tmp_path: Path) -> None:
    """Through two nodes, and through one: what a run holds there does not stand in its own way."""
    galera.recover()
    schemas = {name: f"both_{name}" for name in PAIR}
    version = "CREATE TABLE migrate_version (repository_id varchar(250) PRIMARY KEY, version int)"
    with ExitStack() as leaving:
        for schema in schemas.values():
            sql(galera.nodes[0].url(), f"CREATE DATABASE {schema} CHARACTER SET utf8mb3")
            leaving.callback(sql, galera.nodes[0].url(), f"DROP DATABASE {schema}")
        leaving.callback(sql, galera.nodes[0].url(), "DROP DATABASE IF EXISTS cellsync")
        galera.settle()
        for node in (1, 0):
            places = {"parent": galera.nodes[0], "c1": galera.nodes[node]}
            urls = {
                name: places[name].url(schema).render_as_string(hide_password=False)
                for name, schema in schemas.items()
            }
            cells = Deployment(urls=urls, folder=tmp_path).configure()
            if node == 1:
                for url in urls.values():
                    execute(url, version, "INSERT INTO migrate_version VALUES ('nova', 302)", CELLS_TABLE)
                galera.settle()
            brokers_of(cells, **BROKERS)
            done = cells.run(*CREATE)
            assert (done.code, there(cells)) == (0, (1, 1)), done.said
            undone = cells.run("undo", cells.json("history").report["runs"][0]["run"], "--yes")
            assert (undone.code, there(cells)) == (0, (0, 0)), undone.said
