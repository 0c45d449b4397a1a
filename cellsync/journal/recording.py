"""What one run records of the changes that it makes to one database."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from cellsync import codec
from cellsync.errors import Rejected
from cellsync.journal import writers
from cellsync.journal.history import runs, timestamp
from cellsync.journal.tables import CHANGES, NAME, PUSHED, RUNS, Session
from cellsync.model import Action, Change, JournaledRun, Load, Outcome, Packed, Run, Spelled

_STATEMENT = 1024
"""More bytes than an INSERT into the journal's tables takes beside its values."""

_MADE = "cellsync_made"
"""What a statement calls the rows that it is given, beside a table of any name."""

_REMEMBERED = ("database_name", "rule", "identity", "origin", "run")
"""What the memory of pushed rows has of their changes."""

_SORTS = 256
"""Sorts of changes of which is remembered what they share."""

_MOST = 1 << 22
"""How many bytes of rows one statement has at most; of short rows these are three too many for each one."""


class _Entry(NamedTuple):
    """What is written about one change, and how many bytes of a statement that takes at most."""

    change: Change
    row: dict[str, Any]
    size: int


class _Shared(NamedTuple):
    """What is written about all changes of a sort, and how many bytes of a statement that takes at most."""

    row: dict[str, Any]
    size: int


@lru_cache(maxsize=1)
def _timestamp(milliseconds: int) -> str:
    """Return a time since 1970 as the journal writes it; several rows are made in one millisecond."""
    return timestamp(datetime.fromtimestamp(milliseconds / 1000, timezone.utc))


