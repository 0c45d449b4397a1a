"""Hold the JSON of a repair against the oracle: its numbers, what remains, and every write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
from oracle_writes import explain_writes

PACKS = Path(__file__).resolve().parents[2] / "rules"


@dataclass(frozen=True)
class Databases:
    """A parent and its children, and the rule files that are in use."""

    urls: Mapping[str, str]
    rules: Sequence[oracle.Rule]

    def take_edges(self) -> dict[str, oracle.Edge]:
        """Return child -> both sides as they are now."""
        parent, *children = self.urls
        above = oracle.take_snapshot(self.urls[parent], self.rules, of_parent=True)
        below = {
            name: oracle.take_snapshot(self.urls[name], self.rules, of_parent=False) for name in children
        }
        owned = {name: oracle.find_owned(self.urls[name], self.rules) for name in children}
        by_rule = {
            rule.id: {name: owned[name].get(rule.id, set()) for name in children} for rule in self.rules
        }
        return {
            name: oracle.Edge(self.rules, above, below[name], (parent, name), by_rule) for name in children
        }


def find_rules(names: Sequence[str], folder: Path) -> list[oracle.Rule]:
    """Return the rules of packs and rule files, as a cell file names them."""
    files = [folder / name if name.endswith(".yaml") else PACKS / f"{name}.yaml" for name in names]
    return oracle.read_rules(*(file.read_text(encoding="utf-8") for file in files))


def list_kinds(judged: oracle.Judged) -> list[tuple[str, Collection[oracle.Key]]]:
    """Return the keys of each kind of difference."""
    return [("missing", judged.missing), ("changed", judged.changed), ("extra", judged.extra)]


def check_json(
    report: Mapping[str, Any],
    before: Mapping[str, oracle.Edge],
    after: Mapping[str, oracle.Edge],
    *,
    dry_run: bool = False,
) -> Iterator[str]:
    """Yield where the report of a repair in a quiet system and the oracle disagree."""
    for cell in report["cells"]:
        name = cell["cell"]
        if cell["tables"] and name in before:
            yield from (f"{name}: {line}" for line in _check_cell(cell, before[name], after[name], dry_run))


def _check_cell(
    cell: Mapping[str, Any], before: oracle.Edge, after: oracle.Edge, dry_run: bool
) -> Iterator[str]:
    compared = {table["rule"]: table for table in cell["tables"] if table["missing"] is not None}
    known = {rule.id for rule in before.rules}
    judged = {rule: each for rule, each in oracle.judge_rules(before).items() if rule in compared}
    now = oracle.judge_rules(after)
    refused = {refusal["rule"] for refusal in cell["refusals"]}
    skipped = Counter(each["rule"] for each in (*cell["skipped"], *cell.get("unmade", ())))
    for rule, table in compared.items():
        if rule not in known:
            continue
        for kind, keys in list_kinds(judged[rule]):
            if not 0 <= len(keys) - table[kind] <= len(table["findings"]):
                yield f"{rule}: {table[kind]} {kind}, and the oracle sees {sorted(map(repr, keys))[:5]}"
        staying = Counter(d["kind"] for d in table["differences"] if d["action"] in ("report", "ignore"))
        open_rows = len(table["findings"]) + skipped[rule]
        for kind, keys in list_kinds(now[rule]):
            judgeable = not dry_run and not refused & {rule, ""}
            if judgeable and len(keys) > staying[kind] + open_rows:
                yield f"{rule}: still {kind}: {sorted(map(repr, keys))[:5]}, announced are {staying[kind]}"
    written = explain_writes(before, after, judged, of_parent=False)
    yield from (f"wrong write: {line}" for line in written.wrong)
