"""A Modelfile as text, in either syntax."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import msgspec

from exo.models.modelfile import LARGEST_FILE, Modelfile, parse_modelfile
from exo.types import BadModelfile

_PLAIN = re.compile(r"[A-Za-z0-9.,:/_+~@<|{(\[-](?:[^\n\r\0]*[^\s\0])?")
"""What needs no quotes behind an instruction: one line that neither begins like something else nor ends in a space."""

_ENDS_A_LINE = re.compile(r'"""[^\S\n]*\n')


def write_modelfile(modelfile: Modelfile) -> str:
    """The text that `parse_modelfile` reads back to an equal Modelfile, but for `problems`, which name lines.

    What Ollama's quotes cannot hold is written as in an environment file, with escapes. Raises BadModelfile for what
    neither can hold.
    """
    lines = [*_texts(modelfile), *_parameters(modelfile), *_messages(modelfile), *_unknown(modelfile)]
    text = "".join(f"{line}\n" for line in lines)
    try:
        if len(text.encode()) > LARGEST_FILE:
            raise BadModelfile(f"Modelfile: it would be over {LARGEST_FILE} bytes. Say less in it.")
        found = parse_modelfile(text)
    except UnicodeEncodeError as error:
        raise BadModelfile(f"Modelfile: {error.object[error.start]!r} is no character. Remove it.") from None
    names = [field.name for field in dataclasses.fields(Modelfile) if field.name != "problems"]
    changed = [name for name in names if getattr(found, name) != getattr(modelfile, name)]
    if changed:
        raise BadModelfile(
            f"Modelfile: {', '.join(changed).rstrip('_')} cannot be written so that it comes back as it is. Leave out "
            'three quotes (""") at the end of a line, line ends of other systems, and what is no KEY value.'
        )
    return text


def write_assignments(values: Mapping[str, str]) -> str:
    """A Modelfile of lines KEY="value", as in an environment file.

    For what a pull writes: servers that came before this one read the folders of the same store, and know nothing else.
    """
    return "".join(f"{_assignment(key, value)}\n" for key, value in values.items())


def _texts(modelfile: Modelfile) -> list[str]:
    values = {
        "FROM": modelfile.from_,
        "HUGGINGFACE_PATH": modelfile.huggingface_path,
        "TOKENIZER": modelfile.tokenizer,
        "ADAPTER": modelfile.adapter,
        "TEMPLATE": modelfile.template,
        "SYSTEM": modelfile.system,
        "LICENSE": modelfile.licence,
        "ENABLE_THINKING": None if modelfile.enable_thinking is None else str(modelfile.enable_thinking).lower(),
        "THINKING_OPEN": modelfile.thinking_open,
        "THINKING_CLOSE": modelfile.thinking_close,
    }
    return [_instruction(key, key, value) for key, value in values.items() if value is not None]


def _parameters(modelfile: Modelfile) -> list[str]:
    numbers = msgspec.structs.asdict(modelfile.parameters)
    stops = numbers.pop("stop")
    written = [f"PARAMETER {name} {value!r}" for name, value in numbers.items() if value is not None]
    return [*written, *(_instruction("PARAMETER stop", "STOP", stop) for stop in stops)]


def _messages(modelfile: Modelfile) -> list[str]:
    return [_instruction(f"MESSAGE {message.role}", "", message.content) for message in modelfile.messages]


def _unknown(modelfile: Modelfile) -> list[str]:
    return [_instruction(key, "" if " " in key else key, value) if key else value for key, value in modelfile.unknown]


def _instruction(key: str, assigned: str, value: str) -> str:
    """One statement. `assigned` is the key's name in an environment file, empty if it has none."""
    if _PLAIN.fullmatch(value):
        return f"{key} {value}"
    if assigned and ("\r" in value or _ENDS_A_LINE.search(value)):
        return _assignment(assigned, value)
    return f'{key} """{value}"""'


def _assignment(key: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'{key}="{escaped}"'
