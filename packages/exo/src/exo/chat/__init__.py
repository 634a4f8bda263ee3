"""Pure functions and streaming state machines over text: template in, events out, no I/O."""

from exo.chat.foreign_template import foreign_template
from exo.chat.go_template import GoTemplate
from exo.chat.reasoning import ReasoningSplitter
from exo.chat.stops import StopStrings
from exo.chat.template import ChatTemplate, Template
from exo.chat.utf8 import Utf8Joiner

__all__ = [
    "ChatTemplate",
    "GoTemplate",
    "ReasoningSplitter",
    "StopStrings",
    "Template",
    "Utf8Joiner",
    "foreign_template",
]
