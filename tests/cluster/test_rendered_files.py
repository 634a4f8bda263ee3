"""The rendered files, checked by the programs that they are for, wherever they lie."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exo.cluster.render import render
from support import REPOSITORY, run

pytestmark = pytest.mark.system
EXAMPLE = REPOSITORY / "deploy/cluster.example.toml"
CHECKS = {
    "haproxy": ("haproxy", "-c", "-f", "haproxy.cfg"),
    "nginx": ("nginx", "-t", "-c", "nginx.conf"),
    "prometheus": ("promtool", "check", "config", "prometheus.yml"),
}


def check(kind: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the check of the program from another directory."""
    *command, name = CHECKS[kind]
    return run(*command, folder / name, cwd=Path("/"))


def written(kind: str, inventory: str, folder: Path) -> Path:
    (folder / "cluster.toml").write_text(inventory, encoding="utf-8")
    for file in render(kind, folder / "cluster.toml"):
        file.write(folder)
    return folder


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("extra", ["", "tls", "keys"])
def test_the_example_is_valid_without_a_warning(kind: str, extra: str, tmp_path: Path, certificate: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    if extra == "tls":
        text += f'\n[tls]\ncertificate = "{certificate}"\n'
    if extra == "keys":
        text = text.replace("[keys]", '[keys]\nnodes = "a\\"b:#{}"\nstats = "me:a-word"')
    done = check(kind, written(kind, text, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower()


_MODEL = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,30}", fullmatch=True).filter(
    lambda model: model.lower() != "auto"
)
_NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_LABEL = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,10}", fullmatch=True).filter(
    lambda name: name not in {"node", "instance", "job"}
)
_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20)
_ADDRESS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@st.composite
def inventories(draw: st.DrawFn) -> str:
    """Valid ones of every kind; TOML's strings are written as JSON's, which is the same for these characters."""
    models = draw(st.lists(_MODEL, min_size=1, max_size=50, unique_by=str.lower))
    names = draw(st.lists(_NAME, min_size=1, max_size=6, unique_by=str.lower))
    addresses = draw(st.lists(_ADDRESS, min_size=len(names), max_size=len(names), unique=True))
    tables = []
    for name, address in zip(names, addresses):
        own = draw(st.lists(st.sampled_from(models), min_size=1, max_size=50, unique=True))
        labels = draw(st.dictionaries(_LABEL, _TEXT, max_size=2))
        values: dict[str, Any] = {
            "name": name,
            "address": address,
            "models": own,
            "port": draw(st.integers(1, 65535)),
            "slots": draw(st.integers(1, 1024)),
            "weight": draw(st.integers(1, 256)),
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        inner = ", ".join(
            f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in labels.items()
        )
        tables.append("\n".join(["[[nodes]]", *lines, f"labels = {{ {inner} }}"]))
    return "\n".join(tables)


def _is_reserved(text: str) -> bool:
    return any(f'name = "{word}"' in text.lower() for word in ("backend", "frontend"))


@pytest.mark.parametrize("kind", ["haproxy", "prometheus"])
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=inventories().filter(lambda text: not _is_reserved(text)))
def test_every_valid_inventory_gives_a_valid_file(kind: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = check(kind, written(kind, text, Path(folder)))
        assert done.returncode == 0, f"{done.stderr}\n{text}"


def test_host_names_that_nobody_can_resolve_keep_nobody_from_starting(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace("192.0.2.12", "board-2.example.invalid")
    done = check("haproxy", written("haproxy", text, tmp_path))
    assert done.returncode == 0, done.stderr
