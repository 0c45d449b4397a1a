"""Which releases a pack is for: it takes its own databases, and says why it does not take others.

The version tables are those that Nova's releases leave behind; the tables beside them are Nova's, too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nova_api
import pytest
import sqlalchemy as sa
from edges import MakeDatabase, Stand, add, execute, result
from nova_main import UNTIL_ICEHOUSE

from cellsync import rules
from cellsync.demo.database import connected
from cellsync.demo.nova import NOVA
from cellsync.model import CellFailure, HopStatus, Report, TableDiff
from cellsync.run import explaining

ALEMBIC = nova_api.ALEMBIC[-1]
MAIN_ALEMBIC = "8f2f1571d55b"
"""The first version that Alembic gave to Nova's main database."""

Versions = Mapping[str, object]
"""Version table -> version, as a database holds it."""


def stand(database: MakeDatabase, pack: str, tables: str, *versions: Versions, repository: str) -> Stand:
    """Return a parent and a child with the tables of a main database or of nova_api, and these versions."""
    urls = {name: database() for name in ("api", "c1")}
    for url, found in zip(urls.values(), versions, strict=True):
        if tables == "nova_api":
            execute(url, *nova_api.statements())
        else:
            with connected(sa.make_url(url)) as connection:
                NOVA.create_all(connection)
            execute(url, UNTIL_ICEHOUSE, "DROP TABLE migrate_version")
        if "migrate_version" in found:
            nova_api.migrated(url, int(str(found["migrate_version"])), repository)
        if "alembic_version" in found:
            nova_api.stamped(url, str(found["alembic_version"]))
    return Stand(urls, rules.load([pack]))


def refusal(report: Report) -> str:
    """Return why the child was not compared at all."""
    (cell,) = report.cells
    assert isinstance(cell, CellFailure), cell
    assert report.exit_code == 4
    return cell.error


MAIN = [{"migrate_version": version} for version in (216, 233, 280, 302, 319)]
API = [
    *({"migrate_version": version} for version in (20, 30, 44, 62, 67)),
    *({"alembic_version": name} for name in nova_api.ALEMBIC),
    # Upgraded, not new: until 2023 Alembic left the older table as it was.
    {"alembic_version": nova_api.ALEMBIC[0], "migrate_version": 67},
]


@pytest.mark.parametrize("versions", MAIN, ids=str)
def test_main_databases_are_taken_by_nova_cells_v1_alone(database: MakeDatabase, versions: Versions) -> None:
    """Havana to Mitaka; nova-api says of which kind they are."""
    mine = stand(database, "nova-cells-v1", "main", versions, versions, repository="nova")
    assert {type(each) for each in result(mine.diff(), "c1").tables} == {TableDiff}
    assert mine.diff().exit_code == 0
    for other in ("nova-api", "nova-cells-v2"):
        assert refusal(Stand(mine.urls, rules.load([other])).diff()) == (
            f"the database of api is one of nova (migrate_version says so), and pack {other} is for "
            "nova_api: use another pack, or give api its database of nova_api"
        )


@pytest.mark.parametrize("versions", API, ids=str)
def test_api_databases_are_taken_by_nova_api_alone(database: MakeDatabase, versions: Versions) -> None:
    """Newton to today, with numbers, with names, and with both; quotas are compared from Pike on."""
    mine = stand(database, "nova-api", "nova_api", versions, versions, repository="nova_api")
    tables = result(mine.diff(), "c1").tables
    assert {type(each) for each in tables} == {TableDiff}
    early = versions.get("migrate_version") in (20, 30)
    assert ("quotas" in {each.rule for each in tables}) is not early
    assert mine.diff().exit_code == 0
    other = refusal(Stand(mine.urls, rules.load(["nova-cells-v1"])).diff())
    assert "pack nova-cells-v1 is for" in other or "pack nova-cells-v1 compares equal versions" in other
    cells_v2 = Stand(mine.urls, rules.load(["nova-cells-v2"])).diff()
    if "migrate_version" in versions:
        assert refusal(cells_v2) == (
            "the database of c1 is one of nova_api (migrate_version says so), and pack nova-cells-v2 is for "
            "nova: use another pack, or give c1 its database of nova"
        )
    else:  # Alembic's names do not tell of which kind a child is: the tables that it lacks do
        assert cells_v2.exit_code == 4


NEWTON = "From Newton (334) on Nova keeps these objects in the database nova_api"


@pytest.mark.parametrize(
    ("versions", "why"),
    [
        (
            {"migrate_version": 334},
            "the schema version of api is 334, and pack nova-cells-v1 is for 216..319. ",
        ),
        (
            {"migrate_version": 161},
            "the schema version of api is 161, and pack nova-cells-v1 is for 216..319. ",
        ),
        (
            {"alembic_version": MAIN_ALEMBIC},
            "migrate_version is not there in api and not there in c1; pack nova-cells-v1 compares equal "
            "versions only. ",
        ),
    ],
    ids=["Newton", "Grizzly", "Xena"],
)
def test_main_databases_of_other_releases_are_refused_with_what_to_do(
    database: MakeDatabase, versions: Versions, why: str
) -> None:
    """Rows pushed there would keep Nova from creating any."""
    found = stand(database, "nova-cells-v1", "main", versions, versions, repository="nova")
    assert refusal(found.diff()).startswith(why + NEWTON)
    assert refusal(found.diff()).endswith("by the pack nova-api")


