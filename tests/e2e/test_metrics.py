"""--metrics-file: what node_exporter reads, whatever befell the run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deployment import Deployment
from edges import execute
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


def test_a_trace_says_which_hops_are_broken(cells: Deployment, rabbit: RabbitMQ, file: Path) -> None:
    """By cell and hop; what could not be checked has no sample; a file for each child."""
    nowhere = f"rabbit://u:p@127.0.0.1:{free_port()}/c2"
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": nowhere}
    brokers_of(registered(cells, urls), parent=rabbit.url("parent"))
    done = cells.run("trace", "c2", "--timeout", "1", "--format", "json", "--metrics-file", str(file))
    assert done.code == 4
    samples, told = read(file), {hop["hop"]: hop["status"] for hop in done.report["hops"]}
    assert {"ok", "broken"} <= set(told.values())
    for hop, status in told.items():
        wanted = {"ok": 1, "warn": 1, "broken": 0, "unknown": None}[status]
        assert value(samples, "cellsync_hop_sound", cell="c2", hop=hop) == wanted, hop
    assert value(samples, "cellsync_exit_code", verb="trace", cell="c2") == 4
    assert value(samples, "cellsync_last_success_timestamp_seconds", verb="trace", cell="c2") is None
    configured(cells, c2={"database": f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/n"})
    assert cells.run("trace", "c2", "--timeout", "1", "--metrics-file", str(file)).code == 4
    samples = read(file)
    assert value(samples, "cellsync_hop_sound", cell="c2", hop="child-database") == 0
    assert value(samples, "cellsync_hop_sound", cell="c2", hop="rows") is None


def test_an_explanation_says_where_a_feature_is_complete(cells: Deployment, file: Path) -> None:
    """1, 0, or no sample where nobody knows; the last success outlives a run that knows less."""
    cells.repair()
    cells.sql("c2", "DELETE FROM aggregate_metadata")
    asked = ("explain", "host-aggregates", "--metrics-file", str(file), "--format", "json")
    first = {cell["cell"]: cell["first_missing"] for cell in cells.run(*asked).report["cells"]}
    assert (first["c1"], first["c2"] is not None) == (None, True)
    before = read(file)
    about = {"feature": "host-aggregates"}
    assert value(before, "cellsync_feature_complete", cell="c1", **about) == 1
    assert value(before, "cellsync_feature_complete", cell="c2", **about) == 0
    succeeded = value(before, "cellsync_last_success_timestamp_seconds", verb="explain", **about)
    assert succeeded
    configured(cells, c2={"database": f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/n"})
    assert cells.run(*asked).code == 4
    samples = read(file)
    assert value(samples, "cellsync_feature_complete", cell="c2", **about) is None
    assert value(samples, "cellsync_last_success_timestamp_seconds", verb="explain", **about) == succeeded


def test_schema_differences_are_counted(cells: Deployment, file: Path) -> None:
    """By cell and rule, those that block a rule apart; a table that is not there is one of them."""
    cells.sql("c1", "ALTER TABLE key_pairs MODIFY name varchar(200)")
    cells.sql("c2", "DROP TABLE key_pairs")
    done = cells.json("schema", "--metrics-file", str(file))
    assert done.code == 4
    samples, listed = read(file), done.table("c1", "key-pairs")["schema"]
    assert listed and not any(each["blocking"] for each in listed)
    for blocking, number in (("false", len(listed)), ("true", 0)):
        about = {"cell": "c1", "rule": "key-pairs", "blocking": blocking}
        assert value(samples, "cellsync_schema_differences", **about) == number
    about = {"cell": "c1", "rule": "aggregates", "blocking": "false"}
    assert value(samples, "cellsync_schema_differences", **about) == 0
    about = {"cell": "c2", "rule": "key-pairs", "blocking": "true"}
    assert value(samples, "cellsync_schema_differences", **about) == 1
    assert value(samples, "cellsync_exit_code", verb="schema") == 4


def test_a_file_that_cannot_be_written_takes_no_report_away(cells: Deployment, file: Path) -> None:
    """What a repair did, and what people must do now, is told all the same."""
    full = (
        "import resource, signal\n"
        "from cellsync.cli import main, preparing\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "whole = preparing.write_metrics\n"
        "def write(*given):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "    whole(*given)\n"
        "preparing.write_metrics = write\n"
        "main()\n"
    )
    done = cells.process("repair", "--yes", "--metrics-file", str(file), code=full)
    assert (done.code, f"cannot write {file}" in done.err) == (4, True)
    assert "restart nova-scheduler" in done.out
    assert not file.exists() and not list(file.parent.glob("*.part"))


def test_a_file_that_is_no_metrics_is_replaced(cells: Deployment, file: Path) -> None:
    """It held nothing but the time of a success."""
    for text in (b"} no metrics {{{", b"\xff\xfe", b""):
        file.write_bytes(text)
        assert cells.run("diff", "--metrics-file", str(file)).code == 1
        assert value(read(file), "cellsync_exit_code", verb="diff") == 1


def test_a_named_pipe_is_written_to_and_not_read(cells: Deployment, tmp_path: Path) -> None:
    """There is no old text in it, and waiting for one would never end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert cells.run("diff", "--metrics-file", str(pipe)).code == 1
        assert b"cellsync_exit_code" in os.read(reading, 1 << 16)
    finally:
        os.close(reading)


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


