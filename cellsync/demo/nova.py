"""Databases like Nova's in OpenStack Liberty, one description for MariaDB and SQLite.

Only the tables and columns that matter here; types, keys, charsets and the missing defaults are
those that Nova's own migrations make. The rows are broken as cellsync's users find them: see
``FAULTS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import URL

from cellsync.demo.database import connected

PARENT = "api"
CHILDREN = ("c1", "c2")
CELLS = (PARENT, *CHILDREN)

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
Zones = Mapping[str, tuple[str, ...]]


FAULTS = (
    "the aggregates of the zones az-east and az-west exist in the parent alone: Nova writes them there,",
    "  and each child reads only its own database (c1 has no aggregate at all);",
    "c2 has an outdated copy of the aggregate west, under another id, and one aggregate of its own;",
    "the flavor gpu.large is missing in both children;",
    "the parent believes that vm-c1 is still building: its child says that it is active.",
)
"""What is broken, for people; a line that starts with a space goes on from the one before."""

ZONES_AFTER: Mapping[str, Zones] = {
    "c1": {"az-east": ("compute-1", "compute-2"), "nova": ("compute-3",)},
    "c2": {"az-west": ("compute-4", "compute-5"), "nova": ("compute-6",)},
}
"""What ``zones`` must return in each child after a repair; before, there is only "nova"."""

NOVA = sa.MetaData()
"""The tables of Nova's database in Liberty that cellsync's pack looks at, in MariaDB and in SQLite."""


def _table(name: str, *columns: sa.schema.SchemaItem, collate: str = "utf8mb3_general_ci") -> None:
    # ``deleted`` has no default in the server, as in Nova: whoever leaves it out writes NULL.
    times = (sa.Column(time, sa.DateTime) for time in ("created_at", "updated_at", "deleted_at"))
    number = sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)
    deleted = sa.Column("deleted", sa.Integer)
    sa.Table(
        name,
        NOVA,
        *times,
        number,
        deleted,
        *columns,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb3",
        mysql_collate=collate,
    )


def _texts(*names: str) -> Iterator[sa.Column[str]]:
    return (sa.Column(name, sa.String(255)) for name in names)


def _integers(*names: str) -> Iterator[sa.Column[int]]:
    return (sa.Column(name, sa.Integer) for name in names)


def _booleans(*names: str) -> Iterator[sa.Column[bool]]:
    return (sa.Column(name, sa.Boolean) for name in names)


def _uuid() -> sa.Column[str]:
    return sa.Column("uuid", sa.String(36), nullable=False)


def _refers(column: str, table: str) -> sa.Column[int]:
    return sa.Column(column, sa.Integer, sa.ForeignKey(f"{table}.id"), nullable=False)


def _of_instance() -> sa.Column[str]:
    return sa.Column("instance_uuid", sa.String(36), sa.ForeignKey("instances.uuid"), nullable=False)


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=f"uniq_{table}0{'0'.join(columns)}")


_LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")
_OWNED = ("name", "project_id", "user_id")

sa.Table(
    "migrate_version",
    NOVA,
    sa.Column("repository_id", sa.String(250), primary_key=True),
    sa.Column("repository_path", sa.Text),
    sa.Column("version", sa.Integer),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb3",
)
_table("aggregates", *_texts("name"))
_table(
    "aggregate_metadata",
    _refers("aggregate_id", "aggregates"),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("value", sa.String(255), nullable=False),
    _unique("aggregate_metadata", "aggregate_id", "key", "deleted"),
)
_table(
    "aggregate_hosts",
    *_texts("host"),
    _refers("aggregate_id", "aggregates"),
    _unique("aggregate_hosts", "host", "aggregate_id", "deleted"),
)
_table(
    "instance_types",
    *_texts("name", "flavorid"),
    *(sa.Column(name, sa.Integer, nullable=False) for name in ("memory_mb", "vcpus", "swap")),
    *_integers("vcpu_weight", "root_gb", "ephemeral_gb"),
    sa.Column("rxtx_factor", sa.Float),
    *_booleans("disabled", "is_public"),
    _unique("instance_types", "name", "deleted"),
    _unique("instance_types", "flavorid", "deleted"),
)
_table(
    "instance_type_extra_specs",
    _refers("instance_type_id", "instance_types"),
    *_texts("key", "value"),
    _unique("instance_type_extra_specs", "instance_type_id", "key", "deleted"),
    collate="utf8mb3_bin",
)
_table(
    "instance_type_projects",
    _refers("instance_type_id", "instance_types"),
    *_texts("project_id"),
    _unique("instance_type_projects", "instance_type_id", "project_id", "deleted"),
)
_table(
    "key_pairs",
    sa.Column("name", sa.String(255), nullable=False),
    *_texts("user_id", "fingerprint"),
    sa.Column("public_key", _LONG_TEXT),
    sa.Column("type", sa.Enum("ssh", "x509"), nullable=False, server_default="ssh"),
    _unique("key_pairs", "user_id", "name", "deleted"),
)
_table(
    "security_groups",
    *_texts(*_OWNED, "description"),
    _unique("security_groups", "project_id", "name", "deleted"),
)
_table(
    "security_group_rules",
    *(
        sa.Column(name, sa.Integer, sa.ForeignKey("security_groups.id"))
        for name in ("parent_group_id", "group_id")
    ),
    *_texts("protocol"),
    *_integers("from_port", "to_port"),
    sa.Column("cidr", sa.String(43)),
)
_table(
    "security_group_default_rules",
    sa.Column("protocol", sa.String(5)),
    *_integers("from_port", "to_port"),
    sa.Column("cidr", sa.String(43)),
)
_table("instance_groups", *_texts(*_OWNED), _uuid(), _unique("instance_groups", "uuid", "deleted"))
_table("instance_group_policy", _refers("group_id", "instance_groups"), *_texts("policy"))
_table("instance_group_member", _refers("group_id", "instance_groups"), *_texts("instance_id"))
_table(
    "agent_builds",
    *_texts("hypervisor", "os", "architecture", "version", "url", "md5hash"),
    _unique("agent_builds", "hypervisor", "os", "architecture", "deleted"),
)
_table("s3_images", _uuid())
_table(
    "instances",
    *_texts("user_id", "project_id", "hostname", "display_name", "availability_zone", "cell_name"),
    *_texts("host", "node", "vm_state", "task_state"),
    *_integers("power_state", "memory_mb", "vcpus", "root_gb", "ephemeral_gb", "instance_type_id", "cleaned"),
    *(sa.Column(name, sa.DateTime) for name in ("launched_at", "terminated_at")),
    _uuid(),
    _unique("instances", "uuid"),
)
_table("instance_info_caches", _of_instance(), sa.Column("network_info", _LONG_TEXT))
_table("instance_extra", _of_instance(), *(sa.Column(n, sa.Text) for n in ("numa_topology", "flavor")))
_table("instance_system_metadata", _of_instance(), *_texts("key", "value"))
_table("instance_metadata", _of_instance(), *_texts("key", "value"))
_table(
    "services",
    *_texts("host", "binary", "topic", "disabled_reason"),
    sa.Column("report_count", sa.Integer, nullable=False),
    *_booleans("disabled", "forced_down"),
    *_integers("version"),
    sa.Column("last_seen_up", sa.DateTime),
    _unique("services", "host", "topic", "deleted"),
    _unique("services", "host", "binary", "deleted"),
)
_table(
    "block_device_mapping",
    *_texts("instance_uuid", "volume_id", "device_name", "source_type", "destination_type"),
    *_booleans("delete_on_termination"),
    *_integers("boot_index", "volume_size"),
)
_table("instance_faults", *_texts("instance_uuid", "message", "host"), *_integers("code"))
_table(
    "reservations",
    *_texts("uuid", "project_id", "resource"),
    *_integers("usage_id", "delta"),
    sa.Column("expire", sa.DateTime),
)
_table(
    "cells",
    *_texts("name", "api_url"),
    *(sa.Column(name, sa.Float) for name in ("weight_offset", "weight_scale")),
    *_booleans("is_parent"),
    sa.Column("transport_url", sa.String(255), nullable=False),
    _unique("cells", "name", "deleted"),
)

_VERSION = {
    "repository_id": "nova",
    "repository_path": "nova/db/sqlalchemy/migrate_repo",
    "version": 302,  # Liberty
}
_CREATED = datetime(2016, 3, 1, 9, 0, 0)
_HOSTS = {
    "c1": ("compute-1", "compute-2", "compute-3"),
    "c2": ("compute-4", "compute-5", "compute-6"),
}


def _rows(cell: str) -> Rows:
    """Return the rows of one cell's database, table -> rows, broken as the demonstration tells."""
    common: Rows = {
        "instance_types": [*_flavors(cell)],
        "key_pairs": [{"name": "ops", "user_id": "u1", "fingerprint": "aa:00", "public_key": "ssh-rsa AAAA"}],
        "services": [*_services(cell)],
        "cells": [*_neighbours(cell)],
        "instances": [*_instances(cell)],
    }
    return {**common, **_OWN_ROWS[cell]}


