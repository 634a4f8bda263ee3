# ruff: noqa: RUF001 - Chinese has full-width signs
"""What a text is taken for."""

from __future__ import annotations

import msgspec
import pytest

from exo.routing import read_rules
from exo.routing.judgement import Judge

JUDGE = Judge(read_rules())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is 2+2?", "question"),
        ("Wer hat das Telefon erfunden?", "question"),
        ("Traduis en anglais : Démontrer que la somme de deux nombres pairs est paire.", "translation"),
        ("Summarize: Prove that f is continuous. Solve x^2 = 4 and calculate the integral step by step.", "rewriting"),
        ("提取下面文字里的所有日期：会议在5月3日，第二次在6月7日，证明材料8月前交", "extraction"),
        ("Zeige, dass es unendlich viele Primzahlen gibt.", "proof"),
        ("Escribe una función en Python que extraiga las fechas de un texto", "code"),
        ("Plan a 4 day trip to Rome for 2 with 600 euros, no car, and my mother cannot walk far", "planning"),
        ("hola, ¿qué tal?", "chat"),
        ("Solve 3x + 5 = 20 for x", "mathematics"),
        ("A says B lies. B says C lies. C says both lie. Who tells the truth?", "logic"),
    ],
)
def test_the_instruction_counts_and_not_what_was_pasted(text: str, kind: str) -> None:
    assert JUDGE.judge(text).kind == kind


def test_every_cue_that_counts_is_named_with_its_phrases() -> None:
    counted = JUDGE.judge("Prove it").counted
    ask = next(item for item in counted if item.cue == "ask")
    assert (ask.kind, ask.phrases, ask.weight) == ("proof", ("prove",), 6.0)


def test_an_empty_text_is_for_the_quick_model() -> None:
    judged = JUDGE.judge("")
    assert judged.role == "quick"


def test_the_role_of_a_kind_is_up_to_the_rules() -> None:
    rules = read_rules()
    proof = msgspec.structs.replace(rules.kinds["proof"], role="quick")
    changed = msgspec.structs.replace(rules, kinds={**rules.kinds, "proof": proof})
    assert JUDGE.judge("Prove that it halts").role == "reasoning"
    assert Judge(changed).judge("Prove that it halts").role == "quick"


def test_a_long_text_is_judged_by_its_ends() -> None:
    padding = "Lorem ipsum dolor sit amet. " * 4000
    assert JUDGE.judge(f"Translate this into German:\n\n{padding}").kind == "translation"
    assert JUDGE.judge(f"{padding}\n\nTranslate this into German, please.").role == "quick"


@pytest.mark.parametrize("unit", ["(", '"', "`", "\u201c", ".", " ", "x=", "1", "- ", "\n", "a,", "字", "｜", "if ("])
def test_no_text_takes_long(unit: str) -> None:
    """A pattern with nested repetitions would not end within the time that a test has."""
    JUDGE.judge(unit * 50_000)
