"""Compare a parent with a child independently of cellsync: plain SELECTs and a small model of the rules.

Nothing here is imported from cellsync, so that one mistake cannot be in both (``test_oracle`` holds it).
It reads whole tables and is meant for the small ones of tests. MariaDB only.

``read_rules``       the rules of rule files, from their YAML
``take_snapshot``    all rows of one database, and which of them each rule is about
``judge_rules``      which keys are missing, changed and extra, and which cannot be judged

``oracle_writes`` says what a repair did to the child, and what of it no rule asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import pymysql
import yaml
from sqlalchemy.engine import make_url

Row = dict[str, Any]
Key = tuple[Any, ...]


# -- Rules --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """One rule with its defaults, as far as it says which rows and columns are compared and written."""

    id: str
    text: Mapping[str, Any]

    @property
    def tables(self) -> tuple[str, str]:
        """The names of the table in the parent and in the child."""
        return str(self.text["table"]), str(self.text.get("child_table", self.text["table"]))

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the key."""
        return tuple(self.text["key"])

    @property
    def is_upward(self) -> bool:
        """True where the child is right and the parent is written."""
        return bool(self.text.get("direction") == "up")

    @property
    def references(self) -> Mapping[str, str]:
        """Column -> the rule whose row it refers to."""
        return dict(self.text.get("references") or {})

    @property
    def soft_delete(self) -> Mapping[str, Any]:
        """The soft delete, {} where there is none."""
        return dict(self.text.get("soft_delete") or {})

    def where(self, *, desired: bool) -> str:
        """Return the condition of one side."""
        where = self.text.get("where", "TRUE")
        return str(
            where if isinstance(where, str) else where.get("desired" if desired else "existing", "TRUE")
        )

    def action(self, kind: str) -> str:
        """Return what is done about a kind of difference."""
        usual = {"missing": "insert", "changed": "update", "extra": "report"}
        return str(self.text.get(f"on_{kind}", usual[kind]))


def read_rules(*texts: str) -> list[Rule]:
    """Return the rules of rule files, each with the defaults of its file and the changes of all."""
    files = [yaml.safe_load(text) for text in texts]
    changes = {name: change for file in files for name, change in (file.get("changes") or {}).items()}
    rules = []
    for file in files:
        for given in file.get("rules") or ():
            name = str(given.get("id", given["table"]))
            rules.append(Rule(name, {**(file.get("defaults") or {}), **given, **changes.get(name, {})}))
    return rules


# -- Databases ----------------------------------------------------------------------------------

_FAMILIES = {
    "integer": "tinyint smallint mediumint int bigint bit year",
    "decimal": "decimal",
    "float": "float double",
    "temporal": "date datetime timestamp time",
    "binary": "binary varbinary tinyblob blob mediumblob longblob geometry point linestring polygon "
    "multipoint multilinestring multipolygon geometrycollection",
}
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in names.split()}


@dataclass(frozen=True)
class Column:
    """One column as information_schema describes it."""

    name: str
    type: str
    extra: str

    @cached_property
    def kind(self) -> str:
        """The type without its size."""
        return re.split(r"[ (]", self.type)[0]

    @cached_property
    def family(self) -> str:
        """What it may be compared with."""
        return _FAMILY_OF.get(self.kind, "text")

    @property
    def is_generated(self) -> bool:
        """True where the server computes it."""
        return "generated" in self.extra

    @property
    def is_numbered(self) -> bool:
        """True for AUTO_INCREMENT."""
        return "auto_increment" in self.extra

    def read(self) -> str:
        """Return the expression that gives it whole."""
        quoted = f"t.{quote_name(self.name)}"
        if self.kind == "float":
            return f"CAST({quoted} AS DOUBLE)"
        return f"CAST({quoted} AS CHAR)" if self.kind in {"uuid", "inet4", "inet6"} else quoted

    def canonical(self, value: bytes | None) -> Any:
        """Return what the server sent as a value that can be compared."""
        if value is None:
            return None
        if self.kind == "bit":
            return int.from_bytes(value, "big")
        return value if self.family == "binary" else self._canonical_text(decode_text(value))

    def _canonical_text(self, value: str) -> Any:
        if self.family == "temporal":
            return re.sub(r"\.?0+$", "", value) if "." in value else value
        make = {"integer": int, "decimal": Decimal, "float": float}.get(self.family)
        return make(value) if make else value


