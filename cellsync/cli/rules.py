"""`cellsync rules`: packs and rule files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cellsync.cli import completing, logs
from cellsync.cli.options import Common, cellsync, check_file, command
from cellsync.cli.preparing import check_place, progress, put, request_for, topology_of
from cellsync.errors import ExitCode, UsageError
from cellsync.masking import disarm

if TYPE_CHECKING:
    from cellsync.model import Pack, RuleSet
    from cellsync.rules.drafting import Drafted


@cellsync.group("rules")
def rules_group() -> None:
    """Look at packs and rules, and check rule files."""


def _rulesets(common: Common, given: Sequence[str]) -> list[RuleSet]:
    """Return the packs and files to show: those named, those of the configuration, or each of all packs.

    What is in use together is one set. The packs that came with cellsync are a set each: they are for
    different databases, and have rules of the same names.
    """
    from cellsync import rules

    sources = [*common.rules, *given]
    if not sources and (common.config or Path("cellsync.yaml").exists()):
        sources = list(topology_of(common).rules)
    return [rules.load(sources)] if sources else [rules.load([name]) for name in rules.packs()]


@command(rules_group, "list")
def rules_list(common: Common) -> ExitCode:
    """List the packs and their rules: those in use, or all that came with cellsync."""
    from cellsync.report import catalog

    put([catalog.packs([pack for ruleset in _rulesets(common, ()) for pack in ruleset.packs])], None)
    return ExitCode.IN_STEP


@command(rules_group, "show")
@click.argument("name", metavar="PACK|RULE|DETECTOR", shell_complete=completing.shown)
def rules_show(common: Common, name: str) -> ExitCode:
    """Show a pack's file, or everything that one rule or detector says with its defaults.

    One of that name in several packs is shown from each.
    """
    from cellsync import rules
    from cellsync.report import catalog

    shipped = rules.packs().get(name)
    if shipped is not None:
        put([shipped.read_text(encoding="utf-8")], None)
        return ExitCode.IN_STEP
    rulesets = _rulesets(common, ())
    found = [catalog.rule(rule) for ruleset in rulesets if (rule := ruleset.rule(name)) is not None]
    found += [catalog.detector(each) for ruleset in rulesets if (each := ruleset.detector(name)) is not None]
    if not found:
        known = (each.id for ruleset in rulesets for each in ruleset.named)
        names = ", ".join(dict.fromkeys([*rules.packs(), *known]))
        raise UsageError(f"there is no pack, rule or detector {name!r}; there are: {names}")
    put(["\n".join(found)], None)
    return ExitCode.IN_STEP


@command(rules_group, "validate")
@click.argument(
    "files", callback=check_file, nargs=-1, metavar="[PACK|FILE]...", shell_complete=completing.packs
)
def rules_validate(common: Common, files: tuple[str, ...]) -> ExitCode:
    """Check rule files; every problem is named with its line and column."""
    packs = [pack for ruleset in _rulesets(common, files) for pack in ruleset.packs]
    if not common.silent:
        put([f"{disarm(pack.name)}: {_counted(pack)}, no problems\n" for pack in packs], None)
    return ExitCode.IN_STEP


def _counted(pack: Pack) -> str:
    parts = {"rule": len(pack.rules), "detector": len(pack.detectors), "changed rule": len(pack.changes)}
    counts = (f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in parts.items() if number)
    return ", ".join(counts)


@command(rules_group, "init")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--all", "all_", is_flag=True, help="Draft a rule for every table of the parent.")
@click.option(
    "-o", "--output", callback=check_file, metavar="FILE", help="Write to a file, which must not exist."
)
def rules_init(common: Common, tables: tuple[str, ...], *, all_: bool, output: str | None) -> ExitCode:
    """Draft a rule file from the tables of the parent, and of the children that answer.

    Guesses are marked. What cannot be guessed is left open: the file is refused until it is filled in.
    """
    from cellsync.rules import drafting
    from cellsync.run import surveying

    if bool(tables) == all_:
        raise UsageError("name the tables, or say --all")
    check_place(output)
    if output is not None and Path(output).exists():
        raise UsageError(
            f"{output} is there: a draft does not replace it; move it away, or name another file"
        )
    request = request_for(common, "rules init", without_rules=True)
    with progress(common, request) as shown:
        survey = surveying.survey(shown, tables)
    drafted = drafting.draft(survey, tables or tuple(survey.tables), command="cellsync rules init")
    put([drafted.text], output)
    if not common.quiet:
        logs.plain(common, _left(drafted, output))
    return ExitCode.IN_STEP


def _left(drafted: Drafted, output: str | None) -> str:
    """Say what a person has to do about a draft."""
    guesses = f"{drafted.guesses} guess{'' if drafted.guesses == 1 else 'es'} to check"
    if not drafted.todos:
        return f"{guesses}, nothing is open"
    named = f"cellsync rules validate {output or 'FILE'}"
    return f"{guesses}, {drafted.todos} open (TODO): {named} says where"


@command(rules_group, "schema")
def rules_schema(common: Common) -> ExitCode:
    """Print the JSON Schema of rule files, for editors."""
    import json

    from cellsync import rules

    put([json.dumps(rules.schema(), indent=2) + "\n"], None)
    return ExitCode.IN_STEP
