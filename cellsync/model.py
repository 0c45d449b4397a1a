"""Every value that travels through cellsync: frozen, keyword-only, and made of the standard library.

In the order of the way of the data: cells and their databases, schemas, rules, rows and
differences, plans, results. Mappings are plain dicts that nobody changes; all values pickle, so
that a run may be spread over threads, processes or machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import NamedTuple, Union

from cellsync.errors import ExitCode

# -- Values ------------------------------------------------------------------------------------

Value = Union[None, int, float, Decimal, str, bytes]
"""One canonical column value.

Integers (BIT, YEAR and BOOLEAN too) are int, DECIMAL is Decimal, FLOAT and DOUBLE are the exact
double, binary strings are bytes, and everything else is text: dates and times as the server
prints them in UTC without a fraction of zeros ("2026-11-23 15:00:59"), so that zero dates and
times over 24 hours survive.
"""

KeyPart = Union[Value, "Dangling", tuple["KeyPart", ...]]
"""A value of a row: a canonical value, or, for a reference, the key of the row it refers to."""

Key = tuple[KeyPart, ...]
"""The key of a row: one part for each of the rule's key columns, in the rule's order."""

Identity = tuple[Value, ...]
"""The primary key of a row in its own database; means nothing in any other."""


@dataclass(frozen=True)
class Dangling:
    """A reference that leads to no live row: ``raw`` is the surrogate id that it holds."""

    raw: Value
    deleted: bool
    """True when the row is there, but soft-deleted; False when there is no such row."""


class Secret:
    """Text that prints as stars: passwords, and URLs that hold one."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; for drivers only, never for a message."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


# -- Cells -------------------------------------------------------------------------------------


class Role(str, Enum):
    """What a cell is to the others."""

    PARENT = "parent"
    CHILD = "child"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a database or a broker is: the full URL for drivers, and one that may be shown."""

    url: Secret
    shown: str
    """The same URL with stars for the password: "mysql+pymysql://cellsync:***@10.0.0.1/nova"."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A parent or a child, with a database and (optionally) a broker."""

    name: str
    role: Role
    database: Endpoint
    broker: Endpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Topology:
    """One parent and its children, in configured order; names are unique."""

    parent: Cell
    children: tuple[Cell, ...]
    rules: tuple[str, ...] = ()
    """The packs and rule files that the configuration names, in its order."""
    settle: timedelta = timedelta(seconds=0.5)
    """How long a run waits before differences are read again, where a rule does not say."""

    def cell(self, name: str) -> Cell | None:
        """Return the cell of that name, parent included, or None."""
        return next((cell for cell in (self.parent, *self.children) if cell.name == name), None)


# -- Databases ---------------------------------------------------------------------------------


class Family(str, Enum):
    """The kinds of column types that can be compared with each other, and only they."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    BINARY = "binary"
    TEMPORAL = "temporal"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column, as the server describes it."""

    name: str
    type: str
    """The full type in lower case: "varchar(255)", "int(10) unsigned"."""
    family: Family
    nullable: bool = True
    default: str | None = None
    """The default as an SQL expression; None when there is none."""
    charset: str | None = None
    collation: str | None = None
    auto_increment: bool = False
    generated: bool = False


@dataclass(frozen=True, kw_only=True)
class Index:
    """A unique or plain index and its columns in index order; a prefix index names the column."""

    name: str
    columns: tuple[str, ...]
    unique: bool


@dataclass(frozen=True, kw_only=True)
class ForeignKey:
    """A foreign key from this table to ``table``; ``references`` pairs with ``columns``."""

    name: str
    columns: tuple[str, ...]
    table: str
    references: tuple[str, ...]
    on_delete: str = "RESTRICT"
    on_update: str = "RESTRICT"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The schema of one table of one database. Columns keep the table's own order."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    engine: str | None = None
    triggers: tuple[str, ...] = ()
    cascades: tuple[str, ...] = ()
    """Names of *other* tables' foreign keys through which a write here changes rows there."""
    estimate: int = 0
    """About how many rows there are, from the server's statistics; never a result."""

    def column(self, name: str) -> Column | None:
        """Return the column of that name (compared without regard to case), or None."""
        folded = name.lower()
        return next((column for column in self.columns if column.name.lower() == folded), None)


