"""Importing has no effects: no thread, no process, no native library, no look at the environment's files."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import exo

PROGRAM = """
import json, os, sys, threading

opened = []
effects = []
watched = {
    "subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "socket.connect", "socket.bind", "os.mkdir",
    "os.remove", "os.rename", "tempfile.mkdtemp", "tempfile.mkstemp", "ctypes.dlopen",
}

def hook(event, args):
    if event in watched:
        effects.append(f"{event} {args!r}")
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        effects.append(f"writes {args[0]!r}")

import ctypes, uuid  # the standard library's own probing is not ours
before = set(os.environ.items())
sys.addaudithook(hook)
import importlib
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps({
    "effects": effects,
    "threads": [thread.name for thread in threading.enumerate()],
    "native_threads": len(os.listdir("/proc/self/task")) - 1 if os.path.isdir("/proc/self/task") else 0,
    "modules": sorted(sys.modules),
    "environment": sorted(before ^ set(os.environ.items())),
}))
"""


def all_modules() -> list[str]:
    found = pkgutil.walk_packages(exo.__path__, "exo.")
    return ["exo", *(module.name for module in found if not module.name.endswith("__main__"))]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str] | int]:
    """What a fresh interpreter looks like once it has imported everything."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, json.dumps(all_modules())],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        timeout=60,
    )
    report: dict[str, list[str] | int] = json.loads(done.stdout)
    assert done.stderr == ""
    return report


def test_everything_is_imported(found: dict[str, list[str] | int]) -> None:
    modules = found["modules"]
    assert isinstance(modules, list)
    assert set(all_modules()) <= set(modules)
    assert {"exo.cli.main", "exo.api.app", "exo.inference.llamacpp.worker"} <= set(modules)


def test_importing_starts_no_thread(found: dict[str, list[str] | int]) -> None:
    assert found["threads"] == ["MainThread"]
    assert found["native_threads"] == 0, "a native library has started threads"


def test_importing_touches_nothing_outside(found: dict[str, list[str] | int]) -> None:
    assert found["effects"] == []
    assert found["environment"] == []


@pytest.mark.parametrize("native", ["xllamacpp", "pynvml", "pyamdgpuinfo", "exo_rkllm"])
def test_importing_loads_no_library_of_an_engine_or_a_device(found: dict[str, list[str] | int], native: str) -> None:
    modules = found["modules"]
    assert isinstance(modules, list)
    assert native not in modules
