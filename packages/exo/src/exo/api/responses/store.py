"""The responses that can be asked for again and continued, in memory only.

    StoredResponse ──turn──▶ Turn ──parent──▶ Turn ──parent──▶ … the first turn of the conversation

Responses of one conversation share its turns, so that each text is there once. A turn stays for as long as a stored
response needs it, even if its own is gone.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from exo.api.responses.schema import InputItem
from exo.types import Message

MOST_RESPONSES = 1000
"""More than a board answers in the hours in which somebody comes back; each takes 2 KB beside its texts."""
MOST_BYTES = 32 * 1024 * 1024
"""Little of the 4 GB that a board has, and yet 2,000 conversations that fill a context of 4096 tokens."""


@dataclass(eq=False)
class Turn:
    """What one response has added to its conversation: the messages of its input and its answer.

    `size` is what they take in memory, in bytes, `holders` counts the stored responses and later turns that need it.
    """

    messages: tuple[Message, ...]
    parent: Turn | None = None
    size: int = field(init=False)
    holders: int = 0

    def __post_init__(self) -> None:
        self.size = memory_of([self.messages])

    def back(self) -> Iterable[Turn]:
        """This turn and those before it, the latest first."""
        turn: Turn | None = self
        while turn is not None:
            yield turn
            turn = turn.parent

    def conversation(self) -> list[Message]:
        """The messages of all turns, the first of them first."""
        return [message for turn in reversed(list(self.back())) for message in turn.messages]


@dataclass(eq=False)
class StoredResponse:
    """A response: its JSON, the items of its input, and the turn with which its conversation goes on."""

    id: str
    body: bytes
    items: Sequence[InputItem]
    turn: Turn
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Its bytes beside those of the turn, whose texts the items share."""
        self.size = memory_of([self.body, self.items, self.turn.messages]) - self.turn.size


class ResponseStore:
    """Responses by the name of the API key that they belong to and by their id; the least recently used go first."""

    def __init__(self, *, most: int = MOST_RESPONSES, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._stored: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def size(self) -> int:
        """What all responses and their conversations take, in bytes."""
        return self._size

    def find(self, key: str, response_id: str) -> StoredResponse | None:
        """The response, from now on the most recently used one."""
        found = self._stored.get((key, response_id))
        if found is not None:
            self._stored.move_to_end((key, response_id))
        return found

    def keep(self, key: str, response: StoredResponse) -> None:
        """Store a response. One whose conversation alone is larger than the store is left out, not all others."""
        if response.size + sum(turn.size for turn in response.turn.back()) > self._most_bytes:
            return
        self._stored[key, response.id] = response
        self._size += response.size
        self._hold(response.turn)
        while len(self._stored) > self._most or self._size > self._most_bytes:
            self.remove(*next(iter(self._stored)))

    def remove(self, key: str, response_id: str) -> bool:
        """Whether there was such a response."""
        removed = self._stored.pop((key, response_id), None)
        if removed is None:
            return False
        self._size -= removed.size
        self._release(removed.turn)
        return True

    def _hold(self, latest: Turn) -> None:
        """A turn that comes into the store, new or for a second time, brings those before it."""
        for turn in latest.back():
            turn.holders += 1
            if turn.holders > 1:
                return
            self._size += turn.size

    def _release(self, latest: Turn) -> None:
        for turn in latest.back():
            turn.holders -= 1
            if turn.holders:
                return
            self._size -= turn.size


def memory_of(values: Sequence[object]) -> int:
    """The bytes of memory that structs, sequences and texts take; what is in several places counts once."""
    left = list(values)
    seen = set()
    size = 0
    while left:
        value = left.pop()
        if value is None or id(value) in seen:
            continue
        seen.add(id(value))
        size += sys.getsizeof(value)
        if isinstance(value, msgspec.Struct):
            left += (getattr(value, name) for name in value.__struct_fields__)
        elif isinstance(value, list | tuple):
            left += value
    return size
