"""What Nova's main databases had in some of the releases that the pack ``nova-cells-v1`` is for."""

from __future__ import annotations

from collections.abc import Mapping

LIBERTY = 302
"""The release that cellsync.demo.nova describes."""

UNTIL_ICEHOUSE = (
    "CREATE TABLE instance_group_metadata (created_at datetime, updated_at datetime, deleted_at datetime, "
    "deleted int(11), id int(11) NOT NULL AUTO_INCREMENT PRIMARY KEY, `key` varchar(255), "
    "value varchar(255), group_id int(11) NOT NULL, FOREIGN KEY (group_id) REFERENCES instance_groups (id)) "
    "ENGINE=InnoDB DEFAULT CHARSET=utf8mb3"
)
"""The table that Juno dropped (migration 250)."""

_TIMES = dict.fromkeys(("created_at", "updated_at", "deleted_at"), "datetime")
_ROW = {**_TIMES, "id": "int(11) NOT NULL AUTO_INCREMENT PRIMARY KEY", "deleted": "int(11)"}
_OF_INSTANCE = {"instance_uuid": "varchar(36) NOT NULL"}
_PAIR = {"key": "varchar(255)", "value": "varchar(255)"}


def _columns(kind: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, kind)


def instance_tables(version: int) -> Mapping[str, Mapping[str, str]]:
    """Return what an instance consists of in a release: table -> column -> type, as in CREATE TABLE.

    Source: nova/db/sqlalchemy/migrate_repo/versions, 216 and what came after it.
    """
    text = (
        "user_id",
        "project_id",
        "image_ref",
        "kernel_id",
        "ramdisk_id",
        "key_name",
        "vm_state",
        "hostname",
    )
    text += ("host", "reservation_id", "display_name", "display_description", "availability_zone", "os_type")
    text += ("vm_mode", "architecture", "root_device_name", "config_drive", "task_state", "cell_name", "node")
    text += ("default_ephemeral_device", "default_swap_device")
    numbers = ("internal_id", "launch_index", "power_state", "memory_mb", "vcpus", "instance_type_id")
    numbers += ("progress", "root_gb", "ephemeral_gb", "cleaned")
    flags = ("locked", "auto_disk_config", "shutdown_terminate", "disable_terminate")
    extra = {
        252: "numa_topology",
        253: "pci_requests",
        270: "flavor",
        276: "vcpu_model",
        300: "migration_context",
    }
    tables = {
        "instances": {
            **_ROW,
            "uuid": "varchar(36) NOT NULL UNIQUE",
            **_columns("varchar(255)", *text),
            **_columns("int(11)", *numbers),
            **_columns("tinyint(1)", *flags),
            **_columns("mediumtext", "key_data", "user_data", "launched_on"),
            **_columns("datetime", "scheduled_at", "launched_at", "terminated_at"),
            **_columns("varchar(39)", "access_ip_v4", "access_ip_v6"),
            "locked_by": "enum('owner','admin')",
            **(_columns("varchar(36)", "ephemeral_key_uuid") if version >= 231 else {}),
        },
        "instance_info_caches": {
            **_ROW,
            "instance_uuid": "varchar(36) NOT NULL UNIQUE",
            "network_info": "mediumtext",
        },
        "instance_system_metadata": {**_ROW, **_OF_INSTANCE, **_PAIR},
        "instance_metadata": {**_ROW, "instance_uuid": "varchar(36)", **_PAIR},
        "block_device_mapping": {
            **_ROW,
            **_columns("varchar(36)", "instance_uuid", "snapshot_id", "volume_id", "image_id"),
            **_columns("varchar(255)", "device_name", "source_type", "destination_type", "guest_format"),
            **_columns("varchar(255)", "device_type", "disk_bus"),
            **_columns("tinyint(1)", "delete_on_termination", "no_device"),
            **_columns("int(11)", "volume_size", "boot_index"),
            "connection_info": "mediumtext",
        },
    }
    if version >= 252:
        later = [name for since, name in extra.items() if version >= since]
        tables["instance_extra"] = {**_ROW, **_OF_INSTANCE, **_columns("text", *later)}
    return tables


def make_instance_tables(version: int) -> list[str]:
    """Return the statements that make these tables and the version's."""
    statements = []
    for table, columns in instance_tables(version).items():
        parts = [f"`{name}` {kind}" for name, kind in columns.items()]
        if "instance_uuid" in columns:
            parts.append("FOREIGN KEY (instance_uuid) REFERENCES instances (uuid)")
        statements.append(f"CREATE TABLE {table} ({', '.join(parts)}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3")
    kept = "repository_id varchar(250) NOT NULL PRIMARY KEY, repository_path text, version int(11)"
    return [
        *statements,
        f"CREATE TABLE migrate_version ({kept}) ENGINE=InnoDB",
        f"INSERT INTO migrate_version VALUES ('nova', 'nova/db/sqlalchemy/migrate_repo', {version})",
    ]
