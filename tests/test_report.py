"""Reports: golden files of every kind of run, and properties that hold whatever the data says.

CELLSYNC_UPDATE_GOLDEN=1 writes the golden files anew; read their diff before committing it.
"""

from __future__ import annotations

import json as stdlib_json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsync.errors import ExitCode
from cellsync.model import (
    Action,
    CellFailure,
    CellResult,
    Change,
    ColumnDifference,
    Counts,
    Dangling,
    DatabaseIdentity,
    Difference,
    Direction,
    Finding,
    JournaledRun,
    Key,
    KeyPart,
    Kind,
    Plan,
    Reference,
    Refusal,
    Report,
    Row,
    Run,
    SchemaDifference,
    Secrets,
    ServerTime,
    Skipped,
    Status,
    Stored,
    TableDiff,
    TableFailure,
    TableResult,
)
from cellsync.report import FORMATS, Style, json, jsonl, past, text, words

GOLDEN = Path(__file__).parent / "golden"
PLAIN = Style()
VERBOSE = Style(verbose=1)
TERMINAL = Style(terminal=True, width=100)
STARTED = datetime(2026, 11, 23, 3, 0, 0)
HOSTILE = "[red]x[/red] [/bold]\n\r\t\x1b[31m\u202e\u2028\x85\ud800"


# -- Hand-made reports ---------------------------------------------------------------------------


def run(verb: str = "diff", command: str = "") -> Run:
    return Run(
        id="20261123T030000-4f2a",
        verb=verb,
        started=STARTED,
        topology="api",
        operator="root",
        host="ops1",
        command=command or f"cellsync {verb}",
        dry_run="--dry-run" in command,
    )


def report(*cells: CellResult | CellFailure, of: Run | None = None, code: int = 1) -> Report:
    return Report(
        run=of or run(),
        finished=STARTED + timedelta(seconds=2),
        cells=cells,
        features={
            "availability-zones": "No server boots into a zone that the cell does not know.",
            "quotas": "Limits of projects are not what was agreed.",
        },
        rule_features={
            "aggregates": ("availability-zones",),
            "aggregate-metadata": ("availability-zones",),
            "quotas": ("quotas",),
        },
        exit_code=ExitCode(code),
    )


def table(rule: str, *differences: Difference, key: tuple[str, ...] = ("name",), **values: Any) -> TableDiff:
    known: dict[str, Any] = {
        "table": rule.replace("-", "_"),
        "direction": Direction.DOWN,
        "desired_rows": 7,
        "existing_rows": 7,
        "status": Status.DIFFERS if differences else Status.IN_STEP,
    }
    return TableDiff(rule=rule, key=key, differences=differences, **{**known, **values})


def missing(key: Key, reason: str = "", **columns: KeyPart) -> Difference:
    rows = tuple(ColumnDifference(column=c, desired=v, existing=None) for c, v in columns.items())
    return Difference(
        kind=Kind.MISSING,
        key=key,
        desired=None,
        existing=None,
        columns=rows,
        action=Action.INSERT,
        reason=reason,
    )


def changed(key: Key, column: str, existing: KeyPart, desired: KeyPart, reason: str = "") -> Difference:
    step = (ColumnDifference(column=column, desired=desired, existing=existing),)
    return Difference(
        kind=Kind.CHANGED,
        key=key,
        desired=None,
        existing=None,
        columns=step,
        action=Action.UPDATE,
        reason=reason,
    )


def extra(key: Key, action: Action = Action.REPORT, reason: str = "") -> Difference:
    return Difference(kind=Kind.EXTRA, key=key, desired=None, existing=None, action=action, reason=reason)


def change(
    action: Action, rule: str, key: Key, names: tuple[str, ...] = ("name",), **after: Stored
) -> Change:
    return Change(
        rule=rule,
        table=rule.replace("-", "_"),
        action=action,
        key=key,
        key_columns=names,
        identity_columns=("id",),
        identity=() if action is Action.INSERT else (5,),
        before=None if action is Action.INSERT else {"value": "2.0"},
        after=None if action is Action.DELETE else after,
    )


