from __future__ import annotations

import msgspec
import pytest

from exo.types import ChatRequest, Delta, Limits, Message, ModelCard, Sampling, Usage


def test_total_tokens_counts_cached_and_reasoning_tokens_once() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=8, reasoning_tokens=3)
    assert usage.total_tokens == 15


def test_requests_cannot_be_changed_on_their_way() -> None:
    request = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
    with pytest.raises(AttributeError):
        request.model = "other"  # type: ignore[misc]  # what the test is about


def test_a_request_by_default_leaves_every_choice_to_the_engine() -> None:
    request = ChatRequest(model="m", messages=())
    assert set(msgspec.structs.astuple(request.sampling)) == {None}
    assert request.limits == Limits(max_tokens=None, stop=(), deadline=None)
    assert request.sampling == Sampling()
    assert request.priority == 0


def test_an_empty_delta_is_not_an_end() -> None:
    delta = Delta()
    assert (delta.text, delta.reasoning, delta.tool_calls) == ("", "", ())
    assert (delta.finish_reason, delta.usage, delta.timings) == (None, None, None)


def test_cards_do_not_share_a_files_table() -> None:
    assert ModelCard(id="a").files is not ModelCard(id="b").files
