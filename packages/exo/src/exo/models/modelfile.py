"""The Modelfile of a model's folder, in either of the two ways in which they are written.

Ollama's: `FROM ./x`, `PARAMETER num_ctx 4096`, `SYSTEM text`, longer texts between three quotes. Older servers for
Rockchip boards: `FROM="x.rkllm"`, `NUM_CTX=4096`, as in a shell's environment file. One file may mix them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from exo.types import BadModelfile, Message, Role, Sampling, StoreError

FILE_NAME = "Modelfile"
LARGEST_FILE = 1 << 20
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=(.*)", re.ASCII | re.DOTALL)
_INSTRUCTION = re.compile(
    r"\s*((?:(?:parameter|message)\s+\S+)|[a-z_][a-z0-9_.-]*)(?:\s+(.*))?", re.ASCII | re.DOTALL | re.IGNORECASE
)
_BEGIN = {quote: re.compile(rf"{quote}((?:\\.|[^{quote}\\])*){quote}", re.DOTALL) for quote in ('"', "'")}
_QUOTED = {
    quote: re.compile(begin.pattern + r"[ \t]*(?:#[^\n]*)?(?=\n|\Z)", re.DOTALL) for quote, begin in _BEGIN.items()
}
_CLOSES = {quote: re.compile(rf"(?:\\.|[^{quote}\\])*{quote}") for quote in ('"', "'")}
_ESCAPES = {'"': {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}, "'": {"'": "'", "\\": "\\"}}
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


class ModelParameters(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is run. None means that the Modelfile does not say.

    `num_ctx` is the context in tokens, `num_predict` the longest answer in tokens (-1: no limit), which older servers
    call MAX_NEW_TOKENS. The others are as in Ollama.
    """

    num_ctx: int | None = None
    num_predict: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Modelfile:
    """What a Modelfile says; None where it says nothing.

    `from_` is the model's file as written, `huggingface_path` the repository of the original model, `thinking_open` and
    `thinking_close` what the model writes around its reasoning. `unknown` holds keys and values that have no effect
    here, as written; `problems` has a sentence for each of them.
    """

    from_: str | None = None
    system: str | None = None
    template: str | None = None
    huggingface_path: str | None = None
    tokenizer: str | None = None
    adapter: str | None = None
    licence: str | None = None
    enable_thinking: bool | None = None
    thinking_open: str | None = None
    thinking_close: str | None = None
    parameters: ModelParameters = field(default_factory=ModelParameters)
    messages: tuple[Message, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    def conversation(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """With the system message, where they have none, and the messages that every chat begins with."""
        has_system = any(message.role == "system" for message in messages)
        system = (Message(role="system", content=self.system),) if self.system and not has_system else ()
        return (*system, *self.messages, *messages)

    def sampling(self) -> Sampling:
        """The part of the parameters that a request may override. A seed of -1 is none, a top_k of -1 off."""
        own = self.parameters
        return Sampling(
            temperature=own.temperature,
            top_p=own.top_p,
            top_k=None if own.top_k is None else max(0, own.top_k),
            min_p=own.min_p,
            repeat_penalty=own.repeat_penalty,
            presence_penalty=own.presence_penalty,
            frequency_penalty=own.frequency_penalty,
            seed=None if own.seed == -1 else own.seed,
        )


def read_modelfile(folder: Path) -> Modelfile:
    """The Modelfile of a model's folder; an empty one if there is none. Raises StoreError."""
    path = folder / FILE_NAME
    text = _read(path)
    return Modelfile() if text is None else parse_modelfile(text, name=str(path))


def read_from(folder: Path) -> str | None:
    """FROM of the Modelfile of a model's folder, as written; the rest is passed over. None if it does not say.

    Values that make no sense are no matter here: `read_modelfile` reports them. Raises StoreError for a file that
    cannot be taken apart.
    """
    path = folder / FILE_NAME
    text = _read(path)
    if text is None:
        return None
    found = [value for _, key, value in _statements(text, str(path)) if key.upper() == "FROM"]
    return found[-1] if found else None


def _read(path: Path) -> str | None:
    """The text of a file; None if there is none. Never waits, even if somebody put a pipe there. Raises StoreError."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StoreError(f"{path} cannot be read: it is no plain file. Replace it, or remove it.")
            content = file.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Make it readable for this user.") from error
    if len(content) > LARGEST_FILE:
        raise BadModelfile(f"{path} is over {LARGEST_FILE} bytes: that is no Modelfile. Replace it, or remove it.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadModelfile(f"{path} is not a text in UTF-8. Replace it, or remove it.") from None


def parse_modelfile(text: str, *, name: str = FILE_NAME) -> Modelfile:
    """What the text of a Modelfile says. Of a key that comes twice the later one counts, but stops and messages add up.

    Raises BadModelfile for a number that is none or out of range, for quotes that are not closed and for a NUL; it
    begins with `name` and the line. A text that is over the limit for files is none either.
    """
    if len(text) > LARGEST_FILE:
        raise BadModelfile(f"{name} is over {LARGEST_FILE} bytes: that is no Modelfile. Say less in it.")
    found = _Found(name)
    for line, key, value in _statements(text, name):
        if key:
            found.take(line, key, value)
        else:
            found.strange(line, "", value, "is neither KEY=value nor INSTRUCTION value")
    return found.modelfile()


def with_from(text: str, model: str) -> str:
    """The text of a Modelfile from which another one can be made: its FROM names the model, not a file of its folder.

    A faulty text comes back as it is.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    try:
        at = next((line for line, key, _ in _statements(text, FILE_NAME) if key.upper() == "FROM"), None)
    except BadModelfile:
        return text
    if at is None:
        return f"FROM {model}\n{text}"
    lines[at - 1] = f'FROM="{model}"' if _ASSIGNMENT.fullmatch(lines[at - 1]) else f"FROM {model}"
    return "\n".join(lines)


def _statements(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    """Line number, key and value of each statement; the key of a line that is none is empty. Raises BadModelfile."""
    if "\0" in text:  # no path may hold one
        raise BadModelfile(f"{name}:{text[: text.index(chr(0))].count(chr(10)) + 1}: there is a NUL in it. Remove it.")
    lines = _Lines(text.replace("\r\n", "\n").replace("\r", "\n"), name)
    while (line := lines.next()) is not None:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        at = lines.number
        if assigned := _ASSIGNMENT.fullmatch(line):
            yield at, assigned[1], lines.assigned(assigned[2].lstrip())
        elif said := _INSTRUCTION.fullmatch(line):
            yield at, " ".join(said[1].split()), lines.instructed(said[2] or "")
        else:
            yield at, "", line.strip()


class _Lines:
    """The lines of a file, and the values that go on over several of them."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.split("\n")
        self._name = name
        self.number = 0

    def next(self) -> str | None:
        if self.number == len(self._lines):
            return None
        self.number += 1
        return self._lines[self.number - 1]

    def assigned(self, text: str) -> str:
        """A value as in an environment file: bare with a comment behind it, or in quotes with escapes."""
        if text.startswith('"""'):
            return self._until('"""', text)
        if text[:1] not in _QUOTED:
            return re.split(r"(?:\A|\s)#", text, maxsplit=1)[0].strip()
        return self._in_quotes(text[0], text)

    def _in_quotes(self, quote: str, text: str) -> str:
        ends_here = _BEGIN[quote].match(text) is not None
        further = 0 if ends_here else self._lines_up_to(quote)
        found = _QUOTED[quote].match("\n".join([text, *self._lines[self.number : self.number + further]]))
        if found:
            self.number += further
            escapes = _ESCAPES[quote]
            return re.sub(r"\\(.)", lambda pair: escapes.get(pair[1], pair[0]), found[1], flags=re.DOTALL)
        if ends_here and text.rstrip().endswith(quote):  # older servers write quotes inside the text as they are
            return text.rstrip()[1:-1]
        raise self._open(self.number)

    def _lines_up_to(self, quote: str) -> int:
        """How many of the next lines belong to a text in quotes that is open."""
        for further in range(self.number, len(self._lines)):
            if _CLOSES[quote].match(self._lines[further]):
                return further + 1 - self.number
        raise self._open(self.number)

    def instructed(self, text: str) -> str:
        """A value as Ollama has it: bare to the end of the line, or in one or three quotes, without escapes."""
        for quote in ('"""', '"'):
            if text.startswith(quote):
                return self._until(quote, text)
        return text.rstrip()

    def _until(self, quote: str, first: str) -> str:
        """The text behind the opening quote, up to a line that ends with the closing one."""
        begun = self.number
        collected = [first[len(quote) :]]
        while not collected[-1].rstrip().endswith(quote):
            line = self.next()
            if line is None:
                raise self._open(begun)
            collected.append(line)
        return "\n".join(collected).rstrip()[: -len(quote)]

    def _open(self, line: int) -> BadModelfile:
        return BadModelfile(f"{self._name}:{line}: the quotes that begin here are not closed. Close them.")


class _Found:
    """Collects what the lines say."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fields: dict[str, Any] = {}
        self._parameters: dict[str, Any] = {}
        self._stops: list[str] = []
        self._messages: list[Message] = []
        self._unknown: list[tuple[str, str]] = []
        self._problems: list[str] = []

    def take(self, line: int, key: str, value: str) -> None:
        known = key.upper().removeprefix("PARAMETER ")
        if known.startswith("MESSAGE "):
            self._message(line, key, value)
        elif known == "STOP":
            self._stops += [value] if value else []
        elif known in _PARAMETERS:
            parameter = _PARAMETERS[known]
            if value.strip():
                self._parameters[parameter.field] = self._number(line, key, value.strip(), parameter)
        elif known != key.upper():
            self.strange(line, key, value, "is not known and has no effect")
        elif known == "ENABLE_THINKING":
            self._fields["enable_thinking"] = self._switch(line, key, value)
        elif known in _TEXTS:
            self._fields[_TEXTS[known]] = value
        else:
            self.strange(line, key, value, "is not known and has no effect")

    def strange(self, line: int, key: str, value: str, what: str) -> None:
        """Keep what has no effect."""
        self._unknown.append((key, value))
        self._problems.append(f"{self._name}:{line}: {key or _shown(value)} {what}.")

    def modelfile(self) -> Modelfile:
        return Modelfile(
            **self._fields,
            parameters=ModelParameters(**self._parameters, stop=tuple(self._stops)),
            messages=tuple(self._messages),
            unknown=tuple(self._unknown),
            problems=tuple(self._problems),
        )

    def _message(self, line: int, key: str, value: str) -> None:
        role = _ROLES.get(key.split(" ")[1].lower())
        if role is not None:
            self._messages.append(Message(role=role, content=value))
        else:
            self.strange(line, key, value, "is not known and has no effect: a message is of system, user or assistant")

    def _number(self, line: int, key: str, value: str, parameter: _Parameter) -> float:
        if parameter.whole:
            number: float | None = int(value) if _WHOLE.fullmatch(value) else None
        else:
            number = float(value) if _DECIMAL.fullmatch(value) else None
        if number is None or not parameter.low <= number <= parameter.high:
            kind = "whole number" if parameter.whole else "number"
            raise BadModelfile(
                f"{self._name}:{line}: {key} has to be a {kind} from {parameter.low} to {parameter.high}, "
                f"not {_shown(value)}."
            )
        return number

    def _switch(self, line: int, key: str, value: str) -> bool | None:
        if not value.strip():
            return None
        if value.lower() in ("true", "yes", "on", "1"):
            return True
        if value.lower() in ("false", "no", "off", "0"):
            return False
        raise BadModelfile(f"{self._name}:{line}: {key} has to be True or False, not {_shown(value)}.")


def _shown(value: str) -> str:
    return repr(value if len(value) <= 60 else f"{value[:57]}...")


@dataclass(frozen=True)
class _Parameter:
    field: str
    low: float
    high: float
    whole: bool = False


_TEXTS = {
    "FROM": "from_",
    "SYSTEM": "system",
    "TEMPLATE": "template",
    "HUGGINGFACE_PATH": "huggingface_path",
    "HUGGINGFACE": "huggingface_path",
    "TOKENIZER": "tokenizer",
    "ADAPTER": "adapter",
    "LICENSE": "licence",
    "LICENCE": "licence",
    "THINKING_OPEN": "thinking_open",
    "THINKING_CLOSE": "thinking_close",
}
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_PARAMETERS = {
    "NUM_CTX": _Parameter("num_ctx", 1, 1 << 24, whole=True),
    "NUM_PREDICT": _Parameter("num_predict", -2, 1 << 24, whole=True),
    "MAX_NEW_TOKENS": _Parameter("num_predict", -2, 1 << 24, whole=True),
    "TEMPERATURE": _Parameter("temperature", 0, 100),
    "TOP_K": _Parameter("top_k", -1, 1 << 24, whole=True),
    "TOP_P": _Parameter("top_p", 0, 1),
    "MIN_P": _Parameter("min_p", 0, 1),
    "REPEAT_PENALTY": _Parameter("repeat_penalty", 0, 100),
    "FREQUENCY_PENALTY": _Parameter("frequency_penalty", -2, 2),
    "PRESENCE_PENALTY": _Parameter("presence_penalty", -2, 2),
    "MIROSTAT": _Parameter("mirostat", 0, 2, whole=True),
    "MIROSTAT_TAU": _Parameter("mirostat_tau", 0, 1000),
    "MIROSTAT_ETA": _Parameter("mirostat_eta", 0, 1000),
    "SEED": _Parameter("seed", -(1 << 63), (1 << 63) - 1, whole=True),
}
