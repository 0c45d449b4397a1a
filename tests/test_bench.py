"""scripts/bench measures, and every answer that it times is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent / "scripts" / "benchmark"


def test_a_case_has_ratios_counters_and_right_answers(tmp_path: Path) -> None:
    """A small one, without other tools: the figures mean nothing, but they are there."""
    file = tmp_path / "bench.json"
    options = ("--rows", "12000", "--rounds", "1", "--case", "uuid/1%", "--json", str(file))
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = {each["contender"]: each for each in json.loads(file.read_text())["results"]}
    assert len(results) == 4
    assert "WRONG" not in done.stdout
    for each in results.values():
        assert each["wrong"] == ""
        assert len(each["seconds"]) == len(each["ratios"]) == 1
        assert set(each["counters"]) == {"parent", "child"}
        assert set(each["counters"]["child"]) == {"queries", "rows sent", "bytes sent", "reads"}
        assert each["counters"]["parent"]["reads"] >= 12_000
    assert results["cellsync diff"]["peak_mb"] > 20
