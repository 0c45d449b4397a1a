"""One transaction: look the references up, check every guard against locked rows, write, read back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast

from cellsync.apply.doors import RawRow, Writer
from cellsync.errors import Rejected, WriteFailed
from cellsync.model import (
    Action,
    Change,
    Fate,
    Identity,
    Join,
    Key,
    Outcome,
    Projected,
    Projection,
    Reference,
    Row,
    ServerTime,
    Stored,
    Table,
    Value,
    dangles,
    safe,
    shown,
)


class Batch:
    """One transaction's worth of changes to one table, all of one action."""

    def __init__(
        self,
        changes: Sequence[Change],
        writer: Writer,
        targets: Mapping[str, Projection],
        sparing: Collection[str],
    ) -> None:
        self._changes = changes
        self._writer = writer
        first = changes[0]
        self._table = writer.tables([first.table]).get(first.table)
        self._target = targets.get(first.rule)
        self._spares = first.rule in sparing
        parts = (*self._target.key, *self._target.columns) if self._target else None
        self._strict = None if parts is None else {part.column for part in parts}
        self._references = tuple(dict.fromkeys(references(changes)))
        self._identity = first.identity_columns or (self._table.identity if self._table else ())
        columns = [self._table.column(name) if self._table else None for name in self._identity]
        self._spelled = [c.name if c else name for c, name in zip(columns, self._identity, strict=True)]

    def run(self) -> list[Outcome]:
        """Make the changes, inside the caller's transaction, and return what became of each."""
        if self._table is None:
            gone = f"there is no table {self._changes[0].table}"
            return [Outcome(change=c, fate=Fate.FAILED, message=gone) for c in self._changes]
        self._resolved = self._resolve()
        self._changes = self._located()
        self._locked = dict(self._lock())
        # What each change found, and what it left: one row may be changed twice in a circle.
        self._found: dict[int, RawRow] = {}
        self._left: dict[int, RawRow] = {}
        self._taken = self._look_for_taken()
        self._inserted = self._insert_all()
        self._updated = self._update_all()
        made = [self._make(change) for change in self._changes]
        return self._read_back(made)

    def _resolve(self) -> Mapping[Reference, tuple[Value, ...]]:
        wanted: dict[str, list[Key]] = {}
        for reference in self._references:
            wanted.setdefault(reference.rule, []).append(reference.key)
        leading = {join.rule: join for join in joins(self._target)}
        return {
            Reference(rule=rule, key=key): ids
            for rule, keys in wanted.items()
            for key, ids in self._writer.resolve(leading[rule], keys).items()
        }

    def _located(self) -> Sequence[Change]:
        """Return the changes with the primary keys of rows that got theirs since the plan was made."""
        unknown = [c for c in self._changes if c.action is Action.UPDATE and not c.identity]
        if not unknown or self._target is None:
            return self._changes
        rows = self._holders(self._target, list(dict.fromkeys(change.key for change in unknown)))
        known = {row.key: row.identity for row in rows}
        asked = {*map(id, unknown)}
        return [c.but(identity=known.get(c.key, ())) if id(c) in asked else c for c in self._changes]

    def _lock(self) -> Mapping[Identity, RawRow]:
        named = (change for change in self._changes if change.action is not Action.INSERT)
        identities = [change.identity for change in named if change.identity]
        first = self._changes[0]
        return self._writer.lock(first.table, self._identity, identities) if identities else {}

    def _look_for_taken(self) -> Mapping[Key, Row]:
        """Return for each key to be taken the row that holds it already, in any spelling."""
        taking = [change for change in self._changes if _takes_a_key(change)]
        if not taking:
            return {}
        target = self._target or _raw_target(self._table, taking[0])
        keys = {change.key if self._target else _raw_key(change): change.key for change in taking}
        # Rows of this batch give up their own keys; unique values have put them in order.
        leaving = {change.identity for change in taking if change.action is Action.UPDATE}
        found: dict[Key, Row] = {}
        for row in self._holders(target, list(keys)):
            if row.identity in leaving:
                continue
            if row.key in keys:
                found[keys[row.key]] = row
            else:
                found.update(self._spelled_otherwise(target, keys))
        return found

    def _holders(self, target: Projection, keys: Sequence[Key]) -> list[Row]:
        """Return the rows that hold one of the keys for the application to see.

        A row in limbo holds none, and neither does a leftover that refers to a deleted row: the
        live row of that name is another one.
        """
        return [row for row in self._writer.taken(target, keys) if not row.limbo and not dangles(row.key)]

    def _spelled_otherwise(self, target: Projection, keys: Mapping[Key, Key]) -> dict[Key, Row]:
        """Ask for one key at a time: a row came up that none of them names exactly."""
        return {original: rows[0] for key, original in keys.items() if (rows := self._holders(target, [key]))}

    def _insert_all(self) -> Mapping[int, RawRow]:
        """Insert all new rows that nothing stands against at once; return each as the server has it.

        Empty where the server cannot do that, or does not take one of them: then each is inserted by
        itself, and the server's answer is about that row.
        """
        new = [c for c in self._changes if c.action is Action.INSERT and self._problem(c) is None]
        if len(new) < 2 or any((c.after or {}).keys() != (new[0].after or {}).keys() for c in new):
            return {}
        try:
            rows = self._writer.insert_many(new[0].table, [self._values(change.after) for change in new])
        except Rejected:
            return {}
        return {} if rows is None else dict(zip(map(id, new), rows, strict=True))

    def _update_all(self) -> Collection[int]:
        """Update all rows that nothing stands against at once; return for which changes that was done.

        For none where they write different columns, where one row is changed twice, where others may
        follow a row, where the server cannot do that, or does not take one of them: then each is updated
        by itself, in order, and the server's answer is about that row.
        """
        assert self._table is not None
        if self._identity != self._table.identity or (self._spares and self._table.cascades):
            return ()
        if len({change.identity for change in self._changes}) < len(self._changes):
            return ()
        if any(change.identity != change.identity_after for change in self._changes):
            return ()  # one row may take the primary key that another gives up: in order
        ready = [c for c in self._changes if c.action is Action.UPDATE and self._problem(c) is None]
        if len(ready) < 2 or len({tuple(change.after or {}) for change in ready}) > 1:
            return ()
        rows = {change.identity: self._values(change.after) for change in ready}
        try:
            done = self._writer.update_many(ready[0].table, self._identity, rows)
        except Rejected:
            return ()
        return {id(change) for change in ready} if done else ()

    def _of(self, row: RawRow) -> Identity:
        return tuple(row[name] for name in self._spelled)

    def _make(self, change: Change) -> Outcome:
        inserted = self._inserted.get(id(change))
        if inserted is not None:
            return Outcome(change=change.but(identity=self._of(inserted)), fate=Fate.APPLIED)
        if id(change) in self._updated:
            self._evolve(change, self._values(change.after))
            return Outcome(change=change, fate=Fate.APPLIED)
        problem = self._problem(change)
        if problem is not None:
            return Outcome(change=change, fate=Fate.CONFLICT, message=problem)
        try:
            return self._write(change)
        except Rejected as error:
            return Outcome(change=change, fate=Fate.FAILED, message=str(error))

    def _problem(self, change: Change) -> str | None:
        for reference in references((change,)) if self._references else ():
            ids = self._resolved.get(reference, ())
            if len(ids) != 1:
                name = "/".join(shown(part) for part in reference.key)
                how = "is not there" if not ids else f"is there {len(ids)} times"
                return f"the {reference.rule} row {name} that it refers to {how}"
        holder = self._taken.get(change.key)
        if holder is not None and holder.identity != change.identity:
            return f"the key is taken by {_named(self._identity, holder.identity)}"
        if change.action is Action.INSERT:
            return None
        held = self._locked.get(change.identity)
        if held is None:
            return "the row is gone"
        return self._moved(change, held) or (self._followed(change, held) if self._spares else None)

    def _followed(self, change: Change, held: RawRow) -> str | None:
        """Say which foreign keys would change or delete rows that nobody planned to write."""
        assert self._table is not None
        written = _lower(change.after or {})
        acting = [
            str(key)
            for key in self._table.cascades
            if (key.on_delete if change.after is None else key.on_update and written & _lower(key.references))
            and self._writer.follows(key, held)
        ]
        if not acting:
            return None
        return (
            f"rows refer to it through {', '.join(acting)}, and would be changed or deleted with it "
            f"(--waive cascade:{change.rule})"
        )

    def _moved(self, change: Change, held: RawRow) -> str | None:
        before = self._values(change.before)
        if before.items() <= held.items() and ServerTime not in {*map(type, before.values())}:
            return None
        moved = [
            f"{name} was {_shown(name, expected)} and is {_shown(name, held.get(name))}"
            for name, expected in before.items()
            if held.get(name) != expected or isinstance(expected, ServerTime)
        ]
        return ", ".join(moved) or None

    def _write(self, change: Change) -> Outcome:
        values = self._values(change.after)
        if change.action is Action.INSERT:
            number = self._writer.insert(change.table, values)
            identity = tuple(_value(values.get(name, number)) for name in self._identity)
            return Outcome(change=change.but(identity=identity), fate=Fate.APPLIED)
        located = dict(zip(self._identity, change.identity, strict=True))
        if change.action is Action.UPDATE:
            matched = self._writer.update(change.table, located, values)
        else:
            matched = self._writer.delete(change.table, located)
        if change.action is Action.UPDATE:
            self._evolve(change, values)
        if matched != 1:
            raise WriteFailed(
                f"{change.table} {_named(self._identity, change.identity)}: {matched} rows matched"
            )
        return Outcome(change=change, fate=Fate.APPLIED)

    def _evolve(self, change: Change, values: Mapping[str, Value | ServerTime]) -> None:
        """Remember what a row was and is, for the next change to it."""
        held = self._locked.pop(change.identity)
        plain = {name: value for name, value in values.items() if not isinstance(value, ServerTime)}
        self._found[id(change)] = held
        self._locked[self._moved_to(change)] = self._left[id(change)] = {**held, **plain}

    def _moved_to(self, change: Change) -> Identity:
        """Return the primary key of a row once its change is made."""
        if change.identity_after:
            return change.identity_after
        values = self._values(change.after)
        pairs = zip(self._identity, change.identity, strict=False)
        return tuple(_value(values.get(name, part)) for name, part in pairs)

    def _values(self, row: Mapping[str, Stored] | None) -> Mapping[str, Value | ServerTime]:
        """Return a row with its references replaced by the ids that they have here."""
        if row is None or not self._references:
            return cast("Mapping[str, Value | ServerTime]", row or {})
        return {
            name: self._resolved[value][0] if isinstance(value, Reference) else value
            for name, value in row.items()
        }

    def _read_back(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Put into each change the rows as the server had and has them."""
        made = [outcome.change for outcome in outcomes if outcome.fate is Fate.APPLIED]
        known = {self._of(row): row for row in self._inserted.values()}
        moved = {id(change): self._moved_to(change) for change in made}
        identities = list(dict.fromkeys(each for each in moved.values() if each not in known))
        read = (
            self._writer.read_back(self._changes[0].table, self._identity, identities) if identities else {}
        )
        after = {**known, **read}
        last = {identity: number for number, identity in moved.items()}

        def read_outcome(outcome: Outcome) -> Outcome:
            identity = moved.get(id(outcome.change), outcome.change.identity)
            now, final = after.get(identity), last.get(identity)
            return self._mangled(outcome, now, final) or self._as_read(outcome, now, final)

        return [*map(read_outcome, outcomes)]

    def _mangled(self, outcome: Outcome, now: RawRow | None, last: int | None) -> Outcome | None:
        """Take a row back that the server keeps otherwise than it was written, and fail it.

        In strict mode too it cuts trailing spaces, rounds decimals and drops fractions of a second,
        with a note at most.
        """
        change = outcome.change
        if outcome.fate is not Fate.APPLIED or change.after is None or now is None or last != id(change):
            return None
        values = self._values(change.after)
        if values.items() <= now.items():
            return None
        wrong = [
            f"{name} {_shown(name, wanted)} as {_shown(name, now.get(name))}"
            for name, wanted in values.items()
            if now.get(name) != wanted and not isinstance(wanted, ServerTime) and self._exact(name)
        ]
        if not wrong:
            return None
        located = dict(zip(self._identity, self._moved_to(change), strict=True))
        if change.action is Action.INSERT:
            self._writer.delete(change.table, located)
        else:
            was = self._found[id(change)]
            restored = {name: value for name, value in was.items() if value != now.get(name)}
            self._writer.update(change.table, located, restored)
        message = f"it does not fit: the server keeps {', '.join(wrong)}"
        return Outcome(change=change, fate=Fate.FAILED, message=message)

    def _exact(self, name: str) -> bool:
        """Say whether a column must read as it was written: a rule's own ``on_insert`` may be loose."""
        return self._strict is None or name in self._strict

    def _as_read(self, outcome: Outcome, now: RawRow | None, last: int | None) -> Outcome:
        change = outcome.change
        if outcome.fate is not Fate.APPLIED:
            return outcome
        if change.action is Action.INSERT:
            return Outcome(change=change.but(after=now), fate=Fate.APPLIED)
        if change.action is Action.DELETE:
            return Outcome(change=change.but(before=self._locked[change.identity]), fate=Fate.APPLIED)
        was = self._found[id(change)]
        left = now if now is not None and last == id(change) else self._left[id(change)]
        # More may have changed than was written: ON UPDATE CURRENT_TIMESTAMP does that.
        # What was guarded is kept too, so that an undo guards it: the key, and that the row is live.
        named = {*(change.before or {}), *(change.after or {})}
        names = [name for name, value in left.items() if was[name] != value or name in named]
        before, after = {name: was[name] for name in names}, {name: left[name] for name in names}
        return Outcome(change=change.but(before=before, after=after), fate=Fate.APPLIED)


def references(changes: Iterable[Change]) -> Iterator[Reference]:
    """Yield what the changes refer to, before and after; some of it more than once."""
    for change in changes:
        for row in (change.before, change.after):
            if row and Reference in {*map(type, row.values())}:
                yield from [value for value in row.values() if isinstance(value, Reference)]


def joins(target: Projection | None) -> Iterator[Join]:
    """Yield where the references of a projection lead."""
    for part in (*target.key, *target.columns) if target else ():
        if part.join is not None:
            yield part.join


def _takes_a_key(change: Change) -> bool:
    """Say whether a change makes a key: of a new row, or of one that is renamed."""
    if change.action is not Action.UPDATE:
        return change.action is Action.INSERT
    before, after = change.before or {}, change.after or {}
    # A journaled update names its key whether it wrote it or not.
    return any(name in after and after[name] != before.get(name) for name in change.key_columns)


def _raw_target(table: Table | None, change: Change) -> Projection:
    """Return a projection onto the raw key columns, for changes that no rule describes any more."""
    assert table is not None
    columns = [column for name in change.key_columns if (column := table.column(name))]
    identity = [column for name in table.identity if (column := table.column(name))]
    return Projection(
        rule=change.rule,
        table=table.name,
        key=tuple(Projected(column=column.name, family=column.family) for column in columns),
        columns=(),
        identity=tuple(column.name for column in identity),
        identity_families=tuple(column.family for column in identity),
        parent="",
        child="",
    )


def _raw_key(change: Change) -> Key:
    return tuple(_value((change.after or {}).get(name)) for name in change.key_columns)


def _value(stored: Stored) -> Value:
    assert not isinstance(stored, (Reference, ServerTime))
    return stored


def _shown(column: str, value: Value | ServerTime) -> str:
    return shown(safe(column, value))


def _lower(names: Iterable[str]) -> set[str]:
    return {name.lower() for name in names}


def _named(names: Sequence[str], identity: Identity) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in zip(names, identity, strict=True))
