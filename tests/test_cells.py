"""cellsync.yaml becomes a topology, or all of its problems at once; no password leaves it."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL, make_url

from cellsync import cells
from cellsync.errors import ConfigurationError, UsageError
from cellsync.model import Accepted, Budget, Cell, Role, Secrets, Topology

MISTAKES = sorted((Path(__file__).parent / "mistakes" / "cells").glob("*.yaml"))

PASSWORD = "hunter2 @:/?#[]%,${PW}é😀"

CHILD = 'children: [{name: c1, database: "mysql://u@h1/nova"}]\n'

awkward = st.text(st.sampled_from("u:p@/?#,[]%1h=& \n\u00e9"), max_size=30)

# What an environment variable or a file can hold.
passwords = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)


def read(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Topology:
    file = folder / "cellsync.yaml"
    file.write_text(text, encoding="utf-8")
    return cells.load(file, environ=environ or {})


def parent(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Cell:
    return read(folder, f"parent: {text}\n{CHILD}", environ).parent


def problems(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text, environ)
    assert not caught.value.__context__
    return str(caught.value)


def url(cell: Cell) -> URL:
    return make_url(cell.database.url.reveal())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cells")


# -- The file ----------------------------------------------------------------------------------


def test_load_returns_the_parent_and_the_children_in_configured_order(tmp_path: Path) -> None:
    """The order of the file is the order of every report."""
    topology = read(
        tmp_path,
        """
        parent: {name: api, database: "mysql://u:p@h0/nova", broker: null}
        children:
          - {name: z, database: "mysql://u:p@h1/nova", broker: "rabbit://u:p@h1"}
          - {name: a, database: "mysql://u:p@h2/nova"}
        rules: [nova-cells-v1, own.yaml, sub/own]
        settle: 250ms
        drift_log: var/drift.jsonl
        """,
    )
    assert (topology.parent.name, topology.parent.role, topology.parent.broker) == ("api", Role.PARENT, None)
    assert [(child.name, child.role) for child in topology.children] == [("z", Role.CHILD), ("a", Role.CHILD)]
    assert topology.children[0].broker is not None
    assert topology.rules == ("nova-cells-v1", str(tmp_path / "own.yaml"), str(tmp_path / "sub/own"))
    assert topology.settle == timedelta(milliseconds=250)
    assert topology.drift_log == str(tmp_path / "var" / "drift.jsonl")
    assert pickle.loads(pickle.dumps(topology)) == topology


def test_the_release_of_nova_may_be_named(tmp_path: Path) -> None:
    """In either case; without it the schema's version tells. What a nova.conf has is read by it."""
    text = f"parent: {{name: a, nova_conf: nova.conf}}\n{CHILD}"
    conf = "[DEFAULT]\ntransport_url = rabbit://u:p@h/\n[database]\nconnection = mysql://h/n\n"
    (tmp_path / "nova.conf").write_text(conf)
    assert read(tmp_path, text).release is None
    topology = read(tmp_path, f"{text}release: Liberty\n")
    assert topology.release == "liberty"
    assert topology.parent.broker is not None and topology.parent.broker.by_release


