"""Which requests belong to one conversation."""

from __future__ import annotations

import hashlib

from exo.types import ChatRequest


def conversation_key(request: ChatRequest) -> str:
    """A key that all turns of a conversation share: a hash of the model, the system text and the first user message."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(request.model.encode("utf-8", "surrogatepass"))
    for message in request.messages:
        digest.update(b"\0" + message.content.encode("utf-8", "surrogatepass"))
        if message.role == "user":
            break
    return digest.hexdigest()
