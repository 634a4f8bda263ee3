"""Reading rules.toml, and a user's file that is laid over it."""

from __future__ import annotations

import importlib.resources
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from exo.routing.cues import is_phrase
from exo.routing.rules import Cue, Kind, Rules, Shape
from exo.types import ConfigurationError, ModelRole
from exo.types.printable import escaped

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PATH = re.compile(r"(?P<what>.*) - at `(?P<key>key` in `)?\$\.?(?P<path>[^`]*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_NONE_OF = re.compile(r"Invalid enum value ('.*')", re.DOTALL)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_PLACE = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)
_PACKAGED = "rules.toml"
_LARGEST = 1e15
_LARGEST_FILE = 2**20
"""In bytes, seven times what the packaged one has."""
_MOST_STARS = 4
"""In a pattern of models' ids: each further one multiplies the time that a match may take."""


class _Fault(Exception):
    """What is wrong, with the key at fault as a path such as `kinds.code.role`, empty where it is all of the file.

    Of both, what cannot be printed is escaped: keys may be anything.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(escaped(f"{path and f' {path}:'} {what}"))


def packaged_text() -> str:
    """The packaged file, for users to begin with."""
    return importlib.resources.files("exo.routing").joinpath(_PACKAGED).read_text(encoding="utf-8")


def read_rules(path: Path | None = None) -> Rules:
    """The packaged rules, with those of `path` laid over them.

    Raises ConfigurationError, which names the key at fault as a path such as `kinds.code.role`, or the line.
    """
    tables = tomllib.loads(packaged_text())
    if path is None:
        return _converted(tables)
    try:
        own = tomllib.loads(_content_of(path))
        _check_names(own)
        _check_numbers("", own)
        return _converted(_laid_over(tables, own))
    except OSError as error:
        raise ConfigurationError(
            f"The routing rules {path} cannot be read: {error.strerror}. "
            "`exo route --print-rules` prints a file to begin with."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}{_place_of(str(error))}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: this is not UTF-8.") from error
    except ValueError as error:  # of Python itself, for integers of thousands of digits
        raise ConfigurationError(f"{path}: a number in it is too long.") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path}: its values are nested too deeply.") from error
    except _Fault as fault:
        raise ConfigurationError(f"{path}:{fault}.") from fault


def _content_of(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):  # to open a FIFO may take for ever, and a device may never end
        raise _Fault("", "this is no regular file")
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise _Fault("", f"it is larger than {_LARGEST_FILE // 2**20} MiB")
    return content.decode("utf-8-sig")


def _place_of(message: str) -> str:
    found = _PLACE.fullmatch(message)
    if found is None:
        return f": {message}"
    if found["line"] is None:
        return f": {found['what']} at the end of the file"
    return f", line {found['line']}, column {found['column']}: {found['what']}"


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, all other values replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both_tables = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _laid_over(under, value) if both_tables else value  # type: ignore[arg-type]  # checked above
    return merged


def _converted(tables: Mapping[str, Any]) -> Rules:
    try:
        rules = msgspec.convert(tables, Rules)
    except msgspec.ValidationError as error:
        raise _of_names(tables) or _explained(error, "") from error
    for fault in _faults(rules):
        raise fault
    return rules


def _of_names(tables: Mapping[str, Any]) -> _Fault | None:
    """What is wrong below a name that a file may choose; msgspec leaves such names out."""
    for path, value, shape in _below_names(tables):
        try:
            msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            return _explained(error, path)
    return None


def _below_names(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Paths, what is there, and what it should be."""
    for name, kind in _tables_in(tables, "kinds"):
        for cue_name, cue in _tables_in(kind, "cues"):
            yield f"kinds.{name}.cues.{cue_name}", cue, Cue
        for shape, weight in _tables_in(kind, "shapes"):
            yield f"kinds.{name}.shapes.{shape}", weight, float
        yield f"kinds.{name}", kind, Kind
    for pattern, role in _tables_in(tables, "roles"):
        yield f"roles.{pattern}", role, ModelRole
    for short, written in _tables_in(tables.get("text"), "written_out"):
        yield f"text.written_out.{short}", written, str


def _tables_in(table: Any, key: str) -> list[tuple[str, Any]]:
    below = table.get(key) if isinstance(table, Mapping) else None
    return list(below.items()) if isinstance(below, Mapping) else []


def _explained(error: msgspec.ValidationError, at: str) -> _Fault:
    found = _PATH.fullmatch(str(error))
    what, path = (found["what"], _below(at, found["path"])) if found else (str(error), at)
    unknown = _UNKNOWN.fullmatch(what)
    if unknown:
        return _Fault(_below(path, unknown[1]), "there is no such key")
    missing = _MISSING.fullmatch(what)
    if missing:
        return _Fault(_below(path, missing[1]), "this key has to be there")
    none = _NONE_OF.fullmatch(what)
    if none:
        legal = get_args(ModelRole if path.startswith("roles.") or path.endswith(".role") else Shape)
        return _Fault(path, f"{none[1]} is none of {', '.join(legal)}")
    return _Fault(path, f"{what[:1].lower()}{what[1:]}".replace("`", ""))


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _check_names(tables: Mapping[str, Any]) -> None:
    """The name of a kind becomes a label of metrics."""
    for name, kind in _tables_in(tables, "kinds"):
        for path, key in [
            (f"kinds.{name}", name),
            *((f"kinds.{name}.cues.{cue}", cue) for cue, _ in _tables_in(kind, "cues")),
        ]:
            if not _NAME.fullmatch(key):
                raise _Fault(path, "names are lower-case letters, digits and hyphens, at most 40 of them")


def _check_numbers(path: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, below in value.items():
            _check_numbers(_below(path, key), below)
    elif isinstance(value, list):
        for below in value:
            _check_numbers(path, below)
    elif isinstance(value, (int, float)) and not -_LARGEST <= value <= _LARGEST:  # so it is for nan, too
        raise _Fault(path, "this number is not finite, or far too large")


def _faults(rules: Rules) -> Iterator[_Fault]:
    for pattern in rules.roles:
        if pattern.count("*") > _MOST_STARS:
            yield _Fault(f"roles.{pattern}", f"a pattern may have {_MOST_STARS} of `*` at most")
    for name, kind in rules.kinds.items():
        for cue_name, cue in kind.cues.items():
            for key in ("words", "also"):
                for phrase in getattr(cue, key):
                    if not is_phrase(phrase):
                        yield _Fault(f"kinds.{name}.cues.{cue_name}.{key}", f"{phrase!r} has no word to begin with")
