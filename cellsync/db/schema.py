"""Ask a database what its tables look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cellsync.model import Cascade, Column, Family, ForeignKey, Index, Table

Query = Callable[..., Sequence[Sequence[Any]]]
"""Run SQL with named parameters and return all rows."""

_FAMILIES = {
    Family.INTEGER: "tinyint smallint mediumint int integer bigint bit year bool boolean",
    Family.DECIMAL: "decimal numeric fixed dec number",
    Family.FLOAT: "float double real",
    Family.TEMPORAL: "date datetime timestamp time",
    Family.BINARY: "binary varbinary tinyblob blob mediumblob longblob geometry point linestring polygon "
    "multipoint multilinestring multipolygon geometrycollection vector",
}
_FAMILY_OF = {kind: family for family, kinds in _FAMILIES.items() for kind in kinds.split()}


def family(type_name: str) -> Family:
    """Return the family of a column type; every type that is not known holds text."""
    kind = re.split(r"[ (]", type_name.lower(), maxsplit=1)[0]
    return _FAMILY_OF.get(kind, Family.TEXT)


_TABLES = "'BASE TABLE', 'SYSTEM VERSIONED'"
"""What has rows of its own; of a versioned table a statement sees the current rows alone."""


def names(query: Query, *, sqlite: bool) -> list[str]:
    """Return the names of all tables, views left out, sorted. One query."""
    listed = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_'"
        if sqlite
        else "SELECT TABLE_NAME FROM information_schema.TABLES "
        f"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN ({_TABLES})"
    )
    return sorted(str(row[0]) for row in query(listed))


def mariadb(query: Query, names: Iterable[str]) -> dict[str, Table]:
    """Return those of the named tables that exist, read from information_schema in two queries or three."""
    wanted = {f"t{index}": name for index, name in enumerate(sorted(set(names)))}
    if not wanted:
        return {}
    listed = ", ".join(f":{parameter}" for parameter in wanted)
    columns = _query_columns(query, wanted)
    about = query(_ABOUT.format(names=listed), **wanted)
    indexes = [
        (table, name, more, column, cut) for what, table, name, _, column, more, cut in about if what == "i"
    ]
    keys = [(*row[1:3], *row[4:]) for row in about if row[0] == "k"]
    actions = {(row[0], row[1]): row[2:] for row in (query(_ACTIONS) if keys else ())}
    keys = [(*row, *actions.get((row[0], row[1]), _NO_ACTIONS)) for row in keys]
    triggers = [row[1:3] for row in about if row[0] == "t"]
    found = dict.fromkeys((row[0], row[1], row[2], row[3]) for row in columns)
    known = {
        about[0]: _table(
            about,
            columns=[row[4:-1] for row in columns if row[0] == about[0]],
            indexes=[row[1:] for row in indexes if row[0] == about[0]],
            keys=keys,
            triggers=[row[1] for row in triggers if row[0] == about[0]],
        )
        for about in found
    }
    return _with_names_asked(known, columns, wanted)


def columns_alone(query: Query, names: Iterable[str]) -> dict[str, Table]:
    """Return those of the named tables that exist, without indexes, keys and triggers. One query."""
    wanted = {f"t{index}": name for index, name in enumerate(sorted(set(names)))}
    columns = _query_columns(query, wanted) if wanted else []
    found: dict[str, list[Sequence[Any]]] = {}
    for row in columns:
        found.setdefault(row[0], []).append(row)
    known = {
        name: _table(
            (name, *rows[0][1:4]), columns=[row[4:-1] for row in rows], indexes=(), keys=(), triggers=()
        )
        for name, rows in found.items()
    }
    return _with_names_asked(known, columns, wanted)


def _with_names_asked(
    known: dict[str, Table], columns: Sequence[Sequence[Any]], wanted: Mapping[str, str]
) -> dict[str, Table]:
    if not columns or not columns[0][-1]:
        return known
    # The case of a table's name means nothing to this server: a table is known by each name that was asked.
    alike = {name.lower(): table for name, table in known.items()}
    asked = {name: alike[name.lower()] for name in wanted.values() if name.lower() in alike}
    return {**known, **asked}


def find_others(query: Query, names: Iterable[str]) -> dict[str, str]:
    """Return what those of the names are that are no tables of MariaDB: "view", "sequence"."""
    wanted = {f"t{index}": name for index, name in enumerate(sorted(set(names)))}
    if not wanted:
        return {}
    listed = ", ".join(f":{parameter}" for parameter in wanted)
    found = query(_OTHERS.format(names=listed, tables=_TABLES), **wanted)
    kinds = {str(name).lower(): str(kind) for name, kind in found}
    return {name: kinds[name.lower()] for name in wanted.values() if name.lower() in kinds}


def _query_columns(query: Query, wanted: Mapping[str, str]) -> Sequence[Sequence[Any]]:
    listed = ", ".join(f":{parameter}" for parameter in wanted)
    return query(_COLUMNS.format(names=listed, tables=_TABLES), **wanted)


# Columns are joined to their table, so that an empty answer means that there is no such table. Schema and
# tables are named on both sides: where the server must learn them from the join, it looks for the columns in
# every schema that it has, which takes twenty times as long.
_COLUMNS = """
SELECT t.TABLE_NAME, t.ENGINE, t.TABLE_ROWS, t.CREATE_TIME, c.COLUMN_NAME, c.COLUMN_TYPE, c.IS_NULLABLE,
       c.COLUMN_DEFAULT, c.CHARACTER_SET_NAME, c.COLLATION_NAME, c.EXTRA, c.GENERATION_EXPRESSION,
       @@lower_case_table_names
