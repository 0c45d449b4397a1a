"""What a login may do: look with SELECT alone, and write only where the journal can be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from deployment import Deployment
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
        assert journal.sql() in refusal["message"]
        assert cell["status"] == "refused"
    text = narrow.run("repair", "--yes")
    assert text.code == 3
    assert "GRANT SELECT, INSERT, UPDATE" in text.out
    assert "\\t" not in text.out  # what is shown can be pasted into a client
    assert "--waive" not in text.out
    assert text.out.count("CREATE DATABASE") == 2  # once for each server that needs it, not for each rule

    printed = narrow.run("history", "--init", "--print-sql")
    assert printed.code == 0
    load(cells.urls["parent"], printed.out.replace("'cellsync'@'%'", "'narrow'@'127.0.0.1'"))
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
    load(cells.urls["parent"], printed.replace("'cellsync'@'%'", "'narrow'@'127.0.0.1'"))
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
