"""What a run saw and whom it worries: on the hand-made reports of every kind of run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_report import REPORTS, drifted, extra, in_step, missing, report, table

from cellsync.errors import ExitCode
from cellsync.model import CellFailure, CellResult, Finding, Kind, Report, Status, TableFailure
from cellsync.run import seeing

COMPARING = {name: each for name, each in REPORTS.items() if each.run.verb != "undo"}


@pytest.mark.parametrize("name", COMPARING)
def test_a_run_is_in_trouble_where_its_exit_code_says_so(name: str) -> None:
    """Whoever hears of trouble alone hears of every exit code but 0, and of no run that ends with it."""
    told = seeing.told(COMPARING[name])
    assert bool(told.cells) is (COMPARING[name].exit_code is not ExitCode.IN_STEP)


def test_the_same_trouble_has_the_same_mark() -> None:
    """Runs differ in their ids, times and numbers in an error; the trouble does not."""
    one = report(CellFailure(cell="c1", status=Status.UNREACHABLE, error="port 123 of c1: refused"))
    two = report(CellFailure(cell="c1", status=Status.UNREACHABLE, error="port 45 of c1: refused"))
    three = report(CellFailure(cell="c1", status=Status.UNREACHABLE, error="port 45 of c1: no route"))
    marks = [
        seeing.told(replace(each, run=replace(each.run, id=str(n)))).cells["c1"]
        for n, each in enumerate((one, two, three))
    ]
    assert marks[0] == marks[1] != marks[2]


WORSE: dict[str, CellResult] = {
    "one more row": replace(drifted(), tables=(table("a", missing(("x",)), missing(("y",))),)),
    "another kind": replace(drifted(), tables=(table("a", extra(("x",))),)),
    "another rule": replace(drifted(), tables=(table("b", missing(("x",))),)),
    "a finding": replace(
        drifted(),
        tables=(table("a", missing(("x",)), findings=(Finding(code="f", cell="c1", message="m"),)),),
    ),
    "rows that could not be judged": replace(
        drifted(), tables=(table("a", missing(("x",)), unknown=("c2 does not answer",)),)
    ),
    "a table that could not be compared": replace(
        drifted(),
        tables=(
            table("a", missing(("x",))),
            TableFailure(rule="b", table="b", direction=table("a").direction, error="gone"),
        ),
    ),
    "isolated": replace(drifted(), tables=(table("a", missing(("x",))),), isolated="2026-11-23 03:00:00"),
    "locked": replace(drifted(), tables=(table("a", missing(("x",))),), locked=True),
}


@pytest.mark.parametrize("what", WORSE)
def test_other_trouble_has_another_mark(what: str) -> None:
    """Each of these is a change of state."""
    before = report(replace(drifted(), tables=(table("a", missing(("x",))),)))
    after = report(WORSE[what])
    assert seeing.told(before).cells != seeing.told(after).cells


def test_another_row_in_the_place_of_one_is_the_same_trouble() -> None:
    """Counts make the state: rows that come and go are what `history --since` is for."""
    one, two = (report(replace(drifted(), tables=(table("a", missing((key,))),))) for key in "xy")
    assert seeing.told(one).cells == seeing.told(two).cells


def test_the_news_are_what_changed() -> None:
    """New trouble, other trouble, and the end of it; a first run knows of no trouble before."""
    healthy = report(in_step("c1"), in_step("c2"), code=0)
    broken = report(drifted("c1"), in_step("c2"))
    now, before = seeing.told(broken), seeing.told(healthy)
    assert seeing.news(broken, now, before) == seeing.News(changed=("c1",), trouble=True)
    assert seeing.news(broken, now, None) == seeing.News(changed=("c1",), trouble=True)
    assert seeing.news(broken, now, now) == seeing.News(trouble=True)
    assert seeing.news(healthy, before, now) == seeing.News(well=("c1",))
    assert seeing.news(healthy, before, None) == seeing.News()


def test_a_cell_that_left_the_configuration_is_not_called_well() -> None:
    """Nobody knows how it is."""
    healthy = report(in_step("c2"), code=0)
    before = seeing.told(report(drifted("c1"), in_step("c2")))
    assert seeing.news(healthy, seeing.told(healthy), before).well == ()


def test_an_exit_code_that_no_cell_explains_is_never_silent() -> None:
    """Then every cell is told."""
    odd = report(in_step("c1"), in_step("c2"), code=4)
    assert seeing.news(odd, seeing.told(odd), None).changed == ("c1", "c2")


def test_notes_on_the_configuration_are_told_once() -> None:
    """They are nobody's trouble, and do not hold up "all is well again"."""
    noted = replace(report(in_step("c1"), code=0), notes=("accept: there is no rule x",))
    now = seeing.told(noted)
    first = seeing.news(noted, now, None)
    assert (first.changed, first.trouble) == ((seeing.CONFIGURATION,), False)
    assert seeing.news(noted, now, now) == seeing.News()


def of_one(*tables: object) -> Report:
    return report(replace(drifted(), tables=tables))  # type: ignore[arg-type]


def test_a_sighting_has_counts_and_bounded_keys() -> None:
    """However many rows differ: all are counted, some are named, and it says that there are more."""
    many = table("a", *(missing((f"row-{number:04}",)) for number in range(1000)))
    tables = [replace(many, rule=f"r{number}") for number in range(10)]
    seen = seeing.sighting(of_one(*tables))
    assert [rule.counts[Kind.MISSING] for rule in seen.cells[0].rules] == [1000] * 10
    assert [len(rule.rows) for rule in seen.cells[0].rules] == [seeing.ROWS_OF_A_RULE] * 5 + [0] * 5
    assert not any(rule.whole for rule in seen.cells[0].rules)
    small = seeing.sighting(of_one(table("a", missing(("x",)))))
    assert small.cells[0].rules[0].whole


def test_long_keys_are_counted_and_not_named() -> None:
    """A line has room for many keys, not for one of ten thousand characters."""
    (rule,) = seeing.sighting(of_one(table("a", missing(("x" * 10_000,)), missing(("y",))))).cells[0].rules
    assert ([row.key for row in rule.rows], rule.total) == ([("y",)], 2)


def test_what_is_not_known_is_never_in_step() -> None:
    """Tables that failed, and tables whose rows could not be judged. A rule for other versions is no rule."""
    failed = TableFailure(rule="b", table="b", direction=table("a").direction, error="gone")
    made = of_one(table("a", unknown=("c2 does not answer",)), failed, table("c"))
    seen = seeing.sighting(replace(made, rule_features={"a": (), "b": (), "c": (), "d": ()}))
    assert (seen.rules, seen.cells[0].unknown) == (("a", "b", "c"), ("a", "b"))
    down = seeing.sighting(report(CellFailure(cell="c1", status=Status.UNREACHABLE, error="e\nmore")))
    assert (down.cells[0].error, down.cells[0].rules) == ("e", ())


def test_what_is_accepted_or_ignored_is_not_in_it() -> None:
    """It does not count, so it is no drift."""
    accepted = replace(missing(("x",)), accepted="retired")
    assert seeing.sighting(of_one(table("a", accepted))).cells[0].rules == ()
