"""The JSON output: its shape is a contract (DESIGN section 8); keys are added, never renamed.

A cell or table that could not be compared has null where another has a number, so that nobody
can add it up as zero. Every value of every database comes out as JSON that parses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from cellsync.codec import PLAIN, Lines, Text, document, to_text
from cellsync.model import (
    Action,
    CellFailure,
    CellResult,
    Change,
    ColumnDifference,
    Counts,
    Dangling,
    Difference,
    Finding,
    JournaledRun,
    KeyPart,
    Kind,
    Plan,
    Reference,
    Refusal,
    Remedy,
    Repeated,
    Report,
    SchemaDifference,
    Secrets,
    ServerTime,
    Skipped,
    Stored,
    TableDiff,
    TableFailure,
    TableResult,
    Value,
)
from cellsync.report import facts, words
from cellsync.report.page import Style

if TYPE_CHECKING:
    from cellsync.model import Drifted, Look, Sighting, Triage

VERSION = 1

UNSEEN = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""What JSON allows inside a string and UTF-8, terminals or ``splitlines`` do not take well."""

TIME = re.compile(r"[\d-]{10} [\d:.]+")
"""A time as a server prints it."""

Object = dict[str, Any]


def render(report: Report, style: Style | None = None) -> Iterator[str]:
    """Yield the report as one JSON document, in which each difference has its line."""
    return whole(content(report))


def content(report: Report) -> Object:
    """Return the report as the keys of its document, in order."""
    cells = [_cell(cell, report) for cell in report.cells]
    return {**_head(report), "cells": cells, **_foot(report)}


def schema(report: Report, style: Style | None = None) -> Iterator[str]:
    """Yield the schema differences alone, in the same cells and tables."""
    cells = [_schema_cell(cell) for cell in report.cells]
    return whole({**_head(report), "cells": cells, **_foot(report)})


def history(runs: Sequence[JournaledRun], *, unseen: Sequence[str] = ()) -> Iterator[str]:
    """Yield the runs in the order given, newest first, and the cells of whose journal nothing is known."""
    return whole({"version": VERSION, "runs": Lines(map(journaled, runs)), "unseen": [*unseen]})


def course(runs: Sequence[JournaledRun], of: Triage, *, unseen: Sequence[str] = ()) -> Iterator[str]:
    """Yield the runs of a time, newest first, those that only looked among them, and what drifted."""
    return whole(course_content(runs, of, unseen=unseen))


def course_content(runs: Sequence[JournaledRun], of: Triage, *, unseen: Sequence[str] = ()) -> Object:
    """Return the same as the keys of its document.

    A run that only looked stands for those after it that saw the same: ``alike`` of them, until
    ``until``. What the drift log does not know of it is null.
    """
    saw = {look.first.run: look for look in of.looks}
    wrote = {each.run.id for each in runs}
    listed = [(each.run.started, {**journaled(each), **_looked(saw.get(each.run.id))}) for each in runs]
    listed += [
        (each.first.started, {**_log_only(each.first), **_looked(each)})
        for each in of.looks
        if each.first.run not in wrote
    ]
    ordered = [content for _, content in sorted(listed, key=lambda each: each[0], reverse=True)]
    return {
        "version": VERSION,
        "since": words.instant(of.since),
        "until": words.instant(of.until),
        "runs": Lines(ordered),
        "drift": Lines(map(_drifted, of.rules)),
        "rows": Lines(map(_drifted_row, of.rows)),
        "log": {"error": of.unread or None, "torn": of.torn},
        "unseen": [*unseen],
    }


def _log_only(seen: Sighting) -> Object:
    return {
        "run": seen.run,
        "verb": seen.verb,
        "started": words.instant(seen.started),
        "finished": words.instant(seen.finished),
        "status": "looked",
        "cells": [cell.cell for cell in seen.cells],
        "applied": 0,
        "undoes": None,
        "undone_by": [],
        "topology": seen.topology,
        "operator": None,
        "host": None,
        "command": None,
        "reason": None,
    }


def _looked(look: Look | None) -> Object:
    if look is None:
        return {"saw": None, "alike": 0, "until": None}
    cells = [
        {
            "cell": cell.cell,
            "status": cell.status.value,
            "error": cell.error or None,
            "unknown": list(cell.unknown),
            "rules": [
                {"rule": rule.rule, "findings": rule.findings}
                | {kind.value: number for kind, number in rule.counts.items()}
                for rule in cell.rules
            ],
        }
        for cell in look.first.cells
    ]
    return {"saw": cells, "alike": look.runs - 1, "until": words.instant(look.last)}


