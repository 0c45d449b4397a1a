"""The JSON Schema of a rule file: which keys there are, what each holds, and what it defaults to.

``title`` names the kind of a value as a sentence would ("the name of a column"), because the
messages say "expected TITLE"; ``description`` explains the key, and the rule reference in the
documentation is made of it. The schema has no anyOf and no $ref: every mistake then has exactly
one error, which `complaints` can turn into a sentence.
"""

from __future__ import annotations

import copy

from cellsync import transforms
from cellsync.model import Action, Direction, Removes, Surrogate
from cellsync.rules.detectorshape import DETECTOR
from cellsync.rules.explainshape import EXPLAINS
from cellsync.rules.nodes import NAME, NOT_BLANK, Node
from cellsync.rules.nodes import choice as _choice
from cellsync.rules.nodes import list_of as _list
from cellsync.rules.nodes import map_of as _map
from cellsync.rules.nodes import mapping_of as _object
from cellsync.rules.nodes import name as _name
from cellsync.rules.nodes import text as _text
from cellsync.rules.nodes import value as _value
from cellsync.rules.replacing import REPLACES

DURATION = r"^[0-9]{1,9}(\.[0-9]{1,9})?\s*(ms|s|m)$"
LIMIT = r"^([0-9]{1,9}(\.[0-9]{1,9})?\s*%|unlimited)$"

NO_DEFAULT = (
    *("id", "table", "child_table", "why", "key", "references", "says", "carries", "comes_with"),
    "replaces",
)
"""Rule keys that describe one table and therefore cannot stand in ``defaults``."""

UNCHANGED = (
    "id",
    "why",
    "table",
    "child_table",
    "direction",
    "key",
    "references",
    "surrogate",
    "comes_with",
    "features",
)
"""Rule keys that say which rows a rule is about, and that no file may change."""


def schema() -> Node:
    """Return the JSON Schema (2020-12) of a rule file; the caller may change what it gets."""
    return copy.deepcopy(_SCHEMA)


_COLUMN = _name("the name of a column")
_GATE = 'a version condition such as "version >= 255"'


def _limit(description: str) -> Node:
    title = 'a number of changes, a percentage such as "25%", or unlimited'
    return {
        "type": ["integer", "string"],
        "minimum": 0,
        "pattern": LIMIT,
        "title": title,
        "description": description,
    }


def _columns(description: str) -> Node:
    return _list(_COLUMN, "a list of columns", description, unique=True)


_WHERE: Node = {
    "type": ["string", "object"],
    "pattern": NOT_BLANK,
    "title": "an SQL condition, or a mapping of desired and existing",
    "description": "Which rows the rule is about: SQL for a WHERE clause, trusted like the file it "
    "stands in. One text is for both sides; {desired: SQL, existing: SQL} tells them apart. Default: all "
    "rows.",
    "properties": {
        "desired": _text("an SQL condition", "The condition on the side that is right. Default: all rows."),
        "existing": _text(
            "an SQL condition", "The condition on the side that is written. Default: all rows."
        ),
    },
    "minProperties": 1,
    "additionalProperties": False,
}

_SOFT_DELETE: Node = {
    "type": ["object", "boolean"],
    "not": {"const": True},
    "title": "a mapping of column, live, tombstone and at, or false",
    "description": "How the table marks deleted rows. These columns are never compared as data. false "
    "switches the pack's default off. Default: rows are not soft-deleted.",
    "properties": {
        "column": _name("the name of a column", "The column that tells live rows from deleted ones."),
        "live": _value("What that column holds in a live row. NULL is neither live nor deleted: a finding."),
        "tombstone": _name(
            "the name of a column",
            "The column whose value a deleted row holds in it: id, where deleted = id means deleted.",
        ),
        "at": _name(
            "the name of a column", "The column that holds the time of the deletion, in UTC. Default: none."
        ),
    },
    "required": ["column", "live", "tombstone"],
    "additionalProperties": False,
}

