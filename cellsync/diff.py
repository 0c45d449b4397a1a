"""Compare the two sides of an edge: schemas, then rows, into differences and findings.

Pure: what is read comes in as rows, what is found goes out as values. The way through, for one
rule on one edge:

    pair()      rule + both schemas  -> Pairing (two projections), or a TableFailure
    route()     rows of the parent   -> the rows of each child, findings about the others
    compare()   rows of both sides   -> TableDiff
    confirm()   the same rows again  -> TableDiff of what still differs
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cellsync import transforms
from cellsync.model import (
    Bucketing,
    Column,
    ColumnDifference,
    Dangling,
    Difference,
    Digest,
    Direction,
    Finding,
    Join,
    Key,
    KeyPart,
    Kind,
    Projected,
    Projection,
    Row,
    Rule,
    RuleSet,
    SchemaDifference,
    ServerTime,
    Status,
    Surrogate,
    Table,
    TableDiff,
    TableFailure,
)


class Reader(Protocol):
    """One database, read through projections."""

    def rows(
        self, projection: Projection, *, keys: Sequence[Key] | None = None, tombstones: bool = False
    ) -> Iterator[Row]:
        """Yield the live rows (and those in limbo) of a projection, in no particular order.

        With ``keys``, only rows whose key equals one of them *under the table's own collation*:
        more than binary equality finds, so the caller must look again. With ``tombstones``, the
        soft-deleted rows instead, whose ``since`` is the time of their deletion.
        Raises ReadFailed when the read does not come to its end.
        """

    def digest(self, projection: Projection, bucketing: Bucketing) -> Iterator[Digest]:
        """Yield count and checksum of every bucket that holds rows, computed inside the server.

        One query and one pass. Equal sets of rows give equal digests on every server, whatever
        the charset, the column order or the ids; unequal sets give unequal ones but for chance
        (64 bits, not linear in the rows).
        """


# -- Schemas -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """A rule that can be compared on one edge, and how each side is read."""

    rule: Rule
    desired: Projection
    existing: Projection
    desired_cell: str
    existing_cell: str
    schema: tuple[SchemaDifference, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the compared columns, in the order of ``Row.values``."""
        return tuple(projected.column for projected in self.existing.columns)


def pair(
    rule: Rule,
    ruleset: RuleSet,
    *,
    parent_tables: Mapping[str, Table],
    child_tables: Mapping[str, Table],
    parent: str,
    child: str,
) -> Pairing | TableFailure:
    """Return how to read both sides of a rule, or why that is not possible.

    The mappings hold the tables that exist, by name. A column is compared when the rule includes
    it, or else when the desired side has it and nothing excludes it.
    """
    down = rule.direction is Direction.DOWN
    sides = _Sides(rule, ruleset, parent_tables, child_tables, parent, child)
    desired, existing = sides.table(parent_side=down), sides.table(parent_side=not down)
    schema = tuple(_schema(rule, desired, existing))
    failure = _failure(rule, sides, desired, existing, schema)
    if failure is not None:
        return failure
    assert desired is not None and existing is not None
    names = compared(rule, desired)
    return Pairing(
        rule=rule,
        desired=sides.projection(desired, names, parent_side=down, transformed=True),
        existing=sides.projection(existing, names, parent_side=not down, transformed=False),
        desired_cell=parent if down else child,
        existing_cell=child if down else parent,
        schema=schema,
    )


def compared(rule: Rule, desired: Table) -> tuple[str, ...]:
    """Return the names of the columns that a rule compares besides the key, in table order."""
    skipped = set(rule.key) | set(rule.on_insert) | set(rule.exclude)
    if rule.soft_delete:
        skipped |= {rule.soft_delete.column, rule.soft_delete.at or ""}
    chosen = []
    for column in desired.columns:
        named = rule.include is not None and column.name in rule.include
        preserved = rule.surrogate.get(column.name) is Surrogate.PRESERVE and column.name not in rule.key
        remapped = column.auto_increment or rule.surrogate.get(column.name) is Surrogate.REMAP
        ordinary = rule.include is None and column.name not in skipped and not remapped
        if preserved or (named and column.name not in rule.key) or (ordinary and not column.generated):
            chosen.append(column.name)
    return tuple(chosen)


