from __future__ import annotations

import pytest

from exo.cluster.inventory import Inventory, InventoryNode
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.verification import Refused, Verified
from exo.cluster.proxy.standing import Found, Listed, judge, listed_in

LISTED = Listed(frozenset({"a"}), {("10.0.0.1", 52415): "a"})


def sighting(name: str, *addresses: str, port: int = 52415) -> Sighting:
    return Sighting(f"{name}-instance", NodeDescription(name), addresses or ("10.0.0.9",), port)


def proven(name: str, address: str = "10.0.0.9") -> Verified:
    return Verified(NodeDescription(name, slots=4), address, 52415)


def told(found: list[Found]) -> list[tuple[str, str, str]]:
    return [(one.node.name, one.standing, one.reason) for one in found]


def test_name_and_address_of_the_inventory_need_no_proof() -> None:
    assert told(judge({"x": sighting("a", "192.0.2.1", "10.0.0.1")}, {}, LISTED)) == [("a", "listed", "")]
    assert told(judge({"x": sighting("host7", "10.0.0.1")}, {}, LISTED)) == [("host7", "listed", "as a")]


def test_a_proof_makes_a_node_verified_and_its_own_word_does_not_count() -> None:
    (one,) = judge({"x": sighting("c", "10.0.0.7", "10.0.0.9")}, {"x": proven("c")}, LISTED)
    assert (one.standing, one.addresses, one.node.slots) == ("verified", ("10.0.0.9",), 4)


@pytest.mark.parametrize(
    ("proofs", "reason"),
    [
        ({}, "it was not asked for its proof"),
        ({"x": Refused("it has no cluster secret", reachable=True)}, "it has no cluster secret"),
    ],
)
def test_without_a_proof_a_node_is_unknown(proofs: dict[str, Verified | Refused], reason: str) -> None:
    assert told(judge({"x": sighting("c")}, proofs, LISTED)) == [("c", "unknown", reason)]
    assert told(judge({"x": sighting("a")}, proofs, LISTED)) == [("a", "unknown", reason)]
    assert told(judge({"x": sighting("a", "10.0.0.1")}, proofs, None)) == [("a", "unknown", reason)]


@pytest.mark.parametrize("name", ["a", "A"])
def test_nobody_takes_a_name_of_the_inventory(name: str) -> None:
    found = judge({"x": sighting(name)}, {"x": proven(name)}, LISTED)
    assert told(found) == [(name, "unknown", "its name is taken, by the inventory")]


def test_nobody_takes_a_name_that_haproxy_needs() -> None:
    assert told(judge({"x": sighting("BACKEND")}, {"x": proven("BACKEND")}, LISTED))[0][1] == "unknown"


def test_who_came_first_keeps_name_and_address() -> None:
    sightings = {"x": sighting("c", "10.0.0.8"), "y": sighting("C"), "z": sighting("d", "10.0.0.8")}
    proofs = {"x": proven("c", "10.0.0.8"), "y": proven("C"), "z": proven("d", "10.0.0.8")}
    assert told(judge(sightings, proofs, LISTED)) == [
        ("c", "verified", ""),
        ("C", "unknown", "its name is taken, by 10.0.0.8:52415"),
        ("d", "unknown", "its address is taken, by c"),
    ]
    proofs = {instance: proofs[instance] for instance in ("y", "z", "x")}
    assert [one.instance for one in judge(sightings, proofs, LISTED) if one.standing == "verified"] == [
        "C-instance",
        "d-instance",
    ]


def test_a_false_announcement_does_not_move_a_proven_node() -> None:
    found = judge({"x": sighting("c", "10.0.0.1")}, {"x": proven("c")}, LISTED)
    assert told(found) == [("c", "verified", "")]


async def test_host_names_are_looked_up_and_what_is_unknown_has_no_place() -> None:
    nodes = (
        InventoryNode(name="Here", address="localhost", models=("m",)),
        InventoryNode(name="b", address="no-such-host.invalid", models=("m",)),
        InventoryNode(name="c", address="2001:DB8::0:1", port=1, models=("m",)),
    )
    listed = await listed_in(Inventory(nodes=nodes))
    assert listed.names == {"here", "b", "c"}
    assert listed.places["127.0.0.1", 52415] == "Here"
    assert listed.places["2001:db8::1", 1] == "c"
    assert set(listed.places.values()) == {"Here", "c"}
