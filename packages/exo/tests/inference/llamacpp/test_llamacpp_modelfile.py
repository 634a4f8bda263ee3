"""What a Modelfile beside a GGUF does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exo.inference import EngineContext
from exo.inference.llamacpp import engine as engine_module
from exo.inference.llamacpp.engine import LlamaCppEngine
from exo.inference.llamacpp.loaded import WorkerSettings
from exo.inference.pool import PooledModel
from exo.models import ModelStore
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    Limits,
    Message,
    ModelCard,
    ModelLoadError,
    Sampling,
)

HI = (Message(role="user", content="Hi"),)
MODELFILE = """FROM m.gguf
PARAMETER num_ctx 1024
PARAMETER temperature 0.3
PARAMETER top_k 7
PARAMETER num_predict 9
PARAMETER stop END
SYSTEM Be brief.
MESSAGE user 1+1?
MESSAGE assistant 2
"""


class Recorder(PooledModel):
    """Notes what reaches the worker."""

    made: ClassVar[list[WorkerSettings]]
    asked: ClassVar[list[Any]]

    def __init__(self, card: ModelCard, path: Path, settings: WorkerSettings, env: Any) -> None:
        super().__init__()
        self.made.append(settings)

    @property
    def problem(self) -> str:
        return ""

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.asked.append(request)
        yield Delta(finish_reason="stop")

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        self.asked.append(request)
        yield Delta(finish_reason="stop")

    async def count(self, request: ChatRequest) -> int:
        return len(request.messages)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    class Fresh(Recorder):
        made: ClassVar[list[WorkerSettings]] = []
        asked: ClassVar[list[Any]] = []

    monkeypatch.setattr(engine_module, "LoadedModel", Fresh)
    return Fresh


def make(root: Path, modelfile: str | None = MODELFILE) -> LlamaCppEngine:
    folder = root / "m"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF")
    if modelfile is not None:
        (folder / "Modelfile").write_text(modelfile)
    return LlamaCppEngine(EngineContext(ModelStore(root)))


async def test_what_the_request_leaves_open_comes_from_the_modelfile(tmp_path: Path, recorder: type[Recorder]) -> None:
    engine = make(tmp_path)
    [_ async for _ in engine.chat(ChatRequest(model="m", messages=HI, sampling=Sampling(top_k=1)))]
    (asked,) = recorder.asked
    assert [(message.role, message.content) for message in asked.messages] == [
        ("system", "Be brief."),
        ("user", "1+1?"),
        ("assistant", "2"),
        ("user", "Hi"),
    ]
    assert asked.sampling == Sampling(temperature=0.3, top_k=1)
    assert asked.limits == Limits(max_tokens=9, stop=("END",))
    assert recorder.made[0].context == 1024
    assert await engine.count(ChatRequest(model="m", messages=HI)) == 4


async def test_what_the_request_says_counts(tmp_path: Path, recorder: type[Recorder]) -> None:
    engine = make(tmp_path)
    own = (Message(role="system", content="Be long."), *HI)
    limits = Limits(max_tokens=3, stop=("x",))
    [_ async for _ in engine.chat(ChatRequest(model="m", messages=own, limits=limits))]
    assert [message.content for message in recorder.asked[0].messages if message.role == "system"] == ["Be long."]
    assert recorder.asked[0].limits == limits


async def test_a_raw_prompt_gets_no_messages(tmp_path: Path, recorder: type[Recorder]) -> None:
    [_ async for _ in make(tmp_path).complete(CompletionRequest(model="m", prompt="p"))]
    (asked,) = recorder.asked
    assert (asked.prompt, asked.sampling.temperature, asked.limits.max_tokens) == ("p", 0.3, 9)


async def test_without_a_modelfile_nothing_changes(tmp_path: Path, recorder: type[Recorder]) -> None:
    request = ChatRequest(model="m", messages=HI)
    [_ async for _ in make(tmp_path, None).chat(request)]
    assert recorder.asked == [request]
    assert recorder.made[0].context == 4096


async def test_a_faulty_modelfile_is_named_with_its_line(tmp_path: Path, recorder: type[Recorder]) -> None:
    engine = make(tmp_path, "FROM m.gguf\nPARAMETER num_ctx many\n")
    with pytest.raises(ModelLoadError, match=r"Modelfile:2: .*num_ctx"):
        [_ async for _ in engine.chat(ChatRequest(model="m", messages=HI))]
    assert (await engine.describe("m")).context_length == 4096


async def test_what_is_told_of_a_model(tmp_path: Path) -> None:
    found = await make(tmp_path).describe("m")
    assert (found.context_length, found.system, found.format, found.size) == (1024, "Be brief.", "gguf", 4)
    assert found.parameters == {
        "num_ctx": 1024,
        "num_predict": 9,
        "temperature": 0.3,
        "top_k": 7,
        "stop": ["END"],
    }
    assert found.modelfile == MODELFILE
