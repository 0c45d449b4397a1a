"""What goes wrong in a cells v2 deployment: how it comes about, what is said of it, and what mends it.

Nova's facts behind each: the drift table of cells v2, upstream bugs in brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab import Lab, uuid

AGO = "UTC_TIMESTAMP() - INTERVAL 1 DAY"
CELL_ID = "(SELECT id FROM cell_mappings WHERE name = '{}')"
NOW = "updated_at = UTC_TIMESTAMP()"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and the one finding that it must give."""

    code: str
    plant: Callable[[Lab], None]
    cell: str
    """The cell whose finding it is."""
    key: Mapping[str, str]
    says: str
    do: str
    """What is printed to be done; <c1> stands for the uuid of c1."""
    way: str = "shell"
    """``shell``, ``words``, or ``sql CELL``."""
    lasting: bool = False
    """True where that needs a running service, or a person."""

    def printed(self, lab: Lab) -> str:
        """Return what is to be done, with the uuids of the cells."""
        text = self.do
        for cell in ("c1", "c2", "c3"):
            text = text.replace(f"<{cell}>", lab.cell(cell))
        return text


def insert(lab: Lab, name: str, table: str, /, **values: str | int | None) -> None:
    """Insert one row that is a day old."""
    columns = ", ".join(f"`{column}`" for column in ("created_at", *values))
    given = ", ".join([AGO, *(f":{column}" for column in values)])
    lab.sql(name, f"INSERT INTO {table} ({columns}) VALUES ({given})", **values)


def map_host(lab: Lab, host: str, cell: str) -> None:
    """Map a host to a cell."""
    lab.sql(
        "api", f"INSERT INTO host_mappings (host, cell_id) VALUES (:host, {CELL_ID.format(cell)})", host=host
    )


def run_host(lab: Lab, cell: str, host: str) -> None:
    """Let a nova-compute run on a host, which has no compute node yet."""
    kind = {"binary": "nova-compute", "topic": "compute", "uuid": uuid(f"{host} of {cell}")}
    state = {"report_count": 1, "disabled": 0, "forced_down": 0, "version": 60, "deleted": 0}
    insert(lab, cell, "services", host=host, **kind, **state)


def add_node(lab: Lab, cell: str, host: str) -> None:
    """Let a mapped host have a compute node, as discover_hosts leaves it."""
    run_host(lab, cell, host)
    map_host(lab, host, cell)
    sizes = dict.fromkeys(
        ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used"), 0
    )
    kind = {"hypervisor_type": "QEMU", "hypervisor_version": 1, "cpu_info": "{}", "mapped": 1, "deleted": 0}
    names = {"host": host, "hypervisor_hostname": host, "uuid": uuid(host)}
    insert(lab, cell, "compute_nodes", **sizes, **kind, **names)


def add_instance(lab: Lab, cell: str, name: str, *, deleted: bool = False) -> None:
    """Add an instance without a host to a cell."""
    given = {
        "uuid": uuid(name),
        "project_id": "project",
        "user_id": "user",
        "vm_state": "active",
        "deleted": 0,
    }
    insert(lab, cell, "instances", **given)
    if deleted:
        change = f"UPDATE instances SET deleted = id, deleted_at = {AGO} WHERE uuid = :uuid"
        lab.sql(cell, change, uuid=uuid(name))


def map_instance(lab: Lab, name: str, cell: str | None) -> None:
    """Map an instance to a cell, or to none."""
    given = {"instance_uuid": uuid(name), "project_id": "project", "user_id": "user", "queued_for_delete": 0}
    insert(lab, "api", "instance_mappings", **given)
    if cell:
        change = f"UPDATE instance_mappings SET cell_id = {CELL_ID.format(cell)} WHERE instance_uuid = :uuid"
        lab.sql("api", change, uuid=uuid(name))


def set_mapping(lab: Lab, name: str, change: str) -> None:
    """Change the mapping of an instance."""
    lab.sql("api", f"UPDATE instance_mappings SET {change} WHERE instance_uuid = :uuid", uuid=uuid(name))


def add_member(lab: Lab, aggregate: str, host: str) -> None:
    """Put a host into an aggregate of nova_api alone."""
    given = "SELECT id, :host FROM aggregates WHERE name = :aggregate"
    lab.sql(
        "api", f"INSERT INTO aggregate_hosts (aggregate_id, host) {given}", host=host, aggregate=aggregate
    )


