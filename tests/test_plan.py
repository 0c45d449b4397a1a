"""From differences to ordered, guarded changes, or to a reason why not: on plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from edges import ruleset
from hypothesis import given
from hypothesis import strategies as st
from plain import row, table

from cellsync import diff, plan
from cellsync.model import (
    Action,
    Cascade,
    Change,
    DatabaseIdentity,
    Difference,
    ForeignKey,
    Health,
    Index,
    Key,
    KeyPart,
    Kind,
    Pairing,
    Plan,
    Reference,
    Row,
    RuleSet,
    ServerTime,
    Stored,
    Table,
)

TARGET = plan.Target(
    child="c1",
    written="c1",
    database=DatabaseIdentity(server="s", schema="nova", version="10.11"),
    names={"parent": "api", "child": "c1"},
    version=300,
    health=Health(read_only=False),
)
T = table(
    "t",
    "id int auto_increment",
    "name varchar(40)",
    "size int",
    "own_id int",
    "deleted int",
    "deleted_at datetime",
)
SOFT = "soft_delete: {column: deleted, live: 0, tombstone: id, at: deleted_at}"


def refers(name: str, column: str, to: str, **more: Any) -> ForeignKey:
    """Return a foreign key to another table's id."""
    return ForeignKey(name=name, columns=(column,), table=to, references=("id",), **more)


def compared(
    known: RuleSet,
    rule_id: str,
    desired: Sequence[Row] = (),
    existing: Sequence[Row] = (),
    *,
    tables: Mapping[str, Table] | None = None,
    tombstones: Mapping[str, str] | None = None,
) -> plan.Compared:
    """Compare rows of one rule and decide about them."""
    rule = known.rule(rule_id)
    assert rule is not None
    there = tables or {each.table: replace(T, name=each.table) for each in known.rules}
    pairing = diff.pair(rule, known, parent_tables=there, child_tables=there, parent="api", child="c1")
    assert isinstance(pairing, Pairing), pairing
    found = diff.compare(pairing, desired, existing, child="c1")
    marked = tuple(
        replace(d, tombstone=(tombstones or {}).get(str(d.key[0]))) if d.kind is Kind.EXTRA else d
        for d in found.differences
    )
    decided = plan.decide(pairing, replace(found, differences=marked), TARGET.names)
    return plan.Compared(pairing=pairing, table=decided, written=there[rule.table])


def one(
    keys: str = "", desired: Sequence[Row] = (), existing: Sequence[Row] = (), **more: Any
) -> tuple[plan.Compared, Plan]:
    """Compare and plan by one rule, whose compared column is ``size``."""
    known = ruleset(f"rules: [{{table: t, key: [name], columns: {{include: [size]}}, {keys}}}]")
    each = compared(known, "t", desired, existing, **more)
    return each, plan.build([each], TARGET)


def sizes(*pairs: tuple[str, int | None], since: str | None = None) -> list[Row]:
    """Return rows name -> size."""
    return [row(name, size, number=at + 1, since=since) for at, (name, size) in enumerate(pairs)]


def codes(each: plan.Compared, *waived: str) -> list[str]:
    """Return the codes of the refusals of one rule."""
    return [refusal.code for refusal in plan.refuse(each, waived)]


# -- Deciding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["insert", "report", "ignore"])
@pytest.mark.parametrize("changed", ["update", "report", "ignore"])
@pytest.mark.parametrize("extra", ["delete", "report", "ignore"])
def test_the_rule_says_what_is_done_about_each_kind(missing: str, changed: str, extra: str) -> None:
    """And only what is to be written becomes a change."""
    each, made = one(
        f"on_missing: {missing}, on_changed: {changed}, on_extra: {extra}",
        sizes(("new", 1), ("moved", 2)),
        sizes(("moved", 3), ("old", 4)),
    )
    assert [(d.kind.value, d.action.value) for d in each.table.differences] == [
        ("missing", missing),
        ("changed", changed),
        ("extra", extra),
    ]
    writing = [action for action in (missing, changed, extra) if action in ("insert", "update", "delete")]
    assert [change.action.value for change in made.changes] == writing


