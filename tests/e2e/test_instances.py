"""Instances that are missing in the API cell: pushed up whole or not at all, where that is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nova
import pytest
import sqlalchemy as sa
from deployment import Deploy, Deployment
from edges import MakeDatabase, Stand, add, execute, result, rows
from nova_main import instance_tables, make_instance_tables
from servers import Server, load, sql

from cellsync import rules

MINE = "pack: mine\nchanges: {instances: {on_missing: insert}}\n"
PACKS = Path(__file__).parents[2] / "docs" / "packs.rst"
TABLES = (
    "instances",
    "instance_extra",
    "instance_info_caches",
    "instance_system_metadata",
    "instance_metadata",
    "block_device_mapping",
)


# -- Releases ----------------------------------------------------------------------------------


def pushing(urls: Mapping[str, str], folder: Path) -> Stand:
    """Return these databases with the pack's rules of instances, and the change that has them pushed."""
    mine = folder / "mine.yaml"
    mine.write_text(MINE, encoding="utf-8")
    whole = rules.load(["nova-cells-v1", str(mine)])
    return Stand(urls, rules.select(whole, rules=["instances"], features=[]))


def filled(columns: Mapping[str, str], number: int, **given: Any) -> dict[str, Any]:
    """Return a live row that has a value in every column."""
    made: dict[str, Any] = {}
    for index, (name, kind) in enumerate(columns.items()):
        if kind.startswith("int"):
            made[name] = 100 * number + index
        elif kind.startswith("tinyint"):
            made[name] = 1
        elif kind == "datetime":
            made[name] = f"2016-01-02 03:04:{index:02}"
        else:
            made[name] = "admin" if kind.startswith("enum") else f"{name} {number} ü"
    return {**made, "deleted": 0, "deleted_at": None, **given}


@pytest.mark.parametrize("version", [216, 233, 254, 280, 302, 319])
def test_every_column_of_a_release_arrives(database: MakeDatabase, tmp_path: Path, version: int) -> None:
    """Havana, Icehouse, Juno, Kilo, Liberty, Mitaka: all but ids, the cell's path, and what holds secrets."""
    urls = {name: database(charset="utf8mb3") for name in ("api", "c1")}
    tables = instance_tables(version)
    for url in urls.values():
        execute(url, *make_instance_tables(version))
    add(urls["api"], "instances", {"uuid": "other", "deleted": 0, "cell_name": "api!c1"})
    add(urls["c1"], "instances", {"uuid": "other", "deleted": 0})
    for table, columns in tables.items():
        key = "uuid" if table == "instances" else "instance_uuid"
        place = {"cell_name": None} if table == "instances" else {}
        add(urls["c1"], table, filled(columns, 7, **{key: "u-1"}, **place))
    stand = pushing(urls, tmp_path)
    assert ("instance-extra" in {each.rule for each in result(stand.diff(), "c1").tables}) is (version >= 252)
    before = {table: rows(urls["api"], f"SELECT * FROM {table}") for table in tables}
    repaired = result(stand.repair("r1"), "c1")
    assert (repaired.problems, repaired.skipped, repaired.counts.applied) == ((), (), len(tables))
    for table in tables:
        key = "uuid" if table == "instances" else "instance_uuid"
        query = f"SELECT * FROM {table} WHERE {key} = 'u-1'"
        (below,), (above,) = rows(urls["c1"], query), rows(urls["api"], query)
        other = {name: above[name] for name in above if above[name] != below[name]}
        assert other.pop("id") != below["id"]
        assert other == {
            "instances": {"cell_name": "api!c1"},
            "block_device_mapping": {"connection_info": None},
        }.get(table, {})
    assert result(stand.diff(), "c1").tables[0].status.value == "in_step"
    assert stand.undo("r1", "u1").exit_code == 0
    assert {table: rows(urls["api"], f"SELECT * FROM {table}") for table in tables} == before


