"""cells check on real databases and brokers: what is told apart, what is counted, who goes and comes back."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment, Done
from listening import NovaCells, listening
from rabbitmq import RabbitMQ, free_port
from registered import brokers_of, configured, registered, rows, with_tables
from servers import Server, sql

from cellsync.journal.streaks import REMEMBERED, Streak

pytestmark = pytest.mark.slow

TIMEOUT = 1.0
PATIENCE = 15
"""Seconds: a machine may be busy, but nothing waits for a broker that does not answer."""
CHECK = ("cells", "check", "--timeout", str(TIMEOUT))


def statuses(done: Done) -> dict[str, tuple[str, list[str]]]:
    """Return cell -> status of its database and of its broker's hosts."""
    return {
        cell["cell"]: (cell["database"]["status"], [host["status"] for host in cell["broker"]])
        for cell in done.report["cells"]
    }


@pytest.fixture
def running(rabbit: RabbitMQ, other_rabbit: RabbitMQ) -> Iterator[dict[str, NovaCells]]:
    """Run nova-cells of every cell, as far as brokers see it."""
    with listening({"parent": (rabbit, "parent"), "c1": (rabbit, "c1"), "c2": (other_rabbit, "c2")}) as found:
        yield found


@pytest.fixture
def known(
    cells: Deployment, rabbit: RabbitMQ, other_rabbit: RabbitMQ, running: dict[str, NovaCells]
) -> Deployment:
    """Give registered cells: c2 has a broker of its own, which a test may disturb."""
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": other_rabbit.url("c2")}
    return brokers_of(registered(cells, urls), parent=rabbit.url("parent"))


def test_a_sound_deployment_is_checked_without_a_word(known: Deployment) -> None:
    """A child's broker is the one of the parent's row; nothing is written."""
    before = known.checksums()
    done = known.run(*CHECK, "--format", "json")
    assert (done.code, done.report["exit_code"]) == (0, 0)
    assert statuses(done) == {name: ("ok", ["ok"]) for name in ("parent", "c1", "c2")}
    assert all(host["latency_ms"] > 0 for cell in done.report["cells"] for host in cell["broker"])
    assert known.run("--quiet", *CHECK).said == ""
    assert "every database and broker answers" in known.run(*CHECK).out
    assert known.checksums() == before
    assert known.journal("parent") == {}


def test_the_parents_broker_is_the_one_that_its_children_name(known: Deployment, rabbit: RabbitMQ) -> None:
    """Where cellsync.yaml does not name it."""
    configured(known)
    done = known.run(*CHECK, "--format", "json")
    assert done.cell("parent")["broker"][0]["host"] == rabbit.address
    assert done.code == 0


WRONG: dict[str, Callable[[RabbitMQ], str]] = {
    "refused": lambda other: other.kill() or other.url("c2"),  # type: ignore[func-returns-value]
    "timeout": lambda other: other.signal(signal.SIGSTOP) or other.url("c2"),  # type: ignore[func-returns-value]
    "blocked": lambda other: other.block() or other.url("c2"),  # type: ignore[func-returns-value]
    "auth": lambda other: other.url("c2", password="hunter2"),
    "vhost": lambda other: other.url("nowhere"),
}


@pytest.mark.parametrize("status", WRONG)
def test_each_breakage_is_told_apart_and_delays_nobody(
    known: Deployment, other_rabbit: RabbitMQ, rabbit: RabbitMQ, status: str
) -> None:
    """Within the time-out, with the other cells' latency as ever."""
    url = WRONG[status](other_rabbit)
    brokers_of(known, parent=rabbit.url("parent"), c2=url)
    started = time.monotonic()
    done = known.run(*CHECK, "--format", "json")
    assert time.monotonic() - started < PATIENCE
    assert done.code == 4
    assert statuses(done) == {"parent": ("ok", ["ok"]), "c1": ("ok", ["ok"]), "c2": ("ok", [status])}
    assert done.cell("c1")["broker"][0]["latency_ms"] < 1000 * TIMEOUT
    assert "hunter2" not in done.said
    text = known.run(*CHECK)
    assert (text.code, text.out.splitlines()[0]) == (4, "c2: not everything answers")


