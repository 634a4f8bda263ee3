"""Keeping a running HAProxy in step with the inventory, and with the nodes that mDNS shows and that prove themselves.

A round: see what HAProxy has, decide what it should have, tell it the difference. Nothing is remembered that HAProxy
can tell, so one that is reloaded in between gets its servers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from exo.cluster.membership.mdns import Browser, browsing
from exo.cluster.membership.proofs import Proofs
from exo.cluster.pools import LISTINGS
from exo.cluster.proxy import reconcile as to_do
from exo.cluster.proxy.effects import Effects
from exo.cluster.proxy.inventory_file import InventoryFile
from exo.cluster.proxy.reconcile import Action, Joined, Key, Misfit, managed_backends, plan, reconcile, unaddable
from exo.cluster.proxy.runtime_api import ProxyState, RuntimeApi
from exo.cluster.proxy.standing import Found, Listed, judge, listed_in
from exo.cluster.render.haproxy import server_options
from exo.types import ProxyRefused, ProxyUnreachable, host_and_port

_MOST_UNKNOWN = 200
"""So many strangers are named in the log; they could fill it."""
_HANGS = 5.0
"""Seconds for which a server is down and has sessions, until it counts as one that hangs: where a node is gone or cut
off they end by themselves, and a request whose connection has failed goes to another node."""
_PAUSE = 0.1
"""Seconds between two rounds at least, whatever strangers announce."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Times:
    """In seconds: between two rounds; until whoever is there has been seen; for the sessions of a node that is gone;
    until host names of the inventory are looked up again."""

    between: float = 1.0
    settle: float = 10.0
    patience: float = 300.0
    names: float = 60.0


class Watch:
    """One owner: the event loop. Waits for HAProxy where it is not there; ends when cancelled, and leaves it as it is.

    `browser` finds nodes, `proofs` asks them.
    """

    def __init__(self, file: InventoryFile, browser: Browser, proofs: Proofs, times: Times | None = None) -> None:
        self._file = file
        self._browser = browser
        self._proofs = proofs
        self._times = times or Times()
        self._begin = time.monotonic()
        self._listed: Listed | None = None
        self._looked_up = 0.0
        self._leaving: dict[Key, float] = {}
        self._down: dict[Key, float] = {}
        self._seen: set[str] = set()
        self._log = _Log()
        if self._file.secret is None:
            logger.warning("%s has no secret_file: nodes that are not in it get no requests", file.path)

    async def run(self) -> None:
        """Round after round, until cancelled."""
        logger.info("keeping HAProxy in step with %s and with mDNS", self._file.path)
        while True:
            try:
                await self.round()
            except ProxyUnreachable as error:
                self._log.proxy_is_away(error)
            await self._pause()

    async def once(self) -> None:
        """Wait until whoever is there has been seen, and do what can be done by then. Raises ProxyUnreachable."""
        await RuntimeApi(Path(self._file.inventory.proxy.admin_socket)).state()
        while self._is_settling():
            await self._see()
            await self._pause()
        before: list[Action] = []
        while (now := await self.round()) and now != before:
            before = now

    async def round(self) -> list[Action]:
        """Do what has to be done now, and return it. Raises ProxyUnreachable."""
        found = await self._see()
        inventory = self._file.inventory
        api = RuntimeApi(Path(inventory.proxy.admin_socket))
        state = await api.state()
        self._log.proxy_is_there()
        joined = [Joined(one.node, one.addresses[0], one.port) for one in found if one.standing == "verified"]
        wanted, misfits = plan(inventory, joined, state.backends)
        self._log.misfits([*misfits, *unaddable(wanted, state)])
        now = time.monotonic()
        actions = reconcile(
            wanted,
            state,
            managed_backends(inventory),
            {key: now - since for key, since in self._leaving.items()},
            known=None if not self._is_settling() else self._seen,
            patience=self._times.patience,
            hanging=self._hanging(state, now),
        )
        self._seen |= {one.node.name for one in joined}
        self._forget_what_is_gone(state)
        effects = Effects(api, server_options(inventory.proxy.slow_start))
        for action in actions:
            self._remember(action)
            await self._log.doing(action, effects)
        return actions

    async def _see(self) -> list[Found]:
        """Who is in sight, and what they are; logs strangers."""
        if self._file.refresh() or self._listed is None or time.monotonic() - self._looked_up > self._times.names:
            self._listed = await listed_in(self._file.inventory)
            self._looked_up = time.monotonic()
        self._proofs.see(self._browser.sightings, self._file.secret)
        found = judge(self._proofs.sightings, self._proofs.found, self._listed)
        self._log.in_sight(found, asked=self._proofs.found)
        return found

    def _hanging(self, state: ProxyState, now: float) -> set[Key]:
        """The servers that have been down for a while and still have sessions."""
        down = [(one.backend, one.name) for one in state.servers if one.is_down and one.sessions]
        self._down = {key: self._down.get(key, now) for key in down}
        return {key for key, since in self._down.items() if now - since >= _HANGS}

    def _is_settling(self) -> bool:
        return time.monotonic() - self._begin < self._times.settle

    async def _pause(self) -> None:
        """Until something in sight has changed, but not longer than the time between rounds."""
        await asyncio.sleep(_PAUSE)
        events = (self._browser.changed, self._proofs.changed)
        waiting = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, timeout=self._times.between, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        for event in events:
            event.clear()

    def _remember(self, action: Action) -> None:
        """Which servers were drained here, and when."""
        if isinstance(action, to_do.Drain):
            self._leaving[action.server.backend, action.server.name] = time.monotonic()
        elif isinstance(action, to_do.Ready):
            self._leaving.pop((action.server.backend, action.server.name), None)

    def _forget_what_is_gone(self, state: ProxyState) -> None:
        """Servers that were removed, and those that a reload has made anew."""
        drained = {(one.backend, one.name) for one in state.servers if one.draining or one.in_maintenance}
        self._leaving = {key: since for key, since in self._leaving.items() if key in drained}


