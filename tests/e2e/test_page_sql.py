"""The SQL of a page's cards: run one by one it is the repair, and its undo takes all of it back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from html import unescape

import pytest
import sqlalchemy as sa
from deployment import Deployment
from replaying import client
from servers import checksums
from test_html import Page
from test_peers import holding

RULES = (
    "--rule",
    "aggregate-metadata",
    "--rule",
    "aggregate-hosts",
    "--rule",
    "flavors",
    "--rule",
    "key-pairs",
)
SHOWN = "secrets: {show: [public_key]}\n"


def statements(page: str) -> Sequence[tuple[str, str]]:
    """Return what a reader copies from the cards: statement and undo, in their order."""
    cards = re.findall(r'<details class="sql">.*?</details>', page, re.S)
    copied = [[unescape(each) for each in re.findall(r"<pre>(.*?)</pre>", card, re.S)] for card in cards]
    return [(forward, backward) for forward, backward in copied]


def run(url: str, statement: str) -> subprocess.CompletedProcess[str]:
    """Give one statement to the mariadb client."""
    command, environment = client(url)
    return subprocess.run(
        command, input=statement, env=environment, capture_output=True, text=True, check=False
    )


def test_the_cards_of_a_page_are_the_repair_and_its_undo(cells: Deployment) -> None:
    """In the order of the page; a statement is one row, and a second time none."""
    with cells.config.open("a", encoding="utf-8") as file:
        file.write(SHOWN)
    cells.sql("c1", "UPDATE key_pairs SET public_key = 'ssh-rsa old', updated_at = NULL")
    before = checksums(cells.urls["c1"])
    copied = statements(cells.run("report", "c1", *RULES, "--timeout", "1").out)
    found = cells.json("diff", "c1", *RULES).cell("c1")["changes"]["planned"]
    assert len(copied) == found > 15
    for forward, _ in copied:
        assert run(cells.urls["c1"], forward).returncode == 0
    assert cells.json("diff", "c1", *RULES).cell("c1")["changes"]["planned"] == 0
    after = checksums(cells.urls["c1"])
    for forward, _ in copied:
        assert run(cells.urls["c1"], forward).returncode == 0
    assert checksums(cells.urls["c1"]) == after != before
    for _, backward in reversed(copied):
        assert run(cells.urls["c1"], backward).returncode == 0
    assert checksums(cells.urls["c1"]) == before


def test_a_statement_without_its_secret_cannot_be_run(cells: Deployment) -> None:
    """Neither it nor its undo; both say which column is not shown, and nothing is written."""
    cells.repair("c1")
    cells.sql("c1", "UPDATE key_pairs SET public_key = 'ssh-rsa 0ld-s3cret'")
    before = checksums(cells.urls["c1"])
    page = cells.run("report", "c1", "--rule", "key-pairs", "--timeout", "1").out
    copied = statements(page)
    assert len(copied) == len(re.findall("cannot be run as it stands: public_key is not shown", page)) / 2 > 0
    assert "s3cret" not in page
    for statement in (each for pair in copied for each in pair):
        assert "<not shown>" in statement
        done = run(cells.urls["c1"], statement)
        assert (done.returncode, "You have an error in your SQL syntax" in done.stderr) == (1, True)
    assert checksums(cells.urls["c1"]) == before


def test_what_has_no_sql_says_why(cells: Deployment) -> None:
    """Refused by a guard, reported only, accepted, and what is set aside."""
    with cells.config.open("a", encoding="utf-8") as file:
        file.write("accept: [{cell: c2, rule: aggregates, key: {name: local-only}, why: a lab}]\n")
    cells.sql("c1", "CREATE TRIGGER t AFTER INSERT ON aggregates FOR EACH ROW SET @made = NEW.id")
    cells.sql("c2", "INSERT INTO aggregates (id, name, deleted) VALUES (78, 'west', 0)")
    page = Page(cells.run("diff", "--format", "html").out).text
    for said in (
        "A repair would insert it, as parent has it, but is refused (triggers); so it has no SQL",
        "A repair would leave it: it is only reported; so it has no SQL",
        "A repair leaves it: it is accepted, a lab; so it has no SQL",
        "A repair leaves it: it refers to west of aggregates, which was set aside: see the findings; so it",
    ):
        assert said in page
    assert "cellsync repair c1 --rule aggregates" not in page


@pytest.mark.parametrize(
    "verb", [("diff",), ("plan",), ("repair", "--dry-run"), ("repair", "--yes")], ids=" ".join
)
def test_every_page_has_the_sql(cells: Deployment, verb: tuple[str, ...]) -> None:
    """That of a deletion's undo needs the whole row, which is read before it is written."""
    own = cells.rule_file(
        "pack: own\nwhy: keys\nrules:\n  - id: pairs\n    table: key_pairs\n    key: [user_id, name]\n"
        "    on_extra: delete\n    columns: {include: [fingerprint]}\n"
    )
    own.sql("c1", "INSERT INTO key_pairs (user_id, name, fingerprint, deleted) VALUES ('u9', 'k9', 'f9', 0)")
    copied = statements(own.run(*verb, "c1", "--format", "html").out)
    [undo] = [backward for forward, backward in copied if forward.startswith("DELETE")]
    names = [name for (name, *_) in own.sql("c1", "SHOW COLUMNS FROM key_pairs")]
    assert undo.startswith("INSERT INTO `key_pairs` (") and all(f"`{name}`" in undo for name in names)


