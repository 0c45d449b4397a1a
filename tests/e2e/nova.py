"""Databases like those that Nova 12 (Liberty) wrote in a parent and two compute cells, out of step.

Schema and spelling are Nova's own: ``deleted`` has no default, ``aggregates.name`` no unique key,
hosts of zones stand in the parent by their plain names. What is in step and what is not:

- ``parent``: aggregates east, west, ssd, plain, empty-az, gold, and two tombstones (old; an
  earlier gold). Hosts of ssd are spelled ``parent!c1@compute-1-1``, the others are plain. Two
  flavors more than the children, with extra specs and projects. One key pair. Text
  with quotes, a backslash, a colon, a percent sign and letters outside ASCII.
- ``c1``: no aggregates at all.
- ``c2``: ``local-only``, its own, at id 1; and an older ``west`` at id 3 (the parent's ssd), with
  ``cpu_allocation_ratio`` 2.0 and one of three hosts.
- Instances: one is only in c1, one only in the parent, one has an old ``vm_state`` there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import servers

CELLS = ("parent", "c1", "c2")
CHILDREN = CELLS[1:]

NOTE = "固态 \"fast\" 'disk' \\ 100% :k0 ${x} Ünïcode"
"""A value that any layer of quoting, formatting or decoding would spoil if it could."""

Row = Mapping[str, Any]
Rows = Mapping[str, Sequence[Row]]

_COMMON = ("created_at datetime", "updated_at datetime", "deleted_at datetime", "deleted int(11)")
_ID = "id int(11) NOT NULL AUTO_INCREMENT PRIMARY KEY"
_TEXT = "varchar(255)"
_OF_INSTANCE = (
    "instance_uuid varchar(36) NOT NULL",
    "FOREIGN KEY (instance_uuid) REFERENCES instances (uuid)",
)

TABLES: Mapping[str, Sequence[str]] = {
    "migrate_version": (
        "repository_id varchar(250) NOT NULL PRIMARY KEY",
        "repository_path text",
        "version int(11)",
    ),
    "aggregates": (*_COMMON, _ID, f"name {_TEXT}"),
    "aggregate_metadata": (
        *_COMMON,
        _ID,
        "aggregate_id int(11) NOT NULL",
        f"`key` {_TEXT} NOT NULL",
        f"value {_TEXT} NOT NULL",
        "UNIQUE KEY (aggregate_id, `key`, deleted)",
        "FOREIGN KEY (aggregate_id) REFERENCES aggregates (id)",
    ),
    "aggregate_hosts": (
        *_COMMON,
        _ID,
        f"host {_TEXT}",
        "aggregate_id int(11) NOT NULL",
        "UNIQUE KEY (host, aggregate_id, deleted)",
        "FOREIGN KEY (aggregate_id) REFERENCES aggregates (id)",
    ),
    "instance_types": (
        *_COMMON,
        f"name {_TEXT}",
        _ID,
        *(f"{name} int(11) NOT NULL" for name in ("memory_mb", "vcpus", "swap")),
        "vcpu_weight int(11)",
        f"flavorid {_TEXT}",
        "rxtx_factor float",
        *(f"{name} int(11)" for name in ("root_gb", "ephemeral_gb")),
        *(f"{name} tinyint(1) CHECK ({name} IN (0, 1))" for name in ("disabled", "is_public")),
        "UNIQUE KEY (name, deleted)",
        "UNIQUE KEY (flavorid, deleted)",
    ),
    "instance_type_extra_specs": (
        *_COMMON,
        _ID,
        "instance_type_id int(11) NOT NULL",
        f"`key` {_TEXT} COLLATE CHARSET_bin",
        f"value {_TEXT} COLLATE CHARSET_bin",
        "UNIQUE KEY (instance_type_id, `key`, deleted)",
        "FOREIGN KEY (instance_type_id) REFERENCES instance_types (id)",
    ),
    "instance_type_projects": (
        *_COMMON,
        _ID,
        "instance_type_id int(11) NOT NULL",
        f"project_id {_TEXT}",
        "UNIQUE KEY (instance_type_id, project_id, deleted)",
        "FOREIGN KEY (instance_type_id) REFERENCES instance_types (id)",
    ),
    "key_pairs": (
        *_COMMON,
        _ID,
        f"name {_TEXT} NOT NULL",
        *(f"{name} {_TEXT}" for name in ("user_id", "fingerprint")),
        "public_key mediumtext",
        "type enum('ssh','x509') NOT NULL DEFAULT 'ssh'",
        "UNIQUE KEY (user_id, name, deleted)",
    ),
    "security_groups": (
        *_COMMON,
        _ID,
        *(f"{name} {_TEXT}" for name in ("name", "description", "user_id", "project_id")),
        "UNIQUE KEY (project_id, name, deleted)",
    ),
    "security_group_rules": (
        *_COMMON,
        _ID,
        *(f"{name} int(11)" for name in ("parent_group_id", "group_id", "from_port", "to_port")),
        f"protocol {_TEXT}",
        "cidr varchar(43)",
        "FOREIGN KEY (parent_group_id) REFERENCES security_groups (id)",
        "FOREIGN KEY (group_id) REFERENCES security_groups (id)",
    ),
    "security_group_default_rules": (
        *_COMMON,
        _ID,
        "protocol varchar(5)",
        *(f"{name} int(11)" for name in ("from_port", "to_port")),
        "cidr varchar(43)",
    ),
    "instance_groups": (
        *_COMMON,
        _ID,
        *(f"{name} {_TEXT}" for name in ("name", "user_id", "project_id")),
        "uuid varchar(36) NOT NULL",
        "UNIQUE KEY (uuid, deleted)",
    ),
    "instance_group_policy": (
        *_COMMON,
        _ID,
        f"policy {_TEXT}",
        "group_id int(11) NOT NULL",
        "FOREIGN KEY (group_id) REFERENCES instance_groups (id)",
    ),
    "instance_group_member": (
        *_COMMON,
        _ID,
        f"instance_id {_TEXT}",
        "group_id int(11) NOT NULL",
        "FOREIGN KEY (group_id) REFERENCES instance_groups (id)",
    ),
    "agent_builds": (
        *_COMMON,
        _ID,
        *(f"{name} {_TEXT}" for name in ("hypervisor", "os", "architecture", "version", "url", "md5hash")),
        "UNIQUE KEY (hypervisor, os, architecture, deleted)",
    ),
    "s3_images": (*_COMMON, _ID, "uuid varchar(36) NOT NULL"),
    "instances": (
        *_COMMON,
        _ID,
        "uuid varchar(36) NOT NULL",
        *(f"{name} {_TEXT}" for name in ("user_id", "hostname", "host", "node", "vm_state", "task_state")),
        *(f"{name} int(11)" for name in ("power_state", "instance_type_id", "cleaned")),
        f"cell_name {_TEXT}",
        "launched_on mediumtext",
        "UNIQUE KEY (uuid)",
    ),
    # What an instance is nothing without.
    "instance_info_caches": (
        *_COMMON,
        _ID,
        *_OF_INSTANCE,
        "network_info mediumtext",
        "UNIQUE KEY (instance_uuid)",
    ),
    "instance_extra": (*_COMMON, _ID, *_OF_INSTANCE, "numa_topology text", "flavor text"),
    "instance_system_metadata": (*_COMMON, _ID, *_OF_INSTANCE, f"`key` {_TEXT}", f"value {_TEXT}"),
    "instance_metadata": (*_COMMON, _ID, *_OF_INSTANCE, f"`key` {_TEXT}", f"value {_TEXT}"),
    "services": (
        *_COMMON,
        _ID,
        *(f"{name} {_TEXT}" for name in ("host", "`binary`", "topic")),
        "report_count int(11) NOT NULL",
        "disabled tinyint(1)",
        "UNIQUE KEY (host, `binary`, deleted)",
    ),
    # What detectors ask besides.
    "block_device_mapping": (
        *_COMMON,
        _ID,
        *(f"{name} varchar(36)" for name in ("instance_uuid", "volume_id")),
        *(f"{name} {_TEXT}" for name in ("device_name", "source_type", "destination_type")),
        "delete_on_termination tinyint(1)",
        *(f"{name} int(11)" for name in ("boot_index", "volume_size")),
        "connection_info mediumtext",
    ),
    "instance_faults": (
        *_COMMON,
        _ID,
        "instance_uuid varchar(36)",
        "code int(11) NOT NULL",
        *(f"{name} {_TEXT}" for name in ("message", "host")),
    ),
    "quota_usages": (
        *_COMMON,
        _ID,
        *(f"{name} {_TEXT}" for name in ("project_id", "user_id", "resource")),
        *(f"{name} int(11) NOT NULL" for name in ("in_use", "reserved")),
    ),
    "reservations": (
        *_COMMON,
        _ID,
        "uuid varchar(36) NOT NULL",
        "usage_id int(11) NOT NULL",
        *(f"{name} {_TEXT}" for name in ("project_id", "user_id", "resource")),
        "delta int(11) NOT NULL",
        "expire datetime",
        "FOREIGN KEY (usage_id) REFERENCES quota_usages (id)",
    ),
}
"""Table -> columns and keys, as in CREATE TABLE; a table comes after those that it refers to."""

AGGREGATE_IDS = {
    "parent": {"east": 1, "west": 2, "ssd": 3, "plain": 4, "empty-az": 5, "old": 6, "gold-1": 7, "gold": 8},
    "c1": {},
    "c2": {"local-only": 1, "west": 3},
}
"""Cell -> aggregate -> id; "gold-1" is the deleted aggregate gold."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """In what the databases may differ without making a difference."""

    charset: Mapping[str, str] = field(default_factory=dict)
    """Cell -> charset of its tables; utf8mb3 where it is not named."""
    turned: frozenset[str] = frozenset()
    """The cells whose tables have their columns in the opposite order."""
    shift: Mapping[str, int] = field(default_factory=dict)
    """Cell -> what is added to the ids of its aggregates and their metadata and hosts."""
    drifted_instances: bool = False
    """Without them no rule waits for differences to settle, which takes 2 s."""
    note: str = NOTE


LIBERTY = Variant()


def fill(url: str, *, cell: str, variant: Variant = LIBERTY) -> None:
    """Make the tables of one cell in an empty database, and its rows."""
    charset = variant.charset.get(cell, "utf8mb3")
    statements = ["SET SESSION time_zone = '+00:00', sql_mode = ''"]
    for table, parts in TABLES.items():
        ordered = reversed(parts) if cell in variant.turned else parts
        body = ", ".join(ordered).replace("CHARSET", charset)
        statements.append(f"CREATE TABLE {table} ({body}) ENGINE=InnoDB DEFAULT CHARSET={charset}")
    for table, rows in _rows(cell, variant).items():
        statements += [insert(table, row) for row in rows]
    for table in ("aggregates", "aggregate_metadata", "aggregate_hosts"):
        if cell in variant.shift:
            statements.append(f"ALTER TABLE {table} AUTO_INCREMENT = {variant.shift[cell] + 100}")
    servers.load(url, ";\n".join(statements) + ";\n")


def insert(table: str, row: Row) -> str:
    """Return the INSERT of one row, live unless it says otherwise."""
    whole = {"created_at": "2016-03-01 09:00:00", "deleted": 0, **row} if table != "migrate_version" else row
    names = ", ".join(f"`{name}`" for name in whole)
    values = ", ".join(_literal(value) for value in whole.values())
    return f"INSERT INTO {table} ({names}) VALUES ({values})"


def _literal(value: Any) -> str:
    if value is None or isinstance(value, (int, float)):
        return "NULL" if value is None else str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


# -- Rows --------------------------------------------------------------------------------------


def _rows(cell: str, variant: Variant) -> Rows:
    numbers = {name: number + variant.shift.get(cell, 0) for name, number in AGGREGATE_IDS[cell].items()}
    return {
        "migrate_version": [{"repository_id": "nova", "repository_path": "nova/repo", "version": 302}],
        "aggregates": [*_aggregates(numbers)],
        "aggregate_metadata": [*_metadata(cell, numbers, variant)],
        "aggregate_hosts": [*_hosts(cell, numbers)],
        "instance_types": [*_flavors(cell)],
        **(_PRIVATE if cell == "parent" else {}),
        "instances": [*_instances(cell, drifted=variant.drifted_instances)],
        "services": [*_services(cell)],
    }


def _dead(number: int) -> Row:
    return {"deleted": number, "deleted_at": "2016-03-02 10:00:00"}


def _aggregates(numbers: Mapping[str, int]) -> Iterator[Row]:
    for name, number in numbers.items():
        dead = _dead(number) if name in ("old", "gold-1") else {}
        yield {"id": number, "name": name.removesuffix("-1"), **dead}


def _metadata(cell: str, numbers: Mapping[str, int], variant: Variant) -> Iterator[Row]:
    pairs = {
        "parent": (
            ("east", "availability_zone", "az-east"),
            ("west", "cpu_allocation_ratio", "4.0"),
            ("west", "availability_zone", "az-west"),
            ("ssd", "note", variant.note),
            ("ssd", "ssd", "true"),
            ("plain", "pinned", "yes"),
            ("empty-az", "availability_zone", "az-empty"),
            ("old", "availability_zone", "az-old"),
            ("gold-1", "tier", "gold-1"),
            ("gold", "tier", "gold-2"),
        ),
        "c2": (("local-only", "rack", "r7"), ("west", "cpu_allocation_ratio", "2.0")),
    }
    for number, (aggregate, key, value) in enumerate(pairs.get(cell, ()), 1 + variant.shift.get(cell, 0)):
        dead = _dead(number) if aggregate in ("old", "gold-1") else {}
        yield {"id": number, "aggregate_id": numbers[aggregate], "key": key, "value": value, **dead}


def _hosts(cell: str, numbers: Mapping[str, int]) -> Iterator[Row]:
    pairs = {
        "parent": (
            ("east", "compute-1-1"),
            ("east", "compute-1-2"),
            ("east", "compute-1-3"),
            ("west", "compute-2-1"),
            ("west", "compute-2-2"),
            ("west", "compute-2-3"),
            ("ssd", "parent!c1@compute-1-1"),
            ("ssd", "parent!c2@compute-2-1"),
            ("plain", "compute-1-4"),
            ("old", "parent!c1@compute-1-5"),
            ("gold-1", "parent!c1@compute-1-2"),
            ("gold", "parent!c1@compute-1-2"),
        ),
        "c2": (("local-only", "compute-2-5"), ("west", "compute-2-1")),
    }
    for number, (aggregate, host) in enumerate(pairs.get(cell, ()), 1):
        dead = _dead(number) if aggregate in ("old", "gold-1") else {}
        yield {"aggregate_id": numbers[aggregate], "host": host, **dead}


def flavor(number: int, name: str, flavorid: str, **columns: Any) -> Row:
    """Return a row of instance_types."""
    sizes = {"memory_mb": 2048, "vcpus": 2, "swap": 0, "root_gb": 20, "ephemeral_gb": 0}
    flags = {"rxtx_factor": 1.1, "disabled": 0, "is_public": 1}
    return {"id": number, "name": name, "flavorid": flavorid, **sizes, **flags, **columns}


def _flavors(cell: str) -> Iterator[Row]:
    # Nova's own first flavors: their ids are not in the order of their names.
    yield flavor(1, "m1.medium", "3", memory_mb=4096, created_at=None)
    yield flavor(2, "m1.tiny", "1", memory_mb=512, created_at=None)
    if cell == "parent":
        yield flavor(6, "c1.small", "c1s", vcpu_weight=0)
        yield flavor(7, "priv.large", "prv-l", is_public=0)


_PRIVATE: Rows = {
    "instance_type_extra_specs": [
        {"instance_type_id": 6, "key": "hw:cpu_policy", "value": "dedicated"},
        {"instance_type_id": 6, "key": "HW:cpu_policy", "value": "shared"},
        {"instance_type_id": 7, "key": "aggregate_instance_extra_specs:ssd", "value": "true"},
    ],
    "instance_type_projects": [
        {"instance_type_id": 7, "project_id": "p2"},
        {"instance_type_id": 7, "project_id": "p1"},
    ],
    "key_pairs": [
        {"name": "key0", "user_id": "u1", "fingerprint": "aa:00", "public_key": "ssh-rsa AAAA0 u1@x"}
    ],
}

UUIDS = {
    "lost": "cbd757d2-0130-4ffb-a29e-35eab1849e12",
    "stale": "047e90e5-94b6-42a4-b4cd-24c94f57888b",
    "zombie": "deadbeef-0000-4000-8000-000000000001",
}
"""What is wrong with an instance -> its uuid: only in c1; old state in the parent; only there."""


def _instances(cell: str, *, drifted: bool) -> Iterator[Row]:
    for child in CHILDREN:
        if cell in ("parent", child):
            yield _instance(cell, child, f"b511a45a-0000-4000-8000-0000000000{child}")
    if not drifted:
        return
    if cell == "c1":
        yield _instance(cell, "c1", UUIDS["lost"])
    if cell == "c2":
        yield _instance(cell, "c2", UUIDS["stale"])
    if cell == "parent":
        yield _instance(cell, "c2", UUIDS["stale"], vm_state="building")
        yield _instance(cell, "c2", UUIDS["zombie"])


def _instance(cell: str, child: str, uuid: str, vm_state: str = "active") -> Row:
    host = f"compute-{child[1]}-2"
    place = {"host": host, "node": host, "instance_type_id": 2, "power_state": 1, "user_id": "u1"}
    sent = {"cell_name": f"parent!{child}"} if cell == "parent" else {"launched_on": host}
    return {"uuid": uuid, "vm_state": vm_state, **place, **sent}


def _services(cell: str) -> Iterator[Row]:
    yield {"host": "controller", "binary": "nova-cells", "topic": "cells", "report_count": 1, "disabled": 0}
    if cell in CHILDREN:
        for number in range(1, 6):
            host = f"compute-{cell[1]}-{number}"
            rest = {"topic": "compute", "report_count": 7, "disabled": 0}
            yield {"host": host, "binary": "nova-compute", **rest}
