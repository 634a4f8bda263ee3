"""How a node comes to drive an NPU: by name, by a library, by what the board shows; and what it then tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from npu_board import SimBoard

from support import EXO, StartNode, run

pytestmark = pytest.mark.slow


def make_rock5(root: Path, library: Path, *, rocket: bool = False) -> None:
    """The files of an RK3588 board, with the runtime installed where a system has it."""
    tree = root / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    if rocket:
        (root / "sys" / "module" / "rocket").mkdir(parents=True)
    else:
        driver = root / "sys" / "kernel" / "debug" / "rknpu"
        driver.mkdir(parents=True)
        (driver / "version").write_text("RKNPU driver: v0.9.8\n")
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "usr" / "lib" / "librkllmrt.so").symlink_to(library)


def test_a_library_that_is_named_is_enough(tmp_path: Path, start_node: StartNode) -> None:
    board = SimBoard(tmp_path)
    board.add_model("m")
    node = start_node(env=board.env)
    assert node.engine == "rkllm"
    assert "the detector rkllm found RKLLM_LIB" in node.log
    assert node.chat("Hello").status_code == 200


def test_a_board_with_its_library_is_found(tmp_path: Path, start_node: StartNode) -> None:
    board = SimBoard(tmp_path)
    board.add_model("m")
    make_rock5(board.root, Path(board.env.pop("RKLLM_LIB")))
    node = start_node(env=board.env)
    assert node.engine == "rkllm"
    assert "the detector rkllm found rk3588" in node.log
    assert node.chat("Hello").status_code == 200


@pytest.mark.parametrize("what", ["nothing", "rocket"])
def test_where_the_npu_cannot_be_used_the_node_takes_llamacpp(what: str, tmp_path: Path, start_node: StartNode) -> None:
    board = SimBoard(tmp_path)
    library = Path(board.env.pop("RKLLM_LIB"))
    if what == "rocket":
        make_rock5(board.root, library, rocket=True)
    node = start_node("--no-preload", env=board.env, ready=False)
    assert node.engine == "llamacpp"


def test_asking_for_the_npu_where_there_is_none_says_what_is_missing(tmp_path: Path) -> None:
    board = SimBoard(tmp_path)
    del board.env["RKLLM_LIB"]
    done = run(EXO, "--inference-engine", "rkllm", "--port", "0", env=board.env, cwd=tmp_path)
    assert done.returncode == 2
    assert "The engine rkllm cannot run here" in done.stderr
    assert "librkllmrt.so" in done.stderr
    assert "RKLLM_LIB" in done.stderr


def test_a_node_without_models_says_where_they_belong(tmp_path: Path, start_node: StartNode) -> None:
    board = SimBoard(tmp_path)
    node = start_node(env=board.env, ready=False)
    response = node.chat("Hello")
    assert response.status_code == 503
    assert str(board.store) in response.json()["error"]["message"]


def test_the_metrics_of_the_npu(tmp_path: Path, start_node: StartNode) -> None:
    board = SimBoard(tmp_path)
    board.add_model("m")
    node = start_node(env=board.env)
    node.chat("Hello")
    node.chat("Hello")
    board.set_faults("kill_at=2")
    assert node.chat("Hello").status_code == 502
    board.set_faults()
    assert node.chat("Hello").status_code == 200
    lines = node.http.get("/metrics").text.splitlines()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    reused = sum(one["reused"] for one in board.runs() if one["event"] == "return")
    assert reused > 0
    assert values["rkllm_server_up"] == 1
    assert values['rkllm_prefix_tokens_reused_total{model="m"}'] == reused
    assert values['rkllm_worker_restarts_total{model="m"}'] == 1
    assert values["rkllm_inference_duration_seconds_count"] == 4  # the one that failed counts too
    assert values["rkllm_model_load_duration_seconds_count"] == 1
    last = board.runs()[-1]
    assert values["rkllm_tokens_cached"] == last["n_tokens"] + last["generated"]
