"""Databases like Nova's nova_api in Stein, the tables that the pack ``nova-api`` looks at.

Types, keys, charsets and the missing soft delete are those that Nova's own migrations make on MariaDB
(those of the quotas: as nova/db/api/models.py has them).
"""

from __future__ import annotations

from collections.abc import Iterator

from edges import add, execute

STEIN = 62
ALEMBIC = ("d67eeaabee36", "b30f573d3377", "cdeec0c85668")
"""The versions that Alembic gave to nova_api, in their order."""

_TEXT = "varchar(255) DEFAULT NULL"
_NAME = "varchar(255) NOT NULL"
_NUMBER = "int(11) NOT NULL"
_TABLES = {
    "aggregates": f"uuid varchar(36) DEFAULT NULL, name {_TEXT}, UNIQUE KEY uniq_aggregate0name (name), "
    "KEY aggregate_uuid_idx (uuid)",
    "aggregate_hosts": f"host {_TEXT}, aggregate_id {_NUMBER}, "
    "UNIQUE KEY uniq_aggregate_hosts0host0aggregate_id (host, aggregate_id), "
    "FOREIGN KEY (aggregate_id) REFERENCES aggregates (id)",
    "aggregate_metadata": f"aggregate_id {_NUMBER}, `key` {_NAME}, value {_NAME}, "
    "UNIQUE KEY uniq_aggregate_metadata0aggregate_id0key (aggregate_id, `key`), "
    "FOREIGN KEY (aggregate_id) REFERENCES aggregates (id)",
    "flavors": f"name {_NAME}, memory_mb {_NUMBER}, vcpus {_NUMBER}, swap {_NUMBER}, "
    f"vcpu_weight int(11) DEFAULT NULL, flavorid {_NAME}, rxtx_factor float DEFAULT NULL, "
    "root_gb int(11) DEFAULT NULL, ephemeral_gb int(11) DEFAULT NULL, "
    "disabled tinyint(1) DEFAULT NULL CHECK (disabled IN (0, 1)), "
    "is_public tinyint(1) DEFAULT NULL CHECK (is_public IN (0, 1)), description text DEFAULT NULL, "
    "UNIQUE KEY uniq_flavors0flavorid (flavorid), UNIQUE KEY uniq_flavors0name (name)",
    "flavor_extra_specs": f"flavor_id {_NUMBER}, `key` {_NAME}, value {_TEXT}, "
    "UNIQUE KEY uniq_flavor_extra_specs0flavor_id0key (flavor_id, `key`), "
    "FOREIGN KEY (flavor_id) REFERENCES flavors (id)",
    "flavor_projects": f"flavor_id {_NUMBER}, project_id {_NAME}, "
    "UNIQUE KEY uniq_flavor_projects0flavor_id0project_id (flavor_id, project_id), "
    "FOREIGN KEY (flavor_id) REFERENCES flavors (id)",
    "key_pairs": f"name {_NAME}, user_id {_NAME}, fingerprint {_TEXT}, public_key text DEFAULT NULL, "
    "type enum('ssh', 'x509') NOT NULL DEFAULT 'ssh', "
    "UNIQUE KEY uniq_key_pairs0user_id0name (user_id, name)",
    "instance_groups": f"user_id {_TEXT}, project_id {_TEXT}, uuid varchar(36) NOT NULL, name {_TEXT}, "
    "UNIQUE KEY uniq_instance_groups0uuid (uuid)",
    "instance_group_policy": f"policy {_TEXT}, group_id {_NUMBER}, rules text DEFAULT NULL, "
    "KEY instance_group_policy_policy_idx (policy), FOREIGN KEY (group_id) REFERENCES instance_groups (id)",
    "instance_group_member": f"instance_uuid {_TEXT}, group_id {_NUMBER}, "
    "KEY instance_group_member_instance_idx (instance_uuid), "
    "FOREIGN KEY (group_id) REFERENCES instance_groups (id)",
    "quotas": f"project_id {_TEXT}, resource {_NAME}, hard_limit int(11) DEFAULT NULL, "
    "UNIQUE KEY uniq_quotas0project_id0resource (project_id, resource)",
    "quota_classes": f"class_name {_TEXT}, resource {_TEXT}, hard_limit int(11) DEFAULT NULL, "
    "KEY quota_classes_class_name_idx (class_name)",
    "project_user_quotas": f"user_id {_NAME}, project_id {_NAME}, resource {_NAME}, "
    "hard_limit int(11) DEFAULT NULL, "
    "UNIQUE KEY uniq_project_user_quotas0user_id0project_id0resource (user_id, project_id, resource)",
    "cell_mappings": f"uuid varchar(36) NOT NULL, name {_TEXT}, transport_url text DEFAULT NULL, "
    "database_connection text DEFAULT NULL, disabled tinyint(1) DEFAULT NULL, "
    "UNIQUE KEY uniq_cell_mappings0uuid (uuid)",
    "host_mappings": f"cell_id {_NUMBER}, host {_NAME}, UNIQUE KEY uniq_host_mappings0host (host), "
    "FOREIGN KEY (cell_id) REFERENCES cell_mappings (id)",
}

TABLES = tuple(_TABLES)
"""The tables, each after those that it refers to."""


def statements() -> Iterator[str]:
    """Yield the CREATE TABLE statements, without those of a version table."""
    times = "created_at datetime DEFAULT NULL, updated_at datetime DEFAULT NULL"
    options = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb3 COLLATE=utf8mb3_general_ci"
    for name, rest in _TABLES.items():
        yield (
            f"CREATE TABLE {name} ({times}, id int(11) NOT NULL AUTO_INCREMENT PRIMARY KEY, {rest}) {options}"
        )


def migrated(url: str, version: int, repository: str = "nova_api") -> None:
    """Make the version table of sqlalchemy-migrate."""
    execute(
        url,
        "CREATE TABLE migrate_version (repository_id varchar(250) NOT NULL PRIMARY KEY, "
        "repository_path text, version int(11))",
    )
    add(url, "migrate_version", {"repository_id": repository, "repository_path": "-", "version": version})


def stamped(url: str, version: str) -> None:
    """Make the version table of Alembic."""
    execute(url, "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY)")
    add(url, "alembic_version", {"version_num": version})


def make(url: str) -> None:
    """Make the tables of Stein, and no rows but the version."""
    execute(url, *statements())
    migrated(url, STEIN)
