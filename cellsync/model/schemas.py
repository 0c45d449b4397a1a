"""What a database looks like: tables, columns, keys, versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from cellsync.model.values import Value

_QUOTED = re.compile(r"`((?:[^`]|``)+)`")


class Family(str, Enum):
    """The kinds of column types that can be compared with each other, and only they."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    BINARY = "binary"
    TEMPORAL = "temporal"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column, as the server describes it."""

    name: str
    type: str
    """The full type in lower case: "varchar(255)", "int(10) unsigned"."""
    family: Family
    nullable: bool = True
    default: str | None = None
    """The default as an SQL expression; None when there is none."""
    charset: str | None = None
    collation: str | None = None
    auto_increment: bool = False
    generated: bool = False
    expression: str = ""
    """What a generated column is computed from, as the server writes it; names are in backticks."""
    invisible: bool = False
    """True where SELECT * does not have it."""
    stamped: bool = False
    """ON UPDATE CURRENT_TIMESTAMP: the server writes it whenever it writes the row."""
    members: tuple[str, ...] = ()
    """The values of an ENUM or a SET, as they are spelled."""

    @property
    def takes_error(self) -> bool:
        """True for an ENUM whose empty text is the error value, the number 0, and none of its members."""
        return bool(self.members) and self.type.startswith("enum(") and "" not in self.members


@dataclass(frozen=True, kw_only=True)
class Index:
    """A unique or plain index and its columns in index order; a prefix index names the column."""

    name: str
    columns: tuple[str, ...]
    unique: bool
    prefixes: tuple[int | None, ...] = ()
    """Pair with ``columns``: how many characters of each count, None for all; () where all count."""


@dataclass(frozen=True, kw_only=True)
class ForeignKey:
    """A foreign key from this table to ``table``; ``references`` pairs with ``columns``."""

    name: str
    columns: tuple[str, ...]
    table: str
    references: tuple[str, ...]
    on_delete: str = "RESTRICT"
    on_update: str = "RESTRICT"


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """A foreign key *to* a table that acts by itself: CASCADE, SET NULL or SET DEFAULT."""

    name: str
    table: str
    """The table whose rows it changes or deletes; it may be the referenced table itself."""
    columns: tuple[str, ...]
    references: tuple[str, ...]
    """The columns of the referenced table, in pairs with ``columns``."""
    on_delete: bool
    on_update: bool

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The schema of one table of one database. Columns keep the table's own order."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    engine: str | None = None
    triggers: tuple[str, ...] = ()
    cascades: tuple[Cascade, ...] = ()
    """The foreign keys through which a write here changes or deletes rows elsewhere."""
    referrers: tuple[Cascade, ...] = ()
    """The foreign keys to this table that let no row go to which others refer (RESTRICT, NO ACTION)."""
    estimate: int = 0
    """About how many rows there are, from the server's statistics; never a result."""
    created: str = ""
    """When the table was made or last altered, in whole seconds; "" where the server does not say it."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that identify a row in its own database, or () when there are none.

        The primary key, or else the first unique index whose columns are all NOT NULL.
        """
        if self.primary_key:
            return self.primary_key
        for index in self.indexes:
            columns = [self.column(name) for name in index.columns]
            if index.unique and all(column is not None and not column.nullable for column in columns):
                return index.columns
        return ()

    @property
    def identity_index(self) -> str:
        """The name of the index that the identity is of."""
        alike = (index.name for index in self.indexes if index.unique and index.columns == self.identity)
        return "PRIMARY" if self.primary_key else next(alike)

    @cached_property
    def unique_indexes(self) -> tuple[Index, ...]:
        """The primary key, as an index called PRIMARY, and all other unique indexes."""
        primary = Index(name="PRIMARY", columns=self.primary_key, unique=True)
        others = tuple(index for index in self.indexes if index.unique)
        return (primary, *others) if self.primary_key else others

    def base_columns(self, index: Index) -> tuple[str, ...]:
        """Return the columns that decide what a row has in an index, without the generated ones.

        () where a generated column is computed from another one, or in an unknown way.
        """
        names: dict[str, None] = {}
        for name in index.columns:
            column = self.column(name)
            if column is None or not column.generated:
                names[column.name if column else name] = None
                continue
            read = [self.column(each.replace("``", "`")) for each in _QUOTED.findall(column.expression)]
            bases = [each for each in read if each is not None]
            if not bases or any(each.generated for each in bases):
                return ()
            names.update((each.name, None) for each in bases)
        return tuple(names)

    def column(self, name: str) -> Column | None:
        """Return the column of that name (compared without regard to case), or None."""
        folded = name.lower()
        return next((column for column in self.columns if column.name.lower() == folded), None)


@dataclass(frozen=True, kw_only=True)
class DatabaseIdentity:
    """What tells one database from another, whatever name it was reached by."""

    server: str
    """The server's own id: ``@@server_uid``, or the path of an SQLite file."""
    schema: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether a database may be written, as its server says."""

    read_only: bool = False
    replica: bool = False
    """True while replication writes into this server."""
    galera_status: str | None = None
    """``wsrep_cluster_status`` of a Galera node: "Primary", or it is cut off from its cluster."""
    galera_state: str | None = None
    """``wsrep_local_state_comment`` of a Galera node: "Synced", or it is behind its cluster."""


@dataclass(frozen=True, kw_only=True)
class SchemaVersion:
    """What the version table of a database says; ``value`` is None when there is no such table."""

    table: str
    value: Value
    repository: str | None = None
    """Whose migrations the value counts, which ``migrate_version`` says: "nova", "nova_api"."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the tables of a topology look like, for somebody who is to write rules about them."""

    parent: str
    tables: Mapping[str, Table]
    """All tables of the parent, by name, version tables left out."""
    children: Mapping[str, Mapping[str, Table] | str]
    """Child, in configured order -> its tables of those names, or why it could not be asked."""
    version_tables: tuple[str, ...] = ()
    """The tables in which the parent says its schema's version."""


@dataclass(frozen=True, kw_only=True)
class SchemaDifference:
    """A difference between the tables themselves; only ``blocking`` ones stop the rule."""

    path: str
    """What differs: "column host: type", "index name_idx"."""
    desired: str | None
    existing: str | None
    blocking: bool = False