def plan(*changes: Change, child: str = "c1", **values: Any) -> Plan:
    database = DatabaseIdentity(server="srv-1", schema="nova", version="10.11.6-MariaDB")
    return Plan(child=child, written=child, database=database, changes=changes, **values)


METADATA = ("aggregate_id", "key")
EAST = missing(
    ("east",), "c1 does not know the aggregate east, nor its availability zone.", uuid=None, name="east"
)
ZONE = missing(
    (("west",), "availability_zone"), "Hosts of west are in no availability zone in c1.", value="az-west"
)
RATIO = changed(
    (("west",), "cpu_allocation_ratio"),
    "value",
    "2.0",
    "4.0",
    "The scheduler of c1 sells 2.0 virtual CPUs for each real one on west, not 4.0.",
)
ORPHAN = Finding(
    code="orphan",
    cell="api",
    message="No child has the host cmp-9. Remove it from the aggregate, or name its cell.",
    key=(("west",), "cmp-9"),
)
LIMBO = Finding(
    code="deleted-is-null",
    cell="c1",
    message="Nova does not see this row. Set deleted to 0 or to its id.",
    key=("old",),
)


def drifted(name: str = "c1") -> CellResult:
    return CellResult(
        cell=name,
        status=Status.DIFFERS,
        tables=(
            table(
                "aggregates",
                EAST,
                extra(("lab",), reason="c1 has an aggregate of its own."),
                findings=(LIMBO,),
            ),
            table("aggregate-metadata", ZONE, RATIO, key=METADATA),
            table("aggregate-hosts", key=("aggregate_id", "host"), findings=(ORPHAN,)),
            table("flavors"),
            table(
                "services",
                missing(("api", "nova-compute", "cmp-1")),
                key=("cell", "binary", "host"),
                direction=Direction.UP,
            ),
            table("keypairs"),
        ),
        counts=Counts(planned=3),
        notices=(f"restart nova-scheduler in {name}: it caches aggregates",),
    )


def in_step(name: str) -> CellResult:
    return CellResult(cell=name, status=Status.IN_STEP, tables=(table("aggregates"), table("flavors")))


LONG = "a" * 5000 + "b" + "a" * 5000


def planned(verb: str) -> Report:
    cell = CellResult(
        cell="c1",
        status=Status.DIFFERS,
        tables=(
            table("aggregates", EAST, extra(("old",), Action.SOFT_DELETE), extra(("lab",))),
            table("aggregate-metadata", RATIO, key=METADATA),
        ),
        counts=Counts(planned=3),
        plans=(
            plan(
                change(Action.INSERT, "aggregates", ("east",), name="east", created_at=ServerTime.NOW),
                change(
                    Action.UPDATE,
                    "aggregate-metadata",
                    (("west",), "cpu_allocation_ratio"),
                    METADATA,
                    value="4.0",
                    aggregate_id=Reference(rule="aggregates", key=("west",)),
                ),
                change(Action.UPDATE, "aggregates", ("old",), value=5),
                skipped=(
                    Skipped(rule="aggregates", key=("x\ny",), reason="name is longer than the column of c1"),
                ),
            ),
        ),
        notices=("restart nova-scheduler in c1: it caches aggregates",),
    )
    return report(cell, in_step("c2"), of=run(verb, f"cellsync {verb} --dry-run"))


def repaired() -> Report:
    done = CellResult(
        cell="c1",
        status=Status.REPAIRED,
        tables=(
            table("aggregates", EAST, extra(("lab",)), status=Status.REPAIRED),
            table("aggregate-metadata", ZONE, RATIO, key=METADATA, status=Status.REPAIRED),
        ),
        counts=Counts(planned=3, applied=3),
        notices=("restart nova-scheduler in c1: it caches aggregates",),
    )
    return report(done, in_step("c2"), of=run("repair"), code=1)


