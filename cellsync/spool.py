"""Sequences that may be longer than memory: the long ones are on disk, in a file without a name.

What a run finds and plans goes from stage to stage as such sequences. A short one is a plain
tuple; a long one keeps to a few megabytes, whatever it holds, and is read in order, as often as
wanted. The file is gone when the sequence is, and when the process is killed.
"""

from __future__ import annotations

import marshal
import pickle
import tempfile
import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from operator import itemgetter
from threading import Lock
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, Union, overload

from cellsync.errors import NoRoom

S = TypeVar("S")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

SHORT = 2_000
"""So many items are held in memory as they are."""

BLOCK = 500
"""Items that are written, and read again, together."""

BUFFER = 4 << 20
"""Bytes that one sequence keeps in memory before it goes to disk."""


class Packable(Protocol):
    """An item that can be plain values and back: tuples, dicts, texts, numbers.

    These are written and read in less than half the time that ``pickle`` takes with the objects.
    """

    def packed(self) -> Any:
        """Return the item as plain values; what is none of them in there is no error."""

    @classmethod
    def unpacked(cls, plain: Any) -> Any:
        """Return the item that ``packed`` gave these values, which are its own from now on."""


def kept(
    items: Iterable[T],
    short: int | None = None,
    *,
    tally: Callable[[T], Hashable] | None = None,
    apart: Callable[[T], Hashable] | None = None,
) -> Sequence[T]:
    """Return the items as a sequence that takes little memory, however many they are.

    Up to ``short`` (or SHORT) of them are held as they are. Items of a long one are copies, equal
    and not the same; so are those of another pass. ``tally`` is what ``tallied`` will ask for, and
    ``apart`` what ``select`` will: where the order of the items means nothing.
    """
    collected: Collector[T] = Collector(short, tally=tally, apart=apart)
    collected.extend(items)
    return collected.kept()


def tallied(items: Sequence[T], key: Callable[[T], K]) -> Counter[K]:
    """Count the items by a key; of a long sequence this is remembered."""
    return items.tallied(key) if isinstance(items, _Long) else Counter(map(key, items))


def ordered(items: Sequence[T], key: Callable[[T], Any]) -> Sequence[T]:
    """Return a short sequence in order; a long one stays in the order in which it was made."""
    return items if isinstance(items, _Long) else tuple(sorted(items, key=key))


def parts(items: Sequence[T]) -> Sequence[Sequence[T]]:
    """Return the sequences that a ``Collector`` was given as they are, and those between them, in order."""
    return items.parts if isinstance(items, _Chained) else (items,)


def without(items: Sequence[T], leaving: Callable[[T], bool]) -> Sequence[T]:
    """Return the items but for some; a sequence of ``parts`` that loses none is kept as it is."""
    left: Collector[T] = Collector()
    for part in parts(items):
        if isinstance(part, _Made) and not any(map(leaving, part)):
            left.attach(part)
        else:
            left.extend(item for item in part if not leaving(item))
    return left.kept()


def select(items: Sequence[T], key: Callable[[T], Hashable], values: Collection[Hashable]) -> Iterator[T]:
    """Yield the items whose key is one of some values.

    Of a long sequence that is kept ``apart`` by this key the others are not read.
    """
    for part in parts(items):
        if isinstance(part, _Spooled) and part.apart is key:
            yield from part.select(values)
        else:
            yield from (item for item in part if key(item) in values)


def find_bulky(items: Sequence[T], size: int) -> Iterator[T]:
    """Yield all items that have more than ``size`` characters and bytes in their values, and maybe others.

    A long sequence is not read where its items were written in fewer bytes than that.
    """
    for part in parts(items):
        yield from part.find_bulky(size) if isinstance(part, _Spooled) else part


class Collector(Generic[T]):
    """Gathers the items of one sequence, bit by bit."""

    def __init__(
        self,
        short: int | None = None,
        *,
        tally: Callable[[T], Hashable] | None = None,
        apart: Callable[[T], Hashable] | None = None,
    ) -> None:
        self._short = SHORT if short is None else short
        self._tally = tally
        self._apart = apart
        self._waiting: list[T] = []
        self._long: _Spooled[T] | None = None
        self._parts: list[Sequence[T]] = []

    def extend(self, items: Iterable[T]) -> None:
        """Add items at the end."""
        for item in items:
            self._waiting.append(item)
            if len(self._waiting) > self._short:
                self._long = self._long or _Spooled(self._tally, self._apart)
                self._long.extend(self._waiting)
                self._waiting = []

    def append(self, item: T) -> None:
        """Add one item at the end."""
        self.extend((item,))

    def attach(self, items: Sequence[T]) -> None:
        """Add a sequence at the end, which is kept as it is."""
        self._parts += [part for part in (self._gathered(), items) if part]
        self._waiting, self._long = [], None

    def kept(self) -> Sequence[T]:
        """Return all items; none can be added after that."""
        last = self._gathered()
        if not self._parts:
            return last
        return _Chained([*self._parts, last] if last else self._parts)

    def _gathered(self) -> Sequence[T]:
        if self._long is None:
            return tuple(self._waiting)
        self._long.extend(self._waiting)
        return self._long


@contextmanager
def _in_the_folder() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoRoom(
            f"what is found waits in {tempfile.gettempdir()}, which cannot be used: {error.strerror}; set "
            f"TMPDIR to a folder with room for it"
        ) from None


