"""nginx.conf: least connections over nodes that are alike."""

from __future__ import annotations

import json

from exo.cluster.inventory import Inventory
from exo.cluster.pools import pools_of
from exo.cluster.render.shared import ASK_THE_NODE, OWN_PATHS, OWN_PREFIXES, template
from exo.types import ConfigurationError, host_and_port


def nginx_conf(inventory: Inventory, header: str) -> str:
    """The whole file; `header` are its first lines. Raises ConfigurationError where the nodes have different models."""
    return template("nginx.conf.j2").render(
        header=header,
        max_connections=inventory.proxy.max_connections,
        load_balancer=load_balancer_conf(inventory),
    )


def load_balancer_conf(inventory: Inventory) -> str:
    """What belongs in the context `http`, for an nginx that is set up already. Raises ConfigurationError."""
    pools = pools_of(inventory)
    if len(pools) > 1:
        lists = "; ".join(", ".join(pool.models) for pool in pools)
        raise ConfigurationError(
            f"nginx does not route by model, and these nodes have different ones: {lists}. "
            "Render haproxy, or give nginx an inventory whose nodes are alike."
        )
    proxy = inventory.proxy
    error = {"message": ASK_THE_NODE, "type": "invalid_request_error", "param": None, "code": "ask_the_node"}
    return template("load-balancer.conf.j2").render(
        nodes=inventory.nodes,
        zone=256 + 4 * len(inventory.nodes),
        listen=host_and_port(proxy.address, proxy.port),
        tls=inventory.tls,
        max_body=proxy.max_body,
        answer_timeout=proxy.answer_timeout,
        own_paths=OWN_PATHS,
        own_prefixes=OWN_PREFIXES,
        ask_the_node=json.dumps({"error": error}),
    )
