"""Clients that stream chats from the test process, many at once.

    chats = run(url, questions(600), at_once=200)               # a Chat for each when all have ended, see bench/load.py
    with Load(url, questions(), at_once=8) as load:             # in the background, here without end
        wait_until(lambda: len(load.finished) > 100 and load.answering == 3, ...)
        node.kill()
        chats = load.stop()                                     # begins no more; wait() is for those with an end
    talks = converse(url, users=30, turns=6)                    # for each user the Chats, turn by turn

    chat.status, chat.problem, chat.finish, chat.text, chat.completion_tokens, chat.cached_tokens, chat.ended
    is_whole(chat)                                              # status 200, [DONE] and a finish reason
    by_node(chats)                                              # Counter of node names, "" where no node is known
    first_token(chat), tokens_per_second(chats), busiest_share(chats, nodes=3), same_node_share(talks)

`url` is that of the proxy or of a node. Which node has answered is in the answer: cluster_support.nodes has each begin
with its node's name. Nothing that goes wrong is raised: it is in `status` (0: no answer at all) and `problem`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, final
from urllib.parse import urlsplit

from load import Chat, Target, one_chat

Body = dict[str, Any]
_SECONDS = 120.0
_WAIT = 300.0
_GLANCE = 0.2


def questions(count: int | None = None, *, topic: str = "Question", **fields: Any) -> Iterator[Body]:
    """Bodies that differ in the user's message, without end if there is no `count`; `fields` such as `model`."""
    for number in itertools.count() if count is None else range(count):
        yield {"messages": [{"role": "user", "content": f"{topic} {number}: what is new?"}], **fields}


def run(url: str, bodies: Iterable[Body], *, at_once: int, **options: Any) -> list[Chat]:
    """All these chats, at most `at_once` at a time, in the order of their ends; options as for Load."""
    with Load(url, bodies, at_once=at_once, **options) as load:
        return load.wait()


@final
class Load:
    """Chats in a thread of their own, at most `at_once` at a time; the first ones begin at once.

    A context manager: an error in its block breaks running chats off, else it begins no more and waits for them. `key`
    is an API key, `seconds` the longest time for one chat.
    """

    def __init__(
        self, url: str, bodies: Iterable[Body], *, at_once: int, key: str = "", seconds: float = _SECONDS
    ) -> None:
        self.finished: list[Chat] = []
        """In the order of their ends; grows while the load runs."""
        self.answering = 0
        """How many chats have begun to be answered and have not ended."""
        self._ask = _Asker(url, key, seconds)
        self._bodies = iter(bodies)
        self._at_once = at_once
        self._stopping = threading.Event()
        self._broken_off = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._end = self._thread.submit(lambda: asyncio.run(self._run()))

    def wait(self, timeout: float = _WAIT) -> list[Chat]:
        """Every chat, when the last has ended."""
        self._end.result(timeout)
        return self.finished

    def stop(self, timeout: float = _WAIT) -> list[Chat]:
        """Begin no more chats; all there were, when the last has ended."""
        self._stopping.set()
        return self.wait(timeout)

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if error is not None:
            self._broken_off.set()
        self._thread.shutdown()
        if error is None:
            self._end.result()

    async def _run(self) -> None:
        clients = asyncio.gather(*(self._client() for _ in range(self._at_once)))
        while not clients.done() and not self._broken_off.is_set():
            await asyncio.wait([clients], timeout=_GLANCE)
        if not clients.done():
            clients.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clients

    async def _client(self) -> None:
        for body in self._bodies:
            if self._stopping.is_set():
                return
            await self._chat(body)

    async def _chat(self, body: Body) -> None:
        begun: list[bool] = []

        def begins() -> None:
            begun.append(True)
            self.answering += 1

        try:
            self.finished.append(await self._ask(body, begins))
        finally:
            self.answering -= len(begun)


def converse(
    url: str,
    *,
    users: int,
    turns: int,
    pause: Callable[[int, int], float] | None = None,
    key: str = "",
    seconds: float = _SECONDS,
    **fields: Any,
) -> list[list[Chat]]:
    """Chats in which every answer is sent back, of so many users side by side.

    `pause` tells how many seconds a user (0, 1, …) thinks before a turn (0, 1, …). A turn that fails is a user's last.
    """
    ask = _Asker(url, key, seconds)

    async def talk(user: int) -> list[Chat]:
        messages: list[dict[str, str]] = []
        chats: list[Chat] = []
        for turn in range(turns):
            await asyncio.sleep(pause(user, turn) if pause else 0)
            messages.append({"role": "user", "content": f"User {user} asks question {turn}: what is new?"})
            chats.append(await ask({"messages": list(messages), **fields}))
            if not is_whole(chats[-1]):
                break
            messages.append({"role": "assistant", "content": chats[-1].text})
        return chats

    async def talk_all() -> list[list[Chat]]:
        return list(await asyncio.gather(*(talk(user) for user in range(users))))

    return asyncio.run(talk_all())


def is_whole(chat: Chat) -> bool:
    """Whether the answer came to its proper end."""
    return chat.status == http.client.OK and not chat.problem and chat.finish is not None


def node_of(chat: Chat) -> str:
    """The name of the node that has answered, empty if it never got so far as to say it."""
    name, blank, _ = chat.text.partition(" ")
    return name if blank else ""


def by_node(chats: Iterable[Chat]) -> Counter[str]:
    return Counter(map(node_of, chats))


def first_token(chat: Chat) -> float:
    """Seconds from the question to the first piece of text; infinite if there was none."""
    return chat.times[0] - chat.asked if chat.times else float("inf")


def tokens_per_second(chats: Sequence[Chat]) -> float:
    """Of all answers together, from the first question to the last end."""
    took = max(chat.ended for chat in chats) - min(chat.asked for chat in chats)
    return sum(chat.completion_tokens for chat in chats) / took


def busiest_share(chats: Sequence[Chat], *, nodes: int) -> float:
    """What the node with the most chats had, as a multiple of an equal share."""
    return max(by_node(chats).values()) * nodes / len(chats)


def same_node_share(talks: Iterable[Sequence[Chat]]) -> float:
    """The part of the follow-up turns that reached the node which had served the turn before."""
    pairs = [(node_of(one), node_of(following)) for talk in talks for one, following in itertools.pairwise(talk)]
    return sum(one == following != "" for one, following in pairs) / len(pairs)


@final
class _Asker:
    """Sends one body to one address."""

    def __init__(self, url: str, key: str, seconds: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        self._target = Target(parts.hostname, parts.port or 80)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._seconds = seconds

    async def __call__(self, body: Body, begins: Callable[[], None] | None = None) -> Chat:
        return await one_chat(self._target, body, headers=self._headers, seconds=self._seconds, begins=begins)
