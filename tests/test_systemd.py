"""The files of deploy/systemd, checked by systemd itself, and the governor script on folders that stand for /sys.

systemd need not run: its programs read a folder that stands for the root of a board.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from exo.cli import settings
from exo.cli.main import make_parser
from exo_rkllm.cli.main import make_parser as make_rkllama_parser
from exo_rkllm.cli.settings import SERVE_SETTINGS as RKLLAMA_SETTINGS
from exo_rkllm.settings import NPU_SETTINGS, NpuSettings
from support import REPOSITORY, fenced_blocks, run, run_well

pytestmark = pytest.mark.system

SOURCE = REPOSITORY / "deploy" / "systemd"
README = SOURCE / "README.md"
SERVERS = ("exo-rkllm.service", "rkllama.service")
WATCH = "exo-cluster-watch.service"
UNITS = (*SERVERS, "rkllm-governor.service", WATCH)
INSTALLED = Path("usr/local/lib/systemd/system")
MOST_EXPOSURE = 4.0


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The root of a board: systemd's own units, ours as shipped, and an empty script for each command of the venv."""
    root = tmp_path / "board"
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    run_well(SOURCE / "install-units", root)
    for name in ("exo", "rkllama"):
        command = root / "opt/exo-rkllama/bin" / name
        command.parent.mkdir(parents=True, exist_ok=True)
        command.write_text("#!/bin/sh\n")
        command.chmod(0o755)
    return root


def verify(board: Path, unit: str) -> str:
    """What systemd has to say about a unit with its drop-ins; it may complain and still end with 0."""
    done = run("systemd-analyze", "verify", f"--root={board}", unit)
    return f"{done.stdout}{done.stderr}" or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def pairs(text: str) -> list[tuple[str, str]]:
    """The settings of a unit file or drop-in, in order."""
    return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)


def values(unit: str, name: str) -> list[str]:
    return [value for key, value in pairs((SOURCE / unit).read_text(encoding="utf-8")) if key == name]


def value(unit: str, name: str) -> str:
    (found,) = values(unit, name)
    return found


def variables(file: str) -> dict[str, str]:
    return dict(word.split("=", 1) for line in values(file, "Environment") for word in shlex.split(line))


def test_the_units_are_those_of_the_folder() -> None:
    assert {file.name for file in SOURCE.glob("*.service")} == set(UNITS)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_no_fault(board: Path, unit: str) -> None:
    assert verify(board, unit) == ""


@pytest.mark.parametrize(
    ("file", "line", "named"),
    [
        ("exo-rkllm.service", "[Service]\nWachdogSec=30", "WachdogSec"),
        ("exo-rkllm.service", "[Service]\nSystemCallFilter=@sytem-service", "@sytem-service"),
        ("exo-rkllm.service.d/10-npu.conf", "After=rkllama.servce/", "rkllama.servce/"),
    ],
)
def test_a_fault_would_be_found(board: Path, file: str, line: str, named: str) -> None:
    with (board / INSTALLED / file).open("a", encoding="utf-8") as out:
        out.write(f"\n{line}\n")
    assert named in verify(board, "exo-rkllm.service")


@pytest.mark.parametrize("unit", UNITS)
def test_a_command_that_is_missing_would_be_found(board: Path, unit: str) -> None:
    command = shlex.split(values(unit, "ExecStart")[0])[0]
    (board / command.lstrip("/")).unlink()
    assert f"Command {command} is not executable" in verify(board, unit)


@pytest.mark.parametrize("unit", UNITS)
def test_the_exposure_is_low(board: Path, unit: str) -> None:
    said = run_well("systemd-analyze", "security", "--no-pager", "--offline=true", f"--root={board}", unit)
    overall = re.search(rf"Overall exposure level for {re.escape(unit)}: ([0-9.]+)", said)
    assert overall is not None, said
    assert float(overall[1]) <= MOST_EXPOSURE


def test_one_service_drives_the_npu_or_leaves_it_to_the_other(board: Path) -> None:
    def effective() -> list[tuple[str, str]]:
        """The unit and its drop-ins, without those that another of the same name hides."""
        return pairs(run_well("systemd-analyze", "cat-config", f"--root={board}", "systemd/system/exo-rkllm.service"))

    assert ("Conflicts", "rkllama.service") in effective()
    assert ("After", "rkllama.service") in effective()  # else the one could start while the other still ends
    local = board / "etc/systemd/system/exo-rkllm.service.d/10-npu.conf"
    local.parent.mkdir(parents=True)
    shutil.copy(SOURCE / "examples/through-rkllama.conf", local)
    assert verify(board, "exo-rkllm.service") == ""
    assert "Conflicts" not in dict(effective())
    assert ("Wants", "rkllama.service") in effective()
    assert ("DeviceAllow", "") in effective()
    npu = NpuSettings.from_env(variables("examples/through-rkllama.conf"))
    assert npu.server == ("127.0.0.1", 8080)


