"""The JSON Schema of a detector; see `shape`."""

from __future__ import annotations

from cellsync.model import MOST_ROWS, Source
from cellsync.rules.nodes import GATE, NOT_BLANK, Node, choice, list_of, map_of, mapping_of, name, text

COLUMN = name("the name of a column")
ANSWER = r"^[a-z_][a-z0-9_]*$(?!\n)"
"""What an answer is called: a plain name of a table, in SQL without quotes."""

MOST: Node = {"type": "integer", "minimum": 1, "maximum": 1_000_000, "title": "a number of rows"}

_DO: Node = {
    "type": ["string", "object"],
    "pattern": NOT_BLANK,
    "title": "text, or a mapping of run, or of sql and in",
    "description": "What to do about a finding: text, or {run: COMMAND} for a shell, or {sql: STATEMENTS, "
    "in: parent|child} for a database, by default that of the cell whose rows are wrong. The same names as "
    "in says may be used; in a command and in SQL their values are quoted.",
    "properties": {
        "run": text("a command", "A command of a shell. Default: none."),
        "sql": text("SQL statements", "Statements of SQL. Default: none."),
        "in": choice(["parent", "child"], "Whose database they are for. Default: the cell of the finding."),
    },
    "minProperties": 1,
    "additionalProperties": False,
}

_ASK = mapping_of(
    {
        "of": choice(
            [source.value for source in Source],
            "Whose database is asked: that of the parent, of the child that is looked at, or of all "
            "children, whose answers are one table with a column cell more.",
        ),
        "database": name(
            "the name of a database",
            "One of the cell's databases in cellsync.yaml (placement, cinder). Default: the cell's own.",
        ),
        "sql": text(
            "an SQL query",
            "A SELECT whose columns have names; :parent and :child are the cells' names. It runs in a "
            "transaction that only reads.",
        ),
        "given": map_of(
            {
                "type": "string",
                "pattern": r"^[a-z_][a-z0-9_]*\.[^.\s]+$(?!\n)",
                "title": "an earlier question and a column of its answer, such as hosts.host",
            },
            "a mapping of parameters to columns of answers",
            "NAME: QUESTION.COLUMN. :NAME holds all values of that column, as in uuid IN :NAME: so a "
            "database is asked for these rows alone. Default: none.",
        ),
        "differs": name(
            "the id of a rule",
            "Instead of sql: the rule whose differences in the child are the answer, with the column kind "
            "(missing, changed, extra) and those of its key.",
        ),
        "most": {
            **MOST,
            "description": "How many rows the answer of one database may have; more are a failure that "
            f"says how many there are. Default: {MOST_ROWS}.",
        },
        "except": {
            "type": "string",
            "pattern": ANSWER,
            "title": "the name of another question",
            "description": "A question with the same columns: rows that its answer has are left out. Both "
            "are compared by digests, so whole tables may be asked for. Text and integers, on MariaDB. "
            "Default: none.",
        },
    },
    "a mapping of of, database, sql, given, differs, most and except",
    "One question.",
    required=("of",),
)

DETECTOR: dict[str, Node] = {
    "id": name(
        "the id of a detector", "The detector's name and the code of its findings, unique among rules too."
    ),
    "why": text("text", "What is wrong with it, for the people who read the file. Default: empty."),
    "features": list_of(
        name("the name of a feature"),
        "a list of features",
        "What a person loses by what it finds; --feature selects it by them. Default: none.",
        unique=True,
    ),
    "when": text(GATE, "For which versions of the parent it is. Default: all."),
    "asks": {
        "type": "object",
        "title": "a mapping of names to questions",
        "description": "NAME: {of, sql}. What is asked, each database in one snapshot. With "
        "a question of the child, the detector looks at each child by itself.",
        "propertyNames": {"pattern": ANSWER, "description": "an answer has small letters, digits and _"},
        "additionalProperties": _ASK,
        "minProperties": 1,
    },
    "finds": text(
        "an SQL query",
        "A SELECT of SQLite over the answers, each a table of its name; every row is a finding. Text is "
        "compared to the byte. A column cell says whose rows are wrong. Default: the rows of the only "
        "answer.",
    ),
    "key": list_of(
        COLUMN,
        "a list of columns",
        "The columns that name a finding: accept goes by them.",
        at_least=1,
        unique=True,
    ),
    "says": text(
        "text", "What is wrong, a template of {parent}, {child}, {cell} and the columns that are found."
    ),
    "do": _DO,
    "optional": {
        "type": "boolean",
        "title": "true or false",
        "description": "Whether it is left out, with a note, where cellsync.yaml does not name a database "
        "that it asks. Default: false, then it is incomplete.",
    },
}
