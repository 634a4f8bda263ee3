"""An engine with every power that Ollama's dialect asks for, and a library that changes nothing on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx2
from scripted_server import Running, ScriptedEngine, Step

from exo.api import create_app
from exo.inference import Capability, InferenceEngine, InferenceService, NodeMetrics, ResidentModel
from exo.models import HubLibrary, ModelDescription, ModelStore, Progress, Report, StoredModel
from exo.models.progress import ignore
from exo.types import CompletionRequest, Delta, EmbeddingRequest, Embeddings, ExoError, Timings, Usage

ONE = ModelDescription(
    id="one",
    size=1_000,
    modified=1_700_000_000.5,
    digest="abc",
    format="rkllm",
    family="qwen2",
    parameters_count=1_500_000_000,
    parameter_size="1.5B",
    quantization="W8A8",
    context_length=4096,
    template="{{ prompt }}",
    system="Be brief.",
    licence="Apache-2.0",
    modelfile="FROM x.rkllm\n",
    parameters={"temperature": 0.8, "stop": ("<end>", 'a "b"')},
    capabilities=("completion", "thinking"),
)
TIMED = [
    Delta(text="Hello"),
    Delta(
        text="!",
        finish_reason="length",
        usage=Usage(prompt_tokens=7, completion_tokens=2),
        timings=Timings(load=0.5, prefill=0.25, decode=1.5),
    ),
]


async def post(node: Running, path: str, body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        response: httpx2.Response = await client.post(f"{node.url}{path}", json=body)
        return response


async def ask(engine: InferenceEngine, path: str, body: Any) -> httpx2.Response:
    """As `post`, to the application itself, without a server."""
    app = create_app(InferenceService(engine, NodeMetrics(engine.context.registry)))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response: httpx2.Response = await client.post(path, json=body)
        return response


def lines(response: httpx2.Response) -> list[Any]:
    """The objects of an answer in lines."""
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("\n")
    return [json.loads(line) for line in response.text.split("\n")[:-1]]


class FakeLibrary(HubLibrary):
    """Notes what it is asked for, reports `steps`, and raises `error` if there is one.

    A pull calls `pause` between its steps and its end; `cancelled` is the event that it was given. It brings the file
    of the model `one` unless `is_there`.
    """

    def __init__(self) -> None:
        super().__init__(ModelStore(Path("nowhere")), ".rkllm", engines=(), cards={}, env={})
        self.calls: list[tuple[Any, ...]] = []
        self.steps: list[Progress] = []
        self.error: ExoError | None = None
        self.left: list[str] = []
        self.is_there = False
        self.brought = 0
        self.cancelled = threading.Event()
        self.pause: Callable[[], object] = lambda: None

    def pull(
        self,
        reference: str,
        *,
        force: bool = False,
        report: Report = ignore,
        cancelled: threading.Event | None = None,
    ) -> str:
        self.calls.append(("pull", reference, force))
        self.cancelled = cancelled or self.cancelled
        self._play(report)
        self.pause()
        self.brought += not self.is_there
        return reference

    def files(self) -> dict[str, tuple[int, int]]:
        return {"one": (0, self.brought)}

    def pull_tokenizer(
        self,
        model_id: str,
        repository: str = "",
        *,
        report: Report = ignore,
        cancelled: threading.Event | None = None,
    ) -> list[str]:
        self.calls.append(("pull_tokenizer", model_id, repository))
        self._play(report)
        return ["tokenizer.json"]

    def create(self, name: str, text: str, *, force: bool = False, report: Report = ignore) -> StoredModel:
        self.calls.append(("create", name, text, force))
        self._play(report)
        return StoredModel(name, Path("x"), 1)

    def copy(self, source: str, destination: str, *, force: bool = False) -> StoredModel:
        self.calls.append(("copy", source, destination, force))
        self._play(ignore)
        return StoredModel(destination, Path("x"), 1)

    def delete(self, model_id: str) -> list[str]:
        self.calls.append(("delete", model_id))
        self._play(ignore)
        return self.left

    def _play(self, report: Report) -> None:
        for step in self.steps:
            report(step)
        if self.error is not None:
            raise self.error


class OllamaEngine(ScriptedEngine):
    """`one` is in memory and described in full, of `two/b:1` nothing is known."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "completion", "reasoning", "embeddings", "json_schema", "template"}
    )

    def __init__(self, script: Sequence[Step] = ("Hello", " world"), *, slots: int = 2) -> None:
        super().__init__(script, slots=slots)
        self.own_library = FakeLibrary()
        self.residents = [ResidentModel(id="one", size=1_500, context=2048, expires_in=300.0)]
        self.loads: list[tuple[str, float | None]] = []
        self.unloads: list[str] = []
        self.completions: list[CompletionRequest] = []
        self.embedded: list[EmbeddingRequest] = []

    @property
    def library(self) -> HubLibrary:
        return self.own_library

    async def describe(self, model: str) -> ModelDescription:
        return ONE if model == "one" else await super().describe(model)

    def resident(self) -> Sequence[ResidentModel]:
        return self.residents

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        self.loads.append((model, keep_alive))

    async def unload(self, model: str) -> None:
        self.unloads.append(model)

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        self.completions.append(request)
        yield Delta(text="raw")
        yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=1))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.embedded.append(request)
        vectors = tuple((float(len(text)), 1.0) for text in request.inputs)
        return Embeddings(vectors=vectors, usage=Usage(prompt_tokens=len(vectors)))
