"""The small tokenizer and its templates, and the vocabularies of real tokenizers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jinja2
import pytest
from tokenizers import Tokenizer

from rkllm_sim.errors import BadTokenizer
from rkllm_sim.templates import CHATML, POSTFIX, PREFIX, THINKING
from rkllm_sim.tokenizer import TokenizerFiles, byte_level, copied, small, tokenizer_json, words
from rkllm_sim.vocabulary import byte_alphabet, byte_level_bytes, byte_level_text, from_tokenizer_json

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Fuzhou"}'}}


@pytest.fixture(scope="module")
def files() -> TokenizerFiles:
    return small()


@pytest.fixture(scope="module")
def tokenizer(files: TokenizerFiles) -> Any:
    return Tokenizer.from_buffer(files.files["tokenizer.json"])


def test_the_words_are_two_thousand_different_ones_of_letters() -> None:
    assert len(set(words())) == 2000
    assert all(word.isascii() and word.isalpha() and word.islower() and 4 <= len(word) <= 6 for word in words())
    assert words()[:3] == words()[:3]


def test_any_sequence_of_words_is_encoded_to_its_ids_again(files: TokenizerFiles, tokenizer: Any) -> None:
    first, count = files.vocabulary.words
    draw = random.Random(7)
    for length in [1, 2, 3, *(draw.randrange(4, 200) for _ in range(200))]:
        ids = [draw.randrange(first, first + count) for _ in range(length)]
        text = tokenizer.decode(ids)
        assert text.encode() == b"".join(files.vocabulary.pieces[token] or b"" for token in ids)
        assert tokenizer.encode(text).ids == ids
        turn = tokenizer.encode(f"<|im_start|>assistant\n{text}<|im_end|>\n").ids
        assert turn[-2 - length : -2] == ids


@pytest.mark.parametrize("text", ["H\u00e4llo \U0001f600!", "\n\n \t", "{}[]", "a" * 50, "unknown Words 123"])
def test_unknown_text_falls_to_bytes(tokenizer: Any, text: str) -> None:
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text


def test_the_special_tokens_are_those_of_qwen3(files: TokenizerFiles, tokenizer: Any) -> None:
    known = files.vocabulary
    texts = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    ids = [tokenizer.token_to_id(text) for text in texts]
    assert ids == [known.id_of(text) for text in texts] == list(range(2256, 2261))
    assert known.special == tuple(ids[:3])
    assert known.eos == (ids[2], ids[0])
    assert tokenizer.encode("".join(texts)).ids == ids
    assert tokenizer.decode(ids) == "<think></think>"  # without special tokens
    assert len(known.pieces) == tokenizer.get_vocab_size() == 2261
    config = json.loads(files.files["tokenizer_config.json"])
    assert (config["eos_token"], config["bos_token"]) == ("<|im_end|>", "<|endoftext|>")
    assert json.loads(files.files["generation_config.json"])["eos_token_id"] == list(known.eos)


def render(source: str, messages: list[dict[str, Any]], **extra: Any) -> str:
    """As transformers renders a template, and with Jinja's own defaults: both have to give the same."""
    plain = jinja2.Environment(autoescape=False).from_string(source)
    usual = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True).from_string(source)
    text = usual.render(messages=messages, **extra)
    assert plain.render(messages=messages, **extra) == text
    return text


@pytest.mark.parametrize("source", [CHATML, THINKING])
def test_a_chat_in_chatml(source: str) -> None:
    chat = [
        {"role": "system", "content": "Be\nshort."},
        {"role": "user", "content": " Hi <b> "},
        {"role": "assistant", "content": "Hello."},
        {"role": "tool", "content": "{}"},
    ]
    text = (
        "<|im_start|>system\nBe\nshort.<|im_end|>\n<|im_start|>user\n Hi <b> <|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>tool\n{}<|im_end|>\n"
    )
    assert render(source, chat) == text
    assert render(source, chat, add_generation_prompt=True) == f"{text}<|im_start|>assistant\n"


@pytest.mark.parametrize("source", [CHATML, THINKING])
def test_a_text_prompt_gets_the_same_frame_from_the_library(source: str) -> None:
    assert render(source, [{"role": "user", "content": "Hi"}], add_generation_prompt=True) == f"{PREFIX}Hi{POSTFIX}"


@pytest.mark.parametrize("source", [CHATML, THINKING])
def test_tools_and_calls_are_told(source: str) -> None:
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "Rain?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL, {"name": "weather", "arguments": {"city": "Xi'an"}}],
        },
    ]
    text = render(source, chat, tools=[TOOL])
    assert text.startswith("<|im_start|>system\n")
    assert '<tools>\n{"function": {"name": "weather", "parameters": {}}, "type": "function"}\n</tools>' in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Fuzhou"}}\n</tool_call>' in text
    assert text.count("<tool_call>\n") == 2


def test_thoughts_before_the_last_question_are_left_out() -> None:
    earlier = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nHello."}
    told = {"role": "assistant", "content": "Hello.", "reasoning_content": "Hm."}
    question = {"role": "user", "content": "Hi"}
    for answer in (earlier, told):
        assert render(THINKING, [question, answer, question]) == render(CHATML, [question, told, question])
        assert "<think>\nHm.\n</think>\n\nHello.<|im_end|>" in render(THINKING, [question, answer])
    assert "Hm." not in render(CHATML, [question, told])