FROM information_schema.TABLES t
JOIN information_schema.COLUMNS c ON c.TABLE_NAME = t.TABLE_NAME
WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE IN ({tables}) AND t.TABLE_NAME IN ({names})
  AND c.TABLE_SCHEMA = DATABASE() AND c.TABLE_NAME IN ({names})
ORDER BY t.TABLE_NAME, c.ORDINAL_POSITION"""

_OTHERS = """
SELECT TABLE_NAME, LOWER(TABLE_TYPE) FROM information_schema.TABLES
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE NOT IN ({tables}) AND TABLE_NAME IN ({names})"""

_ROW_END = "ROW END"

# Indexes (i), foreign keys (k) and triggers (t) in one answer, as each question costs a round trip:
# what, table, name, position, column, then NON_UNIQUE or the referenced table, and how many characters
# of the column an index has, or the referenced column.
# Keys are both those of these tables and those of other tables that lead to them. What they do is asked
# for by itself: the server answers each in milliseconds, and a join of the two in seconds.
_ABOUT = """
SELECT 'i', TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX AS position, COLUMN_NAME, NON_UNIQUE, SUB_PART
FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({names})
UNION ALL
SELECT 'k', TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION, COLUMN_NAME, REFERENCED_TABLE_NAME,
       REFERENCED_COLUMN_NAME
FROM information_schema.KEY_COLUMN_USAGE
WHERE TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_SCHEMA = DATABASE()
  AND (TABLE_NAME IN ({names}) OR REFERENCED_TABLE_NAME IN ({names}))
