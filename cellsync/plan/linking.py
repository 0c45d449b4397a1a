"""The order that foreign keys give to new rows and to removed ones, whatever a rule says of them.

A server checks a foreign key with every row. So a row is inserted after the row that it refers to, and
removed before it. Rows that refer to each other in a circle, in one table or in two, are inserted with NULL
in one of these columns, which an update fills when all of them are there; before they are removed, an update
empties it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cellsync.model import (
    Action,
    Change,
    ForeignKey,
    Key,
    Load,
    Reference,
    ServerTime,
    Skipped,
    Stored,
    Value,
)
from cellsync.plan.inputs import Compared
from cellsync.plan.ordering import comparable

Values = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A foreign key of a rule's table, or a reference of the rule, to rows of the same plan."""

    name: str
    columns: tuple[str, ...]
    references: tuple[str, ...]
    """The columns of the referenced table; () for a reference of the rule without a foreign key."""
    target: str
    """The rule whose rows it leads to."""
    opened_by: str | None
    """The column that may be NULL for a moment; None where there is none."""


@dataclass(kw_only=True)
class Opened:
    """Changes of which a circle was opened, and what must be done about them at another time."""

    steps: list[Change | Skipped] = field(default_factory=list)
    updates: list[Change] = field(default_factory=list)
    """Of new rows: what is filled in after all of them. Of removed ones: what is emptied before."""
    stuck: list[Key] = field(default_factory=list)
    """The rows of circles that cannot be opened."""


def find_links(each: Compared, going: Sequence[Compared]) -> list[Link]:
    """Return the links of a rule to its own table, and to tables whose rows come later in the plan."""
    rule, table = each.pairing.rule, each.written
    places = [other.pairing.rule.id for other in going]
    later = {*places[places.index(rule.id) :]} if rule.id in places else {rule.id}
    links = [
        Link(
            name=key.name,
            columns=key.columns,
            references=key.references,
            target=other.pairing.rule.id,
            opened_by=_opening_column(each, key.columns),
        )
        for key in table.foreign_keys
        for other in going
        if other.written.name == key.table and other.pairing.rule.id in later
    ]
    linked = {link.columns for link in links if link.target == rule.id}
    links += [
        Link(
            name=column,
            columns=(column,),
            references=(),
            target=rule.id,
            opened_by=_opening_column(each, (column,)),
        )
        for column, target in rule.references.items()
        if target == rule.id and (column,) not in linked
    ]
    return links


def _opening_column(each: Compared, columns: Iterable[str]) -> str | None:
    """Return the column of a foreign key that may be NULL for a moment: none of the rule's key."""
    known = (each.written.column(name) for name in columns)
    free = (c.name for c in known if c is not None and c.nullable and c.name not in each.pairing.rule.key)
    return next(free, None)


def can_open(each: Compared, key: ForeignKey) -> bool:
    """Say whether rows can be written with NULL in a foreign key first."""
    return _opening_column(each, key.columns) is not None


ChangesOf = Callable[[Compared, set[Action]], Iterable["Change | Skipped"]]


