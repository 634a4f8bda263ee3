"""This node as a member of a cluster: what it tells of itself, how it proves it, and whom it sees."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from exo import __version__
from exo.cluster.membership.announcement import NodeDescription, describe, fitting_name
from exo.cluster.membership.challenge import ProvenNode
from exo.cluster.membership.mdns import Announcer, Browser, has_loopback, multicast
from exo.cluster.membership.peers import Peer, Peers
from exo.cluster.membership.secret import plain_address, proof
from exo.inference import InferenceService
from exo.types import DiscoveryError, ExoError, NotFound, ShuttingDown

_LOOK = 10.0
"""Seconds between two looks at what may have changed here: models and addresses."""
_RETRY = 10.0
"""Seconds until mDNS is tried again where it does not work."""

logger = logging.getLogger(__name__)


def host_name() -> str:
    """That of this machine, made to fit."""
    return fitting_name(socket.gethostname())


@dataclass(frozen=True)
class MemberSettings:
    """`addresses` tells where others reach this node at `port`; without it the node keeps away from mDNS."""

    name: str = field(default_factory=host_name)
    secret: bytes | None = field(default=None, repr=False)
    port: int = 0
    addresses: Callable[[], tuple[str, ...]] | None = None


class Member:
    """One node. From `start` on it is announced and looks for others, until its service takes no new work.

    Nothing that goes wrong with mDNS keeps the node from serving: it is logged, and tried again.
    """

    def __init__(self, service: InferenceService, settings: MemberSettings | None = None) -> None:
        self._service = service
        self._settings = settings or MemberSettings()
        self._peers = Peers(self._settings.secret, lambda active: service.metrics.nodes.set(1 + active))
        self._task: asyncio.Task[None] | None = None
        self._complaint = ""
        self._named_twice = False

    @property
    def name(self) -> str:
        return self._settings.name

    async def describe(self) -> NodeDescription:
        """Without models where the engine cannot tell them."""
        engine = self._service.engine
        try:
            cards = await self._service.models()
        except ExoError:
            cards = []
        return describe(self.name, __version__, engine.name, engine.slots, cards)

    async def prove(self, challenge: str, address: str, port: int) -> ProvenNode:
        """The proof for whoever asked at this node's own `address` and `port`.

        Raises NotFound without a secret, and ShuttingDown from the goodbye on: who hears that asks once more.
        """
        secret = self._settings.secret
        if secret is None:
            raise NotFound("This node has no cluster secret, so it can prove nothing. Set --cluster-secret-file.")
        if self._service.leaving.is_set():
            raise ShuttingDown("The node is ending, so it proves nothing any more.")
        node = msgspec.to_builtins(await self.describe())
        address = plain_address(address)
        return ProvenNode(node, address, port, proof(secret, challenge, address, port, node))

    def peers(self) -> list[Peer]:
        return self._peers.listed()

    def addresses(self) -> tuple[str, ...]:
        """Those at which others reach this node; none where it keeps away from mDNS, or cannot tell."""
        try:
            return self._own_addresses()
        except DiscoveryError:
            return ()

    def _own_addresses(self) -> tuple[str, ...]:
        return () if self._settings.addresses is None else self._settings.addresses()

    def start(self) -> None:
        if self._settings.addresses is not None:
            self._task = asyncio.create_task(self._run(), name="cluster member")

    async def close(self) -> None:
        """Say goodbye, if that was not done before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        taking_part = asyncio.create_task(self._take_part_for_ever(), name="cluster mDNS")
        try:
            await self._service.leaving.wait()
        finally:
            taking_part.cancel()
            await asyncio.gather(taking_part, return_exceptions=True)

    async def _take_part_for_ever(self) -> None:
        while True:
            try:
                await self._take_part(self._own_addresses())
            except DiscoveryError as error:
                self._complain(error.message)
                await asyncio.sleep(_RETRY)
            except Exception:  # zeroconf reads what strangers send, and no failure of it may end the node
                logger.exception("mDNS failed unexpectedly and is started again")
                await asyncio.sleep(_RETRY)

    def _complain(self, message: str) -> None:
        if message != self._complaint:
            logger.warning("%s Others do not find this node by itself, nor does it find them.", message)
        self._complaint = message

    async def _take_part(self, addresses: tuple[str, ...]) -> None:
        """Announce and look until the addresses change. Raises DiscoveryError."""
        if not addresses:
            raise DiscoveryError("This node has no address yet that others could reach it by.")
        async with multicast(addresses) as zeroconf:
            announcer, browser = Announcer(zeroconf), Browser(zeroconf, loopback=has_loopback(addresses))
            tasks = [
                asyncio.create_task(self._announce(announcer, addresses), name="cluster announcer"),
                asyncio.create_task(self._look(browser, addresses), name="cluster browser"),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(announcer.withdraw(), browser.close(), self._peers.close())

    async def _announce(self, announcer: Announcer, addresses: tuple[str, ...]) -> None:
        announced = await self.describe()
        await announcer.announce(announced, addresses, self._settings.port)
        self._complaint = ""
        logger.info("announced by mDNS as %s at %s", self.name, ", ".join(addresses))
        while self.addresses() == addresses:
            now = await self.describe()
            if now != announced:
                announced = now
                await announcer.update(announced)
            await asyncio.sleep(_LOOK)
        logger.info("the addresses of this machine have changed: it is announced again")

    async def _look(self, browser: Browser, addresses: tuple[str, ...]) -> None:
        own = frozenset((address, self._settings.port) for address in addresses)
        while True:
            await browser.changed.wait()
            browser.changed.clear()
            others = {
                instance: sighting
                for instance, sighting in browser.sightings.items()
                if not own.issuperset((address, sighting.port) for address in sighting.addresses)
            }
            self._peers.see(others, own)
            if not self._named_twice and any(one.node.name == self.name for one in others.values()):
                self._named_twice = True
                logger.warning("another node calls itself %s too; --node-name gives one of them another", self.name)
