"""--metrics-file: what node_exporter reads, whatever befell the run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from deployment import Deployment
from prometheus_client.parser import text_string_to_metric_families
from rabbitmq import RabbitMQ, free_port
from registered import brokers_of, configured, registered

from cellsync.cli.preparing import put

ALERTS = Path(__file__).parents[2] / "docs" / "alerts.yml"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(file: Path) -> Samples:
    """Return what Prometheus' own parser reads from a file."""
    families = text_string_to_metric_families(file.read_text(encoding="utf-8"))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Return one sample, None where there is none."""
    return samples.get((name, frozenset(labels.items())))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the place of the file."""
    return tmp_path / "cellsync.prom"


def test_a_diff_and_a_repair_are_counted(cells: Deployment, file: Path) -> None:
    """By cell, rule and kind; what a repair did, by outcome."""
    found = cells.json("diff", "--metrics-file", str(file)).table("c1", "aggregates")
    samples = read(file)
    for kind in ("missing", "changed", "extra"):
        counted = value(samples, "cellsync_differences", cell="c1", rule="aggregates", kind=kind)
        assert counted == found[kind]
    rows = value(samples, "cellsync_rows", cell="c1", rule="aggregates", side="desired")
    assert rows == found["rows"]["desired"]
    assert value(samples, "cellsync_cell_compared", cell="c1") == 1
    assert value(samples, "cellsync_exit_code", verb="diff") == 1
    assert value(samples, "cellsync_last_success_timestamp_seconds", verb="diff")
    done = cells.repair("--metrics-file", str(file))
    repaired = read(file)
    for outcome, number in done.cell("c1")["changes"].items():
        assert value(repaired, "cellsync_changes", cell="c1", outcome=outcome) == number
    assert value(repaired, "cellsync_last_run_timestamp_seconds", verb="diff") is None


def test_what_could_not_be_compared_has_no_count(cells: Deployment, file: Path) -> None:
    """No zero stands for it; the last success is that of the run before."""
    assert cells.run("diff", "--metrics-file", str(file)).code == 1
    before = read(file)
    success = ("cellsync_last_success_timestamp_seconds", frozenset({("verb", "diff")}))
    cells.sql("c2", "DROP TABLE key_pairs")
    configured(cells, c1={"database": f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/n"})
    assert cells.run("--metrics-file", str(file), "diff").code == 4
    samples = read(file)
    assert value(samples, "cellsync_cell_compared", cell="c1") == 0
    assert value(samples, "cellsync_cell_compared", cell="c2") == 0
    assert value(samples, "cellsync_rule_compared", cell="c2", rule="key-pairs") == 0
    counted = {dict(labels)["cell"] for name, labels in samples if name == "cellsync_differences"}
    assert counted == {"c2"}
    assert not any(
        dict(labels).get("rule") == "key-pairs" for name, labels in samples if name == "cellsync_rows"
    )
    assert samples[success] == before[success]
    assert value(samples, "cellsync_exit_code", verb="diff") == 4


def test_refusals_and_findings_have_their_codes(cells: Deployment, file: Path) -> None:
    """As the report has them."""
    cells.sql("parent", "UPDATE aggregates SET deleted = NULL WHERE name = 'ssd'")
    done = cells.json("diff", "--metrics-file", str(file))
    codes = {code for cell, code, _ in done.findings() if cell == "c1"}
    assert codes
    samples = read(file)
    assert {
        dict(k)["code"] for name, k in samples if name == "cellsync_findings" if dict(k)["cell"] == "c1"
    } == codes


def test_a_check_says_which_brokers_are_up(cells: Deployment, rabbit: RabbitMQ, file: Path) -> None:
    """By cell and host, with isolated children."""
    dead = f"127.0.0.1:{free_port()}"
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": f"rabbit://u:p@{dead}/c2"}
    brokers_of(registered(cells, urls), parent=rabbit.url("parent"))
    assert cells.run("cells", "check", "--isolate", "--after", "1", "--metrics-file", str(file)).code == 4
    samples = read(file)
    assert value(samples, "cellsync_broker_up", cell="c1", host=rabbit.address) == 1
    assert value(samples, "cellsync_broker_up", cell="c2", host=dead) == 0
    assert value(samples, "cellsync_database_up", cell="c2") == 1
    assert value(samples, "cellsync_isolated", cell="c2") == 1
    assert value(samples, "cellsync_isolated", cell="c1") == 0
    assert value(samples, "cellsync_last_success_timestamp_seconds", verb="cells check") is None


def test_a_file_that_is_no_metrics_is_replaced(cells: Deployment, file: Path) -> None:
    """It held nothing but the time of a success."""
    for text in (b"} no metrics {{{", b"\xff\xfe", b""):
        file.write_bytes(text)
        assert cells.run("diff", "--metrics-file", str(file)).code == 1
        assert value(read(file), "cellsync_exit_code", verb="diff") == 1


def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(
    cells: Deployment, tmp_path: Path
) -> None:
    """Exit code 2, and not after a repair."""
    done = cells.run("repair", "--yes", "--metrics-file", str(tmp_path / "no" / "x.prom"))
    assert (done.code, "there is no directory" in done.said) == (2, True)
    assert cells.journal("c1") == {}


KILLED = """
import os, signal, sys
from cellsync.cli.preparing import put
def pieces():
    for number in range(1000):
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield "cellsync_x %d\\n" % number * 1000
put(pieces(), sys.argv[1])
"""


@pytest.mark.parametrize("at", [0, 1, 500, 999])
def test_a_run_that_is_killed_leaves_the_old_file(file: Path, at: int) -> None:
    """Whole, at whatever moment; the next run is not in its way."""
    put(["cellsync_old 1\n"], str(file))
    command = [sys.executable, "-c", KILLED, str(file), str(at)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert file.read_text() == "cellsync_old 1\n"
    put(["cellsync_new 1\n"], str(file))
    assert file.read_text() == "cellsync_new 1\n"


def test_the_alerts_are_about_metrics_that_there_are(cells: Deployment, rabbit: RabbitMQ, file: Path) -> None:
    """Every name and label in an expression is one that a run or a check writes."""
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": rabbit.url("c2")}
    brokers_of(registered(cells, urls), parent=rabbit.url("parent"))
    names: dict[str, set[str]] = {"cellsync_refusals": {"cell", "code"}}
    for command in (("diff",), ("cells", "check")):
        cells.run(*command, "--metrics-file", str(file))
        for name, labels in read(file):
            names.setdefault(name, set()).update(dict(labels))
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        used = re.findall(r"cellsync_\w+", rule["expr"])
        assert used and set(used) <= set(names), rule["alert"]
        texts = " ".join(rule["annotations"].values())
        wanted = set(re.findall(r"\$labels\.(\w+)", texts))
        assert wanted <= set.union(*(names[name] for name in used)), rule["alert"]
