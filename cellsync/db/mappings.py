"""Nova's list of cells in nova_api: the table ``cell_mappings``."""

from __future__ import annotations

from cellsync.db.database import Database
from cellsync.errors import Unsupported
from cellsync.model import CellMapping, Secret

TABLE = "cell_mappings"


def cell_mappings(database: Database) -> tuple[CellMapping, ...]:
    """Return all rows of ``cell_mappings``: cell0 first, then in the order in which they were made.

    Raises Unsupported where there is no such table, and ReadFailed. Two queries beside the schema's.
    """
    table = database.tables([TABLE]).get(TABLE)
    if table is None:
        raise Unsupported(
            f"{database.cell.name} has no table {TABLE}: is {database.cell.database.shown} nova_api?"
        )
    # ``disabled`` came with Rocky (migration 058).
    disabled = "COALESCE(disabled, 0)" if table.column("disabled") else "0"
    rows = database.query(
        "SELECT uuid, COALESCE(name, ''), COALESCE(transport_url, ''), COALESCE(database_connection, ''), "
        f"{disabled} FROM {TABLE} ORDER BY uuid <> '00000000-0000-0000-0000-000000000000', id"
    )
    return tuple(
        CellMapping(
            uuid=str(uuid),
            name=str(name),
            transport_url=Secret(str(broker)),
            database_connection=Secret(str(connection)),
            disabled=bool(off),
        )
        for uuid, name, broker, connection, off in rows
    )
