"""Write Nova's register of cells: create, delete, isolate and restore, planned like any repair.

What these functions return goes to ``write``: locked, guarded, journaled, and undone by ``undo``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cellsync import db, diff, journal, plan
from cellsync.broker import NOVA_CELLS
from cellsync.errors import UsageError
from cellsync.model import (
    Broker,
    BrokerProbe,
    Cell,
    CellFailure,
    CellResult,
    CellRow,
    Change,
    DatabaseIdentity,
    Direction,
    Escaping,
    Health,
    HostStatus,
    NovaRelease,
    Plan,
    Refusal,
    Registered,
    Report,
    Role,
    Side,
    Status,
    Value,
    answered_queues,
    unattended,
)
from cellsync.plan import registering as plans
from cellsync.report import words
from cellsync.run.probing import ask_broker, ask_brokers
from cellsync.run.request import Edge, Prepared, Request, each_cell, executor, exit_code, with_plans


@dataclass(frozen=True, kw_only=True)
class Creation:
    """What ``cells create`` is asked: the child, and how to reach one of the two."""

    child: str
    side: Side = Side.BOTH
    describes: Side = Side.CHILD
    """Whose broker ``broker`` is."""
    broker: Broker | None = None
    """None: cellsync.yaml has it."""
    weight_offset: float = 0.0
    weight_scale: float = 1.0
    timeout: float = 3.0
    """How long each host of a broker that is registered may take, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What one database has, before anything is written."""

    cell: Cell
    identity: DatabaseIdentity
    health: Health
    rows: tuple[CellRow, ...]
    release: NovaRelease | None
    instances: Mapping[str, int]
    """Path of a cell -> its live instances, where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What is to be written in one database, or why not."""

    known: Known
    changes: tuple[Change, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Said where nothing is to be done."""


def create(request: Request, asked: Creation) -> Prepared:
    """Plan the rows that register a child: the parent's row for it, and its row for the parent.

    A side that has the row already, as it is wanted, is left as it is; both sides so, or one that has
    another row of the name, is refused, and so is a broker of which no host takes messages. Raises
    UsageError for what no row can hold.
    """
    plans.check_name(asked.child)
    child = _child(request, asked.child)
    parent = request.topology.parent
    plans.check_name(parent.name)
    sides = _sides(asked.side, parent, child)
    known, failures = look(request, [cell for cell, _ in sides])
    rows = {name: each.rows for name, each in known.items()}
    register = diff.Register(request.topology, rows, _releases(known))
    urls = _urls(request, asked, register)
    steps = []
    for cell, other in sides:
        if cell.name not in known:
            continue
        wanted = plans.Wanted(
            name=other.name,
            is_parent=other.role is Role.PARENT,
            transport_url=_written(register, cell, other, urls[other.name]),
            weight_offset=asked.weight_offset,
            weight_scale=asked.weight_scale,
        )
        plans.check_url(wanted.transport_url)
        made = plans.insert(known[cell.name].rows, wanted, cell.name)
        own = urls.get(cell.name)
        refusals = [
            *([made] if isinstance(made, Refusal) else []),
            *_wrong_side(request, cell, other, urls[other.name], own),
            *_by_file(cell),
        ]
        steps.append(
            _Step(
                known=known[cell.name],
                changes=(made,) if isinstance(made, Change) else (),
                refusals=tuple(refusals),
                notices=(plans.say_when_seen(cell),),
                notes=(f"{cell.name} has the row for {other.name} already, as it is wanted",),
            )
        )
    if not failures and not any(step.refusals for step in steps):
        by_other = {other.name: step for step, (_, other) in zip(steps, sides, strict=True)}
        steps = _ask_brokers(request, asked, by_other, urls)
    if steps and not failures and not any(step.changes or step.refusals for step in steps):
        there = " and ".join(step.known.cell.name for step in steps)
        refusal = Refusal(code="exists", rule="", message=f"{asked.child} is registered already in {there}")
        steps[0] = replace(steps[0], refusals=(refusal,))
    return _prepared(request, steps, failures, together=True, whole=True)


