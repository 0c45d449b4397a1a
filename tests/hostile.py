"""Make hostile schemas with hostile rows from one integer each.

A case is plain data, so that a failing one can be made smaller (``shrink_case``): tables with columns
that may differ between the sides, the rows of both sides as SQL literals, and the rules.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

_FEATURES = """
    on-update generated-column generated-unique generated-key generated-in-key self-key self-reference
    circular composite-key pad-collation nopad-collation enum versioned view partitions invisible narrower
    wider other-family compared-id packet trigger soft-delete reference key-reference foreign-key null-key
    not-null-default unique-value outside excluded dangling no-unique-key cascade
    two-column-key ambiguous-reference
"""
FEATURES = frozenset(_FEATURES.split())
"""What may be in a case. Each can be switched off."""

PACKET = 1 << 20
"""``max_allowed_packet`` of the server that the cases are for."""
TIME = 1_600_000_000
"""When all rows were written, as far as their columns know."""


@dataclass(frozen=True)
class Type:
    """A column type, what can be held instead on the other side, and values as literals."""

    name: str
    values: tuple[str, ...]
    wider: str
    narrower: str
    other: str


def _type(name: str, values: str, wider: str, narrower: str, other: str = "varchar(40)") -> Type:
    return Type(name, tuple(values.split("|")), wider, narrower, other)


def _text(collation: str) -> Type:
    kind = f"varchar(12) CHARACTER SET utf8mb4 COLLATE utf8mb4_{collation}"
    values = "'a'|'A'|'b'|'B '|'b'|'é'|'e'|'😀'|'😁'|''|'x-y'|'%s:x'"
    wide = kind.replace("12", "30")
    narrow = kind.replace("varchar(12)", "char(12)") if "nopad" in collation else kind.replace("12", "2")
    return _type(kind, values, wide, narrow, "varbinary(40)")


PLAIN_KEYS = (
    _type("int", "0|1|2|3|7|-1|2147483647", "bigint", "smallint"),
    _type("bigint unsigned", "0|1|2|18446744073709551615|9223372036854775808", "decimal(20,0)", "bigint"),
    _type("datetime(6)", "'2024-01-01 00:00:00'|'2024-01-01 00:00:00.000001'|'2024-01-01 00:00:00.5'"
          "|'2024-02-29 12:00:00'", "datetime(6)", "datetime"),
    _type("decimal(20,10)", "'1'|'1.00001'|'1.0000000001'|'-3.5'|'0'", "decimal(30,10)", "decimal(20,4)"),
    _type("double", "0.1|1e30|-1.5|0|16777217", "double", "float"),
    _type("varbinary(8)", "x'00'|x''|x'ff'|x'61'|x'6100'", "varbinary(20)", "binary(8)"),
    _type("date", "'2024-01-01'|'0000-00-00'|'9999-12-31'", "date", "date", "datetime"),
)  # fmt: skip
PAD_KEYS = tuple(map(_text, ("general_ci", "unicode_ci", "bin")))
NOPAD_KEYS = tuple(map(_text, ("nopad_bin", "general_nopad_ci")))

DATA = (
    _type("int", "0|1|2|3|-5|1000000", "bigint", "smallint"),
    _text("general_ci"),
    _text("nopad_bin"),
    _type("float", "0.1|-1.5|3|16777216", "double", "float", "int"),
    _type("decimal(12,4)", "1.5|2.0001|-3|0", "decimal(20,8)", "decimal(12,2)", "double"),
    _type("datetime(3)", "'2024-01-01 00:00:00'|'2024-01-01 00:00:00.125'|'0000-00-00 00:00:00'",
          "datetime(6)", "datetime"),
    _type("time(2)", "'-30:00:00.25'|'12:00:00'|'00:00:00'", "time(6)", "time"),
    _type("varbinary(6)", "x'00'|x'ff00'|x''|x'2020'", "varbinary(20)", "varbinary(1)"),
    _type("bit(5)", "b'0'|b'10101'|b'11111'", "bit(9)", "bit(3)"),
    _type("json", """'{"a": 1}'|'[]'|'null'""", "json", "varchar(3)", "blob"),
    _type("text", "'long'|''|'a\\\\\\\\b'|'q''q'", "longtext", "tinytext", "blob"),
)  # fmt: skip
ENUMS = (
    _type("enum('x','y','zz')", "'x'|'y'|'zz'|'bad'", "enum('x','y','zz','more')", "enum('x','y')", "int"),
    _type("set('x','y','zz')", "'x'|'x,zz'|''|'bad'", "set('x','y','zz','more')", "set('x','y')", "int"),
)


@dataclass(frozen=True)
class Column:
    """One column on both sides; ``literals`` is what rows may hold."""

    name: str
    kinds: tuple[str, str]
    literals: tuple[str, ...] = ()
    tail: str = ""
    nullable: bool = True

    def define(self, side: int) -> str:
        """Return its part of a CREATE TABLE."""
        null = "NULL" if self.nullable else "NOT NULL"
        return f"`{self.name}` {self.kinds[side]} {'' if 'AS (' in self.tail else null} {self.tail}"


Literals = dict[str, str]


@dataclass(frozen=True)
class Table:
    """One table on both sides, its rows, and its rule."""

    name: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    """Foreign keys that are added when all tables are there."""
    options: tuple[str, str] = ("", "")
    view: int | None = None
    """The side on which it is a view."""
    triggers: tuple[str, ...] = ()
    rows: tuple[tuple[Literals, ...], tuple[Literals, ...]] = ((), ())
    rule: dict[str, object] = field(default_factory=dict)
    tidy: tuple[str, ...] = ()
    """Statements that leave no row without the one that its foreign key needs."""

    def create(self, side: int) -> Iterator[str]:
        """Yield what makes it on one side: 0 is the parent's."""
        real = f"{self.name}_real" if self.view == side else self.name
        parts = ", ".join([*(column.define(side) for column in self.columns), *self.keys])
        yield f"CREATE TABLE {real} ({parts}) DEFAULT CHARACTER SET utf8mb4 {self.options[side]}"
        if self.view == side:
            names = ", ".join(f"`{column.name}`" for column in self.columns)
            yield f"CREATE VIEW {self.name} AS SELECT {names} FROM {real}"

    def fill(self, side: int) -> Iterator[str]:
        """Yield what inserts the rows of one side; those that break a unique key are left out."""
        for row in self.rows[side]:
            names = ", ".join(f"`{name}`" for name in row)
            yield f"INSERT IGNORE INTO {self.name} ({names}) VALUES ({', '.join(row.values())})"


