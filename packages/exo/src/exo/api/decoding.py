"""A JSON body to a schema type."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import TypeVar

import msgspec

from exo.types import InvalidRequest

T = TypeVar("T")
MAX_DEPTH = 100
"""How deeply lists and objects may be nested. Whatever works on a value calls itself for each level, up to six times,
and Python allows a thousand calls."""
_AT_PATH = re.compile(r"(?P<what>.*) - at `\$\.?(?P<path>.*)`", re.DOTALL)
_LEVELS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS = bytes(set(range(256)) - _LEVELS.keys())
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")


def decode(body: bytes, kind: type[T]) -> T:
    """JSON to a schema type. Raises InvalidRequest with the field's path, such as `messages[0].role`."""
    if not body:
        raise InvalidRequest("The body is empty; a JSON object is expected.")
    try:
        with _without_collector():
            value = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise _too_deep() from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise _too_deep()
    return value


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """A body of 16 MB may hold five million lists, and the collector would look through them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _depth(body: bytes) -> int:
    """How deeply a text that is JSON is nested."""
    without_escapes = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_of_strings = b"".join(without_escapes.split(b'"')[::2])
    brackets = outside_of_strings.translate(None, _OTHERS)
    return max(accumulate(map(_LEVELS.__getitem__, brackets)), default=0)


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested too deeply, over {MAX_DEPTH} levels.")


def _invalid(said: str) -> InvalidRequest:
    match = _AT_PATH.fullmatch(said)
    what, path = (match["what"], match["path"]) if match else (said, "")
    missing = _MISSING.fullmatch(what)
    if missing:
        path = f"{path}.{missing['name']}".lstrip(".")
        return InvalidRequest(f"{path} is missing.", param=path)
    return InvalidRequest(f"{path or 'The body'}: {what}.", param=path or None)
