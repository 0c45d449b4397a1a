"""`trace`: walk the path of a request from the parent to a child and back, and judge every hop.

A request goes nova-api, nova-cells, the child's broker, the child's nova-cells, its compute API; the
answer comes back over the parent's broker, to which the child's own row leads. Each hop is judged by
itself from what ``evidence`` gathered: one function a hop, in the order of the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from cellsync import diff
from cellsync.db.heartbeats import Beat
from cellsync.errors import UsageError
from cellsync.model import (
    Action,
    Broker,
    BrokerProbe,
    CellFailure,
    Hanging,
    Heartbeats,
    Hop,
    HopStatus,
    HostStatus,
    Kind,
    Role,
    TableDiff,
    TableFailure,
    TableResult,
    Trace,
    answered_queues,
    masked,
    unattended,
)
from cellsync.plan.registering import find_check_interval
from cellsync.run.evidence import Evidence, Side, gather
from cellsync.run.request import Request
from cellsync.run.vitals import alive

OWN = "cells"
"""The queue of a cell's own services; the others are those of other cells."""


def trace(request: Request, name: str, *, timeout: float) -> Trace:
    """Walk the path to a child. Reads only. Raises UsageError for a child that is not there."""
    child = next((cell for cell in request.topology.children if cell.name == name), None)
    if child is None:
        known = ", ".join(cell.name for cell in request.topology.children)
        raise UsageError(f"there is no child {name!r}: the children are {known}")
    found = gather(request, child, timeout=timeout)
    hops = tuple(_hop(judge, hop, found) for hop, judge in HOPS.items())
    return Trace(child=name, hops=hops, hanging=tuple(_find_hanging(found)))


Judgement = tuple[HopStatus, str, str]
"""Status, evidence, advice."""


def _hop(judge: Callable[[Evidence], Judgement], hop: str, found: Evidence) -> Hop:
    status, evidence, advice = judge(found)
    return Hop(hop=hop, status=status, evidence=evidence, advice=advice)


def _ok(evidence: str) -> Judgement:
    return HopStatus.OK, evidence, ""


def _broken(evidence: str, advice: str) -> Judgement:
    return HopStatus.BROKEN, evidence, advice


def _unknown(evidence: str) -> Judgement:
    return HopStatus.UNKNOWN, f"cannot be checked: {evidence}", ""


# -- Databases -----------------------------------------------------------------------------------


def _parent_database(found: Evidence) -> Judgement:
    return _database(found.parent)


def _child_database(found: Evidence) -> Judgement:
    return _database(found.child)


def _database(side: Side) -> Judgement:
    probe = side.database
    if probe.status is HostStatus.OK:
        return _ok(f"{side.cell.database.shown} answers in {_ms(probe.latency)} ({probe.server})")
    advice = {
        HostStatus.REFUSED: "start MariaDB there, or mend the address in cellsync.yaml",
        HostStatus.AUTH: "mend the user or the password in cellsync.yaml, or GRANT it what it needs",
        HostStatus.SCHEMA: "mend the schema's name in cellsync.yaml, or GRANT the user access to it",
        HostStatus.TIMEOUT: "look at the server and at the network between",
    }
    services = "nothing of this cell's services works without it"
    return _broken(probe.error, f"{advice.get(probe.status, 'look at the server')}: {services}")


# -- Services ------------------------------------------------------------------------------------


def _parent_services(found: Evidence) -> Judgement:
    down = [f"{name}: {wrong}" for name, wrong in found.services.items() if wrong]
    up = [name.partition(" at ")[0] for name, wrong in found.services.items() if not wrong]
    status, evidence, advice = _services(found.parent, Role.PARENT)
    if down and status is not HopStatus.BROKEN:
        where = "; ".join(down)
        return _broken(where, "start the service, or mend its address (endpoints in cellsync.yaml)")
    answers = f"; {', '.join(up)} answer HTTP" if up else ""
    # A broker that only the child's row names is judged with that row.
    probes = found.parent.probes if found.parent.cell.broker else ()
    dead, consumers = _dead(probes), _consumers(probes, [OWN])
    if dead and status is not HopStatus.BROKEN:
        return _broken(f"the broker of {found.parent.cell.name}: {dead}", "start it, or mend what it says")
    if consumers and status is not HopStatus.BROKEN:
        text = f"{consumers} on the broker of {found.parent.cell.name}, though its heartbeat is there"
        return _broken(
            text, f"restart nova-cells of {found.parent.cell.name}: nova-api's requests wait there"
        )
    return status, f"{evidence}{answers}", advice


