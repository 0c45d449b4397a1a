"""A parent and two children in real databases, and cellsync run on them as people run it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import nova
import pymysql
import sqlalchemy as sa
import yaml
from json_judging import Databases, check_json, find_rules
from oracle_edges import ACCESS_DENIED, CANNOT_CONNECT, INSECURE
from servers import AnyServer, checksums, sql

from cellsync import cli

AGGREGATE_RULES = ("aggregates", "aggregate-metadata", "aggregate-hosts")


@dataclass(frozen=True, kw_only=True)
class Done:
    """How one command ended and what it said."""

    code: int
    out: str = field(repr=False)
    err: str

    @property
    def said(self) -> str:
        """Everything that it said."""
        return self.out + self.err

    @property
    def report(self) -> dict[str, Any]:
        """The JSON on standard output, which must be one whole document."""
        return dict(json.loads(self.out))

    def cell(self, name: str) -> dict[str, Any]:
        """Return one cell of the report."""
        return next(cell for cell in self.report["cells"] if cell["cell"] == name)

    def table(self, cell: str, rule: str) -> dict[str, Any]:
        """Return one rule's result in one cell."""
        return next(table for table in self.cell(cell)["tables"] if table["rule"] == rule)

    def counts(self, *rules: str) -> dict[str, dict[str, tuple[int, int, int]]]:
        """Return cell -> rule -> (missing, changed, extra), for these rules or for all."""
        return {
            cell["cell"]: {
                table["rule"]: (table["missing"], table["changed"], table["extra"])
                for table in cell["tables"]
                if not rules or table["rule"] in rules
            }
            for cell in self.report["cells"]
        }

    def findings(self, rule: str = "") -> list[tuple[str, str, str]]:
        """Return (cell of the report, code, message) of all findings, or of one rule's."""
        return [
            (cell["cell"], finding["code"], finding["message"])
            for cell in self.report["cells"]
            for table in cell["tables"]
            if not rule or table["rule"] == rule
            for finding in table["findings"]
        ]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Three databases, and the folder with the cell file that names them."""

    urls: Mapping[str, str]
    """Cell -> its database, with the password."""
    folder: Path
    rules: Sequence[str] = ("nova-cells-v1",)
    judged: bool = True
    """False where others write during a repair, or triggers do: the oracle is not asked."""

    @property
    def config(self) -> Path:
        """The cell file."""
        return self.folder / "cellsync.yaml"

    def configure(self, **changed: Any) -> Deployment:
        """Write the cell file and return the deployment, with ``urls`` or ``rules`` changed."""
        made = replace(self, **changed)
        parent, *children = made.urls
        cell = {name: json.dumps({"name": name, "database": url}) for name, url in made.urls.items()}
        lines = [f"parent: {cell[parent]}", "children:", *(f"  - {cell[child]}" for child in children)]
        lines += [f"rules: {json.dumps([*made.rules])}", "settle: 0"]
        made.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return made

    def rule_file(self, text: str, name: str = "own.yaml") -> Deployment:
        """Write a file of rules and return the deployment with it in the place of the pack."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.configure(rules=(f"./{name}",))

    def run(self, *arguments: str) -> Done:
        """Run a command in this process, without a terminal."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main(["-c", str(self.config), *arguments])
            except SystemExit as ended:
                code = ended.code
        assert isinstance(code, int)
        return Done(code=code, out=out.getvalue(), err=err.getvalue())

    def process(self, *arguments: str, code: str = "from cellsync.cli import main; main()") -> Done:
        """Run a command in a process of its own; ``code`` is the program, cellsync's unless given."""
        done = subprocess.run(
            [sys.executable, "-c", code, "-c", str(self.config), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=120,
            check=False,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def json(self, verb: str, *arguments: str) -> Done:
        """Run a command for its JSON."""
        return self.run(verb, *arguments, "--format", "json")

    def repair(self, *arguments: str) -> Done:
        """Repair without asking; the oracle must agree with the report and with what was written."""
        if not self.judged or self._changes_packs():
            return self.json("repair", "--yes", *arguments)
        databases = Databases(self.urls, find_rules(self._list_rules(), self.folder))
        try:
            before = databases.take_edges()
        except pymysql.OperationalError as error:
            if error.args[0] not in (CANNOT_CONNECT, ACCESS_DENIED, INSECURE):
                raise
            # There is no parent to judge by, or it lets nobody in without TLS.
            return self.json("repair", "--yes", *arguments)
        done = self.json("repair", "--yes", *arguments)
        if done.code in (0, 1, 3, 4) and done.out:
            dry_run = "--dry-run" in arguments
            lines = list(check_json(done.report, before, databases.take_edges(), dry_run=dry_run))
            assert not lines, "\n".join(["the oracle disagrees:", *lines])
        return done

    def _changes_packs(self) -> bool:
        """Say whether a rule file changes rules of others, which the oracle does not know."""
        files = [self.folder / name for name in self._list_rules()]
        return any("changes:" in file.read_text(encoding="utf-8") for file in files if file.is_file())

    def _list_rules(self) -> Sequence[str]:
        """Return what the cell file names, which may have been written anew since this was made."""
        written = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        return list(written["rules"])

    def sql(self, cell: str, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a cell's database."""
        return sql(self.urls[cell], statement, **parameters)

    def checksums(self) -> dict[str, dict[str, str]]:
        """Return cell -> table -> checksum over the bytes of every row; without the journals."""
        return {cell: checksums(url) for cell, url in self.urls.items()}

    def journal(self, cell: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return table -> rows of the journal on a cell's server; {} where there is none."""
        url = sa.make_url(self.urls[cell])
        find = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'cellsync'"
        names = [name for (name,) in sql(url, find)]
        return {name: sql(url, f"SELECT * FROM cellsync.{name}") for name in sorted(names)}

    def journals(self) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
        """Return cell -> the journal on its server."""
        return {cell: self.journal(cell) for cell in self.urls}

    def last_run(self) -> str:
        """Return the id of the newest run that wrote."""
        return str(self.json("history").report["runs"][0]["run"])


class Deploy(Protocol):
    """What the fixture ``deploy`` gives."""

    def __call__(
        self, *, servers: Mapping[str, AnyServer] | None = None, variant: nova.Variant = nova.LIBERTY
    ) -> Deployment: ...
