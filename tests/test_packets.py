"""Values about as long as ``max_allowed_packet``: they travel, or fail alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from edges import Stand, execute, result, rows, ruleset, table
from servers import DatabaseFactory, PrivateServer

from cellsync.errors import ExitCode

SmallServer = Callable[..., PrivateServer]

PACKET = 1 << 20
TABLE = "CREATE TABLE t (k int PRIMARY KEY, note {kind}, w int)"
RULES = "rules: [{table: t, key: [k], on_extra: delete, limits: {updates: 100%, deletes: 100%}}]"
LONG = "INSERT INTO t VALUES ({k}, REPEAT({what}, {size}), 1)"
WHATS = {"longblob": "x'F8'", "longtext": "'y'"}


def stand_of_small(
    database: DatabaseFactory, server_with: SmallServer, kind: str, *, both: bool = False
) -> Stand:
    """Return a stand whose child, or both, takes packets of 1 MiB alone; three rows are in step but new."""
    small = server_with("--max-allowed-packet=1M")
    urls = {"api": database(small) if both else database(), "c1": database(small)}
    for url in urls.values():
        execute(url, TABLE.format(kind=kind))
    execute(urls["api"], "INSERT INTO t SELECT seq, 'short', 1 FROM seq_1_to_9")
    return Stand(urls, ruleset(RULES))


def notes(url: str) -> list[dict[str, object]]:
    """Return what a table holds; a packet is too small for the rows as text."""
    return rows(url, "SELECT k, LENGTH(note), MD5(note), w FROM t ORDER BY k")


@pytest.mark.parametrize("kind", ["longblob", "longtext"])
@pytest.mark.parametrize("size", [400_000, 600_000, 1_040_000, 1_200_000])
@pytest.mark.parametrize("held", [False, True], ids=["insert", "update"])
def test_a_long_value_is_written_or_fails_alone(
    database: DatabaseFactory, server_with: SmallServer, kind: str, size: int, held: bool
) -> None:
    """The others of its batch are written; what is written is in step, and an undo takes it back."""
    stand = stand_of_small(database, server_with, kind)
    execute(stand.urls["api"], LONG.format(k=20, what=WHATS[kind], size=size))
    if held:
        execute(stand.urls["c1"], "INSERT INTO t SELECT seq, 'old', 7 FROM seq_1_to_20")
        execute(stand.urls["c1"], "DELETE FROM t WHERE k BETWEEN 10 AND 19")
    before = notes(stand.urls["c1"])
    report = stand.repair("r1")
    done = result(report, "c1")
    short = [row for row in notes(stand.urls["api"]) if row["k"] != 20]
    assert [row for row in notes(stand.urls["c1"]) if row["k"] != 20] == short, done.problems[:2]
    if report.exit_code is ExitCode.IN_STEP:
        assert notes(stand.urls["c1"]) == notes(stand.urls["api"])
        assert stand.diff().exit_code is ExitCode.IN_STEP
    else:
        assert size > PACKET // 2
        assert (report.exit_code, done.counts.failed, done.problems) == (ExitCode.DIFFERENCES, 0, ())
        (finding,) = table(report, "c1", "t").findings
        assert (finding.code, finding.key) == ("unwritable-value", (20,))
        assert "max_allowed_packet" in finding.message
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert notes(stand.urls["c1"]) == before


@pytest.mark.parametrize("kind", ["longblob", "longtext"])
@pytest.mark.parametrize("size", [300_000, 600_000, 1_040_000])
def test_long_values_that_are_there_do_not_stop_the_others(
    database: DatabaseFactory, server_with: SmallServer, kind: str, size: int
) -> None:
    """A row of which only another column differs, and one that is to be deleted, in small servers both."""
    stand = stand_of_small(database, server_with, kind, both=True)
    for url, w in zip(stand.urls.values(), (1, 9), strict=True):
        execute(url, LONG.format(k=20, what=WHATS[kind], size=size), f"UPDATE t SET w = {w} WHERE k = 20")
    execute(stand.urls["c1"], LONG.format(k=21, what=WHATS[kind], size=size))
    before = notes(stand.urls["c1"])
    report = stand.repair("r1")
    done = result(report, "c1")
    assert done.counts.applied >= 10, done.problems[:2]
    if report.exit_code is ExitCode.IN_STEP:
        assert notes(stand.urls["c1"]) == notes(stand.urls["api"])
    else:
        found = table(report, "c1", "t").findings
        assert found and all("max_allowed_packet" in each.message for each in found)
        assert done.problems == ()
        assert result(stand.repair("r2"), "c1").counts.planned == 0
    assert stand.undo("r1", "u1").exit_code is ExitCode.IN_STEP
    assert notes(stand.urls["c1"]) == before
