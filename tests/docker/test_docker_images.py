"""The images of deploy/docker: built and run by a real engine, on a base that Debian's packages imitate.

The commands of the README are run in its order, with small substitutions; then what runs is looked at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from converter_models import small_model
from npu_board import library

from docker_support import BASE, Engine, copy_context, wheel_of
from document_support import Block, blocks_of, not_printed
from rkllm_converter.standin import write_stand_in
from support import REPOSITORY, run, run_well, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PAGE = REPOSITORY / "deploy/docker/README.md"
COMMANDS = [block for block in blocks_of(PAGE) if block.language == "sh"]
DEVICES = Path("/dev/exo-docker-test")
RENDER, VIDEO, OWNER = 4242, 4243, 4244
"""Groups of the devices and a user, numbers that nobody has in the images."""
MODEL = "qwen2.5-1.5b-instruct"
OVERRIDE = """
services:
  rkllama: {build: {network: host}, healthcheck: {interval: 1s}}
  exo: {build: {network: host}, healthcheck: {interval: 1s}}
  converter: {build: {network: host}}
"""
"""The engine of the test has no network of its own for builds; and the first check of health comes soon."""

PULL = (
    "docker run --rm --network host --read-only --tmpfs /tmp -v exo-rkllama_exo:/var/lib/exo "
    "exo-rkllama/exo:local exo pull"
)
"""For the same reason: its containers reach nothing outside."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Walk:
    """Through the README, in a copy of what it needs of the repository."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.clone = copy_context(folder / "clone")
        self.here = self.clone / "deploy/docker"
        self.ports = {"RKLLAMA_PORT": free_port(), "EXO_PORT": free_port()}
        self.key = ""
        self.library = shutil.copy(library("1.3.0"), folder)
        self._stay = folder / "stay"
        self._stay.write_text(str(self.clone))
        self._scratch = folder

    def take(self, block: Block) -> None:
        if "rkllm_toolkit" in block.text:
            stand_in = self._scratch / "stand-in"
            write_stand_in(stand_in, "1.3.0")
            wheel_of(stand_in, self.here / "toolkit")
        if not block.reason:
            self._run(block)
        if ".env.example" in block.text:
            self._set_up()

    def url(self, variable: str) -> str:
        return f"http://127.0.0.1:{self.ports[variable]}"

    def compose(self, *arguments: str, **env: str) -> tuple[int, str]:
        files = (f"--file={self.here / name}" for name in ("compose.yaml", "compose.override.yaml"))
        return self.engine.try_docker("compose", *files, *arguments, env=env)

    def container(self, service: str) -> str:
        labels = (f"--filter=label=com.docker.compose.{name}" for name in (f"service={service}", "oneoff=False"))
        return self.engine.docker("ps", "--quiet", *labels).strip()

    def _run(self, block: Block) -> None:
        text = block.text.replace("Qwen/Qwen2.5-1.5B-Instruct", "/models/source")
        text = text.replace("compose exec ", "compose exec -T ")
        text = text.replace(":8080", f":{self.ports['RKLLAMA_PORT']}").replace(":52415", f":{self.ports['EXO_PORT']}")
        text = text.replace("docker compose run --rm --no-deps exo exo pull", PULL)
        script = f"set -eu -o pipefail\n{text}pwd >{self._stay}\n"
        done = run(
            "bash", "-c", script, env={**self.engine.env, "KEY": self.key}, cwd=Path(self._stay.read_text().strip())
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"line {block.line} ends with {done.returncode}:\n{script}\n{printed}"
        missing = not_printed(block.shown, printed)
        assert not missing, f"line {block.line}: {missing} is not in\n{printed}"
        if "exo key" in text:
            (self.key,) = re.findall(r"^exo-\S+$", printed, re.MULTILINE)

    def _set_up(self) -> None:
        """What an owner of a board writes into .env, a model to convert, and what the engine of a test needs."""
        settings = {
            "RKLLM_DEVICE": DEVICES / "npu",
            "RKLLM_HEAPS": DEVICES / "heaps",
            "RKLLM_RENDER_GID": RENDER,
            "RKLLM_VIDEO_GID": VIDEO,
            "RKLLM_LIB": self.library,
            "CONVERTER_UID": OWNER,
            "CONVERTER_GID": OWNER,
            "TORCH_INDEX": "",
            **self.ports,
        }
        with (self.here / ".env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())
        (self.here / "compose.override.yaml").write_text(OVERRIDE)
        small_model(self.here / "models/source")
        run_well("chown", "-R", f"{OWNER}:{OWNER}", self.here / "models")


@pytest.fixture(scope="module")
def devices() -> Iterator[None]:
    """Harmless devices with the owners that those of a board have."""
    shutil.rmtree(DEVICES, ignore_errors=True)
    (DEVICES / "heaps").mkdir(parents=True)
    try:
        for name, minor, group in (("npu", 3, RENDER), ("heaps/system", 5, VIDEO)):
            os.mknod(DEVICES / name, 0o660 | stat.S_IFCHR, os.makedev(1, minor))
            (DEVICES / name).chmod(0o660)
            os.chown(DEVICES / name, 0, group)
        yield
    finally:
        shutil.rmtree(DEVICES)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        engine.take_base()
        yield engine


@pytest.fixture(scope="module")
def walk(engine: Engine, devices: None, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """At the end of the README: a model is converted, rkllama and the node are running."""
    walk = Walk(engine, tmp_path_factory.mktemp("docker"))
    for block in COMMANDS:
        walk.take(block)
    return walk


def test_the_converted_model_is_served_to_those_with_a_key(walk: Walk) -> None:
    with httpx2.Client(base_url=walk.url("RKLLAMA_PORT"), trust_env=False) as http:
        assert http.get("/v1/models").status_code == 401
        listed = http.get("/v1/models", headers={"authorization": f"Bearer {walk.key}"}).json()
    assert [model["id"] for model in listed["data"]] == [MODEL]


def test_the_result_belongs_to_who_asked_for_it(walk: Walk) -> None:
    result = walk.here / "models" / MODEL
    assert list(result.glob("*.rkllm"))
    assert {path.stat().st_uid for path in [result, *result.rglob("*")]} == {OWNER}
    record = json.loads((result / "conversion.json").read_text())
    assert "1.3.0" in json.dumps(record)
    assert not [path for path in result.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("service", "user"), [("rkllama", 10001), ("exo", 10002)])
def test_a_server_is_nobody_special(walk: Walk, service: str, user: int) -> None:
    pid = walk.engine.inspect(walk.container(service), "{{.State.Pid}}")
    script = "grep -hE '^(Uid|CapEff|CapBnd|NoNewPrivs)' /proc/[0-9]*/status | sort | uniq"
    code, printed = walk.compose("exec", "-T", service, "sh", "-c", script)
    assert (code, pid != "0") == (0, True)
    values = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    assert len(values) == len(printed.splitlines()), "all processes are alike"
    none = ["0" * 16]
    assert values == {"CapBnd:": none, "CapEff:": none, "NoNewPrivs:": ["1"], "Uid:": [str(user)] * 4}


def test_rkllama_may_open_the_devices_of_the_npu_and_no_others(walk: Walk) -> None:
    script = (
        "id -G; find /dev -type b -o -type c | sort; for d in $(find /dev/exo-docker-test -type c); do : <>$d; done"
    )
    code, printed = walk.compose("exec", "-T", "rkllama", "sh", "-c", script)
    groups, *found = printed.splitlines()
    assert (code, set(groups.split())) == (0, {"10001", str(RENDER), str(VIDEO)})
    usual = {f"/dev/{name}" for name in ("full", "null", "pts/ptmx", "random", "tty", "urandom", "zero")}
    assert set(found) - usual == {f"{DEVICES}/npu", f"{DEVICES}/heaps/system"}


def test_without_the_groups_the_devices_stay_closed(walk: Walk) -> None:
    other = {"RKLLM_RENDER_GID": "4250", "RKLLM_VIDEO_GID": "4251"}
    command = ("run", "--rm", "--no-deps", "rkllama", "sh", "-c", f": <>{DEVICES}/npu")
    code, printed = walk.compose(*command, **other)
    assert (code == 0, "Permission denied" in printed) == (False, True)


def test_the_device_tree_is_in_sight_of_rkllama_alone(walk: Walk) -> None:
    masked = {
        name: walk.engine.inspect(walk.container(name), "{{.HostConfig.MaskedPaths}}") for name in ("rkllama", "exo")
    }
    assert masked["rkllama"] == "[]"
    assert "/sys/firmware" in masked["exo"]


@pytest.mark.parametrize("service", ["rkllama", "exo"])
def test_only_volumes_and_tmp_can_be_written(walk: Walk, service: str) -> None:
    script = (
        "for d in / /opt /usr/lib /etc/exo-rkllama /tmp $HOME; do if touch $d/x 2>/dev/null; then echo $d; fi; done"
    )
    code, printed = walk.compose("exec", "-T", service, "sh", "-c", script)
    assert (code, printed.split()) == (0, ["/tmp", f"/var/lib/{service}"])


@pytest.mark.parametrize("service", ["rkllama", "exo"])
def test_health_is_that_of_the_server(walk: Walk, service: str) -> None:
    """The image's own check; a container of the same image without the server fails it."""

    def health_of(container: str) -> str:
        return walk.engine.inspect(container, "{{.State.Health.Status}}")

    assert health_of(walk.container(service)) == "healthy"
    limits = ("--health-interval=200ms", "--health-start-period=1ms", "--health-retries=2")
    idle = walk.engine.docker(
        "run", "--detach", "--init", *limits, f"exo-rkllama/{service}:local", "sleep", "60"
    ).strip()
    try:
        wait_until(lambda: health_of(idle) == "unhealthy", timeout=20, what="it is unhealthy")
    finally:
        walk.engine.docker("rm", "--force", idle)


