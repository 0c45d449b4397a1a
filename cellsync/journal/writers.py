"""Which run writes to a database of a Galera cluster: one row that each of its transactions updates.

Row locks and named locks are local to a node of a Galera cluster. What all nodes agree on is certification:
of two transactions that write one row, neither of which had seen the other, the second one to be ordered
fails at its COMMIT (error 1213), and a transaction that arrives from elsewhere aborts a local one that holds
its locks. Therefore

- a run takes the row of the database in ``writers`` before it writes: of two runs one gets it;
- each transaction of the run begins with an UPDATE of that row, which matches nothing once another run has
  taken it. So a transaction commits only if its node had applied all that was committed under that row
  before: the UPDATE waits for nothing less, and certification fails it otherwise. Locks and guards come
  after the UPDATE, and see all rows that other runs wrote;
- a COMMIT that was sent through a lost connection, and may still be under way on another node, is decided by
  the next UPDATE of the row: it was applied before, or it can never be.

``heartbeats`` says whether the run that took the row still lives: a row of its own, so that a sign of life
never waits for a transaction of the same run, nor disturbs one. Times are those of the servers. A run that
is taken for dead and goes on later writes nothing more, whatever the clocks say.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from cellsync.errors import WriteFailed
from cellsync.journal.tables import HEARTBEATS, WRITERS, Session

BEAT_SECONDS = 5.0
"""Seconds between two signs of life."""
STALE_SECONDS = 30.0
"""A run whose last sign of life is older may be dead: it is, if two more do not come."""


class Holder(NamedTuple):
    """The run that has taken a database, and its last sign of life."""

    run: str
    node: str
    """The node on which it holds its named lock; "" where the node did not say."""
    beats: int
    age: int
    """Seconds since the last sign of life, by the server's clock."""


def find_holder(session: Session, *, database: str) -> Holder | None:
    """Return the run that has taken a database, or None; keeps both rows locked in this transaction."""
    mine = WRITERS.c.database_name == database
    taken = session.execute(sa.select(WRITERS.c.run).where(mine).with_for_update()).scalar()
    if not taken:
        return None
    age = sa.func.timestampdiff(sa.text("SECOND"), HEARTBEATS.c.seen, sa.func.utc_timestamp())
    columns = (HEARTBEATS.c.node, HEARTBEATS.c.beats, age)
    theirs = sa.and_(HEARTBEATS.c.database_name == database, HEARTBEATS.c.run == taken)
    found = session.execute(sa.select(*columns).where(theirs).with_for_update()).first()
    node, beats, seconds = tuple(found) if found else ("", 0, int(STALE_SECONDS))
    return Holder(taken, node, int(beats), int(seconds))


def take_database(session: Session, *, database: str, run: str, node: str) -> None:
    """Take a database for a run, inside the transaction that found it free."""
    now = sa.func.utc_timestamp()
    about = {"database_name": database}
    updates = (
        WRITERS.update().values(run=run, transactions=WRITERS.c.transactions + 1),
        HEARTBEATS.update().values(run=run, node=node, beats=HEARTBEATS.c.beats + 1, seen=now),
    )
    inserts = (
        WRITERS.insert().values(**about, run=run, transactions=1),
        HEARTBEATS.insert().values(**about, run=run, node=node, beats=1, seen=now),
    )
    for update, insert in zip(updates, inserts, strict=True):
        if not _count_rows(session, update.where(update.table.c.database_name == database)):
            session.execute(insert)


def mark_transaction(session: Session, *, database: str, run: str) -> None:
    """Begin a transaction of a run: after this, other runs' rows are seen, or the COMMIT fails.

    Raises WriteFailed where another run has taken the database.
    """
    mine = sa.and_(WRITERS.c.database_name == database, WRITERS.c.run == run)
    counted = WRITERS.update().where(mine).values(transactions=WRITERS.c.transactions + 1)
    if not _count_rows(session, counted):
        raise WriteFailed(
            f"another run took over the writing of {database}, because this one gave no sign of life for "
            f"{STALE_SECONDS:g} s or lost its lock; nothing more is written by this run, run it again"
        )


def count_transaction(session: Session, *, database: str) -> None:
    """Begin a transaction that belongs to no run: it and those of a run see each other, or one fails."""
    mine = WRITERS.c.database_name == database
    session.execute(WRITERS.update().where(mine).values(transactions=WRITERS.c.transactions + 1))


def show_life(session: Session, *, database: str, run: str, node: str) -> None:
    """Give a sign of life; does nothing where another run has taken the database."""
    mine = sa.and_(HEARTBEATS.c.database_name == database, HEARTBEATS.c.run == run)
    now = sa.func.utc_timestamp()
    session.execute(HEARTBEATS.update().where(mine).values(node=node, beats=HEARTBEATS.c.beats + 1, seen=now))


def release_database(session: Session, *, database: str, run: str) -> None:
    """Give a database free, if the run has it still."""
    for table in (WRITERS, HEARTBEATS):
        mine = sa.and_(table.c.database_name == database, table.c.run == run)
        session.execute(table.update().where(mine).values(run=""))


def _count_rows(session: Session, update: sa.Update) -> int:
    """Do an UPDATE and return how many rows it matched."""
    return cast("sa.CursorResult[Any]", session.execute(update)).rowcount
