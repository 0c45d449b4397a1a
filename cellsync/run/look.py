"""Connect to the cells of a run and look at them: what they are, and whether they may be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Union

from cellsync import db
from cellsync.errors import ConfigurationError, Problem, ReadFailed
from cellsync.model import (
    Cell,
    CellFailure,
    CellRow,
    DatabaseIdentity,
    Health,
    LookUp,
    Pack,
    Role,
    SchemaVersion,
    Status,
    Table,
    Value,
    shown,
)
from cellsync.model.registry import TABLE as REGISTER
from cellsync.run.request import Request, each_cell, executor

VERSION_TABLES = ("migrate_version", "alembic_version")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one cell's database is, before any row of a rule is read."""

    identity: DatabaseIdentity
    health: Health
    tables: Mapping[str, Table]
    versions: Mapping[str, SchemaVersion]
    owns: Mapping[LookUp, Union[frozenset[str], str]]
    """For each look-up the values that the cell has, or why it could not be asked."""
    register: tuple[CellRow, ...] = ()
    """The parent's register of cells; empty where it has none, and in children."""

    @property
    def version(self) -> Value:
        """The schema version, from whichever version table there is; None when there is none."""
        return next((v.value for v in self.versions.values() if v.value is not None), None)


@dataclass
class State:
    """The work in progress of one comparison; lives as long as its connections."""

    request: Request
    pool: Executor
    databases: dict[str, db.Database] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)
    failures: dict[str, CellFailure] = field(default_factory=dict)

    def close(self) -> None:
        """Close all connections."""
        for database in self.databases.values():
            database.close()

    @property
    def parent(self) -> str:
        """The name of the parent."""
        return self.request.topology.parent.name

    @property
    def going(self) -> list[str]:
        """The children in scope that have not failed, in configured order."""
        return [child.name for child in self.request.children if child.name not in self.failures]


@contextmanager
def opened(request: Request) -> Iterator[State]:
    """Connect to all cells that are needed and look at them; close the connections in the end."""
    with ExitStack() as stack:
        pool = stack.enter_context(executor(request.jobs))
        state = State(request, pool)
        stack.callback(state.close)
        request.progress("connecting")
        looked = each_cell(pool, lambda cell: _look(state, cell), needed(request))
        for name, look in looked.items():
            if isinstance(look, CellFailure):
                state.failures[name] = look
            else:
                state.looks[name] = look
        _refuse_doubles(state)
        _fail_unfit(state)
        yield state


def needed(request: Request) -> list[Cell]:
    """Return the cells to connect to: routing asks every child, also those out of scope."""
    asked = any(rule.route and rule.route.else_where_exists for rule in request.ruleset.rules)
    children = request.topology.children if asked else request.children
    return [request.topology.parent, *children]


def _look(state: State, cell: Cell) -> Look:
    database = state.databases[cell.name] = db.connect(cell, state.request.timeouts)
    rules = state.request.ruleset.rules
    parent = cell.role is Role.PARENT
    names = {rule.table if parent else rule.child_table for rule in rules}
    wanted = _version_tables(state.request.ruleset.packs)
    lookups = {rule.route.else_where_exists for rule in rules if rule.route and rule.route.else_where_exists}
    owned = set() if parent else {look_up.table for look_up in lookups}
    register = {REGISTER} if parent else set()
    tables = database.tables({*names, *wanted, *owned, *register})
    return Look(
        identity=database.identity(),
        health=database.health(),
        tables=tables,
        versions={table: database.version(table) for table in wanted if table in tables},
        owns={} if parent else {look_up: _owned(database, look_up) for look_up in lookups},
        register=db.register(database)
        if parent and database.makes_schemas and db.has_register(tables)
        else (),
    )


def _owned(database: db.Database, look_up: LookUp) -> frozenset[str] | str:
    try:
        return database.look_up(look_up)
    except ReadFailed as error:
        return str(error)


def _version_tables(packs: Sequence[Pack]) -> list[str]:
    named = [pack.requires.equal_versions for pack in packs if pack.requires.equal_versions]
    return list(dict.fromkeys([*named, *VERSION_TABLES]))


def _refuse_doubles(state: State) -> None:
    """Raise when two cells are one database: what is desired would be what is written.

    A cell of which this cannot be said fails by itself.
    """
    problems = []
    for one, other in combinations(state.looks, 2):
        if {one, other} & state.failures.keys():
            continue
        databases = (state.databases[one], state.databases[other])
        looks = (state.looks[one].identity, state.looks[other].identity)
        try:
            same = db.same_database(*databases, *looks)
        except ReadFailed as error:
            message = f"whether {one} and {other} are the same database could not be told: {error}"
            lost = one if databases[0].lost and one != state.parent else other
            state.failures[lost] = CellFailure(cell=lost, status=Status.INCOMPLETE, error=message)
            continue
        if same:
            shown = state.databases[other].cell.database.shown
            message = (
                f"{one} and {other} are the same database ({looks[0].schema}, reached for {other} as "
                f"{shown}): give each cell its own"
            )
            problems.append(Problem("cellsync.yaml", 0, 0, message))
    if problems:
        raise ConfigurationError(problems)


def _fail_unfit(state: State) -> None:
    """Fail the children that no rule in scope may touch: no parent, or another schema version."""
    lost = state.failures.get(state.parent)
    for child in state.request.children:
        if child.name in state.failures:
            continue
        if lost is not None:
            error = f"the parent could not be read: {lost.error}"
            state.failures[child.name] = CellFailure(cell=child.name, status=Status.INCOMPLETE, error=error)
            continue
        reasons = [unfit(state, pack, child.name) for pack in state.request.ruleset.packs]
        if reasons and all(reasons):
            error = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
            state.failures[child.name] = CellFailure(cell=child.name, status=Status.INCOMPLETE, error=error)


def unfit(state: State, pack: Pack, child: str) -> str | None:
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
