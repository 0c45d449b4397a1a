"""What a command loads before it does its work: of a small comparison, imports are most of the time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from edges import execute

PROGRAM = """
import sys
from cellsync.cli import main
try:
    main(sys.argv[1:])
except SystemExit as exit:
    assert exit.code == 0, exit.code
print(*sys.modules, file=sys.stderr)
"""

OF_WRITING = ("cellsync.apply", "cellsync.run.writing", "oslo_config", "oslo_db.api")
OF_LOOKING_BACK = ("cellsync.driftlog", "cellsync.model.drift", "cellsync.run.past", "cellsync.run.seeing")
OF_OTHER_FORMATS = ("cellsync.report.html", "cellsync.report.sql", "jinja2", "prometheus_client", "rich")
OF_OTHER_VERBS = ("amqp", "cellsync.broker", "cellsync.demo", "cellsync.model.dossier", "sqlalchemy.orm")
OF_CONFIGURED_RUNS = ("cellsync.model", "cellsync.run", "pymysql", "sqlalchemy", "yaml")

NEEDLESS = (*OF_WRITING, *OF_LOOKING_BACK, *OF_OTHER_FORMATS, *OF_OTHER_VERBS)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two databases in step, and the files that name them."""
    cells = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("api", "c1")}
    for url in cells.values():
        execute(url, "CREATE TABLE ware (name varchar(40) PRIMARY KEY)", "INSERT INTO ware VALUES ('a')")
    parent, child = ({"name": name, "database": url} for name, url in cells.items())
    rules = tmp_path / "rules.yaml"
    rules.write_text("pack: p\nrules:\n  - {table: ware, key: [name]}\n", encoding="utf-8")
    file = tmp_path / "cellsync.yaml"
    content = {"parent": parent, "children": [child], "rules": [str(rules)]}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def loaded(*arguments: str) -> set[str]:
    """Run a command, which must end well, and return the modules that Python has loaded then."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments", [("diff",), ("plan",), ("repair", "--yes"), ("diff", "--format", "json")]
)
def test_a_run_that_has_nothing_to_write_loads_only_what_it_compares_with(
    config: Path, arguments: tuple[str, ...]
) -> None:
    """What writing, looking back, other formats or mistakes need is loaded there."""
    modules = loaded("-c", str(config), *arguments)
    assert "cellsync.run.compare" in modules
    assert not modules & set(NEEDLESS)


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("diff", "--help")])
def test_what_needs_no_configuration_loads_no_database(arguments: tuple[str, ...]) -> None:
    """A shell asks for help and completions at every key."""
    assert not loaded(*arguments) & {*NEEDLESS, *OF_CONFIGURED_RUNS}


@pytest.mark.parametrize("package", ["cellsync.model", "cellsync.run"])
def test_what_is_loaded_later_is_there_when_it_is_asked_for(package: str) -> None:
    """A package offers all that it names, and says of other names what Python says."""
    program = (
        f"import {package} as package\n"
        f"for name in package.__all__: assert getattr(package, name) is getattr(package, name)\n"
        f"try: package.nothing\n"
        f"except AttributeError as error: print(error)\n"
        f"from {package} import *\n"
        f"import {package}.{'tls' if 'model' in package else 'writing'}\n"
        f"assert callable({package}.{'tls' if 'model' in package else 'write'})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"module {package!r} has no attribute 'nothing'\n"), (
        done.stderr
    )
