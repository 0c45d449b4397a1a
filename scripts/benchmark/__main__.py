"""Measure; see ``--help``."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa
from contenders import NO_ANSWER, SCANS, Cellsync, Contender, Place, peers
from counters import counters
from data import EVERY_DRIFT, FILL, KEYS, MOVED, SCHEMA, TABLE, VARIANTS, drifts
from plots import draw
from scenes import SCENES, Stage

from cellsync.demo.database import connected
from cellsync.demo.server import PrivateServer

LIMITS = {
    ("int", "in-step"): "1.25 x scan + 0.5 s",
    ("int", "100-scattered"): "1.4 x scan + 0.5 s",
    ("uuid", "in-step"): "1.5 x scan",
    ("uuid", "100-scattered"): "2.6 x scan",
}
TABLES = [
    f"{key}/{drift.name}"
    for key in KEYS
    for drift in drifts(10**6)
    if key in EVERY_DRIFT or drift.name in ("in-step", "100-scattered")
]
CASES = [*TABLES, *SCENES]
OPTIONS = ("--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=2", "--max-connections=300")


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the parent's table.")
@click.option("--rounds", default=3, show_default=True, help="Each round runs every contender once.")
@click.option(
    "--case", "chosen", multiple=True, type=click.Choice(CASES), help="Measure only this; may be given again."
)
@click.option(
    "--peers", "with_peers", is_flag=True, help="Install and measure pt-table-sync and reladiff too."
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write all figures here.")
@click.option(
    "--plots", "pictures", type=click.Path(path_type=Path), help="Draw the growth into this folder, as SVG."
)
def main(
    *,
    rows: int,
    rounds: int,
    chosen: tuple[str, ...],
    with_peers: bool,
    file: Path | None,
    pictures: Path | None,
) -> None:
    """Measure cellsync beside the bare scan of the servers, interleaved, on the same data.

    Ratios are to the scan with cellsync's own digest in the same round; counters are those of the
    last round. Nothing is asserted: a wrong answer is shown as WRONG, without a time.
    """
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cellsync-bench-")))
        servers = [
            stack.enter_context(PrivateServer(folder / name, options=OPTIONS)) for name in ("parent", "child")
        ]
        others, missing = peers(folder) if with_peers else ([], [])
        stage = Stage(servers[0], servers[1], folder, rounds, peers=bool(others))
        for scene in (name for name in SCENES if not chosen or name in chosen):
            click.echo(f"\n{scene}")
            SCENES[scene](stage)
        results += stage.results
        for key in KEYS:
            for drift in drifts(rows):
                name = f"{key}/{drift.name}"
                if name not in (chosen or TABLES):
                    continue
                click.echo(f"\n{name}, {rows} rows")
                moved = [MOVED] if key in ("uuid", "text") else []
                columns = fill(servers, rows, VARIANTS.get(key, []), [*drift.statements(), *moved])
                place = Place(
                    parent=servers[0],
                    child=servers[1],
                    folder=folder,
                    key=key,
                    counts=drift.counts(rows),
                    columns=columns,
                )
                contenders: list[Contender] = [*SCANS, Cellsync(), *(others if key == "int" else [])]
                results += case(name, place, contenders, rounds)
                if (key, drift.name) in LIMITS:
                    click.echo(f"  limit of cellsync diff: {LIMITS[key, drift.name]}")
    for line in missing:
        click.echo(line)
    if file:
        about = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "rows": rows,
            "rounds": rounds,
        }
        file.write_text(
            json.dumps({"version": 1, **about, "results": results, "missing": missing}, indent=2) + "\n"
        )
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        for drawn in draw(results, pictures):
            click.echo(f"drawn: {drawn}")


def fill(servers: list[PrivateServer], rows: int, variant: list[str], drift: list[str]) -> list[str]:
    """Make the data on both servers, and the drift on the second; return the compared columns."""
    for server in servers:
        with connected(server.url("mysql")) as connection:
            for statement in (f"DROP SCHEMA IF EXISTS {SCHEMA}", f"CREATE SCHEMA {SCHEMA}"):
                connection.exec_driver_sql(statement)
        with connected(server.url(SCHEMA)) as connection:
            drifted = drift if server is servers[1] else []
            for statement in (TABLE, FILL.format(rows=rows), *variant, *drifted):
                connection.exec_driver_sql(statement.replace("%", "%%"))
            connection.exec_driver_sql("ANALYZE TABLE instances")
            columns = [column["name"] for column in sa.inspect(connection).get_columns("instances")]
    return [name for name in columns if name != "updated_at"]


def case(name: str, place: Place, contenders: list[Contender], rounds: int) -> list[dict[str, Any]]:
    """Run all contenders of one case in turn, and print what came of it."""
    seconds: dict[str, list[float]] = {each.name: [] for each in contenders}
    found: dict[str, dict[str, Any]] = {each.name: {} for each in contenders}
    for number in range(rounds + 1):  # the first one only warms up
        for contender in contenders:
            if found[contender.name].get("wrong") == NO_ANSWER:
                continue
            before = [counters(server) for server in place.servers]
            answer = contender.run(place)
            after = [counters(server) for server in place.servers]
            seconds[contender.name] += [answer.seconds] if number else []
            spent = [
                {each: new[each] - old[each] for each in new} for old, new in zip(before, after, strict=True)
            ]
            sides = dict(zip(("parent", "child"), spent, strict=True))
            found[contender.name] = {"wrong": answer.wrong, "peak_mb": answer.peak_mb, "counters": sides}
    base = seconds[contenders[0].name]
    results = []
    for contender in contenders:
        each, more = seconds[contender.name], found[contender.name]
        ratios = [one / other for one, other in zip(each, base, strict=False)]
        results.append({"case": name, "contender": contender.name, "seconds": each, "ratios": ratios, **more})
        click.echo(f"  {line(contender.name, each, ratios, more)}")
    return results


def line(name: str, seconds: list[float], ratios: list[float], found: dict[str, Any]) -> str:
    """Return the result of one contender in words."""
    if found["wrong"]:
        return f"{name:26} WRONG: {found['wrong']}"
    took = f"{statistics.median(seconds):7.2f} s [{min(seconds):.2f} to {max(seconds):.2f}]"
    ratio = f"{statistics.median(ratios):6.2f} x [{min(ratios):.2f} to {max(ratios):.2f}]"
    child = found["counters"]["child"]
    counts = f"child: {child['queries']} queries, {child['bytes sent']} bytes, {child['reads']} reads"
    peak = f", {found['peak_mb']:.0f} MB" if found["peak_mb"] else ""
    return f"{name:26} {took}  {ratio}  {counts}{peak}"


if __name__ == "__main__":
    main()
