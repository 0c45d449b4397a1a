"""What a trace looks at, gathered all at once, each for a bounded time; nothing is judged here."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cellsync import broker as brokers
from cellsync import db, diff, journal
from cellsync.errors import CellsyncError
from cellsync.model import (
    Broker,
    BrokerProbe,
    Cell,
    CellRow,
    DatabaseProbe,
    HostStatus,
    Report,
)
from cellsync.plan.registering import RULE, find_check_interval
from cellsync.run.compare import compare
from cellsync.run.probing import ask_brokers, ask_databases, at_once
from cellsync.run.request import Request
from cellsync.run.vitals import Beats, beats


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is known of the parent, or of the child."""

    cell: Cell
    database: DatabaseProbe
    rows: tuple[CellRow, ...] | str
    """The register, or why it could not be read."""
    beats: Beats
    broker: Broker | None
    """As cellsync.yaml has it, else as the row of the other side has it."""
    probes: tuple[BrokerProbe, ...] = ()
    fresh: Mapping[int, float] = field(default_factory=dict)
    """Row of the register -> seconds since a run wrote it, where nova-cells may not have read it since."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a trace judges by."""

    parent: Side
    child: Side
    register: diff.Register
    """The tables of cells of the two."""
    used: Mapping[str, tuple[BrokerProbe, ...]]
    """transport_url of a row -> what its hosts answer: it may lead elsewhere than cellsync.yaml says."""
    others: Mapping[str, tuple[BrokerProbe, ...] | str] = field(default_factory=dict)
    """Each other child in the parent's table -> what its broker answers, or why its row cannot be used."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Name and address of a service -> what is wrong with its answer, "" for nothing."""
    report: Report | None = None
    """The comparison of the child's rows and schema; None where a database does not answer."""
    failure: str = ""
    """Why there is no comparison."""


def gather(request: Request, child: Cell, *, timeout: float) -> Evidence:
    """Ask both databases, all brokers, and the services that answer HTTP; then compare the rows."""
    parent = request.topology.parent
    request.progress("asking databases")
    answers = ask_databases([parent, child], timeouts=request.timeouts, clock=time.monotonic, timeout=timeout)
    tables = {name: rows for name, (_, rows) in answers.items()}
    up = [cell for cell in (parent, child) if answers[cell.name][0].status is HostStatus.OK]
    releases = {name: probe.release for name, (probe, _) in answers.items()}
    register = diff.Register(replace(request.topology, children=(child,)), tables, releases)
    known = register.brokers
    urls = {**_urls(register, parent, child), **{str(broker): broker for broker in known.values()}}
    others = _others(register, parent, child)
    elsewhere = {str(broker): broker for broker in others.values() if isinstance(broker, Broker)}
    request.progress("asking brokers and services")
    used = ask_brokers({**elsewhere, **urls}, timeout=timeout, queues=brokers.NOVA_CELLS)
    alive = beats(request, up, timeout=timeout)
    services = at_once(
        {
            f"{name} at {url}": _http(url, timeout)
            for cell in (parent, child)
            for name, url in cell.endpoints.items()
        },
        timeout=timeout,
    )
    fresh = at_once({cell.name: _find_fresh(request, cell) for cell in up}, timeout=timeout)
    report, failure = _compare(request, child) if len(up) == 2 else (None, "a database does not answer")

    def side(cell: Cell) -> Side:
        broker = known.get(cell.name)
        return Side(
            cell=cell,
            database=answers[cell.name][0],
            rows=tables[cell.name],
            beats=alive.get(cell.name, ()),
            broker=broker,
            probes=used[str(broker)] if broker else (),
            fresh=fresh.get(cell.name) or {},
        )

    return Evidence(
        parent=side(parent),
        child=side(child),
        register=register,
        used=used,
        others={
            name: broker if isinstance(broker, str) else used[str(broker)] for name, broker in others.items()
        },
        services={
            name: f"no answer within {timeout:g} s" if wrong is None else wrong
            for name, wrong in services.items()
        },
        report=report,
        failure=failure,
    )


def _urls(register: diff.Register, parent: Cell, child: Cell) -> dict[str, Broker]:
    """Return the brokers to which the live rows of the two for each other lead."""
    found = {}
    for where, other in ((parent, child), (child, parent)):
        for row in diff.live(register.rows(where), other.name):
            try:
                broker = register.read_url(where.name, row.transport_url.reveal())
            except ValueError:
                continue  # the judgement of the row says so
            found[str(broker)] = broker
    return found


def _others(register: diff.Register, parent: Cell, child: Cell) -> dict[str, Broker | str]:
    """Return the broker of every other live child of the parent's table, or why its row cannot be used.

    By the rows, and not by cellsync.yaml: nova-cells waits for a child that only its table has, too.
    """
    found: dict[str, Broker | str] = {}
    for row in register.rows(parent):
        if row.live and not row.is_parent and row.name != child.name:
            try:
                found[row.name] = register.read_url(parent.name, row.transport_url.reveal())
            except ValueError as error:
                found[row.name] = f"transport_url {error}"
    return found


def _find_fresh(request: Request, cell: Cell) -> Callable[[], dict[int, float]]:
    """Return a task that asks the journal which rows of the register were written a moment ago."""
    now = request.clock()
    since = now - timedelta(seconds=find_check_interval(cell.nova))

    def ask() -> dict[int, float]:
        try:
            with db.connect(cell, request.timeouts) as database:
                schema = database.identity().schema
                found = journal.find_last_written(database, RULE, database=schema, since=since)
        except CellsyncError:
            return {}  # the row is judged by what it says
        moments = {row[0]: datetime.fromisoformat(made.replace("Z", "+00:00")) for row, made in found.items()}
        return {row: (now - made).total_seconds() for row, made in moments.items() if isinstance(row, int)}

    return ask


def _http(url: str, timeout: float) -> Callable[[], str]:
    # The services are in the house: a proxy of the environment would answer for them.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask() -> str:
        try:
            with opener.open(url, timeout=timeout):
                return ""
        except urllib.error.HTTPError as answer:
            # 300 Multiple Choices and 401 Unauthorized are how OpenStack's services say that they live.
            return "" if answer.code < 500 else f"it answers {answer.code} {answer.reason}"
        except (OSError, ValueError) as error:
            return f"it does not answer: {getattr(error, 'reason', error)}"

    return ask


def _compare(request: Request, child: Cell) -> tuple[Report | None, str]:
    try:
        asked = replace(request, cells=(child.name,), run=replace(request.run, verb="diff"))
        return compare(asked).report, ""
    except CellsyncError as error:
        return None, str(error)
