"""The pack nova-cells-v2 on databases that Nova and placement made: every fault is found, and no other.

What else needs that deployment is here too: it takes ten seconds to make.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment, Done
from faults import AGO, CELL_ID, FAULTS, Fault
from lab import CELLS, Lab, uuid
from servers import load

from cellsync import rules

Found = list[tuple[str, str, dict[str, str]]]

OWN = """
pack: own
rules:
  - {id: key-pairs, table: key_pairs, key: [user_id, name]}
"""


def found(done: Done) -> Found:
    """Return (code, cell, key) of all findings, each once: what is wrong in the parent is in every child."""
    listed = [
        (finding["code"], finding["cell"], finding["key"])
        for cell in done.report["cells"]
        for table in cell["tables"]
        for finding in table["findings"]
    ]
    return [each for place, each in enumerate(listed) if each not in listed[:place]]


def finding(done: Done, code: str) -> dict[str, Any]:
    """Return the finding of that code, the first one where several cells show it."""
    return next(
        finding
        for cell in done.report["cells"]
        for table in cell["tables"]
        for finding in table["findings"]
        if finding["code"] == code
    )


def test_the_cells_are_those_of_nova_api(lab: Lab, tmp_path: Path) -> None:
    """The topology is read from cell_mappings; the rules are not the pack's."""
    (tmp_path / "own.yaml").write_text(OWN)
    cloud = lab.cellsync(tmp_path, rules=["./own.yaml"])
    done = cloud.json("diff")
    assert [cell["cell"] for cell in done.report["cells"]] == ["cell0", "c1", "c2", "c3"], done.said
    assert done.code == 0


def test_nothing_is_found_where_nothing_is_wrong(lab: Lab, cloud: Deployment) -> None:
    """What is under way, what is not Nova's, and the marker of map_instances are no faults."""
    lab.manage("cell_v2", "map_instances", "--cell_uuid", lab.cell("c1"), "--max-count", "1", codes=[1])
    [(marker,)] = lab.sql(
        "api", "SELECT instance_uuid FROM instance_mappings WHERE project_id = 'INSTANCE_MIGRATION_MARKER'"
    )
    assert " " in marker
    lab.sql("api", "UPDATE instance_mappings SET created_at = created_at - INTERVAL 1 DAY")
    done = cloud.json("diff")
    assert (found(done), done.code) == ([], 0), done.said
    statuses = {(table["rule"], table["status"]) for cell in done.report["cells"] for table in cell["tables"]}
    assert statuses == {(each.id, "in_step") for each in rules.load(["nova-cells-v2"]).detectors}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.code)
def test_a_fault_is_found_with_its_text_and_its_command(lab: Lab, cloud: Deployment, fault: Fault) -> None:
    """And nothing else: one fault is one finding, in one cell, with the key that accept goes by."""
    fault.plant(lab)
    done = cloud.json("diff")
    assert found(done) == [(fault.code, fault.cell, dict(fault.key))], done.said
    assert done.code == 1
    told = finding(done, fault.code)
    way, _, where = fault.way.partition(" ")
    assert fault.says in told["message"]
    assert (told["do"], told["do_as"], told["do_in"]) == (fault.printed(lab), way, where or None)


def test_there_is_a_fault_for_every_detector() -> None:
    """One has a test of its own: cellsync.yaml and not a database is wrong there."""
    ids = [each.id for each in rules.load(["nova-cells-v2"]).detectors]
    assert sorted(ids) == sorted(["cell-without-mapping", *(fault.code for fault in FAULTS)])


def test_a_child_that_no_mapping_names_is_a_finding(lab: Lab, tmp_path: Path) -> None:
    """Everything else asks by that name, and would find nothing wrong."""
    cloud = Deployment(urls={"api": lab.urls["api"], "x1": lab.urls["c1"]}, folder=tmp_path)
    cloud = cloud.configure(rules=("nova-cells-v2",))
    done = cloud.json("diff", "--rule", "cell-without-mapping")
    assert found(done) == [("cell-without-mapping", "x1", {"name": "v2_c1"})]
    assert "no mapping in api, or more than one, is called x1" in done.out


