"""What is measured beside comparisons of one large table: fleets, growth, memory, writing, starting."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
from counters import Measured, counters, measured
from data import FILL, NARROW, NARROW_DRIFT, NARROW_FILL, SCHEMA, SMALL, SMALL_RULES, TABLE
from delay import Delay

from cellsync.demo.database import connected
from cellsync.demo.server import PrivateServer

Result = dict[str, Any]


@dataclass
class Stage:
    """Two servers, a folder, and what is written down."""

    parent: PrivateServer
    child: PrivateServer
    folder: Path
    rounds: int
    peers: bool = False
    results: list[Result] = field(default_factory=list)

    def make(self, server: PrivateServer, schema: str, *statements: str) -> str:
        """Make a schema anew and return its URL."""
        with connected(server.url("mysql")) as connection:
            for statement in (f"DROP SCHEMA IF EXISTS {schema}", f"CREATE SCHEMA {schema}"):
                connection.exec_driver_sql(statement)
        with connected(server.url(schema)) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))
        return server.url(schema).render_as_string(hide_password=False)

    def configure(self, parent: str, children: Mapping[str, str], rules: str) -> None:
        """Write cellsync.yaml and its rules."""
        (self.folder / "scene.yaml").write_text(f"pack: bench\nrules:\n{rules}", encoding="utf-8")
        content = {
            "parent": {"name": "api", "database": parent},
            "children": [{"name": name, "database": url} for name, url in children.items()],
            "rules": ["./scene.yaml"],
        }
        (self.folder / "scene-cells.yaml").write_text(json.dumps(content), encoding="utf-8")

    def cellsync(self, *arguments: str) -> Measured:
        """Run cellsync as people do."""
        config = str(self.folder / "scene-cells.yaml")
        command = [sys.executable, "-m", "cellsync", "-c", config, *arguments]
        return measured(command, self.folder / "scene.out")

    def counted(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the counters of the parent's and of the children's server."""
        return counters(self.parent), counters(self.child)

    def note(self, scene: str, about: str, seconds: Sequence[float], **more: Any) -> None:
        """Write down and print one result."""
        self.results.append({"case": scene, "contender": about, "seconds": list(seconds), **more})
        shown = ", ".join(f"{name} {value}" for name, value in more.items())
        took = f"{median(seconds):7.2f} s [{min(seconds):.2f} to {max(seconds):.2f}]"
        click.echo(f"  {about:34} {took}  {shown}")


def start(stage: Stage) -> None:
    """How long it takes to start, and to compare three small tables with two children."""
    script = [sys.executable, "-m", "cellsync", "--version"]
    _started(stage, "cellsync --version", [measured(script, stage.folder / "scene.out") for _ in range(5)])
    _small_fleet(stage, 2, None)
    done = [_right(stage.cellsync("diff"), 0) for _ in range(5)]
    _started(stage, "diff, 2 children, 3 small tables", done)


def _started(stage: Stage, about: str, done: Sequence[Measured]) -> None:
    user = min(each.user for each in done)
    stage.note("start", about, [each.seconds for each in done], user_seconds=round(user, 2))


def fleet(stage: Stage) -> None:
    """Many children with three small tables each; 20 of them also behind a proxy, 20 ms away."""
    for children, round_trip in ((20, None), (200, None), (20, 0.02)):
        with ExitStack() as stack:
            delay = stack.enter_context(Delay(stage.child.port, round_trip)) if round_trip else None
            _small_fleet(stage, children, delay.port if delay else None)
            times, statements = [], []
            for _ in range(stage.rounds + 1):
                before = stage.counted()
                times.append(_right(stage.cellsync("-j", "20", "diff"), 0).seconds)
                after = stage.counted()
                statements.append(
                    [new["queries"] - old["queries"] for old, new in zip(before, after, strict=True)]
                )
            about = f"{children} children" + (", 20 ms a round trip" if round_trip else "")
            same = all(each == statements[0] for each in statements)
            stage.note(
                "fleet",
                about,
                times[1:],
                parent_statements=statements[0][0],
                child_statements=round(statements[0][1] / children, 1),
                repeat_exactly=same,
            )


def _small_fleet(stage: Stage, children: int, port: int | None) -> None:
    parent = stage.make(stage.parent, SCHEMA, *SMALL)
    urls = {}
    for number in range(1, children + 1):
        stage.make(stage.child, f"{SCHEMA}_{number}", *SMALL)
        url = stage.child.url(f"{SCHEMA}_{number}")
        urls[f"c{number}"] = (url.set(port=port) if port else url).render_as_string(hide_password=False)
    stage.configure(parent, urls, SMALL_RULES)


def growth(stage: Stage) -> None:
    """In step, and with 100 differences: from 10,000 to 10,000,000 rows, from 1 to 100 children."""
    for rows in (10**4, 10**5, 10**6, 10**7):
        parent = stage.make(
            stage.parent, SCHEMA, NARROW, NARROW_FILL.format(rows=rows), "ANALYZE TABLE things"
        )
        child = stage.make(stage.child, SCHEMA, NARROW, NARROW_FILL.format(rows=rows), "ANALYZE TABLE things")
        stage.configure(parent, {"c1": child}, "  - {table: things, key: [id], surrogate: {id: preserve}}\n")
        _grown(stage, f"{rows} rows, in step", 0, rows=rows)
        with connected(stage.child.url(SCHEMA)) as connection:
            connection.exec_driver_sql(f"UPDATE things SET size = -1 WHERE id %% {rows // 100} = 7")
        _grown(stage, f"{rows} rows, 100 differences", 1, rows=rows)
    fill = (NARROW, NARROW_FILL.format(rows=50_000), "ANALYZE TABLE things")
    parent = stage.make(stage.parent, SCHEMA, *fill)
    for children in (1, 10, 100):
        urls = {f"c{n}": stage.make(stage.child, f"{SCHEMA}_{n}", *fill) for n in range(1, children + 1)}
        stage.configure(parent, urls, "  - {table: things, key: [id], surrogate: {id: preserve}}\n")
        _grown(stage, f"{children} children of 50000 rows", 0, children=children)


