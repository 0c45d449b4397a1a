"""Write the tables that only Mitaka and its forerunners use, as Nova's ORM wrote them.

The models are Mitaka's (nova/db/sqlalchemy/models.py there), without relationships, on the base classes that
Nova still has: ``deleted = 0`` and the times come from them, and so does the soft delete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from nova import context, exception
from nova.db.main import api as main_database
from nova.db.main import models
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import models as oslo

Context = context.RequestContext
QUESTIONS: dict[str, Callable[..., Any]] = {}


def question(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function be asked for by its name, behind "mitaka."."""
    QUESTIONS[answer.__name__] = answer
    return answer


class _Row(models.NovaBase, oslo.SoftDeleteMixin):
    id = sa.Column(sa.Integer, primary_key=True)


class Aggregate(models.BASE, _Row):
    __tablename__ = "aggregates"
    uuid = sa.Column(sa.String(36))
    name = sa.Column(sa.String(255))


class AggregateHost(models.BASE, _Row):
    __tablename__ = "aggregate_hosts"
    host = sa.Column(sa.String(255))
    aggregate_id = sa.Column(sa.Integer)


class AggregateMetadata(models.BASE, _Row):
    __tablename__ = "aggregate_metadata"
    aggregate_id = sa.Column(sa.Integer)
    key = sa.Column(sa.String(255))
    value = sa.Column(sa.String(255))


class InstanceTypes(models.BASE, _Row):
    __tablename__ = "instance_types"
    name = sa.Column(sa.String(255))
    flavorid = sa.Column(sa.String(255))
    memory_mb = sa.Column(sa.Integer)
    vcpus = sa.Column(sa.Integer)
    swap = sa.Column(sa.Integer)
    root_gb = sa.Column(sa.Integer)
    ephemeral_gb = sa.Column(sa.Integer)
    rxtx_factor = sa.Column(sa.Float)
    disabled = sa.Column(sa.Boolean)
    is_public = sa.Column(sa.Boolean)


class InstanceTypeExtraSpecs(models.BASE, _Row):
    __tablename__ = "instance_type_extra_specs"
    instance_type_id = sa.Column(sa.Integer)
    key = sa.Column(sa.String(255))
    value = sa.Column(sa.String(255))


class InstanceTypeProjects(models.BASE, _Row):
    __tablename__ = "instance_type_projects"
    instance_type_id = sa.Column(sa.Integer)
    project_id = sa.Column(sa.String(255))


class KeyPair(models.BASE, _Row):
    __tablename__ = "key_pairs"
    user_id = sa.Column(sa.String(255))
    name = sa.Column(sa.String(255))
    fingerprint = sa.Column(sa.String(255))
    public_key = sa.Column(sa.Text)
    type = sa.Column(sa.String(4))


class InstanceGroup(models.BASE, _Row):
    __tablename__ = "instance_groups"
    user_id = sa.Column(sa.String(255))
    project_id = sa.Column(sa.String(255))
    uuid = sa.Column(sa.String(36))
    name = sa.Column(sa.String(255))


class InstanceGroupPolicy(models.BASE, _Row):
    __tablename__ = "instance_group_policy"
    policy = sa.Column(sa.String(255))
    group_id = sa.Column(sa.Integer)


class InstanceGroupMember(models.BASE, _Row):
    __tablename__ = "instance_group_member"
    instance_id = sa.Column(sa.String(255))
    group_id = sa.Column(sa.Integer)


def _add(by: Context, row: Any) -> Any:
    row.save(by.session)
    return row


def _query(by: Context, model: Any, **values: Any) -> Any:
    return by.session.query(model).filter_by(deleted=0, **values)


def _aggregate(by: Context, name: str) -> Aggregate:
    return _query(by, Aggregate, name=name).one()


def _free(by: Context, name: str) -> None:
    if _query(by, Aggregate, name=name).first() is not None:
        raise exception.AggregateNameExists(aggregate_name=name)


def _set(by: Context, aggregate: Aggregate, key: str, value: str) -> None:
    """Change the live row of a key, or add one: a deleted row stays deleted."""
    found = _query(by, AggregateMetadata, aggregate_id=aggregate.id, key=key).first()
    if found is None:
        _add(by, AggregateMetadata(aggregate_id=aggregate.id, key=key, value=value))
    else:
        found.value = value