@dataclass(frozen=True)
class Table:
    """One table and all its rows."""

    name: str
    columns: Mapping[str, Column]
    primary: tuple[str, ...]
    foreign: tuple[tuple[str, str, str], ...]
    """(column, table, column there) of foreign keys of one column."""
    rows: Sequence[Row]
    scope: Mapping[str, Sequence[bool]]
    """Rule -> whether each row meets its ``where``."""

    def identify(self, row: Row) -> Key:
        """Return the primary key of a row, or all of it where there is none."""
        return tuple(row[name] for name in self.primary or self.columns)

    def spell(self, name: str) -> str:
        """Return a column's name as the table has it."""
        if name in self.columns:
            return name
        return next((each for each in self.columns if each.lower() == name.lower()), name)

    def find_rows(self, column: str, value: Any) -> Sequence[Row]:
        """Return the rows that hold a value, in their order; of many rows many may ask for one."""
        if column not in self._held:
            held = self._held[column] = {}
            for row in self.rows:
                held.setdefault(row[column], []).append(row)
        return self._held[column].get(value, ())

    @cached_property
    def _held(self) -> dict[str, dict[Any, list[Row]]]:
        """Column -> value -> the rows that hold it."""
        return {}


@dataclass(frozen=True)
class Snapshot:
    """All tables of one database."""

    tables: Mapping[str, Table]
    equal: Mapping[tuple[str, str], Mapping[Any, Any]] = field(default_factory=dict)
    """(rule, column) -> value that refers -> the value that the server finds equal to it there."""

    def table(self, name: str) -> Table | None:
        """Return a table by its name, whose case may not matter."""
        alike = (table for other, table in self.tables.items() if other.lower() == name.lower())
        return self.tables.get(name) or next(alike, None)


def quote_name(name: str) -> str:
    """Return a name in backticks."""
    return "`" + name.replace("`", "``") + "`"


def decode_text(value: bytes) -> str:
    """Return text as it came, and what is none so that it stays what it is: a server takes it, too."""
    return value.decode("utf-8", errors="surrogateescape")


def open_plainly(url: str) -> pymysql.connections.Connection[Any]:
    """Connect without any conversion of values, in UTC."""
    made = make_url(url)
    return pymysql.connect(
        host=made.host or "127.0.0.1",
        port=made.port or 3306,
        user=made.username or "",
        password=made.password or "",
        database=made.database,
        charset="utf8mb4",
        conv={},
        autocommit=True,
        ssl_disabled=True,  # else the certificates of the system are read for each connection
        init_command="SET SESSION time_zone = '+00:00', sql_mode = ''",
    )


def take_snapshot(url: str, rules: Sequence[Rule], *, of_parent: bool) -> Snapshot:
    """Read a whole database; a condition that its table does not understand holds for no row."""
    with open_plainly(url) as connection:
        return _read_all(connection, rules, of_parent)


def _read_all(connection: Any, rules: Sequence[Rule], of_parent: bool) -> Snapshot:
    connection.use_unicode = False

    def ask_bytes(query: str) -> Sequence[Sequence[bytes | None]]:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def ask(query: str) -> Sequence[Sequence[Any]]:
        return [[None if each is None else decode_text(each) for each in row] for row in ask_bytes(query)]

    columns: dict[str, dict[str, Column]] = {}
    for table, name, kind, extra in ask(_COLUMNS):
        columns.setdefault(table, {})[name] = Column(name, kind.lower(), extra.lower())
    primary: dict[str, tuple[str, ...]] = {}
    foreign: dict[str, list[tuple[str, str, str, str]]] = {}
    for table, constraint, name, target, there in ask(_KEYS):
        if constraint == "PRIMARY":
            if name not in columns[table]:
                continue  # the end of a version, which is part of the key and shown nowhere else
            primary[table] = (*primary.get(table, ()), name)
        elif target is not None:
            foreign.setdefault(table, []).append((constraint, name, target, there))
    tables: dict[str, Table] = {}
    for table, known in columns.items():
        mine = [rule for rule in rules if rule.tables[not of_parent].lower() == table.lower()]
        conditions = [f"({rule.where(desired=of_parent != rule.is_upward)}) IS TRUE" for rule in mine]
        shown = ", ".join([*(column.read() for column in known.values()), *conditions])
        read = ask_bytes(f"SELECT {shown} FROM {quote_name(table)} AS t")
        several = Counter(constraint for constraint, *_ in foreign.get(table, ()))
        tables[table] = Table(
            name=table,
            columns=known,
            primary=primary.get(table, ()),
            foreign=tuple(key[1:] for key in foreign.get(table, ()) if several[key[0]] == 1),
            rows=[
                {column.name: column.canonical(value) for column, value in zip(known.values(), row)}  # noqa: B905
                for row in read
            ],
            scope={rule.id: [row[len(known) + at] == b"1" for row in read] for at, rule in enumerate(mine)},
        )
    snapshot = Snapshot(tables)
    return Snapshot(tables, dict(_find_equals(ask, snapshot, rules, of_parent)))