def test_the_users_and_their_folders_are_made(board: Path) -> None:
    run_well("systemd-sysusers", f"--root={board}")
    users = {line.split(":")[0]: line.split(":") for line in (board / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":") for line in (board / "etc/group").read_text().splitlines()}
    for unit in (*SERVERS, WATCH):
        assert users[value(unit, "User")][6].endswith("/nologin")
    assert value(WATCH, "User") not in groups["rkllama"][3]
    for unit in SERVERS:
        user = value(unit, "User")
        assert users[user][5] == f"/var/lib/{value(unit, 'StateDirectory')}"
        for group in value(unit, "SupplementaryGroups").split():
            assert user in groups[group][3].split(",")
    assert value("rkllama.service", "Group") in value("exo-rkllm.service", "SupplementaryGroups").split()
    run_well("systemd-tmpfiles", f"--root={board}", "--create", "exo-rkllama.conf")
    for unit in SERVERS:
        folder = board / "var/lib" / value(unit, "StateDirectory")
        assert folder.stat().st_uid == int(users[value(unit, "User")][2])
        assert f"{folder.stat().st_mode & 0o7777:04o}" == value(unit, "StateDirectoryMode")
        assert (folder / "models").is_dir()


def test_the_rules_of_udev_have_its_form() -> None:
    rule = re.compile(r'(?:(?:SUBSYSTEM|KERNEL)=="[^"]+", )+GROUP="(render|video)", MODE="0660"')
    rules = (SOURCE / "99-rkllm-npu.rules").read_text(encoding="utf-8").splitlines()
    found = [rule.fullmatch(line) for line in rules if not line.startswith("#")]
    assert len(found) == 2
    assert all(found)


def test_the_commands_have_the_flags_that_the_units_give_them() -> None:
    program, *arguments = shlex.split(value("exo-rkllm.service", "ExecStart"))
    assert program == "/opt/exo-rkllama/bin/exo"
    flags = make_parser(arguments).parse_args(arguments)
    assert flags.engine == "rkllm"
    program, *arguments = shlex.split(value("rkllama.service", "ExecStart"))
    assert program == "/opt/exo-rkllama/bin/rkllama"
    assert make_rkllama_parser().parse_args(arguments).action is not None
    program, *arguments = shlex.split(value(WATCH, "ExecStart"))
    assert program == "/opt/exo-rkllama/bin/exo"
    flags = make_parser(arguments).parse_args(arguments)
    assert (flags.action.__name__, flags.inventory, flags.once) == ("_watch", "/etc/exo-rkllama/cluster.toml", False)


@pytest.mark.parametrize("unit", [*SERVERS, WATCH])
def test_the_services_can_list_their_addresses_for_mdns(unit: str) -> None:
    """The C library asks the kernel for them, by netlink."""
    assert "AF_NETLINK" in value(unit, "RestrictAddressFamilies").split()


def known_variables() -> set[str]:
    tables = (settings.SERVE_SETTINGS, RKLLAMA_SETTINGS, NPU_SETTINGS)
    return {setting.env for table in tables for setting in table}


@pytest.mark.parametrize("file", [*SERVERS, "examples/through-rkllama.conf"])
def test_the_variables_of_the_units_are_settings(file: str) -> None:
    env = variables(file)
    known = known_variables()
    assert env
    assert set(env) <= known
    settings.read(settings.SERVE_SETTINGS, argparse.Namespace(), env)
    NpuSettings.from_env(env)


@pytest.mark.parametrize("unit", SERVERS)
def test_a_service_may_end_in_its_own_time(unit: str) -> None:
    grace = settings.read(settings.SERVE_SETTINGS, argparse.Namespace(), {})["grace"]
    assert float(value(unit, "TimeoutStopSec")) >= grace + 10  # answers get the grace time, then workers end
    assert {name: value(unit, name) for name in ("Type", "NotifyAccess", "KillMode", "OOMPolicy")} == {
        "Type": "notify",
        "NotifyAccess": "main",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
    }


# --- the governor ---

CPU = "sys/devices/system/cpu/cpufreq"
BOARDS = {
    "rk3588": {
        f"{CPU}/policy0/scaling_governor": "ondemand",
        f"{CPU}/policy4/scaling_governor": "schedutil",
        f"{CPU}/policy6/scaling_governor": "schedutil",
        "sys/class/devfreq/fdab0000.npu/governor": "rknpu_ondemand",
        "sys/class/devfreq/dmc/governor": "dmc_ondemand",
    },
    "rk3576": {
        f"{CPU}/policy0/scaling_governor": "interactive",
        f"{CPU}/policy4/scaling_governor": "performance",
        "sys/class/devfreq/27700000.npu/governor": "rknpu_ondemand",
    },
    "another machine": {f"{CPU}/policy0/scaling_governor": "powersave"},
    "container": {},
}
OTHERS = {"sys/class/devfreq/fb000000.gpu/governor": "simple_ondemand"}
REMEMBERED = Path("run/rkllm-governor/earlier")


