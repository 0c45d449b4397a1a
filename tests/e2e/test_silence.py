"""--changes-only: scheduled runs that say what is new, once, and nothing else; the drift log they share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment
from edges import execute
from listening import listening
from rabbitmq import RabbitMQ, free_port
from registered import as_row, brokers_of, configured, registered

from cellsync import driftlog

RULES = """
pack: shop
rules:
  - {table: ware, key: [name]}
  - {table: shelf, key: [code], on_missing: report}
"""


@pytest.fixture
def shop(cells: Deployment) -> Deployment:
    """Give three shops with the same wares and shelves, and a drift log."""
    for cell in cells.urls:
        cells.sql(cell, "CREATE TABLE ware (name varchar(40) PRIMARY KEY, price int)")
        cells.sql(cell, "INSERT INTO ware VALUES ('a', 1), ('b', 2)")
        cells.sql(cell, "CREATE TABLE shelf (code varchar(40) PRIMARY KEY, api_token varchar(40))")
    return with_log(cells.rule_file(RULES))


def with_log(cells: Deployment) -> Deployment:
    """Name a drift log in the cell file."""
    with cells.config.open("a") as file:
        file.write("drift_log: drift.jsonl\n")
    return cells


def log_of(shop: Deployment) -> Path:
    """Return the place of the log that the cell file names."""
    return shop.folder / "drift.jsonl"


CRON = ("repair", "--yes", "--changes-only")


def test_a_hundred_runs_over_healthy_cells_print_nothing(tmp_path: Path) -> None:
    """And what each of them saw is in the log. (On SQLite, where a run takes a tenth of a second.)"""
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("parent", "c1", "c2")}
    for url in urls.values():
        execute(url, "CREATE TABLE ware (name varchar(40) PRIMARY KEY)", "INSERT INTO ware VALUES ('a')")
    made = Deployment(urls=urls, folder=tmp_path).rule_file(
        "pack: p\nrules:\n  - {table: ware, key: [name]}\n"
    )
    for _ in range(100):
        done = with_log(made.configure()).run(*CRON)
        assert (done.code, done.said) == (0, "")
    reading = driftlog.read(log_of(made))
    assert (len(reading.sightings), reading.torn) == (100, 0)
    assert log_of(made).stat().st_size < 50_000
    execute(urls["parent"], "DELETE FROM ware")
    said = [made.run(*CRON).out for _ in range(5)]
    assert ("c1" in said[0], said[1:]) == (True, [""] * 4)


def test_a_broken_cell_is_one_block_at_each_change_of_its_state(shop: Deployment) -> None:
    """Broken, still broken, broken otherwise, mended, well: each is told once; exit codes are as ever."""
    assert shop.run("diff", "--changes-only").said == ""
    shop.sql("c1", "DELETE FROM ware WHERE name = 'a'")
    first = shop.run("diff", "--changes-only")
    assert first.code == 1
    assert "c1 is out of step with parent: 1 row missing" in first.out
    assert "c2" not in first.out
    for _ in range(3):
        again = shop.run("diff", "--changes-only")
        assert (again.code, again.said) == (1, "")
    shop.sql("c1", "UPDATE ware SET price = 9 WHERE name = 'b'")
    assert "1 row missing, 1 changed" in shop.run("diff", "--changes-only").out
    assert shop.run("diff", "--changes-only").said == ""
    assert shop.run("repair", "--yes", "--changes-only").code == 0
    well = shop.run("diff", "--changes-only")
    assert (well.code, well.err) == (0, "")
    assert well.out == "all is well again in c1: both cells are in step with parent\n"
    assert shop.run("diff", "--changes-only").said == ""


def test_only_the_cell_that_changed_is_told(shop: Deployment) -> None:
    """The other one is in trouble still, and was told before; who is well again has a line."""
    shop.sql("c1", "DELETE FROM ware WHERE name = 'a'")
    assert "c1" in shop.run("diff", "--changes-only").out
    shop.sql("c2", "DELETE FROM ware")
    second = shop.run("diff", "--changes-only").out
    assert "c2 is out of step" in second and "c1" not in second
    shop.sql("c2", "INSERT INTO ware VALUES ('a', 1), ('b', 2)")
    done = shop.run("diff", "--changes-only")
    assert (done.code, done.out) == (1, "all is well again in c2\n")


def test_an_unreachable_cell_is_told_once(shop: Deployment) -> None:
    """Whatever the port of its connection; another error is another state."""
    for number in range(3):
        nowhere = f"mysql+pymysql://u:hunter2@127.0.0.1:{free_port()}/n"
        done = with_log(configured(shop, c1={"database": nowhere})).run(*CRON)
        assert (done.code, "cannot connect to c1" in done.out) == (4, number == 0)
        assert bool(done.said) is (number == 0)
    stranger = f"mysql+pymysql://nobody:hunter2@{shop.urls['c1'].rpartition('@')[2]}"
    with_log(configured(shop, c1={"database": stranger}))
    assert "c1" in shop.run(*CRON).out
    assert "hunter2" not in log_of(shop).read_text()


def test_what_a_repair_leaves_is_told_and_what_it_mends_is_not(shop: Deployment) -> None:
    """As --quiet has it: mended completely is silent; what is only reported comes once."""
    shop.sql("parent", "INSERT INTO ware VALUES ('new', 1)")
    done = shop.run(*CRON)
    assert (done.code, done.said) == (0, "")
    assert shop.sql("c1", "SELECT price FROM ware WHERE name = 'new'") == [(1,)]
    shop.sql("parent", "INSERT INTO shelf VALUES ('s1', 'hunter2')")
    shop.sql("parent", "INSERT INTO ware VALUES ('newer', 1)")
    done = shop.run(*CRON)
    assert (done.code, "reported only" in done.out) == (1, True)
    shop.sql("parent", "INSERT INTO ware VALUES ('newest', 1)")
    done = shop.run(*CRON)
    assert (done.code, done.said) == (1, "")
    assert "hunter2" not in log_of(shop).read_text()


def test_what_people_must_do_after_a_write_is_told_each_time(cells: Deployment) -> None:
    """A restart that is due is an event, not a state."""
    log = ("--drift-log", str(cells.folder / "log"), "--changes-only", "--rule", "aggregates")
    assert "restart nova-scheduler" in cells.run("repair", "--yes", *log).out
    cells.run("repair", "--yes", *log)
    cells.sql("parent", "INSERT INTO aggregates (name, deleted) VALUES ('newer', 0)")
    assert "restart nova-scheduler" in cells.run("repair", "--yes", *log).out


def test_runs_of_other_commands_are_not_compared(shop: Deployment) -> None:
    """Somebody who looks by hand takes nothing from the next mail, nor does another job."""
    shop.sql("c1", "DELETE FROM ware WHERE name = 'a'")
    assert shop.run("diff").code == 1
    one = ("diff", "--changes-only")
    assert "c1" in shop.process(*one).out
    assert "c1" in shop.process(*one, "c1").out
    assert shop.process(*one).said == ""
    assert "c1" in shop.run("plan", "--changes-only").out


def test_machines_get_the_whole_document_when_something_changed(shop: Deployment) -> None:
    """And nothing when nothing did."""
    asked = ("diff", "--changes-only", "--format", "json")
    assert shop.run(*asked).out == ""
    shop.sql("c1", "DELETE FROM ware")
    assert [cell["cell"] for cell in json.loads(shop.run(*asked).out)["cells"]] == ["c1", "c2"]
    assert shop.run(*asked).out == ""


def test_a_log_that_cannot_be_used_makes_nothing_silent(shop: Deployment) -> None:
    """Everything is printed at every run, and why; the exit code is that of the cells."""
    shop.sql("c1", "DELETE FROM ware")
    asked = ("diff", "--changes-only")
    assert shop.run(*asked).out
    assert shop.run(*asked).said == ""
    log_of(shop).unlink()
    log_of(shop).mkdir()
    for _ in range(2):
        done = shop.run(*asked)
        assert done.code == 1
        assert "1 of 2 cells is out of step" in done.out
        assert "cannot read the drift log" in done.err
    shop.sql("c1", "INSERT INTO ware VALUES ('a', 1), ('b', 2)")
    done = shop.run(*asked)
    assert (done.code, "in step" in done.out, "cannot read the drift log" in done.err) == (0, True, True)


def test_a_log_that_cannot_be_written_makes_nothing_silent(shop: Deployment) -> None:
    """What was not remembered would be lost for the next run: all of it is printed now."""
    shop.sql("c1", "DELETE FROM ware")
    asked = ("diff", "--changes-only")
    assert shop.run(*asked).out
    full = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from cellsync.cli import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({log_of(shop).stat().st_size}, -1))\n"
        "main()\n"
    )
    for _ in range(2):
        done = shop.process(*asked, code=full)
        assert done.code == 1
        assert "1 of 2 cells is out of step" in done.out
        assert "cannot write the drift log" in done.err


def test_it_needs_a_place_to_remember(cells: Deployment) -> None:
    """Without one it is an error of usage that says what to do."""
    done = cells.run("diff", "--changes-only")
    assert (done.code, "name a drift_log in cellsync.yaml" in done.err) == (2, True)


def test_without_it_quiet_is_as_it_was(shop: Deployment) -> None:
    """At every run while something is wrong, with a drift log too."""
    assert shop.run("diff", "--quiet").said == ""
    shop.sql("c1", "DELETE FROM ware")
    assert shop.run("diff", "--quiet").out == shop.run("diff", "--quiet").out != ""


def test_every_verb_that_compares_is_in_the_log(shop: Deployment) -> None:
    """With what it found, and what it made of it; an undo compares nothing."""
    shop.sql("parent", "INSERT INTO ware VALUES ('new', 1)")
    for verb in (
        ("diff",),
        ("plan",),
        ("repair", "--dry-run"),
        ("repair", "--yes"),
        ("report",),
        ("history",),
    ):
        shop.run(*verb)
    shop.run("undo", shop.last_run(), "--yes")
    sightings = driftlog.read(log_of(shop)).sightings
    assert [each.verb for each in sightings] == ["diff", "plan", "repair", "repair", "report"]
    found = [each.cells[0].rules[0].rows[0].key for each in sightings[:4]]
    assert found == [("new",)] * 4
    assert [each.cells[0].counts.applied for each in sightings] == [0, 0, 0, 1, 0]


def test_keys_that_may_be_secrets_are_not_in_the_log(cells: Deployment) -> None:
    """A rule whose key is called token or the like is counted, and its rows are not named."""
    for cell in cells.urls:
        cells.sql(cell, "CREATE TABLE access (token varchar(40) PRIMARY KEY)")
    cells.sql("parent", "INSERT INTO access VALUES ('hunter2')")
    made = cells.rule_file("pack: p\nrules:\n  - {table: access, key: [token]}\n")
    log = made.folder / "log"
    assert made.run("diff", "--drift-log", str(log)).code == 1
    (rule,) = driftlog.read(log).sightings[0].cells[0].rules
    assert (rule.total, rule.rows, rule.whole) == (1, (), False)
    assert "hunter2" not in log.read_text()


# -- cells check ---------------------------------------------------------------------------------


CHECK = ("cells", "check", "--timeout", "1", "--changes-only")


@pytest.fixture
def known(cells: Deployment, rabbit: RabbitMQ) -> Iterator[Deployment]:
    """Give registered cells that all answer, and a drift log."""
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": rabbit.url("c2")}
    with listening({name: (rabbit, name) for name in urls}):
        yield with_log(brokers_of(registered(cells, urls), parent=rabbit.url("parent")))


def broker_of_c2(known: Deployment, url: str) -> None:
    """Move it: the parent's row says where it is."""
    moved = "UPDATE cells SET transport_url = :broker WHERE name = 'c2' AND deleted = 0"
    known.sql("parent", moved, broker=as_row(url))


