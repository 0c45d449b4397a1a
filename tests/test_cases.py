"""The shipped pack, rule by rule: what each situation means, and what a repair makes of it.

``cases/RULE.yaml`` holds situations: the rows of the parent (desired), of the child c1 (existing)
and of its neighbour c2 (beside), what a diff of c1 says, and what is in c1 after a repair. In
``instances`` too the parent is under ``desired``, though there it is the one that may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import servers
import sqlalchemy as sa
import yaml
from edges import Stand, add, execute, result, rows
from servers import Server, checksums

from cellsync import rules
from cellsync.demo.database import connected
from cellsync.demo.nova import NOVA
from cellsync.model import CellResult, TableDiff, shown

CASES = Path(__file__).parent / "cases"
PACK = "nova-cells-v1"
CREATED = {"created_at": "2026-01-01 00:00:00", "deleted": 0}


def _cases() -> Iterator[Any]:
    for file in sorted(CASES.glob("*.yaml")):
        for each in yaml.safe_load(file.read_text(encoding="utf-8")):
            yield pytest.param(file.stem, each, id=f"{file.stem}: {each['case']}")


@pytest.fixture(scope="module")
def urls(server: Server) -> Iterator[dict[str, str]]:
    """Give a parent and two children with Nova's tables in Liberty, and no rows but the version."""
    with ExitStack() as leaving:
        found = {}
        for name in ("api", "c1", "c2"):
            made = servers.database(server, name=f"case_{name}", charset="utf8mb3")
            url = found[name] = leaving.enter_context(made)
            with connected(sa.make_url(url)) as connection:
                NOVA.create_all(connection)
            add(url, "migrate_version", {"repository_id": "nova", "version": 302})
        yield found


def fill(url: str, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Put these rows into a database and no others; those that say nothing else are live."""
    names = [table.name for table in NOVA.sorted_tables if table.name != "migrate_version"]
    listed = "SELECT TABLE_NAME AS t FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'cellsync'"
    journal = [f"cellsync.{row['t']}" for row in rows(url, listed) if row["t"] != "format"]
    execute(url, "SET foreign_key_checks = 0", *(f"DELETE FROM {name}" for name in (*names, *journal)))
    assert set(tables) <= set(names)
    for name in (name for name in names if name in tables):
        add(url, name, *({**CREATED, **row} for row in tables[name]))


def told(cell: CellResult) -> tuple[list[str], list[str]]:
    """Return the differences and the findings of a cell, each in one line."""
    differences, findings = [], []
    for table in cell.tables:
        assert isinstance(table, TableDiff), table
        for each in table.differences:
            key = "/".join(shown(part) for part in each.key)
            differences.append(f"{each.action.value} {table.rule} {key}: {each.reason}")
        for finding in table.findings:
            key = "/".join(shown(part) for part in finding.key or ())
            findings.append(f"{finding.code} {finding.cell} {key}")
    return differences, findings


@pytest.mark.parametrize(("rule", "case"), list(_cases()))
def test_a_situation_means_what_the_case_says(urls: dict[str, str], rule: str, case: dict[str, Any]) -> None:
    """The diff says it in these words, the repair mends what it may, and the undo takes it back."""
    for name, key in (("api", "desired"), ("c1", "existing"), ("c2", "beside")):
        fill(urls[name], case.get(key, {}))
    stand = Stand(urls, rules.load([PACK]), scope=("c1",))
    before = checksums(urls["c1"])
    differences, findings = told(result(stand.diff(), "c1"))
    assert differences == case.get("differences", [])
    assert findings == case.get("findings", [])
    assert not case.get("differences") or any(f" {rule} " in line for line in differences)
    planned = [line for line in differences if not line.startswith("report ")]
    done = result(stand.repair("r1"), "c1")
    assert (done.problems, done.refusals) == ((), ())
    assert done.counts.applied == len(planned)
    for query, expected in case.get("after", {}).items():
        assert [list(row.values()) for row in rows(urls["c1"], query)] == expected
    left = told(result(stand.diff(), "c1"))
    assert left == ([line for line in differences if line not in planned], findings)
    if planned:
        assert result(stand.undo("r1", "u1"), "c1").problems == ()
    assert checksums(urls["c1"]) == before


def test_every_rule_of_the_pack_has_cases() -> None:
    """And no file is left from a rule that is gone."""
    assert {file.stem for file in CASES.glob("*.yaml")} == {rule.id for rule in rules.load([PACK]).rules}
