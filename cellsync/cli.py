"""The command line: parse, call run, render, exit. A contract: docs and scripts rely on it."""

from __future__ import annotations

import getpass
import logging
import os
import secrets
import shlex
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cellsync import __version__
from cellsync.errors import CellsyncError, ConfigurationError, ExitCode, Problem, UsageError

if TYPE_CHECKING:
    from cellsync.model import Report, RuleSet, Topology
    from cellsync.report import Style
    from cellsync.run import Prepared, Request
    from cellsync.run.planfile import PlanFile

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Common:
    """The options that every command takes, before its name or after it."""

    config: str | None = None
    rules: list[str] = field(default_factory=list)
    verbose: int = 0
    jobs: int | None = None
    quiet: bool = False
    secrets: list[tuple[str, str]] = field(default_factory=list)
    """What must not be printed, and what stands for it; filled when the configuration is read."""

    def merge(self, given: dict[str, Any]) -> None:
        """Take the common options out of a command's parameters."""
        self.config = given.pop("config") or self.config
        self.rules += given.pop("rules_")
        self.verbose += given.pop("verbose")
        self.jobs = given.pop("jobs") or self.jobs
        self.quiet = given.pop("quiet") or self.quiet


def common_options(function: F) -> F:
    """Add the options that stand before or after a command's name."""
    for option in reversed(
        (
            click.option("-c", "--config", metavar="FILE", help="The cells. [default: cellsync.yaml]"),
            click.option("-r", "--rules", "rules_", multiple=True, metavar="PACK|FILE", help="Rules to use."),
            click.option("-v", "--verbose", count=True, help="Say more; -vvv shows the SQL."),
            click.option("-j", "--jobs", type=click.IntRange(1, 256), metavar="N", help="Cells at once. [8]"),
            click.option("--quiet", is_flag=True, help="Print nothing when all is in step."),
        )
    ):
        function = option(function)
    return function


def command(group: click.Group, name: str | None = None) -> Callable[[F], click.Command]:
    """Register a command that takes the common options and a ``Common`` as its first argument."""

    def register(function: F) -> click.Command:
        def wrapped(**given: Any) -> Any:
            common = click.get_current_context().ensure_object(Common)
            common.merge(given)
            _log(common.verbose)
            return function(common, **given)

        wrapped.__doc__ = function.__doc__
        wrapped.__name__ = function.__name__
        wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        return group.command(name or function.__name__)(common_options(wrapped))

    return register


def scope_options(function: F) -> F:
    """Add the cells, rules and features that a command is about."""
    for option in reversed(
        (
            click.argument("cells", nargs=-1, metavar="[CELL]..."),
            click.option(
                "--rule", "chosen", multiple=True, metavar="ID", help="Only it, and what it refers to."
            ),
            click.option("--feature", "features", multiple=True, metavar="NAME", help="Only its rules."),
        )
    ):
        function = option(function)
    return function


def output_options(*formats: str) -> Callable[[F], F]:
    """Add --format and -o."""

    def add(function: F) -> F:
        function = click.option("-o", "--output", metavar="FILE", help="Write to a file.")(function)
        return click.option(
            "--format", "format_", type=click.Choice(formats), default="text", show_default=True
        )(function)

    return add


