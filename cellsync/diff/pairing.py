"""How both sides of a rule are read on one edge, or why they cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cellsync import transforms
from cellsync.diff.schemas import schema
from cellsync.model import (
    Action,
    Column,
    Direction,
    Join,
    Pairing,
    Projected,
    Projection,
    Rule,
    RuleSet,
    SchemaDifference,
    ServerTime,
    Surrogate,
    Table,
    TableFailure,
)

T = TypeVar("T")


def pair(
    rule: Rule,
    ruleset: RuleSet,
    *,
    parent_tables: Mapping[str, Table],
    child_tables: Mapping[str, Table],
    parent: str,
    child: str,
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> Pairing | TableFailure:
    """Return how to read both sides of a rule, or why that is not possible.

    The mappings hold the tables that exist, by name; ``others`` says of each cell what names stand for
    there that are no tables. A column is compared when the rule includes
    it, or else when the desired side has it and nothing excludes it.
    """
    down = rule.direction is Direction.DOWN
    sides = _Sides(rule, ruleset, parent_tables, child_tables, parent, child, others or {})
    desired, existing = sides.table(parent_side=down), sides.table(parent_side=not down)
    rule = _spelled(rule, existing or desired)
    sides = replace(sides, rule=rule)
    schema = tuple(_schema(rule, desired, existing))
    failure = _failure(rule, sides, desired, existing, schema)
    if failure is not None:
        return failure
    assert desired is not None and existing is not None
    names = tuple(_spelling(existing)(name) for name in compared(rule, desired))
    return Pairing(
        rule=rule,
        desired=replace(
            sides.projection(desired, names, parent_side=down, transformed=True),
            carried=tuple(
                Projected(column=name, family=_family(desired, name))
                for name in carried(rule, desired, existing)
            ),
        ),
        existing=replace(
            sides.projection(existing, names, parent_side=not down, transformed=False),
            carried=tuple(
                Projected(column=name, family=_family(existing, name))
                for name in _linking(rule, existing, names)
            ),
        ),
        desired_cell=parent if down else child,
        existing_cell=child if down else parent,
        schema=schema,
    )


def compared(rule: Rule, desired: Table) -> tuple[str, ...]:
    """Return the names of the columns that a rule compares besides the key, in table order."""
    rule = _spelled(rule, desired)
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


def carried(rule: Rule, desired: Table, existing: Table) -> tuple[str, ...]:
    """Return the names of the columns that a new row takes along besides those that are compared."""
    if rule.carries is None:
        return ()
    named = rule.carries.include
    left = {*rule.carries.exclude, *rule.key, *compared(rule, desired)}
    if rule.soft_delete:
        left |= {rule.soft_delete.column, rule.soft_delete.at or ""}
    folded = {name.lower() for name in left}
    return tuple(
        column.name
        for column in desired.columns
        if (named is None or column.name.lower() in {name.lower() for name in named})
        and column.name.lower() not in folded
        and not column.auto_increment
        and not column.generated
        and rule.surrogate.get(column.name) is not Surrogate.REMAP
        and existing.column(column.name) is not None
    )


def _linking(rule: Rule, existing: Table, names: Collection[str]) -> list[str]:
    """Return the columns by which rows to be removed refer to each other, and which nothing else reads."""
    if rule.on_extra is not Action.DELETE:
        return []
    own = (key for key in existing.foreign_keys if key.table == existing.name)
    columns = dict.fromkeys(name for key in own for name in (*key.columns, *key.references))
    return [name for name in columns if name not in {*rule.key, *names, *existing.identity}]


def _spelling(table: Table) -> Callable[[str], str]:
    """Return how a table spells a name; the case of column names means nothing to a server."""

    def spelled(name: str) -> str:
        column = table.column(name)
        return column.name if column else name

    return spelled


def _spelled(rule: Rule, table: Table | None) -> Rule:
    """Return a rule in which the columns have the names that they have in a table."""
    if table is None:
        return rule
    spelled = _spelling(table)

    def keyed(mapping: Mapping[str, T]) -> dict[str, T]:
        return {spelled(name): value for name, value in mapping.items()}

    soft = rule.soft_delete
    if soft is not None:
        at = spelled(soft.at) if soft.at else None
        soft = replace(soft, column=spelled(soft.column), tombstone=spelled(soft.tombstone), at=at)
    return replace(
        rule,
        key=tuple(map(spelled, rule.key)),
        references=keyed(rule.references),
        surrogate=keyed(rule.surrogate),
        include=None if rule.include is None else tuple(map(spelled, rule.include)),
        exclude=tuple(map(spelled, rule.exclude)),
        transforms=keyed(rule.transforms),
        soft_delete=soft,
        on_insert=keyed(rule.on_insert),
        overrides={cell: keyed(columns) for cell, columns in rule.overrides.items()},
        tolerance=keyed(rule.tolerance),
        says=tuple(replace(saying, rows=keyed(saying.rows)) for saying in rule.says),
    )


@dataclass(frozen=True)
class _Sides:
    """Both schemas of an edge, and the projections that can be made of them."""

    rule: Rule
    ruleset: RuleSet
    parent_tables: Mapping[str, Table]
    child_tables: Mapping[str, Table]
    parent: str
    child: str
    others: Mapping[str, Mapping[str, str]]
    """Cell -> what names stand for there that are no tables."""

    def table(self, *, parent_side: bool, rule: Rule | None = None) -> Table | None:
        rule = rule or self.rule
        if parent_side:
            return self.parent_tables.get(rule.table)
        return self.child_tables.get(rule.child_table)

    def reached(self, rule: Rule) -> list[Rule]:
        """Return the rules that a rule refers to, and those that they refer to, without itself."""
        reached: dict[str, Rule] = {}
        waiting = [*rule.references.values()]
        while waiting:
            target = self.ruleset.rule(waiting.pop())
            assert target is not None  # rules.load checks it
            if target.id not in (rule.id, *reached):
                reached[target.id] = target
                waiting += target.references.values()
        return [*reached.values()]

    def projection(
        self, table: Table, names: tuple[str, ...], *, parent_side: bool, transformed: bool
    ) -> Projection:
        rule = self.rule

        def project(name: str) -> Projected:
            return self._projected(rule, table, name, parent_side=parent_side, transformed=transformed)

        key = tuple(project(name) for name in rule.key)
        columns = tuple(project(name) for name in names)
        identity = table.identity
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
            ranged=_ranged(rule, table, transformed=transformed),
            unique=self._unique(rule, table, parent_side=parent_side, transformed=transformed),
            nullable=_nullable(table, rule.key),
            parent=self.parent,
            # Where no transform speaks of the child, all children share one reading.
            child=self.child if any("{child}" in sql for sql in used) else "",
        )

    def _unique(self, rule: Rule, table: Table, *, parent_side: bool, transformed: bool) -> bool:
        """Say whether the schema lets no two live rows have one key, unless it holds a NULL."""
        if transformed and any(name in rule.transforms for name in rule.key):
            return False
        for name in rule.key:
            target = self.ruleset.rule(rule.references.get(name, ""))
            if target is not None and target.id != rule.id:
                referenced = self.table(parent_side=parent_side, rule=target)
                if referenced is None or _nullable(referenced, target.key):
                    return False
                if not self._unique(target, referenced, parent_side=parent_side, transformed=False):
                    return False
        return any(_keeps_unique(names, rule) for names in _unique_keys(table))

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


def _unique_keys(table: Table) -> Iterator[tuple[str, ...]]:
    if table.primary_key:
        yield table.primary_key
    yield from (index.columns for index in table.indexes if index.unique)


def _keeps_unique(names: tuple[str, ...], rule: Rule) -> bool:
    """Say whether a unique key of the table lets no two live rows have the rule's key, without a NULL.

    The column of the soft delete holds one value in all live rows.
    """
    known = {name.lower() for name in rule.key}
    if rule.soft_delete:
        known.add(rule.soft_delete.column.lower())
    return all(name.lower() in known for name in names)


def _nullable(table: Table, names: Iterable[str]) -> tuple[str, ...]:
    columns = [table.column(name) for name in names]
    return tuple(column.name for column in columns if column is not None and column.nullable)


def _ranged(rule: Rule, table: Table, *, transformed: bool) -> bool:
    """Say whether the key is one integer that is never NULL and that an index begins with."""
    name = rule.key[0]
    column = table.column(name)
    if len(rule.key) > 1 or name in rule.references or (transformed and name in rule.transforms):
        return False
    if column is None or column.nullable or "int" not in column.type.partition("(")[0]:
        return False
    indexed = (table.primary_key, *(index.columns for index in table.indexes))
    return any(columns[:1] and columns[0].lower() == column.name.lower() for columns in indexed)


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
    return numbered or referenced.identity[0]


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
    for needed in (rule, *sides.reached(rule)):
        for cell, parent_side, name in (
            (sides.parent, True, needed.table),
            (sides.child, False, needed.child_table),
        ):
            table = sides.table(parent_side=parent_side, rule=needed)
            if table is None and (kind := sides.others.get(cell, {}).get(name)):
                yield f"{name} in {cell} is a {kind}, and a rule compares tables: name one"
            elif table is None:
                yield f"{cell} has no table {name}"
            elif needed is not rule and not table.identity:
                yield f"table {name} in {cell} has no primary key that a reference could hold"


def _missing_columns(
    rule: Rule, sides: _Sides, desired: Table | None, existing: Table | None
) -> Iterator[str]:
    """Yield the columns that the rule uses and a side lacks, nested references included."""
    if desired is None or existing is None:
        return
    down = rule.direction is Direction.DOWN
    used = {*rule.key, *rule.references, *(rule.include or ()), *compared(rule, desired)}
    used |= set((rule.carries.include if rule.carries else None) or ())
    if rule.soft_delete:
        used |= {rule.soft_delete.column, rule.soft_delete.tombstone}
    for table, parent_side in ((desired, down), (existing, not down)):
        cell = sides.parent if parent_side else sides.child
        needed = used | ({rule.route.column} if rule.route and parent_side else set())
        if table is existing and rule.on_missing.value == "insert":
            needed = needed | set(rule.on_insert)
        yield from _absent(table, cell, needed)
        for target in sides.reached(rule):
            joined = sides.table(parent_side=parent_side, rule=target)
            if joined is not None:
                held = {target.soft_delete.column} if target.soft_delete else set()
                yield from _absent(joined, cell, {*target.key, *target.references, *held})


def _absent(table: Table, cell: str, needed: Collection[str]) -> Iterator[str]:
    for name in sorted(needed):
        if table.column(name) is None:
            yield f"table {table.name} in {cell} has no column {name}"


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
