"""What people live with is neither counted nor repaired, until its date; nothing else is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from cellsync.model import (
    Accepted,
    Action,
    ColumnDifference,
    Dangling,
    Difference,
    Direction,
    Finding,
    KeyPart,
    Kind,
    Pairing,
    Position,
    Projection,
    Row,
    Rule,
    RuleSet,
    TableDiff,
    TableFailure,
)
from cellsync.run import accepting

TODAY = date(2026, 11, 23)
DIRECTIONS = {Direction.DOWN: ("api", "c1"), Direction.UP: ("c1", "api")}


def rule(name: str, *key: str, up: bool = False, **references: str) -> Rule:
    return Rule(
        id=name,
        pack="p",
        position=Position(file="p.yaml", line=1, column=1),
        table=name,
        child_table=name,
        direction=Direction.UP if up else Direction.DOWN,
        key=key or ("name",),
        references=references,
    )


def pairing(of: Rule) -> Pairing:
    desired, existing = DIRECTIONS[of.direction]
    side = Projection(
        rule=of.id,
        table=of.table,
        key=(),
        columns=(),
        identity=(),
        identity_families=(),
        parent="api",
        child="c1",
    )
    return Pairing(rule=of, desired=side, existing=side, desired_cell=desired, existing_cell=existing)


def missing(*key: KeyPart, **columns: KeyPart) -> Difference:
    shown = tuple(ColumnDifference(column=c, desired=v, existing=None) for c, v in columns.items())
    row = Row(key=key, values=tuple(columns.values()), identity=(1,))
    return Difference(
        kind=Kind.MISSING,
        key=key,
        desired=row,
        existing=None,
        columns=shown,
        action=Action.INSERT,
        reason="it is missing",
    )


def extra(*key: KeyPart) -> Difference:
    return Difference(kind=Kind.EXTRA, key=key, desired=None, existing=None, action=Action.DELETE)


def table(of: Rule, *differences: Difference, findings: tuple[Finding, ...] = ()) -> TableDiff:
    return TableDiff(
        rule=of.id,
        table=of.table,
        direction=of.direction,
        key=of.key,
        desired_rows=9,
        existing_rows=9,
        differences=differences,
        findings=findings,
    )


def entry(cell: str = "c1", of: str = "aggregates", until: date | None = None, **key: str | None) -> Accepted:
    return Accepted(cell=cell, rule=of, key=key, why="it is the lab", until=until)


def accept(*found: tuple[Rule, TableDiff], entries: Sequence[Accepted]) -> dict[str, TableDiff]:
    """Return what becomes of the tables of c1, by rule."""
    pairs = {of.id: pairing(of) for of, _ in found}
    decided = {of.id: result for of, result in found}
    accepted = accepting.accept(decided, pairs, entries, child="c1", today=TODAY)
    return {name: result for name, result in accepted.items() if isinstance(result, TableDiff)}


def one(
    difference: Difference, *entries: Accepted, of: Rule | None = None, today: date = TODAY
) -> Difference:
    of = of or rule("aggregates", *(("name", "zone", "at")[: len(difference.key)]))
    [marked] = accept((of, table(of, difference)), entries=entries)[of.id].differences
    return marked


# -- Which difference an entry is about ----------------------------------------------------------


def test_an_accepted_difference_is_ignored_and_says_why() -> None:
    """Nothing is done about it; what it is and means stays."""
    found = missing("lab")
    marked = one(found, entry(name="lab"))
    assert marked == replace(found, action=Action.IGNORE, accepted="it is the lab")
    assert one(extra("lab"), entry(name="lab")).action is Action.IGNORE


@pytest.mark.parametrize(
    "other",
    [
        entry(name="lab2"),
        entry(name="LAB"),
        entry(name="lab "),
        entry(name=None),
        entry(host="lab"),
        entry(name="lab", host="h"),
        entry(cell="c2", name="lab"),
        entry(cell="api", name="lab"),
        entry(of="flavors", name="lab"),
    ],
)
def test_an_entry_about_something_else_accepts_nothing(other: Accepted) -> None:
    """Cell, rule and every column must agree, binary as keys do; the parent is not written here."""
    assert one(missing("lab"), other) == missing("lab")


@pytest.mark.parametrize("cell", ["c1", "*"])
def test_a_part_of_the_key_stands_for_all_rows_that_have_it(cell: str) -> None:
    """No column at all stands for every row of the rule."""
    for key in ({"name": "lab", "zone": "z"}, {"zone": "z"}, {"name": "lab"}, {}):
        accepted = [one(missing(*row), entry(cell, **key)).accepted for row in (("lab", "z"), ("x", "y"))]
        assert list(map(bool, accepted)) == [True, not key]


@pytest.mark.parametrize(
    ("part", "given"),
    [
        ("lab", "lab"),
        ("", ""),
        (7, "7"),
        (0.1, "0.1"),
        (Decimal("1.50"), "1.50"),
        (None, None),
        (b"\xab\x00", "0xab00"),
        (b"\xab\x00", "0xAB00"),
        (("west",), "west"),
        (("west", 7), "west/7"),
        ((("west", "x"), 7), "west/x/7"),
        (Dangling(raw=12, deleted=True), "id 12 (deleted)"),
    ],
)
def test_values_are_compared_as_people_write_them(part: KeyPart, given: str | None) -> None:
    """A reference is the key of its row, whatever its id is here."""
    assert one(missing(part), entry(name=given)).accepted
    assert not one(missing("another"), entry(name=given)).accepted


def test_null_and_the_word_null_differ() -> None:
    """They are two rows, and only one of them was accepted."""
    assert not one(missing(None), entry(name="NULL")).accepted
    assert not one(missing("NULL"), entry(name=None)).accepted
    assert one(missing("NULL"), entry(name="NULL")).accepted


def test_a_rule_that_goes_up_is_accepted_for_its_child_or_for_the_parent() -> None:
    """The parent is written there, from every child; the child is where the row comes from."""
    up = rule("instances", "name", up=True)
    for cell in ("c1", "api", "*"):
        assert one(missing("i"), entry(cell=cell, of="instances", name="i"), of=up).accepted
    assert not one(missing("i"), entry(cell="c2", of="instances", name="i"), of=up).accepted


def test_a_finding_is_accepted_for_its_child_or_for_the_cell_whose_rows_are_wrong() -> None:
    """The parent's orphan is found by every child; accepted for the parent it is accepted once."""
    hosts = rule("hosts", "host")
    orphan = Finding(code="orphan", cell="api", message="nobody has it", key=("h",))
    nameless = Finding(code="odd", cell="c1", message="no key")

    def found(*entries: Accepted) -> list[str]:
        marked = accept((hosts, table(hosts, findings=(orphan, nameless))), entries=entries)["hosts"]
        return [finding.accepted for finding in marked.findings]

    assert found(entry("api", "hosts", host="h")) == ["it is the lab", ""]
    assert found(entry("c1", "hosts", host="h")) == ["it is the lab", ""]
    assert found(entry("c2", "hosts", host="h")) == ["", ""]
    assert found(entry("c1", "hosts")) == ["it is the lab", "it is the lab"]
    assert found(entry("api", "hosts")) == ["it is the lab", ""]


