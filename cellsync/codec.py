"""Values, changes and plans as JSON, and back without loss.

The journal and plan files are written with this. JSON has no bytes and no decimals, so these and
the other things that are not plain values are objects with one key: {"bytes": "00ff"}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cellsync.model import (
    Action,
    Change,
    Dangling,
    DatabaseIdentity,
    Key,
    KeyPart,
    Plan,
    Reference,
    Refusal,
    ServerTime,
    Skipped,
    Stored,
)
from cellsync.spool import kept

VERSION = 1
"""The version of plan files and of the journal's rows; a newer one is refused by older readers."""


PLAIN = frozenset({str, int, bool, type(None)})
"""What nearly all values are; JSON has them as they are."""

to_text = json.JSONEncoder(ensure_ascii=False).encode
"""Returns JSON on one line; what ``json.dumps`` says, which makes an encoder each time."""


class Text(str):
    """JSON that is text already: ``document`` takes it as it is."""

    __slots__ = ()


def encode(value: Stored | KeyPart) -> Any:
    """Return what ``json`` can write for a value, a reference or a part of a key."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, ServerTime):
        return {"server": value.value}
    if isinstance(value, Reference):
        return {"rule": value.rule, "key": encode(value.key)}
    if isinstance(value, Dangling):
        return {"dangling": encode(value.raw), "deleted": value.deleted}
    if isinstance(value, tuple):
        return [encode(part) for part in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, float):
        # Not a JSON number, so that no reader between here and there rounds it.
        return {"float": value.hex()}
    return value


def decode(data: Any) -> Any:
    """Return what ``encode`` was given. Raises ValueError, TypeError or KeyError for anything else."""
    if isinstance(data, list):
        return tuple(decode(part) for part in data)
    if not isinstance(data, dict):
        return data
    if "bytes" in data:
        return bytes.fromhex(data["bytes"])
    if "decimal" in data:
        try:
            number = Decimal(data["decimal"])
        except ArithmeticError:
            raise ValueError("not a decimal number") from None
        if not number.is_finite():
            raise ValueError("not a decimal number")
        return number
    if "float" in data:
        try:
            return float.fromhex(data["float"])
        except OverflowError:
            raise ValueError("not a floating-point number") from None
    if "server" in data:
        return ServerTime(data["server"])
    if "dangling" in data:
        if not isinstance(data["deleted"], bool):
            raise TypeError("not a reference")
        return Dangling(raw=decode(data["dangling"]), deleted=data["deleted"])
    rule, key = data["rule"], data["key"]
    if not (isinstance(rule, str) and isinstance(key, list)):
        raise TypeError("not a reference")
    return Reference(rule=rule, key=decode(key))


@dataclass(frozen=True)
class Lines:
    """A list in a JSON document, of which each item is a line of its own; it is made while it is written."""

    items: Iterable[Any]


def document(content: Any, indent: str = "") -> Iterator[str]:
    """Yield an indented JSON document in pieces; ``Lines`` in it may be longer than memory."""
    deeper = f"{indent}  "
    if isinstance(content, Mapping) and content:
        for number, (name, value) in enumerate(content.items()):
            yield f"{',' if number else '{'}\n{deeper}{to_text(name)}: "
            yield from document(value, deeper)
        yield f"\n{indent}}}"
    elif isinstance(content, (list, Lines)):
        number = 0
        for item in content.items if isinstance(content, Lines) else content:
            yield f"{',' if number else '['}\n{deeper}"
            if isinstance(content, Lines):
                yield item if isinstance(item, Text) else to_text(item)
            else:
                yield from document(item, deeper)
            number += 1
        yield f"\n{indent}]" if number else "[]"
    else:
        yield to_text(content)


def row_to_text(row: Mapping[str, Stored] | None) -> str | None:
    """Return a row, or the part of it that a change speaks of, as JSON text."""
    return None if row is None else to_text(_row_to_data(row))


def row_from_text(text: str | None) -> dict[str, Stored] | None:
    """Return what ``row_to_text`` was given."""
    return None if text is None else _row_from_data(json.loads(text))


def tuple_to_text(values: Key | tuple[str, ...]) -> str:
    """Return a key, an identity or a list of names as JSON text."""
    if len(values) == 1 and type(values[0]) is int:
        return f"[{values[0]}]"
    return to_text(values if PLAIN.issuperset(map(type, values)) else [encode(value) for value in values])


def tuple_from_text(text: str) -> tuple[Any, ...]:
    """Return what ``tuple_to_text`` was given."""
    return tuple(decode(value) for value in json.loads(text))


def plan_to_data(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON data, for ``document``."""
    return {
        "child": plan.child,
        "written": plan.written,
        "database": {
            "server": plan.database.server,
            "schema": plan.database.schema,
            "version": plan.database.version,
        },
        "changes": Lines(_change_to_data(change) for change in plan.changes),
        "skipped": Lines({"rule": s.rule, "key": encode(s.key), "reason": s.reason} for s in plan.skipped),
        "refusals": Lines(
            {"code": r.code, "rule": r.rule, "message": r.message, "holds": list(r.holds)}
            for r in plan.refusals
        ),
        "notices": list(plan.notices),
        "desired_rows": dict(plan.desired_rows),
    }


def plan_from_data(data: Mapping[str, Any]) -> Plan:
    """Return what ``plan_to_data`` was given. Raises KeyError or TypeError for anything else."""
    return Plan(
        child=data["child"],
        written=data["written"],
        database=DatabaseIdentity(**data["database"]),
        changes=kept(_change_from_data(each) for each in data["changes"]),
        skipped=kept(
            Skipped(rule=each["rule"], key=decode(each["key"]), reason=each["reason"])
            for each in data["skipped"]
        ),
        refusals=tuple(
            Refusal(**{**each, "holds": tuple(each.get("holds", ()))}) for each in data["refusals"]
        ),
        notices=tuple(data["notices"]),
        # A plan of an older version has none: then what is compared now stands in.
        desired_rows=dict(data.get("desired_rows", {})),
    )


def _change_to_data(change: Change) -> dict[str, Any]:
    return {
        "rule": change.rule,
        "table": change.table,
        "action": change.action.value,
        "key": encode(change.key),
        "key_columns": list(change.key_columns),
        "identity_columns": list(change.identity_columns),
        "identity": encode(change.identity),
        "before": _row_to_data(change.before),
        "after": _row_to_data(change.after),
        "origin": encode(change.origin),
        "reason": change.reason,
        "together": change.together,
        "unwritten": {name: encode(part) for name, part in change.unwritten.items()},
    }


def _change_from_data(data: Mapping[str, Any]) -> Change:
    # A plan that an older cellsync wrote has none.
    unwritten = data.get("unwritten", {})
    return Change(
        rule=data["rule"],
        table=data["table"],
        action=Action(data["action"]),
        key=decode(data["key"]),
        key_columns=tuple(data["key_columns"]),
        identity_columns=tuple(data["identity_columns"]),
        identity=decode(data["identity"]),
        before=_row_from_data(data["before"]),
        after=_row_from_data(data["after"]),
        origin=decode(data["origin"]),
        reason=data["reason"],
        together=data["together"],
        unwritten_columns=tuple(unwritten),
        unwritten_values=tuple(map(decode, unwritten.values())),
    )


def _row_to_data(row: Mapping[str, Stored] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    if PLAIN.issuperset(map(type, row.values())):
        return {**row}
    return {name: value if type(value) in PLAIN else encode(value) for name, value in row.items()}


def _row_from_data(data: Mapping[str, Any] | None) -> dict[str, Stored] | None:
    return None if data is None else {name: decode(value) for name, value in data.items()}
