"""Run the SQL output as a person does: with the mariadb client and a shell, without cellsync."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from cellsync.demo.server import executable

COPY = "SET @cellsync_copy = 1"
"""Lets statements run in another database than they were written for."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How the client ended, and the numbers that it printed last."""

    code: int
    said: str = field(default="", compare=False)
    planned: int = -1
    made: int = -1
    left: tuple[int, ...] = ()
    """The numbers of the changes that were not made."""


def client(url: str) -> tuple[list[str], Mapping[str, str]]:
    """Return the command that runs the mariadb client in a schema, and its environment."""
    made = sa.make_url(url)
    program = (executable("mariadb", "mysql"), "--no-defaults", "--batch", "--skip-column-names")
    place = (f"--host={made.host}", f"--port={made.port}", f"--user={made.username}", str(made.database))
    return [*program, *place], {**os.environ, "MYSQL_PWD": str(made.password)}


def replay(url: str, text: str, init: str = "DO 0") -> Replayed:
    """Run SQL in a schema; ``init`` comes before it, in the same session."""
    command, environment = client(url)
    done = subprocess.run(
        [*command, f"--init-command={init}"],
        input=text.encode(),
        env=environment,
        capture_output=True,
        check=False,
    )
    said = (done.stdout + done.stderr).decode()
    if done.returncode:
        return Replayed(code=done.returncode, said=said)
    _, planned, counted, left = done.stdout.decode().splitlines()[-1].split("\t")
    numbers = tuple(sorted(int(each) for each in left.split(",") if each))
    return Replayed(code=0, said=said, planned=int(planned), made=int(counted), left=numbers)


def way_back(text: str) -> str:
    """Return what the command in the header takes out of a file: the statements of the undo."""
    command = ["sed", "-n", "s/^-- undo: //p"]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout.decode()
