"""The verbs of cellsync: compare, repair, undo, history; cells worked on side by side.

locating    which children there are, where the parent lists them
request     what a verb is asked, and what one stage hands to the next
compare     everything up to the first write, by these stages:
look          connect, and see what each database is
reading       read from all cells at once, the parent once for all children
digesting     of large tables, which keys may differ
loading       of tables that one side lacks altogether, all rows as they are
confirming    the rows that differ, read again: only what still differs counts
recounting    how many rows the desired side of a rule that deletes has, before and after
coming        the rows that come with those that are to be inserted
replacing     the rows that have another preserved id: whether they may be replaced
detecting     what detectors find, by questions (asking) of which some are answered in part (narrowing)
accepting     what people live with: it is neither counted nor repaired
planning      a plan for each edge, and the report
planfile    plans as a file
writing     everything from there: lock, journal, apply, verify
upstream    the desired side, looked at again while the other one is written
past        the journals: history, and the plan of an undo
seeing      what a run saw, for the drift log
triaging    what came of it over many runs
telling     what statements are spelled from: whole rows, or what a run has made

What writes or looks back is imported when a verb asks for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cellsync.run.compare import compare, schemas
from cellsync.run.locating import located
from cellsync.run.request import Edge, Prepared, Request

if TYPE_CHECKING:
    from cellsync.run.past import (
        Course,
        History,
        changes,
        course,
        find_logins,
        history,
        prepare_undo,
        prune,
        repeated,
    )
    from cellsync.run.writing import write

__all__ = [
    "Course",
    "Edge",
    "History",
    "Prepared",
    "Request",
    "changes",
    "compare",
    "course",
    "find_logins",
    "history",
    "located",
    "prepare_undo",
    "prune",
    "repeated",
    "schemas",
    "write",
]


def __getattr__(name: str) -> object:
    """Return what stands in a module that only some verbs need; Python asks for it once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module("cellsync.run.writing" if name == "write" else "cellsync.run.past")
    globals()[name] = found = getattr(module, name)
    return found
