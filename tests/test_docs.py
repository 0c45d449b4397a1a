"""README and docs say what the code does: every fact that can be checked is checked against it."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from deployment import Deployment
from drifts import API_DRIFTS, DRIFTS, Drift
from listening import NovaCells, listening
from rabbitmq import RabbitMQ
from registered import CELLS_TABLE, ROW, SERVICES, as_row
from servers import Server, load, sql
from sqlalchemy.engine import URL, make_url

import cellsync
from cellsync import cells, cli, rules, transforms
from cellsync.demo import nova
from cellsync.demo.database import checksums
from cellsync.errors import ConfigurationError, ExitCode

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst")))
README = PAGES[0].read_text(encoding="utf-8")
WORKED = ROOT / "docs" / "worked-example.rst"
"""The page that brings databases and files of its own."""
PLAYBOOK = ROOT / "docs" / "playbook.rst"
"""The page that needs brokers, and people who break things."""
RUN_ID = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{4}\b")
ELISION = "..."

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# -- Reading the pages -------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """One ``code-block`` of a page, without its indentation."""

    page: Path
    language: str
    text: str


def _blocks(page: Path, *languages: str) -> list[Block]:
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        match = re.fullmatch(r"( *)\.\. code-block:: (\w+)", line)
        if match and match[2] in languages:
            inside = [*_indented(lines[number + 1 :], len(match[1]))]
            found.append(Block(page, match[2], "\n".join(inside).strip("\n")))
    return found


def _indented(lines: Sequence[str], outer: int) -> Iterator[str]:
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= outer:
            return
        yield line[outer + 3 :]


def _every(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in _blocks(page, *languages)]


def _section(text: str, title: str) -> str:
    """Return what stands under a title, up to the next one that is underlined likewise."""
    match = re.search(rf"^{re.escape(title)}\n([=-])\1+\n(.*?)(?=^[^\n]+\n\1+\n|\Z)", text, re.M | re.S)
    assert match is not None, title
    return match[2]


def _first_cells(text: str) -> list[str]:
    """Return the first cells of a list-table's rows, the header left out."""
    return re.findall(r"^ +\* - (.*)$", text, re.M)[1:]


def _terms(text: str) -> list[str]:
    """Return the terms of a definition list: lines at the margin with an indented one below."""
    return re.findall(r"^(\S[^\n]*)\n {4}\S", text, re.M)


# -- Commands and options ----------------------------------------------------------------------


def _commands(group: click.Group = cli.cellsync, name: str = "cellsync") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for word, command in group.commands.items():
        path = f"{name} {word}"
        found.update(_commands(command, path) if isinstance(command, click.Group) else {path: command})
    return found


def _options(command: click.Command) -> set[str]:
    given = [option for each in command.params if isinstance(each, click.Option) for option in each.opts]
    return {option for option in given if option.startswith("--")} - {"--help"}


COMMON = _options(cli.cellsync) - {"--version"}


def _documented_commands() -> dict[str, set[str]]:
    table = _section(README, "Commands").split("\nBefore or after")[0]
    found = {}
    for row in re.split(r"^ +\* - ", table, flags=re.M)[2:]:
        name, _, options = re.split(r"\n +- ?", f"{row}\n")[:3]
        words = [word for word in name.strip("`").split() if word.islower()]
        found[" ".join(words)] = set(re.findall(r"--[a-z_-]+", options))
    return found


def test_the_readme_has_every_command_and_its_options_and_no_other() -> None:
    """The table of commands is the tree of click, option for option."""
    real = {name: _options(command) - COMMON for name, command in _commands().items()}
    assert _documented_commands() == real


def test_the_readme_has_every_common_option() -> None:
    """What stands before or after every command is listed below the table, short forms included."""
    text = _section(README, "Commands").split("Before or after any command")[1]
    options = [each for each in cli.cellsync.params if isinstance(each, click.Option)]
    for option in [*(name for each in options for name in each.opts), "--help", "-h"]:
        assert re.search(rf"``(cellsync )?{option}\b", text), option


