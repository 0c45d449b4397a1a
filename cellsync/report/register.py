"""The outputs of ``cells`` and ``trace``: how cells are registered, what answers, which hop is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from cellsync.errors import ExitCode
from cellsync.model import (
    BrokerProbe,
    CheckedCell,
    Decision,
    Hop,
    HopStatus,
    HostStatus,
    Listed,
    Queue,
    Registered,
    Trace,
)
from cellsync.report import words
from cellsync.report.json import VERSION, Object, whole
from cellsync.report.page import Block, Grid, Line, Style, Tone, compose
from cellsync.report.words import counted

_TONES = {
    HopStatus.OK: Tone.GOOD,
    HopStatus.WARN: Tone.STRONG,
    HopStatus.BROKEN: Tone.BAD,
    HopStatus.UNKNOWN: Tone.QUIET,
}
_CHECK_EXIT = {ExitCode.IN_STEP: "everything answers", ExitCode.INCOMPLETE: "something does not answer"}
_TRACE_EXIT = {
    ExitCode.IN_STEP: "no hop is broken",
    ExitCode.DIFFERENCES: "the path is sound, rows are out of step",
    ExitCode.INCOMPLETE: "a hop is broken or could not be checked, or another child hangs the parent",
}


# -- cells list ----------------------------------------------------------------------------------


def registered(found: Registered, code: ExitCode, style: Style) -> Iterator[str]:
    """Yield the rows of all cells, those that are wrong with what is wrong with them."""
    return compose(_registered(found, code), style)


def _registered(found: Registered, code: ExitCode) -> Iterator[Block]:
    wrong = sum(bool(listed.mismatches) for listed in found.rows) + len(found.missing)
    verdict = f"{counted(len(found.rows), 'row')}, {counted(wrong, 'mismatch', 'mismatches')}"
    isolated = f"; {counted(len(found.isolated), 'child', 'children')} isolated" if found.isolated else ""
    failed = f"; {counted(len(found.failures), 'cell')} could not be read" if found.failures else ""
    yield Line(f"{verdict}{isolated}{failed}", tone=Tone.BAD if failed else _tone(not wrong))
    head = ("in", "id", "name", "type", "broker", "woffset", "wscale")
    rows = (*found.rows, *found.isolated)
    tones = tuple(_tone(not listed.mismatches and listed.row.live) for listed in rows)
    if rows:
        yield Line("")
        yield Grid((head, *map(_listed, rows)), tones, whole=4, numbers=len(head) - 2)
    lines = [
        f"{each.cell} {each.row.name} (id {each.row.id}): {text}"
        for each in found.rows
        for text in each.mismatches
    ]
    for title, texts in (
        ("mismatches:", [*lines, *found.missing]),
        ("isolated (cellsync cells restore NAME brings them back):", list(map(_isolated, found.isolated))),
        ("could not be read:", list(found.failures.values())),
    ):
        if texts:
            yield from (Line(""), Line(title, tone=Tone.TITLE), *(Line(text, 1) for text in texts))
    yield Line("")
    yield Line(f"exit code {int(code)}: {words.EXIT[code]}", tone=Tone.QUIET)


def _tone(good: bool) -> Tone:
    return Tone.PLAIN if good else Tone.STRONG


def _isolated(listed: Listed) -> str:
    return f"{listed.row.name} since {listed.row.deleted_at} UTC (row {listed.row.id} of {listed.cell})"


def _listed(listed: Listed) -> tuple[str, ...]:
    row = listed.row
    kind = "parent" if row.is_parent else "child"
    kind = kind if row.live else "isolated" if row.deleted else "not seen"
    weights = (_weight(row.weight_offset), _weight(row.weight_scale))
    return (listed.cell, str(row.id), row.name, kind, listed.broker, *weights)


def _weight(weight: float | None) -> str:
    return "" if weight is None else f"{weight:g}"


def registered_json(found: Registered, code: ExitCode) -> Iterator[str]:
    """Yield the same as JSON."""
    return whole(
        {
            "version": VERSION,
            "rows": [_listed_json(listed) for listed in found.rows],
            "isolated": [_listed_json(listed) for listed in found.isolated],
            "missing": list(found.missing),
            "failures": dict(found.failures),
            "exit_code": int(code),
        }
    )


def _listed_json(listed: Listed) -> Object:
    row = listed.row
    return {
        "cell": listed.cell,
        "id": row.id,
        "name": row.name,
        "type": "parent" if row.is_parent else "child",
        "broker": listed.broker,
        "weight_offset": row.weight_offset,
        "weight_scale": row.weight_scale,
        "deleted_at": row.deleted_at,
        "mismatches": list(listed.mismatches),
    }


# -- cells check ---------------------------------------------------------------------------------


def checked(cells: Sequence[CheckedCell], error: str, code: ExitCode, style: Style) -> Iterator[str]:
    """Yield what answered and what did not: what is wrong first, in one line each."""
    return compose(_checked(cells, error, code, style), style)


def _checked(cells: Sequence[CheckedCell], error: str, code: ExitCode, style: Style) -> Iterator[Block]:
    down = [cell for cell in cells if not cell.sound]
    few = words.listed([cell.cell for cell in down])
    names = few if len(down) <= 5 else f"{len(down)} of {len(cells)} cells"
    everything = "every database and broker answers" if has_brokers(cells) else "every database answers"
    verdict = f"{names}: not everything answers" if down else everything
    yield Line(verdict, tone=Tone.BAD if down else Tone.GOOD)
    yield Line("")
    yield from answers(cells, style)
    said = [cell.said for cell in cells if cell.said]
    if error or said:
        yield from (Line(""), Line("decided:", tone=Tone.TITLE))
        yield from (Line(text, 1, Tone.STRONG) for text in (*said, *filter(None, [error])))
    yield Line("")
    yield Line(f"exit code {int(code)}: {_CHECK_EXIT.get(code, words.EXIT[code])}", tone=Tone.QUIET)


def answers_again(cells: Sequence[CheckedCell], well: Sequence[str], *, everybody: bool) -> Iterator[str]:
    """Yield one line about the cells that are well again; nothing where there are none."""
    if not well:
        return
    every = "every database and broker answers" if has_brokers(cells) else "every database answers"
    rest = f": {every}" if everybody else ""
    yield f"everything answers again in {', '.join(well)}{rest}\n"
    for cell in cells:
        if cell.cell in well and cell.isolated:
            yield f"{cell.cell} is still isolated: cellsync cells restore {cell.cell} brings it back\n"


def answers(cells: Sequence[CheckedCell], style: Style, *, depth: int = 0) -> Iterator[Line]:
    """Yield what answered in every cell; those where not everything did come first."""
    without = "; no broker" if has_brokers(cells) else ""
    for cell in sorted(cells, key=lambda cell: cell.sound):
        lines = _checked_cell(cell, style, without)
        yield from (Line(line.text, line.depth + depth, line.tone) for line in lines)


def has_brokers(cells: Sequence[CheckedCell]) -> bool:
    """Say whether any cell has a broker, or should have one: else nothing is said of brokers."""
    return any(cell.broker or cell.unknown for cell in cells)


def _checked_cell(cell: CheckedCell, style: Style, without: str) -> Iterator[Line]:
    """Yield what answered in one cell; ``without`` is said where it has no broker."""
    if cell.sound and not style.verbose:
        brokers = "".join(f"; {_probe(probe)}" for probe in cell.broker) or without
        isolated = " (isolated)" if cell.isolated else ""
        yield Line(f"{cell.cell}{isolated}: database ok, {_ms(cell.database.latency)}{brokers}")
        yield from _silent(cell)
        return
    yield Line(f"{cell.cell}{' (isolated)' if cell.isolated else ''}:", tone=Tone.TITLE)
    database = cell.database
    good = database.status is HostStatus.OK
    text = f"{_ms(database.latency)}, {database.server}" if good else database.error
    yield Line(f"database {words.ANSWER[database.status]}: {text}", 1, Tone.PLAIN if good else Tone.BAD)
    for probe in cell.broker:
        bad = probe.status is not HostStatus.OK
        yield Line(f"broker {_probe(probe)}", 1, Tone.BAD if bad else Tone.PLAIN)
        if style.verbose:
            yield from (Line(_queue(queue), 2, Tone.QUIET) for queue in probe.queues)
    if cell.unknown:
        yield Line(f"broker unknown: {cell.unknown}", 1, Tone.BAD)
    if cell.half_registered:
        yield Line(cell.half_registered, 1, Tone.BAD)
    yield from _silent(cell)


def _probe(probe: BrokerProbe) -> str:
    detail = f", {_ms(probe.latency)}, {probe.server}" if not probe.error else f": {probe.error}"
    return f"{probe.host} {words.ANSWER[probe.status]}{detail}"


def _silent(cell: CheckedCell) -> Iterator[Line]:
    """Say from which queues of nova-cells nobody takes messages; elsewhere warn of those that are there."""
    if cell.silent:
        yield Line(say_silence(cell), 1, Tone.BAD)
    elif idle := [queue for queue in cell.queues if queue.consumers == 0]:
        yield Line(f"{_say_idle(idle)}: is nova-cells up?", 1, Tone.STRONG)


def say_silence(cell: CheckedCell) -> str:
    """Return that nova-cells takes no messages; "" where it does, or need not."""
    return f"nova-cells silent: {_say_idle(cell.silent)}" if cell.silent else ""


def _say_idle(queues: Sequence[Queue]) -> str:
    waiting = sum(queue.messages or 0 for queue in queues)
    return f"nobody takes messages from {words.listed([queue.name for queue in queues])} ({waiting} wait)"


def _queue(queue: Queue) -> str:
    if queue.consumers is None:
        return f"queue {queue.name}: there is none"
    takers, waiting = counted(queue.consumers, "consumer"), counted(queue.messages or 0, "message")
    return f"queue {queue.name}: {takers}, {waiting}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"


def checked_json(cells: Sequence[CheckedCell], error: str, code: ExitCode) -> Iterator[str]:
    """Yield the same as JSON (DESIGN section 8, with further keys)."""
    return whole(
        {
            "version": VERSION,
            "cells": [checked_cell(cell) for cell in cells],
            "error": error or None,
            "exit_code": int(code),
        }
    )


def checked_cell(cell: CheckedCell) -> Object:
    """Return one cell of the JSON of a check."""
    database = cell.database
    return {
        "cell": cell.cell,
        "database": {
            "status": database.status.value,
            "latency_ms": _milliseconds(database.latency),
            "server": database.server or None,
            "error": database.error or None,
        },
        "broker": [_probe_json(probe) for probe in cell.broker],
        "broker_unknown": cell.unknown or None,
        "half_registered": cell.half_registered or None,
        "nova_cells": _nova_cells_json(cell),
        "isolated": cell.isolated,
        "decision": None if cell.decision is Decision.NONE else cell.decision.value,
        "decided": cell.said or None,
    }


def _nova_cells_json(cell: CheckedCell) -> Object | None:
    """Return whether nova-cells takes messages; None where it need not, or no host of the broker answers."""
    if not cell.awaited or not cell.queues:
        return None
    return {
        "status": "silent" if cell.silent else "ok",
        "silent_queues": [queue.name for queue in cell.silent],
        "waiting": sum(queue.messages or 0 for queue in cell.silent),
    }


def _probe_json(probe: BrokerProbe) -> Object:
    return {
        "host": probe.host,
        "status": probe.status.value,
        "latency_ms": _milliseconds(probe.latency),
        "server": probe.server or None,
        "error": probe.error or None,
        "queues": [
            {"queue": queue.name, "consumers": queue.consumers, "messages": queue.messages}
            for queue in probe.queues
        ],
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


# -- trace ---------------------------------------------------------------------------------------


def traced(trace: Trace, parent: str, code: ExitCode, style: Style) -> Iterator[str]:
    """Yield the path hop by hop; the first broken hop is the headline."""
    return compose(_traced(trace, parent, code), style)


def _traced(trace: Trace, parent: str, code: ExitCode) -> Iterator[Line]:
    first = trace.first_broken
    unknown = sum(hop.status is HopStatus.UNKNOWN for hop in trace.hops)
    if first is not None:
        yield Line(f"{parent} to {trace.child}: broken at {first.hop}: {first.evidence}", tone=Tone.BAD)
        yield Line(f"do: {first.advice}", tone=Tone.STRONG)
    elif unknown:
        yield Line(
            f"{parent} to {trace.child}: no broken hop, {unknown} could not be checked", tone=Tone.STRONG
        )
    else:
        warned = sum(hop.status is HopStatus.WARN for hop in trace.hops)
        sound = f"no broken hop, {words.counted(warned, 'warning')}" if warned else "every hop is sound"
        but = f", but {parent} hangs" if trace.hanging else ""
        tone = Tone.BAD if but else Tone.STRONG if warned else Tone.GOOD
        yield Line(f"{parent} to {trace.child}: {sound}{but}", tone=tone)
    for each in trace.hanging:
        yield Line(f"requests to all cells hang with {each.cell}: {each.evidence}", tone=Tone.BAD)
        yield Line(f"do: {each.advice}", tone=Tone.STRONG)
    yield Line("")
    yield from chain.from_iterable(_hop(number, hop) for number, hop in enumerate(trace.hops, 1))
    yield Line("")
    yield Line(f"exit code {int(code)}: {_TRACE_EXIT.get(code, words.EXIT[code])}", tone=Tone.QUIET)


def _hop(number: int, hop: Hop) -> Iterator[Line]:
    yield Line(f"{number} {hop.hop:<16} {hop.status.value:<8} {hop.evidence}", tone=_TONES[hop.status])
    if hop.advice:
        yield Line(f"do: {hop.advice}", 2)


def traced_json(trace: Trace, code: ExitCode) -> Iterator[str]:
    """Yield the same as JSON (DESIGN section 8)."""
    first = trace.first_broken
    return whole(
        {
            "version": VERSION,
            "child": trace.child,
            "hops": [
                {"hop": hop.hop, "status": hop.status.value, "evidence": hop.evidence, "advice": hop.advice}
                for hop in trace.hops
            ],
            "first_broken": first.hop if first else None,
            "hanging": [
                {"cell": each.cell, "evidence": each.evidence, "advice": each.advice}
                for each in trace.hanging
            ],
            "exit_code": int(code),
        }
    )
