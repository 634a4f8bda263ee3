"""docs/OLLAMA_COMPAT.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from ollama_engine import OllamaEngine

from exo.api import HttpSettings
from exo.api.ollama import schema
from exo.api.ollama.operations import OLLAMA_OPERATIONS
from exo.api.ollama.options import ONLY_DEFAULT, WITHOUT_EFFECT
from exo.api.ollama.routes import Ollama
from exo.inference import InferenceService, NodeMetrics

DOCUMENT = Path(__file__).parents[4] / "docs" / "OLLAMA_COMPAT.md"
KINDS = {"honoured", "default only", "refused", "no effect"}
TABLES: dict[str, type[msgspec.Struct]] = {
    "`messages`": schema.OllamaMessage,
    "`options`": schema.Options,
    "`tools`": schema.OllamaTool,
    "`tools[].function`": schema.OllamaToolFunction,
    **{
        f"`{operation.method.upper()} {operation.path}`": operation.request
        for operation in OLLAMA_OPERATIONS
        if operation.request is not None and issubclass(operation.request, msgspec.Struct)
    },
}


def sections() -> dict[str, str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return dict(re.findall(r"^##+ ([^\n]*)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))


def rows(heading: str) -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) ?\|$", sections()[heading], re.MULTILINE)
    return {name: (kind, note) for name, kind, note in found}


@pytest.mark.parametrize("heading", TABLES)
def test_every_field_is_in_its_table_and_no_other(heading: str) -> None:
    assert sorted(rows(heading)) == sorted(field.encode_name for field in msgspec.structs.fields(TABLES[heading]))
    assert {kind for kind, _ in rows(heading).values()} <= KINDS


def test_options_are_what_the_code_makes_of_them() -> None:
    table = rows("`options`")
    without_effect = {name for name, (kind, _) in table.items() if kind == "no effect"}
    assert without_effect == {*WITHOUT_EFFECT, "mirostat_tau", "mirostat_eta"}
    defaults = {name: note for name, (kind, note) in table.items() if kind == "default only"}
    assert defaults == {
        name: str(value).lower() if isinstance(value, bool) else f"{value:g}" for name, value in ONLY_DEFAULT.items()
    }


def test_every_path_is_documented_in_both_places() -> None:
    engine = OllamaEngine()
    service = InferenceService(engine, NodeMetrics(engine.context.registry))
    routes = set()
    for route in Ollama(service, HttpSettings()).routes():
        methods = route.methods or set()
        routes |= {(method, route.path) for method in methods - ({"HEAD"} if "GET" in methods else set())}
    assert {f"`{method} {path}`" for method, path in routes} <= set(sections())
    assert routes == {(operation.method.upper(), operation.path) for operation in OLLAMA_OPERATIONS}
