"""haproxy.cfg: one queue for each pool, and rules that find the pool of a request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from exo.cluster.inventory import Inventory, routing_name
from exo.cluster.pools import LISTINGS, RESPONSES, Pool, pools_of
from exo.cluster.render.shared import ASK_THE_NODE, OWN_PATHS, OWN_PREFIXES, lookup, template
from exo.types import host_and_port
from exo.types.card import AUTO_MODEL

_WORDS_PER_LINE = 40
"""HAProxy takes 64 words on a line."""
_QUEUE_LENGTHS = (1, 2, 4, 8, 16, 32, 64)
_EARLY_ERRORS = (
    (400, "The request is not HTTP as it should be."),
    (408, "The request did not arrive in time."),
)
"""Before it is known which dialect it is."""
_ERRORS = (
    (500, "The proxy failed."),
    (502, "The node broke off, or its answer is not HTTP."),
    (503, "No node could take the request: none with the model is up, or none had a slot in time. Try again later."),
    (504, "The node did not answer in time."),
)


def server_options(slow_start: int) -> str:
    """How a server is watched: down after two failed checks in a row or one failed connection, up after one success.

    A server that refuses connections has none, so that it looks like the one with the least to do, and would get
    each request and each second try until the next check: therefore the one failed connection.

    A node that hangs gets nothing more after 7 seconds at the latest: 2 until the next check, 2 for it to time out, 1
    until the second one and 2 for that. Its streams may go on, should it come to itself, until the time of an answer
    is over; `on-marked-down shutdown-sessions` would end them, but with them the request whose connection has failed,
    which another node can serve. Those of a node that is cut off are ended by TCP.
    """
    check = "check inter 2s fastinter 1s downinter 2s fall 2 rise 1"
    return f"{check} observe layer4 error-limit 1 on-error mark-down slowstart {slow_start}s"


@dataclass(frozen=True)
class _Condition:
    """The words of a rule that takes `pool`."""

    pool: str
    holds: str


@dataclass(frozen=True)
class _Choice:
    """The pools that have the same models of `names`: lines of names as requests write them, in lower case."""

    name: str
    pools: tuple[Pool, ...]
    names: tuple[str, ...]

    @property
    def conditions(self) -> list[_Condition]:
        return list(_conditions(self.pools))


def haproxy_cfg(inventory: Inventory, header: str) -> str:
    """The whole file; `header` are its first lines."""
    pools = pools_of(inventory)
    proxy = inventory.proxy
    choices, any_pool = _choices(inventory, pools), _all_of(pools)
    several = len(pools) > 1
    return template("haproxy.cfg.j2").render(
        header=header,
        proxy=proxy,
        tls=inventory.tls,
        keys=inventory.keys,
        bind=host_and_port(proxy.address, proxy.port),
        metrics_bind=host_and_port(proxy.metrics_address, proxy.metrics_port),
        pools=pools,
        choices=choices,
        any=any_pool,
        chosen_from={choice.name: choice for choice in (*choices, any_pool)}.values(),
        known=", ".join(inventory.models),
        listing=_listing(inventory) if several else None,
        tags=_tags(inventory) if several else None,
        auto=AUTO_MODEL,
        own_paths=OWN_PATHS,
        own_prefixes=OWN_PREFIXES,
        ask_the_node=ASK_THE_NODE,
        early_errors=_EARLY_ERRORS,
        errors=_ERRORS,
        has_names=any(lookup(node) for node in inventory.nodes),
        server_options=server_options(proxy.slow_start),
        suffix={"listings": LISTINGS, "responses": RESPONSES},
    )


def _choices(inventory: Inventory, pools: Sequence[Pool]) -> list[_Choice]:
    having: dict[tuple[int, ...], list[str]] = {}
    targets = {model: model for model in inventory.models} | inventory.aliases
    for name, model in targets.items():
        numbers = tuple(number for number, pool in enumerate(pools) if model in pool.models)
        having.setdefault(numbers, []).append(routing_name(name))
    return [
        _Choice(_choice_name(numbers), tuple(pools[number] for number in numbers), tuple(_lines(dict.fromkeys(names))))
        for numbers, names in having.items()
    ]


def _all_of(pools: Sequence[Pool]) -> _Choice:
    return _Choice(_choice_name(range(len(pools))), tuple(pools), ())


def _choice_name(numbers: Iterable[int]) -> str:
    return "pools_" + "_".join(str(number + 1) for number in numbers)


def _lines(names: dict[str, None]) -> Iterator[str]:
    words = list(names)
    for begin in range(0, len(words), _WORDS_PER_LINE):
        yield " ".join(words[begin : begin + _WORDS_PER_LINE])


def _conditions(pools: Sequence[Pool]) -> Iterator[_Condition]:
    """From the best reason for a pool to the last resort."""
    for pool in pools:
        yield _Condition(pool.name, f"{{ var(txn.response),in_table({pool.name}{RESPONSES}) }} {_is_up(pool)}")
    for pool in pools:
        yield _Condition(pool.name, f"{{ var(txn.follows),in_table({pool.name}) }} {_is_up(pool)}")
    for pool, share in zip(pools, _shares(pools)):  # else the first one would have all the work of quiet times
        yield _Condition(pool.name, f"{{ rand(1000) lt {share} }} {{ be_conn_free({pool.name}) gt 0 }}")
    for pool in pools:
        yield _Condition(pool.name, f"{{ be_conn_free({pool.name}) gt 0 }}")
    for length in _QUEUE_LENGTHS:
        for pool in pools:
            yield _Condition(pool.name, f"{{ avg_queue({pool.name}) lt {length} }} {_is_up(pool)}")
    for pool in pools:
        yield _Condition(pool.name, _is_up(pool))
    yield _Condition(pools[0].name, "")


def _is_up(pool: Pool) -> str:
    return f"{{ nbsrv({pool.name}) gt 0 }}"


def _shares(pools: Sequence[Pool]) -> Iterator[int]:
    """For each pool the thousandth part of its slots in those that are left, so that each slot is taken as often."""
    slots = [sum(node.slots for node in pool.nodes) for pool in pools]
    for number, own in enumerate(slots):
        yield round(1000 * own / sum(slots[number:]))


def _listing(inventory: Inventory) -> str:
    """The models in a shape that is OpenAI's and Anthropic's at the same time."""
    entries = [
        {
            "id": model,
            "object": "model",
            "created": 0,
            "owned_by": "exo",
            "type": "model",
            "display_name": model,
            "created_at": "1970-01-01T00:00:00Z",
        }
        for model in inventory.models
    ]
    first, last = inventory.models[0], inventory.models[-1]
    return _compact({"object": "list", "data": entries, "has_more": False, "first_id": first, "last_id": last})


def _tags(inventory: Inventory) -> str:
    """The models as Ollama lists them; what differs from node to node is left empty."""
    details = {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": [],
        "parameter_size": "",
        "quantization_level": "",
    }
    return _compact(
        {
            "models": [
                {
                    "name": model,
                    "model": model,
                    "modified_at": "1970-01-01T00:00:00Z",
                    "size": 0,
                    "digest": "",
                    "details": details,
                }
                for model in inventory.models
            ]
        }
    )


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
