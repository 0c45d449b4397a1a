"""Turn what differs into an ordered, guarded list of changes, or say why not.

Pure. Rows are judged one by one (`decide`), rules as a whole (`refuse`), and what is left is put
in an order that foreign keys and unique keys allow (`build`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cellsync.model import (
    Action,
    Change,
    Dangling,
    DatabaseIdentity,
    Difference,
    Gate,
    Health,
    Join,
    Key,
    KeyPart,
    Kind,
    Limit,
    Pairing,
    Plan,
    Reference,
    Refusal,
    Row,
    Rule,
    Saying,
    ServerTime,
    Skipped,
    Stored,
    Table,
    TableDiff,
    Value,
    shown,
)

WRITING = frozenset({Action.INSERT, Action.UPDATE, Action.DELETE, Action.SOFT_DELETE})


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One rule of an edge, compared: the pairing, the result, and the table to be written."""

    pairing: Pairing
    table: TableDiff
    written: Table


@dataclass(frozen=True, kw_only=True)
class Target:
    """The database that the changes of a plan are for."""

    child: str
    written: str
    """The cell that is written: the child, or the parent for rules that go up."""
    database: DatabaseIdentity
    names: Mapping[str, str]
    """{"parent": ..., "child": ...} for the templates of rules."""
    version: Value
    """The schema version, for the gates of notices; None when there is none."""
    health: Health


# -- Rows --------------------------------------------------------------------------------------


def decide(pairing: Pairing, table: TableDiff, names: Mapping[str, str]) -> TableDiff:
    """Give every difference its action and its meaning in words."""
    decided = tuple(_decided(pairing.rule, d, pairing, names) for d in table.differences)
    return replace(table, differences=tuple(sorted(decided, key=_order)))


def _order(difference: Difference) -> tuple[int, str]:
    return list(Kind).index(difference.kind), repr(difference.key)


def _decided(rule: Rule, difference: Difference, pairing: Pairing, names: Mapping[str, str]) -> Difference:
    action = {Kind.MISSING: rule.on_missing, Kind.CHANGED: rule.on_changed, Kind.EXTRA: rule.on_extra}[
        difference.kind
    ]
    meaning = _meaning(rule, difference, pairing, names)
    if action is Action.SOFT_DELETE:
        action, why = _soft_delete(difference, pairing)
        meaning = f"{meaning}; {why}"
    return replace(difference, action=action, reason=meaning)


def _soft_delete(difference: Difference, pairing: Pairing) -> tuple[Action, str]:
    """Decide about an extra row: only a deletion that is newer than the row is pushed."""
    made = difference.existing.since if difference.existing else None
    if difference.tombstone is None:
        return Action.REPORT, f"{pairing.desired_cell} never deleted it"
    if made is None:
        return Action.REPORT, f"nothing says whether it is older than the deletion of {difference.tombstone}"
    if made > difference.tombstone:
        return Action.REPORT, f"it was made after the deletion of {difference.tombstone}"
    return Action.SOFT_DELETE, f"{pairing.desired_cell} deleted it at {difference.tombstone} UTC"


def _meaning(rule: Rule, difference: Difference, pairing: Pairing, names: Mapping[str, str]) -> str:
    words = _Words(names)
    row = difference.desired or difference.existing
    values: dict[str, KeyPart] = dict(zip(rule.key, difference.key, strict=True))
    if row is not None:
        values.update(zip(pairing.columns, row.values, strict=True))
    words.update({name: shown(value) for name, value in values.items()})
    words["was"] = _listed((d.column, d.existing) for d in difference.columns)
    words["now"] = _listed((d.column, d.desired) for d in difference.columns)
    for saying in rule.says:
        text = _said(saying, difference.kind)
        if text and all(values.get(name) == value for name, value in saying.rows.items()):
            return text.format_map(words)
    return _PLAIN[difference.kind].format(here=pairing.existing_cell, there=pairing.desired_cell)


_PLAIN = {
    Kind.MISSING: "is in {there}, but missing in {here}",
    Kind.CHANGED: "is different in {here}",
    Kind.EXTRA: "is in {here}, but not in {there}",
}


def _said(saying: Saying, kind: Kind) -> str | None:
    return {Kind.MISSING: saying.missing, Kind.CHANGED: saying.changed, Kind.EXTRA: saying.extra}[kind]


def _listed(columns: Iterable[tuple[str, KeyPart]]) -> str:
    pairs = list(columns)
    if len(pairs) == 1:
        return shown(pairs[0][1])
    return ", ".join(f"{name} {shown(value)}" for name, value in pairs)


