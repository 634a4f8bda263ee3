"""models.yaml: what it means, and mistakes that are more than a wrong value."""

from __future__ import annotations

from pathlib import Path

import pytest
from converter_models_files import FILE, GOOD, mistakes, one_model

from rkllm_converter.batch.models import Models, chosen
from rkllm_converter.batch.reading import read, read_bytes
from rkllm_converter.errors import BadModels, Refused, UnknownToolkit


def parsed(text: str, file: Path = FILE) -> Models:
    return read_bytes(text.encode(), file)


def test_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(GOOD, encoding="utf-8")
    found = read(file)
    assert (found.output, found.toolkit, found.file) == (tmp_path / "models", "1.3.0", file)
    first, second, third = found.conversions
    assert [one.name for one in found.conversions] == [
        "qwen2.5-1.5b-instruct-rk3588-w8a8",
        "my-own-name",
        "phi-3-mini-4k-instruct-rk3576-w4a16",
    ]
    assert first.model == second.model == "Qwen/Qwen2.5-1.5B-Instruct"
    assert first.options == {
        "max_context": 2048,
        "seed": 7,
        "revision": "main",
        "platform": "rk3588",
        "quant": "w8a8",
    }
    assert (second.options["platform"], second.options["quant"]) == ("rk3576", "w4a16_g128")
    assert second.options["max_context"] == 1024
    assert (third.options["max_context"], third.options["hybrid_rate"]) == (8192, 0.25)
    assert (third.options["ignore"], third.options["ram"], third.options["npu_cores"]) == (("memory", "disk"), "16G", 2)
    assert [one.line for one in found.conversions] == [11, 13, 19]


def test_paths_are_seen_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("chats.json", "weights.gguf"):
        (tmp_path / name).touch()
    for name in ("adapter", "local", "Qwen/Qwen3"):
        (tmp_path / name).mkdir(parents=True)

    def conversion(model: str, more: str) -> dict[str, object]:
        found = parsed(one_model(options=f"quant: w8a8\n{more}", model=model), tmp_path / FILE)
        return {"model": found.conversions[0].model, **found.conversions[0].options}

    found = conversion("./local", "        dataset: chats.json\n        lora: adapter\n        tokenizer: local")
    assert found["model"] == str(tmp_path / "local")
    assert found["dataset"] == str(tmp_path / "chats.json")
    assert found["lora"] == str(tmp_path / "adapter")
    assert found["tokenizer"] == str(tmp_path / "local")
    assert conversion("Qwen/Qwen3", "        tokenizer: Qwen/Qwen2.5-3B")["model"] == str(tmp_path / "Qwen/Qwen3")
    assert conversion("Qwen/Qwen3", "        tokenizer: Qwen/Qwen2.5-3B")["tokenizer"] == "Qwen/Qwen2.5-3B"
    assert conversion("weights.gguf", "")["model"] == str(tmp_path / "weights.gguf")


def test_home_and_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    assert parsed(one_model(model="~/there", top="output: ~/out")).conversions[0].model == str(tmp_path / "there")
    assert parsed(one_model(model="~/there", top="output: ~/out")).output == tmp_path / "out"
    assert parsed(one_model(model=str(tmp_path / "there"), top="output: /o")).output == Path("/o")


def test_not_utf_8() -> None:
    assert mistakes(b"output: m\nmodels: \xe9\n") == [":2: byte 0xE9 is not UTF-8. Save the file as UTF-8."]
    assert mistakes("output: m\n".encode("utf-16")) == [":1: byte 0xFF is not UTF-8. Save the file as UTF-8."]


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert len(read_bytes(b"\xef\xbb\xbf" + one_model().encode(), FILE).conversions) == 1


def test_all_mistakes_are_said_at_once_in_the_order_of_their_lines() -> None:
    found = mistakes(
        """\
outptu: m
toolkit: 0.1.0
defaults: {seed: x}
models:
  - model: a/b
    conversions:
      - platform: rk3576
        quant: w8a8_g128
      - quant: w8a8
  - conversions: []
"""
    )
    assert [one.split(": ", 2)[0] for one in found] == [":1", ":1", ":2", ":3", ":8", ":9", ":10", ":10"]


def test_an_option_from_elsewhere_is_a_mistake_where_it_stands_and_names_the_conversions() -> None:
    conversions = "".join(
        f"      - {{platform: {chip}, name: {chip}-{number}}}\n" for chip in ("rk3576", "rk3588") for number in range(4)
    )
    text = f"output: m\ndefaults:\n  quant: w4a16\nmodels:\n  - model: a/b\n    conversions:\n{conversions}"
    (only,) = mistakes(text)
    assert only.startswith(":3: defaults.quant: w4a16: the RK3588 does not run that type.")
    assert only.endswith(" That is for rk3588-0, rk3588-1, rk3588-2 and 1 more.")


@pytest.mark.parametrize("size", ["8G", "8 GiB", "'8192 MB'", "0.5g"])
def test_memory_is_written_as_for_the_flag(size: str) -> None:
    (found,) = parsed(one_model(options=f"quant: w8a8\n        ram: {size}")).conversions
    assert found.options["ram"] == size.strip("'")


