"""Metrics: what a run found and did, as a text file for Prometheus' node_exporter (its textfile collector).

What could not be compared has no sample: an alert that counts differences must not see a zero there.
The time of the last success outlives a run that fails: it is taken over from the file before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cellsync.errors import ExitCode
from cellsync.model import (
    CellFailure,
    CellResult,
    CheckedCell,
    Explained,
    Explanation,
    HopStatus,
    HostStatus,
    Report,
    TableDiff,
    TableFailure,
    Trace,
)
from cellsync.report import facts

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Samples = Iterable[tuple[Mapping[str, str], float]]

SUCCESS = "cellsync_last_success_timestamp_seconds"


def of_report(report: Report, before: str = "") -> str:
    """Return the metrics of a run; ``before`` is the text of the file that they replace.

    Raises ValueError where that is no file of metrics.
    """
    book = _Book()
    compared = [cell for cell in report.cells if isinstance(cell, CellResult)]
    tables = [(cell.cell, table) for cell in compared for table in cell.tables]
    whole = [(cell, table) for cell, table in tables if isinstance(table, TableDiff)]
    book.add(
        "cellsync_cell_compared",
        "1 where all of a cell could be compared, 0 where a part of it or all of it could not.",
        (({"cell": cell.cell}, _is_whole(cell)) for cell in report.cells),
    )
    book.add(
        "cellsync_rule_compared",
        "1 where a rule (or a detector) could be told in a cell, 0 where it could not.",
        (({"cell": cell, "rule": t.rule}, not isinstance(t, TableFailure)) for cell, t in tables),
    )
    book.add(
        "cellsync_differences",
        "Rows that differ and count, as they were found; no sample where a rule was not compared.",
        (
            ({"cell": cell, "rule": table.rule, "kind": kind}, number)
            for cell, table in whole
            if not table.detector
            for kind, number in _kinds(table).items()
        ),
    )
    book.add(
        "cellsync_findings",
        "Findings that count.",
        (
            ({"cell": cell, "rule": table.rule, "code": code}, number)
            for cell, table in whole
            for code, number in Counter(each.code for each in table.findings if not each.accepted).items()
        ),
    )
    book.add(
        "cellsync_rows",
        "Rows that were compared, on the desired and on the existing side.",
        (
            ({"cell": cell, "rule": table.rule, "side": side}, number)
            for cell, table in whole
            if not table.detector
            for side, number in (("desired", table.desired_rows), ("existing", table.existing_rows))
        ),
    )
    book.add(
        "cellsync_changes",
        "Changes of the run, by what became of them.",
        (
            ({"cell": cell.cell, "outcome": outcome}, number)
            for cell in compared
            for outcome, number in vars(cell.counts).items()
        ),
    )
    book.add(
        "cellsync_refusals",
        "Rules that a guard refused.",
        (
            ({"cell": cell.cell, "code": code}, number)
            for cell in compared
            for code, number in Counter(each.code for each in cell.refusals).items()
        ),
    )
    run = report.run
    book.run({"verb": run.verb}, run.started, report.finished, report.exit_code, before)
    return book.text()


def of_schema(report: Report, before: str = "") -> str:
    """Return the metrics of ``schema``. Raises ValueError as ``of_report``."""
    book = _Book()
    book.add(
        "cellsync_schema_differences",
        "Schema differences of a rule's table, by whether they block the rule.",
        (
            ({"cell": cell.cell, "rule": table.rule, "blocking": str(blocking).lower()}, number)
            for cell in facts.results(report)
            for table in cell.tables
            if table.schema or isinstance(table, TableDiff)
            for blocking in (False, True)
            for number in [sum(each.blocking is blocking for each in table.schema)]
        ),
    )
    run = report.run
    book.run({"verb": run.verb}, run.started, report.finished, report.exit_code, before)
    return book.text()


def of_trace(
    trace: Trace, *, started: datetime, finished: datetime, exit_code: ExitCode, before: str = ""
) -> str:
    """Return the metrics of ``trace``. Raises ValueError as ``of_report``."""
    book = _Book()
    book.add(
        "cellsync_hop_sound",
        "0 where a hop of the path to a child is broken, else 1; no sample where that could not be checked.",
        (
            ({"cell": trace.child, "hop": hop.hop}, hop.status is not HopStatus.BROKEN)
            for hop in trace.hops
            if hop.status is not HopStatus.UNKNOWN
        ),
    )
    about = {"verb": "trace", "cell": trace.child}
    book.run(about, started, finished, exit_code, before)
    return book.text()


def of_explanation(
    explanation: Explanation, *, started: datetime, finished: datetime, exit_code: ExitCode, before: str = ""
) -> str:
    """Return the metrics of ``explain``. Raises ValueError as ``of_report``."""
    book = _Book()
    book.add(
        "cellsync_feature_complete",
        "1 where all that a feature needs in a cell is there, 0 where something is missing; "
        "no sample where that is not known.",
        (
            ({"cell": cell.cell, "feature": explanation.feature}, cell.first_missing is None)
            for cell in explanation.cells
            if cell.first_missing is not None or not _unknown(cell)
        ),
    )
    about = {"verb": "explain", "feature": explanation.feature}
    book.run(about, started, finished, exit_code, before)
    return book.text()


def of_check(
    cells: Sequence[CheckedCell],
    *,
    started: datetime,
    finished: datetime,
    exit_code: ExitCode,
    before: str = "",
) -> str:
    """Return the metrics of ``cells check``. Raises ValueError as ``of_report``."""
    book = _Book()
    book.add(
        "cellsync_database_up",
        "1 where a cell's database lets us in.",
        (({"cell": cell.cell}, cell.database.status is HostStatus.OK) for cell in cells),
    )
    book.add(
        "cellsync_broker_up",
        "1 where a host of a cell's broker lets us in and takes messages.",
        (
            ({"cell": cell.cell, "host": probe.host}, probe.status is HostStatus.OK)
            for cell in cells
            for probe in cell.broker
        ),
    )
    book.add(
        "cellsync_broker_latency_seconds",
        "How long the login to a host of a cell's broker took.",
        (
            ({"cell": cell.cell, "host": probe.host}, probe.latency)
            for cell in cells
            for probe in cell.broker
            if probe.latency is not None
        ),
    )
    book.add(
        "cellsync_queue_messages",
        "Messages that wait in a queue of nova-cells.",
        (
            ({"cell": cell.cell, "host": probe.host, "queue": queue.name}, queue.messages)
            for cell in cells
            for probe in cell.broker
            for queue in probe.queues
            if queue.messages is not None
        ),
    )
    book.add(
        "cellsync_nova_cells_up",
        "1 where nova-cells takes messages from all of its queues at a broker that answers.",
        (({"cell": cell.cell}, not cell.silent) for cell in cells if cell.awaited and cell.queues),
    )
    book.add(
        "cellsync_isolated",
        "1 for a child that is out of the parent's table of cells.",
        (({"cell": cell.cell}, cell.isolated) for cell in cells),
    )
    book.run({"verb": "cells check"}, started, finished, exit_code, before)
    return book.text()


def _unknown(cell: Explained) -> bool:
    return any(each.status is HopStatus.UNKNOWN for each in cell.found)


def _is_whole(cell: CellResult | CellFailure) -> bool:
    if isinstance(cell, CellFailure):
        return False
    return not any(isinstance(table, TableFailure) or table.unknown for table in cell.tables)


def _kinds(table: TableDiff) -> dict[str, int]:
    tally = facts.tally([table])
    return {"missing": tally.missing, "changed": tally.changed, "extra": tally.extra}


class _Book:
    """The metrics of one file, in the order in which they were added."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry

        self._registry: CollectorRegistry = CollectorRegistry()

    def add(self, name: str, text: str, samples: Samples) -> None:
        """Add a gauge with its samples; one that has none is left out."""
        from prometheus_client import Gauge

        listed = list(samples)
        if not listed:
            return
        gauge = Gauge(name, text, list(listed[0][0]), registry=self._registry)
        for labels, value in listed:
            gauge.labels(**labels).set(float(value))

    def run(
        self,
        label: Mapping[str, str],
        started: datetime,
        finished: datetime,
        code: ExitCode,
        before: str,
    ) -> None:
        """Add what is said of the run as a whole; ``label`` tells it from the others on one machine."""
        self.add("cellsync_exit_code", "How the last run ended.", [(label, int(code))])
        text = "When the last run ended, in seconds of UNIX time."
        self.add("cellsync_last_run_timestamp_seconds", text, [(label, finished.timestamp())])
        duration = (finished - started).total_seconds()
        self.add("cellsync_run_duration_seconds", "How long the last run took.", [(label, duration)])
        # Differences that are only reported are no failure of the run.
        sound = code in (ExitCode.IN_STEP, ExitCode.DIFFERENCES)
        succeeded = finished.timestamp() if sound else _last_success(before, label)
        if succeeded is not None:
            text = "When the last run ended that compared everything and did all that it was to do."
            self.add(SUCCESS, text, [(label, succeeded)])

    def text(self) -> str:
        """Return the file."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry).decode()


def _last_success(before: str, labels: Mapping[str, str]) -> float | None:
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(before):
        for sample in family.samples:
            if sample.name == SUCCESS and sample.labels == labels:
                return float(sample.value)
    return None
