"""The durable record of every change, in the schema ``cellsync`` on the written server.

It lives beside the data, so that a change and its record commit in one transaction. Rows say
which database they are about: several cells may share a server and so a journal.

tables      its tables, and how they come to be
history     runs, their changes, which rows cellsync pushed
recording   what one run records
writers     which run may write, where a database has several nodes
streaks     how often in a row each child's broker failed or answered
"""

from cellsync.journal.history import (
    changes,
    find_last_written,
    inverses,
    merged,
    prune,
    pushed,
    repairs,
    repeated,
    runs,
    timestamp,
    written,
)
from cellsync.journal.recording import Journal
from cellsync.journal.tables import ANY_HOST, SCHEMA, VERSION, Session, name_login, prepare, sql, unseen

__all__ = [
    "ANY_HOST",
    "SCHEMA",
    "VERSION",
    "Journal",
    "Session",
    "changes",
    "find_last_written",
    "inverses",
    "merged",
    "name_login",
    "prepare",
    "prune",
    "pushed",
    "repairs",
    "repeated",
    "runs",
    "sql",
    "timestamp",
    "unseen",
    "written",
]
