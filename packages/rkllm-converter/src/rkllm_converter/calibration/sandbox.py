"""The jinja2 environment of chat templates, set up as Hugging Face's transformers does. Imported with the first one.

A template comes with a model's files and is a program. It runs in jinja2's immutable sandbox and is stopped when it
takes too long, counts too far or writes too much. Memory is bounded only for what it writes and for repetition, so a
hostile one can still use it up: convert only models from where you trust. The toolkit runs their templates too.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, NoReturn

from jinja2 import TemplateRuntimeError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_format
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rkllm_converter.model_files import is_text

__all__ = ["LONGEST", "TODAY", "OutOfTime", "TemplateEnvironment"]

LONGEST = 1_000_000
"""Characters of a rendered chat, and items of what is made by repeating."""
TODAY = datetime(2025, 6, 15, 12, 0, tzinfo=timezone.utc)
"""What templates are told when they ask for the time. Always the same, so that equal input gives equal data."""
MOST_SECONDS = 10.0
"""Of one rendering."""
MOST_SECONDS_IN_ALL = 60.0
"""Of all renderings by one template. Those of the whole default set take a tenth of a second."""
MAX_ITERATIONS = 1_000_000
"""Sum of the lengths of all ranges in one rendering."""
_MAX_NUMBER = 10_000
"""Widths and counts that a template hands to methods of strings and writes into formats, and exponents."""
_FORMAT = re.compile(r"%[^%a-zA-Z]*?(\d{5,}|\*)")


class OutOfTime(BaseException):
    """Raised between any two steps of a template; nothing on the way may take it for an error of the template."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """One for each template. `render` is the way in; not to be used by two threads at once."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])
        self._end = 0.0
        self._left = MOST_SECONDS_IN_ALL
        self._iterations = 0
        self.globals.pop("lipsum")  # texts of any length, and chance
        self.globals.update(raise_exception=_raise_exception, strftime_now=TODAY.strftime, range=self._range)
        self.filters["tojson"] = _tojson
        self.filters["random"] = _no_chance
        self.filters["format"] = _format

    def written(self, pieces: Callable[[], Any]) -> str:
        """The text that a template generates, within the bounds. Raises whatever the template raises, and OutOfTime."""
        begin, self._iterations = time.monotonic(), 0
        seconds = min(MOST_SECONDS, self._left)
        self._end = begin + seconds
        texts, length = [], 0
        try:
            with _alarm(seconds):
                for piece in pieces():
                    self._check_time()
                    length += len(piece)
                    if length > LONGEST:
                        raise _too_much(f"writes more than {LONGEST} characters")
                    texts.append(piece)
        finally:
            self._left = max(self._left - (time.monotonic() - begin), 0.001)  # 0 would set no alarm
        text = "".join(texts)
        if not is_text(text):
            raise SecurityError("it writes half of a surrogate pair, which is no text")
        return text

    def getattr(self, obj: Any, attribute: str) -> Any:
        self._check_time()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self._check_time()
        return super().getitem(obj, argument)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """As the sandbox's own: the context, the function, its arguments."""
        self._check_time()
        numbers = (*args[2:], *kwargs.values())
        if isinstance(getattr(args[1], "__self__", None), str) and any(_count(one) > _MAX_NUMBER for one in numbers):
            raise _too_much(f"asks a method of a text for more than {_MAX_NUMBER}")
        return super().call(*args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._check_time()
        if operator == "*" and max(_size(left) * _count(right), _size(right) * _count(left)) > LONGEST:
            raise _too_much(f"repeats something to more than {LONGEST} characters or items")
        if operator == "%" and isinstance(left, str):
            _check_format(left)
        if operator == "**" and max(abs(_count(left)), abs(_count(right))) > _MAX_NUMBER:
            raise _too_much(f"makes a power of more than {_MAX_NUMBER}")
        return super().call_binop(context, operator, left, right)

    def _range(self, *args: int) -> range:
        made = range(*args)
        self._iterations += len(made)
        if self._iterations > MAX_ITERATIONS:
            raise _too_much(f"counts to more than {MAX_ITERATIONS}")
        return made

    def _check_time(self) -> None:
        if self._end and time.monotonic() > self._end:
            raise OutOfTime


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises OutOfTime after that time, wherever the template is. In the main thread only, as Python wants it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGALRM, _ring)
    begin = time.monotonic()
    left, again = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begin), 0.001), again)


def _ring(*_: object) -> NoReturn:
    raise OutOfTime


class GenerationTag(Extension):
    """`{% generation %} … {% endgeneration %}` marks what a model is trained on; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a variable of instances

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRuntimeError(str(message))


def _no_chance(_: Any) -> NoReturn:
    raise SecurityError("it chooses at random, and the same data has to come out each time")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - the order in which templates pass it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - as above
) -> str:
    """JSON without HTML escapes, unlike jinja2's own filter of that name."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _format(value: object, *args: Any, **kwargs: Any) -> str:
    """As jinja2's own filter of that name, which is applied to constants while a template is compiled."""
    _check_format(str(value))
    return do_format(str(value), *args, **kwargs)


def _check_format(text: str) -> None:
    if any(width == "*" or int(width) > _MAX_NUMBER for width in _FORMAT.findall(text)):
        raise _too_much(f"asks for a width of more than {_MAX_NUMBER}, or of any")


def _too_much(what: str) -> SecurityError:
    return SecurityError(f"it {what}, which is over the limit")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