@dataclass(frozen=True)
class _Sides:
    """Both schemas of an edge, and the projections that can be made of them."""

    rule: Rule
    ruleset: RuleSet
    parent_tables: Mapping[str, Table]
    child_tables: Mapping[str, Table]
    parent: str
    child: str

    def table(self, *, parent_side: bool, rule: Rule | None = None) -> Table | None:
        rule = rule or self.rule
        if parent_side:
            return self.parent_tables.get(rule.table)
        return self.child_tables.get(rule.child_table)

    def referenced(self, rule: Rule) -> Iterator[tuple[str, Rule]]:
        for column, rule_id in rule.references.items():
            target = self.ruleset.rule(rule_id)
            assert target is not None, rule_id  # rules.load checks it
            yield column, target

    def projection(
        self, table: Table, names: tuple[str, ...], *, parent_side: bool, transformed: bool
    ) -> Projection:
        rule = self.rule

        def project(name: str) -> Projected:
            return self._projected(rule, table, name, parent_side=parent_side, transformed=transformed)

        key = tuple(project(name) for name in rule.key)
        columns = tuple(project(name) for name in names)
        identity = identity_of(table)
        used = [transforms.REGISTRY[p.transform].sql for p in (*key, *columns) if p.transform]
        return Projection(
            rule=rule.id,
            table=table.name,
            key=key,
            columns=columns,
            identity=identity,
            identity_families=tuple(_family(table, name) for name in identity),
            where=rule.where_desired if transformed else rule.where_existing,
            soft_delete=rule.soft_delete,
            route=rule.route.column if rule.route and parent_side else None,
            age=_age(rule, table),
            parent=self.parent,
            # Where no transform speaks of the child, all children share one reading.
            child=self.child if any("{child}" in sql for sql in used) else "",
        )

    def _projected(
        self, rule: Rule, table: Table, name: str, *, parent_side: bool, transformed: bool
    ) -> Projected:
        column = table.column(name)
        assert column is not None, name  # _failure checks it
        target = self.ruleset.rule(rule.references.get(name, ""))
        return Projected(
            column=column.name,
            family=column.family,
            transform=rule.transforms.get(name) if transformed else None,
            join=self._join(table, column, target, parent_side=parent_side) if target else None,
        )

    def _join(self, table: Table, column: Column, target: Rule, *, parent_side: bool) -> Join:
        referenced = self.table(parent_side=parent_side, rule=target)
        assert referenced is not None, target.id  # _failure checks it
        return Join(
            rule=target.id,
            table=referenced.name,
            column=_referenced_column(table, column.name, referenced),
            key=tuple(
                self._projected(target, referenced, name, parent_side=parent_side, transformed=False)
                for name in target.key
            ),
            soft_delete=target.soft_delete,
        )


def identity_of(table: Table) -> tuple[str, ...]:
    """Return the columns that identify a row in its own database, or () when there are none.

    The primary key, or else the first unique index whose columns are all NOT NULL.
    """
    if table.primary_key:
        return table.primary_key
    for index in table.indexes:
        columns = [table.column(name) for name in index.columns]
        if index.unique and all(column is not None and not column.nullable for column in columns):
            return index.columns
    return ()


def _family(table: Table, name: str) -> Any:
    column = table.column(name)
    assert column is not None, name
    return column.family


def _age(rule: Rule, table: Table) -> tuple[str, ...]:
    stamped = [name for name, value in rule.on_insert.items() if value is ServerTime.NOW]
    return tuple(name for name in stamped if table.column(name) is not None)


def _referenced_column(table: Table, column: str, referenced: Table) -> str:
    """Return the column that a reference holds: what the foreign key says, else the primary key."""
    for key in table.foreign_keys:
        if key.columns == (column,) and key.table == referenced.name:
            return key.references[0]
    numbered = next((c.name for c in referenced.columns if c.auto_increment), None)
    return numbered or identity_of(referenced)[0]


def _failure(
    rule: Rule,
    sides: _Sides,
    desired: Table | None,
    existing: Table | None,
    schema: tuple[SchemaDifference, ...],
) -> TableFailure | None:
    reasons = [*_missing_tables(rule, sides), *_missing_columns(rule, sides, desired, existing)]
    reasons += [
        f"{difference.path}: {difference.desired} against {difference.existing}"
        for difference in schema
        if difference.blocking and difference.path.endswith(": family")
    ]
    if not reasons:
        return None
    return TableFailure(
        rule=rule.id, table=rule.table, direction=rule.direction, error="; ".join(reasons), schema=schema
    )