_ROUTE = _object(
    {
        "column": _name(
            "the name of a column", "The column of the parent's row whose value names the child."
        ),
        "path": _text(
            "a template of {parent} and {child}",
            'How a child is spelled there, a template of {parent} and {child}: "{parent}!{child}". The '
            'value is split at its last "@"; the part before it, or the whole value, is compared with '
            "this.",
        ),
        "else_where_exists": _object(
            {
                "table": _name("the name of a table", "The table in each child to look in."),
                "column": _name(
                    "the name of a column", "Its column that holds the values that the child owns."
                ),
                "where": _text("an SQL condition", "Which of its rows count. Default: all."),
            },
            "a mapping of table, column and where",
            "Where each child says which values without a path are its own. Default: such values belong "
            "to nobody.",
            required=("table", "column"),
        ),
    },
    "a mapping of column, path and else_where_exists",
    "Which child a row of the parent belongs to. Down: a child gets its own rows only. Up: only the "
    "parent's rows of that child are compared with it. Default: every row belongs to every child.",
    required=("column", "path"),
)

_LIMITS = _object(
    {
        "inserts": _limit("At most so many inserts. Default: unlimited."),
        "updates": _limit("At most so many updates. Default: 25% of the existing rows in scope."),
        "deletes": _limit(
            "At most so many deletes, soft ones included. Default: 10% of the existing rows in scope."
        ),
        "free": {
            "type": "integer",
            "minimum": 0,
            "title": "a number of changes, 0 or more",
            "description": "So many changes of each kind are always allowed. Default: 10.",
        },
    },
    "a mapping of inserts, updates, deletes and free",
    "How many changes the rule may make on one edge in one run; more are refused. Given limits merge "
    "with those of defaults, and with the built-in ones, key by key.",
)

_AFTER = _list(
    _object(
        {
            "when": _text(_GATE, "For which schema versions. Default: all."),
            "notice": _text("text", "What people must do, a template of {parent} and {child}."),
        },
        "a mapping of when and notice",
        "One notice.",
        required=("notice",),
    ),
    "a list of notices",
    "What people must do after the rule has written, such as restarting a service. Default: nothing.",
)

_SAYS = _list(
    _object(
        {
            "rows": _map(
                _value(), "a mapping of columns to values", "For which rows: COLUMN: VALUE. Default: all."
            ),
            "missing": _text(
                "text", "Said of a missing row; no {was} and {now}. Default: the tool's own words."
            ),
            "changed": _text("text", "Said of a changed row. Default: the tool's own words."),
            "extra": _text(
                "text", "Said of an extra row; no {was} and {now}. Default: the tool's own words."
            ),
        },
        "a mapping of rows, missing, changed and extra",
        "One saying.",
    ),
    "a list of sayings",
    "What a difference means in the users' words. The first saying whose rows fit is used. The texts are "
    "templates of {parent}, {child} and the rule's columns (a reference shows the key of the row it "
    "refers to), and of {was} and {now}, the existing and the desired value of what changed. Default: "
    "the tool's own words.",
)

_TRANSFORMS = ", ".join(sorted(transforms.REGISTRY))