@question
@main_database.pick_context_manager_writer
def create_aggregate(by: Context, name: str, metadata: dict[str, str], hosts: list[str]) -> int:
    """Create an aggregate with its hosts; return its id."""
    _free(by, name)
    aggregate = _add(by, Aggregate(uuid=str(uuid4()), name=name))
    for key, value in metadata.items():
        _set(by, aggregate, key, value)
    for host in hosts:
        _add(by, AggregateHost(aggregate_id=aggregate.id, host=host))
    return int(aggregate.id)


@question
@main_database.pick_context_manager_writer
def rename_aggregate(by: Context, name: str, to: str) -> None:
    """Rename an aggregate."""
    _free(by, to)
    _aggregate(by, name).name = to


@question
@main_database.pick_context_manager_writer
def set_metadata(by: Context, name: str, metadata: dict[str, str | None]) -> None:
    """Set metadata of an aggregate; None takes a key away."""
    aggregate = _aggregate(by, name)
    for key, value in metadata.items():
        if value is None:
            _query(by, AggregateMetadata, aggregate_id=aggregate.id, key=key).soft_delete()
        else:
            _set(by, aggregate, key, value)


@question
@main_database.pick_context_manager_writer
def add_host(by: Context, name: str, host: str) -> None:
    """Add a host to an aggregate."""
    try:
        _add(by, AggregateHost(aggregate_id=_aggregate(by, name).id, host=host))
    except db_exception.DBDuplicateEntry as twice:
        raise exception.AggregateHostExists(aggregate_id=name, host=host) from twice


@question
@main_database.pick_context_manager_writer
def delete_host(by: Context, name: str, host: str) -> None:
    """Take a host out of an aggregate."""
    if _query(by, AggregateHost, aggregate_id=_aggregate(by, name).id, host=host).soft_delete() == 0:
        raise exception.AggregateHostNotFound(aggregate_id=name, host=host)


@question
@main_database.pick_context_manager_writer
def delete_aggregate(by: Context, name: str) -> None:
    """Delete an aggregate, its hosts first, as the API demands it, and then its metadata."""
    aggregate = _aggregate(by, name)
    _query(by, AggregateHost, aggregate_id=aggregate.id).soft_delete()
    _query(by, Aggregate, id=aggregate.id).soft_delete()
    _query(by, AggregateMetadata, aggregate_id=aggregate.id).soft_delete()


@question
@main_database.pick_context_manager_writer
def create_flavor(
    by: Context, name: str, flavorid: str, extra_specs: dict[str, str], projects: list[str]
) -> int:
    """Create a flavor, private where it has projects; return its id."""
    sizes = {"memory_mb": 2048, "vcpus": 2, "root_gb": 20, "ephemeral_gb": 0, "swap": 0, "rxtx_factor": 1.1}
    flags = {"disabled": False, "is_public": not projects}
    flavor = _add(by, InstanceTypes(name=name, flavorid=flavorid, **sizes, **flags))
    for key, value in extra_specs.items():
        _add(by, InstanceTypeExtraSpecs(instance_type_id=flavor.id, key=key, value=value))
    for project in projects:
        _add(by, InstanceTypeProjects(instance_type_id=flavor.id, project_id=project))
    return int(flavor.id)


@question
@main_database.pick_context_manager_writer
def delete_flavor(by: Context, flavorid: str) -> None:
    """Delete a flavor softly, with its extra specs and projects."""
    flavor = _query(by, InstanceTypes, flavorid=flavorid).one()
    for model in (InstanceTypeExtraSpecs, InstanceTypeProjects):
        _query(by, model, instance_type_id=flavor.id).soft_delete()
    _query(by, InstanceTypes, id=flavor.id).soft_delete()


@question
@main_database.pick_context_manager_writer
def create_key_pair(by: Context, user: str, name: str, public_key: str) -> None:
    """Import a public key."""
    _add(by, KeyPair(user_id=user, name=name, type="ssh", fingerprint="aa:00", public_key=public_key))


@question
@main_database.pick_context_manager_writer
def create_server_group(by: Context, uuid: str, name: str, policy: str, members: list[str]) -> None:
    """Create a server group with its members, which are uuids of instances."""
    group = _add(by, InstanceGroup(uuid=uuid, name=name, project_id=by.project_id, user_id=by.user_id))
    _add(by, InstanceGroupPolicy(group_id=group.id, policy=policy))
    for member in members:
        _add(by, InstanceGroupMember(group_id=group.id, instance_id=member))