def _missing_tables(rule: Rule, sides: _Sides) -> Iterator[str]:
    rules = [rule, *(target for _, target in sides.referenced(rule) if target.id != rule.id)]
    for needed in rules:
        for cell, parent_side, name in (
            (sides.parent, True, needed.table),
            (sides.child, False, needed.child_table),
        ):
            table = sides.table(parent_side=parent_side, rule=needed)
            if table is None:
                yield f"{cell} has no table {name}"
            elif needed is not rule and not identity_of(table):
                yield f"table {name} in {cell} has no primary key that a reference could hold"


def _missing_columns(
    rule: Rule, sides: _Sides, desired: Table | None, existing: Table | None
) -> Iterator[str]:
    """Yield the columns that the rule uses and a side lacks, nested references included."""
    if desired is None or existing is None:
        return
    down = rule.direction is Direction.DOWN
    used = {*rule.key, *rule.references, *(rule.include or ()), *compared(rule, desired)}
    if rule.soft_delete:
        used |= {rule.soft_delete.column, rule.soft_delete.tombstone}
    for table, parent_side in ((desired, down), (existing, not down)):
        cell = sides.parent if parent_side else sides.child
        needed = used | ({rule.route.column} if rule.route and parent_side else set())
        if table is existing and rule.on_missing.value == "insert":
            needed = needed | set(rule.on_insert)
        for name in sorted(needed):
            if table.column(name) is None:
                yield f"table {table.name} in {cell} has no column {name}"


# -- Schema differences -------------------------------------------------------------------------


def _schema(rule: Rule, desired: Table | None, existing: Table | None) -> Iterator[SchemaDifference]:
    if desired is None or existing is None:
        yield SchemaDifference(
            path=f"table {rule.table}",
            desired="present" if desired else None,
            existing="present" if existing else None,
            blocking=True,
        )
        return
    used = {name.lower() for name in (*rule.key, *compared(rule, desired))}
    yield from schema(desired, existing, used=used)


def schema(desired: Table, existing: Table, *, used: set[str]) -> Iterator[SchemaDifference]:
    """Yield what differs between two tables, in order of path.

    ``used`` holds the lower-case names of the columns that a rule reads: one of these that is
    missing, or of another family, blocks the rule. The order of columns is not a difference.
    """
    from deepdiff import DeepDiff  # takes a tenth of a second to import

    delta = DeepDiff(_described(desired), _described(existing), view="tree", ignore_order=False)
    found = {
        (tuple(level.path(output_format="list")), _text(level.t1), _text(level.t2))
        for levels in delta.values()
        for level in levels
    }
    for path, before, after in sorted(found, key=repr):
        whole = path[0] == "columns" and len(path) == 2
        blocking = (
            path[0] == "columns" and path[1] in used and ((whole and after is None) or path[-1] == "family")
        )
        yield SchemaDifference(path=_path(path), desired=before, existing=after, blocking=blocking)


def _path(path: tuple[Any, ...]) -> str:
    singular = {"columns": "column", "indexes": "index", "foreign keys": "foreign key"}
    head = " ".join([singular.get(path[0], path[0]), *map(str, path[1:2])])
    return ": ".join([head, *map(str, path[2:])])


def _text(value: object) -> str | None:
    if isinstance(value, dict):
        return str(value.get("type", "present"))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    # deepdiff has a marker object where a side has nothing.
    return str(value) if isinstance(value, (str, int, bool)) else None


def _described(table: Table) -> dict[str, Any]:
    return {
        "engine": (table.engine or "").lower(),
        "primary key": ", ".join(table.primary_key),
        "columns": {column.name.lower(): _column(column) for column in table.columns},
        "indexes": {
            index.name: f"{'unique ' if index.unique else ''}({', '.join(index.columns)})"
            for index in table.indexes
        },
        "foreign keys": {
            key.name: f"({', '.join(key.columns)}) -> {key.table} ({', '.join(key.references)})"
            f" on delete {key.on_delete} on update {key.on_update}"
            for key in table.foreign_keys
        },
        "triggers": ", ".join(table.triggers),
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "type": column.type,
        "family": column.family.value,
        "nullable": column.nullable,
        "default": column.default or "none",
        "charset": column.charset or "none",
        "collation": column.collation or "none",
        "auto_increment": column.auto_increment,
        "generated": column.generated,
    }