def _grown(stage: Stage, about: str, code: int, **more: int) -> None:
    times, peaks = [], []
    for _ in range(stage.rounds):
        before = stage.counted()
        done = _right(stage.cellsync("diff"), code)
        after = stage.counted()
        times.append(done.seconds)
        peaks.append(done.peak_mb)
    names = ("parent", "child")
    spent = {
        name: {each: new[each] - old[each] for each in ("reads", "bytes sent")}
        for name, old, new in zip(names, before, after, strict=True)
    }
    stage.note("growth", about, times, peak_mb=round(max(peaks)), **spent, **more)


def memory(stage: Stage) -> None:
    """Ten million rows with a million differences, as text and as JSON."""
    rows = 10**7
    statements = (NARROW, NARROW_FILL.format(rows=rows), "ANALYZE TABLE things")
    parent = stage.make(stage.parent, SCHEMA, *statements)
    child = stage.make(stage.child, SCHEMA, *statements, *NARROW_DRIFT)
    stage.configure(parent, {"c1": child}, "  - {table: things, key: [id], surrogate: {id: preserve}}\n")
    for format_ in ("text", "json"):
        done = _right(stage.cellsync("diff", "--format", format_), 1)
        stage.note("memory", f"1000000 differences, {format_}", [done.seconds], peak_mb=round(done.peak_mb))


def writing(stage: Stage) -> None:
    """10 % drift, compared and written with journal and verification; and an empty child filled."""
    rows, step = 1_000_000, 30
    rules = "  - {table: instances, key: [id], surrogate: {id: preserve}, limits: {updates: 100%}}\n"
    fill = (TABLE, FILL.format(rows=rows), "ANALYZE TABLE instances")
    drift = (
        f"DELETE FROM instances WHERE id % {step} = 1",
        f"UPDATE instances SET vcpus = 9 WHERE id % {step} IN (2, 3)",
    )
    parent = stage.make(stage.parent, SCHEMA, *fill)
    child = stage.make(stage.child, SCHEMA, *fill, *drift)
    stage.configure(parent, {"c1": child}, rules)
    done = _right(stage.cellsync("repair", "--yes", "--format", "json"), 0)
    stage.note("writing", "10% drift: repair", [done.seconds], peak_mb=round(done.peak_mb))
    if stage.peers:
        stage.make(stage.child, SCHEMA, *fill, *drift)
        stage.note("writing", "10% drift: pt-table-sync --execute", [_execute(stage)])
    count = 100_000
    parent = stage.make(stage.parent, SCHEMA, TABLE, FILL.format(rows=count), "ANALYZE TABLE instances")
    spent: dict[str, list[Measured]] = {"text": [], "json": []}
    loaded = []
    for _ in range(stage.rounds):
        for format_, each in spent.items():
            child = stage.make(stage.child, SCHEMA, TABLE)
            stage.configure(parent, {"c1": child}, rules)
            each.append(_right(stage.cellsync("repair", "--yes", "--format", format_), 0))
        loaded.append(_load(stage))
    for format_, each in spent.items():
        peak = round(max(done.peak_mb for done in each))
        about = f"{count} rows into an empty table, {format_}"
        stage.note("writing", about, [done.seconds for done in each], peak_mb=peak)
    stage.note("writing", f"{count} rows by LOAD DATA", loaded)


def _execute(stage: Stage) -> float:
    both = [
        f"h={server.host},P={server.port},u={server.user},p={server.password},D={SCHEMA},t=instances"
        for server in (stage.parent, stage.child)
    ]
    command = ["pt-table-sync", "--execute", "--no-check-slave", "--charset=utf8", *both]
    done = measured(command, stage.folder / "pt.out")
    return done.seconds


def _load(stage: Stage) -> float:
    """Write the parent's rows to a file of its server, and load that into the child."""
    file = stage.folder / "rows.tsv"
    stage.make(stage.child, SCHEMA, TABLE)
    with connected(stage.parent.url(SCHEMA)) as connection:
        connection.exec_driver_sql(f"SELECT * INTO OUTFILE '{file}' FROM instances")
    started = time.monotonic()
    with connected(stage.child.url(SCHEMA)) as connection:
        connection.exec_driver_sql(f"LOAD DATA INFILE '{file}' INTO TABLE instances CHARACTER SET utf8mb3")
    seconds = time.monotonic() - started
    subprocess.run(["rm", "-f", str(file)], check=True)
    return seconds


def _right(done: Measured, code: int) -> Measured:
    if done.code != code:
        errors = done.out.with_suffix(".err").read_text(errors="replace")
        raise SystemExit(f"bench: exit code {done.code} instead of {code}: {errors[-500:]}")
    return done


SCENES = {"start": start, "fleet": fleet, "growth": growth, "writing": writing, "memory": memory}
"""Name -> what it measures."""
