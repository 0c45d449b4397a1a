"""What is left of a plan without the rows that would clash: those are findings."""

from __future__ import annotations

from dataclasses import replace

from cellsync.plan import Compared
from cellsync.plan.clashes import Settled
from cellsync.run.fitting import leave_out


def remove_clashes(each: Compared, settled: Settled, *, sequenced: bool) -> Compared:
    """Return a compared rule without the rows that must not be written, and with findings about them."""
    rule = each.pairing.rule
    failed = {key: claim.finding for (name, key), claim in settled.failed.items() if name == rule.id}
    first = frozenset(planned.key for planned in settled.early if planned.rule == rule.id)
    waits = {
        planned.key: {index: other.key for index, other in needs.items()}
        for planned, needs in settled.waits.items()
        if planned.rule == rule.id
    }
    clashes = replace(each.clashes, first=first, waits=waits, sequenced=sequenced)
    return leave_out(replace(each, clashes=clashes), failed)