def write_tree(root: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n", encoding="utf-8")


def read_tree(root: Path, names: Mapping[str, str]) -> dict[str, str]:
    return {name: (root / name).read_text(encoding="utf-8").strip() for name in names}


def governor(root: Path, action: str) -> str:
    """What the script prints; the exit code has to be 0."""
    done = run(SOURCE / "rkllm-governor", action, root)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", BOARDS)
def test_the_governor_is_set_and_restored(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {**BOARDS[name], **OTHERS})
    assert governor(tmp_path, "set") == ""
    assert read_tree(tmp_path, BOARDS[name]) == dict.fromkeys(BOARDS[name], "performance")
    assert read_tree(tmp_path, OTHERS) == OTHERS
    assert governor(tmp_path, "restore") == ""
    assert read_tree(tmp_path, BOARDS[name]) == BOARDS[name]
    assert not (tmp_path / REMEMBERED).exists()


def test_the_unit_lets_the_script_write_what_it_writes() -> None:
    writable = [Path(path.removeprefix("-/")) for path in values("rkllm-governor.service", "ReadWritePaths")]
    for name in {**BOARDS["rk3588"], **BOARDS["rk3576"]}:
        assert any(Path(name).is_relative_to(path) for path in writable), name
    assert Path(value("rkllm-governor.service", "RuntimeDirectory")) == REMEMBERED.parent.relative_to("run")


def test_setting_twice_still_restores_the_first(tmp_path: Path) -> None:
    write_tree(tmp_path, BOARDS["rk3588"])
    governor(tmp_path, "set")
    governor(tmp_path, "set")
    governor(tmp_path, "restore")
    assert read_tree(tmp_path, BOARDS["rk3588"]) == BOARDS["rk3588"]
    assert governor(tmp_path, "restore") == ""  # nothing is left to restore


def test_who_chose_another_governor_meanwhile_keeps_it(tmp_path: Path) -> None:
    write_tree(tmp_path, BOARDS["rk3588"])
    governor(tmp_path, "set")
    write_tree(tmp_path, {"sys/class/devfreq/dmc/governor": "powersave"})
    governor(tmp_path, "restore")
    assert read_tree(tmp_path, BOARDS["rk3588"]) == {
        **BOARDS["rk3588"],
        "sys/class/devfreq/dmc/governor": "powersave",
    }


@pytest.fixture
def nobodys_tree() -> Iterator[Path]:
    """A folder that an unprivileged user owns and can reach."""
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), BOARDS["rk3588"])
        npu = Path(folder, "sys/class/devfreq/fdab0000.npu")
        (npu / "available_governors").write_text("rknpu_ondemand userspace\n")
        (npu / "governor").chmod(0o444)
        owner = pwd.getpwnam("nobody")
        for path in [Path(folder), *Path(folder).rglob("*")]:
            os.chown(path, owner.pw_uid, owner.pw_gid)
        yield Path(folder)


def test_a_device_that_refuses_is_named_and_the_others_are_set(nobodys_tree: Path) -> None:
    def as_nobody(action: str) -> subprocess.CompletedProcess[str]:
        script = (SOURCE / "rkllm-governor").read_text(encoding="utf-8")  # the checkout may be closed to others
        return subprocess.run(
            ["/bin/sh", "-s", action, str(nobodys_tree)],
            input=script,
            user="nobody",
            group=pwd.getpwnam("nobody").pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    npu = "sys/class/devfreq/fdab0000.npu/governor"
    done = as_nobody("set")
    assert done.returncode == 0
    assert f"{nobodys_tree}/{npu} stays at rknpu_ondemand" in done.stderr
    assert "rknpu_ondemand userspace" in done.stderr
    wanted = {**dict.fromkeys(BOARDS["rk3588"], "performance"), npu: "rknpu_ondemand"}
    assert read_tree(nobodys_tree, BOARDS["rk3588"]) == wanted
    done = as_nobody("restore")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_tree(nobodys_tree, BOARDS["rk3588"]) == BOARDS["rk3588"]


@pytest.mark.parametrize("arguments", [(), ("start",)])
def test_the_script_says_how_to_call_it(arguments: tuple[str, ...]) -> None:
    done = run(SOURCE / "rkllm-governor", *arguments)
    assert done.returncode == 2
    assert "set|restore" in done.stderr


# --- the page ---


def test_the_page_names_every_file_and_only_files_that_are_there() -> None:
    text = README.read_text(encoding="utf-8")
    for file in SOURCE.rglob("*"):
        assert file.is_dir() or file == README or f"`{file.relative_to(SOURCE)}`" in text, file.name
    for named in re.findall(r"deploy/systemd/[\w./-]+\w", text):
        assert (REPOSITORY / named).exists(), named


def test_the_commands_of_the_page_are_shell() -> None:
    blocks = fenced_blocks(README, "sh")
    assert len(blocks) > 3
    for block in blocks:
        run_well("sh", "-n", "-c", block)
    for name in re.findall(r"/packages/([\w-]+)", "".join(blocks)):
        assert (REPOSITORY / "packages" / name / "pyproject.toml").exists()


def test_the_page_gives_variables_that_are_settings() -> None:
    known = known_variables() | {"EXO_REMOTE_API_KEY"}
    assert set(re.findall(r"\b(?:EXO|RKLLM|RKLLAMA)_[A-Z_]+\b", README.read_text(encoding="utf-8"))) <= known
