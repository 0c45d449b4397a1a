"""What a rule file says about rows that are replaced: the shape of ``replaces``, and what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cellsync.model import Action, LookUp, Replacing, Rule, Surrogate
from cellsync.rules.nodes import Node, list_of, mapping_of, name, text

if TYPE_CHECKING:
    from cellsync.rules.complaints import Complaint

REPLACES: Node = {
    **mapping_of(
        {
            "unless_used_in": list_of(
                mapping_of(
                    {
                        "table": name("the name of a table", "The table of the written side to look in."),
                        "column": name("the name of a column", "Its column that may hold the old id."),
                        "where": text("an SQL condition", "Which of its rows count. Default: all."),
                    },
                    "a mapping of table, column and where",
                    "Rows that use the old id.",
                    required=("table", "column"),
                ),
                "a list of tables with their columns",
                "Where rows may use the old id: with one such row nothing is replaced, and there is a "
                "finding. Rows of rules and of foreign keys that refer to it are looked for in any case.",
            )
        },
        "a mapping of unless_used_in, or false",
        "What to do about a row that has the same key under another preserved id: remove it, insert the "
        "desired one, each with the rows that refer to it by their keys, in one transaction. Where the old "
        "id is in use, or the new one is taken, it is the finding preserved-id. Default: always the finding.",
        required=("unless_used_in",),
    ),
    "type": ["object", "boolean"],
    "not": {"const": True},
}


def read_replacing(raw: Any) -> Replacing | None:
    """Return what a rule file says about it; None for nothing, or false."""
    if raw is None or raw is False:
        return None
    return Replacing(unless_used_in=tuple(LookUp(**each) for each in raw["unless_used_in"]))


def find_complaints(rule: Rule) -> Iterator[Complaint]:
    """Yield what ``replaces`` lacks to have any meaning."""
    if rule.replaces is None:
        return
    preserved = {name for name, how in rule.surrogate.items() if how is Surrogate.PRESERVE}
    if len(preserved - set(rule.key)) != 1:
        yield ("replaces",), "rows are replaced where one preserved id differs: say surrogate: {id: preserve}"
    elif rule.on_missing is not Action.INSERT:
        yield ("replaces",), "rows are replaced by inserting others: say on_missing: insert, or remove this"
    elif rule.comes_with is not None:
        yield ("replaces",), "rows that come with others are only ever inserted: remove this"
