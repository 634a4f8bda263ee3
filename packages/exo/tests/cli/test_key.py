from __future__ import annotations

import pytest

from exo.api.keys import digest_of, key_of_line
from exo.cli.main import main
from exo.inference.caller import Caller


@pytest.mark.parametrize(
    ("flags", "caller"),
    [
        ([], Caller("bob", admin=False)),
        (["--admin"], Caller("bob", admin=True)),
        (["--requests", "4", "--tokens", "60000"], Caller("bob", admin=False, requests=4, tokens=60_000)),
    ],
)
def test_the_line_on_stdout_belongs_to_the_key_on_stderr(
    capsys: pytest.CaptureFixture[str], flags: list[str], caller: Caller
) -> None:
    assert main(["key", "bob", *flags]) == 0
    shown = capsys.readouterr()
    made = key_of_line(shown.out.rstrip("\n"))
    assert made.caller == caller
    assert made.digest == digest_of(shown.err.splitlines()[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a:b"], "name of a key"),
        (["bob", "--requests", "0"], "--requests: expected a whole number from 1"),
        (["bob", "--tokens", "many"], "--tokens: expected a whole number from 1"),
    ],
)
def test_a_mistake_is_named_and_no_key_is_made(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["key", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert "exo-" not in shown.err
