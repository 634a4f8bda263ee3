"""The nodes that a suite talks to, and what all suites ask of them."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Leaves: TypeAlias = Callable[[], AbstractContextManager[None]]
"""The fixture `leaves`."""

VARIABLE = "CLIENTS_SERVERS"
"""The environment variable with the nodes, a JSON list of `Server`."""
WRONG_KEY = "key-of-nobody"
UNKNOWN = "gpt-4o"
GREETING = "Hello!"
QUESTION = "How warm is it in Paris? Use the function."
QUESTION_OF_TWO = "How warm is it in Paris, and how warm in Rome? Use the function for both."
RESULT = "21 degrees"
"""What get_weather returns."""
ORDER = "Report the weather: it is 21 degrees in Paris."
THOUGHT = "They greet me."
LONG = "Write a very long story about a king, with all the details."


@dataclass(frozen=True)
class Server:
    """A node that runs. `talker` and the fields behind it are models for one purpose each.

    `caller` calls get_weather for QUESTION, and answers in words once it has the result; on llamacpp it does so
    because it has to (`tool_choice`), on rkllm by itself, and there QUESTION_OF_TWO gets two calls. `reporter` answers
    ORDER with a Report, in the same ways. `slow` takes seconds for LONG. `thinker` thinks THOUGHT before it answers,
    `broken` fails after its first words; None: none does.
    """

    name: Literal["llamacpp", "rkllm"]
    url: str
    key: str
    talker: str
    caller: str
    reporter: str
    slow: str
    thinker: str | None = None
    broken: str | None = None

    def aborted(self) -> int:
        """How many requests have ended because the client had left."""
        pattern = r'^exo_requests_total\{model="[^"]*",status="499"\} (\d+)'
        return sum(int(count) for count in re.findall(pattern, self._get("/metrics"), re.MULTILINE))

    def is_free(self) -> bool:
        ready = json.loads(self._get("/ready"))
        return bool(ready["running"] == ready["queued"] == 0)

    def _get(self, path: str) -> str:
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.key}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            return str(response.read().decode())


class Report(BaseModel):
    """The weather of a city."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Paris", "Rome"]
    degrees: int


WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
"""The parameters of get_weather."""


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    assert city
    return RESULT


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Fails if `condition` does not hold within 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 seconds: {what}"
        time.sleep(0.05)