def test_the_example_loads_and_explains_itself(tmp_path: Path) -> None:
    """The file that the README shows is one that works."""
    topology = read(tmp_path, cells.example(), {"CELLSYNC_PASSWORD": PASSWORD})
    assert [child.name for child in topology.children] == ["c1", "c2"]
    assert topology.rules == ("nova-cells-v1",)
    assert url(topology.parent).password == PASSWORD
    accepting = re.sub(r"^# (?=accept:|  - \{cell)", "", cells.example(), flags=re.MULTILINE)
    [lab] = read(tmp_path, accepting, {"CELLSYNC_PASSWORD": PASSWORD}).accepted
    assert (lab.cell, lab.rule, lab.key, lab.why) == (
        "c1",
        "aggregates",
        {"name": "lab"},
        "the lab is c1's own",
    )


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda file: file.stem)
def test_every_mistake_is_told_with_its_place_and_no_password(mistake: Path) -> None:
    """All problems of a file come at once, and no others."""
    expected = re.findall(r"^# expect: (.*)$", mistake.read_text(encoding="utf-8"), re.MULTILINE)
    with pytest.raises(ConfigurationError) as caught:
        cells.load(mistake, environ={"PW": "hunter2!"})
    text = str(caught.value)
    missing = [fragment for fragment in expected if not _tells(text, fragment)]
    assert not missing, text
    places = {fragment.split(": ")[0] for fragment in expected if fragment[0].isdigit()}
    assert {f"{problem.line}:{problem.column}" for problem in caught.value.problems} == places, text
    assert "hunter2" not in text.replace("hunter2-x", "")
    assert [(p.line, p.column) for p in caught.value.problems] == sorted(
        (p.line, p.column) for p in caught.value.problems
    )


def _tells(text: str, fragment: str) -> bool:
    place, _, words = fragment.partition(": ")
    if not place[0].isdigit():
        return fragment in text
    return any(f":{place}: " in line and words in line for line in text.splitlines())


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Without a configuration there is a next step: write one, or name one."""
    with pytest.raises(ConfigurationError, match=r"No such file.*write a cellsync.yaml.*-c"):
        cells.load(tmp_path / "cellsync.yaml", environ={})


def test_an_unreadable_file_is_a_configuration_error(tmp_path: Path) -> None:
    """A folder, or bytes that are no text, end in advice and not in a traceback."""
    with pytest.raises(ConfigurationError, match="Is a directory"):
        cells.load(tmp_path, environ={})
    (tmp_path / "latin").write_bytes(b"parent: \xff hunter2")
    with pytest.raises(ConfigurationError, match="not UTF-8") as caught:
        cells.load(tmp_path / "latin", environ={})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0.5", 0.5), ("2", 2), ('"0.5s"', 0.5), ("500ms", 0.5), ('"3"', 3), ("1m", 60), ("1 s", 1)],
)
def test_settle_is_a_duration_or_a_number_of_seconds(tmp_path: Path, text: str, seconds: float) -> None:
    """0 is allowed: it means not to wait."""
    topology = read(tmp_path, f'parent: {{name: a, database: "mysql://h/n"}}\n{CHILD}settle: {text}\n')
    assert topology.settle == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["-1", ".inf", ".nan", "soon", '""', "2h", "3601", "1" * 400])
def test_settle_refuses_what_is_no_bounded_time(tmp_path: Path, text: str) -> None:
    """An endless wait would hold snapshots open."""
    message = problems(tmp_path, f'parent: {{name: a, database: "mysql://h/n"}}\n{CHILD}settle: {text}\n')
    assert "cellsync.yaml:3:1: settle must be" in message


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("{}", Budget(time=timedelta(hours=1), failures=1000)),
        ("{time: 30s}", Budget(time=timedelta(seconds=30), failures=1000)),
        ("{time: 2h, failures: 5}", Budget(time=timedelta(hours=2), failures=5)),
        ("{time: none, failures: none}", Budget(time=None, failures=None)),
        ("{time: null}", Budget(time=None)),
        ("{time: 0.5}", Budget(time=timedelta(seconds=0.5))),
    ],
)
def test_a_budget_bounds_time_and_failures(tmp_path: Path, text: str, budget: Budget) -> None:
    """For every cell; each may have another one, of which it says only what is other."""
    head = f'budget: {text}\nparent: {{name: a, database: "mysql://h/n"}}\n{CHILD}'
    usual = read(tmp_path, head)
    assert usual.budget == budget
    assert {cell.budget for cell in (usual.parent, *usual.children)} == {budget}
    other = CHILD.replace("]", ', {name: c9, database: "mysql://h9/n", budget: {failures: 7}}]')
    first, own = read(tmp_path, head.replace(CHILD, other)).children
    assert (first.budget, own.budget) == (budget, replace(budget, failures=7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{time: 0}", "time must be up to 1 day"),
        ("{time: 2d}", "time must be up to 1 day"),
        ("{time: 25h}", "time must be up to 1 day"),
        ("{time: []}", "time must be a number or text or null"),
        ("{failures: 0}", "failures must be a whole number from 1"),
        ("{failures: 1.5}", "failures must be a whole number from 1"),
        ("{failures: true}", "failures must be"),
        ("{times: 3}", "the key 'times' is unknown: did you mean time?"),
        ("3s", "budget must be a mapping"),
    ],
)
def test_a_budget_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Of all cells, and of one."""
    api = '{name: a, database: "mysql://h/n"'
    assert message in problems(tmp_path, f"budget: {text}\nparent: {api}}}\n{CHILD}")
    assert message in problems(tmp_path, f"parent: {api}, budget: {text}}}\n{CHILD}")