def conflicted() -> Report:
    cell = CellResult(
        cell="c1",
        status=Status.INCOMPLETE,
        tables=(table("aggregate-metadata", ZONE, RATIO, key=METADATA, status=Status.INCOMPLETE),),
        counts=Counts(planned=3, applied=1, conflicts=1, failed=1),
        problems=(
            "aggregate-metadata aggregate_id=west key=ratio: conflict: value was 2.0 and is 3.0",
            "aggregate-metadata aggregate_id=west key=note: failed: Data too long for column 'value'",
        ),
    )
    locked = CellResult(
        cell="c2",
        status=Status.INCOMPLETE,
        tables=(table("aggregates", EAST),),
        counts=Counts(planned=1),
        locked=True,
    )
    return report(cell, locked, of=run("repair"), code=5)


def undone() -> Report:
    changes = plan(
        change(Action.DELETE, "aggregates", (), name="east"),
        replace(
            change(Action.UPDATE, "aggregate-metadata", (), value="2.0"),
            before={"name": "west", "value": "4.0"},
        ),
    )
    cell = CellResult(
        cell="c1",
        status=Status.INCOMPLETE,
        tables=(),
        counts=Counts(planned=2, applied=1, conflicts=1),
        plans=(changes,),
        problems=("aggregate-metadata id=5 has moved on: value was 4.0 and is 8.0",),
    )
    return report(cell, of=run("undo"), code=4)


REPORTS = {
    "in-step": report(*map(in_step, ("c1", "c2", "c3")), code=0),
    "in-step-one": report(in_step("c1"), code=0),
    "drift": report(drifted("c1"), drifted("c2")),
    "unreachable": report(
        in_step("c1"),
        CellFailure(cell="c2", status=Status.UNREACHABLE, error="10.0.2.1:3306 did not answer within 5 s"),
        CellFailure(
            cell="c3", status=Status.INCOMPLETE, error="migrate_version is 302, api has 319: upgrade c3 first"
        ),
        code=4,
    ),
    "table-failure": report(
        CellResult(
            cell="c1",
            status=Status.INCOMPLETE,
            tables=(
                TableFailure(
                    rule="quotas",
                    table="quotas",
                    direction=Direction.DOWN,
                    error="c1 has no column hard_limit",
                    schema=(
                        SchemaDifference(
                            path="column hard_limit", desired="int(11)", existing=None, blocking=True
                        ),
                    ),
                ),
                table(
                    "aggregates",
                    schema=(
                        SchemaDifference(
                            path="column name: collation", desired="utf8_bin", existing="utf8_general_ci"
                        ),
                    ),
                    unknown=("c2 did not answer: 3 rows without a cell path may be its own",),
                ),
                table("flavors"),
            ),
        ),
        code=4,
    ),
    "refusal": report(
        CellResult(
            cell="c1",
            status=Status.REFUSED,
            tables=(
                table(
                    "quotas",
                    *(changed((f"p{n}",), "hard_limit", n, -1) for n in range(25)),
                    status=Status.REFUSED,
                ),
            ),
            refusals=(
                Refusal(code="limit", rule="quotas", message="25 updates of 40 rows are more than 25% (10)."),
                Refusal(
                    code="journal",
                    rule="",
                    message="no journal; an administrator can:\nCREATE SCHEMA `cellsync`;\nGRANT ...;",
                ),
            ),
        ),
        code=3,
    ),
    "plan": planned("plan"),
    "dry-run": planned("repair"),
    "repaired": repaired(),
    "conflict": conflicted(),
    "undo": undone(),
    "accepted": report(
        CellResult(
            cell="c1",
            status=Status.IN_STEP,
            tables=(
                table(
                    "aggregates",
                    replace(
                        extra(("lab",), Action.IGNORE, "c1 has an aggregate of its own."),
                        accepted="the lab is c1's own (until 2027-01-01)",
                    ),
                    status=Status.IN_STEP,
                ),
                table(
                    "aggregate-hosts",
                    key=("aggregate_id", "host"),
                    findings=(replace(ORPHAN, accepted="cmp-9 is being rebuilt"),),
                ),
                table(
                    "flavors",
                    extra(("c1.small",), Action.IGNORE, "c1 has a flavor of its own."),
                    status=Status.IN_STEP,
                ),
            ),
        ),
        code=0,
    ),
    "accepted-in-part": replace(
        report(
            CellResult(
                cell="c1",
                status=Status.DIFFERS,
                tables=(
                    table(
                        "aggregates",
                        replace(
                            missing(("attic",), name="attic"),
                            action=Action.IGNORE,
                            accepted="c1 gets no attic",
                        ),
                        replace(EAST, reason=f"{EAST.reason}; accepted until 2026-10-31, which has passed"),
                        findings=(LIMBO, replace(LIMBO, key=("older",), accepted="goes with the upgrade")),
                    ),
                ),
            ),
        ),
        notes=("accept names the rule agregates, which the rules in use lack: it accepts nothing",),
    ),
    "odd-values": report(
        CellResult(
            cell="c1",
            status=Status.DIFFERS,
            tables=(
                table(
                    "odd",
                    changed((HOSTILE,), "text", HOSTILE, "NULL", HOSTILE),
                    changed(("",), "empty", "", None),
                    changed((1,), "long", LONG, LONG.replace("b", "c")),
                    changed((2,), "long", LONG, "short"),
                    changed((3,), "accent", "e\u0301", "\u00e9"),
                    changed((4,), "binary", b"\x00\xff", b"\x00\xfe"),
                    changed((5,), "decimal", Decimal("0E-10"), Decimal("1.50")),
                    changed((6,), "float", float("nan"), 0.1),
                    changed((7,), "reference", Dangling(raw=12, deleted=True), (("west", 1),)),
                    changed((8,), "spaces", "a ", "a\\n"),
                ),
            ),
        )
    ),
}

