"""Announcing a node by mDNS, and seeing those of others.

What is seen proves nothing, see verification.py. zeroconf is loaded by the first use, not by importing this.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import move_on_after

from exo.cluster.membership.announcement import SERVICE_TYPE, NodeDescription, from_txt, to_txt
from exo.cluster.membership.secret import plain_address
from exo.types import DiscoveryError

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, ServiceStateChange, Zeroconf
    from zeroconf._dns import DNSRecord
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

_TTL = 120
"""Seconds that a node stays in sight which has gone without a word. For some records mDNS suggests 75 minutes."""
_LOOKUP = 3000
"""Milliseconds for an announced node to tell its address."""
_PAUSES = (0, 1, 2, 4, 8, 16)
"""Seconds before each of the questions for it."""
_LOOK_AGAIN = 30.0
"""Seconds between two looks at what may have been missed."""
_MOST_SIGHTINGS = 256
_MOST_LEFT_OUT = 2000
"""Names for which there is no place, until all but the nodes in sight is forgotten: zeroconf remembers each of them."""
_MOST_ADDRESSES = 8
_LONGEST_LABEL = 56
"""Bytes. DNS allows 63; zeroconf appends a number where the name is taken."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sighting:
    """An announced node. `instance` is the name of the announcement, `addresses` are in a fixed order, at least one.

    So many ids of models as `more_models` had no room in the announcement.
    """

    instance: str
    node: NodeDescription
    addresses: tuple[str, ...]
    port: int
    more_models: int = 0


def own_addresses(listening: str) -> tuple[str, ...]:
    """The IP addresses by which other machines reach a node that listens on `listening`, an IP address itself.

    These are those of all interfaces where it listens on all. Loopback is left out, and IPv6's link-local ones, as no
    URL can name those. May be empty. Raises DiscoveryError.
    """
    address = ipaddress.ip_address(plain_address(listening))
    if not address.is_unspecified:
        return _useful([str(address)])
    import ifaddr  # noqa: PLC0415 - only for a node that others can reach

    try:
        adapters = ifaddr.get_adapters()
    except OSError as error:  # a service that may not use netlink
        raise DiscoveryError(f"The network interfaces of this machine cannot be listed: {_why(error)}.") from error
    found = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in adapters for ip in adapter.ips]
    return _useful(one for one in found if address.version == 6 or ":" not in one)


@contextlib.asynccontextmanager
async def multicast(interfaces: Sequence[str] = ()) -> AsyncIterator[AsyncZeroconf]:
    """The sockets for mDNS on the interfaces with these addresses, by default on all but loopback.

    At the end goodbye is said for what is announced by them. Raises DiscoveryError.
    """
    from zeroconf import Error  # noqa: PLC0415 - see above
    from zeroconf.asyncio import AsyncZeroconf  # noqa: PLC0415 - see above

    addresses = tuple(interfaces) or own_addresses("::")
    of_version_4 = [address for address in addresses if ":" not in address]
    chosen = of_version_4 or list(addresses)  # a socket for both kinds does not exist everywhere
    if not chosen:
        raise DiscoveryError("mDNS needs a network interface with an address of its own, and there is none.")
    try:
        zeroconf = AsyncZeroconf(interfaces=chosen)
    except (OSError, RuntimeError) as error:
        raise _unusable(chosen, error) from error
    try:
        try:
            await zeroconf.zeroconf.async_wait_for_start()
        except Error as error:
            raise _unusable(chosen, error) from error
        yield zeroconf
    finally:
        await zeroconf.async_close()


