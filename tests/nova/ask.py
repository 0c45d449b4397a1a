"""Have Nova's own code write and read databases: questions come in and answers go out, one JSON a line.

Runs under the Python of .venv-nova; `asking` starts it and speaks to it. A line is ``{"conf": FILE,
"questions": [{"project": ID, "admin": BOOL, "do": NAME, "with": {...}}, ...]}``: FILE is the nova.conf of one
cell, NAME a function that is marked with ``@question``. The answers are a list of as many, each
``{"answer": ...}``, or ``{"error": CLASS, "message": TEXT}`` where Nova raised one of its own exceptions.
Anything else that goes wrong ends the process: it is a mistake of the tests.

Importing Nova takes two seconds and its engines can be configured only once in a process, so each line is
answered by a fork that has Nova imported already and its engines not yet made. That takes 0.2 s and more.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

import ask_instances
import ask_mitaka
from nova import availability_zones, config, context, exception, objects, rpc
from nova import conf as nova_conf
from nova.db.api import api as api_database
from nova.db.main import api as main_database
from nova.db.main import models
from nova.objects import ec2
from oslo_utils import uuidutils
from sqlalchemy import orm

Context = context.RequestContext
QUESTIONS: dict[str, Callable[..., Any]] = {
    **{f"mitaka.{name}": do for name, do in ask_mitaka.QUESTIONS.items()},
    **ask_instances.QUESTIONS,
}


def question(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function be asked for by its name."""
    QUESTIONS[answer.__name__] = answer
    return answer


# -- Writing -----------------------------------------------------------------------------------


@question
def create_service(by: Context, host: str) -> None:
    """Write a nova-compute's row as the service does when it starts."""
    service = objects.Service(context=by, host=host, binary="nova-compute", topic="compute", report_count=1)
    service.create()


@question
def map_host(by: Context, host: str) -> None:
    """Map a host to the only cell of its nova_api, as discover_hosts does it."""
    mapped = list(objects.CellMappingList.get_all(by))
    if not mapped:
        cell = objects.CellMapping(
            context=by, uuid=uuidutils.generate_uuid(), name="cell1", transport_url="fake:/"
        )
        cell.database_connection, cell.disabled = nova_conf.CONF.database.connection, False
        cell.create()
        mapped = [cell]
    objects.HostMapping(context=by, host=host, cell_mapping=mapped[0]).create()


@question
def create_aggregate(by: Context, name: str, metadata: dict[str, str], hosts: list[str]) -> int:
    """Create an aggregate with its hosts; return its id."""
    aggregate = objects.Aggregate(context=by, name=name, metadata=metadata)
    aggregate.create()
    for host in hosts:
        aggregate.add_host(host)
    return int(aggregate.id)


def _aggregate(by: Context, name: str) -> objects.Aggregate:
    return next(each for each in objects.AggregateList.get_all(by) if each.name == name)


@question
def rename_aggregate(by: Context, name: str, to: str) -> None:
    """Rename an aggregate."""
    aggregate = _aggregate(by, name)
    aggregate.name = to
    aggregate.save()


@question
def set_metadata(by: Context, name: str, metadata: dict[str, str | None]) -> None:
    """Set metadata of an aggregate; None takes a key away."""
    _aggregate(by, name).update_metadata(metadata)


@question
def add_host(by: Context, name: str, host: str) -> None:
    """Add a host to an aggregate."""
    _aggregate(by, name).add_host(host)


@question
def delete_host(by: Context, name: str, host: str) -> None:
    """Take a host out of an aggregate."""
    _aggregate(by, name).delete_host(host)


@question
def delete_aggregate(by: Context, name: str) -> None:
    """Delete an aggregate, its hosts first, as the API demands it."""
    aggregate = _aggregate(by, name)
    for host in list(aggregate.hosts):
        aggregate.delete_host(host)
    aggregate.destroy()


