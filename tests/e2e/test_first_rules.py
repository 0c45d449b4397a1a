"""`rules init` on real databases: validate takes the draft of their tables, and diff works with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployment import Deployment
from edges import MakeDatabase, execute
from sqlalchemy.engine import make_url

SUPPLIER = (
    "CREATE TABLE supplier (id INT AUTO_INCREMENT PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE, "
    "name VARCHAR(90), created_at DATETIME NOT NULL)"
)
PRODUCT = (
    "CREATE TABLE product (id INT AUTO_INCREMENT PRIMARY KEY, sku VARCHAR(20) NOT NULL, title VARCHAR(90), "
    "supplier_id INT NOT NULL, stock INT NOT NULL DEFAULT 0, UNIQUE KEY uq_sku (sku), "
    "CONSTRAINT fk_supplier FOREIGN KEY (supplier_id) REFERENCES supplier (id))"
)
PRICE = (
    "CREATE TABLE price (product_id INT NOT NULL, currency CHAR(3) NOT NULL, amount DECIMAL(9, 2), "
    "PRIMARY KEY (product_id, currency))"
)


@pytest.fixture
def shop(database: MakeDatabase, tmp_path: Path) -> Deployment:
    """Give a hub with suppliers, products and prices, and two branches without rows and rules."""
    urls = {name: database() for name in ("hub", "north", "south")}
    for url in urls.values():
        execute(url, SUPPLIER, PRODUCT, PRICE)
    execute(
        urls["hub"],
        "CREATE VIEW dear AS SELECT * FROM price WHERE amount > 99",
        "INSERT INTO supplier VALUES (7, 'acme', 'Acme', '2026-01-01')",
        "INSERT INTO product VALUES (40, 's-1', 'Saw', 7, 3), (41, 's-2', 'Axe', 7, 0)",
        "INSERT INTO price VALUES (40, 'EUR', 9.5), (41, 'EUR', 19.9), (41, 'USD', 24)",
    )
    return Deployment(urls=urls, folder=tmp_path, rules=()).configure()


def _without(shop: Deployment, cell: str) -> Deployment:
    """Return the shop with a cell whose database is not there."""
    gone = make_url(shop.urls[cell]).set(database="gone").render_as_string(hide_password=False)
    return shop.configure(urls={**shop.urls, cell: gone})


def test_a_draft_is_valid_and_repairs(shop: Deployment) -> None:
    """With all tables in it nothing is open; a repair then writes what the hub has, by natural keys."""
    file = shop.folder / "shop.yaml"
    done = shop.run("rules", "init", "price", "product", "supplier", "-o", str(file))
    assert (done.code, done.out) == (0, "")
    assert done.err == "9 guesses to check, nothing is open\n"
    assert shop.run("rules", "validate", str(file)).out == "shop: 3 rules, no problems\n"
    assert shop.run("-r", str(file), "diff").code == 1
    assert shop.run("-r", str(file), "repair", "--yes").code == 0
    assert shop.run("-r", str(file), "diff").code == 0
    joined = (
        "SELECT p.sku, s.code, r.currency, r.amount FROM price r JOIN product p ON p.id = r.product_id "
        "JOIN supplier s ON s.id = p.supplier_id ORDER BY 1, 3"
    )
    assert shop.sql("north", joined) == shop.sql("south", joined) == shop.sql("hub", joined) != []


def test_all_tables_are_all_but_views_and_versions(shop: Deployment) -> None:
    """A view has no rows of its own, and a version table says what the others are."""
    execute(shop.urls["hub"], "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    drafted = shop.run("rules", "init", "--all").out
    tables = [line.partition(": ")[2] for line in drafted.splitlines() if line.startswith("  - table: ")]
    assert tables == ["supplier", "product", "price"]
    assert "requires: {equal_versions: [alembic_version]}" in drafted


def test_a_child_that_does_not_answer_is_named_in_the_draft(shop: Deployment) -> None:
    """Its tables are not looked at, the others' are."""
    execute(shop.urls["north"], "ALTER TABLE product DROP COLUMN stock")
    gone = _without(shop, "south")
    done = gone.run("rules", "init", "product", "supplier")
    assert done.code == 0
    assert "# note: south did not answer, so its tables were not looked at: " in done.out
    assert "# guess: north has no column stock" in done.out


def test_a_parent_that_does_not_answer_ends_the_command(shop: Deployment) -> None:
    """Without it there is nothing to draft from, and no file is left."""
    gone = _without(shop, "hub")
    done = gone.run("rules", "init", "product", "-o", str(shop.folder / "new.yaml"))
    assert (done.code, done.out) == (4, "")
    assert "hub" in done.err
    assert not (shop.folder / "new.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["prodct"], "hub has no table 'prodct'", id="no table"),
        pytest.param(["dear"], "hub has no table 'dear'", id="a view"),
        pytest.param([], "name the tables, or say --all", id="nothing"),
        pytest.param(["product", "--all"], "name the tables, or say --all", id="both"),
        pytest.param(["product", "-o", "cellsync.yaml"], "cellsync.yaml is there", id="a file that is there"),
    ],
)
def test_what_cannot_be_drafted_is_said(
    shop: Deployment, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """Exit code 2, nothing on standard output, and a file that somebody may have worked on stays."""
    monkeypatch.chdir(shop.folder)
    before = shop.config.read_text(encoding="utf-8")
    done = shop.run("rules", "init", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert shop.config.read_text(encoding="utf-8") == before
