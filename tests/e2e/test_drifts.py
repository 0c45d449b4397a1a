"""Every known drift of Nova cells v1, planted on MariaDB: what says so, in which words, and what mends it.

Where the remedy is SQL, it is run as it stands, and the finding is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import nova
import pytest
from deployment import Deployment
from servers import load

Found = tuple[str, str, str]
"""The cell whose rows are wrong, what is wrong, and what to do."""

C1 = "b511a45a-0000-4000-8000-0000000000c1"
C2 = "b511a45a-0000-4000-8000-0000000000c2"


def ago(**time: float) -> str:
    """Return a time that long ago, as a column holds it."""
    return f"{datetime.now(timezone.utc) - timedelta(**time):%Y-%m-%d %H:%M:%S}"


def found(cells: Deployment, detector: str, *scope: str) -> list[Found]:
    """Return what a detector finds, each finding once; it must not be incomplete."""
    done = cells.json("diff", *scope, "--rule", detector)
    assert done.code in (0, 1), done.said
    tables = [table for cell in done.report["cells"] for table in cell["tables"] if table["rule"] == detector]
    findings = [(each["cell"], each["message"], each["do"]) for table in tables for each in table["findings"]]
    assert (done.code == 1) or not findings
    text = cells.run("diff", *scope, "--rule", detector).out
    assert all(message in text and do in text for _, message, do in findings)
    return list(dict.fromkeys(findings))


def mend(cells: Deployment, detector: str, *, rounds: int = 1) -> None:
    """Run the SQL of all findings where it is to be run, and hold that nothing is found any more.

    With ``rounds``, what is found then is mended too, so many times: the copies of what was wrong above.
    """
    for _ in range(rounds):
        _mend(cells, detector)
    assert found(cells, detector) == []


def _mend(cells: Deployment, detector: str) -> None:
    done = cells.json("diff", "--rule", detector)
    remedies = {
        (each["do_in"], each["do"])
        for cell in done.report["cells"]
        for table in cell["tables"]
        for each in table["findings"]
        if each["do_as"] == "sql"
    }
    assert remedies
    for cell, statements in remedies:
        load(cells.urls[cell], statements)


def plant(cells: Deployment, rows: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]) -> None:
    """Insert rows: cell -> (table, row)."""
    for cell, inserts in rows.items():
        for table, row in inserts:
            cells.sql(cell, nova.insert(table, row).replace(":", "\\:"))


@pytest.fixture
def mended(cells: Deployment) -> Deployment:
    """Return the ordinary deployment, repaired."""
    assert cells.repair().code == 1, "local-only is reported"
    return cells


def test_a_sound_deployment_has_no_findings(mended: Deployment) -> None:
    """No detector invents anything, and all of them could look."""
    done = mended.json("diff")
    tables = [table for cell in done.report["cells"] for table in cell["tables"]]
    detectors = [table for table in tables if table["detector"]]
    assert len(detectors) == 2 * 14
    assert {table["status"] for table in detectors} == {"in_step"}
    assert done.findings() == []


# -- Hosts, zones and services ------------------------------------------------------------------


def test_a_host_in_two_zones(mended: Deployment) -> None:
    """In the parent, in either spelling; then the copies in the child, which a repair only reports."""
    plant(
        mended,
        {
            "parent": [
                ("aggregate_hosts", {"id": 91, "aggregate_id": 1, "host": "compute-1-4"}),
                ("aggregate_metadata", {"aggregate_id": 4, "key": "availability_zone", "value": "az-plain"}),
                ("aggregate_hosts", {"id": 92, "aggregate_id": 4, "host": "parent!c1@compute-1-1"}),
            ]
        },
    )
    mended.repair()
    sql = (
        "UPDATE aggregate_hosts SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE id = {} AND deleted = 0"
    )
    says = "host {} is in the availability zones {} in parent, last by aggregate {}"
    assert found(mended, "host-in-two-zones") == [
        ("parent", says.format("compute-1-1", "az-east and az-plain", "plain"), sql.format(92)),
        ("parent", says.format("compute-1-4", "az-east and az-plain", "east"), sql.format(91)),
    ]
    mend(mended, "host-in-two-zones", rounds=2)


def test_a_host_in_a_zone_of_its_cell_besides(mended: Deployment) -> None:
    """An aggregate that only the child has is mended there."""
    plant(
        mended,
        {
            "c2": [
                ("aggregate_metadata", {"aggregate_id": 1, "key": "availability_zone", "value": "az-local"}),
                ("aggregate_hosts", {"id": 91, "aggregate_id": 1, "host": "compute-2-1"}),
            ]
        },
    )
    ((cell, message, do),) = found(mended, "host-in-two-zones")
    assert cell == "c2"
    assert message == (
        "host compute-2-1 is in the availability zones az-local and az-west in c2, "
        "last by aggregate local-only"
    )
    assert "WHERE id = 91 AND" in do
    mend(mended, "host-in-two-zones")


def test_a_host_that_differs_by_case(mended: Deployment) -> None:
    """The parent's spelling was pushed: both are wrong, and both are told."""
    plant(
        mended,
        {"parent": [("aggregate_hosts", {"id": 91, "aggregate_id": 5, "host": "parent!c1@Compute-1-5"})]},
    )
    mended.repair()
    ((number,),) = mended.sql("c1", "SELECT id FROM aggregate_hosts WHERE BINARY host = 'Compute-1-5'")
    says = "host {} of aggregate empty-az in {} runs as compute-1-5: the scheduler does not find it"
    sql = "UPDATE aggregate_hosts SET host = '{}' WHERE id = {} AND deleted = 0"
    assert found(mended, "host-differs-by-case") == [
        ("c1", says.format("Compute-1-5", "c1"), sql.format("compute-1-5", number)),
        ("parent", says.format("parent!c1@Compute-1-5", "parent"), sql.format("parent!c1@compute-1-5", 91)),
    ]
    mend(mended, "host-differs-by-case")
    assert mended.json("diff", "c1", "--rule", "aggregate-hosts").code == 0


