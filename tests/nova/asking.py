"""Cells whose databases have Nova's own schemas, and Nova's own code to write and read them.

``Judge`` is the process of ``ask.py``; ``NovaCell`` is one cell's pair of databases, with a nova.conf
that names them. Nova lives in .venv-nova, which ``scripts/setup`` makes; without it nothing here works,
and no test is skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
from deployment import Deployment
from servers import AnyServer, sql

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-nova"
KEPT = re.compile(
    r"alembic_version|services|compute_nodes|s3_images|migrations|console_auth_tokens|aggregate.*|instance.*|"
    r"block_device_mapping|flavor.*|"
    r"key_pairs|security_group.*|agent_builds|(cell|host)_mappings|.*quota.*|tags|virtual_interfaces|pci_devices"
)
"""The tables that are looked at here. Nova makes 150, each of which takes time to make again."""


class NovaRefused(Exception):
    """Say how Nova refused: ``kind`` is the class of its exception."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def program(name: str) -> str:
    """Return the path of a program of .venv-nova. Raises FileNotFoundError with what to do."""
    path = VENV / "bin" / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run NOVA=require scripts/setup test docs")
    return str(path)


Question = tuple[str, Mapping[str, Any]]
"""A function of ``ask.py`` and what it is given; ``project`` and ``admin`` are whose question it is."""


WHOSE = ("project", "admin")


def _taken(given: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in names}


def _left(given: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


class Judge:
    """Nova's own code in a process of its own, which answers one question after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._line() == "ready"

    def ask(self, conf: Path, questions: Sequence[Question]) -> list[Any]:
        """Return Nova's answers, with a NovaRefused where it refused; many take hardly longer than one."""
        asked = [
            {"do": do, "project": "p1", "admin": True, **_taken(given, WHOSE), "with": _left(given, WHOSE)}
            for do, given in questions
        ]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"conf": str(conf), "questions": asked}) + "\n")
        self._process.stdin.flush()
        return [
            NovaRefused(said["error"], said["message"]) if "error" in said else said["answer"]
            for said in self._line()
        ]

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "Nova gave no answer: its traceback is above"
        return json.loads(line)


@contextmanager
def judge() -> Iterator[Judge]:
    """Start Nova, and end it by the end of its input."""
    ask = Path(__file__).with_name("ask.py")
    command = (program("python"), "-W", "ignore", str(ask))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Judge(process)


@dataclass(frozen=True, kw_only=True)
class NovaCell:
    """One cell: its two databases, each a URL with the password, and how Nova speaks of them."""

    name: str
    api: str
    main: str
    conf: Path
    judge: Judge

    def ask(self, do: str, **given: Any) -> Any:
        """Have Nova do or answer something in this cell; raises NovaRefused."""
        return self.ask_all((do, given))[0]

    def ask_all(self, *questions: Question) -> list[Any]:
        """Have Nova do or answer several things; raises NovaRefused for the first that it refused."""
        answers = self.judge.ask(self.conf, questions)
        for refused in (answer for answer in answers if isinstance(answer, NovaRefused)):
            raise refused
        return answers

    def refusal(self, do: str, **given: Any) -> str:
        """Return the kind of Nova's refusal, which must come."""
        (answer,) = self.judge.ask(self.conf, [(do, given)])
        assert isinstance(answer, NovaRefused), f"{self.name}: Nova answered {do} with {answer}"
        return answer.kind

    def found(self, questions: Mapping[str, Question]) -> dict[str, Any]:
        """Return what Nova answers to each question, or the kind of its refusal."""
        answers = self.judge.ask(self.conf, [*questions.values()])
        said = [answer.kind if isinstance(answer, NovaRefused) else answer for answer in answers]
        return dict(zip(questions, said, strict=True))


