"""history --repeated: rows that are repaired again and again."""

from __future__ import annotations

from deployment import Deployment
from rabbitmq import free_port
from registered import configured


def test_a_row_that_somebody_else_writes_too_is_named(cells: Deployment) -> None:
    """After three repairs, with its key; the others are not, nor is what an undo wrote."""
    for number in range(3):
        assert cells.repair("--rule", "aggregate-metadata").code in (0, 1)
        assert cells.json("history", "--repeated").report["repeated"] == [] or number == 2
        cells.sql(
            "c1",
            "UPDATE aggregate_metadata m JOIN aggregates a ON a.id = m.aggregate_id SET m.value = :value "
            "WHERE a.name = 'west' AND m.`key` = 'cpu_allocation_ratio'",
            value=f"9{number}",
        )
    (row,) = cells.json("history", "--repeated").report["repeated"]
    assert (row["cell"], row["rule"], row["runs"]) == ("c1", "aggregate-metadata", 3)
    assert row["key"] == {"aggregate_id": "west", "key": "cpu_allocation_ratio"}
    assert row["first"] < row["last"]
    text = cells.run("history", "--repeated")
    assert text.code == 0
    assert (
        "c1 aggregate-metadata aggregate_id=west key=cpu_allocation_ratio: written by 3 repairs" in text.out
    )
    assert "somebody else writes it too" in text.out


def test_nothing_is_repeated_where_nothing_was_written(cells: Deployment) -> None:
    """Nor where a journal cannot be read, which is said."""
    assert "no row was repaired again and again" in cells.run("history", "--repeated").out
    configured(cells, c1={"database": f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/n"})
    done = cells.run("history", "--repeated")
    assert (done.code, "cannot connect to c1" in done.err) == (4, True)
