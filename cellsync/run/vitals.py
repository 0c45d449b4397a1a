"""What a cell's database says of itself: its schema's version, and which services are alive in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from cellsync import db
from cellsync.db.heartbeats import Beat, heartbeats
from cellsync.errors import CellsyncError
from cellsync.model import Cell, Heartbeats, Service, Vitals, shown
from cellsync.run.look import VERSION_TABLES
from cellsync.run.probing import at_once
from cellsync.run.request import Request

Beats = tuple[tuple[Heartbeats, "tuple[Beat, ...] | str"], ...]
"""Each table of heartbeats with what it says, or why it could not be read."""


def ask(request: Request, cells: Sequence[Cell], *, timeout: float) -> tuple[Vitals, ...]:
    """Ask the databases of cells that answer, all at once, each for a bounded time. Reads only."""
    read = beats(request, cells, timeout=timeout)
    tasks = {cell.name: _version_of(request, cell) for cell in cells}
    versions = at_once(tasks, timeout=timeout)
    return tuple(_vitals(cell, versions[cell.name], read.get(cell.name, ()), timeout) for cell in cells)


def mark_lost_with_broker(vitals: Vitals) -> Vitals:
    """Return the vitals of a cell whose broker is down: what is silent with it is not known to be dead."""
    services = (
        replace(each, lost_with_broker=each.through_broker and not each.alive) for each in vitals.services
    )
    return replace(vitals, services=tuple(services))


def beats(request: Request, cells: Sequence[Cell], *, timeout: float) -> dict[str, Beats]:
    """Read the heartbeats that the packs name for each cell's role; cell -> what they say."""
    sources = [source for pack in request.ruleset.packs for source in pack.services]
    tasks = {
        (cell.name, place): _beats_of(request, cell, source)
        for cell in cells
        for place, source in enumerate(sources)
        if source.needed.get(cell.role) and (source.database == "nova" or source.database in cell.databases)
    }
    late = f"no answer within {timeout:g} s"
    read: dict[str, Beats] = {}
    for (name, place), found in at_once(tasks, timeout=timeout).items():
        read[name] = (*read.get(name, ()), (sources[place], late if found is None else found))
    return read


def alive(beat: Beat, source: Heartbeats) -> bool:
    """Say whether a service has given a sign of life lately, by what its pack calls stale."""
    return beat.age is not None and beat.age <= source.stale.total_seconds()


def _beats_of(request: Request, cell: Cell, source: Heartbeats) -> Callable[[], tuple[Beat, ...] | str]:
    own = source.database == "nova"
    where = cell if own else replace(cell, database=cell.databases[source.database])

    def ask() -> tuple[Beat, ...] | str:
        try:
            with db.connect(where, request.timeouts) as database:
                return heartbeats(database, source)
        except CellsyncError as error:
            return str(error)

    return ask


def _version_of(request: Request, cell: Cell) -> Callable[[], tuple[str, str]]:
    """Return a task that reads the schema's version: it, and why it could not be read."""

    def ask() -> tuple[str, str]:
        try:
            with db.connect(cell, request.timeouts) as database:
                found = {table: database.version(table).value for table in VERSION_TABLES}
        except CellsyncError as error:
            return "", str(error)
        said = [f"{table} {shown(value)}" for table, value in found.items() if value is not None]
        return ", ".join(said), ""

    return ask


def _vitals(cell: Cell, version: tuple[str, str] | None, read: Beats, timeout: float) -> Vitals:
    said, error = version or ("", f"no answer within {timeout:g} s")
    unread = [found for _, found in read if isinstance(found, str)]
    services = [
        each
        for source, found in read
        if not isinstance(found, str)
        for each in _services(source.needed[cell.role], found, source)
    ]
    errors = dict.fromkeys(text for text in (error, *unread) if text)
    return Vitals(cell=cell.name, version=said, services=tuple(services), error="; ".join(errors))


def _services(needed: Mapping[str, str], found: Sequence[Beat], source: Heartbeats) -> Iterator[Service]:
    """Yield the services that a pack asks for, one that was never seen with an empty host."""
    for name, lost in needed.items():
        optional = name in source.optional
        mine = [beat for beat in found if fnmatchcase(beat.name, name)]
        for beat in mine or [Beat(name, "", None)]:
            yield Service(
                name=beat.name,
                host=beat.host,
                age=beat.age,
                alive=alive(beat, source),
                lost=lost,
                optional=optional,
                through_broker=name in source.through_broker,
            )
