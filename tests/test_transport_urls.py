"""Transport URLs by release: read and written as the real oslo.messaging of that time does, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import parse_url
from transport_judges import PERCENT, RAW, Judge, Judged, JudgedHost, open_judge

from cellsync.model import (
    RELEASES,
    Broker,
    BrokerHost,
    Escaping,
    NovaRelease,
    Secret,
    masked,
    release_of_schema,
)

ESCAPINGS = {**dict.fromkeys(RAW, Escaping.RAW), **dict.fromkeys(PERCENT, Escaping.PERCENT)}
FOREIGN = "@/?#,[]"
"""What no user or password may have before oslo.messaging 5.2.0, beside what is not ASCII."""
TEXTS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=12)
USUAL = st.text(st.sampled_from("aZ09%+!$&'()*-._~;=:^|<>{}\"\\ @/?#,[]é4"), min_size=1, max_size=12)
HOSTS = st.lists(
    st.tuples(
        st.sampled_from(["10.0.0.1", "mq-1.example", "::1", "fe80::1:2", "localhost"]), st.integers(1, 65535)
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def judges() -> Iterator[dict[str, Judge]]:
    """Give the real parser of each release."""
    with ExitStack() as leaving:
        yield {version: leaving.enter_context(open_judge(version)) for version in ESCAPINGS}


def broker(password: str, user: str = "nova", vhost: str | None = "c1") -> Broker:
    """Return a broker with one host."""
    return Broker(scheme="rabbit", hosts=(BrokerHost("h", 5672, user, Secret(password)),), virtual_host=vhost)


def as_judged(found: Broker) -> Judged:
    """Return what cellsync read from a URL as the judge would say it."""
    hosts = (
        JudgedHost(each.host, each.port, each.username, each.password.reveal() if each.password else None)
        for each in found.hosts
    )
    return Judged(hosts=tuple(hosts), virtual_host=found.virtual_host)


def is_refused_by_urlsplit(url: str) -> bool:
    """Say whether this Python does not split a URL, which all releases leave to it."""
    try:
        urlsplit(url)
    except ValueError:
        return True
    return False


def check_written(judges: dict[str, Judge], asked: Broker, version: str) -> None:
    """See that the release reads from the written URL what it was made of, and cellsync too."""
    url = asked.write(ESCAPINGS[version])
    expected = as_judged(asked)._replace(virtual_host=asked.virtual_host or "")
    assert judges[version](url)._replace(written="") == expected
    assert as_judged(Broker.parse(url, ESCAPINGS[version])) == expected


@pytest.mark.parametrize("version", ESCAPINGS)
@pytest.mark.parametrize("password", ["pw%41+!$x", "%", "a:b", "a b", "x;y", "~!$&'()*+=^|<>{}\"\\"])
def test_a_password_is_read_as_the_release_reads_it(
    judges: dict[str, Judge], version: str, password: str
) -> None:
    """With % + ! $ and :, which every release can hold, each in its own way."""
    check_written(judges, broker(password, user="no%20va+"), version)
    check_written(judges, broker(password, vhost="/"), version)
    check_written(judges, broker(password, vhost=None), version)


def test_a_raw_row_is_not_decoded_and_a_later_one_is() -> None:
    """The row that nova-manage of Liberty writes for pw%41+!$x."""
    url = "rabbit://nova:pw%41+!$x@h:5672/c1"
    assert Broker.parse(url, Escaping.RAW).hosts[0].password == Secret("pw%41+!$x")
    assert Broker.parse(url, Escaping.PERCENT).hosts[0].password == Secret("pwA+!$x")
    assert broker("pw%41+!$x").write(Escaping.RAW) == url


@given(USUAL | TEXTS, USUAL | TEXTS, HOSTS, st.none() | USUAL | TEXTS)
def test_any_login_is_written_as_its_release_reads_it_or_refused_by_its_characters(
    judges: dict[str, Judge], password: str, user: str, hosts: list[tuple[str, int]], vhost: str | None
) -> None:
    """All of Unicode; what is refused has a character that is named, and what has none is never refused."""
    parts = tuple(BrokerHost(host, port, user, Secret(password)) for host, port in hosts)
    asked = Broker(scheme="rabbit", hosts=parts, virtual_host=vhost)
    for version, escaping in ESCAPINGS.items():
        try:
            url = asked.write(escaping)
        except ValueError as refused:
            named = str(refused)
            raw = escaping is Escaping.RAW
            wrong = {
                "user": {each for each in user if raw and (each in f"{FOREIGN}:" or not _plain(each))},
                "password": {each for each in password if raw and (each in FOREIGN or not _plain(each))},
                "virtual host": {each for each in vhost or "" if each in ";%?#@" or not each.isprintable()},
            }
            assert any(wrong.values())
            for part, characters in wrong.items():
                assert not characters or part == "virtual host" or f"the {part} has" in named
                if part != "virtual host":
                    assert all(each in named or f"U+{ord(each):04X}" in named for each in characters)
            continue
        said = judges[version](url)
        if said.error and is_refused_by_urlsplit(url):
            # New Pythons take no address in brackets beside another host, whatever the release.
            assert len(hosts) > 1 and any(":" in host for host, _ in hosts)
            continue
        assert said.error == ""
        assert [tuple(each) for each in said.hosts] == [
            (each.host, each.port, each.username, password) for each in asked.hosts
        ]
        assert said.virtual_host == (vhost or "")
        assert as_judged(Broker.parse(url, escaping)) == said._replace(written="")


def _plain(character: str) -> bool:
    return character.isascii() and character.isprintable()


@given(st.text(st.sampled_from("u:p@/?#,[]%41h.x =&;+"), max_size=24))
def test_any_url_is_read_as_the_release_reads_it_or_called_wrong(judges: dict[str, Judge], text: str) -> None:
    """cellsync is stricter than oslo.messaging, and never reads something else."""
    for version, escaping in ESCAPINGS.items():
        try:
            ours = Broker.parse(f"rabbit://{text}", escaping)
        except ValueError:
            continue
        said = judges[version](f"rabbit://{text}")
        if said.error:
            continue
        if any("@" in (host.host or "") for host in said.hosts):
            assert escaping is Escaping.RAW
            logins = [(each.host, each.port or 5672, each.username, each.password) for each in ours.hosts]
            assert log_in(said) == [(*login[:3], login[3] and login[3].reveal()) for login in logins]
        else:
            assert as_judged(ours) == said._replace(written="")


def log_in(said: Judged) -> list[tuple[Any, ...]]:
    """Return where and as whom the driver (impl_rabbit) logs in: it makes URLs for kombu of what was read."""
    found = []
    for host in said.hosts:
        user, password = quote(host.username or ""), quote(host.password or "")
        made = parse_url(f"amqp://{user}:{password}@{host.host}:{host.port or 5672}/")
        found.append((made["hostname"], made["port"], made["userid"], made["password"]))
    return found


@pytest.mark.parametrize("version", RAW)
@pytest.mark.parametrize("password", ["p@ss", "a@b@c", "pw%41@b"])
def test_an_at_that_nova_manage_wrote_is_read_as_nova_logs_in(
    judges: dict[str, Judge], version: str, password: str
) -> None:
    """By an accident it works; cellsync writes none."""
    url = f"rabbit://nova:{password}@mq:5673/c1"
    found = Broker.parse(url, Escaping.RAW).hosts[0]
    assert found == BrokerHost("mq", 5673, "nova", Secret(password))
    assert log_in(judges[version](url)) == [("mq", 5673, "nova", password)]
    assert password not in masked(url) and masked(url) == "rabbit://nova:***@mq:5673/c1"
    for wrong in ("rabbit://no@va:p@mq/", "rabbit://nova:p@s:s@mq:1/", "rabbit://nova:p@s@[::1]:1/"):
        assert judges[version](wrong).error
        with pytest.raises(ValueError, match="HOST"):
            Broker.parse(wrong, Escaping.RAW)


@pytest.mark.parametrize("version", RAW)
@pytest.mark.parametrize("character", FOREIGN)
def test_what_the_old_grammar_cannot_hold_is_refused_with_its_characters(
    judges: dict[str, Judge], version: str, character: str
) -> None:
    """The real parser reads something else from such a URL, or nothing; later releases hold it."""
    password = f"a{character}b1"
    with pytest.raises(ValueError, match="password") as refused:
        broker(password).write(Escaping.RAW)
    assert str(refused.value) == f"the password has {character}"
    said = judges[version](f"rabbit://nova:{password}@h:5672/c1")
    assert said.error or as_judged(broker(password)) != said._replace(written="")
    check_written(judges, broker(password), "5.2.0")
    check_written(judges, broker(password), "current")


@pytest.mark.parametrize("escaping", Escaping)
def test_a_host_that_is_none_is_refused(escaping: Escaping) -> None:
    """Nobody could read the URL."""
    hosts = (BrokerHost("h/x", 5672, "u", Secret("p")),)
    with pytest.raises(ValueError, match="neither a name nor an address"):
        Broker(scheme="rabbit", hosts=hosts, virtual_host="c1").write(escaping)


def test_every_wrong_character_is_named_once() -> None:
    """Those of the user, the password and the virtual host, in the order in which they stand there."""
    with pytest.raises(ValueError, match="the") as refused:
        broker("b/@/é\n", user="x:y", vhost="a#b%20").write(Escaping.RAW)
    expected = "the virtual host has # and %; the user has :; the password has /, @, é and U+000A"
    assert str(refused.value) == expected


@pytest.mark.parametrize("version", RAW)
def test_options_of_the_url_are_for_later_releases(judges: dict[str, Judge], version: str) -> None:
    """Those of RAW refuse any: the row would be of no use."""
    url = "rabbit://u:p@h:5672/v?ssl=1"
    assert "query string" in judges[version](url).error
    assert judges["current"](url).error == ""
    with pytest.raises(ValueError, match="options behind a"):
        Broker.parse(url, Escaping.RAW)
    with pytest.raises(ValueError, match="options behind a"):
        Broker.parse(url).write(Escaping.RAW)


def test_the_driver_decodes_the_virtual_host_once_more() -> None:
    """kombu does, in every release: such a name is read as the driver logs in to it, and never written."""
    assert parse_url("amqp://u:p@h:5672/a%41b")["virtual_host"] == "aAb"
    assert Broker.parse("rabbit://h/a%41b", Escaping.RAW).vhost == "aAb"
    for escaping in Escaping:
        with pytest.raises(ValueError, match="virtual host has %"):
            broker("p", vhost="a%41b").write(escaping)


@pytest.mark.parametrize(
    ("version", "name", "escaping"),
    [
        (216, "havana", Escaping.PERCENT),
        (217, "icehouse", Escaping.RAW),
        (302, "liberty", Escaping.RAW),
        (319, "mitaka", Escaping.RAW),
        (320, "newton", Escaping.PERCENT),
        (391, "stein", Escaping.PERCENT),
        (402, "", Escaping.PERCENT),
    ],
)
def test_the_release_is_known_by_the_version_of_the_schema(
    version: int, name: str, escaping: Escaping
) -> None:
    """Havana had a parser of its own, which decodes; Newton has oslo.messaging 5.2.0 or later."""
    found = release_of_schema(version, "migrate_version")
    assert found is not None
    assert (found.name, found.escaping, found.source) == (name, escaping, f"migrate_version {version}")


def test_a_release_without_a_number_is_a_late_one_or_none() -> None:
    """Alembic's names came after the last release with cells v1."""
    found = release_of_schema("8f2f1571d55b", "alembic_version")
    assert found is not None and found.escaping is Escaping.PERCENT
    assert release_of_schema(None, "migrate_version") is None
    raw = [name for name in RELEASES if NovaRelease(name=name, source="").escaping is Escaping.RAW]
    assert raw == ["icehouse", "juno", "kilo", "liberty", "mitaka"]