# -- Routing -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Routed:
    """The rows of the parent, dealt to the children."""

    rows: Mapping[str, Sequence[Row]]
    """Child -> its rows, for every child of the topology."""
    findings: tuple[Finding, ...] = ()
    aside: frozenset[Key] = frozenset()
    """Keys that no child may be judged by: ambiguous or unknown rows."""
    unknown: tuple[str, ...] = ()
    """Why the owners of some rows could not be told."""


def route(
    rows: Iterable[Row],
    rule: Rule,
    *,
    parent: str,
    children: Sequence[str],
    owners: Mapping[str, frozenset[str] | None],
) -> Routed:
    """Deal the rows of the parent to the children that they belong to.

    ``owners`` says for each child which values it has (for values without a path), or None where
    the child could not be asked: then a value that nobody claims, or that only one claims, might
    be the silent child's, and is unknown. Values are compared binary, as Nova compares host names.
    """
    assert rule.route is not None
    paths = {rule.route.path.format(parent=parent, child=child): child for child in children}
    dealt: dict[str, list[Row]] = {child: [] for child in children}
    findings: list[Finding] = []
    aside: set[Key] = set()
    silent = [child for child in children if owners.get(child) is None]
    unknown = 0
    for row in rows:
        value = row.route if isinstance(row.route, str) else ""
        path, separator, _ = value.rpartition("@")
        owner = paths.get(path if separator else value)
        if owner is not None:
            dealt[owner].append(row)
        elif separator or rule.route.else_where_exists is None:
            findings.append(_orphan(rule, row, parent, f"no child has the path {path or value!r}"))
        else:
            claimed = [child for child in children if value in (owners.get(child) or ())]
            if silent:
                unknown += 1
                aside.add(row.key)
            elif len(claimed) == 1:
                dealt[claimed[0]].append(row)
            elif claimed:
                findings.append(_ambiguous(rule, row, parent, claimed))
                aside.add(row.key)
            else:
                findings.append(_orphan(rule, row, parent, f"no child has it in {_place(rule)}"))
    reasons = (
        (f"{unknown} rows without a cell path: {', '.join(silent)} could not be asked whose they are",)
        if unknown
        else ()
    )
    return Routed(rows=dealt, findings=tuple(findings), aside=frozenset(aside), unknown=reasons)


def _place(rule: Rule) -> str:
    look_up = rule.route.else_where_exists if rule.route else None
    return f"{look_up.table}.{look_up.column}" if look_up else "its tables"


def _orphan(rule: Rule, row: Row, parent: str, why: str) -> Finding:
    assert rule.route is not None
    message = (
        f"{rule.table}.{rule.route.column} {row.route!r} in {parent} belongs to no child: {why}; "
        f"correct or remove the row ({_names(rule, row)})"
    )
    return Finding(code="orphan", cell=parent, message=message, key=row.key)


def _ambiguous(rule: Rule, row: Row, parent: str, claimed: Sequence[str]) -> Finding:
    assert rule.route is not None
    message = (
        f"{rule.table}.{rule.route.column} {row.route!r} in {parent} is claimed by {' and '.join(claimed)}: "
        f"give it a path ({rule.route.path.format(parent=parent, child=claimed[0])}@...) or remove the double"
    )
    return Finding(code="ambiguous", cell=parent, message=message, key=row.key)


def _names(rule: Rule, row: Row) -> str:
    return ", ".join(f"{name}={shown(part)}" for name, part in zip(rule.key, row.key, strict=True))


def shown(part: KeyPart) -> str:
    """Return a value as people read it in a sentence."""
    if isinstance(part, Dangling):
        return f"id {shown(part.raw)} ({'deleted' if part.deleted else 'missing'})"
    if isinstance(part, tuple):
        return "/".join(shown(each) for each in part)
    if part is None:
        return "NULL"
    if isinstance(part, bytes):
        return f"0x{part.hex()}"
    return str(part)


