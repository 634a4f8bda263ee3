"""The text side of a loaded model: chats to prompts, with the model's own tokenizer or without one."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exo.chat import ChatTemplate, GoTemplate, Template, foreign_template, special_texts, tools_as_json
from exo.models import Modelfile
from exo.types import (
    InvalidRequest,
    Message,
    ModelCard,
    ModelLoadError,
    ThinkingMarkers,
    Tool,
    ToolChoice,
    ToolFormat,
    UnsupportedParameter,
)
from exo_rkllm.answer import TokenRules
from exo_rkllm.models import NpuCard
from exo_rkllm.text.begun import BegunAnswer
from exo_rkllm.text.families import family_of, least_tokens, render_without_tokenizer
from exo_rkllm.text.prompt import EncodedPrompt, PromptEncoder
from exo_rkllm.text.thinking import WithoutThinking
from exo_rkllm.text.tokenizer import ModelTokenizer
from exo_rkllm.text.tool_use import ToolUse, tool_use

_NO_TOKENIZER = (
    "its folder has no tokenizer.json: prompts go to the runtime as text, only the runtime counts their tokens, and "
    "long ones are refused by a bound alone. `rkllama pull --tokenizer {model}` brings the files of {repository}."
)

_NAMES_MESSAGES = re.compile(r"(?<![.\w])messages\b")


@dataclass(frozen=True)
class Prompt:
    """A prompt for the runtime. Without a tokenizer `ids` is None, and `tokens` only the least number it can have.

    `calls` is how the answer may call functions, None if it may call none; it begins with the text `begun`, with which
    the prompt ends.
    """

    text: str
    ids: array[int] | None
    tokens: int
    inside_thinking: bool = False
    is_raw: bool = False
    encoded: EncodedPrompt | None = None
    calls: ToolFormat | None = None
    begun: str = ""

    @property
    def input(self) -> Sequence[int] | str:
        """What the runtime is given."""
        return self.text if self.ids is None else self.ids

    @property
    def is_counted(self) -> bool:
        return self.ids is not None


@dataclass(frozen=True)
class EndedReasoning:
    """A prompt with what the model has reasoned so far and the end of it, which is `text`, as tokens `ids`."""

    prompt: Prompt
    text: str
    ids: Sequence[int]


class ModelTexts:
    """Templates, tokens and markers of one model. The methods may be called from a thread."""

    def __init__(
        self,
        tokenizer: ModelTokenizer | None,
        template: Template,
        *,
        thinking: ThinkingMarkers | None,
        can_think: bool | None = None,
        modelfile: Modelfile | None = None,
        vocabulary: int | None = None,
        calls: ToolFormat | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.thinking = thinking
        self._can_think = thinking is not None if can_think is None else can_think
        self.warnings = tuple(warnings)
        self._template = template
        self._calls = calls
        self._modelfile = modelfile or Modelfile()
        self._tokenizer = tokenizer
        self._encoder = None if tokenizer is None else PromptEncoder(tokenizer, template, thinking)
        self.rules = _rules(tokenizer, thinking, vocabulary)

    @classmethod
    def load(cls, folder: Path, card: ModelCard, npu: NpuCard | None, modelfile: Modelfile) -> ModelTexts:
        """Read a model's folder. Takes up to a second. Raises ModelLoadError for damaged files.

        The Modelfile's template goes before the tokenizer's own, and that before the family's. Reasoning is marked as
        the card says, else as the Modelfile does, else with the usual markers if a template or the tokenizer knows
        them: a Modelfile's template changes how chats are written, not whether the model thinks.
        """
        tokenizer = ModelTokenizer.load(folder)
        own = None if tokenizer is None else tokenizer.template
        family = family_of(card.family or (npu.family if npu else ""), card.id)
        given = _given_template(folder, modelfile, tokenizer)
        template = given or own
        if template is None:
            template = ChatTemplate(family.template, name=f"The chat template of the family {family.name}")
        warnings = []
        if tokenizer is None:
            repository = modelfile.huggingface_path or (npu.tokenizer if npu else "")
            model = card.id if repository else f"{card.id} --from OWNER/REPOSITORY"
            warnings.append(_NO_TOKENIZER.format(model=model, repository=repository or "the original model"))
        elif own is None and given is None:
            warnings.append(f"its tokenizer files have no chat template; that of {family.name} is used.")
        named = card.thinking or _marked_in(modelfile) or _thinking_of(given, own) or (None if own else family.thinking)
        return cls(
            tokenizer,
            template,
            thinking=named or _thinking_tokens(tokenizer),
            can_think=named is not None,
            modelfile=modelfile,
            vocabulary=npu.vocabulary if npu else None,
            calls=card.tools,
            warnings=warnings,
        )

    @property
    def counts(self) -> bool:
        """Whether prompts are token ids, with exact counts."""
        return self._encoder is not None

    def encode(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        template: str | None = None,
        tools: Sequence[Tool] = (),
        choice: ToolChoice = ToolChoice(),  # noqa: B008 - it is frozen
    ) -> Prompt:
        """A chat. The fields are as in ChatRequest; what another template makes of an answer is not remembered.

        A model that has to call a function does not think before. Raises InvalidRequest if the template refuses the
        messages, or is none; UnsupportedParameter if a model is to think that cannot.
        """
        if think and not self._can_think:
            raise UnsupportedParameter("This model does not support thinking; do not ask for it.", param="think")
        messages = self._modelfile.conversation(messages)
        chosen = self._template if template is None else foreign_template(template)
        use = tool_use(messages, tools, choice, source=chosen.source, named=None if template else self._calls)
        if use.begun:
            think = False if self._can_think else think
        if think is False and self.thinking is not None and self._can_think:
            chosen = WithoutThinking(chosen, self.thinking)
        if use.begun:
            chosen = BegunAnswer(chosen, use.begun)
        variables = {} if think is None else {"enable_thinking": think}
        prompt = self._encode(use, chosen, variables, is_foreign=template is not None)
        return replace(prompt, calls=use.format, begun=use.begun)

    def _encode(self, use: ToolUse, chosen: Template, variables: dict[str, Any], *, is_foreign: bool) -> Prompt:
        if self._tokenizer is None or self._encoder is None:
            told = variables | ({"tools": tools_as_json(use.tools)} if use.tools else {})
            text = _without_nul(render_without_tokenizer(chosen, use.messages, told))
            return Prompt(text, None, least_tokens(text), inside_thinking=_ends_open(text, self.thinking))
        if not is_foreign:
            encoded = self._encoder.encode(use.messages, template=chosen, variables=variables, tools=use.tools)
            return _prompt(encoded)
        encoder = PromptEncoder(self._tokenizer, chosen, self.thinking)
        encoded = encoder.encode(use.messages, variables=variables, tools=use.tools)
        prompt = replace(_prompt(encoded), encoded=None)
        if not prompt.tokens:
            raise InvalidRequest("The template makes an empty prompt of these messages.", param="template")
        return prompt

    def rules_for(self, prompt: Prompt) -> TokenRules:
        """What ids tell about the tokens of this prompt's answer: the markers of calls are text where it may call."""
        if prompt.calls is None or self._tokenizer is None:
            return self.rules
        ids = self._tokenizer.added.ids
        calls = {ids[text]: text for text in special_texts(prompt.calls) if text in ids}
        return replace(self.rules, markers={**self.rules.markers, **calls})

    def encode_raw(self, text: str) -> Prompt:
        """A prompt as it is: strings of special tokens are those tokens."""
        if self._encoder is None:
            return Prompt(_without_nul(text), None, least_tokens(text), is_raw=True)
        return replace(_prompt(self._encoder.encode_text(text)), is_raw=True)

    def encode_plain(self, text: str) -> Prompt:
        """A text in which nothing is special. Raises UnsupportedParameter where there is no tokenizer."""
        if self._tokenizer is None:
            raise UnsupportedParameter(f"Tokens cannot be counted here: {self.warnings[0]}")
        ids = array("i", self._tokenizer.encode_plain(text))
        return Prompt(text, ids, len(ids))

    def with_reasoning_ended(self, prompt: Prompt, written: str, ids: Sequence[int] | None) -> EndedReasoning:
        """What makes the model answer now. `written` and `ids` are the answer up to here, None: they are not known."""
        end = f"\n{(self.thinking or ThinkingMarkers()).close}\n\n"
        text = prompt.text + written + end
        if self._tokenizer is None or prompt.ids is None:
            return EndedReasoning(replace(prompt, text=text, tokens=least_tokens(text), encoded=None), end, ())
        end_ids = self._tokenizer.encode_rendered(end)
        known = self._tokenizer.encode_plain(written) if ids is None else ids
        whole = array("i", [*prompt.ids, *known, *end_ids])
        return EndedReasoning(replace(prompt, text=text, ids=whole, tokens=len(whole), encoded=None), end, end_ids)

    def remember(self, prompt: Prompt, answer: str, ids: Sequence[int] | None) -> None:
        """A run has brought this answer: sent again, its text becomes the same ids. None: they are not known."""
        if self._encoder is not None and prompt.encoded is not None and ids is not None:
            self._encoder.remember(prompt.encoded, answer, ids)


