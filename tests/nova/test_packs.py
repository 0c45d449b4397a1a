"""Nova's own code sees in a child what cellsync pushed there, and not before; and it goes on from there.

Each test runs with ``nova-cells-v1`` on main databases and with ``nova-api`` on databases nova_api.
"""

from __future__ import annotations

from uuid import NAMESPACE_DNS, uuid5

import asking
import yaml
from asking import NovaCell, Question, Topology, Trial
from deployment import AGGREGATE_RULES
from servers import sql

KEY = "ssh-ed25519 AAAAC3 somebody"


def uuid(name: str) -> str:
    """Return the uuid of something that has a name here."""
    return str(uuid5(NAMESPACE_DNS, name))


ASKED: dict[str, Question] = {
    "zones": ("zones", {}),
    "zone of h1": ("host_zone", {"host": "h1"}),
    "aggregates of h1": ("aggregates_by_host", {"host": "h1"}),
    "aggregates of h2": ("aggregates_by_host", {"host": "h2"}),
    "aggregates with a zone": ("aggregates_by_metadata_key", {"key": "availability_zone"}),
    "aggregates with ssd=true": ("aggregates_by_metadata", {"key": "ssd", "value": "true"}),
    "flavor new": ("flavor", {"flavorid": "new"}),
    "flavor old": ("flavor", {"flavorid": "old"}),
    "flavors of p1": ("flavors", {"project": "p1", "admin": False}),
    "flavors of p2": ("flavors", {"project": "p2", "admin": False}),
    "key pair": ("key_pair", {"user": "u1", "name": "mine"}),
    "group near": ("server_group", {"uuid": uuid("near")}),
    "group apart": ("server_group", {"uuid": uuid("apart")}),
    "group of i1": ("server_group_of", {"instance": uuid("i1")}),
    "group of i2": ("server_group_of", {"instance": uuid("i2")}),
}
"""What the scheduler, the metadata service and nova-api look up."""

EAST = {"name": "east", "hosts": ["h1"], "metadata": {"availability_zone": "az-east", "ssd": "true"}}
WEST = {"name": "west", "hosts": ["h2"], "metadata": {"availability_zone": "az-west"}}
SIZES = {"memory_mb": 2048, "rxtx_factor": 1.1, "is_public": False}
OLD = {"id": 1, "name": "old-flavor", **SIZES}
NEW = {"id": 2, "name": "new-flavor", **SIZES}
NEAR = {"name": "near-group", "policy": "affinity", "members": [uuid("i1"), uuid("i3")]}
APART = {"name": "apart-group", "policy": "anti-affinity", "members": [uuid("i2")]}

BEFORE = {
    "zones": {"az-old": ["h2"], "nova": ["h1"]},
    "zone of h1": "nova",
    "aggregates of h1": [],
    "aggregates of h2": [WEST | {"metadata": {"availability_zone": "az-old"}}],
    "aggregates with a zone": [WEST | {"metadata": {"availability_zone": "az-old"}}],
    "aggregates with ssd=true": [],
    "flavor new": "FlavorNotFound",
    "flavor old": OLD | {"extra_specs": {}, "projects": ["p1"]},
    "flavors of p1": ["old-flavor"],
    "flavors of p2": [],
    "key pair": "KeypairNotFound",
    "group near": "InstanceGroupNotFound",
    "group apart": APART | {"members": []},
    "group of i1": "InstanceGroupNotFound",
    "group of i2": "InstanceGroupNotFound",
}
AFTER = {
    "zones": {"az-east": ["h1"], "az-west": ["h2"]},
    "zone of h1": "az-east",
    "aggregates of h1": [EAST],
    "aggregates of h2": [WEST],
    "aggregates with a zone": [EAST | {"metadata": {"availability_zone": "az-east"}}, WEST],
    "aggregates with ssd=true": ["east"],
    "flavor new": NEW | {"extra_specs": {"hw:cpu_policy": "dedicated"}, "projects": ["p2"]},
    "flavor old": OLD | {"extra_specs": {"hw:numa_nodes": "2"}, "projects": ["p1", "p2"]},
    "flavors of p1": ["old-flavor"],
    "flavors of p2": ["new-flavor", "old-flavor"],
    "key pair": KEY,
    "group near": NEAR,
    "group apart": APART,
    "group of i1": NEAR,
    "group of i2": APART,
}
assert BEFORE.keys() == AFTER.keys() == ASKED.keys()