def test_secrets_name_columns_to_hide_and_to_show(tmp_path: Path) -> None:
    """By patterns; the usual ones hold without any."""
    text = f'parent: {{name: a, database: "mysql://h/n"}}\n{CHILD}'
    usual = read(tmp_path, text).secrets
    assert usual == Secrets()
    given = read(tmp_path, f'{text}secrets: {{hide: ["shop.*", Note], show: [public_key]}}').secrets
    assert given == Secrets(hide=("shop.*", "Note"), show=("public_key",))


def test_settle_rules_drift_log_and_accept_may_be_left_out(tmp_path: Path) -> None:
    """The defaults are those of the design; an empty accept list accepts nothing and is fine."""
    text = f'parent: {{name: a, database: "mysql://h/n"}}\n{CHILD}'
    assert read(tmp_path, text).settle == timedelta(seconds=0.5)
    assert read(tmp_path, text).drift_log is None
    assert read(tmp_path, f"{text}accept: []").rules == ()
    assert read(tmp_path, f"{text}rules: nova-cells-v1").rules == ("nova-cells-v1",)


ACCEPT = """
accept:
  - {cell: c1, rule: aggregates, key: {name: lab, nr: 7, zone: null}, why: " its own ", until: 2026-12-31}
  - {cell: a, rule: hosts, key: "*", why: being rebuilt}
  - {cell: "*", rule: hosts, key: {host: 10.0.0.1, at: 12:30, day: 2026-11-23, id: "007"}, why: "${WHY}"}
"""


def test_accept_lists_what_people_live_with(tmp_path: Path) -> None:
    """Values of a key are text as people write it; NULL stays NULL; a key of "*" is every row."""
    text = f'parent: {{name: a, database: "mysql://h/n"}}\n{CHILD}{ACCEPT}'
    lab, rebuilt, ticket = read(tmp_path, text, {"WHY": "ticket 4711"}).accepted
    key = {"name": "lab", "nr": "7", "zone": None}
    assert lab == Accepted(cell="c1", rule="aggregates", key=key, why="its own", until=date(2026, 12, 31))
    assert (rebuilt.cell, rebuilt.key, rebuilt.until) == ("a", {}, None)
    assert (ticket.cell, ticket.why) == ("*", "ticket 4711")
    assert ticket.key == {"host": "10.0.0.1", "at": "12:30", "day": "2026-11-23", "id": "007"}


@pytest.mark.parametrize(
    "until", ["2026-12-31\n", "20261231", "2026-W53-4", " 2026-12-31", "2026-12-31T00:00", ""]
)
def test_a_date_that_is_none_is_never_taken_for_no_date(tmp_path: Path, until: str) -> None:
    """An entry without a date holds for ever; a mistyped one must not."""
    entry = json.dumps({"cell": "*", "rule": "r", "key": "*", "why": "w", "until": until})
    text = f'parent: {{name: a, database: "mysql://h/n"}}\n{CHILD}accept: [{entry}]'
    assert "3:61: until must be a date: 2026-12-31" in problems(tmp_path, text)


