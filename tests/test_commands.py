"""The command `exo` as people type it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest

from support import (
    BUILTIN_MODEL,
    EXO,
    REPOSITORY,
    Node,
    StartNode,
    environment,
    fenced_blocks,
    run,
    run_well,
    wait_until,
)
from terminal_support import CONTROL, Terminal

pytestmark = pytest.mark.slow


def test_version_and_help() -> None:
    assert re.fullmatch(r"exo \d+\.\d+\.\d+\n", run_well(EXO, "version"))
    shown = run_well(EXO, "--help")
    for flag in (
        "--inference-engine",
        "--disable-tui",
        "--chatgpt-api-port",
        "--host",
        "--default-model",
        "--list-engines",
    ):
        assert flag in shown
    assert "Traceback" not in run(EXO, "--nonsense").stderr


def test_list_engines_says_which_can_run_here() -> None:
    lines = run_well(EXO, "--list-engines").splitlines()
    assert any(re.match(r"llamacpp\s+yes\s", line) for line in lines)
    assert any(re.match(r"dummy\s+yes\s", line) for line in lines)
    assert run_well(EXO.with_name("python"), "-m", "exo.main", "--list-engines").splitlines() == lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--inference-engine", "nonsense"], "no engine 'nonsense'"),
        (["--port", "70000"], "--port"),
        (["--host", "0.0.0.0", "--port", "0"], "Set EXO_API_KEYS or EXO_API_KEYS_FILE (--api-keys-file), or say --no-"),
        (["--host", "203.0.113.7", "--port", "0", "--no-auth"], "Cannot listen"),
        (["--api-keys-file", "/nowhere/keys"], "/nowhere/keys"),
        (["pull", "gpt-4"], BUILTIN_MODEL),
        (["run", "gpt-4", "hi", "--port", "1"], "gpt-4"),
        (["key", "a:b"], "name of a key"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(EXO, *arguments, env={"EXO_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    done = run(EXO, env={"EXO_HOME": str(tmp_path), "EXO_QUEUE_LIMIT": "many"})
    assert (done.returncode, "EXO_QUEUE_LIMIT" in done.stderr) == (2, True)
    done = run(EXO, env={"EXO_HOME": str(tmp_path), "EXO_LLAMACPP_SLOTS": "0"})
    assert (done.returncode, "EXO_LLAMACPP_SLOTS" in done.stderr) == (2, True)


@pytest.mark.parametrize("variables", [{"EXO_API_KEYS": ","}, {"EXO_API_KEYS_FILE": "/dev/null"}])
def test_keys_that_were_asked_for_and_are_not_there_let_nobody_in(tmp_path: Path, variables: dict[str, str]) -> None:
    done = run(EXO, "--inference-engine", "dummy", "--port", "0", env={"EXO_HOME": str(tmp_path), **variables})
    assert (done.returncode, "there is none" in done.stderr) == (2, True)


@pytest.mark.slow
def test_nobody_has_to_read_the_greeting(tmp_path: Path) -> None:
    command = f"timeout --signal=TERM 3 {EXO} --inference-engine dummy --port 0 >/dev/full"
    done = run("bash", "-c", command, env={"EXO_HOME": str(tmp_path)})
    assert done.returncode == 124, done.stderr  # it ran until it was stopped
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_taken_port_is_named(dummy_node: Node, tmp_path: Path) -> None:
    port = dummy_node.url.rpartition(":")[2]
    done = run(EXO, "--inference-engine", "dummy", "--port", port, env={"EXO_HOME": str(tmp_path)})
    assert (done.returncode, port in done.stderr) == (2, True)


@pytest.mark.slow
def test_keys_from_the_command_open_the_node(start_node: StartNode, tmp_path: Path) -> None:
    made = run(EXO, "key", "alice")
    key = made.stderr.split("\n")[1]
    file = tmp_path / "keys"
    file.write_text(made.stdout)
    assert key not in made.stdout
    node = start_node("--inference-engine", "dummy", "--host", "0.0.0.0", "--api-keys-file", str(file))
    assert node.chat("hi").status_code == 401
    node.http.headers["authorization"] = f"Bearer {key}"
    assert node.chat("hi").status_code == 200
    wait_until(lambda: "key=alice" in node.log, timeout=5, what="the name of the key in the log")
    assert key not in node.log
    port = node.url.rpartition(":")[2]
    assert run_well(EXO, "run", "dummy", "hi", "--port", port, env={"EXO_API_KEY": key}).startswith("word0")
    refused = run(EXO, "run", "dummy", "hi", "--port", port)
    assert (refused.returncode, refused.stdout, "asks for an API key" in refused.stderr) == (2, "", True)
    refused = run(EXO, "run", "dummy", "hi", "--port", port, "--api-key", "guess")
    assert (refused.returncode, refused.stdout, "does not know the API key" in refused.stderr) == (2, "", True)


@pytest.mark.slow
def test_the_log_has_one_line_for_each_request_and_no_prompt(start_node: StartNode) -> None:
    node = start_node("--inference-engine", "dummy", "--log-json")
    node.chat("a secret thing", stream=True)
    node.http.get("/healthcheck")
    node.http.get("/v1/nowhere%0aINFO%20forged")

    def requests_logged() -> list[dict[str, object]]:
        entries = [json.loads(line) for line in node.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [entry for entry in entries if entry["logger"] == "exo.access"]

    wait_until(lambda: len(requests_logged()) == 2, timeout=5, what="both lines")
    requests = requests_logged()
    assert [entry["path"] for entry in requests] == ["/v1/chat/completions", "/v1/nowhere\nINFO forged"]
    assert requests[0]["completion_tokens"] == 16
    assert "secret" not in node.log


@pytest.mark.slow
def test_prompts_are_logged_when_asked(start_node: StartNode) -> None:
    node = start_node("--inference-engine", "dummy", "--log-prompts")
    node.chat("a secret\nthing")
    wait_until(lambda: 'messages=["user: a secret\\nthing"]' in node.log, timeout=5, what="the prompt in the log")


@pytest.mark.slow
def test_run_asks_a_running_node_and_converses(dummy_node: Node) -> None:
    port = dummy_node.url.rpartition(":")[2]
    assert run_well(EXO, "run", "dummy", "hello", "--port", port, "there").split() == [f"word{n}" for n in range(16)]
    conversation = subprocess.run(
        [EXO, "run", "dummy", "--port", port],
        input="hello\n\n/clear\nagain\n/bye\nnever\n",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=True,
    )
    assert len(conversation.stdout.split()) == 32
    assert dummy_node.log.count("path=/v1/chat/completions") == 3


@pytest.mark.slow
def test_run_without_a_node_uses_an_engine_of_its_own() -> None:
    answer = run_well(EXO, "run", "dummy", "hi", "--port", "1", "--inference-engine", "dummy")
    assert answer.split() == [f"word{n}" for n in range(16)]


@pytest.mark.slow
def test_the_readmes_way_to_try_the_npu_without_a_board(start_node: StartNode, tmp_path: Path) -> None:
    (block,) = [block for block in fenced_blocks(REPOSITORY / "README.md", "sh") if "rkllm-sim" in block]
    env = {"EXO_HOME": str(tmp_path / "home"), "EXO_PORT": "0", "PATH": f"{EXO.parent}:/usr/bin:/bin"}
    node = start_node(command=["bash", "-ec", block], env=env)
    assert node.engine == "rkllm"
    answer = node.chat("Hello").json()
    assert answer["model"] == "tiny"
    assert answer["choices"][0]["message"]["content"]
    assert {file.name for file in (tmp_path / "npu").rglob("*")} >= {"librkllmrt.so", "tiny.rkllm", "tokenizer.json"}


@pytest.mark.slow
def test_run_and_models_with_the_real_model(model_store: Path) -> None:
    answer = run_well(EXO, "run", "smollm2", "Say hello.", "--port", "1", "--models-dir", model_store)
    assert re.search(r"\w", answer)
    listed = run_well(EXO, "models", "--models-dir", model_store)
    assert re.search(rf"{BUILTIN_MODEL}\s+135M\s+8192\s+quick\s+Apache-2.0\s+llamacpp", listed)


def test_models_without_a_store_says_what_could_be_pulled(tmp_path: Path) -> None:
    assert "not in the store" in run_well(EXO, "models", env={"EXO_HOME": str(tmp_path)})


@pytest.mark.slow
def test_a_node_without_any_model_starts_and_says_what_to_do(start_node: StartNode) -> None:
    node = start_node(ready=False)
    ready = node.http.get("/ready")
    assert ready.status_code == 503
    assert node.http.get("/v1/models").json()["data"] == []
    refused = node.chat("hi")
    assert (refused.status_code, "exo pull" in refused.json()["error"]["message"]) == (503, True)
    assert "exo pull" in node.log


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_node_with_0_and_streams_finish_first(start_node: StartNode, number: signal.Signals) -> None:
    node = start_node("--inference-engine", "dummy", env={"EXO_DUMMY_RATE": "20"})
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with node.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        os.kill(node.pid, number)
        assert "data: [DONE]" in list(lines)
    wait_until(lambda: not node.is_running, timeout=10, what="the node to end")
    assert node.exit_code == 0
    assert "Traceback" not in node.log


@pytest.mark.slow
def test_a_second_signal_ends_the_grace_time_and_clients_are_told(start_node: StartNode) -> None:
    node = start_node("--inference-engine", "dummy", "--grace", "1000", env={"EXO_DUMMY_RATE": "1"})
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with node.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        os.kill(node.pid, signal.SIGINT)
        wait_until(lambda: "a second signal cuts them short" in node.log, timeout=10, what="the first signal's line")
        os.kill(node.pid, signal.SIGINT)
        assert "shutting_down" in "".join(lines)
    wait_until(lambda: not node.is_running, timeout=10, what="the node to end")
    assert node.exit_code == 0
    assert "Traceback" not in node.log


def test_flags_before_a_command_count_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.gguf").write_bytes(b"GGUF")
    assert re.search(r"^mine\s", run_well(EXO, "--models-dir", tmp_path, "models"), re.MULTILINE)
    assert re.search(r"^mine\s", run_well(EXO, "models", "--models-dir", tmp_path), re.MULTILINE)


def test_a_folder_that_cannot_be_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "a.gguf").write_bytes(b"GGUF")
    assert "not served: 'my model'" in run(EXO, "models", "--models-dir", tmp_path).stderr


@pytest.mark.slow
def test_models_on_a_narrow_terminal(tmp_path: Path) -> None:
    with Terminal(EXO, "models", env={"EXO_HOME": str(tmp_path)}) as terminal:
        assert terminal.end() == 0
        lines = terminal.shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(rf"^{BUILTIN_MODEL} +135M +8192 +quick +Apache-2.0 +not in *$", terminal.shown, re.MULTILINE)


@pytest.mark.slow
def test_the_status_line_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    env = {"EXO_HOME": str(tmp_path)}
    with Terminal(EXO, "--port", "0", "--inference-engine", "dummy", columns=80, env=env) as terminal:
        terminal.wait_for("running 0/4  queued 0  ● ready  dummy: dummy")
        terminal.type("\x03")
        assert terminal.end() == 0
        assert re.search(r"\x1b\[2K$", terminal.raw), "the line is erased at the end"
        frames = [line for line in re.split(r"\r(?:\x1b\[1A)?\x1b\[2K|\r\n", terminal.raw) if "queued" in line]
        assert max(len(CONTROL.sub("", frame).removesuffix("^C")) for frame in frames) <= 74  # ^C stays on the line
    with Terminal(EXO, "--port", "0", "--inference-engine", "dummy", "--disable-tui", env=env) as plain:
        plain.wait_for("Ctrl-C ends")
        plain.type("\x03")
        assert plain.end() == 0
        assert "queued" not in plain.shown


@pytest.mark.slow
def test_log_lines_above_the_status_line_are_whole(tmp_path: Path) -> None:
    arguments = ("--port", "0", "--inference-engine", "dummy")
    with Terminal(EXO, *arguments, columns=60, env={"EXO_HOME": str(tmp_path)}) as terminal:
        terminal.wait_for("queued 0")
        url = re.search(r"http://127\.0\.0\.1:\d+", terminal.shown)
        assert url is not None
        httpx2.get(f"{url[0]}/v1/{'x' * 100}", trust_env=False)
        terminal.wait_for("x" * 100)
        terminal.type("\x03")
        assert terminal.end() == 0


@pytest.mark.slow
def test_a_conversation_on_a_terminal(dummy_node: Node) -> None:
    answer = " ".join(f"word{number}" for number in range(16))
    with Terminal(EXO, "run", "dummy", "--port", dummy_node.url.rpartition(":")[2], columns=200) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("half a li")
        terminal.wait_for("half a li")
        terminal.type("\x03")
        terminal.wait_for(">>> ")  # dropped, without a word
        assert "once more" not in terminal.shown
        terminal.type('"""first\r')
        terminal.wait_for("... ")
        terminal.type('second"""\r')
        terminal.wait_for(answer)
        terminal.wait_for(">>> ")
        terminal.type("\x1b[A\x1b[D\x1b[D\x1b[D!")  # the line before, changed before its quotes
        terminal.wait_for('!"""')
        terminal.type("\x03")
        terminal.wait_for(">>> ")
        terminal.type("/nonsense\r")
        terminal.wait_for("unknown command '/nonsense'")
        terminal.wait_for(">>> ")
        terminal.type("\x03")
        terminal.wait_for("Ctrl-C once more")
        terminal.wait_for(">>> ")
        terminal.type("hello\r")
        terminal.wait_for(answer)
        terminal.wait_for(">>> ")
        terminal.type("\x03")
        terminal.wait_for("Ctrl-C once more")  # what came between counts
        terminal.wait_for(">>> ")
        terminal.type("\x03")
        assert terminal.end() == 0
        assert terminal.shown.endswith(">>> \n")
    wait_until(lambda: dummy_node.log.count("path=/v1/chat/completions") == 2, timeout=5, what="two messages")


