"""Mistakes in flags are one line, and where to read on."""

from __future__ import annotations

import pytest

from rkllm_converter.cli.main import main

MODEL = ("model", "--model", "a/b", "--output", "o", "--platform", "rk3588")


@pytest.mark.parametrize(
    ("argv", "program", "message"),
    [
        ((*MODEL, "--ram", "8"), "rkllm-convert model", "argument --ram: '8' is no size of memory: say 8G or 8192M"),
        ((*MODEL, "--samples", "0"), "rkllm-convert model", "argument --samples: '0' is no whole number above 0"),
        (("batch", "--only"), "rkllm-convert batch", "argument --only: expected one argument"),
        (("verify",), "rkllm-convert verify", "the following arguments are required: FOLDER"),
        ((), "rkllm-convert", "the following arguments are required: COMMAND"),
        (("verify", "x", "--wrong"), "rkllm-convert", "unrecognized arguments: --wrong"),
    ],
)
def test_a_mistake_is_said_without_the_usage(
    argv: tuple[str, ...], program: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert printed.err.splitlines() == [f"{program}: {message}", f"see {program} --help"]