class Linked:
    """The links between the rows of one plan."""

    def __init__(self, going: Sequence[Compared], changes_of: ChangesOf) -> None:
        self._links = {each.pairing.rule.id: find_links(each, going) for each in going}
        self._by_rule = {each.pairing.rule.id: each for each in going}
        self._changes_of = changes_of
        self.filled: list[Change] = []
        """The updates that fill in what new rows were inserted without."""
        self.removals = any(self._does(each, Action.DELETE) for each in going)
        """True where rows that are removed may refer to each other against the order of the tables."""

    def _does(self, each: Compared, action: Action) -> list[Link]:
        """Return the links of a rule that are between rows of which a plan does the same."""
        links = self._links[each.pairing.rule.id] if each.table.does(action) else []
        return [link for link in links if self._by_rule[link.target].table.does(action)]

    def takes_as_it_is(self, each: Compared, load: Load) -> bool:
        """Say whether new rows can be inserted in the order in which they come, without a look at them."""
        links = self._does(each, Action.INSERT)
        if any(link.target != each.pairing.rule.id for link in links):
            return False
        seen: dict[tuple[str, ...], set[Values]] = {link.references: set() for link in links}
        waiting: dict[tuple[str, ...], set[Values]] = {link.references: set() for link in links}
        for change in load if links else ():
            row = known_row(change)
            for columns, values in seen.items():
                if (held := _values_of(row, columns)) is not None:
                    values.add(held)
                    if held in waiting[columns]:
                        return False  # another row before it refers to it
            for link in links:
                if (wanted := _values_of(row, link.columns)) is not None and wanted not in seen[
                    link.references
                ]:
                    waiting[link.references].add(wanted)
        return True

    def insert(
        self, each: Compared, steps: Iterator[Change | Skipped], aside: Mapping[str, set[Key]]
    ) -> Iterator[Change | Skipped]:
        """Return the new rows of a rule in order; adds to ``filled``.

        What cannot be inserted is added to ``aside``.
        """
        links = self._does(each, Action.INSERT)
        if not links:
            return steps
        every = [*steps]
        if any(isinstance(step, Change) and step.together for step in every):
            return iter(every)  # with the rows that come with them
        opened = arrange(every, each, links, self._later(each, links, Action.INSERT))
        self.filled += opened.updates
        aside[each.pairing.rule.id].update(opened.stuck)
        return iter(opened.steps)

    def remove(
        self, removals: Iterable[tuple[Compared, Iterable[Change | Skipped]]]
    ) -> list[Change | Skipped]:
        """Return the rows to be removed, of all rules in their order, after the updates that this takes."""
        emptied: list[Change | Skipped] = []
        steps: list[Change | Skipped] = []
        for each, mine in removals:
            links = self._does(each, Action.DELETE)
            if links:
                opened = arrange(mine, each, links, self._later(each, links, Action.DELETE))
                emptied += opened.updates
                steps += opened.steps
            else:
                steps += mine
        return [*emptied, *steps]

    def _later(self, each: Compared, links: Sequence[Link], action: Action) -> Mapping[str, Providers]:
        """Return the rows of rules that come later in the plan, to which rows of a rule may refer."""
        return {
            name: Providers(
                (
                    step
                    for step in self._changes_of(self._by_rule[name], {action})
                    if isinstance(step, Change)
                ),
                name,
                links,
            )
            for name in dict.fromkeys(link.target for link in links)
            if name != each.pairing.rule.id
        }


class Providers:
    """The rows that links may lead to: the changes that insert or remove them, by what they are known by."""

    def __init__(self, changes: Iterable[Change], rule: str, links: Iterable[Link]) -> None:
        self._by_key: dict[Key, int] = {}
        self._by_values: dict[tuple[str, ...], dict[Values, int]] = {}
        references = {link.references for link in links if link.target == rule and link.references}
        for at, change in enumerate(changes):
            row = known_row(change)
            self._by_key[change.key] = at
            for columns in references:
                values = _values_of(row, columns)
                if values is not None:
                    self._by_values.setdefault(columns, {})[values] = at

    def find(self, row: Mapping[str, Stored], link: Link) -> int | None:
        """Return the number of the change whose row a row refers to; None where there is none."""
        value = row.get(link.columns[0])
        if len(link.columns) == 1 and isinstance(value, Reference):
            return self._by_key.get(value.key) if value.rule == link.target else None
        values = _values_of(row, link.columns)
        return self._by_values.get(link.references, {}).get(values) if values is not None else None


def known_row(change: Change) -> Mapping[str, Stored]:
    """Return what is known of the row that a change inserts or removes."""
    if change.action is Action.INSERT:
        return change.after or {}
    return {**dict(zip(change.identity_columns, change.identity, strict=False)), **(change.before or {})}


