"""Calls of functions in Ollama's shape: whole ones, with objects for their arguments."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from exo.api.ollama.schema import OllamaFunctionOut, OllamaToolCallOut
from exo.types import ToolCallDelta


class CallGatherer:
    """Makes whole calls of the pieces in which they come, one after the other."""

    def __init__(self) -> None:
        self._begun: ToolCallDelta | None = None
        self._arguments: list[str] = []

    def add(self, pieces: Sequence[ToolCallDelta]) -> list[OllamaToolCallOut]:
        """Take pieces. Returns the calls that are complete because another one has begun."""
        complete = []
        for piece in pieces:
            if self._begun is None or piece.index != self._begun.index:
                complete += self.complete()
                self._begun = piece
            self._arguments.append(piece.arguments)
        return complete

    def complete(self) -> list[OllamaToolCallOut]:
        """The call under way, if there is one: something else comes now, or the end."""
        begun, self._begun = self._begun, None
        if begun is None:
            return []
        written, self._arguments = "".join(self._arguments), []
        arguments = msgspec.Raw(msgspec.json.format(written, indent=-1))  # in one line, with each number as it was
        function = OllamaFunctionOut(index=begun.index, name=begun.name or "", arguments=arguments)
        return [OllamaToolCallOut(id=begun.id or "", function=function)]
