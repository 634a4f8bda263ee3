"""models.yaml: what it means, and every mistake in it with its line and its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_converter.batch.models import Conversion, Models, chosen
from rkllm_converter.batch.reading import read, read_bytes
from rkllm_converter.errors import BadModels, Refused, UnknownToolkit

FILE = Path("models.yaml")

GOOD = """\
output: models
toolkit: 1.3.0
defaults:
  max_context: 8192
  seed: 7
models:
  - model: Qwen/Qwen2.5-1.5B-Instruct
    revision: main
    max_context: 2048
    conversions:
      - platform: rk3588
        quant: w8a8
      - platform: RK3576
        quant: W4A16_g128
        max_context: 1024
        name: my-own-name
  - model: microsoft/Phi-3-mini-4k-instruct
    conversions:
      - {platform: rk3576, quant: w4a16, npu_cores: 2, hybrid_rate: 0.25, ignore: [memory, disk], ram: 16G}
"""


def mistakes(text: str | bytes, file: Path = FILE) -> list[str]:
    """What is wrong, without the file's name."""
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(BadModels) as caught:
        read_bytes(data, file)
    assert caught.value.message == "\n".join(caught.value.problems)
    return [problem.removeprefix(str(file)) for problem in caught.value.problems]


def one_model(*, options: str = "quant: w8a8", top: str = "output: models", model: str = "a/b") -> str:
    """Its conversion's options are in line 6."""
    return f"{top}\nmodels:\n  - model: {model}\n    conversions:\n      - platform: rk3588\n        {options}\n"


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


