from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import pytest

from exo.inference import Answer
from exo.types import DeadlineExceeded, Delta, RunFailed, ShuttingDown, Timings, ToolCallDelta, Usage

STOPPED = ShuttingDown("stopped")


class Source:
    """An engine's generator that gives `deltas` and then ends, fails, or hangs; it notes how it ended."""

    def __init__(self, *deltas: Delta, hang: bool = False, error: Exception | None = None) -> None:
        self.deltas = deltas
        self.hang = hang
        self.error = error
        self.hanging = asyncio.Event()
        self.cleaned_up = False
        self.clean_up_steps = 0

    async def generate(self) -> AsyncGenerator[Delta, None]:
        try:
            for delta in self.deltas:
                yield delta
            if self.error is not None:
                raise self.error
            if self.hang:
                self.hanging.set()
                await asyncio.Event().wait()
        finally:
            for _ in range(self.clean_up_steps):
                await asyncio.sleep(0)
            self.cleaned_up = True


def cancellations(task: asyncio.Task[object]) -> int:
    """Cancellations of a task that nobody has taken back; Python 3.10 does not count them."""
    count: Callable[[], int] = getattr(task, "cancelling", lambda: 0)
    return count()


def this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Ends(list[Answer]):
    """What `on_end` was called with."""

    def answer(self, source: Source) -> Answer:
        return Answer(source.generate(), on_end=self.append)


@pytest.fixture
def ends() -> Ends:
    return Ends()


TEXT = Delta(text="a")
LAST = Delta(
    finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=2), timings=Timings(prefill=1.0, decode=2.0)
)


async def test_every_delta_comes_once_and_in_order(ends: Ends) -> None:
    deltas = [TEXT, Delta(text="b"), LAST]
    answer = ends.answer(Source(*deltas))
    await answer.begin()
    assert [delta async for delta in answer] == deltas
    assert answer.finished
    assert (answer.usage, answer.timings) == (LAST.usage, LAST.timings)
    assert ends == []
    await answer.aclose()
    await answer.aclose()
    assert ends == [answer]


async def test_begin_waits_for_the_first_delta_and_no_longer(ends: Ends) -> None:
    source = Source(TEXT, hang=True)
    answer = ends.answer(source)
    await answer.begin()
    assert not source.hanging.is_set()
    await answer.aclose()
    assert source.cleaned_up


async def test_the_first_token_is_the_first_delta_with_content(ends: Ends) -> None:
    answer = ends.answer(Source(Delta(), Delta(reasoning="hm"), LAST))
    await answer.begin()
    times = [answer.first_token]
    for _ in range(3):
        await anext(answer)
        times.append(answer.first_token)
    before, empty, first, last = times
    assert (before, empty) == (None, None)
    assert first is not None
    assert answer.started <= first == last
    await answer.aclose()


async def test_an_unfinished_answer_counts_the_pieces_that_came(ends: Ends) -> None:
    call = ToolCallDelta(index=0, name="f")
    answer = ends.answer(Source(TEXT, Delta(reasoning="r"), Delta(tool_calls=(call,)), Delta(), LAST))
    await answer.begin()
    for _ in range(4):
        await anext(answer)
    assert answer.completion_tokens == 3
    await anext(answer)
    assert answer.completion_tokens == 2, "the runtime's own count"
    await answer.aclose()


async def test_a_refusal_is_raised_by_begin_and_ends_the_answer(ends: Ends) -> None:
    refusal = RunFailed("no")
    source = Source(error=refusal)
    answer = ends.answer(source)
    with pytest.raises(RunFailed) as caught:
        await answer.begin()
    assert caught.value is refusal
    assert source.cleaned_up
    assert ends == [answer]


async def test_an_engine_that_says_nothing_has_finished(ends: Ends) -> None:
    answer = ends.answer(Source())
    await answer.begin()
    assert [delta async for delta in answer] == [Delta(finish_reason="stop")]
    await answer.aclose()


