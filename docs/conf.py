"""Sphinx's configuration, and the directives that write what the code knows already.

The keys of rule files are described once, in the JSON Schema that `cellsync rules schema` prints;
``.. rule-keys::`` turns that into text, so that the pages cannot say anything else. Likewise
``.. commands::`` has the command line as click knows it (of which ``scripts/man`` makes the manual
page), and ``.. features::`` what the shipped packs say of their features.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import cellsync
from cellsync import cli, rules
from cellsync.errors import ExitCode
from cellsync.model import Feature, Need, Pack
from cellsync.report import words

project = "cellsync"
author = "the cellsync authors"
release = cellsync.__version__
html_theme = "alabaster"
html_theme_options = {"description": "Keep the databases of a parent and its children in step"}
exclude_patterns = ["_build"]
nitpicky = True
# The quotes and dots of the examples are syntax.
smartquotes = False
man_pages = [("commands", "cellsync", "keep the databases of a parent and its children in step", author, 1)]


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


# -- The command line ------------------------------------------------------------------------------


class Commands(Directive):
    """Describe every command with its usage and options, as ``--help`` does."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each command, after the options that all of them take."""
        common = [param for param in cli.cellsync.params if isinstance(param, click.Option)]
        shared = _section("Options of every command")
        shared += _prose("They stand before the command's name or after it.")
        shared += _options(common)
        return [shared, *(_command(path, each, common) for path, each in _commands(cli.cellsync, "cellsync"))]


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for word, each in group.commands.items():
        inner = f"{path} {word}"
        yield from _commands(each, inner) if isinstance(each, click.Group) else [(inner, each)]


def _command(path: str, command: click.Command, common: list[click.Option]) -> nodes.section:
    known = {option for each in common for option in each.opts}
    own = [each for each in command.params if isinstance(each, click.Option) and not known & set(each.opts)]
    context = click.Context(command, info_name=path)
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    section = _section(path)
    section += nodes.paragraph(
        "", "", nodes.literal(text=" ".join([path, *(["[OPTION]..."] if own else []), *pieces]))
    )
    for text in (command.help or "").split("\n\n"):
        section += _prose(text)
    if own:
        section += _options(own)
    return section


def _options(options: list[click.Option]) -> nodes.definition_list:
    return nodes.definition_list("", *map(_option, options))


def _option(option: click.Option) -> nodes.definition_list_item:
    context = click.Context(click.Command("x"))
    names, text = option.get_help_record(context) or (", ".join(option.opts), "")
    term = nodes.term("", "", nodes.literal(text=names))
    return nodes.definition_list_item("", term, nodes.definition("", _prose(text)))


def _section(title: str) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(title)], names=[nodes.fully_normalize_name(title)])
    section += nodes.title(text=title)
    return section


def _prose(text: str) -> nodes.paragraph:
    """Return a paragraph; what stands between backquotes is a literal."""
    paragraph = nodes.paragraph()
    for number, part in enumerate(re.split(r"`+([^`]+)`+", " ".join(text.split()))):
        paragraph += nodes.literal(text=part) if number % 2 else nodes.Text(part)
    return paragraph


class ExitCodes(Directive):
    """List the exit codes, as the reports explain them."""

    def run(self) -> list[nodes.Node]:
        """Return one definition list."""
        items = [
            nodes.definition_list_item(
                "",
                nodes.term("", "", nodes.literal(text=str(int(code)))),
                nodes.definition("", _prose(words.EXIT[code])),
            )
            for code in ExitCode
        ]
        return [nodes.definition_list("", *items)]


# -- Features --------------------------------------------------------------------------------------


class Features(Directive):
    """Say of every feature of the shipped packs what is lost without it, and what it needs."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each pack that has features, with one for each of them."""
        # Each by itself: packs for different databases may use the same ids.
        loaded = [pack for name in rules.packs() for pack in rules.load([name]).packs]
        return [_pack(pack) for pack in loaded if pack.features]


def _pack(pack: Pack) -> nodes.section:
    section = _section(pack.name)
    section += _prose(pack.why)
    for feature in pack.features:
        section += _feature(pack, feature)
    return section


def _feature(pack: Pack, feature: Feature) -> nodes.section:
    section = _section(feature.name)
    section["ids"] = [nodes.make_id(f"{pack.name} {feature.name}")]
    section["names"] = [f"{pack.name} {feature.name}"]
    section += _prose(feature.lost)
    served = [rule for rule in pack.rules if feature.name in rule.features]
    if served:
        section += _prose(f"Its rows: {', '.join(f'`{rule.id}`' for rule in served)}.")
    if needs := pack.explains.get(feature.name):
        section += _prose("What it needs, step by step:")
        section += nodes.enumerated_list("", *map(_need, needs), enumtype="arabic", prefix="", suffix=".")
    return section


def _need(need: Need) -> nodes.list_item:
    """Return one step: what must be, by which rules it is judged, for which versions, and what to do."""
    said = need.says
    if need.rules:
        said += f" (judged by {', '.join(f'`{rule}`' for rule in need.rules)})"
    if need.when is not None:
        said += f" (where `{need.when.text}`)"
    if need.optional:
        said += " (it may work without)"
    advice = [_prose(f"If not: {need.do}")] if need.do and (need.rules or need.query) else []
    notes = [_prose(f"Do: {need.do}")] if need.do and not (need.rules or need.query) else []
    return nodes.list_item("", _prose(said), *advice, *notes)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("rule-keys", RuleKeys)
    app.add_directive("commands", Commands)
    app.add_directive("exit-codes", ExitCodes)
    app.add_directive("features", Features)
    return {"parallel_read_safe": True}