def _without_nul(text: str) -> str:
    """The runtime takes a text up to its first NUL. Raises InvalidRequest."""
    if "\0" in text:
        raise InvalidRequest("This model takes no NUL characters. Remove them.", param="messages")
    return text


def _prompt(encoded: EncodedPrompt) -> Prompt:
    ids = array("i", encoded.ids)
    return Prompt(encoded.text, ids, len(ids), inside_thinking=encoded.inside_thinking, encoded=encoded)


def _rules(tokenizer: ModelTokenizer | None, thinking: ThinkingMarkers | None, vocabulary: int | None) -> TokenRules:
    if tokenizer is None:
        return TokenRules(vocabulary=vocabulary)
    markers = (thinking.open, thinking.close) if thinking else ()
    return TokenRules(
        silent=tokenizer.special_ids | tokenizer.eos_ids,
        ends=tokenizer.eos_ids,
        vocabulary=tokenizer.vocabulary_size,
        markers={tokenizer.added.ids[text]: text for text in markers if text in tokenizer.added.ids},
    )


def _given_template(folder: Path, modelfile: Modelfile, tokenizer: ModelTokenizer | None) -> Template | None:
    """The TEMPLATE of the Modelfile, None if it has none. Raises ModelLoadError."""
    source = modelfile.template
    if source is None or not source.strip():
        return None
    special = {} if tokenizer is None else tokenizer.special_texts
    return template_of(source, special, f"The TEMPLATE in {folder / 'Modelfile'}")


