"""Sequences that may be longer than memory: what goes in comes out, in order, as often as wanted."""

from __future__ import annotations

import errno
import gc
import io
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsync import spool
from cellsync.errors import ExitCode, NoRoom
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
    before = len(os.listdir("/proc/self/fd"))
    found = kept(range(1000), 10)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) > before
    del found
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