@pytest.mark.parametrize(
    ("parent", "child", "why"),
    [
        pytest.param(
            {"migrate_version": 7},
            {"migrate_version": 7},
            "the schema version of api is 7, and pack nova-api is for 20..87 or",
            id="before Newton",
        ),
        pytest.param(
            {"alembic_version": MAIN_ALEMBIC},
            {"alembic_version": MAIN_ALEMBIC},
            f"the schema version of api is {MAIN_ALEMBIC}, and pack nova-api is for 20..87 or",
            id="a main database of Alembic's",
        ),
        pytest.param(
            {"alembic_version": ALEMBIC},
            {"migrate_version": 67},
            f"alembic_version is {ALEMBIC} in api and not there in c1; pack nova-api compares equal versions",
            id="a child that was left behind",
        ),
        pytest.param(
            {"migrate_version": 62},
            {"migrate_version": 61},
            "migrate_version is 62 in api and 61 in c1; pack nova-api compares equal versions only",
            id="a child one release behind",
        ),
        pytest.param(
            {},
            {},
            "alembic_version is not there in api and not there in c1; pack nova-api compares equal versions",
            id="no version at all",
        ),
    ],
)
def test_versions_that_nova_api_does_not_know_are_refused(
    database: MakeDatabase, parent: Versions, child: Versions, why: str
) -> None:
    """The message has both versions, and what the pack is for."""
    found = stand(database, "nova-api", "nova_api", parent, child, repository="nova_api")
    assert refusal(found.diff()).startswith(why)


def test_a_child_with_a_database_of_another_kind_is_refused(database: MakeDatabase) -> None:
    """Its number would do: migrate_version 62 of a main database is not that of nova_api."""
    found = stand(
        database,
        "nova-api",
        "nova_api",
        {"migrate_version": 62},
        {"migrate_version": 62},
        repository="nova_api",
    )
    execute(found.urls["c1"], "UPDATE migrate_version SET repository_id = 'nova'")
    assert refusal(found.diff()).startswith("the database of c1 is one of nova (migrate_version says so)")


def test_every_feature_of_nova_api_is_explained_step_by_step(database: MakeDatabase) -> None:
    """The queries run on its tables, and the first missing thing is the one that was taken away."""
    version = {"alembic_version": ALEMBIC}
    mine = stand(database, "nova-api", "nova_api", version, version, repository="nova_api")
    for url in mine.urls.values():
        add(url, "cell_mappings", {"id": 1, "uuid": "u-cell"})
        add(url, "host_mappings", {"cell_id": 1, "host": "h1"})
        add(url, "aggregates", {"id": 4, "name": "east", "uuid": "u-east"})
        add(url, "aggregate_metadata", {"aggregate_id": 4, "key": "availability_zone", "value": "az-east"})
        add(url, "aggregate_hosts", {"aggregate_id": 4, "host": "h1"})
    request = mine.request("explain", "e")
    for feature in mine.rules.packs[0].features:
        (cell,) = explaining.explain(request, feature.name).cells
        statuses = {found.needs: found.status for found in cell.found}
        assert set(statuses.values()) <= {HopStatus.OK, HopStatus.UNKNOWN}, (feature.name, statuses)
        assert cell.first_missing is None
    execute(
        mine.urls["c1"],
        "DELETE FROM host_mappings",
        "INSERT INTO host_mappings VALUES (NULL, NULL, 7, 1, 'H1')",
    )
    (cell,) = explaining.explain(request, "availability-zones").cells
    assert cell.first_missing is not None
    missing = cell.found[cell.first_missing - 1]
    assert (missing.evidence, missing.needs) == (
        "h1",
        "every host of a zone is mapped to a cell of c1, spelled the same to the byte",
    )
    assert (
        missing.do == "mend the host's name in the aggregate, or run nova-manage cell_v2 discover_hosts in c1"
    )


def test_all_packs_are_listed_though_they_have_rules_of_the_same_names(tmp_path: Path) -> None:
    """Where nothing says which packs are in use; a rule is then shown from each pack that has it."""

    def cellsync(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cellsync", "rules", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    heads = [line.partition(":")[0] for line in cellsync("list").splitlines() if not line.startswith(" ")]
    assert heads == list(rules.packs())
    assert [line.partition(":")[0] for line in cellsync("validate").splitlines()] == heads
    shown = [line for line in cellsync("show", "key-pairs").splitlines() if line.startswith("key-pairs (")]
    assert [line.partition("(")[2].partition(",")[0] for line in shown] == ["nova-api", "nova-cells-v1"]
