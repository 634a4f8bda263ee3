"""What the official clients make of a stream that breaks in the middle: they raise, and do not take it for complete."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from cluster_support.failures import paced_nodes
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode
from cluster_support.programs import NginxProcess
from cluster_support.rendered import RenderedHaproxy, haproxy_before, nginx_before
from support import REPOSITORY, own_environment, wait_until

pytestmark = pytest.mark.system
BEFORE: dict[str, Callable[..., RenderedHaproxy | NginxProcess]] = {"haproxy": haproxy_before, "nginx": nginx_before}
MESSAGES: Any = [{"role": "user", "content": "Tell me a long story."}]
WHOLE = f"""
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
client.chat.completions.create(model="dummy", messages={MESSAGES})
"""
ANTHROPIC = f"""
import sys, anthropic
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
with client.messages.stream(model="dummy", max_tokens=4000, messages={MESSAGES}) as stream:
    for text in stream.text_stream:
        print(text, flush=True)
"""


@dataclass(frozen=True)
class Cluster:
    """A node, and the address of the proxy before it."""

    node: ClusterNode
    url: str


@pytest.fixture(params=BEFORE)
def cluster(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Cluster:
    """One node behind a proxy."""
    (node,) = nodes = paced_nodes(lab, 1, tokens=10_000)
    return Cluster(node, BEFORE[request.param](nodes, tmp_path).url)


def chat_of_openai(url: str) -> Iterator[object]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with client, client.chat.completions.create(model="dummy", messages=MESSAGES, stream=True) as stream:
        yield from stream


def response_of_openai(url: str) -> Iterator[object]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with client, client.responses.create(model="dummy", input=MESSAGES, stream=True) as stream:
        yield from stream


def chat_of_ollama(url: str) -> Iterator[object]:
    yield from ollama.Client(host=url).chat("dummy", messages=MESSAGES, stream=True)


@pytest.mark.parametrize("chat", [chat_of_openai, response_of_openai, chat_of_ollama])
def test_a_stream_that_breaks(cluster: Cluster, chat: Callable[[str], Iterator[object]]) -> None:
    stream = chat(cluster.url)
    for _ in range(5):
        next(stream)
    cluster.node.kill()
    with pytest.raises((openai.APIError, httpx.HTTPError, ollama.ResponseError)):
        list(stream)


def test_an_answer_as_a_whole_that_breaks(cluster: Cluster) -> None:
    """With a status of its own: nothing of it was sent."""
    *_, last = killed_while(cluster, (Path(sys.executable), "-c", WHOLE), said="")
    assert last.startswith("openai.InternalServerError")


def test_a_stream_of_anthropic_that_breaks(cluster: Cluster) -> None:
    python = own_environment(REPOSITORY / "tests/clients")
    first, *_, last = killed_while(cluster, (python, "-c", ANTHROPIC), said="n1")
    assert first == "n1 "
    assert "Error: " in last


def killed_while(cluster: Cluster, command: tuple[Path, str, str], *, said: str) -> list[str]:
    """The lines of a client that has failed because its node was killed, once it had `said` this."""
    node = cluster.node
    client = node.host.lab.add_host("client")
    log = client.folder / "client.log"
    process = client.popen(*command, cluster.url, log=log)

    def is_answered() -> bool:
        return node.http.get("/ready").json()["running"] == 1 and said in log.read_text(encoding="utf-8")

    wait_until(is_answered, timeout=30, what="an answer that runs")
    node.kill()
    assert process.wait(30) == 1, log.read_text(encoding="utf-8")
    return log.read_text(encoding="utf-8").splitlines()
