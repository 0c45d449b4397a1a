"""Plans as a file: what `plan -o` writes and `repair --plan` carries out, to the letter.

The file holds rows of the databases, so it belongs to its owner alone (mode 0600; cli sees to it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from cellsync import codec
from cellsync.errors import ConfigurationError, ExitCode, Problem
from cellsync.model import CellFailure, CellResult, Direction, Plan, Refusal, Skipped, Status
from cellsync.run.request import Edge, Prepared, Request, exit_code, with_plans
from cellsync.spool import kept

KIND = "cellsync-plan"


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """The plans of one `plan`, and what they were made with."""

    run: str
    rules: str
    """The digest of the rules."""
    rule_ids: tuple[str, ...]
    """The rules that were in scope."""
    plans: Mapping[tuple[str, Direction], Plan]
    """(child, direction) -> plan."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The children that were in scope."""
        return tuple(dict.fromkeys(child for child, _ in self.plans))


def to_text(request: Request, prepared: Prepared) -> Iterator[str]:
    """Yield the plan file for what was prepared, in pieces."""
    data = {
        "kind": KIND,
        "version": codec.VERSION,
        "run": request.run.id,
        "topology": request.topology.parent.name,
        "rules": request.ruleset.digest,
        "rule_ids": [rule.id for rule in request.ruleset.rules],
        "plans": [
            {"direction": edge.direction.value, **codec.plan_to_data(edge.plan)} for edge in prepared.edges
        ],
    }
    yield from codec.document(data)
    yield "\n"


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
        return PlanFile(
            run=data["run"],
            rules=data["rules"],
            rule_ids=tuple(data["rule_ids"]),
            plans=_plans(data["plans"]),
        )
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
    edges = [_adopted(request, edge, planned) for edge in prepared.edges]
    cells = [_with_plans(cell, edges) for cell in prepared.report.cells]
    remaining = prepared.report.exit_code is not ExitCode.IN_STEP
    code = exit_code(cells, remaining=remaining, refusals=True)
    return Prepared(report=replace(prepared.report, cells=tuple(cells), exit_code=code), edges=tuple(edges))


def _adopted(request: Request, edge: Edge, planned: PlanFile) -> Edge:
    plan = planned.plans.get((edge.child, edge.direction), replace(edge.plan, changes=(), notices=()))
    refusals = tuple(_stale(request, planned, plan, edge.plan))
    lost = (change for change in plan.changes if change.rule not in edge.targets)
    unread = "the rule could not be compared now, or is not in use"
    desired = edge.desired
    if desired is not None:
        desired = replace(desired, rows={**desired.rows, **plan.desired_rows})
    return replace(
        edge,
        desired=desired,
        plan=replace(
            plan,
            changes=() if refusals else kept(c for c in plan.changes if c.rule in edge.targets),
            skipped=kept(chain(plan.skipped, (Skipped(rule=c.rule, key=c.key, reason=unread) for c in lost))),
            refusals=(*plan.refusals, *refusals),
            targets=edge.targets,
            tables=edge.plan.tables,
        ),
    )


def _with_plans(cell: CellResult | CellFailure, edges: Sequence[Edge]) -> CellResult | CellFailure:
    if isinstance(cell, CellFailure):
        return cell
    plans = [edge.plan for edge in edges if edge.child == cell.cell]
    refused = any(plan.refusals for plan in plans) and cell.status is Status.DIFFERS
    return with_plans(replace(cell, status=Status.REFUSED) if refused else cell, plans)


def _stale(request: Request, planned: PlanFile, plan: Plan, now: Plan) -> Iterator[Refusal]:
    """Yield why a plan must not be carried out as a whole; no rule is at fault."""
    if not plan.changes:
        return
    if planned.rules != request.ruleset.digest and "other-rules" not in request.waived:
        message = "the plan was made with other rules than these; make it again (--waive other-rules)"
        yield Refusal(code="other-rules", rule="", message=message)
    if plan.database != now.database:
        message = (
            f"the plan is for schema {plan.database.schema} of another server, and {plan.written} is "
            f"schema {now.database.schema} of this one now; make it again"
        )
        yield Refusal(code="wrong-database", rule="", message=message)
