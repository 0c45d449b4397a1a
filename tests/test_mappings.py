"""``cell_mappings`` of nova_api becomes the children; a mapping that leads nowhere stays one."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from cellsync import cells
from cellsync.cells.mappings import CELL0
from cellsync.errors import ConfigurationError, UsageError
from cellsync.model import Cell, CellMapping, Secret, Topology

API = 'parent: {name: api, database: "mysql://u:p@h0/nova_api"}\n'
C1 = "11111111-1111-4111-8111-111111111111"
C2 = "22222222-2222-4222-8222-222222222222"


def load(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Topology:
    file = folder / "cellsync.yaml"
    file.write_text(text, encoding="utf-8")
    return cells.load(file, environ=environ or {})


def mapping(
    uuid: str, name: str, database: str, broker: str = "none:///", *, disabled: bool = False
) -> CellMapping:
    return CellMapping(
        uuid=uuid,
        name=name,
        transport_url=Secret(broker),
        database_connection=Secret(database),
        disabled=disabled,
    )


def children(folder: Path, *rows: CellMapping, given: str = "{from: cell_mappings}") -> dict[str, Cell]:
    located = cells.children(load(folder, f"{API}children: {given}"), rows)
    assert pickle.loads(pickle.dumps(located)) == located
    return {child.name: child for child in located.children}


def url(cell: Cell) -> str:
    assert not cell.database.fault, cell.database.fault
    return make_url(cell.database.url.reveal()).difference_update_query(["charset"]).render_as_string(False)


def test_every_enabled_mapping_is_a_child_and_cell0_has_no_broker(tmp_path: Path) -> None:
    """Disabled cells are left out, and named."""
    topology = cells.children(
        load(tmp_path, f"{API}children: {{from: cell_mappings}}"),
        [
            mapping(CELL0, "cell0", "mysql+pymysql://nova:p@h0/nova_cell0"),
            mapping(C1, "c1", "mysql+pymysql://nova:p@h1/nova", "rabbit://nova:q@r1:5672/"),
            mapping(C2, "c2", "mysql+pymysql://nova:p@h2/nova", disabled=True),
        ],
    )
    cell0, c1 = topology.children
    assert (cell0.name, cell0.broker, c1.name) == ("cell0", None, "c1")
    assert c1.broker is not None
    assert (c1.broker.shown, c1.database.shown) == (
        "rabbit://nova:***@r1:5672/",
        "mysql+pymysql://nova:***@h1/nova",
    )
    assert topology.left_out == (f"c2 ({C2}) is disabled in cell_mappings of api: not compared",)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        (
            "{scheme}://{username}:{password}@{hostname}/nova_c1",
            "mysql+pymysql://nova:p%40s@db.example/nova_c1",
        ),
        (
            "{scheme}://{username}:{password}@h9:{port}/{path}_c1?{query}",
            "mysql+pymysql://nova:p%40s@h9:3307/nova_c1?x=1",
        ),
        ("mysql+pymysql://other:{password}@h9/nova", "mysql+pymysql://other:p%40s@h9/nova"),
        # No template of Nova's fields: Nova takes it as it is, braces and all.
        ("mysql+pymysql://nova:%7Bp%7D@h9/nova", "mysql+pymysql://nova:%7Bp%7D@h9/nova"),
    ],
)
def test_templates_are_filled_from_the_parts_of_a_connection(
    tmp_path: Path, template: str, filled: str
) -> None:
    """As ``CellMapping._format_url`` of Nova does it, with what is percent-encoded left so."""
    given = '{from: cell_mappings, database: "mysql+pymysql://nova:p%40s@DB.example:3307/nova?x=1"}'
    found = url(children(tmp_path, mapping(C1, "c1", template), given=given)["c1"])
    assert make_url(found) == make_url(filled)


def test_templates_of_brokers_with_several_hosts_have_numbers(tmp_path: Path) -> None:
    """``hostname1`` is the first host's name."""
    given = '{from: cell_mappings, broker: "rabbit://u:p@r1:5672,v:q@r2:5673/"}'
    template = (
        "rabbit://{username1}:{password1}@{hostname1}:{port1},{username2}:{password2}@{hostname2}:{port2}/c1"
    )
    child = children(tmp_path, mapping(C1, "c1", "mysql://u@h/x", template), given=given)["c1"]
    assert child.broker is not None
    assert child.broker.url.reveal() == "rabbit://u:p@r1:5672,v:q@r2:5673/c1"


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ("rabbit://u:p@[::1]:5672,v:q@r2:5673/", "rabbit://u:p@[::1]:5672,v:q@r2:5673/c1"),
        ("rabbit://u:p@r1:5672,v:q@[FE80::1]:5673/", "rabbit://u:p@r1:5672,v:q@[fe80::1]:5673/c1"),
        ("rabbit://u:[x]@r1:5672,v:q@r2:5673/", "rabbit://u:[x]@r1:5672,v:q@r2:5673/c1"),
    ],
)
def test_a_template_is_filled_alike_on_every_python(tmp_path: Path, given: str, filled: str) -> None:
    """``urlsplit`` takes the first since Python 3.13.2 no more, the last from 3.11.4 to 3.13.1 not."""
    parts = []
    for number, host in enumerate(given.split(","), start=1):
        name = f"[{{hostname{number}}}]" if "@[" in host else f"{{hostname{number}}}"
        parts.append(f"{{username{number}}}:{{password{number}}}@{name}:{{port{number}}}")
    template = f"rabbit://{','.join(parts)}/c1"
    located = f'{{from: cell_mappings, broker: "{given}"}}'
    child = children(tmp_path, mapping(C1, "c1", "mysql://u@h/x", template), given=located)["c1"]
    assert child.broker is not None and not child.broker.fault, child.broker.fault
    assert child.broker.url.reveal() == filled


