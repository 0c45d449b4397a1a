"""What the journals remember: runs, their changes, and which rows cellsync pushed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cellsync import codec
from cellsync.journal import writers
from cellsync.journal.tables import CHANGES, FENCED, PUSHED, RUNS, SCHEMA, Session, version_of
from cellsync.model import Action, Change, Identity, JournaledChange, JournaledRun, Repeated, Run

if TYPE_CHECKING:
    from cellsync.model import Repair

_ASKED = 1000
"""Rows whose origin is asked for in one query."""


def timestamp(moment: datetime) -> str:
    """Return a time as the journal writes it: UTC, to the millisecond, in ISO 8601."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def runs(session: Session, *, database: str, cell: str) -> tuple[JournaledRun, ...]:
    """Return what one database's journal says of its runs, newest first; () without a journal."""
    if version_of(session) is None:
        return ()
    counted = (
        sa.select(CHANGES.c.run, sa.func.count().label("applied"))
        .where(CHANGES.c.database_name == database)
        .group_by(CHANGES.c.run)
        .subquery()
    )
    query = (
        sa.select(RUNS, counted.c.applied)
        .join(counted, counted.c.run == RUNS.c.run, isouter=True)
        .where(RUNS.c.database_name == database)
        .order_by(RUNS.c.started.desc(), RUNS.c.run.desc())
    )
    return tuple(_journaled(row, cell) for row in session.execute(query).mappings())


def _journaled(row: sa.RowMapping, cell: str) -> JournaledRun:
    return JournaledRun(
        run=Run(
            id=row["run"],
            verb=row["verb"],
            started=_moment(row["started"]),
            topology=row["topology"],
            operator=row["operator"],
            host=row["host"],
            command=row["command"],
            reason=row["reason"],
        ),
        finished=_moment(row["finished"]) if row["finished"] else None,
        status=row["status"],
        cells=(cell,),
        applied=int(row["applied"] or 0),
        undoes=row["undoes"],
    )


def merged(found: Iterable[JournaledRun]) -> tuple[JournaledRun, ...]:
    """Join what the journals of several databases say of the same runs, newest first.

    A run is finished when it is finished everywhere; its status is the first that is not "done".
    """
    together: dict[str, JournaledRun] = {}
    for each in found:
        known = together.get(each.run.id)
        together[each.run.id] = each if known is None else _joined(known, each)
    undone: dict[str, list[str]] = {}
    for each in together.values():
        if each.undoes:
            undone.setdefault(each.undoes, []).append(each.run.id)
    ordered = sorted(together.values(), key=lambda each: (each.run.started, each.run.id), reverse=True)
    return tuple(replace(each, undone_by=tuple(undone.get(each.run.id, ()))) for each in ordered)


def _joined(one: JournaledRun, other: JournaledRun) -> JournaledRun:
    finished = max(one.finished, other.finished) if one.finished and other.finished else None
    return replace(
        one,
        finished=finished,
        status=one.status if one.status != "done" else other.status,
        cells=tuple(dict.fromkeys((*one.cells, *other.cells))),
        applied=one.applied + other.applied,
    )


def pushed(
    session: Session, rule: str, identities: Iterable[Identity], *, database: str, origin_cell: str
) -> Mapping[Identity, Identity]:
    """Return which rows of a rule cellsync pushed to a database: primary key -> that of its origin.

    Only those of ``identities``. Empty where there is no journal, or none that this login may see.
    """
    asked = map(codec.tuple_to_text, identities)
    found: dict[Identity, Identity] = {}
    theirs = sa.and_(
        PUSHED.c.database_name == database, PUSHED.c.origin_cell == origin_cell, PUSHED.c.rule == rule
    )
    if not session.has_table(PUSHED.name, schema=SCHEMA):
        return found
    if session.execute(sa.select(PUSHED.c.run).where(theirs).limit(1)).first() is None:
        return found  # and the identities need not be gathered at all
    while part := list(islice(asked, _ASKED)):
        mine = sa.and_(theirs, PUSHED.c.identity.in_(part))
        for row in session.execute(sa.select(PUSHED.c.identity, PUSHED.c.origin).where(mine)).all():
            found[codec.tuple_from_text(row.identity)] = codec.tuple_from_text(row.origin)
    return found


def changes(session: Session, run: str, *, database: str, cell: str) -> tuple[JournaledChange, ...]:
    """Return the changes of a run to one database, in the order in which they were made."""
    if version_of(session) is None:
        return ()
    mine = sa.and_(CHANGES.c.run == run, CHANGES.c.database_name == database)
    rows = session.execute(sa.select(CHANGES).where(mine).order_by(CHANGES.c.sequence))
    return tuple(
        JournaledChange(sequence=row["sequence"], cell=cell, change=_change(row), at=row["made"])
        for row in rows.mappings()
    )


def find_last_written(session: Session, rule: str, *, database: str, since: datetime) -> dict[Identity, str]:
    """Return the rows of a rule that runs wrote to a database since then: primary key -> when, in UTC.

    Goes through all changes of that time. Empty where there is no journal, or none that this login may see.
    """
    if version_of(session) is None:
        return {}
    query = sa.select(CHANGES.c.identity, CHANGES.c.made).where(
        CHANGES.c.database_name == database, CHANGES.c.rule == rule, CHANGES.c.made >= timestamp(since)
    )
    rows = session.execute(query.order_by(CHANGES.c.made)).mappings()
    return {codec.tuple_from_text(row["identity"]): row["made"] for row in rows}