@dataclass(frozen=True, kw_only=True)
class DatabaseIdentity:
    """What tells one database from another, whatever name it was reached by."""

    server: str
    """The server's own id: ``@@server_uid``, or the path of an SQLite file."""
    schema: str
    version: str


@dataclass(frozen=True, kw_only=True)
class SchemaVersion:
    """What the version table of a database says; ``value`` is None when there is no such table."""

    table: str
    value: Value


# -- Rules -------------------------------------------------------------------------------------


class Direction(str, Enum):
    """Who is right. DOWN: the parent is desired. UP: the child is desired."""

    DOWN = "down"
    UP = "up"


class Action(str, Enum):
    """What a repair does about one difference."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    SOFT_DELETE = "soft_delete"
    REPORT = "report"
    IGNORE = "ignore"


class Surrogate(str, Enum):
    """REMAP: every database numbers its own rows. PRESERVE: the id is the same everywhere."""

    REMAP = "remap"
    PRESERVE = "preserve"


class ServerTime(str, Enum):
    """A value that the written server fills in: its UTC clock, without a fraction."""

    NOW = "now"


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where in a rule file something stands; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison of a gate: ``operator`` is one of == != < <= > >=."""

    operator: str
    operand: int | str


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition on the schema version; all its comparisons must hold."""

    text: str
    comparisons: tuple[Comparison, ...]

    def admits(self, version: Value) -> bool | None:
        """Return whether ``version`` passes; None when it cannot be told.

        A migrate_version is a number and is ordered. An alembic_version is a name: it equals or
        differs, and asking whether it is greater has no answer.
        """
        verdicts = [_holds(comparison, version) for comparison in self.comparisons]
        if any(verdict is False for verdict in verdicts):
            return False
        return None if None in verdicts else True


def _holds(comparison: Comparison, version: Value) -> bool | None:
    operand = comparison.operand
    if comparison.operator == "==":
        return str(version) == str(operand)
    if comparison.operator == "!=":
        return str(version) != str(operand)
    if not isinstance(version, int) or not isinstance(operand, int):
        return None
    return {
        "<": version < operand,
        "<=": version <= operand,
        ">": version > operand,
        ">=": version >= operand,
    }[comparison.operator]


@dataclass(frozen=True, kw_only=True)
class SoftDelete:
    """How a table marks its deleted rows.

    ``column`` holds ``live`` in a live row and the row's own ``tombstone`` column in a deleted
    one; ``at`` is the time of the deletion. NULL in ``column`` is neither: such a row is
    invisible to its application.
    """

    column: str
    live: Value
    tombstone: str
    at: str | None = None


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """Where a child says which values are its own: ``SELECT column FROM table WHERE where``."""

    table: str
    column: str
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """Which child a row of the parent belongs to.

    The value of ``column`` is split at its last "@". The part before it, or the whole value
    where there is no "@", names the child whose ``path`` it equals. A value without a path
    belongs to the child where ``else_where_exists`` finds it.
    """

    column: str
    path: str
    """A template of {parent} and {child}: "{parent}!{child}"."""
    else_where_exists: LookUp | None = None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most ``count`` changes, or at most ``percent`` of the existing rows in scope."""

    count: int | None = None
    percent: float | None = None

    def allowance(self, existing: int) -> int:
        """Return how many changes are allowed where ``existing`` rows are in scope."""
        if self.count is not None:
            return self.count
        return int(existing * (self.percent or 0) / 100)

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{self.percent:g}%"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many changes one rule may make on one edge in one run; None is unlimited."""

    inserts: Limit | None = None
    updates: Limit | None = Limit(percent=25)
    deletes: Limit | None = Limit(percent=10)
    free: int = 10
    """So many changes of each kind are always allowed."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What people must do after a rule has written, such as restarting a service.

    ``text`` is a template of {parent} and {child}.
    """

    text: str
    when: Gate | None = None


