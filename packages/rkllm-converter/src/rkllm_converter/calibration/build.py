"""Calibration data in the toolkit's form, made of chats with the model's own template."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from rkllm_converter.calibration.chats import Chat, Entry, Ready, Text, entry_of
from rkllm_converter.calibration.readers import read
from rkllm_converter.calibration.template import ChatTemplate, TooSlow
from rkllm_converter.errors import BadCalibration, IllegalOptions

__all__ = ["DEFAULT_SAMPLES", "Default", "advice", "build", "dataset_hash", "default_set"]

DEFAULT_SAMPLES = 32
"""Rockchip's example has about twenty. With these each kind of the default set is there, and each language thrice."""

_FEWEST, _MOST = 20, 60
"""Entries that are advised: see docs/CONVERSION.md."""


class Default(NamedTuple):
    """A chat of the default set."""

    language: str
    kind: str
    chat: Chat


def build(dataset: Path | None, template: ChatTemplate | None, *, samples: int, seed: int) -> list[dict[str, str]]:
    """`samples` entries as the toolkit wants them: `input`, the prompt as the model sees it, and `target`, the answer.

    Without a file the default set is taken, evenly from its languages and kinds. Fewer entries than `samples` are all
    taken, each once, and a file that is all in the toolkit's own form is returned whole. Equal arguments give an equal
    result, on any day and with any Python. Raises BadCalibration, and IllegalOptions if `samples` is below 1.

    - An answer with reasoning gets it before it if the template tells of markers for it. If reasoning can be switched,
      every other entry has it on.
    - A prompt without an answer has an empty target.
    - Without a template (a base model) the texts stay as they are, the latter half of one being its target.
    """
    if samples < 1:
        raise IllegalOptions([f"--samples {samples}: there has to be at least 1."])
    chance = random.Random(seed)  # noqa: S311 - a choice that can be repeated is wanted
    if dataset is None:
        return _default(template, samples, chance)
    entries = read(dataset)
    if all(isinstance(entry, Ready) for entry in entries):
        return _written(entries, template)
    ranks = [chance.random() for _ in entries]
    chosen = sorted(sorted(range(len(entries)), key=ranks.__getitem__)[:samples])
    return _written((entries[index] for index in chosen), template)


def advice(entries: Sequence[Mapping[str, str]], asked: int, dataset: Path | None) -> str | None:
    """What a person should know of the entries that `build` has made of `dataset`, where `asked` samples were wanted;
    None if all is well."""
    name = "The built-in set" if dataset is None else str(dataset)
    count = f"{len(entries)} {'text' if len(entries) == 1 else 'texts'}"
    if len(entries) > asked:
        return f"{name} is all in the toolkit's own form, so all of its {count} are taken, not {asked} of them."
    if len(entries) < _FEWEST:
        where = f"--samples {asked}" if len(entries) == asked else name
        return f"{where}: only {count} to calibrate with; {_FEWEST} to {_MOST} are advised."
    if len(entries) < asked:
        return f"{name}: there are only {count} to calibrate with, not {asked}."
    return None


def dataset_hash(dataset: Sequence[Mapping[str, str]]) -> str:
    """SHA-256, in hexadecimal, of the data as canonical JSON."""
    text = json.dumps(list(dataset), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@cache
def default_set() -> tuple[Default, ...]:
    """The chats that are shipped, in the order of the file."""
    text = resources.files(__package__).joinpath("default.jsonl").read_text(encoding="utf-8")
    made = []
    for line in text.splitlines():
        value = json.loads(line)
        chat = entry_of(value)
        assert isinstance(chat, Chat)  # noqa: S101 - for mypy: a test reads each entry of the file
        made.append(Default(value["language"], value["kind"], chat))
    return tuple(made)


def _default(template: ChatTemplate | None, samples: int, chance: random.Random) -> list[dict[str, str]]:
    """A chat that the template does not take is passed over; if it takes none, its error is raised, as that of one
    that does not end."""
    chats = default_set()
    writer = _Writer(template)
    made: dict[int, dict[str, str]] = {}
    failure: BadCalibration | None = None
    for index in _even(chats, chance):
        try:
            made[index] = writer.write(chats[index].chat)
        except TooSlow:
            raise
        except BadCalibration as error:
            failure = failure or error
        if len(made) == samples:
            break
    if failure is not None and not made:
        raise failure
    return [made[index] for index in sorted(made)]


def _even(chats: Sequence[Default], chance: random.Random) -> Iterator[int]:
    """Indices of all chats; next is always one whose language, then whose kind, has come least often."""
    left = {index: chance.random() for index in range(len(chats))}
    seen: Counter[str] = Counter()
    while left:
        index = min(left, key=lambda one: (seen[chats[one].language], seen[chats[one].kind], left[one]))
        del left[index]
        seen.update(chats[index][:2])
        yield index


def _written(entries: Iterable[Entry], template: ChatTemplate | None) -> list[dict[str, str]]:
    writer = _Writer(template)
    return [writer.write(entry) for entry in entries]


class _Writer:
    """Entries as input and target. Remembers how many have had the model's reasoning switched on and off."""

    def __init__(self, template: ChatTemplate | None) -> None:
        self._template = template
        self._switched = Counter[bool]()

    def write(self, entry: Entry) -> dict[str, str]:
        if isinstance(entry, Ready):
            return _sample(entry.input, entry.target)
        if self._template is None:
            return _plain(entry)
        if isinstance(entry, Text):
            entry = Chat(({"role": "user", "content": entry.text},))
        return self._with(self._template, entry)

    def _with(self, template: ChatTemplate, chat: Chat) -> dict[str, str]:
        variables: dict[str, Any] = {"tools": list(chat.tools)} if chat.tools else {}
        thinks: bool | None = None
        if template.switch is not None:
            can_think = bool(chat.reasoning) or chat.answer is None
            thinks = can_think and self._switched[True] <= self._switched[False]
            variables[template.switch] = thinks
        prompt = template.render(chat.messages, **variables)
        target = ""
        if chat.answer is not None:
            answer = template.answer(chat.messages, chat.answer, **variables)
            target = _with_reasoning(template, prompt, chat.reasoning, answer, thinks=thinks)
        if thinks is not None:
            self._switched[thinks] += 1
        return _sample(prompt, target)


def _with_reasoning(template: ChatTemplate, prompt: str, reasoning: str, answer: str, *, thinks: bool | None) -> str:
    """What the model is to write behind its prompt. `thinks` is None if that cannot be switched."""
    if template.thinking is None:
        return answer
    opening, closing = template.thinking
    if prompt.rstrip().endswith(opening):
        return f"{reasoning}\n{closing}\n\n{answer}" if reasoning or answer else ""
    writes_it = closing in template.text if thinks is None else thinks
    return f"{opening}\n{reasoning}\n{closing}\n\n{answer}" if reasoning and writes_it else answer


def _plain(entry: Chat | Text) -> dict[str, str]:
    if isinstance(entry, Chat) and entry.answer is not None and entry.answer["content"]:
        return _sample(_joined(entry), entry.answer["content"])
    text = entry.text if isinstance(entry, Text) else _joined(entry)
    middle = max(len(text) // 2, 1)
    cut = next((at for at in range(middle, len(text)) if text[at].isspace()), middle)
    return _sample(text[:cut], text[cut:])


def _joined(chat: Chat) -> str:
    return "\n\n".join(message["content"] for message in chat.messages if message["content"])


def _sample(prompt: str, target: str) -> dict[str, str]:
    return {"input": prompt, "target": target}