def test_a_plain_host_of_another_case_is_an_orphan(mended: Deployment) -> None:
    """The rule says so, and the detector does not say it again."""
    plant(mended, {"parent": [("aggregate_hosts", {"aggregate_id": 5, "host": "Compute-1-5"})]})
    assert found(mended, "host-differs-by-case") == []
    done = mended.json("diff", "c1", "--rule", "aggregate-hosts")
    ((_, code, message),) = done.findings("aggregate-hosts")
    assert code == "orphan"
    assert "aggregate_hosts.host 'Compute-1-5' in parent belongs to no child" in message


@pytest.mark.parametrize("twin", [False, True])
def test_a_prefixed_host_in_a_child(mended: Deployment, twin: bool) -> None:
    """Its path goes; where the plain name is there already, the row goes."""
    aggregate = "SELECT id FROM aggregates WHERE name = 'east' AND deleted = 0"
    ((number,),) = mended.sql("c1", aggregate)
    host = "compute-1-1" if twin else "compute-1-5"
    plant(
        mended, {"c1": [("aggregate_hosts", {"id": 91, "aggregate_id": number, "host": f"parent!c1@{host}"})]}
    )
    ((cell, message, do),) = found(mended, "prefixed-host")
    assert cell == "c1"
    assert message == (
        f"host parent!c1@{host} of aggregate east in c1 has the path of a cell: "
        f"the scheduler knows it as {host}"
    )
    assert do.startswith(
        f"UPDATE IGNORE aggregate_hosts SET host = '{host}' WHERE id = 91 AND deleted = 0; UPDATE"
    )
    mend(mended, "prefixed-host")
    live = mended.sql(
        "c1", f"SELECT id = 91 FROM aggregate_hosts WHERE host = '{host}' AND deleted = 0 ORDER BY 1"
    )
    assert live == ([(0,), (0,)] if twin else [(1,)]), "compute-1-1 is in east and in ssd"


