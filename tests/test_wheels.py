"""The built wheels in empty environments: exo alone and with the example plugin, the NPU's packages, the simulator."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support import BUILTIN_MODEL, REPOSITORY, Node, StartNode, fenced_blocks, run, run_well

pytestmark = pytest.mark.slow

PACKAGES = sorted(path.parent for path in REPOSITORY.glob("packages/*/pyproject.toml"))
ECHO = REPOSITORY / "examples" / "exo-echo"
GUIDE = REPOSITORY / "docs" / "PLUGIN_GUIDE.md"
QUESTION = "What is the capital of France?"


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the settings that its commands get: an EXO_HOME, and a store with a model in it."""

    bin: Path
    settings: dict[str, str]

    @property
    def exo(self) -> Path:
        return self.bin / "exo"

    def install(self, *arguments: str | Path) -> None:
        run_well(self.bin / "python", "-m", "pip", "install", "--quiet", *arguments, timeout=600)

    def command(self, *arguments: str, **settings: str) -> str:
        """What `exo` with these arguments and further settings prints; the exit code has to be 0."""
        return run_well(self.exo, *arguments, env={**self.settings, **settings}, cwd=self.bin)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by the name of their source folder: every package, and the example plugin."""
    built = {}
    for source in (*PACKAGES, ECHO):
        folder = tmp_path_factory.mktemp(source.name)
        run_well(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
        (built[source.name],) = folder.glob("*.whl")
    return built


def make_environment(folder: Path, model_store: Path) -> Environment:
    """An empty one. Commands in it see neither a board nor models of rkllama that are on this machine."""
    run_well(sys.executable, "-m", "venv", folder)
    settings = {
        "EXO_HOME": str(folder / "home"),
        "EXO_MODELS_DIR": str(model_store),
        "RKLLM_ROOT": str(folder / "no-board"),
        "RKLLAMA_HOME": str(folder / "rkllama"),
    }
    return Environment(folder / "bin", settings)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path], model_store: Path) -> Environment:
    """An environment with the wheel of the node and what it depends on, nothing else."""
    made = make_environment(tmp_path_factory.mktemp("alone"), model_store)
    made.install("--constraint", REPOSITORY / "constraints.txt", wheels["exo"])
    return made


@pytest.fixture(scope="session")
def with_npu(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path], model_store: Path) -> Environment:
    """An environment with the wheels of all packages, each installed by its file."""
    made = make_environment(tmp_path_factory.mktemp("npu"), model_store)
    own = [wheels[source.name] for source in PACKAGES]
    made.install("--constraint", REPOSITORY / "constraints.txt", *own)
    return made


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path], model_store: Path) -> Environment:
    """An environment with the simulator and the facts that it needs; the index is out of reach."""
    made = make_environment(tmp_path_factory.mktemp("simulator"), model_store)
    made.install("--no-index", wheels["rkllm-facts"], wheels["rkllm-sim"])
    return made


@dataclass(frozen=True)
class Board:
    """A simulated library, and the file of a model; `settings` make the engine rkllm use them."""

    library: Path
    model: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"RKLLM_LIB": str(self.library), "RKLLAMA_HOME": str(self.model.parent.parent.parent)}


def make_board(environment: Environment, folder: Path) -> Board:
    """What `rkllm-sim` of an environment makes: a library, and a model that is called tiny."""
    command = environment.bin / "rkllm-sim"
    library = run_well(command, "build", "--abi", "1.3.0", "--output", folder / "lib", cwd=environment.bin)
    model = run_well(command, "model", folder / "models" / "tiny", cwd=environment.bin)
    return Board(Path(library.strip()), Path(model.strip()))


@pytest.fixture(scope="session")
def board(with_npu: Environment, tmp_path_factory: pytest.TempPathFactory) -> Board:
    return make_board(with_npu, tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="session")
def with_echo(alone: Environment, wheels: dict[str, Path]) -> Environment:
    """The same environment with the plugin, which needs nothing from the index."""
    alone.install("--no-index", wheels[ECHO.name])
    return alone


@pytest.mark.parametrize("source", [*PACKAGES, ECHO], ids=lambda source: source.name)
def test_a_wheel_holds_type_marker_and_licence_and_no_tests(wheels: dict[str, Path], source: Path) -> None:
    with zipfile.ZipFile(wheels[source.name]) as archive:
        names = archive.namelist()
    assert any(re.fullmatch(r"\w+/py\.typed", name) for name in names)
    assert any(re.fullmatch(r"[\w.-]+\.dist-info/licenses/LICENSE", name) for name in names)
    assert not [name for name in names if "test" in name]
    assert not [name for name in names if name.endswith((".pyc", ".log"))]


@pytest.mark.parametrize("source", [*PACKAGES, ECHO], ids=lambda source: source.name)
def test_a_wheel_holds_every_file_of_its_sources(wheels: dict[str, Path], source: Path) -> None:
    """Data and C files too."""
    there = {
        str(path.relative_to(source / "src"))
        for path in (source / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheels[source.name]) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == there
    c_files = {Path(name).suffix for name in there} & {".c", ".h"}
    assert c_files == ({".c", ".h"} if source.name == "rkllm-sim" else set())


def test_exo_runs_from_its_wheel_not_from_the_sources(alone: Environment) -> None:
    where = run_well(alone.bin / "python", "-c", "import exo; print(exo.__file__)", cwd=alone.bin)
    assert Path(where).is_relative_to(alone.bin.parent)
    assert alone.command("version") == f"exo {version_of('exo')}\n"


@pytest.mark.parametrize("name", ["alone", "with_npu", "simulator"])
def test_what_is_installed_fits_together(name: str, request: pytest.FixtureRequest) -> None:
    environment: Environment = request.getfixturevalue(name)
    run_well(environment.bin / "python", "-m", "pip", "check")


def test_exo_alone_knows_nothing_of_the_npu(alone: Environment) -> None:
    assert "rkllm" not in alone.command("--list-engines")
    assert "rkllm" not in alone.command("models")
    done = run(alone.exo, "--inference-engine", "rkllm", env=alone.settings, cwd=alone.bin)
    assert (done.returncode, "no engine 'rkllm'" in done.stderr) == (2, True)


def test_the_built_in_engines_are_listed(alone: Environment) -> None:
    listed = engines(alone.command("--list-engines"))
    assert listed["llamacpp"] == "yes"
    assert listed["dummy"] == "yes"


def test_pull_leaves_a_model_alone_that_is_right(alone: Environment) -> None:
    done = run(alone.exo, "pull", BUILTIN_MODEL, env=alone.settings, cwd=alone.bin)
    assert done.returncode == 0
    assert f"{BUILTIN_MODEL} is already in the store" in done.stderr


def test_a_chat_with_the_built_in_model(alone: Environment, start_node: StartNode) -> None:
    node = start_node(command=[alone.exo], env=alone.settings)
    assert node.engine == "llamacpp"
    answer = node.chat(QUESTION, temperature=0, max_tokens=32).json()
    assert answer["model"] == BUILTIN_MODEL
    assert len(re.findall(r"[A-Za-z]+", text_of(answer))) >= 3
    assert answer["usage"]["completion_tokens"] > 0
    assert node.stop() == 0


def test_our_packages_come_from_their_files_and_never_from_the_index(with_npu: Environment) -> None:
    report = json.loads(run_well(with_npu.bin / "python", "-m", "pip", "inspect"))
    origins = {
        package["metadata"]["name"]: package.get("direct_url", {}).get("url", "") for package in report["installed"]
    }
    own = {distribution_of(source) for source in PACKAGES}
    assert own < set(origins)
    assert all(origins[name].startswith("file://") for name in own)


def test_without_a_library_the_npu_engine_says_what_is_missing(with_npu: Environment) -> None:
    printed = with_npu.command("--list-engines")
    assert engines(printed) == {"dummy": "yes", "llamacpp": "yes", "remote": "no", "rkllm": "no"}
    (line,) = [line for line in printed.splitlines() if line.startswith("rkllm")]
    assert "There is no librkllmrt.so" in line
    assert "RKLLM_LIB" in line
    assert line.endswith("(from exo-rkllm)")


def test_with_a_library_the_npu_engine_can_run(with_npu: Environment, board: Board) -> None:
    printed = with_npu.command("--list-engines", **board.settings)
    assert engines(printed)["rkllm"] == "yes"
    assert f"librkllmrt 1.3.0 at {board.library}" in printed
    rows = {line.split()[0]: line for line in with_npu.command("models", **board.settings).splitlines()}
    assert rows["tiny"].endswith("rkllm")
    assert rows["qwen2.5-1.5b-rkllm"].endswith("not in the store")


def test_the_npu_engine_answers_a_chat(with_npu: Environment, board: Board, start_node: StartNode) -> None:
    node = start_node(command=[with_npu.exo], env={**with_npu.settings, **board.settings})
    assert node.engine == "rkllm"
    answer = node.chat(QUESTION).json()
    assert answer["model"] == "tiny"
    assert text_of(answer)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 0
    assert text_of(node.chat(QUESTION).json()) == text_of(answer)
    assert node.stop() == 0


def test_the_npu_package_leaves_the_default_engine_alone(with_npu: Environment, start_node: StartNode) -> None:
    assert start_node(command=[with_npu.exo], env=with_npu.settings).engine == "llamacpp"


def test_the_simulator_works_alone(simulator: Environment, tmp_path: Path) -> None:
    report = json.loads(run_well(simulator.bin / "python", "-m", "pip", "inspect"))
    assert {package["metadata"]["name"] for package in report["installed"]} - {"pip", "setuptools"} == {
        "rkllm-facts",
        "rkllm-sim",
    }
    made = make_board(simulator, tmp_path)
    assert b"rkllm-runtime version" in made.library.read_bytes()
    assert made.model.with_name("tokenizer.json").is_file()
    assert "rk3588:" in run_well(simulator.bin / "rkllm-sim", "profiles", cwd=simulator.bin)
    program = f"import ctypes; ctypes.CDLL({str(made.library)!r}).rkllm_init"
    run_well(simulator.bin / "python", "-c", program, cwd=simulator.bin)


def test_an_installed_plugin_is_listed_with_its_source_and_no_problem(with_echo: Environment) -> None:
    printed = with_echo.command("--list-engines")
    assert engines(printed)["echo"] == "yes"
    assert "(from exo-echo)" in printed
    assert "problem" not in printed


def test_the_cards_of_a_plugin_are_listed(with_echo: Environment) -> None:
    rows = {line.split()[0]: line for line in with_echo.command("models").splitlines()}
    assert rows["echo-small"].endswith("echo")
    assert rows["echo-wide"].endswith("echo")
    assert rows[BUILTIN_MODEL].endswith("llamacpp")


def test_the_command_of_a_plugin_runs_and_is_in_the_help(with_echo: Environment) -> None:
    assert f"exo-echo {version_of('exo-echo')}" in with_echo.command("echo-info")
    assert with_echo.command("echo-info", "--models").split() == ["echo-small", "echo-wide"]
    assert "echo-info" in with_echo.command("--help")


@pytest.fixture(scope="module")
def echo_node(with_echo: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("echo-node")
    arguments = ("--inference-engine", "echo")
    with Node(*arguments, folder=folder, command=[with_echo.exo], env=with_echo.settings) as node:
        yield node


def test_a_plugin_serves_a_chat(echo_node: Node) -> None:
    assert echo_node.engine == "echo"
    answer = echo_node.chat(QUESTION).json()
    assert answer["model"] == "echo-small"
    assert text_of(answer) == QUESTION
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {**answer["usage"], "prompt_tokens": 6, "completion_tokens": 6, "total_tokens": 12}


def test_a_plugin_serves_a_streamed_chat(echo_node: Node) -> None:
    options = {"stream_options": {"include_usage": True}}
    response = echo_node.chat(QUESTION, model="echo-wide", max_tokens=4, stream=True, **options)
    *events, done = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    pieces = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert [piece for piece in pieces if piece] == ["What", " is", " the", " capital"]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert reasons == ["length"]
    assert chunks[-1]["usage"]["completion_tokens"] == 4


def test_a_refusal_of_a_plugin_keeps_its_status(echo_node: Node) -> None:
    response = echo_node.chat(" ".join(["word"] * 300))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "300" in error["message"]
    assert "256" in error["message"]


def test_the_models_of_a_plugin_are_served_under_ids_and_aliases(echo_node: Node) -> None:
    listed = echo_node.http.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["echo-small", "echo-wide"]
    assert echo_node.chat("Hello", model="echo").json()["model"] == "echo-small"
    assert echo_node.chat("Hello", model=BUILTIN_MODEL).status_code == 404


def test_the_metrics_of_a_plugin_are_on_the_nodes_page(echo_node: Node) -> None:
    echo_node.chat("Count these words", model="echo-wide")
    page = echo_node.http.get("/metrics").text
    assert re.search(r'^exo_echo_words_total\{model="echo-wide"\} \d+\.0$', page, re.MULTILINE)
    assert re.search(r'^exo_inference_engine_info\{engine="echo",', page, re.MULTILINE)


def test_a_detector_that_answers_chooses_the_engine(with_echo: Environment, start_node: StartNode) -> None:
    node = start_node(command=[with_echo.exo], env={**with_echo.settings, "EXO_ECHO_DEVICE": "1"})
    assert node.engine == "echo"
    assert "the detector echo found Echo Box" in node.log
    assert text_of(node.chat("Hello").json()) == "Hello"


def test_an_engine_asked_for_by_name_wins_over_a_detector(with_echo: Environment, start_node: StartNode) -> None:
    settings = {**with_echo.settings, "EXO_ECHO_DEVICE": "1"}
    assert start_node("--inference-engine", "dummy", command=[with_echo.exo], env=settings).engine == "dummy"


def test_installing_a_plugin_leaves_the_default_engine_alone(with_echo: Environment, start_node: StartNode) -> None:
    assert start_node(command=[with_echo.exo], env=with_echo.settings, ready=False).engine == "llamacpp"


def test_the_commands_of_the_guide_run_as_written(
    with_echo: Environment, start_node: StartNode, tmp_path: Path
) -> None:
    """`exo` that starts a node gets a free port, curl is played (it may not be installed), a shell runs all else."""
    for name in ("packages", "constraints.txt"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    shutil.copytree(ECHO, tmp_path / "examples" / ECHO.name)
    path = f"{with_echo.bin}:/usr/bin:/bin"
    node: Node | None = None
    for line in "".join(fenced_blocks(GUIDE, "sh")).splitlines():
        assigned, (program, *arguments) = split_command(line)
        if program == "exo" and arguments[:1] in ([], ["--inference-engine"]):
            node = start_node(*arguments, command=[with_echo.exo], env={**with_echo.settings, **assigned})
            assert node.engine == "echo"
        elif program == "curl":
            assert node is not None
            url, flag, body = arguments
            assert (url, flag) == ("http://127.0.0.1:52415/v1/chat/completions", "-d")
            response = node.http.post(httpx2.URL(url).path, content=body)
            assert text_of(response.json()) == json.loads(body)["messages"][-1]["content"]
        else:
            env = {**with_echo.settings, **assigned, "PATH": path}
            run_well("bash", "-c", line, env=env, cwd=tmp_path, timeout=600)


def engines(printed: str) -> dict[str, str]:
    """`yes` or `no` by engine, from what `exo --list-engines` prints."""
    return {line.split()[0]: line.split()[1] for line in printed.splitlines()}


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def distribution_of(source: Path) -> str:
    found = re.search(r'^name = "(.+)"$', (source / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def version_of(package: str) -> str:
    """The version that the sources say."""
    (init,) = next(path for path in (*PACKAGES, ECHO) if path.name == package).glob("src/*/__init__.py")
    found = re.search(r'^__version__ = "(.+)"$', init.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def split_command(line: str) -> tuple[dict[str, str], list[str]]:
    """A shell line without pipes: the variables that it sets, and its words."""
    words = shlex.split(line)
    assigned = {}
    while re.match(r"[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        assigned[name] = value
    return assigned, words
