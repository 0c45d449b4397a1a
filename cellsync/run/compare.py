"""Read all databases once, compare them, and plan: everything up to the first write.

The stages follow each other for all cells together: look, pair, read, compare, read what differs
again, plan. Within a stage every database is worked on by itself, so the slowest cell delays only
the end of the stage, and a cell that fails is left out of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Union

from cellsync import db, diff, plan
from cellsync.diff import Routed
from cellsync.errors import ConfigurationError, Problem, ReadFailed
from cellsync.model import (
    Action,
    Cell,
    CellFailure,
    CellResult,
    DatabaseIdentity,
    Direction,
    Key,
    Kind,
    LookUp,
    Pack,
    Pairing,
    Projection,
    Report,
    Role,
    Row,
    Rule,
    SchemaVersion,
    Status,
    Table,
    TableDiff,
    TableFailure,
    TableResult,
    Value,
    shown,
)
from cellsync.run.request import Edge, Prepared, Request, each_cell, executor, exit_code, with_plans

VERSION_TABLES = ("migrate_version", "alembic_version")

Paired = Mapping[str, Union[Pairing, TableFailure]]
"""Rule id -> how it is compared on one edge; rules whose gate is shut are left out."""

Found = Mapping[str, TableResult]
"""Rule id -> result on one edge, in the order of the rules."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one cell's database is, before any row of a rule is read."""

    identity: DatabaseIdentity
    tables: Mapping[str, Table]
    versions: Mapping[str, SchemaVersion]
    owns: Mapping[LookUp, Union[frozenset[str], str]]
    """For each look-up the values that the cell has, or why it could not be asked."""

    @property
    def version(self) -> Value:
        """The schema version, from whichever version table there is; None when there is none."""
        return next((v.value for v in self.versions.values() if v.value is not None), None)


@dataclass(frozen=True, kw_only=True)
class Want:
    """One reading of one database: a whole projection, or some keys of it."""

    projection: Projection
    keys: tuple[Key, ...] | None = None
    tombstones: bool = False


Got = Mapping[tuple[str, Want], Union[tuple[Row, ...], ReadFailed]]
"""(cell, reading) -> its rows, or why there are none."""


@dataclass
class _State:
    """The work in progress of one comparison; lives as long as its connections."""

    request: Request
    pool: Executor
    databases: dict[str, db.Database] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)
    failures: dict[str, CellFailure] = field(default_factory=dict)

    def close(self) -> None:
        for database in self.databases.values():
            database.close()

    @property
    def parent(self) -> str:
        return self.request.topology.parent.name

    @property
    def going(self) -> list[str]:
        """The children in scope that have not failed, in configured order."""
        return [child.name for child in self.request.children if child.name not in self.failures]


def compare(request: Request) -> Prepared:
    """Compare every child in scope with the parent, by every rule, and plan its repair.

    Reads only. Raises ConfigurationError when two cells turn out to be one database.
    """
    with _opened(request) as state:
        pairs = {child: _paired(state, child) for child in state.going}
        request.progress("reading")
        first = _compared(state, pairs)
        found = _confirmed(state, pairs, first)
        return _planned(state, pairs, found)


def schemas(request: Request) -> Report:
    """Compare the schemas alone, by every rule in scope; the tables of the report have no rows."""
    with _opened(request) as state:
        cells: list[CellResult | CellFailure] = []
        for child in request.children:
            if child.name in state.failures:
                cells.append(state.failures[child.name])
                continue
            pairs = _paired(state, child.name)
            tables = tuple(_schema_only(each) for each in pairs.values())
            cells.append(CellResult(cell=child.name, status=_worst(tables), tables=tables))
        differ = any(t.schema for cell in cells if isinstance(cell, CellResult) for t in cell.tables)
        return _report(request, cells, remaining=differ)


def _schema_only(paired: Pairing | TableFailure) -> TableResult:
    if isinstance(paired, TableFailure):
        return paired
    return TableDiff(
        rule=paired.rule.id,
        table=paired.rule.table,
        direction=paired.rule.direction,
        key=paired.rule.key,
        desired_rows=0,
        existing_rows=0,
        schema=paired.schema,
        status=Status.DIFFERS if paired.schema else Status.IN_STEP,
    )


# -- Looking -----------------------------------------------------------------------------------