@pytest.mark.slow
def test_ctrl_d_ends_a_conversation(dummy_node: Node) -> None:
    with Terminal(EXO, "run", "dummy", "--port", dummy_node.url.rpartition(":")[2]) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("\x04")
        assert terminal.end() == 0
        assert terminal.shown.endswith(">>> \n")


@pytest.mark.slow
def test_ctrl_c_ends_an_answer_on_a_terminal(start_node: StartNode) -> None:
    node = start_node("--inference-engine", "dummy", env={"EXO_DUMMY_RATE": "1"})
    with Terminal(EXO, "run", "dummy", "--port", node.url.rpartition(":")[2]) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("hello\r")
        terminal.wait_for("word0")
        terminal.type("\x03")
        terminal.wait_for("[stopped]")
        terminal.wait_for(">>> ")
        terminal.type("/bye\r")
        assert terminal.end() == 0


@pytest.mark.slow
def test_a_model_that_a_node_does_not_serve_is_refused_before_the_first_prompt(dummy_node: Node) -> None:
    done = run(EXO, "run", "nobody", "--port", dummy_node.url.rpartition(":")[2])
    assert (done.returncode, done.stdout, "'nobody'" in done.stderr) == (2, "", True)
    assert "path=/v1/chat/completions" not in dummy_node.log


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_an_answer(dummy_node: Node) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as pipe:
        done = subprocess.run(
            [EXO, "run", "dummy", "--port", dummy_node.url.rpartition(":")[2], "hello"],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")