SINGLE = {  # @ is models[0].conversions[0]
    "the wrong type for the chip": (
        one_model(options="quant: w4a16"),
        (
            ":6: @.quant: w4a16: the RK3588 does not run that type. Take one of: w8a8, w8a8_g128, "
            "w8a8_g256, w8a8_g512, or none. w4a16 is for RK3576, RV1126B."
        ),
    ),
    "flags in a sentence become keys": (
        one_model(options="quant: w8a8\n        algorithm: grq\n        device: cuda"),
        (
            ":7: @.algorithm: grq: it is for the types w4a16 only, not for w8a8. Take algorithm: "
            "normal, or a w4a16 type."
        ),
    ),
    "no such chip": (
        one_model().replace("rk3588", "rk3558"),
        (
            ":5: @.platform: rk3558: there is no such one. Take one of: rk3588, rk3576, rk3562, "
            "rv1126b. Did you mean rk3588?"
        ),
    ),
    "cores": (
        one_model(options="quant: w8a8\n        npu_cores: 4"),
        ":7: @.npu_cores: 4: for the RK3588 it has to be 1 or 2 or 3.",
    ),
    "context": (
        one_model(options="quant: w8a8\n        max_context: 4095"),
        (":7: @.max_context: 4095: it has to be a multiple of 32 from 32 to 16384. The nearest is 4096."),
    ),
    "an option of another toolkit": (
        one_model(options="quant: w8a8\n        export_tokenizer: false", top="output: m\ntoolkit: 1.2.3"),
        ":8: @.export_tokenizer: the toolkit 1.2.3 has no such choice. Leave it out.",
    ),
    "an unknown toolkit": (one_model(top="toolkit: 9.9.9\noutput: m"), ":1: toolkit: The toolkit '9.9.9' is not known"),
    "a number for a toolkit": (
        one_model(top="output: m\ntoolkit: 1.3"),
        ":2: toolkit: YAML takes '1.3' for a number. If the text is meant, put it in quotes.",
    ),
    "a missing output": (one_model(top="# nothing"), ":2: the key 'output' is missing."),
    "a missing list of models": ("output: m\n", ":1: the key 'models' is missing."),
    "a model without a name": (
        "output: m\nmodels:\n  - conversions: [{platform: rk3588, quant: w8a8}]\n",
        ":3: models[0]: the key 'model' is missing.",
    ),
    "a model without conversions": (
        "output: m\nmodels:\n  - model: a/b\n",
        ":3: models[0]: the key 'conversions' is missing.",
    ),
    "a missing platform": (
        "output: m\nmodels:\n  - model: a/b\n    conversions:\n      - quant: w8a8\n",
        ":5: @: the key 'platform' is missing.",
    ),
    "a missing type": (
        "output: m\nmodels:\n  - model: a/b\n    conversions:\n      - platform: rk3588\n",
        ":5: @: the key 'quant' is missing.",
    ),
    "no models": ("output: m\nmodels: []\n", ":2: models: the list is empty."),
    "no conversions": (
        "output: m\nmodels:\n  - model: a/b\n    conversions: []\n",
        ":4: models[0].conversions: the list is empty.",
    ),
    "a mapping of models": (
        "output: m\nmodels:\n  model: a/b\n",
        ":2: models: has to be a list: lines that begin with a dash.",
    ),
    "nothing where models should be": (
        "output: m\nmodels:\n",
        ":2: models: has to be a list: lines that begin with a dash.",
    ),
    "a name for a model": (
        "output: m\nmodels: [a/b]\n",
        ":2: models[0]: has to be a mapping with the keys model, conversions, revision, platform",
    ),
    "a list for a file": ("- a\n", ":1: the file has to be a mapping with the keys output, toolkit, defaults, models."),
    "a list for defaults": (
        one_model(top="output: m\ndefaults: [4096]"),
        ":2: defaults: has to be a mapping with the keys revision",
    ),
    "a duplicate key": (
        one_model(options="quant: w8a8\n        quant: w8a8"),
        ":7: @.quant: it is there twice, first in line 6.",
    ),
    "a duplicate key of the file": (one_model() + "output: n\n", ":7: output: it is there twice, first in line 1."),
    "an unknown key": (
        one_model(options="quant: w8a8\n        max_contxt: 4096"),
        ":7: @: there is no key 'max_contxt' here. Did you mean max_context?",
    ),
    "a flag for a key": (
        one_model(options="quant: w8a8\n        max-context: 4096"),
        ":7: @: there is no key 'max-context' here. Did you mean max_context?",
    ),
    "an option at the top": (
        one_model(top="output: m\nquant: w8a8"),
        ":2: there is no key 'quant' here. It belongs below defaults, or to a model or one of its conversions.",
    ),
    "a name at a model": (
        "output: m\nmodels:\n  - model: a/b\n    name: x\n    conversions: [{platform: rk3588, quant: w8a8}]\n",
        ":4: models[0]: there is no key 'name' here. It belongs to a conversion.",
    ),
    "a key that is like none": (
        one_model(top="output: m\nzzz: 1"),
        ":2: there is no key 'zzz' here. There are: output, toolkit, defaults, models.",
    ),
    "a list for a key": (
        one_model(top="output: m\n? [a]\n: 1"),
        ":2: a key has to be a word, not a list or a mapping.",
    ),
    "no for a text": (
        one_model(options="quant: w8a8\n        revision: no"),
        ":7: @.revision: YAML takes 'no' for true or false. If the text is meant, put it in quotes.",
    ),
    "digits for a text": (
        one_model(options="quant: w8a8\n        revision: 010"),
        ":7: @.revision: YAML takes '010' for a number. If the text is meant, put it in quotes.",
    ),
    "a date for a text": (
        one_model(options="quant: w8a8\n        name: 2026-11-22"),
        ":7: @.name: YAML takes '2026-11-22' for a date. If the text is meant, put it in quotes.",
    ),
    "nothing for a text": (
        one_model(options="quant: w8a8\n        revision:"),
        ":7: @.revision: has no value. Write one, or leave the key out.",
    ),
    "an empty text": (
        one_model(options="quant: w8a8\n        revision: ''"),
        ":7: @.revision: is empty. Write a text, or leave the key out.",
    ),
    "a list for a text": (
        one_model(options="quant: [w8a8]"),
        ":6: @.quant: has to be a text, not a list.",
    ),
    "a mapping for a text": (
        one_model(options="quant: {a: 1}"),
        ":6: @.quant: has to be a text, not a mapping.",
    ),
    "an escape sequence": (
        one_model(options='quant: w8a8\n        revision: "a\\e[31m"'),
        ":7: @.revision: has characters that cannot be printed, or ends of lines: 'a\\x1b[31m'.",
    ),
    "half a character": (
        one_model(options='quant: w8a8\n        revision: "\\ud800"'),
        ":7: @.revision: has characters that cannot be printed, or ends of lines: '\\ud800'.",
    ),
    "an octal number": (
        one_model(options="quant: w8a8\n        max_context: 04096"),
        ":7: @.max_context: has to be a whole number in plain digits, not '04096'.",
    ),
    "a number with a base of 60": (
        one_model(options="quant: w8a8\n        max_context: 1:30"),
        ":7: @.max_context: has to be a whole number in plain digits, not '1:30'.",
    ),
    "a number with underscores": (
        one_model(options="quant: w8a8\n        max_context: 4_096"),
        ":7: @.max_context: has to be a whole number in plain digits, not '4_096'.",
    ),
    "a number in quotes": (
        one_model(options="quant: w8a8\n        max_context: '4096'"),
        ":7: @.max_context: has to be a whole number in plain digits, without quotes, not '4096'.",
    ),
    "a fraction for a count": (
        one_model(options="quant: w8a8\n        samples: 0"),
        ":7: @.samples: has to be a whole number from 1 in plain digits, not '0'.",
    ),
    "a truth for a number": (
        one_model(options="quant: w8a8\n        seed: yes"),
        ":7: @.seed: has to be a whole number in plain digits, not 'yes'.",
    ),
    "not a number": (
        one_model(options="quant: w8a8\n        hybrid_rate: .nan"),
        ":7: @.hybrid_rate: has to be a number such as 0.25, not '.nan'.",
    ),
    "too large a share": (
        one_model(options="quant: w8a8\n        hybrid_rate: 1"),
        ":7: @.hybrid_rate: 1: it has to be from 0 up to, but not, 1.",
    ),
    "a word for a switch": (
        one_model(options="quant: w8a8\n        export_tokenizer: on"),
        ":7: @.export_tokenizer: has to be true or false, not 'on'.",
    ),
    "memory without a unit": (
        one_model(options="quant: w8a8\n        ram: '8'"),
        ":7: @.ram: has to be an amount of memory such as 8G or 8192M, not '8'.",
    ),
    "no list to ignore": (
        one_model(options="quant: w8a8\n        ignore: memory"),
        ":7: @.ignore: has to be a list, such as [architecture].",
    ),
    "an unknown kind to ignore": (
        one_model(options="quant: w8a8\n        ignore: [disk, ram]"),
        ":7: @.ignore[1]: 'ram' is none of: architecture, groups, memory, disk.",
    ),
    "a dataset that is not there": (
        one_model(options="quant: w8a8\n        dataset: /none/chats.json"),
        ":7: @.dataset: there is no file '/none/chats.json'.",
    ),
    "a model that is not there": (
        one_model(model="/none/model"),
        ":3: models[0].model: there is no file or folder '/none/model'.",
    ),
    "a GGUF file that is not there": (
        one_model(model="/none/a.gguf"),
        ":3: models[0].model: there is no file or folder '/none/a.gguf'.",
    ),
    "no id": (
        one_model(model="a/b/c"),
        ":3: models[0].model: 'a/b/c' is neither an id such as owner/name nor a folder or file that is there.",
    ),
    "a name with a leading dot": (
        one_model(options="quant: w8a8\n        name: .x"),
        (
            ":7: @.name: '.x' cannot be a model's name: use letters, digits and . _ : + -, and "
            "begin with a letter or a digit."
        ),
    ),
    "a name that leaves the folder": (
        one_model(options="quant: w8a8\n        name: ../x"),
        ":7: @.name: '../x' cannot be a model's name",
    ),
    "a name that looks unfinished": (
        one_model(options="quant: w8a8\n        name: x.partial"),
        ":7: @.name: 'x.partial' cannot be a model's name: what ends in .partial",
    ),
    "a name that leaves the choice": (
        one_model(options="quant: w8a8\n        name: auto"),
        ":7: @.name: 'auto' cannot be a model's name",
    ),
    "a tab": ("output: m\nmodels:\n\t- model: a/b\n", ":3: column 1: there is a tab where YAML takes blanks only."),
    "a syntax error": (
        "output: m\nmodels: [a: b: c\n",
        ":2: column 14: this is no YAML: expected ',' or ']', but got ':'.",
    ),
    "brackets without end": ("output: m\nmodels: [\n", ":3: column 1: this is no YAML: "),
    "an unknown alias": ("output: m\nmodels: *x\n", ":2: column 9: this is no YAML: found undefined alias 'x'."),
    "two documents": ("output: m\n---\nmodels: m\n", ":2: column 1: a second document begins here."),
    "an empty file": ("", ":1: the file is empty. `rkllm-convert batch --example` shows what belongs into it."),
    "only comments": ("# x\n\n", ":1: the file is empty."),
    "a control character": ("output: m\nmodels: \x07\n", ":2: the character U+0007 has no place in a YAML file."),
    "a tag": (one_model(options="quant: !foo w8a8"), ":6: the tag '!foo' means nothing here. Leave it out."),
    "an object of Python": (
        one_model(top="output: !!python/object/apply:os.system [true]"),
        ":1: the tag 'python/object/apply:os.system' means nothing here.",
    ),
    "too large a character": ('output: "\\UFFFFFFFF"\n', ":1: this is no YAML: there is a number in it that is too"),
    "an alias within itself": (
        "output: m\nmodels: &a [*a]\n",
        ":2: what the alias stands for has the alias within it.",
    ),
    "a merge of no mapping": (
        one_model(options="quant: w8a8\n        <<: [1]"),
        ":7: <<: it brings in mappings only: write the alias of one, or of several.",
    ),
    "many levels": (f"output: {'[' * 5000}\n", ":1: column 4"),
}


