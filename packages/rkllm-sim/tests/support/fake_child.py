"""A child process for lm llama without any model: it counts. `python fake_child.py LOG`; the lines it reads go to LOG.

The answer to a run whose last id is N: tokens N+1, N+2 …; 99 stands for end-of-sequence, 500 for an error, at 600 the
process ends.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

_rest = b""


def read_line(*, wait: bool) -> str | None:
    """The next line; None if there is none yet. Ends the process with its stdin."""
    global _rest  # noqa: PLW0603 - a script of one page
    while b"\n" not in _rest:
        if not wait and not select.select([0], [], [], 0)[0]:
            return None
        data = os.read(0, 65536)
        if not data:
            sys.exit(0)
        _rest += data
    line, _, _rest = _rest.partition(b"\n")
    text = line.decode()
    with Path(sys.argv[1]).open("a", encoding="utf-8") as log:
        log.write(f"{text}\n")
    return text


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def run(words: list[str]) -> None:
    last, left = int(words[-1]), int(words[1])
    while left:
        if read_line(wait=False) == "abort":
            say("end aborted")
            return
        last, left = last + 1, left - 1
        if last == 99:
            say("end eos")
            return
        if last == 500:
            say("error it broke")
            return
        if last == 600:
            sys.exit(3)
        say(f"token {last} {'-' if last % 10 == 0 else f' t{last}'.encode().hex()}")
    say("end cap")


def main() -> None:
    while True:
        verb, *words = (read_line(wait=True) or "").split()
        if verb == "load":
            say(f"error cannot load {words[0]}" if "bad" in words[0] else "ok")
        elif verb == "run":
            run(words)


if __name__ == "__main__":
    main()
