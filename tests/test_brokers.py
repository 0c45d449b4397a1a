"""Transport URLs: taken apart and put together as oslo.messaging does it, and never shown with a password."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsync.model import Broker, BrokerHost, Secret, masked, safe

TEXTS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=12)
AWKWARD = ["@ / : % #", "p@ss/1%", "a,b", "[x]", "%41", "é固", " ", "?ssl=0", "a!b", "+"]
VHOSTS = [None, "/", "c1", "a/b", "a b", "%2F", "é"]
HOSTS = st.sampled_from(["10.0.0.1", "mq-1.example", "::1", "fe80::1:2", "localhost"])


JUDGE = """
import json, sys
import oslo_messaging
from oslo_config import cfg
for line in sys.stdin:
    try:
        url = oslo_messaging.TransportURL.parse(cfg.ConfigOpts(), json.loads(line))
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
        continue
    hosts = [[host.hostname, host.port, host.username, host.password] for host in url.hosts]
    print(json.dumps([hosts, url.virtual_host, str(url)]), flush=True)
"""


class Judge:
    """oslo.messaging's own parser, in a process of its own: it brings eventlet, which warns of every fork."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, url: str) -> tuple[list[list[Any]], str, str] | str:
        """Return (host, port, user, password) of every host, the virtual host, and the URL written anew.

        Of a URL that it does not read, return the name and the text of the error.
        """
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None and answered is not None
        asked.write(f"{json.dumps(url)}\n")
        asked.flush()
        answer = json.loads(answered.readline())
        return answer if isinstance(answer, str) else (answer[0], answer[1], answer[2])


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """Give oslo.messaging's own parser."""
    command = [sys.executable, "-W", "ignore", "-c", JUDGE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        yield Judge(process)
        process.terminate()


def made(password: str, hosts: list[tuple[str, int]], vhost: str | None, user: str = "nova") -> Broker:
    """Return a broker of these hosts."""
    parts = tuple(BrokerHost(host, port, user, Secret(password)) for host, port in hosts)
    return Broker(scheme="rabbit", hosts=parts, virtual_host=vhost)


def check(judge: Judge, broker: Broker) -> None:
    """See that both parsers read from the URL what it was made of, and write it alike.

    oslo.messaging begins with ``urlsplit``, which in Pythons since 2025 rejects an IPv6 host among several
    ones: it may give no judgement of such a URL, and of no other.
    """
    url = str(broker)
    ours = Broker.parse(url)
    assert ours.hosts == broker.hosts
    assert ours.virtual_host == (broker.virtual_host or "")
    assert str(ours) == url
    answer = judge(url)
    if isinstance(answer, str):
        assert len(broker.hosts) > 1 and any(":" in host.host for host in broker.hosts), answer
        with pytest.raises(ValueError) as rejected:  # noqa: PT011 - its text is compared
            urlsplit(url)
        assert answer == f"ValueError: {rejected.value}"
        return
    hosts, virtual_host, text = answer
    assert hosts == [
        [h.host, h.port, h.username, h.password.reveal() if h.password else None] for h in broker.hosts
    ]
    assert virtual_host == (broker.virtual_host or "")
    assert text == url


def test_the_judge_reports_what_it_cannot_read_and_lives_on(judge: Judge) -> None:
    """A URL that ``urlsplit`` of every Python rejects, and then a right one."""
    assert judge("rabbit://u:p@[::1/v") == "ValueError: Invalid IPv6 URL"
    assert judge("rabbit://u:p@h:5672/v") == ([["h", 5672, "u", "p"]], "v", "rabbit://u:p@h:5672/v")


def test_no_answer_of_cellsync_depends_on_the_urlsplit_of_the_python() -> None:
    """What it takes differs between 3.10, 3.11.2 of Debian 12, 3.11.4, 3.13.2 and later ones."""
    modules = sorted((Path(__file__).parents[1] / "cellsync").rglob("*.py"))
    used = [
        path.name
        for path in modules
        if re.search(r"\burl(split|parse)\b\(|import.*\burl(split|parse)\b", path.read_text("utf-8"))
    ]
    assert used == []


@pytest.mark.parametrize("vhost", VHOSTS)
@pytest.mark.parametrize("password", AWKWARD)
def test_awkward_passwords_and_vhosts_go_through_oslo_messaging(
    judge: Judge, password: str, vhost: str | None
) -> None:
    """One host, an IPv6 host, and three hosts."""
    check(judge, made(password, [("10.0.0.1", 5672)], vhost))
    check(judge, made(password, [("::1", 5673)], vhost))
    check(judge, made(password, [("h1", 5672), ("h2", 5673), ("fe80::1", 5674)], vhost))


@given(TEXTS, TEXTS, st.lists(st.tuples(HOSTS, st.integers(1, 65535)), min_size=1, max_size=3), TEXTS)
def test_any_password_user_and_vhost_goes_through_oslo_messaging(
    judge: Judge, password: str, user: str, hosts: list[tuple[str, int]], vhost: str
) -> None:
    """Random texts, all of Unicode."""
    check(judge, made(password, hosts, vhost, user))


URLS = [
    ("rabbit://h", [("h", None, None)], "/", False),
    ("rabbit://u:p@h:5672//", [("h", 5672, "u")], "/", False),
    ("rabbit://u:p@[::1]:5672/v?ssl=1", [("::1", 5672, "u")], "v", True),
    ("amqps://u:p@h/v", [("h", None, "u")], "v", True),
    ("rabbit://u:p@h1:5672,u:q@h2:5673/v", [("h1", 5672, "u"), ("h2", 5673, "u")], "v", False),
]


@pytest.mark.parametrize(("url", "hosts", "vhost", "tls"), URLS)
def test_a_url_is_taken_apart(url: str, hosts: list[Any], vhost: str, tls: bool) -> None:
    """What a login needs to know."""
    broker = Broker.parse(url)
    assert [(host.host, host.port, host.username) for host in broker.hosts] == hosts
    assert (broker.vhost, broker.tls) == (vhost, tls)


def test_a_port_that_is_not_written_is_the_schemes() -> None:
    """5672, or 5671 for amqps."""
    assert Broker.parse("rabbit://[::1]/v").addresses == ("[::1]:5672",)
    assert Broker.parse("amqps://h/v").addresses == ("h:5671",)


WRONG = [
    "", "h:5672", "rabbit:/h", "rabbit://u:p@h:0/", "rabbit://u:p@h:65536/", "rabbit://u:p@h:x/", "rabbit://[::1/v",
    "rabbit://u:hunter2/x@h/v", "rabbit://u:p@h,h2/v", "rabbit://u:a@hunter2@h/v",
]  # fmt: skip


@pytest.mark.parametrize("url", WRONG)
def test_what_is_no_url_is_refused_without_a_part_of_it(url: str) -> None:
    """It may hold a password."""
    with pytest.raises(ValueError, match=r"URL|HOST|port") as refused:
        Broker.parse(url)
    assert "hunter2" not in str(refused.value)


@given(TEXTS.filter(lambda text: len(text) > 3), st.sampled_from(VHOSTS))
def test_no_shown_url_holds_its_password(password: str, vhost: str | None) -> None:
    """As it was encoded, and raw, as nova-manage writes it."""
    url = str(made(f"hunter{password}", [("h1", 5672), ("h2", 5672)], vhost))
    assert "hunter" not in masked(url)
    assert "hunter" not in masked(f"rabbit://u:hunter{password}@h:5672/v")
    assert safe("transport_url", url) == masked(url)
    assert safe("name", url) == url