_RULE: dict[str, Node] = {
    "id": _name(
        "the id of a rule", "The rule's name, unique over all packs in use. Default: the table's name."
    ),
    "why": _text("text", "Why the table propagates, for the people who read the rules. Default: empty."),
    "table": _name("the name of a table", "The table's name in the parent."),
    "child_table": _name(
        "the name of a table", "The table's name in the children. Default: as in the parent."
    ),
    "direction": _choice(
        [direction.value for direction in Direction],
        "Who is right. down: the parent is, and the children are written. up: the child is. Default: down.",
    ),
    "key": _list(
        _COLUMN,
        "a list of columns",
        "The natural key: the columns that identify a row in both databases, whatever its primary key is "
        "there.",
        at_least=1,
        unique=True,
    ),
    "references": _map(
        _name("the id of a rule"),
        "a mapping of columns to rule ids",
        "COLUMN: RULE. The column, in the key or not, holds the surrogate id of a row of that rule (or "
        "of this very rule); it is compared and written through that row's key. Default: none.",
    ),
    "surrogate": _map(
        _choice([surrogate.value for surrogate in Surrogate]),
        "a mapping of columns to remap or preserve",
        "COLUMN: remap (every database numbers its own rows: neither compared nor copied) or preserve "
        "(the same everywhere: both). Default: remap for an AUTO_INCREMENT column outside the key.",
    ),
    "columns": {
        **_object(
            {
                "include": _columns("Compare and write just these, besides the key. Default: every column."),
                "exclude": _columns("Leave these alone and compare all others. Default: none."),
            },
            "a mapping of include or exclude",
            "Which columns are compared and written besides the key: {include: [...]} or {exclude: "
            "[...]}, not both. A column that is left out is never overwritten. Replaces the columns of "
            "defaults as a whole. Default: every column that both tables have.",
        ),
        "minProperties": 1,
    },
    "transforms": _map(
        _name("the name of a transform"),
        "a mapping of columns to transforms",
        "COLUMN: TRANSFORM. How the desired value is spelled on the existing side. "
        f"Transforms: {_TRANSFORMS}. Default: as it is.",
    ),
    "where": _WHERE,
    "when": _text(
        _GATE,
        'For which schema versions the rule is: "version >= 255", several joined with "and" or "or"; '
        "operators == != < <= > >=. Default: all.",
    ),
    "soft_delete": _SOFT_DELETE,
    "route": _ROUTE,
    "on_insert": _map(
        _value(),
        "a mapping of columns to values",
        "COLUMN: what a new row gets there. now is the written server's UTC clock; text may hold "
        "{parent} and {child}, and a literal brace is doubled; true and false are 1 and 0. These columns "
        "are not compared. Replaces the on_insert of defaults as a whole. Default: columns that are not "
        "copied get the table's own defaults.",
    ),
    "carries": {
        **_object(
            {
                "include": _columns("Take just these along."),
                "exclude": _columns("Take all others along that both tables have."),
            },
            "a mapping of include or exclude",
            "Which columns a new row takes along from the desired row though they are not compared: "
            "{include: [...]} or {exclude: [...]}, not both. They are never overwritten later. Surrogate "
            "ids and the columns of soft_delete stay out. Default: none.",
        ),
        "minProperties": 1,
    },
    "comes_with": _object(
        {
            "rule": _name(
                "the id of a rule", "The rule with whose new rows these come, of the same direction."
            ),
            "by": {
                **_map(
                    _name("the name of a column"),
                    "a mapping of columns to columns",
                    "COLUMN: COLUMN. A column of this rule's key, and the column of that rule's key that it "
                    "equals.",
                ),
                "minProperties": 1,
            },
        },
        "a mapping of rule and by",
        "The rows are looked at only where that rule is about to insert a row, and are inserted with it in "
        "one transaction; where one of them cannot be, none is. Default: rows stand for themselves.",
        required=("rule", "by"),
    ),
    "revives": {
        "type": "boolean",
        "title": "true or false",
        "description": "Whether a missing row is inserted although the existing side has deleted one with "
        "its key, or has one that where or route leave out; with false it is reported. Default: true.",
    },
    "overrides": _map(
        _map(_value(), "a mapping of columns to values", "COLUMN: VALUE."),
        "a mapping of cells to columns and values",
        'CELL: {COLUMN: VALUE}, "*" for every child: the value that is desired in that child, whatever '
        "the desired row says. true and false are 1 and 0. Default: none.",
    ),
    "on_missing": _choice(
        [Action.INSERT.value, Action.REPORT.value, Action.IGNORE.value],
        "What to do about a row that the existing side lacks. Default: insert.",
    ),
    "on_changed": _choice(
        [Action.UPDATE.value, Action.REPORT.value, Action.IGNORE.value],
        "What to do about a row that differs. Default: update.",
    ),
    "on_extra": _choice(
        [Action.REPORT.value, Action.DELETE.value, Action.SOFT_DELETE.value, Action.IGNORE.value],
        "What to do about a row that only the existing side has. With soft_delete, a delete needs a "
        "tombstone on the desired side. Default: report.",
    ),
    "removes": _choice(
        [Removes.ALL.value, Removes.PUSHED.value],
        "Which extra rows on_extra may delete: all of them, or pushed, only rows that cellsync wrote "
        "itself and never a cell's own. Default: all.",
    ),
    "replaces": REPLACES,
    "limits": _LIMITS,
    "settle": {
        "type": ["number", "string"],
        "minimum": 0,
        "maximum": 3600,
        "pattern": DURATION,
        "title": 'a duration such as "500ms", "0.5s" or "2m", or a number of seconds, at most one hour',
        "description": "How long to wait before differences are read again; only what still differs then "
        "counts. Default: the setting of the run, 0.5s.",
    },
    "tolerance": _map(
        {"type": "number", "minimum": 0, "title": "a number of at least 0"},
        "a mapping of columns to numbers",
        "COLUMN: NUMBER. Values no further apart than this count as equal. Default: 0.",
    ),
    "features": _list(
        _name("the name of a feature"),
        "a list of features",
        "What a person loses when these rows drift; --feature selects rules by it. Default: none.",
        unique=True,
    ),
    "after": _AFTER,
    "says": _SAYS,
}

