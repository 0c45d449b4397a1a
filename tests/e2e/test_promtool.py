"""What Prometheus' own programs say of the metrics of real runs, and of the alerts.

prometheus_client, which is a package of Python, always judges the metrics. promtool judges metrics and alerts
where the system has it: scripts/setup says so where it has not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from deployment import Deployment
from prometheus_client.parser import text_string_to_metric_families
from rabbitmq import RabbitMQ, free_port
from registered import brokers_of, registered

from cellsync.report import metrics

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "docs" / "alerts.yml"
CASES = ROOT / "tests" / "alerts.yml"
TWO_ROUNDS = """
import os, signal
from cellsync.cli import main, watching
seen = []
whole = watching._keep
def keep(*given):
    seen.append(whole(*given))
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return seen[-1]
watching._keep = keep
main()
"""


def find_promtool() -> str | None:
    """Return the program; scripts/setup puts it beside Python."""
    places = [os.path.dirname(sys.executable), os.environ["PATH"]]
    return shutil.which("promtool", path=os.pathsep.join(places))


def run_promtool(program: str, *arguments: str | Path, given: str = "") -> str:
    """Run it and return what it says; it must agree."""
    done = subprocess.run(
        [program, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{given}"
    return done.stdout + done.stderr


def check_metrics(text: str, command: str) -> None:
    """See that both judges read the metrics, with a help and a type for each."""
    families = list(text_string_to_metric_families(text))
    assert families and all(each.samples for each in families), command
    assert {(each.name, bool(each.documentation), each.type) for each in families} == {
        (each.name, True, "gauge") for each in families
    }, command
    if program := find_promtool():
        assert run_promtool(program, "check", "metrics", given=text) == "", command


def test_the_metrics_of_all_commands_are_as_prometheus_wants_them(
    cells: Deployment, rabbit: RabbitMQ, tmp_path: Path
) -> None:
    """Well formed, with help, and named as it recommends; each command writes its file."""
    dead = f"rabbit://u:p@127.0.0.1:{free_port()}/c2"
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": dead}
    brokers_of(registered(cells, urls), parent=rabbit.url("parent"))
    cells.sql("c2", "ALTER TABLE key_pairs DROP COLUMN public_key")
    for number, (code, *command) in enumerate(
        (
            (4, "diff"),
            (4, "plan"),
            (0, "schema", "c1"),
            (4, "schema"),
            (1, "explain", "availability-zones"),
            (4, "trace", "c2", "--timeout", "1"),
            (4, "cells", "check", "--timeout", "1"),
            (4, "report", "-o", str(tmp_path / "page.html"), "--timeout", "1"),
            (4, "repair", "--yes"),
            (0, "watch", "--interval", "1"),
        )
    ):
        file = tmp_path / f"{number}.prom"
        program = {"code": TWO_ROUNDS} if command[0] == "watch" else {}
        asked = (*map(str, command), "--metrics-file", str(file))
        done = cells.process(*asked, **program) if program else cells.run(*asked)
        assert done.code == code, (command, done.said)
        text = file.read_text(encoding="utf-8")
        assert "cellsync_exit_code{" in text, command
        check_metrics(text, command[0])


def test_the_alerts_are_valid() -> None:
    """All of them have a name and name metrics that cellsync writes; promtool reads their expressions."""
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    written = set(re.findall(r"\bcellsync_\w+", Path(metrics.__file__).read_text(encoding="utf-8")))
    for rule in rules:
        named = set(re.findall(r"\bcellsync_\w+", rule["expr"]))
        assert rule["alert"] and named and named <= written, rule
    if program := find_promtool():
        assert f"SUCCESS: {len(rules)} rules found" in run_promtool(program, "check", "rules", ALERTS)


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    """Every alert has a case in which it fires; healthy cells have none."""
    if program := find_promtool():
        assert "SUCCESS" in run_promtool(program, "test", "rules", CASES)
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    fire = {case["alertname"] for case in cases if case.get("exp_alerts")}
    still = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    rules = {rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]}
    assert fire == still == rules
