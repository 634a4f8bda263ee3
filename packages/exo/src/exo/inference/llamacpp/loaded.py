"""One loaded model: its worker process and the client that speaks to it."""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import msgspec

from exo.inference.llamacpp.client import LlamaClient, Properties
from exo.inference.llamacpp.tools import Chat, as_told, chat_with_tools
from exo.inference.llamacpp.worker import WorkerConfig
from exo.inference.pool import PooledModel
from exo.inference.supervisor import WorkerProcess
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ContextOverflow,
    Delta,
    Embeddings,
    ModelCard,
    ModelLoadError,
    UnsupportedParameter,
    Usage,
    WorkerDied,
)

_START_TIMEOUT = 600.0
_RESTART_TIMEOUT = 120.0
_LONGEST_TOKEN = 256
"""Characters. The longest tokens of the usual vocabularies are runs of 128 blanks."""
REASONS = "</think>"
_SWITCH = "enable_thinking"
"""What stands in chat templates of models that reason, and of those that can be told not to."""
_LONGEST_SOCKET_FOLDER = 80
"""A socket's path has to fit into 104 bytes (macOS; 108 on Linux)."""


@dataclass(frozen=True)
class WorkerSettings:
    """`context` is in tokens for each slot, `threads` 0 leaves the choice to llama.cpp, `cache_mib` is host memory."""

    slots: int
    context: int
    threads: int
    cache_mib: int


