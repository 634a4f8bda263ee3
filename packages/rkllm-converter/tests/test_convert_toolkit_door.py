"""Finding and running the toolkit, with real child processes."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from converter_processes import children
from converter_toolkits import bad_toolkit, package, recorded

from rkllm_converter.errors import CallFailed, ToolkitDied, ToolkitMissing
from rkllm_converter.standin import write_stand_in
from rkllm_converter.toolkit import door
from rkllm_converter.toolkit.calls import Call
from rkllm_converter.toolkit.door import Found, find, has_gpu, run
from rkllm_converter.toolkit.versions import toolkit

pytest_plugins = "converter_fixtures"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_toolkit")]

RUNNER = Path(door.__file__).with_name("runner.py")
HERE = (sys.version_info[0], sys.version_info[1])
BUILD = [Call("build", {})]


def ignore(_method: str) -> None:
    pass


class TestFind:
    @pytest.mark.parametrize("version", ["1.2.3", "1.3.0", "1.1.4", "2.0.0b1"])
    def test_a_stand_in_of_any_release(self, version: str, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(write_stand_in(tmp_path, "1.0.0"))
        write_stand_in(tmp_path, version)
        assert find() == Found(sys.executable, HERE, version, is_stand_in=True, folder=Path(sys.prefix))

    def test_another_python(self, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(write_stand_in(tmp_path / "toolkit", "1.3.0"))
        python = tmp_path / "python"
        python.symlink_to(sys.executable)
        assert find(str(python)).python == str(python)

    def test_a_python_that_is_only_named(
        self, tmp_path: Path, use: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(write_stand_in(tmp_path / "toolkit", "1.3.0"))
        (tmp_path / "python-of-the-toolkit").symlink_to(sys.executable)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert find("python-of-the-toolkit").python == str(tmp_path / "python-of-the-toolkit")
        with pytest.raises(ToolkitMissing, match="python-of-nobody cannot be started: No such file"):
            find("python-of-nobody")

    def test_the_folder_is_that_of_the_environment(self, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(write_stand_in(tmp_path / "toolkit", "1.3.0"))
        venv.create(tmp_path / "environment", symlinks=True)
        assert find(str(tmp_path / "environment/bin/python")).folder == tmp_path / "environment"

    def test_a_toolkit_that_says_nothing_of_a_stand_in(self, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(bad_toolkit(tmp_path, "print('{}')\nclass RKLLM: pass"))
        assert not find().is_stand_in

    def test_none(self) -> None:
        with pytest.raises(ToolkitMissing, match=r"has no rkllm-toolkit\. Install the wheel from Rockchip's"):
            find()

    def test_the_package_of_the_index(self, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(package(tmp_path, "rkllm", "0.1.2", rkllm="import nothing_of_this_name"))
        with pytest.raises(ToolkitMissing, match=r"package rkllm 0\.1\.2 of the Python index, which is not Rockchip's"):
            find()

    def test_a_module_that_belongs_to_no_package(self, tmp_path: Path, use: Callable[[Path], None]) -> None:
        (tmp_path / "rkllm.py").write_text("", encoding="utf-8")
        use(tmp_path)
        with pytest.raises(ToolkitMissing, match=r"import rkllm from .*/rkllm\.py, but has no package rkllm-toolkit"):
            find()

    @pytest.mark.parametrize(
        ("api", "told"),
        [
            ("import transformers_of_before", "ModuleNotFoundError: No module named 'transformers_of_before'. Install"),
            ("raise RuntimeError('long:\\nand\\nlonger')", "RuntimeError: long: ... longer"),
            ("raise SystemExit('no license')", "SystemExit: no license"),
            ("", "AttributeError: rkllm.api has no class RKLLM"),
        ],
    )
    def test_one_that_cannot_be_used(self, api: str, told: str, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(bad_toolkit(tmp_path, api))
        with pytest.raises(ToolkitMissing) as caught:
            find()
        assert "has the toolkit 1.3.0, but it cannot be used: " in caught.value.message
        assert told in caught.value.message

    def test_both(self, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(package(bad_toolkit(tmp_path, ""), "rkllm", "0.1.2"))
        with pytest.raises(ToolkitMissing, match=r"rkllm 0\.1\.2 of the Python index is in its way: uninstall both"):
            find()

    @pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV"])
    def test_one_that_crashes(self, name: str, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(bad_toolkit(tmp_path, f"import os, signal\nprint('to be seen')\nos.kill(os.getpid(), signal.{name})"))
        with pytest.raises(ToolkitDied, match=rf"was ended by {name} in importing the toolkit(.|\n)*to be seen"):
            find()

    def test_one_that_never_answers(
        self, tmp_path: Path, use: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(bad_toolkit(tmp_path, "print('to be seen')\nimport time\ntime.sleep(300)"))
        monkeypatch.setattr(door, "_PATIENCE", 1.0)
        with pytest.raises(ToolkitDied, match=r"gave no answer within 1 seconds, importing the toolkit\.") as caught:
            find()
        assert sys.executable in caught.value.message
        assert not children(os.getpid())

    def test_no_python_there(self, tmp_path: Path) -> None:
        with pytest.raises(ToolkitMissing, match=r"nowhere cannot be started: No such file"):
            find(str(tmp_path / "nowhere"))
        with pytest.raises(ToolkitMissing, match=r"cannot be started: Permission denied"):
            find(str(tmp_path))

    def test_no_python_that_will_do(self, tmp_path: Path) -> None:
        old = tmp_path / "python2"
        old.write_text("#!/bin/sh\necho SyntaxError: invalid syntax >&2\nexit 1\n", encoding="utf-8")
        old.chmod(0o755)
        with pytest.raises(ToolkitMissing, match=r"python2 is no Python that could .*: SyntaxError: invalid syntax\."):
            find(str(old))


class TestGpu:
    @pytest.mark.parametrize("answer", [True, False])
    def test_torch_is_asked(self, *, answer: bool, stand_in: Found, tmp_path: Path) -> None:
        text = f"print('noise')\nclass cuda:\n    is_available = staticmethod(lambda: {answer})\n"
        (tmp_path / "toolkit" / "torch.py").write_text(text, encoding="utf-8")
        assert has_gpu(stand_in) is answer

    @pytest.mark.parametrize("torch", [None, "raise OSError('libcudart.so')", "class cuda: pass"])
    def test_no_torch_that_works(self, torch: str | None, stand_in: Found, tmp_path: Path) -> None:
        if torch is not None:
            (tmp_path / "toolkit" / "torch.py").write_text(torch, encoding="utf-8")
        assert not has_gpu(stand_in)


class TestRun:
    def test_all_calls_in_one_process(
        self, stand_in: Found, whole: tuple[Call, ...], record: Path, tmp_path: Path
    ) -> None:
        began: list[str] = []
        run(stand_in, whole, log=tmp_path / "log", began=began.append)
        assert began == ["load_huggingface", "build", "export_rkllm"]
        assert [Call(one["method"], one["arguments"]) for one in recorded(record)] == list(whole)
        assert [one["result"] for one in recorded(record)] == [0, 0, 0]
        assert (tmp_path / "out.rkllm").read_text("utf-8").startswith("rkllm-sim model 1\ntoolkit 1.3.0\n")
        assert (tmp_path / "log").read_text("utf-8").startswith("INFO: rkllm-toolkit version: 1.3.0\n")

    @pytest.mark.usefixtures("stand_in")
    def test_every_python_of_the_toolkit_that_is_here_and_this_one(
        self, whole: tuple[Call, ...], record: Path, tmp_path: Path
    ) -> None:
        pythons = {**other_pythons(), HERE: sys.executable}
        for version, python in pythons.items():
            found = find(python)
            assert (found.python_version, found.version) == (version, "1.3.0")
            run(found, whole, log=tmp_path / "log", began=ignore)
        assert [one["result"] for one in recorded(record)] == [0, 0, 0] * len(pythons)

    def test_whatever_is_printed_is_in_the_log(self, stand_in: Found, tmp_path: Path) -> None:
        api = """
