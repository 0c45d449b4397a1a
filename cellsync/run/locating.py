"""Find out which children there are, where the parent's database lists them."""

from __future__ import annotations

from cellsync import cells, db
from cellsync.db import Timeouts
from cellsync.errors import ReadFailed, UsageError
from cellsync.model import Topology


def located(topology: Topology, timeouts: Timeouts) -> Topology:
    """Return the topology with its children; the same one where the configuration lists them.

    Connects to the parent and reads its ``cell_mappings``; a mapping that leads nowhere becomes a
    child that cannot be reached. Raises Unreachable and ReadFailed, also where there is no such
    table or no enabled cell: without children, everything would seem to be in step.
    """
    if topology.mapped is None:
        return topology
    with db.connect(topology.parent, timeouts) as database:
        rows = db.cell_mappings(database)
    try:
        return cells.children(topology, rows)
    except UsageError as error:
        raise ReadFailed(str(error)) from None
