"""Sphinx's configuration, and the directive that writes the rule reference.

The keys of rule files are described once, in the JSON Schema that `cellsync rules schema` prints;
``.. rule-keys::`` turns that into text, so that the pages cannot say anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import cellsync
from cellsync import rules

project = "cellsync"
author = "the cellsync authors"
release = cellsync.__version__
html_theme = "alabaster"
html_theme_options = {"description": "Keep the databases of a parent and its children in step"}
exclude_patterns = ["_build"]
nitpicky = True
# The quotes and dots of the examples are syntax.
smartquotes = False


class RuleKeys(Directive):
    """List the keys of a rule file ("file"), a rule or a detector, with those inside them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return one definition list."""
        schema = rules.schema()
        if self.arguments[0] != "file":
            schema = schema["properties"][f"{self.arguments[0]}s"]["items"]
        return [_listed(schema)]


def _listed(schema: Mapping[str, Any]) -> nodes.definition_list:
    required = schema.get("required", ())
    return nodes.definition_list(
        "", *(_item(key, node, needed=key in required) for key, node in schema["properties"].items())
    )


def _item(key: str, node: Mapping[str, Any], *, needed: bool) -> nodes.definition_list_item:
    about = nodes.Text(f" – {node.get('title', 'a value')}{', required' if needed else ''}")
    term = nodes.term("", "", nodes.literal(text=key), about)
    return nodes.definition_list_item("", term, nodes.definition("", *_told(key, node)))


def _told(key: str, node: Mapping[str, Any]) -> Iterator[nodes.Node]:
    yield nodes.paragraph(text=node.get("description", ""))
    # The keys of a rule and a detector have sections of their own, which would be repeated.
    inner = node.get("items", node)
    if key == "asks":
        inner = node["additionalProperties"]
    if "properties" in inner and key not in ("defaults", "rules", "detectors"):
        yield _listed(inner)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("rule-keys", RuleKeys)
    return {"parallel_read_safe": True}
