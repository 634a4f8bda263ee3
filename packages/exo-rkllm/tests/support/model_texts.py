"""The texts of simulated models, and templates to give them."""

from __future__ import annotations

from pathlib import Path

from exo.models import card_from_short_shape, read_modelfile
from exo.types import Message, ModelCard, Role
from exo_rkllm.models import RKLLM_MODELS, npu_card
from exo_rkllm.text.texts import ModelTexts, Prompt
from exo_rkllm.text.tokenizer import ModelTokenizer
from rkllm_sim.model import write_model

GO = (
    "{{ if .System }}<|im_start|>system: {{ .System }}<|im_end|>{{ end }}"
    "{{ if .Prompt }}<|im_start|>user: {{ .Prompt }}<|im_end|>{{ end }}<|im_start|>assistant: {{ .Response }}<|im_end|>"
)
GO_MESSAGES = "{{ range .Messages }}<|im_start|>{{ .Role }}: {{ .Content }}<|im_end|>{{ end }}<|im_start|>assistant: "
JINJA = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant: "


def said(content: str, role: Role = "user") -> Message:
    return Message(role=role, content=content)


HI = (said("Hi"),)


def texts_of(
    folder: Path,
    *,
    template: str | None = None,
    system: str | None = None,
    tokenizer: bool = True,
    thinking: bool = False,
    name: str = "m",
) -> ModelTexts:
    """Of a new model in a folder of that name, with what its Modelfile and the known cards say."""
    path = write_model(folder / name, with_tokenizer=tokenizer, thinking=thinking)
    lines = [
        f'{key} """{value}"""\n' for key, value in (("TEMPLATE", template), ("SYSTEM", system)) if value is not None
    ]
    with (path.parent / "Modelfile").open("a", encoding="utf-8") as file:
        file.writelines(lines)
    return load(path.parent)


def load(folder: Path) -> ModelTexts:
    name = folder.name
    card = card_from_short_shape(name, RKLLM_MODELS[name]) if name in RKLLM_MODELS else ModelCard(id=name)
    return ModelTexts.load(folder, card, npu_card(name), read_modelfile(folder))


def ids_of(prompt: Prompt) -> list[int]:
    assert prompt.ids is not None
    return prompt.ids.tolist()


def special_ids(tmp_path: Path, *texts: str, name: str = "m") -> list[int]:
    tokenizer = ModelTokenizer.load(tmp_path / name)
    assert tokenizer is not None
    return [tokenizer.added.ids[text] for text in texts]
