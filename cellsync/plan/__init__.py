"""Turn what differs into an ordered, guarded list of changes, or say why not. Pure.

inputs      what a plan is made of
deciding    row by row: the action, and the meaning in words
guarding    rule by rule: may it write?
changing    the changes of one rule, each with its guard
clashes     the planned rows that the keys of the written table do not take
joining     new rows with the rows that come with them
ordering    their order: references to oneself, circles of unique values
replacing   rows that are removed and inserted under another id, with what refers to them
sequencing  one order for all changes of tables in which referenced values move
withholding what waits, where some changes of a rule are held back
building    the plan of one edge
registering what to write into Nova's register of cells
"""

from cellsync.plan.building import (
    arrange_held,
    build,
    find_aside,
    find_kept_removals,
    find_refusals,
    list_notices,
)
from cellsync.plan.changing import changes
from cellsync.plan.clashes import Claim, Move, Place, Planned
from cellsync.plan.deciding import decide
from cellsync.plan.guarding import FREE_TO_GO, describe_fall, has_fallen, refuse, unwritable
from cellsync.plan.inputs import WRITING, Clashes, Compared, Target
from cellsync.plan.linking import known_row
from cellsync.plan.replacing import find_preserved, list_uses, plain_value
from cellsync.plan.sequencing import find_connected, find_moving_rules
from cellsync.plan.withholding import leave_out, list_stopped, list_waiting

__all__ = [
    "FREE_TO_GO",
    "WRITING",
    "Claim",
    "Clashes",
    "Compared",
    "Move",
    "Place",
    "Planned",
    "Target",
    "arrange_held",
    "build",
    "changes",
    "decide",
    "describe_fall",
    "find_aside",
    "find_connected",
    "find_kept_removals",
    "find_moving_rules",
    "find_preserved",
    "find_refusals",
    "has_fallen",
    "known_row",
    "leave_out",
    "list_notices",
    "list_stopped",
    "list_uses",
    "list_waiting",
    "plain_value",
    "refuse",
    "unwritable",
]
