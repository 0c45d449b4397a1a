"""A flavor that was deleted and made again under its flavorid has another id: the child gets the new one."""

from __future__ import annotations

from dataclasses import replace

import nova
import pytest
from deployment import Deployment
from replaying import Replayed, replay, way_back

FLAVORS = ("--feature", "flavors")
LIVE = "SELECT id, memory_mb FROM instance_types WHERE flavorid = 'prv-l' AND deleted = 0"
SPECS = (
    "SELECT instance_type_id, `key`, value FROM instance_type_extra_specs "
    "WHERE instance_type_id IN (7, 90) AND deleted = 0 ORDER BY `key`"
)
PROJECTS = (
    "SELECT instance_type_id, project_id FROM instance_type_projects "
    "WHERE instance_type_id IN (7, 90) AND deleted = 0"
)
MIGRATIONS = (
    "CREATE TABLE migrations (id int AUTO_INCREMENT PRIMARY KEY, created_at datetime, deleted int, "
    "status varchar(255), instance_uuid varchar(36), old_instance_type_id int, new_instance_type_id int)"
)
OLD = "SELECT COUNT(*) FROM instance_types WHERE id = 7 AND deleted = 7 AND deleted_at IS NOT NULL"


@pytest.fixture
def remade(cells: Deployment) -> Deployment:
    """Give cells in step, in whose parent the flavor prv-l was then deleted and made again, smaller."""
    for child in nova.CHILDREN:
        cells.sql(child, MIGRATIONS)
    cells.repair()
    # The oracle does not know rows that are replaced: these tests look at the tables.
    cells = replace(cells, judged=False)
    tables = {"instance_types": "id", "instance_type_extra_specs": "instance_type_id"}
    for table, column in {**tables, "instance_type_projects": "instance_type_id"}.items():
        gone = "deleted = id, deleted_at = UTC_TIMESTAMP()"
        cells.sql("parent", f"UPDATE {table} SET {gone} WHERE {column} = 7 AND deleted = 0")
    new = {"instance_type_id": 90}
    for table, row in (
        ("instance_types", nova.flavor(90, "priv.large", "prv-l", is_public=0, memory_mb=300)),
        ("instance_type_extra_specs", {**new, "key": "hw:new", "value": "yes"}),
        ("instance_type_projects", {**new, "project_id": "p-new"}),
    ):
        cells.sql("parent", nova.insert(table, row))
    return cells


def is_as_in_parent(cells: Deployment, child: str) -> bool:
    """Say whether the child has the new flavor with what belongs to it, and the old one as deleted."""
    same = all(cells.sql(child, each) == cells.sql("parent", each) for each in (LIVE, SPECS, PROJECTS))
    return same and cells.sql(child, OLD) == [(1,)]


def test_it_is_replaced_in_one_run_and_an_undo_restores_every_byte(remade: Deployment) -> None:
    """With its extra specs and projects; nothing is left to do, and the plan says what is done."""
    before = remade.checksums()
    planned = remade.run("diff", "c1", *FLAVORS)
    assert planned.code == 1
    assert "nothing in c1 uses id 7: the row is removed, and inserted with id 90" in planned.out
    done = remade.repair(*FLAVORS)
    assert done.code == 0, done.said
    assert all(is_as_in_parent(remade, child) for child in nova.CHILDREN)
    assert remade.run("diff", *FLAVORS).code == 0
    undone = remade.run("undo", done.report["run"], "--yes")
    assert undone.code == 0, undone.said
    assert remade.checksums() == before
    assert remade.repair(*FLAVORS).code == 0


def test_as_statements_it_is_the_same(remade: Deployment) -> None:
    """The client writes what a repair writes, and its way back restores all; nothing while it is in use."""
    before = remade.checksums()
    text = remade.run("repair", "c1", *FLAVORS, "--dry-run", "--format", "sql").out
    made = replay(remade.urls["c1"], text)
    assert made == Replayed(code=0, planned=made.planned, made=made.planned)
    assert is_as_in_parent(remade, "c1")
    assert remade.run("diff", "c1", *FLAVORS).code == 0
    back = replay(remade.urls["c1"], way_back(text))
    assert back == Replayed(code=0, planned=made.planned, made=made.planned)
    assert remade.checksums() == before
    remade.sql("c1", "UPDATE instances SET instance_type_id = 7 WHERE deleted = 0 LIMIT 1")
    before = remade.checksums()
    assert replay(remade.urls["c1"], text).made == 0
    assert remade.checksums() == before


IN_USE = {
    "an instance": (
        "UPDATE instances SET instance_type_id = 7 WHERE deleted = 0 LIMIT 1",
        "1 row of instances in c1 use its id by instance_type_id",
        "SELECT * FROM `instances` WHERE `instance_type_id` = 7 AND (deleted = 0);",
    ),
    "a resize that is not confirmed": (
        "INSERT INTO migrations (deleted, status, instance_uuid, old_instance_type_id, new_instance_type_id) "
        "VALUES (0, 'finished', 'u', 7, 2)",
        "1 row of migrations in c1 use its id by old_instance_type_id",
        "SELECT * FROM `migrations` WHERE `old_instance_type_id` = 7",
    ),
    "a deleted flavor that has the new id": (
        nova.insert("instance_types", nova.flavor(90, "gone", "gone", deleted=90)),
        "another row of instance_types in c1 has id 90",
        "SELECT * FROM `instance_types` WHERE `id` = 90;",
    ),
}


@pytest.mark.parametrize("case", IN_USE)
def test_in_use_it_stays_and_the_finding_says_what_differs_and_what_to_do(
    remade: Deployment, case: str
) -> None:
    """The other child gets it all the same."""
    statement, why, listing = IN_USE[case]
    remade.sql("c1", statement)
    before = remade.checksums()["c1"]
    done = remade.repair(*FLAVORS)
    assert done.code == 1
    [finding] = done.table("c1", "flavors")["findings"]
    assert finding["code"] == "preserved-id"
    assert "memory_mb is 2048 instead of 300" in finding["message"]
    assert why in finding["message"]
    assert finding["do"].startswith(listing)
    assert remade.checksums()["c1"] == before
    assert is_as_in_parent(remade, "c2")
    text = remade.run("diff", "c1", *FLAVORS).out
    assert "no differences" not in text.split("findings")[0].split("flavors:")[1].splitlines()[0]


def test_a_confirmed_resize_is_no_use(remade: Deployment) -> None:
    """Nor is an instance that was deleted."""
    for status in ("confirmed", "reverted", "error"):
        remade.sql(
            "c1",
            "INSERT INTO migrations (deleted, status, instance_uuid, old_instance_type_id) "
            f"VALUES (0, '{status}', 'u', 7)",
        )
    assert remade.repair(*FLAVORS).code == 0
    assert is_as_in_parent(remade, "c1")