REPORT_FORMATS = ("text", "json", "jsonl")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cellsync")
@common_options
@click.pass_context
def cellsync(context: click.Context, /, **given: Any) -> None:
    """Keep the databases of a parent and its children in step.

    Exit codes: 0 in step or done, 1 differences remain, 2 wrong usage or configuration,
    3 refused by a guard, 4 incomplete, 5 another run holds the lock, 70 a bug, 130 interrupted.
    """
    context.ensure_object(Common).merge(given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; the only place that turns errors into exit codes."""
    common = Common()
    try:
        code = cellsync.main(
            None if arguments is None else list(arguments),
            prog_name="cellsync",
            standalone_mode=False,
            obj=common,
        )
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("cellsync: interrupted", err=True)
        code = ExitCode.INTERRUPTED
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(_redacted(str(problem), common), err=True)
        code = error.exit_code
    except CellsyncError as error:
        click.echo(_redacted(f"cellsync: {error}", common), err=True)
        code = error.exit_code
    except BrokenPipeError:
        # The reader went away (`| head`); what was done is done. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.IN_STEP
    except Exception:
        click.echo(_redacted(traceback.format_exc(), common), err=True)
        click.echo("cellsync: this is a bug in cellsync; please report it with the lines above", err=True)
        code = ExitCode.BUG
    sys.exit(int(code or 0))


def _redacted(text: str, common: Common) -> str:
    for secret, stars in common.secrets:
        text = text.replace(secret, stars)
    return text


def _log(verbose: int) -> None:
    level = {0: logging.WARNING, 1: logging.WARNING, 2: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(stream=sys.stderr, format="%(levelname).1s %(name)s: %(message)s")
    # Only cellsync's own: SQLAlchemy and PyMySQL would log the values of parameters.
    logging.getLogger("cellsync").setLevel(level)


# -- Preparing a run ----------------------------------------------------------------------------


def _topology(common: Common) -> Topology:
    from cellsync import cells

    topology = cells.load(common.config or "cellsync.yaml", environ=os.environ)
    for cell in (topology.parent, *topology.children):
        for endpoint in (cell.database, cell.broker):
            if endpoint is not None:
                common.secrets.append((endpoint.url.reveal(), endpoint.shown))
    return topology


def _ruleset(common: Common, topology: Topology) -> RuleSet:
    from cellsync import rules

    sources = common.rules or list(topology.rules)
    if not sources:
        raise ConfigurationError(
            [
                Problem(
                    common.config or "cellsync.yaml", 0, 0, "no rules: name a pack under `rules:` or with -r"
                )
            ]
        )
    return rules.load(sources)


def _request(
    common: Common,
    verb: str,
    *,
    cells: Sequence[str] = (),
    chosen: Sequence[str] = (),
    features: Sequence[str] = (),
    reason: str = "",
    waived: Sequence[str] = (),
    without_rules: bool = False,
    planned: PlanFile | None = None,
) -> Request:
    """Return what the command line and the configuration ask for.

    A plan file brings its own scope, where the command line says nothing else.
    """
    from cellsync import model, rules, run

    topology = _topology(common)
    ruleset = model.RuleSet(packs=(), rules=(), digest="") if without_rules else _ruleset(common, topology)
    if planned is not None:
        cells = cells or planned.cells
        chosen = chosen or (() if features else [name for name in planned.rule_ids if ruleset.rule(name)])
    if chosen or features:
        ruleset = rules.select(ruleset, rules=chosen, features=features)
    known = [child.name for child in topology.children]
    for name in cells:
        if name not in known:
            raise UsageError(f"there is no child {name!r}: the children are {', '.join(known)}")
    started = datetime.now(timezone.utc)
    return run.Request(
        run=model.Run(
            id=f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            verb=verb,
            started=started,
            topology=topology.parent.name,
            operator=_operator(),
            host=socket.gethostname(),
            command=shlex.join(["cellsync", *sys.argv[1:]]),
            reason=reason,
        ),
        topology=topology,
        ruleset=ruleset,
        cells=tuple(cells),
        jobs=common.jobs or 8,
        settle=topology.settle,
        waived=tuple(waived),
    )


def _operator() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A user id without an entry in the password file, as in a bare container.
        return str(os.getuid())


@contextmanager
def _progress(common: Common, request: Request) -> Iterator[Request]:
    """Show what is going on, on a terminal only, on stderr."""
    if common.quiet or not sys.stderr.isatty():
        yield request
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield replace(request, progress=status.update)


def _compared(common: Common, request: Request) -> Prepared:
    from cellsync import run

    with _progress(common, request) as shown:
        return run.compare(shown)


def _style(common: Common) -> Style:
    from cellsync.report import Style

    terminal = sys.stdout.isatty()
    width = os.get_terminal_size().columns if terminal else 100
    return Style(terminal=terminal, width=width, verbose=common.verbose)


def _put(text: str, output: str | None, *, private: bool = False) -> None:
    """Write to stdout, or to a file that is complete or not there at all."""
    if output is None:
        click.echo(text, nl=False)
        return
    _check_place(output)
    part = Path(f"{output}.part")
    try:
        part.unlink(missing_ok=True)
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644),
            "w",
            encoding="utf-8",
        ) as file:
            file.write(text)
        part.replace(output)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from None


def _check_place(output: str | None) -> None:
    """Raise UsageError where ``_put`` could not write, while nothing has been done yet."""
    if output is None:
        return
    path, folder = Path(output), Path(output).parent
    if path.is_dir():
        raise UsageError(f"cannot write {output}: it is a directory")
    if not folder.is_dir():
        raise UsageError(f"cannot write {output}: there is no directory {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {output}: {folder} is not writable")


def _finish(common: Common, report: Report, format_: str, output: str | None = None) -> ExitCode:
    from cellsync.report import FORMATS

    if not (common.quiet and report.exit_code is ExitCode.IN_STEP):
        style = _style(common)
        if output is not None:
            style = replace(style, terminal=False)
        _put(FORMATS[format_](report, style), output)
    return report.exit_code


# -- Comparing and repairing --------------------------------------------------------------------


@command(cellsync)
@scope_options
@output_options(*REPORT_FORMATS)
def diff(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    format_: str,
    output: str | None,
) -> ExitCode:
    """Say what differs between the parent and its children, and what it breaks."""
    _check_place(output)
    request = _request(common, "diff", cells=cells, chosen=chosen, features=features)
    return _finish(common, _compared(common, request).report, format_, output)


@command(cellsync)
@scope_options
@click.option("--waive", "waived", multiple=True, metavar="CODE[:RULE]", help="Lift one guard.")
@output_options(*REPORT_FORMATS)
def plan(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    waived: tuple[str, ...],
    format_: str,
    output: str | None,
) -> ExitCode:
    """Show what a repair would write; -o keeps it in a file for `repair --plan`."""
    from cellsync.run import planfile

    _check_place(output)
    request = _request(common, "plan", cells=cells, chosen=chosen, features=features, waived=waived)
    prepared = _compared(common, request)
    if output is not None:
        _put(planfile.to_text(request, prepared), output, private=True)
    return _finish(common, prepared.report, format_)


@command(cellsync)
@scope_options
@click.option("--plan", "plan_", metavar="FILE", help="Carry out exactly this plan.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--waive", "waived", multiple=True, metavar="CODE[:RULE]", help="Lift one guard.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal.")
@output_options(*REPORT_FORMATS)
def repair(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    plan_: str | None,
    yes: bool,
    dry_run: bool,
    waived: tuple[str, ...],
    reason: str,
    format_: str,
    output: str | None,
) -> ExitCode:
    """Write what is missing and update what changed, after showing it and asking."""
    from cellsync.run import planfile

    _need_consent(yes, dry_run)
    _check_place(output)
    planned = None if plan_ is None else planfile.from_text(_read(plan_), file=plan_)
    request = _request(
        common,
        "repair",
        cells=cells,
        chosen=chosen,
        features=features,
        waived=waived,
        reason=reason,
        planned=planned,
    )
    prepared = _compared(common, request)
    if planned is not None:
        prepared = planfile.adopt(request, prepared, planned)
    return _carry_out(common, request, prepared, yes=yes, dry_run=dry_run, format_=format_, output=output)


@command(cellsync)
@click.argument("run_id", metavar="RUN")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be taken back, and write nothing.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal.")
@output_options(*REPORT_FORMATS)
def undo(
    common: Common, *, run_id: str, yes: bool, dry_run: bool, reason: str, format_: str, output: str | None
) -> ExitCode:
    """Take back what a run wrote, where its rows are still as it left them."""
    from cellsync import run

    _need_consent(yes, dry_run)
    _check_place(output)
    request = _request(common, "undo", reason=reason, without_rules=True)
    prepared = run.prepare_undo(request, run_id)
    return _carry_out(common, request, prepared, yes=yes, dry_run=dry_run, format_=format_, output=output)


def _need_consent(yes: bool, dry_run: bool) -> None:
    if not (yes or dry_run or sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask on: give --yes to write, or --dry-run to look")


def _carry_out(
    common: Common,
    request: Request,
    prepared: Prepared,
    *,
    yes: bool,
    dry_run: bool,
    format_: str,
    output: str | None,
) -> ExitCode:
    from cellsync import run
    from cellsync.report import text

    due = any(edge.plan.changes for edge in prepared.edges)
    if dry_run or not due:
        return _finish(common, prepared.report, format_, output)
    if not yes:
        click.echo(text.plan(prepared.report, _style(common)), err=True, nl=False)
        if not click.confirm("Write this?", err=True):
            click.echo("nothing was written", err=True)
            return prepared.report.exit_code
    with _progress(common, request) as shown:
        report = run.write(shown, prepared)
    return _finish(common, report, format_, output)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from None


# -- Looking back, and at schemas ---------------------------------------------------------------


@command(cellsync)
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--init", is_flag=True, help="About the journal's own tables; with --print-sql.")
@click.option("--print-sql", is_flag=True, help="Print what an administrator runs to make the journal.")
@output_options("text", "json")
def history(
    common: Common, *, run_id: str | None, init: bool, print_sql: bool, format_: str, output: str | None
) -> ExitCode:
    """List the runs that wrote, newest first, or show one of them with its changes."""
    from cellsync import journal, run
    from cellsync.report import json, text

    if print_sql or init:
        if not (print_sql and init):
            raise UsageError("--init and --print-sql go together")
        _put(journal.sql(), output)
        return ExitCode.IN_STEP
    request = _request(common, "history", without_rules=True)
    found = run.history(request, run_id)
    for failure in found.failures:
        click.echo(f"{failure.cell}: {failure.status.value}: {failure.error}", err=True)
    style = _style(common)
    shown = json.history(found.runs) if format_ == "json" else text.history(found.runs, style)
    if run_id is not None and format_ == "text":
        shown += text.changes(run.changes(request, run_id), style)
    _put(shown, output)
    return found.exit_code


@command(cellsync)
@scope_options
@output_options("text", "json")
def schema(
    common: Common,
    *,
    cells: tuple[str, ...],
    chosen: tuple[str, ...],
    features: tuple[str, ...],
    format_: str,
    output: str | None,
) -> ExitCode:
    """Compare the schemas of the tables that the rules use."""
    from cellsync import run
    from cellsync.report import json, text

    request = _request(common, "schema", cells=cells, chosen=chosen, features=features)
    with _progress(common, request) as shown:
        report = run.schemas(shown)
    _put(json.schema(report) if format_ == "json" else text.schema(report, _style(common)), output)
    return report.exit_code


# -- Rules --------------------------------------------------------------------------------------


@cellsync.group("rules")
def rules_group() -> None:
    """Look at packs and rules, and check rule files."""


def _sources(common: Common, given: Sequence[str]) -> list[str]:
    """Return the packs and files to show: those named, those of the configuration, or all packs."""
    from cellsync import rules

    if given or common.rules:
        return [*common.rules, *given]
    configured = bool(common.config) or Path("cellsync.yaml").exists()
    return (list(_topology(common).rules) if configured else []) or list(rules.packs())


@command(rules_group, "list")
def rules_list(common: Common) -> ExitCode:
    """List the packs and their rules: those in use, or all that came with cellsync."""
    from cellsync import rules
    from cellsync.report import catalog

    _put(catalog.packs(rules.load(_sources(common, ())).packs), None)
    return ExitCode.IN_STEP


@command(rules_group, "show")
@click.argument("name", metavar="PACK|RULE")
def rules_show(common: Common, name: str) -> ExitCode:
    """Show a pack's file, or everything that one rule says with its defaults."""
    from cellsync import rules
    from cellsync.report import catalog

    shipped = rules.packs().get(name)
    if shipped is not None:
        _put(shipped.read_text(encoding="utf-8"), None)
        return ExitCode.IN_STEP
    ruleset = rules.load(_sources(common, ()))
    rule = ruleset.rule(name)
    if rule is None:
        known = ", ".join([*rules.packs(), *(each.id for each in ruleset.rules)])
        raise UsageError(f"there is no pack or rule {name!r}; there are: {known}")
    _put(catalog.rule(rule), None)
    return ExitCode.IN_STEP


@command(rules_group, "validate")
@click.argument("files", nargs=-1, metavar="[PACK|FILE]...")
def rules_validate(common: Common, files: tuple[str, ...]) -> ExitCode:
    """Check rule files; every problem is named with its line and column."""
    from cellsync import rules

    ruleset = rules.load(_sources(common, files))
    if not common.quiet:
        _put("".join(f"{pack.name}: {len(pack.rules)} rules, no problems\n" for pack in ruleset.packs), None)
    return ExitCode.IN_STEP


@command(rules_group, "schema")
def rules_schema(common: Common) -> ExitCode:
    """Print the JSON Schema of rule files, for editors."""
    import json

    from cellsync import rules

    _put(json.dumps(rules.schema(), indent=2) + "\n", None)
    return ExitCode.IN_STEP


# -- The demo -----------------------------------------------------------------------------------


@command(cellsync)
@click.option(
    "--backend", type=click.Choice(["auto", "mariadb", "sqlite"]), default="auto", show_default=True
)
@click.option("--keep", is_flag=True, help="Leave the databases and the configuration in place.")
def demo(common: Common, backend: str, keep: bool) -> ExitCode:
    """Show a parent and two cells out of step, repaired, verified and taken back."""
    from cellsync import demo as show

    code = show.run(backend=backend, keep=keep, echo=click.echo, cellsync=[sys.executable, "-m", "cellsync"])
    return ExitCode(code)


if __name__ == "__main__":
    main()