def _ask_brokers(
    request: Request, asked: Creation, steps: Mapping[str, _Step], urls: Mapping[str, Broker]
) -> list[_Step]:
    """Return the steps, those refused whose row would lead to a broker that takes no messages.

    ``steps`` are by the cell that the row is for.
    """
    if _waived(request, "broker"):
        return list(steps.values())
    asking = {name: urls[name] for name, step in steps.items() if step.changes}
    request.progress("asking brokers")
    found = ask_brokers(asking, timeout=asked.timeout, queues=NOVA_CELLS)
    made = []
    for name, step in steps.items():
        probes = found.get(name, ())
        dead = _dead_broker(request, name, probes) if name in found else []
        silent = unattended(answered_queues(probes))
        notice = f"start nova-cells of {name}: nobody takes messages at its broker yet, and requests hang"
        notices = (*step.notices, notice) if silent and not dead else step.notices
        made.append(replace(step, refusals=(*step.refusals, *dead), notices=notices))
    return made


def listed(request: Request) -> Registered:
    """Return the rows of all cells in scope, and what is wrong with them. Reads only."""
    topology = request.topology
    known, failures = look(request, [topology.parent, *topology.children])
    rows = {name: each.rows for name, each in known.items()}
    errors = {name: each.error for name, each in failures.items()}
    return diff.Register(topology, {**rows, **errors}, _releases(known)).summary()


def delete(request: Request, name: str, side: Side) -> Prepared:
    """Plan the soft delete of a child's row, by its name or its id in the parent, and of its own row.

    Raises UsageError when no row matches.
    """
    parent = request.topology.parent
    known, failures = look(request, [parent])
    rows = _chosen(known[parent.name].rows if parent.name in known else (), name)
    names = {row.name for row in rows} or {name}
    children = [cell for cell in request.topology.children if cell.name in names]
    if side is not Side.PARENT and children:
        below, failed = look(request, children)
        known, failures = {**known, **below}, {**failures, **failed}
    counted = {row.name: f"{parent.name}!{row.name}" for row in rows}
    steps = []
    if side is not Side.CHILD and parent.name in known:
        held = _instances(request, counted.values()) if rows else {}
        refusals = [
            refusal
            for child, path in counted.items()
            for refusal in _in_use(request, child, held.get(path, 0))
        ]
        steps.append(_removal(request, known[parent.name], rows, refusals))
    if side is not Side.PARENT:
        for cell in children:
            if cell.name in known:
                own = [row for row in known[cell.name].rows if row.live and row.name == parent.name]
                steps.append(_removal(request, known[cell.name], own, ()))
    if not failures and not any(step.changes or step.refusals for step in steps):
        raise UsageError(f"no live row matches {name}: `cellsync cells list` shows the rows")
    # A child whose database is gone is deleted in the parent alone; one that answers, in both or in none.
    return _prepared(request, steps, failures, together=True, all_or_none=not failures)


def isolate(request: Request, names: Sequence[str], *, most: str | None = None) -> Prepared:
    """Plan to take children out of the parent's table, so that nova-cells stops sending to them.

    Raises UsageError for a child that the parent has no row of, and never had.
    """
    parent = request.topology.parent
    known, failures = look(request, [parent])
    if parent.name not in known:
        return _prepared(request, [], failures)
    held = known[parent.name]
    rows: list[CellRow] = []
    out: list[str] = []
    for name in dict.fromkeys(names):
        live = [row for row in held.rows if row.live and row.name == name and not row.is_parent]
        if not live and not diff.is_isolated(held.rows, name):
            raise UsageError(f"{parent.name} has no row for {name}: `cellsync cells list` shows the rows")
        rows += live
        out += [] if live else [name]
    step = _removal(request, held, rows, _too_many(request, held, rows, most) if rows else ())
    notices = (
        *step.notices,
        f"restart nova-cells of {parent.name} if it hangs: what waits for a dead broker goes on waiting",
        f"cellsync cells restore {' '.join(row.name for row in rows)} brings the same rows back",
    )
    notes = tuple(f"{name} is isolated already" for name in out)
    return _prepared(request, [replace(step, notices=notices, notes=notes)], failures)


