from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping

import pytest

from exo.cluster.inventory import Inventory, InventoryNode
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.pools import pool_name
from exo.cluster.proxy.reconcile import (
    Action,
    Add,
    BreakOff,
    Drain,
    Forget,
    Joined,
    Key,
    Misfit,
    Ready,
    Remove,
    SetSlots,
    SetWeight,
    Wanted,
    managed_backends,
    plan,
    reconcile,
    unaddable,
)
from exo.cluster.proxy.runtime_api import ProxyState, Server

POOL = pool_name(["m"])
LISTINGS, RESPONSES = f"{POOL}_get", f"{POOL}_responses"
BACKENDS = frozenset([POOL, LISTINGS, RESPONSES, "another"])
TABLES = frozenset([POOL, RESPONSES, "another"])
INVENTORY = Inventory(nodes=(InventoryNode(name="a", address="10.0.0.1", slots=2, models=("m",)),))
LISTED, _ = plan(INVENTORY, [], BACKENDS)
OWN = (
    Server(POOL, "a", 1, "10.0.0.1", 52415, slots=2),
    Server(LISTINGS, "a", 1, "10.0.0.1", 52415),
)
NEW = Server(POOL, "c", 3, "10.0.0.3", 52415, slots=1)
DRAINED = dataclasses.replace(NEW, draining=True)
C = Wanted(POOL, "c", "10.0.0.3", 52415, 100, 1, is_listed=False)


def decide(
    servers: Iterable[Server],
    wanted: Iterable[Wanted] = (),
    *,
    leaving: Mapping[Key, float] | None = None,
    known: Container[str] | None = None,
) -> list[Action]:
    """With the node of the inventory in place."""
    state = ProxyState(BACKENDS, TABLES, (*OWN, *servers))
    return reconcile([*LISTED, *wanted], state, managed_backends(INVENTORY), leaving or {}, known=known, patience=300)


def joined(name: str, *models: str, slots: int = 1) -> Joined:
    return Joined(NodeDescription(name, slots=slots, models=models), "10.0.0.3", 52415)


def test_a_node_has_two_servers_and_only_one_of_them_a_limit() -> None:
    wanted, misfits = plan(INVENTORY, [joined("c", "m", "n", slots=4)], BACKENDS)
    assert misfits == []
    assert wanted == [
        Wanted(POOL, "a", "10.0.0.1", 52415, 100, 2, is_listed=True),
        Wanted(LISTINGS, "a", "10.0.0.1", 52415, 100, None, is_listed=True),
        Wanted(POOL, "c", "10.0.0.3", 52415, 100, 4, is_listed=False),
        Wanted(LISTINGS, "c", "10.0.0.3", 52415, 100, None, is_listed=False),
    ]


def test_who_fits_nowhere_is_named_with_what_to_do() -> None:
    wanted, misfits = plan(INVENTORY, [joined("c", "x"), joined("d")], BACKENDS)
    assert [one.name for one in wanted] == ["a", "a"]
    assert [one.name for one in misfits] == ["c", "d"]
    assert "has x, which no pool takes" in misfits[0].reason
    assert "no model" in misfits[1].reason
    wanted, misfits = plan(INVENTORY, [joined("c", "m")], frozenset())
    assert wanted == []
    assert [one.name for one in misfits] == ["a", "c"]
    assert all("render the proxy's configuration again" in one.reason for one in misfits)


def test_nothing_is_to_be_done_where_all_is_as_it_should_be() -> None:
    assert decide([]) == []
    assert decide([NEW], [C]) == []


def test_a_new_node_is_added() -> None:
    assert decide([], [C]) == [Add(C)]


def test_who_is_not_wanted_is_drained_and_removed_once_it_is_empty() -> None:
    tables = tuple(sorted([POOL, RESPONSES]))
    assert decide([NEW]) == [Drain(NEW, tables)]
    busy, queued = dataclasses.replace(DRAINED, sessions=1), dataclasses.replace(DRAINED, queued=1)
    assert decide([busy]) == [Forget(busy, tables)]
    assert decide([queued]) == [Forget(queued, tables)]
    assert decide([DRAINED]) == [Remove(DRAINED, tables)]
    half = dataclasses.replace(NEW, in_maintenance=True)
    assert decide([half]) == [Remove(half, tables)]


