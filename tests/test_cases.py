"""The shipped packs, rule by rule: what each situation means, and what a repair makes of it.

``cases/PACK/RULE.yaml`` holds situations: the rows of the parent (desired), of the child c1 (existing)
and of its neighbour c2 (beside), what a diff of c1 says, and what is in c1 after a repair. In
``instances`` too the parent is under ``desired``, though there it is the one that may be wrong, and with
``mine``, which a user's own file makes in the rules, the one that is written: ``after`` is then about it.
``version`` is the schema's, Liberty's (302) unless given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nova_api
import pytest
import servers
import sqlalchemy as sa
import yaml
from edges import Stand, add, execute, result, rows
from nova_main import LIBERTY, UNTIL_ICEHOUSE
from servers import Server, checksums

from cellsync import rules
from cellsync.demo.database import connected
from cellsync.demo.nova import NOVA
from cellsync.model import CellResult, TableDiff, shown

CASES = Path(__file__).parent / "cases"


def _make_liberty(url: str) -> None:
    with connected(sa.make_url(url)) as connection:
        NOVA.create_all(connection)
    execute(url, UNTIL_ICEHOUSE)
    add(url, "migrate_version", {"repository_id": "nova", "version": LIBERTY})


@dataclass(frozen=True, kw_only=True)
class Home:
    """The databases that a pack is for."""

    make: Callable[[str], None]
    """Make the tables in an empty database, and the version."""
    tables: tuple[str, ...]
    row: Mapping[str, object]
    """What every row of a case has that says nothing else: such rows are live."""


HOMES = {
    "nova-api": Home(make=nova_api.make, tables=nova_api.TABLES, row={"created_at": "2026-01-01 00:00:00"}),
    "nova-cells-v1": Home(
        make=_make_liberty,
        tables=(
            *(table.name for table in NOVA.sorted_tables if table.name != "migrate_version"),
            "instance_group_metadata",
        ),
        row={"created_at": "2026-01-01 00:00:00", "deleted": 0},
    ),
}


def _cases() -> Iterator[Any]:
    for file in sorted(CASES.glob("*/*.yaml")):
        for each in yaml.safe_load(file.read_text(encoding="utf-8")):
            pack, rule = file.parent.name, file.stem
            yield pytest.param(pack, rule, each, id=f"{pack}: {rule}: {each['case']}")


@pytest.fixture(scope="module")
def urls(server: Server) -> Iterator[Callable[[str], dict[str, str]]]:
    """Give, for a pack, a parent and two children with its tables, and no rows but the version."""
    made: dict[str, dict[str, str]] = {}
    with ExitStack() as leaving:

        def make(pack: str) -> dict[str, str]:
            found = made.setdefault(pack, {})
            for name in ("api", "c1", "c2"):
                if name not in found:
                    fresh = servers.database(server, name=f"case_{pack}_{name}", charset="utf8mb3")
                    found[name] = leaving.enter_context(fresh)
                    HOMES[pack].make(found[name])
            return found

        yield make


def fill(url: str, home: Home, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Put these rows into a database and no others."""
    listed = "SELECT TABLE_NAME AS t FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'cellsync'"
    journal = [f"cellsync.{row['t']}" for row in rows(url, listed) if row["t"] != "format"]
    execute(url, "SET foreign_key_checks = 0", *(f"DELETE FROM {name}" for name in (*home.tables, *journal)))
    assert set(tables) <= set(home.tables)
    for name in (name for name in home.tables if name in tables):
        # Above the ids that cases give: where the cases before it ended depends on their order.
        execute(url, f"ALTER TABLE {name} AUTO_INCREMENT = 1000")
        add(url, name, *({**home.row, **row} for row in tables[name]))


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


def changed(case: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the file of changes of a case, where it has any."""
    if "mine" not in case:
        return []
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"changes": case["mine"]}), encoding="utf-8")
    return [str(file)]


@pytest.mark.parametrize(("pack", "rule", "case"), list(_cases()))
def test_a_situation_means_what_the_case_says(
    urls: Callable[[str], dict[str, str]], pack: str, rule: str, case: dict[str, Any], tmp_path: Path
) -> None:
    """The diff says it in these words, the repair mends what it may, and the undo takes it back."""
    cells = urls(pack)
    for name, key in (("api", "desired"), ("c1", "existing"), ("c2", "beside")):
        fill(cells[name], HOMES[pack], case.get(key, {}))
        if "version" in case or pack == "nova-cells-v1":
            execute(cells[name], f"UPDATE migrate_version SET version = {case.get('version', LIBERTY)}")
    stand = Stand(cells, rules.load([pack, *changed(case, tmp_path)]), scope=("c1",))
    written = "api" if "mine" in case else "c1"
    before = {name: checksums(cells[name]) for name in ("api", "c1")}
    differences, findings = told(result(stand.diff(), "c1"))
    assert differences == case.get("differences", [])
    assert findings == case.get("findings", [])
    assert not case.get("differences") or any(f" {rule} " in line for line in differences)
    planned = [line for line in differences if not line.startswith("report ")]
    done = result(stand.repair("r1"), "c1")
    assert (done.problems, done.refusals) == ((), ())
    assert done.counts.applied == case.get("changes", len(planned))
    for query, expected in case.get("after", {}).items():
        assert [list(row.values()) for row in rows(cells[written], query)] == expected
    left = told(result(stand.diff(), "c1"))
    assert left == ([line for line in differences if line not in planned], findings)
    if planned:
        assert result(stand.undo("r1", "u1"), written).problems == ()
    assert {name: checksums(cells[name]) for name in ("api", "c1")} == before


def test_every_rule_of_every_pack_has_cases() -> None:
    """And no file is left from a rule that is gone."""
    shipped = {(name, rule.id) for name in rules.packs() for rule in rules.load([name]).rules}
    assert {(file.parent.name, file.stem) for file in CASES.glob("*/*.yaml")} == shipped
    assert not list(CASES.glob("*.yaml"))
