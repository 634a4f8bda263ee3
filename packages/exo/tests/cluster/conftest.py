from __future__ import annotations

import secrets

import pytest

from exo.cluster.membership import mdns


@pytest.fixture(autouse=True)
def own_service_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback belongs to all processes of the machine: so nodes of other tests are none of these."""
    monkeypatch.setattr(mdns, "SERVICE_TYPE", f"_exo-{secrets.token_hex(4)}._tcp.local.")
