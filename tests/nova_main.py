"""What Nova's main databases had in some of the releases that the pack ``nova-cells-v1`` is for."""

from __future__ import annotations

LIBERTY = 302
"""The release that cellsync.demo.nova describes."""

UNTIL_ICEHOUSE = (
    "CREATE TABLE instance_group_metadata (created_at datetime, updated_at datetime, deleted_at datetime, "
    "deleted int(11), id int(11) NOT NULL AUTO_INCREMENT PRIMARY KEY, `key` varchar(255), "
    "value varchar(255), group_id int(11) NOT NULL, FOREIGN KEY (group_id) REFERENCES instance_groups (id)) "
    "ENGINE=InnoDB DEFAULT CHARSET=utf8mb3"
)
"""The table that Juno dropped (migration 250)."""