@question
def create_flavor(
    by: Context, name: str, flavorid: str, extra_specs: dict[str, str], projects: list[str]
) -> int:
    """Create a flavor, private where it has projects; return its id."""
    sizes = {"memory_mb": 2048, "vcpus": 2, "root_gb": 20, "ephemeral_gb": 0, "swap": 0, "rxtx_factor": 1.1}
    flavor = objects.Flavor(
        context=by, name=name, flavorid=flavorid, is_public=not projects, disabled=False, **sizes
    )
    flavor.extra_specs, flavor.projects = extra_specs, projects
    flavor.create()
    return int(flavor.id)


@question
def create_key_pair(by: Context, user: str, name: str, public_key: str) -> None:
    """Import a public key."""
    key_pair = objects.KeyPair(
        context=by, user_id=user, name=name, type="ssh", fingerprint="aa:00", public_key=public_key
    )
    key_pair.create()


@question
def create_server_group(by: Context, uuid: str, name: str, policy: str, members: list[str]) -> None:
    """Create a server group with its members, which are uuids of instances."""
    group = objects.InstanceGroup(
        context=by, uuid=uuid, name=name, project_id=by.project_id, user_id=by.user_id, policy=policy
    )
    group.create()
    objects.InstanceGroup.add_members(by, uuid, members)


# -- Reading -----------------------------------------------------------------------------------


@question
def zones(by: Context) -> dict[str, list[str]]:
    """Return availability zone -> hosts, of all enabled services, as nova-api lists them."""
    services = objects.ServiceList.get_all(by, set_zones=True)
    found, not_available = availability_zones.get_availability_zones(
        by, None, with_hosts=True, services=services
    )
    assert not not_available
    return {zone: sorted(hosts) for zone, hosts in found}


@question
def host_zone(by: Context, host: str) -> str:
    """Return the zone of a host, as the scheduler and the server's details show it."""
    return str(availability_zones.get_host_availability_zone(by, host))


@question
def aggregates(by: Context) -> list[dict[str, Any]]:
    """Return all aggregates with their metadata and hosts."""
    return _all_told(objects.AggregateList.get_all(by))


@question
def aggregates_by_host(by: Context, host: str) -> list[dict[str, Any]]:
    """Return the aggregates of a host, as the scheduler's host manager and filters read them."""
    return _all_told(objects.AggregateList.get_by_host(by, host))


@question
def aggregates_by_metadata_key(by: Context, key: str) -> list[dict[str, Any]]:
    """Return the aggregates that have a metadata key, and no other key, as services are given their zones."""
    return _all_told(objects.AggregateList.get_by_metadata_key(by, key))


@question
def aggregates_by_metadata(by: Context, key: str, value: str) -> list[str]:
    """Return the names of the aggregates that have a metadata pair."""
    return sorted(each.name for each in objects.AggregateList.get_by_metadata(by, key=key, value=value))


def _all_told(aggregates: objects.AggregateList) -> list[dict[str, Any]]:
    told = [
        {"name": each.name, "hosts": sorted(each.hosts), "metadata": dict(each.metadata)}
        for each in aggregates
    ]
    return sorted(told, key=lambda each: str(each["name"]))


@question
def flavor(by: Context, flavorid: str) -> dict[str, Any]:
    """Return a flavor as a resize looks it up, with its extra specs and projects."""
    found = objects.Flavor.get_by_flavor_id(by, flavorid)
    found._load_projects()
    return {
        **{name: getattr(found, name) for name in ("id", "name", "memory_mb", "rxtx_factor", "is_public")},
        "extra_specs": dict(found.extra_specs),
        "projects": sorted(found.projects),
    }


@question
def flavors(by: Context) -> list[str]:
    """Return the names of the flavors that the context's project may use."""
    return [each.name for each in objects.FlavorList.get_all(by, filters={"is_public": True})]


