"""What a further dialect is made with: routes for `create_app`."""

from exo.api.answering import (
    StreamWriter,
    WholeWriter,
    answer_request,
    log_prompt,
    note_late,
    send_stream,
    send_whole,
)
from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.errors import plain_error
from exo.api.exchange import (
    Exchange,
    body_message,
    cancelled_when_gone,
    exchange_of,
    read_body,
    send_json,
    start_message,
)
from exo.api.extension import Extension
from exo.api.operation import Operation

__all__ = [
    "Endpoint",
    "Exchange",
    "Extension",
    "Operation",
    "StreamWriter",
    "WholeWriter",
    "answer_request",
    "body_message",
    "cancelled_when_gone",
    "decode",
    "exchange_of",
    "log_prompt",
    "note_late",
    "plain_error",
    "read_body",
    "send_json",
    "send_stream",
    "send_whole",
    "start_message",
]