RUNS = [
    JournaledRun(run=run("repair"), finished=None, status="running", cells=("c1", "c2"), applied=12),
    JournaledRun(
        run=replace(run("undo"), id="20261122T030000-11aa"),
        finished=STARTED,
        status="done",
        cells=("c1",),
        applied=1,
        undoes="20261121T030000-77cc",
    ),
    JournaledRun(
        run=replace(run("repair"), id="20261121T030000-77cc", reason="ticket 4711\nnight"),
        finished=STARTED,
        status="done",
        cells=("c1",),
        applied=1,
        undone_by=("20261122T030000-11aa",),
    ),
]


# -- Golden files --------------------------------------------------------------------------------


def check_golden(name: str, pieces: Iterable[str]) -> None:
    rendered = "".join(pieces)
    path = GOLDEN / name
    if os.environ.get("CELLSYNC_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(rendered, encoding="utf-8")
    assert rendered == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize(("format_", "suffix"), [("text", "txt"), ("json", "json"), ("jsonl", "jsonl")])
def test_a_report_reads_as_its_golden_file(name: str, format_: str, suffix: str) -> None:
    """Every output of every kind of run is what a person has read and found good."""
    check_golden(f"report-{name}.{suffix}", FORMATS[format_](REPORTS[name], PLAIN))


@pytest.mark.parametrize("name", ["drift", "plan", "undo", "table-failure"])
def test_a_verbose_report_reads_as_its_golden_file(name: str) -> None:
    """Verbose shows every column and every schema difference."""
    check_golden(f"report-{name}-verbose.txt", text.render(REPORTS[name], VERBOSE))


@pytest.mark.parametrize("name", ["plan", "refusal", "unreachable"])
def test_the_question_of_a_repair_reads_as_its_golden_file(name: str) -> None:
    """What repair shows before it asks: numbers per rule, refusals and notices."""
    check_golden(f"question-{name}.txt", text.plan(REPORTS[name], PLAIN))


@pytest.mark.parametrize("name", ["in-step", "table-failure"])
def test_schema_differences_read_as_their_golden_files(name: str) -> None:
    """Schema differences alone, for people and for machines."""
    check_golden(f"schema-{name}.txt", text.schema(REPORTS[name], PLAIN))
    check_golden(f"schema-{name}.json", json.schema(REPORTS[name]))


def test_the_history_reads_as_its_golden_files() -> None:
    """One line a run, newest first; what was cut off and what was undone is said."""
    check_golden("history.txt", past.history(RUNS, PLAIN))
    check_golden("history.json", json.history(RUNS))
    assert "".join(past.history([], PLAIN)) == "no run has written anything yet\n"
    unseen = "".join(past.history([], PLAIN, unseen=["c1"]))
    assert unseen == "as far as journals are seen, no run has written anything yet\n"


# -- What a person must be able to rely on -------------------------------------------------------


def first(name: str) -> str:
    return "".join(text.render(REPORTS[name], PLAIN)).splitlines()[0]


def test_the_first_line_is_the_verdict() -> None:
    """Who reads one line knows how things stand."""
    assert first("in-step") == "all 3 cells are in step with api"
    assert first("in-step-one") == "c1 is in step with api"
    assert (
        first("drift")
        == "2 of 2 cells are out of step with api: 6 rows missing, 2 changed, 2 extra; 2 findings"
    )
    assert first("unreachable") == (
        "2 of 3 cells could not be compared (c2 and c3); 1 of 3 cells is in step with api"
    )
    assert first("repaired") == "repaired 3 rows in c1; 1 difference is reported only"


def test_a_failure_is_never_a_number() -> None:
    """A cell or table that could not be compared has null where others have counts."""
    cells = stdlib_json.loads("".join(json.render(REPORTS["unreachable"])))["cells"]
    assert cells[1]["changes"] is None
    assert cells[1]["tables"] == []
    failed = stdlib_json.loads("".join(json.render(REPORTS["table-failure"])))["cells"][0]["tables"][0]
    assert [failed[name] for name in ("rows", "missing", "changed", "extra")] == [None] * 4
    assert failed["error"]


def test_a_finding_of_the_parent_stands_once() -> None:
    """Every child's edge finds the parent's orphan again; people read it once."""
    rendered = "".join(text.render(REPORTS["drift"], PLAIN))
    assert rendered.count("No child has the host cmp-9") == 1
    assert rendered.index("in api:") < rendered.index("cmp-9")


def test_only_so_many_differences_are_shown() -> None:
    """20 of a kind, then how many more; verbose shows all."""
    rendered = "".join(text.render(REPORTS["refusal"], PLAIN))
    assert rendered.count("changed name=") == 20
    assert "... and 5 more changed in quotas (-v shows all)" in rendered
    assert "".join(text.render(REPORTS["refusal"], VERBOSE)).count("changed name=") == 25


def test_accepted_differences_are_shown_and_not_counted() -> None:
    """What people have decided to live with stays visible and adds up to nothing."""
    rendered = "".join(text.render(REPORTS["accepted"], PLAIN))
    assert rendered.startswith("c1 is in step with api; 1 difference and 1 finding are accepted\n")
    assert "extra name=lab, accepted: the lab is c1's own (until 2027-01-01)" in rendered
    assert rendered.index("accepted findings (not counted):") < rendered.index("cmp-9 is being rebuilt")
    lab, orphan, _ = stdlib_json.loads("".join(json.render(REPORTS["accepted"])))["cells"][0]["tables"]
    assert (lab["extra"], lab["accepted"], lab["ignored"]) == (0, 1, 0)
    assert lab["differences"][0]["accepted"] == "the lab is c1's own (until 2027-01-01)"
    assert orphan["findings"][0]["accepted"] == "cmp-9 is being rebuilt"


def test_what_a_rule_ignores_is_not_called_accepted() -> None:
    """It is counted apart, and listed only when more is asked for."""
    rendered = "".join(text.render(REPORTS["accepted"], PLAIN))
    assert "flavors: no difference that counts; 1 ignored by the rule" in rendered
    assert "c1.small" not in rendered
    verbose = "".join(text.render(REPORTS["accepted"], VERBOSE))
    assert "extra name=c1.small (ignored by the rule)" in verbose
    flavors = stdlib_json.loads("".join(json.render(REPORTS["accepted"])))["cells"][0]["tables"][2]
    assert (flavors["extra"], flavors["accepted"], flavors["ignored"]) == (0, 0, 1)


def test_accepted_differences_do_not_crowd_out_those_that_count() -> None:
    """A list that is cut short shows what counts first, and says nothing is broken by the rest."""
    accepted = [replace(missing((f"a{n}",)), action=Action.IGNORE, accepted="old") for n in range(30)]
    cell = CellResult(cell="c1", status=Status.DIFFERS, tables=(table("quotas", *accepted, missing(("z",))),))
    lines = "".join(text.render(report(cell), PLAIN)).splitlines()
    assert "quotas: 1 row missing in c1; 30 accepted" in lines[3]
    assert next(line for line in lines if "name=" in line).strip() == "missing name=z (insert)"
    extras = (*accepted, extra(("lab",)))
    cell = CellResult(cell="c1", status=Status.DIFFERS, tables=(table("quotas", *extras),))
    assert "breaks" not in "".join(text.render(report(cell), PLAIN))


def test_values_that_differ_look_different() -> None:
    """NULL and 'NULL', trailing spaces, composed letters, and long texts that differ in the middle."""
    steps = [
        (None, "NULL"),
        ("", None),
        ("a", "a "),
        ("e\u0301", "\u00e9"),
        (LONG, LONG.replace("b", "c")),
        ("\\n", "\n"),
        ("'", "\\'"),
        (LONG, LONG + "a"),
    ]
    for existing, desired in steps:
        old, new = words.step(existing, desired, 60).split(" -> ")
        assert old != new, (existing, desired)


def test_the_order_of_differences_is_that_of_their_keys() -> None:
    """Results come in no order that means anything; what people read does not move between runs."""
    keys: list[Key] = [
        (None,),
        (2,),
        (10,),
        ("a",),
        ("b",),
        (b"a",),
        (("a",),),
        (Dangling(raw=1, deleted=True),),
    ]
    forwards = report(CellResult(cell="c1", status=Status.DIFFERS, tables=(table("t", *map(extra, keys)),)))
    backwards = report(
        CellResult(cell="c1", status=Status.DIFFERS, tables=(table("t", *map(extra, keys[::-1])),))
    )
    for render in FORMATS.values():
        assert list(render(forwards, PLAIN)) == list(render(backwards, PLAIN))


def test_a_waiver_is_said_once_and_only_where_it_lifts_something() -> None:
    """A message that names its waiver stands alone; what follows from another refusal has none."""
    refusals = (
        Refusal(code="limit", rule="quotas", message="too many (--waive limit:quotas)"),
        Refusal(code="depends", rule="hosts", message="refers to rows of quotas, which was refused"),
    )
    cell = CellResult(cell="c1", status=Status.REFUSED, tables=(), refusals=refusals)
    assert "".join(text.render(report(cell, code=3), PLAIN)).count("--waive") == 1
    said = stdlib_json.loads("".join(json.render(report(cell, code=3))))["cells"][0]["refusals"]
    assert [each["waive"] for each in said] == ["limit:quotas", None]


def test_a_reference_reads_as_the_key_of_its_row() -> None:
    """One part is the value itself, several are a list."""
    assert json.value((("west",),)) == "west"
    assert json.value(("a", (1,))) == ["a", 1]
    assert json.value(Dangling(raw=b"\xab", deleted=True)) == {"dangling": "0xAB", "deleted": True}
    assert words.value(("a", (1,))) == "(a, 1)"


def test_times_are_utc_whatever_their_zone() -> None:
    """An aware time of another zone is converted, a naive one is UTC already."""
    zone = timezone(timedelta(hours=9))
    assert words.instant(datetime(2026, 11, 23, 12, 0, 0, 999, tzinfo=zone)) == "2026-11-23T03:00:00Z"
    assert words.instant(STARTED) == "2026-11-23T03:00:00Z"


# -- Whatever the data says ----------------------------------------------------------------------

WILD = st.text(st.one_of(st.characters(exclude_categories=()), st.sampled_from(HOSTILE)), max_size=80)
SCALARS = st.one_of(
    st.none(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False, places=10),
    WILD,
    st.binary(max_size=80),
)
PARTS: st.SearchStrategy[KeyPart] = st.recursive(
    st.one_of(SCALARS, st.builds(Dangling, raw=SCALARS, deleted=st.booleans())),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(tuple),
    max_leaves=4,
)


def with_values(part: KeyPart, other: KeyPart, prose: str) -> Report:
    """Return a report that has these values wherever a value of a database can come."""
    found = Finding(code="orphan", cell="api", message=f"about {prose}", key=(part,))
    differing = table(
        "aggregates",
        missing((part,), f"reason {prose}", name=other),
        changed((part,), "value", part, other, f"reason {prose}"),
        replace(extra((part,)), columns=(ColumnDifference(column="c", desired=None, existing=other),)),
        findings=(found,),
        unknown=(f"unknown {prose}",),
    )
    failed: TableResult = TableFailure(rule="q", table="q", direction=Direction.UP, error=f"error {prose}")
    cell = CellResult(
        cell="c1",
        status=Status.INCOMPLETE,
        tables=(differing, failed),
        problems=(f"problem {prose}",),
        skipped=(Skipped(rule="aggregates", key=(part,), reason=f"reason {prose}"),),
        notices=(f"notice {prose}",),
        plans=(plan(change(Action.INSERT, "aggregates", (part,), name=str(other))),),
        refusals=(Refusal(code="limit", rule="aggregates", message="too many"),),
    )
    unreachable = CellFailure(cell="c2", status=Status.UNREACHABLE, error=f"error {prose}")
    return report(cell, unreachable, code=4)


ITEMS = 3 + len(["finding", "unknown", "table", "refusal", "skipped", "problem", "cell"])
"""Of ``with_values``: a line each in JSON lines."""


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *strings(each))
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def as_utf16(value: str) -> bytes:
    """Return what JSON can tell apart: two lone surrogates in a row are one character to it."""
    return value.encode("utf-16", "surrogatepass")


