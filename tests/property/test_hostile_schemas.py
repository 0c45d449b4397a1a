"""Hostile schemas with hostile rows: a repair converges or says before why not, and never says wrong.

``CELLSYNC_HOSTILE_SEED`` is the first case and ``CELLSYNC_HOSTILE_CASES`` how many there are;
``CELLSYNC_HOSTILE_WITHOUT`` names features of ``hostile`` to leave out, separated by commas. A failure
shows one case of each class of disagreements, made smaller as long as it fails in the same way.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pymysql
import pytest
import servers
from hostile import FEATURES, PACKET, Case, make_case, shrink_case
from hostile_runs import check_case, classify_case
from servers import PrivateServer

from cellsync.errors import ConfigurationError

FIRST = int(os.environ.get("CELLSYNC_HOSTILE_SEED", "18"))
CASES = int(os.environ.get("CELLSYNC_HOSTILE_CASES", "100"))
WITHOUT = frozenset(filter(None, os.environ.get("CELLSYNC_HOSTILE_WITHOUT", "").split(",")))
SHOWN = int(os.environ.get("CELLSYNC_HOSTILE_SHOWN", "3"))
"""So many failing cases are made smaller and shown."""

LEAST_CONVERGED = 0.3
"""Of all cases, with whatever was drawn for them."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + CASES * 2)]


@pytest.fixture(scope="module")
def urls(server_with: Callable[..., PrivateServer]) -> Iterator[dict[str, str]]:
    """Give two schemas on a server that takes no large packet."""
    server = server_with(f"--max-allowed-packet={PACKET}", "--innodb-flush-log-at-trx-commit=2")
    with servers.pair(server, "hostile") as urls:
        yield urls


def test_one_seed_is_one_case() -> None:
    """A case can be had again, and without a feature."""
    assert WITHOUT <= FEATURES
    assert make_case(FIRST) == make_case(FIRST)
    used = frozenset[str]().union(*(make_case(seed).features for seed in range(1000)))
    assert used == FEATURES
    assert make_case(FIRST, ()).features == frozenset()


def test_cellsync_and_the_oracle_agree_on_hostile_schemas(urls: dict[str, str]) -> None:
    """What was found, written, said and undone is what plain SELECTs see."""
    failed: dict[str, list[int]] = {}
    examples: dict[str, Case] = {}
    converged = 0
    for seed in range(FIRST, FIRST + CASES):
        case = make_case(seed, FEATURES - WITHOUT)
        checked = check_case(case, urls)
        converged += checked.converged
        if line := classify_case(checked.lines):
            failed.setdefault(line, []).append(seed)
            examples.setdefault(line, case)
    counts = Counter({line: len(seeds) for line, seeds in failed.items()})
    print(
        f"\n{CASES} cases from seed {FIRST}: {counts.total()} with a disagreement, "
        f"{len(failed)} classes; {converged} converged"
    )
    told = [f"{counts[line]} x {line}: seeds {failed[line][:10]}" for line, _ in counts.most_common()]
    told += [show_smaller(examples[line], line, urls) for line, _ in counts.most_common(SHOWN)]
    assert not failed, "\n".join(told)
    # Refusing whatever is unusual would be no disagreement, and no repair.
    assert converged >= CASES * LEAST_CONVERGED


def show_smaller(case: Case, line: str, urls: dict[str, str]) -> str:
    """Return the smallest case found that has a disagreement of the same class."""

    def fails(attempt: Case) -> bool:
        try:
            return line == classify_case(check_case(attempt, urls).lines)
        except (pymysql.err.Error, ConfigurationError):
            return False  # what is left is no schema, or no rules for it

    smallest = shrink_case(case, fails)
    return "\n".join(["", line, smallest.describe(), *check_case(smallest, urls).lines])
