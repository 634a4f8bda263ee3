"""One conversion: the order of its checks, what it writes, and what a failure leaves. No process is started."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from converter_doors import FakeToolkit, Told
from converter_gguf import write_gguf
from converter_models import small_model

from rkllm_converter.convert import convert, plan
from rkllm_converter.errors import (
    CallFailed,
    FolderError,
    IllegalOptions,
    ModelNotFound,
    PreflightFailed,
    ToolkitMissing,
)
from rkllm_converter.options import Options
from rkllm_converter.request import Request
from rkllm_converter.result.modelfile import read_keys
from rkllm_converter.result.record import read_record
from rkllm_converter.result.verify import verify

EVERYTHING = frozenset({"memory", "disk"})
"""What depends on the machine that runs the tests."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "source/Small-Model")


def asked(model: Path, output: Path, *, platform: str = "rk3588", quant: str = "w8a8", **more: Any) -> Request:
    names = {field.name for field in dataclasses.fields(Options)}
    options = Options(platform=platform, quant=quant, **{name: more.pop(name) for name in names & more.keys()})
    return Request(model=str(model), output=output, options=options, ignore=more.pop("ignore", EVERYTHING), **more)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_result_has_all_that_a_server_needs(model: Path, tmp_path: Path) -> None:
    toolkit, told = FakeToolkit(), Told()
    outcome = convert(asked(model, tmp_path / "m", max_context=512, max_new_tokens=100), told, toolkit.door)
    assert (outcome.status, outcome.folder, outcome.is_stand_in) == ("done", tmp_path / "m", False)
    record = verify(tmp_path / "m")
    assert record.options["npu_cores"] == 3
    assert record.calibration is not None
    assert record.calibration["samples"] == 32
    assert set(record.files) == {
        *("Small-Model-rk3588-w8a8.rkllm", "Modelfile", "tokenizer.json", "tokenizer_config.json"),
        *("config.json", "generation_config.json"),
    }
    assert read_keys((tmp_path / "m/Modelfile").read_text()) == {
        "FROM": ["Small-Model-rk3588-w8a8.rkllm"],
        "NUM_CTX": ["512"],
        "MAX_NEW_TOKENS": ["100"],
        "STOP": ["<|im_end|>", "<|endoftext|>"],
    }
    assert [call.method for call in toolkit.asked] == ["load_huggingface", "build", "export_rkllm"]
    dataset = Path(toolkit.asked[1].arguments["dataset"])
    assert dataset.name == "calibration.json"
    assert not dataset.exists()
    assert len(told.reports) == 1
    assert any("toolkit.log" in note for note in told.notes)


def test_a_thinking_model_names_its_markers(tmp_path: Path) -> None:
    convert(asked(small_model(tmp_path / "source", thinking=True), tmp_path / "m"), Told(), FakeToolkit().door)
    keys = read_keys((tmp_path / "m/Modelfile").read_text())
    assert (keys["THINKING_OPEN"], keys["THINKING_CLOSE"]) == (["<think>"], ["</think>"])


def test_without_quantisation_nothing_is_calibrated(model: Path, tmp_path: Path) -> None:
    toolkit = FakeToolkit()
    convert(asked(model, tmp_path / "m", quant="none"), Told(), toolkit.door)
    record = read_record(tmp_path / "m")
    assert record is not None
    assert record.calibration is None
    assert "dataset" not in toolkit.asked[1].arguments


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"platform": "rk3588", "quant": "w4a16"}, "does not run that type"),
        ({"platform": "rk3576", "quant": "w8a8", "npu_cores": 3}, "1 or 2"),
        ({"algorithm": "gdq"}, "normal, grq"),
        ({"max_context": 100}, "nearest is 96"),
        ({"max_new_tokens": 4096}, "Take less than 4096"),
        ({"dataset": Path("none.txt")}, "no such file"),
        ({"lora": Path("none")}, "adapter_config.json"),
        ({"qparams": Path(__file__)}, r"ends in \.qparams"),
        ({"custom_config": Path(__file__)}, "no JSON object"),
        ({"quant": "none", "dataset": Path(__file__)}, "nothing to calibrate"),
    ],
)
@pytest.mark.parametrize("begin", [plan, convert])
def test_what_is_illegal_is_refused_and_nothing_is_written(
    model: Path, tmp_path: Path, begin: Any, more: dict[str, Any], told: str
) -> None:
    toolkit = FakeToolkit()
    with pytest.raises(IllegalOptions, match=told):
        begin(asked(model, tmp_path / "models/m", **more), Told(), toolkit.door)
    assert not (tmp_path / "models").exists()
    assert toolkit.asked == []


