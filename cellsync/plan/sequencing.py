"""The order of all changes of tables in which values move that other rows refer to.

An ordinary plan writes table by table: new rows, updates, removals. That is not enough where an update
changes a number to which foreign keys or references of rules lead. Then all changes of the tables that hang
together are put in one order:

- a row brings a number, and the row that had it gives it up, before another one comes to refer to it,
- a row stops referring to a number before the row that has it moves or goes,
- a unique value is given up before it is taken,
- the changes of one row stay in their order.

Where changes wait for each other in a circle, references in it are emptied first and filled in afterwards.
What waits in a circle all the same is not made.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import NamedTuple

from cellsync.model import Action, Change, Identity, Reference, ServerTime, Skipped, Stored
from cellsync.plan.inputs import Compared
from cellsync.plan.linking import find_opening_column, known_row
from cellsync.plan.ordering import comparable, find_knots, given_up, taken

Values = tuple[object, ...]


class _Place(NamedTuple):
    """Values to which rows refer."""

    table: str
    columns: tuple[str, ...]
    values: Values


class _Link(NamedTuple):
    """A foreign key of a rule's table, or a reference of the rule."""

    columns: tuple[str, ...]
    table: str
    references: tuple[str, ...]
    opened_by: str | None
    """The column that may be NULL for a moment; None where there is none."""


class _Edge(NamedTuple):
    """One group of changes must be made before another."""

    first: int
    then: int
    row: Reference | None = None
    """The row whose reference is why; None where it is no reference."""
    link: _Link | None = None


# -- Which rules -----------------------------------------------------------------------------------


def find_moving_rules(going: Sequence[Compared]) -> frozenset[str]:
    """Return the rules that must be ordered together: of tables in which referenced values move.

    With all that they refer to, and that refer to them, directly or not.
    """
    moving = {each.pairing.rule.id for each in going if _moves_referenced(each, going)}
    return find_connected(moving, going) if moving else frozenset()


def _moves_referenced(each: Compared, going: Sequence[Compared]) -> bool:
    updated = each.table.updated_columns
    if not updated:
        return False
    names = {name for key in (*each.written.referrers, *each.written.cascades) for name in key.references}
    names.update(
        join.column
        for other in going
        for join in other.pairing.existing.joins.values()
        if join.rule == each.pairing.rule.id
    )
    return not updated.isdisjoint(names)


def find_connected(rules: Collection[str], going: Sequence[Compared]) -> frozenset[str]:
    """Return these rules and all that are connected to them by references, foreign keys and tables."""
    neighbours: dict[str, set[str]] = {each.pairing.rule.id: set() for each in going}
    of_table: dict[str, list[str]] = defaultdict(list)
    for each in going:
        of_table[each.written.name].append(each.pairing.rule.id)
    for each in going:
        rule = each.pairing.rule
        others = {*rule.references.values(), *of_table[each.written.name]}
        others.update(other for key in each.written.foreign_keys for other in of_table.get(key.table, ()))
        if rule.comes_with is not None:
            others.add(rule.comes_with.rule)
        for other in others & neighbours.keys():
            neighbours[rule.id].add(other)
            neighbours[other].add(rule.id)
    found = set(rules) & neighbours.keys()
    waiting = [*found]
    while waiting:
        fresh = neighbours[waiting.pop()] - found
        found |= fresh
        waiting += fresh
    return frozenset(found)


# -- Their order -----------------------------------------------------------------------------------


def sequence(steps: Iterable[Change | Skipped], going: Sequence[Compared]) -> Iterator[Change | Skipped]:
    """Yield all steps of connected rules in an order in which the server takes each of them.

    ``steps`` come in the order of an ordinary plan, which is kept as far as it can be. Holds them in memory.
    """
    changes: list[Change] = []
    for step in steps:
        if isinstance(step, Change):
            changes.append(step)
        else:
            yield step
    by_rule = {each.pairing.rule.id: each for each in going}
    groups = [[*group] for _, group in groupby(changes, key=_Grouping())]
    while True:
        order = _Order(groups, by_rule)
        cuts = order.find_cuts()
        if not cuts:
            break
        groups = [part for at, group in enumerate(groups) for part in _cut(group, cuts.get(at, {}))]
    stuck = order.find_stuck()
    for at in order.sort():
        yield from map(_describe_stuck, groups[at]) if at in stuck else groups[at]


