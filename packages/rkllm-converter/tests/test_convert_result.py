"""The folder of a result: how it is written, what is kept of an earlier one, and what `verify` finds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from converter_models import small_model

from rkllm_converter.errors import FolderError, ModelNotFound, VerifyFailed
from rkllm_converter.result.modelfile import modelfile_text, read_keys
from rkllm_converter.result.record import FILE_NAME, FileRecord, Record, identity, read_record, write_record
from rkllm_converter.result.staging import Staging, check_output, staging
from rkllm_converter.result.tokenizer import copy_tokenizer, end_texts
from rkllm_converter.result.verify import is_whole, verify

MODELFILE = modelfile_text(
    "m.rkllm", repository="a/b", context=512, max_new_tokens=256, stop=("</s>",), thinking=("<think>", "</think>")
)


def fill(folder: Path, text: str = "a model") -> Record:
    """Files of a result, and their record."""
    (folder / "m.rkllm").write_text(text)
    (folder / "Modelfile").write_text(MODELFILE)
    (folder / "tokenizer.json").write_text("{}")
    record = Record(
        identity=identity({"a": 1}),
        converter="0.1.0",
        toolkit="1.3.0",
        is_stand_in=True,
        python="3.11",
        source={"repository": "a/b"},
        options={"quant": "w8a8"},
        inputs={"a": 1},
        ignored=[],
        calibration=None,
        began="2026-01-02T03:04:05Z",
        seconds=1.5,
        files={name: FileRecord.of(folder / name) for name in ("m.rkllm", "Modelfile", "tokenizer.json")},
    )
    write_record(folder, record)
    return record


def make(output: Path, text: str = "a model", *, replace: bool = True) -> Record:
    with staging(output, replace=replace) as folders:
        folders.begin()
        record = fill(folders.partial, text)
        folders.place()
        folders.finish()
    return record


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    record = fill(tmp_path)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "nonsense", '{"format": 2}', '{"format": 1, "files": []}', "[" * 5000, '"\\ud800'],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(VerifyFailed, match="damaged"):
        read_record(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_a_record_names_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    fill(tmp_path)
    said = json.loads((tmp_path / FILE_NAME).read_text())
    said["files"][name] = {"bytes": 1, "sha256": ""}
    (tmp_path / FILE_NAME).write_text(json.dumps(said))
    with pytest.raises(VerifyFailed, match="damaged"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"seconds": "soon"},
        {"is_stand_in": 0},
        {"toolkit": {"a": 1}},
        {"calibration": 5},
        {"files": {"x": {"bytes": 1e400, "sha256": ""}}},
        {"files": {"x": {"bytes": True, "sha256": ""}}},
    ],
)
def test_a_record_with_values_of_another_kind_is_damaged(tmp_path: Path, changed: dict[str, object]) -> None:
    fill(tmp_path)
    said = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps(said | changed))
    with pytest.raises(VerifyFailed, match="damaged"):
        read_record(tmp_path)


def test_a_record_that_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE_NAME)
    with pytest.raises(VerifyFailed, match="no plain file"):
        read_record(tmp_path)


def test_nothing_of_elsewhere_gets_into_a_result(tmp_path: Path) -> None:
    source = small_model(tmp_path / "models--a--b/snapshots/0123")
    (tmp_path / "models--a--b/blobs").mkdir()
    (source / "config.json").rename(tmp_path / "models--a--b/blobs/abc")
    (source / "config.json").symlink_to("../../blobs/abc")
    (tmp_path / "target").mkdir()
    assert "config.json" in copy_tokenizer(source, tmp_path / "target")
    (tmp_path / "secret").write_text("secret")
    (source / "generation_config.json").unlink()
    (source / "generation_config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelNotFound, match="outside of the model"):
        copy_tokenizer(source, tmp_path / "target")


def test_the_identity_is_that_of_the_values_not_of_their_order() -> None:
    assert identity({"a": 1, "b": [2]}) == identity({"b": [2], "a": 1})
    assert identity({"a": 1}) != identity({"a": 2})


def test_a_result_is_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    output = tmp_path / "models/m"
    record = make(output)
    assert verify(output) == record
    assert is_whole(output, record)
    assert names_in(output.parent) == ["m"]


def test_what_a_failure_leaves_is_the_log(tmp_path: Path) -> None:
    output = tmp_path / "m"
    with staging(output) as folders:
        folders.begin()
        folders.log.write_text("what the toolkit said")
        (folders.work / "calibration.json").write_text("[]")
        (folders.partial / "m.rkllm").write_text("half")
        folders.discard()
    assert names_in(tmp_path) == [".m.rkllm-work"]
    assert names_in(tmp_path / ".m.rkllm-work") == ["toolkit.log"]
    make(output)
    assert names_in(tmp_path) == ["m"]


def test_two_at_once_do_not_share_a_place(tmp_path: Path) -> None:
    with staging(tmp_path / "m"):
        with pytest.raises(FolderError, match="another process"):
            make(tmp_path / "m")
        make(tmp_path / "n")
    make(tmp_path / "m")


def test_what_a_killed_run_left_is_cleaned_up(tmp_path: Path) -> None:
    output = tmp_path / "m"
    before = Staging(output)
    before.work.mkdir()
    before.begin()
    (before.partial / "m.rkllm").write_text("half")
    (before.work / "calibration.json").write_text("[]")
    make(output)
    assert names_in(tmp_path) == ["m"]


def test_a_run_that_died_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    output = tmp_path / "m"
    record = make(output)
    output.rename(tmp_path / ".m.rkllm-old")
    with staging(output):
        assert verify(output) == record
    assert names_in(tmp_path) == ["m"]


def test_a_new_result_replaces_the_earlier_one_and_keeps_what_a_person_has_added(tmp_path: Path) -> None:
    output = tmp_path / "m"
    make(output)
    (output / "notes.txt").write_text("mine")
    (output / "photos").mkdir()
    (output / "photos/one.jpg").write_text("mine too")
    os.mkfifo(output / "pipe")
    (output / "Modelfile.before").write_text("an earlier one")
    (output / "Modelfile").write_text(MODELFILE + 'SYSTEM="Be brief."\n')
    make(output, "another model")
    assert (output / "m.rkllm").read_text() == "another model"
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "Modelfile").read_text() == MODELFILE
    assert (output / "photos/one.jpg").read_text() == "mine too"
    assert (output / "pipe").is_fifo()
    assert (output / "Modelfile.before").read_text() == "an earlier one"
    assert "Be brief" in (output / "Modelfile.before.2").read_text()
    verify(output)
    assert names_in(tmp_path) == ["m"]


def test_what_somebody_puts_there_meanwhile_stays(tmp_path: Path) -> None:
    output = tmp_path / "m"
    with staging(output, replace=True) as folders:
        folders.begin()
        fill(folders.partial)
        output.mkdir()
        (output / "thesis.txt").write_text("my only copy")
        with pytest.raises(FolderError, match="no conversion has made it"):
            folders.place()
    assert (output / "thesis.txt").read_text() == "my only copy"


def test_an_interruption_between_the_renames_gives_the_earlier_result_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m"
    record = make(output)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".rkllm-partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    with staging(output, replace=True) as folders:
        folders.begin()
        fill(folders.partial, "another model")
        monkeypatch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folders.place()
    assert verify(output) == record


def test_the_lock_is_not_taken_away_by_whoever_had_it_before(tmp_path: Path) -> None:
    output = tmp_path / "m"
    with staging(output) as first:
        first.begin()
        fill(first.partial)
        first.place()
        first.finish()
        second = staging(output, replace=True)
        second.__enter__()
    with pytest.raises(FolderError, match="another process"), staging(output):
        pass
    second.__exit__(None, None, None)


def test_folders_of_others_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "diary").write_text("dear")
    (tmp_path / ".m.rkllm-work").symlink_to(precious)
    with pytest.raises(FolderError, match="cannot be written"), staging(tmp_path / "m"):
        pass
    assert (precious / "diary").read_text() == "dear"


def test_a_record_that_cannot_be_read_lets_nothing_be_replaced(tmp_path: Path) -> None:
    make(tmp_path / "m")
    for text in ("{", '{"tool": "other"}'):
        (tmp_path / "m/conversion.json").write_text(text)
        with pytest.raises(FolderError, match="remove"):
            check_output(tmp_path / "m", replace=True)


@pytest.mark.parametrize("name", ["/", "m/inside", ".m.rkllm-partial/inside"])
def test_a_result_is_no_place_for_another(tmp_path: Path, name: str) -> None:
    make(tmp_path / "m")
    with pytest.raises(FolderError, match="result"):
        check_output(tmp_path / name, replace=True)


def test_only_folders_of_a_conversion_are_replaced(tmp_path: Path) -> None:
    check_output(tmp_path / "new", replace=False)
    (tmp_path / "home").mkdir()
    check_output(tmp_path / "home", replace=False)
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(FolderError, match="no conversion has made it"):
        check_output(tmp_path / "home", replace=True)
    make(tmp_path / "m")
    with pytest.raises(FolderError, match="--force"):
        check_output(tmp_path / "m", replace=False)
    check_output(tmp_path / "m", replace=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    for name in ("file", "link"):
        with pytest.raises(FolderError, match="is no folder"):
            check_output(tmp_path / name, replace=True)


def break_size(folder: Path) -> None:
    (folder / "m.rkllm").write_text("longer than before")


def break_byte(folder: Path) -> None:
    (folder / "m.rkllm").write_text("b model")


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def add_model(folder: Path) -> None:
    (folder / "other.rkllm").write_text("")


def add_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("evil")


def make_a_link(folder: Path) -> None:
    (folder / "m.rkllm").rename(folder.parent / "elsewhere")
    (folder / "m.rkllm").symlink_to(folder.parent / "elsewhere")


def rename_in_modelfile(folder: Path) -> None:
    (folder / "Modelfile").write_text('FROM="gone.rkllm"\n')


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_size, "m.rkllm has 18 bytes; it was made with 7"),
        (break_byte, "m.rkllm is not as it was made"),
        (remove_tokenizer, "tokenizer.json is missing"),
        (add_model, "other.rkllm is no file of this conversion"),
        (add_template, "chat_template.jinja is no file of this conversion"),
        (make_a_link, "m.rkllm is a link"),
        (rename_in_modelfile, "'gone.rkllm', which this conversion has not made"),
    ],
)
def test_verify_names_what_is_wrong(tmp_path: Path, damage: object, told: str) -> None:
    make(tmp_path / "m")
    assert callable(damage)
    damage(tmp_path / "m")
    with pytest.raises(VerifyFailed, match=told):
        verify(tmp_path / "m")


def test_verify_refuses_what_no_conversion_has_made(tmp_path: Path) -> None:
    with pytest.raises(VerifyFailed, match="no result of rkllm-convert"):
        verify(tmp_path)
    with pytest.raises(VerifyFailed, match="is no folder"):
        verify(tmp_path / "none")


def test_a_changed_modelfile_leaves_a_result_whole(tmp_path: Path) -> None:
    record = make(tmp_path / "m")
    (tmp_path / "m/Modelfile").write_text(MODELFILE + "NUM_CTX=256\n")
    assert is_whole(tmp_path / "m", record)
    (tmp_path / "m/m.rkllm").unlink()
    assert not is_whole(tmp_path / "m", record)


def test_a_modelfile_has_what_was_asked_for() -> None:
    text = modelfile_text(
        'a "b".rkllm',
        repository="",
        context=4096,
        max_new_tokens=2048,
        stop=("<|end|>", "a\nb"),
        thinking=None,
        adapter="a_lora.rkllm",
    )
    assert read_keys(text) == {
        "FROM": ['a "b".rkllm'],
        "NUM_CTX": ["4096"],
        "MAX_NEW_TOKENS": ["2048"],
        "STOP": ["<|end|>", "a\nb"],
        "ADAPTER": ["a_lora.rkllm"],
    }


def test_the_tokenizer_comes_along_and_what_it_was_made_from_does_not(tmp_path: Path) -> None:
    source = small_model(tmp_path / "source")
    for name in ("vocab.json", "merges.txt", "README.md"):
        (source / name).write_text("{}")
    (tmp_path / "target").mkdir()
    names = copy_tokenizer(source, tmp_path / "target")
    assert sorted(names) == names_in(tmp_path / "target")
    assert set(names) == {"tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"}


def test_the_texts_of_the_end_are_those_of_all_files(tmp_path: Path) -> None:
    source = small_model(tmp_path / "source")
    assert end_texts(source) == ["<|im_end|>", "<|endoftext|>"]
    (source / "generation_config.json").write_text('{"eos_token_id": true}')
    assert end_texts(source) == ["<|im_end|>"]
    (source / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    assert end_texts(source) == ["</s>"]
    (source / "tokenizer_config.json").write_text("nonsense")
    assert end_texts(source) == []
