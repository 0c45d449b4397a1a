"""Make the changes of a plan: guarded, in transactions that hold their journal rows, and verified.

Every batch is one transaction: lock the rows, look the references up, check every guard against
the locked rows, write, read back, record. A row that is no longer what the plan saw is a conflict
and is left alone; a row that the server does not take fails by itself; anything that costs the
whole transaction is tried again as a whole.

doors      what it needs of a database and of a journal
executing  batch by batch: what belongs together, what is tried again, what is left
batch      one transaction
loading    one transaction of packed rows, for a table that had none
verifying  the written keys, read again
"""

from cellsync.apply.doors import Desired, Lane, Reader, Recorder, Writer
from cellsync.apply.executing import Denial, Withheld, denied, execute, make_inside, reached
from cellsync.apply.loading import Loaded
from cellsync.apply.verifying import deletes, verify, verify_all

__all__ = [
    "Denial",
    "Desired",
    "Lane",
    "Loaded",
    "Reader",
    "Recorder",
    "Withheld",
    "Writer",
    "deletes",
    "denied",
    "execute",
    "make_inside",
    "reached",
    "verify",
    "verify_all",
]
