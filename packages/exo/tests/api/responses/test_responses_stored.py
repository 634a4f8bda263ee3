"""Responses that are asked for again, continued and forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses.response_item_list import ResponseItemList
from responses_node import PATH, TIME, CapableEngine, Node, answered, call, create, events, last, refusal, send

from exo.api import HttpSettings, KeyRing
from exo.types import Delta, Message, ToolCall

PART = {"type": "input_text", "text": "b"}
ITEMS: list[dict[str, Any]] = [
    {"role": "developer", "content": "a"},
    {"role": "user", "content": [PART, PART]},
    {"type": "reasoning", "id": "rs_own", "summary": [{"type": "summary_text", "text": "s"}]},
    {"role": "assistant", "content": "c"},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "d"}]},
    {"type": "function_call", "call_id": "c1", "name": "time", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "12"},
    {"type": "function_call_output", "call_id": "c1", "output": [PART]},
]


async def get(node: Node, path: str, key: str = "") -> Any:
    response = await send(node, "GET", f"{PATH}/{path}", key=key)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_stored_response_comes_back_as_it_was() -> None:
    node = Node(CapableEngine([Delta(reasoning="hm"), "yes", last()]))
    whole = await answered(node, {"input": "hi"})
    streamed = events(await create(node, {"input": "hi", "stream": True}))[-1]["response"]
    assert await get(node, whole["id"]) == whole
    assert await get(node, f"{streamed['id']}?stream=false") == streamed
    again = await send(node, "GET", f"{PATH}/{whole['id']}?stream=true")
    assert refusal(again) == (400, "unsupported_parameter", "stream")


async def test_a_header_names_what_is_stored_for_proxies() -> None:
    node = Node(CapableEngine(["yes", last()]))
    for stream in (False, True):
        answer = await create(node, {"input": "hi", "stream": stream})
        stored = events(answer)[-1]["response"] if stream else answer.json()
        assert answer.headers["x-exo-response-id"] == stored["id"]
        assert (await get(node, stored["id"]))["id"] == stored["id"]
    assert "x-exo-response-id" not in (await create(node, {"input": "hi", "store": False})).headers
    assert "x-exo-response-id" not in (await create(node, {"input": "hi", "model": "none"})).headers


async def test_a_conversation_goes_on_with_all_that_was_said() -> None:
    engine = CapableEngine([Delta(reasoning="hm"), "I ask.", *call(0, "time", "{}"), last("tool_calls")])
    node = Node(engine)
    first = await answered(node, {"input": "what time is it", "tools": [TIME], "instructions": "Be brief."})
    engine.script = ["Noon.", last("length")]
    result = {"type": "function_call_output", "call_id": "call_time", "output": "12"}
    second = await answered(node, {"input": [result], "previous_response_id": first["id"]})
    engine.script = [last()]
    await answered(node, {"input": "thanks", "previous_response_id": second["id"], "instructions": "Be kind."})
    await answered(node, {"previous_response_id": first["id"]})
    turns = [
        Message(role="user", content="what time is it"),
        Message(
            role="assistant",
            content="I ask.",
            reasoning="hm",
            tool_calls=(ToolCall(id="call_time", name="time", arguments="{}"),),
        ),
        Message(role="tool", content="12", tool_call_id="call_time"),
        Message(role="assistant", content="Noon."),
        Message(role="user", content="thanks"),
    ]
    asked = [list(request.messages) for request in engine.requests]
    assert asked[0] == [Message(role="system", content="Be brief."), turns[0]]
    assert asked[1] == turns[:3]
    assert asked[2] == [Message(role="system", content="Be kind."), *turns]
    assert asked[3] == turns[:2]
    assert (second["status"], second["previous_response_id"]) == ("incomplete", first["id"])


async def test_what_is_not_there_is_404_and_says_what_to_do() -> None:
    node = Node(CapableEngine())
    unstored = await answered(node, {"input": "hi", "store": False})
    for name in ("resp_nobody", unstored["id"]):
        asked = await create(node, {"input": "hi", "previous_response_id": name})
        assert refusal(asked) == (400, "previous_response_not_found", "previous_response_id")
        assert name in asked.json()["error"]["message"]
        assert "store false" in asked.json()["error"]["message"]
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items")):
            assert refusal(await send(node, method, f"{PATH}/{name}{path}")) == (404, "not_found", None)
    assert refusal(await send(node, "PUT", f"{PATH}/resp_nobody"))[:2] == (405, "method_not_allowed")
    assert len(node.engine.requests) == 1


async def test_a_deleted_response_is_gone_but_not_what_follows_it() -> None:
    node = Node(CapableEngine())
    first = await answered(node, {"input": "a"})
    second = await answered(node, {"input": "b", "previous_response_id": first["id"]})
    deleted = await send(node, "DELETE", f"{PATH}/{first['id']}")
    assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
    assert (await send(node, "DELETE", f"{PATH}/{first['id']}")).status_code == 404
    await answered(node, {"input": "c", "previous_response_id": second["id"]})
    assert [message.content for message in node.engine.requests[-1].messages] == [
        "a",
        "Hello world",
        "b",
        "Hello world",
        "c",
    ]


async def test_keys_do_not_see_the_responses_of_others() -> None:
    settings = HttpSettings(port=0, grace=0.2, keys=KeyRing.from_plain(["one-key", "other-key"]))
    node = Node(CapableEngine(), settings)
    own = await answered(node, {"input": "secret"}, "one-key")
    path = f"{PATH}/{own['id']}"
    for method, where in (("GET", path), ("DELETE", path), ("GET", f"{path}/input_items")):
        assert (await send(node, method, where, key="other-key")).status_code == 404
    continued = await create(node, {"input": "hi", "previous_response_id": own["id"]}, "other-key")
    assert refusal(continued) == (400, "previous_response_not_found", "previous_response_id")
    assert await get(node, own["id"], "one-key") == own


async def test_the_items_of_an_input_are_listed() -> None:
    node = Node(CapableEngine())
    response = await answered(node, {"input": ITEMS})
    listed = await get(node, f"{response['id']}/input_items?order=asc")
    backwards = await get(node, f"{response['id']}/input_items")
    text = await answered(node, {"input": "hi", "previous_response_id": response["id"]})
    only_its_own = await get(node, f"{text['id']}/input_items")
    read = ResponseItemList.model_validate(listed, strict=True)
    assert [item.type for item in read.data] == [item.get("type", "message") for item in ITEMS]
    developer, user, reasoning, assistant, refused, called, result, results = listed["data"]
    assert (developer["role"], developer["content"]) == ("developer", [{"type": "input_text", "text": "a"}])
    assert user["content"] == [PART, PART]
    assert (reasoning["id"], reasoning["summary"], reasoning["content"]) == ("rs_own", ITEMS[2]["summary"], [])
    assert assistant["content"] == [{"type": "output_text", "text": "c", "annotations": [], "logprobs": []}]
    assert refused["content"] == [{"type": "refusal", "refusal": "d"}]
    assert (called["call_id"], called["name"], called["arguments"]) == ("c1", "time", "{}")
    assert (result["output"], results["output"]) == ("12", [PART])
    assert backwards["data"] == listed["data"][::-1]
    assert len({item["id"] for item in listed["data"]}) == len(ITEMS)
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (developer["id"], results["id"], False)
    assert [item["content"] for item in only_its_own["data"]] == [[{"type": "input_text", "text": "hi"}]]


async def test_a_list_comes_in_pages() -> None:
    node = Node(CapableEngine())
    response = await answered(node, {"input": [{"role": "user", "content": str(number)} for number in range(5)]})
    path = f"{response['id']}/input_items?order=asc&limit=2"
    pages = [await get(node, path)]
    while pages[-1]["has_more"]:
        pages.append(await get(node, f"{path}&after={pages[-1]['last_id']}"))
    end = await get(node, f"{path}&after={pages[-1]['last_id']}")
    assert [[item["content"][0]["text"] for item in page["data"]] for page in pages] == [["0", "1"], ["2", "3"], ["4"]]
    assert end == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=many", "order=random", "after=msg_nobody"])
async def test_a_query_that_makes_no_sense_is_refused(query: str) -> None:
    node = Node(CapableEngine())
    response = await answered(node, {"input": "hi"})
    asked = await send(node, "GET", f"{PATH}/{response['id']}/input_items?{query}")
    assert refusal(asked) == (400, "invalid_request", query.partition("=")[0])


async def test_the_openapi_document_tells_of_the_paths() -> None:
    node = Node(CapableEngine())
    document = (await send(node, "GET", "/openapi.json")).json()
    assert set(document["paths"][PATH]) == {"post"}
    assert set(document["paths"][f"{PATH}/{{id}}"]) == {"get", "delete"}
    assert set(document["paths"][f"{PATH}/{{id}}/input_items"]) == {"get"}
    assert "text/event-stream" in document["paths"][PATH]["post"]["responses"]["200"]["content"]