def test_what_could_not_be_compared_is_never_accepted() -> None:
    """A failure stays what it is, whatever the list says."""
    failed = TableFailure(rule="aggregates", table="aggregates", direction=Direction.DOWN, error="gone")
    entries = [entry()]
    assert accepting.accept(
        {"aggregates": failed}, {"aggregates": failed}, entries, child="c1", today=TODAY
    ) == {"aggregates": failed}


# -- Until when ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "accepted"), [(-1, False), (0, True), (1, True)])
def test_an_entry_holds_through_its_last_day(days: int, accepted: bool) -> None:
    """The day after, the difference counts again, is repaired again, and says what it was."""
    until = TODAY + timedelta(days=days)
    marked = one(missing("lab"), entry(name="lab", until=until))
    if accepted:
        assert (marked.action, marked.accepted) == (Action.IGNORE, f"it is the lab (until {until})")
    else:
        assert (marked.action, marked.accepted) == (Action.INSERT, "")
        assert marked.reason == ("it is missing; accepted until 2026-11-22, which has passed (it is the lab)")


def test_an_expired_finding_says_so() -> None:
    """It counts again, and its text says that somebody once accepted it."""
    hosts = rule("hosts", "host")
    orphan = Finding(code="orphan", cell="api", message="nobody has it", key=("h",))
    entries = [entry("*", "hosts", date(2026, 1, 1)), entry("*", "hosts", date(2026, 2, 1))]
    [finding] = accept((hosts, table(hosts, findings=(orphan,))), entries=entries)["hosts"].findings
    assert finding.accepted == ""
    assert finding.message == "nobody has it; accepted until 2026-02-01, which has passed (it is the lab)"


