"""One login to one host of a broker: who answers, whether it lets us in, and whether it takes messages.

Source of the queues' names: nova/cells/rpc_driver.py and nova/cells/opts.py (rpc_driver_queue_base).
"""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Sequence
from typing import Any

from cellsync.model import Broker, BrokerHost, BrokerProbe, HostStatus, Queue

NOVA_CELLS = ("cells", "cells.intercell.targeted", "cells.intercell.broadcast", "cells.intercell.response")
"""The queues from which a nova-cells takes messages: of its own cell's services, and of other cells."""


class _Blocked(Exception):
    """The broker told us that it takes no messages."""


def probe(broker: Broker, host: BrokerHost, *, timeout: float, queues: Sequence[str] = ()) -> BrokerProbe:
    """Log in to a host's virtual host, look at queues, and send it one message that goes nowhere.

    A broker with an alarm (of its memory or its disk) lets everybody in and stops reading what they
    send: it is found out by a message to a queue that does not exist, and a question after it. Each
    step has ``timeout`` seconds; whoever calls bounds them all, a slow name server included. Changes
    nothing: queues are declared passively. Raises nothing that a broker can cause.
    """
    import amqp

    address, started = broker.address(host), time.monotonic()
    # Without a time of its own a login waits for ever for a broker that is stopped.
    connection = amqp.Connection(
        host=address,
        userid=host.username or "guest",
        password=host.password.reveal() if host.password else "guest",
        virtual_host=broker.vhost,
        ssl=_tls(broker),
        connect_timeout=timeout,
        read_timeout=timeout,
        write_timeout=timeout,
        on_blocked=_blocked,
        login_method="PLAIN",
    )
    latency: float | None = None
    server, status, error = "", HostStatus.OK, ""
    found: tuple[Queue, ...] = ()
    try:
        connection.connect()
        latency = time.monotonic() - started
        server = _server(connection.server_properties)
        found = tuple(_queue(connection, name) for name in queues)
        _send(connection)
        connection.close()
    except _Blocked as blocked:
        status, error = HostStatus.BLOCKED, str(blocked)
    except amqp.AccessRefused as refused:
        status, error = HostStatus.AUTH, _said(refused)
    except amqp.NotAllowed as refused:
        # "vhost not found", or "access to vhost refused": there is a login, and no place for it.
        status, error = HostStatus.VHOST, _said(refused)
    except amqp.NotFound as missing:  # brokers that speak of it otherwise
        status, error = HostStatus.VHOST, _said(missing)
    except TimeoutError:
        status, error = HostStatus.TIMEOUT, f"no answer within {timeout:g} s"
    except ConnectionRefusedError:
        status, error = HostStatus.REFUSED, "nothing listens there"
    except (OSError, amqp.AMQPError, ssl.SSLError, ValueError, IndexError) as other:
        # ValueError, IndexError: what answers speaks something else than AMQP.
        status, error = HostStatus.ERROR, f"{type(other).__name__}: {_said(other)}"
    finally:
        connection.collect()
    return BrokerProbe(host=address, status=status, latency=latency, server=server, error=error, queues=found)


def _blocked(reason: str) -> None:
    raise _Blocked("it lets us in and takes no messages: an alarm of its memory or its disk")


def _queue(connection: Any, name: str) -> Queue:
    import amqp

    channel = connection.channel()
    try:
        _, messages, consumers = channel.queue_declare(queue=name, passive=True)
    except amqp.NotFound:  # which has closed the channel
        return Queue(name=name, consumers=None, messages=None)
    channel.close()
    return Queue(name=name, consumers=consumers, messages=messages)


def _send(connection: Any) -> None:
    """Send a message that no queue takes, then ask: where the broker is blocked, no answer will come."""
    import amqp

    channel = connection.channel()
    nowhere = f"cellsync-probe-{secrets.token_hex(8)}"
    channel.basic_publish(amqp.Message(b""), exchange="", routing_key=nowhere)
    channel.basic_qos(0, 1, False)


def _tls(broker: Broker) -> bool | dict[str, Any]:
    """Return py-amqp's argument for TLS, from the options that oslo.messaging has for it."""
    if not broker.tls:
        return False
    ca = broker.query.get("ssl_ca_file")
    files = {"keyfile": broker.query.get("ssl_key_file"), "certfile": broker.query.get("ssl_cert_file")}
    trust = {"ca_certs": ca, "cert_reqs": ssl.CERT_REQUIRED if ca else ssl.CERT_NONE}
    return {**{name: file for name, file in files.items() if file}, **trust}


def _server(properties: dict[str, Any]) -> str:
    parts = (properties.get("product"), properties.get("version"))
    return " ".join(part.decode() if isinstance(part, bytes) else str(part) for part in parts if part)


def _said(error: BaseException) -> str:
    """Return what was said, in one line; a broker never repeats a password."""
    text = getattr(error, "reply_text", None) or getattr(error, "strerror", None) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return " ".join(text.split()) or "no reason given"
