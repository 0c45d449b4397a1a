"""Columns that no output shows: by their names, by patterns of the configuration, and never NULL."""

from __future__ import annotations

import pytest

from cellsync.model import HIDDEN, Secrets, safe

URL = "rabbit://nova:hunter2@h/v"


@pytest.mark.parametrize(
    "column",
    [
        "password",
        "admin_pass",
        "Admin_Password",
        "user_data",
        "key_data",
        "public_key",
        "auth_token",
        "secret",
        "encrypted_blob",
        "blob",
        "totp_secret",
        "password_hash",
        "private",
        "private_note",
    ],
)
def test_the_usual_secrets_are_hidden(column: str) -> None:
    """Whatever the table, and however the column is written."""
    assert Secrets().hides(column, table="t")
    assert safe(column, "hunter2") == HIDDEN


@pytest.mark.parametrize("column", ["name", "passthrough", "is_public", "key", "user_id", "hash", "blobs"])
def test_other_columns_are_shown(column: str) -> None:
    """Also those whose names only look a little like it."""
    assert not Secrets().hides(column)
    assert safe(column, "value") == "value"


def test_null_is_shown() -> None:
    """That there is no password is no secret, and often what is wrong."""
    assert safe("password", None) is None


def test_a_url_loses_its_password_alone_and_in_any_case() -> None:
    """Where a broker is helps those who look; its password never shows, whatever is configured."""
    assert safe("transport_url", URL) == "rabbit://nova:***@h/v"
    assert Secrets(show=("*",)).safe("transport_url", URL) == "rabbit://nova:***@h/v"
    assert Secrets(hide=("transport_url",)).safe("transport_url", URL) == HIDDEN


def test_a_configuration_hides_more_and_shows_some() -> None:
    """A pattern with a dot is about one table; hiding goes before showing."""
    secrets = Secrets(hide=("orders.note*", "*_iban"), show=("public_key", "orders.*", "*_iban"))
    assert secrets.hides("notes", table="orders") and not secrets.hides("notes", table="carts")
    assert secrets.hides("main_iban", table="carts")
    assert not secrets.hides("public_key", table="key_pairs")
    assert not secrets.hides("password", table="orders") and secrets.hides("password", table="carts")


def test_columns_that_need_no_look_show_every_value_as_it_is() -> None:
    """Whoever asks once for all columns leaves no secret out: neither a hidden one nor a URL."""
    columns = ("name", "Admin_Pass", "Transport_URL", "note", "password")
    secrets = Secrets(hide=("orders.note",), show=("orders.password",))
    assert secrets.veiled(columns, table="Orders") == {"Admin_Pass", "Transport_URL", "note"}
    assert secrets.veiled(columns, table="carts") == {"Admin_Pass", "Transport_URL", "password"}
    for column in {*columns} - secrets.veiled(columns, table="orders"):
        assert secrets.safe(column, URL, table="orders") == URL


def test_a_rule_file_hides_more_and_the_configuration_shows_it() -> None:
    """A pack knows its tables; who runs it has the last word."""
    secrets = Secrets(packs=("cards.number", "*_pin"), show=("door_pin",))
    assert secrets.hides("number", table="cards") and not secrets.hides("number", table="doors")
    assert secrets.hides("card_pin", table="cards") and not secrets.hides("door_pin", table="doors")
    assert secrets.veiled(("number", "id"), table="cards") == {"number"}


def test_all_of_a_usual_pattern_may_be_shown() -> None:
    """What the usual patterns hide, `show` may show, one by one."""
    assert not Secrets(show=("*",)).hides("password")