def _child_services(found: Evidence) -> Judgement:
    return _services(found.child, Role.CHILD)


def _services(side: Side, role: Role) -> Judgement:
    """Judge the heartbeats of one cell: broken where none of a needed service is alive."""
    if side.database.status is not HostStatus.OK:
        return _unknown(f"the database of {side.cell.name} does not answer")
    if not side.beats:
        return _unknown("the rules in use name no services (the pack nova-cells-v1 does)")
    unread = [beats for _, beats in side.beats if isinstance(beats, str)]
    if unread:
        return _unknown("; ".join(unread))
    broken: list[tuple[str, str]] = []
    warned: list[tuple[str, str]] = []
    lively: list[str] = []
    unheard: list[str] = []
    broker_down = bool(_dead(side.probes))
    for source, beats in side.beats:
        for service, lost in source.needed[role].items():
            assert not isinstance(beats, str)
            wrong, sound = _life(service, beats, source)
            if wrong is None:
                lively.append(sound)
                continue
            if broker_down and service in source.through_broker:
                unheard.append(wrong)
                continue
            place = warned if service in source.optional or sound else broken
            place.append((wrong, "" if sound else lost))
    if broken:
        return _broken("; ".join(wrong for wrong, _ in broken), f"start it: without it {broken[0][1]}")
    if unheard:
        said = "; ".join([*unheard, *(wrong for wrong, _ in warned)])
        return HopStatus.WARN, said, "mend the broker first: this would be heard through it, and may be alive"
    if warned:
        said = "; ".join(wrong for wrong, _ in warned)
        lost = next((lost for _, lost in warned if lost), "")
        return HopStatus.WARN, said, f"without it {lost}" if lost else "its host is down, or was taken away"
    return _ok("alive: " + "; ".join(lively))


def _life(service: str, beats: Sequence[Beat], source: Heartbeats) -> tuple[str | None, str]:
    """Return what is wrong with a service, or None; and what of it is alive, "" for nothing."""
    of = [beat for beat in beats if fnmatchcase(beat.name, service)]
    most = source.stale.total_seconds()
    up = [beat for beat in of if alive(beat, source)]
    stale = [beat for beat in of if beat not in up]
    sound = f"{service} on {_hosts(up)}" if up else ""
    if not of:
        return f"no {service} has ever been seen in {source.table}", sound
    if stale:
        last = f"{_named(stale[0])} last seen {_age(stale[0].age)} (more than {most:g} s)"
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        rest = f"; alive: {len(up)} of {len(of)}" if up else ""
        return f"{last}{more}{rest}", sound
    return None, sound


def _named(beat: Beat) -> str:
    return f"{beat.name} on {beat.host}"


def _hosts(beats: Sequence[Beat]) -> str:
    ages = [beat.age or 0 for beat in beats]
    span = f"seen {min(ages)} s ago" if min(ages) == max(ages) else f"seen {min(ages)} to {max(ages)} s ago"
    return f"{beats[0].host} ({span})" if len(beats) == 1 else f"{len(beats)} hosts ({span})"


