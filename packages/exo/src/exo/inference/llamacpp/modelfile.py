"""What a Modelfile means here: context, system message, first messages, and the values that a request leaves open.

TEMPLATE, mirostat and ADAPTER have no effect: llama.cpp uses the template in the GGUF.
"""

from __future__ import annotations

import msgspec

from exo.models import Modelfile, StoredModel, read_modelfile
from exo.types import ChatRequest, CompletionRequest, Limits, ModelLoadError, Sampling, StoreError


def modelfile_of(stored: StoredModel | None) -> Modelfile:
    """An empty one where there is none. Raises ModelLoadError for a faulty one."""
    if stored is None or stored.folder is None:
        return Modelfile()
    try:
        return read_modelfile(stored.folder)
    except StoreError as error:
        raise ModelLoadError(error.message) from error


def completed_chat(request: ChatRequest, modelfile: Modelfile) -> ChatRequest:
    """The request with what the Modelfile says and it does not."""
    return msgspec.structs.replace(
        request,
        messages=modelfile.conversation(request.messages),
        sampling=_sampling(request.sampling, modelfile),
        limits=_limits(request.limits, modelfile),
    )


def completed_prompt(request: CompletionRequest, modelfile: Modelfile) -> CompletionRequest:
    return msgspec.structs.replace(
        request, sampling=_sampling(request.sampling, modelfile), limits=_limits(request.limits, modelfile)
    )


def _sampling(asked: Sampling, modelfile: Modelfile) -> Sampling:
    given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not None}
    return msgspec.structs.replace(modelfile.sampling(), **given)


def _limits(asked: Limits, modelfile: Modelfile) -> Limits:
    own = modelfile.parameters
    longest = own.num_predict if own.num_predict is not None and own.num_predict > 0 else None
    return msgspec.structs.replace(asked, max_tokens=asked.max_tokens or longest, stop=asked.stop or own.stop)
