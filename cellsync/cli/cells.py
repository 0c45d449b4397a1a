"""`cellsync cells` and `cellsync trace`: how cells are registered, and whether they can be reached."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cellsync.cli import completing
from cellsync.cli.options import Common, cellsync, command, output_options
from cellsync.cli.preparing import (
    carry_out,
    check_place,
    need_consent,
    progress,
    put,
    request_for,
    style_of,
    write_metrics_of,
)
from cellsync.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from cellsync.model import Broker
    from cellsync.run import Prepared, Request

Plans = Callable[..., "Prepared"]

TIMEOUT = 3.0
PASSWORD = "CELLSYNC_BROKER_PASSWORD"
_SIDE = click.option(
    "--side",
    type=click.Choice(["parent", "child", "both"]),
    default="both",
    show_default=True,
    help="Whose table is written.",
)
_TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long each host may take.",
)
_MOST = click.option(
    "--max-isolated", metavar="N|P%", help="Children isolated at once. [the larger of 1 and 25%]"
)


@cellsync.group("cells")
def cells_group() -> None:
    """Register cells, see whether they answer, take a dead one out of the parent's way."""


@command(cells_group, "list")
@output_options("text", "json")
def cells_list(common: Common, *, format_: str, output: str | None) -> ExitCode:
    """Show the rows of Nova's table of cells on both sides, and what is wrong with them."""
    from cellsync.report import register
    from cellsync.run import registering

    check_place(output)
    request = request_for(common, "cells list", without_rules=True)
    with progress(common, request) as shown:
        found = registering.listed(shown)
    wrong = found.missing or any(listed.mismatches for listed in found.rows)
    code = ExitCode.INCOMPLETE if found.failures else ExitCode.DIFFERENCES if wrong else ExitCode.IN_STEP
    if common.silent and code is ExitCode.IN_STEP:
        return code
    json = format_ == "json"
    put(
        register.registered_json(found, code) if json else register.registered(found, code, style_of(common)),
        output,
    )
    return code


def _writes(verb: str) -> Callable[[Plans], click.Command]:
    """Register a command that writes: from a function that plans what it is asked.

    The function gets the request and the command's own parameters; what all of them share (asking,
    a dry run, waivers, the output) is added here.
    """

    def register(plans: Plans) -> click.Command:
        def carry(
            common: Common,
            *,
            yes: bool,
            dry_run: bool,
            waived: tuple[str, ...],
            reason: str,
            format_: str,
            output: str | None,
            **own: Any,
        ) -> ExitCode:
            need_consent(yes or dry_run)
            check_place(output)
            request = request_for(
                common, f"cells {verb}", reason=reason, waived=waived, without_rules=True, dry_run=dry_run
            )
            prepared = plans(request, **own)
            return carry_out(
                common, request, prepared, yes=yes, dry_run=dry_run, format_=format_, output=output
            )

        carry.__doc__, carry.__name__ = plans.__doc__, plans.__name__
        carry.__click_params__ = getattr(plans, "__click_params__", [])  # type: ignore[attr-defined]
        shared = (
            output_options("text", "json"),
            click.option("--reason", default="", metavar="TEXT", help="Kept in the journal."),
            click.option("--waive", "waived", multiple=True, metavar="CODE", help="Lift one guard."),
            click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing."),
            click.option("--yes", is_flag=True, help="Do not ask."),
        )
        for option in shared:
            carry = option(carry)
        return command(cells_group, verb)(carry)

    return register


