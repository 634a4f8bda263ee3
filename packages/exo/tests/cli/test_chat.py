"""What a chat in the terminal shows, and what it takes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from exo.cli.background import LoopInThread
from exo.cli.chat import Ask, _answer_only, _Terminal, chat_in_terminal
from exo.cli.prompt import HELP, Prompt, Said
from exo.types import Delta, Message, RequestError


@contextlib.asynccontextmanager
async def echoing(log: list[str]) -> AsyncIterator[Ask]:
    """Answers with what was said so far, after a bracket for each message; refuses `no`, and breaks off at `break`."""

    async def ask(messages: list[Message]) -> AsyncIterator[Delta]:
        if messages[-1].content == "no":
            raise RequestError("that is refused")
        yield Delta(text=f"[{len(messages)}]")
        if messages[-1].content == "break":
            raise RequestError("that broke off")
        if messages[-1].content == "wait":
            _press_ctrl_c()
            await asyncio.Event().wait()
        yield Delta(text=str(messages[-1].content))

    try:
        yield ask
    finally:
        log.append("closed")


def _press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a pipe holds."""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdin", pipe)
    return pipe


def test_reasoning_is_shown_in_a_terminal_only() -> None:
    pieces = [Delta(reasoning="Hm."), Delta(reasoning=" So."), Delta(text="Yes"), Delta(text=".")]
    show = _Terminal()
    assert "".join(map(show, pieces)) == "\x1b[2mHm.\x1b[0m\x1b[2m So.\x1b[0m\n\nYes."
    assert "".join(map(_answer_only, pieces)) == "Yes."


def test_one_answer(capsys: pytest.CaptureFixture[str]) -> None:
    log: list[str] = []
    assert chat_in_terminal(echoing(log), "hello") == 0
    assert capsys.readouterr() == ("[1]hello\n", "")
    assert log == ["closed"]


@pytest.mark.parametrize(("prompt", "shown"), [("no", ""), ("break", "[1]\n")])
def test_no_empty_line_before_an_error(prompt: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    log: list[str] = []
    with pytest.raises(RequestError):
        chat_in_terminal(echoing(log), prompt)
    assert (capsys.readouterr().out, log) == (shown, ["closed"])


def test_ctrl_c_ends_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    log: list[str] = []
    assert chat_in_terminal(echoing(log), "wait") == 130
    assert (capsys.readouterr().out, log) == ("[1] [stopped]\n", ["closed"])


def test_a_conversation_in_a_pipe(typed: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    typed.write("one\n\n two \nno\nwait\nthree\n/clear\nfour\n/nope\n/?\n/quit\nnever\n")
    typed.seek(0)
    assert chat_in_terminal(echoing([]), "") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["[1]one", "[3]two", "[5] [stopped]", "[7]three", "[1]four"]
    assert shown.err == f"that is refused\nunknown command '/nope'\n{HELP}\n{HELP}\n"


@pytest.mark.parametrize("end", ["/bye", "/exit", "/quit"])
def test_words_that_end_a_conversation(end: str, typed: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    typed.write(f"{end}\nnever\n")
    typed.seek(0)
    assert chat_in_terminal(echoing([]), "") == 0
    assert capsys.readouterr() == ("", "")


def test_several_lines_are_one_message(typed: io.StringIO) -> None:
    typed.write('"""one line"""\n"""\n/two\n  lines \n"""\n"""and\n\nthree""" \n"""never ended\nby quotes')
    typed.seek(0)
    prompt = Prompt()
    said = list(iter(prompt.read, None))
    assert [one.text for one in said] == ["one line", "/two\n  lines", "and\n\nthree", "never ended\nby quotes"]
    assert not any(one.is_command for one in said)


def test_the_help_fits_a_terminal() -> None:
    assert max(map(len, HELP.splitlines())) <= 80
    assert Said("/bye").is_command


def test_ctrl_c_cancels_what_is_waited_for() -> None:
    log: list[str] = []

    async def work() -> None:
        _press_ctrl_c()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    with LoopInThread() as loop:
        with pytest.raises(KeyboardInterrupt):
            loop.wait(work())
        assert log == ["cleaned up"]
        assert loop.wait(asyncio.sleep(0, "goes on")) == "goes on"
    assert [thread.name for thread in threading.enumerate() if thread.name == "event loop"] == []