@pytest.mark.parametrize("name", ["my model", "auto", ".hidden", "-dash", "x.partial", "ü"])
def test_a_name_that_no_server_takes_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    for begin in (plan, convert):
        with pytest.raises(IllegalOptions, match="cannot be a model's name"):
            begin(asked(model, tmp_path / name), Told(), FakeToolkit().door)
    assert not (tmp_path / name).exists()


def test_a_gpu_is_looked_for_before_anything_is_fetched(model: Path, tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(IllegalOptions, match="sees no GPU"):
        convert(asked(model, tmp_path / "m", device="cuda"), told, FakeToolkit().door)
    assert not any("looking at" in phase for phase in told.phases)
    assert convert(asked(model, tmp_path / "m", device="cuda"), told, FakeToolkit(gpu=True).door).status == "done"
    assert plan(asked(model, tmp_path / "n", device="cuda"), told, FakeToolkit().door).status == "planned"


def test_illegal_options_are_told_before_a_missing_toolkit(model: Path, tmp_path: Path) -> None:
    nothing = FakeToolkit(version=None)
    with pytest.raises(IllegalOptions):
        convert(asked(model, tmp_path / "m", quant="w4a16"), Told(), nothing.door)
    with pytest.raises(ToolkitMissing):
        convert(asked(model, tmp_path / "m"), Told(), nothing.door)


def test_a_plan_does_without_a_toolkit_and_says_so(model: Path, tmp_path: Path) -> None:
    nothing = FakeToolkit(version=None)
    outcome = plan(asked(model, tmp_path / "m"), Told(), nothing.door)
    assert outcome.status == "planned"
    assert any("There is no toolkit. So this is a plan for toolkit 1.3.0." in note for note in outcome.notes)
    assert [call.method for call in outcome.calls] == ["load_huggingface", "build", "export_rkllm"]
    assert names_in(tmp_path) == ["source"]


def test_a_plan_says_what_a_conversion_would_refuse(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "tokenizer.json").unlink()
    outcome = plan(asked(model, tmp_path / "m"), Told(), FakeToolkit().door)
    assert sum("A conversion would be refused" in note for note in outcome.notes) == 2
    with pytest.raises(ModelNotFound, match=r"no tokenizer\.json"):
        convert(asked(model, tmp_path / "m"), Told(), FakeToolkit().door)


def test_a_model_without_tokenizer_is_converted_if_a_person_says_so(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFound, match="--ignore tokenizer"):
        convert(asked(model, tmp_path / "m"), Told(), FakeToolkit().door)
    ignore = EVERYTHING | {"tokenizer"}
    told = Told()
    convert(asked(model, tmp_path / "m", ignore=ignore), told, FakeToolkit().door)
    assert "tokenizer.json" not in names_in(tmp_path / "m")
    verify(tmp_path / "m")


def test_the_report_is_told_before_it_is_refused(tmp_path: Path) -> None:
    model = small_model(tmp_path / "source", model_type="mistral")
    for begin in (plan, convert):
        told = Told()
        with pytest.raises(PreflightFailed):
            begin(asked(model, tmp_path / "m"), told, FakeToolkit().door)
        assert "architecture" in told.reports[0].problems


def test_a_failure_leaves_the_log_and_the_earlier_result(model: Path, tmp_path: Path) -> None:
    toolkit = FakeToolkit()
    store = tmp_path / "models"
    convert(asked(model, store / "m"), Told(), toolkit.door)
    before = (store / "m/conversion.json").read_text()
    for problem in (CallFailed("build", "no"), KeyboardInterrupt(), OSError(28, "No space left on device", "x")):
        toolkit.problem = problem
        with pytest.raises((CallFailed, KeyboardInterrupt, FolderError)):
            convert(asked(model, store / "m", replace=True), Told(), toolkit.door)
        assert (store / "m/conversion.json").read_text() == before
        assert names_in(store) == [".m.rkllm-work", "m"]
        assert names_in(store / ".m.rkllm-work") == ["toolkit.log"]
    with pytest.raises(IllegalOptions):
        convert(asked(model, store / "m", replace=True, npu_cores=9), Told(), toolkit.door)
    assert names_in(store / ".m.rkllm-work") == ["toolkit.log"]


def no_file(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_text("")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))


@pytest.mark.parametrize("left", [no_file, empty, folder, link, pipe])
def test_a_toolkit_that_leaves_no_model_has_failed(model: Path, tmp_path: Path, left: Callable[[Path], None]) -> None:
    output = tmp_path / "models/m"
    convert(asked(model, output), Told(), FakeToolkit().door)
    toolkit = FakeToolkit()
    toolkit.spoil = left
    with pytest.raises(CallFailed, match="export_rkllm"):
        convert(asked(model, output, replace=True), Told(), toolkit.door)
    verify(output)