_COLUMNS = """SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, EXTRA FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION"""
_KEYS = """SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME
FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = DATABASE()
ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION"""


def _find_equals(
    ask: Any, snapshot: Snapshot, rules: Sequence[Rule], of_parent: bool
) -> Iterator[tuple[tuple[str, str], Mapping[Any, Any]]]:
    """Yield which values of text refer to which, for a collation may find more than one equal."""
    by_id = {rule.id: rule for rule in rules}
    for rule in rules:
        table = snapshot.table(rule.tables[not of_parent])
        for name, target in rule.references.items():
            other = snapshot.table(by_id[target].tables[not of_parent]) if target in by_id else None
            if table is None or other is None or table.spell(name) not in table.columns:
                continue
            column, there = table.columns[table.spell(name)], find_referenced(table, table.spell(name), other)
            if column.family != "text" or there is None:
                continue
            mine, its = f"t.{quote_name(column.name)}", f"r.{quote_name(there)}"
            joined = f"{quote_name(table.name)} t JOIN {quote_name(other.name)} r ON {its} = {mine}"
            pairs = ask(f"SELECT {mine}, {its} FROM {joined}")  # DISTINCT would take equal ones for one
            equal: dict[Any, Any] = {}
            for value, held in pairs:
                equal[value] = held if value == held or value not in equal else equal[value]
            yield (rule.id, column.name), equal


def find_referenced(table: Table, column: str, other: Table) -> str | None:
    """Return which column of another table a column refers to."""
    for name, target, there in table.foreign:
        if (name, target) == (column, other.name):
            return there
    numbered = [each.name for each in other.columns.values() if each.is_numbered]
    return next(iter([*numbered, *other.primary]), None)


# -- Comparing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dangling:
    """A reference that leads to no live row."""

    raw: Any


@dataclass
class Judged:
    """What one rule should say about one child."""

    rule: Rule
    columns: tuple[str, ...] = ()
    """The compared columns, as the desired side spells them."""
    missing: set[Key] = field(default_factory=set)
    changed: dict[Key, set[str]] = field(default_factory=dict)
    extra: set[Key] = field(default_factory=set)
    aside: dict[Key, str] = field(default_factory=dict)
    """Keys that cannot be judged, and why."""
    limbo: list[Key] = field(default_factory=list)
    """The keys of rows whose soft-delete column is NULL."""
    broken: str = ""
    """Why nothing can be judged; empty otherwise."""
    desired: dict[Key, tuple[Row, Key]] = field(default_factory=dict)
    """Key -> the row, and the values of the compared columns as the other side should have them."""
    existing: dict[Key, tuple[Row, Key]] = field(default_factory=dict)

    @property
    def differences(self) -> set[tuple[str, Key]]:
        """All differences, as (kind, key)."""
        kinds = (("missing", self.missing), ("changed", self.changed), ("extra", self.extra))
        return {(kind, key) for kind, keys in kinds for key in keys}


@dataclass(frozen=True)
class Edge:
    """A parent and one of its children at one time."""

    rules: Sequence[Rule]
    parent: Snapshot
    child: Snapshot
    names: tuple[str, str] = ("api", "c1")
    owned: Mapping[str, Mapping[str, set[Any]]] = field(default_factory=dict)
    """Rule -> child -> the values without a path that the child owns."""

    def side(self, rule: Rule, *, desired: bool) -> tuple[Snapshot, bool]:
        """Return the database of one side of a rule, and whether it is the parent's."""
        of_parent = desired != rule.is_upward
        return (self.parent if of_parent else self.child), of_parent

    def table(self, rule: Rule, *, desired: bool) -> Table | None:
        """Return the table of one side of a rule."""
        snapshot, of_parent = self.side(rule, desired=desired)
        return snapshot.table(rule.tables[not of_parent])

    def find_rule(self, rule_id: str) -> Rule:
        """Return the rule of that id."""
        return next(rule for rule in self.rules if rule.id == rule_id)


def judge_rules(edge: Edge) -> dict[str, Judged]:
    """Return what each rule should say."""
    judged = {rule.id: judge_rule(edge, rule) for rule in edge.rules}
    for each in judged.values():
        if company := each.rule.text.get("comes_with"):
            _keep_companions(edge, each, judged[company["rule"]], company["by"])
    return judged


