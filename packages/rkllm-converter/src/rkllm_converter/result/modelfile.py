"""The Modelfile of a result, in lines KEY="value", which every server for these boards reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["modelfile_text", "read_keys"]

_LINE = re.compile(r'([A-Z_]+)=(?:"((?:\\.|[^"\\])*)"|(\S*))', re.ASCII)
_ESCAPES = {"n": "\n", "r": "\r", '"': '"', "\\": "\\"}


def modelfile_text(
    file: str,
    *,
    repository: str,
    context: int,
    max_new_tokens: int,
    stop: Sequence[str],
    thinking: tuple[str, str] | None,
    adapter: str | None = None,
) -> str:
    """`file` is the name of the .rkllm, `repository` that of the original model at the hub; empty if there is none."""
    values: list[tuple[str, str | int]] = [
        ("FROM", file),
        ("HUGGINGFACE_PATH", repository),
        ("NUM_CTX", context),
        ("MAX_NEW_TOKENS", max_new_tokens),
        *(("STOP", text) for text in stop),
    ]
    if thinking is not None:
        values += [("THINKING_OPEN", thinking[0]), ("THINKING_CLOSE", thinking[1])]
    if adapter is not None:
        values.append(("ADAPTER", adapter))
    return "".join(
        f"{key}={value if isinstance(value, int) else _quoted(value)}\n" for key, value in values if value != ""
    )


def read_keys(text: str) -> Mapping[str, list[str]]:
    """The values of each key of a Modelfile as `modelfile_text` writes it; what has another form is passed over."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        match = _LINE.fullmatch(line.strip())
        if match:
            quoted = (
                re.sub(r"\\(.)", lambda pair: _ESCAPES.get(pair[1], pair[0]), match[2])
                if match[2] is not None
                else match[3]
            )
            found.setdefault(match[1], []).append(quoted)
    return found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
