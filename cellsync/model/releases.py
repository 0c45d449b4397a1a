"""Nova's releases, as far as they differ for cellsync."""

from __future__ import annotations

from dataclasses import dataclass

from cellsync.model.brokers import Escaping
from cellsync.model.values import Value, shown

_LAST_MIGRATIONS = {
    "havana": 216,
    "icehouse": 233,
    "juno": 254,
    "kilo": 280,
    "liberty": 302,
    "mitaka": 319,
    "newton": 334,
    "ocata": 347,
    "pike": 362,
    "queens": 378,
    "rocky": 390,
    "stein": 391,
}
"""A release with cells v1 and transport URLs -> the last migration of its main database.

Source: nova/db/sqlalchemy/migrate_repo/versions at each tag.
"""

RELEASES = tuple(_LAST_MIGRATIONS)
_RAW = ("icehouse", "juno", "kilo", "liberty", "mitaka")
"""Their oslo.messaging (1.3 to 4.6) decodes nothing. Havana's nova/cells/rpc_driver.py does, by itself."""


@dataclass(frozen=True, kw_only=True)
class NovaRelease:
    """The release of Nova that a cell runs."""

    name: str
    """One of ``RELEASES``, or "" for a later one."""
    source: str
    """What says so: "migrate_version 302", "release in cellsync.yaml"."""

    @property
    def escaping(self) -> Escaping:
        """How it reads and writes user, password and virtual host of a transport_url."""
        return Escaping.RAW if self.name in _RAW else Escaping.PERCENT

    def __str__(self) -> str:
        return f"{self.name.capitalize() or 'later than Stein'} ({self.source})"


def release_of_schema(version: Value, table: str) -> NovaRelease | None:
    """Return the release whose main database has this version; None where there is none.

    ``migrate_version`` counts; the names of Alembic came after Stein.
    """
    if version is None:
        return None
    source = f"{table} {shown(version)}"
    if not isinstance(version, int):
        return NovaRelease(name="", source=source)
    name = next((name for name, last in _LAST_MIGRATIONS.items() if version <= last), "")
    return NovaRelease(name=name, source=source)