class _Words(dict[str, str]):
    """What a saying may name; a column that this row does not have stays in braces."""

    def __missing__(self, name: str) -> str:
        return "{" + name + "}"


# -- Rules -------------------------------------------------------------------------------------


def refuse(compared: Compared, waived: Collection[str] = ()) -> Iterator[Refusal]:
    """Yield the guards that stop a rule, each with its numbers and what to do.

    ``waived`` holds what people waived: "CODE" for every rule, or "CODE:RULE".
    """
    rule = compared.pairing.rule
    for guard in (_over_limit, _empty_desired, _acts_on_others, _cannot_hold):
        for code, message in guard(compared):
            if not {code, f"{code}:{rule.id}"} & set(waived):
                yield Refusal(code=code, rule=rule.id, message=f"{message} (--waive {code}:{rule.id})")


def _counted(compared: Compared) -> Mapping[str, int]:
    actions = [difference.action for difference in compared.table.differences]
    return {
        "inserts": actions.count(Action.INSERT),
        "updates": actions.count(Action.UPDATE),
        "deletes": actions.count(Action.DELETE) + actions.count(Action.SOFT_DELETE),
    }


def _over_limit(compared: Compared) -> Iterator[tuple[str, str]]:
    limits, existing = compared.pairing.rule.limits, compared.table.existing_rows
    given: Mapping[str, Limit | None] = {
        "inserts": limits.inserts,
        "updates": limits.updates,
        "deletes": limits.deletes,
    }
    for name, count in _counted(compared).items():
        limit = given[name]
        if limit is None or count <= max(limits.free, limit.allowance(existing)):
            continue
        yield (
            "limit",
            f"{count} {name} of the {existing} rows of {compared.written.name} in "
            f"{compared.pairing.existing_cell} are more than the limit of {limit} "
            f"({limit.allowance(existing)} rows, {limits.free} are always allowed); look whether "
            f"{compared.pairing.desired_cell} is what it should be, then raise the limit or waive it",
        )


def _empty_desired(compared: Compared) -> Iterator[tuple[str, str]]:
    deletes = _counted(compared)["deletes"]
    if deletes and not compared.table.desired_rows:
        yield (
            "empty-desired",
            f"{compared.written.name} is empty in {compared.pairing.desired_cell}, and {deletes} rows would "
            f"be deleted in {compared.pairing.existing_cell}; no limit allows that",
        )


def _acts_on_others(compared: Compared) -> Iterator[tuple[str, str]]:
    counts, table, cell = _counted(compared), compared.written, compared.pairing.existing_cell
    if table.triggers and any(counts.values()):
        yield (
            "triggers",
            f"{table.name} in {cell} has triggers ({', '.join(table.triggers)}): what they write is "
            f"neither planned nor undone",
        )
    removing = any(d.action is Action.DELETE for d in compared.table.differences)
    if table.cascades and removing:
        yield (
            "cascade",
            f"deleting rows of {table.name} in {cell} changes other tables through "
            f"{', '.join(table.cascades)}",
        )


def _cannot_hold(compared: Compared) -> Iterator[tuple[str, str]]:
    table, cell = compared.written, compared.pairing.existing_cell
    if not any(_counted(compared).values()):
        return
    if table.engine and table.engine.lower() not in {"innodb", "sqlite"}:
        yield "engine", f"{table.name} in {cell} is {table.engine}, which has no transactions"
    if not compared.pairing.existing.identity:
        yield "no-primary-key", f"{table.name} in {cell} has no primary key to find a row again by"


def _unwritable(target: Target) -> Iterator[tuple[str, str]]:
    """Yield the guards about the database as a whole."""
    health, cell = target.health, target.written
    if health.read_only:
        yield "read-only", f"{cell} is read-only (@@read_only): is it the database that is in use?"
    if health.replica:
        yield (
            "replica",
            f"{cell} is a replica, and replication is running into it: write to its primary instead",
        )
    if health.galera_status not in (None, "Primary"):
        yield (
            "galera-not-primary",
            f"{cell} is a Galera node without a quorum (wsrep_cluster_status {health.galera_status})",
        )
    if health.galera_state not in (None, "Synced"):
        yield (
            "galera-not-synced",
            f"{cell} is a Galera node that is behind (wsrep_local_state_comment {health.galera_state})",
        )


def _refuse_all(compared: Sequence[Compared], target: Target, waived: Collection[str]) -> Iterator[Refusal]:
    for code, message in _unwritable(target):
        for rule in (each.pairing.rule.id for each in compared if any(_counted(each).values())):
            if not {code, f"{code}:{rule}"} & set(waived):
                yield Refusal(code=code, rule=rule, message=f"{message} (--waive {code})")


