"""cluster.toml: the nodes behind one address, and how the proxy in front of them is set up.

deploy/cluster.example.toml has every key with its meaning.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from exo.types.card import LATEST

INVENTORY = "cluster.toml"
"""The usual name of the file, in the folder where a command is called."""
_MODEL = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*\Z"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z"
_HOST = r"^[A-Za-z0-9:][A-Za-z0-9.:-]*\Z"
_PATH = r"^/[A-Za-z0-9._~+/@-]+\Z"
_LABEL_NAME = r"^[a-zA-Z][a-zA-Z0-9_]*\Z"
_LABEL_VALUE = r"^[^\x00-\x1f\x7f]*\Z"
_KEY = r"^[!-~]+\Z"
_STATS = r"^[A-Za-z0-9._-]+:[A-Za-z0-9._!@%+=,-]+\Z"

Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
Slots: TypeAlias = Annotated[int, Meta(ge=1, le=1024)]
Weight: TypeAlias = Annotated[int, Meta(ge=1, le=256)]
Model: TypeAlias = Annotated[str, Meta(pattern=_MODEL, max_length=200)]
Models: TypeAlias = Annotated[tuple[Model, ...], Meta(min_length=1)]
Name: TypeAlias = Annotated[str, Meta(pattern=_NAME, max_length=63)]
Host: TypeAlias = Annotated[str, Meta(pattern=_HOST, max_length=253)]
PlainPath: TypeAlias = Annotated[str, Meta(pattern=_PATH, max_length=1000)]
"""An absolute path that needs no quotes in any of the rendered files."""
Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=86_400)]
LabelName: TypeAlias = Annotated[str, Meta(pattern=_LABEL_NAME, max_length=100)]
LabelValue: TypeAlias = Annotated[str, Meta(pattern=_LABEL_VALUE, max_length=200)]


PATTERNS = {
    _MODEL: "letters, digits and . _ : / @ + -, beginning with a letter or digit",
    _NAME: "letters, digits and . _ -, beginning with a letter or digit",
    _HOST: "an IP address or a host name, without a port",
    _PATH: "a path that begins with / and has letters, digits and . _ ~ + / @ - only",
    _LABEL_NAME: "letters, digits and _, beginning with a letter",
    _LABEL_VALUE: "text on one line",
    _KEY: "characters of ASCII without blanks",
    _STATS: "USER:PASSWORD without blanks and quotes",
}
"""What the patterns mean, for messages."""


def routing_name(model: str) -> str:
    """What a proxy compares: nodes take a name in any case, and with `:latest`."""
    return model.lower().removesuffix(LATEST)


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class InventoryNode(_Table, frozen=True, kw_only=True):
    """One node. `slots` is how many requests it runs at the same time, `weight` its share next to the others.

    `models` are the ids that it serves. `labels` go with its metrics.
    """

    name: Name
    address: Host
    port: Port = 52415
    slots: Slots = 1
    models: Models = ()
    weight: Weight = 100
    labels: dict[LabelName, LabelValue] = {}


class NodeDefaults(_Table, frozen=True, kw_only=True):
    """What a node has that does not say otherwise."""

    port: Port | None = None
    slots: Slots | None = None
    models: Models | None = None
    weight: Weight | None = None


class Proxy(_Table, frozen=True, kw_only=True):
    """The proxy in front of the nodes. Times are in seconds, `max_body` is in bytes.

    `metrics_port` of HAProxy serves its metrics and its page of statistics, to `metrics_address` only. `admin_socket`
    is where `exo cluster watch` speaks to it; `admin_user` owns it, root without one.
    """

    address: Host = "0.0.0.0"
    port: Port = 52415
    metrics_address: Host = "127.0.0.1"
    metrics_port: Port = 8404
    admin_socket: PlainPath = "/run/haproxy/exo-admin.sock"
    admin_user: Name | None = None
    user: Name = "haproxy"
    max_body: Annotated[int, Meta(ge=16_384, le=16_777_216)] = 262_144
    max_connections: Annotated[int, Meta(ge=16, le=100_000)] = 2000
    queue_timeout: Seconds = 300
    answer_timeout: Seconds = 300
    slow_start: Seconds = 10
    conversation_memory: Seconds = 3600


class Tls(_Table, frozen=True, kw_only=True):
    """`certificate` is a PEM file with the chain and the private key."""

    certificate: PlainPath


class Keys(_Table, frozen=True, kw_only=True):
    """Keys of the nodes, for what speaks to them on the cluster's own account. A name that ends in `_file` is a path.

    `nodes` reads metrics; `admin` may switch drain mode. `stats` is USER:PASSWORD for HAProxy's page.
    """

    nodes: Annotated[str, Meta(pattern=_KEY, max_length=500)] | None = None
    nodes_file: str | None = None
    admin: Annotated[str, Meta(pattern=_KEY, max_length=500)] | None = None
    admin_file: str | None = None
    stats: Annotated[str, Meta(pattern=_STATS)] | None = None


class Inventory(_Table, frozen=True, kw_only=True):
    """The whole file. `aliases` are further names of models, which their nodes know too."""

    nodes: Annotated[tuple[InventoryNode, ...], Meta(min_length=1, max_length=1000)]
    name: Name = "exo"
    secret_file: str | None = None
    defaults: NodeDefaults = NodeDefaults()
    aliases: dict[Model, Model] = {}
    proxy: Proxy = Proxy()
    tls: Tls | None = None
    keys: Keys = Keys()

    @property
    def models(self) -> tuple[str, ...]:
        """The ids of all models, in the order of the file."""
        return tuple(dict.fromkeys(model for node in self.nodes for model in node.models))
