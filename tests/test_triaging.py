"""Triage: when rows were first seen, repaired and seen again, from hand-made sightings and repairs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from test_driftlog import STARTED, drifted, seen

from cellsync.model import Drifted, Kind, Repair, SeenCell, Sighting, Spell, Status, Triage
from cellsync.run import triaging

IN_STEP = SeenCell(cell="c1", status=Status.IN_STEP)
DOWN = SeenCell(cell="c1", status=Status.UNREACHABLE, error="cannot connect to c1")


def at(minutes: float) -> datetime:
    return STARTED + timedelta(minutes=minutes)


def triage(*cells: SeenCell | None, repairs: tuple[Repair, ...] = (), since: float = -1) -> Triage:
    """Return the triage of one run a minute that saw these; None for a minute without a run."""
    sightings = [seen(number, cell) for number, cell in enumerate(cells) if cell is not None]
    return triaging.triage(sightings, repairs, since=at(since), until=at(len(cells)), parent="api")


def repaired(minutes: float, key: str | None = "x", *, cell: str = "c1", rows: int = 1) -> Repair:
    run = f"run-{int(minutes)}"
    whole = None if key is None else (key,)
    return Repair(run=run, cell=cell, rule="aggregates", key=whole, at=at(minutes), rows=rows)


def row(found: Triage, key: str = "x") -> Drifted:
    return next(each for each in found.rows if each.key == (key,))


def test_a_row_that_came_and_went() -> None:
    """First and last seen by runs, and the run that saw it no more."""
    found = row(triage(IN_STEP, drifted("x"), drifted("x"), IN_STEP))
    assert found.spells == (Spell(first=at(1), last=at(2), ended=at(3)),)
    assert (found.open, found.repairs, found.contested) == (False, 0, False)
    assert (found.cell, found.rule, found.key_columns, found.kinds) == (
        "c1",
        "aggregates",
        ("name",),
        (Kind.MISSING,),
    )


def test_a_row_that_is_there_still() -> None:
    """Its spell is open."""
    found = row(triage(IN_STEP, drifted("x"), drifted("x", "y")))
    assert found.spells == (Spell(first=at(1), last=at(2)),)
    assert found.open


def test_a_row_that_the_first_look_found_may_be_older() -> None:
    """Nobody had looked at its rule before."""
    assert row(triage(drifted("x"), IN_STEP)).spells[0].from_the_start
    assert not row(triage(IN_STEP, drifted("x"))).spells[0].from_the_start


def test_a_row_that_was_repaired() -> None:
    """By which run and when, whether a run has looked since or not."""
    looked = row(triage(IN_STEP, drifted("x"), drifted("x"), IN_STEP, repairs=(repaired(2.1),)))
    expected = Spell(first=at(1), last=at(2), repaired=at(2.1), repair="run-2")
    assert looked.spells == (replace(expected, ended=at(3)),)
    assert row(triage(IN_STEP, drifted("x"), drifted("x"), repairs=(repaired(2.1),))).spells == (expected,)
    assert not looked.open


def test_a_clock_that_is_behind_does_not_part_a_repair_from_what_it_saw() -> None:
    """A journal's time may lie before the run that made it: what it repaired is what it had seen."""
    late = replace(repaired(2), at=at(1.5))
    found = row(triage(IN_STEP, IN_STEP, drifted("x"), IN_STEP, repairs=(late,)))
    assert [spell.repair for spell in found.spells] == ["run-2"]


def test_a_row_that_comes_back_after_each_repair_is_contested() -> None:
    """From the second time on: two writers undo each other. Once may be chance."""
    repairs = tuple(repaired(minute + 0.1) for minute in (1, 2, 3))
    cells = (IN_STEP, drifted("x"), drifted("x"), drifted("x"), drifted("x"))
    once = row(triage(*cells[:3], repairs=repairs[:1]))
    assert (len(once.spells), once.contested) == (2, False)
    twice = row(triage(*cells[:4], repairs=repairs[:2]))
    assert ([spell.repair for spell in twice.spells], twice.contested) == (["run-1", "run-2", ""], True)
    all_three = row(triage(*cells, repairs=repairs))
    assert (len(all_three.spells), all_three.repairs, all_three.open) == (4, 3, True)


def test_two_repairs_that_nobody_looked_between_are_one_end() -> None:
    """Runs without a drift log repaired it twice; the next look finds it again, once."""
    found = row(triage(IN_STEP, drifted("x"), drifted("x"), repairs=(repaired(1.2), repaired(1.6))))
    assert [(spell.first, spell.repair) for spell in found.spells] == [(at(1), "run-1"), (at(2), "")]


def test_a_row_that_comes_and_goes_without_repairs_is_not_contested() -> None:
    """Somebody mends it; nobody undoes what cellsync did."""
    found = row(triage(*(IN_STEP, drifted("x")) * 4))
    assert (len(found.spells), found.contested) == (4, False)


