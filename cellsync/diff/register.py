"""What is wrong with Nova's register of cells: rows against the topology and against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cellsync.model import (
    Broker,
    BrokerHost,
    Cell,
    CellRow,
    Escaping,
    Listed,
    NovaRelease,
    Registered,
    Role,
    Secret,
    Topology,
    masked,
)

Tables = Mapping[str, Sequence[CellRow] | str]
"""Cell -> the rows of its table, or why they could not be read."""


@dataclass(frozen=True)
class Register:
    """The tables of cells of a topology, as far as they could be read."""

    topology: Topology
    tables: Tables
    releases: Mapping[str, NovaRelease | None] = field(default_factory=dict)
    """Cell -> its release of Nova, as far as its database says; cellsync.yaml has the last word."""

    def release(self, cell: str) -> NovaRelease | None:
        """Return what a cell runs: cells are upgraded in step, so another one may tell."""
        if self.topology.release is not None:
            return NovaRelease(name=self.topology.release, source="release in cellsync.yaml")
        own = self.releases.get(cell)
        return own or next(filter(None, self.releases.values()), None)

    def read_url(self, cell: str, text: str) -> Broker:
        """Return a broker from a URL that a cell's Nova reads. Raises ValueError as ``Broker.parse``."""
        release = self.release(cell)
        return Broker.parse(text, release.escaping if release else Escaping.PERCENT)

    @cached_property
    def brokers(self) -> Mapping[str, Broker]:
        """Each cell's broker: as cellsync.yaml has it, else as its neighbour's row has it.

        A child's is in the parent's row (in the last one, where it is isolated), the parent's in the rows
        of its children.
        """
        parent = self.topology.parent
        above = self.rows(parent)
        below = [
            (child.name, row)
            for child in self.topology.children
            for row in live(self.rows(child), parent.name)
            if row.is_parent
        ]
        found = {parent.name: self._broker(parent, below)}
        for child in self.topology.children:
            last = last_removed(above, child.name)
            rows = [*live(above, child.name), *([last] if last else [])]
            found[child.name] = self._broker(child, [(parent.name, row) for row in rows])
        return {name: broker for name, broker in found.items() if broker is not None}

    def _broker(self, cell: Cell, rows: Sequence[tuple[str, CellRow]]) -> Broker | None:
        """Return a cell's broker: of cellsync.yaml, else of the first of these rows that can be read."""
        given = cell.broker
        if given is None:
            texts = [(where, row.transport_url.reveal()) for where, row in rows]
        elif given.fault:
            return None
        else:
            texts = [(cell.name, given.url.reveal())]
        for where, text in texts:
            try:
                plain = given is not None and not given.by_release
                return Broker.parse(text) if plain else self.read_url(where, text)
            except ValueError:
                continue  # the row is listed with what is wrong with it
        return None

    def rows(self, cell: Cell) -> Sequence[CellRow]:
        """Return the rows of a cell's table, none where it could not be read."""
        found = self.tables.get(cell.name, ())
        return () if isinstance(found, str) else found

    def summary(self) -> Registered:
        """Return the rows of all cells, each with what is wrong with it, and what is not there."""
        parent, children = self.topology.parent, self.topology.children
        above = self.rows(parent)
        rows = [self._listed(cell, row) for cell in (parent, *children) for row in _seen(self.rows(cell))]
        isolated = [row for child in children if (row := removed(above, child.name))]
        read = {name for name, found in self.tables.items() if not isinstance(found, str)}
        pairs = [(parent, child) for child in children] + [(child, parent) for child in children]
        missing = [
            _no_row(where, other, half=bool(self.half_registered(other if where is parent else where)))
            for where, other in pairs
            if where.name in read
            and not live(self.rows(where), other.name)
            and not (where is parent and is_isolated(above, other.name))
        ]
        return Registered(
            rows=tuple(rows),
            isolated=tuple(self._listed(parent, row, sound=True) for row in isolated),
            missing=tuple(missing),
            failures={name: found for name, found in self.tables.items() if isinstance(found, str)},
        )

    def half_registered(self, child: Cell) -> str:
        """Return which of the two rows that register a child is missing; "" where both or none is there.

        A registration that was cut off leaves one. An isolated child has lost the parent's row on purpose.
        """
        parent = self.topology.parent
        if any(isinstance(self.tables.get(cell.name, ""), str) for cell in (parent, child)):
            return ""
        above = [row for row in live(self.rows(parent), child.name) if not row.is_parent]
        below = [row for row in live(self.rows(child), parent.name) if row.is_parent]
        if bool(above) == bool(below) or is_isolated(self.rows(parent), child.name):
            return ""
        where, other = (parent, child) if below else (child, parent)
        return _no_row(where, other, half=True)

    def _listed(self, cell: Cell, row: CellRow, *, sound: bool = False) -> Listed:
        wrong = () if sound else self.mismatches(cell, row)
        return Listed(cell=cell.name, row=row, broker=masked(row.transport_url.reveal()), mismatches=wrong)

    def mismatches(self, cell: Cell, row: CellRow) -> tuple[str, ...]:
        """Return what is wrong with a row of a cell's table, in a sentence each."""
        return (*self._names(cell, row), *self._urls(cell, row))

    def _names(self, cell: Cell, row: CellRow) -> Iterator[str]:
        above = cell.role is Role.PARENT
        if row.deleted is None:
            yield "deleted is NULL: Nova does not see the row"
        neighbours = self.topology.children if above else (self.topology.parent,)
        expected = {each.name for each in neighbours}
        if row.name not in expected and (above or row.is_parent):
            close = next((name for name in expected if name.casefold() == row.name.casefold()), None)
            hint = f"; {close} is, which is another name to Nova" if close else ""
            names = "a child in cellsync.yaml" if above else "the name of the parent in cellsync.yaml"
            yield f"{row.name} is not {names}{hint}"
        if above and row.is_parent:
            yield "it is marked as a parent of the parent"
        if not above and not row.is_parent and row.name in expected:
            yield "it is not marked as a parent"
        other = self.topology.cell(row.name)
        if other and other.nova and other.nova.cell_name not in (None, row.name):
            yield f"{row.name} calls itself {other.nova.cell_name} ([cells] name in {other.nova.file})"
        number = Counter(each.name.casefold() for each in _seen(self.rows(cell)))[row.name.casefold()]
        if number > 1:
            yield f"{number} rows have this name"

    def _urls(self, cell: Cell, row: CellRow) -> Iterator[str]:
        try:
            url = self.read_url(cell.name, row.transport_url.reveal())
        except ValueError as error:
            yield f"transport_url {error}"
            return
        if not url.hosts:
            yield "transport_url names no host"
        # Without cellsync.yaml the parent's broker is what the child's row says, which may be the wrong one.
        sure = cell.broker is not None or cell.role is Role.CHILD
        own = self.brokers.get(cell.name) if sure and row.name != cell.name else None
        if own is not None and (same := foreign(url, own)):
            yield f"transport_url leads to the broker of {cell.name} itself: {', '.join(same)}"
            return
        other = self.topology.cell(row.name)
        said = self.brokers.get(row.name) if other is not None and other.broker is not None else None
        if said is not None and (set(said.addresses), said.vhost) != (set(url.addresses), url.vhost):
            yield f"cellsync.yaml says that the broker of {row.name} is {masked(str(said))}"
        elif said is not None and self._is_encoded_in_vain(cell, row, said, url):
            yield (
                f"user or password are percent-encoded, which {self.release(cell.name)} does not decode: "
                f"delete the row and create it again"
            )

    def _is_encoded_in_vain(self, cell: Cell, row: CellRow, said: Broker, read: Broker) -> bool:
        """Say whether a row is right as later releases read it: earlier cellsyncs wrote such rows."""
        release = self.release(cell.name)
        if release is None or release.escaping is not Escaping.RAW:
            return False
        meant = Broker.parse(row.transport_url.reveal())
        logins = {_login(host) for host in said.hosts}
        return {_login(host) for host in meant.hosts} == logins != {_login(host) for host in read.hosts}