def test_a_key_of_accept_that_is_a_url_is_not_shown(tmp_path: Path) -> None:
    """A slip of YAML makes a key of a URL with its password."""
    entry = "{cell: c1, rule: r, key: {mysql://u:hunter2@h/n: 1.5}, why: w}"
    text = f'parent: {{name: a, database: "mysql://h/n"}}\n{CHILD}accept: [{entry}]'
    assert "hunter2" not in problems(tmp_path, text)


KEYS = ["name", "database", "broker", "nova_conf", "defaults_file", "cell", "rule", "key", "why", "databases"]
TOP = ["parent", "children", "rules", "settle", "accept", "until"]
TEXTS = [
    "${A}",
    "${",
    "mysql://u:${A}@h/n",
    "a",
    "b",
    "sqlite:///x",
    "rabbit://h",
    "x.yaml",
    "${file:x}",
    "5ms",
]

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=5)
anything = st.recursive(
    plain,
    lambda deeper: (
        st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from(KEYS + TOP), deeper, max_size=5)
    ),
    max_leaves=30,
)
anycell = st.dictionaries(st.sampled_from(KEYS), anything, max_size=5)
configuration = st.fixed_dictionaries(
    {"parent": anycell | anything, "children": st.lists(anycell, max_size=3) | anything},
    optional={"rules": anything, "settle": anything, "accept": anything},
)


@given(data=configuration | anything)
def test_any_file_is_read_or_refused_with_problems(folder: Path, data: object) -> None:
    """There is no configuration that ends in a traceback, and none that fails without a reason."""
    try:
        read(folder, json.dumps(data), {"A": "s@"})
    except ConfigurationError as error:
        assert error.problems  # noqa: PT017


# -- ${...} ------------------------------------------------------------------------------------


@given(password=passwords)
def test_any_password_from_the_environment_reaches_the_driver_and_nothing_else(
    folder: Path, password: str
) -> None:
    """The topology prints alike whatever the password, so it does not print the password."""
    text = """
        parent: {name: api, database: "mysql://u:${PW}@h/nova", broker: "rabbit://u:${PW}@h1,u:${PW}@h2/v"}
        children: [{name: c1, database: "mysql://${PW}:x@h1/nova"}]
        """
    topology = read(folder, text, {"PW": password})
    assert url(topology.parent).password == password
    assert url(topology.children[0]).username == password
    other = read(folder, text.replace("${PW}:x", "user:x"), {"PW": "other"})
    assert repr(topology.parent) == str(topology.parent) == repr(other.parent)
    broker = topology.parent.broker
    assert broker is not None
    assert broker.shown == "rabbit://u:***@h1,u:***@h2/v"


@given(password=passwords)
def test_no_problem_text_depends_on_a_password(folder: Path, password: str) -> None:
    """However wrong the file and the password, the messages are the same for all passwords."""
    text = """
        parent: {name: api, database: "pg://u:${PW}@h/nova", broker: "rabbit://u:${PW}@h1:x"}
        children:
          - {name: c1, database: "mysql://u:${PW}@h", typo: "${PW}"}
          - {name: c2, database: "mysql://u:${PW}@h:port/nova"}
          - {name: c3, database: "mysql://u:${PW}@h/nova", broker: "x ${PW}"}
          - {name: c4, database: "mysql://u:${PW}@h/nova", nova_conf: x.conf}
        """
    assert problems(folder, text, {"PW": password}) == problems(folder, text, {"PW": "other"})


@given(raw=awkward, scheme=st.sampled_from(["mysql", "sqlite"]))
def test_any_url_is_read_or_refused_and_shows_no_text_between_colon_and_at(raw: str, scheme: str) -> None:
    """There is no URL that crashes, and none that is shown with its password."""
    try:
        found = cells.endpoint(f"{scheme}://{raw}")
    except UsageError:
        return
    assert cells.endpoint(found.url.reveal()) == found
    assert make_url(found.shown).password in (None, "***")