import os, subprocess, sys
class RKLLM:
    def build(self):
        print("by print \\u2713")
        os.write(1, b"to 1\\n")
        os.write(2, b"to 2\\n")
        subprocess.run(["echo", "by a child"], check=True)
        print('{"failed": "build", "problem": "a line that looks like an answer"}')
        assert sys.stdin.read() == ""
        return 0
"""
        bad_toolkit(tmp_path / "toolkit", api)
        run(stand_in, BUILD, log=tmp_path / "log", began=ignore)
        lines = (tmp_path / "log").read_text("utf-8").splitlines()
        assert lines[:4] == ["by print \u2713", "to 1", "to 2", "by a child"]

    @pytest.mark.parametrize("method", ["load_huggingface", "build", "export_rkllm"])
    @pytest.mark.parametrize(
        ("way", "error", "told"),
        [
            ("FAIL", CallFailed, "{} of the toolkit 1.3.0 failed: it returned -1, not 0. All that"),
            ("RAISE", CallFailed, "{} of the toolkit 1.3.0 failed: RuntimeError: {}: told to raise. All that"),
            ("CRASH", ToolkitDied, "The toolkit 1.3.0 was ended by SIGSEGV in {}. All that"),
            ("NO_MEMORY", ToolkitDied, "was ended by SIGKILL in {}. Most likely this machine ran out of memory"),
        ],
    )
    def test_a_call_that_goes_wrong(
        self,
        *,
        method: str,
        way: str,
        error: type[Exception],
        told: str,
        stand_in: Found,
        whole: tuple[Call, ...],
        record: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(f"RKLLM_STANDIN_{way}", method)
        began: list[str] = []
        with pytest.raises(error) as caught:
            run(stand_in, whole, log=tmp_path / "log", began=began.append)
        message = str(caught.value)
        assert told.format(method, method) in message
        assert f"is in {tmp_path / 'log'}. The last lines:\n" in message
        assert "this is a stand-in" in message
        assert began[-1] == recorded(record)[-1]["method"] == method
        if isinstance(caught.value, CallFailed):
            assert caught.value.method == method

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ("pass", "build of the toolkit 1.3.0 failed: it returned None, not 0"),
            ("return False", "build of the toolkit 1.3.0 failed: it returned False, not 0"),
            ("return 0.0", "build of the toolkit 1.3.0 failed: it returned 0.0, not 0"),
            ("raise SystemExit(3)", "build of the toolkit 1.3.0 failed: SystemExit: 3"),
            ("raise MemoryError", "build of the toolkit 1.3.0 failed: MemoryError"),
            ("os._exit(3)", "The toolkit 1.3.0 ended by itself in build (exit code 3), without an answer."),
            ("os.kill(os.getpid(), 40)", "The toolkit 1.3.0 was ended by signal 40 in build."),
        ],
    )
    def test_other_ways_to_fail(self, body: str, told: str, stand_in: Found, tmp_path: Path) -> None:
        bad_toolkit(tmp_path / "toolkit", f"import os\nclass RKLLM:\n    def build(self):\n        {body}\n")
        with pytest.raises((CallFailed, ToolkitDied)) as caught:
            run(stand_in, BUILD, log=tmp_path / "log", began=ignore)
        assert told in caught.value.message

    def test_one_that_cannot_even_begin(self, stand_in: Found, tmp_path: Path) -> None:
        bad_toolkit(
            tmp_path / "toolkit", "class RKLLM:\n    def __init__(self):\n        raise OSError('no license')\n"
        )
        with pytest.raises(CallFailed, match=r"RKLLM of the toolkit 1\.3\.0 failed: OSError: no license"):
            run(stand_in, BUILD, log=tmp_path / "log", began=ignore)

    def test_a_crash_after_the_last_call_is_none(self, stand_in: Found, tmp_path: Path) -> None:
        crash = f"import atexit, os\natexit.register(os.kill, os.getpid(), {signal.SIGSEGV:d})\n"
        bad_toolkit(tmp_path / "toolkit", f"{crash}class RKLLM:\n    build = int\n")
        run(stand_in, BUILD, log=tmp_path / "log", began=ignore)

    def test_the_last_lines_are_fit_to_read(self, stand_in: Found, tmp_path: Path) -> None:
        bars = "".join(rf"\rBuilding: {share}%" for share in range(101))
        api = f"""