@pytest.mark.parametrize("case", SINGLE)
def test_a_mistake_is_said_with_its_line_and_key(case: str) -> None:
    text, expected = SINGLE[case]
    expected = expected.replace("@", "models[0].conversions[0]")
    first, *others = mistakes(text)
    if case == "many levels":
        assert first.endswith("this is no YAML: more than 32 levels, one in another.")
        return
    assert first.startswith(expected), first
    assert case == "an object of Python" or others == []


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


def bomb_of_merges() -> str:
    lines = ["output: m", "defaults: &a0 {" + ", ".join(f"k{n}: 1" for n in range(30)) + "}"]
    lines += [f"x{n}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 40)}], y{n}: 1}}" for n in range(60)]
    return "\n".join(lines)


def bomb_of_lists() -> str:
    lines = ["output: m", "a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 50)}]" for n in range(1, 20))]
    return "\n".join([*lines, "models: *a19"])


def bomb_of_conversions() -> str:
    one = "{platform: rk3588, quant: w8a8}"
    conversions = f"[&c {one}{', *c' * 999}]"
    return f"output: m\nmodels: [&m {{model: a/b, conversions: {conversions}}}{', *m' * 999}]\n"


def bomb_of_mistakes() -> str:
    unknown = ", ".join(f"u{n}: 1" for n in range(1000))
    return f"output: m\nmodels: [&m {{model: a/b, {unknown}}}{', *m' * 5000}]\n"


