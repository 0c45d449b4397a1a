"""The HTML report: what it says, that no value of any database can do harm in it, and what it hides."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from html.parser import HTMLParser

import pytest

from cellsync.errors import ExitCode
from cellsync.model import (
    Action,
    BrokerProbe,
    CellFailure,
    CellResult,
    CheckedCell,
    ColumnDifference,
    DatabaseProbe,
    Difference,
    Direction,
    Dossier,
    Finding,
    HostStatus,
    JournaledRun,
    Kind,
    Refusal,
    Report,
    Row,
    Run,
    Status,
    TableDiff,
    TableFailure,
)
from cellsync.report import html

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
RUN = Run(
    id="r1", verb="report", started=NOW, topology="api", operator="o", host="h", command="cellsync report"
)
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'\"`&lt;{{ 7 * 7 }}{% raw %}",
    "[red]x[/red]",
    "a\u202eb\u2066c",
    "line\nline\r\n\x1b[31m\x00",
    "</table></details></main></body></html>",
    "x" * 10_000,
]


class Page(HTMLParser):
    """The elements and the text of a page; an element that is not closed is an error."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        """Everything that a reader sees, blanks made one."""
        return " ".join(" ".join(self.words).split())


def difference(name: str, old: object, new: object, **more: object) -> Difference:
    """Return a changed row with one column."""
    return Difference(
        kind=Kind.CHANGED,
        key=(name,),
        desired=Row((name,), (new,), (1,), since="2026-11-01 10:00:00"),  # type: ignore[arg-type]
        existing=Row((name,), (old,), (1,)),  # type: ignore[arg-type]
        columns=(ColumnDifference("value", new, old),),  # type: ignore[arg-type]
        action=Action.UPDATE,
        **more,  # type: ignore[arg-type]
    )


def table(
    differences: list[Difference], column: str = "value", findings: tuple[Finding, ...] = ()
) -> TableDiff:
    """Return a table with these differences."""
    return TableDiff(
        rule="aggregates",
        table="aggregates",
        direction=Direction.DOWN,
        key=("name",),
        columns=(column,),
        desired_rows=5,
        existing_rows=5,
        differences=differences,
        findings=findings,
        status=Status.DIFFERS,
    )


def report(*cells: CellResult | CellFailure, code: ExitCode = ExitCode.DIFFERENCES) -> Report:
    """Return a report of these cells."""
    return Report(
        run=RUN,
        finished=NOW,
        cells=cells,
        features={"zones": "Boot requests fail."},
        rule_features={"aggregates": ("zones",), "flavors": ("resize",)},
        exit_code=code,
    )


def differs(of: TableDiff) -> CellResult:
    """Return a child with this table."""
    return CellResult(cell="c1", status=Status.DIFFERS, tables=(of,))


def page(of: Report | Dossier) -> Page:
    """Return the page of a report."""
    return Page("".join(html.dossier(of) if isinstance(of, Dossier) else html.render(of)))


@pytest.mark.parametrize("evil", EVIL, ids=lambda text: repr(text[:12]))
def test_no_value_does_harm(evil: str) -> None:
    """Wherever a text of a database, of a person or of a server may stand."""
    finding = Finding(code="orphan", message=evil, key=(evil,), cell="api")
    changed = difference(evil, evil, evil + "!", reason=evil, accepted="")
    result = CellResult(
        cell="c1",
        status=Status.DIFFERS,
        tables=(
            table([changed], findings=(finding,)),
            TableFailure(rule="r", table="r", direction=Direction.DOWN, error=evil),
        ),
        refusals=(Refusal(code="limit", rule="aggregates", message=evil),),
        problems=(evil,),
        notices=(evil,),
    )
    probe = BrokerProbe(host="h:1", status=HostStatus.ERROR, error=evil)
    database = DatabaseProbe(status=HostStatus.ERROR, error=evil)
    run = Run(
        id="r0", verb="repair", started=NOW, topology="api", operator=evil, host="h", command="c", reason=evil
    )
    made = Dossier(
        report=report(result, CellFailure(cell="c2", status=Status.UNREACHABLE, error=evil)),
        checked=(CheckedCell(cell="api", database=database, broker=(probe,), unknown=evil),),
        runs=(JournaledRun(run=run, finished=None, status="running", cells=("c1",), applied=1),),
        unread={"c1": evil},
        features=("zones",),
        settings={"rules": evil},
    )
    text = "".join(html.dossier(made))
    seen = Page(text)
    harmless = page(report(differs(table([difference("a", "b", "c")]))))
    assert (
        [tag for tag, _ in seen.tags].count("script")
        == [tag for tag, _ in harmless.tags].count("script")
        == 1
    )
    assert not [
        attributes for _, attributes in seen.tags if any(name.startswith("on") for name in attributes)
    ]
    assert {tag for tag, _ in seen.tags} & {"img", "iframe", "link", "object"} == set()
    assert not re.search("[\u202e\u2066\x1b\x00]", text)
    assert "49" not in [word for word in seen.words if "7 * 7" in word]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No address in it but anchors, and a policy that forbids the rest."""
    text = "".join(html.render(report(differs(table([difference("a", "b", "c")])))))
    seen = Page(text)
    for tag, attributes in seen.tags:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), tag
    assert "default-src 'none'" in text
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert ("html", {"lang": "en"}) in seen.tags