def template_of(source: str, special: Mapping[str, str], name: str) -> Template:
    """A template that somebody has written. Raises ModelLoadError.

    `{%` makes it Jinja. Otherwise it is what it can be parsed as: Go's language, which Ollama's Modelfiles are written
    in, else Jinja that names `messages`.
    """
    if "{%" in source:
        return ChatTemplate(source, special=special, name=name)
    if "{{" not in source:
        raise ModelLoadError(f"{name} has no {{{{ in it, so no message would reach the model. Mend it, or remove it.")
    try:
        return GoTemplate(source, name=name)
    except ModelLoadError:
        if not _NAMES_MESSAGES.search(source):
            raise
        return ChatTemplate(source, special=special, name=name)


def _marked_in(modelfile: Modelfile) -> ThinkingMarkers | None:
    """What a Modelfile names; both markers or none."""
    if not (modelfile.thinking_open and modelfile.thinking_close):
        return None
    return ThinkingMarkers(open=modelfile.thinking_open, close=modelfile.thinking_close)


def _thinking_of(*templates: Template | None) -> ThinkingMarkers | None:
    """The usual markers, if a template knows them."""
    usual = ThinkingMarkers()
    return usual if any(template is not None and usual.close in template.source for template in templates) else None


def _thinking_tokens(tokenizer: ModelTokenizer | None) -> ThinkingMarkers | None:
    """The usual markers, if they are tokens of the model; one that was trained without never uses them."""
    usual = ThinkingMarkers()
    return usual if tokenizer is not None and usual.close in tokenizer.added.ids else None


def _ends_open(text: str, thinking: ThinkingMarkers | None) -> bool:
    return thinking is not None and text.rstrip().endswith(thinking.open)
