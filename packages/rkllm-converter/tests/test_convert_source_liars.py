"""Hubs that lie, models that are made to do harm, and what must not be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from converter_hub import ConverterHub, small_model

from rkllm_converter.errors import HubUnreachable, SourceError
from rkllm_converter.source import fetch, look
from rkllm_converter.source.model import LARGEST_CONFIG, missing_shards

pytest_plugins = "converter_fixtures"
pytestmark = pytest.mark.usefixtures("no_hub")

NAME = "maker/Small-1B"
FILES = small_model({"model_type": "qwen2", "hidden_size": 64})


@pytest.fixture
def hub(hub: ConverterHub) -> ConverterHub:
    hub.add(NAME, FILES)
    return hub


def ignore(_done: int, _total: int) -> None:
    pass


def outside(folder: Path) -> list[Path]:
    return [one for one in folder.rglob("*") if one.is_file() and "home/hub/models--" not in str(one)]


@pytest.mark.parametrize("etag", ["../../../../x", "..", "/etc/hostname", "a/b", ".hidden", ""])
@pytest.mark.parametrize("when", ["look", "fetch"])
def test_an_etag_that_is_a_path(etag: str, when: str, hub: ConverterHub, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("secret", encoding="utf-8")
    source = look(NAME) if when == "fetch" else None
    hub.lie(headers={"ETag": f'"{etag}"', "X-Linked-ETag": f'"{etag}"'})
    with pytest.raises(HubUnreachable, match=r"does not tell the ETag of \S+: it is no hub"):
        fetch(source, report=ignore) if source else look(NAME)
    assert outside(tmp_path) == [tmp_path / "x"]
    assert not any("secret" in one.read_text("latin-1") for one in (tmp_path / "home").rglob("*") if one.is_file())


def test_a_commit_that_is_a_path_is_not_heard(hub: ConverterHub, tmp_path: Path) -> None:
    hub.lie(headers={"X-Repo-Commit": "../../../../x"})
    fetch(look(NAME), report=ignore)
    assert not outside(tmp_path)


@pytest.mark.parametrize("sha", [None, "main", "../../x", "A" * 40, "1" * 39, 3, ["a"]])
def test_a_revision_that_is_no_hash(sha: Any, hub: ConverterHub, tmp_path: Path) -> None:
    hub.lie(described={"sha": sha})
    with pytest.raises(HubUnreachable, match="is no description of a model"):
        look(NAME)
    assert not outside(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        None,
        3,
        "",
        "/tokenizer.json",
        "../tokenizer.json",
        "a/../x.gguf",
        "tokenizer\0",
        "tokenizer\ud800",
        "x\x1b[2J.py",
    ],
)
def test_names_that_are_none_are_passed_over(name: Any, hub: ConverterHub) -> None:
    names = [*({"rfilename": one, "size": len(content)} for one, content in FILES.items()), {"rfilename": name}]
    plain = look(NAME).files
    hub.lie(described={"siblings": names})
    assert look(NAME).files == plain


def test_what_leads_out_of_the_cache_is_not_used(hub: ConverterHub, tmp_path: Path) -> None:
    source = look(NAME)
    (config,) = (tmp_path / "home").rglob("config.json")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    config.unlink()
    config.symlink_to(tmp_path / "other.json")
    for use in (lambda: look(NAME), lambda: fetch(source, report=ignore)):
        with pytest.raises(SourceError, match=r"leads out of the cache, to \S+other\.json\. Delete it"):
            use()
    assert hub.asked


def test_a_model_that_was_moved_to_another_disk_is_used(hub: ConverterHub, tmp_path: Path) -> None:
    folder = fetch(look(NAME), report=ignore)
    (model,) = (tmp_path / "home/hub").glob("models--*")
    model.rename(tmp_path / "moved")
    model.symlink_to(tmp_path / "moved")
    hub.asked.clear()
    assert fetch(look(NAME), report=ignore) == folder
    assert len(hub.asked) == 1


def test_a_config_of_any_size_is_not_brought(hub: ConverterHub, tmp_path: Path) -> None:
    hub.add(NAME, {**FILES, "config.json": b" " * (LARGEST_CONFIG + 1)})
    with pytest.raises(SourceError, match=r"config\.json of maker/Small-1B has more than 4 MB"):
        look(NAME)
    assert [one.path.split("/")[1] for one in hub.asked] == ["api"], "it was asked for"
    hub.lie(described={"siblings": [{"rfilename": one, "size": 3} for one in FILES]})
    with pytest.raises(HubUnreachable, match=r"config\.json of maker/Small-1B is larger than http\S+ announced"):
        look(NAME)
    assert [one.method for one in hub.asked[1:]] == ["GET", "HEAD"]
    hub.lie(headers={"Content-Length": "3"}, described={"siblings": [{"rfilename": one, "size": 3} for one in FILES]})
    with pytest.raises(HubUnreachable, match=r"config\.json is larger than announced"):
        look(NAME)
    assert not [one for one in (tmp_path / "home").rglob("*") if one.is_file() and one.stat().st_size]


def test_a_local_config_of_any_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(3 << 40)
    with pytest.raises(SourceError, match=r"config\.json has more than 4 MB"):
        look(str(tmp_path))


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"weight_map": [1]}', b"\xff"])
def test_an_index_that_makes_no_sense(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(text)
    with pytest.raises(SourceError, match="is no index of weights"):
        missing_shards(["model.safetensors.index.json"], tmp_path)


def test_a_description_of_brackets(hub: ConverterHub) -> None:
    hub.break_down(200, b"[" * 200_000)
    with pytest.raises(HubUnreachable, match="is no description of a model"):
        look(NAME)


@pytest.mark.parametrize(
    "form", ["http://user:PASSW0RD@127.0.0.1:{}", "user:PASSW0RD@127.0.0.1:{}", "http://user:P@SSW0RD@127.0.0.1:{}"]
)
def test_a_password_is_not_shown(form: str, hub: ConverterHub, monkeypatch: pytest.MonkeyPatch) -> None:
    port = hub.url.rpartition(":")[2]
    told = []
    for one in ("1", port):
        monkeypatch.setenv("HF_ENDPOINT", form.format(one))
        for name in ("nobody/Nothing", "maker/Gone"):
            with pytest.raises(SourceError) as caught:
                look(name)
            told.append(caught.value.message)
    assert all("127.0.0.1" in one for one in told)
    assert not any("SSW0RD" in one or "user" in one for one in told)


def test_errors_of_values_are_told(hub: ConverterHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    source = look(NAME)

    def broken(*_args: Any, **_options: Any) -> None:
        raise json.JSONDecodeError("no JSON", "", 0)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", broken)
    with pytest.raises(HubUnreachable, match="with something that cannot be used: no JSON"):
        fetch(source, report=ignore)
    assert hub.asked