def test_every_host_of_a_broker_has_its_own_status(
    known: Deployment, rabbit: RabbitMQ, other_rabbit: RabbitMQ
) -> None:
    """One of three is enough for nova, and no reason to isolate; the others are named all the same."""
    login = rabbit.url("c1").removeprefix("rabbit://").partition("@")[0]
    dead = free_port()
    hosts = f"{login}@127.0.0.1:{dead},{login}@{rabbit.address},{login}@{other_rabbit.address}"
    brokers_of(known, parent=rabbit.url("parent"), c1=f"rabbit://{hosts}/c1")
    done = known.run(*CHECK, "--isolate", "--after", "1", "--format", "json")
    assert (done.code, statuses(done)["c1"]) == (4, ("ok", ["refused", "ok", "ok"]))
    assert not done.cell("c1")["isolated"]


DATABASES = {
    "refused": lambda url: f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/nova",
    "auth": lambda url: url.replace("cellsync:", "nobody:", 1),
    "schema": lambda url: url.replace("/e2e", "/no_e2e"),
}


@pytest.mark.parametrize("status", DATABASES)
def test_a_database_that_does_not_answer_is_told_apart(known: Deployment, status: str) -> None:
    """Its broker, which the parent's row names, is asked all the same."""
    configured(known, c2={"database": DATABASES[status](known.urls["c2"])})
    done = known.run(*CHECK, "--format", "json")
    assert (done.code, statuses(done)["c2"]) == (4, (status, ["ok"]))


def test_a_database_that_hangs_times_out(known: Deployment) -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        configured(known, c1={"database": f"mysql+pymysql://u:p@127.0.0.1:{port}/nova"})
        started = time.monotonic()
        done = known.run(*CHECK, "--format", "json")
    assert statuses(done)["c1"][0] == "timeout"
    assert time.monotonic() - started < PATIENCE


