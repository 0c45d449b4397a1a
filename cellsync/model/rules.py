"""What a rule file says, checked and with its defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum

from cellsync.model.cells import Role
from cellsync.model.values import Key, Value, shown


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
    REPLACE = "replace"
    """Remove the row, and insert the desired one under its own preserved id, in one transaction."""
    REPORT = "report"
    IGNORE = "ignore"


class Removes(str, Enum):
    """Which extra rows ``on_extra: delete`` or ``soft_delete`` may remove."""

    ALL = "all"
    PUSHED = "pushed"
    """Only rows that cellsync itself wrote, as its journal knows; never a cell's own."""


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
    """A condition on the schema version: all comparisons of one of its alternatives must hold."""

    text: str
    alternatives: tuple[tuple[Comparison, ...], ...]

    def admits(self, version: Value) -> bool | None:
        """Return whether ``version`` passes; None when it cannot be told.

        A migrate_version is a number and is ordered. An alembic_version is a name: it equals or
        differs, and asking whether it is greater has no answer.
        """
        verdicts = [_all_hold(comparisons, version) for comparisons in self.alternatives]
        if True in verdicts:
            return True
        return None if None in verdicts else False


def _all_hold(comparisons: tuple[Comparison, ...], version: Value) -> bool | None:
    verdicts = [_holds(comparison, version) for comparison in comparisons]
    if False in verdicts:
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
    """Values of a cell's own table: ``SELECT column FROM table WHERE where``."""

    table: str
    column: str
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Replacing:
    """When a row with another preserved id than the desired one is removed, and the desired one inserted."""

    unless_used_in: tuple[LookUp, ...] = ()
    """The rows of the written side that may hold the old id: where one does, nothing is replaced."""


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
class Columns:
    """Some columns of a table: those that are named, or all but those."""

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Leader:
    """The rule with whose new rows the rows of another rule come."""

    rule: str
    by: Mapping[str, str]
    """Column of the key of the rows that come along -> the column of the leader's key that it equals."""


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
    carries: Columns | None = None
    """The columns that a new row takes along from the desired row, and that are never compared."""
    comes_with: Leader | None = None
    """The rule's rows are looked at only where a row of that rule is to be inserted, and are inserted
    with it in one transaction."""
    revives: bool = True
    """False where a row that the existing side deleted is not inserted there again."""
    overrides: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Child's name, or "*" for all -> column -> the value that is desired in that child."""
    on_missing: Action = Action.INSERT
    on_changed: Action = Action.UPDATE
    on_extra: Action = Action.REPORT
    removes: Removes = Removes.ALL
    replaces: Replacing | None = None
    """How a row is replaced whose key has another preserved id; None where that is only a finding."""
    limits: Limits = Limits()
    settle: timedelta | None = None
    """How long to wait before differences are read again; None for the run's own setting."""
    tolerance: Mapping[str, float] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    after: tuple[Notice, ...] = ()
    says: tuple[Saying, ...] = ()
    changed: Position | None = None
    """Where another file changes the rule, so that it is not what its pack says."""

    def shared(self) -> tuple[int, ...]:
        """Return where in the key the columns stand that say with which row each row comes."""
        assert self.comes_with is not None, self.id
        names = [name.lower() for name in self.key]
        return tuple(names.index(column.lower()) for column in self.comes_with.by)

    def leading(self, key: Key) -> Key:
        """Return the part of a row's key that it has in common with the row that it comes with."""
        return tuple(key[at] for at in self.shared())

    def led(self, leader: Rule, key: Key) -> Key:
        """Return the same part of the key of a row of the leader."""
        assert self.comes_with is not None, self.id
        names = [name.lower() for name in leader.key]
        return tuple(key[names.index(column.lower())] for column in self.comes_with.by.values())

    def named(self, key: Key) -> str:
        """Return a key in words: "aggregate_id=east, host=compute-1"."""
        return ", ".join(f"{name}={shown(part)}" for name, part in zip(self.key, key, strict=True))


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a person loses when the rows of a rule drift."""

    name: str
    lost: str = ""
    """The loss in one sentence, for people who do not know the tables."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What the databases must be before any rule of a pack is compared."""

    equal_versions: tuple[str, ...] = ()
    """Version tables: the value of the first that parent or child has must be equal in both."""
    parent_version: Gate | None = None
    repository: str | None = None
    """What ``repository_id`` of ``migrate_version`` must say where it says anything."""
    child_repository: str | None = None
    """The same in a child."""
    otherwise: str = ""
    """What to do about databases that the pack is not for."""


@dataclass(frozen=True, kw_only=True)
class Heartbeats:
    """A table in which services say that they are alive, and which services must be in it."""

    database: str = "nova"
    """"nova" for the cell's own database, else the name of one of ``Cell.databases``."""
    table: str
    name: str
    host: str
    beat: tuple[str, ...]
    """When a service was last alive, in UTC: the latest of these columns, as far as there are."""
    where: str | None = None
    stale: timedelta = timedelta(seconds=60)
    needed: Mapping[Role, Mapping[str, str]] = field(default_factory=dict)
    """Role -> service, in which * stands for any letters -> what is lost when none of it is alive."""
    optional: frozenset[str] = frozenset()
    """Services without which requests still find their way."""
    through_broker: frozenset[str] = frozenset()
    """Services whose heartbeats reach the table through the cell's broker."""


