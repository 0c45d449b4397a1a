"""One change as one guarded statement: its WHERE holds everything that ``apply`` checks.

A statement whose guard does not hold writes nothing and is no error; what it wrote is one row. Needs
MariaDB 10.3, whose UPDATE and DELETE may read the table that they write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cellsync.model import (
    Action,
    Change,
    Column,
    Dangling,
    Identity,
    Join,
    KeyPart,
    Plan,
    Projected,
    Reference,
    ServerTime,
    SoftDelete,
    Stored,
    Value,
    dangles,
    folded,
)
from cellsync.report.sql.spelling import Untold, alike, literal, name, same

Leaving = Mapping[tuple[str, tuple[object, ...]], Sequence[Identity]]
"""(table, key as a collation folds it) -> the rows that give up that key in the same plan."""

Instead = Callable[[str, str, Value], str]
"""(table, column, value) -> what stands in the place of that value, "" for the value itself."""


class Statements:
    """The statements of one plan's changes.

    With ``instead`` they are for readers: one with something else in the place of a value cannot be run.
    """

    def __init__(self, plan: Plan, instead: Instead | None = None) -> None:
        self._plan = plan
        self._instead = instead
        self._leaving = _leaving(plan.changes) if any(d.action is Action.UPDATE for d in plan.deeds) else {}
        self._returning: Leaving | None = None

    def forward(self, change: Change, conditions: Sequence[str] = ()) -> str:
        """Return the statement that makes a change, under further conditions, without its semicolon.

        Raises Untold where a name cannot be written, or how the rule refers to another is not known.
        """
        return self._statement(change, conditions, leaving=self._leaving, apart=not self._plan.targets)

    def backward(self, change: Change, conditions: Sequence[str] = ()) -> str:
        """Return the statement that takes a change back where the row is still as it left it.

        Raises Untold as ``forward`` does, and where it is not known what the row was: of a row to be
        deleted a comparison does not read everything.
        """
        inverse = self._inverse(change)
        if inverse is None:
            raise Untold(f"not all is known of what the row of {change.table} was")
        if self._returning is None:
            moves = any(d.action is Action.UPDATE for d in self._plan.deeds)
            backwards = (back for each in self._plan.changes if (back := self._inverse(each)))
            self._returning = _leaving(backwards) if moves else {}
        return self._statement(inverse, conditions, leaving=self._returning, apart=True)

    # -- What takes a change back ------------------------------------------------------------

    def _inverse(self, change: Change) -> Change | None:
        before, after = change.before or {}, change.after or {}
        if change.action is Action.INSERT:
            known = {**self._computed_key(change), **self._certain(change)}
            return replace(change.inverse(), before=known, identity=self._numbered(change))
        table = self._plan.tables.get(change.table)
        if change.action is Action.DELETE:
            whole = table is not None and all(c.generated or c.name in before for c in table.columns)
            return change.inverse() if whole else None
        if table is None or not after.keys() <= before.keys():
            return None
        was = {n: v for n, v in before.items() if n in after}
        # Its key is that of the row as it is now; the one that it takes again is among its columns.
        return replace(change.inverse(), key=(), before={**before, **after}, after=was)

    def _keep_stamped(self, change: Change) -> Iterator[str]:
        """Yield assignments that keep the columns which the server would else write with the row."""
        table = self._plan.tables.get(change.table)
        written = {column.lower() for column in change.after or {}}
        for column in table.columns if table else ():
            if column.stamped and column.name.lower() not in written:
                yield f"{name(column.name)} = {name(column.name)}"

    def _certain(self, change: Change) -> Mapping[str, Stored]:
        """Return what of a new row reads as it is written: what a rule fills in may be loose."""
        after = change.after or {}
        target = self._plan.targets.get(change.rule)
        if target is None:
            return after
        soft_delete = target.soft_delete
        known = {part.column for part in (*target.key, *target.columns)}
        return {n: v for n, v in after.items() if n in known or (soft_delete and n == soft_delete.column)}

    def _computed_key(self, change: Change) -> Mapping[str, Stored]:
        """Return what a new row has in the computed columns of its key, which nothing writes."""
        columns = [self._column(change.table, each) for each in change.key_columns]
        return {
            column.name: part
            for column, part in zip(columns, change.key, strict=False)
            if column is not None and column.generated and not isinstance(part, (tuple, Dangling))
        }

    def _numbered(self, change: Change) -> Identity:
        """Return the primary key of a new row, () where the server numbers it."""
        if change.identity:
            return change.identity
        values = [(change.after or {}).get(each) for each in change.identity_columns]
        plain = [
            value for value in values if value is not None and not isinstance(value, (Reference, ServerTime))
        ]
        return tuple(plain) if len(plain) == len(values) else ()

    # -- Statements --------------------------------------------------------------------------

    def _statement(self, change: Change, conditions: Sequence[str], *, leaving: Leaving, apart: bool) -> str:
        """Return one statement; ``apart`` says that no plan has looked at the foreign keys."""
        terms = [*self._guard(change), *self._free(change, leaving, apart=apart)]
        terms += [*(self._unfollowed(change) if apart else ()), *conditions]
        make = {Action.INSERT: self._insert, Action.UPDATE: self._update}.get(change.action, self._delete)
        return make(change, terms)

    def _insert(self, change: Change, terms: Sequence[str]) -> str:
        after = change.after or {}
        sources: list[str] = []
        values: list[str] = []
        for column, stored in after.items():
            if isinstance(stored, Reference):
                alias = f"r{len(sources)}"
                values.append(f"{alias}.id")
                sources.append(f"({self._looked_up(change.rule, stored)}) AS {alias}")
            else:
                values.append(self._literal(change.table, column, stored))
        names = ", ".join(map(name, after))
        return (
            f"{self._mode(change)}INSERT INTO {name(change.table)} ({names})\n"
            f"SELECT {', '.join(values)}\n"
            f"FROM {f',{NEXT}'.join(sources) or 'DUAL'}{_where(terms)}"
        )

    def _update(self, change: Change, terms: Sequence[str]) -> str:
        assigned, referring = [], []
        for column, stored in (change.after or {}).items():
            if isinstance(stored, Reference):
                looked_up = f"({self._looked_up(change.rule, stored)})"
                assigned.append(f"{name(column)} = {looked_up}")
                referring.append(f"{looked_up} IS NOT NULL")
            else:
                assigned.append(f"{name(column)} = {self._literal(change.table, column, stored)}")
        assigned += self._keep_stamped(change)
        where = _where([*terms, *referring])
        head = f"{self._mode(change)}UPDATE {name(change.table)}"
        return f"{head}\nSET {', '.join(assigned)}{where}\nLIMIT 1"

    def _delete(self, change: Change, terms: Sequence[str]) -> str:
        return f"DELETE FROM {name(change.table)}{_where(terms)}\nLIMIT 1"

    def _mode(self, change: Change) -> str:
        """Return what a statement begins with where an ENUM gets its error value."""
        columns = (self._column(change.table, n) for n, value in (change.after or {}).items() if value == "")
        return NOT_STRICT if any(c and c.takes_error for c in columns) else ""

    # -- Guards ------------------------------------------------------------------------------

    def _guard(self, change: Change) -> Iterator[str]:
        """Yield what must hold of the row itself; of an INSERT there is none yet."""
        if change.action is Action.INSERT:
            return
        for use in change.unless:
            used = self._same(use.table, use.column, f"u.{name(use.column)}", use.value)
            source = name(use.table) if use.where is None else self._select_where(use.table, use.where)
            yield f"NOT EXISTS (SELECT 1 FROM {source} AS u WHERE {used})"
        located = dict(_pairs(change, change.identity)) if change.identity else {}
        target = self._plan.targets.get(change.rule)
        if not located and target is not None and target.where is not None:
            yield f"({target.where})"  # a row outside the rule may have the same key
        for column, value in located.items():
            yield from self._indexed(change.table, column, value)
        for column, stored in (change.before or {}).items():
            if isinstance(stored, Reference):
                yield f"{name(column)} = ({self._looked_up(change.rule, stored)})"
            elif isinstance(stored, ServerTime) or located.get(column, ...) == stored:
                continue
            elif not located and column in change.key_columns:
                yield from self._indexed(change.table, column, stored)
            else:
                yield self._same(change.table, column, name(column), stored)

    def _indexed(self, table: str, column: str, value: Value) -> Iterator[str]:
        """Yield that a column is a value to the byte, and before it what an index can serve."""
        quick = self._alike(table, column, name(column), value)
        exact = self._same(table, column, name(column), value)
        yield quick
        if exact != quick:
            yield exact

    def _free(self, change: Change, leaving: Leaving, *, apart: bool) -> Iterator[str]:
        """Yield that nobody holds the key, or the number, that a row is about to take."""
        if change.action is Action.UPDATE and change.identity_after != change.identity:
            yield from self._number_free(change, change.identity_after, mine=change.identity)
        if not _takes_a_key(change):
            return
        mine = [change.identity] if change.identity and change.action is Action.UPDATE else []
        aside = dict.fromkeys([*mine, *leaving.get((change.table, _taken(change)), ())])
        others = "".join(f" AND NOT ({self._held(change, _pairs(change, each))})" for each in aside)
        if change.key_columns and not dangles(change.key):
            # A removed row may have been beside one whose key only the collation finds equal; a row that
            # is renamed back is not to come beside one.
            binary = apart and change.action is Action.INSERT and self._takes_equal_keys(change)
            yield f"NOT EXISTS ({NEXT}SELECT 1 FROM {self._holders(change, binary=binary)}{others})"
        number = self._numbered(change) if change.action is Action.INSERT else ()
        yield from self._number_free(change, number)

    def _number_free(self, change: Change, number: Identity, mine: Identity = ()) -> Iterator[str]:
        """Yield that no row has a primary key; the guard of the rule's key covers that of its columns."""
        if number and set(change.identity_columns) != set(change.key_columns):
            taken = self._held(change, _pairs(change, number))
            taken += f" AND NOT ({self._held(change, _pairs(change, mine))})" if mine else ""
            yield f"NOT EXISTS (SELECT 1 FROM {name(change.table)} AS t WHERE {taken})"

    def _holders(self, change: Change, *, binary: bool) -> str:
        """Return the source of the rows that hold the key which a change takes, and what holds for them.

        Without a target it is told by what its columns store; where there is no rule with such a key any
        more, any row counts.
        """
        target, rule = self._plan.targets.get(change.rule), self._plan.rules.get(change.rule)
        source, joins = name(change.table), ""
        where, soft_delete = None, None
        if target is not None:
            where, soft_delete = target.where, target.soft_delete
        elif rule is not None and rule.key == change.key_columns:
            where, soft_delete = rule.where_existing, rule.soft_delete
        if where is not None:
            source = self._select_where(change.table, where)
        terms = [_alive("t", soft_delete)] if soft_delete is not None else []
        if target is not None and change.key:
            joins, more = self._walked(
                "t", target.table, zip(target.key, change.key, strict=True), binary=binary
            )
            terms += more
        else:
            row = {**_computed(change), **_merged(change)}
            stored = [(column, row.get(column)) for column in change.key_columns]
            terms.append(self._held(change, stored))
            terms += self._tell_apart(change, stored) if binary else ()
        return f"{source} AS t{joins} WHERE {' AND '.join(terms)}"

    def _select_where(self, table: str, where: str) -> str:
        return f"(SELECT {self._every(table)} FROM {name(table)} WHERE ({where}))"

    def _every(self, table: str) -> str:
        """Return what selects all columns of a table; * leaves the invisible ones out."""
        known = self._plan.tables.get(table)
        columns = known.columns if known else ()
        return ", ".join(name(c.name) for c in columns) if any(c.invisible for c in columns) else "*"

    def _held(self, change: Change, values: Iterable[tuple[str, Stored]]) -> str:
        """Return the condition that a row ``t`` of the table stores some values, under their collation."""
        return " AND ".join(
            f"t.{name(column)} = ({self._looked_up(change.rule, stored)})"
            if isinstance(stored, Reference)
            else self._alike(change.table, column, f"t.{name(column)}", stored)
            for column, stored in values
        )

    def _tell_apart(self, change: Change, values: Iterable[tuple[str, Stored]]) -> Iterator[str]:
        """Yield that a row ``t`` stores these values to the byte."""
        for column, stored in values:
            if not isinstance(stored, (Reference, ServerTime)):
                spelled = f"t.{name(column)}"
                exact = self._same(change.table, column, spelled, stored)
                if exact != self._alike(change.table, column, spelled, stored):
                    yield exact

    def _takes_equal_keys(self, change: Change) -> bool:
        """Say whether two rows may have keys that only their bytes tell apart.

        Where they may not, a guard by the collation keeps the server from refusing the row.
        """
        known = self._plan.tables.get(change.table)
        target, rule = self._plan.targets.get(change.rule), self._plan.rules.get(change.rule)
        soft_delete = target.soft_delete if target else rule.soft_delete if rule else None
        # Of live rows, a key over the name and this column is one over the name.
        own = (*change.key_columns, *([soft_delete.column] if soft_delete else []))
        key = {column.lower() for column in own}
        return known is not None and not any(
            key >= {*map(str.lower, index.columns)} for index in known.unique_indexes
        )

    def _unfollowed(self, change: Change) -> Iterator[str]:
        """Yield that no row refers to this one through a foreign key that would delete or change it."""
        table = self._plan.tables.get(change.table)
        written = {column.lower() for column in change.after or {}}
        for key in table.cascades if table and change.action is not Action.INSERT else ():
            moves = key.on_update and written & {column.lower() for column in key.references}
            if key.on_delete if change.after is None else moves:
                pairs = zip(key.columns, key.references, strict=True)
                terms = [f"f.{name(one)} = {name(change.table)}.{name(other)}" for one, other in pairs]
                yield f"NOT EXISTS (SELECT 1 FROM {name(key.table)} AS f WHERE {' AND '.join(terms)})"

    # -- References --------------------------------------------------------------------------

    def _looked_up(self, rule: str, reference: Reference) -> str:
        """Return the SELECT of the number of the one live row that has a key; of no row if there are more."""
        target = self._plan.targets.get(rule)
        parts = (*target.key, *target.columns) if target else ()
        join = next((p.join for p in parts if p.join and p.join.rule == reference.rule), None)
        if join is None:
            raise Untold(f"how {rule} refers to {reference.rule} is not known")
        joins, terms = self._walked("r", join.table, zip(join.key, reference.key, strict=True), binary=True)
        live = [_alive("r", join.soft_delete)] if join.soft_delete else []
        return (
            f"{NEXT}SELECT MIN(r.{name(join.column)}) AS id FROM {name(join.table)} AS r{joins}{NEXT}"
            f"WHERE {' AND '.join([*live, *terms])} HAVING COUNT(*) = 1"
        )

    def _walked(
        self, alias: str, table: str, key: Iterable[tuple[Projected, KeyPart]], *, binary: bool = False
    ) -> tuple[str, list[str]]:
        """Return the joins along the references of a key, and what holds for the rows that have it."""
        joins = ""
        terms: list[str] = []
        for number, (projected, part) in enumerate(key):
            column = f"{alias}.{name(projected.column)}"
            if projected.join is not None and isinstance(part, tuple):
                joined = f"{alias}{number}"
                joins += _joined(projected.join, joined, column)
                inner = zip(projected.join.key, part, strict=True)
                more, further = self._walked(joined, projected.join.table, inner, binary=binary)
                joins, terms = joins + more, [*terms, *further]
                continue
            value = part.raw if isinstance(part, Dangling) else part
            assert not isinstance(value, tuple)
            terms.append(self._alike(table, projected.column, column, value))
            if binary and isinstance(value, (str, bytes)):
                terms.append(self._same(table, projected.column, column, value))
        return joins, terms

    # -- Values ------------------------------------------------------------------------------

    def _literal(self, table: str, column: str, value: Value | ServerTime) -> str:
        return self._told(table, column, value) or literal(value)

    def _same(self, table: str, column: str, expression: str, value: Value) -> str:
        told = self._told(table, column, value)
        return f"{expression} = {told}" if told else same(expression, value, self._column(table, column))

    def _alike(self, table: str, column: str, expression: str, value: Value | ServerTime) -> str:
        told = self._told(table, column, value)
        return f"{expression} = {told}" if told else alike(expression, value, self._column(table, column))

    def _told(self, table: str, column: str, value: Value | ServerTime) -> str:
        if self._instead is None or isinstance(value, ServerTime):
            return ""
        return self._instead(table, column, value)

    def _column(self, table: str, column: str) -> Column | None:
        known = self._plan.tables.get(table)
        return known.column(column) if known else None


SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"
"""In which cellsync itself writes."""

NOT_STRICT = f"SET STATEMENT sql_mode = '{SQL_MODE.replace('STRICT_ALL_TABLES,', '')}' FOR\n"

NEXT = "\n    "
"""A line of its own, within a statement."""


def _where(terms: Sequence[str]) -> str:
    return "".join(f"\n{'WHERE' if not at else '  AND'} {term}" for at, term in enumerate(terms))


def _alive(alias: str, soft_delete: SoftDelete) -> str:
    return f"{alias}.{name(soft_delete.column)} = {literal(soft_delete.live)}"


def _joined(join: Join, alias: str, column: str) -> str:
    live = f" AND {_alive(alias, join.soft_delete)}" if join.soft_delete else ""
    return f" JOIN {name(join.table)} AS {alias} ON {alias}.{name(join.column)} = {column}{live}"


def _pairs(change: Change, identity: Identity) -> Iterable[tuple[str, Value]]:
    return zip(change.identity_columns, identity, strict=True)


def _takes_a_key(change: Change) -> bool:
    if change.action is not Action.UPDATE:
        return change.action is Action.INSERT
    before, after = change.before or {}, change.after or {}
    return any(column in after and after[column] != before.get(column) for column in change.key_columns)


def _merged(change: Change) -> Mapping[str, Stored]:
    """Return what is known of a row once the change is made."""
    return {**(change.before or {}), **(change.after or {})}


def _computed(change: Change) -> Mapping[str, Stored]:
    """Return what is known of key columns that the server computes, which no change writes."""
    pairs = zip(change.key_columns, change.key, strict=False)
    return {column: part for column, part in pairs if not isinstance(part, (tuple, Dangling))}


def _taken(change: Change) -> tuple[object, ...]:
    return _comparable(_merged(change), change)


def _comparable(row: Mapping[str, Stored], change: Change) -> tuple[object, ...]:
    values = [row.get(column) for column in change.key_columns]
    return tuple(
        folded((v,))[0] if isinstance(v, str) and not isinstance(v, ServerTime) else v for v in values
    )


def _leaving(changes: Iterable[Change]) -> Leaving:
    """Return the rows that give up their keys: whoever takes one need not fear them."""
    found: dict[tuple[str, tuple[object, ...]], list[Identity]] = {}
    for change in changes:
        if change.action is Action.UPDATE and _takes_a_key(change):
            found.setdefault((change.table, _comparable(change.before or {}, change)), []).append(
                change.identity
            )
    return found