_REQUIRES = _object(
    {
        "equal_versions": {
            "type": ["string", "array"],
            "pattern": NAME,
            "items": _name("the name of a version table"),
            "minItems": 1,
            "uniqueItems": True,
            "title": "the name of a version table, or a list of them",
            "description": "The version table (migrate_version, alembic_version) whose value must be equal "
            "in parent and child; of several, the first that either has. Default: versions may differ.",
        },
        "parent_version": _text(
            'a range such as "216..319" or a version condition such as "version >= 255"',
            'Which versions of the parent the pack knows: "216..319", both ends included, the name of an '
            'alembic version, a condition as in when, or several of these joined with "or". Default: all.',
        ),
        "repository": _name(
            "the name of a repository of migrations",
            "What repository_id of migrate_version must say in parent and child (nova, nova_api), so that "
            "databases of another kind are refused; where there is no such table, nothing is said. Default: "
            "any.",
        ),
        "child_repository": _name(
            "the name of a repository of migrations",
            "The same for children alone, where they have another kind of database. Default: as repository.",
        ),
        "otherwise": _text(
            "text",
            "What to do about databases that the pack is not for; said where it refuses them. Default: "
            "empty.",
        ),
    },
    "a mapping of equal_versions, parent_version, repository, child_repository and otherwise",
    "What the databases must be before any rule of the pack is compared. Default: nothing.",
)


def _lost(role: str) -> Node:
    return _map(
        _text("one sentence"),
        "a mapping of services to sentences",
        f"SERVICE: what is lost when none of that name is alive in a {role}; a * stands for any letters. "
        "Default: none.",
    )


_SERVICES = _list(
    _object(
        {
            "database": _name(
                "the name of a database",
                "nova for the cell's own database; another is one of the databases of cellsync.yaml "
                "(cinder, neutron). Default: nova.",
            ),
            "table": _name("the name of a table", "The table in which services say that they are alive."),
            "name": _name("the name of a column", "The column that names the service."),
            "host": _name("the name of a column", "The column that names its host."),
            "beat": _list(
                _COLUMN,
                "a list of columns",
                "When it was last alive, in UTC: the latest of these, as far as the table has them.",
                at_least=1,
                unique=True,
            ),
            "where": _text("an SQL condition", "Which rows count. Default: all."),
            "stale": {
                "type": ["number", "string"],
                "minimum": 1,
                "maximum": 3600,
                "pattern": DURATION,
                "title": 'a duration such as "60s" or "2m", or a number of seconds',
                "description": "How old a heartbeat may be. Default: 60s.",
            },
            "parent": _lost("parent"),
            "child": _lost("child"),
            "optional": _list(
                _name("the name of a service"),
                "a list of services",
                "Services without which requests still find their way: a trace warns of them. Default: none.",
                unique=True,
            ),
            "through_broker": _list(
                _name("the name of a service"),
                "a list of services",
                "Services whose heartbeats reach the table through the cell's broker: when that is down, "
                "nothing is known of them. Default: none.",
                unique=True,
            ),
        },
        "a mapping of database, table, name, host, beat, where, stale, parent, child, optional and "
        "through_broker",
        "One table of heartbeats, and which services must be in it.",
        required=("table", "name", "host", "beat"),
    ),
    "a list of tables of heartbeats",
    "Which services a parent and a child must run, and where they say that they are alive: what "
    "`cellsync trace` looks at. Default: none.",
)

