"""Two names for one database, and one writer at a time: both are told by named locks."""

from __future__ import annotations

import hashlib
import logging
import secrets

from cellsync.db.database import Database
from cellsync.errors import Locked, ReadFailed
from cellsync.model import DatabaseIdentity

LOG = logging.getLogger(__name__)


def same_database(one: Database, other: Database, first: DatabaseIdentity, second: DatabaseIdentity) -> bool:
    """Say whether two connections lead to one database.

    A server's uid is made of a network address and a port, which containers share, and old
    servers have none. So where schema and uid agree, a named lock decides: taken through one
    connection, it is seen through the other only if both lead to one server.
    """
    if first.schema == second.schema and one.cluster and one.cluster == other.cluster:
        return True  # through two nodes, which have a uid and locks of their own
    if first.schema != second.schema or (first.server and second.server and first.server != second.server):
        return False
    if first.version.startswith("SQLite"):
        return True
    name = f"cellsync-same-{secrets.token_hex(8)}"
    one.query("SELECT GET_LOCK(:name, 0)", name=name)
    try:
        return other.query("SELECT IS_USED_LOCK(:name)", name=name)[0][0] is not None
    finally:
        one.query("SELECT RELEASE_LOCK(:name)", name=name)


class NamedLock:
    """The lock of one written database, held by a connection of its own until it is closed.

    On Galera a named lock is local to a node: against runs through other nodes ``run.holding`` takes the
    database beside it. SQLite has no named locks; there, one write transaction at a time is all there is.
    """

    def __init__(self, database: Database, schema_name: str) -> None:
        self.database = database
        """The connection that holds the lock."""
        self.node = ""
        """What tells the node of a cluster, on which the lock is, from the others; "" elsewhere."""
        # Lock names end at 64 characters, and so do those of schemas.
        digest = hashlib.sha256(schema_name.encode()).hexdigest()[:16]
        short = schema_name if len(schema_name) <= 48 else f"{schema_name[:31]}-{digest}"
        self._name = f"cellsync:{short}"

    def acquire(self) -> None:
        """Take the lock at once. Raises Locked, naming the connection that holds it."""
        if not self.database.has_locks:
            return
        if self._get_lock():
            return
        holder = self.database.query(
            "SELECT p.ID, p.USER, p.HOST, p.TIME FROM information_schema.PROCESSLIST p "
            "WHERE p.ID = IS_USED_LOCK(:name)",
            name=self._name,
        )
        who = f"{holder[0][1]}@{holder[0][2]} (connection {holder[0][0]})" if holder else "another connection"
        raise Locked(f"{self.database.cell.name}: another cellsync run writes to this database: {who}")

    def _get_lock(self) -> bool:
        if self.database.query("SELECT GET_LOCK(:name, 0)", name=self._name)[0][0] != 1:
            return False
        self.node = self.database.node()
        return True

    def renew(self) -> None:
        """Take the lock again if its connection was lost; somebody else may have it by now.

        Raises Unreachable and ReadFailed where that cannot be done.
        """
        self.database.reconnect()
        held = "SELECT IS_USED_LOCK(:name) = CONNECTION_ID()"
        if self.database.has_locks and not self.database.query(held, name=self._name)[0][0]:
            self._get_lock()

    def release(self) -> None:
        """Give the lock back and close the connection that holds it.

        A server notices a closed connection a moment later, and the next run may be there sooner.
        """
        try:
            if self.database.has_locks:
                self.database.query("SELECT RELEASE_LOCK(:name)", name=self._name)
        except ReadFailed as error:
            LOG.debug(
                "%s: the lock ends with its connection: %s",
                self.database.cell.name,
                error,
                extra={"cell": self.database.cell.name},
            )
        self.database.close()
