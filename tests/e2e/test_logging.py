"""--log-format json: every line of stderr is one JSON object, whatever is said, and tells no secret."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from deployment import Deployment, Done
from test_watching import watching

JSON = ("--log-format", "json")
EVIL = 'a\n{"level": "info"}\r\x1b[31m\u2028\u202e\'"'


def logged(done: Done) -> Sequence[Mapping[str, Any]]:
    """Return what was said on stderr; every line of it must be an object with a time, a level and a text."""
    assert done.err.replace("\n", "").isprintable()
    lines: list[Mapping[str, Any]] = [json.loads(line) for line in done.err.splitlines()]
    for line in lines:
        assert list(line)[:3] == ["time", "level", "message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("debug", "info", "warning", "error", "critical")
        assert line["message"]
    return lines


def test_the_sql_of_a_run_is_logged_with_its_cell(cells: Deployment) -> None:
    """Without values and without passwords, as in text; stdout stays what it is."""
    done = cells.process("repair", "--yes", "--rule", "key-pairs", "-vvv", *JSON)
    lines = logged(done)
    assert {line.get("cell") for line in lines if line["level"] == "debug"} >= {"parent", "c1", "c2"}
    assert any(line["message"].startswith("c1: INSERT INTO `key_pairs`") for line in lines)
    assert ("info", "writing") in {(line["level"], line["message"]) for line in lines}
    assert done.out.startswith("repaired ")
    text = cells.process("diff", "--rule", "key-pairs", "-vvv")
    assert re.search("^D cellsync.db", text.err, re.M)
    for said in (done.err, text.err):
        assert "ssh-rsa" not in said and "a p@ss" not in said and "a p%40ss" not in said


def test_a_cell_that_does_not_answer_is_named(cells: Deployment) -> None:
    """Without its password; the same in text."""
    urls = {**cells.urls, "c2": "mysql+pymysql://u:hunter2@127.0.0.1:1/n"}
    broken = cells.configure(urls=urls)
    done = broken.run("history", *JSON)
    [line] = logged(done)
    assert (line["cell"], line["level"]) == ("c2", "error")
    assert line["message"].startswith("unreachable: cannot connect to c2")
    assert broken.run("history").err == f"c2: {line['message']}\n"
    assert "hunter2" not in done.said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diff", "--bogus", *JSON), "No such option"),
        (("--log-format=json", "diff", "--bogus"), "No such option"),
        ((*JSON, "nothing"), "No such command"),
        (("diff", EVIL, *JSON), "there is no child "),
        (("-c", f"{EVIL}.yaml", "diff", *JSON), "cannot read"),
        (("-r", EVIL, "diff", *JSON), EVIL.split("\n", maxsplit=1)[0]),
        (("undo", EVIL, "--yes", *JSON), "no journal knows a run a\n"),
    ],
    ids=["option", "before", "command", "cell", "file", "pack", "run"],
)
def test_what_is_wrong_is_one_object(cells: Deployment, arguments: tuple[str, ...], said: str) -> None:
    """Also where the command line is not understood, and whatever stands in it."""
    done = cells.run(*arguments)
    lines = logged(done)
    assert done.code in (2, 4) and done.out == ""
    assert said in lines[-1]["message"] and lines[-1]["level"] == "error"
    assert "Traceback" not in done.err


def test_a_bug_is_one_object_with_its_trace(cells: Deployment) -> None:
    """Scrubbed as in text."""
    code = (
        "from cellsync import cli, run\n"
        "def broken(request):\n"
        "    raise ValueError('with mysql://u:hunter2@h/n inside\\x1b')\n"
        "run.compare = broken\n"
        "cli.main()\n"
    )
    done = cells.process("diff", *JSON, code=code)
    [line] = logged(done)
    assert (done.code, line["level"]) == (70, "critical")
    assert line["message"] == "this is a bug in cellsync; please report it with the trace"
    assert "ValueError" in line["trace"] and "hunter2" not in done.err


def test_what_a_library_warns_of_is_logged(cells: Deployment) -> None:
    """A warning of Python is no line of text among the objects."""
    code = (
        "import warnings\nfrom cellsync import cli, run\ncompare = run.compare\n"
        "def warning(request):\n"
        "    warnings.warn('something is old')\n"
        "    return compare(request)\n"
        "run.compare = warning\n"
        "cli.main()\n"
    )
    [line] = logged(cells.process("diff", *JSON, code=code))
    assert line["level"] == "warning" and "something is old" in line["message"]


def test_a_watch_says_its_rounds_as_json(cells: Deployment) -> None:
    """Its lines on stdout have the same keys; --format text keeps them text."""
    shutil.copy(cells.config, cells.folder / "kept.yaml")
    with watching(cells, *JSON, "--metrics-port", "0") as watch:
        port, first = map(json.loads, watch.lines(2))
        cells.config.write_text("children: 7\n", encoding="utf-8")
        wrong = json.loads(watch.lines(3)[2])
        shutil.copy(cells.folder / "kept.yaml", cells.config)
        watch.lines(4)
        assert watch.end() == 0
    assert port["level"] == "info" and port["message"].startswith("metrics: http://127.0.0.1:")
    assert (first["level"], first["exit_code"]) == ("warning", 1)
    assert first["message"] == first["verdict"] and "out of step" in first["message"] and first["run"]
    assert (wrong["level"], wrong["exit_code"], wrong["run"]) == ("error", 2, None)
    with watching(cells, *JSON, "--format", "text") as watch:
        assert "exit code 1: " in watch.lines(1)[0]


def test_nothing_is_said_where_nothing_is(cells: Deployment) -> None:
    """A run from cron stays silent."""
    cells.repair()
    assert cells.run("diff", "--rule", "flavors", "--quiet", *JSON).said == ""