@contextmanager
def _opened(request: Request) -> Iterator[_State]:
    """Connect to all cells that are needed and look at them; close the connections in the end."""
    with ExitStack() as stack:
        pool = stack.enter_context(executor(request.jobs))
        state = _State(request, pool)
        stack.callback(state.close)
        request.progress("connecting")
        looked = each_cell(pool, lambda cell: _look(state, cell), _needed(request))
        for name, look in looked.items():
            if isinstance(look, CellFailure):
                state.failures[name] = look
            else:
                state.looks[name] = look
        _refuse_doubles(state)
        _fail_unfit(state)
        yield state


def _needed(request: Request) -> list[Cell]:
    """Return the cells to connect to: routing asks every child, also those out of scope."""
    asked = any(rule.route and rule.route.else_where_exists for rule in request.ruleset.rules)
    children = request.topology.children if asked else request.children
    return [request.topology.parent, *children]


def _look(state: _State, cell: Cell) -> Look:
    database = state.databases[cell.name] = db.connect(cell, state.request.timeouts)
    rules = state.request.ruleset.rules
    parent = cell.role is Role.PARENT
    names = {rule.table if parent else rule.child_table for rule in rules}
    wanted = _version_tables(state.request.ruleset.packs)
    lookups = {rule.route.else_where_exists for rule in rules if rule.route and rule.route.else_where_exists}
    owned = set() if parent else {look_up.table for look_up in lookups}
    tables = database.tables({*names, *wanted, *owned})
    return Look(
        identity=database.identity(),
        tables=tables,
        versions={table: database.version(table) for table in wanted if table in tables},
        owns={} if parent else {look_up: _owned(database, look_up) for look_up in lookups},
    )


def _owned(database: db.Database, look_up: LookUp) -> frozenset[str] | str:
    try:
        return database.look_up(look_up)
    except ReadFailed as error:
        return str(error)


def _version_tables(packs: Sequence[Pack]) -> list[str]:
    named = [pack.requires.equal_versions for pack in packs if pack.requires.equal_versions]
    return list(dict.fromkeys([*named, *VERSION_TABLES]))


def _refuse_doubles(state: _State) -> None:
    """Raise when two cells are one database: what is desired would be what is written."""
    problems = []
    for one, other in combinations(state.looks, 2):
        databases = (state.databases[one], state.databases[other])
        looks = (state.looks[one].identity, state.looks[other].identity)
        if db.same_database(*databases, *looks):
            shown = state.databases[other].cell.database.shown
            message = (
                f"{one} and {other} are the same database ({looks[0].schema}, reached for {other} as "
                f"{shown}): give each cell its own"
            )
            problems.append(Problem("cellsync.yaml", 0, 0, message))
    if problems:
        raise ConfigurationError(problems)


def _fail_unfit(state: _State) -> None:
    """Fail the children that no rule in scope may touch: no parent, or another schema version."""
    lost = state.failures.get(state.parent)
    for child in state.request.children:
        if child.name in state.failures:
            continue
        if lost is not None:
            error = f"the parent could not be read: {lost.error}"
            state.failures[child.name] = CellFailure(cell=child.name, status=Status.INCOMPLETE, error=error)
            continue
        reasons = [_unfit(state, pack, child.name) for pack in state.request.ruleset.packs]
        if reasons and all(reasons):
            error = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
            state.failures[child.name] = CellFailure(cell=child.name, status=Status.INCOMPLETE, error=error)


def _unfit(state: _State, pack: Pack, child: str) -> str | None:
    """Return why a pack must not be used between the parent and a child, or None."""
    parent_look, child_look = state.looks[state.parent], state.looks[child]
    table = pack.requires.equal_versions
    if table is not None:
        values = [
            look.versions[table].value if table in look.versions else None
            for look in (parent_look, child_look)
        ]
        if values[0] is None or values[0] != values[1]:
            return (
                f"{table} is {_version(values[0])} in {state.parent} and {_version(values[1])} in {child}; "
                f"pack {pack.name} compares equal versions only: upgrade them in step"
            )
    gate = pack.requires.parent_version
    if gate is not None and gate.admits(parent_look.version) is not True:
        return (
            f"the schema version of {state.parent} is {_version(parent_look.version)}, and pack {pack.name} "
            f"is for {gate.text}"
        )
    return None


def _version_of(look: Look, table: str) -> Value:
    return look.versions[table].value if table in look.versions else None


def _version(value: Value) -> str:
    return "not there" if value is None else shown(value)


# -- Pairing -----------------------------------------------------------------------------------


def _paired(state: _State, child: str) -> Paired:
    pairs: dict[str, Pairing | TableFailure] = {}
    for rule in state.request.ruleset.rules:
        admitted = rule.when is None or rule.when.admits(state.looks[state.parent].version)
        if admitted is False:
            continue
        pairs[rule.id] = _pair(state, rule, child, admitted, pairs)
    return pairs


