"""What the arguments of a URL mean for TLS: of two that say it, the stricter one counts."""

from __future__ import annotations

import pytest

from cellsync.model import Secret, Tls, Verify, tls


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", None),
        ("charset=utf8mb4", None),
        ("ssl_disabled=false", None),
        ("ssl_mode=PREFERRED", None),
        ("ssl_disabled=true", False),
        ("ssl=0", False),
        ("ssl_mode=DISABLED", False),
        ("ssl=1", Verify.NONE),
        ("ssl_mode=REQUIRED", Verify.NONE),
        ("ssl_cert=c", Verify.NONE),
        ("ssl_verify=identity", Verify.IDENTITY),
        ("ssl_ca=a", Verify.IDENTITY),
        ("ssl_ca=a ssl_verify=IDENTITY", Verify.IDENTITY),
        ("ssl_ca=a ssl_verify=ca", Verify.CA),
        ("ssl_ca=a ssl_verify=none", Verify.NONE),
        ("ssl_ca=a ssl_mode=VERIFY_CA", Verify.CA),
        ("ssl_ca=a ssl_mode=VERIFY_IDENTITY", Verify.IDENTITY),
        ("ssl_ca=a ssl_check_hostname=false", Verify.CA),
        ("ssl_ca=a ssl_verify_identity=off", Verify.CA),
        ("ssl_ca=a ssl_verify_cert=true", Verify.IDENTITY),
        ("ssl_ca=a ssl_verify_cert=no", Verify.NONE),
        ("ssl_verify_cert=yes", Verify.CA),
        ("ssl_verify_identity=1 ssl_verify_cert=0", Verify.IDENTITY),
        ("ssl_check_hostname=1 ssl_mode=REQUIRED", Verify.IDENTITY),
    ],
)
def test_the_arguments_say_what_is_verified(query: str, expected: Verify | bool | None) -> None:
    """A CA alone asks for everything; without any argument, client and server agree on it."""
    found = tls(dict(part.split("=") for part in query.split()))
    assert (found.verify if isinstance(found, Tls) else found) == expected


def test_the_files_are_taken_as_they_are() -> None:
    """The password of the key is a secret; of an argument that is given twice, the last one counts."""
    query = {"ssl_ca": ("x", "a"), "ssl_cert": "c", "ssl_key": "k", "ssl_key_password": "p"}
    found = tls(query)
    assert found == Tls(ca="a", cert="c", key="k", key_password=Secret("p"), verify=Verify.IDENTITY)
    assert "'p'" not in repr(found)


@pytest.mark.parametrize(
    "query",
    [
        "ssl_cacert=a",
        "sslca=a",
        "ssl_verify=maybe",
        "ssl_mode=x",
        "ssl_disabled=x",
        "ssl_key=k",
        "ssl=0 ssl_ca=a",
    ],
)
def test_what_makes_no_sense_is_refused_without_its_value(query: str) -> None:
    """A misspelled argument would leave the door open; a value may be a password in the wrong place."""
    with pytest.raises(ValueError, match=r"ssl|TLS") as raised:
        tls(
            {name: f"{value}-hunter2" if value != "0" else value for name, value in map(_pair, query.split())}
        )
    assert "hunter2" not in str(raised.value)


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value
