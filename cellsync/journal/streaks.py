"""How often in a row each child's broker failed or answered, kept beside the journal of the parent.

Cron starts a new process for every check, so what one saw the next must find again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from cellsync.errors import JournalUnavailable, TransactionLost, WriteFailed
from cellsync.journal.tables import STREAKS, Session, sql

REMEMBERED = timedelta(hours=1)
"""How long an isolation makes the next return slower."""


@dataclass(frozen=True, kw_only=True)
class Streak:
    """What the checks of one child have seen up to now."""

    cell: str
    failed: int = 0
    """Checks in a row in which no host of the broker took messages."""
    answered: int = 0
    isolated_row: int | None = None
    isolations: tuple[datetime, ...] = field(default=())

    def seen(self, *, down: bool) -> Streak:
        """Return the streak after one more check."""
        return Streak(
            cell=self.cell,
            failed=self.failed + 1 if down else 0,
            answered=0 if down else self.answered + 1,
            isolated_row=self.isolated_row,
            isolations=self.isolations,
        )

    def isolated(self, row: int, at: datetime) -> Streak:
        """Return the streak of a child whose row a check took out."""
        recent = tuple(each for each in self.isolations if at - each <= REMEMBERED)
        return Streak(cell=self.cell, failed=self.failed, isolated_row=row, isolations=(*recent, at))

    def returned(self) -> Streak:
        """Return the streak of a child that is in the parent's table, whoever put it there."""
        return Streak(cell=self.cell, failed=self.failed, answered=self.answered, isolations=self.isolations)

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
        session.execute(CreateTable(STREAKS, if_not_exists=True))
    except TransactionLost:
        raise
    except WriteFailed as error:
        raise JournalUnavailable(f"{error}. An administrator can make the table:\n{sql()}") from None


def load(session: Session, *, database: str) -> dict[str, Streak]:
    """Return the streaks by child."""
    rows = session.execute(sa.select(STREAKS).where(STREAKS.c.database_name == database)).mappings()
    return {
        row["cell"]: Streak(
            cell=row["cell"],
            failed=row["failed"],
            answered=row["answered"],
            isolated_row=row["isolated_row"],
            isolations=tuple(map(datetime.fromisoformat, json.loads(row["isolations"]))),
        )
        for row in rows
    }


def save(session: Session, streaks: Iterable[Streak], *, database: str, at: datetime) -> None:
    """Write the streaks of one check, inside the caller's transaction."""
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
        for streak in streaks
    ]
    if not rows:
        return
    theirs = STREAKS.c.cell.in_([row["cell"] for row in rows])
    session.execute(STREAKS.delete().where(STREAKS.c.database_name == database, theirs))
    session.execute(STREAKS.insert(), rows)
