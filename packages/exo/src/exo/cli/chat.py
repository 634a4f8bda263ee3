"""A chat in the terminal: one answer, or a conversation."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from exo.cli.background import LoopInThread
from exo.cli.entry import INTERRUPTED
from exo.cli.prompt import HELP, Prompt
from exo.types import Delta, EngineError, ExoError, Message, RequestError

Ask = Callable[[list[Message]], AsyncIterator[Delta]]
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_END = ("/bye", "/exit", "/quit")


def chat_in_terminal(chats: AbstractAsyncContextManager[Ask], prompt: str) -> int:
    """One answer, or without a prompt a conversation. Returns 0, or 130 for a single answer that Ctrl-C has ended.

    Of the main thread; `chats` and what it yields run in an event loop beside it.
    """
    with LoopInThread() as loop, loop.entered(chats) as ask:
        if not prompt:
            _converse(loop, ask)
            return 0
        _, complete = _answer(loop, ask, [Message(role="user", content=prompt)])
        return 0 if complete else INTERRUPTED


def _converse(loop: LoopInThread, ask: Ask) -> None:
    prompt = Prompt()
    history: list[Message] = []
    while (said := prompt.read()) is not None:
        if said.is_command:
            if said.text in _END:
                return
            if said.text == "/clear":
                history = []
            else:
                _explain(said.text)
        elif said.text:
            history.append(Message(role="user", content=said.text))
            try:
                text, _ = _answer(loop, ask, history)
            except (RequestError, EngineError) as error:
                print(error.message, file=sys.stderr)
                history.pop()
            else:
                history.append(Message(role="assistant", content=text))


def _explain(command: str) -> None:
    if command not in ("/?", "/help"):
        print(f"unknown command {command!r}", file=sys.stderr)
    print(HELP, file=sys.stderr)


def _answer(loop: LoopInThread, ask: Ask, messages: list[Message]) -> tuple[str, bool]:
    """Print an answer as it comes; return it, and whether it is complete: Ctrl-C ends an answer, not a conversation."""
    text: list[str] = []
    shown: list[str] = []

    async def show() -> None:
        show_piece = _Terminal() if sys.stdout.isatty() else _answer_only
        async with contextlib.aclosing(ask(messages)) as pieces:  # type: ignore[type-var]  # generators, as asked for
            async for piece in pieces:
                text.append(piece.text)
                shown.append(show_piece(piece))
                print(shown[-1], end="", flush=True)

    complete = True
    try:
        loop.wait(show())
    except KeyboardInterrupt:
        complete = False
        print(" [stopped]", end="")
    except ExoError:
        if any(shown):
            print()
        raise
    print()
    return "".join(text), complete


def _answer_only(piece: Delta) -> str:
    return piece.text


class _Terminal:
    """The answer, and before it the reasoning, dimmed, with an empty line between the two."""

    def __init__(self) -> None:
        self._in_reasoning = False

    def __call__(self, piece: Delta) -> str:
        shown = f"{_DIM}{piece.reasoning}{_PLAIN}" if piece.reasoning else ""
        self._in_reasoning = self._in_reasoning or bool(piece.reasoning)
        if piece.text and self._in_reasoning:
            self._in_reasoning = False
            shown += "\n\n"
        return shown + piece.text