@pytest.mark.parametrize(
    "blind",
    [
        DOWN,
        SeenCell(cell="c1", status=Status.INCOMPLETE, unknown=("aggregates",)),
        drifted("y", more=1),
        None,
    ],
    ids=["unreachable", "rule not compared", "more rows than are named", "no run"],
)
def test_who_did_not_look_did_not_see_it_gone(blind: SeenCell | None) -> None:
    """A cell that was down, a rule that failed, or a list that was cut, ends no spell."""
    found = row(triage(IN_STEP, drifted("x"), blind, drifted("x"), IN_STEP))
    assert found.spells == (Spell(first=at(1), last=at(3), ended=at(4)),)


def test_a_run_over_another_rule_or_cell_says_nothing_of_this_one() -> None:
    """Its scope is what it looked at."""
    other_rule = replace(seen(2), rules=("flavors",))
    other_cell = seen(3, replace(IN_STEP, cell="c2"))
    sightings = [seen(0, IN_STEP), seen(1, drifted("x")), other_rule, other_cell, seen(4, drifted("x"))]
    found = triaging.triage(sightings, (), since=at(-1), until=at(5), parent="api")
    assert row(found).spells == (Spell(first=at(1), last=at(4)),)


def test_what_ended_before_the_time_asked_about_is_left_out() -> None:
    """What reaches into it is not, and says since when it drifts."""
    cells = (drifted("old"), IN_STEP, drifted("x"), drifted("x"), IN_STEP)
    found = triage(*cells, since=2.5)
    assert [each.key for each in found.rows] == [("x",)]
    assert row(found).spells[0].first == at(2)
    assert [look.first.run for look in found.looks] == ["run-2", "run-4"]


def test_rules_have_their_own_course() -> None:
    """How many rows at most, and the repair after which all was in step; one that left some is none."""
    cells = (IN_STEP, drifted("x", "y", more=7), drifted("x"), IN_STEP, drifted("z"))
    found = triage(*cells, repairs=(repaired(1.5, None, rows=8), repaired(2.5, None), repaired(4.5, None)))
    (rule,) = found.rules
    assert (rule.key, rule.most, rule.cell, rule.rule) == (None, 9, "c1", "aggregates")
    assert [(spell.first, spell.repaired) for spell in rule.spells] == [(at(1), at(2.5)), (at(4), at(4.5))]
    partly = triage(IN_STEP, drifted("x", "y"), repairs=(repaired(1.5, None, rows=1),))
    assert partly.rules[0].open


def test_a_rule_whose_rows_come_up_is_repaired_in_the_parent() -> None:
    """Its drift is seen in the child, its change stands in the parent's journal."""
    found = row(triage(IN_STEP, drifted("x"), IN_STEP, repairs=(repaired(1.1, cell="api"),)))
    assert found.spells[0].repair == "run-1"


def test_runs_that_saw_the_same_are_one_look() -> None:
    """With their number, and when the last one was."""
    looks = triage(*[IN_STEP] * 5, *[drifted("x")] * 2, IN_STEP).looks
    assert [(look.first.run, look.runs, look.last) for look in looks] == [
        ("run-0", 5, at(4)),
        ("run-5", 2, at(6)),
        ("run-7", 1, at(7)),
    ]


def test_the_level_is_what_was_known_at_the_time() -> None:
    """Summed over cells; a cell that could not be asked stays as it was, and is named."""
    two = [drifted("x", more=2), replace(drifted("y"), cell="c2")]
    sightings: list[Sighting] = [
        seen(0, IN_STEP, replace(IN_STEP, cell="c2")),
        seen(1, *two),
        seen(2, DOWN, replace(IN_STEP, cell="c2")),
        seen(3, IN_STEP, replace(IN_STEP, cell="c2")),
    ]
    levels = triaging.triage(sightings, (), since=at(-1), until=at(4), parent="api").levels
    assert [(level.at, level.total, level.unknown) for level in levels] == [
        (at(0), 0, ()),
        (at(1), 4, ()),
        (at(2), 3, ("c1",)),
        (at(3), 0, ()),
    ]
    assert levels[1].counts == {Kind.MISSING: 4, Kind.CHANGED: 0, Kind.EXTRA: 0}


def test_what_comes_back_most_often_stands_first() -> None:
    """Contested rows before all others, then those that came back, then those that are there now."""
    repairs = tuple(repaired(minute + 0.1, "z") for minute in (1, 2))
    cells = (
        drifted("gone"),
        drifted("z", "twice"),
        drifted("z"),
        drifted("z", "twice", "now"),
        drifted("now", "twice"),
    )
    found = triage(
        IN_STEP, *cells, repairs=tuple(replace(each, at=each.at + timedelta(minutes=1)) for each in repairs)
    )
    assert [each.key for each in found.rows] == [("z",), ("twice",), ("now",), ("gone",)]


def test_only_rows_of_the_time_are_asked_about() -> None:
    """Whoever asks about an hour goes through that hour's rows."""
    sightings = [seen(0, drifted("old")), seen(10, drifted("x", "y"))]
    assert triaging.named(sightings, at(5)) == {'["x"]', '["y"]'}