def test_a_broken_broker_is_one_block_at_each_change_of_its_state(
    known: Deployment, rabbit: RabbitMQ
) -> None:
    """Healthy is silent and leaves no line in the log; dead, locked out and well again are told once each."""
    for _ in range(3):
        assert known.run(*CHECK).said == ""
    assert not log_of(known).exists()
    broker_of_c2(known, f"rabbit://u:hunter2@127.0.0.1:{free_port()}/c2")
    first = known.run(*CHECK)
    assert (first.code, first.out.split("\n")[0]) == (4, "c2: not everything answers")
    assert "c1" not in first.out
    for _ in range(3):
        again = known.run(*CHECK)
        assert (again.code, again.said) == (4, "")
    assert len(log_of(known).read_text().splitlines()) == 1
    broker_of_c2(known, rabbit.url("c2").replace("nova:", "nova:wrong"))
    assert "login refused" in known.run(*CHECK).out
    assert known.run(*CHECK).said == ""
    broker_of_c2(known, rabbit.url("c2"))
    well = known.run(*CHECK)
    assert (well.code, well.said) == (
        0,
        "everything answers again in c2: every database and broker answers\n",
    )
    assert known.run(*CHECK).said == ""
    assert "hunter2" not in log_of(known).read_text()


def test_isolating_and_bringing_back_are_told_as_they_are_done(known: Deployment, rabbit: RabbitMQ) -> None:
    """Counting is not; a cell that answers again and is not brought back is named with what does it."""
    check = (*CHECK, "--isolate", "--after", "3")
    broker_of_c2(known, f"rabbit://u:p@127.0.0.1:{free_port()}/c2")
    said = [known.run(*check).out for _ in range(5)]
    assert ["c2: not everything answers" in each for each in said] == [True, False, True, False, False]
    assert said[1] + said[3] + said[4] == ""
    assert "its broker failed 3 times in a row: isolated" in said[2]
    brokers_of(known, parent=rabbit.url("parent"), c2=rabbit.url("c2"))
    with_log(known)
    well = known.run(*check)
    assert (well.code, "cellsync cells restore c2 brings it back" in well.out) == (0, True)
    assert known.run(*check).said == ""
    back = known.run(*check, "--restore-after", "1")
    assert "restored" in back.out
    assert known.run(*check, "--restore-after", "1").said == ""