async def test_an_error_in_the_middle_comes_after_what_was_said(ends: Ends) -> None:
    answer = ends.answer(Source(TEXT, error=RunFailed("broke")))
    await answer.begin()
    assert await anext(answer) == TEXT
    with pytest.raises(RunFailed, match="broke"):
        await anext(answer)
    await answer.aclose()
    assert not answer.finished


async def test_abort_while_reading(ends: Ends) -> None:
    source = Source(TEXT, hang=True)
    answer = ends.answer(source)
    await answer.begin()
    reader = asyncio.create_task(collect(answer))
    await source.hanging.wait()
    answer.abort(STOPPED)
    texts, error, left = await reader
    assert (texts, error) == (["a"], STOPPED)
    assert left == 0
    assert source.cleaned_up


async def collect(answer: Answer) -> tuple[list[str], BaseException | None, int]:
    """Read to the end: the texts, the error, and the cancellations that are left on this task."""
    texts: list[str] = []
    try:
        async for delta in answer:
            texts.append(delta.text)  # noqa: PERF401 - what came before an error counts
    except Exception as error:  # noqa: BLE001 - handed to the test
        return texts, error, cancellations(this_task())
    return texts, None, cancellations(this_task())


async def test_abort_while_the_run_has_not_begun(ends: Ends) -> None:
    source = Source(hang=True)
    answer = ends.answer(source)
    beginning = asyncio.create_task(answer.begin())
    await source.hanging.wait()
    answer.abort(STOPPED)
    with pytest.raises(ShuttingDown):
        await beginning
    assert source.cleaned_up
    assert ends == [answer]


async def test_abort_between_reads_shows_at_the_next_one(ends: Ends) -> None:
    source = Source(TEXT, Delta(text="b"))
    answer = ends.answer(source)
    await answer.begin()
    await anext(answer)
    answer.abort(STOPPED)
    for _ in range(2):
        with pytest.raises(ShuttingDown):
            await anext(answer)
    assert cancellations(this_task()) == 0
    await answer.aclose()
    assert source.cleaned_up


async def test_abort_after_the_end_is_harmless(ends: Ends) -> None:
    answer = ends.answer(Source(LAST))
    await answer.begin()
    assert [delta async for delta in answer] == [LAST]
    await answer.aclose()
    answer.abort(STOPPED)
    await asyncio.sleep(0)
    assert cancellations(this_task()) == 0


async def test_the_first_reason_of_an_abort_counts(ends: Ends) -> None:
    answer = ends.answer(Source(TEXT))
    await answer.begin()
    await anext(answer)
    answer.abort(STOPPED)
    answer.abort(DeadlineExceeded("late"))
    with pytest.raises(ShuttingDown):
        await anext(answer)
    await answer.aclose()


@pytest.mark.parametrize("same_tick", [True, False])
async def test_two_aborts_of_one_read(ends: Ends, *, same_tick: bool) -> None:
    """A deadline and a drain may come together, or the second while the engine cleans up after the first."""
    source = Source(TEXT, hang=True)
    source.clean_up_steps = 3
    answer = ends.answer(source)
    await answer.begin()
    reader = asyncio.create_task(collect(answer))
    await source.hanging.wait()
    answer.abort(STOPPED)
    if not same_tick:
        await asyncio.sleep(0)
    answer.abort(DeadlineExceeded("late"))
    texts, error, left = await reader
    assert (texts, error) == (["a"], STOPPED)
    assert source.cleaned_up, "the second abort must not break into the engine's cleaning up"
    assert left == 0


async def test_an_engine_that_ends_by_itself_when_aborted_leaves_no_cancellation(ends: Ends) -> None:
    hanging = asyncio.Event()

    async def last_words() -> AsyncGenerator[Delta, None]:
        yield TEXT
        with contextlib.suppress(asyncio.CancelledError):
            hanging.set()
            await asyncio.Event().wait()
        yield Delta(text="last words")

    answer = Answer(last_words(), on_end=ends.append)
    await answer.begin()
    reader = asyncio.create_task(collect(answer))
    await hanging.wait()
    answer.abort(STOPPED)
    _, error, left = await reader
    assert error is STOPPED
    assert left == 0
    await answer.aclose()