def test_a_fake_service_of_a_host_that_is_gone(mended: Deployment) -> None:
    """Rows of hosts that run are as they must be, plain or with the path of their cell."""
    services = (
        "compute-1-1",
        "parent!c2@compute-2-1",
        "parent!c1@compute-2-1",
        "compute-9-9",
        "parent!c1!c3@deep",
    )
    rows = [
        ("services", {"id": 90 + number, "host": host, "binary": "nova-compute", "report_count": 0})
        for number, host in enumerate(services)
    ]
    plant(mended, {"parent": rows})
    says = (
        "parent has a nova-compute on {}, which runs in no child: "
        "it lets requests for its zone through, and they fail"
    )
    sql = "UPDATE services SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE id = {} AND deleted = 0"
    assert found(mended, "fake-service") == [
        ("parent", says.format("compute-9-9"), sql.format(93)),
        ("parent", says.format("parent!c1@compute-2-1"), sql.format(92)),
    ]
    mend(mended, "fake-service")


def test_a_child_that_is_away_leaves_the_others_in_step(mended: Deployment) -> None:
    """Where there is nothing to ask it about, it had nothing to tell; else nobody says that all is well."""
    mended.sql("c1", "UPDATE migrate_version SET version = 319")
    assert mended.json("diff", "--rule", "fake-service").cell("c2")["status"] == "in_step"
    plant(mended, {"parent": [("services", {"host": "h", "binary": "nova-compute", "report_count": 0})]})
    (table,) = mended.json("diff", "--rule", "fake-service").cell("c2")["tables"]
    assert table["error"].startswith("running: c1 could not be asked: migrate_version is 302 in parent")


# -- Instances ----------------------------------------------------------------------------------


def test_an_instance_without_a_cell(cells: Deployment) -> None:
    """Where a child has it, its cell can be given back; the rule does not call it an orphan."""
    cells.sql("parent", f"UPDATE instances SET cell_name = NULL WHERE uuid = '{C1}'")
    message = (
        f"instance {C1} is in c1 on compute-1-2, but parent has no cell for it: "
        "its owner can do nothing with it"
    )
    do = (
        f"UPDATE instances SET cell_name = 'parent!c1' WHERE uuid = '{C1}' AND deleted = 0 "
        "AND COALESCE(cell_name, '') = ''"
    )
    assert found(cells, "instance-without-cell") == [("parent", message, do)]
    assert found(cells, "instance-in-no-cell") == []
    assert cells.json("diff", "--rule", "instances").findings() == []
    mend(cells, "instance-without-cell")
    assert cells.json("diff", "--rule", "instances").code == 0


def test_an_instance_that_no_cell_has(cells: Deployment) -> None:
    """After ten minutes; a build of just now is left alone."""
    uuids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
    old, now = ago(minutes=11), ago(minutes=9)
    plant(
        cells,
        {
            "parent": [
                ("instances", {"uuid": uuids[0], "created_at": old}),
                ("instances", {"uuid": uuids[1], "created_at": old, "cell_name": ""}),
                ("instances", {"uuid": uuids[2], "created_at": now}),
            ]
        },
    )
    says = "instance {} of {} has no cell in parent, and no child has it: it was never built"
    assert found(cells, "instance-in-no-cell") == [
        ("parent", says.format(uuid, old), f"nova delete {uuid}") for uuid in uuids[:2]
    ]
    assert found(cells, "instance-without-cell") == []


def test_an_instance_in_two_cells(cells: Deployment) -> None:
    """The one to which it does not belong says so, with both hosts."""
    plant(cells, {"c2": [("instances", {"uuid": C1, "host": "compute-2-4", "vm_state": "active"})]})
    ((cell, message, do),) = found(cells, "instance-in-two-cells")
    assert (cell, message) == ("c2", f"instance {C1} is in c1 on compute-1-2 and c2 on compute-2-4")
    assert f"virsh domstate {C1}" in do
    assert do.endswith(
        f"UPDATE instances SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE uuid = '{C1}' AND deleted = 0"
    )
    cells.sql("c2", do.rpartition(": ")[2])
    assert found(cells, "instance-in-two-cells") == []


