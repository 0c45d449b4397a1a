"""A headless Chromium that looks at one page: sizes, media, keys, what axe-core says of it, and no network.

It is driven by Selenium through Debian's chromedriver. Everything is found where `scripts/setup` puts
it; what is missing is an error, for nothing is skipped here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).resolve().parent.parent
AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
MISSING = "run scripts/setup with BROWSER=require, as scripts/test does"
GRAVE = ("serious", "critical")

OPTIONS = (
    "--headless=new",
    # Tests run as root in CI, where Chromium has no sandbox of its own; the page is ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    # No name leads anywhere: a page that needs the network fails.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)


def program(*names: str) -> str:
    """Return the path of the first of the programs that is there; raises FileNotFoundError."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"{names[0]} is not installed: {MISSING}")
    return found


class Browser:
    """One window; a page is opened from its text or its file."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self._folder = folder
        self._axe = AXE.read_text(encoding="utf-8")

    def reset(self) -> None:
        """Show an empty page on a light screen of 1200 pixels, and forget what was logged."""
        self.scripts(allowed=True)
        self.resize(1200)
        self.media()
        self.driver.get("about:blank")
        self.log()
        self.requests()

    def open(self, page: str | Path) -> None:
        """Load a page, and wait for its load event."""
        if isinstance(page, str):
            file = self._folder / "page.html"
            file.write_text(page, encoding="utf-8")
            page = file
        self.driver.get(page.resolve().as_uri())

    def resize(self, width: int, height: int = 900, *, phone: bool = False) -> None:
        """Give the window a size in CSS pixels; a phone has touch, and pixels of its own."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, kind: str = "screen", *, dark: bool = False) -> None:
        """Show the page as on a screen or in print, to somebody who likes it light or dark."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": [scheme]})

    def scripts(self, *, allowed: bool) -> None:
        """Let the next page run its scripts, or none."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def ask(self, expression: str, *arguments: Any) -> Any:
        """Return the value of a JavaScript expression."""
        return self.driver.execute_script(f"return {expression}", *arguments)

    def all(self, selector: str) -> Sequence[WebElement]:
        """Return the elements that a CSS selector matches."""
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def sees(self, selector: str) -> bool:
        """Say whether the first element that matches is laid out: a closed fold's content is not."""
        visible = "checkVisibility({contentVisibilityAuto: true, visibilityProperty: true})"
        return bool(self.ask(f"document.querySelector(arguments[0]).{visible}", selector))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def problems(self) -> list[str]:
        """Return what serious or critical problems axe-core finds, with the elements that have them."""
        self.driver.execute_script(self._axe)
        found: Mapping[str, Any] = self.driver.execute_async_script(
            "var done = arguments[arguments.length - 1];"
            "axe.run(document).then(done, function (error) { done({error: String(error)}); });"
        )
        assert "error" not in found, found
        assert len(found["passes"]) > 10, "axe-core has looked at next to nothing"
        return [
            f"{each['impact']} {each['id']}: {each['help']}: {[node['html'] for node in each['nodes']][:5]}"
            for each in found["violations"]
            if each["impact"] in GRAVE
        ]

    def log(self) -> list[str]:
        """Return what the console has said since it was last asked: errors, and refusals of the policy."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that the window has asked for since this was last asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [str(each["request"]["url"]) for each in asked]


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Start a browser whose profile is in ``folder``, and stop it in the end."""
    if not AXE.is_file():
        raise FileNotFoundError(f"axe-core is not there ({AXE}): {MISSING}")
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program("chromedriver")))
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(120)
        yield Browser(driver, folder)
    finally:
        driver.quit()