@pytest.mark.parametrize(
    "netloc",
    ["[::1", "::1]", "[x]", "[::1]x", "x[::1]", "[v1.a]", "h:65536", "h:+5", "h:5_0", "u:[p@h", "[]"],
)
def test_a_url_that_some_python_takes_is_refused_on_every_python(tmp_path: Path, netloc: str) -> None:
    """With one sentence, whatever ``urlsplit`` of this Python says of it; most are refused with the file."""
    given = f'{{from: cell_mappings, database: "mysql://{netloc}/nova"}}'
    try:
        fault = children(tmp_path, mapping(C1, "c1", "mysql://u@{hostname}/x"), given=given)[
            "c1"
        ].database.fault
    except ConfigurationError as error:
        fault = str(error)
    assert re.search(r"is no URL$|is not a database URL|the URL names no|the port must be", fault), fault


def test_a_nova_conf_of_an_api_host_says_everything(tmp_path: Path) -> None:
    """The parent is [api_database], and templates are filled from [database] and transport_url."""
    (tmp_path / "nova.conf").write_text(
        "[DEFAULT]\ntransport_url = rabbit://u:p@r0:5672/\n"
        "[api_database]\nconnection = mysql+pymysql://nova:a@h0/nova_api\n"
        "[database]\nconnection = mysql+pymysql://nova:d@h1/nova_cell0\n"
    )
    topology = load(tmp_path, "parent: {name: api, nova_conf: nova.conf}\nchildren: {from: cell_mappings}\n")
    assert url(topology.parent) == "mysql+pymysql://nova:a@h0/nova_api"
    rows = [
        mapping(C1, "c1", "{scheme}://{username}:{password}@h9/nova", "{scheme}://{username}:{password}@r9/")
    ]
    [child] = cells.children(topology, rows).children
    assert url(child) == "mysql+pymysql://nova:d@h9/nova"
    assert child.broker is not None
    assert child.broker.url.reveal() == "rabbit://u:p@r9/"


