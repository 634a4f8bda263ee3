"""Checks of the two little languages in a model file, fault lines and script records, before the library sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from rkllm_sim.errors import BadOptions, BadScript

__all__ = ["FAULTS", "check_fault", "check_script"]

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)

FAULTS: Mapping[str, str] = {
    "load_fails": "",
    "null_handle": "",
    "load_ms": "number",
    "error_at": "number",
    "segv_at": "number",
    "kill_at": "number",
    "exit_at": "number",
    "hang_at": "number",
    "abort_ignored_ms": "number",
    "abort_ends": "finish|nothing|error",
    "oom_second_init": "|crash",
    "model_newer": "",
    "wrong_platform": "",
    "context_over_limit": "",
    "cpu_mask": "",
    "pad_endless_at": "number",
    "split_utf8": "",
    "text_null_at": "number",
    "run_fails": "",
    "eos_text": "",
}
"""Name -> its values: none, a number, or words with `|` between (an empty one: no value is right too)."""


def check_fault(fault: str) -> None:
    """`NAME[=VALUE] [when "SUBSTRING"]`. Raises BadOptions, which names what is wrong."""
    head, _, condition = fault.partition(" ")
    name, equals, value = head.partition("=")
    if name not in FAULTS:
        raise BadOptions(f"There is no fault {name!r}. Faults: {', '.join(FAULTS)}.")
    if not _is_value(FAULTS[name], value if equals else None):
        raise BadOptions(f"The fault {name} takes {_wanted(FAULTS[name])}; {head!r} does not fit.")
    when, _, substring = condition.strip().partition(" ")
    if condition and (when != "when" or not _is_string(substring)):
        raise BadOptions(f'After a fault only `when "SUBSTRING"` may follow, not {condition.strip()!r}.')


def _is_value(wanted: str, value: str | None) -> bool:
    if wanted == "number":
        return value is not None and _NUMBER.fullmatch(value) is not None
    return (value or "") in wanted.split("|") and (value is None) == (not value)


def _wanted(values: str) -> str:
    if not values:
        return "no value"
    return (
        "=NUMBER" if values == "number" else " or ".join(f"={one}" if one else "no value" for one in values.split("|"))
    )


def check_script(script: str) -> None:
    """The records of lm script, without the line `end`; empty lines and `#` comments do not count.

    Raises BadScript with the first line that is wrong.
    """
    in_block = False
    for number, line in enumerate(script.splitlines(), 1):
        keyword, _, rest = line.partition(" ")
        if not keyword or keyword.startswith("#"):
            continue
        if keyword not in _RECORDS:
            raise BadScript(f"Line {number} of the script: no record {keyword!r}; there are {', '.join(_RECORDS)}.")
        if not _RECORDS[keyword](rest):
            raise BadScript(f"Line {number} of the script: {keyword!r} does not take {rest!r}.")
        if keyword == "otherwise" and not in_block:
            raise BadScript(f"Line {number} of the script: `otherwise` without a `when` before it.")
        in_block = in_block or keyword == "when"


def _is_nothing(rest: str) -> bool:
    return not rest


def _is_string(rest: str) -> bool:
    try:
        return isinstance(json.loads(rest), str)
    except ValueError:
        return False


def _is_number(rest: str) -> bool:
    return _NUMBER.fullmatch(rest) is not None


def _is_time(rest: str) -> bool:
    return re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", rest, re.ASCII) is not None


def _is_pad(rest: str) -> bool:
    count, _, token = rest.partition(" ")
    return _is_count(count) and (not token or _is_number(token))


def _is_repeat(rest: str) -> bool:
    count, _, text = rest.partition(" ")
    return _is_count(count) and _is_string(text)


def _is_count(text: str) -> bool:
    return text == "endless" or _is_number(text)


def _is_hex(rest: str) -> bool:
    return re.fullmatch(r"(?:[0-9a-f]{2})+", rest) is not None


_RECORDS: Mapping[str, Callable[[str], bool]] = {
    "text": _is_string,
    "token": _is_number,
    "pad": _is_pad,
    "repeat": _is_repeat,
    "bytes": _is_hex,
    "null": _is_nothing,
    "error": _is_nothing,
    "wait": _is_time,
    "when": _is_string,
    "otherwise": _is_nothing,
}
