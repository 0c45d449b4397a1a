"""What a cell may be named."""

from __future__ import annotations

import unicodedata


def fault_of_name(name: str) -> str | None:
    """Say what is wrong with a cell's name; never repeats it, as it may be a misplaced URL."""
    if not name or len(name) > 255:
        return "must have 1 to 255 characters"
    if name == "*" or name.startswith("-"):
        return "cannot be * or begin with -"
    for character in name:
        if character in "!@/:":
            return f"cannot hold {character}"
        if character.isspace() or unicodedata.category(character).startswith("C"):
            return "cannot hold blanks or control characters"
    return None