@given(PARTS, PARTS, WILD)
def test_json_parses_back_whatever_the_values(part: KeyPart, other: KeyPart, prose: str) -> None:
    """The document is UTF-8, parses, and gives back what went in."""
    rendered = "".join(json.render(with_values(part, other, prose)))
    document = stdlib_json.loads(rendered.encode("utf-8"), parse_constant=pytest.fail)
    difference = document["cells"][0]["tables"][0]["differences"][1]
    assert as_utf16(difference["reason"]) == as_utf16(f"reason {prose}")
    if isinstance(other, str):
        assert as_utf16(difference["columns"]["value"]["desired"]) == as_utf16(other)


def as_json(found: Difference, of: TableDiff, secrets: Secrets) -> dict[str, Any]:
    """Return a difference as JSON has it, value by value."""
    shown = {
        each.column: {
            name: json.value(secrets.safe(each.column, part, table=of.table))
            for name, part in (("desired", each.desired), ("existing", each.existing))
        }
        for each in of.columns_of(found)
    }
    since = max((row.since for row in (found.desired, found.existing) if row and row.since), default=None)
    return {
        "kind": found.kind.value,
        "key": {column: json.value(part) for column, part in zip(of.key, found.key, strict=True)},
        "columns": shown,
        "action": found.action.value,
        "reason": found.reason,
        "since": since and f"{since.replace(' ', 'T')}Z",
        "accepted": found.accepted or None,
    }


