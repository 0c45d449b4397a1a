"""Twenty children at once: what befalls one of them is said of it, and the others are repaired."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from deployment import Deployment, Done
from edges import add, execute
from servers import PrivateServer, Server, sql
from test_peers import holding

RULES = """
pack: fleet
why: a small stand-in for nova-cells-v1
requires: {equal_versions: migrate_version}
rules:
  - {table: aggregates, key: [name]}
  - {table: aggregate_metadata, key: [aggregate_id, key], references: {aggregate_id: aggregates}}
"""
TABLES = (
    "CREATE TABLE migrate_version (repository_id varchar(250) PRIMARY KEY, version int)",
    "CREATE TABLE aggregates (id int PRIMARY KEY AUTO_INCREMENT, name varchar(255))",
    "CREATE TABLE aggregate_metadata (id int PRIMARY KEY AUTO_INCREMENT, aggregate_id int NOT NULL, "
    "`key` varchar(255), value varchar(255), FOREIGN KEY (aggregate_id) REFERENCES aggregates (id))",
)
CHILDREN = tuple(f"c{number:02}" for number in range(1, 21))
DOWN, READ_ONLY, OTHER_VERSION, LOCKED = "c03", "c08", "c12", "c20"
WELL = tuple(name for name in CHILDREN if name not in (DOWN, READ_ONLY, OTHER_VERSION, LOCKED))
METADATA = "SELECT name, `key`, value FROM aggregates a JOIN aggregate_metadata m ON m.aggregate_id = a.id"


@dataclass(frozen=True)
class Fleet:
    """The deployment, its troubles included, and the connection that holds the lock of one child."""

    cells: Deployment
    urls: Mapping[str, str]
    """Where the databases really are."""
    holder: int

    def metadata(self, child: str) -> list[tuple[object, ...]]:
        """Return what a child knows of its aggregates."""
        return sql(self.urls[child], METADATA)


@pytest.fixture
def fleet(
    database: Callable[..., str],
    servers: Mapping[str, Server],
    server_with: Callable[..., PrivateServer],
    tmp_path: Path,
) -> Iterator[Fleet]:
    """Twenty children on four servers: one down, one read-only, one of another version, one locked."""
    read_only = server_with("--local-infile=0")
    urls = {"api": database(servers["parent"])}
    for number, name in enumerate(CHILDREN):
        shared = servers[("parent", "c1", "c2")[number % 3]]
        urls[name] = database(read_only if name == READ_ONLY else shared)
    for url in urls.values():
        execute(url, *TABLES, "INSERT INTO migrate_version VALUES ('nova', 319)")
    add(urls["api"], "aggregates", {"id": 7, "name": "east"})
    add(urls["api"], "aggregate_metadata", {"aggregate_id": 7, "key": "availability_zone", "value": "az1"})
    execute(urls[OTHER_VERSION], "UPDATE migrate_version SET version = 318")
    schema = sa.make_url(urls[LOCKED]).database
    sql(read_only.url(), "SET GLOBAL read_only = 1")
    try:
        # Bound and not listening: a port that is closed, and stays so.
        lock = f"SELECT GET_LOCK('cellsync\\:{schema}', 0)"
        with socket.socket() as closed, holding(urls[LOCKED], lock) as holder:
            closed.bind(("127.0.0.1", 0))
            lost = sa.make_url(urls[DOWN]).set(port=closed.getsockname()[1])
            reached = {**urls, DOWN: lost.render_as_string(hide_password=False)}
            cells = Deployment(urls=reached, folder=tmp_path).rule_file(RULES)
            yield Fleet(cells, urls, int(holder.execute(sa.text("SELECT CONNECTION_ID()")).scalar() or 0))
    finally:
        sql(read_only.url(), "SET GLOBAL read_only = 0")


def statuses(done: Done) -> dict[str, str]:
    """Return child -> status."""
    return {cell["cell"]: cell["status"] for cell in done.report["cells"]}


def test_sixteen_are_repaired_and_four_are_named(fleet: Fleet) -> None:
    """Each of the four with its reason; exit 5, the highest; twenty do not take twenty times as long."""
    started = time.monotonic()
    done = fleet.cells.repair()
    assert time.monotonic() - started < 30
    assert done.code == 5
    assert statuses(done) == {
        **dict.fromkeys(WELL, "repaired"),
        DOWN: "unreachable",
        READ_ONLY: "refused",
        OTHER_VERSION: "incomplete",
        LOCKED: "incomplete",
    }
    assert len(WELL) == 16
    for child in WELL:
        counts = {"planned": 2, "applied": 2, "conflicts": 0, "failed": 0}
        assert done.cell(child)["changes"] == counts
        assert fleet.metadata(child) == [("east", "availability_zone", "az1")]
    for child in (DOWN, READ_ONLY, OTHER_VERSION, LOCKED):
        assert fleet.metadata(child) == []

    assert "127.0.0.1" in done.cell(DOWN)["error"] and "***" in done.cell(DOWN)["error"]
    refusals = done.cell(READ_ONLY)["refusals"]
    assert {refusal["code"] for refusal in refusals} == {"read-only"}
    assert "migrate_version is 319 in api and 318 in c12" in done.cell(OTHER_VERSION)["error"]
    assert done.cell(LOCKED)["locked"] is True
    assert str(fleet.holder) in done.cell(LOCKED)["problems"][0]

    text = fleet.cells.run("repair", "--yes")
    assert text.code == 5
    for child, why in {
        DOWN: "could not be reached",
        READ_ONLY: "read-only",
        OTHER_VERSION: "318",
        LOCKED: str(fleet.holder),
    }.items():
        assert child in text.out
        assert why in text.out


def test_a_second_run_finds_the_sixteen_done_and_the_four_as_they_were(fleet: Fleet) -> None:
    """A run from cron writes nothing twice; without the locked one it ends with 4: two are not compared."""
    fleet.cells.repair(*WELL)
    again = fleet.cells.repair(*WELL)
    assert (again.code, set(statuses(again).values())) == (0, {"in_step"})
    looked = fleet.cells.json("diff")
    assert looked.code == 4
    assert statuses(looked) == {
        **dict.fromkeys(WELL, "in_step"),
        DOWN: "unreachable",
        READ_ONLY: "differs",
        OTHER_VERSION: "incomplete",
        LOCKED: "differs",
    }


def test_the_undo_of_the_sixteen_says_who_could_not_be_asked(fleet: Fleet) -> None:
    """All sixteen are taken back; the one that is down may have been written too: exit 4."""
    run = fleet.cells.repair().report["run"]
    done = fleet.cells.json("undo", run, "--yes")
    assert done.code == 4
    assert done.cell(DOWN)["status"] == "unreachable"
    assert all(fleet.metadata(child) == [] for child in WELL)
