"""One transaction: look the references up, check every guard against locked rows, write, read back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast

from cellsync.apply.doors import Desired, RawRow, Writer
from cellsync.apply.rawkeys import plain_value, project_raw_key, read_raw_key
from cellsync.apply.verifying import deletes
from cellsync.errors import Rejected, WriteFailed
from cellsync.model import (
    USUAL_SECRETS,
    Action,
    Change,
    Fate,
    Identity,
    Join,
    Key,
    Outcome,
    Projection,
    Reference,
    Row,
    Rule,
    Secrets,
    ServerTime,
    Stored,
    Value,
    dangles,
    shown,
)

_SHOWN = 500
"""Characters of a value in a message: one may be megabytes long."""

_TRANSACTIONAL = ("innodb", "sqlite")


class Torn(Exception):
    """Changes must not be made, though their neighbours may: the transaction is made without them.

    A circle that is half made is worse than one that is not made: all of it waits.
    """

    def __init__(self, failed: Iterable[Outcome], *, alone: bool = False) -> None:
        """``failed`` are the changes that are not made. ``alone`` says that the server keeps rows otherwise
        than they were written, and that which ones, and how, is only known when each is written alone."""
        super().__init__()
        self.alone = alone
        self._failed = {id(outcome.change): outcome for outcome in failed}
        self._together = {
            outcome.change.together: outcome for outcome in self._failed.values() if outcome.change.together
        }

    def find_outcome(self, change: Change) -> Outcome | None:
        """Return what becomes of a change that is not made; None where it may be made."""
        failed = self._failed.get(id(change)) or self._together.get(change.together)
        return Outcome(change=change, fate=failed.fate, message=failed.message) if failed else None


class Batch:
    """One transaction's worth of changes to one table, all of one action."""

    def __init__(
        self,
        changes: Sequence[Change],
        writer: Writer,
        targets: Mapping[str, Projection],
        sparing: Collection[str],
        *,
        desired: Desired | None = None,
        rules: Mapping[str, Rule] | None = None,
        alone: bool = False,
        secrets: Secrets = USUAL_SECRETS,
        cascaded: bool = False,
    ) -> None:
        """With ``alone``, each row is written by itself and read back at once: slow, and exact.

        With ``cascaded``, foreign keys may have made some of the changes, which somebody waived.
        """
        self._changes = changes
        self._desired = desired
        self._writer = writer
        self._alone = alone
        self._secrets = secrets
        self._cascaded = cascaded
        first = changes[0]
        self._table = writer.tables([first.table]).get(first.table)
        self._target = targets.get(first.rule)
        self._rule = (rules or {}).get(first.rule)
        self._spares = first.rule in sparing
        parts = (*self._target.key, *self._target.columns) if self._target else None
        self._strict = None if parts is None else {part.column for part in parts}
        if self._strict is not None and self._target and self._target.soft_delete:
            self._strict.add(self._target.soft_delete.column)
        self._references = tuple(dict.fromkeys(references(changes)))
        self._moves = first.action is Action.UPDATE and any(change.writes_identity for change in changes)
        self._identity = first.identity_columns or (self._table.identity if self._table else ())
        columns = [self._table.column(name) if self._table else None for name in self._identity]
        self._spelled = [c.name if c else name for c, name in zip(columns, self._identity, strict=True)]

    def run(self) -> list[Outcome]:
        """Make the changes, inside the caller's transaction, and return what became of each.

        Raises Torn where the transaction must be made again without some of them.
        """
        if self._table is None:
            gone = f"there is no table {self._changes[0].table}"
            return [Outcome(change=c, fate=Fate.FAILED, message=gone) for c in self._changes]
        self._resolved = self._resolve()
        self._changes = self._located()
        self._locked = dict(self._lock())
        self._returned = self._look_for_returned()
        # What each change found, and what it left: one row may be changed twice in a circle.
        self._found: dict[int, RawRow] = {}
        self._left: dict[int, RawRow] = {}
        self._taken = self._look_for_taken()
        self._inserted: dict[int, RawRow] = {}
        self._updated: set[int] = set()
        if not self._alone:
            self._insert_all()
            self._update_all()
        made = [self._make(change) for change in self._changes]
        return self._read_back(made)

    def _resolve(self) -> dict[Reference, tuple[Value, ...]]:
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

    def _look_for_returned(self) -> Collection[Key]:
        """Return the keys of rows to be removed that the desired side has, now that they are locked."""
        first = self._changes[0]
        if self._desired is None or first.action is Action.INSERT:
            return ()
        keys = [c.key for c in self._changes if not c.replaced and _removes(c, self._target)]
        return self._desired.present(first.rule, keys) if keys else ()

    def _look_for_taken(self) -> Mapping[Key, Row]:
        """Return for each key to be taken the row that holds it already, in any spelling."""
        taking = [change for change in self._changes if _takes_a_key(change)]
        if not taking:
            return {}
        target = self._target or project_raw_key(self._table, taking[0], self._rule)
        if not target.key:
            return {}  # the server computes the key, and has the last word
        keys = {change.key if self._target else read_raw_key(change, target): change.key for change in taking}
        # Rows of this batch give up their own keys; unique values have put them in order.
        leaving = {change.identity for change in taking if change.action is Action.UPDATE}
        found: dict[Key, Row] = {}
        for row in self._holders(target, list(keys)):
            if row.identity in leaving:
                continue
            if row.key in keys:
                found[keys[row.key]] = row
            elif self._target:  # in an undo both may have been there, where no unique index keeps them apart
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

    def _insert_all(self) -> None:
        """Insert all new rows that nothing stands against at once, and keep each as the server has it.

        None where the server cannot do that, or does not take one of them: then each is inserted by
        itself, and the server's answer is about that row.
        """
        new = [c for c in self._changes if c.action is Action.INSERT and self._problem(c) is None]
        if len(new) < 2 or any((c.after or {}).keys() != (new[0].after or {}).keys() for c in new):
            return
        try:
            rows = self._writer.insert_many(new[0].table, [self._values(change.after) for change in new])
        except Rejected:
            return
        self._inserted.update(zip(map(id, new), rows or (), strict=bool(rows)))

    def _update_all(self) -> None:
        """Update all rows that nothing stands against at once, and keep for which changes that was done.

        For none where they write different columns, where one row is changed twice, where others may
        follow a row, where the server cannot do that, or does not take one of them: then each is updated
        by itself, in order, and the server's answer is about that row.
        """
        assert self._table is not None
        if self._identity != self._table.identity or (self._spares and self._table.cascades):
            return
        if len({change.identity for change in self._changes}) < len(self._changes):
            return
        if self._moves:
            return  # one row may take the primary key that another gives up: in order
        ready = [c for c in self._changes if c.action is Action.UPDATE and self._problem(c) is None]
        if len(ready) < 2 or len({tuple(change.after or {}) for change in ready}) > 1:
            return
        rows = {change.identity: self._values(change.after) for change in ready}
        try:
            done = self._writer.update_many(ready[0].table, self._identity, rows)
        except Rejected:
            return
        self._updated.update(id(change) for change in ready if done)

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
            if self._cascaded and self._is_done(change):
                return Outcome(change=change, fate=Fate.APPLIED, written=False)
            return Outcome(change=change, fate=Fate.CONFLICT, message=problem)
        try:
            return self._write_alone(change) if self._alone else self._write(change)
        except Rejected as error:
            return Outcome(change=change, fate=Fate.FAILED, message=str(error))

    def _problem(self, change: Change) -> str | None:
        for reference in references((change,)) if self._references else ():
            ids = self._resolved.get(reference, ())
            # Which of several rows a row refers to now is known: the one that it holds.
            if not ids or (len(ids) > 1 and reference in (change.after or {}).values()):
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
        if self._desired is not None and change.key in self._returned and _removes(change, self._target):
            return f"{self._desired.name} has the row again"
        for use in change.unless:
            if number := self._writer.count_uses(use):
                rows = "1 row uses" if number == 1 else f"{number} rows use"
                return f"{rows} it by now, in {use.table} by {use.column}"
        return self._moved(change, held) or (self._followed(change, held) if self._spares else None)

    def _is_done(self, change: Change) -> bool:
        """Say whether a row is as a change wants it, although nothing was written for that."""
        held = self._locked.get(change.identity)
        if change.action is not Action.UPDATE:
            return change.action is Action.DELETE and bool(change.identity) and held is None
        if any(not self._resolved.get(reference) for reference in references((change,))):
            return False
        # Which row has the key may have changed, too.
        places = [row.identity for row in self._holders(self._target, [change.key])] if self._target else []
        if places and places != [change.identity]:
            held = self._writer.lock(change.table, self._identity, places).get(places[0])
        values = self._values(change.after, held)
        return held is not None and all(
            held.get(name) == value for name, value in values.items() if not isinstance(value, ServerTime)
        )

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
        before = self._values(change.before, held)
        if before.items() <= held.items() and ServerTime not in {*map(type, before.values())}:
            return None
        moved = [
            f"{name} was {self._shown(name, expected)} and is {self._shown(name, held.get(name))}"
            for name, expected in before.items()
            if held.get(name) != expected or isinstance(expected, ServerTime)
        ]
        return ", ".join(moved) or None

    def _shown(self, column: str, value: Value | ServerTime) -> str:
        """Return a value as a message has it."""
        text = shown(self._secrets.safe(column, value, table=self._changes[0].table))
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"

    def _write(self, change: Change) -> Outcome:
        values = self._values(change.after)
        if change.action is Action.INSERT:
            number = self._writer.insert(change.table, values)
            identity = tuple(plain_value(values.get(name, number)) for name in self._identity)
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

    def _write_alone(self, change: Change) -> Outcome:
        """Write one row and read it back; raises Rejected, with nothing written, where it is another one."""
        was = self._locked.get(change.identity)
        try:
            with self._writer.all_or_none():
                rows = self._insert_returning(change) if change.action is Action.INSERT else None
                if rows:
                    self._inserted[id(change)] = rows[0]
                    outcome = Outcome(change=change.but(identity=self._of(rows[0])), fate=Fate.APPLIED)
                else:
                    outcome = self._write(change)
                place = self._identity_after(outcome.change)
                found = {} if rows else self._writer.read_back(change.table, self._identity, [place])
                now = self._inserted.get(id(change)) or found.get(place)
                if wrong := self._describe_alteration(outcome.change, now):
                    raise Rejected(wrong)
        except Rejected:
            self._inserted.pop(id(change), None)
            if was is not None:
                self._locked[change.identity] = was
            raise
        return outcome

    def _insert_returning(self, change: Change) -> Sequence[RawRow] | None:
        try:
            return self._writer.insert_many(change.table, [self._values(change.after)])
        except Rejected:
            return None  # it may be too long to be returned; else the next try has the same answer

    def _evolve(self, change: Change, values: Mapping[str, Value | ServerTime]) -> None:
        """Remember what a row was and is, for the next change to it."""
        held = self._locked.pop(change.identity)
        plain = {name: value for name, value in values.items() if not isinstance(value, ServerTime)}
        self._found[id(change)] = held
        self._locked[self._identity_after(change)] = self._left[id(change)] = {**held, **plain}
        if self._moves and self._references:
            self._follow_references(change, held, plain)

    def _follow_references(self, change: Change, held: RawRow, moved: RawRow) -> None:
        """Let what refers to a row that has just got another id mean the new one."""
        itself = Reference(rule=change.rule, key=change.key)
        for join in joins(self._target) if itself in self._resolved else ():
            if join.rule == change.rule and join.column in moved:
                old, new = held[join.column], moved[join.column]
                ids = self._resolved[itself]
                self._resolved[itself] = tuple(new if value == old else value for value in ids)
                return

    def _values(
        self, row: Mapping[str, Stored] | None, held: RawRow | None = None
    ) -> Mapping[str, Value | ServerTime]:
        """Return a row with its references replaced by the ids that they have here.

        Where there are several, by the one that the row ``held`` has.
        """
        if row is None or not self._references:
            return cast("Mapping[str, Value | ServerTime]", row or {})
        return {
            name: self._find_id(value, (held or {}).get(name)) if isinstance(value, Reference) else value
            for name, value in row.items()
        }

    def _find_id(self, reference: Reference, held: Value) -> Value:
        ids = self._resolved[reference]
        return held if held in ids else ids[0]

    def _read_back(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Put into each change the rows as the server had and has them.

        Raises Torn where the server keeps a row otherwise than it was written. In strict mode too it cuts
        trailing spaces, rounds decimals and drops fractions of a second, with a note at most; a trigger
        may write what it likes.
        """
        made = [each.change for each in outcomes if each.fate is Fate.APPLIED and each.written]
        known = {self._of(row): row for row in self._inserted.values()}
        # Of a row that is changed twice only the last state can be read, and that at its last primary key.
        last: dict[Identity, Change] = {}
        for change in made:
            if self._moves:
                last.pop(change.identity, None)
                last[self._identity_after(change)] = change
            else:
                last[change.identity] = change
        identities = [place for place in last if place not in known]
        read = (
            self._writer.read_back(self._changes[0].table, self._identity, identities) if identities else {}
        )
        after = {**known, **read}
        result: list[Outcome] = []
        altered: list[Outcome] = []
        for change, outcome in zip(self._changes, outcomes, strict=True):
            if outcome.fate is not Fate.APPLIED or not outcome.written:
                result.append(outcome)
                continue
            done = outcome.change
            place = self._identity_after(done) if self._moves else done.identity
            now, wrong = None, ""
            if last.get(place) is done:
                now = after.get(place)
                wrong = self._describe_alteration(done, now)
            if not wrong:
                result.append(self._as_read(done, now))
                continue
            altered.append(Outcome(change=change, fate=Fate.FAILED, message=wrong))
            result.append(altered[-1])
            if now is not None and not self._rolls_back():
                self._take_back(done, now)
        if altered and self._rolls_back():
            # Another row may have failed because of one that is now taken back: 1062.
            kept = (place for place, change in last.items() if change.action is not Action.DELETE)
            doubtful = any(after.get(place) is None for place in kept)
            doubtful = doubtful or any(outcome.fate is Fate.FAILED for outcome in outcomes)
            raise Torn((), alone=True) if doubtful and not self._alone else Torn(altered)
        return result

    def _rolls_back(self) -> bool:
        """Say whether the table has transactions; a rule whose table has none is refused, unless waived."""
        assert self._table is not None
        return (self._table.engine or "innodb").lower() in _TRANSACTIONAL

    def _take_back(self, change: Change, now: RawRow) -> None:
        """Undo a write to a table that has no transactions."""
        located = dict(zip(self._identity, self._of(now), strict=True))
        if change.action is Action.INSERT:
            self._writer.delete(change.table, located)
        else:
            was = self._found[id(change)]
            restored = {name: value for name, value in was.items() if value != now.get(name)}
            self._writer.update(change.table, located, restored)

    def _identity_after(self, change: Change) -> Identity:
        """Return the primary key that a row has once a change is made."""
        if not self._moves:
            return change.identity
        if change.identity_after:
            return change.identity_after
        values = self._values(change.after)
        pairs = zip(self._identity, change.identity, strict=True)
        return tuple(plain_value(values.get(name, value)) for name, value in pairs)

    def _describe_alteration(self, change: Change, now: RawRow | None) -> str:
        """Say what the server keeps otherwise than a change wrote it; "" where it keeps all of it.

        Of an UPDATE the columns that it does not write count too: they must be what they were.
        """
        if change.after is None or (now is not None and now == self._left.get(id(change))):
            return ""
        values = self._values(change.after)
        if now is None:
            pairs = zip(self._identity, self._identity_after(change), strict=True)
            key = ", ".join(f"{name} {self._shown(name, value)}" for name, value in pairs)
            return (
                f"it does not fit: the server does not keep its primary key {key}{self._describe_triggers()}"
            )
        expected = values if change.action is Action.INSERT else {**self._left[id(change)], **values}
        if expected.items() <= now.items():
            return ""
        wrong = [
            f"{name} {self._shown(name, wanted)} as {self._shown(name, now.get(name))}"
            for name, wanted in expected.items()
            if now.get(name) != wanted and not isinstance(wanted, ServerTime) and self._exact(name)
        ]
        if not wrong:
            return ""
        return f"it does not fit: the server keeps {', '.join(wrong)}{self._describe_triggers()}"

    def _describe_triggers(self) -> str:
        assert self._table is not None
        triggers = self._table.triggers
        if not triggers:
            return ""
        return f"; the table has the trigger{'s' * (len(triggers) > 1)} {', '.join(triggers)}"

    def _exact(self, name: str) -> bool:
        """Say whether a column must read as it was written: a rule's own ``on_insert`` may be loose."""
        return self._strict is None or name in self._strict

    def _as_read(self, change: Change, now: RawRow | None) -> Outcome:
        if change.action is Action.INSERT:
            return Outcome(change=change.but(after=now), fate=Fate.APPLIED)
        if change.action is Action.DELETE:
            return Outcome(change=change.but(before=self._locked[change.identity]), fate=Fate.APPLIED)
        was = self._found[id(change)]
        left = now if now is not None else self._left[id(change)]
        # More may have changed than was written: triggers do that.
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


def _removes(change: Change, target: Projection | None) -> bool:
    """Say whether a change removes a row, for good or by a soft delete."""
    return change.action is Action.DELETE or (target is not None and deletes(change, target))


def _takes_a_key(change: Change) -> bool:
    """Say whether a change makes a key: of a new row, or of one that is renamed."""
    if change.action is not Action.UPDATE:
        return change.action is Action.INSERT
    before, after = change.before or {}, change.after or {}
    # A journaled update names its key whether it wrote it or not.
    return any(name in after and after[name] != before.get(name) for name in change.key_columns)


def _lower(names: Iterable[str]) -> set[str]:
    return {name.lower() for name in names}


def _named(names: Sequence[str], identity: Identity) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in zip(names, identity, strict=True))