class Announcer:
    """Announces one node. Between `announce` and `withdraw` others can see it."""

    def __init__(self, zeroconf: AsyncZeroconf) -> None:
        self._zeroconf = zeroconf
        self._server = f"exo-{secrets.token_hex(8)}.local."  # one of its own: others may announce this host's name
        self._info: ServiceInfo | None = None

    @property
    def instance(self) -> str:
        """The name in force of the announcement; empty without one."""
        return "" if self._info is None else self._info.name

    async def announce(self, node: NodeDescription, addresses: Sequence[str], port: int) -> None:
        """Takes about two seconds, as it looks first whether the name is free. Raises DiscoveryError."""
        from zeroconf import Error  # noqa: PLC0415 - see above

        self._info = info = self._made(instance_name(node.name, addresses, port), node, addresses, port)
        wanted = info.name
        try:
            await (await self._zeroconf.async_register_service(info, allow_name_change=True))
        except (OSError, Error) as error:
            self._info = None
            raise DiscoveryError(f"The node cannot be announced by mDNS: {_why(error)}.") from error
        if info.name != wanted:
            logger.warning("somebody else announces %r: this node is announced as %r", wanted, info.name)

    async def update(self, node: NodeDescription) -> None:
        """Announce what has changed, under the same name. Raises DiscoveryError."""
        from zeroconf import Error  # noqa: PLC0415 - see above

        old = self._info
        if old is None:
            return
        self._info = info = self._made(old.name, node, old.parsed_addresses(), old.port or 0)
        try:
            await (await self._zeroconf.async_update_service(info))
        except (OSError, Error) as error:
            raise DiscoveryError(f"The node cannot be announced by mDNS: {_why(error)}.") from error

    async def withdraw(self) -> None:
        """Say goodbye; the first packet leaves before anything is waited for."""
        if self._info is not None:
            info, self._info = self._info, None
            await (await self._zeroconf.async_unregister_service(info))

    def _made(self, name: str, node: NodeDescription, addresses: Sequence[str], port: int) -> ServiceInfo:
        from zeroconf import ServiceInfo  # noqa: PLC0415 - see above

        return ServiceInfo(
            SERVICE_TYPE,
            name,
            port=port,
            properties=to_txt(node),
            server=self._server,
            host_ttl=_TTL,
            other_ttl=_TTL,
            parsed_addresses=list(addresses),
        )


def instance_name(name: str, addresses: Iterable[str], port: int) -> str:
    """The name of a node's announcement: with a part made of its addresses, for boards often have one host name."""
    place = hashlib.sha256(f"{sorted(addresses)} {port}".encode()).hexdigest()[:8]
    return f"{name.replace('.', '-')[: _LONGEST_LABEL - len(place) - 1]}-{place}.{SERVICE_TYPE}"


