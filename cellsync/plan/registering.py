"""What to write into Nova's register of cells, or why not. Pure.

The rows are those of ``nova-manage cell create`` and ``cell delete``; source: nova/cmd/manage.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellsync.errors import UsageError
from cellsync.model import (
    Action,
    Cell,
    CellRow,
    Change,
    Family,
    NovaConf,
    Projected,
    Projection,
    Refusal,
    ServerTime,
    SoftDelete,
    Stored,
    Value,
)
from cellsync.model.registry import NAME_LENGTH, TABLE, URL_LENGTH

RULE = "cells"
"""What these changes are called where others have the name of a rule."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A row to be: how one cell is to reach its neighbour."""

    name: str
    is_parent: bool
    transport_url: str
    weight_offset: float
    weight_scale: float


def target(*, parent: str, child: str) -> Projection:
    """Return how a written row is found again, and what must read as it was written."""
    return Projection(
        rule=RULE,
        table=TABLE,
        key=(Projected(column="name", family=Family.TEXT),),
        columns=(Projected(column="transport_url", family=Family.TEXT),),
        identity=("id",),
        identity_families=(Family.INTEGER,),
        soft_delete=SoftDelete(column="deleted", live=0, tombstone="id", at="deleted_at"),
        parent=parent,
        child=child,
    )


def check_name(name: str) -> None:
    """Raise UsageError for a name that Nova takes and then stumbles over.

    ``!`` parts the names in a path and ``@`` a path from a host; Nova's REST API refuses "!" and
    ".", ``nova-manage`` nothing.
    """
    if not name or len(name) > NAME_LENGTH:
        raise UsageError(f"the name of a cell has 1 to {NAME_LENGTH} characters")
    bad = re.search(r"[!@.\s\x00-\x1f\x7f]", name)
    if bad is not None:
        shown = "a blank" if bad[0].isspace() or not bad[0].isprintable() else bad[0]
        raise UsageError(f"the name of a cell cannot hold {shown}: Nova takes it for a part of a path")


def check_url(url: str) -> None:
    """Raise UsageError for a transport_url that the column cuts, or refuses."""
    if len(url) > URL_LENGTH:
        raise UsageError(
            f"the transport_url has {len(url)} characters and the column {URL_LENGTH}: name fewer hosts, "
            f"or a shorter password"
        )


def insert(rows: Sequence[CellRow], wanted: Wanted, where: str) -> Change | Refusal | None:
    """Return the new row, or a refusal where a live one has its name; None where it is there as wanted."""
    twins = [row for row in rows if not row.deleted and row.name.casefold() == wanted.name.casefold()]
    if any(_equal(row, wanted) for row in twins):
        return None
    if twins:
        ids = ", ".join(f"id {row.id}" for row in twins)
        message = (
            f"{where} has a row named {twins[0].name} already ({ids}), and not as it is wanted: "
            f"`cellsync cells list` shows it, `cellsync cells delete` removes it"
        )
        return Refusal(code="exists", rule="", message=message)
    after: dict[str, Stored] = {
        "name": wanted.name,
        "transport_url": wanted.transport_url,
        "weight_offset": wanted.weight_offset,
        "weight_scale": wanted.weight_scale,
        "is_parent": int(wanted.is_parent),
        "deleted": 0,
        "created_at": ServerTime.NOW,
    }
    role = "its parent" if wanted.is_parent else "its child"
    return _change(
        Action.INSERT, wanted.name, None, f"{where} reaches {role} by it", before=None, after=after
    )


def remove(row: CellRow) -> Change:
    """Return the soft delete of a row, guarded by all that it holds and journaled whole."""
    after: Mapping[str, Stored] = {"deleted": row.id, "deleted_at": ServerTime.NOW}
    return _change(Action.UPDATE, row.name, row.id, "soft delete", before=row.whole, after=after)


def bring_back(row: CellRow) -> Change:
    """Return how a soft-deleted row becomes live again, and what it was."""
    after: Mapping[str, Stored] = {"deleted": 0, "deleted_at": None}
    return _change(Action.UPDATE, row.name, row.id, "live again, as it was", before=row.whole, after=after)


def bring_back_lost(whole: Mapping[str, Value]) -> Change:
    """Return how a row that is gone for good is made again, from the journal, with its id."""
    return _change(Action.INSERT, str(whole["name"]), None, "as the journal has it", before=None, after=whole)


def most_isolated(text: str | None, children: int) -> int:
    """Return how many children may be isolated at once: "3" or "25%"; the larger of 1 and 25 % without."""
    if text is None:
        return max(1, children // 4)
    match = re.fullmatch(r"(\d{1,4})(%?)", text)
    if match is None or (match[2] and int(match[1]) > 100):
        raise UsageError(f"--max-isolated {text}: write a number of children, or a percentage: 2, 25%")
    return children * int(match[1]) // 100 if match[2] else int(match[1])


def _equal(row: CellRow, wanted: Wanted) -> bool:
    held = (row.name, row.is_parent, row.transport_url.reveal(), row.weight_offset, row.weight_scale)
    asked = (wanted.name, wanted.is_parent, wanted.transport_url, wanted.weight_offset, wanted.weight_scale)
    return row.live and held == asked


def _change(
    action: Action,
    name: str,
    number: int | None,
    reason: str,
    *,
    before: Mapping[str, Value] | None,
    after: Mapping[str, Stored],
) -> Change:
    return Change(
        rule=RULE,
        table=TABLE,
        action=action,
        key=(name,),
        key_columns=("name",),
        identity_columns=("id",),
        identity=() if number is None else (number,),
        before=before,
        after=after,
        reason=reason,
    )


def find_check_interval(nova: NovaConf | None) -> int:
    """Return in how many seconds nova-cells sees what changed in its table."""
    return nova.check_interval if nova else NovaConf(file="").check_interval


def say_when_seen(cell: Cell) -> str:
    """Return when the nova-cells of a cell sees what was written to its table."""
    return f"nova-cells of {cell.name} sees it within {find_check_interval(cell.nova)} s (db_check_interval)"