def test_what_is_current_stays_and_what_changed_is_made_anew(model: Path, tmp_path: Path) -> None:
    toolkit, output = FakeToolkit(), tmp_path / "m"
    assert convert(asked(model, output, if_changed=True), Told(), toolkit.door).status == "done"
    again = convert(asked(model, output, if_changed=True), Told(), toolkit.door)
    assert (again.status, len(toolkit.asked)) == ("unchanged", 3)
    assert again.file_mb == len("a model") / 2**20
    changes: list[dict[str, Any]] = [
        *({"seed": 1}, {"samples": 8}, {"max_new_tokens": 7}, {"max_context": 512}, {"optimization_level": 0}),
    ]
    for change in changes:
        assert convert(asked(model, output, if_changed=True, **change), Told(), toolkit.door).status == "done", change
        assert convert(asked(model, output, if_changed=True), Told(), toolkit.door).status == "done", change
    (output / "tokenizer.json").unlink()
    assert convert(asked(model, output, if_changed=True), Told(), toolkit.door).status == "done"
    (model / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()) | {"x": 1}))
    assert convert(asked(model, output, if_changed=True), Told(), toolkit.door).status == "done"


def test_the_content_of_files_decides_not_their_names(model: Path, tmp_path: Path) -> None:
    toolkit, output = FakeToolkit(), tmp_path / "m"
    files = {"dataset": "texts.txt", "qparams": "own.qparams", "custom_config": "own.json"}
    contents = {"texts.txt": "One?\n\nTwo?", "own.qparams": "1", "own.json": "{}"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    paths: dict[str, Any] = {flag: tmp_path / name for flag, name in files.items()}
    request = asked(model, output, if_changed=True, **paths)
    assert convert(request, Told(), toolkit.door).status == "done"
    assert convert(request, Told(), toolkit.door).status == "unchanged"
    for name, content in {"texts.txt": "Three?", "own.qparams": "2", "own.json": '{"a": 1}'}.items():
        (tmp_path / name).write_text(content)
        assert convert(request, Told(), toolkit.door).status == "done", name


def test_calibration_goes_through_the_template_by_the_seed(model: Path, tmp_path: Path) -> None:
    written = []
    for seed in (1, 2, 1):
        toolkit = FakeToolkit()
        convert(asked(model, tmp_path / "m", replace=True, seed=seed), Told(), toolkit.door)
        written.append(toolkit.dataset)
    assert written[0] == written[2] != written[1]
    assert all(entry["input"].startswith("<|im_start|>") for entry in json.loads(written[0]))


def test_a_damaged_record_is_told_before_the_toolkit_works(model: Path, tmp_path: Path) -> None:
    toolkit, output = FakeToolkit(), tmp_path / "m"
    convert(asked(model, output), Told(), toolkit.door)
    (output / "conversion.json").write_text("{")
    with pytest.raises(FolderError, match="remove"):
        convert(asked(model, output, if_changed=True), Told(), toolkit.door)
    assert len(toolkit.asked) == 3


def test_the_tokenizer_beside_a_gguf_decides_too(tmp_path: Path) -> None:
    source = small_model(tmp_path / "source")
    gguf = write_gguf(source / "model.gguf")
    request = asked(gguf, tmp_path / "m", quant="none", if_changed=True)
    toolkit = FakeToolkit()
    assert convert(request, Told(), toolkit.door).status == "done"
    assert toolkit.asked[0].method == "load_gguf"
    assert convert(request, Told(), toolkit.door).status == "unchanged"
    (source / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    assert convert(request, Told(), toolkit.door).status == "done"


def test_the_file_has_a_plain_name_whatever_the_folder_is_called(tmp_path: Path) -> None:
    model = small_model(tmp_path / 'a "strange" name')
    convert(asked(model, tmp_path / "m"), Told(), FakeToolkit().door)
    assert (tmp_path / "m/a-strange-name-rk3588-w8a8.rkllm").is_file()


def test_a_note_tells_of_a_model_without_chat_template_and_of_an_adapter(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text("{}")
    with pytest.raises(IllegalOptions, match="adapter_model"):
        convert(asked(model, tmp_path / "m", lora=lora), Told(), FakeToolkit().door)
    (lora / "adapter_model.safetensors").write_text("weights")
    told = Told()
    outcome = convert(asked(model, tmp_path / "m", lora=lora), told, FakeToolkit().door)
    assert any("no chat template" in note for note in told.notes)
    assert any("without it" in note for note in outcome.notes)
