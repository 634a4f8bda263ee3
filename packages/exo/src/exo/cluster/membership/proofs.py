"""Asking all nodes in sight for their proof, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, TypeAlias

from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.verification import Refused, Verified, make_client, verify, verify_sighting

if TYPE_CHECKING:
    import httpx2

Answer: TypeAlias = Verified | Refused
_AGAIN = 30.0
"""Seconds between two questions to the same node."""
_SOON = 2.0
"""The first pause after one that has not proven itself; each further one is twice as long."""
_AT_ONCE = 32
"""Nodes that are asked at the same time: strangers that never answer must neither keep the others waiting for long, nor
take all connections."""


class Proofs:
    """What came of asking, by the names of announcements. One owner: the event loop.

    Blocks: nothing. Times out: a question, see membership.verification. Can race: a node that goes while it is asked,
    whose answer is then dropped.

    Anybody can announce anything under the name of a node's announcement, its goodbye too. So one that has proven
    itself is asked again where it was: in sight it stays in `found` while it does not answer, which HAProxy sees for
    itself; out of sight it stays in `sightings` as long as it proves itself. `latest` has the last answers. `on_answer`
    is called after each that is new, with the name, the answer before and the new one.
    """

    def __init__(self, on_answer: Callable[[str, Answer | None, Answer], None] | None = None) -> None:
        self.sightings: dict[str, Sighting] = {}
        self.found: dict[str, Answer] = {}
        self.latest: dict[str, Answer] = {}
        self.changed = asyncio.Event()
        self._on_answer = on_answer
        self._secret: bytes | None = None
        self._own: frozenset[tuple[str, int]] = frozenset()
        self.in_sight: frozenset[str] = frozenset()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._client: httpx2.AsyncClient | None = None

    def see(
        self, sightings: Mapping[str, Sighting], secret: bytes | None, own: Collection[tuple[str, int]] = ()
    ) -> None:
        """These are in sight now. `own` are the addresses and ports of who asks. Without a secret nobody is asked."""
        new_secret, self._secret, self._own = secret != self._secret, secret, frozenset(own)
        before, self.in_sight = self.in_sight, frozenset(sightings)
        for instance in [*self.sightings]:
            if secret is None or (instance not in sightings and not isinstance(self.found.get(instance), Verified)):
                self._forget(instance)
        anew = [instance for instance, one in sightings.items() if self.sightings.get(instance) != one]
        self.sightings.update(sightings)
        if secret is not None:
            moved = self.sightings.keys() & (before ^ self.in_sight)  # came back, or is said to have gone
            for instance in self.sightings if new_secret else dict.fromkeys([*anew, *moved]):
                self._start(instance, secret)

    async def close(self) -> None:
        """Forget all of them."""
        tasks = list(self._asking.values())
        self.see({}, None)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    def _start(self, instance: str, secret: bytes) -> None:
        self._stop(instance)
        self._asking[instance] = asyncio.create_task(
            self._ask_again_and_again(instance, secret), name=f"proof of {instance}"
        )

    def _stop(self, instance: str) -> None:
        task = self._asking.pop(instance, None)
        if task is not None:
            task.cancel()

    def _forget(self, instance: str) -> None:
        self._stop(instance)
        self.sightings.pop(instance, None)
        self.latest.pop(instance, None)
        if self.found.pop(instance, None) is not None:
            self.changed.set()

    async def _ask_again_and_again(self, instance: str, secret: bytes) -> None:
        pause = _SOON
        while True:
            async with self._places:
                if self._client is None:
                    self._client = make_client()
                answer = await self._ask(instance, secret, self._client)
            self._note(instance, answer)
            pause = _AGAIN if isinstance(answer, Verified) else min(_AGAIN, 2 * pause)
            await asyncio.sleep(pause)

    async def _ask(self, instance: str, secret: bytes, client: httpx2.AsyncClient) -> Answer:
        """Where it has proven itself before; only if that has failed, where it is announced now."""
        sighting, before = self.sightings[instance], self.found.get(instance)
        if not isinstance(before, Verified):
            return await verify_sighting(sighting, secret, client, own=self._own)
        there = await verify(before.address, before.port, secret, client)
        if isinstance(there, Verified):
            if there.node.name == before.node.name:
                return there
            there = Refused(f"{there.node.name} is there now", reachable=True)
        if instance not in self.in_sight:
            return there
        elsewhere = await verify_sighting(sighting, secret, client, own=self._own)
        return elsewhere if isinstance(elsewhere, Verified) else there

    def _note(self, instance: str, answer: Answer) -> None:
        latest, before = self.latest.get(instance), self.found.get(instance)
        if isinstance(answer, Verified) and instance in self.in_sight:
            self._forget_earlier_announcements(answer.node.name)
        self.latest[instance] = answer
        if latest != answer and self._on_answer is not None:
            self._on_answer(instance, latest, answer)
        if isinstance(answer, Refused) and instance not in self.in_sight:
            self._forget(instance)
        elif before != answer and not (isinstance(before, Verified) and _is_silence(answer)):
            if type(before) is not type(answer):  # in the order of first proofs
                self.found.pop(instance, None)
            self.found[instance] = answer
            self.changed.set()

    def _forget_earlier_announcements(self, name: str) -> None:
        """A node with a new address has a new announcement, and may still prove itself where the old one was."""
        for instance in [*self.sightings]:
            found = self.found.get(instance)
            if instance not in self.in_sight and isinstance(found, Verified) and found.node.name == name:
                self._forget(instance)


def _is_silence(answer: Answer) -> bool:
    return isinstance(answer, Refused) and not answer.reachable
