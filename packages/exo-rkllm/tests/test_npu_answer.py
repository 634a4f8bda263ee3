"""The filter between a run's tokens and the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.types import EndlessPadding, ThinkingMarkers
from exo_rkllm.answer import AnswerFilter, TokenRules

RULES = TokenRules(silent=frozenset({90, 91}), ends=frozenset({90}), vocabulary=100)
PAD = (151935, b"[PAD151935]")


def play(
    tokens: list[tuple[int, bytes]],
    *,
    rules: TokenRules = RULES,
    thinking: ThinkingMarkers | None = None,
    inside: bool = False,
    stops: tuple[str, ...] = (),
    pad_limit: int = 8,
) -> tuple[str, str, AnswerFilter]:
    """Reasoning and answer of a whole run."""
    filtered = AnswerFilter(rules, thinking=thinking, inside=inside, stops=stops, pad_limit=pad_limit)
    reasoning = answer = ""
    for token_id, text in tokens:
        delta = filtered.feed(token_id, text)
        if delta is not None:
            reasoning, answer = reasoning + delta.reasoning, answer + delta.text
        if filtered.stopped:
            return reasoning, answer, filtered
    rest = filtered.flush()
    if rest is not None:
        reasoning, answer = reasoning + rest.reasoning, answer + rest.text
    return reasoning, answer, filtered


def words(*texts: str) -> list[tuple[int, bytes]]:
    return [(number % 80, text.encode()) for number, text in enumerate(texts)]


def test_plain_text_passes() -> None:
    reasoning, answer, filtered = play(words("Hello", " there", "."))
    assert (reasoning, answer) == ("", "Hello there.")
    assert filtered.tokens == 3
    assert filtered.ids == [0, 1, 2]
    assert filtered.raw_text == "Hello there."


def test_the_end_of_sequence_is_neither_text_nor_token() -> None:
    _, answer, filtered = play([*words("Yes"), (90, b"<|im_end|>")])
    assert answer == "Yes"
    assert filtered.tokens == 1
    assert filtered.finish_reason(10) == "stop"


def test_special_tokens_are_counted_but_not_shown() -> None:
    _, answer, filtered = play([*words("a"), (91, b"<|special|>"), *words("b")])
    assert answer == "ab"
    assert filtered.tokens == 3


def test_what_is_between_the_markers_is_reasoning() -> None:
    tokens = words("<think>", "Let me", " see.", "</think>", "\n\n", "Fine.")
    reasoning, answer, filtered = play(tokens, thinking=ThinkingMarkers())
    assert (reasoning, answer) == ("Let me see.", "Fine.")
    assert filtered.reasoning_tokens == 4
    assert filtered.raw_text == "<think>Let me see.</think>\n\nFine."


@pytest.mark.parametrize(
    ("tokens", "reasoning"),
    [
        (["<think>", "Hm", "</", "think>", "Fine."], 4),
        (["<think>", "Hm", "</think>Fine."], 2),
        (["<think>", "</think>", "Fine."], 2),
        (["<think>", "</think>Fine", "."], 1),
        (["Fine", "."], 0),
    ],
)
def test_every_token_is_one_of_reasoning_or_of_the_answer(tokens: list[str], reasoning: int) -> None:
    """The marks count as reasoning, but one that brings nothing else than the answer is of the answer."""
    _, answer, filtered = play(words(*tokens), thinking=ThinkingMarkers())
    assert (answer, filtered.reasoning_tokens, filtered.tokens) == ("Fine.", reasoning, len(tokens))


def test_an_answer_may_begin_inside_the_reasoning() -> None:
    reasoning, answer, _ = play(words("So", "</think>", "Yes"), thinking=ThinkingMarkers(), inside=True)
    assert (reasoning, answer) == ("So", "Yes")


def test_markers_are_known_by_their_ids_even_if_the_runtime_hides_their_text() -> None:
    rules = TokenRules(silent=frozenset({71, 72}), vocabulary=100, markers={71: "<think>", 72: "</think>"})
    tokens = [(71, b""), (1, b"Hm."), (72, b""), (2, b"Yes")]
    reasoning, answer, _ = play(tokens, rules=rules, thinking=ThinkingMarkers())
    assert (reasoning, answer) == ("Hm.", "Yes")


@pytest.mark.parametrize("pad", [PAD, (151935, b"anything"), (5, b"[PAD7]")])
def test_padding_is_reasoning_and_never_answer(pad: tuple[int, bytes]) -> None:
    reasoning, answer, filtered = play([*words("a"), pad, pad, *words("b")])
    assert answer == "ab"
    assert reasoning == pad[1].decode() * 2
    assert filtered.reasoning_tokens == 2
    assert filtered.ids is None


def test_padding_within_reasoning_stays_in_its_place() -> None:
    """The blanks before it are held back: they might stand before the end of the reasoning."""
    reasoning, answer, _ = play(
        [*words("a\n\n"), PAD, *words(" b\n", "</think>", "c")], thinking=ThinkingMarkers(), inside=True
    )
    assert reasoning == "a\n\n[PAD151935] b"
    assert answer == "c"


def test_text_that_only_looks_a_little_like_padding_is_text() -> None:
    _, answer, _ = play(words("[PAD", "[PADDING]", "[PAD1] x"))
    assert answer == "[PAD[PADDING][PAD1] x"


def test_too_much_padding_in_a_row_is_an_error() -> None:
    _, answer, _ = play([PAD] * 8 + words("x") + [PAD] * 8)
    assert answer == "x"
    with pytest.raises(EndlessPadding, match=r"9 padding tokens in a row .*\[PAD151935\].*the 8 that RKLLM_PAD_LIMIT"):
        play([PAD] * 9)


def test_an_unknown_vocabulary_hides_nothing() -> None:
    _, answer, _ = play([(200_000, b"far")], rules=TokenRules())
    assert answer == "far"


def test_a_character_may_be_spread_over_tokens() -> None:
    _, answer, filtered = play([(1, b""), (2, "\N{GRINNING FACE}".encode()), (3, b"!")])
    assert answer == "\N{GRINNING FACE}!"
    assert filtered.tokens == 3
    assert filtered.ids is None, "the id of a token that came without text is not to be trusted"


def test_bytes_that_the_runtime_has_not_joined_are_joined() -> None:
    _, answer, _ = play([(1, "é".encode()[:1]), (2, "é".encode()[1:]), (3, b"\xf0")])
    assert answer == "é\N{REPLACEMENT CHARACTER}"


def test_a_stop_string_ends_the_answer() -> None:
    _, answer, filtered = play(words("one", " tw", "o three", " four"), stops=("two",))
    assert answer == "one "
    assert filtered.stopped
    assert filtered.tokens == 3
    assert filtered.finish_reason(3) == "stop"


def test_a_stop_string_in_the_reasoning_ends_nothing() -> None:
    tokens = words("<think>", "stop", "</think>", "go on")
    assert play(tokens, thinking=ThinkingMarkers(), stops=("stop",))[:2] == ("stop", "go on")


def test_the_cap_is_a_finish_reason() -> None:
    _, _, filtered = play(words("a", "b"))
    assert filtered.finish_reason(2) == "length"
    assert filtered.finish_reason(3) == "stop"


@given(text=st.text(max_size=60), cuts=st.lists(st.integers(1, 5), max_size=60))
def test_no_text_is_lost_however_it_is_cut(text: str, cuts: list[int]) -> None:
    data, tokens = text.encode(), []
    for cut in [*cuts, len(data) or 1]:
        if data:
            tokens.append((1, data[:cut]))
            data = data[cut:]
    tokens = [token for token in tokens if not (token[1].startswith(b"[PAD"))]
    _, answer, _ = play(tokens)
    assert answer == b"".join(piece for _, piece in tokens).decode(errors="replace")
