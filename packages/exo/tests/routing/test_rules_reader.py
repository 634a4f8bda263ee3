"""The rules, and a user's file laid over them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exo.routing import packaged_text, read_rules
from exo.types import ConfigurationError


def file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    packaged = read_rules()
    rules = read_rules(file(tmp_path, '[kinds.code]\nrole = "quick"\n[kinds.code.cues.write]\nalso = ["hack me a"]'))
    assert rules.kinds["code"].role == "quick"
    assert rules.kinds["code"].cues["write"].also == ("hack me a",)
    assert rules.kinds["code"].cues["write"].words == packaged.kinds["code"].cues["write"].words
    assert rules.kinds["proof"] == packaged.kinds["proof"]


def test_a_file_adds_a_kind(tmp_path: Path) -> None:
    text = '[kinds.recipes]\nrole = "quick"\n[kinds.recipes.cues.food]\nweight = 3\nwords = ["recipe*"]'
    assert read_rules(file(tmp_path, text)).kinds["recipes"].cues["food"].weight == 3


def test_the_packaged_file_may_be_copied_as_it_is(tmp_path: Path) -> None:
    assert read_rules(file(tmp_path, packaged_text())) == read_rules()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[kinds.code]\nrole = 'fast'", "kinds.code.role: 'fast' is none of quick, reasoning."),
        ("[kinds.code]\nrol = 'quick'", "kinds.code.rol: there is no such key"),
        ("[kinds.code.cues.write]\nweight = 'much'", "kinds.code.cues.write.weight: expected float"),
        ("[kinds.code.cues.write]\nwords = ['%']", "kinds.code.cues.write.words: '%' has no word"),
        ("[kinds.code.cues.mine]\nwords = ['x']", "kinds.code.cues.mine.weight: this key has to be there"),
        ("[kinds.code.shapes]\nround = 1", "kinds.code.shapes: 'round' is none of short, long, question, statements,"),
        ("[kinds.code.shapes]\nshort = 'x'", "kinds.code.shapes.short: expected float, got str"),
        ("[kinds.code.cues.write]\ngiven = ['x']", "kinds.code.cues.write.given[0]: 'x' is none of short, long,"),
        ("[roles]\n'qwen*' = 'fast'", "roles.qwen*: 'fast' is none of quick, reasoning."),
        ("[roles]\n'qwen*' = 3", "roles.qwen*: expected str, got int."),
        ("[text.written_out]\nu = 3", "text.written_out.u: expected str, got int."),
        ('["\\u001B[31m\\nX"]', r" \x1b[31m\nX: there is no such key."),
        ('[kinds.code]\nrole = "\\u001B[31m\\u009B"', r"kinds.code.role: '\x1b[31m\x9b' is none of"),
        ("[kinds.mine]\nbias = 1", "kinds.mine.role: this key has to be there"),
        ("[kinds.'My kind']\nrole = 'quick'", "kinds.My kind: names are"),
        ("[text]\nend = 0", "text.end: expected int"),
        ("[texts]\nend = 9", "texts: there is no such key"),
        ("kinds = 3", "kinds: expected object"),
        ("[cost]\ntokens_per_s = nan", "cost.tokens_per_s: this number is not finite"),
        ("[cost]\nload_burst = 1" + "0" * 400, "cost.load_burst: this number is not finite, or far too large"),
        ("[cost]\nload_burst = 1" + "0" * 5000, "a number in it is too long"),
        ("[signals]\ntools = -inf", "signals.tools: this number is not finite"),
        ("[kinds.code]\nbias = 1e999", "kinds.code.bias: this number is not finite"),
        ("[kinds.code.cues.write]\nweight = inf", "kinds.code.cues.write.weight: this number is not finite"),
        ("[kinds.code.cues.write]\nwords = ['a', nan]", "kinds.code.cues.write.words: this number is not finite"),
        ("[cost]\nidle_seconds_per_load = 0.5", "cost.idle_seconds_per_load: expected float >= 1"),
        ("[cost]\ncharacters_per_token_elsewhere = 0", "cost.characters_per_token_elsewhere: expected float >= 0.1"),
        ("[cost]\ncharacters_per_token = 1e-320", "cost.characters_per_token: expected float >= 0.1"),
        ("[cost]\ncharacters_per_token = 1e14", "cost.characters_per_token: expected float <= 100"),
        ("[cost]\ntokens_per_ideograph = 1e14", "cost.tokens_per_ideograph: expected float <= 100"),
        ("[cost]\ntokens_per_s = 1e-320", "cost.tokens_per_s: expected float >= 0.01"),
        ("[cost]\nreasoning_factor = 1e14", "cost.reasoning_factor: expected float <= 100"),
        ("[cost]\nload_seconds = 1e14", "cost.load_seconds: expected float <= 1000000"),
        ("[cost]\nseconds_per_request = 1e14", "cost.seconds_per_request: expected float <= 1000000"),
        ("[cost]\nanswer_tokens = 100_000_000", "cost.answer_tokens: expected int <= 1000000"),
        ("[cost]\nloads_per_request = 1e14", "cost.loads_per_request: expected float <= 1000"),
        ("[cost]\nload_burst = 100_000_000", "cost.load_burst: expected int <= 1000"),
        ("[roles]\n'*a*b*c*d*' = 'quick'", "roles.*a*b*c*d*: a pattern may have 4 of `*` at most"),
        ("[text]\nend = ", "at the end of the file"),
        ("[text]\nend = = 3", "line 2, column 7"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        read_rules(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_pattern_of_ids_may_have_four_stars(tmp_path: Path) -> None:
    assert read_rules(file(tmp_path, "[roles]\n'*a*b*c*' = 'quick'")).roles["*a*b*c*"] == "quick"


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--print-rules"):
        read_rules(tmp_path / "none.toml")
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_rules(path)


def test_a_mark_of_the_byte_order_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[text]\nend = 321", encoding="utf-8-sig")
    assert read_rules(path).text.end == 321


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/full"), tmp_path):
        with pytest.raises(ConfigurationError, match=f"^{path}: this is no regular file.$"):
            read_rules(path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, "#" * 2**20)
    assert read_rules(path) == read_rules()
    path = file(tmp_path, "#" * (2**20 + 1))
    with pytest.raises(ConfigurationError, match=f"^{path}: it is larger than 1 MiB.$"):
        read_rules(path)
