"""The child process of a simulated model with `lm llama`: a real GGUF model. Run as `python -m rkllm_sim.llama`.

Lines on stdin and their answers on stdout (everything that llama.cpp prints goes to stderr):

    load GGUF_PATH N_CTX                  ok | error TEXT
    run COUNT MAX_NEW TEMPERATURE TOP_K TOP_P REPEAT_PENALTY SEED ID...
                                          token ID HEXBYTES (`-` for none), one for each token, then
                                          end eos | end cap | end aborted | error TEXT
    abort                                 nothing of its own: a run ends before its next token; without a run no effect

A negative MAX_NEW means until the context is full, a negative SEED a random one. The end of stdin ends the process,
in a run before the next token.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rkllm_sim.errors import SimulatorError

__all__ = ["Lines", "LlamaModel", "Model", "Refused", "Run", "Session", "main"]

_SPINS = "3000"
"""How often libgomp's waiting threads look before they sleep; with its default two processes that share cores are many
times slower than one."""

_SEEDS = 2**32 - 1
"""The last value of 32 bits means a random seed to llama.cpp."""

_CHUNK = 1 << 16


class Refused(SimulatorError):
    """A line that this process cannot do; its text is the answer."""


@dataclass(frozen=True)
class Run:
    """One run line. `prompt` are token ids."""

    prompt: tuple[int, ...]
    max_new: int
    temperature: float
    top_k: int
    top_p: float
    repeat_penalty: float
    seed: int

    @classmethod
    def parse(cls, words: Sequence[str]) -> Run:
        try:
            count, max_new, temperature, top_k, top_p, repeat_penalty, seed, *ids = words
            prompt = tuple(int(word) for word in ids)
            run = cls(
                prompt, int(max_new), float(temperature), int(top_k), float(top_p), float(repeat_penalty), int(seed)
            )
            announced = int(count)
        except ValueError:
            raise Refused("a run needs COUNT MAX_NEW TEMPERATURE TOP_K TOP_P REPEAT_PENALTY SEED and the ids") from None
        if len(prompt) != announced or not prompt:
            raise Refused(f"{announced} ids were announced and {len(prompt)} came; at least one is needed")
        return run


class Model(Protocol):
    """What a session needs of a loaded model. `pieces[i]` are the bytes of token i."""

    context: int
    pieces: tuple[bytes | None, ...]

    def next_token(self, ids: Sequence[int], run: Run) -> int | None:
        """The token after `ids`, None for an end-of-sequence token. Raises Refused."""


class Lines:
    """Lines from a file descriptor: the next one awaited, or only what is there already."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self._ready: deque[str] = deque()
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        while self._ready or not self.ended:
            if self._ready:
                yield self._ready.popleft()
            else:
                self._read()

    def take(self, line: str) -> bool:
        """Whether `line` is the next one; if so it is taken. Does not wait."""
        while not self.ended and select.select([self._fd], [], [], 0)[0]:
            self._read()
        if self._ready and self._ready[0] == line:
            self._ready.popleft()
            return True
        return False

    def _read(self) -> None:
        data = os.read(self._fd, _CHUNK)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._ready.extend(os.fsdecode(line) for line in lines)


