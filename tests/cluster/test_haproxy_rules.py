"""What the rendered haproxy.cfg does with single requests: a real HAProxy before nodes that only tell what they got."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cluster_support.rules import ALIAS, ANSWERED, Cluster, cluster_of
from support import wait_until

pytestmark = pytest.mark.system
QUICK, DEEP = "qwen/quick:1b", "deep-7b"


@pytest.fixture
def two_models(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(tmp_path, "haproxy", [("a", [QUICK]), ("b", [DEEP])]) as cluster:
        yield cluster


@pytest.fixture
def alike(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(tmp_path, "haproxy", [("a", [QUICK]), ("b", [QUICK])], "max_body = 16384\n") as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("body", "node"),
    [
        (f'{{"model":"{QUICK}"}}', "a"),
        (f'{{"model":"{DEEP}"}}', "b"),
        (f'{{"model":"{DEEP.upper()}"}}', "b"),
        (f'{{"model":"{DEEP}:latest"}}', "b"),
        (f'{{"model":"{ALIAS}"}}', "a"),
        (r'{"model":"qwen\/quick:1b"}', "a"),
        (f'{{"messages":[{{"role":"user","content":"\\"model\\":\\"{QUICK}\\""}}],"model":"{DEEP}"}}', "b"),
        (f'{{"options":{{"model":"{QUICK}"}},"model":"{DEEP}"}}', "b"),
        (f' {{ "model" :\t"{DEEP}" }}', "b"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses"])
def test_a_request_goes_where_its_model_is(two_models: Cluster, path: str, body: str, node: str) -> None:
    answer = two_models.http.post(path, content=body)
    assert (answer.status_code, answer.json()["node"], answer.headers["x-exo-node"]) == (200, node, node)


def test_every_rule_of_a_model_on_one_proxy(two_models: Cluster) -> None:
    """Ollama's older name of the field, requests without a model, `auto`, listings of one model."""
    assert two_models.http.post("/api/show", json={"name": DEEP}).json()["node"] == "b"
    for body in ({}, {"model": ""}, {"model": "auto"}, {"model": None}):
        assert two_models.http.post("/v1/completions", json={"prompt": "Hello", **body}).json()["node"] in "ab"
    assert two_models.http.get(f"/v1/models/{DEEP}").json()["node"] == "b"
    assert two_models.http.get("/v1/models/qwen%2Fquick:1b").json()["node"] == "a"
    assert two_models.http.get("/v1/models/nothing").status_code == 404
    listed = two_models.http.get("/v1/models").json()
    assert [entry["id"] for entry in listed["data"]] == [QUICK, DEEP]
    assert [entry["name"] for entry in two_models.http.get("/api/tags").json()["models"]] == [QUICK, DEEP]


def test_quiet_nodes_of_both_pools_serve_requests_for_any_model(two_models: Cluster) -> None:
    seen = {two_models.node_of(f"Question {number}") for number in range(30)}
    assert seen == {"a", "b"}


def test_a_follow_up_for_any_model_stays_in_its_pool(two_models: Cluster) -> None:
    for number in range(6):
        first = two_models.node_of(f"Question {number}")
        assert [two_models.node_of(f"Question {number}", turn=turn) for turn in (2, 3, 4)] == [first] * 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/chat/completions", ("error", "message")),
        ("/v1/messages", ("error", "message")),
        ("/api/chat", ("error",)),
    ],
)
def test_a_model_that_nobody_has(two_models: Cluster, path: str, message: tuple[str, ...]) -> None:
    answer = two_models.http.post(path, json={"model": 'no "such\\ one', "messages": []})
    assert answer.status_code == 404
    said = answer.json()
    for key in message:
        said = said[key]
    assert 'no "such\\ one' in said
    assert f"{QUICK}, {DEEP}" in said
    assert "x-request-id" in answer.headers
    assert not any(node.asked for node in two_models.nodes.values())


def test_the_code_of_openai_for_a_model_that_nobody_has(two_models: Cluster) -> None:
    error = two_models.chat(model="x").json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("model_not_found", "not_found_error", "model")


def test_the_shape_of_anthropic_and_of_ollama_for_a_model_that_nobody_has(two_models: Cluster) -> None:
    text = f"No node has the model x. The models here: {QUICK}, {DEEP}. (model_not_found)"
    said = two_models.http.post("/v1/messages", json={"model": "x"}).json()
    assert said == {"type": "error", "error": {"type": "not_found_error", "message": text}}
    assert two_models.http.post("/api/chat", json={"model": "x"}).json() == {"error": text}


