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
    """Responses by the name of the API key that they belong to and by their id.

    Where there is no room for another one, the key that has the most gives up the one that it has not used for longest:
    so no key drives out the responses of one that has less.
    """

    def __init__(self, *, most: int = MOST_RESPONSES, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._shelves: dict[str, _Shelf] = {}

    def __len__(self) -> int:
        return sum(map(len, self._shelves.values()))

    @property
    def size(self) -> int:
        """What all responses and their conversations take, in bytes."""
        return sum(shelf.size for shelf in self._shelves.values())

    def find(self, key: str, response_id: str) -> StoredResponse | None:
        """The response, from now on the most recently used one."""
        shelf = self._shelves.get(key)
        return shelf.find(response_id) if shelf else None

    def keep(self, key: str, response: StoredResponse) -> None:
        """Store a response. One whose conversation alone is larger than the store is left out, not all others."""
        if response.size + sum(turn.size for turn in response.turn.back()) > self._most_bytes:
            return
        self._shelves.setdefault(key, _Shelf()).add(response)
        while len(self) > self._most:
            self._drop_from(max(self._shelves, key=lambda key: len(self._shelves[key])))
        while self.size > self._most_bytes:
            self._drop_from(max(self._shelves, key=lambda key: self._shelves[key].size))

    def remove(self, key: str, response_id: str) -> bool:
        """Whether there was such a response."""
        shelf = self._shelves.get(key)
        if shelf is None or not shelf.remove(response_id):
            return False
        if not len(shelf):
            del self._shelves[key]
        return True

    def _drop_from(self, key: str) -> None:
        self.remove(key, self._shelves[key].oldest)


class _Shelf:
    """The responses of one key, the most recently used one last. `size` is what they and their turns take, in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._stored: OrderedDict[str, StoredResponse] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def oldest(self) -> str:
        """The id of the least recently used one; there has to be one."""
        return next(iter(self._stored))

    def find(self, response_id: str) -> StoredResponse | None:
        found = self._stored.get(response_id)
        if found is not None:
            self._stored.move_to_end(response_id)
        return found

    def add(self, response: StoredResponse) -> None:
        self._stored[response.id] = response
        self.size += response.size
        for turn in response.turn.back():  # a turn that comes into the store brings those before it
            turn.holders += 1
            if turn.holders > 1:
                return
            self.size += turn.size

    def remove(self, response_id: str) -> bool:
        removed = self._stored.pop(response_id, None)
        if removed is None:
            return False
        self.size -= removed.size
        for turn in removed.turn.back():
            turn.holders -= 1
            if turn.holders:
                break
            self.size -= turn.size
        return True


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
