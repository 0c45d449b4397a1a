"""What is wrong with Nova's register of cells: rows against the topology and against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cellsync.model import (
    Broker,
    BrokerHost,
    Cell,
    CellRow,
    Listed,
    Registered,
    Role,
    Secret,
    Topology,
    masked,
)

Tables = Mapping[str, Sequence[CellRow] | str]
"""Cell -> the rows of its table, or why they could not be read."""


def registered(topology: Topology, tables: Tables) -> Registered:
    """Return the live rows of all cells, each with what is wrong with it, and what is not there."""
    parent = topology.parent
    above = _rows(tables, parent.name)
    known = brokers(topology, tables)
    children = {child.name for child in topology.children}
    rows = [
        _listed(row, parent, known, expected=children, topology=topology, twins=above) for row in _seen(above)
    ]
    isolated, missing = [], []
    for child in topology.children:
        own = _rows(tables, child.name)
        rows += [
            _listed(row, child, known, expected={parent.name}, topology=topology, twins=own)
            for row in _seen(own)
        ]
        if child.name in tables and not isinstance(tables[child.name], str):
            missing += [] if _live(own, parent.name) else [_no_row(child, parent)]
        if isinstance(tables.get(parent.name), str) or _live(above, child.name):
            continue
        last = last_removed(above, child.name)
        if last is None:
            missing.append(_no_row(parent, child))
        else:
            isolated.append(Listed(cell=parent.name, row=last, broker=masked(last.transport_url.reveal())))
    failures = {name: found for name, found in tables.items() if isinstance(found, str)}
    return Registered(rows=tuple(rows), isolated=tuple(isolated), missing=tuple(missing), failures=failures)


def last_removed(rows: Sequence[CellRow], name: str) -> CellRow | None:
    """Return the row of a child that was soft-deleted last, or None."""
    gone = [row for row in rows if row.deleted and row.name == name and not row.is_parent]
    return max(gone, key=lambda row: (row.deleted_at or "", row.id), default=None)


def is_isolated(rows: Sequence[CellRow], name: str) -> bool:
    """Say whether a child was taken out of the parent's table, and not put back."""
    return not _live(rows, name) and last_removed(rows, name) is not None


def brokers(topology: Topology, tables: Tables) -> dict[str, Broker]:
    """Return each cell's broker: as cellsync.yaml has it, else as its neighbour's row has it.

    A child's is in the parent's row (in the last one, where it is isolated), the parent's in the rows
    of its children.
    """
    found: dict[str, Broker] = {}
    above = _rows(tables, topology.parent.name)
    below = [
        row
        for child in topology.children
        for row in _rows(tables, child.name)
        if row.live and row.is_parent and row.name == topology.parent.name
    ]
    _note(found, topology.parent, below)
    for child in topology.children:
        last = last_removed(above, child.name)
        _note(found, child, [*_live(above, child.name), *([last] if last else [])])
    return found


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


def _note(found: dict[str, Broker], cell: Cell, rows: Sequence[CellRow]) -> None:
    texts = [cell.broker.url.reveal()] if cell.broker else [row.transport_url.reveal() for row in rows]
    for text in texts:
        try:
            found[cell.name] = Broker.parse(text)
        except ValueError:
            continue  # the row is listed with what is wrong with it
        return


def _rows(tables: Tables, name: str) -> Sequence[CellRow]:
    found = tables.get(name, ())
    return () if isinstance(found, str) else found


def _seen(rows: Sequence[CellRow]) -> list[CellRow]:
    """Return the rows that are not deleted, those that Nova does not see among them."""
    return [row for row in rows if not row.deleted]


def _live(rows: Sequence[CellRow], name: str) -> list[CellRow]:
    return [row for row in rows if row.live and row.name == name]


def _no_row(where: Cell, of: Cell) -> str:
    broken = (
        f"requests do not reach {of.name}" if where.role is Role.PARENT else f"{where.name} cannot answer it"
    )
    return f"{where.name} has no row for {of.name}: {broken} (cellsync cells create)"


def _listed(
    row: CellRow,
    cell: Cell,
    known: Mapping[str, Broker],
    *,
    expected: set[str],
    topology: Topology,
    twins: Sequence[CellRow],
) -> Listed:
    wrong = [*_names(row, cell, expected, topology, twins), *_urls(row, cell, known, expected, topology)]
    return Listed(cell=cell.name, row=row, broker=masked(row.transport_url.reveal()), mismatches=tuple(wrong))


def _names(
    row: CellRow, cell: Cell, expected: set[str], topology: Topology, twins: Sequence[CellRow]
) -> Iterator[str]:
    if row.deleted is None:
        yield "deleted is NULL: Nova does not see the row"
    above = cell.role is Role.PARENT
    if row.name not in expected and (above or row.is_parent):
        close = next((name for name in expected if name.casefold() == row.name.casefold()), None)
        hint = f"; {close} is, which is another name to Nova" if close else ""
        names = "a child in cellsync.yaml" if above else "the name of the parent in cellsync.yaml"
        yield f"{row.name} is not {names}{hint}"
    if above and row.is_parent:
        yield "it is marked as a parent of the parent"
    other = topology.cell(row.name)
    if other and other.nova and other.nova.cell_name not in (None, row.name):
        yield f"{row.name} calls itself {other.nova.cell_name} ([cells] name in {other.nova.file})"
    number = Counter(each.name.casefold() for each in _seen(twins))[row.name.casefold()]
    if number > 1:
        yield f"{number} rows have this name"


def _urls(
    row: CellRow, cell: Cell, known: Mapping[str, Broker], expected: set[str], topology: Topology
) -> Iterator[str]:
    try:
        url = Broker.parse(row.transport_url.reveal())
    except ValueError as error:
        yield f"transport_url {error}"
        return
    if not url.hosts:
        yield "transport_url names no host"
    own = known.get(cell.name)
    if own is not None and row.name != cell.name and (same := foreign(url, own)):
        yield f"transport_url leads to the broker of {cell.name} itself: {', '.join(same)}"
    other = topology.cell(row.name)
    if other is not None and other.broker is not None:
        configured = known.get(row.name)
        if configured and (set(configured.addresses), configured.vhost) != (set(url.addresses), url.vhost):
            yield f"cellsync.yaml says that the broker of {row.name} is {other.broker.shown}"