# -- The command -------------------------------------------------------------------------------


@pytest.fixture
def cells(deploy: Deploy) -> Deployment:
    """Give databases in which an instance of c1, with all that belongs to it, is missing in the parent."""
    made = deploy(variant=nova.Variant(drifted_instances=True))
    for table, columns in (
        ("instance_extra", {"flavor": "{}"}),
        ("instance_info_caches", {"network_info": "[]"}),
        ("instance_system_metadata", {"key": "image_os", "value": "bsd"}),
        ("instance_metadata", {"key": "role", "value": "db"}),
        ("block_device_mapping", {"device_name": "/dev/vda", "volume_id": "v1", "boot_index": 0}),
    ):
        add(made.urls["c1"], table, {"instance_uuid": nova.UUIDS["lost"], "deleted": 0, **columns})
    return made


def asked(cells: Deployment) -> Deployment:
    """Have it pushed."""
    (cells.folder / "mine.yaml").write_text(MINE, encoding="utf-8")
    return cells.configure(rules=("nova-cells-v1", "./mine.yaml"))


def test_without_being_asked_nothing_is_written_above(cells: Deployment) -> None:
    """The instance is reported; the journal of the parent stays as it is, too."""
    before = cells.checksums()["parent"]
    done = cells.repair("--rule", "instances")
    assert done.cell("c1")["changes"]["planned"] == 0
    (lost,) = [d for d in done.table("c1", "instances")["differences"] if d["kind"] == "missing"]
    assert (lost["action"], lost["key"]) == ("report", {"uuid": nova.UUIDS["lost"]})
    assert cells.checksums()["parent"] == before


def test_a_repair_shows_what_it_writes_above_and_an_undo_takes_it_back(cells: Deployment) -> None:
    """The plan names the tables; afterwards the quota is to be counted again."""
    asked(cells)
    before = cells.checksums()
    plan = cells.run("repair", "--dry-run", "c1", "--rule", "instances")
    assert plan.out.startswith("a repair would write 6 rows in parent; nothing was written\n")
    assert "6 changes to parent, in this order:" in plan.out
    assert [line.split()[2] for line in plan.out.splitlines() if " insert instance" in line] == [
        "instances",
        "instance-extra",
        "instance-info-cache",
        "instance-system-metadata",
        "instance-metadata",
        "instance-block-devices",
    ]
    assert cells.checksums() == before
    both = cells.run("repair", "--dry-run", "c1")
    assert re.match(r"a repair would write \d+ rows in c1 and parent; ", both.out)
    done = cells.repair("c1", "--rule", "instances")
    assert (done.cell("c1")["changes"], done.code) == ({**done.cell("c1")["changes"], "applied": 6}, 0)
    assert [notice.partition(":")[0] for notice in done.cell("c1")["notices"]] == [
        "have the quotas of the pushed instances' projects counted again in parent"
    ]
    above = "SELECT cell_name, deleted FROM instances WHERE uuid = :uuid"
    assert cells.sql("parent", above, uuid=nova.UUIDS["lost"]) == [("parent!c1", 0)]
    assert {cell: cells.checksums()[cell] for cell in nova.CHILDREN} == {
        cell: before[cell] for cell in nova.CHILDREN
    }
    undone = cells.json("undo", done.report["run"], "--yes")
    assert undone.code == 0
    assert cells.checksums() == before


@pytest.fixture
def narrow(cells: Deployment, server: Server) -> Iterator[Deployment]:
    """Give the cells as docs/packs.rst lets cellsync into them, without the rights on the six tables."""
    sql(server.url(), "CREATE USER 'narrow'@'127.0.0.1' IDENTIFIED BY 'narr0w'")
    for url in cells.urls.values():
        sql(server.url(), f"GRANT SELECT ON `{sa.make_url(url).database}`.* TO 'narrow'@'127.0.0.1'")
    urls = {
        cell: sa.make_url(url).set(username="narrow", password="narr0w").render_as_string(hide_password=False)
        for cell, url in cells.urls.items()
    }
    yield asked(cells).configure(urls=urls)
    sql(server.url(), "DROP USER 'narrow'@'127.0.0.1'")


