from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_rkllm.names import assign_names, friendly_names, parameter_size_of, platform_of, quantization_of

QWEN = "Qwen2.5-1.5B-Instruct-rk3588-w8a8-opt-0-hybrid-ratio-1.0"


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (QWEN, ["qwen2.5:1.5b", "qwen2.5-instruct:1.5b", "qwen2.5:1.5b-instruct"]),
        ("qwen2.5-1.5b-instruct-rkllm", ["qwen2.5:1.5b", "qwen2.5-instruct:1.5b", "qwen2.5:1.5b-instruct"]),
        ("Qwen2.5-1.5B_w8a8_g128_RK3576_ctx4096", ["qwen2.5:1.5b"]),
        ("Qwen2.5-1.5B.rkllm", ["qwen2.5:1.5b"]),
        ("Qwen2_5-1_5B", ["qwen2.5:1.5b"]),
        ("DeepSeek-R1-Distill-Qwen-1.5B_W8A8_RK3588", ["deepseek-r1:1.5b", "deepseek-r1-distill-qwen:1.5b"]),
        ("Phi-3-mini", ["phi3:mini", "phi-3:mini"]),
        ("gemma-3-4b", ["gemma3:4b", "gemma-3:4b"]),
        ("gemma-2b", ["gemma:2b"]),
        ("Qwen3-0.6B", ["qwen3:0.6b"]),
        ("Qwen3_8B", ["qwen3:8b"]),
        ("internlm2-chat-1_8b", ["internlm2:1.8b", "internlm2-chat:1.8b", "internlm2:1.8b-chat"]),
        ("internlm2_5-1_8b", ["internlm2.5:1.8b"]),
        ("MiniCPM3-4B", ["minicpm3:4b"]),
        ("chatglm3-6b", ["chatglm3:6b"]),
        (
            "Qwen2.5-Coder-7B-Instruct",
            ["qwen2.5-coder:7b", "qwen2.5-coder-instruct:7b", "qwen2.5-coder:7b-instruct"],
        ),
        ("Qwen2-VL-2B", ["qwen2-vl:2b", "qwen2vl:2b"]),
        ("SmolLM2-135M", ["smollm2:135m"]),
        ("MiniCPM-V-2_6-rk3588-w8a8", ["minicpm-v-2.6"]),
        ("my-model", []),
        ("qwen2.5:1.5b", []),
        ("w8a8", []),
    ],
)
def test_all_names_of_a_folder_the_plainest_first(folder: str, names: list[str]) -> None:
    assert list(friendly_names(folder)) == names


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("Phi-3-mini-4k-instruct", ["phi3:mini", "phi3:mini-4k", "phi3:mini-instruct", "phi3:mini-4k-instruct"]),
        ("gemma-3-4b-it", ["gemma3:4b", "gemma3-it:4b", "gemma3:4b-it"]),
        ("Llama-3.2-3B-Instruct", ["llama3.2:3b", "llama3.2-instruct:3b", "llama3.2:3b-instruct", "llama-3.2:3b"]),
        ("Meta-Llama-3.1-8B-Instruct", ["llama3.1:8b", "llama3.1:8b-instruct"]),
        ("Llama-2-7B-Chat-rk3588-w4a16_g64-opt-0-hybrid-ratio-0.4", ["llama2:7b", "llama2-chat:7b"]),
        ("TinyLlama-1.1B-Chat-v1.0", ["tinyllama:1.1b", "tinyllama-chat:1.1b", "tinyllama:1.1b-chat-v1.0"]),
        ("Mistral-7B-Instruct-v0.3", ["mistral:7b", "mistral-instruct:7b", "mistral:7b-instruct-v0.3"]),
        (
            "deepseek-coder-7b-instruct-v1.5-rk3588-w8a8-opt-1-hybrid-ratio-0.5",
            ["deepseek-coder:7b", "deepseek-coder-instruct:7b", "deepseek-coder:7b-instruct"],
        ),
        ("Qwen3-4B-Instruct-2507", ["qwen3:4b", "qwen3:4b-instruct", "qwen3:4b-instruct-2507"]),
    ],
)
def test_names_that_clients_use(folder: str, names: list[str]) -> None:
    found = friendly_names(folder)
    assert found[0] == names[0]
    assert set(names) <= set(found)
    assert not any(word in name for name in found for word in ("rk3588", "w8a8", "w4a16", "opt", "hybrid"))


