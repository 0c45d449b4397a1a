"""The HTML report in a real browser: everybody can read it, everywhere, and no value does harm in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from test_course import journaled
from test_driftlog import drifted
from test_html import EVIL, NOW, RUN, difference, differs, many, planned, report, table
from test_triaging import DOWN, IN_STEP, repaired, triage

from cellsync.errors import ExitCode
from cellsync.model import (
    Accepted,
    Action,
    BrokerProbe,
    CellFailure,
    CellResult,
    CheckedCell,
    DatabaseProbe,
    Difference,
    Direction,
    Dossier,
    Finding,
    HostStatus,
    JournaledRun,
    Kind,
    Refusal,
    SchemaDifference,
    Service,
    Skipped,
    Status,
    TableFailure,
    Vitals,
)
from cellsync.report import cards, html
from cellsync.report.sql import excerpt

pytestmark = pytest.mark.slow

RTL = "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"
VALUES = [*EVIL, RTL, "y" * 10_000, "z\n" * 500]
SHOWN = {
    "light": ("screen", False, 1200),
    "dark": ("screen", True, 1200),
    "phone": ("screen", False, 390),
    "dark phone": ("screen", True, 390),
    "print": ("print", False, 800),
}


def everything(value: str, number: int = 3) -> Dossier:
    """Return a dossier that has all that a page can show, with a value wherever one may stand."""
    findings = (Finding(code="orphan", message=value, key=(value,), cell="api"),)
    differences: list[Difference] = [
        difference(f"{value}{place}", value, value + "!", reason=value) for place in range(number)
    ]
    differences += [
        replace(differences[0], key=("m", value), kind=Kind.MISSING, columns=(), action=Action.INSERT),
        replace(differences[0], key=("e", value), kind=Kind.EXTRA, columns=(), action=Action.REPORT),
        replace(differences[0], key=("a", value), action=Action.IGNORE, accepted=value),
    ]
    schema = SchemaDifference(path="name: length", desired=value, existing="100", blocking=True)
    of = replace(table(differences, findings=findings), schema=(schema,), unknown=(value,))
    c1 = CellResult(
        cell="c1",
        status=Status.DIFFERS,
        tables=(of, TableFailure(rule="r", table="r", direction=Direction.DOWN, error=value)),
        refusals=(Refusal(code="limit", rule="aggregates", message=value),),
        skipped=(Skipped(rule="aggregates", key=("k",), reason=value),),
        problems=(value,),
        notices=(value,),
        isolated="2026-11-24 10:00:00",
    )
    sound = DatabaseProbe(status=HostStatus.OK, latency=0.01, server=value)
    dead = BrokerProbe(host="h:5672", status=HostStatus.REFUSED, error=value)
    alive = Service(name="nova-compute", host=value, age=3, alive=True, lost=value)
    down = Service(name="nova-conductor", host=value, age=9999, alive=False, lost=value)
    past = JournaledRun(
        run=replace(RUN, operator=value, reason=value), finished=NOW, status="done", cells=("c1",), applied=3
    )
    return Dossier(
        report=replace(
            report(c1, CellFailure(cell="c2", status=Status.UNREACHABLE, error=value)),
            run=replace(RUN, command=value),
            rule_whys={"aggregates": value},
            notes=(value,),
        ),
        checked=(
            CheckedCell(cell="api", database=sound, broker=()),
            CheckedCell(cell="c1", database=sound, broker=(dead,), isolated=True),
            CheckedCell(cell="c2", database=DatabaseProbe(status=HostStatus.TIMEOUT, error=value), broker=()),
        ),
        vitals=(
            Vitals(cell="api", version=value, services=(alive,)),
            Vitals(cell="c1", version="migrate_version 302", services=(alive, down), error=value),
        ),
        runs=(past, replace(past, finished=None)),
        unread={"c2": value},
        features=("zones", "resize"),
        settings={"rules": value},
        accepts=(Accepted(cell="c1", rule="aggregates", key={"name": value}, why=value),),
    )


def page(of: Dossier) -> str:
    """Return the page of a dossier."""
    return "".join(html.dossier(of))


def calm() -> Dossier:
    """Return the dossier of cells that are in step."""
    whole = replace(table([]), status=Status.IN_STEP)
    cells = [CellResult(cell=f"c{place}", status=Status.IN_STEP, tables=(whole,)) for place in range(3)]
    return Dossier(report=report(*cells, code=ExitCode.IN_STEP), features=("zones",))


def drifting() -> Dossier:
    """Return a dossier with the course of drift, its chart, a repair, and the SQL of what is out of step."""
    repairs = tuple(repaired(minute + 0.1) for minute in (1, 2))
    found = triage(IN_STEP, drifted("x", more=3), DOWN, drifted("x", "y"), drifted("x"), repairs=repairs)
    made = planned(table([difference("k", "a", "b")]), value="new", password="s")
    return Dossier(report=report(made), triage=found, runs=(journaled(1), journaled(2)), features=("zones",))


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize(
    "of", [everything("a value"), calm(), drifting()], ids=["everything", "calm", "course"]
)
def test_axe_finds_no_serious_problem(browser: Browser, shown: str, of: Dossier) -> None:
    """Headings, contrast, names, languages, roles: in light, dark, on a phone and in print."""
    media, dark, width = SHOWN[shown]
    browser.resize(width, phone=width < 400)
    browser.media(media, dark=dark)
    browser.open(page(of))
    browser.ask("document.querySelectorAll('details').forEach(function (fold) { fold.open = true; })")
    assert browser.problems() == []
    assert browser.overflow() == 0


def test_axe_is_a_judge_that_can_say_no(browser: Browser) -> None:
    """A page with a picture that nobody names, and text that nobody sees, does not pass."""
    bad = '<!doctype html><html><head><title>x</title></head><body><main><h1>x</h1><img src="data:,">'
    browser.open(bad + '<p style="color:#eee;background:#fff">pale</p></main></body></html>')
    found = " ".join(browser.problems())
    assert "color-contrast" in found and "image-alt" in found and "html-has-lang" in found


@pytest.mark.parametrize("value", VALUES, ids=lambda text: repr(text[:12]))
def test_no_value_does_harm_in_a_browser(browser: Browser, value: str) -> None:
    """Nothing runs, nothing is loaded or refused by the policy, and no page is wider than a phone."""
    browser.resize(390, phone=True)
    browser.open(page(everything(value)))
    assert browser.log() == []
    assert [url for url in browser.requests() if not url.startswith("file:")] == []
    assert browser.all("img, iframe, object, embed, link, form") == []
    assert browser.ask("document.scripts.length") == 1
    assert browser.overflow() == 0
    browser.resize(1200)
    assert browser.overflow() == 0
    # The page reads on to its end: nothing of it was swallowed.
    assert browser.ask("document.querySelector('main section:last-of-type h2').textContent") == (
        "Versions and settings"
    )


def test_the_policy_lets_nothing_else_run(browser: Browser) -> None:
    """Were a value not escaped, its script would still not run, and its style would not apply."""
    smuggled = "<script>document.title = 'harm'</script><p id='s' style='color: rgb(1, 2, 3)'>x</p>"
    browser.open(page(calm()).replace("</main>", smuggled + "<img src='http://h.invalid/x.png'></main>"))
    assert browser.ask("document.title") != "harm"
    assert browser.ask("getComputedStyle(document.getElementById('s')).color") != "rgb(1, 2, 3)"
    refused = " ".join(browser.log())
    assert "script-src" in refused and "style-src" in refused and "img-src" in refused


def test_the_page_is_complete_without_its_script(browser: Browser) -> None:
    """All rows are there, folds open by themselves, and no field stands there that does nothing."""
    browser.scripts(allowed=False)
    browser.open(page(Dossier(report=report(differs(table(list(many(html.FOLDED + 1))))))))
    assert len(browser.all(".row")) == html.FOLDED + 1
    [fold] = browser.all("details:has(.row)")
    assert not browser.all(".row")[0].is_displayed()
    fold.find_element("tag name", "summary").click()
    assert browser.all(".row")[-1].is_displayed()
    assert not browser.all("#filter")[0].is_displayed()


def test_the_keyboard_opens_folds_and_filters(browser: Browser) -> None:
    """With Tab, Enter, Space and letters alone; an empty field shows everything again, folded as it was."""
    folded = table(list(many(html.FOLDED + 20)))
    browser.open(page(Dossier(report=report(differs(folded)), features=("zones",))))
    field, [fold] = browser.all("#filter")[0], browser.all("details:has(.row)")
    field.send_keys(Keys.TAB)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert fold.get_attribute("open") is not None
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert fold.get_attribute("open") is None
    field.send_keys("row-000042")
    wait_for(
        browser, "document.getElementById('filtered').textContent", f"1 of {html.FOLDED + 20} rows hold it"
    )
    [hit] = [row.text for row in browser.all(".row") if row.is_displayed()]
    assert "row 42 is out of step" in hit
    field.clear()
    field.send_keys("x", Keys.BACKSPACE)
    wait_for(browser, "document.querySelectorAll('.row[hidden]').length", 0)
    assert fold.get_attribute("open") is None


def test_the_filter_takes_no_notice_of_sql(browser: Browser) -> None:
    """Its words are those of every row; a fold with a hit does not show the SQL of it."""
    made = planned(table([difference(name, "a", "b") for name in ("one", "two")]), value="new")
    browser.open(page(Dossier(report=report(replace(made, problems=("two is gone",))))))
    field = browser.all("#filter")[0]
    field.send_keys("update `aggregates`")
    wait_for(browser, "document.getElementById('filtered').textContent", "0 of 3 rows hold it")
    field.clear()
    field.send_keys("two")
    wait_for(browser, "document.getElementById('filtered').textContent", "2 of 3 rows hold it")
    assert browser.all(".sql[open]") == []


def wait_for(browser: Browser, expression: str, value: object) -> None:
    """Wait until an expression has a value, as the script of the page waits for the end of the typing."""
    WebDriverWait(browser.driver, 30, 0.02).until(lambda _: browser.ask(expression) == value)


def test_print_opens_the_folds(browser: Browser) -> None:
    """By style alone; where a browser cannot do that, by the script, which closes them again."""
    made = page(Dossier(report=report(differs(table(list(many(html.FOLDED + 1)))))))
    browser.scripts(allowed=False)
    browser.open(made)
    for media, on_paper in (("screen", False), ("print", True)):
        browser.media(media)
        wait_until(browser, ".row:last-child", seen=on_paper)
        wait_until(browser, "nav", seen=not on_paper)
    browser.reset()
    browser.open(made)
    for event, is_open in (("beforeprint", True), ("afterprint", False)):
        browser.ask(f"window.dispatchEvent(new Event('{event}'))")
        wait_until(browser, ".row:last-child", seen=is_open)


def test_sql_is_copied_whole_and_stays_off_paper_unless_it_is_open(browser: Browser) -> None:
    """One click takes a whole statement, also without the script; the fold opens by the keyboard."""
    browser.scripts(allowed=False)
    browser.open(page(Dossier(report=report(planned(table([difference("k", "a", "b")]), value="it's")))))
    browser.media("print")
    wait_until(browser, ".sql", seen=False)
    browser.media("screen")
    wait_until(browser, ".sql", seen=True)
    browser.all(".sql summary")[0].send_keys(Keys.ENTER)
    [forward, backward] = browser.all(".sql pre")
    assert backward.is_displayed()
    forward.click()
    copied = browser.ask("window.getSelection().toString()").rstrip("\n")
    assert copied.startswith("UPDATE `aggregates`\nSET `value` = 'it''s'\n")
    assert copied.endswith("LIMIT 1;") and copied.count("UPDATE") == 1
    browser.media("print")
    wait_until(browser, ".sql pre", seen=True)


def wait_until(browser: Browser, selector: str, *, seen: bool) -> None:
    """Wait until an element is seen, or is not: Chromium takes up a medium at its next frame."""
    WebDriverWait(browser.driver, 30, 0.02).until(lambda _: browser.sees(selector) is seen)


def test_the_picture_is_read_by_a_screen_reader(browser: Browser) -> None:
    """As a list of cells with their states in words, the drawing itself left out."""
    browser.open(page(everything("v")))
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = [str(node["name"]["value"]) for node in nodes if "name" in node and not node["ignored"]]
    for said in ("c1", "broker down: refused", "isolated since 2026-11-24 10:00:00 UTC", "unreachable"):
        assert said in names
    roles = {str(node["role"]["value"]) for node in nodes if not node["ignored"]}
    assert {"list", "listitem", "table", "columnheader", "rowheader", "DisclosureTriangle"} <= roles
    assert not roles & {"img", "image", "graphics-document", "SvgRoot"}


def test_ten_thousand_differences_open(browser: Browser, tmp_path: Path) -> None:
    """Below 10 MB, and shown: the bound on time is one against hanging."""
    file = tmp_path / "many.html"
    made = planned(table(list(many(cards.MOST))), value="new value")
    file.write_text(page(Dossier(report=report(made))), encoding="utf-8")
    assert file.stat().st_size < 10_000_000
    browser.open(file)
    assert len(browser.all(".row")) == cards.MOST
    assert 500 < len(browser.all(".sql")) <= excerpt.MOST
    timing = browser.ask("performance.getEntriesByType('navigation')[0].toJSON()")
    painted = browser.ask("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"load event {timing['loadEventEnd']:.0f} ms, first content {painted:.0f} ms")
    assert 0 < timing["loadEventEnd"] < 30_000 and 0 < painted < 30_000
    browser.all("details:has(.row) > summary")[0].click()
    assert browser.all(".row")[0].is_displayed()