def _flavors(cell: str) -> Iterator[Mapping[str, Any]]:
    yield _flavor(1, "m1.tiny", "1", 512, 1)
    yield _flavor(2, "m1.small", "2", 2048, 20)
    yield _flavor(3, "m1.medium", "3", 4096, 40)
    if cell == PARENT:
        yield _flavor(4, "gpu.large", "gpu-l", 16384, 80, is_public=False)


def _flavor(
    number: int, name: str, flavorid: str, memory_mb: int, root_gb: int, *, is_public: bool = True
) -> Mapping[str, Any]:
    sizes = {"memory_mb": memory_mb, "root_gb": root_gb, "vcpus": 2, "swap": 0, "ephemeral_gb": 0}
    flags = {"rxtx_factor": 1.0, "disabled": False, "is_public": is_public}
    return {"id": number, "name": name, "flavorid": flavorid, **sizes, **flags}


def _services(cell: str) -> Iterator[Mapping[str, Any]]:
    common = {"report_count": 100, "disabled": False, "forced_down": False, "version": 2}
    yield {"host": f"{cell}-controller", "binary": "nova-cells", "topic": "cells", **common}
    for host in _HOSTS.get(cell, ()):
        yield {"host": host, "binary": "nova-compute", "topic": "compute", **common}


