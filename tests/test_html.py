"""The HTML report: what it says, that no value of any database can do harm in it, and what it hides."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from html import unescape
from html.parser import HTMLParser

import pytest

from cellsync.errors import ExitCode
from cellsync.model import (
    HIDDEN,
    Accepted,
    Action,
    BrokerProbe,
    CellFailure,
    CellResult,
    Change,
    CheckedCell,
    Column,
    ColumnDifference,
    DatabaseIdentity,
    DatabaseProbe,
    Difference,
    Direction,
    Dossier,
    Family,
    Finding,
    HostStatus,
    JournaledRun,
    Kind,
    Plan,
    Refusal,
    Report,
    Row,
    Run,
    SchemaDifference,
    Secrets,
    Service,
    Skipped,
    Status,
    Table,
    TableDiff,
    TableFailure,
    Vitals,
)
from cellsync.report import cards, html
from cellsync.report.sql import excerpt

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

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

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
    assert [tag for tag, _ in seen.tags].count("script") == 1
    assert not [
        attributes for _, attributes in seen.tags if any(name.startswith("on") for name in attributes)
    ]
    assert {tag for tag, _ in seen.tags} & {"img", "iframe", "link", "object", "base", "form"} == set()
    assert not [attributes for _, attributes in seen.tags if "style" in attributes]
    assert not re.search("[\u202e\u2066\x1b\x00]", text)
    assert "49" not in [word for word in seen.words if "7 * 7" in word]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No address in it but anchors, and a policy that forbids the rest."""
    text = "".join(html.render(report(differs(table([difference("a", "b", "c")])))))
    seen = Page(text)
    for tag, attributes in seen.tags:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), tag
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert ("html", {"lang": "en"}) in seen.tags


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    """By their hashes: what a value smuggles in has another one. The browser is asked in test_browser.py."""
    text = "".join(html.render(report(differs(table([difference("a", "b", "c")])))))
    metas = {a.get("http-equiv"): str(a["content"]) for _, a in Page(text).tags if "content" in a}
    allowed = dict(part.split(" ", 1) for part in metas["Content-Security-Policy"].split("; "))
    assert allowed["default-src"] == "'none'"
    for tag in ("style", "script"):
        [inside] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"


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
    column = cards.column("value", old, new)
    assert "".join(column.existing) == old
    assert "".join(column.desired) == new
    assert column.existing.head == column.desired.head and column.existing.tail == column.desired.tail


def test_secrets_are_not_shown() -> None:
    """Nor a part of them; that they differ is. What the configuration hides is hidden, too."""
    url = "rabbit://nova:hunter2@h/v"
    values = {"password": "hunter1", "note": "hunter3", "transport_url": url, "name": "shown"}
    changed = [
        replace(difference("a", "b", "c"), columns=(ColumnDifference(name, value, None),))
        for name, value in values.items()
    ]
    made = replace(report(differs(table(changed))), secrets=Secrets(hide=("aggregates.note",)))
    text = "".join(html.render(made))
    assert "hunter" not in text
    assert text.count(HIDDEN) == 2
    assert "shown" in text and "rabbit://nova:***@h/v" in text.replace("<ins>", "").replace("</ins>", "")


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
        text.index(each) for each in ("cells isolate c1", "cells check c2", "cellsync repair c1 --dry-run")
    ]
    assert places == sorted(places)
    assert "zone a is wrong in c1 changed name=a since 2026-11-01 10:00:00 UTC" in text
    assert "zones Boot requests fail." in text and "breaks zones" in text
    assert "c1 1 row changed not for this version c2 unknown unknown" in text
    outage = "the broker takes no messages in c1; the database does not answer in c2"
    assert text.startswith(f"api: {outage}") and text.count(outage) == 2


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


def wide(number: int) -> Iterator[Difference]:
    """Yield so many missing rows of forty columns, each of which is long and must be escaped."""
    value = "<&>" * 500
    for place in range(number):
        columns = tuple(ColumnDifference(f"column_{each}", value, None) for each in range(40))
        yield replace(difference(f"row-{place:06}", "a", "b"), kind=Kind.MISSING, columns=columns)


def test_ten_thousand_differences_fit_and_more_are_counted() -> None:
    """Below 10 MB; what is left out is said, with the command that shows it."""
    text = "".join(html.render(report(differs(table(list(many(cards.MOST + 5)))))))
    assert len(text.encode()) < 10_000_000
    assert text.count('<li class="row') == cards.MOST
    assert "5 more are left out of this page" in page_text(text)
    assert "cellsync diff c1 --rule aggregates --format json has them all" in page_text(text)


def page_text(text: str) -> str:
    """Return what a reader sees of a page."""
    return Page(text).text