def _age(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7200 else f"{seconds // 3600} h ago"


# -- Rows ----------------------------------------------------------------------------------------


def _child_row(found: Evidence) -> Judgement:
    return _row(found, found.parent, found.child)


def _parent_row(found: Evidence) -> Judgement:
    status, evidence, advice = _row(found, found.child, found.parent)
    url = _url(found, found.child, found.parent)
    if status is not HopStatus.OK or url is None:
        return status, evidence, advice
    # Nobody else asks the broker that answers go to: the next hops are the child's own.
    dead = _dead(found.used.get(str(url), ()))
    if dead:
        return _broken(
            f"{evidence}; {dead}", f"start the broker of {found.parent.cell.name}: answers go there"
        )
    silent = _consumers(found.used.get(str(url), ()), None)
    if silent:
        return _broken(
            f"{evidence}; {silent}",
            f"nova-cells of {found.parent.cell.name} takes no answers there: restart it, or mend the row",
        )
    return status, evidence, advice


def _row(found: Evidence, where: Side, other: Side) -> Judgement:
    """Judge the row through which one cell reaches the other."""
    name, cell = other.cell.name, where.cell.name
    if isinstance(where.rows, str):
        return _unknown(where.rows)
    nova = where.cell.nova
    if nova is not None and nova.cells_config:
        return _unknown(f"nova-cells of {cell} reads {nova.cells_config} instead of the table cells")
    rows = diff.live(where.rows, name)
    if not rows:
        return _no_row(where, other)
    row = rows[0]
    wrong = found.register.mismatches(where.cell, row)
    shown = f"{cell} reaches {name} at {masked(row.transport_url.reveal())} (row {row.id} of cells)"
    if wrong:
        above = where.cell.role is Role.PARENT
        asked = f"{name if above else cell} --side {'parent' if above else 'child'}"
        advice = f"cellsync cells delete {asked}, then cellsync cells create {asked}"
        return _broken(f"{shown}: {'; '.join(wrong)}", advice)
    age = where.fresh.get(row.id)
    if age is not None:
        interval = find_check_interval(nova)
        unread = f"it was written {age:.0f} s ago, and nova-cells of {cell} may not have read it yet"
        return HopStatus.WARN, f"{shown}; {unread}", f"wait: it reads its table every {interval} s"
    return _ok(shown)


def _no_row(where: Side, other: Side) -> Judgement:
    name, cell = other.cell.name, where.cell.name
    rows = () if isinstance(where.rows, str) else where.rows
    close = [row.name for row in rows if row.live and row.name.casefold() == name.casefold()]
    if close:
        return _broken(f"{cell} has a row for {close[0]}, which is not {name} to Nova", "mend the name")
    last = diff.last_removed(rows, name)
    if where.cell.role is Role.PARENT and last is not None:
        return _broken(
            f"{name} is isolated: its row (id {last.id}) was deleted at {last.deleted_at} UTC",
            f"cellsync cells restore {name}, when its broker is sound",
        )
    child = name if where.cell.role is Role.PARENT else cell
    side = "parent" if where.cell.role is Role.PARENT else "child"
    return _broken(
        f"{cell} has no row for {name} in its table cells",
        f"cellsync cells create {child} --side {side}; then nova-cells of {cell} sees it within "
        f"{find_check_interval(where.cell.nova)} s",
    )


# -- Brokers -------------------------------------------------------------------------------------


def _child_broker(found: Evidence) -> Judgement:
    broker = _url(found, found.parent, found.child) or found.child.broker
    name = found.child.cell.name
    if broker is None:
        return _unknown(
            f"neither the parent's table cells nor cellsync.yaml says where the broker of {name} is"
        )
    probes = found.used.get(str(broker), ())
    dead = _dead(probes)
    if dead:
        if _url(found, found.parent, found.child) is None:
            return _broken(dead, "mend the broker; the parent does not send to it now")
        return _broken(
            dead, f"cellsync cells isolate {name} now, for the parent hangs with it; then mend the broker"
        )
    silent = _consumers(probes, None)
    if silent:
        return _broken(silent, f"restart nova-cells of {name}: its broker works, and nobody listens there")
    down = "; ".join(f"{each.host}: {each.error}" for each in probes if each.status is not HostStatus.OK)
    sound = ", ".join(f"{each.host} answers in {_ms(each.latency)}" for each in probes if not each.error)
    taken = _depth(probes)
    if down:
        return HopStatus.WARN, f"{sound}; {down}", "clients that try this host first wait for it"
    return _ok(f"{sound}{taken}")


def _find_hanging(found: Evidence) -> Iterator[Hanging]:
    """Yield the other children that hold the parent up, whatever becomes of this one."""
    for name, probes in found.others.items():
        advice = f"cellsync cells isolate {name} now, for the parent hangs with it; then "
        if isinstance(probes, str):
            yield Hanging(cell=name, evidence=probes, advice=f"{advice}mend its row")
        elif dead := _dead(probes):
            yield Hanging(cell=name, evidence=dead, advice=f"{advice}mend its broker")
        elif silent := _consumers(probes, None):
            yield Hanging(cell=name, evidence=silent, advice=f"{advice}start its nova-cells")


def _url(found: Evidence, where: Side, other: Side) -> Broker | None:
    """Return the broker to which the live row of one cell for the other leads."""
    rows = () if isinstance(where.rows, str) else diff.live(where.rows, other.cell.name)
    try:
        return found.register.read_url(where.cell.name, rows[0].transport_url.reveal()) if rows else None
    except ValueError:
        return None


def _dead(probes: Sequence[BrokerProbe]) -> str:
    """Return how the hosts of a broker fail, where all of them do."""
    if not probes or any(probe.status is HostStatus.OK for probe in probes):
        return ""
    return "; ".join(f"{probe.host}: {probe.status.value}: {probe.error}" for probe in probes)


def _consumers(probes: Sequence[BrokerProbe], names: Sequence[str] | None) -> str:
    """Say from which of nova-cells' queues nobody takes messages; by default from those of other cells."""
    silent = [
        queue
        for queue in unattended(answered_queues(probes))
        if (queue.name in names if names is not None else queue.name != OWN)
    ]
    if not silent:
        return ""
    waiting = sum(queue.messages or 0 for queue in silent)
    wait = f" ({waiting} messages wait)" if waiting else ""
    return f"nobody takes messages from {', '.join(queue.name for queue in silent)}{wait}"


def _depth(probes: Sequence[BrokerProbe]) -> str:
    queues = answered_queues(probes)
    waiting = sum(queue.messages or 0 for queue in queues)
    return f"; nova-cells takes messages ({waiting} wait)" if queues else ""


# -- What the databases hold ---------------------------------------------------------------------


def _schema(found: Evidence) -> Judgement:
    if found.report is None:
        return _unknown(found.failure)
    cell = found.report.cells[0]
    if isinstance(cell, CellFailure):
        return _broken(cell.error, "upgrade the cells in step: nova-manage db sync")
    stopped = [table for table in cell.tables if isinstance(table, TableFailure)]
    if stopped:
        said = "; ".join(f"{table.rule}: {table.error}" for table in stopped)
        return _broken(said, f"cellsync schema {cell.cell} shows what differs")
    return _ok(f"the tables of {_count_rules([each for each in cell.tables if not each.detector])} are alike")


def _count_rules(tables: Sequence[TableResult]) -> str:
    """Return how many rules and detectors there are, counted apart as ``diff`` does."""
    detectors = sum(table.detector for table in tables)
    number = len(tables) - detectors
    rules = f"{number} rule{'' if number == 1 else 's'}"
    return f"{rules} and {detectors} detector{'' if detectors == 1 else 's'}" if detectors else rules


def _rows(found: Evidence) -> Judgement:
    if found.report is None:
        return _unknown(found.failure)
    cell = found.report.cells[0]
    if isinstance(cell, CellFailure):
        return _unknown(cell.error)
    tables = [table for table in cell.tables if isinstance(table, TableDiff)]
    lacking = {table.rule: _count(table, extra=False) for table in tables}
    out = {rule: number for rule, number in lacking.items() if number}
    if out:
        said = ", ".join(f"{number} in {rule}" for rule, number in out.items())
        advice = f"cellsync diff {cell.cell} says what it breaks, cellsync repair {cell.cell} mends it"
        return _broken(f"rows are out of step: {said}", advice)
    extra = sum(_count(table, extra=True) for table in tables)
    if extra:
        return (
            HopStatus.WARN,
            f"{extra} rows are only in {cell.cell}",
            f"cellsync diff {cell.cell} shows them",
        )
    rows = sum(table.desired_rows for table in tables)
    return _ok(f"{rows} rows of {_count_rules(tables)} are in step")


def _count(table: TableDiff, *, extra: bool) -> int:
    """Return how many differences count: rows that are only in the child, or all others."""
    return sum(
        number
        for sort, number in table.tally.items()
        if sort.action is not Action.IGNORE and not sort.accepted and (sort.kind is Kind.EXTRA) is extra
    )


def _ms(seconds: float | None) -> str:
    return f"{(seconds or 0) * 1000:.0f} ms"


HOPS: dict[str, Callable[[Evidence], Judgement]] = {
    "parent-database": _parent_database,
    "parent-services": _parent_services,
    "child-row": _child_row,
    "child-broker": _child_broker,
    "child-services": _child_services,
    "parent-row": _parent_row,
    "child-database": _child_database,
    "schema": _schema,
    "rows": _rows,
}
"""The hops in the order of the path; their names are a contract (DESIGN section 8)."""