@each_page
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    """An option in the running text is one of cellsync's, or of the tool that is talked about."""
    others = {
        "comparison.rst": {"--function", "--algorithms", "--limit"},
        "performance.rst": {"--peers", "--print", "--execute"},
        "cells-v2.rst": {"--enable", "--delete", "--by-service", "--reset"},
        "playbook.rst": {"--active"},
        "operations.rst": {"--host", "--init-command", "--max-allowed-packet"},
    }.get(page.name, set())
    known = {option for command in _commands().values() for option in _options(command)} | COMMON
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", page.read_text(encoding="utf-8")))
    assert found - known - others - {"--version", "--help"} == set()


def _command_lines() -> list[tuple[str, str]]:
    """Return (page, command) for every cellsync command in a block of shell, session or crontab."""
    begin = re.compile(r"(?:^|^\$ |&& |\w+=\S+ |\) )(cellsync [^#]*)")
    return [
        (block.page.name, match[1].strip())
        for block in _every("sh", "console", "text")
        for line in block.text.splitlines()
        if (block.language != "console" or line.startswith("$ ")) and (match := begin.search(line))
    ]


@pytest.mark.parametrize(("page", "line"), _command_lines())
def test_every_command_line_is_understood(page: str, line: str) -> None:
    """click knows the command and all its options (--help stops it before anything is done)."""
    result = CliRunner().invoke(cli.cellsync, [*shlex.split(line)[1:], "--help"])
    assert result.exit_code == 0, f"{page}: {line}\n{result.output}"
    assert result.output.startswith("Usage: "), line


def test_what_is_said_to_be_missing_is_missing() -> None:
    """A command that has come must leave the list of those that have not."""
    text = _section(README, "What it does not do yet")
    named = set(re.findall(r"``([a-z]+)``", text))
    words = {part for name in _commands() for part in name.split()}
    assert named & words == set()
    assert not [name for name in _commands() if f"``{name.removeprefix('cellsync ')}``" in text]


# -- Exit codes, rule keys, codes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "title"), [("README.rst", "Exit codes"), ("docs/operations.rst", "Exit codes")]
)
def test_the_exit_codes_are_those_of_the_code(page: str, title: str) -> None:
    """Each table has every exit code once."""
    table = _first_cells(_section((ROOT / page).read_text(encoding="utf-8"), title))
    assert sorted(map(int, table)) == sorted(map(int, ExitCode))


def test_the_readme_has_every_rule_key_and_no_other() -> None:
    """The short table has the keys of a rule; the sentence below it those of the file."""
    section = _section(README, "Rules")
    schema = rules.schema()["properties"]
    assert [cell.strip("`") for cell in _first_cells(section)] == list(schema["rules"]["items"]["properties"])
    below = section.split("Beside ``rules`` a file may have")[1]
    assert set(schema) - {"rules"} <= _words(below)


def _words(text: str) -> set[str]:
    return set(re.findall(r"``(\w+)``", text))


def test_the_reference_is_made_from_the_schema() -> None:
    """Both parts of it are there, and every key has a description to be made of."""
    text = (ROOT / "docs" / "rules.rst").read_text(encoding="utf-8")
    assert re.findall(r"^\.\. rule-keys:: (\w+)$", text, re.M) == ["file", "rule", "detector"]
    file = rules.schema()["properties"]
    inner = [file[each]["items"]["properties"] for each in ("rules", "detectors")]
    assert all(node.get("description") for keys in (file, *inner) for node in keys.values())


def test_every_transform_is_in_the_tutorial() -> None:
    """A transform that is added is named where people look for it."""
    text = _section((ROOT / "docs" / "rules.rst").read_text(encoding="utf-8"), "Transforms")
    assert set(transforms.REGISTRY) <= _words(text)


def _source() -> Iterator[ast.Module]:
    for file in sorted((ROOT / "cellsync").rglob("*.py")):
        yield ast.parse(file.read_text(encoding="utf-8"))


def _called(name: str) -> Iterator[ast.Call]:
    for module in _source():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
                yield node


