"""The JSON Schema of the steps of a feature; see `shape`."""

from __future__ import annotations

from cellsync.model import MOST_ROWS
from cellsync.rules.detectorshape import ANSWER, MOST
from cellsync.rules.nodes import GATE, NAME, Node, choice, list_of, mapping_of, name, text

_ASK = mapping_of(
    {
        "of": choice(["parent", "child"], "Whose database is asked."),
        "sql": text(
            "an SQL query",
            "A SELECT whose columns have names; :parent and :child are the cells' names.",
        ),
        "most": {
            **MOST,
            "description": "How many rows the answer may have; with more the step is unknown. "
            f"Default: {MOST_ROWS}.",
        },
    },
    "a mapping of of, sql and most",
    "One question.",
    required=("of", "sql"),
)

_STEP = mapping_of(
    {
        "says": text(
            "text",
            "What is needed, in words; {parent} and {child} may be used, with finds its columns too.",
        ),
        "rules": list_of(
            name("the id of a rule"),
            "a list of rules",
            "Rules whose rows must be in step. Default: none.",
            unique=True,
        ),
        "query": text(
            "an SQL query",
            "A SELECT that shows whether it is there; :parent and :child are the cells' names. "
            "Default: none; without rules, query and finds the step is a note.",
        ),
        "asks": {
            "type": "object",
            "title": "a mapping of names to questions",
            "description": "NAME: {of, sql}. What finds relates, as in a detector. Default: none.",
            "propertyNames": {"pattern": ANSWER, "description": "an answer has small letters, digits and _"},
            "additionalProperties": _ASK,
            "minProperties": 1,
        },
        "finds": text(
            "an SQL query",
            "A SELECT of SQLite over the answers. Every row is a step of its own: its column status is ok, "
            "warn or broken, and evidence says why. Without rows there is no step. Default: none.",
        ),
        "in": choice(["parent", "child"], "Whose database the query is for. Default: child."),
        "must": choice(["some", "none"], "Whether the query must find some rows or none. Default: some."),
        "do": text(
            "text",
            "What to do where it is missing; {parent} and {child} may be used, with finds its columns too. "
            "Default: the repair of the feature.",
        ),
        "when": text(GATE, "For which versions of the parent the step is. Default: all."),
        "optional": {
            "type": "boolean",
            "title": "true or false",
            "description": "Whether the feature may work without it. Default: false.",
        },
    },
    "a mapping of says, rules, query, asks, finds, in, must, do, when and optional",
    "One thing that a feature needs.",
    required=("says",),
)

EXPLAINS: Node = {
    "type": "object",
    "title": "a mapping of features to lists of steps",
    "description": "FEATURE: what it needs, step by step, each building on those before; what `cellsync "
    "explain` looks at. Default: the rules that serve the feature must be in step.",
    "propertyNames": {"pattern": NAME},
    "additionalProperties": list_of(_STEP, "a list of steps", "The steps of one feature.", at_least=1),
}