def _drifted(of: Drifted) -> Object:
    return {"cell": of.cell, "rule": of.rule, "most": of.most, **_spells(of)}


def _drifted_row(of: Drifted) -> Object:
    named = key(facts.named(of.key_columns, of.key or ()))
    kinds = [kind.value for kind in of.kinds]
    about = {"times": len(of.spells), "repairs": of.repairs, "contested": of.contested}
    return {"cell": of.cell, "rule": of.rule, "key": named, "kinds": kinds, **about, **_spells(of)}


def _spells(of: Drifted) -> Object:
    spells = [
        {
            "first_seen": words.instant(spell.first),
            "or_earlier": spell.from_the_start,
            "last_seen": words.instant(spell.last),
            "gone": None if spell.ended is None else words.instant(spell.ended),
            "repaired": None if spell.repaired is None else words.instant(spell.repaired),
            "repair": spell.repair or None,
        }
        for spell in of.spells
    ]
    return {"open": of.open, "spells": spells}


def repeated(rows: Sequence[Repeated], *, unseen: Sequence[str] = ()) -> Iterator[str]:
    """Yield the rows that several repairs wrote."""
    listed = [
        {
            "cell": row.cell,
            "rule": row.rule,
            "key": key(facts.named(row.key_columns, row.key)),
            "runs": row.runs,
            "first": row.first,
            "last": row.last,
        }
        for row in rows
    ]
    return whole({"version": VERSION, "repeated": listed, "unseen": [*unseen]})


def whole(content: Object) -> Iterator[str]:
    """Yield one JSON document and its newline."""
    yield from map(_visible, document(content))
    yield "\n"


def line(content: Object | Text) -> str:
    """Return one line of JSON, with its newline and no other."""
    return _visible(content if isinstance(content, Text) else to_text(content)) + "\n"


def joined(head: Object, rest: Object | Text) -> Object | Text:
    """Return the keys of both, of which neither is empty."""
    return Text(f"{to_text(head)[:-1]}, {rest[1:]}") if isinstance(rest, Text) else {**head, **rest}


def _visible(text: str) -> str:
    if text.isascii() and "\x7f" not in text:
        return text  # nearly all are, and this takes a tenth of the time
    return UNSEEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def value(part: KeyPart | Stored) -> Any:
    """Return a value as JSON has it.

    Integers and floats are numbers, except nan and inf, which JSON does not have: those and
    DECIMAL are text, bytes are "0x" and hex. A reference is the key of its row: the value itself
    where that key has one part, else a list.
    """
    if type(part) in PLAIN:
        return part
    if isinstance(part, tuple):
        return value(part[0]) if len(part) == 1 else [value(each) for each in part]
    if isinstance(part, Dangling):
        return {"dangling": _scalar(part.raw), "deleted": part.deleted}
    if isinstance(part, Reference):
        return {"reference": part.rule, "key": value(part.key)}
    return {"server_time": part.value} if isinstance(part, ServerTime) else _scalar(part)


def _scalar(scalar: Value) -> str | int | float | None:
    if isinstance(scalar, float) and not math.isfinite(scalar):
        return str(scalar)
    if isinstance(scalar, Decimal):
        return words.decimal(scalar)
    return f"0x{scalar.hex().upper()}" if isinstance(scalar, bytes) else scalar


def key(named: facts.Named) -> Object:
    """Return a key as column -> value, in the order of the key."""
    return {column: value(part) for column, part in named}