@dataclass(frozen=True)
class Case:
    """One case: its tables in the order of their references, and how it is run."""

    seed: int
    features: frozenset[str]
    tables: tuple[Table, ...]
    waived: tuple[str, ...] = ("empty-desired",)
    by_digests: bool = False
    by_client: bool = False

    def setup(self, side: int) -> Iterator[str]:
        """Yield the statements that make one side."""
        yield "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, time_zone = '+00:00'"
        yield f"SET @@timestamp = {TIME}"
        if any(table.triggers for table in self.tables):
            yield "CREATE TABLE audit (id int AUTO_INCREMENT PRIMARY KEY, what text)"
        for table in self.tables:
            yield from table.create(side)
        for table in self.tables:
            yield from table.later
        for table in self.tables:
            yield from table.fill(side)
        for _ in range(2):
            for table in self.tables:
                yield from table.tidy
        if side == 1:
            for table in self.tables:
                yield from table.triggers

    def rules(self) -> str:
        """Return the rule file."""
        rules = ",\n  ".join(
            json.dumps(table.rule, ensure_ascii=False) for table in self.tables if table.rule
        )
        limits = "{updates: 100%, deletes: 100%}"
        return f"defaults: {{limits: {limits}}}\nrules: [\n  {rules}]\n"

    def describe(self) -> str:
        """Return all of it as SQL and YAML."""
        sides = ("parent", "child")
        said = [f"seed {self.seed}; {', '.join(sorted(self.features))}; waived {', '.join(self.waived)}"]
        said.append(f"digests {self.by_digests}, client {self.by_client}")
        for side, name in enumerate(sides):
            said.append(f"-- {name}")
            said += [f"{text if len(text) < 400 else text[:400] + '...'};" for text in self.setup(side)]
        return "\n".join([*said, "-- rules", self.rules()])