def restore(request: Request, names: Sequence[str], *, timeout: float) -> Prepared:
    """Plan to bring the rows of isolated children back, as they were.

    From the soft-deleted row, or, where that was archived, from the journal. Refuses while no host of
    the broker takes messages, and while nobody takes them from it. Raises UsageError for a child that has
    no row to be brought back.
    """
    parent = request.topology.parent
    known, failures = look(request, [parent])
    if parent.name not in known:
        return _prepared(request, [], failures)
    held = known[parent.name]
    changes: list[Change] = []
    refusals: list[Refusal] = list(_by_file(parent))
    notes: list[str] = []
    for name in dict.fromkeys(names):
        if any(not row.deleted and row.name == name for row in held.rows):
            notes.append(f"{name} is not isolated: {parent.name} has a live row for it")
            continue
        change, url = _back(request, held, name)
        changes.append(change)
        refusals += _still_dead(request, held, name, url, timeout)
    step = _Step(
        known=held,
        changes=tuple(changes),
        refusals=tuple(refusals),
        notices=(
            f"nova-cells of {parent.name} reads its table every {plans.find_check_interval(parent.nova)} s "
            f"(db_check_interval): until then requests to what comes back fail, and cellsync trace is early",
        ),
        notes=tuple(notes),
    )
    return _prepared(request, [step], failures)


# -- Looking -------------------------------------------------------------------------------------


def look(request: Request, cells: Sequence[Cell]) -> tuple[dict[str, Known], dict[str, CellFailure]]:
    """Read the register of some cells, all at once; a failure stays with its cell."""

    def task(cell: Cell) -> Known:
        with db.connect(cell, request.timeouts) as database:
            return Known(
                cell=cell,
                identity=database.identity(),
                health=database.health(),
                rows=db.whole_register(database),
                release=db.read_release(database),
                instances={},
            )

    with executor(request.jobs) as pool:
        results = each_cell(pool, task, cells)
    failures = {name: each for name, each in results.items() if isinstance(each, CellFailure)}
    return {name: each for name, each in results.items() if isinstance(each, Known)}, failures


def _instances(request: Request, paths: Iterable[str]) -> dict[str, int]:
    with db.connect(request.topology.parent, request.timeouts) as database:
        return {path: db.instances_in(database, path) for path in paths}


def _child(request: Request, name: str) -> Cell:
    found = next((child for child in request.topology.children if child.name == name), None)
    if found is None:
        children = ", ".join(child.name for child in request.topology.children)
        raise UsageError(f"there is no child {name!r} in cellsync.yaml: the children are {children}")
    return found


def _sides(side: Side, parent: Cell, child: Cell) -> list[tuple[Cell, Cell]]:
    """Return the cells whose table is written, each with the cell that its row is for."""
    above, below = (parent, child), (child, parent)
    return {Side.PARENT: [above], Side.CHILD: [below], Side.BOTH: [above, below]}[side]


def _releases(known: Mapping[str, Known]) -> dict[str, NovaRelease | None]:
    return {name: each.release for name, each in known.items()}


def _written(register: diff.Register, cell: Cell, other: Cell, broker: Broker) -> str:
    """Return a transport_url as the Nova of a cell reads it. Raises UsageError for what it cannot hold."""
    release = register.release(cell.name)
    escapings = list(Escaping) if release is None else [release.escaping]
    try:
        texts = {broker.write(escaping) for escaping in escapings}
    except ValueError as error:
        raise UsageError(
            f"the broker of {other.name}: {error}, which no transport_url can hold in "
            f"{release or 'every release of Nova'}"
        ) from None
    if len(texts) > 1:
        raise UsageError(
            f"the broker of {other.name}: its user or password has characters that some releases of Nova "
            f"decode and others do not, and {cell.name} has no migrate_version: add release to cellsync.yaml"
        )
    return texts.pop()