def _code(node: ast.expr) -> str | None:
    """Return a code as it is documented: an expression inside it stands as <column>."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_code(part) or "<column>" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _keyword(call: ast.Call, name: str) -> str | None:
    return next((_code(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def test_every_finding_is_documented() -> None:
    """The codes are read from the source: every ``Finding(code=...)``."""
    text = _section((ROOT / "docs" / "findings.rst").read_text(encoding="utf-8"), "Findings")
    used = {code for call in _called("Finding") if (code := _keyword(call, "code"))}
    assert len(used) >= 7
    assert set(_terms(text)) == used


def _rows_of(page: str, pack: str) -> list[list[str]]:
    """Return the rows of the list-table of a pack, cell by cell, its header left out."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f".. list-table:: Pack ``{pack}``")[1]
    table = re.split(r"^(?=\S)", text, maxsplit=1, flags=re.M)[0]
    rows = re.split(r"^   \* - ", table, flags=re.M)[2:]
    return [[" ".join(cell.split()) for cell in re.split(r"^     - ", row, flags=re.M)] for row in rows]


def _said(cell: str) -> Iterator[tuple[str, str]]:
    """Yield (rule, code) of all that a cell names: "rule R: missing, CODE", "detectors D and E"."""
    for part in re.findall(r"(?:rule|detectors?) [^;]*", cell):
        kind, _, names = part.partition(" ")
        first, *rest = re.findall(r"``([\w-]+)``|\b(missing|changed|extra)\b", names)
        listed = [quoted or bare for quoted, bare in rest]
        if kind == "rule":
            yield from ((first[0], code) for code in listed)
        else:
            yield from ((name, name) for name in (first[0], *listed))


@pytest.mark.parametrize(("pack", "known"), [("nova-cells-v1", DRIFTS), ("nova-api", API_DRIFTS)])
def test_every_drift_is_in_the_table_of_its_pack(pack: str, known: Sequence[Drift]) -> None:
    """As it is planted, with what mends it: no detector is left out, and none is there that is gone."""
    rows = _rows_of("findings.rst", pack)
    said = {named: gives for _, who, gives in rows for named in _said(who)}
    assert set(said) == {(drift.rule, drift.code) for drift in known}
    assert {each.id for each in rules.load([pack]).detectors} <= {rule for rule, _ in said}
    for drift in known:
        gives = said[drift.rule, drift.code]
        way, _, cell = drift.way.partition(" ")
        if way == "shell":
            assert " ".join(drift.do.split()[:2]) in gives
        elif way == "sql":
            assert "SQL" in gives
            assert f"for the {'parent' if cell in ('parent', 'api') else 'child'}" in gives


def test_every_detector_of_cells_v2_is_in_the_table_of_its_page() -> None:
    """Each once, with what mends it."""
    text = _section((ROOT / "docs" / "cells-v2.rst").read_text(encoding="utf-8"), "What it finds")
    codes = re.findall(r"``([\w-]+)``", "\n".join(_first_cells(text)))
    assert sorted(codes) == sorted(each.id for each in rules.load(["nova-cells-v2"]).detectors)


def test_every_refusal_is_documented() -> None:
    """Refusals are made with a code, yielded by guards as (code, message), or passed to a helper."""
    text = _section((ROOT / "docs" / "findings.rst").read_text(encoding="utf-8"), "Refusals")
    made = {code for call in _called("Refusal") if (code := _keyword(call, "code"))}
    helpers = [*_called("refuse_edge"), *_called("_refused"), *_called("_refusal")]
    passed = {code for call in helpers for each in call.args if (code := _code(each))}
    assert {"limit", "depends", "journal"} <= made | passed | _yielded()
    assert set(_terms(text)) == made | {code for code in passed if " " not in code} | _yielded()


def _yielded() -> set[str]:
    guards = [
        node
        for module in _source()
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef)
        and ast.unparse(node.returns or ast.Constant("")).endswith(("[tuple[str, str]]", "[_Found]"))
    ]
    tuples = [
        node.value
        for guard in guards
        for node in ast.walk(guard)
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple)
    ]
    return {code for each in tuples if (code := _code(each.elts[0])) and re.fullmatch(r"[a-z-]+", code)}


