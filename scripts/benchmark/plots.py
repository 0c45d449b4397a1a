"""Draw the growth that ``--case growth`` measured; needs matplotlib (``pip install -e .[bench]``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any


def draw(results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write one SVG for rows and one for children; return the files."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "cellsync", "svg.fonttype": "none", "font.size": 9})
    grown = [each for each in results if each["case"] == "growth"]
    return [
        _drawn(folder / "growth-rows.svg", grown, "rows", "rows of the table, on each side"),
        _drawn(folder / "growth-children.svg", grown, "children", "children of 50,000 rows each, in step"),
    ]


def _drawn(file: Path, grown: Sequence[dict[str, Any]], along: str, label: str) -> Path:
    from matplotlib import pyplot

    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for each in grown:
        if along in each:
            name = each["contender"].partition(", ")[2] or "in step"
            point = (each[along], median(each["seconds"]), each["peak_mb"])
            lines.setdefault(name, []).append(point)
    for name, points in lines.items():
        numbers, seconds, peaks = zip(*sorted(points), strict=True)
        time.plot(numbers, seconds, marker="o", label=name)
        memory.plot(numbers, peaks, marker="o", label=name)
    for axes, title in ((time, "seconds"), (memory, "peak memory, MB")):
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_title(title)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    time.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file
