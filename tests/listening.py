"""What nova-cells does at a broker, as far as others see it: it takes messages from its queues."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import amqp
from rabbitmq import PASSWORD, RabbitMQ

from cellsync.broker import NOVA_CELLS

PATIENCE = 20
"""Seconds in which a consumer comes back to a broker on a busy machine."""


@contextlib.contextmanager
def nova_cells(broker: RabbitMQ, vhost: str, queues: Sequence[str] = NOVA_CELLS) -> Iterator[amqp.Channel]:
    """Take messages from queues of nova-cells; they are gone when it is left."""
    connection = _connect(broker, vhost)
    try:
        yield _consume(connection, queues, auto_delete=True)
    finally:
        connection.collect()


class NovaCells:
    """A consumer that comes back to its broker, as oslo.messaging does; its queues stay when it is killed."""

    def __init__(self, broker: RabbitMQ, vhost: str) -> None:
        self._broker, self._vhost = broker, vhost
        self._stopping = threading.Event()
        self._listening = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take messages, and return as soon as that is so."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, daemon=True, name="nova-cells")
        self._thread.start()
        self.wait()

    def kill(self) -> None:
        """Be gone as after SIGKILL: the queues stay, and nobody takes messages from them."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until messages are taken (again)."""
        assert self._listening.wait(PATIENCE), "no consumer came back to the broker"

    def forget(self) -> None:
        """Let ``wait`` wait for the next connection: the broker was killed."""
        self._listening.clear()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = _connect(self._broker, self._vhost)
            except (OSError, amqp.AMQPError):
                self._listening.clear()
                time.sleep(0.05)
                continue
            try:
                _consume(connection, NOVA_CELLS, auto_delete=False)
                self._listening.set()
                self._drain(connection)
            except (OSError, amqp.AMQPError):
                pass
            finally:
                self._listening.clear()
                connection.collect()

    def _drain(self, connection: amqp.Connection) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.05)


@contextlib.contextmanager
def listening(places: Mapping[str, tuple[RabbitMQ, str]]) -> Iterator[dict[str, NovaCells]]:
    """Run a nova-cells for each cell: cell -> its broker and virtual host."""
    with ExitStack() as leaving:
        running = {}
        for cell, (broker, vhost) in places.items():
            running[cell] = NovaCells(broker, vhost)
            running[cell].start()
            leaving.callback(_end, running[cell], broker, vhost)
        yield running


def _end(running: NovaCells, broker: RabbitMQ, vhost: str) -> None:
    """Leave no queue behind: the broker is another test's next."""
    running.kill()
    with contextlib.suppress(OSError, amqp.AMQPError):
        _without_queues(broker, vhost)


def _without_queues(broker: RabbitMQ, vhost: str) -> None:
    connection = _connect(broker, vhost)
    try:
        for name in NOVA_CELLS:
            connection.channel().queue_delete(name)
    finally:
        connection.collect()


def _connect(broker: RabbitMQ, vhost: str) -> amqp.Connection:
    connection = amqp.Connection(
        broker.address, "nova", PASSWORD, virtual_host=vhost, connect_timeout=2, read_timeout=5
    )
    connection.connect()
    return connection


def _consume(connection: amqp.Connection, queues: Sequence[str], *, auto_delete: bool) -> amqp.Channel:
    channel = connection.channel()
    for name in queues:
        channel.queue_declare(name, auto_delete=auto_delete)
        channel.basic_consume(name, consumer_tag=name)
    return channel
