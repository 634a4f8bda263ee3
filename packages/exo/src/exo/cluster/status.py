"""What the nodes of an inventory do at this moment."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping

import httpx2
import msgspec
from anyio import fail_after
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from exo.cluster.exchange import exchange
from exo.cluster.inventory import Inventory, InventoryNode
from exo.cluster.membership.verification import make_client
from exo.cluster.plain import plain
from exo.types import NodeFailed, host_and_port

TIMEOUT = 5.0
"""Seconds for a question with its answer."""
_LONGEST_ANSWER = 1024 * 1024
_LONGEST_LINE = 4096
"""Characters of a line of /metrics: for some the parser needs a time that grows with the square of these."""
_AT_ONCE = 64
_SPEED, _LOAD, _TEMPERATURE = "exo_tokens_per_second", "rkllm_npu_load_ratio", "rkllm_temperature_celsius"


class ReadyBody(msgspec.Struct):
    """What /ready answers, as far as it matters here."""

    ready: bool
    reason: str = ""
    draining: bool = False
    slots: int = 0
    running: int = 0
    queued: int = 0
    queue_limit: int = 0
    loaded: tuple[str, ...] = ()


class NodeStatus(msgspec.Struct, frozen=True):
    """What a node tells of itself, made printable. None is what it does not tell, `notes` say why.

    `reason` says why it is not ready. `tokens_per_second` is that of the answer that finished last, `npu_load` the mean
    of its cores from 0 to 1, `temperature` that of the hottest place in degrees Celsius.
    """

    name: str
    address: str
    port: int
    ready: bool
    reason: str = ""
    draining: bool = False
    slots: int | None = None
    running: int | None = None
    queued: int | None = None
    queue_limit: int | None = None
    loaded: tuple[str, ...] = ()
    tokens_per_second: float | None = None
    npu_load: float | None = None
    temperature: float | None = None
    notes: tuple[str, ...] = ()


async def ask_all(inventory: Inventory, key: str | None, *, timeout: float = TIMEOUT) -> list[NodeStatus]:
    """In the order of the inventory, all at the same time. `key` reads the metrics."""
    places = asyncio.Semaphore(_AT_ONCE)
    async with make_client() as client:

        async def ask(node: InventoryNode) -> NodeStatus:
            async with places:
                return await _ask(node, client, key, timeout)

        return list(await asyncio.gather(*map(ask, inventory.nodes)))


async def ask_ready(node: InventoryNode, client: httpx2.AsyncClient, *, timeout: float = TIMEOUT) -> ReadyBody:
    """What /ready of a node answers, be it ready or not. Raises NodeFailed."""
    _, content = await fetch(client, node, "GET", "/ready", timeout=timeout)
    return ready_in(content, node)


def ready_in(content: bytes, node: InventoryNode) -> ReadyBody:
    """Raises NodeFailed."""
    try:
        return msgspec.json.decode(content, type=ReadyBody)
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
        raise NodeFailed(f"What answers at {_place(node)} is no exo node.") from None


async def fetch(
    client: httpx2.AsyncClient,
    node: InventoryNode,
    method: str,
    path: str,
    *,
    key: str | None = None,
    body: bytes | None = None,
    timeout: float = TIMEOUT,
) -> tuple[int, bytes]:
    """Status and body of an answer. Raises NodeFailed."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["content-type"] = "application/json"
    url = f"http://{_place(node)}{path}"

    try:
        with fail_after(timeout):
            status, content = await exchange(client, method, url, headers=headers, body=body, longest=_LONGEST_ANSWER)
    except TimeoutError:
        raise NodeFailed(f"{node.name} at {_place(node)} does not answer within {timeout:g} seconds.") from None
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        why = plain(str(error)) or type(error).__name__
        raise NodeFailed(f"{node.name} at {_place(node)} cannot be reached: {why}.") from error
    if content is None:
        raise NodeFailed(f"{node.name} at {_place(node)} answers {path} without end.")
    return status, content


async def _ask(node: InventoryNode, client: httpx2.AsyncClient, key: str | None, timeout: float) -> NodeStatus:
    try:
        ready = await ask_ready(node, client, timeout=timeout)
    except NodeFailed as error:
        return NodeStatus(node.name, node.address, node.port, ready=False, reason="no answer", notes=(error.message,))
    try:
        measured = _measured(await _metrics(client, node, key, timeout), ready.loaded)
        notes: tuple[str, ...] = ()
    except NodeFailed as error:
        measured, notes = {}, (error.message,)
    return NodeStatus(
        node.name,
        node.address,
        node.port,
        ready=ready.ready,
        reason=plain(ready.reason),
        draining=ready.draining,
        slots=ready.slots,
        running=ready.running,
        queued=ready.queued,
        queue_limit=ready.queue_limit,
        loaded=tuple(plain(model, 80) for model in ready.loaded),
        notes=notes,
        **measured,
    )


async def _metrics(client: httpx2.AsyncClient, node: InventoryNode, key: str | None, timeout: float) -> str:
    status, content = await fetch(client, node, "GET", "/metrics", key=key, timeout=timeout)
    if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        said = "does not know the key of the inventory (keys.nodes_file)" if key else "asks for a key (keys.nodes_file)"
        raise NodeFailed(f"{node.name} {said}; so its metrics are not shown.")
    if status != httpx2.codes.OK:
        raise NodeFailed(f"{node.name} answers /metrics with status {status}.")
    return content.decode("utf-8", "replace")


def _measured(text: str, loaded: Iterable[str]) -> dict[str, float | None]:
    """The numbers in the text of /metrics, for the models that are loaded."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {_SPEED: [], _LOAD: [], _TEMPERATURE: []}
    for sample in _samples(text):
        if sample.name in samples:
            samples[sample.name].append((sample.labels, sample.value))
    own = frozenset(loaded)
    speeds = [value for labels, value in samples[_SPEED] if labels.get("model") in own and value > 0]
    loads = [value for _, value in samples[_LOAD]]
    return {
        "tokens_per_second": max(speeds, default=None),
        "npu_load": sum(loads) / len(loads) if loads else None,
        "temperature": max((value for _, value in samples[_TEMPERATURE]), default=None),
    }


def _samples(text: str) -> Iterator[Sample]:
    """Those that are wanted, up to the first line that makes no sense."""
    lines = text.split("\n")
    own = [line for line in lines if line.startswith((_SPEED, _LOAD, _TEMPERATURE)) and len(line) <= _LONGEST_LINE]
    with contextlib.suppress(ValueError, KeyError, IndexError):  # whatever the parser stumbles over
        for family in text_string_to_metric_families("\n".join(own)):
            yield from (sample for sample in family.samples if math.isfinite(sample.value))


def _place(node: InventoryNode) -> str:
    return host_and_port(node.address, node.port)