def write_both(trial: Trial) -> None:
    """Have Nova write everything in the parent, and in the child what is old there: other ids, and less."""
    trial.run_hosts("h1", "h2")
    old, new = {"name": "old-flavor", "flavorid": "old"}, {"name": "new-flavor", "flavorid": "new"}
    trial.write(
        trial.parent,
        ("create_aggregate", EAST),
        ("create_aggregate", WEST),
        ("create_flavor", old | {"extra_specs": {"hw:numa_nodes": "2"}, "projects": ["p1", "p2"]}),
        ("create_flavor", new | {"extra_specs": {"hw:cpu_policy": "dedicated"}, "projects": ["p2"]}),
        ("create_key_pair", {"user": "u1", "name": "mine", "public_key": KEY}),
        ("create_server_group", NEAR | {"uuid": uuid("near")}),
        ("create_server_group", APART | {"uuid": uuid("apart")}),
    )
    trial.write(
        trial.c1,
        ("create_aggregate", WEST | {"metadata": {"availability_zone": "az-old"}}),
        ("create_flavor", old | {"extra_specs": {}, "projects": ["p1"]}),
        ("create_server_group", APART | {"uuid": uuid("apart"), "members": []}),
    )


def test_nova_finds_in_a_child_what_a_repair_pushed_until_an_undo(trial: Trial, topology: Topology) -> None:
    """Which is what cellsync is for."""
    write_both(trial)
    cells = topology(trial.urls, trial.pack)
    before = cells.checksums()
    assert trial.c1.found(ASKED) == BEFORE
    done = cells.process("repair", "--yes")
    assert done.code == 0, done.said
    assert trial.c1.found(ASKED) == AFTER
    undone = cells.process("undo", cells.last_run(), "--yes")
    assert undone.code == 0, undone.said
    assert trial.c1.found(ASKED) == BEFORE
    assert cells.checksums() == before


# -- Nova goes on ------------------------------------------------------------------------------


