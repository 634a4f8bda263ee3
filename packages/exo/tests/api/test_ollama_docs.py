"""docs/OLLAMA_COMPAT.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from ollama_engine import OllamaEngine

from exo.api import HttpSettings
from exo.api.ollama.operations import OLLAMA_OPERATIONS
from exo.api.ollama.routes import Ollama
from exo.inference import InferenceService, NodeMetrics

DOCUMENT = Path(__file__).parents[4] / "docs" / "OLLAMA_COMPAT.md"


def sections() -> dict[str, str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return dict(re.findall(r"^##+ ([^\n]*)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))


def test_every_path_is_documented_here_and_in_openapi() -> None:
    engine = OllamaEngine()
    service = InferenceService(engine, NodeMetrics(engine.context.registry))
    routes = set()
    for route in Ollama(service, HttpSettings()).routes():
        methods = route.methods or set()
        routes |= {(method, route.path) for method in methods - ({"HEAD"} if "GET" in methods else set())}
    assert {f"`{method} {path}`" for method, path in routes} <= set(sections())
    assert routes == {(operation.method.upper(), operation.path) for operation in OLLAMA_OPERATIONS}
