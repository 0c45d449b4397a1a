"""history --since: what drifted, when it was seen and repaired, and the row that somebody else writes too."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from rabbitmq import free_port
from registered import configured
from test_html import Page
from test_silence import log_of, with_log

SINCE = ("history", "--since", "7d")
ZONE = ("--rule", "aggregate-metadata")
OTHER_WRITER = (
    "UPDATE aggregate_metadata m JOIN aggregates a ON a.id = m.aggregate_id SET m.value = :value "
    "WHERE a.name = 'west' AND m.`key` = 'cpu_allocation_ratio'"
)


@pytest.fixture
def logged(cells: Deployment) -> Deployment:
    """Give cells with a drift log."""
    return with_log(cells)


def triage(cells: Deployment, *since: str) -> dict[str, Any]:
    """Return the JSON of the history since then."""
    return cells.run("history", "--since", *(since or ("7d",)), "--format", "json").report


def row_of(found: dict[str, Any], cell: str, **key: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if (row["cell"], row["key"]) == (cell, key))


def test_a_row_has_its_course(logged: Deployment) -> None:
    """Seen by a diff, seen again, repaired by a run, and looked at once more."""
    assert logged.run("diff").code == 1
    assert logged.run("diff").code == 1
    logged.run("repair", "--yes", *ZONE)
    logged.run("diff")
    found = triage(logged)
    run = logged.last_run()
    row = row_of(found, "c1", aggregate_id="west", key="cpu_allocation_ratio")
    (spell,) = row["spells"]
    assert (row["times"], row["repairs"], row["contested"], row["open"]) == (1, 1, False, False)
    assert (spell["repair"], spell["or_earlier"]) == (run, True)
    assert spell["first_seen"] <= spell["last_seen"] <= spell["repaired"] <= spell["gone"]
    still = next(each for each in found["drift"] if (each["cell"], each["rule"]) == ("c1", "flavors"))
    assert still["open"]
    text = logged.run(*SINCE)
    assert text.code == 0
    assert f"by {run}" in text.out
    assert "c1 flavors:" in text.out and "still there" in text.out


def test_runs_that_wrote_and_runs_that_looked_are_one_list(logged: Deployment) -> None:
    """Newest first, with what each saw; those that saw the same are counted."""
    for _ in range(3):
        logged.run("diff")
    logged.run("repair", "--yes", *ZONE, "--reason", "zones")
    logged.run("diff")
    runs = triage(logged)["runs"]
    assert [(run["verb"], run["status"], run["alike"]) for run in runs] == [
        ("diff", "looked", 0),
        ("repair", "done", 0),
        ("diff", "looked", 2),
    ]
    assert runs[1]["applied"] > 0
    assert runs[1]["reason"] == "zones"
    counted = {rule["rule"]: rule["missing"] for rule in runs[2]["saw"][0]["rules"]}
    assert counted == {
        table["rule"]: table["missing"]
        for table in json.loads(logged.run("diff", "--format", "json").out)["cells"][0]["tables"]
        if table["rule"] in counted
    } | {key: counted[key] for key in ("aggregates", "aggregate-metadata")}
    text = logged.run(*SINCE).out
    assert "2 more runs saw the same" in text
    assert "found " in text and "zones" in text


def test_a_fight_is_named(logged: Deployment) -> None:
    """A row that is back after each of two repairs has another writer, whoever it is."""
    for number in range(3):
        logged.run("repair", "--yes", *ZONE)
        found = triage(logged)
        row = row_of(found, "c1", aggregate_id="west", key="cpu_allocation_ratio")
        assert (row["times"], row["contested"]) == (number + 1, number >= 2)
        logged.sql("c1", OTHER_WRITER, value=f"9{number}")
    assert found["rows"][0]["key"] == {"aggregate_id": "west", "key": "cpu_allocation_ratio"}
    assert [each["rule"] for each in found["rows"] if each["contested"]] == ["aggregate-metadata"]
    text = logged.run(*SINCE).out
    assert "back 2 times after a repair: somebody else writes it too" in text


def test_what_an_undo_brought_back_is_no_fight(logged: Deployment) -> None:
    """cellsync itself did it, because somebody asked."""
    for _ in range(3):
        logged.run("repair", "--yes", *ZONE)
        assert logged.run("undo", logged.last_run(), "--yes").code == 0
    logged.run("diff")
    assert not any(row["contested"] for row in triage(logged)["rows"])


def test_a_row_that_another_hand_mended_is_not_called_repaired(logged: Deployment) -> None:
    """It is gone, and cellsync did not do it."""
    logged.run("repair", "--yes", *ZONE)
    logged.sql("c1", OTHER_WRITER, value="5")
    logged.run("diff", *ZONE)
    logged.sql("c1", OTHER_WRITER, value="16.0")
    logged.sql("parent", OTHER_WRITER, value="16.0")
    logged.run("diff", *ZONE)
    row = row_of(triage(logged), "c1", aggregate_id="west", key="cpu_allocation_ratio")
    assert [bool(spell["repaired"]) for spell in row["spells"]] == [True, False]
    assert row["spells"][-1]["gone"]
    assert "not by a repair of cellsync" in logged.run(*SINCE).out


def test_a_cell_that_does_not_answer_is_said_and_ends_nothing(logged: Deployment) -> None:
    """What is not known is not gone; the journal that could not be read is named, exit code 4."""
    logged.run("diff")
    with_log(configured(logged, c1={"database": f"mysql+pymysql://u:hunter2@127.0.0.1:{free_port()}/n"}))
    logged.run("diff")
    done = logged.run(*SINCE)
    assert (done.code, "cannot connect to c1" in done.err, "hunter2" in done.said) == (4, True, False)
    assert "not all of c1" in done.out
    found = triage(logged)
    row = row_of(found, "c1", aggregate_id="west", key="cpu_allocation_ratio")
    assert row["open"]


def test_since_takes_ages_dates_and_times(logged: Deployment) -> None:
    """In UTC; what is no time, or in the future, is an error of usage."""
    logged.run("diff")
    now = datetime.now(timezone.utc)
    for since in (
        "90d",
        "12h",
        "2w",
        f"{now - timedelta(days=1):%Y-%m-%d}",
        f"{now - timedelta(hours=1):%Y-%m-%dT%H:%MZ}",
    ):
        assert len(triage(logged, since)["runs"]) == 1
    later = f"{now + timedelta(days=2):%Y-%m-%d}"
    for since in ("yesterday", "7", "7x", "", "2026-13-01", later, "0001-01-01T00:00+10:00"):
        done = logged.run("history", "--since", since)
        assert (done.code, "--since" in done.err) == (2, True), since
    assert logged.run("history", "--since", "7d", "some-run").code == 2


def test_what_was_before_is_left_out(logged: Deployment) -> None:
    """Of another hour nothing is asked."""
    logged.run("diff")
    logged.run("repair", "--yes", *ZONE)
    text = log_of(logged).read_text().replace(f"{datetime.now(timezone.utc):%Y-%m-%d}", "2026-01-05")
    log_of(logged).write_text(text)
    for cell in ("c1", "c2"):
        logged.sql(cell, "UPDATE cellsync.runs SET started = '2026-01-05T00:00:00Z', finished = started")
    found = triage(logged)
    assert (found["runs"], found["drift"], found["rows"]) == ([], [], [])
    assert "no run has written anything or kept what it saw" in logged.run(*SINCE).out
    assert len(triage(logged, "2026-01-01")["runs"]) == 2


def test_without_a_log_the_journals_are_all_there_is(cells: Deployment) -> None:
    """And it says what to do."""
    cells.repair(*ZONE)
    done = cells.run(*SINCE)
    assert (done.code, "there is no drift log" in done.err) == (0, True)
    assert cells.last_run() in done.out
    assert triage(cells)["runs"][0]["saw"] is None


def test_a_log_that_cannot_be_read_is_no_clean_history(logged: Deployment) -> None:
    """The journals are shown, the error is named, and the exit code says so; torn lines are counted."""
    logged.run("repair", "--yes", *ZONE)
    with log_of(logged).open("a") as log:
        log.write("torn")
    done = logged.run(*SINCE)
    assert (done.code, "1 line of the drift log could not be understood" in done.err) == (0, True)
    assert triage(logged)["log"] == {"error": None, "torn": 1}
    log_of(logged).unlink()
    log_of(logged).mkdir()
    done = logged.run(*SINCE)
    assert (done.code, "cannot read the drift log" in done.err) == (4, True)
    assert logged.last_run() in done.out


def test_repeated_takes_a_time_too(cells: Deployment) -> None:
    """In the place of its 30 days."""
    for number in range(3):
        cells.repair(*ZONE)
        cells.sql("c1", OTHER_WRITER, value=f"9{number}")
    assert len(cells.json("history", "--repeated", "--since", "1h").report["repeated"]) == 1
    for cell in ("c1", "c2"):
        cells.sql(cell, "UPDATE cellsync.runs SET started = '2026-01-05T00:00:00Z'")
    assert cells.json("history", "--repeated", "--since", "7d").report["repeated"] == []
    assert len(cells.json("history", "--repeated", "--since", "2026-01-01").report["repeated"]) == 1


def test_the_history_without_since_is_as_it_was(logged: Deployment) -> None:
    """Runs that wrote, with the keys that scripts know."""
    logged.run("diff")
    logged.run("repair", "--yes", *ZONE)
    (run,) = logged.json("history").report["runs"]
    assert {"run", "verb", "started", "finished", "status", "cells", "applied"} <= set(run)
    since = triage(logged)["runs"]
    assert set(run) <= set(since[0]) and set(run) <= set(since[1])


def test_the_report_has_the_course_of_drift(logged: Deployment, tmp_path: Path) -> None:
    """Of that time, what the report itself saw included; as text, too."""
    logged.run("diff")
    logged.run("repair", "--yes", *ZONE)
    file = tmp_path / "report.html"
    done = logged.run("report", "--since", "7d", "-o", str(file))
    assert (done.code, done.said) == (1, "")
    page = Page(file.read_text())
    assert "Rows out of step" in page.text and "3 runs looked" in page.text
    assert f"by {logged.last_run()}" in page.text
    assert "what drifted since" in logged.run("report", "--since", "7d", "--format", "text").out
    log_of(logged).unlink()
    log_of(logged).mkdir()
    done = logged.run("report", "--since", "7d")
    assert (done.code, "cannot read the drift log" in Page(done.out).text) == (4, True)
    assert logged.run("report", "--since", "soon").code == 2