def test_a_reference_outside_of_user_and_password_is_inserted_as_it_is(tmp_path: Path) -> None:
    """A whole URL, a host with a port or a query may come from the environment."""
    whole = parent(tmp_path, '{name: a, database: "${URL}"}', {"URL": "mysql://u:p%40@h:1/n?x=a%26b"})
    assert (url(whole).password, url(whole).port, url(whole).query["x"]) == ("p@", 1, "a&b")
    host = parent(tmp_path, '{name: a, database: "mysql://u:${PW}@${H}/n"}', {"PW": "p@", "H": "h:2"})
    assert (url(host).password, url(host).host, url(host).port) == ("p@", "h", 2)
    broker = parent(
        tmp_path,
        '{name: a, database: "mysql://h/n", broker: "rabbit://u:${PW}@${H},u:${PW}@${H}/"}',
        {"PW": "p,@", "H": "h:2"},
    ).broker
    assert broker is not None
    assert broker.url.reveal() == "rabbit://u:p%2C%40@h:2,u:p%2C%40@h:2/"


def test_a_file_reference_loses_one_newline_and_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """Secrets come as files with a newline at their end; what else they hold is the secret."""
    (tmp_path / "pw").write_text("p@ss \n\n")
    (tmp_path / "crlf").write_bytes(b"p\r\n")
    assert url(parent(tmp_path, '{name: a, database: "mysql://u:${file:pw}@h/n"}')).password == "p@ss \n"
    assert url(parent(tmp_path, '{name: a, database: "mysql://u:${file:crlf}@h/n"}')).password == "p"
    home = parent(tmp_path, '{name: a, database: "mysql://u:${file:~/crlf}@h/n"}', {"HOME": str(tmp_path)})
    assert url(home).password == "p"


def test_a_doubled_dollar_is_a_plain_one_and_inserted_text_is_not_read_again(tmp_path: Path) -> None:
    """A password that looks like a reference stays what it is."""
    cell = parent(tmp_path, '{name: a, database: "mysql://$${PW}:${PW}@h/n"}', {"PW": "${PW}"})
    assert (url(cell).username, url(cell).password) == ("${PW}", "${PW}")


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """The environment may hold bytes that no URL can carry."""
    text = f'parent: {{name: a, database: "mysql://u:${{PW}}@h/n"}}\n{CHILD}'
    assert "PW is not UTF-8" in problems(tmp_path, text, {"PW": "hunter2\udcff"})


# -- Databases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme",
    ["mysql", "mariadb", "mariadb+pymysql", "mysql+pymysql", "mysql+mysqldb", "mysql+mysqlconnector"],
)
def test_every_mariadb_driver_becomes_pymysql_with_utf8mb4(scheme: str) -> None:
    """mariadb+pymysql switches oslo.db's error mapping off; without utf8mb4 text is lost."""
    found = cells.endpoint(f"{scheme}://u:p@h:3307/nova?charset=utf8&use_unicode=0&ssl_ca=/ca")
    assert found.url.reveal() == "mysql+pymysql://u:p@h:3307/nova?charset=utf8mb4&ssl_ca=%2Fca"


def test_shown_urls_have_stars_for_every_secret() -> None:
    """The password of the URL is not its only one."""
    found = cells.endpoint("mysql://u:hunter2@h/n?ssl_key_password=hunter2&PASSWD=hunter2&ssl_cert=/c")
    assert found.shown == "mysql+pymysql://u:***@h/n?PASSWD=***&ssl_cert=%2Fc&ssl_key_password=***"
    assert cells.endpoint("mysql://u@h/n").shown == "mysql+pymysql://u@h/n"