class Journal:
    """The record of one run's changes to one database; the Recorder of ``apply.execute``."""

    def __init__(self, session: Session, run: Run, *, cell: str, database: str) -> None:
        self._session = session
        self._run = run
        self._origin_cell = run.topology
        self._about = {"run": run.id, "database_name": database, "cell": cell}
        self._holding = {"run": run.id, "database": database}
        self._marks = session.is_clustered
        self._entries: dict[int, _Entry] = {}
        self._shared: dict[tuple[object, ...], _Shared] = {}

    def through(self, session: Session) -> Journal:
        """Return the same record, written through another connection to the same database."""
        other = Journal(session, self._run, cell=self._about["cell"], database=self._about["database_name"])
        other.takes_from(self._origin_cell)
        return other

    def takes_from(self, cell: str) -> None:
        """Say which cell the rows that are recorded from now on were made from."""
        self._origin_cell = cell

    def begin(self, *, undoes: str | None = None) -> None:
        """Record that the run starts to write to this database."""
        run = self._run
        row = {
            **self._about,
            "topology": run.topology,
            "verb": run.verb,
            "started": timestamp(run.started),
            "status": "running",
            "operator": run.operator,
            "host": run.host,
            "command": run.command,
            "reason": run.reason,
            "undoes": undoes,
        }
        self._session.execute(RUNS.insert(), [row])

    def finish(self, *, status: str, at: datetime) -> None:
        """Record how the run ended in this database."""
        mine = sa.and_(RUNS.c.run == self._run.id, RUNS.c.database_name == self._about["database_name"])
        self._session.execute(RUNS.update().where(mine).values(finished=timestamp(at), status=status))

    def settle_cut_off(self, *, at: datetime) -> tuple[JournaledRun, ...]:
        """Close the runs that were cut off in this database, and return them.

        Called under the database's lock, where no other run can be at work.
        """
        database = self._about["database_name"]
        found = runs(self._session, database=database, cell=self._about["cell"])
        cut_off = tuple(each for each in found if each.finished is None and each.run.id != self._run.id)
        for each in cut_off:
            theirs = sa.and_(RUNS.c.run == each.run.id, RUNS.c.database_name == database)
            ended = {"finished": timestamp(at), "status": "cut off"}
            self._session.execute(RUNS.update().where(theirs).values(**ended))
        return cut_off

    def mark_transaction(self) -> None:
        """Begin a transaction of this run, before it locks, reads or writes anything.

        Raises WriteFailed where the run may write no more. Does nothing outside a Galera cluster: there
        the named lock keeps other runs away, and locks of rows those who are not cellsync.
        """
        if self._marks:
            writers.mark_transaction(self._session, **self._holding)

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Write the changes of one batch; the caller's transaction holds them both."""
        entries = [self._entry(outcome.change) for outcome in outcomes]
        self._entries.clear()
        for part in self._parted(entries):
            self._session.append(CHANGES, part)
        if entries:
            self._remember(entries)

    def record_load(self, load: Load, rows: Sequence[tuple[Packed, int]], *, spelled: Spelled) -> None:
        """Write the changes of packed rows that were inserted, each with its primary key here.

        The server makes them of its own rows. Raises Rejected where not each of them has a record then.
        """
        literal = self._session.literal
        own = {
            "number": [str(number) for _, number in rows],
            "origin": [str(packed.number) for packed, _ in rows],
        }
        if not load.alike:
            own["reason"] = [literal(load.make(packed).reason) for packed, _ in rows]
        values = ", ".join(f"({', '.join(each)})" for each in zip(*own.values(), strict=True))
        given = f"WITH {_MADE} ({', '.join(own)}) AS (VALUES {values})"
        outputs = {
            **{name: literal(value) for name, value in self._row(load.sample).items()},
            **({} if load.alike else {"reason": f"{_MADE}.reason"}),
            "row_key": spelled.key,
            "identity": f"CONCAT('[', {_MADE}.number, ']')",
            "origin": f"CONCAT('[', {_MADE}.origin, ']')",
            "after_row": spelled.row,
        }
        recorded = self._session.run(
            f"INSERT INTO {CHANGES.fullname} ({_listed(outputs)}) {given} "
            # In the order in which they were made: they are taken back the other way round.
            f"SELECT STRAIGHT_JOIN {', '.join(outputs.values())} FROM {_MADE} JOIN {spelled.table} "
            f"ON {spelled.number} = {_MADE}.number"
        ).rowcount
        if recorded != len(rows):
            raise Rejected(f"{load.sample.table}: {recorded} of {len(rows)} rows were recorded")
        pushed = {name: outputs[name] for name in _REMEMBERED} | {"origin_cell": literal(self._origin_cell)}
        self._session.run(
            f"REPLACE INTO {PUSHED.fullname} ({_listed(pushed)}) {given} "
            f"SELECT {', '.join(pushed.values())} FROM {_MADE}"
        )

    def _entry(self, change: Change) -> _Entry:
        """Return what is written about a change; made once for the question and for the record."""
        entry = self._entries.get(id(change))
        if entry is None or entry.change is not change:
            entry = self._entries[id(change)] = self._entered(change)
        return entry

    def _entered(self, change: Change) -> _Entry:
        shared, own = self._shared_by(change), self._own(change)
        return _Entry(change, {**shared.row, **own}, shared.size + self._session.sent(own.values()))

    def _row(self, change: Change) -> dict[str, Any]:
        return {**self._shared_by(change).row, **self._own(change)}

    @staticmethod
    def _own(change: Change) -> dict[str, Any]:
        """Return what the record of a change has of its own."""
        return {
            "row_key": codec.tuple_to_text(change.key),
            "identity": codec.tuple_to_text(change.identity),
            "origin": codec.tuple_to_text(change.origin),
            "before_row": codec.row_to_text(change.before),
            "after_row": codec.row_to_text(change.after),
            "made": _timestamp(time.time_ns() // 1_000_000),
        }

    def _shared_by(self, change: Change) -> _Shared:
        """Return what is written about all changes like this one; made once for them."""
        sort = (
            change.rule,
            change.table,
            change.action,
            change.key_columns,
            change.identity_columns,
            change.reason,
            change.together,
        )
        shared = self._shared.get(sort)
        if shared is None:
            row = {
                **self._about,
                "rule": change.rule,
                "table_name": change.table,
                "action": change.action.value,
                "key_columns": codec.tuple_to_text(change.key_columns),
                "identity_columns": codec.tuple_to_text(change.identity_columns),
                "reason": change.reason,
                "together": change.together,
            }
            if len(self._shared) > _SORTS:  # circles have names of their own
                self._shared.clear()
            shared = self._shared[sort] = _Shared(row, self._session.sent(row.values()))
        return shared

    def refuses(self, change: Change) -> str | None:
        """Return why a change cannot be recorded, or None: its rows may be too large for one statement."""
        entry = self._entry(change)
        if entry.size + _STATEMENT <= self._session.packet():
            return None
        size = self._session.sent(entry.row.values()) + _STATEMENT
        if size <= self._session.packet():
            return None
        return (
            f"its record in the journal takes {size} bytes on its way, more than the server's "
            f"max_allowed_packet of {self._session.packet()}; raise that"
        )

    def _parted(self, entries: Iterable[_Entry]) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows in parts that fit into one statement each."""
        most = min(self._session.packet(), _MOST)
        part: list[dict[str, Any]] = []
        size = _STATEMENT
        for entry in entries:
            if part and size + entry.size > most:
                yield part
                part, size = [], _STATEMENT
            part.append(entry.row)
            size += entry.size
        if part:
            yield part

    def _remember(self, made: Sequence[_Entry]) -> None:
        """Keep which rows cellsync pushed, and from which rows; prune does not touch it."""
        for rule in dict.fromkeys(each.change.rule for each in made):  # several, where they are made together
            self._remember_rule(rule, [each for each in made if each.change.rule == rule])

    def _remember_rule(self, rule: str, made: Sequence[_Entry]) -> None:
        moved = [each.change for each in made if each.change.moves_row]
        if moved:
            self._follow_moves(moved)
        inserts = [each for each in made if each.change.action is Action.INSERT and each.change.origin]
        coming = [each.row for each in inserts if self._is_short(each.row)]
        going = [each.row for each in made if each.change.action is Action.DELETE]
        if coming or going:
            theirs = sa.and_(
                PUSHED.c.database_name == self._about["database_name"],
                PUSHED.c.rule == rule,
                PUSHED.c.identity.in_([row["identity"] for row in (*going, *coming)]),
            )
            self._session.execute(PUSHED.delete().where(theirs))
        if coming:
            self._session.append(PUSHED, [self._pushed_row(row) for row in coming])

    def _follow_moves(self, changes: Sequence[Change]) -> None:
        """Remember pushed rows by the primary keys that they have now, here and where they came from."""
        came_from: dict[str, str] = {}
        origins: dict[str, str] = {}
        for change in changes:  # in order: a row that was parked moves twice
            old, new = map(codec.tuple_to_text, (change.identity, change.identity_after))
            came_from[new] = came_from.pop(old, old)
            if change.origin:
                origins[new] = codec.tuple_to_text(change.origin)
        theirs = sa.and_(
            PUSHED.c.database_name == self._about["database_name"],
            PUSHED.c.rule == changes[0].rule,
            PUSHED.c.identity.in_([*came_from, *came_from.values()]),
        )
        found = self._session.execute(sa.select(PUSHED).where(theirs)).mappings()
        held = {row["identity"]: row for row in found}
        if not held:
            return
        kept = [
            {**held[old], "identity": new, "origin": origins.get(new, held[old]["origin"])}
            for new, old in came_from.items()
            if old in held
        ]
        self._session.execute(PUSHED.delete().where(theirs))
        if rows := [row for row in kept if self._is_short(row)]:
            self._session.append(PUSHED, rows)

    @staticmethod
    def _is_short(row: Mapping[str, Any]) -> bool:
        """Say whether a row's identity fits the memory; a long one is a name, which its key holds too."""
        return all(len(row[name]) <= (NAME.length or 0) for name in ("identity", "origin"))

    def _pushed_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {**{name: row[name] for name in _REMEMBERED}, "origin_cell": self._origin_cell}

    def recorded(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Say for each change whether it is in the journal."""
        # On Galera, where the COMMIT may be under way on another node: decided after this, see ``writers``.
        self.mark_transaction()
        mine = sa.and_(CHANGES.c.run == self._run.id, CHANGES.c.database_name == self._about["database_name"])
        columns = (CHANGES.c.rule, CHANGES.c.action, CHANGES.c.row_key, CHANGES.c.identity)
        # Shared: a COMMIT that the lost connection sent may still be on its way through the server,
        # and until it is decided nobody may say that its changes are not there.
        asked = sa.select(*columns).where(mine).with_for_update(read=True)
        rows = self._session.execute(asked).all()
        known = {tuple(row) for row in rows} | {tuple(row[:3]) for row in rows}
        return [self._name(change) in known for change in changes]

    def _name(self, change: Change) -> tuple[str, ...]:
        name = (change.rule, change.action.value, codec.tuple_to_text(change.key))
        return (*name, codec.tuple_to_text(change.identity)) if change.identity else name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