@given(
    st.lists(st.one_of(PARTS, st.booleans(), st.floats()), min_size=4, max_size=4),
    WILD,
    st.sampled_from([None, "2026-11-23 15:00:59"]),
    st.sampled_from([Secrets(), Secrets(hide=("na%me",))]),
)
def test_json_of_a_difference_is_what_json_makes_of_its_parts(
    parts: list[KeyPart], prose: str, since: str | None, secrets: Secrets
) -> None:
    """To the letter, for whole rows and for what changed; hidden values and URLs are safe in both."""
    names = ("na%me", "password", "transport_url")
    row = Row(key=(parts[0],), values=tuple(parts[1:]), identity=(1,), since=since)
    other = row._replace(values=tuple(parts[:0:-1]))
    step = tuple(map(ColumnDifference, names, row.values, other.values))
    of = table("t", key=("k%y",), columns=names)
    for found in (
        Difference(kind=Kind.MISSING, key=row.key, desired=row, existing=None, action=Action.INSERT),
        Difference(kind=Kind.EXTRA, key=row.key, desired=None, existing=row, reason=prose),
        Difference(kind=Kind.CHANGED, key=row.key, desired=row, existing=other, columns=step, accepted=prose),
        Difference(kind=Kind.CHANGED, key=row.key, desired=row, existing=other),
    ):
        made = json.Differences(of, secrets).text(found)
        assert made == stdlib_json.dumps(as_json(found, of, secrets), ensure_ascii=False)