@pytest.mark.parametrize(
    ("folder", "path", "names"),
    [
        ("assistant", "Qwen/Qwen2.5-1.5B-Instruct", friendly_names("Qwen2.5-1.5B-Instruct")),
        ("Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct", friendly_names("Qwen2.5-1.5B-Instruct")),
        ("Qwen2.5-Coder-7B", "Qwen/Qwen2.5-7B-Instruct", ("qwen2.5-coder:7b",)),
        ("Qwen2.5-1.5B", "", ("qwen2.5:1.5b",)),
        ("assistant", "somebody/model", ()),
    ],
)
def test_the_repository_tells_what_the_folder_does_not(folder: str, path: str, names: tuple[str, ...]) -> None:
    assert friendly_names(folder, huggingface_path=path) == names


@pytest.mark.parametrize(
    ("name", "quantization", "size", "platform"),
    [
        (QWEN, "W8A8", "1.5B", "rk3588"),
        ("Llama-2-7B-Chat-RK3576-w4a16_g64", "W4A16_G64", "7B", "rk3576"),
        ("Qwen2.5-0.5B-w8a8-g128-rv1126b", "W8A8_G128", "0.5B", "rv1126b"),
        ("internlm2-chat-1_8b", "", "1.8B", ""),
        ("SmolLM2-135M", "", "135M", ""),
        ("Phi-3-mini", "", "", ""),
        ("brk3588", "", "", ""),
        ("aw8a8", "", "", ""),
        ("", "", "", ""),
    ],
)
def test_what_a_name_says(name: str, quantization: str, size: str, platform: str) -> None:
    assert (quantization_of(name), parameter_size_of(name), platform_of(name)) == (quantization, size, platform)


def test_a_name_of_several_goes_to_the_plainest() -> None:
    found = assign_names({"Qwen2.5-7B-Instruct": "", "Qwen2.5-7B": "", "Qwen2.5-7B-rk3588": ""})
    assert found["Qwen2.5-7B"] == ("qwen2.5:7b",)
    assert found["Qwen2.5-7B-Instruct"] == ("qwen2.5-instruct:7b", "qwen2.5:7b-instruct")
    assert found["Qwen2.5-7B-rk3588"] == ()


def test_the_others_get_names_with_the_quantisation() -> None:
    found = assign_names({"Qwen2.5-7B-w8a8": "", "Qwen2.5-7B-w8a8_g128": "", "Qwen2.5-7B-w4a16": ""})
    assert found == {
        "Qwen2.5-7B-w8a8": ("qwen2.5:7b",),
        "Qwen2.5-7B-w8a8_g128": ("qwen2.5-w8a8-g128:7b",),
        "Qwen2.5-7B-w4a16": ("qwen2.5-w4a16:7b",),
    }


def test_a_quantisation_that_tells_nothing_apart_makes_no_name() -> None:
    found = assign_names({"Qwen2.5-7B-w8a8-opt-0": "", "Qwen2.5-7B-w8a8-opt-1": "", "Qwen2.5-7B-w8a8": ""})
    assert found == {"Qwen2.5-7B-w8a8": ("qwen2.5:7b",), "Qwen2.5-7B-w8a8-opt-0": (), "Qwen2.5-7B-w8a8-opt-1": ()}


def test_no_name_is_that_of_another_folder() -> None:
    found = assign_names({"Qwen2.5-7B-Instruct": "", "QWEN2.5:7B": "", "qwen2.5:7b-instruct": ""})
    assert found == {
        "Qwen2.5-7B-Instruct": ("qwen2.5-instruct:7b",),
        "QWEN2.5:7B": ("qwen2.5:7b",),
        "qwen2.5:7b-instruct": (),
    }


def test_the_repository_counts_for_shared_names() -> None:
    found = assign_names({"chat": "Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B": "", "phi": "Qwen/Qwen3-4B"})
    assert found == {
        "Qwen2.5-7B": ("qwen2.5:7b",),
        "chat": ("qwen2.5-instruct:7b", "qwen2.5:7b-instruct"),
        "phi": ("qwen3:4b",),
    }


WORDS = st.sampled_from(
    ["Qwen2.5", "Llama", "3.2", "7B", "1_8b", "Instruct", "Coder", "w8a8", "w8a8_g128", "rk3588", "v1.0"]
)
FOLDERS = st.lists(st.lists(WORDS, min_size=1, max_size=5).map("-".join), unique=True, max_size=6)


@given(folders=FOLDERS)
def test_names_are_unique_and_the_same_in_any_order(folders: list[str]) -> None:
    expected = assign_names(dict.fromkeys(folders, ""))
    names = list(itertools.chain.from_iterable(expected.values()))
    assert len(names) == len(set(names))
    own = {folder.lower(): folder for folder in folders}
    assert all(own.get(name, folder) == folder for folder, those in expected.items() for name in those)
    assert assign_names(dict.fromkeys(reversed(folders), "")) == expected
    assert assign_names(dict.fromkeys(sorted(folders), "")) == expected