def test_the_changelog_has_this_version() -> None:
    """Its newest entry is the version that the package says it is, in the sections of the format."""
    text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    titles = re.findall(r"^([^\n]+)\n=+$", text, re.M)[1:]
    assert titles[0].split()[0] in (cellsync.__version__, "Unreleased")
    assert any(title.startswith(cellsync.__version__) for title in titles)
    sections = set(re.findall(r"^([^\n]+)\n-+$", text, re.M))
    assert sections <= {"Security", "Removed", "Deprecated", "Added", "Changed", "Fixed"}


# -- Examples ----------------------------------------------------------------------------------


def _is_topology(block: Block) -> bool:
    return "parent" in yaml.safe_load(block.text)


@pytest.mark.parametrize("block", [b for b in _every("yaml") if _is_topology(b)], ids=lambda b: b.page.name)
def test_every_cell_file_loads(block: Block, tmp_path: Path) -> None:
    """An example of cellsync.yaml is one, and its rules are shipped packs, or the file of that page."""
    file, nova_conf = tmp_path / "cellsync.yaml", tmp_path / "nova.conf"
    nova_conf.write_text(
        "[DEFAULT]\ntransport_url = rabbit://u:p@h:5672/\n[database]\nconnection = mysql+pymysql://u:p@h/nova\n"
        "[api_database]\nconnection = mysql+pymysql://u:p@h/nova_api\n"
    )
    file.write_text(block.text.replace("/etc/nova/nova.conf", str(nova_conf)), encoding="utf-8")
    topology = cells.load(file, environ={"CELLSYNC_PASSWORD": "a p@ss/word"})
    names = ["hub", "north", "south"] if block.page == WORKED else ["api", "c1", "c2"]
    if topology.mapped is not None:  # its children stand in the parent's database
        names = ["api"]
    assert [topology.parent.name, *(child.name for child in topology.children)] == names
    own = {str(tmp_path / "catalogue.yaml")} if block.page == WORKED else set()
    assert set(topology.rules) <= set(rules.packs()) | own


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("parent: {name: api}\nqqq: 1", "the file"),
        ("parent: {name: api, qqq: 1}\nchildren: []", "a cell"),
    ],
)
def test_first_use_explains_every_key_of_the_cell_file(text: str, known: str, tmp_path: Path) -> None:
    """What may stand in cellsync.yaml, the message about an unknown key lists; the page has all of it."""
    file = tmp_path / "cellsync.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        cells.load(file, environ={})
    match = re.search(r"the key 'qqq' is unknown: use ([a-z_, ]+)", str(caught.value))
    assert match is not None, known
    page = (ROOT / "docs" / "first-use.rst").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(\w+):", page)) | _words(page)
    assert set(match[1].split(", ")) - named == set()


def _changes(block: Block) -> set[str]:
    """Return the ids of the rules that an example changes."""
    return set(yaml.safe_load(block.text).get("changes", {}))


@pytest.mark.parametrize("block", [b for b in _every("yaml") if _changes(b)], ids=lambda b: b.page.name)
def test_every_file_of_changes_loads_beside_a_pack(block: Block, tmp_path: Path) -> None:
    """It changes rules that a shipped pack has, and says so."""
    file = tmp_path / "example.yaml"
    file.write_text(block.text, encoding="utf-8")
    having = [name for name in rules.packs() if _changes(block) <= {r.id for r in rules.load([name]).rules}]
    assert having
    for name in having:
        found = rules.load([name, str(file)])
        assert {rule.id for rule in found.rules if rule.changed} == _changes(block)


@pytest.mark.parametrize(
    "block",
    [b for b in _every("yaml") if not _is_topology(b) and not _changes(b)],
    ids=lambda b: b.page.name,
)
def test_every_rule_file_loads(block: Block, tmp_path: Path) -> None:
    """An example of a rule file is one, alone and together with each of the shipped packs."""
    file = tmp_path / "example.yaml"
    file.write_text(block.text, encoding="utf-8")
    mine = {each.id for each in rules.load([str(file)]).named}
    assert mine
    for name in rules.packs():
        shipped = {each.id for each in rules.load([name]).named}
        assert not mine & shipped, "an example must not take the id of a shipped rule"
        assert {each.id for each in rules.load([name, str(file)]).named} == mine | shipped


