"""The endpoints of earlier rkllama servers, in their shapes. Errors are `{"error": message}`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable

from starlette.routing import Route
from starlette.types import Message as HttpMessage
from starlette.types import Receive, Scope, Send

from exo.api import HttpSettings
from exo.api.dialect import (
    Endpoint,
    answer_request,
    cancelled_when_gone,
    decode,
    exchange_of,
    log_prompt,
    read_body,
    send_json,
    send_stream,
    send_whole,
)
from exo.inference import LATEST, Answer, InferenceService, is_automatic
from exo.types import BadModelfile, ChatRequest, InvalidRequest, Message, ModelNotFound
from exo_rkllm import __version__
from exo_rkllm.server.earlier_answer import EarlierStream, EarlierWhole
from exo_rkllm.server.earlier_pull import send_pull
from exo_rkllm.server.earlier_schema import (
    EarlierGenerate,
    EarlierLoad,
    EarlierMessage,
    EarlierModel,
    EarlierUnload,
)

EARLIER_PATHS = frozenset(
    {"/", "/models", "/load_model", "/unload_model", "/current_model", "/generate", "/pull", "/rm"}
)
EARLIER_ADMIN_PATHS = frozenset({"/load_model", "/unload_model", "/pull", "/rm"})
_NO_MODEL = "No models are currently loaded."


class Earlier:
    """The endpoints, as ASGI applications. The current model is the loaded one that was used last."""

    def __init__(self, service: InferenceService, settings: HttpSettings) -> None:
        self._service = service
        self._settings = settings

    def routes(self) -> list[Route]:
        return [
            Route("/", Endpoint(self.welcome), methods=["GET"]),
            Route("/models", Endpoint(self.models), methods=["GET"]),
            Route("/load_model", Endpoint(self.load), methods=["POST"]),
            Route("/unload_model", Endpoint(self.unload), methods=["POST"]),
            Route("/current_model", Endpoint(self.current), methods=["GET"]),
            Route("/generate", Endpoint(self.generate), methods=["POST"]),
            Route("/pull", Endpoint(self.pull), methods=["POST"]),
            Route("/rm", Endpoint(self.remove), methods=["DELETE", "POST"]),
        ]

    async def welcome(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_json(send, 200, {"message": "rkllama is running.", "version": __version__, "docs": "/docs"})

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_json(send, 200, {"models": sorted(card.id for card in await self._service.models())})

    async def load(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = decode(await read_body(scope, receive, self._settings), EarlierLoad)
        model = await self._id(asked.model_name)
        async with cancelled_when_gone(receive):
            if asked.from_ or asked.huggingface_path:
                await asyncio.to_thread(self._describe, model, asked.from_ or "", asked.huggingface_path or "")
            await self._service.load(model)
        await send_json(send, 200, {"message": f"Model {asked.model_name} loaded successfully."})

    async def unload(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self._settings)
        named = decode(body, EarlierUnload).model_name if body else None
        model = await self._id(named) if named else self._current()
        if model is None or model not in self._service.engine.loaded():
            raise InvalidRequest(_NO_MODEL)
        async with cancelled_when_gone(receive):
            await self._service.unload(model)
        await send_json(send, 200, {"message": "Model unloaded successfully."})

    async def current(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        model = self._current()
        if model is None:
            await send_json(send, 404, {"error": _NO_MODEL})
        else:
            await send_json(send, 200, {"model_name": model})

    async def generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.inference = True
        asked = decode(await read_body(scope, receive, self._settings), EarlierGenerate)
        model = await self._asked_for(asked.model)
        if model is None:
            raise InvalidRequest(f"{_NO_MODEL} Load one with /load_model, or name it in `model`.", param="model")
        exchange.model = model
        request = ChatRequest(id=exchange.id, model=model, messages=_messages(asked.messages))
        log_prompt(request, self._settings)
        deliver: Callable[[Answer], Awaitable[list[HttpMessage]]]
        if asked.stream:
            deliver = functools.partial(send_stream, send, writer=EarlierStream(), exchange=exchange)
        else:
            heartbeat = self._settings.heartbeat
            deliver = functools.partial(send_whole, send, writer=EarlierWhole(), exchange=exchange, heartbeat=heartbeat)
        ask = functools.partial(self._service.chat, request)
        await answer_request(scope, receive, send, ask=ask, deliver=deliver)

    async def pull(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = decode(await read_body(scope, receive, self._settings), EarlierModel)
        library = self._service.engine.library
        if library is None:
            raise InvalidRequest(f"The engine {self._service.engine.name} pulls no models.")
        left = threading.Event()
        try:
            async with cancelled_when_gone(receive):
                last = await send_pull(
                    send, functools.partial(library.pull, asked.model, cancelled=left), exchange_of(scope)
                )
        finally:
            left.set()
        for message in last:
            await send(message)

    async def remove(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = decode(await read_body(scope, receive, self._settings), EarlierModel)
        model = await self._id(asked.model)
        library = self._service.engine.library
        if library is None:
            raise InvalidRequest(f"The engine {self._service.engine.name} deletes no models.")
        await self._service.unload(model)
        await asyncio.to_thread(library.delete, model)
        await self._service.unload(model)  # a request that waited for the first unload may have loaded it again
        await send_json(send, 200, {"message": "The model has been successfully deleted."})

    def _current(self) -> str | None:
        resident = self._service.engine.resident()
        return resident[0].id if resident else None

    async def _asked_for(self, name: str | None) -> str | None:
        """What a request has for its model: the current one if it names none, None if there is none."""
        if not name and not self._service.default_is_automatic:
            return self._current()
        if not name or is_automatic(name):
            return await self._service.target(name)
        return await self._id(name)

    async def _id(self, name: str) -> str:
        """The model's id; the oldest servers called a model by its file, and so do their clients."""
        for known in dict.fromkeys((name, name.removesuffix(".rkllm"))):
            if not known.removesuffix(LATEST):  # nothing would mean the default model
                continue
            with contextlib.suppress(ModelNotFound):
                return (await self._service.resolve(known)).id
        raise ModelNotFound(name, [card.id for card in await self._service.models()])

    def _describe(self, model: str, file: str, huggingface_path: str) -> None:
        """As earlier servers did: what the request says is written down where the model has no Modelfile yet.

        Raises BadModelfile for a file that is not there: with that written down the model could not be loaded again.
        """
        library = self._service.engine.library
        stored = library.store.find(model, library.suffix) if library is not None else None
        if library is None or stored is None or stored.folder is None or (stored.folder / "Modelfile").exists():
            return
        if file and library.store.file_named(stored.folder, file, library.suffix) is None:
            raise BadModelfile(
                f"from names {file[:200]!r}, which is no file of {model}. Leave it out, or name its file."
            )
        library.add_modelfile(model, from_=file, huggingface_path=huggingface_path)


def _messages(asked: str | list[EarlierMessage]) -> tuple[Message, ...]:
    if isinstance(asked, str):
        return (Message(role="user", content=asked),)
    return tuple(Message(role=message.role, content=message.content) for message in asked)
