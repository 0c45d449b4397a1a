"""Make the changes of a plan: guarded, in transactions that hold their journal rows, and verified.

Every batch is one transaction: lock the rows, look the references up, check every guard against
the locked rows, write, read back, record. A row that is no longer what the plan saw is a conflict
and is left alone; a row that the server does not take fails by itself; anything that costs the
whole transaction is tried again as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import groupby
from typing import Protocol

from oslo_db import api as oslo_api

from cellsync.errors import Rejected, TransactionLost, Unreachable, WriteFailed
from cellsync.model import (
    Action,
    Cascade,
    Change,
    Fate,
    Identity,
    Join,
    Key,
    KeyPart,
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
    folded,
    shown,
)

BATCH = 100
"""Changes in one transaction: few enough that its locks are short."""

TRIES = 8
"""With waits that double from 0.2 s to 3 s: enough for a server to restart."""

RawRow = Mapping[str, Value]


class Writer(Protocol):
    """The database that is written; ``db.Database`` says what each call does."""

    def transaction(self) -> AbstractContextManager[None]: ...
    def reconnect(self) -> None: ...
    def tables(self, names: Iterable[str]) -> Mapping[str, Table]: ...
    def taken(self, projection: Projection, keys: Sequence[Key]) -> Sequence[Row]: ...
    def resolve(self, join: Join, keys: Sequence[Key]) -> Mapping[Key, tuple[Value, ...]]: ...
    def insert(self, table: str, values: Mapping[str, Value | ServerTime]) -> int: ...
    def delete(self, table: str, identity: RawRow) -> int: ...
    def follows(self, cascade: Cascade, row: RawRow) -> bool: ...
    def probe(self, table: str, action: Action, columns: Sequence[str]) -> None: ...

    def lock(
        self, table: str, identity: tuple[str, ...], identities: Sequence[Identity]
    ) -> Mapping[Identity, RawRow]: ...

    def read_back(
        self, table: str, identity: tuple[str, ...], identities: Sequence[Identity]
    ) -> Mapping[Identity, RawRow]: ...

    def update(self, table: str, identity: RawRow, values: Mapping[str, Value | ServerTime]) -> int: ...


class Reader(Protocol):
    """The same database, read once more after the writing."""

    def rows(
        self, projection: Projection, *, keys: Sequence[Key] | None = None, tombstones: bool = False
    ) -> Iterator[Row]: ...


class Recorder(Protocol):
    """The journal of the written database."""

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Write the rows of a batch's changes, inside the transaction that makes them."""

    def recorded(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Say for each change whether the journal has it: a commit may have come through unseen."""


def denied(changes: Sequence[Change], *, writer: Writer) -> Mapping[str, str]:
    """Return what the server would not let us do, by rule, found out before anything is written.

    One statement for every sort of change, which touches no row.
    """
    sorts: dict[tuple[str, str, Action], dict[str, None]] = {}
    for change in changes:
        columns = sorts.setdefault((change.rule, change.table, change.action), {})
        columns.update(dict.fromkeys(change.after or {}))
    known = writer.tables([table for _, table, _ in sorts])
    found: dict[str, list[str]] = {}
    for (rule, table, action), columns in sorts.items():
        if table not in known:
            continue  # the changes themselves will say so
        try:
            writer.probe(table, action, list(columns))
        except WriteFailed as error:
            found.setdefault(rule, []).append(str(error))
    return {rule: "; ".join(said) for rule, said in found.items()}


def reached(rule: str, targets: Mapping[str, Projection]) -> frozenset[str]:
    """Return the rules that a rule refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = list(_joins(targets.get(rule)))
    while waiting:
        join = waiting.pop()
        found.add(join.rule)
        waiting += [part.join for part in join.key if part.join is not None]
    return frozenset(found)


def execute(
    changes: Sequence[Change],
    *,
    writer: Writer,
    recorder: Recorder,
    targets: Mapping[str, Projection],
    sparing: Collection[str] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Outcome, ...]:
    """Make the changes in their order and return what became of each, in the same order.

    ``targets`` holds, by rule, the projection through which the written side is read: it says
    what a key is there and where references lead. A rule without one (in an undo) is guarded by
    the raw values of its key columns. Rules in ``sparing`` leave a row alone to which others refer
    through a foreign key that would delete or change them. A failure that is not one row's own stops
    its rule and those that refer to it, and everything where the server is gone: they come back as
    FAILED, with the cause.
    """
    outcomes: list[Outcome] = []
    stopped: dict[str, str] = {}
    for batch in _batches(changes):
        try:
            cause = _waits_for(batch[0], stopped, targets)
            outcomes += (
                _failed(batch, cause) if cause else _attempt(batch, writer, recorder, targets, sparing)
            )
        except (WriteFailed, Unreachable) as error:
            outcomes += _failed(batch, str(error))
            if not _goes_on(writer, targets):
                outcomes += _failed(changes[len(outcomes) :], str(error))
                break
            stopped[batch[0].rule] = str(error)
        progress(len(outcomes))
    return tuple(outcomes)


def _failed(changes: Sequence[Change], message: str) -> list[Outcome]:
    return [Outcome(change=change, fate=Fate.FAILED, message=message) for change in changes]


def _goes_on(writer: Writer, targets: Mapping[str, Projection]) -> bool:
    """Say whether other rules can still be written; an undo does not know what belongs together."""
    try:
        writer.reconnect()
    except Unreachable:
        return False
    return bool(targets)


def _waits_for(change: Change, stopped: Mapping[str, str], targets: Mapping[str, Projection]) -> str | None:
    """Return why the rule of a change is not written any more, or None.

    Its own failure, or that of a rule that it refers to. Rows are not removed either where those
    that refer to them could not be.
    """
    target = targets.get(change.rule)
    removes = change.action is Action.DELETE or (target is not None and _deletes(change, target))
    for rule, cause in stopped.items():
        if rule == change.rule:
            return cause
        one, other = (rule, change.rule) if removes else (change.rule, rule)
        if other in reached(one, targets):
            return f"{rule} could not be written: {cause}"
    return None


def _batches(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Yield runs of changes of one rule and one action, each for one transaction.

    Changes that belong together are never parted. Inserts whose keys look alike never meet, so
    that each sees the rows of those before it.
    """
    batch: list[Change] = []
    alike: set[object] = set()
    for group in _groups(changes):
        sort = (group[0].rule, group[0].table, group[0].action)
        kin = bool(batch) and (batch[0].rule, batch[0].table, batch[0].action) == sort
        keys = {folded(change.key) for change in group if change.action is Action.INSERT}
        full = len(batch) + len(group) > BATCH or keys & alike or _refers(group[0], batch)
        if batch and (not kin or full):
            yield batch
            batch, alike = [], set()
        batch += group
        alike |= keys
    if batch:
        yield batch


def _groups(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Yield each change by itself, and those that belong together together."""
    for name, group in groupby(changes, key=lambda change: change.together):
        if name:
            yield list(group)
        else:
            yield from ([change] for change in group)


def _refers(change: Change, batch: Sequence[Change]) -> bool:
    """Say whether a row refers to another row of its own table that this batch inserts."""
    own = {r.key for r in _references((change,)) if r.rule == change.rule}
    return any(each.key in own for each in batch)


def _attempt(
    batch: Sequence[Change],
    writer: Writer,
    recorder: Recorder,
    targets: Mapping[str, Projection],
    sparing: Collection[str],
) -> list[Outcome]:
    tried = 0

    @oslo_api.wrap_db_retry(
        max_retries=TRIES,
        retry_interval=0.2,
        inc_retry_interval=True,
        max_retry_interval=3,
        jitter=True,
        exception_checker=lambda error: isinstance(error, (TransactionLost, Unreachable)),
    )  # type: ignore[untyped-decorator]
    def attempt() -> list[Outcome]:
        nonlocal tried
        tried += 1
        todo = list(batch)
        if tried > 1:
            writer.reconnect()
            done = recorder.recorded(batch)
            todo = [change for change, made in zip(batch, done, strict=True) if not made]
        outcomes = {id(change): Outcome(change=change, fate=Fate.APPLIED) for change in batch}
        while todo:
            try:
                made_now = _transaction(writer, recorder, _Batch(todo, writer, targets, sparing))
                outcomes.update(zip(map(id, todo), made_now, strict=True))
                break
            except _Torn as torn:
                # A circle that is half made is worse than one that is not made: all of it waits.
                parted = [change for change in todo if change.together == torn.together]
                outcomes.update({id(change): torn.outcome(change) for change in parted})
                todo = [change for change in todo if change.together != torn.together]
        return list(outcomes.values())

    result: list[Outcome] = attempt()
    return result


class _Torn(Exception):
    """One of the changes that belong together could not be made."""

    def __init__(self, failed: Outcome) -> None:
        super().__init__(failed.message)
        self.together = failed.change.together
        self._failed = failed

    def outcome(self, change: Change) -> Outcome:
        """Return what becomes of each of them."""
        return Outcome(change=change, fate=self._failed.fate, message=self._failed.message)


def _transaction(writer: Writer, recorder: Recorder, work: _Batch) -> list[Outcome]:
    with writer.transaction():
        outcomes = work.run()
        for outcome in outcomes:
            if outcome.change.together and outcome.fate is not Fate.APPLIED:
                raise _Torn(outcome)
        recorder.record([outcome for outcome in outcomes if outcome.fate is Fate.APPLIED])
    return outcomes


class _Batch:
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
        self._identity = first.identity_columns or (self._table.identity if self._table else ())

    def run(self) -> list[Outcome]:
        if self._table is None:
            gone = f"there is no table {self._changes[0].table}"
            return [Outcome(change=c, fate=Fate.FAILED, message=gone) for c in self._changes]
        self._resolved = self._resolve()
        self._locked = dict(self._lock())
        # What each change found, and what it left: one row may be changed twice in a circle.
        self._found: dict[int, RawRow] = {}
        self._left: dict[int, RawRow] = {}
        self._taken = self._look_for_taken()
        made = [self._make(change) for change in self._changes]
        return self._read_back(made)

    def _resolve(self) -> Mapping[Reference, tuple[Value, ...]]:
        wanted: dict[str, list[Key]] = {}
        for reference in dict.fromkeys(_references(self._changes)):
            wanted.setdefault(reference.rule, []).append(reference.key)
        joins = {join.rule: join for join in _joins(self._target)}
        return {
            Reference(rule=rule, key=key): ids
            for rule, keys in wanted.items()
            for key, ids in self._writer.resolve(joins[rule], keys).items()
        }

    def _lock(self) -> Mapping[Identity, RawRow]:
        identities = [change.identity for change in self._changes if change.action is not Action.INSERT]
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

    def _make(self, change: Change) -> Outcome:
        problem = self._problem(change)
        if problem is not None:
            return Outcome(change=change, fate=Fate.CONFLICT, message=problem)
        try:
            return self._write(change)
        except Rejected as error:
            return Outcome(change=change, fate=Fate.FAILED, message=str(error))

    def _problem(self, change: Change) -> str | None:
        for reference in _references((change,)):
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
        moved = [
            f"{name} was {shown(expected)} and is {shown(held.get(name))}"
            for name, expected in self._values(change.before).items()
            if isinstance(expected, ServerTime) or not _same(held.get(name), expected)
        ]
        return ", ".join(moved) or None

    def _write(self, change: Change) -> Outcome:
        values = self._values(change.after)
        if change.action is Action.INSERT:
            number = self._writer.insert(change.table, values)
            identity = tuple(_value(values.get(name, number)) for name in self._identity)
            return Outcome(change=replace(change, identity=identity), fate=Fate.APPLIED)
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
        held = self._locked[change.identity]
        plain = {name: value for name, value in values.items() if not isinstance(value, ServerTime)}
        self._found[id(change)] = held
        self._locked[change.identity] = self._left[id(change)] = {**held, **plain}

    def _values(self, row: Mapping[str, Stored] | None) -> dict[str, Value | ServerTime]:
        """Return a row with its references replaced by the ids that they have here."""
        return {
            name: self._resolved[value][0] if isinstance(value, Reference) else value
            for name, value in (row or {}).items()
        }

    def _read_back(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Put into each change the rows as the server had and has them."""
        made = [outcome.change for outcome in outcomes if outcome.fate is Fate.APPLIED]
        identities = list(dict.fromkeys(change.identity for change in made))
        table = self._changes[0].table
        after = self._writer.read_back(table, self._identity, identities) if made else {}
        last = {change.identity: id(change) for change in made}
        return [
            self._mangled(outcome, after.get(outcome.change.identity), last.get(outcome.change.identity))
            or self._as_read(outcome, after.get(outcome.change.identity), last.get(outcome.change.identity))
            for outcome in outcomes
        ]

    def _mangled(self, outcome: Outcome, now: RawRow | None, last: int | None) -> Outcome | None:
        """Take a row back that the server keeps otherwise than it was written, and fail it.

        In strict mode too it cuts trailing spaces, rounds decimals and drops fractions of a second,
        with a note at most.
        """
        change = outcome.change
        if outcome.fate is not Fate.APPLIED or change.after is None or now is None or last != id(change):
            return None
        wrong = [
            f"{name} {shown(wanted)} as {shown(now.get(name))}"
            for name, wanted in self._values(change.after).items()
            if not isinstance(wanted, ServerTime) and self._exact(name) and not _same(now.get(name), wanted)
        ]
        if not wrong:
            return None
        located = dict(zip(self._identity, change.identity, strict=True))
        if change.action is Action.INSERT:
            self._writer.delete(change.table, located)
        else:
            was = self._found[id(change)]
            restored = {name: value for name, value in was.items() if not _same(value, now.get(name))}
            self._writer.update(change.table, located, restored)
        message = f"it does not fit: the server keeps {', '.join(wrong)}"
        return Outcome(change=change, fate=Fate.FAILED, message=message)

    def _exact(self, name: str) -> bool:
        """Say whether a column must read as it was written: a rule's own ``on_insert`` may be loose."""
        target = self._target
        return target is None or any(part.column == name for part in (*target.key, *target.columns))

    def _as_read(self, outcome: Outcome, now: RawRow | None, last: int | None) -> Outcome:
        change = outcome.change
        if outcome.fate is not Fate.APPLIED:
            return outcome
        if change.action is Action.INSERT:
            return replace(outcome, change=replace(change, after=now))
        if change.action is Action.DELETE:
            return replace(outcome, change=replace(change, before=self._locked[change.identity]))
        was = self._found[id(change)]
        left = now if now is not None and last == id(change) else self._left[id(change)]
        # More may have changed than was written: ON UPDATE CURRENT_TIMESTAMP does that.
        # What was guarded is kept too, so that an undo guards it: the key, and that the row is live.
        named = {*(change.before or {}), *(change.after or {})}
        names = [name for name in left if name in named or not _same(was[name], left[name])]
        before, after = {name: was[name] for name in names}, {name: left[name] for name in names}
        return replace(outcome, change=replace(change, before=before, after=after))


def _references(changes: Iterable[Change]) -> Iterator[Reference]:
    for change in changes:
        for row in (change.before, change.after):
            yield from (value for value in (row or {}).values() if isinstance(value, Reference))


def _joins(target: Projection | None) -> Iterator[Join]:
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


def _same(one: Stored, other: Stored) -> bool:
    """Say whether two canonical values are the same to the byte: 1 and '1' are not."""
    return one == other and isinstance(one, str) == isinstance(other, str)


def _lower(names: Iterable[str]) -> set[str]:
    return {name.lower() for name in names}


def _named(names: Sequence[str], identity: Identity) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in zip(names, identity, strict=True))


# -- Verifying ---------------------------------------------------------------------------------


def verify(
    outcomes: Sequence[Outcome],
    planned: Collection[Change],
    *,
    reader: Reader,
    targets: Mapping[str, Projection],
) -> tuple[str, ...]:
    """Read the written keys again and return a line for each that is not as planned.

    ``planned`` are the changes as the plan had them; those that were applied must now read, through
    the projection, as the plan wanted them. What somebody else changed in the meantime shows too.
    """
    applied = {(o.change.rule, o.change.key) for o in outcomes if o.fate is Fate.APPLIED}
    problems: list[str] = []
    for rule, target in targets.items():
        # The last one of each key: a row that was parked has moved on.
        changes = {c.key: c for c in planned if c.rule == rule and (c.rule, c.key) in applied}
        found = {row.key: row for row in reader.rows(target, keys=list(changes)) if not row.limbo}
        problems += [
            line for change in changes.values() if (line := _unlike(change, found.get(change.key), target))
        ]
    return tuple(problems)


def _unlike(change: Change, row: Row | None, target: Projection) -> str | None:
    name = f"{change.table} {'/'.join(shown(part) for part in change.key)}"
    if change.action is Action.DELETE or (change.after is not None and _deletes(change, target)):
        return None if row is None else f"{name} was deleted, and is there again"
    if row is None:
        return f"{name} was written, and is not there"
    held: dict[str, KeyPart] = {p.column: value for p, value in zip(target.columns, row.values, strict=True)}
    wrong = [
        f"{column} is {shown(held[column])} instead of {shown(_plain(value))}"
        for column, value in (change.after or {}).items()
        if column in held and held[column] != _plain(value)
    ]
    return f"{name} was written, but {', '.join(wrong)}" if wrong else None


def _deletes(change: Change, target: Projection) -> bool:
    soft_delete = target.soft_delete
    return (
        change.action is Action.UPDATE
        and soft_delete is not None
        and (change.after or {}).get(soft_delete.column, soft_delete.live) != soft_delete.live
    )


def _plain(stored: Stored) -> KeyPart:
    if isinstance(stored, Reference):
        return stored.key
    return None if isinstance(stored, ServerTime) else stored
