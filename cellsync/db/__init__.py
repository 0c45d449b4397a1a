"""A cell's database: connecting, asking for its schema, reading through projections, writing.

dialects   how MariaDB and SQLite spell what they spell differently
connect    sessions with known settings, errors in cellsync's own words
schema     what the tables look like
select     a projection as one SELECT, its result as rows
database   `Database`: the Reader of diff and the Writer of apply
"""

from cellsync.db.connect import Timeouts
from cellsync.db.database import Database, NamedLock, connect, same_database

__all__ = ["Database", "NamedLock", "Timeouts", "connect", "same_database"]