# -- Planting --------------------------------------------------------------------------------------


def disable_c3(lab: Lab) -> None:
    lab.sql("api", "UPDATE cell_mappings SET disabled = 1 WHERE name = 'c3'")


def add_unmapped_host(lab: Lab) -> None:
    run_host(lab, "c1", "new")


def lose_mapping_of_marked_host(lab: Lab) -> None:
    lab.sql("api", "DELETE FROM host_mappings WHERE host = 'h2b'")


def move_host(lab: Lab) -> None:
    map_host(lab, "moved", "c1")
    run_host(lab, "c2", "moved")


def run_host_twice(lab: Lab) -> None:
    map_host(lab, "twice", "c1")
    run_host(lab, "c1", "twice")
    run_host(lab, "c2", "twice")


def leave_host_mapping(lab: Lab) -> None:
    map_host(lab, "retired", "c2")


def lose_instance_mapping(lab: Lab) -> None:
    add_instance(lab, "c2", "unmapped")


def bury_instance(lab: Lab) -> None:
    add_instance(lab, "c1", "buried")
    map_instance(lab, "buried", None)


def map_instance_elsewhere(lab: Lab) -> None:
    add_instance(lab, "c2", "astray")
    map_instance(lab, "astray", "c1")


def double_instance(lab: Lab) -> None:
    add_instance(lab, "cell0", "web")


def leave_instance_behind(lab: Lab) -> None:
    add_instance(lab, "cell0", "db", deleted=True)


def purge_instance(lab: Lab) -> None:
    map_instance(lab, "purged", "c1")


def map_nothing(lab: Lab) -> None:
    map_instance(lab, "never", None)


def forget_deletion(lab: Lab) -> None:
    set_mapping(lab, "was", "queued_for_delete = 0")


def claim_deletion(lab: Lab) -> None:
    set_mapping(lab, "resized", "queued_for_delete = 1")


def leave_mapping_unfilled(lab: Lab) -> None:
    set_mapping(lab, "shelved", "user_id = NULL")


def leave_build_request(lab: Lab) -> None:
    insert(lab, "api", "build_requests", id=77, project_id="project", instance_uuid=uuid("web"))


def leave_request_spec(lab: Lab) -> None:
    insert(lab, "api", "request_specs", instance_uuid=uuid("archived"), spec="{}")


def leave_group_member(lab: Lab) -> None:
    lab.sql(
        "api",
        f"INSERT INTO instance_group_member (created_at, instance_uuid, group_id) SELECT {AGO}, :uuid, id "
        "FROM instance_groups",
        uuid=uuid("archived member"),
    )


def put_host_in_two_zones(lab: Lab) -> None:
    add_node(lab, "c1", "zoned")
    lab.placement.add_provider("zoned", uuid("zoned"), VCPU=1)
    lab.placement.set_aggregates(uuid("zoned"), [uuid("az-1"), uuid("az-2")])
    for number, zone in ((86, "az-1"), (87, "az-2")):
        insert(lab, "api", "aggregates", name=zone, uuid=uuid(zone))
        lab.sql(
            "api",
            "INSERT INTO aggregate_metadata (aggregate_id, `key`, value) "
            "SELECT id, 'availability_zone', name FROM aggregates WHERE name = :zone",
            zone=zone,
        )
        lab.sql(
            "api",
            "INSERT INTO aggregate_hosts (id, aggregate_id, host) SELECT :number, id, 'zoned' "
            "FROM aggregates WHERE name = :zone",
            number=number,
            zone=zone,
        )


def spell_host_otherwise(lab: Lab) -> None:
    insert(lab, "api", "aggregates", name="gpu", uuid=uuid("gpu"))
    lab.sql(
        "api",
        "INSERT INTO aggregate_hosts (id, aggregate_id, host) SELECT 88, id, 'H1A' FROM aggregates "
        "WHERE name = 'gpu'",
    )


def leave_host_in_aggregate(lab: Lab) -> None:
    lab.sql(
        "api",
        "INSERT INTO aggregate_hosts (id, aggregate_id, host) SELECT 89, id, 'scrapped' FROM aggregates "
        "WHERE name = 'west'",
    )


