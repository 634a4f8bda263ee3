"""Answers whose beginning is given, so that the model goes on with it."""

from __future__ import annotations

from collections.abc import Sequence

from exo.chat import Template
from exo.types import Message


class BegunAnswer:
    """A template whose prompts end with the beginning of the answer."""

    def __init__(self, template: Template, beginning: str) -> None:
        self.source = template.source
        self._template = template
        self._beginning = beginning

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **extra: object) -> str:
        text = self._template.render(messages, add_generation_prompt=add_generation_prompt, **extra)
        return text + self._beginning if add_generation_prompt else text