def test_defaults_may_be_empty() -> None:
    assert len(parsed(one_model(top="output: m\ndefaults:")).conversions) == 1


@pytest.mark.parametrize("second", ["name: A-Rk3588-w8a8", "name: a-rk3588-w8a8", "seed: 1"])
def test_two_conversions_do_not_share_a_name(second: str) -> None:
    text = f"{one_model(model='x/a')}      - platform: rk3588\n        quant: w8a8\n        {second}\n"
    (only,) = mistakes(text)
    line = 9 if second.startswith("name") else 7
    assert only.startswith(f":{line}: models[0].conversions[1].name: ")
    assert only.endswith(" is the name of the conversion in line 5 too. Give one of them another.")


def test_names_that_differ_in_case_only_are_the_same() -> None:
    text = one_model(options="quant: w8a8\n        name: N\n      - {platform: rk3588, quant: w8a8, name: n}")
    assert len(mistakes(text)) == 1


def test_conversions_of_one_line_do_not_share_a_name_either() -> None:
    one = "{platform: rk3588, quant: w8a8}"
    assert len(mistakes(f"output: m\nmodels: [{{model: a/b, conversions: [{one}, {one}]}}]\n")) == 1


def test_a_revision_of_a_folder_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    found = mistakes(one_model(model="./m", options="quant: w8a8\n        revision: main"), tmp_path / FILE)
    (only,) = found
    assert only.startswith(":7: models[0].conversions[0].revision: ")
    assert only.endswith(" is on this machine and has no revisions. Leave it out.")


def test_anchors_aliases_and_merges() -> None:
    found = parsed(
        """\
output: m
defaults: &common {seed: 1, samples: 5}
models:
  - model: a/b
    conversions: &both
      - &first {platform: rk3588, quant: w8a8, <<: *common, seed: 2}
      - {<<: [*first, *common], quant: w8a8_g128}
  - model: a/c
    conversions: *both
"""
    )
    assert [(one.name, one.options["seed"], one.options["samples"]) for one in found.conversions] == [
        ("b-rk3588-w8a8", 2, 5),
        ("b-rk3588-w8a8_g128", 2, 5),
        ("c-rk3588-w8a8", 2, 5),
        ("c-rk3588-w8a8_g128", 2, 5),
    ]


def test_too_many_conversions_are_a_mistake() -> None:
    lines = [f"      - {{platform: rk3588, quant: w8a8, name: n{number}}}" for number in range(1001)]
    begin = "output: m\nmodels:\n  - model: a/b\n    conversions:\n"
    assert len(parsed(begin + "\n".join(lines[:1000])).conversions) == 1000
    assert mistakes(begin + "\n".join(lines)) == [
        ":1005: models[0].conversions[1000]: more than 1000 conversions. Make several files.",
        ": there may be more; these are enough to begin with.",
    ]


def test_too_long_a_file() -> None:
    assert mistakes(b"#" * (256 * 1024 + 1)) == [": the file has more than 256 KiB. Make several of it."]


def test_the_file_itself(tmp_path: Path) -> None:
    missing = tmp_path / "models.yaml"
    for path, words in (
        (missing, "there is no such file; `rkllm-convert batch --example` prints one."),
        (tmp_path, ""),
    ):
        with pytest.raises(BadModels) as caught:
            read(path)
        assert caught.value.message.startswith(f"{path}: {words or 'it cannot be read: Is a directory'}")


def test_the_toolkit_that_is_given_wins() -> None:
    text = one_model(options="quant: w8a8\n        export_tokenizer: true", top="output: m\ntoolkit: 1.2.3")
    with pytest.raises(BadModels):
        parsed(text)
    assert read_bytes(text.encode(), FILE, toolkit_version="1.3.0").toolkit == "1.3.0"
    with pytest.raises(UnknownToolkit):
        read_bytes(text.encode(), FILE, toolkit_version="7")
    assert parsed(one_model()).toolkit is None


def test_rules_for_gguf_files_hold(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    found = mistakes(one_model(model="a.gguf", options="quant: w8a8\n        device: cuda"), tmp_path / FILE)
    assert found == [
        ":7: models[0].conversions[0].device: cuda: the toolkit loads a GGUF file without that choice. Leave it out."
    ]


def test_conversions_are_chosen_by_name() -> None:
    found = parsed(GOOD)
    assert chosen(found, []) == found.conversions
    assert [one.name for one in chosen(found, ["my-own-name", "qwen2.5-1.5b-instruct-rk3588-w8a8"])] == [
        "qwen2.5-1.5b-instruct-rk3588-w8a8",
        "my-own-name",
    ]
    with pytest.raises(Refused) as caught:
        chosen(found, ["nobody"])
    assert caught.value.message == (
        "--only nobody: models.yaml has no conversion of that name. It has: qwen2.5-1.5b-instruct-rk3588-w8a8, "
        "my-own-name, phi-3-mini-4k-instruct-rk3576-w4a16."
    )
