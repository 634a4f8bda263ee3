"""What the tests of a cluster share. Every test here needs root and Debian packages: mark its module `system`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_support.network import Lab
from support import run_well


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A network for one test."""
    with Lab(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A network for the tests of one module, with what they start in it."""
    with Lab(tmp_path_factory.mktemp("lab")) as one:
        yield one


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", folder / "key")
    run_well("openssl", "req", "-x509", *key, "-days", "2", *names, "-out", folder / "chain")
    pem = folder / "exo.pem"
    pem.write_text((folder / "chain").read_text() + (folder / "key").read_text())
    return pem