# -- Everything at once, and what mends it ---------------------------------------------------------

TOGETHER = [fault for fault in FAULTS if fault.code != "aggregate-of-many-nodes"]
"""All but one, which is of the cell that another one disables."""

CODES = {"archive_deleted_rows": [0, 1], "audit": [4], "online_data_migrations": [0, 1]}
"""Exit codes of nova-manage: 1 is that something was archived, 4 that allocations were deleted."""


def mend(lab: Lab, told: dict[str, Any]) -> None:
    """Carry out what is printed, to the letter: commands by a shell, statements by the client."""
    if told["do_as"] == "sql":
        load(lab.urls[told["do_in"]], told["do"])
        return
    for command in told["do"].replace("&&", ";").split(";"):
        program, *arguments = shlex.split(command)
        assert program == "nova-manage"
        lab.manage(*arguments, codes=CODES.get(arguments[1], [0]))


@pytest.mark.slow
def test_all_faults_are_found_at_once_and_what_is_printed_mends_them(lab: Lab, cloud: Deployment) -> None:
    """Twenty-eight faults, in a deployment that Nova made; only what needs a running service is left."""
    for fault in TOGETHER:
        fault.plant(lab)
    done = cloud.json("diff")
    expected = [(fault.code, fault.cell, dict(fault.key)) for fault in TOGETHER]
    assert sorted(found(done), key=str) == sorted(expected, key=str), done.said
    assert done.code == 1
    assert cloud.repair().code == 1, "nothing is written, and what is found remains"

    lasting = {fault.code for fault in TOGETHER if fault.lasting}
    seen: list[str] = []
    while due := [each for each in _due(done, lasting) if each["do"] not in seen]:
        for told in due:
            if told["do"] not in seen:
                seen.append(told["do"])
                mend(lab, told)
        done = cloud.json("diff")
    assert {code for code, _, _ in found(done)} == lasting, done.said
    assert done.code == 1

    mend_by_hand(lab)
    done = cloud.json("diff")
    assert (found(done), done.code) == ([], 0), done.said


def _due(done: Done, lasting: Container[str]) -> list[dict[str, Any]]:
    """Return the findings that something printed mends, in the order of the pack: hosts before aggregates."""
    order = [each.id for each in rules.load(["nova-cells-v2"]).detectors]
    listed = [finding(done, code) for code, _, _ in found(done) if code not in lasting]
    return sorted(listed, key=lambda told: order.index(told["code"]))


def mend_by_hand(lab: Lab) -> None:
    """Do what running services, or people, do: placement's API, and what compute services write."""
    lab.sql("c2", "UPDATE services SET deleted = id WHERE host = 'twice'")
    lab.placement.set_aggregates(uuid("h2b"), [uuid("routed network")])
    lab.placement.call("DELETE", f"/resource_providers/{uuid('rebuilt before')}")
    lab.sql("api", "DELETE FROM aggregate_hosts WHERE host = 'zoned' ORDER BY id DESC LIMIT 1")
    lab.placement.set_aggregates(uuid("zoned"), [uuid("az-1")])
    for name in ("rebuilt", "unknown"):
        lab.placement.add_provider(name, uuid(name), VCPU=1)
    lab.manage("placement", "heal_allocations", "--instance", uuid("db"), "--skip-port-allocations")