async def test_an_engine_that_fails_when_aborted_leaves_no_cancellation(ends: Ends) -> None:
    hanging = asyncio.Event()

    async def fails_when_cancelled() -> AsyncGenerator[Delta, None]:
        yield TEXT
        hanging.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RunFailed("the runtime did not stop") from None

    answer = Answer(fails_when_cancelled(), on_end=ends.append)
    await answer.begin()
    reader = asyncio.create_task(collect(answer))
    await hanging.wait()
    answer.abort(STOPPED)
    _, error, left = await reader
    assert error is not None
    assert left == 0
    await answer.aclose()


async def test_a_deadline_ends_a_run_that_hangs(ends: Ends) -> None:
    source = Source(TEXT, hang=True)
    answer = ends.answer(source)
    await answer.begin(timeout=0.01)
    texts, error, left = await asyncio.wait_for(collect(answer), 5)
    assert texts == ["a"]
    assert isinstance(error, DeadlineExceeded)
    assert "0.01 seconds" in error.message
    assert left == 0
    await answer.aclose()
    assert source.cleaned_up


async def test_a_deadline_ends_a_run_that_does_not_begin(ends: Ends) -> None:
    answer = ends.answer(Source(hang=True))
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(answer.begin(timeout=0.01), 5)
    assert ends == [answer]


async def test_a_closed_answer_has_no_deadline_any_more(ends: Ends) -> None:
    answer = ends.answer(Source(LAST))
    await answer.begin(timeout=60)
    timer = answer._timer
    assert timer is not None
    await answer.aclose()
    assert timer.cancelled()


async def test_closing_in_the_middle_closes_the_engines_generator(ends: Ends) -> None:
    source = Source(TEXT, TEXT, TEXT)
    source.clean_up_steps = 2
    answer = ends.answer(source)
    await answer.begin()
    await anext(answer)
    cleaned_up = [source.cleaned_up]
    await answer.aclose()
    cleaned_up.append(source.cleaned_up)
    assert cleaned_up == [False, True]
    assert ends == [answer]
    assert [delta async for delta in answer] == []


async def test_cancelling_the_reader_is_no_abort(ends: Ends) -> None:
    source = Source(TEXT, hang=True)
    answer = ends.answer(source)
    await answer.begin()
    reader = asyncio.create_task(collect(answer))
    await source.hanging.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert source.cleaned_up
    await answer.aclose()
    assert ends == [answer]


async def test_a_reader_that_is_cancelled_and_aborted_in_one_tick_stays_cancelled(ends: Ends) -> None:
    source = Source(TEXT, hang=True)
    answer = ends.answer(source)
    await answer.begin()
    reader = asyncio.create_task(collect(answer))
    await source.hanging.wait()
    reader.cancel()
    answer.abort(STOPPED)
    (result,) = await asyncio.gather(reader, return_exceptions=True)
    if not isinstance(result, BaseException):  # Python 3.10 cannot tell the two apart
        _, _, left = result
        assert left == 0, "a cancellation was swallowed"
    await answer.aclose()


async def test_cancelling_begin_ends_the_answer(ends: Ends) -> None:
    source = Source(hang=True)
    answer = ends.answer(source)
    beginning = asyncio.create_task(answer.begin(timeout=60))
    await source.hanging.wait()
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert source.cleaned_up
    assert ends == [answer]


async def test_an_answer_whose_closing_is_cancelled_has_ended_all_the_same(ends: Ends) -> None:
    source = Source(TEXT, TEXT)
    source.clean_up_steps = 100
    answer = ends.answer(source)
    await answer.begin()
    closing = asyncio.create_task(answer.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert ends == [answer]


async def test_an_answer_whose_engine_fails_to_clean_up_has_ended_all_the_same(ends: Ends) -> None:
    async def fails_to_clean_up() -> AsyncGenerator[Delta, None]:
        try:
            yield TEXT
            yield TEXT
        finally:
            raise RunFailed("the connection could not be closed")

    answer = Answer(fails_to_clean_up(), on_end=ends.append)
    await answer.begin()
    with contextlib.suppress(RunFailed):
        await answer.aclose()
    assert ends == [answer]