def last_removed(rows: Sequence[CellRow], name: str) -> CellRow | None:
    """Return the row of a child that was soft-deleted last, or None."""
    gone = [row for row in rows if row.deleted and row.name == name and not row.is_parent]
    return max(gone, key=lambda row: (row.deleted_at or "", row.id), default=None)


def removed(rows: Sequence[CellRow], name: str) -> CellRow | None:
    """Return the row of a child that was taken out of the parent's table, None where it is in it."""
    return None if live(rows, name) else last_removed(rows, name)


def is_isolated(rows: Sequence[CellRow], name: str) -> bool:
    """Say whether a child was taken out of the parent's table, and not put back."""
    return removed(rows, name) is not None


def live(rows: Sequence[CellRow], name: str) -> list[CellRow]:
    """Return the rows of a name that Nova sees."""
    return [row for row in rows if row.live and row.name == name]


def foreign(url: Broker, other: Broker) -> tuple[str, ...]:
    """Return the addresses of another cell's broker that a URL leads to.

    Two virtual hosts of one broker are two brokers. But ``nova-manage cell create`` puts its own
    broker before the one that it is told, when [DEFAULT] transport_url is set, under the virtual host
    of the other: then those hosts have the login of the one, and the rest that of the other.
    """
    shared = [host for host in url.hosts if url.address(host) in other.addresses]
    own, rest = {_login(host) for host in shared}, {_login(host) for host in url.hosts if host not in shared}
    prepended = rest and not own & rest and own <= {_login(host) for host in other.hosts}
    return tuple(map(url.address, shared)) if url.vhost == other.vhost or prepended else ()


def _login(host: BrokerHost) -> tuple[str | None, Secret | None]:
    return host.username, host.password


def _seen(rows: Sequence[CellRow]) -> list[CellRow]:
    """Return the rows that are not deleted, those that Nova does not see among them."""
    return [row for row in rows if not row.deleted]


def _no_row(where: Cell, of: Cell, *, half: bool) -> str:
    above = where.role is Role.PARENT
    broken = f"requests do not reach {of.name}" if above else f"{where.name} cannot answer it"
    child = of.name if above else where.name
    said = f"{child} is half registered, and " if half else ""
    return f"{where.name} has no row for {of.name}: {said}{broken} (cellsync cells create {child})"