def _urls(request: Request, asked: Creation, register: diff.Register) -> dict[str, Broker]:
    """Return the brokers of the parent and of the child. Raises UsageError for one that is not known."""
    parent, child = request.topology.parent, _child(request, asked.child)
    found = dict(register.brokers)
    if asked.broker is not None:
        described = child if asked.describes is Side.CHILD else parent
        found[described.name] = asked.broker
    needed = {Side.PARENT: [child], Side.CHILD: [parent], Side.BOTH: [child, parent]}[asked.side]
    for cell in needed:
        if cell.name not in found or not found[cell.name].hosts:
            kind = "child" if cell is child else "parent"
            raise UsageError(
                f"the broker of {cell.name} is not known: give it in cellsync.yaml (broker), or here with "
                f"--cell_type {kind} --hostname ... --username ... --password-stdin"
            )
    return found


def _chosen(rows: Sequence[CellRow], name: str) -> list[CellRow]:
    """Return the live rows of a name, or the one with this id where no row has the name."""
    by_name = [row for row in rows if not row.deleted and row.name == name]
    by_id = [row for row in rows if not row.deleted and str(row.id) == name]
    return by_name or by_id


# -- Guards --------------------------------------------------------------------------------------


def _waived(request: Request, code: str) -> bool:
    return bool({code, f"{code}:{plans.RULE}"} & set(request.waived))


def _refusal(request: Request, code: str, message: str) -> list[Refusal]:
    return [] if _waived(request, code) else [Refusal(code=code, rule=plans.RULE, message=message)]


def _by_file(cell: Cell) -> list[Refusal]:
    """Refuse where nova-cells reads a file: a row would change nothing."""
    nova = cell.nova
    if nova is None or nova.cells_config is None:
        return []
    message = (
        f"nova-cells of {cell.name} reads {nova.cells_config} ([cells] cells_config in {nova.file}) and not "
        f"the table: change that file, which is read again as soon as it changes"
    )
    return [Refusal(code="cells-config", rule="", message=message)]


def _wrong_side(request: Request, cell: Cell, other: Cell, url: Broker, own: Broker | None) -> list[Refusal]:
    same = diff.foreign(url, own) if own is not None else ()
    if not same:
        return []
    message = (
        f"the row for {other.name} would lead to the broker of {cell.name} itself ({', '.join(same)}): its "
        f"messages would come back to it"
    )
    return _refusal(request, "own-broker", message)


def _in_use(request: Request, child: str, instances: int) -> list[Refusal]:
    if not instances:
        return []
    message = (
        f"{instances} live instances are in {child}: without its row they can be neither reached nor deleted"
    )
    return _refusal(request, "instances", message)


def _too_many(request: Request, held: Known, rows: Sequence[CellRow], most: str | None) -> list[Refusal]:
    children = request.topology.children
    out = sum(diff.is_isolated(held.rows, child.name) for child in children)
    allowed = plans.most_isolated(most, len(children))
    if out + len(rows) <= allowed:
        return []
    message = (
        f"{out + len(rows)} of {len(children)} children would be isolated, and {allowed} may be "
        f"(--max-isolated): is it this machine that does not reach them?"
    )
    return _refusal(request, "max-isolated", message)


def _still_dead(request: Request, held: Known, name: str, url: str, timeout: float) -> list[Refusal]:
    register = diff.Register(request.topology, {}, _releases({held.cell.name: held}))
    try:
        broker = register.read_url(held.cell.name, url)
    except ValueError as error:
        return _refusal(request, "broker", f"the row of {name} cannot be used: transport_url {error}")
    probes = ask_broker(broker, timeout=timeout, queues=NOVA_CELLS)
    if any(probe.status is HostStatus.OK for probe in probes):
        silent = unattended(answered_queues(probes))
        if not silent:
            return []
        names = words.listed([queue.name for queue in silent])
        return _refusal(
            request,
            "silent",
            f"nobody takes messages from {names} at the broker of {name}, and {held.cell.name} would hang "
            f"with its row: start nova-cells of {name} first",
        )
    return _dead_broker(request, name, probes)


def _dead_broker(request: Request, name: str, probes: Sequence[BrokerProbe]) -> list[Refusal]:
    """Refuse a broker of which no host takes messages."""
    if any(probe.status is HostStatus.OK for probe in probes):
        return []
    said = "; ".join(f"{probe.host}: {probe.status.value}" for probe in probes)
    return _refusal(request, "broker", f"the broker of {name} does not take messages ({said})")


