"""What is wrong with the changes that files make in rules of others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cellsync.errors import Problem
from cellsync.rules import complaints
from cellsync.rules.drafts import Amendment, Sheet


def check(sheets: Sequence[Sheet], known: Collection[str]) -> Iterator[Problem]:
    """Yield the changes of rules that are not there, and those of rules that another file changes before.

    ``known`` are the ids of all rules in use; the pack that has a rule may not be among them.
    """
    yield from _unknown(sheets, known)
    yield from _doubled(sheets)


def _unknown(sheets: Sequence[Sheet], known: Collection[str]) -> Iterator[Problem]:
    for amendment in _all(sheets):
        if amendment.rule not in known:
            near = complaints.suggest(amendment.rule, known)
            yield amendment.problem((), f"no rule in use has the id {amendment.rule!r}: {near}")


def _doubled(sheets: Sequence[Sheet]) -> Iterator[Problem]:
    first: dict[str, Amendment] = {}
    for amendment in _all(sheets):
        earlier = first.setdefault(amendment.rule, amendment)
        if earlier is not amendment:
            message = f"{amendment.rule!r} is changed at {earlier.position} already: put both into one place"
            yield amendment.problem((), message)


def _all(sheets: Sequence[Sheet]) -> Iterator[Amendment]:
    return (amendment for sheet in sheets for amendment in sheet.amendments)
