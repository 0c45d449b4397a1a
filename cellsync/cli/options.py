"""The options of the command line, and the command that they all hang on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cellsync import __version__
from cellsync.cli import completing, logs
from cellsync.masking import is_url, mask_urls

if TYPE_CHECKING:
    from cellsync.model import Endpoint

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Common:
    """The options that every command takes, before its name or after it."""

    arguments: Sequence[str] = ()
    """The command line without the program's name."""
    config: str | None = None
    rules: list[str] = field(default_factory=list)
    verbose: int = 0
    jobs: int | None = None
    quiet: bool = False
    changes_only: bool = False
    """Print only what has changed since the last run of the same command."""
    metrics: str | None = None
    """The file for metrics."""
    drift_log: str | None = None
    """The file that --drift-log names."""
    log: str | None = None
    """The drift log in use: that one, or else that of the cell file, once it is read."""
    log_format: str | None = None
    """How stderr reads: "json", or for people."""
    endpoints: list[Endpoint] = field(default_factory=list)
    """Whose passwords must not be printed; filled when the configuration is read."""

    @property
    def silent(self) -> bool:
        """Say whether a command has nothing to print while all is well."""
        return self.quiet or self.changes_only

    def scrub(self, text: str) -> str:
        """Return a text that somebody else wrote (a traceback, a log line) without any password."""
        for endpoint in self.endpoints:
            text = endpoint.scrub(text)
        return mask_urls(text)

    def merge(self, given: dict[str, Any]) -> None:
        """Take the common options out of a command's parameters."""
        self.config = given.pop("config") or self.config
        self.rules += given.pop("rules_")
        self.verbose += given.pop("verbose")
        self.jobs = given.pop("jobs") or self.jobs
        self.quiet = given.pop("quiet") or self.quiet
        self.changes_only = given.pop("changes_only") or self.changes_only
        self.metrics = given.pop("metrics_file") or self.metrics
        self.drift_log = given.pop("drift_log") or self.drift_log
        self.log_format = given.pop("log_format") or self.log_format


def check_file(context: click.Context, parameter: click.Parameter, given: Any) -> Any:
    """Return the names of files. A URL is refused and not repeated: it may have a password."""
    for text in given if isinstance(given, tuple) else (given,):
        if text is not None and is_url(text):
            raise click.BadParameter("this is a URL, and a file is wanted", context, parameter)
        if text is not None and "\0" in text:
            raise click.BadParameter("this is no path", context, parameter)
    return given


def common_options(function: F) -> F:
    """Add the options that stand before or after a command's name."""
    for option in reversed(
        (
            click.option(
                "-c",
                "--config",
                callback=check_file,
                metavar="FILE",
                shell_complete=completing.files,
                help="The cells. [default: cellsync.yaml]",
            ),
            click.option(
                "-r",
                "--rules",
                "rules_",
                callback=check_file,
                multiple=True,
                metavar="PACK|FILE",
                shell_complete=completing.packs,
                help="Rules to use.",
            ),
            click.option("-v", "--verbose", count=True, help="Say more; -vvv shows the SQL."),
            click.option("-j", "--jobs", type=click.IntRange(1, 256), metavar="N", help="Cells at once. [8]"),
            click.option("--quiet", is_flag=True, help="Print nothing when all is in step."),
            click.option("--changes-only", is_flag=True, help="Print what is new; needs a drift log."),
            click.option(
                "--metrics-file",
                callback=check_file,
                metavar="FILE",
                shell_complete=completing.files,
                help="Write metrics for Prometheus to it.",
            ),
            click.option(
                "--drift-log",
                callback=check_file,
                metavar="FILE",
                shell_complete=completing.files,
                help="Add what a run saw to it.",
            ),
            click.option(logs.OPTION, type=click.Choice(logs.FORMATS), help="How stderr reads. [text]"),
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
            logs.set_up(common)
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
            click.argument("cells", nargs=-1, metavar="[CELL]...", shell_complete=completing.cells),
            click.option(
                "--rule",
                "chosen",
                multiple=True,
                metavar="ID",
                shell_complete=completing.rules,
                help="Only it, and what it refers to.",
            ),
            click.option(
                "--feature",
                "features",
                multiple=True,
                metavar="NAME",
                shell_complete=completing.features,
                help="Only its rules.",
            ),
        )
    ):
        function = option(function)
    return function


def output_options(*formats: str) -> Callable[[F], F]:
    """Add --format and -o."""

    def add(function: F) -> F:
        function = click.option(
            "-o",
            "--output",
            callback=check_file,
            metavar="FILE",
            shell_complete=completing.files,
            help="Write to a file.",
        )(function)
        return click.option(
            "--format", "format_", type=click.Choice(formats), default="text", show_default=True
        )(function)

    return add


REPORT_FORMATS = ("text", "json", "jsonl", "html", "sql")


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
