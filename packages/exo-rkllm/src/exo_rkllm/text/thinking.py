"""Switching the reasoning of a model off."""

from __future__ import annotations

from collections.abc import Sequence

from exo.chat import Template
from exo.types import Message, ThinkingMarkers


class WithoutThinking:
    """A template whose prompts end behind the reasoning, so that the model begins with the answer.

    Templates that know the variable `enable_thinking` do it themselves. For others an empty block of reasoning is
    written, as those do.
    """

    def __init__(self, template: Template, markers: ThinkingMarkers) -> None:
        self.source = template.source
        self._template = template
        self._markers = markers

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **extra: object) -> str:
        text = self._template.render(messages, add_generation_prompt=add_generation_prompt, **extra)
        ending = text.rstrip()
        if ending.endswith(self._markers.open):
            return f"{ending}\n\n{self._markers.close}\n\n"
        if ending.endswith(self._markers.close) or "enable_thinking" in self.source or not add_generation_prompt:
            return text
        return f"{text}{self._markers.open}\n\n{self._markers.close}\n\n"
