"""Sizes as people write them."""

from __future__ import annotations

import pytest

from rkllm_converter.units import parsed_mb


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("8G", 8192), ("8 GiB", 8192), ("8gb", 8192), (" 512M ", 512), ("0.5G", 512), ("1.5 mib", 1.5)),
        *(
            (text, None)
            for text in ("8", "", "G", "0G", "0.0M", "-8G", "8T", "8\nG", "8GG", "٣G", "1e3G", "9" * 400 + "G")
        ),
    ],
)
def test_a_size(text: str, size: float | None) -> None:
    assert parsed_mb(text) == size
