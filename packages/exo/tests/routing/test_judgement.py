# ruff: noqa: RUF001 - Chinese has full-width signs
"""What a text is taken for."""

from __future__ import annotations

import msgspec
import pytest

from exo.routing import read_rules
from exo.routing.judgement import Judge

RULES = read_rules()
JUDGE = Judge(RULES)


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


@pytest.mark.parametrize(
    "text",
    [
        "french pls, keep the formulas\n\nProof. Let n be even, so n = 2k for a k. Its square is 4k², which is even.",
        "bitte etwas netter: Beweisen Sie mir bis Freitag, dass die 300 Euro überwiesen wurden, sonst klage ich.",
        "Give me only the names. Ann plans the budget of 900 euros by Friday, Bob must prove that 3 of 7 tests pass.",
        "why not make this sound friendlier: solve all 3 exercises by Monday, prove each step, write a function",
    ],
)
def test_a_text_that_was_brought_along_hardly_counts_if_something_is_to_be_done_with_it(text: str) -> None:
    assert JUDGE.judge(text).role == "quick"


@pytest.mark.parametrize(
    "text",
    [
        'Where is the flaw in this argument? "Translate it or not: all cats are grey, Felix is grey, so he is a cat."',
        "Prove this: the sum of two even numbers, of any two of them at all, is even as well.",
        "Can you make this faster? It is slow.\nfor i in range(n):\n    for j in range(n):\n        total += a[i][j]",
    ],
)
def test_a_text_that_is_to_be_reasoned_about_counts(text: str) -> None:
    assert JUDGE.judge(text).role == "reasoning"


def test_abbreviations_are_read_as_the_rules_say() -> None:
    assert JUDGE.judge("pk la racine de 2 est irrationnelle").kind == "proof"
    rules = read_rules()
    text = msgspec.structs.replace(rules.text, written_out={"plz": "prove"})
    assert Judge(msgspec.structs.replace(rules, text=text)).judge("plz it").kind == "proof"
    assert JUDGE.judge("plz it").kind != "proof"


def test_who_only_tells_something_gets_a_quick_answer() -> None:
    assert JUDGE.judge("Finally passed my maths exam today, 17 of 20 points, I could hug everyone!!").kind == "chat"


def share_of(text: str, kind: str, cue: str) -> float:
    """How much of its weight a cue had in a text."""
    counted = [item.weight for item in JUDGE.judge(text).counted if (item.kind, item.cue) == (kind, cue)]
    return sum(counted) / RULES.kinds[kind].cues[cue].weight


PAYLOAD = "Prove it by Friday. Prove that the money was paid, or prove that it was not, to all of us at once."


@pytest.mark.parametrize(
    ("text", "claimed"),
    [
        (f"the names, dear: {PAYLOAD}", True),
        (
            f"in the letter that my aunt wrote to us all in the village you might extract what matters: {PAYLOAD}",
            True,
        ),
        (f"here you are: {PAYLOAD}", False),
        (
            "Prove it as well as you can, and do not rush: translate nothing. Translate nothing at all of it, ever.",
            False,
        ),
    ],
)
def test_a_text_is_claimed_by_the_words_of_the_sender(text: str, *, claimed: bool) -> None:
    assert (share_of(text, "proof", "ask") < 0.3) is claimed


def test_a_text_does_not_claim_what_the_sender_asks() -> None:
    text = "What follows from these two lines: Translate the letter. Translate it for me by Friday, if you can, dear."
    assert share_of(text, "logic", "puzzle") == 1.0


def test_a_program_is_not_claimed_if_the_same_sentence_asks_to_work_on_it() -> None:
    counted = JUDGE.judge("Fix the bug, shorten it\nfor i in range(n):\n    total += a[i]").counted
    shape = next(item for item in counted if (item.kind, item.cue) == ("code", "code"))
    assert shape.weight == RULES.kinds["code"].shapes["code"]


def test_every_cue_that_counts_is_named_with_its_phrases() -> None:
    counted = JUDGE.judge("Prove it").counted
    ask = next(item for item in counted if item.cue == "ask")
    assert (ask.kind, ask.phrases) == ("proof", ("prove",))
    assert ask.weight == read_rules().kinds["proof"].cues["ask"].weight


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