class Session:
    """Reads lines and answers them, until the lines end. `load` makes the model of a path and a context length."""

    def __init__(self, lines: Lines, answer: Callable[[bytes], None], load: Callable[[Path, int], Model]) -> None:
        self._lines = lines
        self._answer = answer
        self._load = load
        self._model: Model | None = None

    def serve(self) -> None:
        """Raises BrokenPipeError if nobody reads the answers."""
        for line in self._lines:
            verb, _, rest = line.partition(" ")
            try:
                if verb == "load":
                    self._load_line(rest)
                elif verb == "run":
                    self._run(Run.parse(rest.split()))
                elif verb != "abort":
                    raise Refused(f"unknown line {verb!r}")
            except SimulatorError as error:
                self._say(f"error {' '.join(str(error).split())}")

    def _say(self, line: str) -> None:
        self._answer(os.fsencode(line) + b"\n")

    def _load_line(self, rest: str) -> None:
        path, _, context = rest.rpartition(" ")
        if not path or not context.isdecimal():
            raise Refused("load needs GGUF_PATH N_CTX")
        if self._model is not None:
            raise Refused("a model is loaded already")
        self._model = self._load(Path(path), int(context))
        self._say("ok")

    def _run(self, run: Run) -> None:
        model = self._model
        if model is None:
            raise Refused("no model is loaded")
        if len(run.prompt) >= model.context:
            raise Refused(f"the prompt has {len(run.prompt)} tokens and the context {model.context}")
        ids = list(run.prompt)
        room = model.context - len(ids)
        for _ in range(room if run.max_new < 0 else min(run.max_new, room)):
            if self._lines.take("abort"):
                self._say("end aborted")
                return
            if self._lines.ended:
                return
            token = model.next_token(ids, run)
            if token is None:
                self._say("end eos")
                return
            ids.append(token)
            self._say(f"token {token} {_hex(model.pieces, token)}")
        self._say("end cap")


def _hex(pieces: Sequence[bytes | None], token: int) -> str:
    piece = pieces[token] if token < len(pieces) else None
    return piece.hex() if piece else "-"


class LlamaModel:
    """A model in llama.cpp's server, in this process. Each token is a request of its own: a stream leaves out the ids
    of tokens that end within a character. The server keeps the context, so a request evaluates one position."""

    def __init__(self, path: Path, context: int) -> None:
        from rkllm_sim import gguf_tokenizer  # noqa: PLC0415 - with the model, not at import

        self.context = context
        self.pieces = gguf_tokenizer.vocabulary(path).pieces
        self._server = _server(path, context)

    def next_token(self, ids: Sequence[int], run: Run) -> int | None:
        answer = self._server.handle_completions(
            {
                "prompt": list(ids),
                "max_tokens": 1,
                "cache_prompt": True,
                "return_tokens": True,
                "verbose": True,  # the answer in llama.cpp's own form, which has the token's id
                "temperature": run.temperature,
                "top_k": run.top_k,
                "top_p": run.top_p,
                "min_p": 0.0,
                "repeat_penalty": run.repeat_penalty,
                "seed": (run.seed + len(ids)) % _SEEDS if run.seed >= 0 else secrets.randbelow(_SEEDS),
            }
        )
        try:
            told = answer["__verbose"]
            return None if told["stop_type"] == "eos" else int(told["tokens"][0])
        except (KeyError, IndexError, TypeError):
            raise Refused(f"llama.cpp answered {answer!s:.200}") from None


def _server(path: Path, context: int) -> Any:
    """An `xllamacpp.Server`. It insists on listening: on a socket whose name is removed as soon as it is up."""
    try:
        import xllamacpp  # noqa: PLC0415 - 100 MB of native code that only this process may load
    except ImportError as error:
        raise Refused(f"xllamacpp is not installed ({error}): pip install xllamacpp") from error
    with tempfile.TemporaryDirectory(prefix="rkllm-sim-") as folder:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames = [str(Path(folder) / "llama.sock")]
        params.port = 0
        params.ui = False
        params.n_parallel = 1
        params.n_ctx = context
        params.cache_ram_mib = 0
        params.verbosity = 2  # warnings; a request prints six lines otherwise
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise Refused(f"llama.cpp cannot load {path}: {error}") from error


def main() -> None:
    """Serve stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    out = os.dup(1)
    os.dup2(2, 1)
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    with contextlib.suppress(BrokenPipeError):
        Session(Lines(0), lambda data: _write(out, data), LlamaModel).serve()
    sys.stderr.flush()
    os._exit(0)  # llama.cpp's threads need no farewell


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    main()
