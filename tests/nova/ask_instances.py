"""Write, list and show instances with Nova's own code: its objects, and the view of its servers API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nova import context, objects
from nova.api.openstack import wsgi
from nova.api.openstack.compute.views import servers
from nova.network import model as network_model
from nova.objects import block_device

Context = context.RequestContext
QUESTIONS: dict[str, Callable[..., Any]] = {}
EXPECTED = ["flavor", "info_cache", "metadata", "system_metadata", "numa_topology", "pci_requests"]


def question(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function be asked for by its name."""
    QUESTIONS[answer.__name__] = answer
    return answer


@question
def create_instance(by: Context, uuid: str, address: str, volume: str, metadata: dict[str, str]) -> None:
    """Write an instance that runs, as conductor and compute leave it: with one port and one volume."""
    sizes = {"memory_mb": 2048, "vcpus": 2, "root_gb": 20, "ephemeral_gb": 0}
    flavor = objects.Flavor(
        context=by,
        id=2,
        name="m1.small",
        flavorid="2",
        swap=0,
        rxtx_factor=1.0,
        vcpu_weight=0,
        disabled=False,
        is_public=True,
        extra_specs={"hw:cpu_policy": "dedicated"},
        **sizes,
    )
    instance = objects.Instance(
        context=by,
        uuid=uuid,
        user_id=by.user_id,
        project_id=by.project_id,
        host="h1",
        node="h1",
        compute_id=1,
        display_name=f"server {uuid[:2]}",
        hostname=f"server-{uuid[:2]}",
        image_ref="",
        key_name="laptop",
        vm_state="active",
        power_state=1,
        instance_type_id=flavor.id,
        flavor=flavor,
        metadata=metadata,
        system_metadata={"image_min_disk": "1"},
        **sizes,
    )
    instance.create()
    info = network_model.NetworkInfo([_port(address)])
    instance.info_cache.network_info = info
    instance.info_cache.save()
    block_device.BlockDeviceMapping(
        context=by,
        instance_uuid=uuid,
        source_type="volume",
        destination_type="volume",
        volume_id=volume,
        device_name="/dev/vda",
        boot_index=0,
        delete_on_termination=True,
        connection_info='{"data": {"auth_password": "secret"}}',
    ).create()


@question
def delete_instance(by: Context, uuid: str) -> None:
    """Delete an instance softly with all that belongs to it, as the API does when its cell has."""
    objects.Instance.get_by_uuid(by, uuid).destroy()


def _port(address: str) -> network_model.VIF:
    subnet = network_model.Subnet(
        cidr="10.0.0.0/24", ips=[network_model.FixedIP(address=address)], gateway=None, version=4
    )
    network = network_model.Network(id="net", label="private", subnets=[subnet])
    return network_model.VIF(id="port", address="fa:16:3e:00:00:01", network=network)


@question
def list_instances(by: Context) -> list[str]:
    """Return the uuids of the project's servers, as a listing finds them."""
    found = objects.InstanceList.get_by_filters(by, {"project_id": by.project_id, "deleted": False})
    return sorted(each.uuid for each in found)


@question
def list_instances_of_flavor(by: Context, flavor: int) -> list[str]:
    """Return those of a flavor, by the number that instances carry."""
    found = objects.InstanceList.get_by_filters(by, {"instance_type_id": flavor, "deleted": False})
    return sorted(each.uuid for each in found)


@question
def show_instance(by: Context, uuid: str) -> dict[str, Any]:
    """Return what `nova show` prints of a server, made by the view of the servers API."""
    instance = objects.Instance.get_by_uuid(by, uuid, expected_attrs=EXPECTED)
    request = wsgi.Request.blank(f"/servers/{uuid}", base_url="http://localhost/v2.1")
    request.environ["nova.context"] = by
    bdms = objects.BlockDeviceMappingList.bdms_by_instance_uuid(by, [uuid])
    shown = servers.ViewBuilder().show(request, instance, show_AZ=False, show_sec_grp=False, bdms=bdms)
    server = dict(shown["server"])
    told = ("id", "name", "status", "metadata", "key_name", "user_id", "tenant_id")
    return {
        **{name: server[name] for name in told},
        "addresses": [each["addr"] for each in server["addresses"]["private"]],
        "flavor": instance.flavor.name,
        "extra_specs": dict(instance.flavor.extra_specs),
        "volumes": [each["id"] for each in server["os-extended-volumes:volumes_attached"]],
        "cell_name": instance.cell_name,
        "image": dict(instance.system_metadata)["image_min_disk"],
        "created": server["created"],
    }
