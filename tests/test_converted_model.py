"""From a small real model to a chat: rkllm-convert with the stand-in of the toolkit, rkllama on the simulator."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ollama
import openai
import pytest
from converter_models import small_model
from npu_board import SimBoard

from rkllama_support import Rkllama, command, serve
from rkllm_converter.result.verify import verify
from support import run, run_well

pytestmark = pytest.mark.slow

CONVERT = Path(sys.executable).with_name("rkllm-convert")


@pytest.mark.parametrize(
    ("toolkit", "platform", "quant"), [("1.2.3", "rk3588", "w8a8"), ("1.3.0", "rk3576", "w4a16_g32")]
)
def test_a_converted_model_is_listed_loaded_and_answers(
    tmp_path: Path, toolkit: str, platform: str, quant: str
) -> None:
    source = small_model(tmp_path / "source/Tiny-Qwen2-Instruct")
    run_well(CONVERT, "stand-in", tmp_path / "standin", "--toolkit-version", toolkit)
    board = SimBoard(tmp_path / "board", abi=toolkit)
    output = board.store / f"tiny-{platform}"
    run_well(
        *(CONVERT, "model", "--model", source, "--output", output, "--platform", platform, "--quant", quant),
        *("--max-context", "512", "--ignore", "memory", "--ignore", "disk"),
        env={"PYTHONPATH": str(tmp_path / "standin")},
    )
    verify(output)
    with serve(board, tmp_path, RKLLM_SIM_PLATFORM=platform) as node:
        rkllama = Rkllama(board, node)
        listed = rkllama.http.get("/api/tags").json()["models"]
        assert [model["name"] for model in listed] == [output.name]
        shown = rkllama.http.post("/api/show", json={"model": output.name}).json()
        assert shown["details"]["quantization_level"] == quant.upper()
        assert "num_ctx" in shown["parameters"]
        assert rkllama.answer(output.name)
        assert rkllama.loaded() == [output.name]
        with ollama.Client(node.url) as client:
            said = client.chat(output.name, [{"role": "user", "content": "Hello"}])
            assert said.message.content
            assert said.prompt_eval_count
        with openai.OpenAI(base_url=f"{node.url}/v1", api_key="none") as client_of_openai:
            chunks = client_of_openai.chat.completions.create(
                model=output.name, messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert command(board, "rm", output.name).returncode == 0
    assert not output.exists()


def test_an_unfinished_conversion_is_not_listed(tmp_path: Path) -> None:
    source = small_model(tmp_path / "source/tiny")
    run_well(CONVERT, "stand-in", tmp_path / "standin")
    board = SimBoard(tmp_path / "board")
    output = board.store / "tiny"
    failed = run(
        *(CONVERT, "model", "--model", source, "--output", output, "--platform", "rk3588", "--json", "--ignore=memory"),
        env={"PYTHONPATH": str(tmp_path / "standin"), "RKLLM_STANDIN_CRASH": "export_rkllm"},
    )
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["error"]["type"] == "ToolkitDied"
    with serve(board, tmp_path, ready=False) as node:  # without a model it never is
        assert node.http.get("/api/tags").json()["models"] == []
