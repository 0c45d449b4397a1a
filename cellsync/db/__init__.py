"""A cell's database: connecting, asking for its schema, reading through projections, writing.

dialects   how MariaDB and SQLite spell what they spell differently
connect    sessions with known settings, errors in cellsync's own words
literals   values as they stand in a statement, many at once
schema     what the tables look like
encoding   a row as one string, and its hash, as SQL
bundling   the key and the checksum of a row as a text that can be read back
joining    a record as one value, taken apart again column by column
packing    a row as the text of an INSERT, that can be read back, and as the journal's JSON
select     a projection as one SELECT, its result as rows, digests or bundles
session    one open connection: what it is connected to, its transactions
reading    the Reader of diff
writing    the Writer of apply
database   `Database`, which is both
register   Nova's table of cells
mappings   Nova's table of cells since cells v2
locks      two names for one database, and one writer at a time
"""

from cellsync.db.connect import Timeouts
from cellsync.db.database import Database, connect
from cellsync.db.locks import NamedLock, same_database
from cellsync.db.mappings import cell_mappings
from cellsync.db.register import has_register, instances_in, read_release, register, whole_register

__all__ = [
    "Database",
    "NamedLock",
    "Timeouts",
    "cell_mappings",
    "connect",
    "has_register",
    "instances_in",
    "read_release",
    "register",
    "same_database",
    "whole_register",
]