def judge_rule(edge: Edge, rule: Rule) -> Judged:
    """Compare all rows of one rule."""
    desired, existing = edge.table(rule, desired=True), edge.table(rule, desired=False)
    if desired is None or existing is None:
        return Judged(rule, broken="a side has no such table")
    judged = Judged(rule, columns=tuple(list_compared(rule, desired)))
    for name in (*rule.key, *judged.columns):
        one = desired.columns.get(desired.spell(name))
        other = existing.columns.get(existing.spell(name))
        if one is None or other is None:
            judged.broken = f"a side has no column {name}"
        elif one.family != other.family and name not in rule.references:
            judged.broken = f"column {name} is {one.family} and {other.family}"
        elif name in rule.references and not _has_key(edge, edge.find_rule(rule.references[name])):
            judged.broken = f"a side has no key for what {name} refers to"
    if judged.broken:
        return judged
    _index_side(judged, edge, desired=True)
    _index_side(judged, edge, desired=False)
    _set_preserved_aside(judged)
    wanted = {key: pair for key, pair in judged.desired.items() if key not in judged.aside}
    held = {key: pair for key, pair in judged.existing.items() if key not in judged.aside}
    judged.missing, judged.extra = wanted.keys() - held.keys(), held.keys() - wanted.keys()
    for key in wanted.keys() & held.keys():
        columns = {
            name
            for name, one, other in zip(judged.columns, wanted[key][1], held[key][1], strict=True)
            if one != other and not _is_tolerated(rule, name, one, other)
        }
        if columns:
            judged.changed[key] = columns
    return judged


def _has_key(edge: Edge, rule: Rule) -> bool:
    """Say whether both sides have all that says which row of a rule one refers to."""
    for table in (edge.table(rule, desired=True), edge.table(rule, desired=False)):
        if table is not None and any(table.spell(name) not in table.columns for name in rule.key):
            return False
    others = (rule.references[name] for name in rule.key if name in rule.references)
    return all(other == rule.id or _has_key(edge, edge.find_rule(other)) for other in others)


def list_compared(rule: Rule, desired: Table) -> Iterator[str]:
    """Yield the columns that are compared besides the key."""
    columns, soft = rule.text.get("columns") or {}, rule.soft_delete
    kept = {name.lower(): how for name, how in (rule.text.get("surrogate") or {}).items()}
    key = {name.lower() for name in rule.key}
    left = {
        *key,
        *map(str.lower, rule.text.get("on_insert") or {}),
        *map(str.lower, columns.get("exclude") or ()),
    }
    left |= {str(soft.get(name)).lower() for name in ("column", "at")}
    for column in desired.columns.values():
        name = column.name.lower()
        if kept.get(name) == "preserve" and name not in key:
            yield column.name
        elif "include" in columns:
            if name in map(str.lower, columns["include"]) and name not in key:
                yield column.name
        elif (
            name not in left
            and not column.is_generated
            and not column.is_numbered
            and kept.get(name) != "remap"
        ):
            yield column.name


def _is_tolerated(rule: Rule, name: str, one: Any, other: Any) -> bool:
    within = (rule.text.get("tolerance") or {}).get(name)
    numbers = all(isinstance(value, (int, float, Decimal)) for value in (one, other))
    return within is not None and numbers and abs(float(one) - float(other)) <= within


def _index_side(judged: Judged, edge: Edge, *, desired: bool) -> None:
    rule, soft = judged.rule, judged.rule.soft_delete
    table = edge.table(rule, desired=desired)
    assert table is not None
    into = judged.desired if desired else judged.existing
    overrides = rule.text.get("overrides") or {}
    given = {**overrides.get("*", {}), **overrides.get(edge.names[1], {})} if desired else {}
    paths: dict[Key, set[Any]] = {}
    for row, inside in zip(table.rows, table.scope[rule.id], strict=True):
        if not inside:
            continue
        owned = _is_routed(edge, rule, row) if desired != rule.is_upward else True
        if owned is False:
            continue
        key = tuple(read_part(edge, rule, table, row, name, desired=desired) for name in rule.key)
        if soft and row[table.spell(soft["column"])] is None:
            judged.limbo.append(key)
            continue
        if soft and row[table.spell(soft["column"])] != soft["live"]:
            continue
        if owned is None:
            judged.aside[key] = "which child it belongs to is open"
            continue
        values = tuple(
            given.get(name, read_part(edge, rule, table, row, name, desired=desired))
            for name in judged.columns
        )
        if has_dangling(key) or (desired and has_dangling(values)):
            judged.aside[key] = "it refers to a row that is not there"
        elif key in into:
            route = (rule.text.get("route") or {}).get("column")
            if route is None or row.get(route) in paths[key] or into[key][1] != values:
                judged.aside[key] = "two rows have this key"
        else:
            into[key] = (row, values)
        paths.setdefault(key, set()).add(row.get((rule.text.get("route") or {}).get("column", "")))


