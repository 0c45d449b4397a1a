"""A deployment whose cells are registered: a table of cells, heartbeats, and brokers in the cell file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deployment import Deployment
from nova import CHILDREN

from cellsync.model import Broker, Escaping

CELLS_TABLE = (
    "CREATE TABLE cells (created_at datetime, updated_at datetime, deleted_at datetime, "
    "id int(11) NOT NULL AUTO_INCREMENT PRIMARY KEY, api_url varchar(255), weight_offset float, "
    "weight_scale float, name varchar(255), is_parent tinyint(1), deleted int(11), "
    "transport_url varchar(255) NOT NULL, UNIQUE KEY uniq_cells0name0deleted (name, deleted), "
    "CHECK (is_parent IN (0, 1))) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3"
)
"""As Havana and later make it."""
SERVICES = {
    "parent": ("nova-cells", "nova-consoleauth", "nova-console"),
    "child": ("nova-cells", "nova-conductor", "nova-scheduler"),
}
ROW = (
    "INSERT INTO cells (created_at, name, is_parent, transport_url, weight_offset, weight_scale, deleted) "
    "VALUES ('2026-11-23 14:31:24', :name, :is_parent, :broker, 0, 1, 0)"
)


def as_row(url: str) -> str:
    """Return the transport_url that Nova of Liberty has for a broker of cellsync.yaml."""
    return Broker.parse(url).write(Escaping.RAW)


def with_tables(deployment: Deployment) -> Deployment:
    """Make the empty table of cells everywhere."""
    for cell in deployment.urls:
        deployment.sql(cell, CELLS_TABLE)
    return deployment


def registered(deployment: Deployment, brokers: Mapping[str, str]) -> Deployment:
    """Register the cells with each other at these brokers, and let all their services live."""
    with_tables(deployment)
    parent = next(iter(deployment.urls))
    for child in (cell for cell in deployment.urls if cell in CHILDREN):
        deployment.sql(parent, ROW, name=child, is_parent=0, broker=as_row(brokers[child]))
        deployment.sql(child, ROW, name=parent, is_parent=1, broker=as_row(brokers[parent]))
    return with_services(deployment)


def with_services(deployment: Deployment) -> Deployment:
    """Let all services live that the pack asks for, in every cell."""
    parent = next(iter(deployment.urls))
    for cell in deployment.urls:
        for name in SERVICES["parent" if cell == parent else "child"]:
            deployment.sql(
                cell,
                "INSERT IGNORE INTO services (host, `binary`, topic, report_count, disabled, deleted) "
                "VALUES ('controller', :name, :name, 1, 0, 0)",
                name=name,
            )
        alive(deployment, cell)
    return deployment


def alive(deployment: Deployment, cell: str, service: str = "%", *, ago: int = 0) -> None:
    """Let the services of a cell have been alive so many seconds ago."""
    statement = (
        "UPDATE services SET updated_at = UTC_TIMESTAMP() - INTERVAL :ago SECOND, created_at = '2020-01-01' "
        "WHERE `binary` LIKE :service"
    )
    deployment.sql(cell, statement, ago=ago, service=service)


def configured(deployment: Deployment, **cells: Mapping[str, Any]) -> Deployment:
    """Write the cell file with more about some cells: ``configured(d, c1={"broker": url})``."""
    parent, *children = deployment.urls
    entry = {
        name: json.dumps({"name": name, "database": url, **cells.get(name, {})})
        for name, url in deployment.urls.items()
    }
    lines = [f"parent: {entry[parent]}", "children:", *(f"  - {entry[child]}" for child in children)]
    lines += [f"rules: {json.dumps([*deployment.rules])}", "settle: 0"]
    deployment.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return deployment


def brokers_of(deployment: Deployment, **urls: str) -> Deployment:
    """Write the cell file with the brokers of some cells."""
    return configured(deployment, **{name: {"broker": url} for name, url in urls.items()})


def rows(deployment: Deployment, cell: str, where: str = "TRUE") -> list[tuple[Any, ...]]:
    """Return whole rows of a cell's table, but for created_at."""
    weights = "weight_offset, weight_scale"
    columns = f"updated_at, deleted_at, id, api_url, {weights}, name, is_parent, deleted, transport_url"
    return deployment.sql(cell, f"SELECT {columns} FROM cells WHERE {where} ORDER BY id")
