"""The rules themselves as text: what `rules list` and `rules show` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cellsync.masking import disarm
from cellsync.model import (
    Detector,
    Pack,
    Rule,
    SoftDelete,
)
from cellsync.report import words


def packs(found: Sequence[Pack]) -> str:
    """Return each pack with its rules, one line a rule."""
    return "".join(f"{disarm(line)}\n" for pack in found for line in _pack(pack))


def _pack(pack: Pack) -> Iterator[str]:
    yield f"{pack.name}: {pack.why}" if pack.why else pack.name
    width = max((len(rule.id) for rule in pack.rules), default=0)
    for rule in pack.rules:
        features = f" [{', '.join(rule.features)}]" if rule.features else ""
        key = ", ".join(rule.key)
        changed = f" (changed at {rule.changed})" if rule.changed else ""
        yield f"  {rule.id:<{width}}  {rule.direction.value:<4}  {rule.table} by {key}{features}{changed}"
    if pack.changes:
        yield f"  changes: {', '.join(pack.changes)}"
    if pack.detectors:
        yield "  detectors:"
    width = max((len(detector.id) for detector in pack.detectors), default=0)
    for detector in pack.detectors:
        features = f" [{', '.join(detector.features)}]" if detector.features else ""
        yield f"    {detector.id:<{width}}  by {', '.join(detector.key)}{features}"


def detector(shown: Detector) -> str:
    """Return everything that a detector says, one line a key."""
    return "".join(f"{disarm(line)}\n" for line in _detector(shown))


def _detector(shown: Detector) -> Iterator[str]:
    yield f"{shown.id} ({shown.pack}, {shown.position})"
    yield from _facts({"why": shown.why})
    for ask in shown.asks:
        whose = f"{ask.database} of the {ask.of.value}" if ask.database else f"the {ask.of.value}"
        what = f"the differences of {ask.differs}" if ask.differs else _one_line(ask.sql)
        yield from _facts({f"ask {ask.name}": f"{whose}, at most {ask.most} rows: {what}"})
    yield from _facts(
        {
            "finds": _one_line(shown.finds),
            "key": ", ".join(shown.key),
            "says": shown.says,
            "do": f"{shown.do.way.value}: {_one_line(shown.do.text)}",
            "when": shown.when.text if shown.when else None,
            "features": ", ".join(shown.features),
            "optional": "left out where cellsync.yaml does not name its databases"
            if shown.optional
            else None,
        }
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _facts(facts: Mapping[str, object]) -> Iterator[str]:
    yield from (f"  {name}: {fact}" for name, fact in facts.items() if fact)


def rule(shown: Rule) -> str:
    """Return everything that a rule says, its pack's defaults included, one line a key."""
    return "".join(f"{disarm(line)}\n" for line in _rule(shown))


def _rule(shown: Rule) -> Iterator[str]:
    table = shown.table if shown.table == shown.child_table else f"{shown.table} ({shown.child_table} below)"
    limits = shown.limits
    facts: dict[str, object] = {
        "changed at": str(shown.changed) if shown.changed else None,
        "why": shown.why,
        "table": table,
        "direction": shown.direction.value,
        "key": ", ".join(shown.key),
        "references": _pairs(shown.references),
        "surrogate": _pairs({name: kind.value for name, kind in shown.surrogate.items()}),
        "columns": ", ".join(shown.include or ()) or "all" + _but(shown.exclude),
        "transforms": _pairs(shown.transforms),
        "where desired": shown.where_desired,
        "where existing": shown.where_existing,
        "when": shown.when.text if shown.when else None,
        "soft delete": _soft_delete(shown.soft_delete) if shown.soft_delete else None,
        "route": f"{shown.route.column} by {shown.route.path}" if shown.route else None,
        "on insert": _pairs(shown.on_insert),
        "overrides": _pairs({cell: _pairs(columns) for cell, columns in shown.overrides.items()}),
        "on missing": shown.on_missing.value,
        "on changed": shown.on_changed.value,
        "on extra": shown.on_extra.value,
        "limits": f"inserts {limits.inserts or 'unlimited'}, updates {limits.updates or 'unlimited'}, "
        f"deletes {limits.deletes or 'unlimited'}, {limits.free} always free",
        "tolerance": _pairs(shown.tolerance),
        "features": ", ".join(shown.features),
        "after": "; ".join(notice.text for notice in shown.after),
    }
    yield f"{shown.id} ({shown.pack}, {shown.position})"
    yield from _facts(facts)


def _soft_delete(soft: SoftDelete) -> str:
    return f"{soft.column} is {words.value(soft.live)} in live rows, {soft.tombstone} in deleted ones"


def _pairs(mapping: Mapping[str, object]) -> str:
    return ", ".join(f"{name}: {getattr(value, 'value', value)}" for name, value in mapping.items())


def _but(excluded: Sequence[str]) -> str:
    return f" but {', '.join(excluded)}" if excluded else ""