def test_a_broker_that_nobody_knows_is_not_sound(known: Deployment) -> None:
    """An error never looks clean: exit code 4, and why."""
    known.sql("parent", "DELETE FROM cells WHERE name = 'c1'")
    done = known.run(*CHECK)
    assert (done.code, "its broker is not known" in done.out) == (4, True)
    gone = configured(known, parent={"database": f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/nova"})
    done = gone.run(*CHECK, "--format", "json")
    assert "cellsync.yaml names none, and cannot connect to parent" in done.cell("c2")["broker_unknown"]
    assert done.code == 4


def test_only_the_named_children_are_checked(known: Deployment) -> None:
    """And the parent."""
    assert list(statuses(known.run(*CHECK, "c2", "--format", "json"))) == ["parent", "c2"]
    assert known.run(*CHECK, "c9").code == 2


def test_the_queues_of_nova_cells_are_shown(known: Deployment) -> None:
    """Under -v, and in JSON."""
    assert "queue cells.intercell.targeted: 1 consumer, 0 messages" in known.run("-v", *CHECK).out
    found = known.run(*CHECK, "--format", "json").cell("c1")
    assert {"queue": "cells", "consumers": 1, "messages": 0} in found["broker"][0]["queues"]
    assert found["nova_cells"] == {"status": "ok", "silent_queues": [], "waiting": 0}


# -- Isolating -----------------------------------------------------------------------------------


def test_from_a_killed_broker_to_the_soft_deleted_row_in_one_run(
    known: Deployment, other_rabbit: RabbitMQ, running: dict[str, NovaCells]
) -> None:
    """And back again: the same row."""
    before = rows(known, "parent")
    other_rabbit.kill()
    running["c2"].forget()
    done = known.process(*CHECK, "--isolate", "--after", "1")
    assert done.code == 4
    assert "c2: its broker failed once in a row: isolated (run " in done.out
    assert rows(known, "parent", "name = 'c2' AND deleted = id") != []
    refused = known.run("cells", "restore", "c2", "--yes", "--timeout", "1")
    assert (refused.code, "does not take messages" in refused.out) == (3, True)
    other_rabbit.recover()
    running["c2"].wait()
    back = known.run("cells", "restore", "c2", "--yes")
    assert (back.code, "reads its table every 60 s (db_check_interval)" in back.out) == (0, True), back.said
    assert rows(known, "parent") == before


def test_failures_are_counted_from_check_to_check(known: Deployment, other_rabbit: RabbitMQ) -> None:
    """Two failures, one answer, three failures: only then it goes. Cron says each in one line."""
    isolating = (*CHECK, "--isolate", "--after", "3", "--restore-after", "2")

    def said() -> str:
        return str(known.run(*isolating, "--format", "json").cell("c2")["decided"] or "")

    other_rabbit.signal(signal.SIGSTOP)
    assert said() == "c2: its broker failed once in a row; isolated at 3"
    assert "2 times in a row; isolated at 3" in said()
    other_rabbit.signal(signal.SIGCONT)
    assert said() == ""
    other_rabbit.signal(signal.SIGSTOP)
    assert "once in a row" in said()
    assert "2 times" in said()
    assert rows(known, "parent", "deleted <> 0") == []
    assert "3 times in a row: isolated (run" in said()
    assert said() == ""
    other_rabbit.signal(signal.SIGCONT)
    assert "answered once in a row; restored at 2" in said()
    assert "2 times in a row: restored (run" in said()
    assert rows(known, "parent", "deleted <> 0") == []
    assert [run["verb"] for run in known.json("history").report["runs"]] == ["cells restore", "cells isolate"]


def test_a_broker_that_comes_and_goes_stays_away_longer(known: Deployment, other_rabbit: RabbitMQ) -> None:
    """Flapping is damped: the second time within an hour takes twice as many answers."""
    flapping = (*CHECK, "--isolate", "--after", "1", "--restore-after", "1", "--format", "json")
    other_rabbit.signal(signal.SIGSTOP)
    assert known.run(*flapping).cell("c2")["decision"] == "isolated"
    other_rabbit.signal(signal.SIGCONT)
    assert known.run(*flapping).cell("c2")["decision"] == "restored"
    other_rabbit.signal(signal.SIGSTOP)
    assert known.run(*flapping).cell("c2")["decision"] == "isolated"
    other_rabbit.signal(signal.SIGCONT)
    damped = known.run(*flapping).cell("c2")
    assert damped["decision"] == "damped"
    assert "it went 2 times within an hour, so it comes back at 2" in damped["decided"]
    assert known.run(*flapping).cell("c2")["decision"] == "restored"


def test_a_check_brings_back_only_what_a_check_took_out(known: Deployment) -> None:
    """Who isolated a child by hand has a reason."""
    assert known.run("cells", "isolate", "c2", "--yes").code == 0
    for _ in range(3):
        done = known.run(*CHECK, "--restore-after", "1", "--format", "json")
        assert (done.cell("c2")["decision"], done.cell("c2")["isolated"]) == (None, True)


def test_more_dead_brokers_than_may_go_isolate_nobody(known: Deployment, rabbit: RabbitMQ) -> None:
    """It may be this machine that does not reach them: exit code 4, the refusal in the decision."""
    dead = {name: f"rabbit://u:p@127.0.0.1:{free_port()}/{name}" for name in ("c1", "c2")}
    brokers_of(known, parent=rabbit.url("parent"), **dead)
    isolating = (*CHECK, "--isolate", "--after", "1")
    done = known.run(*isolating, "--format", "json")
    assert {cell["decision"] for cell in done.report["cells"][1:]} == {"refused"}
    assert "2 of 2 children would be isolated, and 1 may be" in done.cell("c1")["decided"]
    assert (done.code, rows(known, "parent", "deleted <> 0")) == (4, [])
    both = known.run(*isolating, "--max-isolated", "2", "--format", "json")
    assert {cell["decision"] for cell in both.report["cells"][1:]} == {"isolated"}


def test_a_dry_run_of_a_check_writes_nothing(known: Deployment, other_rabbit: RabbitMQ) -> None:
    """No row, no count, no journal."""
    other_rabbit.signal(signal.SIGSTOP)
    before = known.checksums()
    done = known.run(*CHECK, "--isolate", "--after", "1", "--dry-run")
    assert "c2: its broker failed once in a row: isolated (dry run)" in done.out
    assert known.checksums() == before
    assert known.journal("parent") == {}


def test_nobody_is_isolated_without_the_parents_database(known: Deployment) -> None:
    """And it is said."""
    configured(known, parent={"database": f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/nova"})
    done = known.run(*CHECK, "--isolate")
    assert (done.code, "nobody could be isolated or restored" in done.out) == (4, True)


def test_after_needs_isolate(known: Deployment) -> None:
    """A number that does nothing is a mistake."""
    assert known.run(*CHECK, "--after", "3").code == 2


def test_the_damping_doubles_and_forgets() -> None:
    """By hand, without waiting an hour."""
    now = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
    streak = Streak(cell="c1")
    needed = []
    for minute in range(9):
        streak = streak.isolated(1, now + timedelta(minutes=minute))
        needed.append(streak.needed(2, now + timedelta(minutes=minute)))
    assert needed == [2, 4, 8, 16, 32, 64, 128, 128, 128]
    assert streak.needed(2, now + REMEMBERED + timedelta(minutes=9)) == 2
    later = streak.isolated(1, now + 2 * REMEMBERED)
    assert len(later.isolations) == 1


# -- A large fleet -------------------------------------------------------------------------------

CHILDREN = 200
DEAD = tuple(f"c{number:03}" for number in range(0, CHILDREN, 10))


@pytest.fixture
def fleet(server: Server, rabbit: RabbitMQ, tmp_path: Path) -> Iterator[Path]:
    """Give the cell file of 200 children; 20 have a broker that takes connections and says nothing."""
    names = ["fleet_parent", *(f"fleet_c{number:03}" for number in range(CHILDREN))]
    with ExitStack() as leaving:
        for name in names:
            sql(server.url(), f"CREATE DATABASE {name}")
            leaving.callback(sql, server.url(), f"DROP DATABASE {name}")
        silent = leaving.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        dead = f"rabbit://u:p@127.0.0.1:{silent.getsockname()[1]}/c1"

        def cell(name: str) -> dict[str, Any]:
            child = name.removeprefix("fleet_")
            url = server.url(name).render_as_string(hide_password=False)
            return {"name": child, "database": url, "broker": dead if child in DEAD else rabbit.url("c1")}

        config = {"parent": cell(names[0]), "children": [cell(name) for name in names[1:]]}
        file = tmp_path / "cellsync.yaml"
        file.write_text(json.dumps({**config, "rules": ["nova-cells-v1"]}))
        yield file


def test_two_hundred_children_are_checked_within_three_time_outs(fleet: Path) -> None:
    """With the default time-out; exactly the 20 are named."""
    timeout = 3.0
    deployment = Deployment(urls={}, folder=fleet.parent)
    started = time.monotonic()
    done = deployment.process("cells", "check", "--format", "json")
    assert time.monotonic() - started < timeout * len(DEAD) / 2
    found = statuses(done)
    assert len(found) == CHILDREN + 1
    assert [name for name, (_, broker) in found.items() if broker != ["ok"]] == [*DEAD]
    assert {broker[0] for _, broker in found.values()} == {"ok", "timeout"}
    assert {database for database, _ in found.values()} == {"ok"}
    assert done.code == 4


def test_cells_without_brokers_are_checked_too(cells: Deployment) -> None:
    """Any parent and children with a rule file: databases without a table of cells."""
    done = cells.run(*CHECK, "--format", "json")
    assert (done.code, statuses(done)) == (0, {name: ("ok", []) for name in ("parent", "c1", "c2")})
    assert with_tables(cells).run(*CHECK).code == 4
