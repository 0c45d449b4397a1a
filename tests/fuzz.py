"""Hostile rule, configuration and plan files, put through the command line in this process.

Each case changes one valid file by some mutations, runs a command with it, and holds that the command ends
with an exit code of the contract, names the place where the file is at fault, prints no traceback, and no
password: there is a canary in every URL. The same seed makes the same cases.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import random
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cellsync import cli
from cellsync.run import planfile

CANARY = "c4n4ry-pa55"
URL = f"mysql+pymysql://user:{CANARY}@127.0.0.1:1/x"

RULES: dict[str, Any] = {
    "pack": "own",
    "why": f"See {URL}",
    "requires": {"parent_version": "1..9"},
    "features": {"zones": "No zones."},
    "defaults": {"on_extra": "report", "limits": {"inserts": 100, "deletes": "10%", "free": 10}},
    "detectors": [
        {
            "id": "lone",
            "why": "w",
            "asks": {"a": {"of": "child", "sql": "SELECT name, zone FROM hosts", "most": 10}},
            "finds": "SELECT name, zone FROM a",
            "key": ["name"],
            "says": "{name} is alone",
            "do": {"sql": "DELETE FROM hosts WHERE name = {name}", "in": "child"},
        }
    ],
    "rules": [
        {
            "id": "hosts",
            "why": "They are needed.",
            "table": "hosts",
            "key": ["name"],
            "columns": {"exclude": ["secret"]},
            "where": "zone <> 'private'",
            "on_insert": {"secret": "from {parent}"},
            "on_missing": "insert",
            "on_changed": "update",
            "on_extra": "delete",
            "limits": {"inserts": 100, "updates": 100, "deletes": 100, "free": 5},
            "features": ["zones"],
            "after": [{"notice": "restart it"}],
            "says": [{"missing": "{name} is missing", "changed": "{name} differs"}],
        },
        {"id": "ports", "why": "w", "table": "ports", "key": ["host", "nr"], "comes_with": None},
    ],
}
del RULES["requires"], RULES["rules"][1]["comes_with"]

NOVA = f"""\
[DEFAULT]
transport_url = rabbit://nova:{CANARY}@127.0.0.1:1/
[database]
connection = {URL}n
[cells]
name = c1
db_check_interval = 60
"""

OPTIONS = f'[client]\nuser = u\npassword = "{CANARY}"\nhost = 127.0.0.1\nport = 1\n'

TABLES = (
    "CREATE TABLE hosts (id INTEGER PRIMARY KEY, name TEXT NOT NULL, zone TEXT, weight INT, secret TEXT)",
    "CREATE TABLE ports (id INTEGER PRIMARY KEY, host TEXT NOT NULL, nr INT NOT NULL, note TEXT)",
)

VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 2**63, 10**40, [], {}, [1], {"a": 1}, [[]], {"": ""}, "", " "),
    *("\0", "a\0b", "\x1b[31mred\x07", "\u202egnp", "\ud800", "\n", "a\nb: c", "\t", "x" * 5000, "💥"),
    *("{parent}", "{nobody}", "{", "{0.__class__}", "%s%n", "${NO_SUCH}", "${file:/nowhere}", "${file:\0}"),
    *("${", "$${", URL, URL.replace("//", "/"), f"${{file:{URL}}}", f"/{URL}", "sqlite:////nowhere/x.db"),
    *(f"rabbit://u:{CANARY}@h:5672/", f"rabbit://u:{CANARY}@h:x/", f"http://u:{CANARY}@h/", "file:x?a"),
    *("/", "..", "/dev/null", "/dev/full", "~", "~nobody/x", "now", "insert", "delete", "9" * 5000, "1e999"),
    *("'; DROP TABLE hosts; --", "1 = 1", "name IN (SELECT", "\\", "*", "a.b", "2026-13-45", "12:30", "-0"),
    *({"decimal": "1e9999999"}, {"decimal": "x"}, {"bytes": "zz"}, {"float": "0x1p99999"}, {"server": "no"}),
    *({"rule": "hosts", "key": ["h1"]}, {"rule": 1, "key": 1}, {"dangling": [], "deleted": 1}),
)
"""What any value may be replaced by."""

BYTES: Sequence[bytes] = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J", b"\r", b"\n\n", b"\t"),
    *(b"!!python/object/apply:os.system ['id']", b"{", b"[" * 3000, b"- " * 3000, b"? ", b": ", b"&a *a"),
    *(b"%YAML 9\n", b"---\n", b"'", b'"', b"|\n", b">9\n", b"#", b"!", b"<<: ", b"}", b"]", b","),
    URL.encode(),
)
"""What a text may have inside."""


@dataclass
class Found:
    """What came of many cases."""

    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(kind of file, exit code) -> number of cases."""
    faults: list[str] = field(default_factory=list)
    """Each case that did not end as it must, with what it said."""


