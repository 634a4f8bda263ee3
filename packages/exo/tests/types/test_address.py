from __future__ import annotations

import pytest

from exo.types.address import host_and_port


@pytest.mark.parametrize(
    ("host", "written"),
    [("board", "board:80"), ("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("[fe80::1]", "[fe80::1]:80")],
)
def test_only_an_ipv6_address_has_brackets(host: str, written: str) -> None:
    assert host_and_port(host, 80) == written
