"""Plans as a file: what `plan -o` writes and `repair --plan` carries out.

The file holds rows of the databases, so it belongs to its owner alone (mode 0600; cli sees to it). It says
which of the changes that are due now are to be made, and nothing else: what is written comes from the
comparison that `repair --plan` makes itself, under the rules that are in use. A file that was edited, by
mistake or to do harm, can only leave changes out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from cellsync import codec
from cellsync.errors import ConfigurationError, ExitCode, PlanRefused, Problem
from cellsync.masking import mask_urls
from cellsync.model import (
    Action,
    CellFailure,
    CellResult,
    Change,
    Counts,
    Direction,
    Key,
    Plan,
    Refusal,
    Secrets,
    Skipped,
    Status,
    TableDiff,
    name_change,
    shown,
)
from cellsync.run import planshape
from cellsync.run.request import Edge, Prepared, Request, exit_code, with_plans
from cellsync.spool import kept, without

KIND = "cellsync-plan"

_UNTRUSTED = "the plan cannot be trusted to be what `cellsync plan` wrote; make it again"


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


def to_text(request: Request, prepared: Prepared, *, key: bytes | None = None) -> Iterator[str]:
    """Yield the plan file for what was prepared, in pieces; with ``key`` it is signed."""
    seals = _seals(_to_data(request, prepared), key)
    yield from codec.document({**_to_data(request, prepared), **seals})
    yield "\n"


def _to_data(request: Request, prepared: Prepared) -> dict[str, Any]:
    return {
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


# -- Digest and signature ------------------------------------------------------------------------


def _seals(data: Mapping[str, Any], key: bytes | None) -> dict[str, str]:
    """Return the digest of a file's content and, with a key, its signature."""
    digest = hashlib.sha256()
    signed = None if key is None else hmac.new(key, digestmod=hashlib.sha256)
    for piece in _canonical(data):
        digest.update(piece)
        if signed is not None:
            signed.update(piece)
    signature = {} if signed is None else {"signature": f"hmac-sha256:{signed.hexdigest()}"}
    return {"digest": f"sha256:{digest.hexdigest()}", **signature}