# -- Plans ---------------------------------------------------------------------------------------


def _removal(request: Request, known: Known, rows: Sequence[CellRow], refusals: Sequence[Refusal]) -> _Step:
    changes = tuple(map(plans.remove, rows))
    stopped = (*refusals, *(_by_file(known.cell) if rows else ()))
    return _Step(known=known, changes=changes, refusals=stopped, notices=(plans.say_when_seen(known.cell),))


def _back(request: Request, held: Known, name: str) -> tuple[Change, str]:
    """Return how a child's row is brought back, and its transport_url."""
    row = diff.last_removed(held.rows, name)
    if row is not None:
        return plans.bring_back(row), row.transport_url.reveal()
    whole = _from_journal(request, held, name)
    return plans.bring_back_lost(whole), str(whole["transport_url"])


def _from_journal(request: Request, held: Known, name: str) -> Mapping[str, Value]:
    """Return the row of a child as it was before it was isolated; Nova may have archived it since.

    Raises UsageError where the journal has none.
    """
    with db.connect(held.cell, request.timeouts) as database:
        about = {"database": held.identity.schema, "cell": held.cell.name}
        for known in journal.runs(database, **about):
            if not known.run.verb.startswith("cells "):
                continue
            for made in reversed(journal.changes(database, known.run.id, **about)):
                before = made.change.before or {}
                whole = {column: value for column, value in before.items() if not isinstance(value, tuple)}
                if (
                    made.change.rule == plans.RULE
                    and before.get("name") == name
                    and before.get("deleted") == 0
                ):
                    return whole  # type: ignore[return-value]
        unseen = f"; {words.unseen([held.cell.name])}" if journal.unseen(database) else ""
    raise UsageError(
        f"{held.cell.name} never had a row for {name}, as far as its table and the journal know: "
        f"cellsync cells create makes one{unseen}"
    )


def _prepared(
    request: Request,
    steps: Sequence[_Step],
    failures: Mapping[str, CellFailure],
    *,
    together: bool = False,
    whole: bool = False,
    all_or_none: bool = False,
) -> Prepared:
    """Put the steps into a report.

    ``together``: a refusal for one side stops the other too. ``whole``: so does a side that cannot be
    asked. ``all_or_none``: what is written in one database is wrong without the other.
    """
    stop = (together and any(step.refusals for step in steps)) or bool(whole and failures)
    edges = [_edge(request, step, stop=stop) for step in steps]
    cells: list[CellResult | CellFailure] = [*failures.values()]
    notes: list[str] = []
    for step, edge in zip(steps, edges, strict=True):
        status = Status.REFUSED if edge.plan.refusals else Status.DIFFERS
        status = status if edge.plan.refusals or edge.plan.changes else Status.IN_STEP
        result = CellResult(cell=edge.cell.name, status=status, tables=())
        cells.append(with_plans(result, [edge.plan]))
        notes += step.notes if not edge.plan.changes and not edge.plan.refusals else ()
    report = Report(
        run=request.run,
        finished=request.clock(),
        cells=tuple(cells),
        notes=tuple(notes),
        exit_code=exit_code(cells, remaining=False, refusals=True),
        secrets=request.topology.secrets,
    )
    return Prepared(report=report, edges=tuple(edges), all_or_none=whole or all_or_none)


def _edge(request: Request, step: _Step, *, stop: bool) -> Edge:
    known = step.known
    held = (
        plan.unwritable(known.health, known.cell.name, [plans.RULE], request.waived) if step.changes else ()
    )
    refusals = (*step.refusals, *held)
    names = {"parent": request.topology.parent.name, "child": known.cell.name}
    return Edge(
        cell=known.cell,
        child=known.cell.name,
        direction=Direction.UP if known.cell.role is Role.PARENT else Direction.DOWN,
        plan=Plan(
            child=known.cell.name,
            written=known.cell.name,
            database=known.identity,
            changes=() if refusals or stop else step.changes,
            refusals=refusals,
            notices=step.notices if step.changes and not (refusals or stop) else (),
            targets={plans.RULE: plans.target(**names)},
        ),
    )