def test_the_converter_has_no_health_to_check(walk: Walk) -> None:
    assert walk.engine.inspect("exo-rkllama/converter:local", "{{.Config.Healthcheck.Test}}") == "[NONE]"


@pytest.mark.parametrize("name", ["rkllama", "exo", "converter"])
def test_an_image_holds_nothing_that_only_its_making_needs(walk: Walk, name: str) -> None:
    image = f"exo-rkllama/{name}:local"
    what = "/wheels /source /build /toolkit /opt/rkllm*/bin/pip* /root/.cache /usr/lib/librkllmrt.so /etc/exo-rkllama"
    found = walk.engine.docker("run", "--rm", "--entrypoint", "sh", image, "-c", f"ls -d {what} 2>/dev/null || true")
    assert found == ""
    sizes = [int(walk.engine.inspect(one, "{{.Size}}")) for one in (image, BASE)]
    assert sizes[0] - sizes[1] < 220e6


def test_the_commands_say_their_versions(walk: Walk) -> None:
    run_in = walk.engine.docker
    assert re.match(r"rkllama \d", run_in("run", "--rm", "exo-rkllama/rkllama:local", "rkllama", "--version"))
    assert re.match(r"rkllm-convert \d", run_in("run", "--rm", "exo-rkllama/converter:local", "--version"))
    assert "usage: rkllm-convert" in run_in("run", "--rm", "exo-rkllama/converter:local")


