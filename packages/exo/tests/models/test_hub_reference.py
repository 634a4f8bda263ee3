from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.models.hub_reference import HubReference, is_safe, name_of
from exo.models.store import is_model_name
from exo.types import NothingToPull, PullError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o/r", HubReference("o", "r")),
        ("o/r:mine", HubReference("o", "r", "", "mine")),
        ("o/r/f.rkllm", HubReference("o", "r", "f.rkllm", "f")),
        ("o/r/a b/f 1.rkllm", HubReference("o", "r", "a b/f 1.rkllm", "f-1")),
        ("o/r/sub/folder/f.gguf:mine:1.5b", HubReference("o", "r", "sub/folder/f.gguf", "mine:1.5b")),
        (" o/r/f.gguf\n", HubReference("o", "r", "f.gguf", "f")),
        ("hf/o/r/f.gguf", HubReference("o", "r", "f.gguf", "f")),
        ("HF.co/o/r", HubReference("o", "r")),
        ("huggingface/o/r", HubReference("o", "r")),
        ("huggingface.co/o/r/f.gguf:x", HubReference("o", "r", "f.gguf", "x")),
        ("https://huggingface.co/o/r", HubReference("o", "r")),
        ("https://huggingface.co/o/r/tree/v1.0/", HubReference("o", "r", revision="v1.0")),
        ("https://huggingface.co/o/r/tree/refs%2Fpr%2F7", HubReference("o", "r", revision="refs/pr/7")),
        ("https://huggingface.co/o/r/resolve/main/f.gguf", HubReference("o", "r", "f.gguf", "f")),
        ("https://hf.co/o/r/blob/refs%2Fpr%2F7/s/f.gguf#x", HubReference("o", "r", "s/f.gguf", "f", "refs/pr/7")),
        (
            "https://huggingface.co/o/r/resolve/v1/a%20b.gguf?download=true",
            HubReference("o", "r", "a b.gguf", "a-b", "v1"),
        ),
        ("Qwen/Qwen2.5-0.5B-Instruct_GGUF", HubReference("Qwen", "Qwen2.5-0.5B-Instruct_GGUF")),
    ],
)
def test_references(text: str, expected: HubReference) -> None:
    assert HubReference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model",
        "o/",
        "/r",
        "o//f.gguf",
        "o/r/",
        "o/r:",
        "o/r/f.gguf:",
        "o/r/../f.gguf",
        "o/r/./f.gguf",
        "o/r//etc/f.gguf",
        "o/r/a\\f.gguf",
        "o/r/a\0.gguf",
        "o/r/.hidden.gguf",
        "../r",
        "o/..",
        "o/r--x",
        "o/r.git",
        "-o/r",
        "https://elsewhere.invalid/o/r",
        "https://huggingface.co/o/r/resolve/main/..%2F..%2Ff.gguf",
        "https://huggingface.co/o/r/tree/main/folder",
        f"o/r/{'x' * 201}",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(NothingToPull, match=r"names no model on the hub: write owner/repo"):
        HubReference.parse(text)


def test_a_file_that_gives_no_name() -> None:
    with pytest.raises(PullError, match="write :name behind"):
        HubReference.parse("o/r/模型.gguf")
    assert HubReference.parse("o/r/模型.gguf:mine").file == "模型.gguf"


@given(st.text(min_size=1))
def test_a_name_made_from_a_file_is_one_of_a_model(file: str) -> None:
    try:
        name = name_of(file)
    except PullError:
        return
    assert is_model_name(name)


@given(st.text())
def test_whatever_is_read_stays_inside(text: str) -> None:
    try:
        reference = HubReference.parse(text)
    except PullError:
        return
    assert not reference.file or is_safe(reference.file)
    assert ".." not in reference.file.split("/")