def test_the_listings_of_a_node_have_no_table() -> None:
    server = dataclasses.replace(NEW, backend=LISTINGS)
    assert decide([server]) == [Drain(server, ())]


def test_patience_with_sessions_ends_only_where_nobody_answers() -> None:
    busy = dataclasses.replace(DRAINED, sessions=1)
    silent = dataclasses.replace(busy, is_down=True)
    assert [type(action) for action in decide([busy], leaving={(POOL, "c"): 301.0})] == [Forget]
    assert [type(action) for action in decide([silent], leaving={(POOL, "c"): 299.0})] == [Forget]
    (action,) = decide([silent], leaving={(POOL, "c"): 301.0})
    assert isinstance(action, Remove)
    assert action.even_busy


def test_nobody_goes_before_all_had_the_time_to_show_themselves() -> None:
    assert decide([NEW], known=()) == []
    assert decide([DRAINED], known=("d",)) == []
    assert [type(action) for action in decide([NEW], known=("c",))] == [Drain]


def test_what_a_hanging_server_runs_is_broken_off_and_nothing_else_changes() -> None:
    busy = dataclasses.replace(OWN[0], is_down=True, sessions=2)
    state = ProxyState(BACKENDS, TABLES, (busy, OWN[1]))
    found = reconcile(LISTED, state, managed_backends(INVENTORY), {}, known=None, patience=300, hanging={(POOL, "a")})
    assert found == [BreakOff(busy)]
    assert reconcile([], state, frozenset(), {}, known=None, patience=300, hanging={(POOL, "a")}) == []


def test_who_comes_back_takes_requests_again() -> None:
    assert decide([DRAINED], [C]) == [Ready(DRAINED)]
    maintained = dataclasses.replace(NEW, in_maintenance=True)
    assert decide([maintained], [C]) == [Ready(maintained)]


def test_a_listed_node_that_somebody_has_drained_by_hand_stays_so() -> None:
    listed, drained = dataclasses.replace(C, is_listed=True), DRAINED
    assert decide([drained], [listed]) == []
    assert decide([drained], [listed], leaving={(POOL, "c"): 1.0}) == [Ready(drained)]


def test_weight_and_slots_are_changed_in_place() -> None:
    assert decide([NEW], [dataclasses.replace(C, weight=7)]) == [SetWeight(NEW, 7)]
    assert decide([NEW], [dataclasses.replace(C, slots=3)]) == [SetSlots(NEW, 3)]
    unlimited = dataclasses.replace(NEW, slots=None)
    assert decide([unlimited], [C]) == [SetSlots(unlimited, 1)]


@pytest.mark.parametrize("change", [{"address": "10.0.0.4"}, {"port": 1}])
def test_another_address_is_another_server_which_waits_for_the_first_to_go(change: dict[str, str | int]) -> None:
    moved = dataclasses.replace(C, **change)  # type: ignore[arg-type]  # either of them
    assert [type(action) for action in decide([NEW], [moved])] == [Drain]
    assert [type(action) for action in decide([DRAINED], [moved])] == [Remove]
    assert decide([], [moved]) == [Add(moved)]


def test_one_address_may_be_written_in_many_ways() -> None:
    server = dataclasses.replace(NEW, address="2001:db8::1")
    assert decide([server], [dataclasses.replace(C, address="2001:DB8:0:0::1")]) == []


def test_a_host_name_is_the_proxys_to_look_up() -> None:
    named = dataclasses.replace(C, address="board.lan", is_listed=True)
    assert decide([dataclasses.replace(NEW, host="board.lan")], [named]) == []
    assert [type(action) for action in decide([NEW], [named])] == [Drain]
    assert decide([], [named]) == []
    assert unaddable([named], ProxyState(BACKENDS, TABLES, ())) == [
        Misfit(
            "c",
            "it has a host name and is not in the running proxy yet: render the proxy's configuration again and "
            "reload it",
        )
    ]


def test_other_backends_are_left_alone() -> None:
    assert decide([dataclasses.replace(NEW, backend="another")]) == []
