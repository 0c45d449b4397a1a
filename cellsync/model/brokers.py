"""Message brokers: a transport_url taken apart, and what a login to one of its hosts found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode

from cellsync.model.values import Secret

PORT = 5672
TLS_PORT = 5671
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ENCODE = (
    "in cellsync.yaml write special characters of a user or password percent-encoded (@ is %40, / is %2F, "
    ", is %2C); Nova's own URLs cannot hold them before Newton"
)
_TRUE = ("1", "true", "yes", "on")


class Escaping(str, Enum):
    """How user, password and virtual host stand in a transport_url: a matter of Nova's release."""

    PERCENT = "percent"
    """Percent-encoded: oslo.messaging from 5.2.0 on, cellsync.yaml, and Havana's own parser."""
    RAW = "raw"
    """As they are: oslo.messaging before 5.2.0, of Icehouse to Mitaka."""


class BrokerHost(NamedTuple):
    """One host of a transport_url; ``port`` is None where the URL leaves it to the driver."""

    host: str
    port: int | None = None
    username: str | None = None
    password: Secret | None = None


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A transport_url taken apart by oslo.messaging's grammar (``TransportURL.parse``).

    A host may have a user and a password of its own; they share the virtual host. IPv6 addresses
    stand without their brackets here.
    """

    scheme: str
    hosts: tuple[BrokerHost, ...]
    virtual_host: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, escaping: Escaping = Escaping.PERCENT) -> Broker:
        """Take a URL apart: ``rabbit://u:p@h1:5672,u:p@h2:5672/vhost``.

        The hosts have either all a user or none. Raises ValueError, whose text holds no part of the URL.
        """
        scheme, hosts, rest = _parts(text, escaping)
        path, mark, query = rest.partition("#")[0].partition("?")
        if mark and escaping is Escaping.RAW:
            raise ValueError("the broker URL has options behind a ?, which no Nova before Newton takes")
        read = unquote if escaping is Escaping.PERCENT else str
        return cls(
            scheme=scheme.removesuffix("://"),
            hosts=tuple(_host(host, escaping) for host in hosts),
            virtual_host=read(path[1:]) if path else None,
            query={name: ",".join(values) for name, values in parse_qs(query).items()},
        )

    def write(self, escaping: Escaping) -> str:
        """Return the URL as a release of Nova reads it. Raises ValueError for what it cannot hold."""
        wrong = list(dict.fromkeys(self._unfit(escaping)))
        if wrong:
            raise ValueError("; ".join(wrong))
        hosts = ",".join(_netloc(host, str) for host in self.hosts)
        raw = f"{self.scheme}://{hosts}/{self.virtual_host or ''}"
        text = raw if escaping is Escaping.RAW else str(self)
        with suppress(ValueError):
            read = Broker.parse(text, escaping)
            if (read.hosts, read.virtual_host or "") == (self.hosts, self.virtual_host or ""):
                return text
        raise ValueError("it has a host that is neither a name nor an address")

    def _unfit(self, escaping: Escaping) -> Iterator[str]:
        """Yield which part has characters that the URL cannot hold."""
        raw, named = escaping is Escaping.RAW, self.virtual_host or ""
        bad = _find_all("#?;@" if raw else ";", named)
        # Decoded once more on the way: see ``vhost``.
        if bad := [*bad, *(["%"] if unquote(named) != named else [])]:
            yield f"the virtual host has {_name_characters(bad)}"
        if not raw:
            return
        for host in self.hosts:
            if bad := _find_all("@/?#,[]:", host.username or "", ascii_only=True):
                yield f"the user has {_name_characters(bad)}"
            password = host.password.reveal() if host.password else ""
            if bad := _find_all("@/?#,[]", password, ascii_only=True):
                yield f"the password has {_name_characters(bad)}"
        if self.query:
            yield "it has options behind a ?"

    def __str__(self) -> str:
        """Return the URL, passwords and all, percent-encoded as oslo.messaging does it."""
        tail = quote(self.virtual_host) if self.virtual_host else ""
        query = f"?{urlencode(self.query, doseq=True)}" if self.query else ""
        return f"{self.scheme}://{','.join(map(_netloc, self.hosts))}/{tail}{query}"

    @property
    def vhost(self) -> str:
        """The virtual host that a driver logs in to.

        In every release the driver puts what oslo.messaging has read into a URL for kombu as it is, and kombu
        decodes it once more.
        """
        return unquote(self.virtual_host or "") or "/"

    @property
    def tls(self) -> bool:
        """Say whether the connections are encrypted: ``?ssl=1``, as oslo.messaging names it."""
        return self.scheme == "amqps" or self.query.get("ssl", "").lower() in _TRUE

    @property
    def addresses(self) -> tuple[str, ...]:
        """The hosts as people write them, ports filled in: "10.0.0.1:5672", "[::1]:5672"."""
        return tuple(self.address(host) for host in self.hosts)

    def address(self, host: BrokerHost) -> str:
        """Return one host with its port."""
        port = host.port or (TLS_PORT if self.scheme == "amqps" else PORT)
        return f"{_bracketed(host.host)}:{port}"


def starred(text: str) -> str:
    """Return a transport_url as it is written, with stars for its passwords.

    Raises ValueError as ``Broker.parse`` does.
    """
    scheme, hosts, rest = _parts(text)
    secret = r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*"
    return scheme + ",".join(map(_starred_host, hosts)) + re.sub(secret, r"\1***", rest, flags=re.IGNORECASE)


def _starred_host(part: str) -> str:
    user, at, address = part.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{name}{':***' if colon else ''}{at}{address}"


def masked(text: str) -> str:
    """Return a transport_url that need not be a right one with stars for whatever may be a password."""
    try:
        return starred(text)
    except ValueError:
        return re.sub(r"(:/+[^\s:]*):.*@", r"\1:***@", text, flags=re.DOTALL)


def _parts(text: str, escaping: Escaping = Escaping.PERCENT) -> tuple[str, list[str], str]:
    """Return "rabbit://", the hosts, and what comes behind them, all as they are written."""
    match = re.fullmatch(r"([A-Za-z][\w+.-]*://)([^/?#]*)(.*)", text)
    if match is None or _UNPRINTABLE.search(text):
        raise ValueError("is not a broker URL: write rabbit://USER:PASSWORD@HOST:5672/VHOST")
    scheme, together, rest = match.groups()
    if "@" in rest:
        raise ValueError(f"the broker URL has an @ behind its hosts: {_ENCODE}")
    hosts = [host for host in together.split(",") if host]
    for host in hosts:
        _host(host, escaping)
    if len({"@" in host for host in hosts}) > 1:
        raise ValueError(f"the broker URL names a user for some hosts only: give each its own, and {_ENCODE}")
    return scheme, hosts, rest


def _host(part: str, escaping: Escaping) -> BrokerHost:
    user, at, address = part.rpartition("@")
    name, colon, password = user.partition(":")
    read = unquote if escaping is Escaping.PERCENT else str
    if "@" in user and escaping is Escaping.RAW:
        return _host_behind_at(user, address)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([\w.-]+))(?::([0-9]*))?", address)
    if "@" in user or match is None:
        raise ValueError(f"the broker URL has a host that is not HOST or HOST:PORT: {_ENCODE}")
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError("the broker URL has a port that is not from 1 to 65535")
    return BrokerHost(
        host=match[1] or match[2],
        port=port,
        username=read(name) if at else None,
        password=Secret(read(password)) if colon else None,
    )


def _host_behind_at(user: str, address: str) -> BrokerHost:
    """Return a host as Nova logs in to it where a raw password has an @, as nova-manage writes it.

    oslo.messaging ends the password at the first @ and takes its rest for a part of the host's name; the
    driver joins them again, and kombu ends the password at the last @ and decodes that rest. So it works, but
    for an IPv6 address and for a : or ; in the rest. Seen with oslo.messaging 2.5.0 and kombu 3.0.37.
    """
    first, _, rest = user.partition("@")
    if ":" not in first or re.search("[:;]", rest) or "[" in address:
        raise ValueError(f"the broker URL has a host that is not HOST or HOST:PORT: {_ENCODE}")
    found = _host(f"{first}@{address}", Escaping.RAW)
    assert found.password is not None
    return found._replace(password=Secret(f"{found.password.reveal()}@{unquote(rest)}"))


def _encode(text: str) -> str:
    return quote(text, safe="")


def _netloc(host: BrokerHost, write: Callable[[str], str] = _encode) -> str:
    user = "" if host.username is None else write(host.username)
    password = "" if host.password is None else f":{write(host.password.reveal())}"
    at = "" if host.username is None and host.password is None else "@"
    port = "" if host.port is None else f":{host.port}"
    return f"{user}{password}{at}{_bracketed(host.host)}{port}"


def _find_all(wrong: str, text: str, *, ascii_only: bool = False) -> list[str]:
    """Return the characters of a text that are wrong, control characters among them, each once."""
    return [
        each
        for each in dict.fromkeys(text)
        if each in wrong or _UNPRINTABLE.match(each) or (ascii_only and not each.isascii())
    ]


def _name_characters(found: Sequence[str]) -> str:
    """Return characters as a sentence names them: "@, / and #"."""
    names = [each if each.isprintable() and not each.isspace() else f"U+{ord(each):04X}" for each in found]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class HostStatus(str, Enum):
    """What a login to one host of a broker, or to a database, came to."""

    OK = "ok"
    REFUSED = "refused"
    """Nothing listens there."""
    AUTH = "auth"
    """The user or the password is refused."""
    VHOST = "vhost"
    """There is no such virtual host, or the user may not use it."""
    SCHEMA = "schema"
    """The server has no such schema, or the user may not use it (databases only)."""
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    """It lets us in and takes no messages: an alarm of its memory or its disk."""
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """One queue; ``consumers`` and ``messages`` are None where there is no such queue."""

    name: str
    consumers: int | None
    messages: int | None


@dataclass(frozen=True, kw_only=True)
class BrokerProbe:
    """What a login to one host of a broker found."""

    host: str
    """Host and port."""
    status: HostStatus
    latency: float | None = None
    """Seconds from the first packet to the end of the login; None where there was none."""
    server: str = ""
    """What the server says it is: "RabbitMQ 3.10.8"."""
    error: str = ""
    queues: tuple[Queue, ...] = ()
