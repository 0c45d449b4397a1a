"""The files of docs/packs.rst that change the pack ``nova-cells-v1``, run as they stand there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import nova
import pytest
from deployment import Deployment
from edges import add, rows

PACKS = Path(__file__).parents[2] / "docs" / "packs.rst"


def file(name: str) -> str:
    """Return the example of that pack from the page."""
    text = PACKS.read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. code-block:: yaml\n\n((?:   .*\n|\n)+)", text)
    (found,) = [block for block in map(textwrap.dedent, blocks) if f"pack: {name}\n" in block]
    return str(found)


def changed(cells: Deployment, name: str) -> Deployment:
    """Have the cells use it beside the pack."""
    (cells.folder / f"{name}.yaml").write_text(file(name), encoding="utf-8")
    return cells.configure(rules=("nova-cells-v1", f"./{name}.yaml"))


def flavors(cells: Deployment, cell: str) -> list[dict[str, Any]]:
    """Return what a cell has, in the order of the ids, which are the same everywhere."""
    return rows(cells.urls[cell], "SELECT id, flavorid, disabled, is_public FROM instance_types ORDER BY id")


def test_children_have_every_flavor_enabled_and_public(cells: Deployment) -> None:
    """As at CERN: whatever the parent says, of new flavors and of those that are there; and in step then."""
    cells.sql("parent", "UPDATE instance_types SET disabled = 1 WHERE id = 1")
    cells.sql("c2", "UPDATE instance_types SET is_public = 0 WHERE id = 2")
    above = flavors(cells, "parent")
    before = cells.checksums()
    changed(cells, "cern")
    rules = ("--rule", "flavors", "--rule", "flavor-extra-specs", "--rule", "flavor-projects")
    found = cells.json("diff", *rules)
    assert found.counts("flavors", "flavor-projects") == {
        "c1": {"flavors": (2, 0, 0), "flavor-projects": (0, 0, 0)},
        "c2": {"flavors": (2, 1, 0), "flavor-projects": (0, 0, 0)},
    }
    done = cells.repair(*rules)
    assert [cell["status"] for cell in done.report["cells"]] == ["repaired", "repaired"]
    for child in nova.CHILDREN:
        assert flavors(cells, child) == [{**flavor, "disabled": 0, "is_public": 1} for flavor in above]
        assert rows(cells.urls[child], "SELECT * FROM instance_type_projects") == []
    assert flavors(cells, "parent") == above
    again = cells.json("diff", *rules)
    assert {cell: counts["flavors"] for cell, counts in again.counts("flavors").items()} == {
        "c1": (0, 0, 0),
        "c2": (0, 0, 0),
    }
    assert again.code == 0
    assert cells.json("undo", done.report["run"], "--yes").code == 0
    assert cells.checksums() == before


LOCAL = "SELECT * FROM {table} WHERE {column} = 1 ORDER BY id"


def owned(cells: Deployment) -> dict[str, list[dict[str, Any]]]:
    """Return c2's own aggregate with its metadata and hosts, every column of them."""
    url = cells.urls["c2"]
    return {
        "aggregates": rows(url, LOCAL.format(table="aggregates", column="id")),
        **{
            table: rows(url, LOCAL.format(table=table, column="aggregate_id"))
            for table in ("aggregate_metadata", "aggregate_hosts")
        },
    }


SOFT = """
pack: removing
changes:
  aggregates: {on_extra: soft_delete}
  aggregate-metadata: {on_extra: soft_delete}
  aggregate-hosts: {on_extra: soft_delete}
"""
PUSHED = SOFT.replace("soft_delete}", "delete, removes: pushed}")


@pytest.mark.parametrize(
    "text", ["", SOFT, PUSHED], ids=["as it is", "soft deletes", "deletes what it pushed"]
)
def test_an_aggregate_that_only_a_child_has_stays_as_it_is(cells: Deployment, text: str) -> None:
    """As at NeCTAR: reported, and no repair, undo or pruning touches it, whatever may be removed."""
    add(
        cells.urls["c2"],
        "aggregate_metadata",
        {"aggregate_id": 1, "key": "availability_zone", "value": "az-own", "deleted": 0},
    )
    if text:
        (cells.folder / "removing.yaml").write_text(text, encoding="utf-8")
        cells = cells.configure(rules=("nova-cells-v1", "./removing.yaml"))
    before = owned(cells)
    assert [len(each) for each in before.values()] == [1, 2, 1]
    extras = [
        (table["rule"], difference["action"])
        for table in cells.json("diff").cell("c2")["tables"]
        for difference in table["differences"]
        if difference["kind"] == "extra" and "local-only" in str(difference["key"])
    ]
    assert extras == [
        ("aggregates", "report"),
        *[("aggregate-metadata", "report")] * 2,
        ("aggregate-hosts", "report"),
    ]
    first = cells.repair()
    assert first.cell("c2")["changes"]["applied"] == first.cell("c2")["changes"]["planned"] > 0
    assert owned(cells) == before
    assert cells.repair().cell("c2")["changes"]["planned"] == 0
    assert cells.run("history", "--prune", "--keep", "0d", "--yes").code == 0
    assert cells.repair().cell("c2")["changes"]["planned"] == 0
    assert owned(cells) == before


def test_what_the_children_own_need_not_be_reported(cells: Deployment) -> None:
    """With the file of the page a diff is in step after a repair."""
    cells = changed(cells, "children-own-aggregates")
    before = owned(cells)
    assert cells.repair().code == 0
    assert cells.json("diff").code == 0
    assert owned(cells) == before