class LoadedModel(PooledModel):
    """A model in the memory of a llama.cpp worker."""

    def __init__(self, card: ModelCard, path: Path, settings: WorkerSettings, env: Mapping[str, str]) -> None:
        super().__init__()
        try:
            str(path.resolve()).encode()
        except UnicodeEncodeError:
            raise ModelLoadError(f"{str(path)!r} cannot be loaded: rename it, its path is not UTF-8.") from None
        self._folder = Path(_private_folder())
        self._socket = self._folder / "llama.sock"
        self.context = context = min(settings.context, card.context_length or settings.context)
        self._config: WorkerConfig = {
            "model": str(path.resolve()),
            "socket": str(self._socket),
            "slots": settings.slots,
            "context": context,
            "threads": settings.threads,
            "cache_mib": settings.cache_mib,
            "pooling": card.pooling,
        }
        self._card = card
        self._properties: Properties | None = None
        self._worker = WorkerProcess(
            f"the llamacpp worker of {card.id}",
            self._command,
            env=env,
            folder=self._folder,
            start_timeout=_START_TIMEOUT,
        )
        self._client = LlamaClient(str(self._socket))

    @property
    def ready(self) -> bool:
        return self._worker.is_ready

    @property
    def problem(self) -> str:
        """Why the worker cannot be started again; empty while it can."""
        return self._worker.problem

    @property
    def worker_pid(self) -> int | None:
        return self._worker.pid

    async def start(self) -> None:
        """Raises ModelLoadError."""
        try:
            await self._worker.start()
        except BaseException:  # also a cancellation: no process may be left over
            await self.close()
            raise

    async def close(self) -> None:
        await self._client.close()
        await self._worker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self._check_chat_length(request)
        run: Chat = self._run_chat
        if _has_tools(request):
            run = functools.partial(chat_with_tools, run, knows_tools=await self._knows_tools())
        async with contextlib.aclosing(run(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def _run_chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        request = await self._thinking_as_far_as_it_can(request)
        reasons = await self.can_think()
        async with contextlib.aclosing(self._deltas(lambda: self._client.chat(request, reasons=reasons))) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        self._check_length(1, len(request.prompt))
        async with contextlib.aclosing(self._deltas(lambda: self._client.complete(request))) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """One vector for each text, scaled to length 1: the model's own for the whole text, else its last token's."""
        vectors, tokens = [], 0
        for text in texts:
            async with self._worker_died():
                ids = await self._client.tokenize(text, special=False, add_special=True)
                if len(ids) > self.context:
                    raise ContextOverflow(
                        prompt_tokens=len(ids), context_tokens=self.context, hint="EXO_LLAMACPP_CONTEXT"
                    )
                (found,) = await self._client.embed([text])
            vectors.append(unit_vector(found[-1]))
            tokens += len(ids)
        return Embeddings(vectors=tuple(vectors), usage=Usage(prompt_tokens=tokens))

    async def can_think(self) -> bool:
        """Whether the model's chat template, or its card, knows of reasoning."""
        return self._card.thinking is not None or REASONS in (await self._known()).chat_template

    async def _thinking_as_far_as_it_can(self, request: ChatRequest) -> ChatRequest:
        """Raises UnsupportedParameter if a model is to think that cannot.

        One whose template has no switch is stopped by a budget of nothing.
        """
        if request.think is None and request.think_budget is None:
            return request
        if not await self.can_think():
            if request.think:
                raise UnsupportedParameter("This model does not support thinking; do not ask for it.", param="think")
            return msgspec.structs.replace(request, think=None, think_budget=None)
        if request.think is False and _SWITCH not in (await self._known()).chat_template:
            return msgspec.structs.replace(request, think=None, think_budget=0)
        return request

    async def _knows_tools(self) -> bool:
        return (await self._known()).chat_template_caps.supports_tools

    async def _known(self) -> Properties:
        if self._properties is None:
            async with self._worker_died():
                self._properties = await self._client.properties()
        return self._properties

    async def tokenize(self, text: str) -> list[int]:
        async with self._worker_died():
            return await self._client.tokenize(text, special=False)

    async def count(self, request: ChatRequest) -> int:
        self._check_chat_length(request)
        if _has_tools(request):
            request = as_told(request, knows_tools=await self._knows_tools())
        request = await self._thinking_as_far_as_it_can(request)
        async with self._worker_died():
            prompt = await self._client.render(request)
            return len(await self._client.tokenize(prompt, special=True, add_special=True))

    def _check_chat_length(self, request: ChatRequest) -> None:
        self._check_length(len(request.messages), sum(len(message.content) for message in request.messages))

    def _check_length(self, messages: int, characters: int) -> None:
        """Refuse what cannot fit by any count: llama.cpp renders and tokenizes at length, and cannot be stopped in it.

        A message is at least one token, and no token is longer than _LONGEST_TOKEN characters.
        """
        tokens = max(messages, characters // _LONGEST_TOKEN)
        if tokens > self._config["context"]:
            raise ContextOverflow(
                prompt_tokens=tokens, context_tokens=self._config["context"], hint="EXO_LLAMACPP_CONTEXT", at_least=True
            )

    async def _deltas(self, run: Callable[[], AsyncGenerator[Delta, None]]) -> AsyncGenerator[Delta, None]:
        """A run on the worker. One that never reached it is begun anew: a dead worker costs only what it held."""
        reached = False
        while not reached:
            async with self._worker_died():
                try:
                    async with contextlib.aclosing(run()) as deltas:
                        async for delta in deltas:
                            yield delta
                    reached = True
                except httpx2.ConnectError:
                    if not await self._worker.has_exited():
                        self._worker.kill()  # alive, but out of reach: its socket is gone
                        raise
        self._worker.succeeded()

    @contextlib.asynccontextmanager
    async def _worker_died(self) -> AsyncIterator[None]:
        """Waits for a worker that can work; a broken connection becomes WorkerDied."""
        await self._worker.ready(_RESTART_TIMEOUT)
        restarts = self._worker.restarts
        try:
            yield
        except httpx2.TransportError as error:
            reason = await self._worker.exit_reason(restarts)
            raise WorkerDied(f"{self._worker.label} {reason} during this request. Send it again.") from error

    def _command(self) -> tuple[Sequence[str], bytes]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # those who tidy /tmp may have removed it
        self._socket.unlink(missing_ok=True)
        return (sys.executable, "-m", "exo.inference.llamacpp.worker"), msgspec.json.encode(self._config)


def _has_tools(request: ChatRequest) -> bool:
    """In what may be called, or in what was."""
    return bool(request.tools) or any(message.tool_calls or message.role == "tool" for message in request.messages)


def unit_vector(values: Sequence[float]) -> tuple[float, ...]:
    """A vector of length 1 in the same direction; one of nothing but zeros stays as it is."""
    length = math.hypot(*values) or 1.0
    return tuple(value / length for value in values)


def _private_folder() -> str:
    folder = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="exo-", dir=folder if len(folder) <= _LONGEST_SOCKET_FOLDER else "/tmp")  # noqa: S108