class _Maker:
    """Draws one case; the same seed and features give the same case."""

    def __init__(self, seed: int, allowed: Collection[str]) -> None:
        self.random = random.Random(seed)
        self.allowed = allowed
        self.used: set[str] = set()
        self.tables: list[Table] = []
        self.surrogate: dict[str, bool] = {}

    def has(self, feature: str, chance: float) -> bool:
        """Say whether a feature is in; it draws whether it is allowed or not."""
        chosen = self.random.random() < chance and feature in self.allowed
        if chosen:
            self.used.add(feature)
        return chosen

    def kinds(self, kind: Type) -> tuple[str, str]:
        """Return the types of both sides."""
        made = [kind.name, kind.name]
        for feature, other in (
            ("narrower", kind.narrower),
            ("wider", kind.wider),
            ("other-family", kind.other),
        ):
            if self.has(feature, 0.07 if feature != "other-family" else 0.015):
                made[self.random.randrange(2)] = other
                break
        return made[0], made[1]

    def key_type(self) -> Type:
        """Return the type of a key column."""
        if self.has("pad-collation", 0.2):
            return self.random.choice(PAD_KEYS)
        if self.has("nopad-collation", 0.15):
            return self.random.choice(NOPAD_KEYS)
        return self.random.choice(PLAIN_KEYS)

    def data_type(self) -> Type:
        """Return the type of another column."""
        return self.random.choice(ENUMS if self.has("enum", 0.15) else DATA)

    def table(self, number: int) -> Table:
        """Draw one table, which may refer to those before it."""
        name = f"t{number}"
        rule: dict[str, object] = {"table": name}
        kind = self.key_type()
        surrogate = self.random.random() < 0.6
        compared_id = surrogate and self.has("compared-id", 0.3)
        columns, keys = [], []
        if surrogate:
            tail = "PRIMARY KEY" if compared_id else "AUTO_INCREMENT PRIMARY KEY"
            columns.append(Column("id", ("int", "int"), tail=tail, nullable=False))
        self.surrogate[name] = surrogate
        null_key = surrogate and self.has("null-key", 0.2)
        key = Column("k", self.kinds(kind), kind.values, nullable=null_key)
        columns.append(key)
        names = ["k"]
        references: dict[str, str] = {}
        if self.has("two-column-key", 0.2):
            columns.append(Column("k2", ("int", "int"), ("1", "2"), nullable=False))
            names.append("k2")
        links: list[tuple[str, str]] = []
        # A reference that leads to several rows must be named, and is rare.
        alone = [t for t in self.tables if self.surrogate[t.name] or "k2" not in str(t.rule["key"])]
        fit = self.tables if self.has("ambiguous-reference", 0.05) else alone
        if self.has("reference", 0.6) and fit:
            other = self.random.choice(fit)
            target = other.name
            to = "id" if self.surrogate[target] else "k"
            held = next(column for column in other.columns if column.name == to)
            in_key = surrogate and self.has("key-reference", 0.3)
            columns.append(Column("r", held.kinds, ("ref",)))
            references["r"] = target
            names += ["r"] * in_key
            links.append((target, to))
        if not surrogate:
            keys.append(f"PRIMARY KEY ({', '.join(f'`{each}`' for each in names if each != 'r')})")
        soft = surrogate and self.has("soft-delete", 0.15)
        partitions = self.has("partitions", 0.06) and not soft
        split = {table.name for table in self.tables if "PARTITION" in "".join(table.options)}
        foreign = links and not partitions and self.has("foreign-key", 0.6) and links[0][0] not in split
        if surrogate and not partitions and not self.has("no-unique-key", 0.3):
            keys.append(f"UNIQUE KEY uk ({', '.join([*names, *(['deleted'] if soft else [])])})")
        later, tidy = self.links(name, columns, foreign_to=links if foreign else [])
        if surrogate and not partitions and self.has("self-reference", 0.15):
            columns.append(Column("up", ("int", "int"), ("ref",)))
            references["up"] = name
            later.append(_foreign_key(name, "up", name, "id"))
            tidy.append(_tidy(name, "up", name, "id"))
        elif compared_id and not partitions and self.has("self-key", 0.5):
            columns.append(Column("up", ("int", "int"), ("ref",)))
            later.append(_foreign_key(name, "up", name, "id"))
            tidy.append(_tidy(name, "up", name, "id"))
        for at in range(self.random.randint(1, 3)):
            columns.append(self.data(f"d{at}"))
        excluded = self.more(columns, keys, partitions=partitions)
        if soft:
            columns += [
                Column("deleted", ("int", "int"), ("0",)),
                Column("deleted_at", ("datetime", "datetime"), ("NULL",)),
            ]
            rule["soft_delete"] = {"column": "deleted", "live": 0, "tombstone": "id", "at": "deleted_at"}
            rule["on_insert"] = {"deleted": 0}
        if self.has("outside", 0.25):
            columns.append(Column("scope", ("int", "int"), ("1", "1", "1", "2"), nullable=False))
            rule |= {"where": "scope = 1", "on_insert": {**rule.get("on_insert", {}), "scope": 1}}  # type: ignore[dict-item]
        options = self.options(partitions, names if not surrogate else ["id"], later)
        view = self.random.randrange(2) if not later and self.has("view", 0.02) else None
        actions = ["report", "delete", "delete", "soft_delete" if soft else "delete", "ignore"]
        rule |= {"key": names, "references": references, "on_extra": self.random.choice(actions)}
        if excluded:
            rule["columns"] = {"exclude": excluded}
        made = Table(
            name, tuple(columns), tuple(keys), tuple(later), options, view, (), ((), ()), rule, tuple(tidy)
        )
        made = replace(made, triggers=tuple(self.triggers(made)) if view is None else ())
        if self.has("generated-key", 0.04):
            # What a CHAR reads as depends on the sql_mode: the server stores nothing that follows from it.
            how = "VIRTUAL" if any(each.startswith("char(") for each in key.kinds) else "STORED"
            column = Column("gk", ("varchar(60)",) * 2, tail=f"AS (CONCAT('g', HEX(`k`))) {how}")
            made = replace(made, columns=(*made.columns, column), rule={**rule, "key": ["gk", *names[1:]]})
        return self.fill(made)

    def links(
        self, name: str, columns: list[Column], *, foreign_to: list[tuple[str, str]]
    ) -> tuple[list[str], list[str]]:
        """Return foreign keys to other tables, and what makes their rows fit."""
        later, tidy = [], []
        for target, to in foreign_to:
            does = " ON DELETE CASCADE" if self.has("cascade", 0.1) else ""
            later.append(_foreign_key(name, "r", target, to) + does)
            tidy.append(_tidy(name, "r", target, to))
        return later, tidy

    def data(self, name: str) -> Column:
        """Draw an ordinary column."""
        if self.has("on-update", 0.12):
            stamp = "timestamp"
            tail = "DEFAULT current_timestamp() ON UPDATE current_timestamp()"
            return Column(
                name, (stamp, stamp), ("'2020-02-02 02:02:02'", "'2021-01-01 00:00:00'"), tail, False
            )
        if self.has("packet", 0.01):
            sizes = (PACKET // 2 + 100, PACKET - 3000, PACKET // 3)
            values = tuple(f"REPEAT('{letter}', {size})" for letter, size in zip("pqr", sizes, strict=True))
            return Column(name, ("longblob", "longblob"), values)
        kind = self.data_type()
        types = self.kinds(kind)
        # A narrower type may not take the default.
        if self.has("not-null-default", 0.2) and kind.name not in ("json", "text") and len({*types}) == 1:
            return Column(name, types, kind.values, f"DEFAULT {kind.values[0]}", False)
        tail = "INVISIBLE" if self.has("invisible", 0.05) else ""
        return Column(name, types, kind.values, tail)

    def more(self, columns: list[Column], keys: list[str], *, partitions: bool) -> list[str]:
        """Add generated, unique and excluded columns; return those that are excluded."""
        excluded = []
        if self.has("generated-column", 0.12):
            how = self.random.choice(["VIRTUAL", "STORED"])
            # What a CHAR reads as depends on the sql_mode: the server stores nothing that follows from it.
            padded = any(c.name == "d0" and any(k.startswith("char(") for k in c.kinds) for c in columns)
            how = "VIRTUAL" if padded else how
            columns.append(
                Column("g", ("varchar(90)",) * 2, tail=f"AS (CONCAT('g', HEX(LEFT(`d0`, 20)))) {how}")
            )
        if self.has("generated-unique", 0.06) and not partitions:
            columns.append(Column("w", ("int", "int"), ("1", "2", "3", "4")))
            columns.append(Column("gw", ("int", "int"), tail="AS (w + 1) STORED"))
            keys.append("UNIQUE KEY ugw (gw)")
        if self.has("generated-in-key", 0.03) and not partitions:
            columns.append(Column("v", ("int", "int"), ("1", "2", "3")))
            columns.append(Column("gv", ("int", "int"), tail="AS (v * 2) VIRTUAL"))
            keys.append("UNIQUE KEY ugv (`k`, gv)")
        if self.has("unique-value", 0.15) and not partitions:
            columns.append(Column("u", ("int", "int"), ("1", "2", "3", "4", "5", "6", "NULL")))
            keys.append("UNIQUE KEY uu (u)")
        if self.has("excluded", 0.3):
            columns.append(Column("own", ("int", "int"), ("7", "8", "9")))
            excluded.append("own")
        if self.has("on-update", 0.15):
            tail = "DEFAULT '2000-01-01' ON UPDATE current_timestamp(6)"
            columns.append(Column("touched", ("timestamp(6)",) * 2, ("'2019-09-09 09:09:09'",), tail, False))
            excluded.append("touched")
        return excluded

    def options(self, partitions: bool, primary: Sequence[str], later: Sequence[str]) -> tuple[str, str]:
        """Return what stands behind a table on both sides."""
        made = ["", ""]
        if partitions and not later:
            split = (
                f"PARTITION BY KEY ({', '.join(f'`{each}`' for each in primary if each != 'r')}) PARTITIONS 3"
            )
            made[self.random.randrange(2)] = split
        elif self.has("versioned", 0.05):
            made[self.random.randrange(2)] = "WITH SYSTEM VERSIONING"
        return made[0], made[1]

    def triggers(self, table: Table) -> Iterator[str]:
        """Yield triggers of the child that write elsewhere."""
        if self.has("trigger", 0.05):
            for event in ("INSERT", "UPDATE", "DELETE"):
                yield (
                    f"CREATE TRIGGER {table.name}_{event} AFTER {event} ON {table.name} FOR EACH ROW "
                    f"INSERT INTO audit (what) VALUES ('{table.name} {event}')"
                )

    def fill(self, table: Table) -> Table:
        """Draw the rows of both sides: the child's are the parent's, changed."""
        wanted = [self.row(table, 0) for _ in range(self.random.randint(0, 6))]
        held: list[Literals] = []
        moves = self.random.random() < 0.5
        for row in wanted:
            if self.random.random() < 0.2:
                continue
            other = self.translate(table, row)
            for column in table.columns:
                rarely = 0.06 if column.name == "k" else 0.2
                if column.name in other and column.name not in ("id", "k2") and self.random.random() < rarely:
                    other[column.name] = self.value(table, column, 1)
            held.append(other)
        held += [self.row(table, 1) for _ in range(self.random.randint(0, 2))]
        for rows, shuffled in ((wanted, False), (held, moves)):
            numbers = list(range(1, len(rows) + 1))
            if shuffled:
                self.random.shuffle(numbers)
            for row, number in zip(rows, numbers, strict=True):
                if self.surrogate[table.name]:
                    row["id"] = str(number + (20 if shuffled and self.random.random() < 0.2 else 0))
        if table.rule.get("soft_delete"):
            for row in (*wanted, *held):
                if self.random.random() < 0.2:
                    row |= {"deleted": row["id"], "deleted_at": "'2024-01-01 00:00:00'"}
                elif self.random.random() < 0.05:
                    row["deleted"] = "NULL"
        return replace(table, rows=(tuple(wanted), tuple(held)))

    def translate(self, table: Table, row: Literals) -> Literals:
        """Return a row of the parent as the child would have it, whose ids are other ones."""
        made = dict(row)
        if row.get("r", "NULL") != "NULL":
            target = next(t for t in self.tables if t.name == table.rule["references"]["r"])  # type: ignore[index]
            if self.surrogate[target.name]:
                meant = [each["k"] for each in target.rows[0] if each["id"] == row["r"]]
                there = [each["id"] for each in target.rows[1] if each["k"] in meant]
                made["r"] = (there or ["NULL"])[0]
        return made

    def row(self, table: Table, side: int) -> Literals:
        """Draw one row."""
        return {
            column.name: self.value(table, column, side)
            for column in table.columns
            if "AS (" not in column.tail
        }

    def value(self, table: Table, column: Column, side: int) -> str:
        """Draw one value; a reference takes one that is there, for the most part."""
        if column.name == "id":
            return "0"
        if column.literals == ("ref",):
            if self.random.random() < 0.3:
                return "NULL"
            if column.name == "up":
                return str(self.random.randint(1, 4))
            target = next(t for t in self.tables if t.name == table.rule["references"]["r"])  # type: ignore[index]
            to = "id" if self.surrogate[target.name] else "k"
            there = [row[to] for row in target.rows[side]]
            if not there or self.has("dangling", 0.03):
                return "NULL" if to == "k" else "77"
            return self.random.choice(there)
        if column.nullable and self.random.random() < 0.15 and column.literals:
            return "NULL"
        return self.random.choice(column.literals)


def _foreign_key(table: str, column: str, target: str, to: str) -> str:
    added = f"ALTER TABLE {table} ADD CONSTRAINT fk_{table}_{column}"
    return f"{added} FOREIGN KEY ({column}) REFERENCES {target} (`{to}`)"


def _tidy(table: str, column: str, target: str, to: str) -> str:
    return (
        f"UPDATE {table} SET `{column}` = NULL WHERE `{column}` IS NOT NULL AND `{column}` NOT IN "
        f"(SELECT * FROM (SELECT `{to}` FROM {target}) there)"
    )


def make_case(seed: int, features: Collection[str] = FEATURES) -> Case:
    """Return the case of a seed, with no other features than these."""
    maker = _Maker(seed, features)
    for number in range(maker.random.choice((1, 1, 2, 2, 3))):
        maker.tables.append(maker.table(number))
    tables = [*_with_circle(maker), *_composite(maker)]
    waived = ["empty-desired"]
    if "trigger" in maker.used:
        waived.append("triggers")
    digests, client = maker.random.random() < 0.5, maker.random.random() < 0.15
    return Case(
        seed,
        frozenset(maker.used),
        tuple(tables),
        tuple(waived),
        digests,
        client and "packet" not in maker.used,
    )


def _with_circle(maker: _Maker) -> list[Table]:
    """Return the tables, two of them with foreign keys to each other that no rule declares."""
    tables = maker.tables
    fit = [
        t for t in tables if t.columns[0].name == "id" and "AUTO" not in t.columns[0].tail and t.view is None
    ]
    fit = [t for t in fit if "PARTITION" not in "".join(t.options)]
    if len(fit) < 2 or not maker.has("circular", 0.5):
        return tables
    made = dict(zip((t.name for t in tables), tables, strict=True))
    for one, other in ((fit[0], fit[1]), (fit[1], fit[0])):
        column = Column("c", ("int", "int"))
        rows = tuple(
            tuple({**row, "c": maker.random.choice(["NULL", "1", "2", "3"])} for row in side)
            for side in one.rows
        )
        key = _foreign_key(one.name, "c", other.name, "id")
        made[one.name] = replace(
            one,
            columns=(*one.columns, column),
            rows=(rows[0], rows[1]),
            later=(*one.later, key),
            tidy=(*one.tidy, _tidy(one.name, "c", other.name, "id")),
        )
    return [*made.values()]


def _composite(maker: _Maker) -> list[Table]:
    """Return one more pair of tables with a foreign key of two columns, in a few cases."""
    if not maker.has("composite-key", 0.08):
        return []
    pairs = [(a, b) for a in "12" for b in "12"]
    ints = ("int", "int")
    owner = Table(
        "m",
        (Column("a", ints, nullable=False), Column("b", ints, nullable=False), Column("v", ints)),
        ("PRIMARY KEY (a, b)",),
        rule={"table": "m", "key": ["a", "b"], "on_extra": "delete"},
    )
    leaf = Table(
        "n",
        (Column("k", ints, nullable=False), Column("a", ints), Column("b", ints)),
        ("PRIMARY KEY (k)",),
        later=("ALTER TABLE n ADD CONSTRAINT fk_n FOREIGN KEY (a, b) REFERENCES m (a, b)",),
        tidy=("DELETE FROM n WHERE a IS NOT NULL AND b IS NOT NULL AND (a, b) NOT IN (SELECT a, b FROM m)",),
        rule={"table": "n", "key": ["k"], "on_extra": "delete"},
    )
    sides: list[tuple[tuple[Literals, ...], tuple[Literals, ...]]] = []
    for _ in range(2):
        kept = [pair for pair in pairs if maker.random.random() < 0.6]
        owners = tuple({"a": a, "b": b, "v": maker.random.choice("12")} for a, b in kept)
        leaves = []
        for k in "123":
            if kept and maker.random.random() < 0.7:
                a, b = maker.random.choice(kept)
                leaves.append({"k": k, "a": a, "b": b})
        sides.append((owners, tuple(leaves)))
    owner = replace(owner, rows=(sides[0][0], sides[1][0]))
    leaf = replace(leaf, rows=(sides[0][1], sides[1][1]))
    # The leaf's rule comes first: only the foreign key says which table is written first.
    return [leaf, owner] if maker.random.random() < 0.5 else [owner, leaf]


def shrink_case(case: Case, fails: Callable[[Case], bool], attempts: int = 200) -> Case:
    """Return a smaller case that still fails: without tables, rows, columns, keys and options."""
    at = 0
    while attempts and at < len(smaller := list(_list_smaller(case))):
        attempts -= 1
        if fails(smaller[at]):
            case = smaller[at]  # the next attempt has the same number: what came before it does not help
        else:
            at += 1
    return case


def _list_smaller(case: Case) -> Iterator[Case]:
    if case.by_client:
        yield replace(case, by_client=False)
    if case.by_digests:
        yield replace(case, by_digests=False)
    for at, table in enumerate(case.tables):
        yield replace(case, tables=case.tables[:at] + case.tables[at + 1 :])
        for smaller in _list_smaller_tables(table):
            yield replace(case, tables=(*case.tables[:at], smaller, *case.tables[at + 1 :]))


def _list_smaller_tables(table: Table) -> Iterator[Table]:
    if table.triggers:
        yield replace(table, triggers=())
    if table.options != ("", ""):
        yield replace(table, options=("", ""))
    for side in range(2):
        for at in range(len(table.rows[side])):
            rows = list(table.rows)
            rows[side] = rows[side][:at] + rows[side][at + 1 :]
            yield replace(table, rows=(rows[0], rows[1]))
    for column in table.columns:
        if column.name not in ("id", "k"):
            yield _without_column(table, column.name)
        if column.kinds[0] != column.kinds[1]:
            for kind in column.kinds:
                same = replace(column, kinds=(kind, kind))
                yield replace(table, columns=tuple(same if c is column else c for c in table.columns))
    for key in table.keys:
        if not key.startswith("PRIMARY"):
            yield replace(table, keys=tuple(each for each in table.keys if each != key))
    for key in table.later:
        yield replace(table, later=tuple(each for each in table.later if each != key))
    for name in ("columns", "where", "on_extra"):
        if name in table.rule:
            yield replace(table, rule={key: value for key, value in table.rule.items() if key != name})


def _without_column(table: Table, name: str) -> Table:
    def has_not(text: str) -> bool:
        return f"({name})" not in text and f"`{name}`" not in text and f" {name} " not in text

    rule = dict(table.rule)
    for key in ("references", "on_insert"):
        rule[key] = {c: v for c, v in (rule.get(key) or {}).items() if c != name}  # type: ignore[attr-defined]
    rule["key"] = [each for each in rule["key"] if each != name]  # type: ignore[attr-defined]
    if "columns" in rule:
        left = [each for each in rule["columns"]["exclude"] if each != name]  # type: ignore[index]
        rule = (
            {**rule, "columns": {"exclude": left}}
            if left
            else {k: v for k, v in rule.items() if k != "columns"}
        )
    rows = tuple(tuple({c: v for c, v in row.items() if c != name} for row in side) for side in table.rows)
    return replace(
        table,
        columns=tuple(column for column in table.columns if column.name != name and has_not(column.tail)),
        keys=tuple(filter(has_not, table.keys)),
        later=tuple(filter(has_not, table.later)),
        tidy=tuple(filter(has_not, table.tidy)),
        rows=(rows[0], rows[1]),
        rule=rule,
    )
