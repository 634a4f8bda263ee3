"""Real nodes with different models behind the rendered HAProxy: every request reaches a node that has its model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import ollama
import openai
import pytest

from cluster_support.load import Load, by_node, converse, is_whole, questions, same_node_share
from cluster_support.network import Lab
from cluster_support.nodes import all_ready, dummy_node, npu_node
from cluster_support.rendered import RenderedHaproxy, haproxy_before
from support import wait_until

pytestmark = pytest.mark.system
QUICK, DEEP = "qwen2.5-1.5b-instruct-rkllm", "qwen2.5-3b-rkllm"
QUICK_ALIAS, DEEP_ALIAS = "Qwen2.5-1.5B-Instruct", "Qwen2.5-3B-Instruct"
"""On the cards of exo_rkllm, so that the nodes know them."""
SERVING = {QUICK: {"quick-1", "both"}, DEEP: {"deep-1", "both"}}


@dataclass
class Mixed:
    proxy: RenderedHaproxy
    http: httpx2.Client

    def node_of(self, **body: object) -> str:
        answer = self.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}], **body})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"].split()[0])


def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)


@pytest.fixture(scope="module")
def mixed(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """Three boards: one has the one model, one the other, and one has both."""
    nodes = [
        npu_node(shared_lab, "quick-1", models=(QUICK,), tokens=12),
        npu_node(shared_lab, "deep-1", models=(DEEP,), tokens=12),
        npu_node(shared_lab, "both", models=(QUICK, DEEP), tokens=12),
    ]
    all_ready(nodes)
    tables = f'[aliases]\n"{QUICK_ALIAS}" = "{QUICK}"\n"{DEEP_ALIAS}" = "{DEEP}"\n'
    proxy = haproxy_before(nodes, tmp_path_factory.mktemp("proxy"), tables=tables)
    with httpx2.Client(base_url=proxy.url, trust_env=False, timeout=60) as http:
        yield Mixed(proxy, http)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        (QUICK, QUICK),
        (DEEP, DEEP),
        (QUICK_ALIAS, QUICK),
        (DEEP_ALIAS, DEEP),
        (DEEP_ALIAS.upper(), DEEP),
        (f"{DEEP}:latest", DEEP),
    ],
)
def test_a_model_or_alias_reaches_a_node_that_has_it(mixed: Mixed, name: str, model: str) -> None:
    """Under load, so that the pool with both models is used as well."""
    with Load(mixed.proxy.url, questions(40, topic=name, model=name), at_once=10) as load:
        chats = load.wait()
    assert all(is_whole(chat) for chat in chats), [chat.problem for chat in chats]
    assert set(by_node(chats)) == SERVING[model]


def test_both_models_at_the_same_time(mixed: Mixed) -> None:
    with (
        Load(mixed.proxy.url, questions(40, topic="Quick", model=QUICK), at_once=10) as quick,
        Load(mixed.proxy.url, questions(40, topic="Deep", model=DEEP), at_once=10) as deep,
    ):
        served = {QUICK: quick.wait(), DEEP: deep.wait()}
    for model, chats in served.items():
        assert all(is_whole(chat) for chat in chats), [chat.problem for chat in chats]
        assert set(by_node(chats)) <= SERVING[model]
    nodes = set(by_node([*served[QUICK], *served[DEEP]]))
    assert nodes == {"quick-1", "deep-1", "both"}


def test_no_model_and_auto_are_served_by_any_node(mixed: Mixed) -> None:
    for body in ({}, {"model": "auto"}, {"model": "Auto"}, {"model": None}):
        assert mixed.node_of(**body) in {"quick-1", "deep-1", "both"}


def test_a_model_nobody_has_is_told_with_those_there_are(mixed: Mixed) -> None:
    """By the proxy, to official clients, and in the shape of their dialects."""
    with (
        openai_client(mixed.proxy.url) as client,
        pytest.raises(openai.NotFoundError, match=f"{QUICK}, {DEEP}") as refused,
    ):
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "Hi"}])
    assert refused.value.code == "model_not_found"
    with (
        ollama.Client(mixed.proxy.url) as tags,
        pytest.raises(ollama.ResponseError, match=f"{QUICK}, {DEEP}") as missing,
    ):
        tags.chat("gpt-4", [{"role": "user", "content": "Hi"}])
    assert missing.value.status_code == 404
    anthropic = mixed.http.post("/v1/messages", json={"model": "gpt-4", "messages": []})
    assert (anthropic.status_code, anthropic.json()["type"]) == (404, "error")


def test_official_clients_list_and_use_the_models_of_all_nodes(mixed: Mixed) -> None:
    with openai_client(mixed.proxy.url) as client:
        assert {model.id for model in client.models.list()} == {QUICK, DEEP}
        for model, nodes in SERVING.items():
            said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
            assert (said.choices[0].message.content or "").split()[0] in nodes
    with ollama.Client(mixed.proxy.url) as tags:
        assert {entry.model for entry in tags.list().models} == {QUICK, DEEP}
        for model, nodes in SERVING.items():
            chat = tags.chat(model, [{"role": "user", "content": "Hi"}])
            assert (chat.message.content or "").split()[0] in nodes


def test_conversations_stay_where_they_began(lab: Lab, tmp_path: Path) -> None:
    """At full load; the bench has the figures of more users."""
    nodes = [dummy_node(lab, f"n{number}", tokens=8) for number in range(3)]
    all_ready(nodes)
    talks = converse(haproxy_before(nodes, tmp_path).url, users=12, turns=5)
    chats = [chat for talk in talks for chat in talk]
    assert [len(talk) for talk in talks] == [5] * 12
    assert all(is_whole(chat) for chat in chats)
    assert same_node_share(talks) >= 0.95
    first = by_node(talk[0] for talk in talks)
    assert max(first.values()) <= 1.25 * 12 / 3 + 1, first


def test_a_stored_response_goes_on_at_its_node(lab: Lab, tmp_path: Path) -> None:
    nodes = [dummy_node(lab, f"n{number}") for number in range(3)]
    all_ready(nodes)
    with openai_client(haproxy_before(nodes, tmp_path).url) as client:
        for number in range(6):
            first = client.responses.create(model="dummy", input=f"Question {number}")
            second = client.responses.create(model="dummy", input="And then?", previous_response_id=first.id)
            assert second.output_text.split()[0] == first.output_text.split()[0]
            assert client.responses.retrieve(first.id).output_text == first.output_text
            client.responses.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(first.id)


def test_the_id_of_a_request_is_in_the_log_of_the_proxy_and_of_the_node(lab: Lab, tmp_path: Path) -> None:
    nodes = [dummy_node(lab, f"n{number}", "--log-json") for number in range(2)]
    all_ready(nodes)
    proxy = haproxy_before(nodes, tmp_path)
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    answer = httpx2.post(
        f"{proxy.url}/v1/chat/completions", json=body, headers={"x-request-id": "mine-17"}, trust_env=False
    )
    assert answer.headers["x-request-id"] == "mine-17"
    served = next(node for node in nodes if node.name == answer.headers["x-exo-node"])
    wait_until(lambda: "mine-17" in served.process.log, timeout=10, what="the node to log the request")
    (line,) = [line for line in served.process.log.splitlines() if "mine-17" in line]
    assert json.loads(line)["path"] == "/v1/chat/completions"
    wait_until(lambda: "mine-17" in proxy.program.log, timeout=10, what="HAProxy to log the request")


def test_waiting_for_a_slot_is_not_waiting_for_a_byte(lab: Lab, tmp_path: Path) -> None:
    """A request may wait longer than an answer may be silent: no slot is given twice, as by two threads at once."""
    node = dummy_node(lab, "slow", tokens=8, rate=2)
    all_ready([node])
    proxy = haproxy_before([node], tmp_path, answer_timeout=2)
    with Load(proxy.url, questions(3), at_once=3) as load:
        chats = load.wait()
    assert all(is_whole(chat) for chat in chats), [chat.problem or chat.status for chat in chats]