def repeated(
    session: Session, *, database: str, cell: str, since: datetime, times: int
) -> tuple[Repeated, ...]:
    """Return the rows that at least so many repairs have written since then, the most often written first.

    Goes through all changes of that time, for a journal has no index on keys.
    """
    if version_of(session) is None:
        return ()
    number = sa.func.count(sa.distinct(CHANGES.c.run))
    repairs = sa.select(RUNS.c.run).where(
        RUNS.c.database_name == database, RUNS.c.verb == "repair", RUNS.c.started >= timestamp(since)
    )
    alike = (CHANGES.c.rule, CHANGES.c.table_name, CHANGES.c.key_columns, CHANGES.c.row_key)
    made = sa.select(
        *alike, number.label("runs"), sa.func.min(CHANGES.c.made), sa.func.max(CHANGES.c.made)
    ).where(CHANGES.c.database_name == database, CHANGES.c.run.in_(repairs))
    often = made.group_by(*alike).having(number >= times).order_by(number.desc(), *alike)
    found: list[Repeated] = []
    for row in session.execute(often):
        rule, table, columns, key, runs_, first, last = tuple(row)
        found.append(
            Repeated(
                cell=cell,
                rule=rule,
                table=table,
                key_columns=codec.tuple_from_text(columns),
                key=codec.tuple_from_text(key),
                runs=runs_,
                first=first,
                last=last,
            )
        )
    return tuple(found)


def repairs(
    session: Session, *, database: str, cell: str, since: datetime, keys: Collection[str] = ()
) -> tuple[Repair, ...]:
    """Return what repairs wrote since then and no undo took back: by rule, and the rows of some keys.

    One entry for each run and rule, and one for each run and row whose key, as JSON text, is in
    ``keys``. Goes through all changes of that time once for every thousand keys.
    """
    from cellsync.model import Repair

    if version_of(session) is None:
        return ()
    mine = RUNS.c.database_name == database
    undone = sa.select(RUNS.c.undoes).where(mine, RUNS.c.undoes.is_not(None))
    begun = RUNS.c.started >= timestamp(since)
    runs_ = sa.select(RUNS.c.run).where(mine, begun, RUNS.c.verb == "repair", RUNS.c.run.not_in(undone))
    theirs = sa.and_(CHANGES.c.database_name == database, CHANGES.c.run.in_(runs_))
    by_rule = (CHANGES.c.run, CHANGES.c.rule)
    by_row = (*by_rule, CHANGES.c.row_key)
    last, number = sa.func.max(CHANGES.c.made), sa.func.count()
    found: list[Repair] = []
    for row in session.execute(sa.select(*by_rule, last, number).where(theirs).group_by(*by_rule)):
        run, rule, at, rows = tuple(row)
        found.append(Repair(run=run, cell=cell, rule=rule, key=None, at=_moment(at), rows=rows))
    waiting = iter(keys)
    while part := list(islice(waiting, _ASKED)):
        asked = sa.select(*by_row, last).where(theirs, CHANGES.c.row_key.in_(part)).group_by(*by_row)
        for row in session.execute(asked):
            run, rule, key, at = tuple(row)
            key_ = codec.tuple_from_text(key)
            found.append(Repair(run=run, cell=cell, rule=rule, key=key_, at=_moment(at)))
    return tuple(found)


def _change(row: sa.RowMapping) -> Change:
    return Change(
        rule=row["rule"],
        table=row["table_name"],
        action=Action(row["action"]),
        key=codec.tuple_from_text(row["row_key"]),
        key_columns=codec.tuple_from_text(row["key_columns"]),
        identity_columns=codec.tuple_from_text(row["identity_columns"]),
        identity=codec.tuple_from_text(row["identity"]),
        before=codec.row_from_text(row["before_row"]),
        after=codec.row_from_text(row["after_row"]),
        origin=codec.tuple_from_text(row["origin"]),
        reason=row["reason"],
        together=row["together"],
    )


def prune(session: Session, *, database: str, before: datetime) -> int:
    """Forget the finished runs of one database that started before a time; return how many.

    One transaction for each run. Raises TransactionLost where one of them may be tried again.
    """
    version = version_of(session)
    if version is None:
        return 0
    old = sa.and_(
        RUNS.c.database_name == database,
        RUNS.c.finished.is_not(None),
        RUNS.c.started < timestamp(before),
    )
    found = [row[0] for row in session.execute(sa.select(RUNS.c.run).where(old)).all()]
    for run in found:
        with session.transaction():
            if session.is_clustered and version >= FENCED:
                writers.count_transaction(session, database=database)
            theirs = sa.and_(CHANGES.c.run == run, CHANGES.c.database_name == database)
            session.execute(CHANGES.delete().where(theirs))
            mine = sa.and_(RUNS.c.run == run, RUNS.c.database_name == database)
            session.execute(RUNS.delete().where(mine))
    return len(found)


def inverses(made: Sequence[JournaledChange]) -> Iterator[Change]:
    """Yield the changes that take a run back, the last one first."""
    for each in sorted(made, key=lambda each: each.sequence, reverse=True):
        yield each.change.inverse()


def written(made: Collection[JournaledChange]) -> frozenset[str]:
    """Return the names of the tables that a run wrote."""
    return frozenset(each.change.table for each in made)