def test_one_entry_that_holds_is_enough() -> None:
    """An expired one beside it says nothing any more; the first that holds says why."""
    entries = [
        entry(until=date(2020, 1, 1)),
        replace(entry(name="lab"), why="renewed"),
        replace(entry(), why="later in the list"),
    ]
    marked = one(missing("lab"), *entries)
    assert (marked.accepted, marked.reason) == ("renewed", "it is missing")


def test_a_day_is_one_of_utc() -> None:
    """Whatever the clock's zone, all runs agree on the day."""
    east = timezone(timedelta(hours=9))
    assert accepting.day(datetime(2026, 11, 24, 8, 59, tzinfo=east)) == TODAY
    assert accepting.day(datetime(2026, 11, 24, 9, 0, tzinfo=east)) == TODAY + timedelta(days=1)
    assert accepting.day(datetime(2026, 11, 23, 23, 59)) == TODAY


# -- What refers to it ---------------------------------------------------------------------------


def test_what_refers_to_a_row_accepted_as_missing_is_reported_and_not_written() -> None:
    """It would have nothing to refer to; whoever reads it learns what to accept as well."""
    aggregates = rule("aggregates", "name")
    hosts = rule("hosts", "aggregate_id", "host", aggregate_id="aggregates")
    notes = rule("notes", "name", aggregate_id="aggregates")
    marked = accept(
        (aggregates, table(aggregates, missing("lab"), missing("east"))),
        (hosts, table(hosts, missing(("lab",), "h1"), missing(("east",), "h2"))),
        (notes, table(notes, missing("n", aggregate_id=("lab",)))),
        entries=[entry(name="lab")],
    )
    held, other = marked["hosts"].differences
    assert (held.action, held.accepted) == (Action.REPORT, "")
    assert held.reason.endswith("not written, as aggregates lab is accepted as it is: accept this too")
    assert other.action is Action.INSERT
    assert marked["notes"].differences[0].action is Action.REPORT


def test_the_rows_below_are_accepted_by_the_key_that_they_refer_to() -> None:
    """One entry for a rule, with a part of its key, is enough for all of them."""
    aggregates = rule("aggregates", "name")
    hosts = rule("hosts", "aggregate_id", "host", aggregate_id="aggregates")
    marked = accept(
        (aggregates, table(aggregates, missing("lab"))),
        (hosts, table(hosts, missing(("lab",), "h1"), missing(("lab",), "h2"))),
        entries=[entry(name="lab"), entry(of="hosts", aggregate_id="lab")],
    )
    assert {d.accepted for d in marked["hosts"].differences} == {"it is the lab"}


def test_a_chain_of_references_is_held_back_to_its_end() -> None:
    """Of a tree, in a table that refers to itself, everything below the accepted row stays away."""
    tree = rule("tree", "name", parent_id="tree")
    leaf, branch, root = (
        missing("leaf", parent_id=("branch",)),
        missing("branch", parent_id=("root",)),
        missing("root", parent_id=None),
    )
    marked = accept((tree, table(tree, leaf, branch, root)), entries=[entry(of="tree", name="root")])
    assert [d.action for d in marked["tree"].differences] == [Action.REPORT, Action.REPORT, Action.IGNORE]


def test_an_accepted_extra_row_holds_nothing_back() -> None:
    """It is there: what refers to it can be written."""
    aggregates = rule("aggregates", "name")
    hosts = rule("hosts", "aggregate_id", "host", aggregate_id="aggregates")
    marked = accept(
        (aggregates, table(aggregates, extra("lab"))),
        (hosts, table(hosts, missing(("lab",), "h1"))),
        entries=[entry(name="lab")],
    )
    assert marked["hosts"].differences[0].action is Action.INSERT


# -- What can accept nothing ---------------------------------------------------------------------


def test_an_entry_without_a_rule_or_column_is_told() -> None:
    """A slip in the list is said once; a rule that only this run leaves out is no slip."""
    known = RuleSet(packs=(), rules=(rule("aggregates"),), digest="", left_out=frozenset(["hosts"]))
    entries = [entry(of="agregates"), entry(of="agregates"), entry(nmae="lab"), entry(of="hosts"), entry()]
    assert accepting.notes(entries, known) == (
        "accept names the rule agregates, which the rules in use lack: it accepts nothing",
        "accept names the column nmae, but the key of aggregates is name: it accepts nothing",
    )
