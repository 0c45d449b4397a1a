"""How often in a row each child's broker failed or answered, kept beside the journal of the parent.

Cron starts a new process for every check, so what one saw the next must find again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import schema

from cellsync.errors import JournalUnavailable, TransactionLost, WriteFailed

SCHEMA = "cellsync"

_NAME = sa.String(255)
_SHORT = sa.String(64)
_METADATA = sa.MetaData(schema=SCHEMA)
_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_STREAKS = sa.Table(
    "streaks",
    _METADATA,
    sa.Column("database_name", _SHORT, primary_key=True),
    sa.Column("cell", _NAME, primary_key=True),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("answered", sa.Integer, nullable=False),
    # UTC, "2026-11-23T15:00:59Z".
    sa.Column("checked", _SHORT, nullable=False),
    # The id of the row that a check took out; NULL where none did, or it is back.
    sa.Column("isolated_row", sa.BigInteger),
    # When checks took the cell out, newest last, as JSON.
    sa.Column("isolations", sa.Text, nullable=False),
    **_OPTIONS,
)

REMEMBERED = timedelta(hours=1)
"""How long an isolation makes the next return slower."""


class Session(Protocol):
    """An open connection; ``db.Database`` is one."""

    def execute(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]] = ()) -> sa.Result[Any]: ...


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


def sql() -> str:
    """Return what an administrator runs where cellsync may not make its own tables."""
    dialect = sa.create_mock_engine("mysql+pymysql://", lambda *_: None).dialect
    text = str(schema.CreateTable(_STREAKS, if_not_exists=True).compile(dialect=dialect))
    return text.strip().replace("\t", "  ") + ";\n"


def make(session: Session) -> None:
    """Make the table where it is not there yet. Not inside a transaction: making a table commits.

    Raises JournalUnavailable, with what an administrator must run, when that is not allowed.
    """
    try:
        session.execute(schema.CreateTable(_STREAKS, if_not_exists=True))
    except TransactionLost:
        raise
    except WriteFailed as error:
        raise JournalUnavailable(f"{error}. An administrator can make the table:\n{sql()}") from None


def load(session: Session, *, database: str) -> dict[str, Streak]:
    """Return the streaks by child."""
    rows = session.execute(sa.select(_STREAKS).where(_STREAKS.c.database_name == database)).mappings()
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
    theirs = _STREAKS.c.cell.in_([row["cell"] for row in rows])
    session.execute(_STREAKS.delete().where(_STREAKS.c.database_name == database, theirs))
    session.execute(_STREAKS.insert(), rows)
