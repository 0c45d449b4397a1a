"""The known drifts of Nova cells v1 and of nova_api: how each is planted, what says it, what mends it.

They do not disturb each other: all are planted together in a deployment that is in step. Nova's facts
behind them: heal and retries of nova-cells, upstream bugs in brackets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nova

from cellsync.model import Remedy, Way

OLD = "2016-03-02 10:00:00"
LIVE = "deleted = 0"
GONE = "SET deleted = id, deleted_at = UTC_TIMESTAMP()"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One thing that is wrong, and the one thing that is said of it."""

    rule: str
    """The rule or the detector that says it."""
    code: str
    """``missing``, ``changed``, ``extra``, or the code of a finding, which is a detector's own id."""
    plant: Mapping[str, Sequence[str]]
    """Cell -> statements."""
    cell: str
    """The cell whose rows are wrong; of a difference, the child that shows it."""
    says: str
    do: str = ""
    """What is printed to be done, whole; empty where the rule pushes, or says it in words."""
    way: str = ""
    """``shell``, ``words``, ``sql CELL``, or empty."""

    @property
    def remedy(self) -> Remedy | None:
        """What is to be done, as a finding has it."""
        way, _, where = self.way.partition(" ")
        return Remedy(text=self.do, way=Way(way), cell=where) if way else None

    @property
    def difference(self) -> bool:
        """Say whether a difference of rows says it, not a finding."""
        return self.code in ("missing", "changed", "extra")


def uuid(number: int) -> str:
    """Return the uuid of an instance of one drift."""
    return f"d01f7000-0000-4000-8000-{number:012}"


def instance(
    number: int, above: Mapping[str, Any] | None, below: Mapping[str, Any] | None
) -> dict[str, list[str]]:
    """Return the rows of an instance of c1 in the parent and there; None where there is none."""
    common = {"uuid": uuid(number), "host": "compute-1-2", "vm_state": "active", "instance_type_id": 2}
    rows = {"parent": (above, {"cell_name": "parent!c1"}), "c1": (below, {})}
    return {
        cell: [nova.insert("instances", {**common, **own, **given})]
        for cell, (given, own) in rows.items()
        if given is not None
    }


def volume(instance_number: int, number: int, **columns: Any) -> str:
    """Return the INSERT of a block device with a volume."""
    given = {"instance_uuid": uuid(instance_number), "volume_id": f"vol-{instance_number}", **columns}
    device = {"device_name": "/dev/vdb", "source_type": "volume", "destination_type": "volume"}
    return nova.insert("block_device_mapping", {"id": number, **device, **given})


def member(aggregate: str, host: str, number: int) -> str:
    """Return the INSERT of a host into the live aggregate of a name."""
    return (
        "INSERT INTO aggregate_hosts (created_at, deleted, id, host, aggregate_id) "
        f"SELECT '{OLD}', 0, {number}, '{host}', id FROM aggregates WHERE name = '{aggregate}' AND {LIVE}"
    )


