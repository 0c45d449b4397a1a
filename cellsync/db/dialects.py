"""How the two kinds of databases spell the few things that they spell differently.

MariaDB is what cellsync is for. SQLite is the embedded default of the demo, nothing more.
"""

from __future__ import annotations

from typing import Protocol

from cellsync import transforms
from cellsync.model import Family, Projected


def escaped(sql: str) -> str:
    """Return SQL in which SQLAlchemy's ``text`` sees no parameters and takes no backslash away."""
    return sql.replace(":", "\\:")


class Dialect(Protocol):
    """The spelling of one kind of database.

    Every method returns SQL for SQLAlchemy's ``text``: a colon that is none of its parameters is
    escaped, in names and literals too.
    """

    name: str
    begin_read: str
    """Begins a read-only transaction on a snapshot."""
    begin_write: str
    lock_rows: str
    """The suffix of a SELECT that keeps its rows from changing until the transaction ends."""
    share_rows: str
    """The suffix of a SELECT that keeps its rows from being changed by others."""
    same: str
    """The null-safe equality operator, under the column's collation."""
    now: str
    """The UTC time, without a fraction."""

    def quote(self, name: str) -> str: ...

    def literal(self, text: str) -> str: ...

    def canonical(self, expression: str, type_name: str, family: Family) -> str:
        """Return an expression whose value the driver reads as a canonical value."""

    def transformed(self, projected: Projected, expression: str, *, parent: str, child: str) -> str:
        """Return the SQL face of a transform, applied to an expression."""


class MariaDB:
    """MariaDB 10.3 and later."""

    name = "mariadb"
    begin_read = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
    begin_write = "START TRANSACTION"
    lock_rows = " FOR UPDATE"
    share_rows = " LOCK IN SHARE MODE"
    same = "<=>"
    now = "UTC_TIMESTAMP()"

    def quote(self, name: str) -> str:
        """Return a name in backticks."""
        return "`" + escaped(name.replace("`", "``")) + "`"

    def literal(self, text: str) -> str:
        """Return text as a literal in single quotes."""
        return "'" + escaped(text.replace("\\", "\\\\").replace("'", "''")) + "'"

    def canonical(self, expression: str, type_name: str, family: Family) -> str:
        """Return an expression that loses nothing on its way through the driver."""
        kind = type_name.partition("(")[0].partition(" ")[0]
        if kind == "float":
            # As text a FLOAT shows six digits; as a double it is exact.
            return f"CAST({expression} AS DOUBLE)"
        if kind in {"bit", "year"}:
            return f"CAST({expression} AS UNSIGNED)"
        if family is Family.TEMPORAL or kind in {"uuid", "inet4", "inet6"}:
            return f"CAST({expression} AS CHAR)"
        return expression

    def transformed(self, projected: Projected, expression: str, *, parent: str, child: str) -> str:
        """Return the transform's SQL face around an expression."""
        if projected.transform is None:
            return expression
        return escaped(transforms.REGISTRY[projected.transform].sql).format(
            value=expression, parent=self.literal(parent), child=self.literal(child)
        )


class SQLite:
    """The SQLite that comes with Python; transforms are Python functions registered with it."""

    name = "sqlite"
    begin_read = "BEGIN"
    begin_write = "BEGIN IMMEDIATE"
    lock_rows = ""
    share_rows = ""
    same = "IS"
    now = "strftime('%Y-%m-%d %H:%M:%S', 'now')"

    def quote(self, name: str) -> str:
        """Return a name in double quotes."""
        return '"' + escaped(name.replace('"', '""')) + '"'

    def literal(self, text: str) -> str:
        """Return text as a literal in single quotes."""
        return "'" + escaped(text.replace("'", "''")) + "'"

    def canonical(self, expression: str, type_name: str, family: Family) -> str:
        """Return the expression as it is: SQLite gives back what was stored."""
        return expression

    def transformed(self, projected: Projected, expression: str, *, parent: str, child: str) -> str:
        """Return a call of the transform's Python face, which the connection knows by its name."""
        if projected.transform is None:
            return expression
        return f"{projected.transform}({expression}, {self.literal(parent)}, {self.literal(child)})"
