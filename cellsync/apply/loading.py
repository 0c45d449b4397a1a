"""Insert packed rows: thousands by a statement, recorded by another, unseen but for their checksum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import cast

from cellsync.apply.doors import Recorder, Writer
from cellsync.errors import Rejected
from cellsync.model import Change, Load, Packed, Projection, ServerTime, Value

MOST_BYTES = 4 << 20
"""What one statement inserts has no more bytes, nor half as many as the server takes."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """So many packed rows that follow each other in a plan were inserted, all of them."""

    load: Load
    rows: int


@dataclass(frozen=True, kw_only=True)
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
            recorder.mark_transaction()
            texts = [packed.text for packed in self.packed]
            given = writer.load(table, load.columns, filled, texts, numbered=load.numbered)
            numbers = [packed.number for packed in self.packed] if load.numbered else given
            if writer.total(target, load.fold, numbers) != (len(self.packed), checksum(self.packed)):
                raise Rejected(f"{table}: rows are not kept as they are written")
            rows = list(zip(self.packed, numbers, strict=True))
            recorder.record_load(load, rows, spelled=writer.spelled(table, load.sample.key_columns))
        return Loaded(load=load, rows=len(rows))


def batches(load: Load, *, rows: int, packet: int) -> Iterator[Batch]:
    """Yield so many rows at a time, or fewer, for a server that takes statements of ``packet`` bytes."""
    part: list[Packed] = []
    size = 0
    for packed in load.packed:
        more = len(packed.text) if packed.text.isascii() else len(packed.text.encode())
        if part and (len(part) == rows or size + more > min(MOST_BYTES, packet // 2)):
            yield Batch(load=load, packed=part)
            part, size = [], 0
        part.append(packed)
        size += more
    yield Batch(load=load, packed=part)


def checksum(packed: Iterable[Packed]) -> int:
    """Return what the checksums of rows add up to."""
    return reduce(xor, (row.checksum for row in packed), 0)
