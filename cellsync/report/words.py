"""Wording that outputs share: how values, keys, numbers and states read.

Values are shown so that two that differ never look alike: NULL and 'NULL', 'a' and 'a ', and two
long texts that differ only in the part that is cut out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from cellsync.errors import ExitCode
from cellsync.model import (
    HIDDEN,
    Action,
    Dangling,
    HostStatus,
    KeyPart,
    Reference,
    Refusal,
    Remedy,
    ServerTime,
    Status,
    Stored,
    Value,
    Way,
)

NEEDS_QUOTES = re.compile(r"""^$|^null$|^\(|->|[\s,='"\\…]""", re.IGNORECASE)

STATUS = {
    Status.IN_STEP: "in step",
    Status.DIFFERS: "out of step",
    Status.REPAIRED: "repaired",
    Status.REFUSED: "refused",
    Status.INCOMPLETE: "incomplete",
    Status.UNREACHABLE: "could not be reached",
}

ACTION = {
    Action.INSERT: "insert",
    Action.UPDATE: "update",
    Action.DELETE: "delete",
    Action.SOFT_DELETE: "soft delete",
    Action.REPLACE: "replace",
    Action.REPORT: "reported only",
    Action.IGNORE: "ignored by the rule",
}

DONE = {
    Action.INSERT: "inserted",
    Action.UPDATE: "updated",
    Action.DELETE: "deleted",
    Action.SOFT_DELETE: "soft deleted",
    Action.REPLACE: "replaced",
}

ANSWER = {
    HostStatus.OK: "ok",
    HostStatus.REFUSED: "refused",
    HostStatus.AUTH: "login refused",
    HostStatus.VHOST: "no such virtual host for this user",
    HostStatus.SCHEMA: "no such schema for this user",
    HostStatus.TIMEOUT: "no answer in time",
    HostStatus.BLOCKED: "blocked",
    HostStatus.ERROR: "error",
}
"""What a login to a database or a broker came to."""

EXIT = {
    ExitCode.IN_STEP: "in step, or all done",
    ExitCode.DIFFERENCES: "differences or findings remain",
    ExitCode.USAGE: "usage or configuration",
    ExitCode.REFUSED: "a guard refused some rule, or some of its changes: these were not written",
    ExitCode.INCOMPLETE: "incomplete: something could not be compared, or a change failed or conflicted",
    ExitCode.LOCKED: "another run holds the lock",
    ExitCode.BUG: "a bug in cellsync",
    ExitCode.INTERRUPTED: "interrupted",
}


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return "1 row", "2 rows"; ``plural`` where an s is not enough."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def unseen(cells: Sequence[str]) -> str:
    """Return what is to be said of cells whose journal, if there is one, is hidden from this login."""
    return (
        f"no journal is seen in {listed(cells)}: either no run ever wrote there, or it is hidden from this "
        f"login, which has no SELECT on the schema cellsync: GRANT SELECT ON cellsync.* to it"
    )


def instant(time: datetime) -> str:
    """Return a UTC time as ISO 8601 with seconds and a Z; jq's fromdate takes no fraction."""
    utc = time.replace(tzinfo=None) - (time.utcoffset() or timedelta())
    return utc.isoformat(timespec="seconds") + "Z"


def remedy(do: Remedy) -> str:
    """Return what is to be done about a finding: "run: nova-manage ...", "SQL in c1: UPDATE ..."."""
    how = {Way.WORDS: "do", Way.SHELL: "run", Way.SQL: f"SQL in {do.cell}"}
    return f"{how[do.way]}: {do.text}"


def ago(seconds: int | None) -> str:
    """Return how long ago something was: "40 s ago", "3 h ago"; "never" for None."""
    if seconds is None:
        return "never"
    if seconds < 120:
        return f"{seconds} s ago"
    if seconds < 7200:
        return f"{seconds // 60} min ago"
    return f"{seconds // 3600} h ago" if seconds < 172800 else f"{seconds // 86400} days ago"


def waiver(refusal: Refusal) -> str | None:
    """Return what ``--waive`` takes to lift this refusal and no other: "limit:aggregates".

    None where there is nothing to waive: a refusal that is not about a rule (no journal), one that
    only follows from the refusal of another rule, or one that the server would not let us lift.
    """
    waivable = refusal.rule and refusal.code not in ("depends", "privilege", "no-primary-key")
    return f"{refusal.code}:{refusal.rule}" if waivable else None


def value(part: KeyPart | Stored, limit: int | None = None) -> str:
    """Return one value as people read it, in one line; ``limit`` cuts long ones in the middle.

    A reference reads as the key of the row that it refers to.
    """
    if isinstance(part, Reference):
        return value(part.key, limit)
    if isinstance(part, tuple):
        return _tuple(part, limit)
    if isinstance(part, Dangling):
        return f"{_scalar(part.raw, limit)} (refers to {'a soft-deleted' if part.deleted else 'no'} row)"
    return _scalar(part, limit)


def _scalar(scalar: Value | ServerTime, limit: int | None) -> str:
    if isinstance(scalar, ServerTime):
        return scalar.value
    if isinstance(scalar, str):
        return _text(scalar, limit)
    if isinstance(scalar, bytes):
        return shorten(f"0x{scalar.hex().upper()}", limit)
    if isinstance(scalar, Decimal):
        return decimal(scalar)
    return "NULL" if scalar is None else str(scalar)


def decimal(number: Decimal) -> str:
    """Return a DECIMAL as the server prints it: 0E-10 is 0.0000000000."""
    return f"{number:f}"


def _tuple(parts: tuple[KeyPart, ...], limit: int | None) -> str:
    if len(parts) == 1:
        return value(parts[0], limit)
    return f"({', '.join(value(part, limit) for part in parts)})"


def _text(text: str, limit: int | None) -> str:
    if text == HIDDEN:
        return text
    if limit is not None and len(text) > limit:
        return f"{_quoted(_cut(text, limit))} ({len(text)} characters)"
    return _quoted(text) if NEEDS_QUOTES.search(text) else text


def shorten(text: str, limit: int | None) -> str:
    """Cut the middle out of a text that is longer than ``limit`` and say how long it was."""
    if limit is None or len(text) <= limit:
        return text
    return f"{_cut(text, limit)} ({len(text)} characters)"


def _cut(text: str, limit: int) -> str:
    return f"{text[: limit // 2]}…{text[-(limit // 2) :]}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def key(named: Iterable[tuple[str, KeyPart | Stored]], limit: int | None = None) -> str:
    """Return a key in readable form: "aggregate_id=west key=availability_zone"."""
    return " ".join(f"{column}={value(part, limit)}" for column, part in named)


def step(existing: KeyPart, desired: KeyPart, limit: int | None = None) -> str:
    """Return "existing -> desired", so that the two can be told apart."""
    if existing == desired == HIDDEN:
        return f"{HIDDEN}, and not the same"
    if isinstance(existing, str) and isinstance(desired, str):
        return _text_step(existing, desired, limit)
    return f"{value(existing, limit)} -> {value(desired, limit)}"


def _text_step(existing: str, desired: str, limit: int | None) -> str:
    shown = [value(text, limit) for text in (existing, desired)]
    if shown[0] == shown[1] and limit is not None:
        # They differ only in what was cut out: show them from there on.
        pairs = zip(existing, desired, strict=False)
        at = next((index for index, (old, new) in enumerate(pairs) if old != new), 0)
        shown = [_from(text, at, limit) for text in (existing, desired)]
    if len({unicodedata.normalize("NFC", text) for text in shown}) == 1:
        # Two spellings of the same letters look the same on every screen.
        shown = [text.encode("ascii", "backslashreplace").decode("ascii") for text in shown]
    return " -> ".join(shown)


def _from(text: str, at: int, limit: int) -> str:
    start = max(0, at - limit // 4)
    cut = text[start : start + limit]
    return f"{_quoted(f'…{cut}…')} ({len(text)} characters, from {start + 1})"
