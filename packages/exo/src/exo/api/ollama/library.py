"""The paths that change what is in the store."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.exchange import JSON_TYPE, cancelled_when_gone, exchange_of, read_body, send_bytes
from exo.api.ollama.creation import modelfile_text, refuse_uploads
from exo.api.ollama.names import needed, without_latest
from exo.api.ollama.progress import Work, send_outcome, send_steps
from exo.api.ollama.schema import OllamaCopyRequest, OllamaCreateRequest, OllamaDeleteRequest, OllamaPullRequest
from exo.api.settings import HttpSettings
from exo.inference import InferenceService
from exo.models import HubLibrary, Report
from exo.types import ModelNotFound, NotFound, UnsupportedParameter

logger = logging.getLogger(__name__)
T = TypeVar("T")


class OllamaLibrary:
    """The endpoints, as ASGI applications. The library blocks, so it works in threads."""

    def __init__(self, service: InferenceService, settings: HttpSettings) -> None:
        self._service = service
        self._settings = settings
        self._changes: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[Route]:
        return [
            Route("/api/pull", Endpoint(self.pull), methods=["POST"]),
            Route("/api/push", Endpoint(self.push), methods=["POST"]),
            Route("/api/create", Endpoint(self.create), methods=["POST"]),
            Route("/api/copy", Endpoint(self.copy), methods=["POST"]),
            Route("/api/delete", Endpoint(self.delete), methods=["DELETE"]),
            Route("/api/blobs/{digest}", Endpoint(self.blob), methods=["HEAD", "POST"]),
        ]

    async def pull(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = decode(await read_body(scope, receive, self._settings), OllamaPullRequest)
        reference = without_latest(needed(wire.model, wire.name))
        library, cancelled = self._library(), threading.Event()

        async def pull(report: Report) -> None:
            bring = functools.partial(_pull, library, report=report, cancelled=cancelled)
            await self._change(bring, reference, force=wire.force)

        async def pull_tokenizer(report: Report) -> None:
            card = await self._service.resolve(reference)
            bring = functools.partial(library.pull_tokenizer, report=report, cancelled=cancelled)
            await self._change(bring, card.id, wire.repository)

        try:
            work = pull_tokenizer if wire.tokenizer else pull
            await self._do(work, scope, receive, send, stream=wire.stream)
        finally:
            cancelled.set()  # the client may be gone while the thread still works

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = decode(await read_body(scope, receive, self._settings), OllamaCreateRequest)
        name = without_latest(needed(wire.model, wire.name))
        refuse_uploads(wire)
        library = self._library()
        text = modelfile_text(wire, base=await self._id_of(wire.from_))

        async def work(report: Report) -> None:
            await self._change(library.create, name, text, force=wire.force, report=report)

        await self._do(work, scope, receive, send, stream=wire.stream)

    async def copy(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = decode(await read_body(scope, receive, self._settings), OllamaCopyRequest)
        library = self._library()
        source = await self._service.resolve(wire.source)
        destination = without_latest(wire.destination)
        await self._change(library.copy, source.id, destination, force=wire.force, changed=destination)
        await send_bytes(send, 200, b"", JSON_TYPE)

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = decode(await read_body(scope, receive, self._settings), OllamaDeleteRequest)
        library = self._library()
        card = await self._service.resolve(needed(wire.model, wire.name))
        await self._service.unload(card.id)
        left = await self._change(library.delete, card.id)
        if left:
            logger.warning("%s is deleted; these files are not the model's and stay: %s", card.id, ", ".join(left))
        await send_bytes(send, 200, msgspec.json.encode({"left": left}) if left else b"", JSON_TYPE)

    async def push(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        raise UnsupportedParameter("Models are not pushed from here; upload the model's folder to the hub yourself.")

    async def blob(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        if scope["method"] == "HEAD":
            raise NotFound("This node keeps no blobs.")
        raise UnsupportedParameter(
            "Files are not uploaded to this node; put the model's folder into its store, or pull the model."
        )

    async def _do(self, work: Work, scope: Scope, receive: Receive, send: Send, *, stream: bool | None) -> None:
        """Tell of the work step by step, unless that is not wanted; a client that goes away does not wait for it."""
        exchange = exchange_of(scope)
        outcome = functools.partial(send_outcome, heartbeat=self._settings.heartbeat)
        async with cancelled_when_gone(receive):
            last = await (outcome if stream is False else send_steps)(send, work, exchange)
        for message in last:
            await send(message)

    async def _change(
        self, change: Callable[..., T], model: str, *arguments: Any, changed: str | None = None, **options: Any
    ) -> T:
        """Call `change(model, …)` in a thread; whatever is loaded of `changed`, or of `model`, is out of date then.

        A change that returns a name has changed that model, one that returns the empty text none.

        Goes on to the end when the client leaves, for the thread does so too.
        """

        async def work() -> T:
            result = await asyncio.to_thread(change, model, *arguments, **options)
            outdated = changed or (result if isinstance(result, str) else model)
            if outdated:
                await self._service.unload(outdated)
            return result

        task = asyncio.ensure_future(work())
        self._changes.add(task)
        task.add_done_callback(self._end_of_change)
        return await asyncio.shield(task)

    def _end_of_change(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to be told

    async def _id_of(self, name: str | None) -> str | None:
        """The id of the model of that name; None if it is none, as FROM may also name a file."""
        try:
            return (await self._service.resolve(name)).id if name else None
        except ModelNotFound:
            return None

    def _library(self) -> HubLibrary:
        library = self._service.engine.library
        if library is None:
            raise UnsupportedParameter(
                f"The engine {self._service.engine.name} lets nobody change its models over HTTP; "
                "change them where they are stored."
            )
        return library


def _pull(library: HubLibrary, reference: str, **options: Any) -> str:
    """The id of the model whose file has come; empty if it was there already."""
    before = library.files()
    model = library.pull(reference, **options)
    return model if library.files().get(model) != before.get(model) else ""
