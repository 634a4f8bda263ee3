"""Asking another node over HTTP, with an end to what it may answer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2


async def exchange(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    longest: int,
) -> tuple[int, bytes | None]:
    """Status and body of an answer; None in place of a body of more than `longest` bytes. Follows no redirect.

    Raises httpx2.TransportError, httpx2.InvalidURL.
    """
    content = bytearray()
    async with (
        client.stream(method, url, headers=headers, content=body, follow_redirects=False) as response,
        contextlib.aclosing(response.aiter_raw()) as pieces,
    ):
        async for piece in pieces:
            content += piece
            if len(content) > longest:
                return response.status_code, None
    return response.status_code, bytes(content)
