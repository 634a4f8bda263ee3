from __future__ import annotations

import asyncio

import pytest

from exo.inference import preload as preload_module
from exo.inference.preload import Preload
from exo.types import ModelLoadError


async def test_a_node_that_takes_no_new_work_tries_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload_module, "_RETRY", 0.0)
    tries = 0

    async def load() -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            preload.give_up()
        raise ModelLoadError("broken")

    preload = Preload(load, engine="fake")
    preload.start()
    for _ in range(50):
        await asyncio.sleep(0)
    assert tries == 3
    await preload.close()