Cells = Mapping[str, NovaCell]
"""The parent first, then the children."""
Topology = Callable[..., Deployment]
"""The fixture ``topology``."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A parent and a child, the pack that keeps them in step, and how Nova writes what the pack is about."""

    pack: str
    cells: Cells

    @property
    def parent(self) -> NovaCell:
        """Whose API people use."""
        return self.cells["parent"]

    @property
    def c1(self) -> NovaCell:
        """The child."""
        return self.cells["c1"]

    @property
    def urls(self) -> dict[str, str]:
        """Cell -> the database that the pack compares."""
        main = self.pack == "nova-cells-v1"
        return {name: cell.main if main else cell.api for name, cell in self.cells.items()}

    def write(self, cell: NovaCell, *questions: Question) -> None:
        """Have Nova write rows of the pack in a cell; raises NovaRefused."""
        prefix = "mitaka." if self.pack == "nova-cells-v1" else ""
        cell.ask_all(*((prefix + do, given) for do, given in questions))

    def run_hosts(self, *hosts: str) -> None:
        """Have hosts in the child, as Nova knows them by their services, and nova_api by its mappings."""
        known = ("create_service", "map_host") if self.pack == "nova-api" else ("create_service",)
        self.c1.ask_all(*((do, {"host": host}) for host in hosts for do in known))


def write_conf(folder: Path, name: str, *, api: str, main: str) -> Path:
    """Write the nova.conf of a cell."""
    lines = (
        "[DEFAULT]\ntransport_url = fake:/",
        f"[api_database]\nconnection = {api}",
        f"[database]\nconnection = {main}",
        "[oslo_messaging_notifications]\ndriver = noop",
    )
    file = folder / f"nova-{name}.conf"
    file.write_text("\n".join(lines).replace("$", "$$") + "\n", encoding="utf-8")
    return file


# -- Schemas -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Schemas:
    """What nova-manage made: statements that make the tables again, and the version's name."""

    api: Sequence[str]
    main: Sequence[str]
    versions: Mapping[str, str]
    """"api" and "main" -> the value of alembic_version."""


def made_by_nova(server: AnyServer, folder: Path) -> Schemas:
    """Have nova-manage make both schemas once, and return how they can be made again (6 s)."""
    with (
        servers.database(server, name="nova_manage_api", charset="utf8mb3") as api,
        servers.database(server, name="nova_manage_main", charset="utf8mb3") as main,
    ):
        conf = write_conf(folder, "manage", api=api, main=main)
        commands = (("api_db", "sync"), ("db", "sync", "--local_cell"))
        with ThreadPoolExecutor() as both:
            list(both.map(lambda command: nova_manage(conf, *command), commands))
        urls = {"api": api, "main": main}
        versions = {
            kind: sql(url, "SELECT version_num FROM alembic_version")[0][0] for kind, url in urls.items()
        }
        return Schemas(api=[*_tables(api)], main=[*_tables(main)], versions=versions)


def nova_manage(conf: Path, *arguments: str) -> None:
    """Run nova-manage on a cell; raises AssertionError with what it said."""
    command = (program("nova-manage"), "--config-file", str(conf), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _tables(url: str) -> Iterator[str]:
    for (name,) in sql(url, "SHOW TABLES"):
        if KEPT.fullmatch(name):
            yield sql(url, f"SHOW CREATE TABLE `{name}`")[0][1]


def make(url: str, tables: Sequence[str]) -> None:
    """Make tables in an empty database, whatever order their foreign keys ask for."""
    servers.load(url, "SET foreign_key_checks = 0;\n" + ";\n".join(tables) + ";\n")


def clear(url: str) -> None:
    """Delete all rows of a database but its version."""
    names = [name for name, kind in sql(url, "SHOW FULL TABLES") if kind == "BASE TABLE"]
    rows = [f"DELETE FROM `{name}`" for name in names if not name.endswith("_version")]
    servers.load(url, "SET foreign_key_checks = 0;\nBEGIN;\n" + ";\n".join([*rows, "COMMIT"]) + ";\n")
