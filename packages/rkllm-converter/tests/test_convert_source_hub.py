"""Models of the hub, from a server that answers as it does."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from converter_hub import TOKEN, ConverterHub, small_model
from converter_processes import wait_for

from rkllm_converter.errors import GatedModel, HubUnreachable, ModelNotFound, SourceError
from rkllm_converter.source import Source, fetch, look
from rkllm_converter.source import hub as hub_module

pytest_plugins = "converter_fixtures"
pytestmark = pytest.mark.usefixtures("no_hub")

NAME = "maker/Small-1B"
CONFIG = {"model_type": "qwen2", "hidden_size": 64}


class Reports:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total))


def brought(source: Source) -> Path:
    return fetch(source, report=Reports())


def test_a_look_brings_the_config_alone(hub: ConverterHub, tmp_path: Path) -> None:
    commit = hub.add(NAME, small_model(CONFIG))
    source = look(NAME)
    assert (source.kind, source.name, source.repository) == ("hub", "Small-1B", NAME)
    assert (source.revision, source.fingerprint, source.path) == (commit, commit, None)
    assert source.config == CONFIG
    assert [*source.files] == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert source.weights_bytes == 256 * 64
    assert source.to_download == sum(source.files.values()) - source.files["config.json"]
    assert source.cache == tmp_path / "home/hub"
    assert not hub.of_large_files()


def test_fetched_files_are_those_of_the_hub(hub: ConverterHub) -> None:
    files = small_model(CONFIG)
    hub.add(NAME, files)
    source = look(NAME)
    folder = brought(source)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: files[name] for name in source.files}
    assert look(NAME).to_download == 0
    assert not [*Path(os.environ["HF_HOME"]).rglob("*.part")]


def test_progress_only_grows_and_ends_with_all_bytes(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    reports = Reports()
    source = look(NAME)
    fetch(source, report=reports)
    total = sum(source.files.values())
    done = [one for one, _ in reports.seen]
    assert done == sorted(done)
    assert done[-1] == total
    assert {one for _, one in reports.seen} == {total}


def test_what_is_there_is_not_asked_for_again(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    source = look(NAME)
    folder = brought(source)
    hub.asked.clear()
    assert brought(source) == folder
    assert hub.asked == []


def test_a_branch_and_its_commit_are_the_same(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    other = hub.add(NAME, small_model({**CONFIG, "hidden_size": 128}), branch="wide")
    assert look(NAME, revision="wide") == look(NAME, revision=other)
    assert look(NAME, revision="wide").config["hidden_size"] == 128
    assert look(NAME).revision != other


def test_a_model_is_fetched_as_it_was_looked_at(hub: ConverterHub) -> None:
    commit = hub.add(NAME, small_model(CONFIG))
    source = look(NAME)
    hub.add(NAME, small_model({**CONFIG, "hidden_size": 128}, model__safetensors=b"newer"))
    folder = brought(source)
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert (folder / "model.safetensors").stat().st_size == source.files["model.safetensors"]
    assert {one.path for one in hub.of_large_files()} == {f"/{NAME}@{commit}/model.safetensors"}


def test_safetensors_are_preferred_and_nothing_else_is_brought(hub: ConverterHub) -> None:
    more = {
        "pytorch_model.bin": b"x",
        "pytorch_model.bin.index.json": b"{}",
        "consolidated.00.safetensors": b"x",
        "original/model.safetensors": b"x",
        "onnx/model.onnx": b"x",
        "tokenizer.model": b"x",
        "modeling_small.py": b"x",
        "chat_template.jinja": b"x",
    }
    hub.add(NAME, {**small_model(CONFIG), **more})
    assert {*look(NAME).files} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
        "modeling_small.py", "chat_template.jinja",
    }  # fmt: skip


def test_a_model_with_bin_files_only(hub: ConverterHub) -> None:
    files = small_model(CONFIG)
    del files["model.safetensors"]
    index = json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}).encode()
    hub.add(NAME, {**files, "pytorch_model-00001-of-00001.bin": b"x" * 9, "pytorch_model.bin.index.json": index})
    source = look(NAME)
    assert source.weights_bytes == 9
    assert (brought(source) / "pytorch_model.bin.index.json").read_bytes() == index


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"config.json": b"{}"}, "no weights"),
        ({"model.safetensors": b"x"}, "no config.json"),
        ({"a.gguf": b"x", "config.json": b"{}"}, "such as a.gguf"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, "an adapter"),
        ({"config.json": b"{}", "model-00002-of-00002.safetensors": b"x"}, "model-00001-of-00002.safetensors"),
    ],
)
def test_what_a_repository_lacks_is_said(hub: ConverterHub, files: dict[str, bytes], says: str) -> None:
    hub.add(NAME, files)
    with pytest.raises(ModelNotFound, match=NAME) as raised:
        look(NAME)
    assert says in raised.value.message
    assert not hub.of_large_files()


def test_an_index_that_names_more_than_there_is(hub: ConverterHub) -> None:
    index = json.dumps({"weight_map": {"a": "model.safetensors", "b": "more.safetensors"}}).encode()
    hub.add(NAME, {**small_model(CONFIG), "model.safetensors.index.json": index})
    with pytest.raises(ModelNotFound, match=r"more\.safetensors"):
        brought(look(NAME))


def test_a_gated_model_says_how_to_get_it(hub: ConverterHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, small_model(CONFIG), gated=True)
    with pytest.raises(GatedModel) as raised:
        look(NAME)
    for word in ("terms", f"{hub.url}/{NAME}", "HF_TOKEN", "hf auth login"):
        assert word in raised.value.message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (brought(look(NAME)) / "model.safetensors").exists()


def test_a_token_is_sent_to_the_hub_and_not_to_its_storage(hub: ConverterHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add(NAME, small_model(CONFIG), gated=True)
    brought(look(NAME))
    assert {one.token for one in hub.asked if not one.storage} == {TOKEN}
    assert {one.token for one in hub.of_large_files()} == {""}


def test_models_and_revisions_that_are_not_there(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    with pytest.raises(ModelNotFound, match="no revision 'other'"):
        look(NAME, revision="other")
    with pytest.raises(ModelNotFound, match="no model maker/Other"):
        look("maker/Other")
    with pytest.raises(ModelNotFound, match=r"maker/\.\.x"):
        look("maker/..x")


def test_a_hub_that_cannot_be_reached(hub: ConverterHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubUnreachable, match=r"http://127\.0\.0\.1:1 cannot be reached for maker/Small-1B"):
        look(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "127.0.0.1")
    with pytest.raises(HubUnreachable, match="has to begin with http"):
        look(NAME)


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>log in</html>"), (200, b"[]"), (200, b'{"siblings": 3}'), (500, b""), (418, b"")]
)
def test_broken_answers(hub: ConverterHub, status: int, body: bytes) -> None:
    hub.break_down(status, body)
    with pytest.raises(HubUnreachable, match=NAME):
        look(NAME)


def test_a_config_that_is_no_json(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG, config__json=b"<html>"))
    with pytest.raises(SourceError, match=rf"config\.json of {NAME} is no JSON"):
        look(NAME)


def test_offline(hub: ConverterHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.add(NAME, small_model(CONFIG))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        look(NAME)
    assert hub.asked == []


def test_wrong_bytes_are_refused_and_thrown_away(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    source = look(NAME)
    hub.send_wrong_bytes(wrong=True)
    with pytest.raises(HubUnreachable, match="SHA-256"):
        brought(source)
    hub.send_wrong_bytes(wrong=False)
    assert (brought(source) / "model.safetensors").stat().st_size == source.files["model.safetensors"]


def test_files_that_are_refused(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    hub.refuse_files(403)
    with pytest.raises(GatedModel, match=r"refused maker/Small-1B \(403\): Not for you"):
        look(NAME)


def test_two_that_want_the_same_bring_it_once(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    source = look(NAME)
    weights = f"/{NAME}/resolve/{source.revision}/model.safetensors"
    hub.stall_after(4096)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(brought, source)
        assert hub.stopped.wait(10)
        second = pool.submit(brought, source)
        wait_for(lambda: sum((one.method, one.path) == ("HEAD", weights) for one in hub.asked) == 2 or second.done())
        assert not second.done()
        hub.go_on()
        assert first.result() == second.result()
    assert len(hub.of_large_files()) == 1


class Waiting:
    """Another process at work on the weights of a model, that has brought some of them."""

    def __init__(self, source: Source, size: int) -> None:
        assert source.cache is not None
        blobs = source.cache / f"models--{NAME.replace('/', '--')}/blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        content = small_model(CONFIG)["model.safetensors"]
        self.part = blobs / f"{hashlib.sha256(content).hexdigest()}.rkllm-convert.part"
        self.part.write_bytes(content[:size])
        self.file = self.part.open("rb")
        fcntl.flock(self.file, fcntl.LOCK_EX)


def test_what_another_process_brings_is_shown(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    source, reports = look(NAME), Reports()
    with ThreadPoolExecutor(1) as pool, Waiting(source, 4096).file as other:
        waiting = pool.submit(fetch, source, report=reports)
        small = sum(source.files.values()) - source.weights_bytes
        wait_for(lambda: (small + 4096, small + source.weights_bytes) in reports.seen or waiting.done())
        assert not hub.of_large_files()
        other.close()
        waiting.result(10)
    assert [one.range for one in hub.of_large_files()] == ["bytes=4096-"]


def test_another_process_that_gets_nowhere_is_not_waited_for(
    hub: ConverterHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_PATIENCE", 0.0)
    hub.add(NAME, small_model(CONFIG))
    source = look(NAME)
    other = Waiting(source, 4096)
    with other.file, pytest.raises(SourceError, match=r"\.part is held by another process, and has not grown for 0 s"):
        brought(source)
    assert other.part.stat().st_size == 4096


@pytest.mark.slow
def test_a_connection_that_breaks_off_is_taken_up_again(hub: ConverterHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.add(NAME, small_model(CONFIG))
    source = look(NAME)
    hub.cut_after(4096)
    brought(source)
    assert [one.range for one in hub.of_large_files()] == ["", "bytes=4096-"]


_FETCH = """
import sys
from rkllm_converter.source import fetch, look
fetch(look(sys.argv[1]), report=lambda done, total: None)
"""


@pytest.mark.slow
def test_a_download_shows_nothing_even_if_it_breaks_off(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    hub.cut_after(4096)
    command = [sys.executable, "-c", _FETCH, NAME]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(hub.of_large_files()) == 2


@pytest.mark.slow
def test_a_killed_download_goes_on_where_it_was(hub: ConverterHub) -> None:
    content = os.urandom(1 << 20) * 32
    hub.add(NAME, small_model(CONFIG, model__safetensors=content))
    hub.stall_after(25 << 20)
    with subprocess.Popen([sys.executable, "-c", _FETCH, NAME]) as child:
        assert hub.stopped.wait(60)
        blobs = Path(os.environ["HF_HOME"]).rglob("*.part")
        part = next(blobs)
        try:
            # the library writes pieces of 10 MB
            wait_for(lambda: part.stat().st_size >= 20 << 20 or child.poll() is not None)
            assert child.poll() is None
        finally:
            child.kill()
    source = look(NAME)
    assert source.to_download < 13 << 20
    reports = Reports()
    folder = fetch(source, report=reports)
    assert (folder / "model.safetensors").read_bytes() == content
    assert hub.of_large_files()[-1].range == f"bytes={20 << 20}-"
    assert min(done for done, _ in reports.seen if done > 1024) >= 20 << 20
    assert not part.exists()


def test_a_tokenizer_alone(hub: ConverterHub) -> None:
    hub.add(NAME, small_model(CONFIG))
    reports = Reports()
    folder = fetch(look(NAME), report=reports, tokenizer_only=True)
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert reports.seen[-1] == (sum(path.stat().st_size for path in folder.iterdir()),) * 2
    assert not hub.of_large_files()


def test_a_repository_with_a_tokenizer_alone(hub: ConverterHub) -> None:
    files = small_model(CONFIG)
    del files["model.safetensors"]
    hub.add(NAME, files)
    with pytest.raises(ModelNotFound, match="no weights"):
        look(NAME)
    folder = fetch(look(NAME, needs_weights=False), report=Reports(), tokenizer_only=True)
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_tokenizer_beside_part_of_the_weights_or_gguf_files(hub: ConverterHub) -> None:
    files = small_model(CONFIG, a__gguf=b"x")
    files["model-00002-of-00002.safetensors"] = files.pop("model.safetensors")
    hub.add(NAME, files)
    assert "tokenizer.json" in look(NAME, needs_weights=False).files
    del files["model-00002-of-00002.safetensors"], files["config.json"]
    hub.add("maker/Other", files)
    with pytest.raises(ModelNotFound, match=r"has no config\.json"):
        look("maker/Other", needs_weights=False)