@_writes("create")
@click.argument("name", metavar="NAME", shell_complete=completing.cells)
@click.option(
    "--cell_type",
    "--cell-type",
    "cell_type",
    default="child",
    show_default=True,
    type=click.Choice(["api", "parent", "compute", "child"]),
    help="Whose broker the options describe.",
)
@click.option("--username", metavar="USER", help="The broker's user.")
@click.option("--password", metavar="TEXT", help="Its password; others see it in the list of processes.")
@click.option("--password-stdin", is_flag=True, help=f"Read it from stdin. [{PASSWORD} is read too]")
@click.option(
    "--broker_hosts",
    "--broker-hosts",
    "broker_hosts",
    metavar="HOST:PORT[,HOST:PORT]...",
    help="Several hosts, instead of --hostname and --port.",
)
@click.option("--hostname", metavar="HOST", help="The broker's host.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Its port. [5672]")
@click.option("--virtual_host", "--virtual-host", "virtual_host", metavar="VHOST", help="[/]")
@click.option("--woffset", type=float, default=0.0, show_default=True, help="Weight offset.")
@click.option("--wscale", type=float, default=1.0, show_default=True, help="Weight scale.")
@_SIDE
@_TIMEOUT
def cells_create(
    request: Request,
    *,
    name: str,
    cell_type: str,
    woffset: float,
    wscale: float,
    side: str,
    timeout: float,
    **described: Any,
) -> Prepared:
    """Register a child: the parent's row for it, and its row for the parent; both, or none.

    NAME is the child. The options are those of `nova-manage cell create`, and describe the broker of
    the side that --cell_type names; the other side's comes from cellsync.yaml, as does this one's
    when no option describes it. A broker that does not answer is refused.
    """
    from cellsync.model import Side
    from cellsync.run import registering

    asked = registering.Creation(
        child=name,
        side=Side(side),
        describes=Side.PARENT if cell_type in ("api", "parent") else Side.CHILD,
        broker=_broker(**described),
        weight_offset=woffset,
        weight_scale=wscale,
        timeout=timeout,
    )
    return registering.create(request, asked)


def _broker(
    *,
    username: str | None,
    password: str | None,
    password_stdin: bool,
    broker_hosts: str | None,
    hostname: str | None,
    port: int | None,
    virtual_host: str | None,
) -> Broker | None:
    """Return the broker that the options describe; None where they describe none."""
    from cellsync.model import Broker, BrokerHost, Secret

    given = (username, password, broker_hosts, hostname, port, virtual_host)
    if not password_stdin and all(each is None for each in given):
        return None
    if broker_hosts is None and hostname is None:
        raise UsageError("name the broker's host: --hostname HOST, or --broker_hosts HOST:PORT,HOST:PORT")
    if password is not None and password_stdin:
        raise UsageError("--password and --password-stdin do not go together")
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif password is None:
        password = os.environ.get(PASSWORD)
    if password and not username:
        raise UsageError("there is a password but no user: give --username too")
    hosts = _hosts(broker_hosts) if broker_hosts else [(hostname or "", port or 5672)]
    secret = None if password is None else Secret(password)
    return Broker(
        scheme="rabbit",
        hosts=tuple(BrokerHost(host, number, username, secret) for host, number in hosts),
        virtual_host=virtual_host,
    )


def _hosts(text: str) -> list[tuple[str, int]]:
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([\w.-]+)):(\d{1,5})", part.strip())
        if match is None or not 0 < int(match[3]) < 65536:
            raise UsageError("--broker_hosts: write HOST:PORT[,HOST:PORT]..., an IPv6 address in []")
        found.append((match[1] or match[2], int(match[3])))
    return found


@_writes("delete")
@click.argument("name", metavar="NAME|ID", shell_complete=completing.cells)
@_SIDE
def cells_delete(request: Request, *, name: str, side: str) -> Prepared:
    """Soft-delete a child's row in the parent, by name or id, and its own row for the parent."""
    from cellsync.model import Side
    from cellsync.run import registering

    return registering.delete(request, name, Side(side))


@_writes("isolate")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completing.cells)
@_MOST
def cells_isolate(request: Request, *, names: tuple[str, ...], max_isolated: str | None) -> Prepared:
    """Take a dead child out of the parent's table at once; `restore` brings the same row back."""
    from cellsync.run import registering

    return registering.isolate(request, names, most=max_isolated)