def test_what_concerns_one_node_is_refused(two_models: Cluster) -> None:
    for method, path in (
        ("POST", "/api/pull"),
        ("POST", "/API/Delete"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:1"),
        ("POST", "/v1/drain"),
        ("POST", "/v1/cluster/challenge"),
        ("GET", "/metrics"),
        ("POST", "/v1/%64rain"),
        ("GET", "/%6detrics"),
        ("POST", "/v1/%63luster/challenge"),
        ("DELETE", "/api%2fdelete"),
        ("POST", "/api/c%6Fpy"),
    ):
        answer = two_models.http.request(method, path, json={"model": QUICK})
        assert (answer.status_code, "that node itself" in answer.text) == (403, True), path
    assert not any(node.asked for node in two_models.nodes.values())


def test_bodies_over_the_limit(alike: Cluster) -> None:
    fitting = "x" * (16384 - len('{"messages":[{"role":"user","content":""}]}'))
    body = {"messages": [{"role": "user", "content": fitting}]}
    sent = json.dumps(body, separators=(",", ":")).encode()
    assert len(sent) == 16384
    headers = {"x-long": "y" * 30_000}
    assert alike.http.post("/v1/chat/completions", content=sent, headers=headers).status_code == 200
    assert alike.http.post("/v1/chat/completions", content=sent + b" ").status_code == 413
    assert alike.http.post("/v1/chat/completions", content=iter([sent, b" " * 500_000])).status_code == 413
    assert alike.http.get("/v1/models", headers={"x-long": "y" * 33_000}).status_code == 431
    (asked,) = alike.nodes["a"].asked + alike.nodes["b"].asked
    assert asked.body == body


def test_ids_and_keys_are_passed_on(alike: Cluster) -> None:
    own = {"x-request-id": "mine-1", "authorization": "Bearer a-key", "x-api-key": "another"}
    answer = alike.http.post("/v1/completions", json={"prompt": "Hello"}, headers=own)
    asked = alike.nodes[answer.json()["node"]].asked[-1]
    assert {name: asked.headers[name] for name in own} == own
    assert answer.headers["x-request-id"] == "mine-1"
    made = alike.http.post("/v1/completions", json={}, headers={"x-request-id": 'a "bad" one'})
    asked = alike.nodes[made.json()["node"]].asked[-1]
    assert made.headers["x-request-id"] == asked.headers["x-request-id"]
    assert len(asked.headers["x-request-id"]) == 36
    for two in ([("x-request-id", "good"), ("x-request-id", "b d")], [("x-request-id", "a,b")]):
        twice = alike.http.post("/v1/completions", json={}, headers=two)
        assert len(twice.headers["x-request-id"]) == 36


@pytest.mark.parametrize(
    "first",
    [
        {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "{}"}]},
        {"messages": [{"role": "user", "content": "{}"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "{}"}]}]},
        {"system": [{"type": "text", "text": "Be short."}], "messages": [{"role": "user", "content": "{}"}]},
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be short."}]},
                {"role": "user", "content": [{"type": "text", "text": "{}"}]},
            ]
        },
        {"messages": [{"role": "system", "content": "Sei kurz."}, {"role": "user", "content": "\u4f60\u597d {}"}]},
        {"input": "{}"},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "{}"}]}]},
        {"input": [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "{}"}]},
    ],
    ids=["system", "user", "parts", "anthropic", "developer", "escapes", "input", "input-parts", "input-developer"],
)
def test_follow_ups_go_to_the_node_of_the_first_turn(alike: Cluster, first: dict[str, Any]) -> None:
    """Whatever the shape; and different questions are spread over both nodes."""
    seen = []
    for number in range(8):
        body = json.loads(json.dumps(first).replace("{}", f"Question {number}"))
        nodes = [
            alike.http.post("/v1/chat/completions", json=sent).json()["node"] for sent in (body, *later_turns(body))
        ]
        assert nodes == [nodes[0]] * 3, body
        seen.append(nodes[0])
    assert sorted(seen) == ["a"] * 4 + ["b"] * 4