def _values_of(row: Mapping[str, Stored], columns: Iterable[str]) -> Values | None:
    values = [row.get(name) for name in columns]
    return None if None in values else tuple(map(comparable, values))


def arrange(
    steps: Iterable[Change | Skipped], each: Compared, links: Sequence[Link], later: Mapping[str, Providers]
) -> Opened:
    """Order new rows, or removed ones, of a rule by its links, and open the circles of them.

    ``later`` has the rows of rules that come later in the plan. Holds all of the rule's changes in memory.
    """
    opened = Opened()
    changes: list[Change] = []
    for step in steps:
        if isinstance(step, Change) and (step.after is None or step.action is Action.INSERT):
            changes.append(step)
        else:
            opened.steps.append(step)
    own = [link for link in links if link.target == each.pairing.rule.id]
    graph = _Graph(changes, own, Providers(changes, each.pairing.rule.id, own))
    order = graph.sort()
    for at in order if not changes or changes[0].action is Action.INSERT else reversed(order):
        change, cuts = changes[at], dict(graph.cuts.get(at, {}))
        row = known_row(change)
        outside = [
            each for each in links if each.target in later and later[each.target].find(row, each) is not None
        ]
        cuts.update((link.name, link) for link in outside)
        stuck = at in graph.stuck or any(link.opened_by is None for link in outside)
        if stuck:
            opened.steps.append(_describe_stuck(change, outside or own))
            opened.stuck.append(change.key)
            continue
        for column in dict.fromkeys(link.opened_by for link in cuts.values()):
            assert column is not None
            change, update = _open(change, column)
            opened.updates.append(update)
        opened.steps.append(change)
    return opened


def _describe_stuck(change: Change, links: Sequence[Link]) -> Skipped:
    names = " and ".join(dict.fromkeys(", ".join(link.columns) for link in links))
    doing = "inserted" if change.action is Action.INSERT else "removed"
    reason = (
        f"it is one of several rows that refer to each other in a circle through {names}, which cannot be "
        f"NULL for a moment: none of them can be {doing} first"
    )
    return Skipped(rule=change.rule, key=change.key, reason=reason)


def _open(change: Change, column: str) -> tuple[Change, Change]:
    """Return a change of a row with NULL in a column, and the update that this takes."""
    row = known_row(change)
    held = {name: row[name] for name in change.key_columns if name in row}
    if change.action is Action.INSERT:
        values = [row.get(name) for name in change.identity_columns]
        plain = [value for value in values if value is not None and not isinstance(value, Reference)]
        filled = replace(
            change,
            action=Action.UPDATE,
            identity=_as_identity(plain) if len(plain) == len(values) else (),
            before={**held, column: None},
            after={column: row[column]},
            reason=f"{change.reason}; the row that {column} refers to is there now",
        )
        return change.but(after={**row, column: None}), filled
    emptied = replace(
        change,
        action=Action.UPDATE,
        before={**held, column: row[column]},
        after={column: None},
        reason=f"{change.reason}; {column} is emptied, so that the row that it refers to can be removed",
    )
    return change.but(before={**(change.before or {}), column: None}), emptied


def split_self_references(steps: Iterator[Change | Skipped], each: Compared) -> Iterator[Change | Skipped]:
    """Make updates in two steps that move what others refer to, and let the row refer to itself.

    A server takes it as one step, but not its way back: no row that refers to itself can be moved.
    """
    own = [key for key in each.written.foreign_keys if key.table == each.written.name]
    moved = [key for key in own if not each.table.updated_columns.isdisjoint(key.references)]
    return _split_all(steps, moved) if moved else steps


