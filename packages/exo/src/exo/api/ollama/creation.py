"""A request for a new model, as the text of a Modelfile."""

from __future__ import annotations

import msgspec

from exo.api.ollama.options import refuse_unsupported, sampling_of, stops_of
from exo.api.ollama.request import messages_of
from exo.api.ollama.schema import OllamaCreateRequest, Options
from exo.chat import foreign_template
from exo.models import Modelfile, ModelParameters, parse_modelfile, write_modelfile
from exo.types import InvalidRequest, UnsupportedParameter

_REFUSED = {
    "files": "Files are not uploaded to this node; put the model's folder into its store, or pull the model.",
    "adapters": "Adapters cannot be joined with a model here; convert the model together with its adapter.",
    "quantize": "Models are not quantised here; bring one that is.",
    "quantization": "Models are not quantised here; bring one that is.",
}
_FROM_MODELFILE = ("from_", "system", "template", "license", "parameters", "messages")
_NO_CAP = -1


def refuse_uploads(wire: OllamaCreateRequest) -> None:
    """Raises UnsupportedParameter for what has to be done to the model's weights."""
    for name, why in _REFUSED.items():
        if getattr(wire, name):
            raise UnsupportedParameter(why, param=name)


def modelfile_text(wire: OllamaCreateRequest, *, base: str | None) -> str:
    """The Modelfile's text. `base` is the id of the model that `from` names, None if it names none.

    Raises InvalidRequest, BadModelfile.
    """
    if wire.template:
        foreign_template(wire.template)
    if wire.modelfile:
        template = parse_modelfile(wire.modelfile).template
        if template:
            foreign_template(template)
        both = [name.rstrip("_") for name in _FROM_MODELFILE if getattr(wire, name)]
        if both:
            raise InvalidRequest(f"modelfile and {both[0]} contradict each other; send one of them.", param=both[0])
        return wire.modelfile
    if not wire.from_:
        raise InvalidRequest("from is missing: name the model that the new one is made of.", param="from")
    licence = wire.license if wire.license is None or isinstance(wire.license, str) else "\n".join(wire.license)
    return write_modelfile(
        Modelfile(
            from_=base or wire.from_,
            system=wire.system or None,
            template=wire.template or None,
            licence=licence or None,
            parameters=_parameters(wire.parameters or Options()),
            messages=tuple(messages_of(wire.messages or ())),
        )
    )


def _parameters(options: Options) -> ModelParameters:
    """What an option of a request would do, as a parameter.

    A seed of -1 and a num_predict of 0 or less are written down: they go before what the other model's Modelfile says.
    """
    refuse_unsupported(options, path="parameters")
    longest = options.num_predict
    return ModelParameters(
        **msgspec.structs.asdict(sampling_of(options)) | {"seed": options.seed},
        num_ctx=options.num_ctx,
        num_predict=_NO_CAP if longest is not None and longest <= 0 else longest,
        stop=stops_of(options),
    )