def bomb_of_copies() -> str:
    keys = ", ".join(f"k{n}: 1" for n in range(8000))
    return f"output: m\nz: &a {{{keys}}}\nmodels: [{', '.join(['{<<: *a}'] * 9000)}]\n"


@pytest.mark.parametrize(
    "bomb",
    [
        bomb_of_merges,
        pytest.param(bomb_of_copies, marks=pytest.mark.slow),
        bomb_of_lists,
        bomb_of_conversions,
        bomb_of_mistakes,
    ],
)
@pytest.mark.timeout(8)
def test_a_bomb_is_a_mistake(bomb: Callable[[], str]) -> None:
    assert 1 <= len(mistakes(bomb())) <= 201


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


def never_surprises(data: bytes) -> None:
    problems: tuple[str, ...] = ()
    conversions: tuple[Conversion, ...] = ()
    try:
        conversions = read_bytes(data, FILE).conversions
    except BadModels as error:
        problems = error.problems
    assert bool(problems) != bool(conversions)
    assert all(problem.startswith("models.yaml") and problem.isprintable() for problem in problems)


@given(st.text())
def test_no_text_surprises(text: str) -> None:
    never_surprises(text.encode("utf-8", "surrogatepass"))


@given(st.binary())
def test_no_bytes_surprise(data: bytes) -> None:
    never_surprises(data)


PIECES = st.sampled_from(
    [
        *"-?:,[]{}#&*!|>'\"%@`~=\n\t \\\x85\r\0é",
        *("\n  ", "\n    - ", ": ", "<<: ", "&a ", "*a", "!!int ", "--- ", "... ", "\\U", "%YAML 99999.1\n"),
        *("model", "models", "conversions", "platform", "quant", "output", "defaults", "name", "toolkit", "ignore"),
        *("rk3588", "w8a8", "a/b", "01", "no", "null", "1.5", "max_context", "4096"),
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_no_pieces_of_yaml_surprise(text: str) -> None:
    never_surprises(text.encode())


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.lists(PIECES, max_size=3).map("".join))
def test_no_change_to_a_good_file_surprises(begin: int, end: int, piece: str) -> None:
    never_surprises((GOOD[:begin] + piece + GOOD[end:]).encode())