_SCHEMA: Node = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        {
            "pack": _name(
                "the name of a pack", "The pack's name. Default: the file's name without its suffix."
            ),
            "why": _text(
                "text", "Why these tables propagate, for the people who read the rules. Default: empty."
            ),
            "requires": _REQUIRES,
            "features": _map(
                _text("one sentence"),
                "a mapping of features to sentences",
                "FEATURE: what is lost without it, in one sentence for people who do not know the "
                "tables. Where this is given, it must describe every feature that a rule names. Default: "
                "none is described.",
            ),
            "services": _SERVICES,
            "explains": EXPLAINS,
            "secrets": _object(
                {
                    "hide": _list(
                        {
                            **_text("COLUMN or TABLE.COLUMN; * stands for anything"),
                            "pattern": r"^[^\s./]+(\.[^\s./]+)?$",
                        },
                        "a list of patterns of columns",
                        "Patterns: COLUMN is about every table, TABLE.COLUMN about one; * is any text.",
                        at_least=1,
                    )
                },
                "a mapping of hide",
                "Columns whose values no output shows, beside those that are named like secrets. "
                "cellsync.yaml can show them. Default: none.",
                required=("hide",),
            ),
            "defaults": _object(
                {key: node for key, node in _RULE.items() if key not in NO_DEFAULT},
                "a mapping of rule keys",
                "Rule keys that hold for every rule of the file. A rule's own value replaces the default "
                "as a whole; only limits merge, key by key. Default: the defaults of each key.",
            ),
            "changes": {
                **_map(
                    {
                        **_object(
                            {key: node for key, node in _RULE.items() if key not in UNCHANGED},
                            "a mapping of rule keys",
                            "What is changed in that rule.",
                        ),
                        "minProperties": 1,
                    },
                    "a mapping of rules to rule keys",
                    "RULE: {KEY: VALUE}. What is changed in rules of other files that are in use too, such "
                    "as a pack that came with cellsync. A value replaces the rule's own as a whole; only "
                    "limits merge, key by key. Which rows a rule is about cannot be changed. Default: "
                    "nothing.",
                ),
                "minProperties": 1,
            },
            "rules": _list(
                _object(
                    _RULE, "a mapping of rule keys", "One table's propagation.", required=("table", "key")
                ),
                "a list of rules",
                "The rules, one for each table (or for each part of a table).",
                at_least=1,
            ),
            "detectors": _list(
                _object(
                    DETECTOR,
                    "a mapping of detector keys",
                    "Something wrong that no comparison of rows shows.",
                    required=("id", "asks", "key", "says", "do"),
                ),
                "a list of detectors",
                "What else can be wrong, found by SQL: findings, each with what to do about it. Default: "
                "none.",
                at_least=1,
            ),
        },
        "a mapping of pack, why, requires, features, services, explains, secrets, defaults, changes, rules "
        "and detectors",
        "A rule file of cellsync: which tables of a parent's and its children's databases propagate, and "
        "how, and what else can be wrong with them.",
    ),
    # A file of detectors or changes alone needs no rules.
    "if": {"not": {"required": ["detectors"]}},
    "then": {
        "if": {"not": {"required": ["changes"]}},
        "then": {
            "required": ["rules"],
            "properties": {
                "rules": {"description": "The rules, one for each table (or for each part of a table)."}
            },
        },
    },
}