def test_a_saying_tells_what_a_difference_means() -> None:
    """The first one for rows of that kind; else a plain sentence."""
    says = """says: [
        {rows: {name: gold}, missing: "{parent} sells gold, {child} has none",
         changed: "gold weighs {was} in {child} instead of {now}"},
        {missing: "{name} ({size}) is missing in {child}"}]"""
    each, _ = one(says, sizes(("gold", 1), ("tin", 2), ("iron", 3)), sizes(("iron", 9), ("zinc", None)))
    assert {d.key[0]: d.reason for d in each.table.differences} == {
        "gold": "api sells gold, c1 has none",
        "tin": "tin (2) is missing in c1",
        "iron": "is different in c1",
        "zinc": "is in c1, but not in api",
    }
    each, _ = one(says, sizes(("gold", 1)), sizes(("gold", None)))
    assert each.table.differences[0].reason == "gold weighs NULL in c1 instead of 1"


@pytest.mark.parametrize(
    ("since", "tombstone", "action", "why"),
    [
        (
            "2026-01-01 00:00:00",
            "2026-01-02 00:00:00",
            Action.SOFT_DELETE,
            "api deleted it at 2026-01-02 00:00:00 UTC",
        ),
        (
            "2026-01-02 00:00:00",
            "2026-01-02 00:00:00",
            Action.SOFT_DELETE,
            "api deleted it at 2026-01-02 00:00:00 UTC",
        ),
        (
            "2026-01-03 00:00:00",
            "2026-01-02 00:00:00",
            Action.REPORT,
            "it was made after the deletion of 2026-01-02",
        ),
        (None, "2026-01-02 00:00:00", Action.REPORT, "nothing says whether it is older"),
        ("2026-01-01 00:00:00", None, Action.REPORT, "api never deleted it"),
    ],
)
def test_only_a_deletion_that_is_newer_than_the_row_is_pushed(
    since: str | None, tombstone: str | None, action: Action, why: str
) -> None:
    """As a soft delete; whatever else is extra is reported, with the reason."""
    tombstones = {"a": tombstone} if tombstone else {}
    keys = f"on_extra: soft_delete, {SOFT}"
    each, made = one(keys, sizes(("b", 1)), sizes(("b", 1), ("a", 7), since=since), tombstones=tombstones)
    (difference,) = each.table.differences
    assert difference.action is action
    assert why in difference.reason
    if action is Action.SOFT_DELETE:
        (change,) = made.changes
        assert (change.action, change.identity) == (Action.UPDATE, (2,))
        assert change.before == {"name": "a", "size": 7, "deleted": 0}
        assert change.after == {"deleted": 2, "deleted_at": ServerTime.NOW}
    else:
        assert made.changes == ()


# -- Guards --------------------------------------------------------------------------------------


def many(count: int, size: int) -> list[Row]:
    """Return so many rows."""
    return [row(f"n{number:03}", size, number=number) for number in range(count)]


@pytest.mark.parametrize(
    ("limits", "changed", "existing", "refused"),
    [
        ("", 25, 100, False),
        ("", 26, 100, True),
        ("", 10, 10, False),
        ("", 11, 11, True),
        ("limits: {free: 0}", 1, 3, True),
        ("limits: {updates: 12}", 12, 20, False),
        ("limits: {updates: 12}", 13, 100, True),
        ("limits: {updates: 0, free: 3}", 3, 100, False),
        ("limits: {updates: 100%}", 50, 50, False),
    ],
)
def test_updates_beyond_the_limit_are_refused(
    limits: str, changed: int, existing: int, refused: bool
) -> None:
    """A count, or a share of the existing rows; a few are always allowed."""
    each, made = one(limits, many(existing, 1), [*many(changed, 2), *many(existing, 1)[changed:]])
    assert codes(each) == (["limit"] if refused else [])
    assert len(made.changes) == (0 if refused else changed)
    assert [r.code for r in made.refusals] == codes(each)
    for waiver in ("limit", "limit:t"):
        assert codes(each, waiver) == []
        assert len(plan.build([each], TARGET, waived=[waiver]).changes) == changed
    assert codes(each, "limit:other", "triggers") == codes(each)


def test_a_refusal_gives_its_numbers_and_the_way_around_it() -> None:
    """What, where, how many, how many are allowed, what to do."""
    each, _ = one("on_extra: delete", many(100, 1), many(130, 1))
    (refusal,) = plan.refuse(each)
    assert refusal.message == (
        "30 deletes of the 130 rows of t in c1 are more than the limit of 10% (13 rows, 10 are always "
        "allowed); look whether api is what it should be, then raise the limit or waive it (--waive limit:t)"
    )


def test_inserts_are_unlimited_unless_the_rule_limits_them() -> None:
    """A new child is filled from nothing."""
    assert codes(one("", many(500, 1))[0]) == []
    assert codes(one("limits: {inserts: 11}", many(12, 1))[0]) == ["limit"]


