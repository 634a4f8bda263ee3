"""Streaming state machines over generated text: text in, events out, no I/O."""

from exo.chat.stops import StopStrings
from exo.chat.utf8 import Utf8Joiner

__all__ = ["StopStrings", "Utf8Joiner"]
