"""Reading GGUF metadata, and the tokenizer made of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from sim_gguf_files import MERGES, TEMPLATE, metadata, real_model, write_gguf
from tokenizers import Tokenizer

from rkllm_sim import gguf_tokenizer
from rkllm_sim.errors import BadGguf
from rkllm_sim.gguf import read_metadata

TEXTS = (
    "Hello world, it's 2025.",
    "1234567 3.14159 1,000,000 \u00bd \u00b2 \u0663\u0664\u0665 \u216b",
    "  two  blanks   three\n\n\n a\t\tb \r\nc  ",
    "Gr\u00f6\u00dfe na\u00efve \u6f22\u5b57 \u304b\u306a \ud55c\uad6d\uc5b4 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301 \u00a0\u2003\u200b",
    "don't I'LL we've 'tis",
    "def f(x):\n    return x**2  # ok\n",
    "<|im_start|>user\nhi<|im_end|>\n",
    "$%^&*()_+-=[]{}|;':\",./<>?~`",
    "",
    " ",
    "\n",
    "\x00\x01\x7f",
)


def tokenizer_of(model: gguf_tokenizer.GgufModel) -> Any:
    return Tokenizer.from_buffer(model.tokenizer.files["tokenizer.json"])


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_value_is_read(tmp_path: Path, version: int) -> None:
    pairs = {"text": "\u00e9", "number": 7, "yes": True, "half": 0.5, "list": ["a", "b"], "ids": [1, 2, 3], "none": []}
    assert read_metadata(write_gguf(tmp_path / "m.gguf", pairs, version=version)) == pairs


def test_arrays_in_arrays_and_wide_numbers_are_read(tmp_path: Path) -> None:
    nested = struct.pack("<IIQ", 9, 9, 2) + (struct.pack("<IQ", 10, 1) + struct.pack("<Q", 2**40)) * 2
    pair = struct.pack("<Q", 1) + b"a" + nested
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
    assert read_metadata(path) == {"a": [[2**40], [2**40]]}


def test_a_file_that_ends_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", {"list": ["a", "b"], "ids": [1, 2], "text": "x"}).read_bytes()
    for size in range(len(whole)):
        path = tmp_path / "cut.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(BadGguf, match=r"cut\.gguf"):
            read_metadata(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"GGML" + bytes(20), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version is 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "announces"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 99), "unknown type 99"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 4, 2**61), "announces"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9,
            "type 9",
        ),
    ],
)
def test_a_broken_file_is_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(BadGguf, match=why):
        read_metadata(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadGguf, match=r"nothing\.gguf cannot be read: No such file"):
        read_metadata(tmp_path / "nothing.gguf")


def test_the_tokenizer_of_a_file(tmp_path: Path) -> None:
    model = gguf_tokenizer.read(write_gguf(tmp_path / "m.gguf", metadata()))
    assert (model.context, model.embd) == (2048, 96)
    known = model.tokenizer.vocabulary
    first = 256 + len(MERGES)
    assert known.pieces[256:] == (b"hi", b" hi", "\u00e9".encode(), b"<|im_start|>", b"<|im_end|>", b"<tool>")
    assert known.pieces[:256] == tuple(known.pieces[token] for token in range(256))
    assert (known.eos, known.special) == ((first + 1,), (first, first + 1))
    found = tokenizer_of(model).encode("hi hi \u00e9<|im_end|><tool>")
    assert [known.pieces[token] for token in found.ids] == [
        b"hi",
        b" hi",
        b" ",
        "\u00e9".encode(),
        b"<|im_end|>",
        b"<tool>",
    ]
    config = json.loads(model.tokenizer.files["tokenizer_config.json"])
    assert (config["chat_template"], config["eos_token"], config["bos_token"]) == (
        TEMPLATE,
        "<|im_end|>",
        "<|im_start|>",
    )


def test_single_digits_for_smollm_and_whole_numbers_for_gpt_2(tmp_path: Path) -> None:
    pairs = metadata()
    pairs["tokenizer.ggml.tokens"][256] = "12"
    pairs["tokenizer.ggml.merges"][0] = "1 2"
    pairs["tokenizer.ggml.merges"] = pairs["tokenizer.ggml.merges"][:1]
    lengths = {}
    for name in gguf_tokenizer.PRE_TOKENIZERS:
        pairs["tokenizer.ggml.pre"] = name
        lengths[name] = len(tokenizer_of(gguf_tokenizer.read(write_gguf(tmp_path / "m.gguf", pairs))).encode("12").ids)
    assert lengths == {"gpt-2": 1, "smollm": 2, "qwen2": 2, "default": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tokenizer__ggml__model": "llama"}, "kind 'llama'"),
        ({"tokenizer__ggml__pre": "tekken"}, "pre-tokenizer 'tekken'.*smollm"),
        ({"tokenizer__ggml__eos_token_id": 10**6, "tokenizer__ggml__token_type": [1] * 262}, "no end-of-sequence"),
        ({"tokenizer__ggml__tokens": None}, "has no tokenizer.ggml.tokens"),
        ({"tokenizer__ggml__tokens": [1, 2]}, "no list of strings"),
        ({"tokenizer__ggml__token_type": [1]}, "262 tokens and 1 token types"),
        ({"tokenizer__ggml__merges": ["hi"]}, "merge of one part"),
        ({"llama__context_length": "long"}, "should be of type int"),
    ],
)
def test_metadata_that_cannot_be_used_are_named(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata(**changes))
    with pytest.raises(BadGguf, match=why) as caught:
        gguf_tokenizer.read(path)
    assert str(path) in str(caught.value)


def test_other_control_tokens_that_end_a_text_are_ends_too(tmp_path: Path) -> None:
    tokens = [*metadata()["tokenizer.ggml.tokens"][:-3], "<|endoftext|>", "<|im_end|>", "<tool>"]
    known = gguf_tokenizer.vocabulary(write_gguf(tmp_path / "m.gguf", metadata(tokenizer__ggml__tokens=tokens)))
    assert known.eos == (260, 259)


@pytest.mark.slow
def test_the_real_model_is_tokenized_as_llama_cpp_does_it(tmp_path: Path) -> None:
    import xllamacpp

    path = real_model()
    model = gguf_tokenizer.read(path)
    tokenizer = tokenizer_of(model)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = [str(tmp_path / "llama.sock")]
    params.port, params.ui, params.n_ctx, params.verbosity = 0, False, 512, 0
    server = xllamacpp.Server(params)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(model.tokenizer.vocabulary.pieces[token] or b"" for token in ids) == text.encode()
        assert ids == llama_ids(tmp_path / "llama.sock", text), text
    del server


def llama_ids(socket_path: Path, text: str) -> list[int]:
    """What llama.cpp's own tokenizer makes of a text."""
    import http.client
    import socket

    connection = http.client.HTTPConnection("llama")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(socket_path))
    connection.request("POST", "/tokenize", json.dumps({"content": text, "add_special": False, "parse_special": True}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    tokens: list[int] = answer["tokens"]
    return tokens