class Differences:
    """Makes JSON of the differences of one table.

    A document may have a million of them, most with a row of a table's columns: what is the same for
    all is made once, and what is not is written without the dicts that ``json`` would have to go through.
    """

    def __init__(self, table: TableDiff, secrets: Secrets) -> None:
        self._table, self._secrets = table, secrets
        self._veiled = secrets.veiled((*table.key, *table.columns), table=table.table)
        self._hidden = [(at, name) for at, name in enumerate(table.columns) if name in self._veiled]
        """Where in a row the columns are whose values may not be shown as they are."""
        self._whole = {
            Kind.MISSING: _form(table.columns, '{"desired": %s, "existing": null}'),
            Kind.EXTRA: _form(table.columns, '{"desired": null, "existing": %s}'),
        }

    def text(self, found: Difference) -> Text:
        """Return one difference.

        ``since`` is when its rows became what they are, as far as they say; ``accepted`` why people
        live with it. Both may be null.
        """
        return Text(
            f'{{"kind": {_NAMES[found.kind]}, "key": {self._key(found)}, "columns": {self._columns(found)}, '
            f'"action": {_NAMES[found.action]}, "reason": {_text(found.reason)}, '
            f'"since": {_text(_instant(facts.since(found)))}, "accepted": {_text(found.accepted or None)}}}'
        )

    def _key(self, found: Difference) -> str:
        names = self._table.key
        if len(names) != len(found.key):
            names = tuple(name for name, _ in facts.named(names, found.key))
        return _form(names, "%s") % tuple(map(_text, found.key))

    def _columns(self, found: Difference) -> str:
        """Return column -> its desired and existing value."""
        row = found.desired or found.existing
        if found.kind is Kind.CHANGED or found.columns or row is None:
            names = tuple(each.column for each in found.columns)
            return _form(names, "%s") % tuple(map(self._pair, found.columns))
        values: Sequence[KeyPart] = row.values
        if self._hidden:
            values = [*values]
            for at, name in self._hidden:
                values[at] = self._shown(name, values[at])
        return self._whole[found.kind] % tuple([_TEXTS.get(type(part), _text)(part) for part in values])

    def _pair(self, of: ColumnDifference) -> str:
        desired, existing = self._shown(of.column, of.desired), self._shown(of.column, of.existing)
        return f'{{"desired": {_text(desired)}, "existing": {_text(existing)}}}'

    def _shown(self, column: str, part: KeyPart) -> KeyPart:
        return self._secrets.safe(column, part, table=self._table.table) if column in self._veiled else part


@lru_cache
def _form(names: tuple[str, ...], each: str) -> str:
    """Return the text of an object with these keys, in which each value is still to be put."""
    keys = (to_text(name).replace("%", "%%") for name in names)
    return "{" + ", ".join(f"{key}: {each}" for key in keys) + "}"


def _text(part: KeyPart) -> str:
    plain = _TEXTS.get(type(part))
    return plain(part) if plain is not None else to_text(value(part))


_TEXTS: Mapping[type, Callable[[Any], str]] = {
    str: encode_basestring,
    int: int.__repr__,
    type(None): lambda part: "null",
}
"""What makes text of most values, as ``to_text`` would."""
_NAMES = {each: to_text(each.value) for each in (*Kind, *Action)}


def finding(found: Finding, table: TableDiff) -> Object:
    """Return one finding of a table; its cell is the one whose rows are wrong."""
    named = key(facts.named(table.key, found.key or ()))
    said = {"code": found.code, "message": found.message, "key": named, "cell": found.cell}
    return {**said, "accepted": found.accepted or None, **_remedy(found.do)}


def _remedy(do: Remedy | None) -> Object:
    """Return what is to be done, to the letter: words, a shell's command, or SQL for a cell's database."""
    if do is None:
        return {"do": None, "do_as": None, "do_in": None}
    return {"do": do.text, "do_as": do.way.value, "do_in": do.cell or None}


def refusal(refused: Refusal) -> Object:
    """Return a refusal and what ``--waive`` takes to lift it, null where nothing does."""
    return {
        "code": refused.code,
        "rule": refused.rule,
        "message": refused.message,
        "waive": words.waiver(refused),
        "holds": list(refused.holds),
    }


def skipped(change: Skipped, names: Mapping[str, tuple[str, ...]]) -> Object:
    """Return a change that was not made; ``names`` are the key columns by rule."""
    named = facts.named(names.get(change.rule, ()), change.key)
    return {"rule": change.rule, "key": key(named), "reason": change.reason}


# -- Parts of the document -----------------------------------------------------------------------


def _head(report: Report) -> Object:
    run = report.run
    head = {"version": VERSION, "run": run.id, "verb": run.verb, "started": words.instant(run.started)}
    return {**head, "topology": run.topology}


def _foot(report: Report) -> Object:
    finished = words.instant(report.finished)
    return {
        "notes": [*report.notes, *report.left_out],
        "finished": finished,
        "exit_code": int(report.exit_code),
    }


def _cell(cell: CellResult | CellFailure, report: Report) -> Object:
    if isinstance(cell, CellFailure):
        return _cell_failure(cell)
    names = facts.key_names(cell)
    content: Object = {
        "cell": cell.cell,
        "status": cell.status.value,
        "error": None,
        "tables": [_table(table, report.secrets) for table in cell.tables],
        "changes": _counts(cell.counts),
        "refusals": Lines(refusal(each) for each in facts.refusals(cell)),
        "notices": list(facts.notices(cell)),
        "skipped": Lines(skipped(each, names) for each in facts.skipped(cell)),
        "problems": Lines(cell.problems),
        "isolated": cell.isolated or None,
        "locked": cell.locked,
    }
    if report.run.verb in ("diff", "report"):
        return content
    return {**content, "plans": [_plan(plan, cell, report.secrets) for plan in cell.plans]}


