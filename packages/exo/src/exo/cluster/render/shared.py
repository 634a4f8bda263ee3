"""What the renderers share."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from exo.types import host_and_port

if TYPE_CHECKING:
    from jinja2 import Template

    from exo.cluster.inventory import InventoryNode

OWN_PATHS = (
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/load_model",
    "/unload_model",
    "/v1/drain",
    "/metrics",
)
OWN_PREFIXES = ("/api/blobs", "/v1/cluster")
"""What concerns one node: its models, its drain mode, its metrics, its proof."""
ASK_THE_NODE = "This concerns a single node: ask that node itself, not the address of the cluster."


def template(name: str) -> Template:
    """A template of this package. It has no way to run code or to read files."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - nothing else here needs it

    environment = Environment(
        loader=PackageLoader("exo.cluster.render"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - these are no web pages; the inventory's patterns leave nothing to escape
    )
    environment.filters["place"] = _place
    environment.filters["quoted"] = quoted
    environment.filters["lookup"] = lookup
    return environment.get_template(name)


def lookup(node: InventoryNode) -> str:
    """Options of HAProxy for a node that has a host name in place of an address, else nothing."""
    try:
        ipaddress.ip_address(node.address)
    except ValueError:
        return " init-addr last,libc,none resolvers exo"
    return ""


def _place(node: InventoryNode) -> str:
    return host_and_port(node.address, node.port)


def quoted(text: str) -> str:
    """A text in YAML, in double quotes and in ASCII."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if " " <= character <= "~" else f"\\U{ord(character):08x}"
