"""Ask databases, brokers and HTTP services whether they answer, each for a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Generic, TypeVar

from cellsync import broker as brokers
from cellsync import db
from cellsync.db import Timeouts
from cellsync.errors import CellsyncError, Unreachable
from cellsync.model import Broker, BrokerProbe, Cell, CellRow, DatabaseProbe, HostStatus

K = TypeVar("K")
R = TypeVar("R")

AT_ONCE = 64
"""Probes under way: so many that dead hosts do not hold up the others."""

GRACE = 0.5
"""Seconds beyond its own time-out after which a probe is given up: a slow name server knows none."""


class _Waiting(Generic[R]):
    """A call on a thread of its own, which may be given up: it does not keep the process from ending."""

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True, name="cellsync-probe")
        self._result: list[R] = []
        self._error: list[BaseException] = []

    def within(self, seconds: float) -> R | None:
        """Return what the call returned, or None when it takes longer. Raises what it raised."""
        self._thread.start()
        self._thread.join(seconds)
        if self._error:
            raise self._error[0]
        return self._result[0] if self._result else None

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # handed on to whoever waits
            self._error.append(error)


def at_once(tasks: Mapping[K, Callable[[], R]], *, timeout: float) -> dict[K, R | None]:
    """Run all tasks concurrently, each for its own time; None for one that does not come to its end."""
    if not tasks:
        return {}

    def bounded(call: Callable[[], R]) -> R | None:
        return _Waiting(call).within(timeout + GRACE)

    with ThreadPoolExecutor(min(AT_ONCE, len(tasks)), thread_name_prefix="cellsync") as pool:
        futures = {name: pool.submit(bounded, task) for name, task in tasks.items()}
        return {name: future.result() for name, future in futures.items()}


def ask_broker(broker: Broker, *, timeout: float, queues: Sequence[str] = ()) -> tuple[BrokerProbe, ...]:
    """Probe every host of one broker, all at once, in the order of its URL."""
    return ask_brokers({"": broker}, timeout=timeout, queues=queues)[""]


def ask_brokers(
    asked: Mapping[str, Broker], *, timeout: float, queues: Sequence[str] = ()
) -> dict[str, tuple[BrokerProbe, ...]]:
    """Probe every host of several brokers, all at once."""
    tasks = {
        (name, place): _broker_task(broker, place, timeout, queues)
        for name, broker in asked.items()
        for place in range(len(broker.hosts))
    }
    found = at_once(tasks, timeout=timeout)
    late = f"no answer within {timeout:g} s"
    return {
        name: tuple(
            found[name, place] or BrokerProbe(host=address, status=HostStatus.TIMEOUT, error=late)
            for place, address in enumerate(broker.addresses)
        )
        for name, broker in asked.items()
    }


def _broker_task(
    broker: Broker, place: int, timeout: float, queues: Sequence[str]
) -> Callable[[], BrokerProbe]:
    return lambda: brokers.probe(broker, broker.hosts[place], timeout=timeout, queues=queues)


Answer = tuple[DatabaseProbe, "tuple[CellRow, ...] | str"]
"""What a login to a database found, and its register of cells, or why that could not be read."""


def ask_databases(
    cells: Sequence[Cell], *, timeouts: Timeouts, clock: Callable[[], float], timeout: float
) -> dict[str, Answer]:
    """Log in to the database of every cell, all at once, and read its register of cells."""
    limits = replace(
        timeouts,
        connect=max(1, round(timeout)),
        login=max(1, round(timeout)),
        statement=max(1, round(timeout)),
    )

    def ask(cell: Cell) -> Answer:
        started = clock()
        try:
            with db.connect(cell, limits) as database:
                latency = clock() - started
                probe = DatabaseProbe(
                    status=HostStatus.OK, latency=latency, server=database.identity().version
                )
                try:
                    rows = db.register(database)
                    return replace(probe, release=db.read_release(database)), rows
                except CellsyncError as error:
                    return probe, str(error)
        except Unreachable as error:
            return DatabaseProbe(status=HostStatus(error.reason), error=str(error)), str(error)
        except CellsyncError as error:
            return DatabaseProbe(status=HostStatus.ERROR, error=str(error)), str(error)

    found = at_once({cell.name: lambda cell=cell: ask(cell) for cell in cells}, timeout=timeout)  # type: ignore[misc]
    late = f"no answer within {timeout:g} s"
    gone = (DatabaseProbe(status=HostStatus.TIMEOUT, error=late), late)
    return {name: answer or gone for name, answer in found.items()}
