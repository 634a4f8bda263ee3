"""Which models are served, which one a name means, and which one is the default."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from exo.inference.automatic import AutomaticChoice, is_automatic
from exo.inference.cards import find_card
from exo.inference.engine import InferenceEngine
from exo.types import EngineError, EngineUnavailable, ExoError, ModelCard, ModelLoadError, ModelNotFound

logger = logging.getLogger(__name__)


class ServedModels:
    """The models of one engine. `default` is the name that was asked for, `auto` among others; None: none was."""

    def __init__(self, engine: InferenceEngine, default: str | None, automatic: AutomaticChoice | None) -> None:
        self._engine = engine
        self._automatic = automatic
        self.default_is_automatic = is_automatic(default)
        self._default = None if self.default_is_automatic else default
        self._was_asked_for = self._default is not None

    async def models(self) -> list[ModelCard]:
        """What can be served now, the default model first. Raises EngineError if the engine cannot tell."""
        try:
            cards = await self._engine.models()
        except ExoError:
            raise
        except Exception as error:  # an engine is a plugin and may raise anything
            logger.exception("the engine %s cannot tell its models", self._engine.name)
            raise EngineError(f"The engine {self._engine.name} cannot tell its models: {error!r}.") from error
        default = find_card(cards, self._default)
        return sorted(cards, key=lambda card: (card is not default, card.id))

    async def resolve(self, name: str | None) -> ModelCard:
        """The card for a model's id or alias; no name means the default model.

        Raises ModelNotFound, ModelLoadError, EngineUnavailable.

        Without `--default-model` the first one by name becomes the default, and stays it for as long as it is there.
        """
        cards = await self.models()
        wanted = name or self._default
        found = find_card(cards, wanted)
        if found is not None:
            return found
        if not cards:
            await self._refuse_if_not_ready()
        if name or self._was_asked_for:
            raise ModelNotFound(wanted or "", [card.id for card in cards])
        if not cards:
            raise ModelLoadError(f"No model is in the store. {self._engine.no_model_hint}")
        first, *_ = await self._by_default(cards)
        self._default = first.id
        return first

    async def _by_default(self, cards: Sequence[ModelCard]) -> Sequence[ModelCard]:
        """In the order in which they become the default model where none was asked for."""
        if self._automatic is None or not self.default_is_automatic:
            return cards
        return await self._automatic.quick_first(cards)

    async def resolve_for_use(self, name: str | None) -> ModelCard:
        """As `resolve`, with `auto` for the default model: for what needs a model, but has no text to choose it by.

        What changes or describes a model uses `resolve`: `auto` is the name of none.
        """
        cards = await self.models()
        return await self.resolve(None if is_automatic(name) and find_card(cards, name) is None else name)

    async def _refuse_if_not_ready(self) -> None:
        """An engine without models may be one that has never reached the server which has them."""
        health = await self._engine.health()
        if not health.ready:
            raise EngineUnavailable(health.detail or f"The engine {self._engine.name} is not ready.")

    async def load_first_good(self) -> None:
        """Load the default model. If none was asked for, one that cannot be loaded gives way to the next."""
        first = await self.resolve(None)
        candidates = [first] if self._was_asked_for else await self._by_default(await self.models())
        for card in candidates:
            try:
                await self._engine.load(card.id)
            except ModelLoadError as error:
                if card is candidates[-1]:
                    raise
                logger.warning("%s cannot be the default model: %s", card.id, error.message)
            else:
                self._default = card.id
                return