def _split_all(steps: Iterator[Change | Skipped], keys: Sequence[ForeignKey]) -> Iterator[Change | Skipped]:
    number = 0
    for step in steps:
        links = _find_self_links(step, keys) if isinstance(step, Change) else set()
        if not isinstance(step, Change) or not links:
            yield step
            continue
        number += 1
        after, token = step.after or {}, step.together or f"itself-{number}"
        moved = {name: value for name, value in after.items() if name not in links}
        first = replace(step, after=moved, together=token)
        kept = step.unwritten
        for name, value in moved.items():
            if not isinstance(value, ServerTime):
                kept[name] = value.key if isinstance(value, Reference) else value
        yield first
        yield replace(
            step,
            identity=first.identity_after,
            before={**(step.before or {}), **moved},
            after={name: after[name] for name in after if name in links},
            together=token,
            unwritten_columns=tuple(kept),
            unwritten_values=tuple(kept.values()),
        )


def _find_self_links(change: Change, keys: Iterable[ForeignKey]) -> set[str]:
    """Return the columns by which a row comes to refer to itself, where what they refer to moves."""
    after = change.after or {}
    row = {**known_row(change), **after}
    itself = Reference(rule=change.rule, key=change.key)
    links: set[str] = set()
    for key in keys:
        names = {*key.columns}
        if names.isdisjoint(after) or after.keys().isdisjoint(key.references):
            continue
        meant = {row.get(name) == itself for name in key.columns} == {True}
        values = _values_of(row, key.columns)
        if meant or (values is not None and values == _values_of(row, key.references)):
            links |= names & after.keys()
    moving = {name for key in keys for name in key.references}
    return links if links.isdisjoint(moving) else set()


def _as_identity(values: Iterable[Stored]) -> tuple[Value, ...]:
    return tuple(value for value in values if not isinstance(value, Reference))


class _Graph:
    """Which change of a rule needs which: depth first, each after what it needs."""

    def __init__(self, changes: Sequence[Change], links: Sequence[Link], providers: Providers) -> None:
        self.cuts: dict[int, dict[str, Link]] = {}
        """Change -> the links that are opened, by name."""
        self.stuck: set[int] = set()
        self._changes = changes
        self._links = links
        self._providers = providers

    def sort(self) -> list[int]:
        """Return the numbers of the changes in order; fills ``cuts`` and ``stuck``."""
        placed: dict[int, None] = {}
        for start in range(len(self._changes)):
            chain: dict[int, Link | None] = {start: None} if start not in placed else {}
            while chain:
                at = next(reversed(chain))
                need = next(self._needs(at, placed), None)
                if need is None:
                    chain.pop(at)
                    placed[at] = None
                    continue
                target, chain[at] = need
                if target in chain:
                    self._break(chain, target, placed)
                else:
                    chain[target] = None
        return [*placed]

    def _needs(self, at: int, placed: Mapping[int, None]) -> Iterator[tuple[int, Link]]:
        """Yield the changes that must come before one, and are not there yet."""
        row = known_row(self._changes[at])
        for link in self._links:
            if link.name in self.cuts.get(at, {}):
                continue
            target = self._providers.find(row, link)
            if target in self.stuck:
                self.stuck.add(at)
            elif target is None or target in placed or (target == at and not self._holds_itself(row, link)):
                continue
            else:
                yield target, link

    def _holds_itself(self, row: Mapping[str, Stored], link: Link) -> bool:
        """Say whether a row that refers to itself is in its own way.

        A server removes none while it does so, which an undo of a new one needs as well. New rows cannot
        refer to a number that they have not got yet.
        """
        inserting = self._changes[0].action is Action.INSERT
        return not inserting or link.opened_by is not None or isinstance(row.get(link.columns[0]), Reference)

    def _break(self, chain: dict[int, Link | None], target: int, placed: dict[int, None]) -> None:
        """Open the circle that a chain of changes closes at ``target``; where it cannot be, all are stuck."""
        circle = [*chain][[*chain].index(target) :]
        for at in reversed(circle):
            link = chain[at]
            if link is not None and link.opened_by is not None:
                self.cuts.setdefault(at, {})[link.name] = link
                for above in circle[circle.index(at) + 1 :]:
                    chain.pop(above)
                return
        self.stuck.update(circle)
        for at in circle:
            chain.pop(at)
            placed[at] = None