def _pair(
    state: _State, rule: Rule, child: str, admitted: bool | None, pairs: Paired
) -> Pairing | TableFailure:
    pack = next(pack for pack in state.request.ruleset.packs if pack.name == rule.pack)
    error = _unfit(state, pack, child)
    if admitted is None and rule.when is not None:
        error = f"whether {rule.when.text!r} holds cannot be told from {state.looks[state.parent].version!r}"
    if error is not None:
        return _failed(rule, error)
    paired = diff.pair(
        rule,
        state.request.ruleset,
        parent_tables=state.looks[state.parent].tables,
        child_tables=state.looks[child].tables,
        parent=state.parent,
        child=child,
    )
    lost = [other for other in rule.references.values() if isinstance(pairs.get(other), TableFailure)]
    if lost and isinstance(paired, Pairing):
        return _failed(rule, f"refers to {', '.join(sorted(set(lost)))}, which could not be compared")
    return paired


def _failed(rule: Rule, error: str) -> TableFailure:
    return TableFailure(rule=rule.id, table=rule.table, direction=rule.direction, error=error)


# -- Reading -----------------------------------------------------------------------------------


def _read(state: _State, wants: Mapping[str, Sequence[Want]]) -> Got:
    """Read from all cells at once, each in one snapshot; what one cell wants twice is read once."""
    cells = [cell for cell in _needed(state.request) if wants.get(cell.name)]
    readings = {cell.name: list(dict.fromkeys(wants[cell.name])) for cell in cells}

    def task(cell: Cell) -> dict[Want, tuple[Row, ...] | ReadFailed]:
        database = state.databases[cell.name]
        with database.snapshot():
            return {want: _rows(database, want) for want in readings[cell.name]}

    got: dict[tuple[str, Want], tuple[Row, ...] | ReadFailed] = {}
    for name, rows in each_cell(state.pool, task, cells).items():
        for want in readings[name]:
            got[name, want] = ReadFailed(rows.error) if isinstance(rows, CellFailure) else rows[want]
    return got


def _rows(database: db.Database, want: Want) -> tuple[Row, ...] | ReadFailed:
    try:
        return tuple(database.rows(want.projection, keys=want.keys, tombstones=want.tombstones))
    except ReadFailed as error:
        return error


# -- Comparing ---------------------------------------------------------------------------------


def _compared(state: _State, pairs: Mapping[str, Paired]) -> dict[str, dict[str, TableResult]]:
    """Compare all edges from one reading of every database."""
    wants: dict[str, list[Want]] = {}
    for pairing in _pairings(pairs):
        wants.setdefault(pairing.desired_cell, []).append(Want(projection=pairing.desired))
        wants.setdefault(pairing.existing_cell, []).append(Want(projection=pairing.existing))
    got = _read(state, wants)
    router = _Router(state)
    return {
        child: {
            rule: _table(state, paired, child, got, router) if isinstance(paired, Pairing) else paired
            for rule, paired in pairs[child].items()
        }
        for child in pairs
    }


def _pairings(pairs: Mapping[str, Paired]) -> Iterator[Pairing]:
    for paired in pairs.values():
        yield from (each for each in paired.values() if isinstance(each, Pairing))