UNION ALL
SELECT 't', EVENT_OBJECT_TABLE, TRIGGER_NAME, 0, NULL, NULL, NULL FROM information_schema.TRIGGERS
WHERE TRIGGER_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE IN ({names})
ORDER BY 1, 2, 3, 4"""

_ACTIONS = """
SELECT TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE FROM information_schema.REFERENTIAL_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = DATABASE()"""

_NO_ACTIONS = ("RESTRICT", "RESTRICT")


def _table(
    table: tuple[str, str | None, int | None, object],
    *,
    columns: Sequence[Sequence[Any]],
    indexes: Sequence[Sequence[Any]],
    keys: Sequence[Sequence[Any]],
    triggers: Sequence[str],
) -> Table:
    name, engine, estimate, created = table
    acting = [*_referring(name, keys)]
    described = tuple(map(_column, columns))
    # All current rows of a versioned table hold the same there, the end of time.
    ends = {column.name for column in described if column.expression == _ROW_END}
    grouped: dict[tuple[str, bool], list[str]] = {}
    prefixes: dict[str, list[int | None]] = {}
    for index, non_unique, column, cut in indexes:
        if column in ends:
            continue
        grouped.setdefault((index, not int(non_unique)), []).append(column)
        prefixes.setdefault(index, []).append(None if cut is None else int(cut))
    return Table(
        name=name,
        columns=described,
        primary_key=tuple(grouped.get(("PRIMARY", True), ())),
        indexes=tuple(
            Index(
                name=index,
                unique=unique,
                columns=tuple(names),
                prefixes=tuple(prefixes[index]) if any(prefixes[index]) else (),
            )
            for (index, unique), names in grouped.items()
            if index != "PRIMARY"
        ),
        foreign_keys=tuple(_foreign_keys(row for row in keys if row[0] == name)),
        engine=engine,
        triggers=tuple(triggers),
        cascades=tuple(key for key in acting if key.on_delete or key.on_update),
        referrers=tuple(key for key in acting if not (key.on_delete and key.on_update)),
        estimate=int(estimate or 0),
        created=str(created or ""),
    )


def _referring(name: str, keys: Sequence[Sequence[Any]]) -> Iterator[Cascade]:
    acting = {"CASCADE", "SET NULL", "SET DEFAULT"}
    for table in sorted({row[0] for row in keys}):
        for key in _foreign_keys(row for row in keys if row[0] == table):
            on_delete, on_update = key.on_delete in acting, key.on_update in acting
            if key.table == name:
                yield Cascade(
                    name=key.name,
                    table=table,
                    columns=key.columns,
                    references=key.references,
                    on_delete=on_delete,
                    on_update=on_update,
                )


def _column(row: Sequence[Any]) -> Column:
    name, type_name, nullable, default, charset, collation, extra, expression = row
    return Column(
        name=name,
        type=type_name.lower(),
        family=family(type_name),
        nullable=nullable == "YES",
        # MariaDB writes "no default" of a nullable column as the text NULL.
        default=None if default in (None, "NULL") else str(default),
        charset=_modern(charset),
        collation=_modern(collation),
        auto_increment="auto_increment" in extra.lower(),
        generated="generated" in extra.lower(),
        expression=expression or "",
        invisible="invisible" in extra.lower(),
        stamped="on update" in extra.lower(),
        members=_members(type_name),
    )


def _members(type_name: str) -> tuple[str, ...]:
    if not type_name.lower().startswith(("enum(", "set(")):
        return ()
    return tuple(quoted.replace("''", "'") for quoted in re.findall(r"'((?:[^']|'')*)'", type_name))


def _modern(name: str | None) -> str | None:
    """Return the name that MariaDB 10.6 and later give to the three-byte charset."""
    return re.sub(r"^utf8(?=_|$)", "utf8mb3", name) if name else None


def _foreign_keys(rows: Iterable[Sequence[Any]]) -> list[ForeignKey]:
    grouped: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        grouped.setdefault(row[1], []).append(row)
    return [
        ForeignKey(
            name=name,
            columns=tuple(part[2] for part in parts),
            table=parts[0][3],
            references=tuple(part[4] for part in parts),
            on_delete=parts[0][5],
            on_update=parts[0][6],
        )
        for name, parts in grouped.items()
    ]


def sqlite(query: Query, names: Iterable[str]) -> dict[str, Table]:
    """Return those of the named tables that exist, from SQLite's pragmas."""
    tables = {}
    for name in sorted(set(names)):
        columns = query(
            'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(:name)', name=name
        )
        if columns:
            tables[name] = _sqlite_table(query, name, columns)
    return tables


def _sqlite_table(query: Query, name: str, columns: Sequence[Sequence[Any]]) -> Table:
    keyed = [row[0] for row in sorted(columns, key=lambda row: int(row[4])) if row[4]]
    numbered = keyed[0] if len(keyed) == 1 else None
    indexes = query('SELECT name, "unique" FROM pragma_index_list(:name)', name=name)
    return Table(
        name=name,
        columns=tuple(
            Column(
                name=column,
                type=kind.lower(),
                family=family(kind),
                nullable=not required,
                default=default,
                # An INTEGER PRIMARY KEY is SQLite's row number.
                auto_increment=column == numbered and kind.lower() == "integer",
            )
            for column, kind, required, default, _ in columns
        ),
        primary_key=tuple(keyed),
        indexes=tuple(
            Index(name=index, columns=_sqlite_index(query, index), unique=bool(unique))
            for index, unique in indexes
        ),
        foreign_keys=tuple(_foreign_keys(_sqlite_keys(query, name))),
        engine="sqlite",
    )


def _sqlite_index(query: Query, index: str) -> tuple[str, ...]:
    return tuple(row[0] for row in query("SELECT name FROM pragma_index_info(:name)", name=index))


def _sqlite_keys(query: Query, name: str) -> list[Sequence[Any]]:
    sql = 'SELECT id, "from", "table", "to", on_delete, on_update FROM pragma_foreign_key_list(:name)'
    return [
        (name, f"fk_{number}", column, table, referenced, on_delete, on_update)
        for number, column, table, referenced, on_delete, on_update in query(sql, name=name)
    ]


def columns(tables: Mapping[str, Table]) -> dict[str, dict[str, Column]]:
    """Return every column of every table, by name."""
    return {name: {column.name: column for column in table.columns} for name, table in tables.items()}
