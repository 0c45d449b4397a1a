"""An incomplete repair says row by row what was written and what was not."""

from __future__ import annotations

import json

from edges import add, execute, stand_of
from servers import DatabaseFactory

from cellsync import run
from cellsync.errors import ExitCode
from cellsync.report import json as json_report
from cellsync.report import text
from cellsync.report.page import Style

TABLES = (
    "CREATE TABLE t (k int PRIMARY KEY, w int)",
    "CREATE TABLE s (k int PRIMARY KEY)",
)
RULES = """
rules:
  - {table: t, key: [k], limits: {updates: 100%}}
  - {table: s, key: [k]}
"""


def test_the_rows_that_were_written_and_those_that_were_not_are_told(database: DatabaseFactory) -> None:
    """In text for people, in JSON for programs."""
    stand = stand_of(database, RULES, *TABLES)
    add(stand.urls["api"], "t", *({"k": k, "w": k} for k in range(1, 5)))
    add(stand.urls["api"], "s", {"k": 1})
    add(stand.urls["c1"], "t", {"k": 1, "w": 9}, {"k": 2, "w": 9})
    request, prepared = stand.prepare("r1")
    # After the plan, which would have named these rows.
    execute(stand.urls["c1"], "ALTER TABLE t ADD CHECK (w <> 3), ADD CHECK (w <> 2)")
    done = run.write(request, prepared)
    assert done.exit_code is ExitCode.INCOMPLETE
    said = "".join(text.render(done, Style()))
    assert "5 changes to c1, made but for those that conflicted or failed (3 applied, 2 failed):" in said
    for line in (
        "failed: insert t k=3",
        "applied: insert t k=4",
        "applied: update t k=1",
        "failed: update t k=2",
    ):
        assert line in said, said
    assert "applied: insert s k=1" in said
    data = json.loads("".join(json_report.render(done)))
    (plan,) = data["cells"][0]["plans"]
    assert {(each["table"], each["key"]["k"]): each["outcome"] for each in plan["changes"]} == {
        ("t", 3): "failed",
        ("t", 4): "applied",
        ("t", 1): "applied",
        ("t", 2): "failed",
        ("s", 1): "applied",
    }


def test_a_complete_repair_lists_no_rows(database: DatabaseFactory) -> None:
    """Nothing is to be told of them that a look at the database would not."""
    stand = stand_of(database, RULES, *TABLES)
    add(stand.urls["api"], "t", {"k": 1, "w": 1})
    assert "insert t k=1" not in "".join(text.render(stand.repair("r1"), Style()))
