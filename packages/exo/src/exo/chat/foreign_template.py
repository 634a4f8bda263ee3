"""Templates that come with a request: whoever sends one need not be the owner of the board."""

from __future__ import annotations

from exo.chat.go_template import GoTemplate
from exo.types import InvalidRequest, ModelLoadError

LONGEST = 1 << 16
"""Characters. The longest templates of models have a quarter of that."""


def foreign_template(source: str) -> GoTemplate:
    """A template in Go's language, as Ollama has it, in which the work of every template is bounded.

    Jinja is for the files of models: a template in it may take any time and memory. Raises InvalidRequest.
    """
    if len(source) > LONGEST:
        raise InvalidRequest(f"The template has over {LONGEST} characters.", param="template")
    if "{%" in source or "{{" not in source:
        raise InvalidRequest(
            "The template has to be in Go's language, as in Ollama, with the messages in it. One in Jinja belongs into "
            "a file of the model's folder.",
            param="template",
        )
    try:
        return GoTemplate(source, name="The template of the request")
    except ModelLoadError as error:
        raise InvalidRequest(error.message, param="template") from error
