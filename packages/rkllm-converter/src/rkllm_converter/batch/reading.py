"""models.yaml: from the file to what it asks for, or to all of its mistakes, each with its line and its key."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rkllm_converter.batch.document import (
    LARGEST_FILE,
    Entry,
    Items,
    Keys,
    Mistakes,
    Scalar,
    TooManyMistakes,
    Value,
    parse,
    shown,
)
from rkllm_converter.batch.keys import CONVERSION_KEYS, MODEL_KEYS, OPTIONS, TOP_KEYS, Kind, Option
from rkllm_converter.batch.legality import Asked, judge
from rkllm_converter.batch.models import Conversion, Models
from rkllm_converter.batch.names import default_name
from rkllm_converter.batch.values import Given, option_of, path_of, text_of
from rkllm_converter.errors import BadModels, UnknownToolkit
from rkllm_converter.result.names import name_fault
from rkllm_converter.toolkit.versions import NEWEST, Toolkit, toolkit

__all__ = ["read", "read_bytes"]

_MOST_CONVERSIONS = 1000
_EXAMPLE = "`rkllm-convert batch --example` prints one"


def read(file: Path, *, toolkit_version: str | None = None) -> Models:
    """Raises BadModels with every mistake, and UnknownToolkit for a `toolkit_version`, which wins over the file's."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise BadModels([f"{file}: there is no such file; {_EXAMPLE}."]) from None
    except OSError as error:
        raise BadModels([f"{file}: it cannot be read: {error.strerror or error}."]) from None
    return read_bytes(data, file, toolkit_version=toolkit_version)


