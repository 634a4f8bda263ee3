"""The files of deploy/docker as they are read by Hadolint and by Docker Compose, without an engine."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from docker_support import BASE, compose
from support import REPOSITORY, run, run_well

SOURCE = REPOSITORY / "deploy" / "docker"
README = (SOURCE / "README.md").read_text(encoding="utf-8")
COMPOSE = SOURCE / "compose.yaml"
DOCKERFILES = sorted(SOURCE.glob("*.Dockerfile"))
PROFILES = {"converter", "exo", "rkllama"}
_VARIABLE = re.compile(r"\$\{(\w+):?-(.*?)\}")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """compose.yaml as Compose understands it, with nothing set."""
    profiles = (f"--profile={name}" for name in PROFILES)
    arguments = ("--env-file=/dev/null", f"--file={COMPOSE}", *profiles, "config", "--format=json")
    answer: dict[str, Any] = json.loads(run_well(compose(), *arguments))["services"]
    return answer


def test_all_dockerfiles_are_checked() -> None:
    assert [file.name for file in DOCKERFILES] == ["converter.Dockerfile", "rkllama.Dockerfile"]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    done = run(Path(sys.executable).with_name("hadolint"), "--no-color", "--failure-threshold", "style", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_rule_is_ignored_with_a_reason(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    ignored = [number for number, line in enumerate(lines) if "hadolint" in line]
    assert {lines[number] for number in ignored} <= {"# hadolint ignore=DL3008"}
    assert all(lines[number - 1].startswith("# ") for number in ignored)


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(f"FROM {BASE}\nUSER rkllama\n")
    done = run(Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", bad)
    assert (done.returncode, "DL3066" in done.stdout) == (1, True)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_dockerfile_has_one_base_by_release_and_users_by_number(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - set(stages) == {BASE}
    assert "@sha256" not in text
    users = re.findall(r"^USER (.+)$", text, re.MULTILINE)
    assert users
    assert all(re.fullmatch(r"([1-9]\d+):\1", user) for user in users)
    made = {f"{uid}:{uid}" for uid in re.findall(r"useradd --uid (\d+) --user-group", text)}
    assert made == set(users)
    assert "ADD " not in text
    assert "--no-auth" not in text


def test_the_last_stages_are_the_images() -> None:
    last = {file.name: re.findall(r"^FROM \S+ AS (\S+)$", file.read_text(), re.MULTILINE)[-1] for file in DOCKERFILES}
    assert last == {"converter.Dockerfile": "converter", "rkllama.Dockerfile": "rkllama"}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_a_stage_copies_reaches_the_engine(file: Path) -> None:
    """.dockerignore lets through what it names, and nothing else."""
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines.index("*") < min(lines.index(f"!{name}") for name in kept)
    assert kept == {"constraints.txt", "packages", "deploy/docker/toolkit"}
    text = file.read_text(encoding="utf-8")
    sources = re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)
    sources += re.findall(r"--mount=type=bind,source=([^,]+)", text)
    assert sources
    assert all((REPOSITORY / source).exists() for source in sources)
    assert all(any(source == name or source.startswith(f"{name}/") for name in kept) for source in sources)


@pytest.mark.system
def test_the_services_are_the_profiles(services: dict[str, Any]) -> None:
    assert {name: service["profiles"] for name, service in services.items()} == {name: [name] for name in PROFILES}


@pytest.mark.system
@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_service_has_no_more_than_it_needs(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service.get("read_only", False) == (name != "converter")  # the toolkit writes where it is installed
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    never = {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode", "device_cgroup_rules", "cgroup"}
    assert not never & set(service)
    assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
    mounts = {mount["target"]: mount for mount in service["volumes"]}
    assert "/var/run/docker.sock" not in mounts
    written = {target for target, mount in mounts.items() if mount["type"] == "bind" and not mount.get("read_only")}
    assert written == ({"/models"} if name == "converter" else set())


@pytest.mark.system
def test_only_the_npu_is_passed_on(services: dict[str, Any]) -> None:
    devices = {name: [device["source"] for device in service.get("devices", [])] for name, service in services.items()}
    assert devices == {"converter": [], "exo": [], "rkllama": ["/dev/dri/renderD129", "/dev/dma_heap"]}
    assert {device["permissions"] for device in services["rkllama"]["devices"]} == {"rw"}
    assert [name for name, one in services.items() if "systempaths=unconfined" in one["security_opt"]] == ["rkllama"]


@pytest.mark.system
def test_images_are_built_here_from_the_files_of_this_folder(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["image"] == f"exo-rkllama/{name}:local"
        assert Path(service["build"]["context"]) == REPOSITORY
        text = (REPOSITORY / service["build"]["dockerfile"]).read_text(encoding="utf-8")
        assert f" AS {service['build'].get('target', 'converter')}\n" in text
        assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    assert services["converter"]["platform"] == "linux/amd64"


@pytest.mark.system
def test_a_mistake_would_be_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("read_only: true", "readonly: true"))
    done = run(compose(), "--file", wrong, "config", "--quiet")
    assert (done.returncode == 0, "readonly" in done.stderr) == (False, True)


def test_every_variable_is_in_the_example_with_its_default() -> None:
    example = (SOURCE / ".env.example").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^#(\w+)=(.*)$", example, re.MULTILINE))
    assert dict(_VARIABLE.findall(COMPOSE.read_text(encoding="utf-8"))) == shown
    assert len(_VARIABLE.findall(COMPOSE.read_text())) == COMPOSE.read_text().count("${"), "one without a default"
    assert not re.findall(r"^\w+=", example, re.MULTILINE), "what is not a comment would count for those who copy it"


def test_variables_that_the_readme_names_exist() -> None:
    shown = set(re.findall(r"^#(\w+)=", (SOURCE / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`((?:CONVERTER|EXO_RKLLAMA|RKLLM|TORCH)_\w+)(?:=\S+)?`", README))
    assert {"RKLLM_DEVICE", "CONVERTER_UID", "TORCH_INDEX"} <= named
    assert named <= shown | {"RKLLM_TARGET_PLATFORM"}


def test_the_readme_names_the_base_and_every_file() -> None:
    assert f"`{BASE}`" in README
    for file in [*DOCKERFILES, COMPOSE, SOURCE / ".env.example"]:
        assert f"`{file.name}`" in README


def test_what_is_made_in_the_folder_is_not_committed() -> None:
    ignored = ("config/keys", "models/m/m.rkllm", ".env", "toolkit/rkllm_toolkit-1.3.0-cp312-cp312-linux_x86_64.whl")
    done = run("git", "check-ignore", *(str(SOURCE / name) for name in ignored), cwd=REPOSITORY)
    assert len(done.stdout.split()) == len(ignored)