@dataclass(frozen=True, kw_only=True)
class NeedAsk:
    """One question of a step: a SELECT with the parameters ``:parent`` and ``:child``."""

    name: str
    """What ``Need.finds`` calls the answer."""
    of: Role
    """Whose database it is for."""
    sql: str
    most: int
    """More rows than this are no answer."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that a feature needs: rules in step, or what a query finds; neither of them is a note.

    Texts are templates of {parent} and {child}; a query has the parameters ``:parent`` and ``:child``.
    A step with ``finds`` is one statement for each row of it, whose columns the texts may name too.
    """

    says: str
    rules: tuple[str, ...] = ()
    query: str = ""
    asks: tuple[NeedAsk, ...] = ()
    finds: str = ""
    """SQL of SQLite over the answers to ``asks``; the columns status and evidence say how each row stands."""
    cell: Role = Role.CHILD
    """Whose database the query is for."""
    none: bool = False
    """True where the query must find nothing."""
    do: str = ""
    when: Gate | None = None
    optional: bool = False
    """True where the feature may work without it."""


class Source(str, Enum):
    """Whose database a detector asks."""

    PARENT = "parent"
    CHILD = "child"
    """The child that is looked at: the detector gives findings for each child."""
    CHILDREN = "children"
    """Every child of the topology, whatever the scope; all their answers are one table."""


MOST_ROWS = 10_000
"""So many rows an answer may have unless its ask says otherwise, and so many findings a detector gives."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question of a detector: a SELECT, and whose database it is for; or what a rule found."""

    name: str
    """What ``Detector.finds`` calls the answer."""
    of: Source
    database: str = ""
    """One of ``Cell.databases``; empty for the cell's own."""
    sql: str = ""
    """Its parameters are ``:parent`` and ``:child``, the cells' names, and those of ``given``."""
    given: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Parameter -> an earlier question and a column of its answer, whose values it holds, as in IN :name."""
    differs: str = ""
    """Instead of ``sql``: a rule whose differences in the child are the answer, by kind and key."""
    most: int = MOST_ROWS
    """More rows than this are a failure: an answer is never cut."""
    excepted: str = ""
    """Another question of the same columns: rows that its answer has too are not wanted."""


class Way(str, Enum):
    """How what is to be done is done."""

    WORDS = "words"
    SHELL = "shell"
    """A command of a shell; values in it are quoted for one."""
    SQL = "sql"
    """Statements for one cell's database; values in them are SQL literals."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do about a finding: a template of the same names as ``Detector.says``."""

    text: str
    way: Way = Way.WORDS
    cell: Role | None = None
    """Whose database statements are for; None for that of the cell whose rows are wrong."""


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Something wrong that no comparison of rows shows, and what to do about it.

    Its questions are asked, the answers related by ``finds``, and every row of that is a finding.
    """

    id: str
    """Also the code of its findings."""
    pack: str
    position: Position
    why: str = ""
    features: tuple[str, ...] = ()
    when: Gate | None = None
    asks: tuple[Ask, ...]
    finds: str = ""
    """SQL of SQLite over the answers, each a table of its name; empty where the one answer says it all."""
    key: tuple[str, ...]
    """The columns of what was found that name a finding."""
    says: str
    """A template of {parent}, {child}, {cell} and the columns of what was found."""
    do: Advice
    optional: bool = False
    """True where it is left out when a database that it asks is not in the configuration."""

    @property
    def each_child(self) -> bool:
        """Say whether it looks at one child at a time."""
        return any(ask.of is Source.CHILD for ask in self.asks)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A named file of rules."""

    name: str
    file: str
    why: str = ""
    requires: Requirement = Requirement()
    rules: tuple[Rule, ...]
    features: tuple[Feature, ...] = ()
    services: tuple[Heartbeats, ...] = ()
    explains: Mapping[str, tuple[Need, ...]] = field(default_factory=dict)
    """Feature -> what it needs, in the order in which it builds on each other."""
    detectors: tuple[Detector, ...] = ()
    changes: tuple[str, ...] = ()
    """The ids of the rules that the file changes."""
    hides: tuple[str, ...] = ()
    """Patterns of columns that no output shows, unless the configuration shows them."""


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """The rules of one run, every rule after the rules that it references."""

    packs: tuple[Pack, ...]
    rules: tuple[Rule, ...]
    digest: str
    """SHA-256 of the rules' meaning, in hex: a plan made with other rules is told by it."""
    left_out: frozenset[str] = frozenset()
    """The ids of the files' rules and detectors that a selection left out."""
    torn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rule with ``replaces`` -> the rules that refer to it, and that a selection left out."""

    @property
    def hides(self) -> tuple[str, ...]:
        """The patterns of columns that the packs hide."""
        return tuple(pattern for pack in self.packs for pattern in pack.hides)

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The detectors of all packs, in the order of the files."""
        return tuple(detector for pack in self.packs for detector in pack.detectors)

    def detector(self, detector_id: str) -> Detector | None:
        """Return the detector of that id, or None."""
        return next((each for each in self.detectors if each.id == detector_id), None)

    @property
    def named(self) -> tuple[Rule | Detector, ...]:
        """All that goes by an id: the rules, then the detectors."""
        return (*self.rules, *self.detectors)

    def rule(self, rule_id: str) -> Rule | None:
        """Return the rule of that id, or None."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    def feature(self, name: str) -> Feature | None:
        """Return the feature that a pack describes under that name, or None."""
        return next((f for pack in self.packs for f in pack.features if f.name == name), None)