def test_a_task_that_never_ends(cells: Deployment) -> None:
    """After an hour; a task of just now is under way."""
    since = ago(hours=2)
    cells.sql(
        "c1", f"UPDATE instances SET task_state = 'deleting', updated_at = '{since}'".replace(":", "\\:")
    )
    cells.sql(
        "c2", f"UPDATE instances SET task_state = 'deleting', updated_at = '{ago()}'".replace(":", "\\:")
    )
    message = f"instance {C1} on compute-1-2 in c1 is active and has been deleting since {since}"
    assert found(cells, "stuck-task") == [("c1", message, f"nova reset-state --active {C1}")]


@pytest.mark.parametrize(
    ("cell", "statement", "kind", "says"),
    [
        (
            "c1",
            "UPDATE instances SET deleted = id",
            "extra",
            "parent still lists instance {uuid}, which c1 does not have",
        ),
        (
            "parent",
            "UPDATE instances SET deleted = id",
            "missing",
            "instance {uuid} runs in c1 on compute-1-2, but parent",
        ),
        (
            "c1",
            "UPDATE instances SET vm_state = 'error'",
            "changed",
            "parent shows instance {uuid} as active, but in c1",
        ),
        (
            "c1",
            "UPDATE instances SET task_state = 'x'",
            "changed",
            "parent shows instance {uuid} as NULL, but in c1",
        ),
        (
            "c1",
            "UPDATE instances SET host = 'compute-1-3'",
            "changed",
            "parent shows instance {uuid} as compute-1-2, but",
        ),
    ],
)
def test_what_the_rule_instances_says(
    cells: Deployment, cell: str, statement: str, kind: str, says: str
) -> None:
    """Deleted on one side, or another state or host: a difference of the rule, which says how to heal it."""
    cells.sql(cell, f"{statement} WHERE uuid = '{C1}'")
    (difference,) = cells.json("diff", "c1", "--rule", "instances").table("c1", "instances")["differences"]
    assert (difference["kind"], difference["action"]) == (kind, "report")
    assert difference["reason"].startswith(says.format(uuid=C1))
    assert "os-cells/sync_instances" in cells.run("rules", "show", "instances").out


def _volume(number: int, uuid: str = C1, volume: str = "vol-1", **columns: Any) -> tuple[str, dict[str, Any]]:
    device = {
        "device_name": "/dev/vdb",
        "source_type": "volume",
        "destination_type": "volume",
        "boot_index": None,
    }
    return "block_device_mapping", {
        "id": number,
        "instance_uuid": uuid,
        "volume_id": volume,
        **device,
        **columns,
    }


def test_a_volume_that_is_missing_in_the_parent(cells: Deployment) -> None:
    """The row of the child gives the parent's, without what it holds of passwords."""
    plant(cells, {"c1": [_volume(5, connection_info="secret", delete_on_termination=0)]})
    ((cell, message, do),) = found(cells, "volume-missing-above")
    assert (cell, message) == (
        "parent",
        f"volume vol-1 of instance {C1} in c1 is not in parent: its owner can neither see nor detach it",
    )
    assert do.endswith(
        f"VALUES (UTC_TIMESTAMP(), 0, '{C1}', 'vol-1', '/dev/vdb', 'volume', 'volume', 0, NULL, NULL)"
    )
    mend(cells, "volume-missing-above")
    assert found(cells, "volume-left-above") == found(cells, "volume-doubled") == []


def test_a_volume_that_only_the_parent_still_has(cells: Deployment) -> None:
    """Of another cell's instance nothing is said, nor of one that the child lacks: that is the rule's."""
    plant(cells, {"parent": [_volume(5), _volume(6, C2), _volume(7, "gone")], "c2": [_volume(9, C2)]})
    message = f"volume vol-1 of instance {C1} in parent is not in c1: it is no longer attached there"
    ((cell, said, do),) = found(cells, "volume-left-above")
    assert (cell, said) == ("parent", message)
    assert "WHERE id = 5 AND" in do
    mend(cells, "volume-left-above")


def test_a_volume_that_is_twice_in_the_parent(cells: Deployment) -> None:
    """The newer row goes."""
    plant(cells, {"parent": [_volume(5), _volume(6)], "c1": [_volume(9)]})
    ((cell, message, do),) = found(cells, "volume-doubled")
    assert (cell, message) == ("parent", f"volume vol-1 of instance {C1} is 2 times in parent")
    assert "WHERE id = 6 AND" in do
    mend(cells, "volume-doubled")