def test_the_changed_part_is_marked() -> None:
    """What both sides share stands beside it."""
    text = "".join(html.render(report(differs(table([difference("a", "ratio=4.0;x", "ratio=16.0;x")])))))
    assert "ratio=<del>4</del>.0;x" in text
    assert "ratio=<ins>16</ins>.0;x" in text


@pytest.mark.parametrize(
    ("old", "new"), [("a", "a"), ("", "x"), ("aba", "aa"), ("aa", "aaa"), ("abc", "xbc"), ("abc", "abx")]
)
def test_the_parts_make_up_the_values(old: str, new: str) -> None:
    """However much they share, and also where the shared ends would overlap."""
    column = html._column("value", old, new, Kind.CHANGED)
    assert "".join(column.existing) == html._value("value", old)
    assert "".join(column.desired) == html._value("value", new)
    assert column.existing.head == column.desired.head and column.existing.tail == column.desired.tail


@pytest.mark.parametrize(
    "column", ["password", "admin_pass", "user_data", "key_data", "public_key", "auth_token"]
)
def test_secrets_are_not_shown(column: str) -> None:
    """Nor a part of them; that they differ is."""
    changed = Difference(
        kind=Kind.CHANGED,
        key=("a",),
        desired=None,
        existing=None,
        columns=(ColumnDifference(column, "hunter1", "hunter2"),),
        action=Action.UPDATE,
    )
    text = "".join(html.render(report(differs(table([changed], column)))))
    assert "hunter" not in text
    assert html.HIDDEN in text
    url = "rabbit://nova:hunter2@h/v"
    urls = Difference(
        kind=Kind.CHANGED,
        key=("a",),
        desired=None,
        existing=None,
        columns=(ColumnDifference("transport_url", None, url),),
        action=Action.UPDATE,
    )
    shown = "".join(html.render(report(differs(table([urls], "transport_url")))))
    assert "hunter" not in shown and "rabbit://nova:***@h/v" in shown


def test_the_page_says_what_to_do_first() -> None:
    """A dead broker before everything else; then who could not be compared; then the repair."""
    dead = CheckedCell(
        cell="c1",
        database=DatabaseProbe(status=HostStatus.OK, latency=0.01),
        broker=(BrokerProbe(host="h:5672", status=HostStatus.REFUSED, error="nothing listens there"),),
    )
    sound = CheckedCell(cell="api", database=DatabaseProbe(status=HostStatus.OK, latency=0.01), broker=())
    made = Dossier(
        report=report(
            differs(table([difference("a", "b", "c", reason="zone a is wrong in c1")])),
            CellFailure(cell="c2", status=Status.UNREACHABLE, error="refused"),
        ),
        checked=(sound, dead),
        features=("zones", "resize"),
    )
    text = page(made).text
    places = [
        text.index(each) for each in ("cells isolate c1", "cells check c2", "cellsync repair --dry-run")
    ]
    assert places == sorted(places)
    assert "zone a is wrong in c1 since 2026-11-01 10:00:00 UTC" in text
    assert "breaks zones: Boot requests fail." in text
    assert "c1 1 row changed not for this version c2 unknown unknown" in text
    assert "not everything answers in c1" in text


def test_an_isolated_child_is_shown_as_such() -> None:
    """With the command that brings it back."""
    isolated = CellResult(cell="c1", status=Status.IN_STEP, tables=(), isolated="2026-11-24 10:00:00")
    text = page(report(isolated, code=ExitCode.IN_STEP)).text
    assert "isolated since 2026-11-24 10:00:00 UTC" in text
    assert "cellsync cells restore c1" in text


def many(number: int) -> Iterator[Difference]:
    """Yield so many differences."""
    for place in range(number):
        yield difference(
            f"row-{place:06}", "old value", "new value", reason=f"row {place} is out of step in c1"
        )


def test_ten_thousand_differences_fit_and_more_are_counted() -> None:
    """Below 10 MB; what is left out is said, with the command that shows it."""
    started = time.monotonic()
    text = "".join(html.render(report(differs(table(list(many(html.MOST + 5)))))))
    assert time.monotonic() - started < 60
    assert len(text.encode()) < 10_000_000
    assert text.count('<tr class="row">') == html.MOST
    assert (
        "5 more are left out of this page; <code>cellsync diff c1 --rule aggregates --format json</code>"
        in text
    )
