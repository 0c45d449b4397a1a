"""The order of the modules, and the promises that hold for every file of the package."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellsync

PACKAGE = Path(cellsync.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A module imports only from lower rows. A package counts as its name.
LAYERS = (
    {"errors", "masking"},
    {"spool"},
    {"model"},
    {"transforms", "yamlfile", "codec", "symlinks", "textfiles"},
    {"rules", "cells"},
    {"diff", "plan"},
    {"apply", "report", "journal", "driftlog", "db", "broker"},
    {"run"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# What a module may import beside the standard library; a name that is missing here may nothing.
THIRD_PARTY = {
    "yamlfile": {"yaml"},
    "rules": {"jsonschema"},
    "cells": {"jsonschema", "oslo_config", "sqlalchemy"},
    "diff": {"deepdiff"},
    "apply": {"oslo_db"},
    "db": {"sqlalchemy", "oslo_db", "pymysql"},
    "broker": {"amqp"},
    "journal": {"sqlalchemy"},
    "report": {"rich", "prometheus_client", "jinja2"},
    "cli": {"click", "rich"},
    "demo": {"pymysql", "sqlalchemy"},
}
SPEAKS = {"cli", "demo", "__main__"}
CATCHES_ALL = {"cli", "run"}
MOST_LINES = 600
EXITS = {"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}


def _module(file: Path) -> str:
    """Return the name that a file counts as: "db" for db.py and for db/mariadb.py."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _imported(file: Path) -> Iterator[tuple[int, str]]:
    """Return (line, dotted name) of all that a file imports, inside functions too."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            base = node.module or ""
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _of_ours(dotted: str) -> str | None:
    """Return the module of cellsync that a dotted name means; None for ``cellsync.__version__``."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "cellsync" and len(parts) > 1 and parts[1] != "__version__" else None


def _called(node: ast.AST) -> str:
    target = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) else None
    return ast.unparse(target) if target is not None else ""


def _is_broad(handler: ast.ExceptHandler) -> bool:
    """Say whether a handler catches everything and keeps it: one that raises again catches nothing."""
    caught = (
        {"BaseException"} if handler.type is None else set(ast.unparse(handler.type).strip("()").split(", "))
    )
    last = handler.body[-1]
    raises_again = isinstance(last, ast.Raise) and last.exc is None
    return bool(caught & {"Exception", "BaseException"}) and not raises_again


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Return the public classes, functions and methods; nested functions belong to no one else."""
    for node in body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if node.name.startswith("_") or any("overload" in ast.unparse(d) for d in node.decorator_list):
            continue
        if isinstance(node, ast.FunctionDef) and ast.unparse(node.body[-1]) == "..." and prefix:
            continue  # a protocol's member: its class says where it is described
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from _public(node.body, f"{node.name}.")


each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))


@each_file
def test_a_module_imports_only_from_lower_rows(file: Path) -> None:
    """Every module has a row, and what it imports from cellsync stands in a lower one."""
    module = _module(file)
    if module == "__init__":
        assert not [name for _, name in _imported(file) if _of_ours(name)]
        return
    assert module in LEVEL, f"{module} has no row: give it one in DESIGN and here"
    wrong = [
        f"{file}:{line}: {module} (row {LEVEL[module]}) imports {other} (row {LEVEL.get(other)})"
        for line, name in _imported(file)
        if (other := _of_ours(name)) not in (None, module)
        and LEVEL.get(str(other), len(LAYERS)) >= LEVEL[module]
    ]
    assert not wrong, "\n".join(wrong)


@each_file
def test_a_module_imports_only_the_libraries_of_its_job(file: Path) -> None:
    """Beside the standard library, a module imports what the list gives it and nothing else."""
    module = _module(file)
    allowed = THIRD_PARTY.get(module, set()) | set(sys.stdlib_module_names) | {"cellsync"}
    wrong = [f"{file}:{line}: {name}" for line, name in _imported(file) if name.split(".")[0] not in allowed]
    assert not wrong, "\n".join(wrong)


@each_file
def test_only_the_outermost_row_prints_and_exits(file: Path) -> None:
    """The library returns values and raises; it never prints and never ends the process."""
    if _module(file) in SPEAKS:
        return
    wrong = [f"{file}:{node.lineno}" for node in ast.walk(_tree(file)) if _called(node) in EXITS]
    assert not wrong, "\n".join(wrong)


@each_file
def test_only_cli_and_run_catch_everything(file: Path) -> None:
    """An error that nobody expected ends the command; it does not turn into a clean result."""
    if _module(file) in CATCHES_ALL:
        return
    handlers = (node for node in ast.walk(_tree(file)) if isinstance(node, ast.ExceptHandler))
    wrong = [f"{file}:{handler.lineno}" for handler in handlers if _is_broad(handler)]
    assert not wrong, "\n".join(wrong)


@each_file
def test_every_public_name_has_a_docstring(file: Path) -> None:
    """Modules, classes, functions and methods say what they do."""
    tree = _tree(file)
    without = [] if ast.get_docstring(tree) else ["the module"]
    without += [name for name, node in _public(tree.body) if not ast.get_docstring(node)]
    assert not without, f"{file}: no docstring: {', '.join(without)}"


@each_file
def test_no_file_is_too_long_to_read(file: Path) -> None:
    """A file that passes the limit has more than one reason to change: it becomes a package."""
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{file} has {lines} lines"


def test_the_checks_see_the_package() -> None:
    """A moved package must not make the checks above pass on nothing."""
    assert {"errors", "model", "demo"} <= {_module(file) for file in FILES}
