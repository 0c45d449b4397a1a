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
    Source,
    Status,
    Table,
    Value,
    shown,
)
from cellsync.model.registry import TABLE as REGISTER
from cellsync.run.request import Request, each_cell, executor

VERSION_TABLES = ("alembic_version", "migrate_version")
"""A database that went over from the older tool to Alembic may have both: then Alembic's counts."""


def read_version(database: db.Database) -> Value:
    """Return the schema version of a database, None when it has none. Raises CellsyncError."""
    values = (database.version(table).value for table in VERSION_TABLES)
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one cell's database is, before any row of a rule is read."""

    identity: DatabaseIdentity
    health: Health
    tables: Mapping[str, Table]
    versions: Mapping[str, SchemaVersion]
    owns: Mapping[LookUp, Union[frozenset[str], str]]
    """For each look-up the values that the cell has, or why it could not be asked."""
    others: Mapping[str, str] = field(default_factory=dict)
    """What the names of rules are there that are no tables: "view", "sequence"."""
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
        waiting = request.waiting("connecting")
        looked = each_cell(pool, lambda cell: _look(state, cell), needed(request), waiting=waiting)
        for name, look in looked.items():
            if isinstance(look, CellFailure):
                state.failures[name] = look
            else:
                state.looks[name] = look
        _refuse_doubles(state)
        _fail_unfit(state)
        yield state


def needed(request: Request) -> list[Cell]:
    """Return the cells to connect to: routing asks every child, also those out of scope.

    So does a detector that asks all children, unless it asks other databases of theirs alone.
    """
    asked = any(rule.route and rule.route.else_where_exists for rule in request.ruleset.rules)
    asks = [ask for detector in request.ruleset.detectors for ask in detector.asks]
    asked = asked or any(ask.of is Source.CHILDREN and not ask.database for ask in asks)
    children = request.topology.children if asked else request.children
    return [request.topology.parent, *children]


def _look(state: State, cell: Cell) -> Look:
    within = state.request.timeouts.within(cell.budget.time)
    database = state.databases[cell.name] = db.connect(cell, within)
    with database.busy():
        return _seen(state, cell, database)


def _seen(state: State, cell: Cell, database: db.Database) -> Look:
    rules = state.request.ruleset.rules
    parent = cell.role is Role.PARENT
    names = {rule.table if parent else rule.child_table for rule in rules}
    wanted = _version_tables(state.request.ruleset.packs)
    lookups = {rule.route.else_where_exists for rule in rules if rule.route and rule.route.else_where_exists}
    owned = set() if parent else {look_up.table for look_up in lookups}
    register = {REGISTER} if parent else set()
    tables = database.tables({*names, *wanted, *owned, *register})
    return Look(
        others=database.find_others(lacking) if (lacking := names - tables.keys()) else {},
        identity=database.identity(),
        health=database.health(),
        # By the server's own names as well, where it does not mind the case of these.
        tables={**{table.name: table for table in tables.values()}, **tables},
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
    named = [table for pack in packs for table in pack.requires.equal_versions]
    return list(dict.fromkeys([*(table for table in named if table not in VERSION_TABLES), *VERSION_TABLES]))


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
    looks = {name: state.looks[name] for name in (state.parent, child)}
    kinds = {state.parent: pack.requires.repository, child: pack.requires.child_repository}
    foreign = (_foreign(pack, name, look, kinds[name]) for name, look in looks.items())
    reason = next(filter(None, foreign), None) or _unequal(pack, looks) or _unknown(pack, state)
    return f"{reason}. {pack.requires.otherwise}" if reason and pack.requires.otherwise else reason


def _foreign(pack: Pack, cell: str, look: Look, wanted: str | None) -> str | None:
    """Return that a database is of another kind than wanted, where its version table says of which."""
    for version in look.versions.values():
        if wanted is not None and version.repository not in (None, wanted):
            return (
                f"the database of {cell} is one of {version.repository} ({version.table} says so), and pack "
                f"{pack.name} is for {wanted}: use another pack, or give {cell} its database of {wanted}"
            )
    return None


def _unequal(pack: Pack, looks: Mapping[str, Look]) -> str | None:
    named = pack.requires.equal_versions
    if not named:
        return None
    has = (table for table in named if any(_version_of(look, table) is not None for look in looks.values()))
    table = next(has, named[0])
    values = {name: _version_of(look, table) for name, look in looks.items()}
    if None not in values.values() and len(set(values.values())) == 1:
        return None
    shown_values = " and ".join(f"{_version(value)} in {name}" for name, value in values.items())
    advice = "" if set(values.values()) == {None} else ": upgrade them in step"
    return f"{table} is {shown_values}; pack {pack.name} compares equal versions only{advice}"


def _unknown(pack: Pack, state: State) -> str | None:
    gate, version = pack.requires.parent_version, state.looks[state.parent].version
    if gate is None or gate.admits(version) is True:
        return None
    known = f"pack {pack.name} is for {gate.text}"
    return f"the schema version of {state.parent} is {_version(version)}, and {known}"


def _version_of(look: Look, table: str) -> Value:
    return look.versions[table].value if table in look.versions else None


def _version(value: Value) -> str:
    return "not there" if value is None else shown(value)
