"""The manual page: made of the commands, whole, and right for whoever formats it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from test_docs import _commands, _options

from cellsync import cli

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the page that scripts/man makes, as plain as a terminal shows it."""
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([ROOT / "scripts" / "man", folder], check=True, capture_output=True, text=True)
    return (folder / "cellsync.1").read_text(encoding="utf-8")


def _plain(roff: str) -> str:
    """Return the words of a page, without the marks that make them bold and its escapes."""
    text = re.sub(r"\\f[A-Z]|\\fP|\\&", "", roff).replace(r"\-", "-").replace(r"\(aq", "'")
    return " ".join(re.sub(r"^\.[A-Za-z]+ ?", "", text, flags=re.M).split())


def test_every_command_is_in_it_with_its_options(page: str) -> None:
    """As click knows them, in their sections."""
    sections = re.split(r"^\.S[HS] ", page, flags=re.M)
    titles = {_plain(each.splitlines()[0]).strip('"').lower(): _plain(each) for each in sections}
    for name, command in _commands().items():
        section = titles[name]
        own = _options(command) - _options(cli.cellsync)
        assert {option for option in own if option not in section} == set(), name
        first = " ".join((command.help or "").split("\n\n")[0].replace("`", "").split())
        assert first in section, name
    shared = titles["options of every command"]
    assert {option for option in _options(cli.cellsync) if option not in shared} == set()


def test_usage_has_the_arguments(page: str) -> None:
    """In the order in which they stand on a command line."""
    text = _plain(page)
    for usage in (
        "cellsync undo [OPTION]... RUN",
        "cellsync explain [OPTION]... FEATURE [CELL]...",
        "cellsync rules schema",
    ):
        assert usage in text


def test_it_has_what_a_manual_page_has(page: str) -> None:
    """A title with its section, a name with a line about it, exit status, environment and files."""
    assert re.search(r'^\.TH "?CELLSYNC"? "?1"?', page, re.M)
    for title in ("NAME", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert re.search(rf'^\.SH "?{title}"?$', page, re.M | re.I), title