def test_without_a_key_no_server_starts(walk: Walk) -> None:
    mount = f"--volume={walk.library}:/usr/lib/librkllmrt.so:ro"
    for name, prefix in (("rkllama", "RKLLAMA"), ("exo", "EXO")):
        code, printed = walk.engine.try_docker("run", "--rm", mount, f"exo-rkllama/{name}:local")
        assert (code, f"lets others in. Set {prefix}_API_KEYS" in printed) == (2, True)


def test_the_toolkit_may_keep_files_in_its_own_folder_whoever_runs_it(walk: Walk) -> None:
    """Issue 308 of airockchip/rknn-llm."""
    write = 'touch "$(echo /opt/rkllm-toolkit/lib/python3*/site-packages/rkllm)/cache"'
    walk.engine.docker(
        "run", "--rm", "--user", "4321:4321", "--entrypoint", "sh", "exo-rkllama/converter:local", "-c", write
    )


def test_without_a_wheel_the_converter_is_built_and_says_what_is_missing(walk: Walk) -> None:
    toolkit = walk.here / "toolkit"
    (wheel,) = toolkit.glob("*.whl")
    try:
        wheel.rename(walk.clone / wheel.name)
        code, printed = walk.compose("--profile=converter", "build", "--progress=plain")
        assert (code, "There is no wheel of the toolkit" in printed) == (0, True)
        arguments = ("--model=/models/source", "--platform=rk3588", "--output=/models/again")
        code, printed = walk.compose("run", "--rm", "converter", "model", *arguments)
        assert (code == 0, "/opt/rkllm-toolkit/bin/python" in printed, "rkllm-toolkit" in printed) == (
            False,
            True,
            True,
        )
        code, printed = walk.compose("run", "--rm", "converter", "model", *arguments, "--dry-run")
        assert code == 0, printed
        assert not list((walk.here / "models").glob("*again*"))
    finally:
        (walk.clone / wheel.name).rename(wheel)


