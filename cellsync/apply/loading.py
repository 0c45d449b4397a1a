"""Insert packed rows: a thousand by a statement, recorded by another, unseen but for their checksum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import xor
from typing import cast

from cellsync.apply.doors import Recorder, Writer
from cellsync.errors import Rejected
from cellsync.model import Change, Load, Packed, Projection, ServerTime, Value


@dataclass(frozen=True)
class Loaded:
    """So many packed rows that follow each other in a plan were inserted, all of them."""

    load: Load
    rows: int


@dataclass(frozen=True)
class Batch:
    """Packed rows for one transaction."""

    load: Load
    packed: Sequence[Packed]

    def changes(self) -> list[Change]:
        """Return them one by one."""
        return [self.load.make(packed) for packed in self.packed]

    def run(self, writer: Writer, recorder: Recorder, target: Projection) -> Loaded:
        """Insert the rows, in a transaction of its own.

        Raises Rejected, with nothing written, where the server does not take one of them, or would
        keep one otherwise than it is: which one, and why, is found out one by one.
        """
        load, table = self.load, self.load.sample.table
        filled = cast("dict[str, Value | ServerTime]", load.filled)
        with writer.transaction():
            numbers = writer.load(table, load.columns, filled, [packed.text for packed in self.packed])
            if writer.total(target, load.fold, numbers) != (len(self.packed), checksum(self.packed)):
                raise Rejected(f"{table}: rows are not kept as they are written")
            rows = list(zip(self.packed, numbers, strict=True))
            recorder.record_load(load, rows, spelled=writer.spelled(table))
        return Loaded(load, len(rows))


def batches(load: Load, size: int) -> Iterator[Batch]:
    """Yield the rows of a load, so many at a time."""
    waiting = iter(load.packed)
    while part := list(islice(waiting, size)):
        yield Batch(load, part)


def checksum(packed: Iterable[Packed]) -> int:
    """Return what the checksums of rows add up to."""
    return reduce(xor, (row.checksum for row in packed), 0)