def test_json_escapes_what_is_unseen_in_ascii_too() -> None:
    """DEL is the one such character of ASCII, in which nearly all text is."""
    assert json.line({"a": "x\x7fy"}) == '{"a": "x\\u007fy"}\n'


@given(PARTS, PARTS, WILD)
def test_json_lines_are_one_line_an_item(part: KeyPart, other: KeyPart, prose: str) -> None:
    """As many lines as items, by anybody's idea of a line, and each parses alone."""
    rendered = "".join(jsonl.render(with_values(part, other, prose)))
    lines = rendered.splitlines()
    assert len(lines) == ITEMS == rendered.count("\n")
    for line in lines:
        content = stdlib_json.loads(line.encode("utf-8"), parse_constant=pytest.fail)
        assert {"run", "cell", "kind"} <= content.keys()


@given(PARTS, PARTS, WILD, st.sampled_from([PLAIN, VERBOSE]))
def test_plain_text_cannot_be_forged(part: KeyPart, other: KeyPart, prose: str, style: Style) -> None:
    """No control, direction or separator but the newline, and as many lines as for tame values."""
    rendered = "".join(text.render(with_values(part, other, prose), style))
    odd = [char for char in rendered if unicodedata.category(char)[0] in "CZ" and char not in "\n "]
    assert not odd
    tame = "".join(text.render(with_values("a", "b", "c"), style))
    assert rendered.count("\n") == tame.count("\n") == len(rendered.splitlines())
    rendered.encode("utf-8")