def test_sqlite_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """The same configuration means the same databases from every working directory."""
    cell = parent(tmp_path, '{name: a, database: "sqlite:///x.db"}')
    assert url(cell).database == str(tmp_path / "x.db")
    assert cells.endpoint("sqlite:////tmp/x.db").url.reveal() == "sqlite:////tmp/x.db"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sqlite:///x.db", "sqlite:///./x.db"),
        ("mysql://h/n", "mysql://u:p@H:3306/n"),
        ("mysql:///n", "mysql://localhost/n"),
        ("mysql:///n?unix_socket=/s", "mysql://h/n?unix_socket=/s"),
    ],
)
def test_two_names_for_one_database_are_refused(tmp_path: Path, first: str, second: str) -> None:
    """A cell that is compared with itself would always be in step."""
    text = f'parent: {{name: a, database: "{first}"}}\nchildren: [{{name: b, database: "{second}"}}]'
    assert "2:22: a and b are the same database" in problems(tmp_path, text)


# -- Brokers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "shown"),
    [
        ("rabbit://u:p@h1:5672,u:p@h2:5672/vhost", "rabbit://u:***@h1:5672,u:***@h2:5672/vhost"),
        ("rabbit://h1,h2", "rabbit://h1,h2"),
        ("rabbit://u:p@[::1]:5672//", "rabbit://u:***@[::1]:5672//"),
        ("amqp://u@h/?ssl_key_password=a#b&heartbeat=1", "amqp://u@h/?ssl_key_password=***&heartbeat=1"),
        ("fake:///", "fake:///"),
    ],
)
def test_a_broker_is_kept_as_it_is_and_shown_with_stars(broker: str, shown: str) -> None:
    """Every host has a password of its own."""
    found = cells.broker_endpoint(broker)
    assert (found.url.reveal(), found.shown) == (broker, shown)


@given(raw=awkward)
def test_any_broker_url_is_read_or_refused_and_never_shows_what_precedes_an_at(raw: str) -> None:
    """Whatever stands between a colon and an @ is a password, or part of one."""
    try:
        shown = cells.broker_endpoint(f"rabbit://{raw}").shown
    except UsageError:
        return
    assert set(re.findall(r":([^:@]*)@", shown.removeprefix("rabbit:"))) <= {"***"}


# -- nova.conf ---------------------------------------------------------------------------------

NOVA_CONF = """
[DEFAULT]
debug = true
transport_url = rabbit://nova:hunter2@mq:5672/
sql_connection = mysql://old:hunter2@old/nova
[database]
max_retries = -1
connection = mysql+pymysql://first:hunter2@db/nova
connection = mysql+pymysql://nova:hun$$ter2%40@db/nova?charset=utf8
"""


def test_nova_conf_gives_the_database_and_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Nova reads it: the last value counts, and $$ is $; the environment of cellsync does not."""
    monkeypatch.setenv("OS_DATABASE__CONNECTION", "mysql://wrong/nova")
    (tmp_path / "nova.conf").write_text(NOVA_CONF)
    cell = parent(tmp_path, "{name: a, nova_conf: nova.conf}")
    assert cell.database.shown == "mysql+pymysql://nova:***@db/nova"
    assert url(cell).password == "hun$ter2@"
    assert cell.broker is not None
    assert cell.broker.shown == "rabbit://nova:***@mq:5672/"


def test_what_stands_beside_nova_conf_wins(tmp_path: Path) -> None:
    """An explicit null broker too."""
    (tmp_path / "nova.conf").write_text(NOVA_CONF)
    cell = parent(tmp_path, '{name: a, nova_conf: nova.conf, database: "mysql://u@h/x", broker: null}')
    assert (cell.database.shown, cell.broker) == ("mysql+pymysql://u@h/x", None)


def test_nova_conf_says_how_its_cell_is_registered(tmp_path: Path) -> None:
    """Its own name, the file that stands for the table, how soon a change is seen; else Nova's defaults."""
    (tmp_path / "nova.conf").write_text(
        f"{NOVA_CONF}\n[cells]\nname = c-one\ncells_config = /etc/c.json\ndb_check_interval = 7\n"
    )
    nova = parent(tmp_path, "{name: a, nova_conf: nova.conf}").nova
    assert nova is not None
    assert (nova.cell_name, nova.cells_config, nova.check_interval) == ("c-one", "/etc/c.json", 7)
    (tmp_path / "nova.conf").write_text(NOVA_CONF)
    nova = parent(tmp_path, "{name: a, nova_conf: nova.conf}").nova
    assert nova is not None
    assert (nova.cell_name, nova.cells_config, nova.check_interval) == (None, None, 60)
    assert parent(tmp_path, '{name: a, database: "mysql://h/n"}').nova is None