def test_a_fault_that_was_sent_twice(cells: Deployment) -> None:
    """The first one stays."""
    fault = {"instance_uuid": C1, "code": 500, "message": "no valid host"}
    plant(cells, {"parent": [("instance_faults", fault)] * 3})
    ((cell, message, _),) = found(cells, "fault-doubled")
    assert (cell, message) == (
        "parent",
        f"fault 500 of instance {C1} at 2016-03-01 09:00:00 is 3 times in parent",
    )
    mend(cells, "fault-doubled")
    assert cells.sql("parent", "SELECT id FROM instance_faults WHERE deleted = 0") == [(1,)]


def test_reservations_that_never_expire(cells: Deployment) -> None:
    """What they hold is given back, as the scheduler of a deployment without cells does."""
    old = ago(hours=3)
    plant(
        cells,
        {
            "parent": [
                (
                    "quota_usages",
                    {"id": 1, "project_id": "p1", "resource": "cores", "in_use": 8, "reserved": 5},
                ),
                *(
                    ("reservations", {"uuid": f"r{number}", "usage_id": 1, "project_id": "p1", **row})
                    for number, row in enumerate(
                        (
                            {"delta": 2, "expire": old},
                            {"delta": -1, "expire": old},
                            {"delta": 3, "expire": ago(hours=-3)},
                        )
                    )
                ),
            ]
        },
    )
    ((cell, message, _),) = found(cells, "stale-reservations")
    assert cell == "parent"
    assert message == (
        f"project p1 has 2 reservations in parent that have expired since {old}: they count against its quota"
    )
    mend(cells, "stale-reservations")
    assert cells.sql("parent", "SELECT reserved FROM quota_usages") == [(3,)]
    assert cells.sql("parent", "SELECT delta FROM reservations WHERE deleted = 0") == [(3,)]


# -- Flavors, aggregates, rows out of sight ------------------------------------------------------


def test_a_flavor_whose_id_a_deleted_one_has(cells: Deployment) -> None:
    """It cannot be pushed; nothing is done about it but by people."""
    taken = nova.flavor(6, "old.small", "old", deleted=6)
    plant(cells, {"c1": [("instance_types", taken)]})
    ((cell, message, do),) = found(cells, "flavor-id-taken")
    assert cell == "c1"
    assert message == (
        "flavor c1.small (c1s) cannot be pushed to c1: its id 6 is that of old.small (old), "
        "which was deleted there"
    )
    cells.sql("c1", do.rpartition(": ")[2])
    assert found(cells, "flavor-id-taken") == []


LISTED = ("aggregate_hosts", {"aggregate_id": 1, "host": "compute-9-9"})
RUNNING = ("services", {"host": "compute-1-4", "binary": "nova-compute", "report_count": 1})


@pytest.mark.parametrize(
    ("cell", "planted", "rule", "finding"),
    [
        (
            "c1",
            ("instance_types", nova.flavor(60, "c1.small", "c1s")),
            "flavors",
            "preserved-id: instance_types flavorid=c1s",
        ),
        ("parent", ("aggregates", {"name": "east"}), "aggregates", "duplicate-key: 2 rows"),
        ("parent", ("aggregates", {"name": "x", "deleted": None}), "aggregates", "deleted-is-null: "),
        ("parent", LISTED, "aggregate-hosts", "orphan: aggregate_hosts.host 'compute-9-9' in parent"),
        ("c2", RUNNING, "aggregate-hosts", "ambiguous: aggregate_hosts.host 'compute-1-4' in parent"),
    ],
)
def test_what_rules_say_themselves(
    cells: Deployment, cell: str, planted: tuple[str, Mapping[str, Any]], rule: str, finding: str
) -> None:
    """Skew of flavors, two aggregates of a name, rows out of sight, hosts of no cell or of two."""
    plant(cells, {cell: [planted]})
    said = [f"{code}: {message}" for _, code, message in cells.json("diff").findings(rule)]
    assert any(each.startswith(finding) for each in said), said
