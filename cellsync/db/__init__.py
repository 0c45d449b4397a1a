"""A cell's database: connecting, asking for its schema, reading through projections, writing.

dialects   how MariaDB and SQLite spell what they spell differently
connect    sessions with known settings, errors in cellsync's own words
schema     what the tables look like
encoding   a row as one string, and its hash, as SQL
select     a projection as one SELECT, its result as rows, digests or keys with checksums
database   `Database`: the Reader of diff and the Writer of apply
locks      two names for one database, and one writer at a time
"""

from cellsync.db.connect import Timeouts
from cellsync.db.database import Database, connect
from cellsync.db.locks import NamedLock, same_database

__all__ = ["Database", "NamedLock", "Timeouts", "connect", "same_database"]
