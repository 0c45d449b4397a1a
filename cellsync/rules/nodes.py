"""What the JSON Schema of a rule file is put together from.

``title`` names the kind of a value as a sentence would, ``description`` explains the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Node = dict[str, Any]

NAME = r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$(?!\n)"
"""What a name is: not empty, no control characters, no blank at either end.

``$(?!\\n)`` because Python's ``$``, unlike that of JSON Schema, also matches before a last newline.
"""
NOT_BLANK = r"\S"
GATE = 'a version condition such as "version >= 255"'


def mapping_of(
    properties: Mapping[str, Node], title: str, description: str, *, required: Sequence[str] = ()
) -> Node:
    """Return the schema of a mapping with these keys, and no others."""
    return {
        "type": "object",
        "title": title,
        "description": description,
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def map_of(values: Node, title: str, description: str) -> Node:
    """Return the schema of a mapping of any names to values."""
    return {
        "type": "object",
        "title": title,
        "description": description,
        "propertyNames": {"pattern": NAME},
        "additionalProperties": values,
    }


def list_of(items: Node, title: str, description: str, *, at_least: int = 0, unique: bool = False) -> Node:
    """Return the schema of a list."""
    node: Node = {
        "type": "array",
        "title": title,
        "description": description,
        "items": items,
        "minItems": at_least,
    }
    return {**node, "uniqueItems": True} if unique else node


def name(title: str, description: str = "") -> Node:
    """Return the schema of a name."""
    return {
        "type": "string",
        "pattern": NAME,
        "title": title,
        **({"description": description} if description else {}),
    }


def text(title: str, description: str = "") -> Node:
    """Return the schema of a text that is not blank."""
    return {**name(title, description), "pattern": NOT_BLANK}


def choice(words: Sequence[str], description: str = "") -> Node:
    """Return the schema of one word of several."""
    title = f"one of {', '.join(words)}"
    return {"enum": list(words), "title": title, **({"description": description} if description else {})}


def value(description: str = "") -> Node:
    """Return the schema of a single value."""
    title = "a single value: text, a number, true, false or null"
    node: Node = {"type": ["string", "number", "boolean", "null"], "title": title}
    return {**node, "description": description} if description else node
