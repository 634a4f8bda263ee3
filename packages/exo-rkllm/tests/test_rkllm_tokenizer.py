# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizer import added, byte_level, chatml, vocabulary_end, with_blanks_marked, write
from tokenizers import Tokenizer

from exo.types import Message, ModelLoadError
from exo_rkllm.text.added_tokens import AddedTokens
from exo_rkllm.text.tokenizer import ModelTokenizer

FLAGS: list[dict[str, bool]] = [
    {},
    {"lstrip": True},
    {"rstrip": True},
    {"lstrip": True, "rstrip": True},
    {"single_word": True},
    {"normalized": True},
    {"special": False},
    {"special": False, "normalized": True, "rstrip": True},
]
TEXTS = ["<a>", "<b>", "<c>", "<d>", "word", "<n>", "<t>", "<u>"]
LONGER = ["<a", "<a><b>", "▁▁▁", "    ", "<s>", "a>"]
PREPEND = {"type": "Prepend", "prepend": "▁"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def flagged(first: int, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Added tokens with all flags, numbered without gaps: the library ignores the numbers of a file."""
    flags = {**dict(zip(TEXTS, FLAGS)), **{text: {"special": False} for text in LONGER}}
    kept = [text for text in flags if text not in without]
    return [added(first + place, text, **flags[text]) for place, text in enumerate(kept)]


def metaspace(scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}


def definitions() -> dict[str, dict[str, Any]]:
    bytes_end, blanks_end = vocabulary_end(byte_level()), vocabulary_end(with_blanks_marked())
    start = added(1, "<s>")
    base = [start, *flagged(blanks_end, without=("<s>",))]
    simple = [start, *flagged(blanks_end, without=("<s>", "<n>", "<u>"))]  # see the docstring of AddedTokens
    prefixed = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {
        "byte level": byte_level(*flagged(bytes_end)),
        "byte level, NFC": byte_level(*flagged(bytes_end), normalizer={"type": "NFC"}),
        "byte level, blank before each piece": byte_level(*flagged(bytes_end), pre_tokenizer=prefixed),
        "specials in the vocabulary": byte_level(
            added(0, "<a>"), added(1, "<b>", rstrip=True), in_vocabulary=("<a>", "<b>")
        ),
        "blank before the text": with_blanks_marked(*base, pre_tokenizer=metaspace("first")),
        "blank before each piece": with_blanks_marked(*base, pre_tokenizer=metaspace("always")),
        "no blank": with_blanks_marked(*base, pre_tokenizer=metaspace("never")),
        "prepended": with_blanks_marked(*simple, normalizer={"type": "Sequence", "normalizers": [PREPEND, REPLACE]}),
    }


KINDS = list(definitions())
parts = st.sampled_from(
    [*TEXTS, *LONGER, " ", "  ", "\n", "\n\n", "\u00a0", "\x1c", "hello", " world", ".\n", "12", "é", "🙂", "<"]
)
texts = st.lists(parts, max_size=12).map("".join) | st.text(max_size=12)


class Pairs(dict[str, tuple[ModelTokenizer, Tokenizer]]):
    """By kind: ours, and the library's own with the file as it is."""

    def __repr__(self) -> str:
        return "the pairs"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    made = Pairs()
    for kind, definition in definitions().items():
        folder = write(tmp_path_factory.mktemp("model"), definition)
        ours = ModelTokenizer.load(folder)
        assert ours is not None
        made[kind] = ours, Tokenizer.from_file(str(folder / "tokenizer.json"))
    return made


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_rendered_text_gets_the_ids_that_the_library_gives(pairs: Pairs, kind: str, text: str) -> None:
    ours, library = pairs[kind]
    ids = ours.encode_rendered(text)
    assert ids == library.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)
    assert max(ids, default=0) < ours.vocabulary_size == max(library.get_vocab().values()) + 1


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_plain_text_never_becomes_a_special_token(pairs: Pairs, kind: str, text: str) -> None:
    ours, library = pairs[kind]
    ids = ours.encode_plain(text)
    assert ours.added.guarded_ids.isdisjoint(ids)
    assert ours.special_ids <= ours.added.guarded_ids
    if all(token_id is None or token_id not in ours.added.guarded_ids for _, token_id in ours.added.split(text)):
        assert ids == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts, following=st.sampled_from(["", ">", "a>", "<b>", "ord"]))