def _is_routed(edge: Edge, rule: Rule, row: Row) -> bool | None:
    """Say whether a row of the parent is for this child; None where nobody or several have it."""
    route = rule.text.get("route")
    if not route:
        return True
    parent, child = edge.names
    value = row[route["column"]]
    path, at, _ = str(value).rpartition("@")
    if at or "else_where_exists" not in route:
        return bool((path if at else value) == route["path"].format(parent=parent, child=child))
    owners = [name for name, values in edge.owned.get(rule.id, {}).items() if value in values]
    return child in owners if len(owners) == 1 else None


def read_part(edge: Edge, rule: Rule, table: Table, row: Row, name: str, *, desired: bool) -> Any:
    """Return a value of a row: of a reference the key of the row that it refers to."""
    column = table.spell(name)
    value = row[column]
    target = {each.lower(): rule_id for each, rule_id in rule.references.items()}.get(name.lower())
    if value is None:
        return None
    if target is not None:
        snapshot, of_parent = edge.side(rule, desired=desired)
        other_rule = edge.find_rule(target)
        other = snapshot.table(other_rule.tables[not of_parent])
        there = find_referenced(table, column, other) if other else None
        if other is None or there is None:
            return Dangling(value)
        equal = snapshot.equal.get((rule.id, column), {}).get(value, value)
        for each in other.find_rows(there, equal):
            soft = other_rule.soft_delete
            if soft and each[other.spell(soft["column"])] != soft["live"]:
                continue
            return tuple(
                read_part(edge, other_rule, other, each, part, desired=desired) for part in other_rule.key
            )
        return Dangling(value)
    how = (rule.text.get("transforms") or {}).get(name)
    if desired and how == "item_of_cell_path":
        return value.rpartition("@")[2]
    if desired and how == "item_with_cell_path":
        return f"{edge.names[0]}!{edge.names[1]}@{value}"
    return value


def has_dangling(parts: Iterable[Any]) -> bool:
    """Say whether a value, or a part of one, refers to nothing."""
    return any(isinstance(p, Dangling) or (isinstance(p, tuple) and has_dangling(p)) for p in parts)


def _set_preserved_aside(judged: Judged) -> None:
    for name, how in (judged.rule.text.get("surrogate") or {}).items():
        if how != "preserve" or name not in judged.columns:
            continue
        at = judged.columns.index(name)
        holders = {values[at]: key for key, (_, values) in judged.existing.items()}
        for key, (_, values) in judged.desired.items():
            held = judged.existing.get(key)
            if (held and held[1][at] != values[at]) or (not held and values[at] in holders):
                judged.aside[key] = f"{name} is another one, or another row's"


def _keep_companions(edge: Edge, judged: Judged, leader: Judged, by: Mapping[str, str]) -> None:
    """Keep only what is said of rows that come with a missing row of the leader which is to be inserted."""
    own, leading = ([part.lower() for part in rule.key] for rule in (judged.rule, leader.rule))
    mine = [own.index(name.lower()) for name in by]
    its = [leading.index(name.lower()) for name in by.values()]
    coming = leader.missing - _find_kept_out(edge, leader)
    if leader.rule.action("missing") != "insert":
        coming.clear()  # nothing comes that others could come with
    led = {tuple(key[at] for at in its) for key in coming}

    def is_led(key: Key) -> bool:
        return tuple(key[at] for at in mine) in led

    judged.missing = set(filter(is_led, judged.missing))
    judged.changed = {key: columns for key, columns in judged.changed.items() if is_led(key)}
    judged.aside = {key: why for key, why in judged.aside.items() if is_led(key)}
    judged.extra = set()


def _find_kept_out(edge: Edge, leader: Judged) -> set[Key]:
    """Return the missing keys of rows that are there all the same: deleted for good, or not compared."""
    rule, soft = leader.rule, leader.rule.soft_delete
    table = edge.table(rule, desired=False)
    if table is None:
        return set()
    found: set[Key] = set()
    for row in table.rows:
        is_live = not soft or row[table.spell(soft["column"])] == soft["live"]
        if is_live or rule.text.get("revives") is False:
            found.add(tuple(read_part(edge, rule, table, row, name, desired=False) for name in rule.key))
    return found