# -- Rows --------------------------------------------------------------------------------------


def compare(
    pairing: Pairing,
    desired: Iterable[Row],
    existing: Iterable[Row],
    *,
    child: str,
    aside: frozenset[Key] = frozenset(),
) -> TableDiff:
    """Compare the rows of both sides of one rule on one edge.

    ``desired`` and ``existing`` are the rows in scope, already routed. Keys in ``aside`` are not
    judged on either side. Rows that cannot be told apart, lead nowhere or are in limbo become
    findings and are set aside as well; all other rows go on.
    """
    desired_side = _index(pairing, desired, pairing.desired_cell, desired=True)
    existing_side = _index(pairing, existing, pairing.existing_cell, desired=False)
    findings = [*desired_side.findings, *existing_side.findings]
    wanted = _overridden(pairing, desired_side.rows, child)
    held = dict(existing_side.rows)
    for key in {*aside, *desired_side.aside, *existing_side.aside}:
        wanted.pop(key, None)
        held.pop(key, None)
    conflicts = list(_preserved(pairing, wanted, held))
    for finding in conflicts:
        if finding.key is not None:
            wanted.pop(finding.key, None)
            held.pop(finding.key, None)
    differences = tuple(_differences(pairing, wanted, held))
    findings += conflicts
    return TableDiff(
        rule=pairing.rule.id,
        table=pairing.rule.table,
        direction=pairing.rule.direction,
        key=pairing.rule.key,
        desired_rows=desired_side.count,
        existing_rows=existing_side.count,
        differences=differences,
        findings=tuple(findings),
        schema=pairing.schema,
        status=Status.DIFFERS if differences or findings else Status.IN_STEP,
    )


@dataclass
class _Side:
    """One side's rows by key, and what cannot be compared."""

    rows: dict[Key, Row]
    findings: list[Finding]
    aside: set[Key]
    count: int


def _index(pairing: Pairing, rows: Iterable[Row], cell: str, *, desired: bool) -> _Side:
    side = _Side({}, [], set(), 0)
    doubles: dict[Key, list[Row]] = {}
    for row in rows:
        if row.limbo:
            side.findings.append(_limbo(pairing, row, cell))
            continue
        side.count += 1
        if _dangles(row.key) or (desired and _dangles(row.values)):
            side.findings.append(_dangling(pairing, row, cell))
            side.aside.add(row.key)
        elif (first := side.rows.setdefault(row.key, row)) is not row and not _one_row(first, row):
            doubles.setdefault(row.key, [first]).append(row)
    for key, several in doubles.items():
        side.findings.append(_duplicate(pairing, several, cell))
        side.aside.add(key)
    return side


def _one_row(first: Row, second: Row) -> bool:
    """Say whether two rows are one row in two spellings.

    A parent may need a host both plain and with its cell path (two parts of Nova read it
    differently); through the transform both become the same row, with nothing to choose.
    """
    return first.route != second.route and first.values == second.values


def _dangles(parts: tuple[KeyPart, ...]) -> bool:
    return any(isinstance(p, Dangling) or (isinstance(p, tuple) and _dangles(p)) for p in parts)


def _where(pairing: Pairing, row: Row, cell: str) -> str:
    names = pairing.desired.identity if cell == pairing.desired_cell else pairing.existing.identity
    identity = ", ".join(f"{name} {shown(value)}" for name, value in zip(names, row.identity, strict=True))
    return f"{pairing.rule.table} {identity} in {cell}"


def _limbo(pairing: Pairing, row: Row, cell: str) -> Finding:
    soft_delete = pairing.rule.soft_delete
    assert soft_delete is not None
    message = (
        f"{_where(pairing, row, cell)} ({_names(pairing.rule, row)}) has {soft_delete.column} NULL: its "
        f"application does not see it and unique keys do not hold for it; set {soft_delete.column} to "
        f"{shown(soft_delete.live)}, or remove the row"
    )
    return Finding(code=f"{soft_delete.column}-is-null", cell=cell, message=message, key=row.key)


