"""prometheus.yml and the rules beside it."""

from __future__ import annotations

from exo.cluster.inventory import Inventory
from exo.cluster.monitoring.rules import rule_files
from exo.cluster.render.shared import template
from exo.types import host_and_port

_SAME_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def prometheus_files(inventory: Inventory, key: str | None, header: str) -> dict[str, str]:
    """The text of each file by its name; `key` reads the metrics of nodes, `header` begins prometheus.yml.

    Prometheus is taken to run on the proxy's machine, where HAProxy listens on all addresses.
    """
    proxy, rules = inventory.proxy, rule_files()
    address = _SAME_MACHINE.get(proxy.metrics_address, proxy.metrics_address)
    config = template("prometheus.yml.j2").render(
        header=header,
        key=key,
        nodes=inventory.nodes,
        rule_files=tuple(rules),
        haproxy=host_and_port(address, proxy.metrics_port),
    )
    return {"prometheus.yml": config, **rules}