@question
def key_pair(by: Context, user: str, name: str) -> str:
    """Return a public key, as the metadata service looks it up."""
    return str(objects.KeyPair.get_by_name(by, user, name).public_key)


@question
def server_group(by: Context, uuid: str) -> dict[str, Any]:
    """Return a server group."""
    return _group(objects.InstanceGroup.get_by_uuid(by, uuid))


@question
def server_group_of(by: Context, instance: str) -> dict[str, Any]:
    """Return the server group of an instance, as the scheduler's affinity filters look it up."""
    return _group(objects.InstanceGroup.get_by_instance_uuid(by, instance))


def _group(group: objects.InstanceGroup) -> dict[str, Any]:
    return {"name": group.name, "policy": group.policy, "members": sorted(group.members)}


# -- Tables that Nova of today still shares with Mitaka ----------------------------------------


@question
@main_database.pick_context_manager_writer
def create_security_group(by: Context, name: str, rules: list[dict[str, Any]]) -> None:
    """Create a security group; a rule's ``group`` names the group of the project that it lets in."""
    group = main_database.security_group_create(
        by, {"name": name, "description": f"about {name}", "user_id": by.user_id, "project_id": by.project_id}
    )
    for rule in rules:
        let_in = rule.pop("group", None)
        if let_in is not None:
            found = main_database.security_group_get_by_name(by, by.project_id, let_in)
            rule["group_id"] = found.id
        models.SecurityGroupIngressRule(parent_group_id=group.id, **rule).save(by.session)


@question
@main_database.pick_context_manager_reader
def security_group(by: Context, name: str) -> list[dict[str, Any]]:
    """Return the rules of a security group, as the firewall of a host was built from them."""
    found = main_database.security_group_get_by_name(by, by.project_id, name)
    told = []
    for rule in found.rules:
        plain = {key: getattr(rule, key) for key in ("protocol", "from_port", "to_port", "cidr")}
        told.append({**plain, "group": rule.grantee_group.name if rule.grantee_group else None})
    return sorted(told, key=str)


@question
def create_image_id(by: Context, uuid: str) -> int:
    """Number an image for the EC2 API; return its number."""
    mapping = objects.S3ImageMapping(by, uuid=uuid)
    mapping.create()
    return int(mapping.id)


@question
def image_id(by: Context, uuid: str) -> str:
    """Return an image's EC2 id, as the metadata service tells it to an instance."""
    number = objects.S3ImageMapping.get_by_uuid(by, uuid).id
    return str(ec2.id_to_ec2_id(number, ec2.glance_type_to_ec2_type("machine") + "-%08x"))


# -- Answering ---------------------------------------------------------------------------------


def configure(file: str) -> None:
    """Have Nova read its nova.conf."""
    config.set_lib_defaults()
    conf = nova_conf.CONF
    conf([], project="nova", default_config_files=[file])
    api_database.configure(conf)
    main_database.configure(conf)
    rpc.init(conf)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Have one question answered by Nova."""
    by = Context(user_id="u1", project_id=asked["project"], is_admin=asked["admin"])
    try:
        return {"answer": QUESTIONS[asked["do"]](by, **asked["with"])}
    except exception.NovaException as refused:
        return {"error": type(refused).__name__, "message": str(refused)}


def answers(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Have the questions of one line answered by Nova, one after the other."""
    configure(asked["conf"])
    return [answer(each) for each in asked["questions"]]


def answer_in_a_fork(line: str) -> None:
    """Answer on standard output; raise ChildProcessError where the fork ended otherwise."""
    child = os.fork()
    if child == 0:
        print(json.dumps(answers(json.loads(line))), flush=True)
        os._exit(0)  # at once: taking a whole Nova down would last longer than the question
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise ChildProcessError(f"nobody answered {line}")


if __name__ == "__main__":
    objects.register_all()
    orm.configure_mappers()
    print(json.dumps("ready"), flush=True)
    for question_line in sys.stdin:
        answer_in_a_fork(question_line)
