"""A JSON body to a schema type."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from exo.types import InvalidRequest

T = TypeVar("T")
_AT_PATH = re.compile(r"(?P<what>.*) - at `\$\.?(?P<path>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")


def decode(body: bytes, kind: type[T]) -> T:
    """JSON to a schema type. Raises InvalidRequest with the field's path, such as `messages[0].role`."""
    if not body:
        raise InvalidRequest("The body is empty; a JSON object is expected.")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None


def _invalid(said: str) -> InvalidRequest:
    match = _AT_PATH.fullmatch(said)
    what, path = (match["what"], match["path"]) if match else (said, "")
    missing = _MISSING.fullmatch(what)
    if missing:
        path = f"{path}.{missing['name']}".lstrip(".")
        return InvalidRequest(f"{path} is missing.", param=path)
    return InvalidRequest(f"{path or 'The body'}: {what}.", param=path or None)
