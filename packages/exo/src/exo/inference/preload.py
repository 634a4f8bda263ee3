"""Loading the default model when the node starts, until it is there or another one has answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from exo.types import ExoError

_RETRY = 10.0

logger = logging.getLogger(__name__)


class Preload:
    """`blocked` is why the node cannot serve yet, empty once it can. One owner: the event loop.

    `load` loads the default model, or one that takes its place. `engine` is a name, for messages.
    """

    def __init__(self, load: Callable[[], Awaitable[None]], *, engine: str) -> None:
        self.blocked = ""
        self._load = load
        self._engine = engine
        self._has_served = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin in the background."""
        self.blocked = "loading the default model"
        self._task = asyncio.create_task(self._until_loaded(), name="preload")

    def served(self) -> None:
        """Some model has answered: the node is of use, and the default one is left to the requests that need it.

        Trying on would unload the other.
        """
        self._has_served, self.blocked = True, ""

    def give_up(self) -> None:
        """Try no more: the node takes no new work. A load that is under way goes on."""
        self._has_served = True

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _until_loaded(self) -> None:
        """After a failure try again, for the file may be replaced meanwhile."""
        while not self._has_served:
            try:
                await self._load()
            except ExoError as error:
                self._block(error.message)
                await asyncio.sleep(_RETRY)
            except Exception as error:  # an engine is a plugin and may raise anything
                logger.exception("the engine %s failed unexpectedly while loading", self._engine)
                self._block(f"the engine {self._engine} failed unexpectedly: {error!r}")
                await asyncio.sleep(_RETRY)
            else:
                self.blocked = ""
                return

    def _block(self, reason: str) -> None:
        if self._has_served:
            return
        if self.blocked != reason:
            logger.error("the default model cannot be served: %s", reason)
        self.blocked = reason
