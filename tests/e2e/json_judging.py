"""Hold the JSON of a repair against the oracle: its numbers, what remains, and every write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import oracle
from oracle_edges import take_edges
from oracle_writes import explain_writes

PACKS = Path(__file__).resolve().parents[2] / "rules"


@dataclass(frozen=True)
class Databases:
    """A parent and its children, and the rule files that are in use."""

    urls: Mapping[str, str]
    rules: Sequence[oracle.Rule]

    def take_edges(self) -> dict[str, oracle.Edge]:
        """Return child -> both sides as they are now; without the children that do not answer."""
        parent, *children = self.urls
        return take_edges((parent, self.urls[parent]), {c: self.urls[c] for c in children}, self.rules)


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
        if name not in before and cell["status"] != "unreachable":
            yield f"{name}: {cell['status']}, and it does not answer"
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
    skipped = {each["rule"] for each in (*cell["skipped"], *cell.get("unmade", ()))}
    for rule, table in compared.items():
        if rule not in known:
            continue
        if judged[rule].broken:
            yield f"{rule}: {judged[rule].broken}, and the report has no error"
            continue
        found = count_found(table)
        for kind, keys in list_kinds(judged[rule]):
            if not 0 <= len(keys) - found[kind] <= len(table["findings"]):
                yield f"{rule}: {found[kind]} {kind}, and the oracle sees {sorted(map(repr, keys))[:5]}"
        staying = Counter(d["kind"] for d in table["differences"] if d["action"] in ("report", "ignore"))
        leader = (before.find_rule(rule).text.get("comes_with") or {}).get("rule")
        # Of what comes with others all stays where those that it comes with do.
        if dry_run or refused & {rule, leader, ""} or leader in skipped:
            continue
        open_rows = len(table["findings"]) + count_open(cell, before.find_rule(rule))
        for kind, keys in list_kinds(now[rule]):
            if len(keys) > staying[kind] + open_rows:
                yield f"{rule}: still {kind}: {sorted(map(repr, keys))[:5]}, announced are {staying[kind]}"
    written = explain_writes(before, after, judged, of_parent=False)
    yield from (f"wrong write: {line}" for line in written.wrong)


def count_found(table: Mapping[str, Any]) -> Counter[str]:
    """Return how many differences of each kind were found, those that are accepted among them.

    A row with another key, which is changed to a report, is for the oracle one missing and one extra.
    """
    found = Counter({kind: table[kind] for kind in ("missing", "changed", "extra")})
    for difference in table["differences"]:
        if difference["accepted"]:
            found[difference["kind"]] += 1
        if difference["kind"] == "changed" and difference["key"].keys() & difference["columns"].keys():
            found.update({"missing": 1, "changed": -1, "extra": 1})
    return found


def count_open(cell: Mapping[str, Any], rule: oracle.Rule) -> int:
    """Return for how many rows of a rule it is said that they were not written, or not as planned."""
    unmade = [each for each in (*cell["skipped"], *cell.get("unmade", ())) if each["rule"] == rule.id]
    # "insert TABLE KEY: failed: ..." or "TABLE KEY was written, but ..."
    told = [problem for problem in cell["problems"] if set(rule.tables) & set(problem.split(" ")[:2])]
    return len(unmade) + len(told)
