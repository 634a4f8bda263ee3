"""What a person types into a conversation, or what a pipe holds."""

from __future__ import annotations

import contextlib
import sys
import types
from dataclasses import dataclass

HELP = """Type a message, or several lines between \"\"\" and \"\"\".
Ctrl-C stops an answer. /clear forgets the conversation, /bye or Ctrl-D ends it."""
_AGAIN = "Ctrl-C once more, Ctrl-D or /bye ends the conversation."
_BLOCK = '"""'


@dataclass(frozen=True)
class Said:
    """`text` is without blanks at its ends. One between triple quotes is a message, whatever it begins with."""

    text: str
    quoted: bool = False

    @property
    def is_command(self) -> bool:
        return not self.quoted and self.text.startswith("/")


class Prompt:
    """Reads stdin, on a terminal with line editing and a history that ends with the process. Main thread only."""

    def __init__(self) -> None:
        self._on_terminal = sys.stdin.isatty()
        self._editor = _line_editor() if self._on_terminal and sys.stdout.isatty() else None
        self._screen = sys.stdout if sys.stdout.isatty() else sys.stderr
        self._block: list[str] = []
        if self._on_terminal:
            print(HELP, file=sys.stderr)

    def read(self) -> Said | None:
        """None at the end: of the pipe, or by Ctrl-D, or by a second Ctrl-C where nothing is typed."""
        warned = False
        while True:
            self._block = []
            try:
                return self._read()
            except KeyboardInterrupt:
                if not self._on_terminal:
                    raise
                print(file=self._screen)
                if self._dropped():
                    warned = False
                elif warned:
                    return None
                else:
                    print(_AGAIN, file=self._screen)
                    warned = True

    def _read(self) -> Said | None:
        line = self._line(">>> ")
        if line is None:
            if self._on_terminal:
                print(file=self._screen)
            return None
        if not line.lstrip().startswith(_BLOCK):
            return Said(line.strip())
        line = line.lstrip().removeprefix(_BLOCK)
        while line is not None and not line.rstrip().endswith(_BLOCK):
            self._block.append(line)
            line = self._line("... ")
        if line is not None:
            self._block.append(line.rstrip().removesuffix(_BLOCK))
        return Said("\n".join(self._block).strip(), quoted=True)

    def _line(self, prompt: str) -> str | None:
        try:
            if not self._on_terminal:
                return input()
            if self._screen is not sys.stdout:  # the prompt is no part of an answer that goes to a file
                print(prompt, end="", file=self._screen, flush=True)
                return input()
            return input(prompt)
        except EOFError:
            return None

    def _dropped(self) -> bool:
        """Whether Ctrl-C has dropped something. Without an editor nobody knows what was typed."""
        return bool(self._block or (self._editor is not None and self._editor.get_line_buffer()))


def _line_editor() -> types.ModuleType | None:
    """Once it is imported, `input` uses it."""
    with contextlib.suppress(ImportError):  # some Pythons are built without it
        import readline  # noqa: PLC0415 - it changes how `input` works

        return readline
    return None
