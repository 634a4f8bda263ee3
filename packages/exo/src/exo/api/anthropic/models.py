"""The list of models as Anthropic's clients read it, on the paths that OpenAI's clients ask too."""

from __future__ import annotations

from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from exo.api.anthropic.schema import AnthropicModel, AnthropicModelList
from exo.api.endpoint import Endpoint
from exo.api.exchange import send_json
from exo.api.listing import listed_models, shown_model
from exo.inference import InferenceService
from exo.types import ModelCard

VERSION_HEADER = b"anthropic-version"
"""Every client of Anthropic sends it, and no other."""
_UNKNOWN_DATE = "1970-01-01T00:00:00Z"
"""What Anthropic shows for a release date that is not known."""


class RouteOfAnthropic(Route):
    """A route that exists for Anthropic's clients only; any other comes to the one behind it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or all(name != VERSION_HEADER for name, _ in scope["headers"]):
            return Match.NONE, {}
        return super().matches(scope)


class AnthropicModels:
    """The endpoints, as ASGI applications. All models come at once: the fields for turning pages have no effect."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        return [
            RouteOfAnthropic("/v1/models", Endpoint(self.list_models), methods=["GET"]),
            RouteOfAnthropic("/v1/models/{model:path}", Endpoint(self.show_model), methods=["GET"]),
        ]

    async def list_models(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        models = [_model(card) for card in await listed_models(self._service)]
        first, last = (models[0].id, models[-1].id) if models else (None, None)
        await send_json(send, 200, AnthropicModelList(data=models, first_id=first, last_id=last))

    async def show_model(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_json(send, 200, _model(await shown_model(self._service, scope["path_params"]["model"])))


def _model(card: ModelCard) -> AnthropicModel:
    return AnthropicModel(id=card.id, display_name=card.display_name or card.id, created_at=_UNKNOWN_DATE)
