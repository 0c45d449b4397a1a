"""Logins to real brokers: each way in which one can be unwell is told from the others."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import amqp
import pytest
from rabbitmq import PASSWORD, RabbitMQ, free_port

from cellsync.broker import NOVA_CELLS, probe
from cellsync.model import Broker, BrokerProbe, HostStatus, Queue
from cellsync.run.probing import at_once

TIMEOUT = 1.0


def ask(url: str, queues: tuple[str, ...] = ()) -> BrokerProbe:
    """Probe the first host of a URL."""
    broker = Broker.parse(url)
    return probe(broker, broker.hosts[0], timeout=TIMEOUT, queues=queues)


def test_a_sound_broker_says_who_it_is(rabbit: RabbitMQ) -> None:
    """Latency and version; a queue that is not there is None, not 0."""
    found = ask(rabbit.url("c1"), ("no-such-queue",))
    assert (found.status, found.host, found.error) == (HostStatus.OK, rabbit.address, "")
    assert re.fullmatch(r"RabbitMQ \d+\.\d+\.\d+.*", found.server)
    assert found.latency is not None and 0 < found.latency < TIMEOUT
    assert found.queues == (Queue(name="no-such-queue", consumers=None, messages=None),)


@pytest.mark.parametrize(
    ("user", "password", "vhost", "status"),
    [
        ("nova", "wrong", "c1", HostStatus.AUTH),
        ("nobody", PASSWORD, "c1", HostStatus.AUTH),
        ("nova", PASSWORD, "nowhere", HostStatus.VHOST),
        ("nova", PASSWORD, "forbidden", HostStatus.VHOST),
    ],
)
def test_a_refused_login_is_told_from_a_refused_virtual_host(
    rabbit: RabbitMQ, user: str, password: str, vhost: str, status: HostStatus
) -> None:
    """And the password is not in what is said."""
    found = ask(rabbit.url(vhost, user=user, password=password))
    assert found.status is status
    assert found.error
    assert password not in found.error


def test_a_killed_broker_refuses(other_rabbit: RabbitMQ) -> None:
    """Nothing listens."""
    other_rabbit.kill()
    assert ask(other_rabbit.url()).status is HostStatus.REFUSED


def test_a_stopped_broker_times_out(other_rabbit: RabbitMQ) -> None:
    """The machine still takes the connection; nobody answers."""
    other_rabbit.signal(signal.SIGSTOP)
    started = time.monotonic()
    found = ask(other_rabbit.url())
    assert found.status is HostStatus.TIMEOUT
    assert time.monotonic() - started < 15


def test_a_broker_with_an_alarm_is_blocked(other_rabbit: RabbitMQ) -> None:
    """It lets everybody in and reads nothing more of whoever sends; then it is sound again."""
    other_rabbit.block()
    found = ask(other_rabbit.url(), NOVA_CELLS)
    assert (found.status, len(found.queues)) == (HostStatus.BLOCKED, len(NOVA_CELLS))
    assert found.latency is not None
    other_rabbit.recover()
    assert ask(other_rabbit.url()).status is HostStatus.OK


def test_queues_are_looked_at_and_not_made(rabbit: RabbitMQ) -> None:
    """Consumers and messages that wait; looking does not change them, nor does the probe leave anything."""
    with contextlib.closing(
        amqp.Connection(rabbit.address, "nova", PASSWORD, virtual_host="c2")
    ) as connection:
        connection.connect()
        channel = connection.channel()
        channel.queue_declare("cells.intercell.targeted", durable=False, auto_delete=False)
        channel.basic_publish(amqp.Message("m"), routing_key="cells.intercell.targeted")
        channel.queue_declare("cells", durable=False, auto_delete=False)
        tag = channel.basic_consume("cells", callback=print)
        for _ in range(2):
            queues = {queue.name: queue for queue in ask(rabbit.url("c2"), NOVA_CELLS).queues}
        assert (queues["cells"].consumers, queues["cells"].messages) == (1, 0)
        targeted = queues["cells.intercell.targeted"]
        assert (targeted.consumers, targeted.messages) == (0, 1)
        assert queues["cells.intercell.response"].consumers is None
        channel.basic_cancel(tag)
        for name in ("cells", "cells.intercell.targeted"):
            channel.queue_delete(name)


@contextlib.contextmanager
def talking(answer: bytes | None) -> Iterator[int]:
    """Listen, send an answer (None: hang up), and give the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    if answer is None:
                        connection.close()
                    else:
                        connection.sendall(answer)
                        open_.append(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for each in open_:
            each.close()


@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x01\x01\x00\x0a", b"\x00" * 64]
)
def test_what_is_no_broker_is_an_error_or_no_answer(answer: bytes | None) -> None:
    """One that hangs up, a web server, a broker of another version, and noise: never OK, never a crash."""
    with talking(answer) as port:
        found = ask(f"rabbit://u:hunter2@127.0.0.1:{port}/v")
    assert found.status in (HostStatus.ERROR, HostStatus.TIMEOUT, HostStatus.REFUSED)
    assert found.error
    assert "hunter2" not in found.error