class Fuzz:
    """A folder with valid files and two databases, from which cases are made."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        for name in ("api", "c1"):
            with contextlib.closing(sqlite3.connect(folder / f"{name}.db")) as database:
                for table in TABLES:
                    database.execute(table)
                rows = [(1, "h1", "a", 1 if name == "api" else 7), (2, f"only-{name}", "a", 2)]
                database.executemany("INSERT INTO hosts VALUES (?, ?, ?, ?, 'mine')", rows)
                database.commit()
        (folder / "nova.conf").write_text(NOVA, encoding="utf-8")
        (folder / "my.cnf").write_text(OPTIONS, encoding="utf-8")
        (folder / "secret").write_text(CANARY, encoding="utf-8")
        self._write("rules.yaml", RULES)
        self.cells: dict[str, Any] = {
            "parent": {"name": "api", "database": "sqlite:///api.db"},
            "children": [
                {
                    "name": "c1",
                    "database": "sqlite:///c1.db",
                    "broker": f"rabbit://nova:{CANARY}@127.0.0.1:1/",
                    "databases": {"cinder": URL},
                    "endpoints": {"keystone": "http://127.0.0.1:1/v3"},
                    "budget": {"time": "1h", "failures": 10},
                }
            ],
            "rules": ["./rules.yaml"],
            "settle": 0,
            "drift_log": "./drift.jsonl",
            "accept": [{"cell": "c1", "rule": "hosts", "key": "*", "why": "w", "until": "2020-01-01"}],
            "secrets": {"hide": ["hosts.zone"], "show": ["token"]},
        }
        quiet = {name: value for name, value in self.cells.items() if name != "drift_log"}
        self._write("cellsync.yaml", quiet)
        # Of another database, with a password in a file: read, and never connected to.
        secret = "mysql+pymysql://u:${file:secret}@127.0.0.1:1/z?ssl_ca=ca.pem"
        far = {"name": "c2", "database": secret}
        option = {"name": "c3", "database": "mysql+pymysql:///y", "defaults_file": "my.cnf"}
        nova = {"name": "c4", "nova_conf": "nova.conf"}
        self.wide = {**self.cells, "children": [*self.cells["children"], far, option, nova]}
        self.before = (folder / "c1.db").read_bytes()
        for file in ("wide.yaml", "cells.yaml"):
            self._write(file, self.wide if file == "wide.yaml" else self.cells)
            code, said = self.run("-c", self.path(file), "rules", "list")
            assert code == 0, said
        code, said = self.run("-c", self.path("cellsync.yaml"), "plan", "-o", self.path("plan.json"))
        assert code == 1, said
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        self.kinds: dict[str, Callable[[], tuple[str, list[str]]]] = {
            "rules": self._rules,
            "cells": self._cells,
            "nova.conf": self._nova,
            "options": self._options,
            "plan": self._plan,
        }

    def path(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return str(self.folder / name)

    def _write(self, name: str, data: Any) -> None:
        (self.folder / name).write_text(yaml.safe_dump(data), encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command in this process and return its exit code and all that it said."""
        said = io.StringIO()
        logging.root.handlers.clear()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                cli.main(list(arguments))
            except SystemExit as ended:
                code = ended.code
        assert isinstance(code, int)
        return code, said.getvalue()

    # -- Mutations -------------------------------------------------------------------------------

    def _places(self, data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the places of all values, the outermost last."""
        items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
        for key, value in items:
            yield from self._places(value, (*path, key))
            yield (*path, key)

    def _mutated(self, data: Any) -> Any:
        """Return data with one to three changes: a value replaced, removed, repeated, renamed or nested."""
        data = copy.deepcopy(data)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            places = [*self._places(data)]
            if not places:
                return data
            *way, last = self.random.choice(places)
            around = data
            for step in way:
                around = around[step]
            value = around[last]
            how = self.random.randrange(8)
            if how < 4:
                around[last] = copy.deepcopy(self.random.choice(VALUES))
            elif how == 4 and isinstance(around, dict):
                del around[last]
            elif how == 5 and isinstance(around, dict):
                around[self.random.choice(["", "no_such", f"{last}s", "\x1b[1m", URL])] = around.pop(last)
            elif how == 6 and isinstance(value, str):
                around[last] = value + str(self.random.choice([v for v in VALUES if isinstance(v, str)]))
            elif how == 7:
                for _ in range(self.random.choice((1, 3, 40))):
                    value = [value] if self.random.random() < 0.5 else {"a": value}
                around[last] = value
            elif isinstance(around, list):
                around.append(copy.deepcopy(value))
        return data

    def _torn(self, text: bytes) -> bytes:
        """Return text with a part cut off, put in, left out or written twice."""
        at = self.random.randrange(len(text) + 1)
        end = min(len(text), at + self.random.randrange(1, 60))
        how = self.random.randrange(6)
        if how == 0:
            return text[:at]
        if how == 1:
            return text[:at] + text[end:]
        if how == 2:
            return text[:end] + text[at:]
        if how == 3:
            return text.decode("utf-8", "replace").encode(
                self.random.choice(["utf-16", "utf-32", "cp037"]), "replace"
            )
        return text[:at] + self.random.choice(BYTES) + text[at if how == 4 else end :]

    def _put(self, name: str, text: bytes) -> str:
        (self.folder / name).write_bytes(text)
        return self.path(name)

    def _yaml(self, data: Any) -> bytes:
        if self.random.random() < 0.3:
            return self._torn(yaml.safe_dump(data).encode("utf-8", "surrogatepass"))
        return yaml.safe_dump(self._mutated(data), allow_unicode=True).encode("utf-8", "surrogatepass")

    # -- Cases: the file that is at fault, and the command ----------------------------------------

    def _rules(self) -> tuple[str, list[str]]:
        file = self._put("mutated.yaml", self._yaml(RULES))
        if self.random.random() < 0.8:
            return file, ["rules", "validate", file]
        return file, ["-c", self.path("cellsync.yaml"), "-r", file, self.random.choice(["diff", "plan"])]

    def _cells(self) -> tuple[str, list[str]]:
        if self.random.random() < 0.8:
            file = self._put("mutated-cells.yaml", self._yaml(self.wide))
            return file, ["-c", file, "rules", "list"]
        file = self._put("mutated-cells.yaml", self._yaml(self.cells))
        return file, ["-c", file, "diff", "--format", self.random.choice(["text", "json"])]

    def _nova(self) -> tuple[str, list[str]]:
        self._put("nova.conf", self._torn(self._torn(NOVA.encode())))
        return self._wide_file()

    def _options(self) -> tuple[str, list[str]]:
        self._put("my.cnf", self._torn(self._torn(OPTIONS.encode())))
        return self._wide_file()

    def _wide_file(self) -> tuple[str, list[str]]:
        file = self._put("wide.yaml", yaml.safe_dump(self.wide).encode())
        return file, ["-c", file, "rules", "list"]

    def _plan(self) -> tuple[str, list[str]]:
        if self.random.random() < 0.3:
            text = self._torn(json.dumps(self.plan, indent=2).encode())
        else:
            data = self._mutated(self.plan)
            if self.random.random() < 0.3:  # with a digest that is right, as somebody makes it who means it
                with contextlib.suppress(LookupError, TypeError, AttributeError, ValueError):
                    data.update(planfile._seals(data, None))
            text = json.dumps(data).encode()
        file = self._put("mutated-plan.json", text)
        waive = ["--waive", "plan-changed"] if self.random.random() < 0.1 else []
        given = ["-c", self.path("cellsync.yaml"), "repair", "--plan", file]
        return file, [*given, *waive, *(["--dry-run"] if self.random.random() < 0.9 else ["--yes"])]

    def case(self, kind: str, found: Found) -> None:
        """Make one case, run it, and note what is wrong with how it ends."""
        file, arguments = self.kinds[kind]()
        if self.random.random() < 0.2:
            arguments = ["--log-format", "json", *arguments]
        code, said = self.run(*arguments)
        found.codes[kind, code] += 1
        wrong = [*_wrong(code, said, file)]
        if wrong:
            text = Path(file).read_bytes()[:3000]
            found.faults.append(f"{kind}: {', '.join(wrong)}: {arguments}\n{text!r}\n{said[-3000:]}")
        (self.folder / "nova.conf").write_text(NOVA, encoding="utf-8")
        (self.folder / "my.cnf").write_text(OPTIONS, encoding="utf-8")
        if "--yes" in arguments:
            (self.folder / "c1.db").write_bytes(self.before)


def _wrong(code: int, said: str, file: str) -> Iterator[str]:
    """Yield what is wrong with how a command ended."""
    if code not in (0, 1, 2, 3, 4):
        yield f"exit code {code}"
    if "Traceback" in said:
        yield "a traceback"
    if CANARY in said:
        yield "a password"
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said):
        yield "a control character"
    # Cells and rules that a plan names, and that are not there, have no place in the plan's text alone.
    if code == 2 and not re.search(r":\d+:\d+: |there is no |cannot read ", said):
        yield "no place"


def search(number: int, seed: int) -> Found:
    """Run so many cases, and return what came of them."""
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), seed)
        kinds = [*fuzz.kinds]
        for index in range(number):
            fuzz.case(kinds[index % len(kinds)], found)
            if len(found.faults) >= 50:
                break
    return found


if __name__ == "__main__":
    import sys

    cases, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    result = search(cases, first)
    for (kind, code), count in sorted(result.codes.items()):
        print(f"{kind:10} exit {code}: {count}")
    print(f"{sum(result.codes.values())} cases, {len(result.faults)} faults")
    print("\n\n".join(result.faults[:10]))
    sys.exit(bool(result.faults))