class _Block(NamedTuple):
    """Where items that were written together are."""

    first: int
    """The number of the first of them."""
    at: int
    size: int
    kind: type[Packable] | None
    """What they are, where plain values are written in their stead."""
    key: Hashable
    """What they have in common, where they are kept apart by it."""


def _written(items: Sequence[Any]) -> tuple[bytes, type[Packable] | None]:
    """Return items as bytes, and what they are where these hold plain values."""
    kind = type(items[0])
    if hasattr(kind, "unpacked") and set(map(type, items)) == {kind}:
        try:
            # Unlike pickle, this takes the very types of plain values alone, and each comes back as it was.
            return marshal.dumps([item.packed() for item in items]), kind
        except ValueError:  # a Decimal, or a reference that leads nowhere
            pass
    return pickle.dumps(items, pickle.HIGHEST_PROTOCOL), None


class _Long(Sequence[T]):
    """A sequence that is not held as it is; counts of it are remembered."""

    def __init__(self, tallies: Mapping[Callable[[Any], Hashable], Counter[Any]]) -> None:
        self._tallies = {**tallies}

    def tallied(self, key: Callable[[T], K]) -> Counter[K]:
        """Count the items by a key, in one pass at most."""
        if key not in self._tallies:
            self._tallies[key] = self._counted(key)
        return self._tallies[key]

    def _counted(self, key: Callable[[T], K]) -> Counter[K]:
        return Counter(map(key, self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class _Spooled(_Long[T]):
    """A long sequence. Several threads may read it."""

    def __init__(self, tally: Callable[[T], Hashable] | None, apart: Callable[[T], Hashable] | None) -> None:
        super().__init__({tally: Counter()} if tally else {})
        self.apart = apart
        # Not a with statement: the file lives as long as the sequence.
        self._file = tempfile.SpooledTemporaryFile(max_size=BUFFER)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._lock = Lock()
        self._blocks: list[_Block] = []
        self._length = 0

    def extend(self, items: Sequence[T]) -> None:
        for tally, counter in self._tallies.items():
            counter.update(map(tally, items))
        groups: dict[Hashable, Sequence[T]] = {None: items}
        if self.apart is not None:
            by_key: dict[Hashable, list[T]] = {}
            for item in items:
                by_key.setdefault(self.apart(item), []).append(item)
            groups = {**by_key}
        for key, group in groups.items():
            for start in range(0, len(group), BLOCK):
                self._write(group[start : start + BLOCK], key)

    def _write(self, block: Sequence[T], key: Hashable) -> None:
        written, kind = _written(block)
        self._blocks.append(_Block(self._length, self._file.tell(), len(written), kind, key))
        with _in_the_folder():
            self._file.write(written)
        self._length += len(block)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return self._after(0)

    def _after(self, start: int) -> Iterator[T]:
        for number in range(self._holding(start), len(self._blocks)):
            first = self._blocks[number].first
            yield from islice(self._block(number), max(0, start - first), None)

    def select(self, values: Collection[Hashable]) -> Iterator[T]:
        for number, block in enumerate(self._blocks):
            if block.key in values:
                yield from self._block(number)

    def find_bulky(self, size: int) -> Iterator[T]:
        for number, block in enumerate(self._blocks):
            if block.size > size:
                yield from self._block(number)

    def _holding(self, at: int) -> int:
        """Return the number of the block that holds an item."""
        return max(0, bisect_right(self._blocks, at, key=itemgetter(0)) - 1)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[T, Sequence[T]]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            if step == 1:
                return kept(islice(self._after(start), max(0, stop - start)))
            return kept(self[at] for at in range(start, stop, step))
        at = range(self._length)[index]
        number = self._holding(at)
        return self._block(number)[at - self._blocks[number].first]

    def __repr__(self) -> str:
        return f"<{self._length} items on disk>"

    def _block(self, number: int) -> Sequence[T]:
        written, kind = self._read(number), self._blocks[number].kind
        if kind is not None:
            return [*map(kind.unpacked, marshal.loads(written))]
        block: list[T] = pickle.loads(written)
        return block

    def _read(self, number: int) -> bytes:
        _, at, size, *_ = self._blocks[number]
        with self._lock, _in_the_folder():
            self._file.seek(at)
            return self._file.read(size)


class _Made(_Long[T]):
    """A sequence whose items are made while it is gone through, from what others keep."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[T, Sequence[T]]:
        if isinstance(index, slice):
            return kept(self._at(at) for at in range(*index.indices(len(self))))
        return self._at(range(len(self))[index])

    def _at(self, index: int) -> T:
        raise NotImplementedError


class Mapped(_Made[T], Generic[S, T]):
    """The items of another sequence, each as a function makes it, again on each pass.

    ``tallies`` are known without a pass.
    """

    def __init__(
        self,
        items: Sequence[S],
        make: Callable[[S], T],
        tallies: Mapping[Callable[[T], Hashable], Counter[Any]],
    ) -> None:
        super().__init__(tallies)
        self._items = items
        self._make = make

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return map(self._make, self._items)

    def _at(self, index: int) -> T:
        return self._make(self._items[index])


class _Chained(_Made[T]):
    """Several sequences, one after the other."""

    def __init__(self, parts: Sequence[Sequence[T]]) -> None:
        super().__init__({})
        self.parts = tuple(parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.parts)

    def _at(self, index: int) -> T:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    def _counted(self, key: Callable[[T], K]) -> Counter[K]:
        every: Counter[K] = Counter()
        for part in self.parts:
            every.update(tallied(part, key))
        return every