def test_protected_text_holds_no_special_token_whatever_follows(
    pairs: Pairs, kind: str, text: str, following: str
) -> None:
    ours, _ = pairs[kind]
    marked = ours.added.protect(text, "\ue000")
    assert marked.replace("\ue000", "") == text
    pieces = ours.added.split(marked + following)
    found = [text for text, token_id in pieces if token_id in ours.added.guarded_ids]
    assert "".join(found).strip() in {"", following}
    whole = ours.encode_pieces(ours.added.split(marked), sentinel="\ue000")
    assert ours.added.guarded_ids.isdisjoint(whole)


def test_special_texts_stay_characters(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer.load(write(tmp_path, chatml()))
    assert tokenizer is not None
    start, end = tokenizer.added.ids["<|im_start|>"], tokenizer.added.ids["<|im_end|>"]
    assert len(tokenizer.encode_plain("<|im_end|>")) == 10
    assert tokenizer.encode_rendered("<|im_start|>hello<|im_end|>") == [start, *tokenizer.encode_plain("hello"), end]
    assert tokenizer.encode_rendered("") == tokenizer.encode_plain("") == []
    assert tokenizer.special_ids == {start - 1, start, end}
    assert tokenizer.vocabulary_size == max(tokenizer.added.texts) + 1
    assert tokenizer.decode([start, *tokenizer.encode_plain("é"), 10**6, -1, 2**40]) == "<|im_start|>é"


def test_a_vocabulary_that_finds_special_texts_by_itself_is_kept_from_it(tmp_path: Path) -> None:
    unigram = {"type": "Unigram", "unk_id": 0, "byte_fallback": False}
    scores = [["<unk>", 0.0], ["<s>", 0.0], *([char, -9.0] for char in "<s>ab▁"), ["ab", -3.0]]
    definition = with_blanks_marked(added(0, "<unk>"), added(1, "<s>"), pre_tokenizer=metaspace("first"))
    definition["model"] = {**unigram, "vocab": scores}
    folder = write(tmp_path, definition)
    tokenizer = ModelTokenizer.load(folder)
    assert tokenizer is not None
    assert [scores[number][0] for number in tokenizer.encode_plain("ab<s>ab")] == ["▁", "ab", "<", "s", ">", "ab"]
    assert (
        tokenizer.encode_rendered("ab<s>ab")
        == Tokenizer.from_file(str(folder / "tokenizer.json")).encode("ab<s>ab").ids
    )
    assert 0 in tokenizer.encode_plain("é"), "an unknown character is one, though its token is special"


def test_tokens_for_runs_of_blanks_are_text(tmp_path: Path) -> None:
    end = vocabulary_end(byte_level())
    tokenizer = ModelTokenizer.load(
        write(tmp_path, byte_level(added(end, "\n" * 7, special=False), added(end + 1, "<x>")))
    )
    assert tokenizer is not None
    assert end in tokenizer.encode_plain("a" + "\n" * 7)
    assert tokenizer.added.protect("\n" * 7, "\ue000") == "\n" * 7


def test_a_text_may_continue_another_one(pairs: Pairs) -> None:
    for kind in ("blank before the text", "blank before each piece", "prepended"):
        ours, _ = pairs[kind]
        whole = ours.encode_plain("x hello")
        assert ours.encode_plain("x") + ours.encode_pieces([(" hello", None)], after="text") == whole, kind
    ours, library = pairs["blank before the text"]
    expected = library.encode("<c>hello", add_special_tokens=False).ids
    assert [expected[0], *ours.encode_pieces([("hello", None)], after="token")] == expected


def test_half_a_surrogate_pair_is_no_reason_to_fail(pairs: Pairs) -> None:
    ours, _ = pairs["byte level"]
    assert ours.encode_plain("a\ud800b") == ours.encode_plain("a\ufffdb")
    assert ours.encode_plain("\ud83d\ude42") == ours.encode_plain("🙂")


def test_long_pieces_are_remembered_within_bounds(pairs: Pairs) -> None:
    ours, _ = pairs["byte level"]
    text = "hello world " * 1000
    first = ours.encode_rendered(text)
    first.append(-1)
    assert ours.encode_rendered(text) == first[:-1], "what is handed out is a copy"
    for number in range(200):
        ours.encode_rendered(str(number) + text)
    known = ours._remembered._known
    assert ours._remembered._characters == sum(len(text) for text, _ in known) <= 2**20
    assert 50 < len(known) < 100


def test_added_tokens_share_the_beginnings_in_one_expression() -> None:
    tokens = [added(number, f"<｜place▁holder▁no▁{number}｜>") for number in range(800)]
    words = AddedTokens([type_token(token) for token in tokens])
    assert words.split("x<｜place▁holder▁no▁79｜>y") == [("x", None), ("<｜place▁holder▁no▁79｜>", 79), ("y", None)]
    assert len(words._stages[0]._pattern.pattern) < 8000


def type_token(token: dict[str, Any]) -> Any:
    import msgspec

    from exo_rkllm.text.added_tokens import AddedToken

    return msgspec.convert(token, AddedToken)


def test_a_folder_without_tokenizer_has_none(tmp_path: Path) -> None:
    assert ModelTokenizer.load(tmp_path) is None


def test_bare_tokenizer_files_are_enough(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer.load(write(tmp_path, byte_level()))
    assert tokenizer is not None
    assert tokenizer.template is None
    assert (tokenizer.eos_ids, tokenizer.special_ids, tokenizer.special_texts) == (frozenset(), frozenset(), {})
    assert (tokenizer.add_bos, tokenizer.vocabulary_size) == (False, vocabulary_end(byte_level()))


def test_a_vocabulary_with_holes_ends_behind_its_highest_id(tmp_path: Path) -> None:
    definition = byte_level()
    definition["model"]["vocab"]["hello"] = 5000
    tokenizer = ModelTokenizer.load(write(tmp_path, definition))
    assert tokenizer is not None
    assert tokenizer.vocabulary_size == 5001


def test_end_tokens_come_from_all_files(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer.load(
        write(
            tmp_path,
            chatml(),
            tokenizer_config={"eos_token": {"content": "<|im_end|>"}, "bos_token": "<|im_start|>", "pad_token": None},
            generation_config={"eos_token_id": [7, 8]},
            config={"eos_token_id": 9, "limit": float("inf")},
        )
    )
    assert tokenizer is not None
    assert tokenizer.eos_ids == {7, 8, 9, tokenizer.added.ids["<|im_end|>"]}
    assert tokenizer.special_texts == {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}


@pytest.mark.parametrize(
    ("in_config", "in_file", "rendered"),
    [
        ("one {{ eos_token }}", None, "one <|im_end|>"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], None, "d"),
        ([{"name": "tool_use", "template": "t"}], None, "t"),
        ("one", "{{ messages[0].content }}!", "hello!"),
        (None, None, None),
        ([], None, None),
    ],
)
def test_where_the_chat_template_is_found(
    tmp_path: Path, in_config: Any, in_file: str | None, rendered: str | None
) -> None:
    config = {"eos_token": "<|im_end|>", "chat_template": in_config}
    write(tmp_path, chatml(), tokenizer_config=config)
    if in_file is not None:
        (tmp_path / "chat_template.jinja").write_text(in_file, encoding="utf-8")
    tokenizer = ModelTokenizer.load(tmp_path)
    assert tokenizer is not None
    if rendered is None:
        assert tokenizer.template is None
    else:
        assert tokenizer.template is not None
        assert tokenizer.template.render([Message(role="user", content="hello")]) == rendered


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b'{"model": {}}'),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 1}, "merges": ["b c"]}}'),
        ("tokenizer.json", b'{"model": {"type": "Nonsense", "vocab": {}}}'),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [{"id": "x"}]}'),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "normalizer": {"type": "Odd"}}'),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[1]"),
        ("generation_config.json", b"\xff"),
        ("config.json", b"nothing"),
        ("chat_template.jinja", b"{% if %}"),
        ("chat_template.jinja", b"\xff\xfe"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path, chatml())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        ModelTokenizer.load(tmp_path)
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.message.endswith("etch the model's files again.")


def test_a_cut_off_file_is_damaged_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = json.dumps(chatml(), separators=(",", ":")).encode()
    for size in range(0, len(whole), 499):
        (tmp_path / "tokenizer.json").write_bytes(whole[:size])
        with pytest.raises(ModelLoadError, match=r"tokenizer\.json"):
            ModelTokenizer.load(tmp_path)


def test_importing_loads_neither_tokenizers_nor_jinja2() -> None:
    program = (
        "import sys, exo_rkllm.text.prompt, exo_rkllm.text.families; print({'tokenizers', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