def both(*plants: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return several plants as one."""
    cells = dict.fromkeys(cell for plant in plants for cell in plant)
    return {cell: [each for plant in plants for each in plant.get(cell, ())] for cell in cells}


HEALS = "call os-cells/sync_instances of parent"
TAKES_AWAY = (
    "call os-cells/sync_instances of parent with deleted=True, and soft-delete the row there if {} has none"
)

INSTANCES = [
    # Bug 1479941: its owner deletes it, the child says that it is not there, and nothing happens.
    Drift(
        rule="instances",
        code="extra",
        plant=instance(1, {}, None),
        cell="c1",
        says=f"parent still lists instance {uuid(1)}, which c1 does not have: its owner cannot delete it; "
        + TAKES_AWAY.format("c1"),
    ),
    Drift(
        rule="instances",
        code="extra",
        plant=instance(2, {}, {"deleted": 1, "deleted_at": OLD}),
        cell="c1",
        says=f"parent still lists instance {uuid(2)}, which c1 does not have: its owner cannot delete it; "
        + TAKES_AWAY.format("c1"),
    ),
    Drift(
        rule="instances",
        code="missing",
        plant=instance(3, None, {}),
        cell="c1",
        says=f"instance {uuid(3)} runs in c1 on compute-1-2, but parent does not know it: its owner can "
        "neither see nor delete it",
    ),
    Drift(
        rule="instances",
        code="missing",
        plant=instance(4, {"deleted": 1, "deleted_at": OLD}, {}),
        cell="c1",
        says=f"instance {uuid(4)} runs in c1 on compute-1-2, but parent does not know it: its owner can "
        f"neither see nor delete it; parent deleted it at {OLD}, so it is not brought back",
    ),
    # Bugs 1180283, 1249072, 1709985.
    Drift(
        rule="instances",
        code="changed",
        plant=instance(5, {}, {"vm_state": "error"}),
        cell="c1",
        says=f"parent shows instance {uuid(5)} as active, but in c1 it is error; {HEALS}",
    ),
    Drift(
        rule="instances",
        code="changed",
        plant=instance(6, {"task_state": "spawning"}, {}),
        cell="c1",
        says=f"parent shows instance {uuid(6)} as spawning, but in c1 it is NULL; {HEALS}",
    ),
    Drift(
        rule="instances",
        code="changed",
        plant=instance(7, {"host": "compute-1-1"}, {}),
        cell="c1",
        says=f"parent shows instance {uuid(7)} as compute-1-1, but in c1 it is compute-1-2; {HEALS}",
    ),
    Drift(
        rule="instances",
        code="changed",
        plant=instance(8, {"instance_type_id": 1}, {}),
        cell="c1",
        says=f"parent shows instance {uuid(8)} as 1, but in c1 it is 2; {HEALS}",
    ),
    Drift(
        rule="stuck-task",
        code="stuck-task",
        plant=instance(9, {"task_state": "deleting"}, {"task_state": "deleting", "updated_at": OLD}),
        cell="c1",
        says=f"instance {uuid(9)} on compute-1-2 in c1 is active and has been deleting since {OLD}",
        do=f"nova reset-state --active {uuid(9)}",
        way="shell",
    ),
    # NeCTAR fa0b6fe2f1, bug 1454839.
    Drift(
        rule="instance-without-cell",
        code="instance-without-cell",
        plant=instance(10, {"cell_name": None}, {}),
        cell="parent",
        says=f"instance {uuid(10)} is in c1 on compute-1-2, but parent has no cell for it: its owner can do "
        "nothing with it",
        do=f"UPDATE instances SET cell_name = 'parent!c1' WHERE uuid = '{uuid(10)}' AND {LIVE} "
        "AND COALESCE(cell_name, '') = ''",
        way="sql parent",
    ),
    Drift(
        rule="instance-in-no-cell",
        code="instance-in-no-cell",
        plant=instance(11, {"cell_name": "", "created_at": OLD}, None),
        cell="parent",
        says=f"instance {uuid(11)} of {OLD} has no cell in parent, and no child has it: it was never built",
        do=f"nova delete {uuid(11)}",
        way="shell",
    ),
    Drift(
        rule="instance-in-two-cells",
        code="instance-in-two-cells",
        plant=both(
            instance(12, {}, {}),
            {"c2": [nova.insert("instances", {"uuid": uuid(12), "host": "compute-2-4"})]},
        ),
        cell="c2",
        says=f"instance {uuid(12)} is in c1 on compute-1-2 and c2 on compute-2-4",
        do=f"look on both hosts where it runs (virsh domstate {uuid(12)}); in the cell where it does not: "
        f"UPDATE instances {GONE} WHERE uuid = '{uuid(12)}' AND {LIVE}",
        way="words",
    ),
    # Bug 1489581. What the child knows of passwords stays there.
    Drift(
        rule="volume-missing-above",
        code="volume-missing-above",
        plant=both(instance(13, {}, {}), {"c1": [volume(13, 13, connection_info="secret")]}),
        cell="parent",
        says=f"volume vol-13 of instance {uuid(13)} in c1 is not in parent: its owner can neither see nor "
        "detach it",
        do="INSERT INTO block_device_mapping (created_at, deleted, instance_uuid, volume_id, device_name, "
        "source_type, destination_type, delete_on_termination, boot_index, volume_size) VALUES "
        f"(UTC_TIMESTAMP(), 0, '{uuid(13)}', 'vol-13', '/dev/vdb', 'volume', 'volume', NULL, NULL, NULL)",
        way="sql parent",
    ),
    Drift(
        rule="volume-left-above",
        code="volume-left-above",
        plant=both(instance(14, {}, {}), {"parent": [volume(14, 14)]}),
        cell="parent",
        says=f"volume vol-14 of instance {uuid(14)} in parent is not in c1: it is no longer attached there",
        do=f"UPDATE block_device_mapping {GONE} WHERE id = 14 AND {LIVE}",
        way="sql parent",
    ),
    Drift(
        rule="volume-doubled",
        code="volume-doubled",
        plant=both(
            instance(15, {}, {}), {"parent": [volume(15, 15), volume(15, 16)], "c1": [volume(15, 17)]}
        ),
        cell="parent",
        says=f"volume vol-15 of instance {uuid(15)} is 2 times in parent",
        do=f"UPDATE block_device_mapping {GONE} WHERE id = 16 AND {LIVE}",
        way="sql parent",
    ),
    Drift(
        rule="fault-doubled",
        code="fault-doubled",
        plant=both(
            instance(16, {}, {}),
            {
                "parent": [
                    nova.insert(
                        "instance_faults",
                        {"id": number, "instance_uuid": uuid(16), "code": 500, "created_at": OLD},
                    )
                    for number in (1, 2, 3)
                ]
            },
        ),
        cell="parent",
        says=f"fault 500 of instance {uuid(16)} at {OLD} is 3 times in parent",
        do=f"UPDATE instance_faults {GONE} WHERE instance_uuid = '{uuid(16)}' AND code = 500 "
        f"AND created_at = '{OLD}' AND id > 1 AND {LIVE}",
        way="sql parent",
    ),
    # NeCTAR 5863f5947a.
    Drift(
        rule="stale-reservations",
        code="stale-reservations",
        plant={
            "parent": [
                nova.insert(
                    "quota_usages",
                    {"id": 1, "project_id": "p1", "resource": "cores", "in_use": 8, "reserved": 5},
                ),
                nova.insert(
                    "reservations",
                    {"uuid": "r1", "usage_id": 1, "project_id": "p1", "delta": 2, "expire": OLD},
                ),
            ]
        },
        cell="parent",
        says=f"project p1 has 1 reservations in parent that have expired since {OLD}: they count against its "
        "quota",
        do="SET @now = UTC_TIMESTAMP(); UPDATE quota_usages u JOIN (SELECT usage_id, SUM(delta) AS delta "
        "FROM reservations WHERE deleted = 0 AND delta > 0 AND expire < @now AND project_id = 'p1' GROUP BY "
        "usage_id) r ON r.usage_id = u.id SET u.reserved = GREATEST(u.reserved - r.delta, 0); UPDATE "
        f"reservations {GONE} WHERE deleted = 0 AND expire < @now AND project_id = 'p1'",
        way="sql parent",
    ),
]

FLAVORS = [
    Drift(
        rule="flavors",
        code="missing",
        plant={"parent": [nova.insert("instance_types", nova.flavor(71, "new", "f71"))]},
        cell="c1",
        says="flavor new (f71) is missing in c1: builds of it and resizes to it fail there",
    ),
    Drift(
        rule="flavors",
        code="changed",
        plant={"c1": ["UPDATE instance_types SET memory_mb = 1 WHERE id = 1"]},
        cell="c1",
        says="flavor m1.medium (3) is not the same in c1 as in parent: it has 1 instead of 4096",
    ),
    Drift(
        rule="flavors",
        code="preserved-id",
        plant={
            "parent": [nova.insert("instance_types", nova.flavor(72, "moved", "f72"))],
            "c1": [nova.insert("instance_types", nova.flavor(72, "own", "o72"))],
        },
        cell="c1",
        says="instance_types flavorid=f72 has id 72 in parent, but c1 has id 72 for o72: id must be the same "
        "everywhere and is never changed by a repair",
    ),
    Drift(
        rule="flavors",
        code="unique-clash",
        plant={},  # what the next one plants: the rule says that the row is not written, the detector why
        cell="c1",
        says="instance_types flavorid=f74 is not written to c1: instance_types id 74 has id 74 already "
        "(unique key PRIMARY): rename or remove one of the two",
    ),
    Drift(
        rule="flavor-id-taken",
        code="flavor-id-taken",
        plant={
            "parent": [nova.insert("instance_types", nova.flavor(74, "big", "f74"))],
            "c1": [nova.insert("instance_types", nova.flavor(74, "old", "f0", deleted=74))],
        },
        cell="c1",
        says="flavor big (f74) cannot be pushed to c1: its id 74 is that of old (f0), which was deleted "
        "there",
        do="where no instance of c1 has the id (SELECT COUNT(*) FROM instances WHERE instance_type_id = 74), "
        "delete the row with its extra specs and projects: DELETE FROM instance_types WHERE id = 74 "
        "AND deleted <> 0",
        way="words",
    ),
]

ZONES = [
    Drift(
        rule="aggregates",
        code="missing",
        plant={"parent": [nova.insert("aggregates", {"id": 71, "name": "fresh"})]},
        cell="c1",
        says="aggregate fresh is missing in c1: its scheduler knows neither the aggregate nor its hosts",
    ),
    Drift(
        rule="aggregate-metadata",
        code="changed",
        plant={"c1": ["UPDATE aggregate_metadata SET value = 'az-wset' WHERE value = 'az-west'"]},
        cell="c1",
        says="aggregate west is availability zone az-wset in c1 instead of az-west: boot requests for "
        "az-west fail there",
    ),
    Drift(
        rule="aggregate-hosts",
        code="missing",
        plant={"parent": [member("ssd", "parent!c1@compute-1-5", 71)]},
        cell="c1",
        says="host compute-1-5 is not in aggregate ssd in c1: requests for the aggregate or its availability "
        "zone never reach it",
    ),
    Drift(
        rule="aggregates",
        code="duplicate-key",
        plant={"parent": [nova.insert("aggregates", {"id": n, "name": "twin"}) for n in (72, 73)]},
        cell="parent",
        says="2 rows of aggregates in parent have the key name=twin: id 72 and id 73; keep one of them",
    ),
    Drift(
        rule="aggregates",
        code="deleted-is-null",
        plant={"parent": [nova.insert("aggregates", {"id": 74, "name": "limbo", "deleted": None})]},
        cell="parent",
        says="aggregates id 74 in parent (name=limbo) has deleted NULL: its application does not see it and "
        "unique keys do not hold for it; set deleted to 0, or remove the row",
    ),
    # Nova refuses it (InvalidAggregateAction); this one is of an aggregate that only the child has.
    Drift(
        rule="host-in-two-zones",
        code="host-in-two-zones",
        plant={
            "c2": [
                nova.insert(
                    "aggregate_metadata",
                    {"aggregate_id": 1, "key": "availability_zone", "value": "az-local"},
                ),
                member("local-only", "compute-2-2", 75),
            ]
        },
        cell="c2",
        says="host compute-2-2 is in the availability zones az-local and az-west in c2, last by aggregate "
        "local-only",
        do=f"UPDATE aggregate_hosts {GONE} WHERE id = 75 AND {LIVE}",
        way="sql c2",
    ),
    Drift(
        rule="aggregate-hosts",
        code="orphan",
        plant={"parent": [member("ssd", "compute-8-8", 76)]},
        cell="parent",
        says="aggregate_hosts.host 'compute-8-8' in parent belongs to no child: no child has it in "
        "services.host; correct or remove the row (aggregate_id=ssd, host=compute-8-8)",
    ),
    Drift(
        rule="aggregate-hosts",
        code="orphan",
        plant={"parent": [member("ssd", "Compute-1-3", 77)]},
        cell="parent",
        says="aggregate_hosts.host 'Compute-1-3' in parent belongs to no child: no child has it in "
        "services.host; correct or remove the row (aggregate_id=ssd, host=Compute-1-3)",
    ),
    Drift(
        rule="aggregate-hosts",
        code="ambiguous",
        plant={
            "c2": [
                nova.insert("services", {"host": "compute-1-4", "binary": "nova-compute", "report_count": 1})
            ]
        },
        cell="parent",
        says="aggregate_hosts.host 'compute-1-4' in parent is claimed by c1 and c2: give it a path "
        "(parent!c1@...) or remove the double",
    ),
    Drift(
        rule="aggregate-hosts",
        code="collation-twin",
        plant={"c2": ["UPDATE aggregate_hosts SET host = 'COMPUTE-2-3' WHERE host = 'compute-2-3'"]},
        cell="c2",
        says="aggregate_hosts has aggregate_id=west, host=COMPUTE-2-3 in c2, but west, compute-2-3 in "
        "parent: one key to the database, two to the application; rename one of them",
    ),
    Drift(
        rule="host-differs-by-case",
        code="host-differs-by-case",
        plant={"parent": [member("plain", "parent!c1@COMPUTE-1-5", 78)]},
        cell="parent",
        says="host parent!c1@COMPUTE-1-5 of aggregate plain in parent runs as compute-1-5: the scheduler "
        "does not find it",
        do=f"UPDATE aggregate_hosts SET host = 'parent!c1@compute-1-5' WHERE id = 78 AND {LIVE}",
        way="sql parent",
    ),
    Drift(
        rule="host-by-path-only",
        code="host-by-path-only",
        plant={"parent": [member("empty-az", "parent!c2@compute-2-5", 176)]},
        cell="parent",
        says="host compute-2-5 is in zone az-empty of parent only as parent!c2@compute-2-5: "
        "the API shows its servers in the default zone, nova",
        do="INSERT INTO aggregate_hosts (created_at, deleted, host, aggregate_id) SELECT UTC_TIMESTAMP(), 0, "
        "'compute-2-5', 5 FROM aggregates WHERE id = 5 AND deleted = 0",
        way="sql parent",
    ),
    Drift(
        rule="prefixed-host",
        code="prefixed-host",
        plant={"c1": [member("ssd", "parent!c1@compute-1-2", 79)]},
        cell="c1",
        says="host parent!c1@compute-1-2 of aggregate ssd in c1 has the path of a cell: the scheduler knows "
        "it as compute-1-2",
        do=f"UPDATE IGNORE aggregate_hosts SET host = 'compute-1-2' WHERE id = 79 AND {LIVE}; "
        f"UPDATE aggregate_hosts {GONE} WHERE id = 79 AND host = 'parent!c1@compute-1-2' AND {LIVE}",
        way="sql c1",
    ),
    Drift(
        rule="fake-service",
        code="fake-service",
        plant={
            "parent": [
                nova.insert(
                    "services",
                    {"id": 71, "host": "compute-9-9", "binary": "nova-compute", "report_count": 0},
                )
            ]
        },
        cell="parent",
        says="parent has a nova-compute on compute-9-9, which runs in no child: it lets requests for its "
        "zone through, and they fail",
        do=f"UPDATE services {GONE} WHERE id = 71 AND {LIVE}",
        way="sql parent",
    ),
]

DRIFTS = [*INSTANCES, *FLAVORS, *ZONES]
"""A rule or a detector says each; docs/findings.rst lists them by ``rule`` and ``code``."""

API_DRIFTS = [
    Drift(
        rule="host-in-two-zones",
        code="host-in-two-zones",
        plant={"c1": ["INSERT INTO aggregate_hosts (id, aggregate_id, host) VALUES (91, 2, 'h1')"]},
        cell="c1",
        says="host h1 is in the availability zones az-1 and az-2 in c1, last by aggregate a2",
        do="openstack aggregate remove host a2 h1",
        way="shell",
    ),
    Drift(
        rule="host-differs-by-case",
        code="host-differs-by-case",
        plant={
            "c1": [
                "INSERT INTO host_mappings (cell_id, host) VALUES (1, 'h3')",
                "INSERT INTO aggregate_hosts (id, aggregate_id, host) VALUES (92, 3, 'H3')",
            ]
        },
        cell="c1",
        says="host H3 of aggregate a3 in c1 is mapped as h3: the scheduler does not find it",
        do="UPDATE aggregate_hosts SET host = 'h3' WHERE id = 92",
        way="sql c1",
    ),
    Drift(
        rule="aggregate-hosts",
        code="orphan",
        plant={"api": ["INSERT INTO aggregate_hosts (id, aggregate_id, host) VALUES (93, 3, 'H2')"]},
        cell="api",
        says="aggregate_hosts.host 'H2' in api belongs to no child: no child has it in host_mappings.host; "
        "correct or remove the row (aggregate_id=a3, host=H2)",
    ),
    Drift(
        rule="prefixed-host",
        code="prefixed-host",
        plant={"c1": ["INSERT INTO aggregate_hosts (id, aggregate_id, host) VALUES (94, 3, 'api!c1@h2')"]},
        cell="c1",
        says="host api!c1@h2 of aggregate a3 in c1 has the path of a cell: the scheduler knows it as h2",
        do="UPDATE IGNORE aggregate_hosts SET host = 'h2' WHERE id = 94; "
        "DELETE FROM aggregate_hosts WHERE id = 94 AND host = 'api!c1@h2'",
        way="sql c1",
    ),
    Drift(
        rule="aggregate-uuid-twice",
        code="aggregate-uuid-twice",
        plant={"c1": ["INSERT INTO aggregates (id, name, uuid) VALUES (8, 'a8', 'u8'), (9, 'a9', 'u8')"]},
        cell="c1",
        says="aggregates a8 and a9 of c1 have one uuid, u8: placement takes them for one",
        do="take the hosts out of a9 in c1 and delete it there, then run nova-manage placement "
        "sync_aggregates",
        way="words",
    ),
    Drift(
        rule="server-group-policies",
        code="duplicate-key",
        plant={
            "api": [
                "INSERT INTO instance_groups (id, uuid) VALUES (7, 'g7')",
                "INSERT INTO instance_group_policy (id, group_id, policy) VALUES (7, 7, 'affinity'), "
                "(8, 7, 'anti-affinity')",
            ]
        },
        cell="api",
        says="2 rows of instance_group_policy in api have the key group_id=g7: id 7 and id 8; keep one of "
        "them",
    ),
]
"""Those of the pack nova-api, in the parent and child of test_api_findings."""