def planned(of: TableDiff, **columns: object) -> CellResult:
    """Return a child with this table of changed rows, and the plan that updates them."""
    changes = [
        Change(
            rule=of.rule,
            table=of.table,
            action=Action.UPDATE,
            key=each.key,
            key_columns=("name",),
            identity_columns=("id",),
            identity=(place,),
            before={"name": each.key[0], **{name: f"old {value}" for name, value in columns.items()}},  # type: ignore[dict-item]
            after=columns,  # type: ignore[arg-type]
        )
        for place, each in enumerate(of.differences)
    ]
    known = (Column(name=name, type="text", family=Family.TEXT) for name in ("name", *columns))
    plan = Plan(
        child="c1",
        written="c1",
        database=DatabaseIdentity(server="s", schema="nova", version="10.11.6-MariaDB"),
        changes=changes,
        tables={of.table: Table(name=of.table, columns=tuple(known), primary_key=("id",))},
    )
    return replace(differs(of), plans=(plan,))


def test_the_sql_of_ten_thousand_differences_is_that_of_the_first() -> None:
    """Below 10 MB, and what is left out is counted, with the command that shows it."""
    of = report(planned(table(list(many(cards.MOST))), value="new value"))
    text = "".join(html.render(of))
    assert len(text.encode()) < 10_000_000
    assert text.count('<li class="row') == cards.MOST
    shown = text.count('<details class="sql">')
    assert 500 < shown <= excerpt.MOST
    said = f"{cards.MOST - shown} of these rows are shown without their SQL, for want of room;"
    assert f"{said} cellsync plan c1 --rule aggregates --format sql has it all" in page_text(text)
    written = replace(of, run=replace(RUN, verb="repair"))
    assert "cellsync history r1 --format sql has it all" in page(written).text


def test_long_statements_are_fewer_and_large_tables_leave_small_ones_theirs() -> None:
    """The SQL of a page has a bound in bytes; a table gets its share of it by its rows."""
    values = {f"column_{place}": "<&>" * 120 for place in range(40)}
    large = planned(table(list(many(900))), **values)
    small = planned(replace(table(list(many(3))), rule="small"), value="new value")
    both = replace(large, tables=(*large.tables, *small.tables), plans=(*large.plans, *small.plans))
    text = "".join(html.render(report(both)))
    assert len(text.encode()) < 10_000_000
    folds = re.findall(r'<details class="sql">.*?</details>', text, re.S)
    assert 3 < len(folds) < 300
    assert sum(map(len, folds)) < cards.SQL_BYTES
    assert sum("<pre>UPDATE" in fold and "column_1" not in fold for fold in folds) == 3


def test_the_sql_of_a_card_is_never_larger_than_it_is_taken_for() -> None:
    """Measured on the page itself, with notes and without."""
    for value in ("v", "<&>" * 100, "<&>" * 1000):
        of = report(planned(table([difference("k<&>", "a", "b")]), value=value, password=value))
        text = "".join(html.render(of))
        [found] = re.findall(r'<details class="sql">.*?</details>', text, re.S)
        [[told]] = excerpt.told(of, longest=excerpt.LONG).values()
        assert 0.5 * cards.size_of_sql(told) < len(found.encode()) <= cards.size_of_sql(told)


@pytest.mark.parametrize("evil", EVIL, ids=lambda text: repr(text[:12]))
def test_statements_are_text_that_can_be_copied(evil: str) -> None:
    """To the letter, whatever the value is; one that is long is replaced, and the note says so."""
    of = report(planned(table([difference("k", "a", "b")]), value=evil))
    text = "".join(html.render(of))
    copied = [unescape(each) for each in re.findall(r"<pre>(.*?)</pre>", text, re.S)]
    [[told]] = excerpt.told(of, longest=None).values()
    cut = "it cannot be run as it stands: value is too long for this page"
    if len(evil) > excerpt.LONG:
        assert "SET `value` = <10000 characters>\n" in copied[0]
        assert f"In c1; {cut}" in page_text(text) and f"Its undo: {cut}" in page_text(text)
    else:
        assert copied == [f"{told.forward.statement};\n", f"{told.backward.statement};\n"]
        assert cut not in page_text(text)


def test_a_change_that_cannot_be_told_says_why() -> None:
    """Its undo, where not all is known of the row; both, where the database is none for it."""
    made = planned(table([difference("k", "a", "b")]), value="new")
    [plan] = made.plans
    dumb = replace(plan, tables={})
    seen = page(report(replace(made, plans=(dumb,)))).text
    assert "Its undo: there is none: not all is known of what the row of aggregates was" in seen
    demo = replace(plan, database=replace(plan.database, version="SQLite 3.40"))
    seen = page(report(replace(made, plans=(demo,)))).text
    assert "In c1; there is none: c1 is no MariaDB" in seen and "UPDATE `" not in seen


def test_rows_that_are_made_together_say_so() -> None:
    """Their statements alone do not make them so."""
    made = planned(table([difference("k", "a", "b")]), value="new")
    [plan] = made.plans
    joined = replace(plan, changes=[replace(plan.changes[0], together="token")])
    assert (
        "In c1, together with other rows or not at all" in page(report(replace(made, plans=(joined,)))).text
    )


@pytest.mark.parametrize("made", [wide, many])
def test_no_page_is_too_large_whatever_the_rows_are(made: Callable[[int], Iterator[Difference]]) -> None:
    """Wide rows are fewer rows; the bytes that a card is taken for are never less than its own."""
    text = "".join(html.render(report(differs(table(list(made(3000)))))))
    assert len(text.encode()) < 10_000_000
    shown = text.count('<li class="row')
    assert shown < 3000 if made is wide else shown == 3000
    assert (f"{3000 - shown} more are left out" in text) is (made is wide)


