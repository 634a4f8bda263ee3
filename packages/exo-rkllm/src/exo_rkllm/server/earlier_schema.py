"""Requests and answers of earlier rkllama servers."""

from __future__ import annotations

from typing import Literal

import msgspec

from exo.types import FinishReason


class EarlierLoad(msgspec.Struct):
    model_name: str
    from_: str | None = msgspec.field(name="from", default=None)
    huggingface_path: str | None = None


class EarlierUnload(msgspec.Struct):
    model_name: str | None = None


class EarlierModel(msgspec.Struct):
    model: str


class EarlierMessage(msgspec.Struct):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""


class EarlierGenerate(msgspec.Struct):
    messages: str | list[EarlierMessage]
    stream: bool = False
    model: str | None = None


class EarlierChoice(msgspec.Struct, kw_only=True):
    """`reasoning_content` is ours: earlier servers had the reasoning inside the content."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    logprobs: None = None
    finish_reason: FinishReason | None = None


class EarlierUsage(msgspec.Struct, kw_only=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    tokens_per_second: float | None = None


class EarlierAnswer(msgspec.Struct, kw_only=True):
    id: str = "rkllm_chat"
    object: Literal["rkllm_chat"] = "rkllm_chat"
    created: int
    choices: list[EarlierChoice]
    usage: EarlierUsage


class EarlierSaid(msgspec.Struct):
    message: str


class EarlierError(msgspec.Struct):
    error: str
    code: str = ""
    param: str = ""


class EarlierModels(msgspec.Struct):
    models: list[str]


class EarlierCurrent(msgspec.Struct):
    model_name: str