def test_the_mistake_in_the_tutorial_is_reported_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message of the tutorial is that of its example with one letter left out."""
    page = ROOT / "docs" / "rules.rst"
    example = next(block for block in _blocks(page, "yaml") if "pack: shop" in block.text)
    shown = next(block.text for block in _blocks(page, "text") if block.text.startswith("shop.yaml:"))
    monkeypatch.chdir(tmp_path)
    broken = example.text.replace("article_id: articles", "article_id: article")
    Path("shop.yaml").write_text(broken, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        rules.load(["shop.yaml"])
    assert str(caught.value) == shown


# -- Output that is shown ----------------------------------------------------------------------


def _config(folder: Path, urls: Mapping[str, URL | str]) -> Path:
    lines = [
        f"parent: {{name: api, database: '{_plain(urls['api'])}'}}",
        "children:",
        *(f"  - {{name: {child}, database: '{_plain(urls[child])}'}}" for child in nova.CHILDREN),
        "rules: [nova-cells-v1]",
        "settle: 0s",
    ]
    file = folder / "cellsync.yaml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _plain(url: URL | str) -> str:
    return url if isinstance(url, str) else url.render_as_string(hide_password=False)


@dataclass(frozen=True)
class Done:
    """What one command said, and how it ended."""

    stdout: str
    stderr: str
    code: int


def _cellsync(folder: Path, *arguments: str) -> Done:
    """Run a command in a folder; in this process, for loading cellsync takes longer than most commands."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
    assert isinstance(ended.value.code, int)
    return Done(out.getvalue(), err.getvalue(), ended.value.code)


@pytest.fixture
def demo_cells(tmp_path: Path) -> Path:
    """Give a folder with the cells of the demonstration in SQLite, and their cellsync.yaml."""
    urls = {cell: URL.create("sqlite", database=str(tmp_path / f"{cell}.db")) for cell in nova.CELLS}
    for cell, url in urls.items():
        nova.fill(url, cell=cell)
    _config(tmp_path, urls)
    return tmp_path


def _transcript(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """Return (command, output) for every command of a page's console blocks, in order."""
    steps: list[tuple[str, list[str]]] = []
    for block in blocks:
        for line in block.text.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in steps]


def _shows(shown: str, real: str) -> bool:
    """Say whether ``real`` is ``shown`` where "..." stands for anything, blanks counted once."""
    pieces = [re.escape(" ".join(piece.split())) for piece in RUN_ID.sub("RUN", shown).split(ELISION)]
    pattern = r"\s?.*\s?".join(pieces)
    return re.fullmatch(pattern, " ".join(RUN_ID.sub("RUN", real).split())) is not None


PAGES_WITH_OUTPUT = [page for page in PAGES if _blocks(page, "console") and page not in (WORKED, PLAYBOOK)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_OUTPUT, ids=lambda page: page.name)
def test_the_output_that_a_page_shows_is_what_comes_out(page: Path, demo_cells: Path) -> None:
    """The commands of a page, run one after another on the demonstration's cells, say what it shows."""
    _follow(_transcript(_blocks(page, "console")), demo_cells, Runs(page))


class Runs:
    """The runs of a page, and those of the commands that were run for them: ids begin with the time."""

    def __init__(self, page: Path) -> None:
        self._shown = sorted(set(RUN_ID.findall(page.read_text(encoding="utf-8"))))
        self._real: list[str] = []

    def named(self, line: str) -> str:
        """Return a command of the page with the ids of the runs that there really were."""
        names = dict(zip(self._shown, self._real, strict=False))
        return RUN_ID.sub(lambda match: names.get(match[0], match[0]), line)

    def add(self, output: str) -> None:
        """Remember the run that a command made."""
        self._real += re.findall(rf"cellsync undo ({RUN_ID.pattern}) takes this run back", output)


def _follow(steps: Sequence[tuple[str, str]], folder: Path, runs: Runs) -> None:
    """Run the commands of a page one after another, each of which must say what the page shows."""
    for command, shown in steps:
        line = runs.named(command)
        done = _cellsync(folder, *shlex.split(line)[1:])
        refused = done.stderr if done.code == ExitCode.USAGE else ""
        assert _shows(shown, done.stdout + refused), f"$ {line}\n{done.stdout}{done.stderr}"
        runs.add(done.stdout)