def test_a_card_is_never_larger_than_it_is_taken_for() -> None:
    """Measured on the page itself, for rows with changed columns, with fields, and with nothing."""
    changed = difference("k<&>", "old <value>", "new 'value' \x00", reason="é " * 50)
    fields = next(wide(1))
    for one in (changed, fields, replace(changed, columns=(), kind=Kind.EXTRA)):
        shown = report(differs(table([one])))
        text = "".join(html.render(shown))
        [found] = re.findall(r'<li class="row.*?</li>', text, re.S)
        names, dealt = cards.Names("c1", "api"), {("c1", "aggregates"): 1}
        room = cards.Room(dealt, excerpt.told(shown, longest=excerpt.LONG))
        [card] = cards.cards(table([one]), differs(table([one])), room, Secrets(), names).cards
        assert 0.7 * cards.size(card, names) < len(found.encode()) <= cards.size(card, names)


def test_a_large_table_hides_no_small_one() -> None:
    """Each gets its share of the page; what a small one leaves goes to the large ones."""
    small = replace(table(list(many(3))), rule="small")
    large = [replace(table(list(many(40))), rule=f"large{place}") for place in range(2)]
    result = CellResult(cell="c1", status=Status.DIFFERS, tables=(large[0], small, large[1]))
    dealt = cards.shares([result], most=50)
    assert dealt == {("c1", "small"): 3, ("c1", "large0"): 23, ("c1", "large1"): 24}


def test_long_tables_are_folded_and_short_ones_are_open() -> None:
    """Without a script: it is how the page comes."""
    for number, is_open in ((html.FOLDED, True), (html.FOLDED + 1, False)):
        folds = [a for tag, a in page(report(differs(table(list(many(number)))))).tags if tag == "details"]
        assert ["open" in fold for fold in folds if fold] == [True] * is_open


def test_what_a_repair_would_do_and_why_is_said() -> None:
    """For every action, for what was accepted, skipped, refused, and done."""
    base = difference("a", "b", "c")
    said = {
        "insert it, as api has it": replace(base, kind=Kind.MISSING, action=Action.INSERT),
        "update it, as api is right": base,
        "delete it, as api does not have it, and cellsync wrote it": replace(
            base, kind=Kind.EXTRA, action=Action.DELETE, origin=(1,)
        ),
        "leave it: it is only reported": replace(base, action=Action.REPORT),
        "leave it: the rule ignores rows that are changed": replace(base, action=Action.IGNORE),
        "leaves it: it is accepted, a lab": replace(base, action=Action.IGNORE, accepted="a lab"),
    }
    for text, each in said.items():
        assert text in page(report(differs(table([each])))).text
    cell = differs(table([base]))
    skipped = replace(cell, skipped=(Skipped(rule="aggregates", key=("a",), reason="its east is missing"),))
    assert "A repair leaves it: its east is missing" in page(report(skipped)).text
    for status, text in ((Status.REFUSED, "is right, but is refused"), (Status.REPAIRED, "has updated it")):
        stood = differs(replace(table([base]), status=status))
        seen = page(report(stood)).text
        assert text in seen and "cellsync repair c1 --rule" not in seen


def test_the_schema_and_the_services_are_in_it() -> None:
    """What differs in the tables, and which services are alive."""
    schema = SchemaDifference(path="name: length", desired="255", existing="100", blocking=True)
    services = (
        Service(name="nova-compute", host="h1", age=5, alive=True, lost="no host runs instances"),
        Service(name="nova-compute", host="h2", age=7300, alive=False, lost="no host runs instances"),
        Service(name="nova-conductor", host="", age=None, alive=False, lost="builds stop"),
        Service(name="nova-console", host="h1", age=7, alive=True, lost="no console", optional=True),
    )
    probe = DatabaseProbe(status=HostStatus.OK, latency=0.01, server="10.11.19-MariaDB")
    made = Dossier(
        report=report(differs(replace(table([]), schema=(schema,)))),
        checked=(CheckedCell(cell="c1", database=probe, broker=()),),
        vitals=(Vitals(cell="c1", version="migrate_version 302", services=services),),
        features=("zones",),
        settings={"limits": "updates 25%"},
        accepts=(Accepted(cell="*", rule="aggregates", key={"name": "lab"}, why="a lab", until=NOW.date()),),
    )
    text = page(made).text
    assert "aggregates name: length 100 255 yes" in text
    assert "10.11.19-MariaDB migrate_version 302" in text
    assert "nova-compute not alive on h2 (2 h ago), alive on h1" in text
    assert "nova-conductor never seen: without it builds stop" in text
    assert "nova-console alive on h1" in text
    assert "start nova-conductor in c1: none is alive; without it builds stop" in text
    assert "aggregates in every cell, name=lab , until 2026-11-24: a lab" in text
    assert "limits updates 25%" in text