def test_an_empty_parent_deletes_nothing_whatever_the_limits() -> None:
    """No limit lifts this refusal, nor the waiver of a limit: only its own."""
    each, made = one("on_extra: delete, limits: {deletes: 100%, free: 1000}", [], many(3, 1))
    assert codes(each) == codes(each, "limit") == ["empty-desired"]
    assert made.changes == ()
    assert codes(each, "empty-desired:t") == []
    assert codes(one("", [], many(3, 1))[0]) == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"triggers": ("audit",)}, "triggers"),
        ({"engine": "MyISAM"}, "engine"),
    ],
)
def test_a_table_that_cannot_be_written_safely_is_refused(more: Any, code: str) -> None:
    """Only where something would be written, and until it is waived."""
    tables = {"t": replace(T, **more)}
    assert codes(one("", many(1, 1), tables=tables)[0]) == [code]
    assert codes(one("", many(1, 1), tables=tables)[0], f"{code}:t") == []
    assert codes(one("", many(1, 1), many(1, 1), tables=tables)[0]) == []
    assert codes(one("on_missing: report", many(1, 1), tables=tables)[0]) == []


def test_a_table_without_a_key_of_its_own_is_refused_whatever_is_waived() -> None:
    """A row that was written could not be found again."""
    tables = {"t": replace(T, primary_key=())}
    each, _ = one("", many(1, 1), tables=tables)
    assert codes(each) == codes(each, "no-primary-key", "no-primary-key:t") == ["no-primary-key"]
    assert codes(one("", many(1, 1), many(1, 1), tables=tables)[0]) == []


OF_T = Cascade(
    name="of_t", table="o", columns=("t_id",), references=("size",), on_delete=True, on_update=True
)


def test_a_cascade_is_refused_where_rows_are_deleted() -> None:
    """An insert sets none off."""
    tables = {"t": replace(T, cascades=(OF_T,))}
    assert codes(one("on_extra: delete", many(1, 1), many(2, 1), tables=tables)[0]) == ["cascade"]
    assert codes(one("on_extra: delete", many(2, 1), many(1, 1), tables=tables)[0]) == []


THREE = """
rules:
  - {table: a, key: [name], columns: {include: [size]}, limits: {updates: 0, free: 0}}
  - {table: b, key: [name, own_id], columns: {include: [size]}, references: {own_id: a}}
  - {table: c, key: [name, own_id], columns: {include: [size]}, references: {own_id: b}}
  - {table: d, key: [name], columns: {include: [size]}}
"""


def three() -> list[plan.Compared]:
    """Return one update for ``a`` and one insert for each other rule."""
    known = ruleset(THREE)
    return [
        compared(known, "a", [row("x", 1)], [row("x", 2)]),
        compared(known, "b", [row(("x", ("x",)), 1)]),
        compared(known, "c", [row(("x", ("x", ("x",))), 1)]),
        compared(known, "d", [row("x", 1)]),
    ]


def test_a_refused_rule_takes_the_rules_that_refer_to_it_along() -> None:
    """Also those that do so through another one; a rule that has nothing to do with it goes on."""
    rules = three()
    rules[0] = replace(rules[0], written=replace(rules[0].written, triggers=("log",)))
    made = plan.build(rules, TARGET)
    assert [(r.rule, r.code, r.holds) for r in made.refusals] == [
        ("a", "limit", ("updates",)),
        ("a", "triggers", ()),
        ("b", "depends", ()),
        ("c", "depends", ()),
    ]
    assert [change.rule for change in made.changes] == ["d"]
    held = plan.build(three(), TARGET)
    assert [(r.rule, r.code, r.holds) for r in held.refusals] == [("a", "limit", ("updates",))]
    assert {change.rule for change in held.changes} == {"b", "c", "d"}
    waived = plan.build(three(), TARGET, waived=["limit:a"])
    assert (waived.refusals, {change.rule for change in waived.changes}) == ((), {"a", "b", "c", "d"})