def read_bytes(data: bytes, file: Path, *, toolkit_version: str | None = None) -> Models:
    """As `read`. Paths within are seen from the folder of `file`."""
    given = toolkit(toolkit_version) if toolkit_version is not None else None
    mistakes = Mistakes(str(file))
    found = None
    try:
        root = parse(data, mistakes)
        if root is not None:
            found = _Reader(file, given, mistakes).models(root)
    except TooManyMistakes:
        raise BadModels([*mistakes.sentences, f"{file}: there may be more; these are enough to begin with."]) from None
    if mistakes or found is None:
        raise BadModels(mistakes.sentences)
    return found


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of the list: its name and path once read, None after a mistake; and its own options."""

    name: str | None
    options: Mapping[str, Given]


class _Reader:
    def __init__(self, file: Path, given: Toolkit | None, mistakes: Mistakes) -> None:
        self._file = file
        self._base = Path(os.path.abspath(file)).parent  # noqa: PTH100 - links stay: paths are seen from where it lies
        self._given = given
        self._mistakes = mistakes
        self._asked: list[Asked] = []
        self._lines: dict[str, int] = {}
        self._conversions: list[Conversion] = []
        self._count = 0

    def models(self, root: Value) -> Models | None:
        keys = self._keys(Given(root, root.line, ""), TOP_KEYS)
        if keys is None:
            return None
        output = self._output(self._required(keys, "output", root.line, ""))
        version = self._toolkit(keys.get("toolkit"))
        defaults: Mapping[str, Given] = {}
        if "defaults" in keys and not _is_null(keys["defaults"].value):
            defaults = self._keys(keys["defaults"], tuple(OPTIONS)) or {}
        self._values(defaults)
        for one in self._list(self._required(keys, "models", root.line, "")):
            self._model(one, defaults)
        known = self._given or toolkit(version or NEWEST)
        judge(self._asked, known, self._mistakes)
        if output is None:
            return None
        return Models(self._file, output, known.version if self._given or version else None, tuple(self._conversions))

    def _output(self, given: Given | None) -> Path | None:
        text = text_of(given, self._mistakes) if given else None
        return None if text is None else self._base / os.path.expanduser(text)  # noqa: PTH111 - Path's may raise

    def _toolkit(self, given: Given | None) -> str | None:
        text = text_of(given, self._mistakes) if given else None
        if given is None or text is None:
            return None
        try:
            return toolkit(text).version
        except UnknownToolkit as error:
            self._mistakes.add(given.line, given.path, error.message)
            return None

    def _model(self, given: Given, defaults: Mapping[str, Given]) -> None:
        keys = self._keys(given, MODEL_KEYS)
        if keys is None:
            return
        named = self._required(keys, "model", given.line, given.path)
        text = text_of(named, self._mistakes) if named else None
        name = path_of(named, text, Kind.MODEL, self._base, self._mistakes) if named and text is not None else None
        own = {key: keys[key] for key in OPTIONS if key in keys}
        self._values(own)
        model = _Model(name, {**defaults, **own})
        for one in self._list(self._required(keys, "conversions", given.line, given.path)):
            self._count += 1
            if self._count > _MOST_CONVERSIONS:
                self._mistakes.add(
                    one.line, one.path, f"more than {_MOST_CONVERSIONS} conversions. Make several files."
                )
                raise TooManyMistakes
            self._conversion(one, model)

    def _conversion(self, given: Given, model: _Model) -> None:
        keys = self._keys(given, CONVERSION_KEYS)
        if keys is None:
            return
        options = {**model.options, **{key: keys[key] for key in OPTIONS if key in keys}}
        for key in ("platform", "quant"):
            self._required(options, key, given.line, given.path)
        values = self._values(options)
        name = self._name(given, keys.get("name"), model.name, values)
        if "revision" in options and model.name is not None and model.name.startswith("/"):
            place = options["revision"]
            told = f"{shown(model.name)} is on this machine and has no revisions. Leave it out."
            self._mistakes.add(place.line, place.path, told)
        if model.name is not None and "platform" in values and "quant" in values:
            self._asked.append(Asked(name or given.path, given, model.name, values, options))
            if name is not None:
                self._conversions.append(Conversion(name, model.name, values, given.line))

    def _values(self, options: Mapping[str, Given]) -> dict[str, Option]:
        """Without those that are mistakes."""
        values: dict[str, Option] = {}
        for key, one in options.items():
            value = option_of(one, OPTIONS[key], self._base, self._mistakes)
            if value is not None:
                values[key] = value.lower() if key in ("platform", "quant") and isinstance(value, str) else value
        return values

    def _name(self, given: Given, named: Given | None, model: str | None, values: Mapping[str, Option]) -> str | None:
        """Of the result's folder."""
        place, name = Given(given.value, given.line, f"{given.path}.name"), None
        if named is not None:
            place, name = named, text_of(named, self._mistakes)
        elif model is not None and "platform" in values and "quant" in values:
            name = default_name(model, str(values["platform"]), str(values["quant"]))
        if name is None:
            return None
        fault = name_fault(name)
        if fault:
            self._mistakes.add(place.line, place.path, f"{shown(name)} {fault}")
            return None
        first = self._lines.get(name.casefold())  # for servers names are the same in any case
        if first is not None:
            taken = f"{shown(name)} is the name of the conversion in line {first} too. Give one of them another."
            self._mistakes.add(place.line, place.path, taken)
            return None
        self._lines[name.casefold()] = place.line
        return name

    def _required(self, keys: Mapping[str, Given], key: str, line: int, path: str) -> Given | None:
        if key not in keys:
            self._mistakes.add(line, path, f"the key {key!r} is missing.")
        return keys.get(key)

    def _list(self, given: Given | None) -> Iterator[Given]:
        """What is in a list that has to have something in it."""
        if given is None:
            return
        if not isinstance(given.value, Items):
            self._mistakes.add(given.line, given.path, "has to be a list: lines that begin with a dash.")
        elif not given.value.values:
            self._mistakes.add(given.line, given.path, "the list is empty.")
        else:
            for number, value in enumerate(given.value.values):
                yield Given(value, value.line, f"{given.path}[{number}]")

    def _keys(self, given: Given, known: Sequence[str]) -> dict[str, Given] | None:
        """The known keys of a mapping; None if it is none."""
        if not isinstance(given.value, Keys):
            what = f"has to be a mapping with the keys {', '.join(known)}."
            self._mistakes.add(given.line, given.path, what if given.path else f"the file {what}")
            return None
        found: dict[str, Given] = {}
        for entry in given.value.own:
            self._take(entry, given.path, known, found, is_own=True)
        for entry in given.value.merged:
            self._take(entry, given.path, known, found, is_own=False)
        return found

    def _take(self, entry: Entry, path: str, known: Sequence[str], found: dict[str, Given], *, is_own: bool) -> None:
        line = entry.key.line
        if not isinstance(entry.key, Scalar):
            self._mistakes.add(line, path, "a key has to be a word, not a list or a mapping.")
            return
        name = entry.key.text
        if name not in known:
            self._mistakes.add(line, path, f"there is no key {shown(name)} here.{_hint(name, known)}")
        elif name not in found:
            found[name] = Given(entry.value, line, f"{path}.{name}" if path else name)
        elif is_own:
            self._mistakes.add(line, found[name].path, f"it is there twice, first in line {found[name].line}.")


def _is_null(value: Value) -> bool:
    return isinstance(value, Scalar) and value.kind == "null"


def _hint(name: str, known: Sequence[str]) -> str:
    word = re.sub(r"[-\s]", "_", name[:100].strip().lower())
    if word in known:
        return f" Did you mean {word}?"
    if word in OPTIONS and known == TOP_KEYS:
        return " It belongs below defaults, or to a model or one of its conversions."
    if word in ("model", "conversions", "name"):
        owner = {"model": "to a model", "conversions": "to a model", "name": "to a conversion"}[word]
        return f" It belongs {owner}."
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}."
