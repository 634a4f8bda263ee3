"""Asking all nodes in sight for their proof, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2

from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.verification import Refused, Verified, verify, verify_sighting

_AGAIN = 30.0
"""Seconds between two questions to the same node."""
_SOON = 2.0
"""The first pause after one that has not proven itself; each further one is twice as long."""
_AT_ONCE = 32
"""Nodes that are asked at the same time: strangers that never answer must not keep the others waiting for long."""


class Proofs:
    """What came of asking, by the names of announcements. One owner: the event loop.

    Blocks: nothing. Times out: a question, see membership.verification. Can race: a node that goes while it is asked,
    whose answer is then dropped. A node that has proven itself keeps that while it does not answer, which HAProxy sees
    for itself, and whatever others announce under its name: it is asked again where it was.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.found: dict[str, Verified | Refused] = {}
        self.changed = asyncio.Event()
        self._client = client
        self._secret: bytes | None = None
        self._sightings: dict[str, Sighting] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    def see(self, sightings: Mapping[str, Sighting], secret: bytes | None) -> None:
        """These are in sight now. Without a secret nobody is asked."""
        new_secret, self._secret = secret != self._secret, secret
        before, self._sightings = self._sightings, dict(sightings)
        for instance in [*self._asking, *self.found]:
            if instance not in sightings or secret is None:
                self._stop(instance)
                if self.found.pop(instance, None) is not None:
                    self.changed.set()
        if secret is None:
            return
        for instance, sighting in sightings.items():
            if new_secret or before.get(instance) != sighting:
                self._stop(instance)
                self._asking[instance] = asyncio.create_task(
                    self._ask_again_and_again(instance, sighting, secret), name=f"proof of {instance}"
                )

    async def close(self) -> None:
        tasks = list(self._asking.values())
        self.see({}, None)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self, instance: str) -> None:
        task = self._asking.pop(instance, None)
        if task is not None:
            task.cancel()

    async def _ask_again_and_again(self, instance: str, sighting: Sighting, secret: bytes) -> None:
        pause = _SOON
        while True:
            async with self._places:
                answer = await self._ask(sighting, self.found.get(instance), secret)
            self._note(instance, answer)
            pause = _AGAIN if isinstance(answer, Verified) else min(_AGAIN, 2 * pause)
            await asyncio.sleep(pause)

    async def _ask(self, sighting: Sighting, before: Verified | Refused | None, secret: bytes) -> Verified | Refused:
        """Where it has proven itself before; only if that has failed, where it is announced now."""
        if not isinstance(before, Verified):
            return await verify_sighting(sighting, secret, self._client)
        there = await verify(before.address, before.port, secret, self._client)
        if isinstance(there, Verified):
            if there.node.name == before.node.name:
                return there
            there = Refused(f"{there.node.name} is there now", reachable=True)
        elsewhere = await verify_sighting(sighting, secret, self._client)
        return elsewhere if isinstance(elsewhere, Verified) else there

    def _note(self, instance: str, answer: Verified | Refused) -> None:
        before = self.found.get(instance)
        if before == answer or (isinstance(before, Verified) and isinstance(answer, Refused) and not answer.reachable):
            return
        if type(before) is not type(answer):  # in the order of first proofs
            self.found.pop(instance, None)
        self.found[instance] = answer
        self.changed.set()
