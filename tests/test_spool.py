"""Sequences that may be longer than memory: what goes in comes out, in order, as often as wanted."""

from __future__ import annotations

import errno
import gc
import io
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsync import spool
from cellsync.errors import ExitCode, NoRoom
from cellsync.model import (
    Action,
    Bundle,
    Change,
    ColumnDifference,
    Difference,
    Kind,
    Reference,
    Row,
    ServerTime,
)
from cellsync.run.digesting import Block
from cellsync.spool import Collector, kept, ordered, tallied

ITEMS = st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=60)


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks small, so that a few items are many of them."""
    monkeypatch.setattr(spool, "BLOCK", 4)


def parity(number: int) -> int:
    """Return what integers are counted by."""
    return number % 2


@given(items=ITEMS, short=st.integers(0, 20), start=st.integers(-70, 70), stop=st.integers(-70, 70))
def test_a_long_sequence_is_like_a_tuple(items: list[object], short: int, start: int, stop: int) -> None:
    """Length, order, items, slices and equality, however it is stored."""
    found = kept(iter(items), short)
    assert isinstance(found, tuple) is (len(items) <= short)
    assert len(found) == len(items)
    assert list(found) == list(found) == items
    assert [found[at] for at in range(-len(items), len(items))] == items * 2
    assert list(found[start:stop]) == items[start:stop]
    assert list(found[::-3]) == items[::-3]
    assert found == kept(items)
    with pytest.raises(IndexError):
        found[len(items)]


@given(items=st.lists(st.integers(), max_size=60), short=st.integers(0, 20), key=st.booleans())
def test_items_that_are_kept_apart_are_read_apart(items: list[int], short: int, key: bool) -> None:
    """All of them are there, those of one key in order; the others are not read for them."""
    found = kept(iter(items), short, tally=parity, apart=parity)
    assert sorted(found) == sorted(items)
    assert tallied(found, parity) == Counter(map(parity, items))
    for asked in (found, kept(items, short)):
        assert list(spool.select(asked, parity, {int(key)})) == [n for n in items if parity(n) == key]
        assert sorted(spool.select(asked, parity, {0, 1})) == sorted(items)
    assert [found[at] for at in range(len(found))] == list(found)


@given(parts=st.lists(ITEMS, max_size=5), short=st.integers(0, 20))
def test_a_sequence_is_gathered_bit_by_bit(parts: list[list[object]], short: int) -> None:
    """Bits of any size, blocks that are not full."""
    collected: Collector[object] = Collector(short)
    for part in parts:
        collected.extend(part)
        collected.append("end")
    assert list(collected.kept()) == [item for part in parts for item in (*part, "end")]


def test_two_passes_at_once_do_not_disturb_each_other() -> None:
    """Plans are read by several threads."""
    found = kept(range(1000), 10)
    assert all(one == other for one, other in zip(found, found, strict=True))
    with ThreadPoolExecutor(4) as pool:
        assert all(list(each) == list(range(1000)) for each in pool.map(list, [found] * 8))


@pytest.mark.parametrize("short", [10, 1000])
def test_items_are_counted_once(short: int) -> None:
    """While they are written, or when somebody asks first; then it is remembered."""
    calls = []

    def counting(number: int) -> int:
        calls.append(number)
        return number % 2

    for found in (kept(range(101), short, tally=counting), kept(range(101), short)):
        calls.clear()
        assert tallied(found, counting) == tallied(found, counting) == Counter({0: 51, 1: 50})
        assert short == 1000 or len(calls) <= 101
    assert tallied(kept(range(101), short), parity) == Counter({0: 51, 1: 50})


def test_a_long_sequence_stays_in_the_order_in_which_it_was_made() -> None:
    """Sorting would need all of it in memory."""
    assert ordered(kept([3, 1, 2]), key=int) == (1, 2, 3)
    assert list(ordered(kept([3, 1, 2], 2), key=int)) == [3, 1, 2]


def test_a_full_folder_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was found is left out in silence."""

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool.tempfile, "SpooledTemporaryFile", lambda max_size: Full())
    with pytest.raises(NoRoom, match="No space left on device; set TMPDIR") as raised:
        kept(range(100), 10)
    assert raised.value.exit_code is ExitCode.INCOMPLETE