@dataclass(frozen=True, kw_only=True)
class Saying:
    """What a difference means in the users' words, for the rows that ``rows`` describes.

    The texts are templates of {parent}, {child} and the rule's columns, and of {was} and {now}
    for the columns that changed.
    """

    rows: Mapping[str, Value] = field(default_factory=dict)
    """The saying is for rows that hold these values; empty for every row."""
    missing: str | None = None
    changed: str | None = None
    extra: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the rows of one table propagate. Field names are those of the rule file."""

    id: str
    pack: str
    position: Position
    table: str
    """The table's name in the parent."""
    child_table: str
    direction: Direction = Direction.DOWN
    why: str = ""
    key: tuple[str, ...]
    references: Mapping[str, str] = field(default_factory=dict)
    """Column -> id of the rule whose rows it refers to; may name the rule itself."""
    surrogate: Mapping[str, Surrogate] = field(default_factory=dict)
    include: tuple[str, ...] | None = None
    """The columns to compare besides the key; None for all that ``exclude`` does not name."""
    exclude: tuple[str, ...] = ()
    transforms: Mapping[str, str] = field(default_factory=dict)
    """Column -> name of the transform of the desired value."""
    where_desired: str | None = None
    where_existing: str | None = None
    when: Gate | None = None
    soft_delete: SoftDelete | None = None
    route: Route | None = None
    on_insert: Mapping[str, Value | ServerTime] = field(default_factory=dict)
    """Column -> what a new row gets there; text may hold {parent} and {child}."""
    overrides: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Child's name, or "*" for all -> column -> the value that is desired in that child."""
    on_missing: Action = Action.INSERT
    on_changed: Action = Action.UPDATE
    on_extra: Action = Action.REPORT
    limits: Limits = Limits()
    settle: timedelta | None = None
    """How long to wait before differences are read again; None for the run's own setting."""
    tolerance: Mapping[str, float] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    after: tuple[Notice, ...] = ()
    says: tuple[Saying, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a person loses when the rows of a rule drift."""

    name: str
    lost: str = ""
    """The loss in one sentence, for people who do not know the tables."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What the databases must be before any rule of a pack is compared."""

    equal_versions: str | None = None
    """The version table whose value must be equal in parent and child."""
    parent_version: Gate | None = None


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A named file of rules."""

    name: str
    file: str
    why: str = ""
    requires: Requirement = Requirement()
    rules: tuple[Rule, ...]
    features: tuple[Feature, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """The rules of one run, every rule after the rules that it references."""

    packs: tuple[Pack, ...]
    rules: tuple[Rule, ...]
    digest: str
    """SHA-256 of the rules' meaning, in hex: a plan made with other rules is told by it."""

    def rule(self, rule_id: str) -> Rule | None:
        """Return the rule of that id, or None."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    def feature(self, name: str) -> Feature | None:
        """Return the feature that a pack describes under that name, or None."""
        return next((f for pack in self.packs for f in pack.features if f.name == name), None)


# -- Reading -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Join:
    """How a reference is replaced by the key of the row that it refers to."""

    rule: str
    table: str
    column: str
    """The column of ``table`` that the reference holds; unique there."""
    key: tuple[Projected, ...]
    soft_delete: SoftDelete | None


@dataclass(frozen=True, kw_only=True)
class Projected:
    """One column of a projection."""

    column: str
    family: Family
    transform: str | None = None
    join: Join | None = None


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The one SELECT through which a rule reads one side.

    The key columns come first, then the compared columns, references replaced by the key of the
    referenced row, transforms applied. With the same rule, the two sides have the same keys and
    columns in the same order.
    """

    rule: str
    table: str
    key: tuple[Projected, ...]
    columns: tuple[Projected, ...]
    identity: tuple[str, ...]
    """The columns of the primary key, with ``identity_families`` beside them."""
    identity_families: tuple[Family, ...]
    where: str | None = None
    soft_delete: SoftDelete | None = None
    route: str | None = None
    """The column whose raw value says which child a row belongs to."""
    age: tuple[str, ...] = ()
    """Columns that say since when a row is what it is; the latest one counts."""
    parent: str
    child: str
    """The names that transforms may use."""


class Row(NamedTuple):
    """One row as a projection reads it; ``values`` pair with the projection's columns."""

    key: Key
    values: tuple[KeyPart, ...]
    identity: Identity
    route: Value = None
    since: str | None = None
    """When a live row became what it is (the latest ``age`` column), or when a tombstone was
    made, as text, in UTC."""
    limbo: bool = False
    """True when the soft-delete column is NULL: neither live nor deleted to its application."""


@dataclass(frozen=True, kw_only=True)
class Bucketing:
    """How the rows of a table are dealt into buckets, the same way on both sides.

    By ``width`` consecutive values of an integer key, or by a hash of the key into ``count``.
    Bucket numbers mean nothing outside one bucketing.
    """

    width: int | None = None
    count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Count and checksum of the projected rows of one bucket, computed inside the server."""

    bucket: int
    rows: int
    checksum: int


# -- Differences -------------------------------------------------------------------------------


class Kind(str, Enum):
    """MISSING on the existing side, CHANGED there, or EXTRA there."""

    MISSING = "missing"
    CHANGED = "changed"
    EXTRA = "extra"


@dataclass(frozen=True, kw_only=True)
class ColumnDifference:
    """A compared column that holds another value."""

    column: str
    desired: KeyPart
    existing: KeyPart


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row that differs, and what a repair does about it."""

    kind: Kind
    key: Key
    desired: Row | None
    existing: Row | None
    columns: tuple[ColumnDifference, ...] = ()
    """What changed. A missing row shows its desired, an extra row its existing values here."""
    action: Action = Action.REPORT
    reason: str = ""
    """What it means, in the users' words."""
    tombstone: str | None = None
    """For an extra row: when the desired side deleted its row of that key, as text, in UTC."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong that no push mends by itself."""

    code: str
    """A stable name: "duplicate-key", "orphan", "deleted-is-null", ..."""
    cell: str
    """The cell whose rows are wrong."""
    message: str
    key: Key | None = None


@dataclass(frozen=True, kw_only=True)
class SchemaDifference:
    """A difference between the tables themselves; only ``blocking`` ones stop the rule."""

    path: str
    """What differs: "column host: type", "index name_idx"."""
    desired: str | None
    existing: str | None
    blocking: bool = False


class Status(str, Enum):
    """How a table or a cell stands."""

    IN_STEP = "in_step"
    DIFFERS = "differs"
    REPAIRED = "repaired"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class TableDiff:
    """One rule on one edge, compared to the end. Differences are in no order that means anything."""

    rule: str
    table: str
    direction: Direction
    key: tuple[str, ...]
    """The names of the key columns, for reading ``Difference.key``."""
    desired_rows: int
    existing_rows: int
    differences: tuple[Difference, ...] = ()
    findings: tuple[Finding, ...] = ()
    schema: tuple[SchemaDifference, ...] = ()
    status: Status = Status.IN_STEP
    unknown: tuple[str, ...] = ()
    """Why some rows could not be judged (a child that should own them did not answer)."""

    def count(self, kind: Kind) -> int:
        """Return the number of differences of that kind."""
        return sum(difference.kind is kind for difference in self.differences)


@dataclass(frozen=True, kw_only=True)
class TableFailure:
    """One rule on one edge that could not be compared; it has no counts."""

    rule: str
    table: str
    direction: Direction
    error: str
    schema: tuple[SchemaDifference, ...] = ()
    status: Status = Status.INCOMPLETE


TableResult = Union[TableDiff, TableFailure]


# -- Plans -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A value to be written: the surrogate id of the row with ``key``, looked up in the target."""

    rule: str
    key: Key


Stored = Union[Value, Reference, ServerTime]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One guarded write to one row; a pure function of it is its inverse.

    INSERT has no ``before`` and DELETE no ``after``. Every column of ``before`` must still hold
    its value when the change is made; it may name more columns than ``after`` writes.
    """

    rule: str
    table: str
    action: Action
    """INSERT, UPDATE or DELETE: a soft delete is an update."""
    key: Key
    """For people, and to find the row of an INSERT again; empty in an undo."""
    key_columns: tuple[str, ...]
    identity_columns: tuple[str, ...]
    identity: Identity
    """The primary key of the written row; empty for an INSERT that lets the server number it."""
    before: Mapping[str, Stored] | None
    after: Mapping[str, Stored] | None
    origin: Identity = ()
    """The desired row's primary key in its own database."""
    reason: str = ""

    def inverse(self) -> Change:
        """Return the change that takes this one back; its own guard is this one's ``after``."""
        action = {Action.INSERT: Action.DELETE, Action.DELETE: Action.INSERT}.get(self.action, self.action)
        return Change(
            rule=self.rule,
            table=self.table,
            action=action,
            key=self.key,
            key_columns=self.key_columns,
            identity_columns=self.identity_columns,
            identity=self.identity,
            before=self.after,
            after=self.before,
            reason=f"undo of {self.action.value}",
        )


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A change that was not planned, or planned and then not made, and why."""

    rule: str
    key: Key
    reason: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A guard that stopped a rule and those that reference it: they write nothing."""

    code: str
    """What ``--waive`` takes: "limit", "empty-desired", "triggers", ..."""
    rule: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The ordered changes for one edge. Unlike a TableDiff, a Plan is ordered."""

    child: str
    written: str
    """The cell whose database is written: the child, or the parent for rules that go up."""
    database: DatabaseIdentity
    changes: tuple[Change, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notices: tuple[str, ...] = ()


# -- Results -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution: who, what and when. Times are UTC."""

    id: str
    verb: str
    started: datetime
    topology: str
    """The name of the parent."""
    operator: str
    host: str
    command: str
    reason: str = ""


class Fate(str, Enum):
    """What became of a planned change."""

    APPLIED = "applied"
    CONFLICT = "conflict"
    """The row, or one that it needs, is no longer what the plan saw; nothing was written."""
    FAILED = "failed"
    """The server did not take the change; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one change. ``change`` holds the rows as the server gave them back."""

    change: Change
    fate: Fate
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The numbers of a repair, by the fate of each planned change."""

    planned: int = 0
    applied: int = 0
    conflicts: int = 0
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """All edges of one child, compared (and, after a repair, written)."""

    cell: str
    status: Status
    tables: tuple[TableResult, ...]
    counts: Counts = Counts()
    refusals: tuple[Refusal, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problems: tuple[str, ...] = ()
    """Conflicts, failures and what the verification found, each in one line."""
    plans: tuple[Plan, ...] = ()
    notices: tuple[str, ...] = ()
    locked: bool = False
    """True when another run held the lock of a database that this cell's plan writes."""


@dataclass(frozen=True, kw_only=True)
class CellFailure:
    """A child that could not be compared at all; it has no tables and no counts."""

    cell: str
    status: Status
    """UNREACHABLE, or INCOMPLETE when it answers but must not be compared."""
    error: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one run, children in configured order."""

    run: Run
    finished: datetime
    cells: tuple[CellResult | CellFailure, ...]
    features: Mapping[str, str] = field(default_factory=dict)
    """Feature -> what is lost without it, for the features of the rules that were compared."""
    rule_features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rule id -> names of the features that it serves."""
    exit_code: ExitCode


@dataclass(frozen=True, kw_only=True)
class JournaledRun:
    """A run as the journals of all its databases tell it; ``finished`` is None if it was cut off."""

    run: Run
    finished: datetime | None
    status: str
    cells: tuple[str, ...]
    applied: int
    undoes: str | None = None
    undone_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JournaledChange:
    """One change as a journal recorded it: ``change`` holds the whole rows, as they were read."""

    sequence: int
    cell: str
    change: Change
    at: str
