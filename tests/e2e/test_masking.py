"""Secret columns: no output of any verb shows them, and they are compared and written all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployment import Deployment

OLD, NEW = "ssh-rsa 0ld-s3cret", "ssh-rsa n3w-s3cret"


@pytest.fixture
def keyed(cells: Deployment) -> Deployment:
    """Give cells in step, but for a public key that is another one in c1, and one that c2 lacks."""
    cells.repair()
    cells.sql("parent", "UPDATE key_pairs SET public_key = :new", new=NEW)
    cells.sql("c1", "UPDATE key_pairs SET public_key = :old", old=OLD)
    cells.sql("c2", "DELETE FROM key_pairs")
    return cells


def secrets(deployment: Deployment, text: str) -> None:
    """Add a line about secrets to the cell file."""
    with deployment.config.open("a", encoding="utf-8") as file:
        file.write(f"secrets: {text}\n")


OUTPUTS = [
    *(("diff", "-v", "--format", each) for each in ("text", "json", "jsonl", "html")),
    *(("plan", "-v", "--format", each) for each in ("text", "json", "html")),
    *(("repair", "--dry-run", "-v", "--format", each) for each in ("text", "json", "html")),
    *(("report", "-v", "--format", each) for each in ("text", "json", "html")),
]


@pytest.mark.parametrize("verb", OUTPUTS, ids=" ".join)
def test_no_output_shows_a_secret(keyed: Deployment, verb: tuple[str, ...]) -> None:
    """That it differs is shown; and with `show` in the configuration, what it is."""
    rules = ("--rule", "key-pairs")
    done = keyed.run(*verb, *rules)
    assert "s3cret" not in done.said
    assert "public_key" in done.out and "(not shown)" in done.out
    secrets(keyed, "{show: [key_pairs.public_key]}")
    shown = keyed.run(*verb, *rules)
    assert "n3w-s3cret" in shown.out and "0ld-s3cret" in shown.out
    assert shown.code == done.code


def test_a_secret_is_written_and_not_told(keyed: Deployment) -> None:
    """A repair, its journal's changes, and the undo."""
    done = keyed.run("repair", "--yes", "-v", "--rule", "key-pairs")
    pairs = {cell: keyed.sql(cell, "SELECT public_key FROM key_pairs") for cell in ("c1", "c2")}
    assert pairs == {"c1": [(NEW,)], "c2": [(NEW,)]}
    history = keyed.run("history", keyed.last_run(), "-v")
    undone = keyed.run("undo", keyed.last_run(), "--yes", "-v")
    assert keyed.sql("c1", "SELECT public_key FROM key_pairs") == [(OLD,)]
    assert "s3cret" not in done.said + history.said + undone.said
    assert "(not shown)" in history.out


def test_the_sentences_of_a_rule_tell_no_secret(keyed: Deployment, tmp_path: Path) -> None:
    """A saying may name the column, or what was there; hidden columns stay hidden in it."""
    own = keyed.rule_file(
        "pack: own\nwhy: keys\nrules:\n"
        "  - id: pairs\n    table: key_pairs\n    key: [user_id, name]\n"
        "    columns: {include: [public_key, fingerprint]}\n"
        "    says: [{changed: '{name} is {public_key}: {was}, not {now}', missing: 'no {public_key}'}]\n"
    )
    said = own.run("diff").out
    assert "s3cret" not in said
    assert "key0 is (not shown): (not shown), not (not shown)" in said
    secrets(own, '{show: [public_key], hide: ["*print"]}')
    said = own.run("diff", "-v").out
    assert f"key0 is {NEW}: {OLD}, not {NEW}" in said and f"no {NEW}" in said
    assert "fingerprint: (not shown)" in said


def test_a_conflict_tells_no_secret(keyed: Deployment, tmp_path: Path) -> None:
    """What moved in between is named without its value."""
    plan = tmp_path / "plan.json"
    keyed.run("plan", "c1", "--rule", "key-pairs", "-o", str(plan))
    keyed.sql("c1", "UPDATE key_pairs SET public_key = 'an0ther-s3cret'")
    done = keyed.run("repair", "--yes", "--plan", str(plan))
    assert done.code == 4
    assert "s3cret" not in done.said


WORD = "canary"


@pytest.mark.parametrize("where", ["rule file", "configuration"])
def test_what_a_rule_file_or_the_configuration_hides_is_in_no_output(
    cells: Deployment, tmp_path: Path, where: str
) -> None:
    """Compared, planned, moved in between, written and undone: a column that nobody would take for secret."""
    hidden = "hide: [key_pairs.fingerprint]"
    own = cells.rule_file(
        "pack: own\n"
        + (f"secrets: {{{hidden}}}\n" if where == "rule file" else "")
        + "rules:\n"
        + "  - {id: pairs, table: key_pairs, key: [user_id, name], columns: {include: [fingerprint]}}\n"
    )
    if where == "configuration":
        secrets(own, f"{{{hidden}}}")
    own.repair()
    for cell in ("parent", "c1", "c2"):
        own.sql(cell, "UPDATE key_pairs SET fingerprint = :it", it=f"{WORD}-{cell}")
    said = "".join(own.run(*verb).said for verb in OUTPUTS)
    plan = tmp_path / "plan.json"
    own.run("plan", "c1", "-o", str(plan))
    own.sql("c1", "UPDATE key_pairs SET fingerprint = :it", it=f"another-{WORD}")
    moved = own.run("repair", "--yes", "--plan", str(plan))
    assert moved.code == 4 and "fingerprint was (not shown) and is (not shown)" in moved.said
    said += moved.said + own.run("repair", "--yes", "-v").said
    said += (
        own.run("history", own.last_run(), "-v").said + own.run("undo", own.last_run(), "--yes", "-v").said
    )
    assert WORD not in said and "(not shown)" in said
    assert own.sql("c1", "SELECT fingerprint FROM key_pairs") == [(f"another-{WORD}",)]
