"""Write a cells v2 deployment with Nova's own objects: services, compute nodes, instances and their records.

Runs under the Python of .venv-nova: ``write_nova.py NOVA.CONF < JSON``. The JSON says what there is, as
``lab.DEPLOYMENT`` does; nothing is read back. The cells must be mapped already.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

from nova import config, context, objects

Context = context.RequestContext
FLAVOR = {
    "id": 1,
    "name": "small",
    "flavorid": "1",
    "memory_mb": 64,
    "vcpus": 1,
    "root_gb": 1,
    "ephemeral_gb": 0,
    "swap": 0,
    "rxtx_factor": 1.0,
    "vcpu_weight": 0,
    "disabled": False,
    "is_public": True,
    "extra_specs": {},
}
NODE = {
    "vcpus": 8,
    "memory_mb": 4096,
    "local_gb": 100,
    "vcpus_used": 0,
    "memory_mb_used": 0,
    "local_gb_used": 0,
    "hypervisor_type": "QEMU",
    "hypervisor_version": 1,
    "cpu_info": "{}",
    "cpu_allocation_ratio": 1.0,
    "ram_allocation_ratio": 1.0,
    "disk_allocation_ratio": 1.0,
}


def main() -> None:
    """Write everything."""
    config.parse_args(["nova-manage", "--config-file", sys.argv[1]])
    objects.register_all()
    given = json.load(sys.stdin)
    api = context.get_admin_context()
    api.project_id, api.user_id = "project", "user"
    mappings = {cell.name: cell for cell in objects.CellMappingList.get_all(api)}
    for name, hosts in given["hosts"].items():
        with context.target_cell(api, mappings[name]) as cell:
            for host, nodes in hosts.items():
                _host(cell, host, nodes)
    for uuid, instance in given["instances"].items():
        cell = mappings.get(instance["cell"])
        if cell is not None:
            with context.target_cell(api, cell) as targeted:
                _instance(targeted, uuid, instance)
        _above(api, uuid, instance, cell)
    for name, aggregate in given["aggregates"].items():
        _aggregate(api, name, aggregate)
    for uuid, members in given["groups"].items():
        group = objects.InstanceGroup(
            api, uuid=uuid, name=uuid, project_id="project", user_id="user", policy="affinity"
        )
        group.create()
        objects.InstanceGroup.add_members(api, uuid, members)


def _host(cell: Context, host: str, nodes: dict[str, str]) -> None:
    service = objects.Service(cell, host=host, binary="nova-compute", topic="compute", report_count=1)
    service.create()
    for node, uuid in nodes.items():
        objects.ComputeNode(
            cell, uuid=uuid, host=host, hypervisor_hostname=node, service_id=service.id, **NODE
        ).create()


def _instance(cell: Context, uuid: str, given: dict[str, Any]) -> None:
    compute = None
    if given["host"]:
        compute = objects.ComputeNode.get_by_host_and_nodename(cell, given["host"], given["node"]).id
    instance = objects.Instance(
        cell,
        uuid=uuid,
        project_id="project",
        user_id="user",
        compute_id=compute,
        host=given["host"],
        node=given["node"],
        vm_state=given["state"],
        flavor=objects.Flavor(**FLAVOR),
        instance_type_id=1,
        display_name="vm",
        image_ref=uuid,
        system_metadata={},
    )
    instance.create()
    if given["migration"]:
        objects.Migration(
            cell,
            uuid=given["migration"],
            instance_uuid=uuid,
            source_compute=given["from"],
            source_node=given["from"],
            dest_compute=given["host"],
            dest_node=given["node"],
            dest_compute_id=compute,
            status="finished",
            migration_type="resize",
            old_instance_type_id=1,
            new_instance_type_id=1,
        ).create()
    if given["deleted"]:
        instance.destroy()


def _above(api: Context, uuid: str, given: dict[str, Any], cell: objects.CellMapping | None) -> None:
    """Write what nova_api has of an instance."""
    mapping = objects.InstanceMapping(
        api, instance_uuid=uuid, cell_mapping=cell, project_id="project", user_id="user"
    )
    mapping.queued_for_delete = given["deleted"]
    mapping.create()
    nothing = ["image", "numa_topology", "pci_requests", "availability_zone", "retry", "limits"]
    nothing += ["force_hosts", "force_nodes", "instance_group", "ignore_hosts", "scheduler_hints"]
    nothing += ["requested_destination"]
    objects.RequestSpec(
        api,
        instance_uuid=uuid,
        flavor=objects.Flavor(**FLAVOR),
        project_id="project",
        user_id="user",
        num_instances=1,
        is_bfv=False,
        security_groups=objects.SecurityGroupList(),
        **dict.fromkeys(nothing),
    ).create()
    if cell is None:
        instance = objects.Instance(api, uuid=uuid, project_id="project", user_id="user", display_name="vm")
        objects.BuildRequest(
            api,
            instance=instance,
            instance_uuid=uuid,
            project_id="project",
            block_device_mappings=objects.BlockDeviceMappingList(),
            tags=objects.TagList(),
        ).create()


def _aggregate(api: Context, name: str, given: dict[str, Any]) -> None:
    aggregate = objects.Aggregate(api, name=name, uuid=given["uuid"], metadata={"availability_zone": name})
    aggregate.create()
    for host in given["hosts"]:
        aggregate.add_host(host)


main()
