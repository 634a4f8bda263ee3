"""The models of the simulated board: records that play what the suites ask for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from npu_board import SimBoard

from clients.suites.server import QUESTION_OF_TWO, RESULT, THOUGHT

_ANSWER = f"It is {RESULT} in Paris now."
_PARIS = {"city": "Paris"}
_REPORT = {"city": "Paris", "degrees": 21}
_MARK = "<tool_call>"


def add_models(board: SimBoard) -> None:
    """Those that `Server` names."""
    board.add_model("talker")
    board.add_model("slow", decode_ms=30, answer=(300, 300))
    board.add_model("thinker", lm="script", script=_thinker(), thinking=True)
    board.add_model("caller", lm="script", script=_caller())
    board.add_model("reporter", lm="script", script=_reporter())
    board.add_model("broken", lm="script", script='text "One two three"\nerror\n')


def _thinker() -> str:
    thought, answer = f"<think>\n{THOUGHT}\n</think>\n\n", "Hello to you."
    return _when("</think>", answer) + _otherwise(thought + answer)  # a prompt with the mark has ended the thinking


def _caller() -> str:
    both = _called("get_weather", _PARIS) + _called("get_weather", {"city": "Rome"})
    by_itself = f"I will look. {_called('get_weather', _PARIS)}"
    forced = _forced("get_weather", _PARIS)
    return _when(RESULT, _ANSWER) + _when(QUESTION_OF_TWO, both) + forced + _otherwise(by_itself)


def _reporter() -> str:
    """It calls the functions that clients make for a report; without one it gives JSON only at the second attempt."""
    named = "".join(_named(name, _REPORT) for name in ("give_report", "Report"))
    return named + _forced("final_result", _REPORT) + _when("That was wrong", json.dumps(_REPORT)) + _otherwise(_ANSWER)


def _called(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{_MARK}\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>\n"


def _forced(name: str, arguments: Mapping[str, Any]) -> str:
    """What completes a call that the node has begun, because there has to be one."""
    any_call = f'{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'
    return _named(name, arguments) + _when(f'assistant\n{_MARK}\n{{"name": "', any_call)


def _named(name: str, arguments: Mapping[str, Any]) -> str:
    """As `_forced`, if it has to be this function."""
    return _when(f'assistant\n{_MARK}\n{{"name": "{name}", "arguments":', f" {json.dumps(arguments)}}}\n</tool_call>")


def _when(part_of_prompt: str, text: str) -> str:
    return f"when {json.dumps(part_of_prompt)}\ntext {json.dumps(text)}\n"


def _otherwise(text: str) -> str:
    return f"otherwise\ntext {json.dumps(text)}\n"