def test_a_dry_run_tells_once_what_it_would_do(known: Deployment) -> None:
    """Though it decides the same at every check."""
    check = (*CHECK, "--isolate", "--after", "1", "--dry-run")
    broker_of_c2(known, f"rabbit://u:p@127.0.0.1:{free_port()}/c2")
    assert "isolated (dry run)" in known.run(*check).out
    assert known.run(*check).said == ""


def test_a_check_is_no_comparison(known: Deployment) -> None:
    """What it leaves in the log is not in the course of drift; machines get whole documents, or nothing."""
    broker_of_c2(known, f"rabbit://u:p@127.0.0.1:{free_port()}/c2")
    asked = (*CHECK, "--format", "json")
    assert [cell["cell"] for cell in known.run(*asked).report["cells"]] == ["parent", "c1", "c2"]
    assert known.run(*asked).out == ""
    (line,) = driftlog.read(log_of(known)).sightings
    assert (line.verb, line.cells) == ("cells check", ())
    done = known.json("history", "--since", "1h")
    assert (done.code, done.report["runs"], done.report["log"]["torn"]) == (0, [], 0)


def test_a_check_that_cannot_remember_says_all_of_it(known: Deployment) -> None:
    """At every check, and why."""
    log_of(known).mkdir()
    for _ in range(2):
        done = known.run(*CHECK)
        assert (done.code, "every database and broker answers" in done.out) == (0, True)
        assert "cannot read the drift log" in done.err