def test_other_services_are_reached_by_name(tmp_path: Path) -> None:
    """Databases as any other, passwords encoded and starred; addresses without a user."""
    cell = parent(
        tmp_path,
        '{name: a, database: "mysql://h/n", databases: {cinder: "mysql://u:${PW}@h/cinder"}, '
        'endpoints: {keystone: "http://h:5000/v3", glance: "https://[::1]:9292"}}',
        {"PW": "p@/:%"},
    )
    assert cell.databases["cinder"].shown == "mysql+pymysql://u:***@h/cinder"
    assert "p%40%2F%3A%25" in cell.databases["cinder"].url.reveal()
    assert cell.endpoints == {"keystone": "http://h:5000/v3", "glance": "https://[::1]:9292"}


def test_the_legacy_option_of_nova_conf_is_read(tmp_path: Path) -> None:
    """sql_connection is how Nova said it before Grizzly; no transport_url means no broker."""
    (tmp_path / "nova.conf").write_text("[DEFAULT]\nsql_connection = 'mysql://u:p@h/nova'\n")
    cell = parent(tmp_path, "{name: a, nova_conf: nova.conf}")
    assert (cell.database.shown, cell.broker) == ("mysql+pymysql://u:***@h/nova", None)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ("[database]\nconnection mysql hunter2\n", "line 2 is not 'option = value'"),
        ("connection = mysql://u:hunter2@h/nova\n", "line 1 is not 'option = value'"),
        ("[database]\nconnection = mysql://u:$hunter2@h/nova\n", "refers to another option"),
        ("[database]\nconnection = mysql://u:hunter2@h\n", "[database] connection in"),
        ("[DEFAULT]\ntransport_url = hunter2\n[database]\nconnection = mysql://h/n", "[DEFAULT] transport"),
        ("[DEFAULT]\n", "database is missing: write one"),
        ("[database]\nconnection = mysql://u:hunter2\xff@h/nova\n", "not UTF-8"),
    ],
)
def test_a_bad_nova_conf_is_told_without_its_secrets(tmp_path: Path, conf: str, message: str) -> None:
    """oslo.config's own messages repeat the line that they do not understand."""
    (tmp_path / "nova.conf").write_bytes(conf.encode("latin-1"))
    text = problems(tmp_path, f"parent: {{name: a, nova_conf: nova.conf}}\n{CHILD}")
    assert message in text
    assert "hunter2" not in text


# -- Client option files -----------------------------------------------------------------------

MY_CNF = r"""
# a comment = 1
; another
!include /etc/nowhere.cnf
!includedir /etc/nowhere/
user = outside
[mysqld]
user = mysql
port = 1
[client]
user = cellsync   # who
password = "p#a\"ss\\w\sord"
host='10.0.0.9'
port=3307
ssl
ssl-ca = /etc/ssl/ca.pem
password
[client-mariadb]
ssl_cert = /etc/ssl/cert.pem
socket = /run/mysqld/mysqld.sock
[cellsync]
ssl_key=/etc/ssl/key.pem
"""


