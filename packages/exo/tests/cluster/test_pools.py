from __future__ import annotations

import pytest

from exo.cluster.inventory import Inventory, InventoryNode
from exo.cluster.pools import Pool, pool_for, pool_name, pools_of


def node(name: str, *models: str) -> InventoryNode:
    return InventoryNode(name=name, address=name, models=models)


def test_nodes_with_the_same_models_make_a_pool() -> None:
    nodes = (node("a", "x", "y"), node("b", "z"), node("c", "y", "x", "y"))
    first, second = pools_of(Inventory(nodes=nodes))
    assert (first.models, first.nodes) == (("x", "y"), (nodes[0], nodes[2]))
    assert (second.models, second.nodes) == (("z",), (nodes[1],))


def test_a_pool_keeps_its_name_whatever_else_there_is() -> None:
    alone = pools_of(Inventory(nodes=(node("c", "y", "x"),)))
    assert alone[0].name == pool_name(["x", "y"]) == pool_name(["y", "x"])
    assert len({pool_name(["x"]), pool_name(["x", "y"]), pool_name(["y"]), pool_name(["X"])}) == 4
    assert pool_name(["Qwen/Qwen3:4b@x+y"]).startswith("pool_Qwen-Qwen3-4b-x-y_")
    assert len(pool_name(["m" * 200])) < 60


@pytest.mark.parametrize(
    ("models", "joined"), [("x", "x"), ("xy", "xy"), ("xyz", "xy"), ("xz", "x"), ("z", None), ("", None)]
)
def test_a_node_joins_the_pool_of_most_models_that_it_has(models: str, joined: str | None) -> None:
    pools = [Pool(pool_name(ids), tuple(ids), ()) for ids in ("x", "xy", "yq")]
    found = pool_for(list(models), pools)
    assert (found and "".join(found.models)) == joined
