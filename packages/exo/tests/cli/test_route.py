"""`exo route`."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from exo.cli.main import main

Capture = pytest.CaptureFixture[str]
DUMMY = ("--inference-engine", "dummy")


@pytest.fixture(autouse=True)
def _of_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EXO_ROUTING_RULES", "EXO_INFERENCE_ENGINE", "EXO_DEFAULT_MODEL", "EXO_MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EXO_HOME", str(tmp_path))


def test_a_decision_is_explained(capsys: Capture) -> None:
    assert main(["route", *DUMMY, "Prove", "that", "2", "is", "prime"]) == 0
    shown = capsys.readouterr().out
    assert "role    reasoning" in shown
    assert "model   dummy" in shown
    assert "rule    only-role" in shown
    assert re.search(r"^\+\d\.\d\d   proof +ask +prove$", shown, re.MULTILINE)


def test_json_is_one_object(capsys: Capture) -> None:
    assert main(["route", *DUMMY, "--json", "hello there"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["role"], told["model"], told["rule"], told["kind"]) == ("quick", "dummy", "text-chat", "chat")
    (greeting,) = (item for item in told["cues"] if item["cue"] == "greeting")
    assert (greeting["kind"], greeting["weight"] > 0, greeting["phrases"]) == ("chat", True, ["hello"])


def test_without_any_model_there_is_a_role(capsys: Capture, tmp_path: Path) -> None:
    assert main(["route", "--json", "--inference-engine", "llamacpp", "--models-dir", str(tmp_path), "hello"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["role"], told["model"]) == ("quick", None)


def test_a_file_of_prompts_is_answered_line_by_line(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Prove it", "kind": "proof"}\n\n{"prompt": "hello"}\n', encoding="utf-8")
    assert main(["route", *DUMMY, "--file", str(file)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["role"] for line in lines] == ["reasoning", "quick"]
    assert set(lines[0]) == {"role", "model", "rule", "kind", "reason"}


def test_prompts_from_stdin(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "hello"}\n')))
    assert main(["route", *DUMMY, "--file", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "chat"


@pytest.mark.parametrize("line", ['{"promt": "x"}', '{"prompt": 1}', "hello", '"hello"', '{"prompt": "\udcff"}'])
def test_a_faulty_line_is_named(capsys: Capture, tmp_path: Path, line: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(f'{{"prompt": "hello"}}\n{line}\n'.encode("utf-8", "surrogateescape"))
    assert main(["route", *DUMMY, "--file", str(file)]) == 2
    assert f"{file}, line 2:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"x": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"prompt": "' + b"a" * 2**20 + b'"}', "longer than 1 MiB"),
        (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"prompt": "\\ud83d\\ude00"', "truncated"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(capsys: Capture, tmp_path: Path, line: bytes, said: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(line + b"\n")
    assert main(["route", *DUMMY, "--file", str(file)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"exo: {file}, line 1: ")
    assert said in shown


def test_a_device_without_lines_does_not_fill_the_memory(capsys: Capture) -> None:
    assert main(["route", *DUMMY, "--file", "/dev/zero"]) == 2
    assert "/dev/zero, line 1: it is longer than 1 MiB" in capsys.readouterr().err


def test_a_mark_of_the_byte_order_is_passed_over(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "hello"}\n', encoding="utf-8-sig")
    assert main(["route", *DUMMY, "--file", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "chat"


@pytest.mark.parametrize("arguments", [[], ["--file", "x", "hello"]])
def test_a_prompt_or_a_file(capsys: Capture, arguments: list[str]) -> None:
    assert main(["route", *arguments]) == 2
    assert "--file" in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: Capture, tmp_path: Path) -> None:
    assert main(["route", *DUMMY, "--file", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--rules", "--routing-rules"])
def test_rules_of_a_user(capsys: Capture, tmp_path: Path, flag: str) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[kinds.proof]\nrole = "quick"', encoding="utf-8")
    assert main(["route", *DUMMY, "--json", flag, str(rules), "Prove it"]) == 0
    assert json.loads(capsys.readouterr().out)["role"] == "quick"


def test_rules_by_the_variable_and_their_faults(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[text]\nend = 0", encoding="utf-8")
    monkeypatch.setenv("EXO_ROUTING_RULES", str(rules))
    assert main(["route", *DUMMY, "hello"]) == 2
    assert f"{rules}: text.end:" in capsys.readouterr().err


def test_the_packaged_rules_are_printed(capsys: Capture, tmp_path: Path) -> None:
    assert main(["route", "--print-rules"]) == 0
    copy = tmp_path / "copy.toml"
    copy.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["route", *DUMMY, "--rules", str(copy), "hello"]) == 0