def _neighbours(cell: str) -> Iterator[Mapping[str, Any]]:
    for neighbour in CHILDREN if cell == PARENT else (PARENT,):
        url = f"rabbit://nova:nova@127.0.0.1:5672/{neighbour}"
        weights = {"weight_offset": 0.0, "weight_scale": 1.0}
        yield {"name": neighbour, "is_parent": neighbour == PARENT, "transport_url": url, **weights}


def _instances(cell: str) -> Iterator[Mapping[str, Any]]:
    for child in CHILDREN:
        if cell not in (PARENT, child):
            continue
        host = _HOSTS[child][0]
        # The message that vm-c1 came up was lost: the parent still believes that it is building.
        state = "building" if cell == PARENT and child == "c1" else "active"
        names = {
            "hostname": f"vm-{child}",
            "display_name": f"vm-{child}",
            "uuid": f"7a1c0000-0000-4000-8000-0000000000{child}",
        }
        place = {"host": host, "node": host, "cell_name": f"{PARENT}!{child}" if cell == PARENT else None}
        size = {"memory_mb": 2048, "vcpus": 2, "root_gb": 20, "ephemeral_gb": 0, "instance_type_id": 2}
        owner = {"user_id": "u1", "project_id": "p1", "power_state": 1, "cleaned": 0}
        yield {**names, **place, **size, **owner, "vm_state": state, "launched_at": _CREATED}


_PARENT_ROWS: Rows = {
    "aggregates": [{"id": 1, "name": "east"}, {"id": 2, "name": "west"}, {"id": 3, "name": "ssd"}],
    "aggregate_metadata": [
        {"aggregate_id": 1, "key": "availability_zone", "value": "az-east"},
        {"aggregate_id": 2, "key": "availability_zone", "value": "az-west"},
        {"aggregate_id": 2, "key": "cpu_allocation_ratio", "value": "4.0"},
        {"aggregate_id": 3, "key": "ssd", "value": "true"},
    ],
    "aggregate_hosts": [
        {"aggregate_id": 1, "host": "compute-1"},
        {"aggregate_id": 1, "host": "compute-2"},
        {"aggregate_id": 2, "host": "compute-4"},
        {"aggregate_id": 2, "host": "compute-5"},
        {"aggregate_id": 3, "host": "api!c1@compute-2"},
        {"aggregate_id": 3, "host": "api!c2@compute-5"},
    ],
    "instance_type_extra_specs": [{"instance_type_id": 4, "key": "hw:cpu_policy", "value": "dedicated"}],
    "instance_type_projects": [{"instance_type_id": 4, "project_id": "p1"}],
}
_C2_ROWS: Rows = {
    "aggregates": [{"id": 1, "name": "c2-only"}, {"id": 7, "name": "west"}],
    "aggregate_metadata": [
        {"aggregate_id": 1, "key": "purpose", "value": "burn-in"},
        {"aggregate_id": 7, "key": "cpu_allocation_ratio", "value": "16.0"},
    ],
    "aggregate_hosts": [
        {"aggregate_id": 1, "host": "compute-6"},
        {"aggregate_id": 7, "host": "compute-4"},
    ],
}


_OWN_ROWS: Mapping[str, Rows] = {PARENT: _PARENT_ROWS, "c1": {}, "c2": _C2_ROWS}


def fill(url: URL, *, cell: str) -> None:
    """Make the tables of one cell in an empty database, and its rows."""
    rows = _rows(cell)
    with connected(url) as connection:
        NOVA.create_all(connection)
        connection.execute(NOVA.tables["migrate_version"].insert(), _VERSION)
        for table in NOVA.sorted_tables:
            for row in rows.get(table.name, ()):
                connection.execute(table.insert().values(created_at=_CREATED, deleted=0, **row))


def zones(url: URL) -> Zones:
    """Return availability zone -> the compute hosts in it, as this cell's Nova sees them.

    As ``get_availability_zones`` in nova/availability_zones.py does: a host is in the zone that
    the metadata ``availability_zone`` of one of its aggregates names, else in "nova".
    """
    services, hosts = NOVA.tables["services"], NOVA.tables["aggregate_hosts"]
    metadata = NOVA.tables["aggregate_metadata"]
    computes = sa.select(services.c.host).where(services.c.binary == "nova-compute", services.c.deleted == 0)
    named = (
        sa.select(hosts.c.host, metadata.c.value)
        .join(metadata, metadata.c.aggregate_id == hosts.c.aggregate_id)
        .where(metadata.c.key == "availability_zone", metadata.c.deleted == 0, hosts.c.deleted == 0)
    )
    with connected(url) as connection:
        zone_of = {row.host: row.value for row in connection.execute(named)}
        found: dict[str, tuple[str, ...]] = {}
        for host in sorted(connection.scalars(computes)):
            zone = zone_of.get(host, "nova")
            found[zone] = (*found.get(zone, ()), host)
    return dict(sorted(found.items()))
