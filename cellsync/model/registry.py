"""Nova's register of cells: the rows of the table ``cells``, and what is known of each cell.

Source: nova/db/sqlalchemy/models.py (class Cell) and nova/cmd/manage.py (class CellCommands) of
Havana to Stein.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cellsync.model.brokers import BrokerProbe, HostStatus, Queue
from cellsync.model.releases import NovaRelease
from cellsync.model.values import Secret, Value

TABLE = "cells"
NAME_LENGTH = 255
URL_LENGTH = 255


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """One row of ``cells``: how one cell reaches its neighbour. Times are UTC, as the server gave them."""

    id: int
    name: str
    is_parent: bool
    transport_url: Secret
    weight_offset: float | None = None
    weight_scale: float | None = None
    deleted: int | None = 0
    """0 in a live row, its id in one that is soft-deleted; None hides it from Nova."""
    deleted_at: str | None = None
    whole: Mapping[str, Value] = field(default_factory=dict, compare=False, repr=False)
    """Every column of the row, by lower-case name."""

    @property
    def live(self) -> bool:
        """Say whether Nova sees the row."""
        return self.deleted == 0


class Side(str, Enum):
    """Which of the two rows is meant: the parent's row for the child, or the child's for the parent."""

    PARENT = "parent"
    CHILD = "child"
    BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One row as ``cells list`` shows it, and what is wrong with it."""

    cell: str
    """The cell in whose database it stands."""
    row: CellRow
    broker: str
    """Its transport_url with stars for the passwords."""
    mismatches: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Registered:
    """The register of all cells."""

    rows: tuple[Listed, ...]
    """Live rows: the parent's by id, then each child's."""
    isolated: tuple[Listed, ...]
    """The last row of each child that was taken out of the parent's table."""
    missing: tuple[str, ...]
    """What is not there and should be, in a sentence each."""
    failures: Mapping[str, str]
    """Cell -> why its table could not be read."""


@dataclass(frozen=True, kw_only=True)
class DatabaseProbe:
    """What a login to a cell's database found."""

    status: HostStatus
    latency: float | None = None
    server: str = ""
    error: str = ""
    release: NovaRelease | None = None
    """Of Nova, by the version of its schema; asked only beside a table of cells."""


class Decision(str, Enum):
    """What ``cells check --isolate`` decided about one child."""

    NONE = "none"
    COUNTING = "counting"
    """It fails, or answers again, but not yet often enough in a row."""
    ISOLATED = "isolated"
    RESTORED = "restored"
    DAMPED = "damped"
    """It would be brought back, but has come and gone too often."""
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class CheckedCell:
    """What was found out about one cell's database and broker."""

    cell: str
    database: DatabaseProbe
    broker: tuple[BrokerProbe, ...]
    """By host, in the order of the URL."""
    awaited: bool = False
    """True where a nova-cells must take messages at the broker: its cell is in the register."""
    unknown: str = ""
    """Why there is no broker to ask; empty where there is one, or where the cell has none."""
    half_registered: str = ""
    """Which of the two rows that register a child is missing; empty where both or none is there."""
    isolated: bool = False
    decision: Decision = Decision.NONE
    said: str = ""
    """The decision in one line."""

    @property
    def broker_down(self) -> bool:
        """Say whether no host of the broker takes messages."""
        return bool(self.broker) and all(probe.status is not HostStatus.OK for probe in self.broker)

    @property
    def queues(self) -> tuple[Queue, ...]:
        """What the first host of the broker that answers says of nova-cells' queues."""
        return answered_queues(self.broker)

    @property
    def silent(self) -> tuple[Queue, ...]:
        """The queues of nova-cells from which nobody takes messages, at a broker that lives.

        A child that is silent hangs the parent as one whose broker is dead does.
        """
        return unattended(self.queues) if self.awaited else ()

    @property
    def sound(self) -> bool:
        """Say whether everything that was asked answered."""
        asked = [self.database.status, *(probe.status for probe in self.broker)]
        wrong = self.unknown or self.half_registered or self.silent
        return not wrong and all(status is HostStatus.OK for status in asked)


def answered_queues(probes: Sequence[BrokerProbe]) -> tuple[Queue, ...]:
    """Return the queues of the first host that answers; the hosts of one broker have the same."""
    return next((probe.queues for probe in probes if probe.status is HostStatus.OK), ())


def unattended(queues: Sequence[Queue]) -> tuple[Queue, ...]:
    """Return the queues of nova-cells that nobody takes messages from.

    One that is not there is one of them, unless messages are taken from another: then nova-cells lives, and
    has other names for this one ([cells] rpc_driver_queue_base).
    """
    lives = any(queue.consumers for queue in queues)
    return tuple(queue for queue in queues if not queue.consumers and (queue.consumers == 0 or not lives))


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service of a cell on one host, by its last sign of life in the cell's database."""

    name: str
    host: str
    """Empty where no service of that name was ever seen."""
    age: int | None
    """Seconds since then, by the server's own clock; None where there never was one."""
    alive: bool
    lost: str
    """What is lost when none of that name is alive."""
    optional: bool = False
    """True when requests still find their way without it."""
    through_broker: bool = False
    """True when its signs of life reach the database through the cell's broker."""
    lost_with_broker: bool = False
    """True when nothing is known of it, as the broker is down through which it would be heard."""


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """What the database of one cell says of itself."""

    cell: str
    version: str
    """The schema's version: "migrate_version 302"; empty where there is none."""
    services: tuple[Service, ...] = ()
    """Those that the packs in use ask for."""
    error: str = ""
    """Why some of it could not be read."""

    @property
    def down(self) -> Mapping[str, str]:
        """The services of which none is alive, and without which requests are lost: name -> what is lost.

        Not those that are lost with the broker: they may live.
        """
        needed = [each for each in self.services if not (each.optional or each.lost_with_broker)]
        up = {each.name for each in needed if each.alive}
        return {each.name: each.lost for each in needed if each.name not in up}


class HopStatus(str, Enum):
    """How one hop of a request's path stands."""

    OK = "ok"
    WARN = "warn"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    """It could not be checked; the evidence says why."""


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One hop of the path of a request."""

    hop: str
    status: HopStatus
    evidence: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Hanging:
    """Another child that holds the parent up: a request to all cells waits for it, and fails."""

    cell: str
    evidence: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The path of a request from the parent to a child and back, hop by hop."""

    child: str
    hops: tuple[Hop, ...]
    hanging: tuple[Hanging, ...] = ()
    """The other children that hang the parent, in the order of its table."""

    @property
    def first_broken(self) -> Hop | None:
        """The first hop that is broken, if one is."""
        return next((hop for hop in self.hops if hop.status is HopStatus.BROKEN), None)
