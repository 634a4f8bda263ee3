"""Doing to a running HAProxy what exo.cluster.proxy.reconcile has decided."""

from __future__ import annotations

from collections.abc import Sequence

from exo.cluster.proxy import reconcile as to_do
from exo.cluster.proxy.reconcile import Action, Wanted
from exo.cluster.proxy.runtime_api import RuntimeApi, Server
from exo.types import ProxyRefused, host_and_port


class Effects:
    """Actions on a running HAProxy. `options` end the line of a new server."""

    def __init__(self, api: RuntimeApi, options: str) -> None:
        self._api = api
        self._options = options

    async def do(self, action: Action) -> str:
        """What has happened, for the log. Raises ProxyUnreachable and ProxyRefused."""
        if isinstance(action, to_do.Add):
            return await self._add(action.wanted)
        if isinstance(action, to_do.Remove):
            return await self._remove(action)
        if isinstance(action, to_do.Drain):
            return await self._drain(action)
        if isinstance(action, to_do.Forget):
            await self._forget(action.server, action.tables)
            return ""
        return await self._change(action)

    async def _add(self, one: Wanted) -> str:
        await self._api.add_server(
            one.backend, one.name, one.address, one.port, weight=one.weight, slots=one.slots, options=self._options
        )
        return f"takes requests now, at {host_and_port(one.address, one.port)}"

    async def _drain(self, action: to_do.Drain) -> str:
        server = action.server
        await self._api.drain(server.backend, server.name)
        await self._forget(server, action.tables)
        return f"gets no new requests; it runs {server.sessions}" if server.sessions else "gets no new requests"

    async def _change(self, action: to_do.Ready | to_do.BreakOff | to_do.SetWeight | to_do.SetSlots) -> str:
        server = action.server
        if isinstance(action, to_do.BreakOff):
            await self._api.break_off(server.backend, server.name)
            return f"hangs; what it ran is broken off: {server.sessions}"
        if isinstance(action, to_do.Ready):
            await self._api.ready(server.backend, server.name)
            return "takes requests again"
        if isinstance(action, to_do.SetWeight):
            await self._api.set_weight(server.backend, server.name, action.weight)
            return f"has the weight {action.weight} now, before it was {server.weight}"
        await self._api.set_slots(server.backend, server.name, action.slots)
        return f"has {action.slots} slots now, before it had {server.slots}"

    async def _forget(self, server: Server, tables: Sequence[str]) -> None:
        for table in tables:
            await self._api.forget(table, server.number)

    async def _remove(self, action: to_do.Remove) -> str:
        """What it ran last may have led a conversation there: after that is forgotten it has to be empty still."""
        server = action.server
        await self._forget(server, action.tables)
        now = [
            one for one in (await self._api.state()).servers if (one.backend, one.name) == (server.backend, server.name)
        ]
        if not all(one.is_empty or action.even_busy for one in now):
            return ""
        if not server.in_maintenance:
            await self._api.maintain(server.backend, server.name)
        if await self._api.delete(server.backend, server.name):
            return "is removed"
        raise ProxyRefused(
            f"{server.name} stays in {server.backend}, in maintenance, until the proxy's configuration is rendered "
            "again and reloaded."
        )
