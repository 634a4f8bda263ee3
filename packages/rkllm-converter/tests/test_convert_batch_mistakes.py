"""Mistakes in a models.yaml, each with its line and its key."""

from __future__ import annotations

import pytest
from converter_models_files import mistakes, one_model

SINGLE = {  # @ is models[0].conversions[0]
    "the wrong type for the chip": (
        one_model(options="quant: w4a16"),
        (
            ":6: @.quant: w4a16: the RK3588 does not run that type. Take one of: w8a8, w8a8_g128, "
            "w8a8_g256, w8a8_g512, or none. w4a16 is for RK3576, RV1126B."
        ),
    ),
    "an algorithm that the chip has no type for": (
        one_model(options="quant: w8a8\n        algorithm: grq\n        device: cuda"),
        (":7: @.algorithm: grq: it is for the types w4a16 only, and the RK3588 has none. Take normal."),
    ),
    "no such chip": (
        one_model().replace("rk3588", "rk3558"),
        (":5: @.platform: rk3558: there is no such chip. Take one of: rk3588, rk3576, rk3562, rv1126b."),
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
        ":7: @.hybrid_rate: 1: it has to be at least 0 and below 1, such as 0.25.",
    ),
    "a word for a switch": (
        one_model(options="quant: w8a8\n        export_tokenizer: on"),
        ":7: @.export_tokenizer: has to be true or false, not 'on'.",
    ),
    "memory without a unit": (
        one_model(options="quant: w8a8\n        ram: 8"),
        ":7: @.ram: has to be an amount of memory such as 8G or 8192M, not '8'.",
    ),
    "memory without a unit, in quotes": (
        one_model(options="quant: w8a8\n        ram: '8'"),
        ":7: @.ram: has to be an amount of memory such as 8G or 8192M, not '8'.",
    ),
    "no memory": (
        one_model(options="quant: w8a8\n        ram: 0G"),
        ":7: @.ram: has to be an amount of memory such as 8G or 8192M, not '0G'.",
    ),
    "nothing for memory": (
        one_model(options="quant: w8a8\n        ram:"),
        ":7: @.ram: has no value. Write one, or leave the key out.",
    ),
    "an option that another decides of": (
        one_model(options="quant: none\n        hybrid_rate: 0.5"),
        ":7: @.hybrid_rate: 0.5: the type none leaves nothing to mix. Leave it out.",
    ),
    "an algorithm for a GPU": (
        one_model(options="quant: w4a16\n        algorithm: grq").replace("rk3588", "rk3576"),
        ":7: @.algorithm: grq: it needs a GPU. Take the device cuda, or the algorithm normal.",
    ),
    "no list to ignore": (
        one_model(options="quant: w8a8\n        ignore: memory"),
        ":7: @.ignore: has to be a list, such as [architecture].",
    ),
    "an unknown kind to ignore": (
        one_model(options="quant: w8a8\n        ignore: [disk, ram]"),
        ":7: @.ignore[1]: 'ram' is none of: architecture, groups, memory, disk, tokenizer.",
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