def test_rows_of_a_rule_that_could_not_be_compared_are_waited_for() -> None:
    """What refers to them is skipped, with the reason."""
    made = plan.build(three()[1:], TARGET, failed=["a"])
    assert [(s.rule, s.reason) for s in made.skipped][:1] == [
        ("b", "a could not be compared, and this row refers to it")
    ]
    assert "d" in {change.rule for change in made.changes}


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (Health(read_only=True), "read-only"),
        (Health(read_only=False, replica=True), "replica"),
        (Health(read_only=False, galera_status="non-Primary"), "galera-not-primary"),
        (Health(read_only=False, galera_state="Donor/Desynced"), "galera-not-synced"),
        (Health(read_only=False, galera_status="Primary", galera_state="Synced"), None),
    ],
)
def test_a_database_that_should_not_be_written_refuses_every_rule(health: Health, code: str | None) -> None:
    """Until it is waived."""
    each, _ = one("", many(1, 1))
    made = plan.build([each], replace(TARGET, health=health))
    assert [r.code for r in made.refusals] == ([code] if code else [])
    assert len(plan.build([each], replace(TARGET, health=health), waived=[str(code)]).changes) == 1


# -- Order ---------------------------------------------------------------------------------------


def order(known: RuleSet, tables: Mapping[str, Table], ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return (action, rule) of a plan that inserts and deletes one row by each rule."""
    desired, existing = {}, {}
    for rule in known.rules:
        target = rule.references.get("own_id")
        new: Key = ("new",) if target is None else ("new", None)
        old: Key = ("old",) if target is None else ("old", None)
        desired[rule.id], existing[rule.id] = row(new, 1), row(old, 1)
    each = [compared(known, id_, [desired[id_]], [existing[id_]], tables=tables) for id_ in ids]
    return [(change.action.value, change.rule) for change in plan.build(each, TARGET).changes]


KEYED = "columns: {include: [size]}, on_extra: delete"


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_a_foreign_key_orders_rules_that_know_nothing_of_it(ids: str) -> None:
    """Referenced rows are inserted first and deleted last."""
    known = ruleset(f"rules: [{{table: b, key: [name], {KEYED}}}, {{table: a, key: [name], {KEYED}}}]")
    tables = {
        "a": replace(T, name="a"),
        "b": replace(T, name="b", foreign_keys=(refers("f", "own_id", "a"),)),
    }
    assert order(known, tables, ids) == [("insert", "a"), ("insert", "b"), ("delete", "b"), ("delete", "a")]


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_a_reference_goes_before_a_foreign_key_that_leads_back(ids: str) -> None:
    """Departments have a manager, and employees a department: the rule says which comes first."""
    known = ruleset(
        f"""
        rules:
          - {{table: a, key: [name], {KEYED}}}
          - {{table: b, key: [name, own_id], references: {{own_id: a}}, {KEYED}}}
        """
    )
    tables = {
        "a": replace(T, name="a", foreign_keys=(refers("manager", "size", "b"),)),
        "b": replace(T, name="b", foreign_keys=(refers("department", "own_id", "a"),)),
    }
    # The row of a that is removed has one of b for its manager, which is removed first.
    assert order(known, tables, ids) == [
        ("insert", "a"),
        ("insert", "b"),
        ("update", "a"),
        ("delete", "b"),
        ("delete", "a"),
    ]


def test_foreign_keys_in_a_circle_order_what_they_can() -> None:
    """Every rule is there once, and the plan does not run in circles."""
    known = ruleset(f"rules: [{', '.join(f'{{table: {t}, key: [name], {KEYED}}}' for t in 'abc')}]")
    tables = {
        name: replace(T, name=name, foreign_keys=(refers("f", "own_id", to), refers("g", "size", name)))
        for name, to in ("ab", "bc", "ca")
    }
    made = [each for each in order(known, tables, "abc") if each[0] != "update"]
    assert sorted(made) == sorted((a, t) for a in ("insert", "delete") for t in "abc")


SELF = """
rules: [{table: t, key: [name], columns: {include: [own_id]}, references: {own_id: t}, on_extra: delete}]
"""


def test_a_row_that_refers_to_its_own_table_comes_after_its_target() -> None:
    """And is deleted before it."""
    known = ruleset(SELF)
    tree = {"leaf": "twig", "twig": "branch", "branch": "trunk", "other": "trunk", "trunk": None}
    rows = [row(name, (to,) if to else None) for name, to in tree.items()]
    inserted = [str(c.key[0]) for c in plan.build([compared(known, "t", rows)], TARGET).changes]
    assert sorted(inserted) == sorted(tree)
    assert all(inserted.index(to) < inserted.index(name) for name, to in tree.items() if to)
    keep = row("keep", None, number=99)
    each = compared(known, "t", [keep], [keep, *rows])
    deleted = [str(c.key[0]) for c in plan.build([each], TARGET).changes]
    assert all(deleted.index(to) > deleted.index(name) for name, to in tree.items() if to)


def test_a_circle_of_self_references_is_opened() -> None:
    """One row of it is inserted without its reference, and so is a row that refers to itself."""
    known = ruleset(SELF)
    each = compared(known, "t", [row("a", ("b",)), row("b", ("c",)), row("c", ("a",)), row("d", ("d",))])
    made = plan.build([each], TARGET).changes
    inserts = [c for c in made if c.action is Action.INSERT]
    assert sorted(str(c.key[0]) for c in inserts) == ["a", "b", "c", "d"]
    empty = [c.key for c in inserts if (c.after or {})["own_id"] is None]
    assert len(empty) == 2 and ("d",) in empty
    filled = made[len(inserts) :]
    assert sorted(c.key for c in filled) == sorted(empty)
    assert all(c.action is Action.UPDATE and (c.before or {})["own_id"] is None for c in filled)


def test_a_long_chain_of_self_references_is_no_deep_recursion() -> None:
    """Ten thousand snapshots, each of the one before."""
    known = ruleset(SELF)
    rows = [row(f"n{n}", (f"n{n + 1}",) if n < 9999 else None, number=n) for n in range(10000)]
    changes = plan.build([compared(known, "t", rows)], TARGET).changes
    assert [c.key for c in changes] == [(f"n{n}",) for n in reversed(range(10000))]


def test_unique_values_that_change_places_are_written_together() -> None:
    """One row is parked, and all of the circle shares one transaction; a chain needs no parking."""
    tables = {"t": replace(T, indexes=(Index(name="u", columns=("size",), unique=True),))}
    wanted = sizes(("a", 2), ("b", 1), ("x", 6), ("y", 7))
    held = sizes(("a", 1), ("b", 2), ("x", 5), ("y", 6))
    _, made = one("", wanted, held, tables=tables)
    assert made.skipped == ()
    values: dict[Any, Stored] = {r.key[0]: r.values[0] for r in held}  # type: ignore[misc]
    for change in made.changes:
        assert change.before is not None and change.after is not None
        assert values[change.key[0]] == change.before["size"]
        values[change.key[0]] = change.after["size"]
        told = [value for value in values.values() if value is not None]
        assert len(set(told)) == len(told), change
    assert values == {"a": 2, "b": 1, "x": 6, "y": 7}
    assert [bool(c.together) for c in made.changes if c.key[0] in "ab"] == [True] * 3


# -- Notices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (300, ("restart c1", "look at api")),
        (200, ("look at api",)),
        ("abc", ("restart c1", "look at api")),
        (None, ("restart c1", "look at api")),
    ],
)
def test_a_notice_is_for_versions_that_pass_its_gate(version: Any, said: tuple[str, ...]) -> None:
    """And for those that nobody can tell: a restart too many costs little."""
    notices = 'after: [{when: "version >= 255", notice: "restart {child}"}, {notice: "look at {parent}"}]'
    each, _ = one(notices, many(1, 1))
    assert plan.build([each], replace(TARGET, version=version)).notices == said
    idle, _ = one(notices, many(1, 1), many(1, 1))
    assert plan.build([idle], replace(TARGET, version=version)).notices == ()


# -- Changes -------------------------------------------------------------------------------------


def test_an_insert_fills_in_what_the_rule_says() -> None:
    """Templates, the server's clock, and the mark of a live row; the row's own values go first."""
    _, made = one(
        f'on_insert: {{own_id: "{{child}} of {{parent}}", deleted_at: now}}, {SOFT}', sizes(("a", 1))
    )
    (change,) = made.changes
    assert change.before is None
    assert change.after == {
        "own_id": "c1 of api",
        "deleted_at": ServerTime.NOW,
        "deleted": 0,
        "name": "a",
        "size": 1,
    }
    assert (change.identity, change.origin) == ((), (1,))


def test_an_update_writes_what_changed_and_guards_the_key_and_its_life() -> None:
    """Nothing else is written."""
    _, made = one(SOFT, [row("a", 1, number=5)], [row("a", 9, number=7)])
    (change,) = made.changes
    assert (change.before, change.after) == ({"name": "a", "size": 9, "deleted": 0}, {"size": 1})
    assert (change.identity, change.origin) == ((7,), (5,))


def test_a_reference_is_planned_as_the_key_of_its_row() -> None:
    """The id that it has in the target is looked up there."""
    made = plan.build(three(), TARGET, waived=["limit"])
    change = next(c for c in made.changes if c.rule == "c")
    assert change.after is not None
    assert change.after["own_id"] == Reference(rule="b", key=("x", ("x",)))


STORED = st.one_of(st.none(), st.integers(), st.text(max_size=3))
PART = st.one_of(st.none(), st.dictionaries(st.sampled_from("abc"), STORED, max_size=3))


@given(action=st.sampled_from([Action.INSERT, Action.UPDATE, Action.DELETE]), before=PART, after=PART)
def test_the_inverse_of_an_inverse_is_the_change(action: Action, before: Any, after: Any) -> None:
    """Up to the reason, which says that it is an undo."""
    change = Change(
        rule="r", table="t", action=action, key=("k",), key_columns=("a",), identity_columns=("id",),
        identity=(1,), before=before, after=after, origin=(2,), together="x",
    )  # fmt: skip
    inverse = change.inverse()
    assert (inverse.before, inverse.after) == (after, before)
    assert inverse.action is {Action.INSERT: Action.DELETE, Action.DELETE: Action.INSERT}.get(action, action)
    assert replace(inverse.inverse(), reason="") == change


# -- As a property -------------------------------------------------------------------------------

VALUES = st.one_of(st.none(), st.integers(0, 4))
PARENTS = st.dictionaries(st.sampled_from("abcdef"), VALUES, max_size=6)
FAMILY = """
defaults: {columns: {include: [size]}, on_extra: delete, limits: {updates: 100%, deletes: 100%}}
rules:
  - {table: p, key: [name]}
  - {table: q, key: [name, own_id], references: {own_id: p}}
"""


@st.composite
def sides(draw: st.DrawFn) -> dict[str, dict[Key, KeyPart]]:
    """Draw one side: parents by name, and children that refer to some of them."""
    parents = draw(PARENTS)
    names = st.tuples(st.sampled_from("xy"), st.sampled_from([*parents] or ["-"]).map(lambda name: (name,)))
    children = draw(st.dictionaries(names, VALUES, max_size=5)) if parents else {}
    return {"p": {(name,): size for name, size in parents.items()}, "q": dict(children)}


def simulate(made: Plan, held: Mapping[str, Mapping[Key, KeyPart]]) -> dict[str, dict[Key, KeyPart]]:
    """Carry a plan out on plain rows, as strictly as a database with foreign keys would."""
    tables = {name: dict(rows) for name, rows in held.items()}
    for change in made.changes:
        rows = tables[change.table]
        if change.action is Action.INSERT:
            assert change.key not in rows and change.after is not None
            for value in change.after.values():
                assert not isinstance(value, Reference) or value.key in tables["p"]
            rows[change.key] = change.after["size"]  # type: ignore[assignment]
            continue
        assert change.before is not None and rows[change.key] == change.before["size"]
        if change.action is Action.UPDATE:
            assert change.after is not None
            rows[change.key] = change.after["size"]  # type: ignore[assignment]
        else:
            del rows[change.key]
            assert change.table == "q" or change.key not in {key[1] for key in tables["q"]}
    return tables


@given(desired=sides(), existing=sides(), swapped=st.booleans())
def test_a_plan_turns_what_exists_into_what_is_desired(desired: Any, existing: Any, swapped: bool) -> None:
    """In an order that no foreign key stops; only an empty parent deletes nothing."""
    known = ruleset(FAMILY)
    tables = {
        "p": replace(T, name="p"),
        "q": replace(T, name="q", foreign_keys=(refers("f", "own_id", "p"),)),
    }
    each = [
        compared(
            known,
            name,
            [row(key, size, number=n) for n, (key, size) in enumerate(desired[name].items())],
            [row(key, size, number=n) for n, (key, size) in enumerate(existing[name].items())],
            tables=tables,
        )
        for name in ("qp" if swapped else "pq")
    ]
    made = plan.build(each, TARGET, waived=["empty-desired"])
    assert made.refusals == ()
    assert simulate(made, existing) == desired
    kept = plan.build(each, TARGET)
    emptied = [name for name in "pq" if existing[name] and not desired[name]]
    assert {r.rule for r in kept.refusals if r.code == "empty-desired"} == set(emptied)


def test_the_order_of_differences_is_the_same_in_every_run() -> None:
    """Reports of two runs can be compared."""
    rows = many(20, 1)
    one_way, _ = one("", rows)
    other_way, _ = one("", rows[::-1])
    assert keys(one_way.table.differences) == keys(other_way.table.differences)


def keys(differences: Sequence[Difference]) -> list[Key]:
    """Return the keys in order."""
    return [difference.key for difference in differences]
