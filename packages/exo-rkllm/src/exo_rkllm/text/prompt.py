"""Prompts to token ids: text of callers stays text, and answers that are sent again become the ids they were."""

from __future__ import annotations

import collections
import json
import re
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from exo.chat import Template, tools_as_json
from exo.types import InvalidRequest, Message, ThinkingMarkers, Tool, ToolCall
from exo_rkllm.text.tokenizer import After, ModelTokenizer

__all__ = ["EncodedPrompt", "PromptEncoder"]

MEMORY_CHARACTERS = 4_000_000
"""Bound of the texts that an encoder remembers, all together; their ids take about as many bytes again."""

_PRIVATE_USE = (range(0xF8D0, 0xF900), range(0xE000, 0xF8D0), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Those first that no font for icons uses: with another sentinel, remembered texts are not found."""
_ESCAPED = re.compile(r"\\[u/]")


class EncodedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt as text and as ids. `inside_thinking`: it ends with the open marker, so reasoning comes first.

    The other fields are for `PromptEncoder.remember`: the text with `sentinel` in what is not special though it looks
    so (empty for raw prompts, which are not remembered), and whether it ends with plain text.
    """

    text: str
    ids: list[int]
    inside_thinking: bool = False
    marked: str = ""
    sentinel: str = ""
    ends_in_text: bool = False


class PromptEncoder:
    """Renders conversations with a template and encodes them, for one model.

    A sentinel, a private-use character that the texts do not have, is put into everything in the messages that looks
    like an added token; the template then works on the text as it would without, and after it is rendered, the ids of
    added tokens come from the template alone. The sentinels are taken out before the plain pieces are encoded.

    The last `memory` prompts, and prompts with their answers, are remembered with their ids, up to MEMORY_CHARACTERS in
    all. A prompt that begins with a remembered text takes its ids over and has only the rest encoded: an answer that
    is sent again maps to the very ids in the NPU's cache, where encoding its text might cut it otherwise.

    The methods may be called from several threads at once.
    """

    def __init__(
        self, tokenizer: ModelTokenizer, template: Template, markers: ThinkingMarkers | None, *, memory: int = 64
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._markers = markers
        self._taken = template.source + "".join(tokenizer.added.ids)
        self._bos = tokenizer.added.ids.get(tokenizer.special_texts.get("bos_token", "")) if tokenizer.add_bos else None
        self._endings = tokenizer.special_ids | tokenizer.eos_ids
        self._memory = _Memory(memory)
        self._lock = threading.Lock()

    def encode(
        self,
        messages: Sequence[Message],
        *,
        template: Template | None = None,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Tool] = (),
    ) -> EncodedPrompt:
        """The prompt that asks for the next message. `template` is one that wraps the encoder's own, `variables` are
        further ones for it; it is told the `tools`.

        Raises InvalidRequest if the template refuses the messages, RunFailed if it does not work.
        """
        apart = [_with_readable_arguments(_with_reasoning_apart(message, self._markers)) for message in messages]
        described = tools_as_json(tools)
        sentinel = self._sentinel(apart, described)
        variables = dict(variables or {})
        if described:
            variables["tools"] = self._guarded_json(described, sentinel)
        marked = (template or self._template).render(self._guarded(apart, sentinel), **variables)
        with self._lock:
            known = self._memory.find(marked, sentinel)
        pieces = self._tokenizer.added.split(marked[len(known.text) :])
        after: After = "text" if known.ends_in_text else "token" if known.text else "nothing"
        ids = known.ids.tolist() + self._tokenizer.encode_pieces(pieces, sentinel=sentinel, after=after)
        in_text = pieces[-1][1] is None if pieces else known.ends_in_text
        with self._lock:
            self._memory.keep(_Known(marked, sentinel, array("i", ids), in_text))
        return EncodedPrompt(
            text=marked.replace(sentinel, ""),
            ids=ids,
            inside_thinking=self._ends_inside(marked),
            marked=marked,
            sentinel=sentinel,
            ends_in_text=in_text,
        )

    def encode_text(self, prompt: str) -> EncodedPrompt:
        """A raw prompt, for which no template is used. As everywhere in the field, special tokens in it are special.

        It begins with the BOS token if tokenizer_config.json says `add_bos_token`, and it does not yet. Nothing is
        remembered: the same text always gives the same ids.
        """
        ids = self._tokenizer.encode_rendered(prompt)
        if self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return EncodedPrompt(text=prompt, ids=ids, inside_thinking=self._ends_inside(prompt))

    def remember(self, prompt: EncodedPrompt, answer_text: str, answer_ids: Sequence[int]) -> None:
        """Keep the ids of a prompt, and of the prompt with its answer.

        `answer_text` is what the runtime wrote, think markers included, `answer_ids` are its tokens; it does not matter
        whether the end token and its text are among them. The answer is found again where the template repeats it
        unchanged. Where it trims the answer or leaves the reasoning out, the prompt's ids alone are used again.
        """
        if not prompt.marked:
            return
        entries = [_Known(prompt.marked, prompt.sentinel, array("i", prompt.ids), prompt.ends_in_text)]
        marked = self._marked_answer(answer_text, answer_ids, prompt.sentinel)
        if marked is not None:
            text, ids = marked
            ends_in_text = not (ids and ids[-1] in self._tokenizer.added.guarded_ids)
            whole = array("i", [*prompt.ids, *ids])
            entries.append(_Known(prompt.marked + text, prompt.sentinel, whole, ends_in_text))
        with self._lock:
            for entry in entries:
                self._memory.forget_others(entry)
                self._memory.keep(entry)

    def _ends_inside(self, text: str) -> bool:
        return self._markers is not None and bool(self._markers.open) and text.rstrip().endswith(self._markers.open)

    def _sentinel(self, messages: Iterable[Message], tools: Sequence[dict[str, Any]]) -> str:
        texts = (text for message in messages for text in _texts(message))
        return _unused_character([self._taken, *texts, *_texts_in(tools)])

    def _guarded_json(self, value: Any, sentinel: str) -> Any:
        """A value of JSON with the sentinel in all its texts."""
        if isinstance(value, str):
            return self._tokenizer.added.protect(value, sentinel)
        if isinstance(value, Mapping):
            return {self._guarded_json(key, sentinel): self._guarded_json(one, sentinel) for key, one in value.items()}
        if isinstance(value, Sequence):
            return [self._guarded_json(one, sentinel) for one in value]
        return value

    def _guarded(self, messages: Iterable[Message], sentinel: str) -> list[Message]:
        """The messages with the sentinel in all their texts."""

        def protect(text: str) -> str:
            return self._tokenizer.added.protect(text, sentinel)

        return [
            msgspec.structs.replace(
                message,
                content=protect(message.content),
                reasoning=protect(message.reasoning),
                tool_calls=tuple(
                    ToolCall(id=protect(call.id), name=protect(call.name), arguments=protect(call.arguments))
                    for call in message.tool_calls
                ),
                tool_call_id=None if message.tool_call_id is None else protect(message.tool_call_id),
            )
            for message in messages
        ]

    def _marked_answer(self, text: str, ids: Sequence[int], sentinel: str) -> tuple[str, list[int]] | None:
        """The answer as a template would write it, sentinels included; None if text and ids cannot be matched."""
        added = self._tokenizer.added
        kept = list(ids)
        while kept and kept[-1] in self._endings and not text.endswith(added.texts.get(kept[-1], "\0")):
            kept.pop()  # an end token that is no part of the text
        special = [added.texts[number] for number in kept if number in added.guarded_ids]
        if sentinel in text or any(text.count(one) != special.count(one) for one in set(special)):
            return None
        marked, done = "", 0
        for one in special:
            start = text.find(one, done)
            if start < 0:
                return None
            marked += added.protect(text[done:start], sentinel) + one
            done = start + len(one)
        return marked + added.protect(text[done:], sentinel), kept


class _Known(msgspec.Struct, frozen=True):
    text: str
    sentinel: str
    ids: array[int]
    ends_in_text: bool

    def begins(self, text: str, sentinel: str) -> bool:
        """Whether `text` begins with this one, and not in the middle of a word: then it was edited, not repeated."""
        if sentinel != self.sentinel or not text.startswith(self.text):
            return False
        around = text[len(self.text) - 1 : len(self.text) + 1]
        return not (self.ends_in_text and len(around) > 1 and around.isalnum())

    def begins_with(self, other: _Known) -> bool:
        return other.sentinel == self.sentinel and self.text.startswith(other.text)


_NOTHING = _Known("", "", array("i"), ends_in_text=False)


class _Memory:
    """Texts with their ids, the least recently used ones forgotten first."""

    def __init__(self, entries: int) -> None:
        self._most = entries
        self._known: collections.OrderedDict[tuple[str, str], _Known] = collections.OrderedDict()
        self._characters = 0

    def find(self, text: str, sentinel: str) -> _Known:
        """The longest one with which `text` begins."""
        found = _NOTHING
        for one in self._known.values():
            if len(one.text) > len(found.text) and one.begins(text, sentinel):
                found = one
        if found.text:
            self._known.move_to_end((found.sentinel, found.text))
        return found

    def keep(self, one: _Known) -> None:
        """A text that is known already gets the ids of now: they are what the cache holds."""
        self._forget(self._known.pop((one.sentinel, one.text), None))
        self._known[one.sentinel, one.text] = one
        self._characters += len(one.text)
        while self._known and (len(self._known) > self._most or self._characters > MEMORY_CHARACTERS):
            self._forget(self._known.popitem(last=False)[1])

    def forget_others(self, one: _Known) -> None:
        """What begins with this text, but with other ids than it has now, is no longer what the cache holds."""
        size = len(one.ids)
        for key, other in list(self._known.items()):
            if other.begins_with(one) and other.ids[:size] != one.ids:
                self._forget(self._known.pop(key))

    def _forget(self, one: _Known | None) -> None:
        self._characters -= len(one.text) if one is not None else 0


def _with_reasoning_apart(message: Message, markers: ThinkingMarkers | None) -> Message:
    """An answer that a client sends back with its reasoning in the text, as other servers deliver it."""
    if markers is None or not markers.open or message.role != "assistant" or message.reasoning:
        return message
    text = message.content.lstrip()
    if not text.startswith(markers.open):
        return message
    reasoning, close, answer = text.removeprefix(markers.open).partition(markers.close)
    if not close:
        return message
    return msgspec.structs.replace(message, reasoning=reasoning.strip(), content=answer.lstrip())


def _with_readable_arguments(message: Message) -> Message:
    """Arguments without escapes behind which a special token's text could hide from the sentinels."""
    if not any(_ESCAPED.search(call.arguments) for call in message.tool_calls):
        return message
    calls = (msgspec.structs.replace(call, arguments=_unescaped(call.arguments)) for call in message.tool_calls)
    return msgspec.structs.replace(message, tool_calls=tuple(calls))


def _unescaped(arguments: str) -> str:
    try:
        return json.dumps(msgspec.json.decode(arguments, type=dict[str, Any]), ensure_ascii=False)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return arguments  # templates get it as text, in which an escape is no more than its characters


def _texts(message: Message) -> Iterator[str]:
    yield from (message.content, message.reasoning, message.tool_call_id or "")
    for call in message.tool_calls:
        yield from (call.id, call.name, call.arguments)


def _texts_in(value: Any) -> Iterator[str]:
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from (key, *_texts_in(one))
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts_in(one)


def _unused_character(texts: Sequence[str]) -> str:
    first = chr(_PRIVATE_USE[0][0])
    if not any(first in text for text in texts):
        return first
    used = set().union(*texts)
    for number in (number for numbers in _PRIVATE_USE for number in numbers):
        if chr(number) not in used:
            return chr(number)
    raise InvalidRequest("The messages hold every private-use character of Unicode. Leave one out.", param="messages")
