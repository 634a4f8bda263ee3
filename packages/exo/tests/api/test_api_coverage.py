"""docs/API_COVERAGE.md says what the code does with each field of each dialect."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai_engine import OpenAIEngine, post
from scripted_server import CHAT, running

from exo.api.anthropic import schema as anthropic
from exo.api.anthropic.fields import BLOCKS, COUNT_TOKENS, MESSAGES
from exo.api.fields import Fields, Handling
from exo.api.ollama import schema as ollama
from exo.api.ollama.options import ONLY_DEFAULT, WITHOUT_EFFECT
from exo.api.openai import fields as openai_fields
from exo.api.openai import schema as openai
from exo.api.openapi import document
from exo.api.responses import schema as responses
from exo.api.responses.fields import RESPONSES

DOCUMENT = Path(__file__).parents[4] / "docs" / "API_COVERAGE.md"
KINDS = {"honoured", "default only", "refused", "ignored"}
TABLES: dict[str, Fields] = {
    "`POST /v1/chat/completions`": openai_fields.CHAT,
    "`POST /v1/completions`": openai_fields.COMPLETIONS,
    "`POST /v1/embeddings`": openai_fields.EMBEDDINGS,
    "`POST /v1/responses`": RESPONSES,
    "`POST /v1/messages`": MESSAGES,
    "`POST /v1/messages/count_tokens`": COUNT_TOKENS,
    "`messages[].content[]` of Anthropic": BLOCKS,
}
"""Where the table is in the code too."""
NESTED: dict[str, type[msgspec.Struct]] = {
    "`messages[]`": openai.ChatMessage,
    "`messages[].tool_calls[]`": openai.CallOfTool,
    "`tools[].function`": openai.FunctionIn,
    "`response_format`": openai.ResponseFormat,
    "`response_format.json_schema`": openai.JsonSchema,
    "`stream_options`": openai.StreamOptions,
    "`tools[]` of Responses": responses.ResponseTool,
    "`text.format`": responses.ResponseTextFormat,
    "`reasoning`": responses.ResponseReasoning,
    "`GET /v1/responses/{id}/input_items`": responses.ItemsQuery,
    "`tools[]` of Anthropic": anthropic.AnthropicTool,
    "`output_config`": anthropic.OutputConfig,
    "`messages[]` of Ollama": ollama.OllamaMessage,
    "`tools[]` of Ollama": ollama.OllamaTool,
    "`tools[].function` of Ollama": ollama.OllamaToolFunction,
    "`options`": ollama.Options,
}
TAGGED: dict[str, Any] = {
    "`messages[].content[]`": openai.Part,
    "`tools[]`": openai.FunctionTool | openai.CustomTool,
    "`tool_choice` of Anthropic": anthropic.ChooseAuto
    | anthropic.ChooseAny
    | anthropic.ChooseTool
    | anthropic.ChooseNone,
    "`thinking`": anthropic.ThinkingEnabled | anthropic.ThinkingAdaptive | anthropic.ThinkingDisabled,
}
"""Tables by the `type` of what stands at that place."""
USER = {"role": "user", "content": "hi"}
REFUSED_INSIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "messages[]/audio": ("/v1/chat/completions", {"messages": [{**USER, "audio": {"id": "a"}}]}),
    "messages[]/function_call": ("/v1/chat/completions", {"messages": [{**USER, "function_call": {"name": "f"}}]}),
    **{
        f"messages[].content[]/{kind}": (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": kind, kind: {}}]}]},
        )
        for kind in ("image_url", "input_audio", "file")
    },
    "tools[]/custom": ("/v1/chat/completions", {**CHAT, "tools": [{"type": "custom"}]}),
    "tool_choice/custom": ("/v1/chat/completions", {**CHAT, "tool_choice": {"type": "custom"}}),
    "input[]/item_reference": ("/v1/responses", {"input": [{"type": "item_reference", "id": "a"}]}),
    **{
        f"input[].content[]/{kind}": ("/v1/responses", {"input": [{"role": "user", "content": [{"type": kind}]}]})
        for kind in ("input_image", "input_file", "input_audio")
    },
    "messages[] of Ollama/images": ("/api/chat", {"model": "one", "messages": [{**USER, "images": ["aGk="]}]}),
}


def sections() -> dict[str, str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return dict(re.findall(r"^###+ ([^\n]*)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))


def rows(heading: str) -> dict[str, tuple[str, str]]:
    """The kind and the note, by the name."""
    found = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) ?\|$", sections()[heading], re.MULTILINE)
    return {name: (kind, note) for name, kind, note in found}


def as_row(handling: Handling) -> tuple[str, str]:
    accepted = ", ".join(f"`{json.dumps(value)}`" for value in handling.accepted)
    return handling.kind, f"{handling.note} Accepted: {accepted}." if accepted else handling.note


def test_every_section_is_held_to_something() -> None:
    held = {*TABLES, *NESTED, *TAGGED, *_requests(), "`input[]`", "`input[].content[]`", "`tool_choice`"}
    assert set(sections()) == held
    assert {kind for heading in sections() for kind, _ in rows(heading).values()} == KINDS


@pytest.mark.parametrize("heading", TABLES)
def test_the_tables_are_those_of_the_code(heading: str) -> None:
    table = rows(heading)
    assert table == {name: as_row(handling) for name, handling in TABLES[heading].items()}
    assert list(table) == list(TABLES[heading])


@pytest.mark.parametrize("heading", NESTED)
def test_every_field_of_what_is_nested_has_its_row_and_no_other(heading: str) -> None:
    assert sorted(rows(heading)) == sorted(field.encode_name for field in msgspec.structs.fields(NESTED[heading]))


@pytest.mark.parametrize("heading", TAGGED)
def test_every_type_has_its_row_and_no_other(heading: str) -> None:
    assert set(rows(heading)) == {str(kind.__struct_config__.tag) for kind in TAGGED[heading].__args__}


def test_every_request_has_its_table() -> None:
    """And a table has every field that is read, for OpenAI and Anthropic also those that are not."""
    for heading, kind in _requests().items():
        assert set(rows(heading)) >= kind, heading
        assert heading in TABLES or set(rows(heading)) == kind, heading


def _requests() -> dict[str, set[str]]:
    """The fields of every request of the OpenAPI document, by the heading of their table."""
    made = document()
    found = {}
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                shape = made["components"]["schemas"][reference.rpartition("/")[2]]
                found[f"`{method.upper()} {path}`"] = set(shape["properties"])
    return found


def test_options_are_what_the_code_makes_of_them() -> None:
    table = rows("`options`")
    ignored = {name for name, (kind, _) in table.items() if kind == "ignored"}
    assert ignored == {*WITHOUT_EFFECT, "mirostat_tau", "mirostat_eta"}
    defaults = {name: note for name, (kind, note) in table.items() if kind == "default only"}
    assert defaults == {
        name: str(value).lower() if isinstance(value, bool) else f"{value:g}" for name, value in ONLY_DEFAULT.items()
    }


def test_every_refusal_inside_a_field_is_tried() -> None:
    refused = {
        f"{heading.replace('`', '')}/{name}"
        for heading in sections()
        if heading not in TABLES and heading not in _requests()
        for name, (kind, _) in rows(heading).items()
        if kind == "refused"
    }
    assert refused == set(REFUSED_INSIDE)


@pytest.mark.parametrize("row", REFUSED_INSIDE)
async def test_what_is_refused_inside_a_field_is_refused_by_name(row: str) -> None:
    path, body = REFUSED_INSIDE[row]
    async with running(OpenAIEngine()) as node:
        response = await post(node, path, body)
    assert response.status_code == 400, response.text
    assert "unsupported_parameter" in response.text
