"""report: one file that a colleague reads, of real databases and brokers."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployment import Deployment
from rabbitmq import free_port
from registered import configured, registered
from test_html import Page

PLANTED: dict[str, tuple[str, str, str, str]] = {
    "a zone is missing": (
        "",
        "",
        "availability zone az-east is missing in c1: boot requests for it fail there",
        "cellsync repair",
    ),
    "an aggregate is missing": (
        "",
        "",
        "aggregate east is missing in c1: its scheduler knows neither",
        "cellsync repair",
    ),
    "a host is missing": ("", "", "host compute-1-1 is not in aggregate east in c1", "cellsync repair"),
    "a flavor is missing": ("", "", "flavor c1.small", "cellsync repair"),
    "a key pair is missing": ("", "", "key pair key0 of user", "cellsync repair"),
    "a row of the wrong version": (
        "c2",
        "UPDATE migrate_version SET version = 280",
        "migrate_version is 302 in parent and 280 in c2",
        "upgrade them in step",
    ),
    "a table is gone": ("c1", "DROP TABLE key_pairs", "key_pairs", "unknown"),
    "a row that Nova does not see": (
        "c1",
        "INSERT INTO aggregates (name) VALUES ('limbo')",
        "limbo",
        "Findings: no repair mends these",
    ),
    "a host that nobody has": (
        "parent",
        "UPDATE aggregate_hosts SET host = 'nobody' WHERE host = 'parent!c1@compute-1-1'",
        "nobody",
        "Findings",
    ),
    "a child is isolated": (
        "parent",
        "UPDATE cells SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE name = 'c2'",
        "isolated since",
        "cellsync cells restore c2",
    ),
    "a broker is dead": ("", "", "refused: nothing listens there", "cellsync cells isolate c1"),
}


@pytest.fixture
def known(cells: Deployment) -> Deployment:
    """Give registered cells whose brokers are dead."""
    dead = free_port()
    return registered(cells, {name: f"rabbit://u:hunter2@127.0.0.1:{dead}/{name}" for name in cells.urls})


@pytest.mark.parametrize("planted", PLANTED)
def test_cause_and_remedy_can_be_read_off(known: Deployment, planted: str, tmp_path: Path) -> None:
    """By somebody who has the file alone."""
    where, statement, cause, remedy = PLANTED[planted]
    if where:
        known.sql(where, statement)
    file = tmp_path / "report.html"
    done = known.run("report", "-o", str(file), "--timeout", "1")
    assert (done.code, done.out) == (4, "")
    seen = Page(file.read_text(encoding="utf-8"))
    assert cause in seen.text
    assert remedy in seen.text
    assert "hunter2" not in file.read_text(encoding="utf-8")


def test_the_last_runs_are_in_it(known: Deployment, tmp_path: Path) -> None:
    """With who and why."""
    known.run("repair", "--yes", "--rule", "aggregates", "--reason", "zones for c1")
    page = Page(known.run("report", "--timeout", "1").out)
    assert "zones for c1" in page.text
    assert "nova-cells-v1 (18 rules)" in page.text


def test_text_and_json_are_there_too(known: Deployment) -> None:
    """The text with what answers, the JSON of a diff."""
    text = known.run("report", "--format", "text", "--timeout", "1")
    assert "aggregate east is missing in c1" in text.out
    assert "nothing listens there" in text.out
    report = known.run("report", "--format", "json", "--timeout", "1").report
    assert (report["verb"], report["exit_code"]) == ("report", 4)


@pytest.mark.parametrize("verb", [("diff",), ("plan",), ("repair", "--dry-run"), ("repair", "--yes")])
def test_every_verb_has_a_page(cells: Deployment, verb: tuple[str, ...]) -> None:
    """--format html."""
    done = cells.run(*verb, "--format", "html")
    assert "parent and 2 cells" in Page(done.out).text
    assert done.code in (0, 1)


def test_a_sound_deployment_has_a_quiet_page(cells: Deployment) -> None:
    """Nothing to do first."""
    cells.repair()
    page = Page(cells.run("report", "c1", "--rule", "aggregates").out)
    assert "Do first" not in page.text
    assert configured
