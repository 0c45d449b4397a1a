"""Completion: names from the files alone, for every argument that is one, in a real shell too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from cellsync import cells, cli

CELLS = """
parent: {name: api, database: "mysql+pymysql://u:${NOT_SET}@10.0.0.1/nova"}
children:
  - {name: c1, database: "mysql+pymysql://u:${NOT_SET}@10.0.1.1/nova"}
  - {name: c2, nova_conf: /not/there.conf}
  - {name: other, database: "${file:/not/there}"}
rules: [nova-cells-v1]
"""
SHOP = """
pack: shop
why: Prices.
features: {prices: nobody knows what anything costs}
rules:
  - {table: article, key: [number], features: [prices], why: what there is}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a working directory with a cell file, whose secrets nobody has."""
    (tmp_path / "cellsync.yaml").write_text(CELLS)
    (tmp_path / "shop.yaml").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(*arguments: str, word: str = "") -> list[str]:
    """Return what a word is completed to, after these arguments."""
    shell = ShellComplete(cli.cellsync, {}, "cellsync", "_CELLSYNC_COMPLETE")
    return [item.value for item in shell.get_completions(list(arguments), word)]


CELL_ARGUMENTS = [
    ("diff",),
    ("plan",),
    ("repair",),
    ("report",),
    ("schema",),
    ("trace",),
    ("explain", "flavors"),
    ("cells", "check"),
    ("cells", "isolate"),
    ("cells", "restore"),
    ("cells", "create"),
    ("cells", "delete"),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", CELL_ARGUMENTS, ids=" ".join)
def test_cells_are_completed_wherever_one_is_asked_for(command: tuple[str, ...]) -> None:
    """From the cell file, without a password and without a database."""
    assert completed(*command) == ["c1", "c2", "other"]
    assert completed(*command, word="c") == ["c1", "c2"]


@pytest.mark.usefixtures("folder")
def test_a_cell_that_is_named_already_is_not_offered_again() -> None:
    """The next one is another one."""
    assert completed("diff", "c1") == ["c2", "other"]


CELL = ("CELL", "CHILD", "NAME", "NAME|ID")


def test_every_argument_that_is_a_cell_is_in_the_list() -> None:
    """A command that is added completes its cells, too."""
    found = {
        path
        for path, command in _commands(cli.cellsync, ())
        for each in command.params
        if isinstance(each, click.Argument) and (each.metavar or "").strip("[].") in CELL
    }
    assert found == {tuple(word for word in path if word != "flavors") for path in CELL_ARGUMENTS}


def _commands(group: click.Group, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for word, each in group.commands.items():
        inner = (*path, word)
        found += _commands(each, inner) if isinstance(each, click.Group) else [(inner, each)]
    return found


@pytest.mark.usefixtures("folder")
def test_rules_and_features_are_those_in_use() -> None:
    """Of the cell file, of -r before or after the command, or of all packs."""
    assert "aggregate-hosts" in completed("diff", "--rule", word="aggregate-")
    assert "availability-zones" in completed("diff", "--feature", word="a")
    assert "availability-zones" in completed("explain", word="avail")
    for arguments in (("-r", "shop.yaml", "diff"), ("diff", "-r", "shop.yaml")):
        assert completed(*arguments, "--rule") == ["article"]
        assert completed(*arguments, "--feature") == ["prices"]
    assert completed("-c", "nowhere.yaml", "diff", "--rule", word="key-p") == ["key-pairs"]
    assert completed("-c", "nowhere.yaml", "diff") == []


@pytest.mark.usefixtures("folder")
def test_packs_files_commands_and_options_are_completed() -> None:
    """Where a pack or a file may stand, both; paths are the shell's own business."""
    assert completed("-r", word="nova-cells") == ["nova-cells-v1", "nova-cells-v2"]
    assert completed("rules", "validate", word="nova-cells") == ["nova-cells-v1", "nova-cells-v2"]
    assert completed("rules", "show", word="aggregate-h") == ["aggregate-hosts"]
    shell = ShellComplete(cli.cellsync, {}, "cellsync", "_CELLSYNC_COMPLETE")
    for option in (["-c"], ["-r"], ["diff", "-o"], ["repair", "--plan"], ["--metrics-file"], ["--drift-log"]):
        (item,) = shell.get_completions(option, "./sh")
        assert (item.type, item.value) == ("file", "./sh")
    assert completed(word="hist") == ["history"]
    assert completed("diff", word="--feat") == ["--feature"]
    assert completed("diff", "--format", word="h") == ["html"]
    assert completed("diff", "--log-format") == ["text", "json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "children: 7",
        "children: [7, {}, {name: 1}, {name: '${X}'}]",
        "- a",
        "parent: [",
        "rules: {a: b}",
    ],
)
def test_a_file_that_is_not_right_completes_nothing(folder: Path, text: str) -> None:
    """And breaks nothing: nobody can read an error in the middle of a word."""
    (folder / "cellsync.yaml").write_text(text)
    assert completed("diff") == []
    assert cells.outline(folder / "cellsync.yaml").children == ()
    assert completed("diff", "--rule", word="key-p") == ["key-pairs"]
    (folder / "broken.yaml").write_text("pack: [")
    assert completed("-r", "broken.yaml", "diff", "--rule") == []


@pytest.mark.usefixtures("folder")
def test_the_outline_is_what_the_topology_has(tmp_path: Path) -> None:
    """Where the file is right, the names are those that a run would use."""
    file = tmp_path / "cellsync.yaml"
    text = CELLS.replace("nova_conf: /not/there.conf", 'database: "mysql://h2/n"')
    text = text.replace("${file:/not/there}", "mysql://h3/n").replace(
        "[nova-cells-v1]", "[shop, sub/own.yaml]"
    )
    file.write_text(text)
    whole = cells.load(file, environ={"NOT_SET": "x"})
    outline = cells.outline(file)
    assert outline.children == tuple(child.name for child in whole.children)
    assert outline.rules == whole.rules


BASH = """
source <(cellsync completion bash)
complete -p cellsync
COMP_WORDS=(cellsync diff c); COMP_CWORD=2
_cellsync_completion cellsync
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_bash_completes(folder: Path) -> None:
    """With what `cellsync completion bash` prints, in a shell."""
    wrapper = folder / "bin" / "cellsync"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m cellsync "$@"\n')
    wrapper.chmod(0o755)
    root = Path(cli.__file__).parents[2]
    done = subprocess.run(
        ["bash", "-c", BASH],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={"PATH": f"{wrapper.parent}:/usr/bin:/bin", "PYTHONPATH": str(root)},
    )
    assert done.stdout.splitlines() == ["complete -o nosort -F _cellsync_completion cellsync", "c1", "c2"]


def test_every_shell_has_its_script() -> None:
    """Each asks cellsync itself, in its own way."""
    for shell, mark in (("bash", "bash_complete"), ("zsh", "#compdef cellsync"), ("fish", "fish_complete")):
        done = CliRunner().invoke(cli.cellsync, ["completion", shell])
        assert (done.exit_code, mark in done.output, "_CELLSYNC_COMPLETE" in done.output) == (0, True, True)
    assert CliRunner().invoke(cli.cellsync, ["completion", "tcsh"]).exit_code == 2
