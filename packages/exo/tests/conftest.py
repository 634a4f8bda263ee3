"""What the unit tests of exo share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import settings
from prometheus_client import CollectorRegistry

# Examples are new in every run; a failing one prints the line that repeats it.
settings.register_profile("exo", deadline=None, database=None, print_blob=True)
settings.load_profile("exo")

_LONGEST_WAIT = 10.0


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until a condition holds; the test fails if it never does."""

    async def wait(condition: Callable[[], bool]) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + _LONGEST_WAIT
        while not condition():
            assert clock() < end, "the condition was never met"
            await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()
