"""Nova's main database as Mitaka (319) had it, written and read by the Nova of today.

Nova 34 still makes these tables, column for column, for it never dropped them (but for those of quotas); it
has no models of them any more, for since Newton its code looks into nova_api. So

- the table of the version says 319, where today's says the name of a revision;
- rows are written through models like Mitaka's on Nova's own base classes, which fill in ``deleted = 0``
  and the times, and delete softly (`ask_mitaka`);
- rows are read by Nova's own code, unchanged, through views that show the live rows of the old
  tables under the names that nova_api has for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import make_url

VERSION = 319

_TIMES = "created_at, updated_at, id"
_FLAVOR = (
    "name, memory_mb, vcpus, swap, vcpu_weight, flavorid, rxtx_factor, root_gb, ephemeral_gb, disabled, "
    "is_public, NULL AS description"
)

_RESERVATIONS = (
    "created_at datetime, updated_at datetime, deleted_at datetime, deleted int, "
    "id int PRIMARY KEY AUTO_INCREMENT, "
    "uuid varchar(36) NOT NULL, usage_id int NOT NULL, project_id varchar(255), user_id varchar(255), "
    "resource varchar(255), delta int NOT NULL, expire datetime"
)
"""Nova dropped it with the quotas."""

VIEWS = {
    "aggregates": ("aggregates", "uuid, name"),
    "aggregate_hosts": ("aggregate_hosts", "host, aggregate_id"),
    "aggregate_metadata": ("aggregate_metadata", "aggregate_id, `key`, value"),
    "flavors": ("instance_types", _FLAVOR),
    "flavor_extra_specs": ("instance_type_extra_specs", "instance_type_id AS flavor_id, `key`, value"),
    "flavor_projects": ("instance_type_projects", "instance_type_id AS flavor_id, project_id"),
    "key_pairs": ("key_pairs", "name, user_id, fingerprint, public_key, type"),
    "instance_groups": ("instance_groups", "user_id, project_id, uuid, name"),
    "instance_group_policy": ("instance_group_policy", "policy, group_id, NULL AS rules"),
    "instance_group_member": ("instance_group_member", "instance_id AS instance_uuid, group_id"),
}
"""A table of nova_api -> Mitaka's table, and its columns."""


def tables(made_by_nova: Sequence[str]) -> list[str]:
    """Return Mitaka's tables, from the statements that make those of today, and its version."""
    version = "repository_id varchar(250) NOT NULL PRIMARY KEY, repository_path text, version int(11)"
    return [
        *(table for table in made_by_nova if "`alembic_version`" not in table),
        f"CREATE TABLE migrate_version ({version}) ENGINE=InnoDB",
        f"CREATE TABLE reservations ({_RESERVATIONS}) ENGINE=InnoDB",
        f"INSERT INTO migrate_version VALUES ('nova', 'nova/db/sqlalchemy/migrate_repo', {VERSION})",
    ]


def views(main: str) -> list[str]:
    """Return the statements that make the views, on the schema of a URL."""
    schema = make_url(main).database
    return [
        f"CREATE VIEW `{name}` AS SELECT {_TIMES}, {columns} FROM `{schema}`.`{table}` WHERE deleted = 0"
        for name, (table, columns) in VIEWS.items()
    ]