class RKLLM:
    def build(self):
        print("\\n".join(f"line {{one}}" for one in range(1000)))
        print("\\x1b[31mred\\x1b[0m   \\n\\n{bars}")
        return -1
"""
        bad_toolkit(tmp_path / "toolkit", api)
        with pytest.raises(CallFailed) as caught:
            run(stand_in, BUILD, log=tmp_path / "log", began=ignore)
        lines = caught.value.message.splitlines()[1:]
        assert lines == [*(f"line {one}" for one in range(990, 1000)), "red", "Building: 100%"]

    def test_modules_of_ours_do_not_pass_for_the_toolkit_s(self, stand_in: Found, tmp_path: Path) -> None:
        bad_toolkit(tmp_path / "toolkit", "import versions")
        with pytest.raises(CallFailed, match="ModuleNotFoundError: No module named 'versions'"):
            run(stand_in, BUILD, log=tmp_path / "log", began=ignore)


def test_the_runner_and_the_stand_in_need_nothing_but_python() -> None:
    stand_in = Path(door.__file__).parents[1] / "standin"
    for file in (RUNNER, *(stand_in / name for name in ("api.py", "legal.py", "model_file.py", "weights.py"))):
        tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert all(one.name.partition(".")[0] in sys.stdlib_module_names for one in node.names)
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert str(node.module).partition(".")[0] in sys.stdlib_module_names


def other_pythons() -> dict[tuple[int, int], str]:
    """Those that the toolkit has wheels for, as far as they are installed and start."""
    found = {}
    for version in toolkit("1.3.0").pythons:
        name = f"python{version[0]}.{version[1]}"
        installed = Path.home().glob(f".pyenv/versions/{version[0]}.{version[1]}.*/bin/{name}")
        for python in filter(None, (shutil.which(name), *map(str, installed))):
            if subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0:
                found[version] = python
                break
    return found
