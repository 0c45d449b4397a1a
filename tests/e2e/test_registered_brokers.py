"""cells create asks the brokers that it registers, and refuses those that do not answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import Deployment, Done
from listening import listening
from rabbitmq import RabbitMQ, free_port
from registered import as_row, brokers_of, rows, with_tables

pytestmark = pytest.mark.slow


def there(cells: Deployment) -> tuple[int, int]:
    """Return how many live rows the parent and c1 have."""
    return len(rows(cells, "parent", "deleted = 0")), len(rows(cells, "c1", "deleted = 0"))


@pytest.fixture
def empty(cells: Deployment) -> Deployment:
    """Give cells on one server, none of which is registered."""
    return with_tables(cells)


WRONG: dict[str, Callable[[RabbitMQ, str], str]] = {
    "refused": lambda _, name: f"rabbit://u:hunter2@127.0.0.1:{free_port()}/{name}",
    "auth": lambda rabbit, name: rabbit.url(name, password="hunter2"),
    "vhost": lambda rabbit, _: rabbit.url("nowhere"),
}


def create(cells: Deployment, *options: str) -> Done:
    """Register c1 at the brokers of the cell file."""
    return cells.run("cells", "create", "c1", "--yes", "--timeout", "1", *options)


@pytest.mark.parametrize("status", WRONG)
def test_a_broker_that_does_not_answer_is_refused(empty: Deployment, rabbit: RabbitMQ, status: str) -> None:
    """The child's, and the parent's for the other side; a waiver lifts it."""
    for asked, other in (("c1", "parent"), ("parent", "c1")):
        brokers_of(empty, **{asked: WRONG[status](rabbit, asked), other: rabbit.url(other)})
        done = create(empty)
        assert (done.code, there(empty)) == (3, (0, 0)), done.said
        assert f"the broker of {asked} does not take messages (" in done.said
        assert f": {status})" in done.said
        assert "hunter2" not in done.said
    assert create(empty, "--dry-run").code == 3
    assert create(empty, "--waive", "broker").code == 0
    assert there(empty) == (1, 1)


def test_a_broker_that_answers_is_registered(empty: Deployment, rabbit: RabbitMQ) -> None:
    """With the login that Nova reads from the row; that nobody listens there yet is said."""
    brokers_of(empty, parent=rabbit.url("parent"), c1=rabbit.url("c1"))
    with listening({"parent": (rabbit, "parent")}):
        done = create(empty)
    assert (done.code, there(empty)) == (0, (1, 1)), done.said
    assert rows(empty, "parent")[0][-1] == as_row(rabbit.url("c1"))
    assert "start nova-cells of c1: nobody takes messages at its broker yet" in done.out
    assert "start nova-cells of parent" not in done.out


def test_only_the_broker_of_a_row_that_is_written_is_asked(empty: Deployment, rabbit: RabbitMQ) -> None:
    """--side child writes no row that leads to the child's broker."""
    brokers_of(empty, parent=rabbit.url("parent"), c1=f"rabbit://u:p@127.0.0.1:{free_port()}/c1")
    assert create(empty, "--side", "child").code == 0
    assert create(empty, "--side", "parent").code == 3
    assert there(empty) == (0, 1)


def test_one_host_that_answers_is_enough(empty: Deployment, rabbit: RabbitMQ, tmp_path: Path) -> None:
    """As it is for Nova."""
    login = rabbit.url("c1").removeprefix("rabbit://").partition("@")[0]
    both = f"rabbit://{login}@127.0.0.1:{free_port()},{login}@{rabbit.address}/c1"
    brokers_of(empty, parent=rabbit.url("parent"), c1=both)
    assert create(empty).code == 0