def _canonical(data: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the content of a file in its one form: however it is indented, and in bounded memory."""
    yield _line({name: value for name, value in data.items() if name not in ("plans", "digest", "signature")})
    for plan in data["plans"]:
        lists = ("changes", "skipped", "refusals")
        yield _line({name: value for name, value in plan.items() if name not in lists})
        for name in lists:
            yield _line(name)
            items = plan[name]
            yield from map(_line, items.items if isinstance(items, codec.Lines) else items)


def _line(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _check_seals(
    data: Mapping[str, Any], text: str, *, file: str, key: bytes | None, waived: Collection[str]
) -> None:
    """Raise PlanRefused for a file that is not as it was written, or not by somebody with the key."""
    seals = _seals(data, key)
    if key is not None and not _is_same(data.get("signature"), seals["signature"]):
        fault = "has another signature than CELLSYNC_PLAN_KEY gives" if "signature" in data else "is unsigned"
        place = _place(text, file, "signature")
        raise _refused("plan-signature", place=place, message=f"the plan file {fault}: {_UNTRUSTED}")
    if not _is_same(data.get("digest"), seals["digest"]) and "plan-changed" not in waived:
        advice = "make it again (--waive plan-changed; its changes are checked one by one in any case)"
        message = f"the file was changed after it was written; {advice}"
        raise _refused("plan-changed", place=_place(text, file, "digest"), message=message)


def _is_same(given: Any, wanted: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _place(text: str, file: str, name: str) -> Problem:
    return Problem(file, *planshape.position_of(text, (name,)), "")


def _refused(code: str, *, place: Problem, message: str) -> PlanRefused:
    return PlanRefused(f"{place}{code}: {message}")


# -- Reading -------------------------------------------------------------------------------------


def from_text(text: str, *, file: str, key: bytes | None = None, waived: Collection[str] = ()) -> PlanFile:
    """Return the plan file of that text.

    Raises ConfigurationError for text that is no plan file, or one of a newer version, with its place;
    PlanRefused for one that was changed after it was written ("plan-changed", unless it is ``waived``), or
    that is not signed with ``key``, where there is one ("plan-signature").
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _problem(file, f"{_NO_PLAN} ({error.msg})", error.lineno, error.colno) from None
    except RecursionError:
        raise _problem(file, f"{_NO_PLAN} (it is nested too deeply)") from None
    except ValueError:  # a number of thousands of digits, or one that is none
        raise _problem(file, f"{_NO_PLAN} (it has a number that no plan file has)") from None
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise _problem(file, _NO_PLAN, 1, 1)
    version = data.get("version")
    if type(version) is not int:
        raise _problem(file, _NO_PLAN, *planshape.position_of(text, ("version",)))
    if version > codec.VERSION:
        raise _problem(file, f"was written by a newer cellsync (version {version})")
    try:
        fault = planshape.find_fault(data)
        if fault is not None:
            message = f"{_NO_PLAN} ({fault.message})"
            raise _problem(file, message, *planshape.position_of(text, fault.path))
        _check_seals(data, text, file=file, key=key, waived=waived)
        return PlanFile(
            run=data["run"],
            rules=data["rules"],
            rule_ids=tuple(data["rule_ids"]),
            plans=_plans(data["plans"]),
        )
    except RecursionError:
        raise _problem(file, f"{_NO_PLAN} (it is nested too deeply)") from None


_NO_PLAN = "is not a plan file: `cellsync plan -o FILE` writes one"


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _plans(data: Sequence[Mapping[str, Any]]) -> dict[tuple[str, Direction], Plan]:
    plans = [(Direction(each["direction"]), codec.plan_from_data(each)) for each in data]
    return {(plan.child, direction): plan for direction, plan in plans}


def _problem(file: str, message: str, line: int = 0, column: int = 0) -> ConfigurationError:
    return ConfigurationError([Problem(file, line, column, message)])


# -- Carrying it out -----------------------------------------------------------------------------


def adopt(request: Request, prepared: Prepared, planned: PlanFile) -> Prepared:
    """Return what was prepared, with those of its changes alone that a plan file has, too.

    So each change was judged by the rules, the limits and the guards of now, with the rows of now. A change
    of the file that is not due now, as it stands there, is a conflict: its row has moved, or the file was
    edited. Plans of other rules or for another database are refused as a whole.
    """
    found = [_adopt_edge(request, edge, planned) for edge in prepared.edges]
    edges = [each.edge for each in found]
    unread = {key: plan for key, plan in planned.plans.items() if key not in {each.of for each in found}}
    cells = [_with_plans(cell, found, unread) for cell in prepared.report.cells]
    remaining = prepared.report.exit_code is not ExitCode.IN_STEP
    code = exit_code(cells, remaining=remaining, refusals=True)
    return Prepared(report=replace(prepared.report, cells=tuple(cells), exit_code=code), edges=tuple(edges))


@dataclass(frozen=True, kw_only=True)
class _Adopted:
    """One edge with the changes that are due and planned, and what became of the others of the plan."""

    edge: Edge
    moved: Sequence[tuple[Change, str]] = ()
    """The changes that are not due as they were planned, and why."""

    @property
    def of(self) -> tuple[str, Direction]:
        """What a plan file knows the edge by."""
        return self.edge.child, self.edge.direction


def _adopt_edge(request: Request, edge: Edge, planned: PlanFile) -> _Adopted:
    now = edge.plan
    plan = planned.plans.get((edge.child, edge.direction))
    if plan is None:
        plan = replace(now, changes=(), notices=())
    if stale := tuple(_stale(request, planned, plan, now)):
        refusals = (*now.refusals, *stale)
        return _Adopted(edge=replace(edge, plan=replace(now, changes=(), notices=(), refusals=refusals)))
    wanted = {_mark(change) for change in plan.changes}
    torn = {change.together for change in now.changes if change.together and _mark(change) not in wanted}
    changes = without(now.changes, lambda c: _mark(c) not in wanted or c.together in torn)
    due = {mark for change in changes if (mark := _mark(change)) in wanted}
    left = [c for c in plan.changes if _mark(c) not in due and not _is_refused(c, now.refusals, edge)]
    read = [change for change in left if change.rule in edge.targets]
    lost = [change for change in left if change.rule not in edge.targets]
    asked = {(change.rule, change.key) for change in plan.changes}
    later = (c for c in now.changes if _mark(c) not in due and (c.rule, c.key) not in asked)
    desired = edge.desired
    if desired is not None:  # it may have fallen since the plan was made
        desired = replace(desired, rows={**desired.rows, **plan.desired_rows})
    return _Adopted(
        edge=replace(
            edge,
            desired=desired,
            plan=replace(
                now,
                changes=changes,
                skipped=kept(chain(now.skipped, _skip(lost, _UNREAD), _skip(later, _UNPLANNED))),
                notices=tuple(notice for notice in now.notices if notice in plan.notices) if changes else (),
            ),
        ),
        moved=kept(_moved(read, now, request.topology.secrets)),
    )


def _is_refused(change: Change, refusals: Sequence[Refusal], edge: Edge) -> bool:
    """Say whether a guard holds a change back."""
    from cellsync import apply  # a comparison loads nothing that writes

    target = edge.targets.get(change.rule)
    gone = change.after is None or (target is not None and apply.deletes(change, target))
    kind = "deletes" if gone else "inserts" if change.action is Action.INSERT else "updates"
    return any(each.rule == change.rule and (not each.holds or kind in each.holds) for each in refusals)


def _mark(change: Change) -> bytes:
    """Return what two changes have in common where they write the same to the same row."""
    parts = (
        (change.rule, change.table, change.action.value, change.key_columns, change.identity_columns),
        (codec.tuple_to_text(change.key), codec.tuple_to_text(change.identity)),
        (_row_text(change.before), _row_text(change.after)),
    )
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def _row_text(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None else codec.row_to_text({name: row[name] for name in sorted(row)})


def _moved(changes: Sequence[Change], now: Plan, secrets: Secrets) -> Iterator[tuple[Change, str]]:
    """Yield the changes that are not due as they stand in the file, with why that is, as far as it shows."""
    missing = {(change.rule, change.key) for change in changes}
    due: dict[tuple[str, Key], Change] = {}
    for change in now.changes if missing else ():
        if (change.rule, change.key) in missing:
            due.setdefault((change.rule, change.key), change)
    for change in changes:
        yield change, _difference(change, due.get((change.rule, change.key)), secrets)


def _difference(planned: Change, due: Change | None, secrets: Secrets) -> str:
    if due is None:
        return (
            "it is not due: the row is in step, was changed after the plan was made, or is outside the rule"
        )
    if planned.action is not due.action:
        return f"{due.action.value} is due now, and not {planned.action.value}"
    was, now = planned.before or {}, due.before or {}

    def told(column: str, value: Any) -> str:
        return mask_urls(shown(secrets.safe(column, value, table=planned.table)))

    rows = [
        f"{name} was {told(name, was[name])} and is {told(name, now[name])}"
        for name in was
        if name in now and was[name] != now[name]
    ]
    return ", ".join(rows) or "another change of this row is due now"


_UNREAD = "the rule could not be compared now, or is not in use"
_UNPLANNED = "the plan file does not have it"


def _skip(changes: Iterable[Change], why: str) -> Iterator[Skipped]:
    return (Skipped(rule=change.rule, key=change.key, reason=why) for change in changes)


def _with_plans(
    cell: CellResult | CellFailure,
    adopted: Sequence[_Adopted],
    unread: Mapping[tuple[str, Direction], Plan],
) -> CellResult | CellFailure:
    if isinstance(cell, CellFailure):
        return cell
    mine = [each for each in adopted if each.edge.child == cell.cell]
    made = with_plans(cell, [each.edge.plan for each in mine])
    lost = [plan.changes for (child, _), plan in unread.items() if child == cell.cell]
    moved = list(chain.from_iterable(each.moved for each in mine))
    problems = [f"{mask_urls(name_change(change))}: conflict: {why}" for change, why in moved]
    torn = {change.rule for change, _ in moved}
    status = cell.status
    if made.refusals and status is Status.DIFFERS:
        status = Status.REFUSED
    return replace(
        made,
        status=Status.INCOMPLETE if moved else status,
        counts=Counts(planned=made.counts.planned + len(moved), conflicts=len(moved)),
        problems=kept(chain(made.problems, problems)),
        skipped=kept(chain(made.skipped, _skip(chain.from_iterable(lost), _UNREAD))),
        unmade=kept(Skipped(rule=c.rule, key=c.key, reason=f"conflict: {why}") for c, why in moved),
        tables=tuple(
            replace(table, status=Status.INCOMPLETE)
            if isinstance(table, TableDiff) and table.rule in torn
            else table
            for table in made.tables
        ),
    )


def _stale(request: Request, planned: PlanFile, plan: Plan, now: Plan) -> Iterator[Refusal]:
    """Yield why a plan must not be carried out as a whole; no rule is at fault."""
    if not plan.changes:
        return
    if planned.rules != request.ruleset.digest and "other-rules" not in request.waived:
        message = "the plan was made with other rules than these; make it again (--waive other-rules)"
        yield Refusal(code="other-rules", rule="", message=message)
    if plan.database != now.database:
        message = (
            f"the plan is for another database than schema {now.database.schema} of the server that "
            f"{now.written} is on now; make it again"
        )
        yield Refusal(code="wrong-database", rule="", message=message)
