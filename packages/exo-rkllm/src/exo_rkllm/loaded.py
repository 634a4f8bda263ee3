"""One loaded model: its worker, its texts, and the requests on it."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import msgspec

from exo.chat import ToolParser
from exo.inference import PooledModel
from exo.types import (
    ChatRequest,
    ContextOverflow,
    Delta,
    EndlessPadding,
    InvalidRequest,
    Limits,
    Sampling,
    Timings,
    UnsupportedParameter,
    Usage,
)
from exo_rkllm.answer import AnswerFilter
from exo_rkllm.metrics import NpuMetrics
from exo_rkllm.supervisor.npu_worker import NpuRun, NpuWorker
from exo_rkllm.text.families import LONGEST_TOKEN
from exo_rkllm.text.texts import ModelTexts, Prompt
from exo_rkllm.worker.frames import Done
from rkllm_facts.abi import Features, layout

_QUIET_START = 15.0
"""Seconds without a token after which an empty delta tells that the run has begun, so that proxies see the answer
begin; until then an error keeps its own status."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelLimits:
    """`context` in tokens, `max_new_tokens` and `stop` where the request sets none, `pad_limit` see AnswerFilter."""

    context: int
    max_new_tokens: int
    pad_limit: int
    stop: tuple[str, ...] = ()


