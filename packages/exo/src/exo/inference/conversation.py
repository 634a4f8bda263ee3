"""Which requests belong to one conversation, and which model a conversation has."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from exo.types import ChatRequest, Message


def conversation_key(request: ChatRequest) -> str:
    """A key that all turns of a conversation share: a hash of the model, the system text and the first user message."""
    first = next((number for number, message in enumerate(request.messages, 1) if message.role == "user"), None)
    return _hash(request.model, (message.content for message in request.messages[:first]))


class ConversationModels:
    """The model that answered a conversation last, for the `most` latest ones. One owner: the event loop.

    A conversation is known by who asks and by all that was asked in it: two of them that begin alike, or that belong to
    different keys, are two.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._models: OrderedDict[str, str] = OrderedDict()

    def before(self, caller: str, request: ChatRequest) -> str:
        """The model that gave the latest answer in the request; empty if there is none, or nobody remembers."""
        roles = [message.role for message in request.messages]
        if "assistant" not in roles:
            return ""
        last_answer = len(roles) - 1 - roles[::-1].index("assistant")
        return self._models.get(_asked(caller, request.messages[:last_answer]), "")

    def remember(self, caller: str, request: ChatRequest, model: str) -> None:
        """`model` answers the request."""
        key = _asked(caller, request.messages)
        self._models[key] = model
        self._models.move_to_end(key)
        if len(self._models) > self._most:
            self._models.popitem(last=False)


def _asked(caller: str, messages: Iterable[Message]) -> str:
    return _hash(caller, (message.content for message in messages if message.role != "assistant"))


def _hash(first: str, texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(first.encode("utf-8", "surrogatepass"))
    for text in texts:
        digest.update(b"\0" + text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
