"""The stand-in toolkit by itself: what it takes, what it refuses, what it records and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from converter_toolkits import (
    BUILD,
    RELEASES,
    recorded,
    small_dataset,
    small_gguf,
    small_lora,
    small_model,
    stand_in,
)

from rkllm_converter.standin import write_stand_in

pytest_plugins = "converter_fixtures"
LOAD = {"device": "cuda", "dtype": "float32"}

each_release = pytest.mark.parametrize("release", RELEASES)


@pytest.fixture
def problem(record: Path) -> Callable[[], str]:
    """Why the last call was refused."""
    return lambda: str(recorded(record)[-1]["problem"])


def loaded(tmp_path: Path, release: str = "1.3.0", **changes: Any) -> Any:
    toolkit = stand_in(release).RKLLM()
    assert toolkit.load_huggingface(model=str(small_model(tmp_path / "model", **changes)), **LOAD) == 0
    return toolkit


def built(tmp_path: Path, release: str = "1.3.0") -> Any:
    toolkit = loaded(tmp_path, release)
    assert toolkit.build(**BUILD) == 0
    return toolkit


class TestWritten:
    def test_the_folder(self, tmp_path: Path) -> None:
        assert write_stand_in(tmp_path / "new" / "folder", "1.3.0") == tmp_path / "new" / "folder"
        names = [one.relative_to(tmp_path / "new" / "folder") for one in (tmp_path / "new").rglob("*") if one.is_file()]
        assert sorted(map(str, names)) == [
            *("rkllm/__init__.py", "rkllm/api.py", "rkllm/legal.py", "rkllm/model_file.py", "rkllm/weights.py"),
            "rkllm_toolkit-1.3.0.dist-info/METADATA",
        ]

    def test_another_release_takes_its_place(self, tmp_path: Path) -> None:
        for release in ("1.3.0", "1.3.0", "1.2.3"):
            write_stand_in(tmp_path, release)
            (metadata,) = tmp_path.glob("*.dist-info/METADATA")
            assert f"Name: rkllm-toolkit\nVersion: {release}\n" in metadata.read_text("utf-8")

    @pytest.mark.parametrize("version", ["", "1", "../1.3.0", "1.3.0\n", "new"])
    def test_no_version(self, version: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="is no version of a toolkit"):
            write_stand_in(tmp_path, version)

    @each_release
    def test_it_says_who_it_is(self, release: str, capfd: pytest.CaptureFixture[str]) -> None:
        api = stand_in(release)
        assert api.STAND_IN is True
        api.RKLLM()
        assert capfd.readouterr().out.startswith(f"INFO: rkllm-toolkit version: {release}\n")


class TestRecord:
    def test_each_call_is_a_line(self, record: Path, tmp_path: Path) -> None:
        toolkit = built(tmp_path)
        assert toolkit.build(**{**BUILD, "num_npu_core": 3}) == -1
        with pytest.raises(TypeError):
            toolkit.build(**BUILD, cores=3)
        assert toolkit.update_rkllm(str(tmp_path / "old.rkllm")) == -1
        lines = recorded(record)
        assert [(one["method"], one["result"]) for one in lines] == [
            ("load_huggingface", 0),
            ("build", 0),
            ("build", -1),
            ("build", None),
            ("update_rkllm", -1),
        ]
        assert lines[1]["arguments"] == BUILD
        assert [one["problem"] for one in lines[:2]] == [None, None]
        assert lines[2]["problem"] == "num_npu_core is 3: it has to be one of (1, 2)"
        assert "unexpected keyword argument 'cores'" in lines[3]["problem"]
        assert lines[4]["positional"] == [str(tmp_path / "old.rkllm")]

    def test_a_refusal_is_printed(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert loaded(tmp_path).build(**{**BUILD, "max_context": 33}) == -1
        assert capfd.readouterr().out.endswith(
            "ERROR: build: max_context is 33: it has to be a multiple of 32, 16384 at most\n"
        )


class TestOrder:
    def test_each_in_its_place(self, problem: Any, tmp_path: Path) -> None:
        toolkit = stand_in("1.3.0").RKLLM()
        assert toolkit.build(**BUILD) == -1
        assert problem().startswith("no model is loaded")
        assert toolkit.export_rkllm(export_path=str(tmp_path / "out.rkllm")) == -1
        assert problem().startswith("nothing is built")
        model = str(small_model(tmp_path / "model"))
        assert toolkit.load_huggingface(model="nowhere") == -1
        assert toolkit.load_huggingface(model=model) == 0
        assert toolkit.load_huggingface(model=model) == -1
        assert problem().startswith("a model is loaded already")
        assert toolkit.load_gguf(model=str(small_gguf(tmp_path / "model.gguf"))) == -1
        assert toolkit.export_rkllm(export_path=str(tmp_path / "out.rkllm")) == -1
        assert not (tmp_path / "out.rkllm").exists()


class TestLoad:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"device": "gpu"}, "device is 'gpu'"),
            ({"device": None}, "device is None: it has to be a text"),
            ({"dtype": "float64"}, "dtype is 'float64'"),
            ({"load_weight": 1}, "load_weight is 1: it has to be True or False"),
            ({"model": 3}, "model is 3: it has to be a text"),
            ({"model": "nowhere"}, "no such folder with a config.json"),
            ({"model_lora": "nowhere"}, "no adapter_config.json"),
            ({"custom_config": "nowhere.json"}, "no such .json file"),
        ],
    )
    def test_refused(self, change: dict[str, Any], told: str, problem: Any, tmp_path: Path) -> None:
        arguments = {"model": str(small_model(tmp_path / "model")), **LOAD, **change}
        assert stand_in("1.3.0").RKLLM().load_huggingface(**arguments) == -1
        assert told in problem()

    def test_weights_have_to_be_there(self, problem: Any, tmp_path: Path) -> None:
        model = small_model(tmp_path / "model")
        index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
        (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        assert stand_in("1.3.0").RKLLM().load_huggingface(model=str(model)) == -1
        assert "names model-2.safetensors, which is not there" in problem()
        (model / "model.safetensors").unlink()
        (model / "model.safetensors.index.json").unlink()
        assert stand_in("1.3.0").RKLLM().load_huggingface(model=str(model)) == -1
        assert "has no weights" in problem()
        assert stand_in("1.3.0").RKLLM().load_huggingface(model=str(model), load_weight=False) == 0

    def test_broken_json(self, problem: Any, tmp_path: Path) -> None:
        model = small_model(tmp_path / "model")
        (model / "config.json").write_text("{", encoding="utf-8")
        assert stand_in("1.3.0").RKLLM().load_huggingface(model=str(model)) == -1
        assert "config.json is no JSON" in problem()

    def test_gguf(self, problem: Any, tmp_path: Path) -> None:
        path = small_gguf(tmp_path / "model.gguf")
        assert stand_in("1.3.0").RKLLM().load_gguf(model=str(path)) == 0
        path.write_bytes(b"GGML")
        assert stand_in("1.3.0").RKLLM().load_gguf(model=str(path)) == -1
        assert "is no GGUF file" in problem()
        with pytest.raises(TypeError):
            stand_in("1.3.0").RKLLM().load_gguf(model=str(path), device="cpu")


class TestBuild:
    @pytest.mark.parametrize("name", sorted(BUILD))
    def test_no_default_is_relied_on(self, name: str, problem: Any, tmp_path: Path) -> None:
        assert loaded(tmp_path).build(**{key: value for key, value in BUILD.items() if key != name}) == -1
        assert problem().startswith(f"{name} is left out: ")

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("do_quantization", (1, None)),
            ("optimization_level", (2, True, 1.0, "1")),
            ("quantized_dtype", ("w8a8_g128", "w4a8_g32", "W4a16", "none", None)),
            ("quantized_algorithm", ("gdq", "GRQ", "grq_r0", "grq_r65", "grq_r", "grq_r+1", "", None)),
            ("target_platform", ("rk3566", "Rk3588", None)),
            ("num_npu_core", (0, 3, "2", True)),
            ("hybrid_rate", (1, 1.0, -0.1, True, "0", float("nan"), float("inf"))),
            ("max_context", (0, -32, 33, 16416, 4096.0, "4096")),
            ("dataset", ("nowhere.json", 3)),
            ("extra_qparams", ("nowhere.qparams", 3)),
        ],
    )
    def test_refused(self, name: str, values: tuple[Any, ...], problem: Any, tmp_path: Path) -> None:
        toolkit = loaded(tmp_path)
        for value in values:
            assert toolkit.build(**{**BUILD, name: value}) == -1, value
            assert problem().startswith(f"{name} is {value!r}")

    @each_release
    def test_upper_case(self, release: str, tmp_path: Path) -> None:
        upper = {**BUILD, "target_platform": "RK3576", "quantized_dtype": "W4A16_G32"}
        assert loaded(tmp_path, release).build(**upper) == 0

    @pytest.mark.parametrize("algorithm", ["grq", "grq_r64"])
    def test_what_grq_needs(self, algorithm: str, problem: Any, tmp_path: Path) -> None:
        grq = {**BUILD, "quantized_algorithm": algorithm}
        assert loaded(tmp_path).build(**grq) == 0
        assert loaded(tmp_path).build(**{**grq, "quantized_dtype": "w8a8"}) == -1
        assert "it is for the types w4a16" in problem()
        toolkit = stand_in("1.3.0").RKLLM()
        assert toolkit.load_huggingface(model=str(tmp_path / "model")) == 0
        assert toolkit.build(**grq) == -1
        assert "device='cuda'" in problem()
        toolkit = stand_in("1.3.0").RKLLM()
        assert toolkit.load_gguf(model=str(small_gguf(tmp_path / "model.gguf"))) == 0
        assert toolkit.build(**grq) == -1

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"hidden_size": 1008, "head_dim": 128}, "32 does not divide 1008, the output of o_proj and down_proj"),
            ({"intermediate_size": 2000}, "32 does not divide 2000, the output of gate_proj and up_proj"),
            ({"head_dim": 65}, "32 does not divide 1040, the output of q_proj, k_proj and v_proj together"),
            (
                {"hidden_size": None, "text_config": {"hidden_size": 1000}},
                "32 does not divide 1000, the output of o_proj and down_proj",
            ),
        ],
    )
    def test_groups_that_do_not_divide(self, changes: dict[str, Any], told: str, problem: Any, tmp_path: Path) -> None:
        model = small_model(tmp_path / "model", **changes)
        config = {key: one for key, one in json.loads((model / "config.json").read_text("utf-8")).items() if one}
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        toolkit = stand_in("1.3.0").RKLLM()
        assert toolkit.load_huggingface(model=str(model), **LOAD) == 0
        assert toolkit.build(**BUILD) == -1
        assert told in problem()
        assert toolkit.build(**{**BUILD, "quantized_dtype": "w4a16"}) == 0

    @pytest.mark.parametrize(
        ("records", "is_good"),
        [
            ([{"input": "a", "target": "b"}], True),
            ([{"input": "", "target": ""}] * 2, True),
            ([{"sample": "a.pkl", "token_nums": 3}], True),
            ([], False),
            ({"input": "a", "target": "b"}, False),
            ([{"input": "a"}], False),
            ([{"input": "a", "target": None}], False),
            ([{"input": "a", "target": "b", "more": "c"}], False),
            ([{"sample": "a.pkl", "token_nums": "3"}], False),
            ([{"input": "a", "target": "b"}, {"sample": "a.pkl", "token_nums": 3}], False),
            (["a"], False),
        ],
    )
    def test_datasets(self, records: Any, *, is_good: bool, tmp_path: Path) -> None:
        file = tmp_path / "data.json"
        file.write_text(json.dumps(records), encoding="utf-8")
        assert loaded(tmp_path).build(**BUILD, dataset=str(file)) == (0 if is_good else -1)

    def test_a_dataset_that_is_no_json(self, problem: Any, tmp_path: Path) -> None:
        file = small_dataset(tmp_path / "data.json")
        file.write_bytes(file.read_bytes()[:-1])
        assert loaded(tmp_path).build(**BUILD, dataset=str(file)) == -1
        assert "is no JSON" in problem()


class TestExport:
    @pytest.mark.parametrize("path", ["out.bin", "nowhere/out.rkllm", ""])
    def test_refused(self, path: str, problem: Any, tmp_path: Path) -> None:
        full = str(tmp_path / path) if path else path
        assert built(tmp_path).export_rkllm(export_path=full) == -1
        assert problem().startswith("export_path is ")

    def test_the_parts_came_with_1_3_0(self, problem: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "out.rkllm")
        for part in ("export_tokenizer", "export_embedding"):
            with pytest.raises(TypeError, match=part):
                built(tmp_path, "1.2.3").export_rkllm(export_path=path, **{part: True})
            assert built(tmp_path).export_rkllm(export_path=path, **{part: False}) == 0
            assert built(tmp_path).export_rkllm(export_path=path, **{part: None}) == -1
            assert problem().startswith(f"{part} is None")

    def test_with_an_adapter_there_are_two_files(self, tmp_path: Path) -> None:
        for lora in (None, str(small_lora(tmp_path / "lora"))):
            toolkit = stand_in("1.3.0").RKLLM()
            assert toolkit.load_huggingface(model=str(small_model(tmp_path / "model")), model_lora=lora, **LOAD) == 0
            assert toolkit.build(**BUILD) == 0
            assert toolkit.export_rkllm(export_path=str(tmp_path / "out.rkllm")) == 0
            assert (tmp_path / "out_lora.rkllm").is_file() is (lora is not None)

    @pytest.mark.parametrize("what", ["FAIL", "RAISE"])
    def test_one_that_is_cut_short_leaves_half_a_file(
        self, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        toolkit = built(tmp_path)
        monkeypatch.setenv(f"RKLLM_STANDIN_{what}", "export_rkllm")
        path = tmp_path / "out.rkllm"
        if what == "RAISE":
            with pytest.raises(RuntimeError):
                toolkit.export_rkllm(export_path=str(path))
        else:
            assert toolkit.export_rkllm(export_path=str(path)) == -1
        assert path.read_text("utf-8") == "rkllm-sim model 1"


class TestSimulation:
    def test_logits(self, problem: Any, tmp_path: Path) -> None:
        toolkit = loaded(tmp_path)
        assert toolkit.get_logits({"input_ids": [[2, 0]]}) == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
        illegal: tuple[Any, ...] = ({}, None, {"input_ids": []}, {"input_ids": [[]]}, {"input_ids": [["a"]]})
        for wrong in illegal:
            assert toolkit.get_logits(wrong) == -1
            assert problem().startswith("inputs")

    def test_chat(self, problem: Any, tmp_path: Path) -> None:
        toolkit = loaded(tmp_path)
        args = {
            "max_length": 128,
            "top_k": 1,
            "temperature": 0.8,
            "do_sample": True,
            "repetition_penalty": 1.1,
            "top_p": 0.9,
        }
        assert isinstance(toolkit.chat_model("Hello", args), str)
        illegal: tuple[Any, ...] = ({"top_n": 0.9}, {"max_length": 1.5}, {"do_sample": 1}, None)
        for wrong in illegal:
            assert toolkit.chat_model("Hello", wrong) == -1
            assert problem().startswith("args")
        assert stand_in("1.3.0").RKLLM().chat_model("Hello", args) == -1
