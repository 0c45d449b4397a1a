"""Plans as a file: what `plan -o` writes and `repair --plan` carries out, to the letter.

The file holds rows of the databases, so it belongs to its owner alone (mode 0600; cli sees to it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cellsync import codec
from cellsync.errors import ConfigurationError, Problem
from cellsync.model import CellResult, Direction, Plan, Refusal
from cellsync.run.request import Prepared, Request, with_plans

KIND = "cellsync-plan"


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """The plans of one `plan`, and what they were made with."""

    run: str
    rules: str
    """The digest of the rules."""
    plans: Mapping[tuple[str, Direction], Plan]
    """(child, direction) -> plan."""


def to_text(request: Request, prepared: Prepared) -> str:
    """Return the plan file for what was prepared."""
    data = {
        "kind": KIND,
        "version": codec.VERSION,
        "run": request.run.id,
        "topology": request.topology.parent.name,
        "rules": request.ruleset.digest,
        "plans": [
            {"direction": edge.direction.value, **codec.plan_to_data(edge.plan)} for edge in prepared.edges
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def from_text(text: str, *, file: str) -> PlanFile:
    """Return the plan file of that text.

    Raises ConfigurationError for text that is no plan file, or one of a newer version.
    """
    try:
        data = json.loads(text)
        if data["kind"] != KIND:
            raise KeyError(KIND)
        if data["version"] > codec.VERSION:
            raise _problem(file, f"was written by a newer cellsync (version {data['version']})")
        return PlanFile(run=data["run"], rules=data["rules"], plans=_plans(data["plans"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _problem(file, "is not a plan file: `cellsync plan -o FILE` writes one") from None


def _plans(data: Sequence[Mapping[str, Any]]) -> dict[tuple[str, Direction], Plan]:
    plans = [(Direction(each["direction"]), codec.plan_from_data(each)) for each in data]
    return {(plan.child, direction): plan for direction, plan in plans}


def _problem(file: str, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(file, 0, 0, message)])


def adopt(request: Request, prepared: Prepared, planned: PlanFile) -> Prepared:
    """Return what was prepared, with the changes of a plan file in place of its own.

    Edges that the file does not plan get no changes. Plans of other rules or for another database
    are refused as a whole. What moved since the plan was made is left to the guards.
    """
    edges = []
    for edge in prepared.edges:
        plan = planned.plans.get((edge.child, edge.direction), replace(edge.plan, changes=(), notices=()))
        refusals = tuple(_stale(request, planned, plan, edge.plan))
        changes = () if refusals else plan.changes
        edges.append(replace(edge, plan=replace(plan, changes=changes, refusals=(*plan.refusals, *refusals))))
    cells = tuple(
        with_plans(cell, [edge.plan for edge in edges if edge.child == cell.cell])
        if isinstance(cell, CellResult)
        else cell
        for cell in prepared.report.cells
    )
    return Prepared(report=replace(prepared.report, cells=cells), edges=tuple(edges))


def _stale(request: Request, planned: PlanFile, plan: Plan, now: Plan) -> list[Refusal]:
    rules = list(dict.fromkeys(change.rule for change in plan.changes))
    if planned.rules != request.ruleset.digest and "other-rules" not in request.waived:
        message = "the plan was made with other rules than these; make it again (--waive other-rules)"
        return [Refusal(code="other-rules", rule=rule, message=message) for rule in rules]
    if plan.database != now.database:
        message = (
            f"the plan is for schema {plan.database.schema} of another server than {plan.written} is now; "
            f"make it again"
        )
        return [Refusal(code="wrong-database", rule=rule, message=message) for rule in rules]
    return []