def test_two_writers_of_one_file_are_not_in_each_others_way(file: Path) -> None:
    """Each replaces it by a whole one; neither fails."""

    def slowly() -> Iterator[str]:
        yield "cellsync_one 1\n"
        put(["cellsync_other 1\n"], str(file))
        assert file.read_text() == "cellsync_other 1\n"
        yield "cellsync_one 2\n"

    put(slowly(), str(file))
    assert file.read_text() == "cellsync_one 1\ncellsync_one 2\n"
    assert os.listdir(file.parent) == [file.name]


def test_what_killed_runs_left_is_taken_away(file: Path) -> None:
    """After an hour, when nobody can still be writing it; what others put there stays."""
    old, new, other = (
        file.with_name(f"{file.name}{end}") for end in (".0123abcd.part", ".89abcdef.part", ".my.part")
    )
    for each in (old, new, other):
        each.write_text("cellsync_x 1")
    for each in (old, other):
        os.utime(each, (0, 0))
    put(["cellsync_new 1\n"], str(file))
    assert {each.name for each in file.parent.iterdir()} == {file.name, new.name, other.name}


DOOMED = """
import os, signal, sys
from cellsync.cli import main, preparing
WRITING = ("preparing.py", "pathlib.py", "_local.py", "codecs.py")
def run(last):
    lines = 0
    def count(frame, event, _):
        nonlocal lines
        if os.path.basename(frame.f_code.co_filename) not in WRITING:
            return None
        lines += event == "line"
        if lines == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return count
    whole = preparing.write_metrics
    def traced(*given):
        sys.settrace(count)
        try:
            whole(*given)
        finally:
            sys.settrace(None)
    preparing.write_metrics = traced
    sys.stdout = open(os.devnull, "w")
    try:
        main(sys.argv[1:])
    except SystemExit as ended:
        os.write(2, b"%d %d\\n" % (ended.code, lines))
        os._exit(0)
try:
    main(["-c", sys.argv[2], "--quiet", "diff"])  # what it imports costs a second, once
except SystemExit:
    pass
for line in sys.stdin:
    child = os.fork()
    if not child:
        run(int(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""A process that runs a command again and again, killed each time before another line of code."""


def test_kills_at_any_moment_leave_the_old_file_or_the_new_one(tmp_path: Path, file: Path) -> None:
    """Thirty real runs, killed between the first and the last line of code that has to do with the file."""
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("parent", "c1")}
    for url in urls.values():
        execute(url, "CREATE TABLE ware (name varchar(40) PRIMARY KEY)", "INSERT INTO ware VALUES ('a')")
    made = Deployment(urls=urls, folder=tmp_path).rule_file(
        "pack: p\nrules:\n  - {table: ware, key: [name]}\n"
    )
    command = [sys.executable, "-c", DOOMED, "-c", str(made.config), "diff", "--metrics-file", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as runs:
        assert runs.stdin and runs.stdout and runs.stderr

        def run(last: int) -> int:
            assert runs.stdin and runs.stdout
            print(last, file=runs.stdin, flush=True)
            return int(runs.stdout.readline())

        for _ in range(2):  # where there is a file already, more is asked about it
            assert run(-1) == 0
            code, lines = map(int, runs.stderr.readline().split())
            assert (code, lines > 30) == (0, True)
        names, texts = {name for name, _ in read(file)}, [file.read_text()]
        for number in range(30):
            assert run(1 + number * (lines - 1) // 29) == -signal.SIGKILL
            assert {name for name, _ in read(file)} == names
            texts.append(file.read_text())
            for part in tmp_path.glob("*.part"):  # the next run would look at each, by lines of its own
                part.unlink()
        runs.stdin.close()
    # The old one until it is replaced, the new one from then on; each run's has another time.
    assert texts[0] == texts[1] != texts[-1]


def test_the_alerts_are_about_metrics_that_there_are(cells: Deployment, rabbit: RabbitMQ, file: Path) -> None:
    """Every name and label in an expression is one that some command writes.

    The files of different commands may lie in one folder: no sample is in two of them.
    """
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": rabbit.url("c2")}
    brokers_of(registered(cells, urls), parent=rabbit.url("parent"))
    names: dict[str, set[str]] = {"cellsync_refusals": {"cell", "code"}}
    seen: list[tuple[str, frozenset[tuple[str, str]]]] = []
    for command in (
        ("diff",),
        ("cells", "check"),
        ("trace", "c1"),
        ("trace", "c2"),
        ("explain", "flavors", "c1"),
        ("explain", "host-aggregates"),
        ("schema",),
    ):
        cells.run(*command, "--metrics-file", str(file))
        seen += read(file)
        for name, labels in read(file):
            names.setdefault(name, set()).update(dict(labels))
    assert len(seen) == len(set(seen))
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        used = re.findall(r"cellsync_\w+", rule["expr"])
        assert used and set(used) <= set(names), rule["alert"]
        texts = " ".join(rule["annotations"].values())
        wanted = set(re.findall(r"\$labels\.(\w+)", texts))
        assert wanted <= set.union(*(names[name] for name in used)), rule["alert"]