class Browser:
    """The nodes in sight, by the names of their announcements. One owner: the event loop.

    `changed` is set whenever `sightings` change; whoever waits for it clears it. Addresses of loopback count only with
    `loopback`, for nobody announces them but a stranger that wants others to call themselves.
    """

    def __init__(self, zeroconf: AsyncZeroconf, *, loopback: bool = False) -> None:
        from zeroconf.asyncio import AsyncServiceBrowser  # noqa: PLC0415 - see above

        self.sightings: dict[str, Sighting] = {}
        self.changed = asyncio.Event()
        self._loopback = loopback
        self._zeroconf = zeroconf.zeroconf
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._left_out = 0
        self._incomplete = False
        self._flooded = asyncio.Event()
        self._complained = False
        self._browser = AsyncServiceBrowser(self._zeroconf, SERVICE_TYPE, handlers=[self._on_change])
        self._looking_again = asyncio.create_task(self._look_again_and_again(), name="mDNS browser")

    async def close(self) -> None:
        tasks = [self._looking_again, *self._lookups.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._browser.async_cancel()

    def _on_change(
        self,
        zeroconf: Zeroconf,  # noqa: ARG002 - zeroconf's shape
        service_type: str,  # noqa: ARG002 - zeroconf's shape
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if state_change.name == "Added" and name in self._lookups:
            return
        earlier = self._lookups.pop(name, None)
        if earlier is not None:
            earlier.cancel()
        if state_change.name == "Removed":
            self._forget(name)
        elif name in self.sightings or len(self.sightings) + len(self._lookups) < _MOST_SIGHTINGS:
            self._lookups[name] = asyncio.create_task(self._look_up(name), name=f"lookup of {name}")
        else:
            self._leave_out()

    def _forget(self, name: str) -> None:
        """Whoever likes may have said its goodbye: one that is still there will answer."""
        if self.sightings.pop(name, None) is not None:
            self._incomplete = True
            self.changed.set()

    def _leave_out(self) -> None:
        self._incomplete = True
        self._left_out += 1
        if self._left_out > _MOST_LEFT_OUT:
            self._flooded.set()
        if not self._complained:
            self._complained = True
            logger.warning("more than %d nodes are announced by mDNS: further ones are left out", _MOST_SIGHTINGS)

    async def _look_again_and_again(self) -> None:
        """For those that were left out, that did not tell their address, or that somebody has called gone.

        zeroconf drops records without a word where there are too many: so a node goes too if it has not announced
        itself again by the next look.
        """
        lost: set[str] = set()
        while True:
            with move_on_after(_LOOK_AGAIN):
                await self._flooded.wait()
            if not self._flooded.is_set():
                before, lost = lost, self.sightings.keys() - self._pointers().keys()
                for name in before & lost:
                    self._forget(name)
            if self._incomplete or lost:
                await self._look_anew()

    async def _look_anew(self) -> None:
        """Ask who is there, as at the start. Of what was announced before only nodes are remembered."""
        from zeroconf.asyncio import AsyncServiceBrowser  # noqa: PLC0415 - see above

        self._flooded.clear()
        self._left_out, self._incomplete = 0, False
        await self._browser.async_cancel()
        known = self.sightings.keys() | self._lookups.keys()
        strangers = [record for name, record in self._pointers().items() if name not in known]
        self._zeroconf.cache.async_remove_records(strangers)
        self._browser = AsyncServiceBrowser(self._zeroconf, SERVICE_TYPE, handlers=[self._on_change])

    def _pointers(self) -> dict[str, DNSRecord]:
        """The records of announcements that zeroconf remembers, by the names of these."""
        records = self._zeroconf.cache.entries_with_name(SERVICE_TYPE)
        return {str(one.alias): one for one in records if hasattr(one, "alias")}

    async def _look_up(self, name: str) -> None:
        from zeroconf import Error  # noqa: PLC0415 - see above
        from zeroconf.asyncio import AsyncServiceInfo  # noqa: PLC0415 - see above

        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            for pause in _PAUSES:
                await asyncio.sleep(pause)
                if await info.async_request(self._zeroconf, _LOOKUP):
                    self._see(name, info)
                    return
            self._incomplete = True
        except Error:
            logger.debug("the announcement %r is left out: none may be called so", name)
        finally:
            if self._lookups.get(name) is asyncio.current_task():
                del self._lookups[name]

    def _see(self, name: str, info: AsyncServiceInfo) -> None:
        addresses = _useful(info.parsed_addresses(), loopback=self._loopback)[:_MOST_ADDRESSES]
        if not addresses or not info.port:
            seen = None
        else:
            announced = from_txt(info.properties, name.removesuffix(f".{SERVICE_TYPE}"))
            seen = Sighting(name, announced.node, addresses, info.port, announced.more_models)
        if seen == self.sightings.get(name):
            return
        if seen is None:
            del self.sightings[name]
        else:
            self.sightings[name] = seen
        self.changed.set()


@contextlib.asynccontextmanager
async def browsing(interfaces: Sequence[str] = ()) -> AsyncIterator[Browser]:
    """A Browser with sockets of its own, on the interfaces with these addresses. Raises DiscoveryError."""
    async with multicast(interfaces) as zeroconf:
        browser = Browser(zeroconf, loopback=has_loopback(interfaces))
        try:
            yield browser
        finally:
            await browser.close()


def has_loopback(addresses: Iterable[str]) -> bool:
    return any(ipaddress.ip_address(address).is_loopback for address in addresses)


def _unusable(interfaces: Sequence[str], error: Exception) -> DiscoveryError:
    return DiscoveryError(f"mDNS cannot be used on {', '.join(interfaces)}: {_why(error)}.")


def _why(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _useful(addresses: Iterable[str], *, loopback: bool = False) -> tuple[str, ...]:
    """Those that a URL can name and that mean one machine, IPv4 first."""
    found = {ipaddress.ip_address(plain_address(address)) for address in addresses}
    kept = [one for one in found if _means_one_machine(one) and (loopback or not one.is_loopback)]
    return tuple(str(one) for one in sorted(kept, key=lambda one: (one.version, int(one))))


def _means_one_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    link_local = address.version == 6 and address.is_link_local
    return not (link_local or address.is_unspecified or address.is_multicast)