class _Log:
    """What has changed, once. Of a node's two servers the one for requests to models is told of."""

    def __init__(self) -> None:
        self._away = ""
        self._told: set[str] = set()
        self._unknown: set[str] = set()
        self._verified: dict[str, Found] = {}

    def proxy_is_away(self, error: ProxyUnreachable) -> None:
        if error.message != self._away:
            logger.warning("%s It is tried again and again.", error.message)
        self._away = error.message

    def proxy_is_there(self) -> None:
        if self._away:
            logger.info("HAProxy answers")
        self._away = ""

    def misfits(self, misfits: Sequence[Misfit]) -> None:
        now = {f"{one.name} gets no requests: {one.reason}" for one in misfits}
        for line in sorted(now - self._told):
            logger.warning("%s", line)
        self._told = now | {line for line in self._told if line.startswith(_REFUSED)}

    def in_sight(self, found: Sequence[Found], *, asked: Container[str]) -> None:
        """Strangers, once they were `asked`, and nodes that were trusted and have gone."""
        verified = {one.instance: one for one in found if one.standing == "verified"}
        self._unknown -= set(verified)
        for one in found:
            if one.standing == "unknown" and one.instance in asked and one.instance not in self._unknown:
                self._tell_unknown(one)
        present = {one.instance for one in found}
        for instance, one in self._verified.items():
            if instance not in present:
                logger.info(
                    "%s at %s is not in sight any more", one.node.name, host_and_port(one.addresses[0], one.port)
                )
        self._verified = verified

    def _tell_unknown(self, one: Found) -> None:
        if len(self._unknown) < _MOST_UNKNOWN:
            self._unknown.add(one.instance)
            place = host_and_port(one.addresses[0], one.port)
            logger.warning("unknown: %s at %s gets no requests: %s", one.node.name, place, one.reason)

    async def doing(self, action: Action, effects: Effects) -> None:
        """Do it. What HAProxy refuses is logged, and tried again in the next round. Raises ProxyUnreachable."""
        subject = action.wanted if isinstance(action, to_do.Add) else action.server
        try:
            happened = await effects.do(action)
        except (ProxyRefused, ValueError) as error:
            line = f"{_REFUSED}{error}"
            if line not in self._told:
                self._told.add(line)
                logger.error("%s", error)  # noqa: TRY400 - the message says it all
            return
        if happened:
            level = logging.DEBUG if subject.backend.endswith(LISTINGS) else logging.INFO
            logger.log(level, "%s in %s %s", subject.name, subject.backend, happened)


_REFUSED = "refused: "


@contextlib.asynccontextmanager
async def watching(path: Path, *, interfaces: Sequence[str] = (), times: Times | None = None) -> AsyncIterator[Watch]:
    """A Watch with what it needs. Raises DiscoveryError and ConfigurationError."""
    file = InventoryFile(path)
    async with contextlib.AsyncExitStack() as stack:
        browser = await stack.enter_async_context(browsing(interfaces))
        proofs = Proofs()
        stack.push_async_callback(proofs.close)
        yield Watch(file, browser, proofs, times)
