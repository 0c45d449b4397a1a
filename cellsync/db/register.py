"""Nova's register of cells, as one database has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cellsync.db.database import Database
from cellsync.errors import ReadFailed, Unsupported
from cellsync.model import CellRow, NovaRelease, Secret, Table, Value, release_of_schema
from cellsync.model.registry import TABLE

_COLUMNS = (
    "id",
    "name",
    "is_parent",
    "transport_url",
    "weight_offset",
    "weight_scale",
    "deleted",
    "deleted_at",
)


def has_register(tables: Mapping[str, Table]) -> bool:
    """Say whether there is a table of cells as Nova has it since Havana."""
    table = tables.get(TABLE)
    return table is not None and all(table.column(name) for name in _COLUMNS)


def register(database: Database) -> tuple[CellRow, ...]:
    """Return all rows of ``cells``, soft-deleted ones too, by id, without what ``whole`` holds. Two queries.

    Raises Unsupported where there is no such table, or one of Grizzly, and ReadFailed.
    """
    if not database.makes_schemas:
        raise Unsupported(f"{database.cell.name} has no table {TABLE}: Nova does not live in SQLite")
    # Not ``tables``: what else a schema has (keys, cascades of others) takes a server much longer to say.
    found = database.query(
        "SELECT LOWER(COLUMN_NAME) FROM information_schema.COLUMNS "
        "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = :name",
        name=TABLE,
    )
    _check(database.cell.name, {str(name) for (name,) in found})
    rows = database.query(f"SELECT {', '.join(_COLUMNS)} FROM {TABLE} ORDER BY id")
    return tuple(_row(dict(zip(_COLUMNS, row, strict=True))) for row in rows)


def read_release(database: Database) -> NovaRelease | None:
    """Return the release of Nova whose main database this is; None where nothing says so. Two queries.

    Where a database went over from migrate_version to alembic_version, the latter counts. Raises ReadFailed.
    """
    if not database.makes_schemas:
        return None
    found = database.query(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
        "AND TABLE_NAME IN ('alembic_version', 'migrate_version') ORDER BY TABLE_NAME",
    )
    for (table,) in found:
        if table == "alembic_version":
            rows = database.query("SELECT version_num FROM alembic_version ORDER BY 1")
        else:
            rows = database.query(
                "SELECT version FROM migrate_version WHERE repository_id = 'nova' ORDER BY 1"
            )
        if rows:
            return release_of_schema(rows[-1][0], str(table))
    return None


def whole_register(database: Database) -> tuple[CellRow, ...]:
    """Return all rows of ``cells`` with every column. Raises as ``register`` does."""
    rows = register(database)
    ids = [(row.id,) for row in rows]
    held = database.read_back(TABLE, ("id",), ids) if ids else {}
    lower = {each: {name.lower(): value for name, value in whole.items()} for each, whole in held.items()}
    return tuple(replace(row, whole=lower[row.id,]) for row in rows if (row.id,) in lower)


def _check(name: str, columns: set[str]) -> None:
    if not columns:
        raise Unsupported(f"{name} has no table {TABLE}: is this the database of a nova with cells?")
    if "rpc_host" in columns and "transport_url" not in columns:
        raise Unsupported(
            f"{name} has the table {TABLE} of Grizzly (rpc_host and its neighbours instead of "
            f"transport_url); cellsync knows the one of Havana and later"
        )
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise Unsupported(f"{name} has a table {TABLE} that is not Nova's: it lacks {', '.join(missing)}")


def instances_in(database: Database, path: str) -> int:
    """Return how many live instances the parent has in the cell of this path, or below it."""
    tables = database.tables(["instances"])
    if "instances" not in tables or tables["instances"].column("cell_name") is None:
        return 0
    below = path.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "!%"
    sql = "SELECT COUNT(*) FROM instances WHERE deleted = 0 AND (cell_name = :path OR cell_name LIKE :below)"
    return int(database.query(sql, path=path, below=below)[0][0])


def _row(whole: Mapping[str, Any]) -> CellRow:
    return CellRow(
        id=_number(whole["id"]),
        name=str(whole["name"] or ""),
        is_parent=bool(whole["is_parent"]),
        transport_url=Secret(str(whole["transport_url"] or "")),
        weight_offset=_float(whole["weight_offset"]),
        weight_scale=_float(whole["weight_scale"]),
        deleted=None if whole["deleted"] is None else _number(whole["deleted"]),
        deleted_at=None if whole["deleted_at"] is None else str(whole["deleted_at"]),
    )


def _number(value: Value) -> int:
    if isinstance(value, int):
        return value
    raise ReadFailed(f"{TABLE} has {value!r} where a number belongs")


def _float(value: Value) -> float | None:
    return None if value is None else float(value)