def _with_dependents(refusals: Sequence[Refusal], compared: Sequence[Compared]) -> list[Refusal]:
    """Add the rules that reference a refused rule: their rows would lead nowhere."""
    result = list(refusals)
    stopped = {refusal.rule for refusal in refusals}
    for each in compared:
        rule = each.pairing.rule
        causes = sorted(stopped & set(rule.references.values()) - {rule.id})
        if causes and rule.id not in stopped and any(_counted(each).values()):
            result.append(
                Refusal(
                    code="depends",
                    rule=rule.id,
                    message=f"refers to rows of {', '.join(causes)}, which was refused; waive that first",
                )
            )
            stopped.add(rule.id)
    return result


# -- The plan ----------------------------------------------------------------------------------


def build(
    compared: Sequence[Compared],
    target: Target,
    *,
    waived: Collection[str] = (),
    failed: Collection[str] = (),
) -> Plan:
    """Return the plan for one edge.

    ``compared`` holds decided results of the rules that write to the target; ``failed`` names the
    rules that could not be compared there. Rows of referenced tables are inserted first and
    deleted last, whether a rule or only a foreign key of the schema says that they are referenced.
    """
    ordered = _ordered(compared)
    refusals = [*_refuse_all(ordered, target, waived)]
    refusals += [refusal for each in ordered for refusal in refuse(each, waived)]
    refusals = _with_dependents(refusals, ordered)
    stopped = {refusal.rule for refusal in refusals}
    going = [each for each in ordered if each.pairing.rule.id not in stopped]
    changes: list[Change] = []
    skipped: list[Skipped] = []
    for actions, sequence in (
        ({Action.INSERT}, going),
        ({Action.UPDATE}, going),
        ({Action.SOFT_DELETE, Action.DELETE}, list(reversed(going))),
    ):
        for each in sequence:
            for change in _changes(each, actions, target, failed):
                (changes if isinstance(change, Change) else skipped).append(change)  # type: ignore[arg-type]
    writing = {change.rule for change in changes}
    return Plan(
        child=target.child,
        written=target.written,
        database=target.database,
        changes=tuple(changes),
        skipped=tuple(skipped),
        refusals=tuple(refusals),
        notices=tuple(_notices(going, writing, target)),
    )


def _ordered(compared: Sequence[Compared]) -> list[Compared]:
    """Order the rules so that every table comes after the tables that it references.

    References of the rules are acyclic (rules.load checks it); a foreign key that would close a
    circle orders nothing.
    """
    by_rule = {each.pairing.rule.id: each for each in compared}
    by_table: dict[str, list[str]] = {}
    for each in compared:
        by_table.setdefault(each.written.name, []).append(each.pairing.rule.id)

    def needed(each: Compared) -> Iterator[str]:
        yield from each.pairing.rule.references.values()
        for key in each.written.foreign_keys:
            yield from by_table.get(key.table, ())

    placed: dict[str, Compared] = {}

    def place(rule_id: str, above: frozenset[str]) -> None:
        if rule_id in placed or rule_id in above or rule_id not in by_rule:
            return
        for other in needed(by_rule[rule_id]):
            place(other, above | {rule_id})
        placed[rule_id] = by_rule[rule_id]

    for rule_id in by_rule:
        place(rule_id, frozenset())
    return list(placed.values())


def _notices(going: Sequence[Compared], writing: Collection[str], target: Target) -> Iterator[str]:
    said: set[str] = set()
    for each in going:
        if each.pairing.rule.id not in writing:
            continue
        for notice in each.pairing.rule.after:
            text = notice.text.format_map(_Words(target.names))
            if text not in said and _applies(notice.when, target.version):
                said.add(text)
                yield text


def _applies(gate: Gate | None, version: Value) -> bool:
    # A notice too many costs a restart; a notice too few leaves the repair without effect.
    return gate is None or gate.admits(version) is not False


# -- Changes -----------------------------------------------------------------------------------


def _changes(
    each: Compared, actions: Collection[Action], target: Target, failed: Collection[str]
) -> Iterator[Change | Skipped]:
    rule = each.pairing.rule
    chosen = [d for d in each.table.differences if d.action in actions]
    if not chosen:
        return
    lost = sorted(set(failed) & set(rule.references.values()))
    make = {Action.INSERT: _insert, Action.UPDATE: _update}.get(chosen[0].action, _remove)
    for difference in _self_ordered(chosen, rule):
        if lost:
            reason = f"{', '.join(lost)} could not be compared, and this row refers to it"
            yield Skipped(rule=rule.id, key=difference.key, reason=reason)
        else:
            yield make(each.pairing, difference, target)


