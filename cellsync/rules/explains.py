"""The steps of a feature in a rule file: from raw values to typed ones, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cellsync import model
from cellsync.errors import Problem
from cellsync.rules import complaints, detectors, grammar
from cellsync.rules.complaints import Complaint
from cellsync.yamlfile import Document

Raw = Mapping[str, Any]


def read(raw: Raw) -> model.Need:
    """Return one step; only for one without problems."""
    return model.Need(
        says=raw["says"],
        rules=tuple(raw.get("rules", ())),
        query=raw.get("query", ""),
        asks=tuple(
            model.NeedAsk(
                name=name,
                of=model.Role(ask["of"]),
                sql=detectors.bare(ask["sql"]),
                most=ask.get("most", model.MOST_ROWS),
            )
            for name, ask in raw.get("asks", {}).items()
        ),
        finds=detectors.bare(raw.get("finds", "")),
        cell=model.Role(raw.get("in", "child")),
        none=raw.get("must") == "none",
        do=raw.get("do", ""),
        when=grammar.gate(raw["when"]) if "when" in raw else None,
        optional=raw.get("optional", False),
    )


def check(document: Document, *, served: Collection[str], known: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with the steps of one file.

    ``served`` are the features that a rule or a detector has, ``known`` the ids of all of these.
    """
    explains = document.data.get("explains") if isinstance(document.data, Mapping) else None
    if not isinstance(explains, Mapping):
        return
    for name, steps in explains.items():
        if name not in served:
            message = f"no rule serves the feature {name!r}: {complaints.suggest(str(name), served)}"
            yield document.problem(("explains", name), message)
        for place, step in enumerate(steps if isinstance(steps, list) else ()):
            if isinstance(step, Mapping):
                for path, message in _check_step(step, known):
                    yield document.problem(("explains", name, place, *path), message)


def _check_step(step: Raw, known: Collection[str]) -> Iterator[Complaint]:
    named = step.get("rules", ())
    for index, rule in enumerate(named if isinstance(named, list) else ()):
        if isinstance(rule, str) and rule not in known:
            yield ("rules", index), f"no rule has the id {rule!r}: {complaints.suggest(rule, known)}"
    if "asks" in step or "finds" in step:
        yield from _check_questions(step)
        return
    for key in ("says", "do"):
        try:
            # A template that is broken as such has a problem already.
            unknown = sorted(grammar.fields(str(step.get(key, ""))) - grammar.CELLS)
        except ValueError:
            continue
        if unknown:
            yield (key,), f"{key}: {{{unknown[0]}}} is not known here: only {{parent}} and {{child}} are"


def _check_questions(step: Raw) -> Iterator[Complaint]:
    """Yield what is wrong with a step that has one statement for each row that it finds."""
    for key, other in (("asks", "finds"), ("finds", "asks")):
        if key in step and other not in step:
            yield (key,), f"{key} needs {other}: one says what is asked, the other how the answers relate"
    for key in ("rules", "query", "in", "must"):
        if key in step:
            yield (key,), f"{key} and asks are two ways to judge a step: make two steps of it"
    asks, finds = step.get("asks"), step.get("finds")
    if not isinstance(asks, Mapping) or not isinstance(finds, str):
        return
    for name, ask in asks.items():
        sql = ask.get("sql") if isinstance(ask, Mapping) else None
        unknown = sorted(grammar.parameters(sql) - grammar.CELLS) if isinstance(sql, str) else ()
        for parameter in unknown:
            yield (
                ("asks", name, "sql"),
                f":{parameter} is not known here: only :parent and :child are; another colon is written \\:",
            )
    mistake = detectors.find_sql_mistake(map(str, asks), detectors.bare(finds))
    if mistake:
        yield ("finds",), f"finds: SQLite does not understand it: {mistake}"
