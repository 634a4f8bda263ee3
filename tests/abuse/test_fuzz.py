"""10,000 malformed requests: none ends in a 5xx, the node lives, and it does not grow.

Every connection has to be answered or ended. The memory of the node is what /proc/PID/smaps_rollup counts as anonymous:
what it has allocated, without the files of libraries, whose share changes with the other processes of the machine;
workers are not counted. It is read after WARM_UP other requests of the same kinds, which fill caches and give the
allocator the size of the largest one, and again after the 10,000. `pytest --log-cli-level=INFO` shows the figures.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import pytest

from abuse.conftest import KEY, StartAbused
from abuse.fuzzer import address_of, answer_to, status_of
from abuse.malformed import Attack, Target, attack
from support import Node, wait_until

logger = logging.getLogger(__name__)
SEED = 20_261
REQUESTS = 10_000
WARM_UP = 5_000
MOST_GROWTH = 1.05


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", ["exo", "rkllama"])
def test_malformed_requests(command: str, start_abused: StartAbused) -> None:
    abused = start_abused(command, "rkllm")
    node, pid, address = abused.node, abused.node.pid, address_of(abused.node.url)
    target = Target(node.http.get("/openapi.json").json(), abused.model, KEY)
    _send(target, address, range(REQUESTS, REQUESTS + WARM_UP))
    before = _memory_at_rest(node)
    statuses = _send(target, address, range(REQUESTS))
    after = _memory_at_rest(node)
    assert (node.pid, node.is_running) == (pid, True)
    logger.info("%s: %s; %d KiB before, %d KiB after", command, dict(statuses), before, after)
    failures = [line for line in node.log.splitlines() if re.search(r" status=5\d\d | ERROR |Traceback", line)]
    assert not failures, f"seed {SEED}"
    assert after <= before * MOST_GROWTH, f"the node has grown from {before} to {after} KiB; seed {SEED}"


def _send(target: Target, address: tuple[str, int], numbers: range) -> Counter[str]:
    """How many answers there were of each status."""
    statuses = Counter[str]()
    for number in numbers:
        attacked = attack(target, SEED, number)
        status = status_of(answer_to(address, attacked))
        statuses[status] += 1
        assert not status.startswith("5"), _told(number, status, attacked)
    return statuses


def _is_at_rest(node: Node) -> bool:
    ready = node.http.get("/ready").json()
    return bool(ready["running"] == ready["queued"] == 0)


def _told(number: int, status: str, attacked: Attack) -> str:
    again = f"cd tests && python -m abuse.fuzzer URL --seed {SEED} --number {number} --model MODEL --key KEY"
    return f"{status} for {attacked.kind!r}: {attacked.sent[:2000]!r}\nsend it again: {again}"


def _memory_at_rest(node: Node) -> int:
    """In KiB, when one good request was answered, for which the model is loaded, and nothing is under way."""
    good = node.chat("Is anybody there?")
    assert good.status_code == 200, good.text
    wait_until(lambda: _is_at_rest(node), timeout=20, what="an end of the requests whose client has left")
    found = re.search(r"^Anonymous:\s+(\d+) kB$", Path(f"/proc/{node.pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
