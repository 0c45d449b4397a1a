"""A child whose broker lives and whose nova-cells does not: it hangs the parent as a dead broker does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment, Done
from listening import NovaCells, listening, nova_cells
from rabbitmq import RabbitMQ, free_port
from registered import as_row, brokers_of, registered, rows

pytestmark = pytest.mark.slow

CHECK = ("cells", "check", "--timeout", "1", "--format", "json")
QUEUES = [
    "cells",
    "cells.intercell.targeted",
    "cells.intercell.broadcast",
    "cells.intercell.response",
]


@pytest.fixture
def running(rabbit: RabbitMQ, other_rabbit: RabbitMQ) -> Iterator[dict[str, NovaCells]]:
    """Run nova-cells of every cell, as far as brokers see it."""
    places = {"parent": (rabbit, "parent"), "c1": (rabbit, "c1"), "c2": (other_rabbit, "c2")}
    with listening(places) as found:
        yield found


@pytest.fixture
def known(
    cells: Deployment, rabbit: RabbitMQ, other_rabbit: RabbitMQ, running: dict[str, NovaCells]
) -> Deployment:
    """Give registered cells whose nova-cells all listen."""
    urls = {"parent": rabbit.url("parent"), "c1": rabbit.url("c1"), "c2": other_rabbit.url("c2")}
    return brokers_of(registered(cells, urls), parent=rabbit.url("parent"))


def c2(done: Done) -> dict[str, Any]:
    """Return what a check says of c2."""
    found: dict[str, Any] = done.cell("c2")
    return found


def test_a_killed_nova_cells_is_a_status_of_its_own(known: Deployment, running: dict[str, NovaCells]) -> None:
    """The broker answers, exit code 4; the other cells are sound, and this one is when it is back."""
    running["c2"].kill()
    done = known.run(*CHECK)
    assert (done.code, [host["status"] for host in c2(done)["broker"]]) == (4, ["ok"])
    assert c2(done)["nova_cells"] == {"status": "silent", "silent_queues": QUEUES, "waiting": 0}
    assert [done.cell(name)["nova_cells"]["status"] for name in ("parent", "c1")] == ["ok", "ok"]
    text = known.run(*CHECK[:-2]).out
    assert "nova-cells silent: nobody takes messages from cells, cells.intercell.targeted" in text
    assert "every database and broker answers" not in text
    running["c2"].start()
    assert known.run(*CHECK).code == 0


def test_a_nova_cells_that_never_came_is_silent_too(
    known: Deployment, other_rabbit: RabbitMQ, running: dict[str, NovaCells]
) -> None:
    """After the broker was restarted its queues are gone."""
    running["c2"].kill()
    other_rabbit.kill()
    other_rabbit.recover()
    done = known.run(*CHECK)
    assert (done.code, c2(done)["nova_cells"]["status"]) == (4, "silent")


def test_the_parents_own_nova_cells_is_looked_at(known: Deployment, running: dict[str, NovaCells]) -> None:
    """Nobody can be isolated for it."""
    running["parent"].kill()
    done = known.run(*CHECK, "--isolate", "--silent-after", "1")
    assert (done.code, done.cell("parent")["nova_cells"]["status"]) == (4, "silent")
    assert rows(known, "parent", "deleted <> 0") == []


def test_silent_checks_are_counted_apart_from_failed_ones(
    known: Deployment, running: dict[str, NovaCells]
) -> None:
    """--silent-after isolates, --restore-after brings back when somebody listens again; one line each."""

    def said(*options: str) -> str:
        asked = ("--isolate", "--after", "1", "--silent-after", "2", "--restore-after", "2", *options)
        return str(c2(known.run(*CHECK, *asked))["decided"] or "")

    assert said() == ""
    running["c2"].kill()
    assert said() == "c2: nobody took messages at its broker once in a row; isolated at 2"
    assert "2 times in a row: isolated (dry run)" in said("--dry-run")
    running["c2"].start()
    assert said() == ""
    running["c2"].kill()
    assert "once in a row" in said()
    assert rows(known, "parent", "deleted <> 0") == []
    assert "2 times in a row: isolated (run" in said()
    assert rows(known, "parent", "name = 'c2' AND deleted = id") != []
    assert said() == ""
    running["c2"].start()
    assert "answered once in a row; restored at 2" in said()
    assert "2 times in a row: restored (run" in said()
    assert rows(known, "parent", "deleted <> 0") == []


def test_a_broker_whose_queues_were_never_seen_isolates_nobody(
    known: Deployment, other_rabbit: RabbitMQ, running: dict[str, NovaCells]
) -> None:
    """They may have other names ([cells] rpc_driver_queue_base): silent, exit code 4, and not isolated."""
    running["c2"].kill()
    other_rabbit.kill()
    other_rabbit.recover()
    isolating = (*CHECK, "--isolate", "--silent-after", "1")
    for _ in range(2):
        done = known.run(*isolating)
        assert (done.code, c2(done)["decision"], c2(done)["isolated"]) == (4, None, False)
        assert "no queue of nova-cells was ever seen at its broker" in c2(done)["decided"]
    running["c2"].start()
    assert known.run(*isolating).code == 0
    running["c2"].kill()
    other_rabbit.kill()
    other_rabbit.recover()
    assert c2(known.run(*isolating))["decision"] == "isolated"


def test_queues_of_other_names_are_no_silence(
    known: Deployment, other_rabbit: RabbitMQ, running: dict[str, NovaCells]
) -> None:
    """A nova-cells with another rpc_driver_queue_base takes the messages of its own services as ever."""
    running["c2"].kill()
    other_rabbit.kill()
    other_rabbit.recover()
    with nova_cells(other_rabbit, "c2", ["cells"]):
        assert known.run(*CHECK).code == 0
        assert trace(known).report["hanging"] == []


def test_silent_after_needs_isolate(known: Deployment) -> None:
    """A number that does nothing is a mistake."""
    assert known.run(*CHECK, "--silent-after", "3").code == 2


def test_restore_objects_while_nobody_listens(known: Deployment, running: dict[str, NovaCells]) -> None:
    """With its row back the parent would hang; a waiver lifts it, and nova-cells lifts it."""
    assert known.run("cells", "isolate", "c2", "--yes").code == 0
    running["c2"].kill()
    refused = known.run("cells", "restore", "c2", "--yes")
    assert (refused.code, "silent" in refused.out) == (3, True)
    assert "nobody takes messages from cells, cells.intercell.targeted" in refused.out
    assert "start nova-cells of c2 first" in refused.out
    assert known.run("cells", "restore", "c2", "--dry-run", "--waive", "silent").code == 0
    running["c2"].start()
    done = known.run("cells", "restore", "c2", "--yes")
    assert done.code == 0, done.said
    assert "nova-cells of parent reads its table every 60 s (db_check_interval)" in done.out
    assert rows(known, "parent", "deleted <> 0") == []
    # Until the parent's nova-cells has read the row, requests do not get there, however sound all is.
    traced = known.json("trace", "c2", "--timeout", "1").report
    [hop] = [each for each in traced["hops"] if each["hop"] == "child-row"]
    assert hop["status"] == "warn"
    assert re.search(
        r"it was written \d+ s ago, and nova-cells of parent may not have read it yet", hop["evidence"]
    )
    assert hop["advice"] == "wait: it reads its table every 60 s"
    other = known.json("trace", "c1", "--timeout", "1").report
    assert [each["status"] for each in other["hops"] if each["hop"] == "child-row"] == ["ok"]


# -- trace ---------------------------------------------------------------------------------------


def trace(known: Deployment) -> Done:
    """Trace c1, which is sound, for its JSON."""
    known.repair("c1")
    return known.run("trace", "c1", "--timeout", "1", "--format", "json")


def test_a_trace_names_another_child_whose_nova_cells_is_silent(
    known: Deployment, running: dict[str, NovaCells]
) -> None:
    """Every hop of c1 is sound, and requests to all cells hang all the same."""
    sound = trace(known)
    assert sound.report["hanging"] == []
    running["c2"].kill()
    done = trace(known)
    (hanging,) = done.report["hanging"]
    assert (done.code, done.report["exit_code"], hanging["cell"]) == (4, 4, "c2")
    assert "nobody takes messages from cells.intercell.targeted" in hanging["evidence"]
    assert hanging["advice"].startswith("cellsync cells isolate c2 now")
    text = known.run("trace", "c1", "--timeout", "1").out
    assert "requests to all cells hang with c2: nobody takes messages from" in text
    assert "every hop is sound\n" not in text
    assert known.run("cells", "isolate", "c2", "--yes").code == 0
    assert trace(known).report["hanging"] == []


def test_a_trace_names_another_child_whose_broker_is_dead(known: Deployment) -> None:
    """By the rows of the parent: nova-cells waits for a child that cellsync.yaml does not have, too."""
    address = f"127.0.0.1:{free_port()}"
    gone = as_row(f"rabbit://u:hunter2@{address}/old")
    known.sql(
        "parent", "UPDATE cells SET name = 'old', transport_url = :broker WHERE name = 'c2'", broker=gone
    )
    done = trace(known)
    (hanging,) = done.report["hanging"]
    assert (hanging["cell"], hanging["evidence"]) == ("old", f"{address}: refused: nothing listens there")
    assert "hunter2" not in done.said


def test_a_report_says_that_nova_cells_is_silent(
    known: Deployment, running: dict[str, NovaCells], tmp_path: Path
) -> None:
    """In the picture's edge, in the table of what answers, and as the first thing to do."""
    running["c2"].kill()
    page = tmp_path / "report.html"
    assert known.run("report", "-o", str(page), "--timeout", "1").code == 4
    text = page.read_text(encoding="utf-8")
    assert "nova-cells silent: nobody takes messages from cells, cells.intercell.targeted" in text
    assert "its nova-cells takes no messages, and the parent hangs with it; then start that" in text
    report = known.run("report", "--timeout", "1", "--format", "json").report
    assert {each["cell"]: each["state"] for each in report["edges"]}["c2"] == "services_down"
