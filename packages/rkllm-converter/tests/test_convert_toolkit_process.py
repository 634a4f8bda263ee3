"""The process that has the toolkit in it: what it is given, what it may write, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from converter_processes import children, is_alive, wait_for
from converter_toolkits import bad_toolkit, recorded

from rkllm_converter.errors import CallFailed, ToolkitDied
from rkllm_converter.toolkit.calls import Call
from rkllm_converter.toolkit.door import Found, find, run

pytest_plugins = "converter_fixtures"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_toolkit")]

HERE = (sys.version_info[0], sys.version_info[1])
BUILD = [Call("build", {})]


def ignore(_method: str) -> None:
    pass


class TestProcess:
    @pytest.mark.parametrize("junk", [b"\xff{\n", b"half a line", b"[1]\n3\n{}\n", b'{"began": 1}\n{"failed": "x"}\n'])
    def test_what_is_no_answer_counts_as_none(self, junk: bytes, stand_in: Found, tmp_path: Path) -> None:
        api = f"""
import os
def everywhere():
    for number in range(3, 20):
        try:
            os.write(number, {junk!r})
        except OSError:
            pass
everywhere()
class RKLLM:
    def build(self):
        everywhere()
        return 0
    def export_rkllm(self):
        everywhere()
        os._exit(0)
"""
        bad_toolkit(tmp_path / "toolkit", api)
        assert find().version == "1.3.0"
        began: list[str] = []
        run(stand_in, BUILD, log=tmp_path / "log", began=began.append)
        assert began == ["build"]
        with pytest.raises(ToolkitDied, match=r"ended by itself in export_rkllm \(exit code 0\), without an answer"):
            run(stand_in, [Call("export_rkllm", {})], log=tmp_path / "log", began=ignore)

    def test_it_runs_where_the_log_is(
        self, stand_in: Found, whole: tuple[Call, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", "nowhere:toolkit")
        assert find().version == "1.3.0"
        run(stand_in, whole, log=Path("work/log"), began=ignore)
        bad_toolkit(tmp_path / "toolkit", "class RKLLM:\n    def build(self):\n        open('gdq.qparams', 'w')\n")
        with pytest.raises(CallFailed):
            run(stand_in, BUILD, log=Path("work/log"), began=ignore)
        assert {one.name for one in (tmp_path / "work").iterdir()} == {"log", "gdq.qparams"}
        assert not (tmp_path / "gdq.qparams").exists()

    def test_a_python_that_was_named_from_here(
        self, stand_in: Found, whole: tuple[Call, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "work").mkdir()
        (tmp_path / "python").symlink_to(sys.executable)
        monkeypatch.chdir(tmp_path)
        found = find("./python")
        assert found.python == str(tmp_path / "python")
        run(found, whole, log=tmp_path / "work/log", began=ignore)

    def test_the_tokens_of_the_hub_are_kept_from_it(
        self, stand_in: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME"):
            monkeypatch.setenv(name, "of-a-test")
        api = "import os\nclass RKLLM:\n    def build(self):\n        return [k for k in os.environ if 'H' in k[:2]]\n"
        bad_toolkit(tmp_path / "toolkit", api)
        with pytest.raises(CallFailed) as caught:
            run(stand_in, BUILD, log=tmp_path / "log", began=ignore)
        assert "HF_HOME" in caught.value.message
        assert "TOKEN" not in caught.value.message


class TestEnd:
    """Whatever happens, no process is left and nobody waits for ever."""

    @pytest.mark.parametrize(
        ("end", "error"),
        [
            ("os.kill(os.getpid(), signal.SIGKILL)", ToolkitDied),
            ("return -1", CallFailed),
            ("return 0", None),
            ("time.sleep(300)", KeyboardInterrupt),
        ],
    )
    def test_a_worker_of_the_toolkit_ends_with_it(
        self, end: str, error: type[BaseException] | None, stand_in: Found, tmp_path: Path
    ) -> None:
        api = f"""
import os, pathlib, signal, time
class RKLLM:
    def build(self):
        worker = os.fork()
        if worker == 0:
            time.sleep(300)
        pathlib.Path({str(tmp_path / "worker")!r}).write_text(str(worker))
        return 0
    def export_rkllm(self):
        {end}
"""
        bad_toolkit(tmp_path / "toolkit", api)

        def began(method: str) -> None:
            if method == "export_rkllm" and error is KeyboardInterrupt:
                raise KeyboardInterrupt

        calls_ = [*BUILD, Call("export_rkllm", {})]
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            run(stand_in, calls_, log=tmp_path / "log", began=began)
        worker = int((tmp_path / "worker").read_text("utf-8"))
        try:
            wait_for(lambda: not is_alive(worker), seconds=5)
        finally:
            if is_alive(worker):
                os.kill(worker, signal.SIGKILL)

    def test_an_interruption_here(
        self, stand_in: Found, whole: tuple[Call, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RKLLM_STANDIN_STALL", "build")
        seen: list[int] = []

        def interrupt(method: str) -> None:
            if method == "build":
                seen.extend(children(os.getpid()))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(stand_in, whole, log=tmp_path / "log", began=interrupt)
        assert seen
        assert not any(is_alive(one) for one in seen)

    def test_the_end_of_the_converter(
        self, stand_in: Found, whole: tuple[Call, ...], record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RKLLM_STANDIN_STALL", "build")
        code = f"""
import sys
sys.path[:0] = {[one for one in sys.path if one]!r}
from pathlib import Path
from rkllm_converter.toolkit.calls import Call
from rkllm_converter.toolkit.door import Found, run
calls = [Call(method, arguments) for method, arguments in {[(one.method, one.arguments) for one in whole]!r}]
found = Found(sys.executable, {HERE!r}, "1.3.0", is_stand_in=True, folder=Path(sys.prefix))
run(found, calls, log=Path({str(tmp_path / "log")!r}), began=print)
"""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as parent:
            wait_for(lambda: len(recorded(record)) == 2)
            runner, *others = children(parent.pid)
            assert not others
            assert is_alive(runner)
            parent.send_signal(signal.SIGKILL)
        wait_for(lambda: not is_alive(runner))