def test_six_rights_are_enough_and_five_are_not(
    cells: Deployment, narrow: Deployment, server: Server
) -> None:
    """Those of docs/packs.rst: INSERT, and DELETE for an undo. With one too few nothing is written."""
    granted = re.findall(r"^ +GRANT (.+) ON nova\.(\w+) TO", PACKS.read_text(encoding="utf-8"), re.M)
    assert sorted(granted) == sorted(("INSERT, DELETE", table) for table in TABLES)
    parent = sa.make_url(cells.urls["parent"]).database
    asked(cells)
    load(
        cells.urls["parent"],
        cells.run("history", "--init", "--print-sql").out.replace("'cellsync'@", "'narrow'@"),
    )
    narrow.configure()
    before = cells.checksums()
    for table in TABLES[:-1]:
        sql(server.url(), f"GRANT INSERT ON `{parent}`.{table} TO 'narrow'@'127.0.0.1'")
    refused = narrow.repair("c1", "--rule", "instances")
    assert refused.code == 3, refused.said
    assert "block_device_mapping" in refused.out
    assert cells.checksums() == before
    sql(server.url(), f"GRANT INSERT ON `{parent}`.block_device_mapping TO 'narrow'@'127.0.0.1'")
    done = narrow.repair("c1", "--rule", "instances")
    assert done.cell("c1")["changes"]["applied"] == 6, done.said
    assert narrow.json("undo", done.report["run"], "--yes").code == 3
    for table in TABLES:
        sql(server.url(), f"GRANT DELETE ON `{parent}`.{table} TO 'narrow'@'127.0.0.1'")
    assert narrow.json("undo", done.report["run"], "--yes").code == 0
    assert cells.checksums() == before


def test_a_report_names_the_file_that_changes_the_pack(cells: Deployment) -> None:
    """Whoever reads it must know that the pack does not stand as it came."""
    report = asked(cells).json("report").report
    assert report["settings"]["rules"].endswith(", mine (0 rules, changes instances)")


def test_many_lost_instances_are_refused_with_their_number(cells: Deployment) -> None:
    """An API cell that has lost them, or is another one than it seems, is for people to look at."""
    asked(cells)
    add(cells.urls["c1"], "instances", *({"uuid": f"u-{n}", "deleted": 0, "host": "h"} for n in range(20)))
    before = cells.checksums()
    refused = cells.repair("c1", "--rule", "instances")
    assert refused.code == 3
    ((code, message),) = [(each["code"], each["message"]) for each in refused.cell("c1")["refusals"]]
    assert code == "limit"
    assert message.startswith("21 inserts ")
    assert "the limit of 5%" in message
    assert cells.checksums() == before
    waived = cells.repair("c1", "--rule", "instances", "--waive", "limit:instances")
    assert waived.cell("c1")["changes"]["applied"] == 21 + 5


def test_an_instance_that_cannot_go_up_whole_does_not_go_up(cells: Deployment) -> None:
    """Two rows for one device: which of them is right nobody can say."""
    asked(cells)
    device = {"device_name": "/dev/vda", "volume_id": "v1", "boot_index": 0, "deleted": 0}
    add(cells.urls["c1"], "block_device_mapping", {"instance_uuid": nova.UUIDS["lost"], **device})
    before = cells.checksums()
    done = cells.repair("c1", "--rule", "instances")
    ((rule, reason),) = [(each["rule"], each["reason"]) for each in done.cell("c1")["skipped"]]
    assert rule == "instances"
    assert "not all that comes with it can be made: instance-block-devices: 2 rows" in reason
    assert cells.checksums() == before