def _dangling(pairing: Pairing, row: Row, cell: str) -> Finding:
    columns = [*zip(pairing.rule.key, row.key, strict=True), *zip(pairing.columns, row.values, strict=True)]
    broken = "; ".join(f"{name} is {shown(part)}" for name, part in columns if _dangles((part,)))
    message = f"{_where(pairing, row, cell)} refers to a row that is not there or deleted: {broken}"
    return Finding(code="dangling-reference", cell=cell, message=message, key=row.key)


def _duplicate(pairing: Pairing, rows: Sequence[Row], cell: str) -> Finding:
    names = pairing.desired.identity if cell == pairing.desired_cell else pairing.existing.identity
    each = " and ".join(
        ", ".join(f"{name} {shown(value)}" for name, value in zip(names, row.identity, strict=True))
        for row in rows
    )
    message = (
        f"{len(rows)} rows of {pairing.rule.table} in {cell} have the key {_names(pairing.rule, rows[0])}: "
        f"{each}; keep one of them"
    )
    return Finding(code="duplicate-key", cell=cell, message=message, key=rows[0].key)


def _overridden(pairing: Pairing, rows: Mapping[Key, Row], child: str) -> dict[Key, Row]:
    overrides = {**pairing.rule.overrides.get("*", {}), **pairing.rule.overrides.get(child, {})}
    if not overrides:
        return dict(rows)
    columns = pairing.columns
    return {
        key: row._replace(
            values=tuple(overrides.get(name, value) for name, value in zip(columns, row.values, strict=True))
        )
        for key, row in rows.items()
    }


def _preserved(pairing: Pairing, wanted: Mapping[Key, Row], held: Mapping[Key, Row]) -> Iterator[Finding]:
    """Yield the rows whose preserved id is another row's, on either side."""
    columns = pairing.columns
    for name, surrogate in pairing.rule.surrogate.items():
        if surrogate is not Surrogate.PRESERVE or name not in columns:
            continue
        at = columns.index(name)
        holders = {row.values[at]: key for key, row in held.items()}
        for key, row in wanted.items():
            number = row.values[at]
            if key in held and held[key].values[at] != number:
                yield _conflict(pairing, row, f"{name} {shown(held[key].values[at])}", name, number)
            elif key not in held and number in holders:
                other = ", ".join(shown(part) for part in holders[number])
                yield _conflict(pairing, row, f"{name} {shown(number)} for {other}", name, number)


def _conflict(pairing: Pairing, row: Row, there: str, name: str, number: KeyPart) -> Finding:
    message = (
        f"{pairing.rule.table} {_names(pairing.rule, row)} has {name} {shown(number)} in "
        f"{pairing.desired_cell}, but {pairing.existing_cell} has {there}: {name} must be the same "
        f"everywhere and is never changed by a repair"
    )
    return Finding(code="preserved-id", cell=pairing.existing_cell, message=message, key=row.key)


def _differences(
    pairing: Pairing, wanted: Mapping[Key, Row], held: Mapping[Key, Row]
) -> Iterator[Difference]:
    for key, row in wanted.items():
        other = held.get(key)
        if other is None:
            yield Difference(
                kind=Kind.MISSING,
                key=key,
                desired=row,
                existing=None,
                columns=tuple(_columns(pairing.columns, desired=row.values)),
            )
        elif row.values != other.values:
            changed = tuple(_changed(pairing, row, other))
            if changed:
                yield Difference(kind=Kind.CHANGED, key=key, desired=row, existing=other, columns=changed)
    for key, other in held.items():
        if key not in wanted:
            yield Difference(
                kind=Kind.EXTRA,
                key=key,
                desired=None,
                existing=other,
                columns=tuple(_columns(pairing.columns, existing=other.values)),
            )


def _columns(
    names: Sequence[str],
    *,
    desired: tuple[KeyPart, ...] | None = None,
    existing: tuple[KeyPart, ...] | None = None,
) -> Iterator[ColumnDifference]:
    for index, name in enumerate(names):
        yield ColumnDifference(
            column=name,
            desired=desired[index] if desired else None,
            existing=existing[index] if existing else None,
        )


def _changed(pairing: Pairing, desired: Row, existing: Row) -> Iterator[ColumnDifference]:
    for name, wanted, held in zip(pairing.columns, desired.values, existing.values, strict=True):
        if not _equal(wanted, held, pairing.rule.tolerance.get(name)):
            yield ColumnDifference(column=name, desired=wanted, existing=held)


