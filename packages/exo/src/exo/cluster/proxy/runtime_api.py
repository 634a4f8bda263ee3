"""HAProxy's admin socket: what its servers do, and telling it to change them while it runs.

Tried with HAProxy 2.6. Servers that are added here are gone when HAProxy is reloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from anyio import fail_after

from exo.types import ProxyRefused, ProxyUnreachable, host_and_port

TIMEOUT = 5.0
"""Seconds for a command with its answer."""
_LONGEST_ANSWER = 16 * 1024 * 1024
_BACKENDS_AND_SERVERS = 2 | 4
_IN_MAINTENANCE = 0x01
_IN_DRAIN = 0x08
"""Bits of srv_admin_state. Others tell what a server has from the one that it tracks."""
_STOPPED = 0
"""Value of srv_op_state."""
_WELL = frozenset({"", "New server registered.", "Server deleted."})
_REFERENCED = "other configuration elements pointing to it"
_WORD = re.compile(r"[A-Za-z0-9._:/-]+")
_TABLE = re.compile(r"^# table: (\S+),", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """A server of a backend. `sessions` are those that it has now, `queued` those that wait for it alone.

    `slots` is its maxconn, None where it has no limit. `host` is its name where the configuration has one in place of
    an address; `address` is what became of it, empty if nothing did. `draining` and `in_maintenance` were asked for.
    `is_down`: its checks fail, or it is in maintenance.
    """

    backend: str
    name: str
    number: int
    address: str
    port: int
    host: str = ""
    weight: int = 100
    slots: int | None = None
    draining: bool = False
    in_maintenance: bool = False
    is_down: bool = False
    sessions: int = 0
    queued: int = 0

    @property
    def is_empty(self) -> bool:
        return self.sessions == 0 and self.queued == 0


@dataclass(frozen=True)
class ProxyState:
    """What there is at one moment: names of backends and of stick-tables, and all servers."""

    backends: frozenset[str]
    tables: frozenset[str]
    servers: tuple[Server, ...]


@final
class RuntimeApi:
    """Commands at the admin socket at `path`, each on a connection of its own.

    All raise ProxyUnreachable, and those that change something ProxyRefused. Names have to be such as an inventory or a
    node may have; ValueError for others.
    """

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        self.path = path
        self._timeout = timeout

    async def state(self) -> ProxyState:
        statistics = await self._ask(f"show stat -1 {_BACKENDS_AND_SERVERS} -1")
        servers = await self._ask("show servers state")
        tables = await self._ask("show table")
        try:
            rows = list(_rows(statistics))
            backends = frozenset(row["pxname"] for row in rows if row["svname"] == "BACKEND")
            found = tuple(_servers(servers, {(row["pxname"], row["svname"]): row for row in rows}))
        except (KeyError, ValueError, IndexError, csv.Error) as error:
            raise ProxyUnreachable(
                f"What answers at {self.path} does not answer as HAProxy does: {error!r}."
            ) from error
        return ProxyState(backends, frozenset(_TABLE.findall(tables)), found)

    async def add_server(
        self, backend: str, name: str, address: str, port: int, *, weight: int, slots: int | None, options: str
    ) -> None:
        """Add a server with these further options of a server's line, and let it work once its check succeeds."""
        place = host_and_port(str(ipaddress.ip_address(address)), port)
        limit = "" if slots is None else f" maxconn {slots}"
        server = _server(backend, name)
        await self._do(
            f"add server {server} {_checked(place, '[]')}{limit} weight {weight} {options}; "
            f"enable health {server}; enable server {server}"
        )

    async def ready(self, backend: str, name: str) -> None:
        """Undo `drain` and `maintain`."""
        await self._do(f"set server {_server(backend, name)} state ready")

    async def drain(self, backend: str, name: str) -> None:
        """No new requests but those that a stick-table leads there: see `forget`."""
        await self._do(f"set server {_server(backend, name)} state drain")

    async def maintain(self, backend: str, name: str) -> None:
        """No requests at all, and no checks. What it still runs may be broken off."""
        await self._do(f"set server {_server(backend, name)} state maint")

    async def break_off(self, backend: str, name: str) -> None:
        """End the sessions that a server has."""
        await self._do(f"shutdown sessions server {_server(backend, name)}")

    async def set_weight(self, backend: str, name: str, weight: int) -> None:
        await self._do(f"set server {_server(backend, name)} weight {weight}")

    async def set_slots(self, backend: str, name: str, slots: int) -> None:
        await self._do(f"set maxconn server {_server(backend, name)} {slots}")

    async def forget(self, table: str, number: int) -> None:
        """Remove the rows of a stick-table that lead to the server of this number."""
        await self._do(f"clear table {_checked(table)} data.server_id eq {number}")

    async def delete(self, backend: str, name: str) -> bool:
        """Delete a server, which has to be in maintenance and without sessions.

        False if it has to stay until HAProxy is reloaded, for another server of the configuration tracks it.
        """
        try:
            await self._do(f"del server {_server(backend, name)}")
        except ProxyRefused as refused:
            if _REFERENCED in refused.message:
                return False
            raise
        return True

    async def _do(self, command: str) -> None:
        answer = await self._ask(command)
        said = [line for line in map(str.strip, answer.splitlines()) if line not in _WELL]
        if said:
            raise ProxyRefused(f"HAProxy refuses `{command.partition(';')[0]}`: {' '.join(said)[:500]}")

    async def _ask(self, command: str) -> str:
        where = f"the admin socket {self.path} of HAProxy"
        try:
            with fail_after(self._timeout):
                answer = await self._exchange(command)
        except TimeoutError:
            raise ProxyUnreachable(f"Nothing answers at {where} within {self._timeout:g} seconds.") from None
        except FileNotFoundError:
            raise ProxyUnreachable(
                f"There is no {self.path}, where {_EXPECTED}. Start HAProxy with the rendered configuration, or "
                "correct proxy.admin_socket in the inventory."
            ) from None
        except PermissionError:
            raise ProxyUnreachable(
                f"This user may not use {where}. Be root, or name the user in proxy.admin_user of the inventory, "
                "render and reload."
            ) from None
        except OSError as error:
            raise ProxyUnreachable(f"Nothing answers at {where}: {error.strerror or error}. Is it running?") from error
        text = answer.decode("utf-8", "replace")
        if text.startswith("Permission denied"):
            raise ProxyUnreachable(f"HAProxy refuses `{command}` at {self.path}: the socket needs `level admin`.")
        return text

    async def _exchange(self, command: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            writer.write(f"{command}\n".encode())
            pieces = bytearray()
            while piece := await reader.read(65536):
                pieces += piece
                if len(pieces) > _LONGEST_ANSWER:
                    raise OSError(f"the answer has more than {_LONGEST_ANSWER} bytes")
            return bytes(pieces)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


_EXPECTED = "the admin socket of HAProxy is expected"


def _rows(statistics: str) -> Iterator[dict[str, str]]:
    """The lines of `show stat` by the heads in its first one."""
    heads, *lines = csv.reader(statistics.splitlines())
    if heads[:2] != ["# pxname", "svname"]:
        raise ValueError(f"unknown heads of `show stat`: {heads[:2]}")
    for line in filter(None, lines):
        yield dict(zip(["pxname", *heads[1:]], line))


def _servers(listing: str, statistics: Mapping[tuple[str, str], Mapping[str, str]]) -> Iterator[Server]:
    """From `show servers state`, whose first line is the version of its format, and from what `show stat` tells."""
    version, heads, *lines = listing.splitlines()
    if version != "1":
        raise ValueError(f"an unknown format {version!r} of `show servers state`")
    names = heads.removeprefix("# ").split()
    for line in filter(None, lines):
        row = dict(zip(names, line.split()))
        key = row["be_name"], row["srv_name"]
        if key in statistics:  # else it came or went between the two answers
            yield _server_of(row, statistics[key])


def _server_of(row: Mapping[str, str], numbers: Mapping[str, str]) -> Server:
    state = int(row["srv_admin_state"])
    return Server(
        backend=row["be_name"],
        name=row["srv_name"],
        number=int(row["srv_id"]),
        address=row["srv_addr"].removeprefix("-"),
        port=int(row["srv_port"]),
        host=row["srv_fqdn"].removeprefix("-"),
        weight=int(row["srv_uweight"]),
        slots=int(numbers["slim"]) if numbers["slim"] else None,
        draining=bool(state & _IN_DRAIN),
        in_maintenance=bool(state & _IN_MAINTENANCE),
        is_down=int(row["srv_op_state"]) == _STOPPED,
        sessions=int(numbers["scur"]),
        queued=int(numbers["qcur"]),
    )


def _server(backend: str, name: str) -> str:
    return f"{_checked(backend)}/{_checked(name)}"


def _checked(word: str, further: Collection[str] = "") -> str:
    """The word, if it can neither end a command nor begin another."""
    if not _WORD.fullmatch("".join(char for char in word if char not in further)):
        raise ValueError(f"{word!r} cannot be part of a command to HAProxy")
    return word
