"""Which services of a database say that they are alive, and since when they do not."""

from __future__ import annotations

from typing import NamedTuple

from cellsync.db.database import Database
from cellsync.errors import Unsupported
from cellsync.model import Heartbeats


class Beat(NamedTuple):
    """The last sign of life of one service on one host."""

    name: str
    host: str
    age: int | None
    """Seconds, by the server's own clock; None where there never was one."""


def heartbeats(database: Database, source: Heartbeats) -> tuple[Beat, ...]:
    """Return the last sign of life of every service, by name and host. One query beside the schema's.

    Raises ReadFailed, and Unsupported where the table or one of its columns is not there.
    """
    table = database.tables([source.table]).get(source.table)
    if table is None:
        raise Unsupported(f"{database.cell.name} has no table {source.table}")
    beats = [name for name in source.beat if table.column(name)]
    lacking = [name for name in (source.name, source.host) if not table.column(name)]
    if lacking or not beats:
        raise Unsupported(f"{source.table} of {database.cell.name} lacks {', '.join(lacking or source.beat)}")
    quoted = {
        name: f"`{name.replace('`', '``')}`" for name in (source.table, source.name, source.host, *beats)
    }
    known = [f"COALESCE({quoted[name]}, '1000-01-01')" for name in beats]
    latest = f"GREATEST({', '.join(known)})" if len(known) > 1 else known[0]
    age = f"IF({latest} <= '1000-01-01', NULL, TIMESTAMPDIFF(SECOND, {latest}, UTC_TIMESTAMP()))"
    where = f" WHERE {source.where}" if source.where else ""
    rows = database.query(
        f"SELECT {quoted[source.name]}, {quoted[source.host]}, {age} FROM {quoted[source.table]}{where} "
        f"ORDER BY 1, 2".replace(":", "\\:")
    )
    return tuple(
        Beat(str(name or ""), str(host or ""), None if age is None else int(age)) for name, host, age in rows
    )