def test_a_cell_that_cannot_be_reached_is_not_clean(lab: Lab, cloud: Deployment) -> None:
    """What asks all cells is not known then, and says which one did not answer; the others go on."""
    nowhere = "{scheme}://{username}@{hostname}:1/x"
    lab.sql("api", "UPDATE cell_mappings SET database_connection = :text WHERE name = 'c3'", text=nowhere)
    lab.sql("api", "DELETE FROM host_mappings WHERE host = 'h2b'")
    done = cloud.json("diff")
    assert done.code == 4
    assert [cell["status"] for cell in done.report["cells"]][-1] == "unreachable"
    assert ("host-unmapped-but-marked", "c2", {"host": "h2b"}) in found(done)
    table = done.table("c1", "host-in-two-cells")
    assert table["status"] == "incomplete"
    assert "c3 could not be asked" in table["error"]


def test_a_finding_can_be_accepted(lab: Lab, tmp_path: Path) -> None:
    """A cell that is disabled on purpose is no news."""
    accept = "accept: [{cell: api, rule: cell-disabled, key: {name: c3}, why: it is being emptied}]"
    lab.sql("api", "UPDATE cell_mappings SET disabled = 1 WHERE name = 'c3'")
    done = lab.cellsync(tmp_path, more=accept).run("diff")
    assert done.code == 0, done.said
    assert "disabled in cell_mappings of api: not compared" in done.out


def test_without_placement_its_detectors_are_left_out_and_said_to_be(lab: Lab, tmp_path: Path) -> None:
    """Not everybody may read that database."""
    cloud = lab.cellsync(tmp_path)
    text = cloud.config.read_text().replace(lab.urls["placement"], "")
    cloud.config.write_text(re.sub(r", databases: \{[^}]*\}", "", text))
    done = cloud.run("diff")
    assert done.code == 0, done.said
    assert "allocation-left is not looked for: cellsync.yaml names no database placement of api" in done.out


def test_more_instances_than_an_answer_may_have_are_compared(lab: Lab, cloud: Deployment) -> None:
    """Digests are compared first; of 25,000 instances only those are read that may differ."""
    name = "INSERT(INSERT(INSERT(INSERT(MD5(seq), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
    many, few = "FROM seq_1_to_25000", "FROM seq_1_to_24998"
    columns = "created_at, project_id, user_id"
    values = f"SELECT {AGO}, 'project', 'user'"
    lab.sql("c1", f"INSERT INTO instances ({columns}, deleted, uuid) {values}, 0, {name} {many}")
    mapped = f"{columns}, queued_for_delete, cell_id, instance_uuid"
    cell = CELL_ID.format("c1")
    lab.sql("api", f"INSERT INTO instance_mappings ({mapped}) {values}, 0, {cell}, {name} {few}")
    done = cloud.json("diff")
    assert [(code, cell) for code, cell, _ in found(done)] == [("instance-unmapped", "c1")] * 2, done.said


@pytest.mark.parametrize(
    ("above", "code", "said"),
    [
        (("nova_api", 62), 0, "all 4 cells are in step with api"),
        (
            ("nova", 319),
            4,
            "the database of api is one of nova (migrate_version says so), and pack nova-cells-",
        ),
        (("nova_api", 44), 4, "the schema version of api is 44, and pack nova-cells-v2 is for 61..87 or"),
    ],
)
def test_versions_before_alembic_are_told_apart(
    lab: Lab, cloud: Deployment, above: tuple[str, int], code: int, said: str
) -> None:
    """Stein's nova_api and its cells are accepted, each of its own repository; Mitaka and Pike are not."""
    versions = {"api": above, **dict.fromkeys(CELLS, ("nova", 391))}
    try:
        for name, (kind, number) in versions.items():
            lab.sql(name, "DELETE FROM alembic_version")
            lab.sql(name, "CREATE TABLE migrate_version (repository_id VARCHAR(250), version INT)")
            lab.sql(name, "INSERT INTO migrate_version VALUES (:kind, :number)", kind=kind, number=number)
        done = cloud.run("diff")
    finally:
        for name in versions:
            lab.sql(name, "DROP TABLE IF EXISTS migrate_version")
    assert done.code == code, done.said
    assert said in done.out
