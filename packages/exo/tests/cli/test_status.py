from __future__ import annotations

from pathlib import Path

import pytest

from exo.cli.build import build_service
from exo.cli.status import status_text
from exo.inference import choose, discover


async def test_the_status_line_says_what_the_node_does(tmp_path: Path) -> None:
    plugins = discover(lambda group: [])
    service = build_service(plugins, choose(plugins, "dummy", {}), tmp_path, {})
    text = (await status_text(service, "http://127.0.0.1:1")).plain
    assert "http://127.0.0.1:1 ● ready" in text
    assert "dummy: dummy  running 0/4  queued 0" in text
    await service.drain(0)
    assert "not ready" in (await status_text(service, "http://127.0.0.1:1")).plain


@pytest.mark.parametrize(("number", "shown"), [(0, ""), (8192, "8192"), (134_515_008, "135M"), (1_540_000_000, "1.5B")])
def test_counts_are_shown_in_few_characters(number: int, shown: str) -> None:
    from exo.cli.store import _count

    assert _count(number) == shown