class NpuLoadedModel(PooledModel):
    """A model in the memory of a worker. `sampling` is what the load has fixed, `domain` its base_domain_id."""

    def __init__(
        self,
        model_id: str,
        worker: NpuWorker,
        texts: ModelTexts,
        limits: ModelLimits,
        metrics: NpuMetrics,
        *,
        sampling: Sampling,
        size: int,
        domain: int = 0,
    ) -> None:
        super().__init__()
        self.model_id = model_id
        self.texts = texts
        self.limits = limits
        self.size = size
        self.context = limits.context
        self.domain = domain
        self._worker = worker
        self._sampling = sampling
        self._metrics = metrics
        self._restarts = 0
        self._cache = array("i")  # what the KV cache holds, as far as is known here

    @property
    def problem(self) -> str:
        """Why the worker cannot be started again; empty while it can."""
        return self._worker.problem

    @property
    def worker_pid(self) -> int | None:
        return self._worker.pid

    @property
    def cached(self) -> int:
        """Positions in the KV cache after the last run, 0 where the runtime does not tell."""
        return self._worker.cached or 0

    async def close(self) -> None:
        await self._worker.stop()

    @property
    def features(self) -> Features:
        """What the runtime of the worker can do. The worker has to be loaded."""
        loaded = self._worker.loaded
        assert loaded is not None  # noqa: S101 - a model comes into the pool loaded
        return _features(loaded["layout"], loaded["version"])

    def check_size(self, messages: int, characters: int) -> None:
        """Raises ContextOverflow for what cannot fit by any count, before it is rendered and tokenized at length.

        A message is a token at least, and no token is longer than LONGEST_TOKEN.
        """
        least = max(messages, characters // LONGEST_TOKEN)
        if least > self.limits.context:
            raise ContextOverflow(
                prompt_tokens=least, context_tokens=self.limits.context, hint="NUM_CTX in its Modelfile", at_least=True
            )

    def check_length(self, prompt: Prompt) -> None:
        """Raises InvalidRequest for an empty prompt, ContextOverflow for one that leaves no place for an answer.

        The runtime takes neither.
        """
        if not prompt.tokens:
            raise InvalidRequest("The prompt is empty. Give it some text.", param="messages")
        if prompt.tokens >= self.limits.context:
            raise ContextOverflow(
                prompt_tokens=prompt.tokens,
                context_tokens=self.limits.context,
                hint="NUM_CTX in its Modelfile",
                at_least=not prompt.is_counted,
            )

    async def answer(
        self, prompt: Prompt, sampling: Sampling, limits: Limits, chat: ChatRequest | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Run a prompt. Closing the generator aborts the run at once.

        Of `chat` its functions count, and the budget of reasoning: after that many tokens the run is aborted, and a
        second one goes on behind the end of the reasoning.
        """
        self.check_length(prompt)
        per_run, served = self._sampling_of(sampling)
        cap, filtered, legs = self._cap(prompt, limits), self._filter(prompt, limits, chat), _Legs()
        run = await self._begin(prompt, cap, per_run)
        legs.cached = self._common_prefix(prompt)
        try:
            is_quiet = not await run.sign(_QUIET_START)
            if is_quiet or served is not None:
                yield Delta(sampling=served)
            async with contextlib.aclosing(self._tokens(run, filtered, legs)) as deltas:
                async for delta in deltas:
                    yield delta
            legs.end(run.done, self._prompt_tokens(run.done, prompt, filtered, cap))
            if filtered.has_thought_enough:
                closed = self.texts.with_reasoning_ended(prompt, filtered.raw_text, filtered.ids)
                self.check_length(closed.prompt)
                yield filtered.end_reasoning(closed.text, closed.ids)
                cap = filtered.tokens + min(cap - filtered.tokens, self.limits.context - closed.prompt.tokens)
                run = await self._begin(closed.prompt, cap - filtered.tokens, per_run)
                async with contextlib.aclosing(self._tokens(run, filtered, legs)) as deltas:
                    async for delta in deltas:
                        yield delta
                legs.end(run.done)
        except EndlessPadding:
            self._metrics.pad_loops.labels(self.model_id).inc()
            raise
        finally:
            await run.leave()
            self._metrics.inference.observe(legs.now())
        self._note_cache(prompt, filtered, cap)
        yield self._last(legs, filtered, cap)
        self.texts.remember(prompt, filtered.raw_text, filtered.ids)  # after all, for the NPU may go on meanwhile

    async def _begin(self, prompt: Prompt, cap: int, sampling: dict[str, float]) -> NpuRun:
        return await self._worker.begin(prompt.input, cap=cap, prompt_tokens=prompt.tokens, sampling=sampling)

    async def _tokens(self, run: NpuRun, filtered: AnswerFilter, legs: _Legs) -> AsyncGenerator[Delta, None]:
        """What a run says, until it ends or is to end; afterwards the NPU is free for another run."""
        async for batch in run:
            legs.first_token()
            for token_id, text in batch:
                delta = filtered.feed(token_id, text)
                if delta is not None:
                    yield delta
                if filtered.stopped or filtered.has_thought_enough:
                    break
            if filtered.stopped or filtered.has_thought_enough:
                break
        await run.leave()

    async def embed(self, ids: Sequence[int]) -> tuple[float, ...]:
        """The hidden state of the last position, scaled to length 1."""
        self._cache = array("i")
        vector = await self._worker.embed(ids)
        length = math.sqrt(sum(value * value for value in vector)) or 1.0
        return tuple(value / length for value in vector)

    def _filter(self, prompt: Prompt, limits: Limits, chat: ChatRequest | None) -> AnswerFilter:
        calls = ToolParser(prompt.calls, chat.tools, forced=prompt.begun) if chat and prompt.calls else None
        filtered = AnswerFilter(
            self.texts.rules_for(prompt),
            thinking=None if prompt.is_raw else self.texts.thinking,
            inside=prompt.inside_thinking,
            stops=limits.stop or self.limits.stop,
            pad_limit=self.limits.pad_limit,
            calls=calls,
            one_call=chat is not None and not chat.parallel_tool_calls,
        )
        filtered.think_budget = None if chat is None else chat.think_budget
        return filtered

    def _cap(self, prompt: Prompt, limits: Limits) -> int:
        """The greatest number of tokens of an answer: what was asked for, and never more than the context has room for.

        The runtime would shift its window and go on without the beginning of the conversation.
        """
        wanted = self.limits.max_new_tokens if limits.max_tokens is None else limits.max_tokens
        return max(1, min(wanted, self.limits.context - prompt.tokens))

    def _sampling_of(self, asked: Sampling) -> tuple[dict[str, float], Sampling | None]:
        """What to hand to the runtime for this run; and what is in force, if that is not what was asked for."""
        _refuse_unknown(asked)
        given = {name: value for name, value in _fields(asked).items() if name in _RUNTIME_FIELDS}
        if self.features.sampling_per_run:
            return given, None
        fixed = _fields(self._sampling)
        differs = any(fixed.get(name) != value for name, value in given.items())
        return {}, self._sampling if differs else None

    def _common_prefix(self, prompt: Prompt) -> int:
        """How many tokens of the prompt the cache holds, as far as is known here. The last one is always evaluated.

        What the cache holds is not known again until the run has ended well.
        """
        cache, self._cache = self._cache, array("i")
        same_process = self._restarts == self._worker.restarts
        self._restarts = self._worker.restarts
        if prompt.ids is None or not self.features.reuses_prefix or not same_process:
            return 0
        return min(common_prefix(cache, prompt.ids), len(prompt.ids) - 1)

    def _note_cache(self, prompt: Prompt, filtered: AnswerFilter, cap: int) -> None:
        """What the cache holds by now: the last token is in it only if the one after it was evaluated too."""
        if prompt.ids is None:
            return
        ids = filtered.ids or []
        self._cache = prompt.ids + array("i", ids if filtered.ended_itself(cap) else ids[:-1])

    def _prompt_tokens(self, done: Done | None, prompt: Prompt, filtered: AnswerFilter, cap: int) -> int:
        """Tokens of the prompt. Where nobody here can count them, what the cache holds besides the answer.

        One too many after an abort that came too late, for it cannot be told whether the last token was evaluated.
        """
        if prompt.is_counted:
            return prompt.tokens
        if done is None or done.prefilled is None:
            return 0
        return max(done.prefilled, self.cached - done.tokens + (0 if filtered.ended_itself(cap) else 1))

    def _last(self, legs: _Legs, filtered: AnswerFilter, cap: int) -> Delta:
        if legs.prefilled is not None:
            legs.cached = max(0, legs.prompt_tokens - legs.prefilled)
        self._metrics.prefix_reused.labels(self.model_id).inc(legs.cached)
        rest = None if filtered.stopped else filtered.flush()
        reason = filtered.finish_reason(cap)
        reason = "tool_calls" if filtered.calls and reason == "stop" else reason
        return Delta(
            text=rest.text if rest else "",
            reasoning=rest.reasoning if rest else "",
            tool_calls=rest.tool_calls if rest else (),
            finish_reason=reason,
            stop=filtered.stop,
            usage=Usage(
                prompt_tokens=legs.prompt_tokens,
                completion_tokens=filtered.tokens,
                cached_tokens=legs.cached,
                reasoning_tokens=filtered.reasoning_tokens,
            ),
            timings=legs.timings(),
        )


class _Legs:
    """The runs of one answer: two where reasoning was ended in between. Counts are those of the first.

    Times are the runtime's own, or as seen here where it does not tell them.
    """

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.cached = 0
        self.prefilled: int | None = None
        self._started = time.monotonic()
        self._first = 0.0
        self._timings: list[Timings] = []

    def now(self) -> float:
        return time.monotonic() - self._started

    def first_token(self) -> None:
        self._first = self._first or time.monotonic()

    def end(self, done: Done | None, prompt_tokens: int | None = None) -> None:
        """A run is over; `prompt_tokens` come with the first."""
        if prompt_tokens is not None:
            self.prompt_tokens = prompt_tokens
            self.prefilled = None if done is None else done.prefilled
        if done is not None and done.prefill_ms is not None and done.decode_ms is not None:
            self._timings.append(Timings(prefill=done.prefill_ms / 1000, decode=done.decode_ms / 1000))

    def timings(self) -> Timings:
        if self._timings:
            return Timings(
                prefill=sum(one.prefill for one in self._timings), decode=sum(one.decode for one in self._timings)
            )
        first = self._first or time.monotonic()
        return Timings(prefill=first - self._started, decode=time.monotonic() - first)


_RUNTIME_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "repeat_penalty", "presence_penalty", "frequency_penalty"}
)


def _refuse_unknown(sampling: Sampling) -> None:
    """What the runtime has no notion of, unless it would change nothing."""
    if sampling.min_p:
        raise UnsupportedParameter("The NPU's runtime has no min_p; leave it out.", param="min_p")
    if sampling.seed is not None and sampling.temperature != 0:
        raise UnsupportedParameter(
            "The NPU's runtime takes no seed; leave it out, or set temperature to 0.", param="seed"
        )


def _fields(sampling: Sampling) -> dict[str, float]:
    return {name: value for name, value in msgspec.structs.asdict(sampling).items() if value is not None}


@functools.cache
def _features(name: str, version: str | None) -> Features:
    """With RKLLM_ABI the version may be one that has another layout, or none."""
    found = layout(name)
    return Features(found, version if version in found.releases else None)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many values two sequences have in common at their beginnings."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
