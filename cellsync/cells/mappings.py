"""The children that ``cell_mappings`` of nova_api lists: their names, and their URLs as Nova completes them.

A mapping that leads nowhere is a child all the same, with the reason in ``Endpoint.fault``: left out, it
would look as if nothing were wrong with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

from cellsync.cells import endpoints
from cellsync.cells.names import fault_of_name
from cellsync.errors import UsageError
from cellsync.model import Budget, Cell, CellMapping, Endpoint, Mapped, Role, Secret, Topology

CELL0 = "00000000-0000-0000-0000-000000000000"
"""The uuid of the cell of instances that were never scheduled; it has no broker and no hosts."""

_NO_BROKER = ("", "none", "fake")
_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)\}")
_URL = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<netloc>[^/?#]*))?"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?"
)
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]*))?")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f]")


def children(topology: Topology, rows: Sequence[CellMapping]) -> Topology:
    """Return the topology with a child for every enabled mapping, in the order of the rows.

    A child is named as its mapping; one whose name is empty, given twice, the parent's, or not a
    name that a cell may have, is named by its uuid. Raises UsageError where no child is left.
    """
    mapped = topology.mapped or Mapped()
    enabled = [row for row in rows if not row.disabled]
    if not enabled:
        raise UsageError(
            f"{topology.parent.name} lists no enabled cell in cell_mappings: "
            "nova-manage cell_v2 map_cell0 and create_cell make them"
        )
    names = _names(topology.parent.name, rows)
    made = [_child(row, names[row.uuid], mapped, topology.budget) for row in enabled]
    notes = [
        f"{names[row.uuid]} ({row.uuid}) is disabled in cell_mappings of {topology.parent.name}: not compared"
        for row in rows
        if row.disabled
    ]
    return replace(topology, children=_told_apart(topology.parent, made), left_out=tuple(notes))


def _names(parent: str, rows: Sequence[CellMapping]) -> dict[str, str]:
    """Return uuid -> what the cell is called."""
    used = Counter([parent.casefold(), *(row.name.casefold() for row in rows)])
    good = {row.uuid for row in rows if used[row.name.casefold()] == 1 and fault_of_name(row.name) is None}
    return {row.uuid: row.name if row.uuid in good else row.uuid for row in rows}


def _child(row: CellMapping, name: str, mapped: Mapped, budget: Budget) -> Cell:
    database, broker = _database(row, mapped), _broker(row, mapped)
    return Cell(name=name, role=Role.CHILD, database=database, broker=broker, budget=budget)


def _told_apart(parent: Cell, made: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return the children; one whose database is another cell's too has a fault instead."""
    first = {endpoints.location(parent.database): parent.name}
    told = []
    for cell in made:
        if cell.database.fault:
            told.append(cell)
            continue
        owner = first.setdefault(endpoints.location(cell.database), cell.name)
        fault = "" if owner == cell.name else f"{cell.database.shown} is the database of {owner} too"
        told.append(replace(cell, database=replace(cell.database, fault=fault)))
    return tuple(told)


def _database(row: CellMapping, mapped: Mapped) -> Endpoint:
    raw = row.database_connection
    try:
        text = _filled(raw.reveal(), mapped.database, "database")
        found = endpoints.database(text, {}, base=Path())
        return endpoints.logged_in(found, mapped.username, mapped.password)
    except UsageError as error:
        fault = f"database_connection of the mapping {row.uuid}: {error}"
        return Endpoint(url=raw, shown="what is no URL", fault=fault)


def _broker(row: CellMapping, mapped: Mapped) -> Endpoint | None:
    """Return the broker; None for a cell that has none, as cell0 (``none:///``)."""
    raw = row.transport_url
    try:
        text = _filled(raw.reveal(), mapped.broker, "broker")
        return None if text.partition(":")[0] in _NO_BROKER else endpoints.broker_endpoint(text)
    except UsageError as error:
        fault = f"transport_url of the mapping {row.uuid}: {error}"
        return Endpoint(url=raw, shown="what is no URL", fault=fault)


# -- Templates: nova/objects/cell_mapping.py, CellMapping._format_url ------------------------------


def _filled(text: str, given: Secret | None, key: str) -> str:
    """Return a URL with its templates filled from the parts of another one, as Nova fills them.

    Nova leaves a text that is no template of its fields as it is, and so does this.
    Raises UsageError where a part is asked for that is not there.
    """
    asked = {match[1] for match in _FIELD.finditer(text) if match[1] is not None}
    if given is None:
        if not asked:
            return text
        raise UsageError(f"it is a template: say under children what fills it ({key}, or nova_conf)")
    parts = _parts(given.reveal(), key)
    if not asked <= parts.keys():
        return text
    missing = sorted(name for name in asked if parts[name] is None)
    if missing:
        raise UsageError(f"it asks for {{{missing[0]}}}, which the {key} under children does not have")
    return _FIELD.sub(lambda match: match[0][0] if match[1] is None else str(parts[match[1]]), text)


def _parts(url: str, key: str) -> Mapping[str, str | int | None]:
    """Return field -> its value; of a URL with several hosts ``username1``, ``hostname2``, too.

    ``urlsplit`` is not asked: which brackets it takes depends on the Python, and so would what a child is.
    """
    match = _URL.fullmatch(url)
    try:
        if match is None or _UNPRINTABLE.search(url):
            raise ValueError("it has control characters")
        netloc = match["netloc"] or ""
        if ("[" in netloc) != ("]" in netloc):
            raise ValueError("it has half a pair of brackets")
        parts: dict[str, str | int | None] = {
            "scheme": (match["scheme"] or "").lower(),
            "path": match["path"].lstrip("/"),
            "query": match["query"] or "",
            "fragment": match["fragment"] or "",
        }
        hosts = netloc.split(",")
        if len(hosts) == 1:
            return {**parts, **_login(netloc)}
        # Nova takes the numbered fields then.
        for number, host in enumerate(hosts, start=1):
            parts.update({f"{name}{number}": value for name, value in _login(host).items()})
    except ValueError:
        raise UsageError(f"the {key} under children, from which it is filled, is no URL") from None
    return parts


def _login(netloc: str) -> dict[str, str | int | None]:
    """Return the parts of USER:PASSWORD@HOST:PORT, None for what is not there.

    Raises ValueError where HOST is neither a name nor an IPv6 address in brackets, or PORT no port.
    """
    user, at, address = netloc.rpartition("@")
    username, colon, password = user.partition(":")
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError("a host is neither a name nor an address in brackets")
    if match["ipv6"] is not None:
        IPv6Address(match["ipv6"])
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > 65535:
        raise ValueError("a port is too high")
    return {
        "username": username if at else None,
        "password": password if colon else None,
        "hostname": (match["ipv6"] or match["name"]).lower() or None,
        "port": port,
    }