@_writes("restore")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completing.cells)
@_TIMEOUT
def cells_restore(request: Request, *, names: tuple[str, ...], timeout: float) -> Prepared:
    """Bring the row of an isolated child back as it was, when its broker takes messages again."""
    from cellsync.run import registering

    return registering.restore(request, names, timeout=timeout)


@command(cells_group, "check")
@click.argument("names", nargs=-1, metavar="[CELL]...", shell_complete=completing.cells)
@_TIMEOUT
@click.option(
    "--isolate", "isolating", is_flag=True, help="Isolate children whose broker, or nova-cells, is dead."
)
@click.option(
    "--after", type=click.IntRange(1, 1000), metavar="N", help="... after N failed checks in a row. [3]"
)
@click.option(
    "--silent-after",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="... or after N checks in a row in which nobody took messages from a living one. [3]",
)
@click.option(
    "--restore-after",
    type=click.IntRange(1, 1000),
    metavar="M",
    help="Bring back what a check isolated, after M answered checks in a row.",
)
@_MOST
@click.option("--waive", "waived", multiple=True, metavar="CODE", help="Lift one guard.")
@click.option("--dry-run", is_flag=True, help="Say what would be isolated or restored, and write nothing.")
@output_options("text", "json")
def cells_check(
    common: Common,
    *,
    names: tuple[str, ...],
    timeout: float,
    isolating: bool,
    after: int | None,
    silent_after: int | None,
    restore_after: int | None,
    max_isolated: str | None,
    waived: tuple[str, ...],
    dry_run: bool,
    format_: str,
    output: str | None,
) -> ExitCode:
    """Log in to every database and every host of every broker, all at once, and see what answers."""
    from cellsync.cli.telling import tell_check
    from cellsync.report import metrics
    from cellsync.run import checking

    if after is not None and not isolating:
        raise UsageError("--after goes with --isolate")
    if silent_after is not None and not isolating:
        raise UsageError("--silent-after goes with --isolate")
    check_place(output)
    request = request_for(
        common, "cells check", cells=names, waived=waived, without_rules=True, dry_run=dry_run
    )
    writes = isolating or restore_after is not None
    isolation = checking.Isolation(
        after=(after or 3) if isolating else None,
        silent_after=(silent_after or 3) if isolating else None,
        restore_after=restore_after,
        most=max_isolated,
        rehearse=dry_run,
    )
    with progress(common, request) as shown:
        found = checking.check(shown, timeout=timeout, isolation=isolation if writes else None)
    code = found.exit_code
    write_metrics_of(common, request, partial(metrics.of_check, found.cells), code)
    tell_check(common, request, found, format_, output)
    return code


@command(cellsync)
@click.argument("child", metavar="CHILD", shell_complete=completing.cells)
@_TIMEOUT
@output_options("text", "json")
def trace(common: Common, *, child: str, timeout: float, format_: str, output: str | None) -> ExitCode:
    """Walk the path of a request from the parent to a child, and name the first hop that is broken."""
    from cellsync.model import HopStatus
    from cellsync.report import metrics, register
    from cellsync.run import tracing

    check_place(output)
    request = request_for(common, "trace")
    with progress(common, request) as shown:
        found = tracing.trace(shown, child, timeout=timeout)
    unsound = {hop.hop for hop in found.hops if hop.status in (HopStatus.BROKEN, HopStatus.UNKNOWN)}
    code = (
        ExitCode.INCOMPLETE
        if unsound - {"rows"} or found.hanging
        else ExitCode.DIFFERENCES
        if unsound
        else ExitCode.IN_STEP
    )
    write_metrics_of(common, request, partial(metrics.of_trace, found), code)
    if common.silent and code is ExitCode.IN_STEP:
        return code
    parent = request.topology.parent.name
    json = format_ == "json"
    put(
        register.traced_json(found, code) if json else register.traced(found, parent, code, style_of(common)),
        output,
    )
    return code