def test_a_name_that_nobody_knows_is_an_error() -> None:
    """The resolver's own words."""
    found = ask("rabbit://u:p@no-such-host.invalid:5672/v")
    assert (found.status, bool(found.error)) == (HostStatus.ERROR, True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for 127.0.0.1, with its key in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {file} -out {file}.crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


@contextlib.contextmanager
def encrypted(certificate: Path, port: int) -> Iterator[int]:
    """Carry TLS connections to a broker's port, and give the port of the TLS side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=carry, args=(connection,), daemon=True).start()

        def carry(connection: socket.socket) -> None:
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(connection, server_side=True) as near,
                socket.create_connection(("127.0.0.1", port)) as far,
            ):
                back = threading.Thread(target=copy, args=(far, near), daemon=True)
                back.start()
                copy(near, far)
                back.join(5)

        def copy(one: socket.socket, other: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := one.recv(65536):
                    other.sendall(data)
                other.shutdown(socket.SHUT_WR)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_tls_is_spoken_and_its_certificate_checked(rabbit: RabbitMQ, certificate: Path) -> None:
    """?ssl=1 as oslo.messaging has it; with a CA the broker must show a certificate of it."""
    with encrypted(certificate, rabbit.port) as port:
        url = rabbit.url("c1").replace(str(rabbit.port), str(port))
        assert ask(f"{url}?ssl=1").status is HostStatus.OK
        assert ask(f"{url}?ssl=1&ssl_ca_file={certificate}.crt").status is HostStatus.OK
        wrong = certificate.parent / "other.pem"
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout {wrong}.key -out {wrong}"
        subprocess.run(command.split(), check=True, capture_output=True)
        assert ask(f"{url}?ssl=1&ssl_ca_file={wrong}").status is HostStatus.ERROR
        assert ask(url).status in (HostStatus.ERROR, HostStatus.TIMEOUT)
    assert ask(f"{rabbit.url('c1')}?ssl=1").status in (HostStatus.ERROR, HostStatus.TIMEOUT)


def test_a_probe_that_hangs_is_given_up_and_the_others_are_not_delayed() -> None:
    """A resolver has no time-out of its own."""
    stuck = threading.Event()
    started = time.monotonic()
    tasks = {"stuck": lambda: stuck.wait(30), **{name: lambda: True for name in "abc"}}
    found = at_once(tasks, timeout=0.2)
    stuck.set()
    assert found == {"stuck": None, "a": True, "b": True, "c": True}
    assert time.monotonic() - started < 15


def test_an_error_of_a_probe_is_raised() -> None:
    """A bug must not look like a host that does not answer."""

    def broken() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        at_once({1: broken}, timeout=1)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_nothing_listens_there(host: str) -> None:
    """The test's own ground: a free port refuses, by whatever name."""
    port = free_port()
    found = ask(f"rabbit://u:p@{host}:{port}/")
    assert (found.status, found.host) == (HostStatus.REFUSED, f"{host}:{port}")