@pytest.mark.slow
def test_the_worked_example_works(database: Callable[..., str], tmp_path: Path) -> None:
    """From its tables and rows to the undo: SQL is run where it says, files are written, commands run."""
    urls = {name: database() for name in ("hub", "north", "south")}
    runs = Runs(WORKED)
    for block in _blocks(WORKED, "sql", "yaml", "console"):
        head = block.text.splitlines()[0]
        if block.language == "sql":
            for name in re.findall(r"hub|north|south", head):
                load(urls[name], block.text)
        elif block.language == "yaml":
            (tmp_path / head.removeprefix("# ")).write_text(_with_urls(block.text, urls), encoding="utf-8")
        else:
            _follow(_transcript([block]), tmp_path, runs)
    assert sql(urls["north"], "SELECT id, amount FROM price ORDER BY id") == [
        (1, Decimal("17.90")),
        (2, Decimal("199.00")),
    ]
    assert sql(urls["south"], "SELECT COUNT(*) FROM supplier") == [(0,)]


def _with_urls(text: str, urls: Mapping[str, str]) -> str:
    """Return a cell file with the databases of a test in place of those that it names."""
    return re.sub(
        r'name: (\w+), database: "[^"]*"',
        lambda match: f'name: {match[1]}, database: "{urls[match[1]]}"',
        text,
    )


