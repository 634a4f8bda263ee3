"""JSON files of a model, whole and damaged, and the tokens that they list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from converter_templates import model_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkllm_converter import model_files
from rkllm_converter.errors import BadCalibration, ModelNotFound
from rkllm_converter.model_files import added_tokens, read_object, read_text, token_text

DAMAGED = [(b"{", "Expecting"), (b"[]", "no JSON object"), (b"\xff", "utf-8"), (b"[" * 100_000, "recursion|depth")]


def test_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_object(tmp_path / "config.json") == {}
    assert read_object(tmp_path / "config.json", damaged=BadCalibration) == {}
    assert read_object(tmp_path) == {}


@pytest.mark.parametrize(("content", "reason"), DAMAGED)
def test_damage_is_what_the_caller_says(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert read_object(path) == {}
    for kind in (BadCalibration, ModelNotFound):
        with pytest.raises(kind, match=rf"config\.json cannot be used: .*({reason}).*Fetch") as caught:
            read_object(path, damaged=kind)
        assert type(caught.value) is kind


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    monkeypatch.setattr(model_files, "LARGEST", 8)
    assert read_object(path) == {"a": 1}
    monkeypatch.setattr(model_files, "LARGEST", 7)
    assert read_object(path) == {}
    with pytest.raises(BadCalibration, match="more than 0 MB"):
        read_text(path, damaged=BadCalibration)


def test_a_text_that_is_not_there_is_damage(tmp_path: Path) -> None:
    with pytest.raises(BadCalibration, match="No such file"):
        read_text(tmp_path / "chat_template.jinja", damaged=BadCalibration)


def test_tokens_of_all_files_and_the_tokenizer_is_right(tmp_path: Path) -> None:
    folder = model_folder(
        tmp_path,
        added_tokens={"a": 1, "b": 2, "c": 3, "no": "4", "d": None},
        tokenizer_config={
            "added_tokens_decoder": {"2": {"content": "B"}, "5": {"content": "e"}, "x": {"content": "x"}, "6": 3}
        },
        tokenizer={"added_tokens": [{"id": 3, "content": "C"}, {"id": "7", "content": "f"}, {"content": "g"}, None, 3]},
    )
    assert added_tokens(folder) == {1: "a", 2: "B", 3: "C", 5: "e"}


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_damaged_list_of_tokens(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{")
    assert added_tokens(tmp_path) == {}
    with pytest.raises(BadCalibration, match=name.replace(".", r"\.")):
        added_tokens(tmp_path, damaged=BadCalibration)


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1.5", "\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}", ""])
def test_a_key_that_is_no_id_is_passed_over(number: str, tmp_path: Path) -> None:
    decoder = {number: {"content": "a"}, "1": "b"}
    assert added_tokens(model_folder(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})) == {1: "b"}


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), ({"content": "a"}, "a"), ({"content": 3}, None), (None, None), (["a"], None)]
)
def test_the_text_of_a_token(value: object, text: str | None) -> None:
    assert token_text(value) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "id", "1", "added_tokens", "added_tokens_decoder"]), inner)
    ),
)


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_any_json_gives_ids_and_texts(value: object, tmp_path: Path) -> None:
    for name in ("added_tokens.json", "tokenizer_config.json", "tokenizer.json"):
        (tmp_path / name).write_text(json.dumps(value))
    assert {(type(number), type(text)) for number, text in added_tokens(tmp_path).items()} <= {(int, str)}
