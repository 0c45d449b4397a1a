"""What Prometheus' own tool says of the metrics of real runs, and of the alerts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from deployment import Deployment
from rabbitmq import RabbitMQ, free_port
from registered import brokers_of, registered

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


def promtool(*arguments: str | Path, given: str = "") -> str:
    """Run it and return what it says; it must agree. scripts/setup puts it beside Python."""
    found = shutil.which(
        "promtool", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    )
    assert found is not None, "promtool is not there: scripts/test installs it"
    done = subprocess.run(
        [found, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{given}"
    return done.stdout + done.stderr


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
        assert promtool("check", "metrics", given=text) == "", command


def test_the_alerts_are_valid() -> None:
    """All of them."""
    number = len(yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"])
    assert f"SUCCESS: {number} rules found" in promtool("check", "rules", ALERTS)


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    """Every alert has a case in which it fires; healthy cells have none."""
    assert "SUCCESS" in promtool("test", "rules", CASES)
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    fire = {case["alertname"] for case in cases if case.get("exp_alerts")}
    still = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    rules = {rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]}
    assert fire == still == rules
