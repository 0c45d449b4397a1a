"""What a login may do: look with SELECT alone, and write only where the journal can be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from deployment import Deployment
from listening import listening
from rabbitmq import RabbitMQ
from registered import configured, registered
from servers import Server, load, sql

from cellsync import journal

PASSWORD = "read-0nly"

Login = Callable[..., Deployment]


@pytest.fixture
def login(cells: Deployment, server: Server) -> Iterator[Login]:
    """Give the deployment seen by a user with these rights on its databases, and on the journal."""

    def login(rights: str, *, on_journal: str = "") -> Deployment:
        sql(server.url(), f"CREATE USER 'narrow'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        for url in cells.urls.values():
            schema = sa.make_url(url).database
            sql(server.url(), f"GRANT {rights} ON `{schema}`.* TO 'narrow'@'127.0.0.1'")
        if on_journal:
            sql(server.url(), f"GRANT {on_journal} ON cellsync.* TO 'narrow'@'127.0.0.1'")
        narrow = {
            cell: sa.make_url(url).set(username="narrow", password=PASSWORD)
            for cell, url in cells.urls.items()
        }
        return cells.configure(
            urls={cell: url.render_as_string(hide_password=False) for cell, url in narrow.items()}
        )

    yield login
    sql(server.url(), "DROP USER IF EXISTS 'narrow'@'127.0.0.1'")


def test_a_user_who_may_only_select_can_diff(cells: Deployment, login: Login) -> None:
    """A comparison needs no other right, and says the same."""
    expected = cells.json("diff").counts()
    done = login("SELECT").json("diff")
    assert done.code == 1
    assert done.counts() == expected
    assert cells.journals() == {"parent": {}, "c1": {}, "c2": {}}


def test_a_repair_without_a_journal_is_refused_with_the_sql(cells: Deployment, login: Login) -> None:
    """Exit 3, the statements for the administrator, nothing written; once run, the repair goes."""
    before = cells.checksums()
    narrow = login("SELECT, INSERT, UPDATE, DELETE")
    done = narrow.repair()
    assert done.code == 3
    assert cells.checksums() == before
    for cell in done.report["cells"]:
        (refusal,) = cell["refusals"]
        assert refusal["code"] == "journal"
        assert refusal["waive"] is None
        assert journal.sql("'narrow'@'127.0.0.1'") in refusal["message"]
        assert cell["status"] == "refused"
    text = narrow.run("repair", "--yes")
    assert text.code == 3
    assert "GRANT SELECT, INSERT, UPDATE" in text.out
    assert "\\t" not in text.out  # what is shown can be pasted into a client
    assert "--waive" not in text.out
    assert text.out.count("CREATE DATABASE") == 2  # once for each server that needs it, not for each rule

    printed = narrow.run("history", "--init", "--print-sql")
    assert printed.code == 0
    load(cells.urls["parent"], printed.out)
    assert [cell["status"] for cell in narrow.repair().report["cells"]] == ["repaired", "repaired"]


@pytest.mark.parametrize("way", ["repair", "undo"])
def test_the_printed_statements_and_the_rights_on_the_data_are_enough(
    way: str, cells: Deployment, login: Login
) -> None:
    """Each with no more than it needs: a repair that deletes nothing does without DELETE, an undo not."""
    cells.run("diff")
    before = cells.checksums()
    narrow = login("SELECT, INSERT, UPDATE" + (", DELETE" if way == "undo" else ""))
    printed = narrow.run("history", "--init", "--print-sql").out
    load(cells.urls["parent"], printed)
    done = narrow.repair()
    assert {cell["status"] for cell in done.report["cells"]} == {"repaired"}
    again = narrow.json("undo", done.report["run"], "--yes")
    if way == "undo":
        assert (again.code, cells.checksums()) == (0, before)
    else:
        assert again.code == 3
        assert "DELETE command denied" in again.out
        assert narrow.repair().code == 1  # nothing was taken back, not even half


def test_a_repair_by_a_reader_writes_nothing(cells: Deployment, login: Login) -> None:
    """SELECT on everything, the journal included, is not enough to write: refused, nothing done."""
    cells.repair("c1", "--rule", "flavors")
    before, journals = cells.checksums(), cells.journals()
    done = login("SELECT", on_journal="SELECT").repair()
    assert done.code in (3, 4)
    assert "denied" in done.out
    assert (cells.checksums(), cells.journals()) == (before, journals)


def test_a_repair_without_the_right_to_insert_writes_nothing(cells: Deployment, login: Login) -> None:
    """The journal may be written, the tables may not: said before the first write, exit 3."""
    cells.repair("c1", "--rule", "flavors")
    before = cells.checksums()
    done = login("SELECT", on_journal="SELECT, INSERT, UPDATE").repair()
    assert done.code in (3, 4)
    assert "INSERT" in done.out
    assert cells.checksums() == before


# -- docs/security.rst: who needs what -----------------------------------------------------------

LOOK = "SELECT, REFERENCES"
WRITE = "INSERT, UPDATE, DELETE"
KEPT = "SELECT, INSERT, UPDATE, DELETE"
AGGREGATES = ("aggregates", "aggregate_metadata", "aggregate_hosts")

Admit = Callable[..., Deployment]


@pytest.fixture
def admit(known: Deployment, server: Server) -> Iterator[Admit]:
    """Give the cells seen by a user of its own, who may do just what the lines ("SELECT ON c1.cells") say."""
    user = "'least'@'127.0.0.1'"

    def admit(*lines: str) -> Deployment:
        for line in lines:
            right, _, place = line.partition(" ON ")
            cell, _, table = place.partition(".")
            schema = sa.make_url(known.urls[cell]).database if cell in known.urls else cell
            sql(server.url(), f"GRANT {right} ON `{schema}`.{table or '*'} TO {user}")
        return known

    sql(server.url(), f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
    yield admit
    sql(server.url(), f"DROP USER {user}")


@pytest.fixture
def known(cells: Deployment, rabbit: RabbitMQ) -> Iterator[Deployment]:
    """Give registered cells whose cell file has the login of ``admit``; the journal has been made."""
    assert cells.repair("c1", "--rule", "key-pairs").code == 0
    registered(cells, {name: rabbit.url(name) for name in cells.urls})
    least = {
        name: sa.make_url(url).set(username="least", password=PASSWORD).render_as_string(hide_password=False)
        for name, url in cells.urls.items()
    }
    with listening({name: (rabbit, name) for name in least}):
        yield configured(
            cells,
            **{name: {"database": url, "broker": rabbit.url(name)} for name, url in least.items()},
        )


EVERYWHERE = ("parent", "c1", "c2")
LOOKING = tuple(f"{LOOK} ON {cell}" for cell in EVERYWHERE)
REGISTERING = (
    *(f"SELECT ON {cell}" for cell in EVERYWHERE),
    f"{WRITE} ON parent.cells",
    f"{KEPT} ON cellsync",
)


def test_looking_needs_no_right_to_write(admit: Admit) -> None:
    """Every command that writes nothing; with SELECT on the journal those too that read it."""
    cells = admit(*LOOKING)
    for code, *command in (
        (1, "diff"),
        (1, "plan"),
        (0, "schema"),
        (1, "explain", "availability-zones"),
        (0, "cells", "list"),
        (0, "cells", "check"),
        (1, "repair", "--dry-run", "--rule", "aggregates"),
    ):
        done = cells.run(*map(str, command))
        assert done.code == code, (command, done.said)
    assert "denied" not in cells.run("trace", "c1").said
    assert cells.json("history").report == {"version": 1, "runs": [], "unseen": ["parent", "c1", "c2"]}
    admit("SELECT ON cellsync")
    assert len(cells.json("history").report["runs"]) == 1
    assert "denied" not in cells.run("report", "--format", "text").said


HIDDEN = "no journal is seen in parent, c1 and c2: either no run ever wrote there, or it is hidden"
GRANT = "GRANT SELECT ON cellsync.* to it"


@pytest.mark.parametrize("made", [True, False])
def test_a_hidden_journal_is_not_an_empty_one(made: bool, admit: Admit, server: Server) -> None:
    """To a login without SELECT on it both look alike: every command that looks back says so."""
    cells = admit(*LOOKING)
    if not made:
        sql(server.url(), "DROP DATABASE cellsync")
    for command in (["history"], ["history", "--since", "7d"], ["history", "--repeated"]):
        done = cells.run(*command)
        assert (done.code, HIDDEN in done.err, GRANT in done.err) == (0, True, True), (command, done.said)
        assert done.out.startswith("as far as journals are seen, no r"), command
        assert cells.json(*command).report["unseen"] == ["parent", "c1", "c2"]
    done = cells.run("history", "--prune", "--keep", "0h", "--yes")
    assert (done.code, done.out, HIDDEN in done.err) == (0, "", True)
    for command in (["undo", "20261123-184546-2e43", "--yes"], ["history", "20261123-184546-2e43"]):
        done = cells.run(*command)
        assert (done.code, HIDDEN in done.err, GRANT in done.err) == (2, True, True), (command, done.said)
    cells.sql("parent", "DELETE FROM cells WHERE name = 'c2'")  # as when Nova has archived it
    done = cells.run("cells", "restore", "c2", "--yes")
    assert (done.code, "no journal is seen in parent: " in done.err) == (2, True), done.said
    for option in ([], ["--since", "7d"]):
        text = cells.run("report", "--format", "text", *option).out
        assert (HIDDEN in text, "\n  no run has written" in text) == (True, False)
        assert HIDDEN in cells.run("report", *option).out
        report = cells.json("report", *option).report
        assert (report["runs"], report["unread"], report["unseen"]) == ([], {}, ["parent", "c1", "c2"])
        assert not option or report["course"]["unseen"] == report["unseen"]


@pytest.mark.parametrize("right", ["SELECT ON cellsync", "SELECT ON cellsync.format", "role"])
def test_a_login_that_could_see_a_journal_is_told_that_there_is_none(
    right: str, admit: Admit, server: Server
) -> None:
    """By a right on the schema, on a table of it, or through a role: nothing is unseen, and nothing said."""
    cells = admit(*LOOKING)
    sql(server.url(), "CREATE ROLE IF NOT EXISTS keeper")
    try:
        if right == "role":
            sql(server.url(), "GRANT SELECT ON cellsync.* TO keeper")
            sql(server.url(), "GRANT keeper TO 'least'@'127.0.0.1'")
            sql(server.url(), "SET DEFAULT ROLE keeper FOR 'least'@'127.0.0.1'")
        else:
            admit(right)
        sql(server.url(), "DROP DATABASE cellsync")
        done = cells.run("history")
        assert (done.code, done.out, done.err) == (0, "no run has written anything yet\n", "")
        assert cells.json("history").report == {"version": 1, "runs": [], "unseen": []}
        assert cells.json("report").report["unseen"] == []
        assert "no journal is seen" not in cells.run("report").out
        assert cells.run("undo", "20261123-184546-2e43", "--yes").err.endswith("lists the runs\n")
    finally:
        sql(server.url(), "DROP ROLE keeper")


def test_an_undo_says_which_journals_it_could_not_see(cells: Deployment, server: Server) -> None:
    """What the run wrote there is not taken back, and may be there; the rest is."""
    before = cells.checksums()
    done = cells.repair("c1", "--rule", "flavors")
    user = "'blind'@'127.0.0.1'"
    url = sa.make_url(cells.urls["c2"])
    try:
        sql(server.url(), f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
        sql(server.url(), f"GRANT SELECT ON `{url.database}`.* TO {user}")
        blind = url.set(username="blind", password=PASSWORD).render_as_string(hide_password=False)
        cells.configure(urls={**cells.urls, "c2": blind})
        again = cells.json("undo", str(done.report["run"]), "--yes")
        assert (again.code, cells.checksums()) == (0, before)
        (note,) = again.report["notes"]
        assert note.startswith("no journal is seen in c2: either no run ever wrote there, or it is hidden")
    finally:
        sql(server.url(), f"DROP USER {user}")


def test_a_repair_and_its_undo_need_the_tables_that_they_write(admit: Admit) -> None:
    """Rights on three tables are enough for availability zones; without the journal nothing goes."""
    tables = [f"{WRITE} ON {cell}.{table}" for cell in ("c1", "c2") for table in AGGREGATES]
    cells = admit(*LOOKING, *tables)
    asked = ("--rule", "aggregate-metadata", "--rule", "aggregate-hosts")
    before = cells.checksums()
    assert cells.repair(*asked).code == 3
    admit(f"{KEPT} ON cellsync")
    done = cells.repair(*asked)
    assert {cell["changes"]["failed"] for cell in done.report["cells"]} == {0}
    assert all(cell["changes"]["applied"] for cell in done.report["cells"])
    assert cells.checksums() != before
    assert cells.run("undo", str(done.report["run"]), "--yes").code == 0
    assert cells.checksums() == before
    assert cells.repair("--rule", "flavors").code in (3, 4)
    assert cells.checksums() == before


def test_isolating_needs_the_parents_table_of_cells_alone(admit: Admit) -> None:
    """By hand, and back."""
    cells = admit(*REGISTERING)
    assert cells.run("cells", "isolate", "c2", "--yes").code == 0
    assert cells.run("cells", "restore", "c2", "--yes").code == 0


def test_a_check_that_isolates_keeps_count_in_the_journal(admit: Admit) -> None:
    """Its table there is made by the first one, which needs CREATE."""
    cells = admit(*REGISTERING)
    check = ("cells", "check", "--isolate", "--timeout", "1")
    assert cells.run(*check).code == 4
    admit("CREATE, INDEX ON cellsync")
    assert cells.run(*check).code == 0


def test_registering_needs_the_same_on_both_sides(admit: Admit) -> None:
    """A row in the parent, and one in the child."""
    cells = admit(*REGISTERING)
    cells.sql("parent", "DELETE FROM cells WHERE name = 'c2'")
    cells.sql("c2", "DELETE FROM cells")
    assert cells.run("cells", "create", "c2", "--yes").code != 0
    admit(f"{WRITE} ON c2.cells")
    assert cells.run("cells", "create", "c2", "--yes").code == 0
    cells.sql("parent", "UPDATE instances SET deleted = id")
    cells.sql("c2", "UPDATE instances SET deleted = id")
    assert cells.run("cells", "delete", "c2", "--yes").code == 0


def test_forgetting_needs_to_delete(admit: Admit) -> None:
    """And to read."""
    cells = admit("SELECT ON cellsync", *(f"SELECT ON {cell}" for cell in EVERYWHERE))
    prune = ("history", "--prune", "--keep", "0h", "--yes")
    assert cells.run(*prune).code == 4
    admit("DELETE ON cellsync")
    assert cells.run(*prune).code == 0
    assert cells.journal("c1")["changes"] == []


def test_the_printed_grants_name_the_login_of_each_cell(
    cells: Deployment, login: Login, tmp_path: Path
) -> None:
    """One for each login; a cell that does not answer is named, and without a configuration so is the gap."""
    urls = dict(cells.urls)
    narrow = login("SELECT")
    printed = narrow.run("history", "--init", "--print-sql")
    assert (printed.code, printed.out) == (0, journal.sql("'narrow'@'127.0.0.1'"))

    mixed = {**narrow.urls, "c1": urls["c1"]}
    printed = cells.configure(urls=mixed).run("history", "--init", "--print-sql")
    assert printed.code == 0
    assert "-- 'narrow'@'127.0.0.1' is the login of parent, c2.\n" in printed.out
    assert printed.out.endswith(journal.sql("'narrow'@'127.0.0.1'", "'cellsync'@'127.0.0.1'"))

    dead = sa.make_url(urls["c1"]).set(port=1).render_as_string(hide_password=False)
    printed = cells.configure(urls={**narrow.urls, "c1": dead}).run("history", "--init", "--print-sql")
    assert printed.code == 4
    assert "-- c1 could not be asked for its login" in printed.out
    assert "unreachable" in printed.err

    empty = tmp_path / "empty"
    empty.mkdir()
    without = subprocess.run(
        [sys.executable, "-m", "cellsync", "history", "--init", "--print-sql"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert without.stdout.startswith(
        "-- There is no cellsync.yaml: put the login of cellsync in the place of "
    )
    assert without.stdout.endswith(journal.sql("'cellsync'@'%'"))