def test_thoughts_between_a_call_and_its_result_stay() -> None:
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "reasoning_content": "Ask.", "tool_calls": [CALL]},
        {"role": "tool", "content": "no"},
    ]
    assert "<think>\nAsk.\n</think>" in render(THINKING, chat)


def test_thinking_can_be_switched_off() -> None:
    chat = [{"role": "user", "content": "Hi"}]
    end = "<|im_start|>assistant\n"
    assert render(THINKING, chat, add_generation_prompt=True, enable_thinking=True).endswith(end)
    off = render(THINKING, chat, add_generation_prompt=True, enable_thinking=False)
    assert off.endswith(f"{end}<think>\n\n</think>\n\n")


def test_the_alphabet_of_gpt_2() -> None:
    assert len(set(byte_alphabet().values())) == 256
    assert (byte_level_text(b" \n"), byte_level_text("\u00e9".encode())) == ("\u0120\u010a", "\u00c3\u00a9")
    everything = bytes(range(256))
    assert byte_level_bytes(byte_level_text(everything)) == everything
    assert byte_level_bytes("<\uff5cUser\uff5c>") == "<\uff5cUser\uff5c>".encode()


def sentencepiece(kind: str) -> dict[str, Any]:
    pieces = ["<unk>", "</s>", "<0x0A>", "<0xE2>", "\u2581Hello", "\u2581", "world", "<0xZZ>"]
    scored: Any = [[piece, 0.0] for piece in pieces]
    vocab = scored if kind == "Unigram" else {piece: token for token, piece in enumerate(pieces)}
    return {
        "model": {"type": kind, "vocab": vocab, "byte_fallback": True},
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": True},
            {"id": 1, "content": "</s>", "special": True},
            {"id": 9, "content": "<tool>", "special": False},
        ],
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
    }


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_a_sentencepiece_vocabulary(kind: str) -> None:
    known = from_tokenizer_json(sentencepiece(kind), {"eos_token": {"content": "</s>"}}, {}, name="x")
    assert known.pieces == (
        *(b"<unk>", b"</s>", b"\n", b"\xe2", b" Hello", b" ", b"world", b"<0xZZ>", None, b"<tool>"),
    )
    assert (known.eos, known.special, known.words) == ((1,), (0, 1), (4, 4))


def test_a_byte_level_vocabulary() -> None:
    vocab = {byte_level_text(bytes([byte])): byte for byte in range(256)} | {"\u0120hi": 256, "\u0120ho": 257}
    tokenizer = tokenizer_json(vocab, [], [(258, "<eos>", True), (259, "<tool>", False)], pre_tokenizer=byte_level())
    known = from_tokenizer_json(tokenizer, {"eos_token": "<eos>"}, {"eos_token_id": [259, 258]}, name="x")
    assert known.pieces[250:] == (*(bytes([byte]) for byte in range(250, 256)), b" hi", b" ho", b"<eos>", b"<tool>")
    assert (known.eos, known.special) == ((259, 258), (258,))
    assert known.words == (0x20, 0x7F - 0x20)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": None}, "no tokenizer.json"),
        ({"added_tokens": [{"id": 1}]}, "no tokenizer.json"),
        ({"model": {"type": "BPE", "vocab": {}, "byte_fallback": True}}, "has no vocabulary"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}, "decoder": {"type": "WordPiece"}}, "WordPiece"),
    ],
)
def test_a_tokenizer_that_is_not_understood_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(BadTokenizer, match=rf"^x .*{why}"):
        from_tokenizer_json({**sentencepiece("BPE"), **change}, {"eos_token": "</s>"}, {}, name="x")


def test_a_tokenizer_without_an_end_is_refused() -> None:
    with pytest.raises(BadTokenizer, match="end-of-sequence"):
        from_tokenizer_json(sentencepiece("BPE"), {"eos_token": "<nothing>"}, {}, name="x")


def test_a_folder_is_copied_file_by_file(tmp_path: Path, files: TokenizerFiles) -> None:
    for name, content in {**files.files, "chat_template.jinja": b"{{ messages }}", "model.safetensors": b"no"}.items():
        (tmp_path / name).write_bytes(content)
    taken = copied(tmp_path)
    assert taken.files == {**files.files, "chat_template.jinja": b"{{ messages }}"}
    assert taken.vocabulary.pieces == files.vocabulary.pieces
    assert (taken.vocabulary.eos, taken.vocabulary.special) == (files.vocabulary.eos, files.vocabulary.special)
    assert taken.vocabulary.words == (256, 2000)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "holds no tokenizer.json"), ("{", "is not JSON"), ("[]", "no JSON object")]
)
def test_a_folder_without_a_right_tokenizer_is_refused(tmp_path: Path, content: str | None, why: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BadTokenizer, match=why) as caught:
        copied(tmp_path)
    assert str(tmp_path) in str(caught.value)
