"""Hold the database of a Galera cluster for one run, against runs through other nodes.

``journal.writers`` says how a run takes a database, and why that is enough. Here is who takes it: at once
where nobody has it, where its run held its named lock on our node and has lost it, and where its run gave no
sign of life for long.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from cellsync import db
from cellsync.errors import CellsyncError, Locked, ReadFailed, Rejected, TransactionLost, Unreachable
from cellsync.journal import writers

LOG = logging.getLogger(__name__)

TRIES = 8
"""As many as a batch has, with waits that double from 0.2 s to 3 s: enough for a node to restart."""

T = TypeVar("T")


def try_again(database: db.Database, action: Callable[[], T]) -> T:
    """Do what may be lost through no fault of its own (a deadlock, a connection) until it is done.

    ``action`` may be done twice: a lost COMMIT may have come through. Raises the last error.
    """
    for tried in range(TRIES + 1):
        try:
            if tried:
                database.reconnect()
            return action()
        except (TransactionLost, Unreachable, ReadFailed) as error:
            if tried == TRIES:
                raise
            LOG.debug("%s: again: %s", database.cell.name, error, extra={"cell": database.cell.name})
        time.sleep(min(0.2 * 2**tried, 3) * random.uniform(0.5, 1))
    raise AssertionError("the last try returns or raises")


def take_database(
    database: db.Database, lock: db.NamedLock, *, schema: str, run: str, begin: Callable[[], T]
) -> T:
    """Take a database for a run and do ``begin`` in the same transaction; return what that returns.

    Raises Locked where another run has it.
    """
    begun: list[T] = []
    watched: writers.Holder | None = None

    def take() -> writers.Holder | None:
        """Return who has it, or None where it is ours now."""
        with database.transaction():
            holder = writers.find_holder(database, database=schema)
            if holder is not None and holder.run == run:
                return None  # by a COMMIT whose answer was lost
            if holder is not None and not _is_gone(holder, watched, lock):
                return holder
            writers.take_database(database, database=schema, run=run, node=lock.node)
            begun[:] = [begin()]
        return None

    def take_or_lose() -> writers.Holder | None:
        try:
            return take()
        except Rejected as error:  # two runs made the row at once
            raise TransactionLost(str(error)) from None

    while (found := try_again(database, take_or_lose)) is not None:
        if found.age < writers.STALE_SECONDS or watched is not None:
            raise Locked(_words(database.cell.name, found))
        # Its time is up by the clock of our node. That clock may be wrong: two signs of life tell.
        time.sleep(2 * writers.BEAT_SECONDS)
        watched = found
    return begun[0]


def _is_gone(holder: writers.Holder, watched: writers.Holder | None, lock: db.NamedLock) -> bool:
    """Say whether a run is dead: we have its named lock, or it was silent while we watched."""
    if holder.node and holder.node == lock.node:
        return True
    return watched is not None and (holder.run, holder.beats) == (watched.run, watched.beats)


def _words(cell: str, holder: writers.Holder) -> str:
    return (
        f"{cell}: another cellsync run writes to this database through another node of its cluster: "
        f"run {holder.run}, whose last sign of life is {max(holder.age, 0)} s old"
    )


class Heart:
    """Gives signs of life of a run, through its lock's connection, until it is left; then frees the database.

    A run may compute for minutes between two transactions.
    """

    def __init__(self, lock: db.NamedLock, *, schema: str, run: str) -> None:
        self._lock, self._about = lock, {"database": schema, "run": run}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="cellsync-heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._do(self._free)

    def _beat(self) -> None:
        while not self._ended.wait(writers.BEAT_SECONDS):
            self._do(self._show_life)

    def _show_life(self) -> None:
        self._lock.renew()
        writers.show_life(self._lock.database, **self._about, node=self._lock.node)

    def _free(self) -> None:
        def free() -> None:
            with self._lock.database.transaction():
                writers.release_database(self._lock.database, **self._about)

        try_again(self._lock.database, free)

    def _do(self, action: Callable[[], None]) -> None:
        """Do what another run can do without: the next sign of life, or the age of the last, says it too."""
        cell = self._lock.database.cell.name
        try:
            action()
        except CellsyncError as error:
            LOG.debug("%s: no sign of life: %s", cell, error, extra={"cell": cell})
