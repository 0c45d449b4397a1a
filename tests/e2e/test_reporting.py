"""report: one file that a colleague reads, of real databases and brokers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from deployment import Deployment
from rabbitmq import RabbitMQ, free_port
from registered import alive, brokers_of, registered, with_services
from test_html import Page


class Planted(NamedTuple):
    """One problem: how it comes about, what a page says of it, and the command that mends it."""

    where: str
    statement: str
    cause: str
    remedy: str


PLANTED = {
    "a zone is missing": Planted(
        "",
        "",
        "availability zone az-east is missing in c1: boot requests for it fail there",
        "cellsync repair c1 --rule aggregate-metadata",
    ),
    "an aggregate is missing": Planted(
        "",
        "",
        "aggregate east is missing in c1: its scheduler knows neither the aggregate nor its hosts",
        "cellsync repair c1 --rule aggregates",
    ),
    "a host is missing": Planted(
        "",
        "",
        "host compute-1-1 is not in aggregate east in c1",
        "cellsync repair c1 --rule aggregate-hosts",
    ),
    "a flavor is missing": Planted(
        "",
        "",
        "flavor c1.small (c1s) is missing in c2: builds of it and resizes to it fail there",
        "cellsync repair c2 --rule flavors",
    ),
    "a key pair is missing": Planted(
        "", "", "key pair key0 of user u1 is missing in c1", "cellsync repair c1 --rule key-pairs"
    ),
    "a ratio is outdated": Planted(
        "c2",
        "UPDATE aggregate_metadata SET value = '99.0' WHERE `key` = 'cpu_allocation_ratio'",
        "aggregate west has cpu_allocation_ratio = 99.0 instead of 4.0 in c2",
        "cellsync repair c2 --rule aggregate-metadata",
    ),
    "a schema of another version": Planted(
        "c2",
        "UPDATE migrate_version SET version = 280",
        "migrate_version is 302 in parent and 280 in c2",
        "upgrade them in step",
    ),
    "a table is gone": Planted(
        "c1", "DROP TABLE key_pairs", "has no table key_pairs", "cellsync schema c1 --rule key-pairs"
    ),
    "a child is isolated": Planted(
        "parent",
        "UPDATE cells SET deleted = id, deleted_at = '2026-11-01 10:00:00' WHERE name = 'c2'",
        "isolated since 2026-11-01 10:00:00 UTC",
        "cellsync cells restore c2",
    ),
    "a broker is dead": Planted(
        "", "", "refused: nothing listens there", "cellsync cells isolate c1 : no host of its broker"
    ),
    "a service is down": Planted(
        "c1",
        "UPDATE services SET updated_at = '2026-11-01' WHERE `binary` = 'nova-conductor'",
        "nova-conductor not alive on controller",
        "start nova-conductor in c1",
    ),
    "an instance is known in its cell alone": Planted(
        "parent",
        "DELETE FROM instances LIMIT 1",
        "its owner can neither see nor delete it",
        "call os-cells/sync_instances of the API cell",
    ),
    "a repair would be refused": Planted(
        "c1",
        "CREATE TRIGGER t AFTER INSERT ON aggregates FOR EACH ROW SET @made = NEW.id",
        "aggregates triggers: ",
        "--waive triggers:aggregates",
    ),
    "a row that Nova does not see": Planted(
        "c1",
        "INSERT INTO aggregates (id, name) VALUES (77, 'limbo')",
        "aggregates id 77 in c1 (name=limbo) has deleted NULL",
        "set deleted to 0, or remove the row",
    ),
    "a host that nobody has": Planted(
        "parent",
        "UPDATE aggregate_hosts SET host = 'nobody' WHERE host = 'parent!c1@compute-1-1'",
        "aggregate_hosts.host 'nobody' in parent belongs to no child",
        "correct or remove the row",
    ),
    "two rows of one key": Planted(
        "c2",
        "INSERT INTO aggregates (id, name, deleted) VALUES (78, 'west', 0)",
        "2 rows of aggregates in c2 have the key name=west: id 3 and id 78",
        "keep one of them",
    ),
}
"""Each is planted alone into cells that are out of step in other ways, too."""


@pytest.fixture
def known(cells: Deployment) -> Deployment:
    """Give registered cells whose brokers are dead."""
    dead = free_port()
    return registered(cells, {name: f"rabbit://u:hunter2@127.0.0.1:{dead}/{name}" for name in cells.urls})


@pytest.mark.parametrize("name", PLANTED)
def test_cause_and_remedy_can_be_read_off(known: Deployment, name: str, tmp_path: Path) -> None:
    """By somebody who has the file alone, and neither the rules nor the configuration."""
    planted = PLANTED[name]
    file = tmp_path / "report.html"
    if planted.where:
        known.run("report", "-o", str(file), "--timeout", "1")
        assert planted.cause not in Page(file.read_text(encoding="utf-8")).text
        known.sql(planted.where, planted.statement)
    done = known.run("report", "-o", str(file), "--timeout", "1")
    assert (done.code, done.out) == (4, "")
    seen = Page(file.read_text(encoding="utf-8"))
    assert planted.cause in seen.text
    assert planted.remedy in seen.text
    assert "hunter2" not in file.read_text(encoding="utf-8")


def test_since_when_is_said(known: Deployment) -> None:
    """By what the rows themselves say, in the page and in the JSON."""
    known.sql("parent", "UPDATE aggregates SET created_at = '2026-01-02 03:04:05', updated_at = NULL")
    known.sql("parent", "UPDATE aggregate_hosts SET created_at = NULL, updated_at = NULL")
    page = Page(known.run("report", "--timeout", "1").out)
    assert "missing name=east since 2026-01-02 03:04:05 UTC" in page.text
    assert "missing aggregate_id=east host=compute-1-1 since when is not known" in page.text
    done = known.json("report", "--timeout", "1")
    since = {each["since"] for each in done.table("c1", "aggregates")["differences"]}
    assert since == {"2026-01-02T03:04:05Z"}
    assert {each["since"] for each in done.table("c1", "aggregate-hosts")["differences"]} == {None}


def test_the_last_runs_are_in_it(known: Deployment, tmp_path: Path) -> None:
    """With who and why."""
    known.run("repair", "--yes", "--rule", "aggregates", "--reason", "zones for c1")
    page = Page(known.run("report", "--timeout", "1").out)
    assert "zones for c1" in page.text
    assert "nova-cells-v1 (23 rules" in page.text


def test_the_json_has_all_that_the_page_has(known: Deployment) -> None:
    """The keys of a diff, and beside them what `report` found besides."""
    known.run("repair", "--yes", "--rule", "aggregates", "--reason", "zones for c1")
    known.sql("c1", "DELETE FROM services WHERE `binary` = 'nova-scheduler'")
    diff = known.json("diff").report
    report = known.json("report", "--timeout", "1").report
    assert list(report)[: len(diff)] == list(diff)
    assert report["cells"] == diff["cells"]
    page = Page(known.run("report", "--timeout", "1").out).text
    assert report["verdict"] in page and report["ended"] in page
    first = [f"{each['command']}: {each['why']}" for each in report["do_first"] if each["command"]]
    assert len(first) >= 4 and all(said.replace(": ", " : ", 1) in page for said in first)
    assert all(
        lost and lost in page for name, lost in report["lost"].items() if name in ("flavors", "key-pairs")
    )
    [rule] = [each for each in report["rules"] if each["rule"] == "aggregate-metadata"]
    assert rule["why"] in page and rule["features"] == ["availability-zones", "host-aggregates"]
    assert report["host"] in page and report["operator"] in page
    assert report["command"].startswith("cellsync ")
    assert (report["verb"], report["exit_code"]) == ("report", 4)
    assert [each["cell"] for each in report["check"]] == ["parent", "c1", "c2"]
    assert {probe["status"] for each in report["check"] for probe in each["broker"]} == {"refused"}
    assert {each["database"]["status"] for each in report["check"]} == {"ok"}
    c1 = report["edges"][0]
    assert (c1["cell"], c1["state"]) == ("c1", "broker_down")
    assert list(c1["states"]) == ["broker_down", "services_down", "drift"]
    works = {each["cell"]: each["features"] for each in report["features"]}
    assert works["c1"]["flavors"] == "drift" and set(works) == {"c1", "c2"}
    services = {s["service"]: s for s in report["vitals"][1]["services"]}
    assert services["nova-conductor"]["alive"] and services["nova-conductor"]["seen_seconds_ago"] < 60
    assert services["nova-scheduler"]["host"] is None and not services["nova-scheduler"]["alive"]
    assert {each["schema_version"] for each in report["vitals"]} == {"migrate_version 302"}
    [run] = report["runs"]
    assert (run["reason"], run["cells"], report["unread"]) == ("zones for c1", ["c1", "c2"], {})
    assert report["settings"]["rules"].startswith("nova-cells-v1 (23 rules")
    assert "inserts unlimited, updates 25%" in report["settings"]["limits of all other rules"]
    assert "inserts 5%, updates 25%" in report["settings"]["limits of instances"]


def test_the_text_is_short_and_has_it_all(known: Deployment) -> None:
    """What differs, what does not answer, which services are down, the last runs, versions, one exit code."""
    known.run("repair", "--yes", "--rule", "aggregates", "--reason", "zones for c1")
    alive(known, "c2", "nova-compute", ago=7300)
    text = known.run("report", "--format", "text", "--timeout", "1").out
    assert "availability zone az-east is missing in c1" in text
    assert "broker 127.0.0.1:" in text and "refused: nothing listens there" in text
    assert text.startswith("outage: the broker takes no messages in parent, c1 and c2\n")
    assert "c2: nova-compute unknown: it would be heard through the broker, which is down" in text
    assert "not alive on compute-2-1 (2 h ago)" in text and "without it no host runs" not in text
    assert "  c1: alive: nova-cells, nova-conductor, nova-scheduler, nova-compute\n" in text
    assert "zones for c1" in text and "MariaDB" in text and "migrate_version 302" in text
    assert text.count("exit code") == 1
    assert text.endswith("exit code 4: something does not answer\n")


def test_what_people_live_with_and_what_is_set_are_in_it(known: Deployment) -> None:
    """Accepted rows, hidden columns and rules that were left out change what a report says."""
    with known.config.open("a", encoding="utf-8") as file:
        file.write(
            "accept: [{cell: c2, rule: aggregates, key: {name: local-only}, why: a lab, until: 2099-12-31}]\n"
            "secrets: {hide: ['*_ratio'], show: [public_key]}\n"
        )
    text = Page(known.run("report", "--rule", "aggregates", "--timeout", "1").out).text
    assert "A repair leaves it: it is accepted, a lab (until 2099-12-31)" in text
    assert "aggregates in c2, name=local-only , until 2099-12-31: a lab" in text
    assert "user_data, *_ratio columns shown all the same public_key" in text
    assert "rules left out" in text and "key-pairs" in text


@pytest.mark.parametrize("verb", [("diff",), ("plan",), ("repair", "--dry-run"), ("repair", "--yes")])
def test_every_verb_has_a_page(cells: Deployment, verb: tuple[str, ...]) -> None:
    """--format html."""
    done = cells.run(*verb, "--format", "html")
    text = Page(done.out).text
    assert "parent and 2 cells" in text
    assert done.code in (0, 1)
    written = verb == ("repair", "--yes")
    assert ("The repair has inserted it" in text) is written
    assert ("A repair would insert it, as parent has it" in text) is not written
    assert ("takes this run back" in text) is written


def test_a_sound_deployment_has_a_quiet_page(cells: Deployment) -> None:
    """Nothing to do, and every edge in step."""
    cells.repair()
    page = Page(with_services(cells).run("report", "c1", "--rule", "aggregates").out)
    assert "Nothing to do" in page.text and "Do first" not in page.text
    assert "c1 in step" in page.text


def test_a_sound_broker_and_a_dead_one(cells: Deployment, rabbit: RabbitMQ) -> None:
    """The picture tells the edge that is sound from the one whose broker is down."""
    urls = {cell: rabbit.url(cell) for cell in ("parent", "c1")}
    brokers_of(with_services(cells), **urls, c2=f"rabbit://u:p@127.0.0.1:{free_port()}/c2")
    cells.repair()
    report = cells.json("report", "--rule", "key-pairs").report
    assert {each["cell"]: each["state"] for each in report["edges"]} == {"c1": "in_step", "c2": "broker_down"}
    assert report["outage"] == "the broker takes no messages in c2"


def test_a_service_that_would_be_heard_through_a_dead_broker_is_not_called_dead(
    cells: Deployment, rabbit: RabbitMQ
) -> None:
    """The outage is the headline; a service that writes to the database itself, and is silent, is down."""
    urls = {cell: rabbit.url(cell) for cell in ("parent", "c1")}
    brokers_of(with_services(cells), **urls, c2=f"rabbit://u:p@127.0.0.1:{free_port()}/c2")
    for cell in ("c1", "c2"):
        alive(cells, cell, "nova-compute", ago=7300)
    report = cells.json("report", "--rule", "key-pairs").report
    assert report["outage"] == "nova-compute is not alive in c1; the broker takes no messages in c2"
    why = [each["why"] for each in report["do_first"]]
    assert any(each.startswith("start nova-compute in c1") for each in why)
    assert not any("in c2: none is alive" in each for each in why)
    computes = [each for each in report["vitals"][2]["services"] if each["service"] == "nova-compute"]
    assert {(each["alive"], each["lost_with_broker"]) for each in computes} == {(False, True)}
    assert report["edges"][1]["state"] == "broker_down"
    assert "services_down" not in report["edges"][1]["states"]
    page = Page(cells.run("report", "--rule", "key-pairs").out).text
    assert page.index("the broker takes no messages in c2") < page.index(report["verdict"])
    alive(cells, "c2", "nova-scheduler", ago=7300)
    report = cells.json("report", "--rule", "key-pairs").report
    assert report["edges"][1]["states"]["services_down"] == "services down: nova-scheduler"


def test_an_outage_of_a_child_that_was_taken_out_says_so(known: Deployment) -> None:
    """Its broker does not answer, and nobody waits for it any more."""
    assert known.run("cells", "isolate", "c2", "--yes").code == 0
    report = known.json("report", "--rule", "key-pairs", "--timeout", "1").report
    assert report["outage"] == "the broker takes no messages in parent, c1 and c2 (isolated)"