def _self_ordered(differences: Sequence[Difference], rule: Rule) -> list[Difference]:
    """Order the rows of a table that refers to itself: a row after the row that it refers to."""
    if rule.id not in rule.references.values():
        return list(differences)
    by_key = {difference.key: difference for difference in differences}
    placed: dict[Key, Difference] = {}
    for start in by_key:
        # A chain of keys, each needed by the one before it; a circle is cut where it closes.
        chain = {start: None}
        while chain:
            key = next(reversed(chain))
            needed = _own_references(by_key[key], by_key)
            fresh = next((other for other in needed if other not in placed and other not in chain), None)
            if fresh is not None:
                chain[fresh] = None
            else:
                chain.pop(key)
                placed[key] = by_key[key]
    ordered = list(placed.values())
    return ordered if differences[0].kind is not Kind.EXTRA else ordered[::-1]


def _own_references(difference: Difference, known: Mapping[Key, Difference]) -> Iterator[Key]:
    row = difference.desired or difference.existing
    for part in (*difference.key, *(row.values if row else ())):
        if isinstance(part, tuple) and part in known and part != difference.key:
            yield part


def _insert(pairing: Pairing, difference: Difference, target: Target) -> Change:
    rule, row = pairing.rule, difference.desired
    assert row is not None
    after: dict[str, Stored] = {name: _filled(value, target) for name, value in rule.on_insert.items()}
    if rule.soft_delete is not None:
        # Its ORM would write it; a NULL here makes the row invisible and switches unique keys off.
        after[rule.soft_delete.column] = rule.soft_delete.live
    after.update(_stored(pairing, row))
    return _change(pairing, difference, Action.INSERT, before=None, after=after, identity=())


def _filled(value: Value | ServerTime, target: Target) -> Stored:
    template = isinstance(value, str) and not isinstance(value, ServerTime)
    return str(value).format_map(_Words(target.names)) if template else value


def _update(pairing: Pairing, difference: Difference, target: Target) -> Change:
    row, held = difference.desired, difference.existing
    assert row is not None and held is not None
    wanted = _stored(pairing, row)
    changed = {column.column for column in difference.columns}
    before = {
        name: value
        for name, value in _stored(pairing, held).items()
        if name in changed or name in pairing.rule.key
    }
    return _change(
        pairing,
        difference,
        Action.UPDATE,
        before={**before, **_liveness(pairing.rule)},
        after={name: wanted[name] for name in sorted(changed)},
        identity=held.identity,
    )


def _remove(pairing: Pairing, difference: Difference, target: Target) -> Change:
    rule, held = pairing.rule, difference.existing
    assert held is not None
    before = {**_stored(pairing, held), **_liveness(rule)}
    after: dict[str, Stored] | None = None
    if difference.action is Action.SOFT_DELETE:
        assert rule.soft_delete is not None
        marks = dict(zip(pairing.existing.identity, held.identity, strict=True))
        after = {rule.soft_delete.column: marks[rule.soft_delete.tombstone]}
        if rule.soft_delete.at:
            after[rule.soft_delete.at] = ServerTime.NOW
    action = Action.UPDATE if after is not None else Action.DELETE
    return _change(pairing, difference, action, before=before, after=after, identity=held.identity)


def _change(
    pairing: Pairing,
    difference: Difference,
    action: Action,
    *,
    before: Mapping[str, Stored] | None,
    after: Mapping[str, Stored] | None,
    identity: tuple[Value, ...],
) -> Change:
    return Change(
        rule=pairing.rule.id,
        table=pairing.existing.table,
        action=action,
        key=difference.key,
        key_columns=pairing.rule.key,
        identity_columns=pairing.existing.identity,
        identity=identity,
        before=before,
        after=after,
        origin=difference.desired.identity if difference.desired else (),
        reason=difference.reason,
    )


def _liveness(rule: Rule) -> dict[str, Stored]:
    return {rule.soft_delete.column: rule.soft_delete.live} if rule.soft_delete else {}


def _stored(pairing: Pairing, row: Row) -> dict[str, Stored]:
    """Return a row's key and compared columns as they are written, references still as keys."""
    projection = pairing.existing
    parts = [*zip(projection.key, row.key, strict=True), *zip(projection.columns, row.values, strict=True)]
    return {projected.column: _storable(part, projected.join) for projected, part in parts}


def _storable(part: KeyPart, join: Join | None) -> Stored:
    if isinstance(part, Dangling):
        return part.raw
    if isinstance(part, tuple):
        assert join is not None
        return Reference(rule=join.rule, key=part)
    return part