def _shape(value: Any) -> Any:
    """Return the keys of a JSON value, lists as the union of their items."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    return None


def _same_shape(shown: Any, real: Any) -> bool:
    if isinstance(shown, dict) and isinstance(real, dict):
        free = {"key", "columns"}  # the names in them are a rule's columns
        both = all(_same_shape(shown[key], real[key]) for key in shown.keys() & real.keys() - free)
        return shown.keys() == real.keys() and both
    if isinstance(shown, list) and isinstance(real, list) and shown and real:
        return _same_shape(shown[0], real[0])
    return True


def test_the_json_has_the_keys_that_the_readme_shows(demo_cells: Path) -> None:
    """The example has every key of a real report, in its order, and no other."""
    example = json.loads(_blocks(PAGES[0], "json")[0].text)
    real = json.loads(
        _cellsync(demo_cells, "diff", "c2", "--rule", "aggregate-metadata", "--format", "json").stdout
    )
    assert list(example) == list(real)
    assert _same_shape(_shape(example), _shape(real))
    table = next(t for t in real["cells"][0]["tables"] if t["rule"] == "aggregate-metadata")
    shown = example["cells"][0]["tables"][0]
    assert list(shown) == list(table)
    assert {key: shown[key] for key in ("rows", "missing", "changed", "extra")} == {
        key: table[key] for key in ("rows", "missing", "changed", "extra")
    }


# -- SQL and privileges, on MariaDB ------------------------------------------------------------


@pytest.fixture
def mariadb_cells(database: Callable[..., str], tmp_path: Path) -> dict[str, URL]:
    """Give the cells of the demonstration in MariaDB: cell -> URL, with a login that may do all."""
    urls = {cell: make_url(database(charset="utf8mb3")) for cell in nova.CELLS}
    for cell, url in urls.items():
        nova.fill(url, cell=cell)
    _config(tmp_path, urls)
    return urls


@pytest.mark.slow
def test_the_incidents_of_the_playbook_happen(
    mariadb_cells: dict[str, URL], rabbit: RabbitMQ, other_rabbit: RabbitMQ, tmp_path: Path
) -> None:
    """Each command says what the page shows, when what the page tells of has been done to the cells."""
    places = {"api": (rabbit, "parent"), "c1": (rabbit, "c1"), "c2": (other_rabbit, "c2")}
    with listening(places) as running:
        incident = Incident(mariadb_cells, rabbit, other_rabbit, running)
        runs = Runs(PLAYBOOK)
        for command, shown in _transcript(_blocks(PLAYBOOK, "console")):
            incident.before(command)
            line = runs.named(command)
            said = _cellsync(tmp_path, *shlex.split(line)[1:]).stdout
            assert _shows(incident.plain(shown), incident.plain(said)), f"$ {line}\n{said}"
            runs.add(said)


class Incident:
    """Cells that are registered with each other, and what befalls them in the playbook."""

    def __init__(
        self,
        cells: Mapping[str, URL],
        broker: RabbitMQ,
        broken: RabbitMQ,
        running: Mapping[str, NovaCells],
    ) -> None:
        self._cells, self._broken, self._running = cells, broken, running
        self._hosts = {broker.address: "10.0.0.5:5672", broken.address: "10.0.2.5:5672"}
        urls = {"api": broker.url("parent"), "c1": broker.url("c1"), "c2": broken.url("c2")}
        for cell in cells:
            self._sql(cell, "DROP TABLE IF EXISTS cells")
            self._sql(cell, CELLS_TABLE)
            for name in SERVICES["parent" if cell == "api" else "child"]:
                self._sql(
                    cell,
                    "INSERT IGNORE INTO services (host, `binary`, topic, report_count, disabled, deleted) "
                    "VALUES (:host, :name, :name, 1, 0, 0)",
                    host=f"{cell}-controller",
                    name=name,
                )
            self._sql(cell, "UPDATE services SET updated_at = UTC_TIMESTAMP()")
        for child in ("c1", "c2"):
            self._sql("api", ROW, name=child, is_parent=0, broker=as_row(urls[child]))
            self._sql(child, ROW, name="api", is_parent=1, broker=as_row(urls["api"]))

    def _sql(self, cell: str, statement: str, **parameters: Any) -> None:
        sql(self._cells[cell].render_as_string(hide_password=False), statement, **parameters)

    def before(self, command: str) -> None:
        """Do what the page tells of before it shows a command."""
        if command == "cellsync cells check":
            self._broken.kill()
            self._running["c2"].forget()
        elif command == "cellsync cells check c2":
            self._broken.recover()
            self._running["c2"].wait()
        elif command == "cellsync trace c1":
            self._running["c1"].kill()
            dead = "updated_at = UTC_TIMESTAMP() - INTERVAL 1 HOUR"
            self._sql("c1", f"UPDATE services SET {dead} WHERE `binary` = 'nova-cells'")
        elif command == "cellsync diff --feature instances":
            stuck = (
                "UPDATE instances SET vm_state = 'active', task_state = 'deleting', updated_at = '2026-01-01'"
            )
            for cell in ("api", "c1"):
                self._sql(cell, f"{stuck} WHERE uuid LIKE '7a1c%c1'")
            self._sql("api", "UPDATE instances SET cell_name = NULL WHERE uuid LIKE '7a1c%c2'")
        elif command.startswith("cellsync undo 20261127-121332"):
            self._sql("c2", "UPDATE instance_types SET memory_mb = 999 WHERE flavorid = 'gpu-l'")

    def plain(self, text: str) -> str:
        """Return a text without what is another one at each time and place."""
        for address, name in self._hosts.items():
            text = text.replace(address, name)
        text = re.sub(r"10\.0\.1\.5:5672", "10.0.0.5:5672", text)  # here, c1 shares the parent's broker
        text = re.sub(r"\b\d+ ms\b", "N ms", re.sub(r"\bseen \d+ s ago", "seen N s ago", text))
        # Debian 13 adds who made it: "11.8.9-MariaDB-0+deb13u1 from Debian".
        text = re.sub(r"[\d.]+-MariaDB[\w.+-]*( from \w+)?", "MariaDB", text)
        return re.sub(r"\bRabbitMQ [\d.]+", "RabbitMQ", text)


def test_the_sql_in_the_life_of_a_row_is_what_is_sent(mariadb_cells: dict[str, URL], tmp_path: Path) -> None:
    """Every statement on the page is in the log of the command that the page names."""
    page = ROOT / "docs" / "life-of-a-row.rst"
    assert "``cellsync -vvv repair c2 --rule aggregate-metadata``" in page.read_text(encoding="utf-8")
    # In a process of its own: what is logged in this one goes to pytest.
    here = Deployment(urls={}, folder=tmp_path)
    done = here.process("-vvv", "repair", "c2", "--rule", "aggregate-metadata", "--yes")
    sent = {" ".join(line.split()) for line in done.err.splitlines()}
    for block in _blocks(page, "sql"):
        pieces = [re.escape(" ".join(piece.split())) for piece in block.text.split(ELISION)]
        pattern = re.compile(r"\S+ \S+: \S+: " + r" ?.* ?".join(pieces))
        assert any(pattern.fullmatch(f"{line}") or pattern.search(line) for line in sent), block.text


def _grants() -> list[str]:
    """Return the SQL for the parent, and for a child, as docs/operations.rst has it."""
    text = _section((ROOT / "docs" / "operations.rst").read_text(encoding="utf-8"), "Privileges")
    found = [block.text for block in _blocks(ROOT / "docs" / "operations.rst", "mysql")]
    assert len(found) == 2 and "GRANT" in text
    return found


def test_the_readme_has_the_same_grants() -> None:
    """The short version and the long one may not come apart."""
    assert [block.text for block in _blocks(PAGES[0], "mysql")] == _grants()


def _admit(server: Server, statements: str, *, schemas: Sequence[str], login: str) -> None:
    """Run GRANT lines for a login of the test's own, once for each schema that stands for ``nova``."""
    for schema in schemas:
        made = statements.replace("'cellsync'@'10.0.0.%'", f"'{login}'@'%'").replace(
            "CREATE USER", "CREATE USER IF NOT EXISTS"
        )
        made = re.sub(r"\bON nova\.", f"ON `{schema}`.", made)
        load(server.url(), made)


