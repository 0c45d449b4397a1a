"""Columns whose values no output shows: keys, passwords, user data, and what the configuration adds."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

from cellsync.model.brokers import masked

T = TypeVar("T")

HIDDEN = "(not shown)"
"""What stands for a value that is not shown."""
URLS = frozenset({"transport_url", "database_connection"})
"""Columns in which Nova keeps URLs with passwords: these lose the passwords alone."""
USUAL = (
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*_pass",
    "*secret*",
    "*token*",
    "*credential*",
    "private*",
    "*private_key*",
    "*_hash",
    "blob",
    "encrypted_blob",
    "public_key",
    "key_data",
    "user_data",
)
"""Patterns of the columns that are hidden unless the configuration shows them."""


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Which columns are hidden; patterns are those of file names: "*token*", "key_pairs.public_key".

    One with a dot is about ``TABLE.COLUMN``, one without about columns of that name in every table.
    Upper and lower case are the same. What is in ``show`` is shown, unless ``hide`` has it too.
    """

    hide: tuple[str, ...] = ()
    """Patterns beside ``USUAL``."""
    show: tuple[str, ...] = ()
    packs: tuple[str, ...] = ()
    """Patterns of the rule files in use: like ``USUAL``, they hide what ``show`` does not have."""

    def hides(self, column: str, *, table: str = "") -> bool:
        """Say whether the values of a column are not shown."""
        return _hides(self, table.lower(), column.lower())

    def veiled(self, columns: tuple[str, ...], *, table: str) -> frozenset[str]:
        """Return those of a table's columns whose values may only be shown as ``safe`` returns them.

        The others need not be asked about, value by value; for the same columns this is remembered.
        """
        return _veiled(self, table.lower(), columns)

    def safe(self, column: str, value: T, *, table: str = "") -> T | str:
        """Return a value as it may be shown. NULL hides nothing; the password in a URL never shows."""
        if value is None:
            return value
        if self.hides(column, table=table):
            return HIDDEN
        is_url = isinstance(value, str) and column.lower() in URLS
        return masked(str(value)) if is_url else value


USUAL_SECRETS = Secrets()
"""What is hidden where no configuration is at hand."""


def safe(column: str, value: T) -> T | str:
    """Return a value as it may be shown where no configuration is at hand."""
    return USUAL_SECRETS.safe(column, value)


@lru_cache(maxsize=4096)
def _hides(secrets: Secrets, table: str, column: str) -> bool:
    def among(patterns: tuple[str, ...]) -> bool:
        lowered = (pattern.lower() for pattern in patterns)
        return any(fnmatchcase(f"{table}.{column}" if "." in each else column, each) for each in lowered)

    usual = (*USUAL, *secrets.packs)
    return among(secrets.hide) or (among(usual) and not among(secrets.show))


@lru_cache(maxsize=256)
def _veiled(secrets: Secrets, table: str, columns: tuple[str, ...]) -> frozenset[str]:
    lowered = ((column, column.lower()) for column in columns)
    return frozenset(name for name, low in lowered if low in URLS or _hides(secrets, table, low))
