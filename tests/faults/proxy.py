"""A TCP proxy before a MariaDB server, which does harm, or anything, at the n-th command of its clients.

It understands as much of the protocol as that needs: packets have a length and a sequence number,
and a client's packet with the number 0 begins a command. The login counts as a command too, the
farewell (COM_QUIT) does not. Encryption is taken out of the server's greeting, so that clients
that prefer it do without.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from types import TracebackType

import sqlalchemy as sa

HEADER = 4
QUIT = b"\x01"
LATE_SECONDS = 0.4
"""Later than the first of the next tries, which comes after 0.2 s."""
_CLIENT_SSL = 0x08  # of the second byte of the lower capability flags


class Fault(Enum):
    """What happens to one command and its connection."""

    BEFORE = "the connection is closed before the server has the command"
    AFTER = "the server carries the command out, and the connection is closed before it can say so"
    HALF = "half of the answer comes through, and the connection is closed"
    LATE = "the connection is closed at once, and the command reaches the server a little later"
    STALL = "the command is swallowed, and the connection stays open"


class CommitGate:
    """Hold the COMMIT of each client until those of so many clients are there, then release them together.

    The ``gate`` of the proxies before several servers. Who has waited ``seconds`` goes on alone.
    """

    def __init__(self, *, parties: int = 2, seconds: float = 0.5) -> None:
        self.meetings = 0
        """How often all of them met."""
        self._parties, self._seconds = parties, seconds
        self._changed = threading.Condition()
        self._waiting = 0

    def __call__(self, command: str) -> None:
        """Wait, if a command is a COMMIT."""
        if command != "COMMIT":
            return
        with self._changed:
            if self._parties < 2:
                return
            meeting = self.meetings
            self._waiting += 1
            if self._waiting == self._parties:
                self.meetings += 1
                self._waiting = 0
                self._changed.notify_all()
            elif not self._changed.wait_for(lambda: self._is_released(meeting), self._seconds):
                self._waiting -= 1

    def _is_released(self, meeting: int) -> bool:
        """Say whether who came at this meeting need not wait any more."""
        return self.meetings > meeting or self._parties < 2

    def leave(self) -> None:
        """Let a client go that has ended: the last one waits for nobody."""
        with self._changed:
            self._parties -= 1
            self._changed.notify_all()


class Proxy:
    """Listens on a port of its own and passes everything on to ``upstream``'s port."""

    def __init__(self, upstream: str, *, gate: Callable[[str], None] | None = None) -> None:
        """``upstream`` is the URL of a database; ``url`` is the same one through the proxy.

        ``gate`` is called with each command before the server gets it, and may wait.
        """
        self._upstream = sa.make_url(upstream)
        self._gate = gate
        self.struck_leads_to = ""
        """The URL of another server for connections that are made after a fault; "" for the same."""
        self._guard = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._port = 0
        self.arm()

    @property
    def url(self) -> str:
        """The URL of the database, through the proxy."""
        through = self._upstream.set(host="127.0.0.1", port=self._port)
        return through.render_as_string(hide_password=False)

    def __enter__(self) -> Proxy:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.cut()

    def arm(self, at: int = 0, fault: Fault = Fault.BEFORE, *, holding: str = "") -> None:
        """Count from 1 again, and do harm at the command ``at``; 0 is never.

        With ``holding``, only commands count in which this pattern is found.
        """
        with self._guard:
            self.commands: list[str] = []
            self.struck = ""
            self._at, self._fault, self._holding = at, fault, re.compile(holding, re.DOTALL)
            self._act: Callable[[], None] | None = None

    def arm_action(self, at: int, act: Callable[[], None], *, holding: str = "") -> None:
        """Count from 1 again, and do something before the command ``at`` reaches the server, unharmed.

        The client waits for its answer meanwhile. ``holding`` is as in ``arm``.
        """
        self.arm(holding=holding)
        with self._guard:
            self._at, self._act = at, act

    def listen(self) -> None:
        """Take connections, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(64)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def lead_to(self, upstream: str) -> None:
        """Pass new connections on to another server, as a load balancer does when one is gone."""
        self._upstream = sa.make_url(upstream)

    def refuse(self) -> None:
        """Refuse new connections from now on."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def cut(self) -> None:
        """Close the connections that are open."""
        for each in list(self._open):
            _close(each)
        self._open.clear()

    @contextmanager
    def refusing(self, seconds: float) -> Iterator[None]:
        """Cut all connections and refuse new ones, for so long after the block was entered."""
        self.refuse()
        self.cut()
        timer = threading.Timer(seconds, self.listen)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((str(self._upstream.host), int(self._upstream.port or 0)))
            except OSError:
                _close(client)
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open |= {client, server}
            link = _Link(self, client, server)
            for pump in (link.commands, link.answers):
                threading.Thread(target=pump, daemon=True).start()

    def strike(self, command: bytes) -> Fault | None:
        """Count a command and return what happens to it."""
        text = command[1:2000].decode(errors="replace")
        if self._gate is not None:
            self._gate(text)
        with self._guard:
            if not self._holding.search(text):
                return None
            self.commands.append(text[:200])
            if self._at != len(self.commands):
                return None
            self.struck = self.commands[-1]
            if self.struck_leads_to:
                self.lead_to(self.struck_leads_to)
            act, self._act = self._act, None
            if act is None:
                return self._fault
        act()
        return None


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._fault: Fault | None = None

    def commands(self) -> None:
        """Pass the client's packets on, until one is struck."""
        first = True
        with suppress(OSError):
            while packet := _packet(self._client):
                begins = first or packet[3] == 0
                first = False
                if begins and packet[HEADER:] != QUIT:
                    self._fault = self._proxy.strike(packet[HEADER:])
                if self._fault is Fault.STALL:
                    return
                if self._fault is Fault.BEFORE:
                    break
                if self._fault is Fault.LATE:
                    _close(self._client)
                    time.sleep(LATE_SECONDS)
                self._server.sendall(packet)
                if self._fault is not None:
                    return  # the answer's side ends it
        self._end()

    def answers(self) -> None:
        """Pass the server's packets on."""
        with suppress(OSError):
            greeting = bytearray(_packet(self._server))
            if greeting:
                # Protocol number, version and NUL, thread 4, salt 8, filler 1, flags 2.
                greeting[greeting.index(0, HEADER + 1) + 15] &= ~_CLIENT_SSL & 0xFF
                self._client.sendall(greeting)
            while answer := self._server.recv(65536):
                if self._fault in (Fault.AFTER, Fault.LATE):
                    break
                if self._fault is Fault.HALF:
                    self._client.sendall(answer[: len(answer) // 2])
                    break
                self._client.sendall(answer)
        if self._fault is not Fault.STALL:
            self._end()

    def _end(self) -> None:
        for each in (self._client, self._server):
            _close(each)


def _packet(connection: socket.socket) -> bytes:
    """Return one packet with its header, b"" at the end."""
    header = _exactly(connection, HEADER)
    return header and header + _exactly(connection, int.from_bytes(header[:3], "little"))


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            return b""
        found += part
    return bytes(found)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
