"""The endpoints of earlier servers, for /docs."""

from __future__ import annotations

from exo.api.dialect import Operation
from exo_rkllm.server.earlier_schema import (
    EarlierAnswer,
    EarlierCurrent,
    EarlierError,
    EarlierGenerate,
    EarlierLoad,
    EarlierModel,
    EarlierModels,
    EarlierSaid,
    EarlierUnload,
)

_OF_MODELS = (400, 404, 502, 503)
_OF_RUNS = (404, 429, 502, 503, 504)

EARLIER_OPERATIONS = (
    Operation("get", "/", "The process answers.", {200: EarlierSaid}),
    Operation("get", "/models", "The names of the models, as earlier servers listed them.", {200: EarlierModels}),
    Operation("post", "/load_model", "Load a model.", {200: EarlierSaid}, _OF_MODELS, request=EarlierLoad),
    Operation(
        "post",
        "/unload_model",
        "Unload a model; without a name the one that was used last.",
        {200: EarlierSaid},
        _OF_MODELS,
        request=EarlierUnload,
        request_required=False,
    ),
    Operation(
        "get", "/current_model", "The loaded model that was used last.", {200: EarlierCurrent, 404: EarlierError}
    ),
    Operation(
        "post",
        "/generate",
        "Answer a text or a conversation, with the model that was used last; streamed as objects between blank lines.",
        {200: EarlierAnswer},
        _OF_RUNS,
        request=EarlierGenerate,
        stream=EarlierAnswer,
        stream_type="text/plain",
    ),
    Operation(
        "post",
        "/pull",
        "Bring a model; tells its percents.",
        {200: "text/plain"},
        (*_OF_MODELS, 409, 507),
        request=EarlierModel,
    ),
    *(
        Operation(method, "/rm", "Delete a model.", {200: EarlierSaid}, _OF_MODELS, request=EarlierModel)
        for method in ("delete", "post")
    ),
)