def _equal(desired: KeyPart, existing: KeyPart, tolerance: float | None) -> bool:
    if desired == existing:
        return True
    if tolerance is None or desired is None or existing is None:
        return False
    if isinstance(desired, (str, bytes, tuple, Dangling)) or isinstance(
        existing, (str, bytes, tuple, Dangling)
    ):
        return False
    return abs(float(desired) - float(existing)) <= tolerance


# -- Confirming --------------------------------------------------------------------------------


def unsettled(table: TableDiff) -> tuple[Key, ...]:
    """Return the keys that must be read again before their differences count."""
    return tuple(difference.key for difference in table.differences)


def confirm(
    pairing: Pairing,
    first: TableDiff,
    desired: Iterable[Row],
    existing: Iterable[Row],
    *,
    child: str,
    colliding: Callable[[Key], Iterable[Row]],
    tombstones: Sequence[Row] = (),
) -> TableDiff:
    """Return what still differs, now that the differing rows were read again.

    ``desired`` and ``existing`` are the rows that equal an unsettled key under their table's
    collation. A missing row whose key equals another row's only under the collation is a finding:
    inserting it would clash, or make two rows of what the application takes for one.
    ``colliding`` asks the existing side's server for all rows that equal one key under its
    collation; it is called only where two spellings look alike. ``tombstones`` are the desired
    side's deleted rows with the keys of the extra rows.
    """
    keys = set(unsettled(first))
    held = list(existing)
    again = compare(
        pairing,
        [row for row in desired if row.key in keys],
        [row for row in held if row.key in keys],
        child=child,
    )
    known = {(finding.code, finding.cell, finding.key) for finding in first.findings}
    fresh = [f for f in again.findings if (f.code, f.cell, f.key) not in known]
    twins = list(_twins(pairing, again, held, colliding))
    clashing = {finding.key for finding in twins}
    differences = tuple(
        _with_tombstone(difference, tombstones)
        for difference in again.differences
        if difference.key not in clashing
    )
    findings = (*first.findings, *fresh, *twins)
    return replace(
        first,
        differences=differences,
        findings=findings,
        status=Status.DIFFERS if differences or findings else Status.IN_STEP,
    )


def _twins(
    pairing: Pairing, table: TableDiff, held: Sequence[Row], colliding: Callable[[Key], Iterable[Row]]
) -> Iterator[Finding]:
    """Yield the missing rows whose key the existing side has in another spelling.

    Only the server knows its collations; Python's folding merely chooses what to ask it about.
    What the folding overlooks, the guard of the INSERT stops.
    """
    alike: dict[object, set[Key]] = {}
    for row in held:
        alike.setdefault(folded(row.key), set()).add(row.key)
    for difference in table.differences:
        if difference.kind is not Kind.MISSING or not alike.get(folded(difference.key), set()) - {
            difference.key
        }:
            continue
        for twin in colliding(difference.key):
            if twin.key != difference.key:
                yield _twin(pairing, difference, twin)
                break


def _twin(pairing: Pairing, difference: Difference, twin: Row) -> Finding:
    message = (
        f"{pairing.rule.table} has {_names(pairing.rule, twin)} in {pairing.existing_cell}, but "
        f"{', '.join(map(shown, difference.key))} in {pairing.desired_cell}: one key to the database, two "
        f"to the application; rename one of them"
    )
    return Finding(code="collation-twin", cell=pairing.existing_cell, message=message, key=difference.key)


def folded(key: Key) -> tuple[object, ...]:
    """Fold a key roughly as a case-insensitive, accent-insensitive collation does."""

    def fold(part: KeyPart) -> object:
        if isinstance(part, tuple):
            return tuple(fold(each) for each in part)
        if not isinstance(part, str):
            return part
        plain = "".join(c for c in unicodedata.normalize("NFKD", part) if not unicodedata.combining(c))
        return plain.casefold().rstrip(" ")

    return tuple(fold(part) for part in key)


def _with_tombstone(difference: Difference, tombstones: Sequence[Row]) -> Difference:
    if difference.kind is not Kind.EXTRA:
        return difference
    times = [row.since for row in tombstones if row.key == difference.key and row.since]
    return replace(difference, tombstone=max(times)) if times else difference