def test_cellsync_may_log_in_as_itself(tmp_path: Path) -> None:
    """The mappings hold Nova's own login, which may write everything."""
    environ = {"PW": "a b@c/d"}
    text = f"{API}children: {{from: cell_mappings, username: cellsync, password: '${{PW}}'}}"
    rows = [mapping(C1, "c1", "mysql+pymysql://nova:p@h9:3307/nova")]
    [child] = cells.children(load(tmp_path, text, environ), rows).children
    found = make_url(child.database.url.reveal())
    assert (found.username, found.password, found.host, found.port) == ("cellsync", "a b@c/d", "h9", 3307)
    assert "a b" not in repr(child) and "***@h9:3307" in child.database.shown


@pytest.mark.parametrize(
    ("database", "fault"),
    [
        ("", "is not a database URL"),
        ("postgresql://nova:hunter2@h/nova", "cellsync speaks MariaDB"),
        ("mysql+pymysql://nova:hunter2@h", "the URL names no schema"),
        ("{scheme}://{username}:hunter2@h/nova", "it is a template: say under children what fills it"),
        ("mysql+pymysql://u:p@H0:3306/nova_api", "is the database of api too"),
    ],
)
def test_a_mapping_that_leads_nowhere_is_a_child_with_a_fault(
    tmp_path: Path, database: str, fault: str
) -> None:
    """It must not look as if there were no such cell; nor may its password be shown."""
    found = children(tmp_path, mapping(C1, "c1", database), mapping(C2, "c2", "mysql://u@h2/nova"))
    assert fault in found["c1"].database.fault
    assert "hunter2" not in repr(found["c1"])
    assert not found["c2"].database.fault


def test_a_template_that_asks_for_what_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """Nova would write None into the URL."""
    given = '{from: cell_mappings, database: "mysql://nova:p@h/nova"}'
    child = children(tmp_path, mapping(C1, "c1", "{scheme}://u@{hostname}:{port}/x"), given=given)["c1"]
    assert "it asks for {port}, which the database under children does not have" in child.database.fault


def test_two_mappings_of_one_database_are_a_fault_of_the_second(tmp_path: Path) -> None:
    """Everything in it would be found twice."""
    rows = [mapping(C1, "c1", "mysql://u:p@h/nova"), mapping(C2, "c2", "mysql+pymysql://v:q@H:3306/nova")]
    found = children(tmp_path, *rows)
    assert (found["c1"].database.fault, found["c2"].database.fault) == (
        "",
        "mysql+pymysql://v:***@H:3306/nova is the database of c1 too",
    )


def test_a_broker_url_that_cannot_be_read_is_a_fault_of_the_broker_alone(tmp_path: Path) -> None:
    """The rows can be compared all the same."""
    child = children(tmp_path, mapping(C1, "c1", "mysql://u@h/x", "{scheme}://hunter2@r1"))["c1"]
    assert child.broker is not None and "it is a template" in child.broker.fault
    assert "hunter2" not in repr(child) and not child.database.fault


@pytest.mark.parametrize("name", ["", "API", "c2", "a b", "a@b"])
def test_a_mapping_without_a_usable_name_is_called_by_its_uuid(tmp_path: Path, name: str) -> None:
    """Names of cells are free text in Nova, and may be the same."""
    rows = [mapping(C1, name, "mysql://u@h1/x"), mapping(C2, "c2", "mysql://u@h2/x")]
    second = C2 if name == "c2" else "c2"
    assert list(children(tmp_path, *rows)) == [C1, second]


@pytest.mark.parametrize("rows", [[], [mapping(C1, "c1", "mysql://u@h/x", disabled=True)]])
def test_without_an_enabled_cell_there_is_nothing_to_compare(tmp_path: Path, rows: list[CellMapping]) -> None:
    """No children would mean that everything is in step."""
    topology = load(tmp_path, f"{API}children: {{from: cell_mappings}}")
    with pytest.raises(UsageError, match="no enabled cell"):
        cells.children(topology, rows)