class _Router:
    """Deal the parent's rows to the children, once for all children that share a reading."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._routed: dict[Projection, Routed] = {}

    def route(self, rule: Rule, projection: Projection, rows: Sequence[Row]) -> Routed:
        """Return the routing of a whole reading of the parent."""
        if projection not in self._routed:
            self._routed[projection] = self.again(rule, rows)
        return self._routed[projection]

    def again(self, rule: Rule, rows: Sequence[Row]) -> Routed:
        """Return the routing of some rows of the parent."""
        children = [child.name for child in self._state.request.topology.children]
        return diff.route(
            rows,
            rule,
            parent=self._state.parent,
            children=children,
            owners={child: self._owned(rule, child) for child in children},
        )

    def _owned(self, rule: Rule, child: str) -> frozenset[str] | None:
        look_up = rule.route.else_where_exists if rule.route else None
        if look_up is None or child not in self._state.looks:
            return None
        owned = self._state.looks[child].owns[look_up]
        return owned if isinstance(owned, frozenset) else None


def _table(state: _State, pairing: Pairing, child: str, got: Got, router: _Router) -> TableResult:
    desired = got[pairing.desired_cell, Want(projection=pairing.desired)]
    existing = got[pairing.existing_cell, Want(projection=pairing.existing)]
    for rows in (desired, existing):
        if isinstance(rows, ReadFailed):
            return _failed(pairing.rule, str(rows))
    assert not isinstance(desired, ReadFailed) and not isinstance(existing, ReadFailed)
    if pairing.rule.route is None:
        return diff.compare(pairing, desired, existing, child=child)
    down = pairing.rule.direction is Direction.DOWN
    projection, rows = (pairing.desired, desired) if down else (pairing.existing, existing)
    routed = router.route(pairing.rule, projection, rows)
    mine = routed.rows[child]
    table = diff.compare(
        pairing,
        mine if down else desired,
        existing if down else mine,
        child=child,
        aside=routed.aside,
    )
    return replace(table, findings=(*table.findings, *routed.findings), unknown=routed.unknown)


# -- Reading what differs once more ------------------------------------------------------------


def _confirmed(
    state: _State, pairs: Mapping[str, Paired], first: Mapping[str, Found]
) -> dict[str, dict[str, TableResult]]:
    """Read the differing rows again in new snapshots; only what still differs counts."""
    asked = {
        (child, rule): diff.unsettled(table)
        for child, tables in first.items()
        for rule, table in tables.items()
        if isinstance(table, TableDiff) and table.differences
    }
    found = {child: dict(tables) for child, tables in first.items()}
    if not asked:
        return found
    _settle(state, pairs, asked)
    wants = _again(pairs, asked, first)
    got = _read(state, {cell: [*wanted.values()] for cell, wanted in wants.items()})
    for child, rule in asked:
        pairing, table = pairs[child][rule], first[child][rule]
        assert isinstance(pairing, Pairing) and isinstance(table, TableDiff)
        found[child][rule] = _confirm(state, pairing, table, child, wants=wants, got=got)
    return found


def _settle(state: _State, pairs: Mapping[str, Paired], asked: Mapping[tuple[str, str], object]) -> None:
    waits = []
    for child, rule in asked:
        pairing = pairs[child][rule]
        own = pairing.rule.settle if isinstance(pairing, Pairing) else None
        waits.append(state.request.settle if own is None else own)
    if (longest := max(waits).total_seconds()) > 0:
        state.request.progress("settling")
        state.request.sleep(longest)


_Wants = Mapping[str, Mapping[tuple[Projection, bool], Want]]
"""Cell -> (projection, tombstones) -> the reading; one for all children that share it."""


def _again(
    pairs: Mapping[str, Paired],
    asked: Mapping[tuple[str, str], tuple[Key, ...]],
    first: Mapping[str, Found],
) -> _Wants:
    keys: dict[str, dict[tuple[Projection, bool], dict[Key, None]]] = {}

    def add(cell: str, projection: Projection, wanted: Sequence[Key], *, tombstones: bool = False) -> None:
        keys.setdefault(cell, {}).setdefault((projection, tombstones), {}).update(dict.fromkeys(wanted))

    for (child, rule), unsettled in asked.items():
        pairing, table = pairs[child][rule], first[child][rule]
        assert isinstance(pairing, Pairing) and isinstance(table, TableDiff)
        add(pairing.desired_cell, pairing.desired, unsettled)
        add(pairing.existing_cell, pairing.existing, unsettled)
        if pairing.rule.on_extra is Action.SOFT_DELETE:
            extras = [d.key for d in table.differences if d.kind is Kind.EXTRA]
            add(pairing.desired_cell, pairing.desired, extras, tombstones=True)
    return {
        cell: {
            (projection, dead): Want(projection=projection, keys=tuple(wanted), tombstones=dead)
            for (projection, dead), wanted in readings.items()
        }
        for cell, readings in keys.items()
    }


def _confirm(
    state: _State,
    pairing: Pairing,
    table: TableDiff,
    child: str,
    *,
    wants: _Wants,
    got: Got,
) -> TableResult:
    router = _Router(state)

    def rows(cell: str, projection: Projection, *, tombstones: bool = False) -> Sequence[Row]:
        want = wants[cell].get((projection, tombstones))
        result = got[cell, want] if want is not None else ()
        if isinstance(result, ReadFailed):
            raise result
        routed = pairing.rule.route is not None and cell == state.parent and not tombstones
        return router.again(pairing.rule, result).rows[child] if routed else result

    try:
        return diff.confirm(
            pairing,
            table,
            rows(pairing.desired_cell, pairing.desired),
            rows(pairing.existing_cell, pairing.existing),
            child=child,
            colliding=lambda key: tuple(
                state.databases[pairing.existing_cell].rows(pairing.existing, keys=[key])
            ),
            tombstones=rows(pairing.desired_cell, pairing.desired, tombstones=True),
        )
    except ReadFailed as error:
        return _failed(pairing.rule, str(error))


# -- Planning ----------------------------------------------------------------------------------


def _planned(state: _State, pairs: Mapping[str, Paired], found: Mapping[str, Found]) -> Prepared:
    cells: list[CellResult | CellFailure] = []
    edges: list[Edge] = []
    for child in state.request.children:
        if child.name in state.failures:
            cells.append(state.failures[child.name])
            continue
        result, made = _plan_cell(state, child, pairs[child.name], found[child.name])
        cells.append(result)
        edges += made
    remaining = any(_counts(table) for cell in cells if isinstance(cell, CellResult) for table in cell.tables)
    return Prepared(report=_report(state.request, cells, remaining=remaining), edges=tuple(edges))


def _plan_cell(state: _State, child: Cell, pairs: Paired, found: Found) -> tuple[CellResult, list[Edge]]:
    names = {"parent": state.parent, "child": child.name}
    decided: dict[str, TableResult] = {}
    for rule, table in found.items():
        pairing = pairs[rule]
        both = isinstance(table, TableDiff) and isinstance(pairing, Pairing)
        decided[rule] = _judged(plan.decide(pairing, table, names)) if both else table  # type: ignore[arg-type]
    edges = [
        edge
        for direction in Direction
        if (edge := _edge(state, child, direction, pairs, decided)) is not None
    ]
    # A diff writes nothing, so nothing is refused: it shows what a repair would refuse.
    writing = state.request.run.verb != "diff"
    refused = {refusal.rule for edge in edges for refusal in edge.plan.refusals if writing}
    tables = tuple(
        replace(table, status=Status.REFUSED) if rule in refused else table for rule, table in decided.items()
    )
    result = CellResult(cell=child.name, status=_worst(tables), tables=tables)
    return with_plans(result, [edge.plan for edge in edges]), edges


def _judged(table: TableDiff) -> TableDiff:
    """Set the status of a table by what counts: an ignored difference does not."""
    return replace(table, status=Status.DIFFERS if _counts(table) else Status.IN_STEP)


def _counts(table: TableResult) -> bool:
    if isinstance(table, TableFailure):
        return False
    return bool(table.findings) or any(d.action is not Action.IGNORE for d in table.differences)


_RANK = (
    Status.IN_STEP,
    Status.REPAIRED,
    Status.DIFFERS,
    Status.REFUSED,
    Status.INCOMPLETE,
    Status.UNREACHABLE,
)


def _worst(tables: Sequence[TableResult]) -> Status:
    unjudged = any(isinstance(table, TableDiff) and table.unknown for table in tables)
    statuses = [table.status for table in tables] + ([Status.INCOMPLETE] if unjudged else [])
    return max(statuses, key=_RANK.index, default=Status.IN_STEP)


def _edge(state: _State, child: Cell, direction: Direction, pairs: Paired, found: Found) -> Edge | None:
    written = child if direction is Direction.DOWN else state.request.topology.parent
    tables = state.looks[written.name].tables
    compared: list[plan.Compared] = []
    for rule, table in found.items():
        pairing = pairs[rule]
        if table.direction is direction and isinstance(table, TableDiff) and isinstance(pairing, Pairing):
            existing = tables[pairing.existing.table]
            compared.append(plan.Compared(pairing=pairing, table=table, written=existing))
    if not compared:
        return None
    target = plan.Target(
        child=child.name,
        written=written.name,
        database=state.looks[written.name].identity,
        names={"parent": state.parent, "child": child.name},
        version=state.looks[written.name].version,
    )
    failed = [rule for rule, table in found.items() if isinstance(table, TableFailure)]
    return Edge(
        cell=written,
        child=child.name,
        direction=direction,
        plan=plan.build(compared, target, waived=state.request.waived, failed=failed),
        targets={each.pairing.rule.id: each.pairing.existing for each in compared},
    )


def _report(request: Request, cells: Sequence[CellResult | CellFailure], *, remaining: bool) -> Report:
    rules = request.ruleset.rules
    names = dict.fromkeys(feature for rule in rules for feature in rule.features)
    described = {name: request.ruleset.feature(name) for name in names}
    return Report(
        run=request.run,
        finished=request.clock(),
        cells=tuple(cells),
        features={name: feature.lost if feature else "" for name, feature in described.items()},
        rule_features={rule.id: rule.features for rule in rules},
        exit_code=exit_code(cells, remaining=remaining, refusals=request.run.verb != "diff"),
    )