def aggregates(cell: NovaCell) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return name -> (hosts, metadata) of all aggregates that Nova finds in a cell, none of them twice."""
    rows = {
        "aggregates": "name",
        "aggregate_hosts": "aggregate_id, host",
        "aggregate_metadata": "aggregate_id, `key`",
    }
    for table, key in rows.items():
        assert not sql(cell.api, f"SELECT {key} FROM {table} GROUP BY {key} HAVING COUNT(*) > 1")
    return {each["name"]: (each["hosts"], each["metadata"]) for each in cell.ask("aggregates")}


def ids(cell: NovaCell) -> dict[str, int]:
    """Return name -> id of the aggregates of a cell."""
    return dict(sql(cell.api, "SELECT name, id FROM aggregates"))


def write_aggregates(trial: Trial) -> None:
    """Have Nova write the aggregates in the parent that the tests are about."""
    trial.run_hosts("h1", "h2", "h3")
    aggregates = (
        {"name": "kept", "metadata": {"availability_zone": "az-kept"}, "hosts": ["h1"]},
        {"name": "moved", "metadata": {"ssd": "true", "disk": "old"}, "hosts": ["h2"]},
        {"name": "gone", "metadata": {"purpose": "none"}, "hosts": ["h3"]},
        {"name": "again", "metadata": {"round": "1"}, "hosts": ["h3"]},
        {"name": "lost", "metadata": {"purpose": "test"}, "hosts": ["h2"]},
    )
    trial.write(trial.parent, *(("create_aggregate", aggregate) for aggregate in aggregates))


def go_on_in_the_parent(trial: Trial) -> None:
    """Have Nova change, rename, delete and create aggregates in the parent."""
    trial.write(
        trial.parent,
        ("rename_aggregate", {"name": "moved", "to": "moved-on"}),
        ("set_metadata", {"name": "moved-on", "metadata": {"ssd": "fast", "disk": None, "net": "10g"}}),
        ("add_host", {"name": "moved-on", "host": "h1"}),
        ("delete_host", {"name": "moved-on", "host": "h2"}),
        ("delete_aggregate", {"name": "gone"}),
        ("delete_aggregate", {"name": "again"}),
        ("create_aggregate", {"name": "again", "metadata": {"round": "2"}, "hosts": ["h3"]}),
        ("create_aggregate", {"name": "new", "metadata": {"purpose": "more"}, "hosts": ["h2"]}),
    )


def go_on_in_the_child(trial: Trial) -> None:
    """Have Nova do the same in the child, on rows of its own and on those that cellsync wrote."""
    trial.write(
        trial.c1,
        ("create_aggregate", {"name": "own", "metadata": {"owner": "c1"}, "hosts": ["h3"]}),
        ("rename_aggregate", {"name": "own", "to": "own-still"}),
        ("create_aggregate", {"name": "brief", "metadata": {"owner": "c1"}, "hosts": ["h3"]}),
        ("delete_aggregate", {"name": "brief"}),
        ("rename_aggregate", {"name": "kept", "to": "kept-otherwise"}),
        ("add_host", {"name": "kept-otherwise", "host": "h3"}),
        ("delete_host", {"name": "kept-otherwise", "host": "h1"}),
        ("set_metadata", {"name": "moved", "metadata": {"ssd": "false", "disk": None, "local": "yes"}}),
        ("delete_aggregate", {"name": "lost"}),
    )


def test_nova_goes_on_in_both_and_a_repair_doubles_and_loses_nothing(
    trial: Trial, topology: Topology
) -> None:
    """What the child made stays; what the parent says comes; what the parent deleted is reported."""
    write_aggregates(trial)
    cells = topology(trial.urls, trial.pack)
    done = cells.run("repair", "--yes")
    assert done.code == 0, done.said
    pushed = ids(trial.c1)
    go_on_in_the_child(trial)
    go_on_in_the_parent(trial)
    done = cells.run("repair", "--yes")
    assert done.code == 1, done.said
    assert aggregates(trial.c1) == {
        "again": (["h3"], {"round": "2"}),
        "gone": (["h3"], {"purpose": "none"}),
        "kept": (["h1", "h3"], {"availability_zone": "az-kept"}),
        "lost": (["h2"], {"purpose": "test"}),
        "moved-on": (["h1", "h2"], {"ssd": "fast", "net": "10g", "local": "yes"}),
        "new": (["h2"], {"purpose": "more"}),
        "own-still": (["h3"], {"owner": "c1"}),
    }
    now = ids(trial.c1)
    assert {name: now[name] for name in ("again", "gone", "kept", "moved-on")} == {
        "again": pushed["again"],
        "gone": pushed["gone"],
        "kept": pushed["kept"],
        "moved-on": pushed["moved"],
    }
    found = cells.json("diff")
    assert found.counts(*AGGREGATE_RULES) == {
        "c1": {"aggregates": (0, 0, 2), "aggregate-metadata": (0, 0, 3), "aggregate-hosts": (0, 0, 4)}
    }
    assert found.findings() == []
    before = cells.checksums()
    done = cells.repair()
    assert (done.code, done.cell("c1")["changes"]["planned"], cells.checksums()) == (1, 0, before)


def test_what_nova_deleted_on_both_sides_is_in_step_and_may_come_again(
    trial: Trial, topology: Topology
) -> None:
    """Deleted rows of main databases stand in nobody's way."""
    write_aggregates(trial)
    cells = topology(trial.urls, trial.pack)
    assert cells.repair().code == 0
    for cell in (trial.c1, trial.parent):
        trial.write(cell, *(("delete_aggregate", {"name": name}) for name in ids(trial.parent)))
    assert (aggregates(trial.c1), cells.json("diff").code) == ({}, 0)
    again = {"name": "kept", "metadata": {"availability_zone": "az-kept"}, "hosts": ["h1"]}
    trial.write(trial.parent, ("create_aggregate", again))
    assert cells.repair().code == 0
    assert aggregates(trial.c1) == {"kept": (["h1"], {"availability_zone": "az-kept"})}