def test_two_wheels_of_the_toolkit_are_refused(walk: Walk) -> None:
    second = walk.here / "toolkit/rkllm_toolkit-1.2.3-py3-none-any.whl"
    second.touch()
    try:
        code, printed = walk.compose("--profile=converter", "build", "--progress=plain")
        assert (code == 0, "Leave one wheel in deploy/docker/toolkit" in printed) == (False, True)
    finally:
        second.unlink()


FAILURES = {
    "error gathering device information while adding custom device": {"RKLLM_DEVICE": "/dev/dri/renderD999"},
    "bind source path does not exist": {"RKLLM_LIB": "/nowhere/librkllmrt.so"},
    "group_add items at 0 and 1 are equal": {"RKLLM_VIDEO_GID": str(RENDER)},
    "cannot be read": {"EXO_RKLLAMA_CONFIG": "/var/empty"},
}


@pytest.mark.parametrize("text", FAILURES)
def test_a_failure_is_found_in_the_readme_by_its_text(walk: Walk, text: str) -> None:
    Path("/var/empty").mkdir(exist_ok=True)
    code, printed = walk.compose("run", "--rm", "--no-deps", "rkllama", **FAILURES[text])
    assert (code == 0, text in printed) == (False, True), printed
    assert text in PAGE.read_text(encoding="utf-8").partition("## Troubleshooting")[2]


@pytest.mark.parametrize("service", ["rkllama", "exo"])
def test_a_server_ends_in_good_order(walk: Walk, service: str) -> None:
    container = walk.container(service)
    assert walk.compose("stop", service)[0] == 0
    assert walk.engine.inspect(container, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"


def test_every_dependency_has_a_wheel_for_arm(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    pip = (sys.executable, "-m", "pip")
    sources = (f"./packages/{name}" for name in ("rkllm-facts", "exo", "exo-rkllm"))
    build = ("--quiet", "--no-build-isolation", "--no-deps", f"--wheel-dir={wheels}")
    run_well(*pip, "wheel", *build, *sources, cwd=REPOSITORY)
    tags = ("manylinux_2_36", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
    wanted = ["--only-binary=:all:", "--python-version=3.12", *(f"--platform={tag}_aarch64" for tag in tags)]
    target = ("--dry-run", "--ignore-installed", "--quiet", f"--target={tmp_path / 'none'}")
    constraints = f"--constraint={REPOSITORY / 'constraints.txt'}"
    run_well(*pip, "install", *target, *wanted, constraints, *map(str, wheels.glob("*.whl")))