def test_a_client_option_file_gives_what_the_url_does_not_say(tmp_path: Path) -> None:
    """Quotes, comments, dashes, options without a value and includes are read as MariaDB does."""
    (tmp_path / "my.cnf").write_text(MY_CNF)
    database = url(parent(tmp_path, '{name: a, defaults_file: my.cnf, database: "mysql:///nova"}'))
    assert (database.username, database.password) == ("cellsync", 'p#a"ss\\w ord')
    assert (database.host, database.port, database.database) == ("10.0.0.9", 3307, "nova")
    assert dict(database.query) == {
        "charset": "utf8mb4",
        "ssl_ca": "/etc/ssl/ca.pem",
        "ssl_cert": "/etc/ssl/cert.pem",
        "ssl_key": "/etc/ssl/key.pem",
    }


def test_what_the_url_says_wins_over_the_option_file(tmp_path: Path) -> None:
    """One option file may serve all cells, each with its own host."""
    (tmp_path / "my.cnf").write_text(MY_CNF)
    text = '{name: a, defaults_file: ~/my.cnf, database: "mysql://me:mine@h:5/n?ssl_ca=/own"}'
    database = url(parent(tmp_path, text, {"HOME": str(tmp_path)}))
    assert (database.username, database.password, database.host, database.port) == ("me", "mine", "h", 5)
    assert database.query["ssl_ca"] == "/own"


def test_an_option_file_completes_the_url_of_nova_conf(tmp_path: Path) -> None:
    """cellsync may have a user of its own where Nova's URL names none."""
    (tmp_path / "my.cnf").write_text("[client]\nuser=u\npassword=p\n")
    (tmp_path / "nova.conf").write_text("[database]\nconnection = mysql://db/nova\n")
    cell = parent(tmp_path, "{name: a, defaults_file: my.cnf, nova_conf: nova.conf}")
    assert cell.database.url.reveal() == "mysql+pymysql://u:p@db/nova?charset=utf8mb4"


@pytest.mark.parametrize(("host", "socket"), [("", "/s"), ("localhost", "/s"), ("10.0.0.1", None)])
def test_the_socket_of_an_option_file_counts_on_localhost_only(
    tmp_path: Path, host: str, socket: str | None
) -> None:
    """PyMySQL prefers a socket to any host: a remote cell would be read from the local server."""
    (tmp_path / "my.cnf").write_text("[client]\nsocket=/s\n")
    cell = parent(tmp_path, f'{{name: a, defaults_file: my.cnf, database: "mysql://{host}/nova"}}')
    assert url(cell).query.get("unix_socket") == socket


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("[client]\nport=hunter2\n", "the port in the defaults_file is not a number"),
        ("[client]\npassword=hunter2\n", "a password but no user"),
        ("[client]\npassword=hunter2\xff\n", "not UTF-8"),
    ],
)
def test_a_bad_option_file_is_told_without_its_secrets(tmp_path: Path, options: str, message: str) -> None:
    """Its password is never part of the message."""
    (tmp_path / "my.cnf").write_bytes(options.encode("latin-1"))
    text = problems(tmp_path, f'parent: {{name: a, defaults_file: my.cnf, database: "mysql:///n"}}\n{CHILD}')
    assert message in text
    assert "hunter2" not in text


def test_an_option_file_is_refused_for_sqlite(tmp_path: Path) -> None:
    """It would change nothing, which somebody should know."""
    (tmp_path / "my.cnf").write_text("[client]\nuser=u\n")
    text = f'parent: {{name: a, defaults_file: my.cnf, database: "sqlite:///x"}}\n{CHILD}'
    assert "a defaults_file is for MariaDB" in problems(tmp_path, text)


@given(password=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n"), min_size=1))
def test_any_quoted_password_of_an_option_file_is_read_back(folder: Path, password: str) -> None:
    """Quotes and backslashes are escaped as the MariaDB manual says."""
    escaped = password.replace("\\", "\\\\").replace('"', '\\"')
    (folder / "my.cnf").write_text(f'[client]\nuser=u\npassword="{escaped}"\n', encoding="utf-8")
    cell = parent(folder, '{name: a, defaults_file: my.cnf, database: "mysql:///nova"}')
    assert url(cell).password == password