def removing(pack: str) -> str:
    """Return a pack whose rules take away what cellsync wrote and Nova deleted in the parent."""
    loaded = yaml.safe_load((asking.ROOT / "rules" / f"{pack}.yaml").read_text(encoding="utf-8"))
    removal = "soft_delete" if "soft_delete" in loaded["defaults"] else "delete"
    loaded["defaults"] |= {"on_extra": removal, "removes": "pushed"}
    return str(yaml.safe_dump({**loaded, "pack": "removing"}, sort_keys=False))


def test_what_nova_deleted_in_the_parent_goes_where_the_rules_say_so(
    trial: Trial, topology: Topology
) -> None:
    """Only rows that cellsync wrote: what Nova made in the child stays, were it of the same name."""
    write_aggregates(trial)
    cells = topology(trial.urls, trial.pack).rule_file(removing(trial.pack))
    assert cells.repair().code == 0
    trial.write(
        trial.c1,
        ("create_aggregate", {"name": "own", "metadata": {"owner": "c1"}, "hosts": ["h3"]}),
        ("add_host", {"name": "kept", "host": "h3"}),
        ("set_metadata", {"name": "moved", "metadata": {"local": "yes"}}),
    )
    there = aggregates(trial.c1)
    trial.write(
        trial.parent,
        ("delete_aggregate", {"name": "gone"}),
        ("set_metadata", {"name": "moved", "metadata": {"disk": None}}),
        ("delete_host", {"name": "moved", "host": "h2"}),
    )
    done = cells.run("repair", "--yes")
    assert done.code == 1, done.said
    left = {name: told for name, told in there.items() if name != "gone"}
    left["moved"] = ([], {"ssd": "true", "local": "yes"})
    assert aggregates(trial.c1) == left
    undone = cells.run("undo", cells.last_run(), "--yes")
    assert (undone.code, aggregates(trial.c1)) == (0, there), undone.said
    assert cells.repair().code == 1
    trial.write(trial.c1, ("create_aggregate", {"name": "gone", "metadata": {}, "hosts": ["h1"]}))
    assert cells.repair().code == 1
    assert aggregates(trial.c1) == {**left, "gone": (["h1"], {})}


def test_a_pushed_aggregate_stays_while_it_has_a_host_that_nova_added_in_the_child(
    trial: Trial, topology: Topology
) -> None:
    """Nova would not delete it either; what cellsync wrote of it goes.

    Where the removal is a DELETE, the foreign key of aggregate_hosts forbids it: that is a finding before
    anything is tried. A soft delete breaks no foreign key, and the plan skips it.
    """
    write_aggregates(trial)
    cells = topology(trial.urls, trial.pack).rule_file(removing(trial.pack))
    assert cells.repair().code == 0
    trial.write(trial.c1, ("add_host", {"name": "gone", "host": "h1"}))
    trial.write(trial.parent, ("delete_aggregate", {"name": "gone"}))
    done = cells.run("repair", "--yes")
    assert done.code == 1, done.said
    if trial.pack == "nova-api":
        (finding,) = [line for line in done.said.splitlines() if "name=gone" in line and "refer" in line]
        assert "aggregate_hosts" in finding
    else:
        assert "aggregates name=gone: rows of aggregate-hosts that stay refer to it" in done.said
    assert aggregates(trial.c1)["gone"] == (["h1"], {})
    trial.write(trial.c1, ("delete_host", {"name": "gone", "host": "h1"}))
    assert cells.repair().code == 0
    assert "gone" not in aggregates(trial.c1)