def _cell_failure(cell: CellFailure) -> Object:
    return {
        "cell": cell.cell,
        "status": cell.status.value,
        "error": cell.error,
        "tables": [],
        "changes": None,
        "refusals": [],
        "notices": [],
        "skipped": [],
        "problems": [],
        "isolated": cell.isolated or None,
        "locked": False,
    }


def _counts(counts: Counts) -> Object:
    return {
        "planned": counts.planned,
        "applied": counts.applied,
        "conflicts": counts.conflicts,
        "failed": counts.failed,
    }


def _table_head(table: TableResult) -> Object:
    return {
        "rule": table.rule,
        "table": None if table.detector else table.table,
        "direction": None if table.detector else table.direction.value,
        "detector": table.detector,
        "status": table.status.value,
        "error": table.error if isinstance(table, TableFailure) else None,
    }


def _table(table: TableResult, secrets: Secrets) -> Object:
    head, rest = _table_head(table), {"schema": Lines(map(_schema, table.schema))}
    rows = _failed() if isinstance(table, TableFailure) else _compared(table, secrets)
    return {**head, **rows, **rest}


def _compared(table: TableDiff, secrets: Secrets) -> Object:
    tally = facts.tally([table])
    return {
        "rows": None if table.detector else {"desired": table.desired_rows, "existing": table.existing_rows},
        "missing": tally.missing,
        "changed": tally.changed,
        "extra": tally.extra,
        "accepted": facts.accepted([table]),
        "ignored": facts.ignored([table]),
        "differences": Lines(map(Differences(table, secrets).text, facts.ordered(table))),
        "findings": Lines(finding(each, table) for each in facts.ordered_findings(table)),
        "unknown": list(table.unknown),
    }


def _failed() -> Object:
    counts = dict.fromkeys(("rows", "missing", "changed", "extra", "accepted", "ignored"))
    return {**counts, "differences": [], "findings": [], "unknown": []}


def _schema(difference: SchemaDifference) -> Object:
    return {
        "path": difference.path,
        "desired": difference.desired,
        "existing": difference.existing,
        "blocking": difference.blocking,
    }


def _plan(plan: Plan, cell: CellResult, secrets: Secrets) -> Object:
    soft = facts.soft_deleted(cell)
    return {
        "written": plan.written,
        "database": plan.database.schema,
        "changes": Lines(
            {**_change(change, facts.deed(change, soft), secrets), **_outcome(plan, number)}
            for number, change in enumerate(plan.changes, 1)
        ),
    }


def _outcome(plan: Plan, number: int) -> Object:
    """Return what became of a change, in a report of a run that wrote."""
    return {"outcome": facts.describe_outcome(plan, number)} if plan.outcomes else {}


def _change(change: Change, action: Action, secrets: Secrets) -> Object:
    return {
        "rule": change.rule,
        "table": change.table,
        "action": action.value,
        "key": {column: value(part) for column, part in facts.subject(change)},
        "before": _stored(change, change.before, secrets),
        "after": _stored(change, change.after, secrets),
        "reason": change.reason,
    }


def _stored(change: Change, row: Mapping[str, Stored] | None, secrets: Secrets) -> Object | None:
    if row is None:
        return None
    table = change.table
    return {column: value(secrets.safe(column, part, table=table)) for column, part in row.items()}


def _instant(text: str | None) -> str | None:
    """Return a time of a database, which is UTC, as ISO 8601; what is none stays as it is."""
    return f"{text.replace(' ', 'T', 1)}Z" if text and TIME.fullmatch(text) else text


def _schema_cell(cell: CellResult | CellFailure) -> Object:
    tables = [] if isinstance(cell, CellFailure) else [_schema_table(table) for table in cell.tables]
    error = cell.error if isinstance(cell, CellFailure) else None
    return {"cell": cell.cell, "status": cell.status.value, "error": error, "tables": tables}


def _schema_table(table: TableResult) -> Object:
    return {**_table_head(table), "schema": Lines(map(_schema, table.schema))}


def journaled(past: JournaledRun) -> Object:
    """Return one run of a journal."""
    run, finished = past.run, past.finished
    return {
        "run": run.id,
        "verb": run.verb,
        "started": words.instant(run.started),
        "finished": None if finished is None else words.instant(finished),
        "status": past.status,
        "cells": list(past.cells),
        "applied": past.applied,
        "undoes": past.undoes,
        "undone_by": list(past.undone_by),
        "topology": run.topology,
        "operator": run.operator,
        "host": run.host,
        "command": run.command,
        "reason": run.reason,
    }