def later_turns(first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The second and the third turn of a conversation."""
    name = "input" if "input" in first else "messages"
    begin = first[name] if isinstance(first[name], list) else [{"role": "user", "content": first[name]}]
    for turns in (1, 2):
        yield {**first, name: [*begin, *ANSWERED * turns]}


def test_those_who_begin_with_the_same_words_are_spread_over_the_nodes(alike: Cluster) -> None:
    assert sorted(alike.node_of("Hello") for _ in range(8)) == ["a"] * 4 + ["b"] * 4


def test_conversations_of_different_keys_are_different(alike: Cluster) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    keys = [{"authorization": f"Bearer key-{number}"} for number in range(4)]
    first = [alike.http.post("/v1/chat/completions", json=body, headers=key).json()["node"] for key in keys]
    assert sorted(first) == ["a", "a", "b", "b"]
    for later in later_turns(body):
        assert [
            alike.http.post("/v1/chat/completions", json=later, headers=key).json()["node"] for key in keys
        ] == first


@pytest.mark.parametrize(
    "second",
    [
        {"messages": [{"role": "system", "content": "{}"}, {"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": "Hi"}], "system": "{}"},
        {"messages": [{"role": "user", "content": "Hi"}], "system": [{"type": "text", "text": "{}"}]},
        {"input": "Hi", "instructions": "{}"},
    ],
    ids=["message", "anthropic", "anthropic-parts", "instructions"],
)
def test_another_system_text_is_another_conversation(alike: Cluster, second: dict[str, Any]) -> None:
    bodies = [json.loads(json.dumps(second).replace("{}", f"You are {number}.")) for number in range(8)]
    nodes = [alike.http.post("/v1/chat/completions", json=body).json()["node"] for body in bodies]
    assert sorted(nodes) == ["a"] * 4 + ["b"] * 4


def test_what_goes_on_from_a_stored_response_goes_to_the_node_that_has_it(alike: Cluster) -> None:
    made = {
        alike.http.post("/v1/responses", json={"input": f"Question {number}"}).json()["node"] for number in range(6)
    }
    assert made == {"a", "b"}
    for node in ("a", "b", "a", "b"):
        body = {"previous_response_id": f"resp_{node}", "input": f"And from {node}?"}
        assert alike.http.post("/v1/responses", json=body).json()["node"] == node
        assert alike.http.get(f"/v1/responses/resp_{node}").json()["node"] == node
        assert alike.http.delete(f"/v1/responses/resp_{node}").json()["node"] == node


def test_listings_do_not_wait_behind_chats(alike: Cluster) -> None:
    """Each node is held by a chat, and one more waits; the listing is answered."""
    for node in alike.nodes.values():
        node.hold()
    chats = [threading.Thread(target=alike.chat, args=(f"Question {number}",)) for number in range(3)]
    for chat in chats:
        chat.start()
    wait_until(lambda: alike.came == 2, timeout=10, what="both nodes to have a chat")
    for path in ("/v1/models", "/api/tags", "/v1/models/x"):
        with contextlib.suppress(httpx2.ReadTimeout):  # the stand-in holds it, but it has come
            alike.http.get(path, timeout=0.3)
    wait_until(lambda: alike.came >= 4, timeout=10, what="the listings to reach the nodes")
    paths = [asked.path for node in alike.nodes.values() for asked in node.asked]
    assert paths.count("/v1/chat/completions") == 2
    for node in alike.nodes.values():
        node.let_go()
    for chat in chats:
        chat.join()
    assert sum(asked.path == "/v1/chat/completions" for node in alike.nodes.values() for asked in node.asked) == 3


def test_what_a_node_refuses_is_served_by_another_at_once(alike: Cluster) -> None:
    """Also the follow-ups of a conversation, which stay there then."""
    first = alike.node_of("Question")
    other = "b" if first == "a" else "a"
    alike.nodes[first].ready = False
    assert [alike.node_of("Question", turn=turn) for turn in (2, 3, 4)] == [other] * 3
    alike.nodes[first].ready = True
    assert alike.node_of("Question", turn=5) == other


def test_no_node_is_left(alike: Cluster) -> None:
    for node in alike.nodes.values():
        node.ready = False
    wait_until(lambda: alike.http.get("/ready").status_code == 503, timeout=20, what="HAProxy to see it")
    assert alike.http.get("/ready").json() == {"ready": False, "reason": "no node is ready"}
    answer = alike.chat()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("proxy_error", "server_error")
    assert (
        alike.http.post("/api/chat", json={"messages": []}).json()["error"].endswith("Try again later. (proxy_error)")
    )
    anthropic = alike.http.post("/v1/messages", json={"messages": []}).json()
    assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "api_error")
    assert alike.http.get("/healthcheck").status_code == 200
