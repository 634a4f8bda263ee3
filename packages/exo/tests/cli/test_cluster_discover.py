from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from exo.cli import cluster_discover
from exo.cli.main import main
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.verification import Refused, Verified

INVENTORY = '[[nodes]]\nname = "n1"\naddress = "192.0.2.1"\nmodels = ["m"]\n'
N1 = Sighting("i1", NodeDescription("n1", "1.0", "rkllm", 1, ("m",)), ("192.0.2.1",), 52415)
N2 = Sighting(
    "i2", NodeDescription("n2", "1.0", "dummy", 4, ("m", "k")), ("192.0.2.2", "2001:db8::2"), 80, more_models=3
)
EVIL = Sighting("i3", NodeDescription("n3", "\x1b[31m", "\x9b2J", 1, ("\u202em\n",)), ("192.0.2.3",), 1)


def see(
    patch: pytest.MonkeyPatch, *sightings: Sighting, proofs: Mapping[str, Verified | Refused] | None = None
) -> None:
    @contextlib.asynccontextmanager
    async def browsing() -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(sightings={one.instance: one for one in sightings})

    async def verify(sighting: Sighting, *args: object) -> Verified | Refused:
        return (proofs or {})[sighting.instance]

    patch.setattr(cluster_discover, "browsing", browsing)
    patch.setattr(cluster_discover, "verify_sighting", verify)


def discover(*flags: str) -> int:
    return main(["cluster", "discover", "--seconds", "0.001", *flags])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_node_with_its_standing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "secret").write_text("0123456789abcdef0123456789abcdef")
    (folder / "secret").chmod(0o600)
    (folder / "cluster.toml").write_text(f'secret_file = "secret"\n{INVENTORY}')
    proven = Verified(N2.node, "192.0.2.2", 80)
    refused = Refused("it has no cluster secret", reachable=True)
    see(monkeypatch, N2, N1, EVIL, proofs={"i1": refused, "i2": proven, "i3": refused})
    assert discover() == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert [line.split() for line in shown.out.splitlines()] == [
        ["NODE", "ADDRESS", "VERSION", "ENGINE", "SLOTS", "MODELS", "STANDING"],
        ["n1", "192.0.2.1:52415", "1.0", "rkllm", "1", "m", "listed"],
        ["n2", "192.0.2.2:80", "1.0", "dummy", "4", "m,", "k", "verified"],
        ["n3", "192.0.2.3:1", "[31m", "2J", "1", "m", *["unknown:", "it", "has", "no", "cluster", "secret"]],
    ]
    assert discover("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["standing"]) for one in found] == [
        ("n1", "listed"),
        ("n2", "verified"),
        ("n3", "unknown"),
    ]


def test_without_an_inventory_all_are_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    see(monkeypatch, N2)
    assert discover() == 0
    shown = capsys.readouterr()
    assert "m, k, and 3 more  unknown: it was not asked" in shown.out
    assert "192.0.2.2:80, [2001:db8::2]:80" in shown.out
    assert "no cluster.toml here" in shown.err


def test_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    see(monkeypatch)
    assert discover() == 0
    assert "No node has shown itself within 0.001 seconds" in capsys.readouterr().out
    assert discover("--json") == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--seconds", "soon"], "--seconds: expected"), (["-i", "nowhere.toml"], "no inventory nowhere.toml")],
)
def test_a_mistake_is_one_sentence(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "discover", *flags]) == 2
    assert said in capsys.readouterr().err