def test_the_file_is_gone_with_the_sequence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has no name, and its descriptor is closed."""
    monkeypatch.setattr(spool, "BUFFER", 10)
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    gc.collect()  # what other tests have left
    before = len(os.listdir("/proc/self/fd"))
    found = kept(range(1000), 10)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) > before
    del found
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@dataclass(frozen=True)
class Packing:
    """An item that can be plain values."""

    value: object

    def packed(self) -> Any:
        return (self.value,)

    @classmethod
    def unpacked(cls, plain: Any) -> Packing:
        return cls(*plain)


@dataclass(frozen=True)
class Other:
    """One that cannot."""

    value: object


class Name(str):
    """No plain text."""


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
)
"""All that a database holds."""


PACKING = st.builds(Packing, VALUES)
OTHERS = PACKING | st.builds(Other, VALUES)


@given(items=st.one_of(st.lists(each, min_size=5, max_size=30) for each in (PACKING, OTHERS)))
def test_items_come_back_as_they_were_however_they_are_written(items: list[object]) -> None:
    """As plain values where all of a block can be such, else as objects; none turns into what it equals."""
    found = kept(items, 1)
    assert list(found) == items
    assert [type(each.value) for each in found] == [type(each.value) for each in items]  # type: ignore[attr-defined]
    assert found[len(items) // 2] == items[len(items) // 2]


@pytest.mark.parametrize("value", [Decimal("1.0"), Name("x"), {"a": (Name("x"),)}, Other(1)])
def test_what_is_no_plain_value_keeps_its_type(value: object) -> None:
    """``marshal`` refuses it, and ``pickle`` takes the block."""
    (found, *_) = kept([Packing(value)] * 9, 1)
    assert repr(found) == repr(Packing(value))
    assert type(found.value) is type(value)


REFERENCE = Reference(rule="r", key=("a",))
DIFFERENCES = [
    Difference(kind=Kind.MISSING, key=(1,), desired=Row((1,), ("a", None), (7,)), existing=None),
    Difference(kind=Kind.EXTRA, key=(("a", 2),), desired=None, existing=Row((("a", 2),), (b"x",), ())),
    Difference(
        kind=Kind.CHANGED,
        key=(None,),
        desired=Row((None,), (1.5,), (1,), route="r", since="s", limbo=True, carried=(3,)),
        existing=Row((None,), (2**70,), (2,)),
        columns=(ColumnDifference("c", 1.5, 2**70),),
        action=Action.UPDATE,
        reason="it is so",
        origin=(1,),
        accepted="for now",
        tombstone="2026-01-01",
        left_out=True,
        claimed=("c1", "c2"),
    ),
]
CHANGES = [
    Change(
        rule="r",
        table="t",
        action=action,
        key=("a",),
        key_columns=("k",),
        identity_columns=("id",),
        identity=(1,),
        before=before,
        after=after,
        reason="so",
        together="x",
        unwritten_columns=("b", "c"),
        unwritten_values=(None, ("k", 1)),
    )
    for action, before, after in [
        (Action.INSERT, None, {"a": 1, "b": None}),
        (Action.UPDATE, {"a": b"1"}, {"a": "2"}),
        (Action.DELETE, {"a": REFERENCE}, None),
        (Action.UPDATE, {"a": 1}, {"a": ServerTime.NOW}),
    ]
]


@pytest.mark.parametrize("item", [*DIFFERENCES, *CHANGES], ids=lambda item: str(item.key))
def test_what_is_found_and_planned_comes_back_as_it_was(item: Difference | Change) -> None:
    """Every field, with its type; what is made of the plain values cannot be told from what went in."""
    for found in kept([item] * 9, 1):
        assert found == item
        assert repr(found) == repr(item)
        assert found is not item
        assert replace(found, reason="other").reason == "other"
    assert pickle.loads(pickle.dumps(found)) == item


def test_what_is_suspected_comes_back_as_it_was() -> None:
    """A block of it, and the bundles that it is found in."""
    block = Block({("c1", "r"): [Difference.found(Kind.EXTRA, (1, "a"))], ("c2", "r"): []}, 0.5)
    bundle = Bundle(-3, 1, ("1,0,7.", "2,1,8."), True, "route")
    for item in (block, bundle):
        (found, *_) = kept([item] * 9, 1)
        assert repr(found) == repr(item)
        assert type(found) is type(item)


def test_a_difference_of_which_no_more_is_known_is_like_any_other() -> None:
    """The quick way to it leads to the same value, and so does the one to what is decided."""
    row, held = Row((1,), ("a",), (1,)), Row((1,), ("b",), (1,))
    columns = (ColumnDifference("c", "a", "b"),)
    found = Difference.found(Kind.CHANGED, (1,), row, held, columns)
    plain = Difference(kind=Kind.CHANGED, key=(1,), desired=row, existing=held, columns=columns)
    assert found == plain
    assert hash(found) == hash(plain)
    assert found.decided(Action.UPDATE, "so") == replace(plain, action=Action.UPDATE, reason="so")
    assert found == plain