class _Grouping:
    """Tells the changes apart that do not belong together; for ``groupby``."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, change: Change) -> object:
        self._number += 1
        return change.together or self._number


def _describe_stuck(change: Change) -> Skipped:
    reason = (
        "numbers change hands in a circle with rows that refer to them, or it waits for such rows: none of "
        "them can be first. Give one of them another number by hand, or NULL for its reference"
    )
    return Skipped(rule=change.rule, key=change.key, reason=reason)


@dataclass
class _Uses:
    """Which groups of changes do what to one place."""

    brings: list[int] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    starts: list[tuple[int, Reference, _Link]] = field(default_factory=list)
    stops: list[tuple[int, Reference, _Link]] = field(default_factory=list)


class _Order:
    """The order among groups of changes; each group stays together."""

    def __init__(self, groups: Sequence[Sequence[Change]], by_rule: Mapping[str, Compared]) -> None:
        self._groups = groups
        self._by_rule = by_rule
        self._links = {rule: [*_find_links(each, by_rule)] for rule, each in by_rule.items()}
        self._referenced: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for links in self._links.values():
            for link in links:
                self._referenced[link.table].add(link.references)
        self._numbers = self._find_numbers()
        self._edges = [*self._find_edges()]
        self._blockers: list[set[int]] = [set() for _ in groups]
        for edge in self._edges:
            if edge.first != edge.then:
                self._blockers[edge.then].add(edge.first)
        self._knots = [*find_knots([sorted(each) for each in self._blockers])]

    def find_cuts(self) -> dict[int, dict[Reference, set[_Link]]]:
        """Return which references, of which rows, must be emptied first because changes wait in a circle."""
        knot_of = {at: number for number, knot in enumerate(self._knots) for at in knot}
        cuts: dict[int, dict[Reference, set[_Link]]] = {}
        for edge in self._edges:
            row, link = edge.row, edge.link
            if row is None or link is None or knot_of[edge.first] != knot_of[edge.then]:
                continue
            for at in {edge.first, edge.then}:
                if any(_row_of(change) == row and _can_cut(change, link) for change in self._groups[at]):
                    cuts.setdefault(at, {}).setdefault(row, set()).add(link)
        return cuts

    def find_stuck(self) -> set[int]:
        """Return the groups that cannot be made: those that wait in a circle, and what waits for them."""
        itself = {edge.first for edge in self._edges if edge.first == edge.then}
        stuck: set[int] = set()
        for knot in self._knots:  # each after those that it waits for
            waits = not stuck.isdisjoint(other for at in knot for other in self._blockers[at])
            if len(knot) > 1 or waits or knot[0] in itself:
                stuck.update(knot)
        return stuck

    def sort(self) -> Iterator[int]:
        """Yield the groups, each after those that it waits for, and else as they stand."""
        takers: dict[int, list[int]] = defaultdict(list)
        knot_of = {at: number for number, knot in enumerate(self._knots) for at in knot}
        left: dict[int, int] = {}
        for at, needed in enumerate(self._blockers):
            apart = [other for other in needed if knot_of[other] != knot_of[at]]
            left[at] = len(apart)
            for other in apart:
                takers[other].append(at)
        ready = [(self._rank(at), at) for at, count in left.items() if not count]
        heapq.heapify(ready)
        while ready:
            _, at = heapq.heappop(ready)
            yield at
            for taker in takers[at]:
                left[taker] -= 1
                if not left[taker]:
                    heapq.heappush(ready, (self._rank(taker), taker))

    def _rank(self, at: int) -> bool:
        """Return False for what a server said must come before all new rows."""
        return not any(change.key in self._by_rule[change.rule].clashes.first for change in self._groups[at])

    # -- What changes do to values that are referred to --------------------------------------------

    def _find_numbers(self) -> dict[bool, dict[tuple[Reference, str], Stored]]:
        """Return the values that rows have in referenced columns before (False) and after their changes."""
        found: dict[bool, dict[tuple[Reference, str], Stored]] = {False: {}, True: {}}
        for change in self._changes():
            table, row = self._by_rule[change.rule].written.name, _row_of(change)
            names = {name for columns in self._referenced[table] for name in columns}
            for name in names:
                if change.after is None or (name in change.after and change.action is not Action.INSERT):
                    found[False].setdefault((row, name), known_row(change).get(name))
                if change.after is not None and name in change.after:
                    found[True][row, name] = change.after[name]
        return found

    def _changes(self) -> Iterator[Change]:
        return (change for group in self._groups for change in group)

    def _image(self, row: Mapping[str, Stored], columns: Sequence[str], rule: str, *, after: bool) -> Values:
        """Return what a row holds in some columns, with numbers for references; () where one is NULL."""
        joins = self._by_rule[rule].pairing.existing.joins
        image: list[object] = []
        for name in columns:
            value, join = row.get(name), joins.get(name)
            while isinstance(value, Reference) and join is not None:  # a number may itself be a reference
                number = (value, join.column)
                if number not in self._numbers[after]:
                    break
                value = self._numbers[after][number]
                join = self._by_rule[join.rule].pairing.existing.joins.get(join.column)
            if value is None:
                return ()
            image.append(comparable(value))
        return tuple(image)

    def _find_edges(self) -> Iterator[_Edge]:
        uses: dict[_Place, _Uses] = defaultdict(_Uses)
        named: dict[Reference, _Uses] = defaultdict(_Uses)
        rows: dict[Reference, list[tuple[int, Change]]] = defaultdict(list)
        for at, group in enumerate(self._groups):
            for change in group:
                self._note_places(at, change, uses)
                self._note_names(at, change, named)
                rows[_row_of(change)].append((at, change))
        yield from self._find_reference_edges(uses.values())
        yield from self._find_reference_edges(named.values())
        for use in named.values():  # rows are known by the keys that they get
            for at, _, _ in use.stops:
                yield from (_Edge(first, at) for first in use.brings if first != at)
        for changes in rows.values():
            places = [at for at, _ in changes]
            yield from (_Edge(one, two) for one, two in pairwise(places) if one != two)
        yield from self._find_unique_edges()
        yield from self._find_asked_edges(rows)

    def _find_unique_edges(self) -> Iterator[_Edge]:
        """Yield what takes a unique value after what gives it up."""
        given: dict[object, list[int]] = defaultdict(list)
        took: dict[object, list[int]] = defaultdict(list)
        for at, group in enumerate(self._groups):
            for change in group:
                table = self._by_rule[change.rule].written
                indexes = [index for index in table.unique_indexes if _writes(change, index.columns)]
                for slot in given_up(change, indexes):
                    given[table.name, slot].append(at)
                for slot in taken(change, indexes):
                    took[table.name, slot].append(at)
        for place, takers in took.items():
            for taker in takers:
                yield from (_Edge(giver, taker) for giver in given.get(place, ()) if giver != taker)

    def _find_asked_edges(self, rows: Mapping[Reference, Sequence[tuple[int, Change]]]) -> Iterator[_Edge]:
        """Yield what takes a unique value after what gives it up, where the server was asked about that."""
        for row, changes in rows.items():
            each = self._by_rule[row.rule]
            for name, other in each.clashes.waits.get(row.key, {}).items():
                givers = rows.get(Reference(rule=row.rule, key=other), ())
                for index in (index for index in each.written.unique_indexes if index.name == name):
                    columns = each.written.base_columns(index) or index.columns
                    takers = [at for at, change in changes if _writes(change, columns)]
                    for first in (at for at, change in givers if _writes(change, columns)):
                        yield from (_Edge(first, taker) for taker in takers if taker != first)

    def _find_reference_edges(self, uses: Iterable[_Uses]) -> Iterator[_Edge]:
        for use in uses:
            for at, row, link in use.starts:
                for first in (*use.brings, *use.leaves):
                    if first != at or self._moves_within(at):
                        yield _Edge(first, at, row, link)
            for at, row, link in use.stops:
                for then in use.leaves:
                    if then != at or self._moves_within(at):
                        yield _Edge(at, then, row, link)

    def _moves_within(self, at: int) -> bool:
        """Say whether a group is of updates: new rows that come together are in order already."""
        return self._groups[at][0].action is Action.UPDATE

    def _note_places(self, at: int, change: Change, uses: dict[_Place, _Uses]) -> None:
        written, before = change.after or {}, known_row(change) if change.action is not Action.INSERT else {}
        after = {**before, **written} if change.after is not None else {}
        rule, table = change.rule, self._by_rule[change.rule].written.name
        for columns in self._referenced[table]:
            if change.action is Action.UPDATE and written.keys().isdisjoint(columns):
                continue
            old = self._image(before, columns, rule, after=False)
            new = self._image(after, columns, rule, after=True)
            if old != new:
                if old:
                    uses[_Place(table, columns, old)].leaves.append(at)
                if new:
                    uses[_Place(table, columns, new)].brings.append(at)
        for link in self._links[rule]:
            if change.action is Action.UPDATE and written.keys().isdisjoint(link.columns):
                continue
            old = self._image(before, link.columns, rule, after=False)
            new = self._image(after, link.columns, rule, after=True)
            if old:
                uses[_Place(link.table, link.references, old)].stops.append((at, _row_of(change), link))
            if new:
                uses[_Place(link.table, link.references, new)].starts.append((at, _row_of(change), link))

    def _note_names(self, at: int, change: Change, named: dict[Reference, _Uses]) -> None:
        """Note which rows a change finds by their keys, and which rows get or lose theirs."""
        each = self._by_rule[change.rule]
        rule, target = each.pairing.rule, each.pairing.existing
        row, written = _row_of(change), change.after or {}
        removes = change.after is None or (
            rule.soft_delete is not None and rule.soft_delete.column in written
        )
        if change.action is Action.INSERT or not {*rule.key}.isdisjoint(written):
            named[row].brings.append(at)
        elif removes:
            named[row].leaves.append(at)
        by_column = {name: link for link in self._links[rule.id] for name in link.columns}
        for name, link in by_column.items() if target.joins else ():
            old, new = (change.before or {}).get(name), written.get(name)
            if isinstance(old, Reference) and old != row:
                named[old].stops.append((at, row, link))
            if isinstance(new, Reference) and new != row:
                named[new].starts.append((at, row, link))


def _writes(change: Change, columns: Collection[str]) -> bool:
    return change.after is None or not change.after.keys().isdisjoint(columns)


def _row_of(change: Change) -> Reference:
    return Reference(rule=change.rule, key=change.key)


def _find_links(each: Compared, by_rule: Mapping[str, Compared]) -> Iterator[_Link]:
    tables = {other.written.name for other in by_rule.values()}
    keyed: set[tuple[str, ...]] = set()
    for key in each.written.foreign_keys:
        if key.table in tables:
            keyed.add(key.columns)
            yield _Link(key.columns, key.table, key.references, find_opening_column(each, key.columns))
    for column, join in each.pairing.existing.joins.items():
        if (column,) not in keyed and join.rule in by_rule:
            table = by_rule[join.rule].written.name
            yield _Link((column,), table, (join.column,), find_opening_column(each, (column,)))


# -- Circles opened --------------------------------------------------------------------------------


def _can_cut(change: Change, link: _Link) -> bool:
    """Say whether a change can be made in steps, with NULL in a reference meanwhile."""
    name, row = link.opened_by, change.after
    if name is None:
        return False
    if row is None or change.action is Action.INSERT:
        return known_row(change).get(name) is not None
    alone = row.keys() == {name} and None in (row[name], (change.before or {}).get(name))
    return name in row and not alone


def _cut(group: list[Change], cuts: Mapping[Reference, Collection[_Link]]) -> Iterator[list[Change]]:
    """Yield a group in steps: rows stop to refer to others, then the rest of it, then they refer again."""
    first: list[Change] = []
    then: list[Change] = []
    for row, links in cuts.items():
        for name in dict.fromkeys(link.opened_by for link in links):
            assert name is not None
            mine = [change for change in group if _row_of(change) == row]
            unlinked, linked = _split(mine, name)
            first += unlinked
            then += linked
            left = {id(change): _without(change, name) for change in mine}
            group = [left.get(id(change), change) for change in group]
            group = [change for change in group if change.after is None or change.after]
    yield from ([change] for change in first)
    if group:
        yield group
    yield from ([change] for change in then)


def _split(mine: Sequence[Change], name: str) -> tuple[list[Change], list[Change]]:
    """Return the updates that empty a column before the changes of a row, and that fill it afterwards."""
    start, end = mine[0], mine[-1]
    held = known_row(start).get(name) if start.action is not Action.INSERT else None
    wanted = next((c.after[name] for c in reversed(mine) if c.after and name in c.after), None)
    known = {column: value for column, value in known_row(end).items() if column in end.key_columns}
    update = {"action": Action.UPDATE, "together": ""}
    emptied = replace(
        start,
        **update,  # type: ignore[arg-type]
        before={**known, **(start.before or {}), name: held},
        after={name: None},
        reason=f"{start.reason}; {name} is emptied, so that the row that it refers to can move",
    )
    there = _without(end, name)
    filled = replace(
        there,
        **update,  # type: ignore[arg-type]
        identity=_find_identity(there),
        before={**known, **(there.before or {}), **(there.after or {}), name: None},
        after={name: wanted},
        reason=f"{end.reason}; the row that {name} refers to is there now",
    )
    return [emptied] if held is not None else [], [filled] if wanted is not None else []


def _find_identity(change: Change) -> Identity:
    """Return the primary key of a row once it is written; () where only the server knows it."""
    if change.action is not Action.INSERT:
        return change.identity_after
    values = [(change.after or {}).get(name) for name in change.identity_columns]
    plain = [
        value for value in values if value is not None and not isinstance(value, (Reference, ServerTime))
    ]
    return tuple(plain) if len(plain) == len(values) else ()


def _without(change: Change, name: str) -> Change:
    """Return a change of a row that has NULL in a column, and keeps it."""
    before, after = change.before, change.after
    if before is not None and name in before:
        before = {**before, name: None}
    if after is not None and name in after:
        new = change.action is Action.INSERT
        after = {**after, name: None} if new else {n: v for n, v in after.items() if n != name}
    return change.but(before=before, after=after)