@given(WILD)
def test_markup_is_literal_on_a_terminal(wild: str) -> None:
    """The terminal's colours are rich's own: what data says is printed, never interpreted."""
    value = f"[red]x[/red]{wild}[/bold]"
    rendered = "".join(
        text.render(with_values("key", value, value), replace(TERMINAL, width=2000, verbose=1))
    )
    bare = re.sub(r"\x1b\[[0-9;]*m", "", rendered)
    assert "[red]x[/red]" in bare
    assert "[/bold]" in bare
    assert all(char.isprintable() for char in bare if char != "\n")


@pytest.mark.parametrize("name", REPORTS)
def test_a_terminal_shows_what_a_pipe_gets(name: str) -> None:
    """Colours and an overview come on top; no word is lost, at any width."""
    rendered = "".join(text.render(REPORTS[name], TERMINAL))
    bare = re.sub(r"\x1b\[[0-9;]*m", "", rendered)
    assert "\x1b[" in rendered
    assert re.search(r"\n *\n", bare)
    flat = "".join(bare.split())
    for line in "".join(text.render(REPORTS[name], PLAIN)).splitlines():
        assert "".join(line.split()) in flat


def test_a_terminal_without_colours_gets_none() -> None:
    """NO_COLOR leaves the layout and takes the escapes."""
    assert "\x1b" not in "".join(text.render(REPORTS["drift"], replace(TERMINAL, color=False)))


def test_plain_text_is_not_wrapped_and_does_not_load_rich() -> None:
    """A long fact stays on its line."""
    rendered = "".join(text.render(with_values("k", "v", "word " * 60), PLAIN))
    assert max(map(len, rendered.splitlines())) > 300
    script = "import sys, cellsync.report.text; sys.exit('rich' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], cwd=GOLDEN.parent.parent, check=False).returncode == 0
    )


def test_long_values_are_cut_in_the_middle() -> None:
    """Their length is said; verbose shows them whole."""
    rendered = "".join(text.render(REPORTS["odd-values"], PLAIN))
    assert "(10001 characters)" in rendered
    assert max(map(len, rendered.splitlines())) < 800
    assert LONG in "".join(text.render(REPORTS["odd-values"], VERBOSE))