@pytest.mark.slow
def test_the_grant_lines_suffice(mariadb_cells: dict[str, URL], server: Server, tmp_path: Path) -> None:
    """With just these privileges: diff, schema, repair with a journal of its own, history, undo."""
    parent, child = _grants()
    login = f"least_{os.getpid()}"
    schemas = {cell: str(url.database) for cell, url in mariadb_cells.items()}
    before = {cell: checksums(url, tables=tuple(nova.NOVA.tables)) for cell, url in mariadb_cells.items()}
    try:
        _admit(server, parent, schemas=[schemas["api"]], login=login)
        _admit(server, child, schemas=[schemas["c1"], schemas["c2"]], login=login)
        _config(
            tmp_path,
            {cell: url.set(username=login, password="secret") for cell, url in mariadb_cells.items()},
        )
        assert _cellsync(tmp_path, "schema").code == ExitCode.IN_STEP
        assert _cellsync(tmp_path, "diff").code == ExitCode.DIFFERENCES
        # One child first: it makes the journal.
        for cell in nova.CHILDREN:
            done = _cellsync(tmp_path, "repair", cell, "--yes")
            assert done.code == ExitCode.DIFFERENCES, done.stdout + done.stderr
        runs = json.loads(_cellsync(tmp_path, "history", "--format", "json").stdout)["runs"]
        for each in runs:
            done = _cellsync(tmp_path, "undo", each["run"], "--yes")
            assert done.code == ExitCode.IN_STEP, done.stdout + done.stderr
        after = {cell: checksums(url, tables=tuple(nova.NOVA.tables)) for cell, url in mariadb_cells.items()}
        assert after == before
    finally:
        sql(server.url(), f"DROP USER IF EXISTS '{login}'@'%'")


@pytest.mark.slow
def test_a_reading_login_is_enough_to_look(
    mariadb_cells: dict[str, URL], server: Server, tmp_path: Path
) -> None:
    """With SELECT and REFERENCES everywhere diff, plan and schema work, and a repair writes nothing."""
    login = f"reader_{os.getpid()}"
    try:
        _admit(
            server, _grants()[0], schemas=[str(url.database) for url in mariadb_cells.values()], login=login
        )
        _config(
            tmp_path,
            {cell: url.set(username=login, password="secret") for cell, url in mariadb_cells.items()},
        )
        assert _cellsync(tmp_path, "schema").code == ExitCode.IN_STEP
        assert _cellsync(tmp_path, "diff").code == ExitCode.DIFFERENCES
        assert _cellsync(tmp_path, "plan").code == ExitCode.DIFFERENCES
        assert _cellsync(tmp_path, "repair", "--yes").code == ExitCode.REFUSED
    finally:
        sql(server.url(), f"DROP USER IF EXISTS '{login}'@'%'")
