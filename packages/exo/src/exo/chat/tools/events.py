"""What a model's text is made of."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class PlainText(msgspec.Struct, frozen=True):
    """A piece of the answer."""

    text: str


class Called(msgspec.Struct, frozen=True):
    """A whole call of a function that exists.

    `arguments` is the JSON text of an object, as the model wrote it; whether it fits the function's schema is not
    looked at. `source` is all that the call was in the text, markers included.
    """

    name: str
    arguments: str
    source: str


class NotACall(msgspec.Struct, frozen=True):
    """What began like a call and is none. `reason` is a sentence, `source` the text up to where that was certain."""

    source: str
    reason: str

    @property
    def text(self) -> str:
        """What stands in the answer in its place."""
        return f"{self.source}\n(Not called: {self.reason})"


ToolEvent: TypeAlias = PlainText | Called | NotACall