def test_the_page_of_a_repair_tells_what_was_written_from_what_was_not(cells: Deployment) -> None:
    """A conflict has its reason in the place of SQL, beside rows of the same table that were written."""
    cells.repair("c1")
    plan = cells.folder / "plan.json"
    cells.sql("c1", "UPDATE instance_types SET memory_mb = 7 WHERE flavorid IN ('c1s', 'prv-l')")
    cells.sql("c1", "DELETE FROM key_pairs")
    cells.run("plan", "c1", "--rule", "flavors", "--rule", "key-pairs", "-o", str(plan))
    cells.sql("c1", "UPDATE instance_types SET memory_mb = 8 WHERE flavorid = 'c1s'")
    done = cells.run("repair", "--yes", "--plan", str(plan), "--format", "html")
    text = Page(done.out).text
    assert done.code == 4
    assert re.search(
        r"flavorid=c1s since .{,200} The repair has not written it: conflict: .{,200} no SQL", text
    )
    assert re.search(r"flavorid=prv-l since .{,200} The repair has updated it SQL and undo", text)
    assert re.search(r"name=key0 since .{,200} The repair has inserted it SQL and undo", text)
    assert "1 row missing; repaired" in text  # key-pairs, in the table of features


def test_a_repair_that_did_not_begin_has_no_sql(cells: Deployment) -> None:
    """Another run holds the lock: nothing reads as if it had been written."""
    url = cells.urls["c1"]
    with holding(url, f"SELECT GET_LOCK('cellsync\\:{sa.make_url(url).database}', 0)"):
        done = cells.run("repair", "c1", "--yes", "--rule", "key-pairs", "--format", "html")
    text = Page(done.out).text
    assert done.code == 5
    assert "The repair has not written it: " in text and "; so it has no SQL" in text
    assert "has inserted it" not in text and "; repaired" not in text


def test_the_json_of_a_report_has_the_statements(cells: Deployment) -> None:
    """With the row that each is about; secrets are left out of it, too."""
    found: list[Mapping[str, object]] = cells.json("report", "c1", "--timeout", "1").report["statements"]
    page = cells.run("report", "c1", "--timeout", "1").out
    assert [f"{each['sql']};\n" for each in found] == [forward for forward, _ in statements(page)]
    keys = [each for each in found if each["rule"] == "key-pairs"]
    assert keys and all("<not shown>" in str(each["sql"]) for each in keys)
    assert {each["sql_note"] for each in keys} == {"it cannot be run as it stands: public_key is not shown"}
    [west] = [each for each in found if each["key"] == {"name": "west"}]
    assert (west["cell"], west["written"], west["together"], west["undo_note"]) == ("c1", "c1", False, None)
    assert str(west["undo"]).startswith("DELETE FROM `aggregates`")
