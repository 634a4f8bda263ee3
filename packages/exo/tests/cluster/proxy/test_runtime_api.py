"""What goes over the admin socket, with a stand-in for HAProxy; tests/cluster has the real one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from exo.cluster.proxy.runtime_api import ProxyState, RuntimeApi, Server
from exo.types import ProxyRefused, ProxyUnreachable

STATISTICS = """# pxname,svname,qcur,scur,slim,status
p,a,1,2,4,UP
p,late,0,0,,UP
p,BACKEND,0,0,200,UP
q,BACKEND,0,0,200,DOWN
"""
HEADS = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_fqdn srv_port"
SERVERS = f"""1
{HEADS}
3 p 7 a 10.0.0.1 2 0 50 - 52415
3 p 8 b - 0 9 1 board.lan 1

"""
TABLES = "# table: p, type: binary, size:102400, used:0\n# table: p_responses, type: string, size:5, used:1\n\n"
SHOWN = {"show stat -1 6 -1": STATISTICS, "show servers state": SERVERS, "show table": TABLES}


class HaproxyStandIn:
    """Answers what it is told to, and nothing to what it was not told."""

    def __init__(self, path: Path, answers: Mapping[str, str]) -> None:
        self.path = path
        self.answers = dict(answers)
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.readline()).decode().removesuffix("\n")
        self.asked.append(command)
        writer.write(self.answers.get(command, "\n").encode())
        writer.close()


@contextlib.asynccontextmanager
async def stand_in(folder: Path, answers: Mapping[str, str]) -> AsyncIterator[tuple[RuntimeApi, HaproxyStandIn]]:
    haproxy = HaproxyStandIn(folder / "admin.sock", answers)
    server = await asyncio.start_unix_server(haproxy.serve, haproxy.path)
    async with server:
        yield RuntimeApi(haproxy.path), haproxy


async def test_the_state_joins_three_answers(tmp_path: Path) -> None:
    statistics = STATISTICS.replace("p,late", "p,b,0,0,,MAINT\np,late")
    async with stand_in(tmp_path, {**SHOWN, "show stat -1 6 -1": statistics}) as (api, _):
        assert await api.state() == ProxyState(
            frozenset({"p", "q"}),
            frozenset({"p", "p_responses"}),
            (
                Server("p", "a", 7, "10.0.0.1", 52415, weight=50, slots=4, sessions=2, queued=1),
                Server(
                    "p", "b", 8, "", 1, host="board.lan", weight=1, draining=True, in_maintenance=True, is_down=True
                ),
            ),
        )


async def test_a_server_that_came_between_two_answers_is_left_for_the_next_time(tmp_path: Path) -> None:
    async with stand_in(tmp_path, SHOWN) as (api, _):
        assert [server.name for server in (await api.state()).servers] == ["a"]


async def test_every_command(tmp_path: Path) -> None:
    async with stand_in(tmp_path, {}) as (api, haproxy):
        await api.add_server("p", "c", "2001:db8::1", 80, weight=9, slots=2, options="check")
        await api.add_server("p", "c", "10.0.0.1", 80, weight=9, slots=None, options="check")
        await api.ready("p", "c")
        await api.drain("p", "c")
        await api.maintain("p", "c")
        await api.set_weight("p", "c", 3)
        await api.set_slots("p", "c", 4)
        await api.forget("p", 7)
        assert await api.delete("p", "c")
        assert haproxy.asked == [
            "add server p/c [2001:db8::1]:80 maxconn 2 weight 9 check; enable health p/c; enable server p/c",
            "add server p/c 10.0.0.1:80 weight 9 check; enable health p/c; enable server p/c",
            "set server p/c state ready",
            "set server p/c state drain",
            "set server p/c state maint",
            "set server p/c weight 3",
            "set maxconn server p/c 4",
            "clear table p data.server_id eq 7",
            "del server p/c",
        ]


async def test_what_haproxy_says_against_it_is_told(tmp_path: Path) -> None:
    answers = {
        "set server p/c state drain": "No such server.\n\n",
        "del server p/c": "This server cannot be removed due to other configuration elements pointing to it.\n",
        "del server p/d": "Only servers in maintenance mode can be deleted.\n",
    }
    async with stand_in(tmp_path, answers) as (api, _):
        with pytest.raises(ProxyRefused, match=r"`set server p/c state drain`: No such server\."):
            await api.drain("p", "c")
        assert not await api.delete("p", "c")
        with pytest.raises(ProxyRefused, match="maintenance mode"):
            await api.delete("p", "d")


@pytest.mark.parametrize("name", ["c; shutdown sessions server p/a", "c d", "c\nd", "", "c\\;d"])
async def test_a_name_cannot_begin_another_command(tmp_path: Path, name: str) -> None:
    async with stand_in(tmp_path, {}) as (api, haproxy):
        with pytest.raises(ValueError, match="cannot be part of a command"):
            await api.drain("p", name)
        with pytest.raises(ValueError, match="IPv4 or IPv6"):
            await api.add_server("p", "c", name, 80, weight=1, slots=1, options="")
        assert haproxy.asked == []


async def test_who_is_not_there_or_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(ProxyUnreachable, match=r"There is no .*proxy\.admin_socket"):
        await RuntimeApi(tmp_path / "nowhere").state()
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        with pytest.raises(ProxyUnreachable, match="Is it running"):
            await RuntimeApi(path).state()
        silent.listen()
        with pytest.raises(ProxyUnreachable, match=r"within 0\.05 seconds"):
            await RuntimeApi(path, timeout=0.05).state()


async def test_a_socket_that_this_user_may_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(path: str) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(asyncio, "open_unix_connection", refused)
    with pytest.raises(ProxyUnreachable, match=r"proxy\.admin_user"):
        await RuntimeApi(tmp_path / "admin.sock").state()


async def test_a_socket_without_rights(tmp_path: Path) -> None:
    async with stand_in(tmp_path, {"del server p/c": "Permission denied\n"}) as (api, _):
        with pytest.raises(ProxyUnreachable, match="level admin"):
            await api.delete("p", "c")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("show stat -1 6 -1", "<html>\n"),
        ("show stat -1 6 -1", ""),
        ("show stat -1 6 -1", "# pxname,svname\np,a\np,BACKEND\n"),
        ("show servers state", ""),
        ("show servers state", f"2\n{HEADS}\n"),
        ("show servers state", f"1\n{HEADS}\n3 p 7 a\n"),
        ("show servers state", f"1\n{HEADS}\n3 p x a 10.0.0.1 2 0 50 - 52415\n"),
    ],
)
async def test_something_else_at_the_socket(tmp_path: Path, command: str, answer: str) -> None:
    async with stand_in(tmp_path, {**SHOWN, command: answer}) as (api, _):
        with pytest.raises(ProxyUnreachable, match="not answer as HAProxy does"):
            await api.state()
