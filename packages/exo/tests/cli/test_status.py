from __future__ import annotations

from pathlib import Path

import pytest

from exo.cli.build import build_service
from exo.cli.status import status_text
from exo.inference import choose, discover


async def test_the_status_line_says_what_the_node_does(tmp_path: Path) -> None:
    plugins = discover(lambda group: [])
    service = build_service(plugins, choose(plugins, "dummy", {}), tmp_path, {})
    text = (await status_text(service, "exo 1.2.3", "http://127.0.0.1:1")).plain
    assert text == " exo 1.2.3  running 0/4  queued 0  ● ready  dummy: dummy  http://127.0.0.1:1"
    await service.end(0)
    text = (await status_text(service, "exo 1.2.3", "http://127.0.0.1:1")).plain
    assert text == " exo 1.2.3  running 0/4  queued 0  ● shutting down  http://127.0.0.1:1"


async def test_a_model_that_is_being_loaded(tmp_path: Path) -> None:
    plugins = discover(lambda group: [])
    service = build_service(plugins, choose(plugins, "dummy", {}), tmp_path, {})
    service.start()
    try:
        assert "● loading the default model" in (await status_text(service, "exo", "http://127.0.0.1:1")).plain
    finally:
        await service.close()


@pytest.mark.parametrize(("number", "shown"), [(0, ""), (8192, "8192"), (134_515_008, "135M"), (1_540_000_000, "1.5B")])
def test_counts_are_shown_in_few_characters(number: int, shown: str) -> None:
    from exo.inference import count_text

    assert count_text(number) == shown
