"""Hostile rule, configuration and plan files: a part of what `scripts/soak files` runs (``fuzz``)."""

from __future__ import annotations

import os

import fuzz

CASES = int(os.environ.get("CELLSYNC_FILES", "1000"))
SEED = int(os.environ.get("CELLSYNC_SEED", "1"))


def test_mutated_files_end_with_a_place_and_no_password() -> None:
    """Exit 0 to 4, no traceback, no control character; every kind of end is among them."""
    found = fuzz.search(CASES, SEED)
    print(
        *(f"{kind} exit {code}: {number}" for (kind, code), number in sorted(found.codes.items())), sep="\n"
    )
    assert not found.faults, "\n\n".join(found.faults)
    assert sum(found.codes.values()) == CASES
    assert {code for _, code in found.codes} == {0, 1, 2, 3, 4}
