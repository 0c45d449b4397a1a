"""How often in a row each child failed, was silent or answered, kept beside the parent's journal.

Cron starts a new process for every check, so what one saw the next must find again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from cellsync.errors import JournalUnavailable, TransactionLost, WriteFailed
from cellsync.journal.tables import SCHEMA, SILENCES, STREAKS, Session, name_login, sql

REMEMBERED = timedelta(hours=1)
"""How long an isolation makes the next return slower."""


@dataclass(frozen=True, kw_only=True)
class Streak:
    """What the checks of one child have seen up to now."""

    cell: str
    failed: int = 0
    """Checks in a row in which no host of the broker took messages."""
    answered: int = 0
    silent: int = 0
    """Checks in a row in which the broker answered and nobody took messages from nova-cells' queues."""
    heard: bool = False
    """True once a check has seen somebody take them."""
    isolated_row: int | None = None
    isolations: tuple[datetime, ...] = field(default=())

    def seen(self, *, down: bool, silent: bool = False, heard: bool = False) -> Streak:
        """Return the streak after one more check.

        A broker that is down says nothing of who takes messages there: what was silent stays so.
        """
        return replace(
            self,
            failed=self.failed + 1 if down else 0,
            answered=0 if down or silent else self.answered + 1,
            silent=self.silent if down else self.silent + 1 if silent else 0,
            heard=self.heard or heard,
        )

    def isolated(self, row: int, at: datetime) -> Streak:
        """Return the streak of a child whose row a check took out."""
        recent = tuple(each for each in self.isolations if at - each <= REMEMBERED)
        return replace(self, answered=0, isolated_row=row, isolations=(*recent, at))

    def returned(self) -> Streak:
        """Return the streak of a child that is in the parent's table, whoever put it there."""
        return replace(self, isolated_row=None)

    def needed(self, answers: int, at: datetime) -> int:
        """Return how many checks in a row must be answered before the child may come back.

        Twice as many for each time that it went within the last hour after the first: a broker that
        comes and goes would make the parent stumble each time.
        """
        recent = sum(at - each <= REMEMBERED for each in self.isolations)
        times: int = 2 ** min(max(recent - 1, 0), 6)
        return answers * times


def make(session: Session) -> None:
    """Make the table where it is not there yet. Not inside a transaction: making a table commits.

    Raises JournalUnavailable, with what an administrator must run, when that is not allowed.
    """
    try:
        for table in (STREAKS, SILENCES):
            session.execute(CreateTable(table, if_not_exists=True))
    except TransactionLost:
        raise
    except WriteFailed as error:
        statements = sql(name_login(session))
        raise JournalUnavailable(f"{error}. An administrator can make the table:\n{statements}") from None


def load(session: Session, *, database: str) -> dict[str, Streak]:
    """Return the streaks by child."""
    rows = session.execute(sa.select(STREAKS).where(STREAKS.c.database_name == database)).mappings()
    quiet = dict[str, tuple[int, int]]()
    if session.has_table(SILENCES.name, schema=SCHEMA):
        found = session.execute(sa.select(SILENCES).where(SILENCES.c.database_name == database))
        quiet = {row["cell"]: (row["silent"], row["heard"]) for row in found.mappings()}
    return {
        row["cell"]: Streak(
            cell=row["cell"],
            failed=row["failed"],
            answered=row["answered"],
            silent=quiet.get(row["cell"], (0, 0))[0],
            heard=bool(quiet.get(row["cell"], (0, 0))[1]),
            isolated_row=row["isolated_row"],
            isolations=tuple(map(datetime.fromisoformat, json.loads(row["isolations"]))),
        )
        for row in rows
    }


def save(session: Session, streaks: Iterable[Streak], *, database: str, at: datetime) -> None:
    """Write the streaks of one check, inside the caller's transaction."""
    kept = list(streaks)
    rows = [
        {
            "database_name": database,
            "cell": streak.cell,
            "failed": streak.failed,
            "answered": streak.answered,
            "checked": at.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "isolated_row": streak.isolated_row,
            "isolations": json.dumps(
                [each.astimezone(timezone.utc).isoformat() for each in streak.isolations]
            ),
        }
        for streak in kept
    ]
    if not rows:
        return
    quiet = [
        {"database_name": database, "cell": each.cell, "silent": each.silent, "heard": int(each.heard)}
        for each in kept
    ]
    for table, made in ((STREAKS, rows), (SILENCES, quiet)):
        theirs = table.c.cell.in_([streak.cell for streak in kept])
        session.execute(table.delete().where(table.c.database_name == database, theirs))
        session.execute(table.insert(), made)