def lose_mirrored_member(lab: Lab) -> None:
    insert(lab, "api", "aggregates", name="ssd", uuid=uuid("ssd"))
    add_member(lab, "ssd", "h1b")


def add_ironic_member(lab: Lab) -> None:
    add_member(lab, "east", "h3a")
    lab.placement.set_aggregates(uuid("metal-1"), [uuid("east")])


def add_member_in_placement(lab: Lab) -> None:
    lab.placement.set_aggregates(uuid("h2b"), [uuid("west"), uuid("routed network")])


def restore_old_node(lab: Lab) -> None:
    add_node(lab, "c2", "rebuilt")
    lab.placement.add_provider("rebuilt", uuid("rebuilt before"), VCPU=1)


def lose_provider(lab: Lab) -> None:
    add_node(lab, "c2", "unknown")


def leave_allocation(lab: Lab) -> None:
    lab.placement.allocate(uuid("deleted long ago"), uuid("h1a"), VCPU=1)
    lab.sql("placement", f"UPDATE allocations SET created_at = {AGO}")


def lose_allocation(lab: Lab) -> None:
    lab.placement.call("DELETE", f"/allocations/{uuid('db')}")


PLACEMENT = "openstack --os-placement-api-version 1.19 resource provider aggregate set --generation"

FAULTS = [
    Fault(
        code="cell-disabled",
        plant=disable_c3,
        cell="api",
        key={"name": "c3"},
        says="the cell c3 is disabled: nothing is scheduled to its 1 hosts, and it is not compared",
        do=f"UPDATE cell_mappings SET disabled = 0, {NOW} WHERE uuid = '<c3>'",
        way="sql api",
    ),
    Fault(
        code="host-unmapped",
        plant=add_unmapped_host,
        cell="c1",
        key={"host": "new"},
        says="host new of c1 is mapped to no cell: nothing is scheduled to it",
        do="nova-manage cell_v2 discover_hosts --cell_uuid <c1> --by-service",
    ),
    # Bugs 1735719, 1747936, 2085135: the mapping went, the mark stayed.
    Fault(
        code="host-unmapped-but-marked",
        plant=lose_mapping_of_marked_host,
        cell="c2",
        key={"host": "h2b"},
        says="host h2b of c2 is mapped to no cell, but marked as if it were",
        do="nova-manage cell_v2 discover_hosts --cell_uuid <c2> --by-service",
    ),
    Fault(
        code="host-mapped-elsewhere",
        plant=move_host,
        cell="c2",
        key={"host": "moved"},
        says="host moved runs in c2 and is mapped to c1, where it is not",
        do="nova-manage cell_v2 delete_host --cell_uuid <c1> --host moved && "
        "nova-manage cell_v2 discover_hosts --cell_uuid <c2> --by-service",
    ),
    Fault(
        code="host-in-two-cells",
        plant=run_host_twice,
        cell="c2",
        key={"host": "twice"},
        says="c1 and c2 both have a nova-compute on host twice, which can be mapped to one of them only",
        do="in the cell that it left: openstack compute service list --host HOST, then "
        "openstack compute service delete ID",
        way="words",
        lasting=True,
    ),
    # Bug 1756179.
    Fault(
        code="host-mapping-left",
        plant=leave_host_mapping,
        cell="c2",
        key={"host": "retired"},
        says="host retired is mapped to c2, and no cell has a nova-compute on it",
        do="nova-manage cell_v2 delete_host --cell_uuid <c2> --host retired",
    ),
    Fault(
        code="instance-unmapped",
        plant=lose_instance_mapping,
        cell="c2",
        key={"uuid": uuid("unmapped")},
        says=f"instance {uuid('unmapped')} of c2 has no mapping: nobody can see or delete it",
        do="nova-manage cell_v2 map_instances --cell_uuid <c2> --reset",
    ),
    # Bug 1784074.
    Fault(
        code="instance-mapping-unset",
        plant=bury_instance,
        cell="c1",
        key={"uuid": uuid("buried")},
        says=f"instance {uuid('buried')} is in c1, and its mapping leads to no cell",
        do="UPDATE instance_mappings SET cell_id = (SELECT id FROM cell_mappings WHERE uuid = '<c1>'), "
        f"{NOW} WHERE instance_uuid = '{uuid('buried')}' AND cell_id IS NULL",
        way="sql api",
    ),
    Fault(
        code="instance-mapped-elsewhere",
        plant=map_instance_elsewhere,
        cell="c2",
        key={"uuid": uuid("astray")},
        says=f"instance {uuid('astray')} is in c2, and its mapping leads to c1, where it is not",
        do="UPDATE instance_mappings SET cell_id = (SELECT id FROM cell_mappings WHERE uuid = '<c2>'), "
        f"{NOW} WHERE instance_uuid = '{uuid('astray')}'",
        way="sql api",
    ),
    Fault(
        code="instance-in-two-cells",
        plant=double_instance,
        cell="cell0",
        key={"uuid": uuid("web")},
        says=f"instance {uuid('web')} is in cell0 and in c1, where it belongs: soft-delete it in cell0",
        do="UPDATE instances SET deleted = id, deleted_at = UTC_TIMESTAMP() "
        f"WHERE uuid = '{uuid('web')}' AND deleted = 0",
        way="sql cell0",
    ),
    # The other half of Nova's 5b552518e1.
    Fault(
        code="instance-left-behind",
        plant=leave_instance_behind,
        cell="cell0",
        key={"uuid": uuid("db")},
        says=f"instance {uuid('db')} is deleted in cell0 and lives in c1: when cell0",
        do="nova-manage db archive_deleted_rows --all-cells --until-complete; "
        "nova-manage cell_v2 map_instances --cell_uuid <c1> --reset",
    ),
    # Bugs 1773945, 1678056, 1724621.
    Fault(
        code="mapping-without-instance",
        plant=purge_instance,
        cell="c1",
        key={"uuid": uuid("purged")},
        says=f"the mapping of instance {uuid('purged')} leads to c1, and no cell has the instance",
        do=f"DELETE FROM instance_mappings WHERE instance_uuid = '{uuid('purged')}'",
        way="sql api",
    ),
    Fault(
        code="mapping-of-nothing",
        plant=map_nothing,
        cell="api",
        key={"uuid": uuid("never")},
        says=f"the mapping of instance {uuid('never')} leads to no cell, and no cell",
        do=f"DELETE FROM instance_mappings WHERE instance_uuid = '{uuid('never')}' AND cell_id IS NULL",
        way="sql api",
    ),
    # Bugs 1814913, 1817961.
    Fault(
        code="queued-for-delete-missing",
        plant=forget_deletion,
        cell="c1",
        key={"uuid": uuid("was")},
        says=f"instance {uuid('was')} of c1 is deleted, and its mapping does not say so (queued_for_delete)",
        do="nova-manage db archive_deleted_rows --all-cells --until-complete",
    ),
    Fault(
        code="queued-for-delete-stale",
        plant=claim_deletion,
        cell="c2",
        key={"uuid": uuid("resized")},
        says=f"instance {uuid('resized')} of c2 is not deleted, and its mapping says that it is",
        do=f"UPDATE instance_mappings SET queued_for_delete = 0, {NOW} "
        f"WHERE instance_uuid = '{uuid('resized')}'",
        way="sql api",
    ),
    Fault(
        code="mapping-unfilled",
        plant=leave_mapping_unfilled,
        cell="api",
        key={"field": "user_id"},
        says="1 instance mappings have no user_id: quota does not count them",
        do="nova-manage db online_data_migrations",
    ),
    Fault(
        code="build-request-left",
        plant=leave_build_request,
        cell="api",
        key={"uuid": uuid("web")},
        says=f"the build request of instance {uuid('web')} is left, though no cell",
        do="DELETE FROM build_requests WHERE id = 77",
        way="sql api",
    ),
    Fault(
        code="request-spec-left",
        plant=leave_request_spec,
        cell="api",
        key={"uuid": uuid("archived")},
        says=f"the request spec of instance {uuid('archived')} is left, and there is no such instance",
        do=f"DELETE FROM request_specs WHERE instance_uuid = '{uuid('archived')}'",
        way="sql api",
    ),
    # Bug 1751186.
    Fault(
        code="group-member-left",
        plant=leave_group_member,
        cell="api",
        key={"group_uuid": uuid("pair"), "uuid": uuid("archived member")},
        says=f"the server group {uuid('pair')} has the member {uuid('archived member')}, and there",
        do=f"DELETE FROM instance_group_member WHERE instance_uuid = '{uuid('archived member')}' "
        f"AND group_id = (SELECT id FROM instance_groups WHERE uuid = '{uuid('pair')}')",
        way="sql api",
    ),
    # Nova's API refuses it (InvalidAggregateAction).
    Fault(
        code="host-in-two-zones",
        plant=put_host_in_two_zones,
        cell="api",
        key={"host": "zoned"},
        says="host zoned is in the availability zones az-1 and az-2, last by aggregate az-2",
        do="openstack aggregate remove host az-2 zoned",
        lasting=True,
    ),
    Fault(
        code="aggregate-host-case",
        plant=spell_host_otherwise,
        cell="api",
        key={"aggregate": "gpu", "host": "H1A"},
        says="the aggregate gpu has the host H1A, which is mapped as h1a: Nova finds it in no zone",
        do=f"UPDATE aggregate_hosts SET host = 'h1a', {NOW} WHERE id = 88",
        way="sql api",
    ),
    Fault(
        code="aggregate-host-left",
        plant=leave_host_in_aggregate,
        cell="api",
        key={"aggregate": "west", "host": "scrapped"},
        says="the aggregate west has the host scrapped, and no cell has it",
        do="DELETE FROM aggregate_hosts WHERE id = 89",
        way="sql api",
    ),
    Fault(
        code="aggregate-missing-in-placement",
        plant=lose_mirrored_member,
        cell="c1",
        key={"aggregate": "ssd", "host": "h1b"},
        says=f"host h1b is in the aggregate ssd, and its provider {uuid('h1b')} is not in it in placement",
        do="nova-manage placement sync_aggregates",
    ),
    Fault(
        code="aggregate-of-many-nodes",
        plant=add_ironic_member,
        cell="c3",
        key={"aggregate": "east", "node": "metal-2"},
        says="host h3a is in the aggregate east, and the provider of its node metal-2 is not",
        do=f"echo '--aggregate {uuid('east')} ' | xargs {PLACEMENT} 1 {uuid('metal-2')}",
        lasting=True,
    ),
    Fault(
        code="aggregate-only-in-placement",
        plant=add_member_in_placement,
        cell="c2",
        key={"aggregate": "west", "provider": uuid("h2b")},
        says=f"the provider {uuid('h2b')} of host h2b is in the aggregate west in placement",
        do=f"echo '--aggregate {uuid('routed network')}' | xargs {PLACEMENT} 3 {uuid('h2b')}",
        lasting=True,
    ),
    # Bug 1817833.
    Fault(
        code="provider-of-another-node",
        plant=restore_old_node,
        cell="c2",
        key={"node": "rebuilt"},
        says=f"the provider of node rebuilt has the uuid {uuid('rebuilt before')}, and the compute node "
        f"{uuid('rebuilt')}",
        do=f"openstack resource provider delete {uuid('rebuilt before')}",
        lasting=True,
    ),
    Fault(
        code="provider-missing",
        plant=lose_provider,
        cell="c2",
        key={"node": "unknown"},
        says=f"the compute node unknown ({uuid('unknown')}) has no provider in placement",
        do="restart nova-compute on unknown, which makes it; where it does not, see its log",
        way="words",
        lasting=True,
    ),
    # Bug 1859496.
    Fault(
        code="allocation-left",
        plant=leave_allocation,
        cell="c1",
        key={"uuid": uuid("deleted long ago"), "provider": uuid("h1a")},
        says=f"{uuid('deleted long ago')} has allocations of the provider {uuid('h1a')} on h1a",
        do=f"nova-manage placement audit --resource_provider {uuid('h1a')} --delete --verbose",
    ),
    Fault(
        code="allocation-missing",
        plant=lose_allocation,
        cell="c1",
        key={"uuid": uuid("db")},
        says=f"instance {uuid('db')} runs on h1b and has no allocations in placement",
        do=f"nova-manage placement heal_allocations --instance {uuid('db')} --verbose",
        lasting=True,
    ),
]
