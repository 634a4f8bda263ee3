"""models.yaml from somebody who means no good, or from nobody: what is raised are mistakes, and not too many."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from converter_models_files import FILE, GOOD, mistakes
from hypothesis import given
from hypothesis import strategies as st

from rkllm_converter.batch.models import Conversion
from rkllm_converter.batch.reading import read_bytes
from rkllm_converter.errors import BadModels


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
