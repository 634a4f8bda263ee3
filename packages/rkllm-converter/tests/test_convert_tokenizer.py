"""A tokenizer.json made by the transformers of the toolkit's Python: its calls, and what is told when it cannot."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from converter_processes import is_alive, wait_for

from rkllm_converter.errors import ModelNotFound, ToolkitDied
from rkllm_converter.toolkit import fast_tokenizer
from rkllm_converter.toolkit.door import Found
from rkllm_converter.toolkit.fast_tokenizer import make_tokenizer

pytestmark = pytest.mark.slow

TRANSFORMERS = """
import json, os, signal, time
try:
    import versions  # lies beside the script, and is none of the installed ones
except ModuleNotFoundError:
    pass
else:
    raise RuntimeError("took a module of the converter for an installed one")

class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, folder, **options):
        if "broken" in folder:
            raise ValueError("no such tokenizer\\nand many lines more")
        if "large" in folder:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in folder:
            with open(os.environ["BEGAN"], "w") as file:
                file.write(str(os.getpid()))
            time.sleep(300)
        cls.asked = {"folder": folder, **options}
        return cls()

    @property
    def backend_tokenizer(self):
        return self

    def save(self, path):
        with open(path, "w") as file:
            json.dump(self.asked, file)
"""


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """This Python, with a transformers that only tells what it was asked for."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/transformers.py").write_text(TRANSFORMERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("BEGAN", str(tmp_path / "began"))
    return Found(sys.executable, (3, 11), "1.3.0", is_stand_in=True, folder=Path(sys.prefix))


def test_transformers_makes_it_and_runs_no_code_of_the_model(found: Found, tmp_path: Path) -> None:
    target = tmp_path / "tokenizer.json"
    make_tokenizer(found, tmp_path / "model", target)
    asked = target.read_text()
    assert str(tmp_path / "model") in asked
    assert '"trust_remote_code": false' in asked


def test_the_tokens_of_the_hub_are_kept_from_it(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import os\nraise OSError([one for one in sorted(os.environ) if one.startswith(('HF_', 'HUGG'))])"
    (tmp_path / "packages/transformers.py").write_text(text)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME"):
        monkeypatch.setenv(name, "of-a-test")
    with pytest.raises(ModelNotFound) as caught:
        make_tokenizer(found, tmp_path, tmp_path / "tokenizer.json")
    assert "'HF_HOME'" in caught.value.message
    assert "TOKEN'" not in caught.value.message


def test_what_goes_wrong_is_told_on_one_line(found: Found, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"ValueError: no such tokenizer\)\. Name a model .* --tokenizer") as error:
        make_tokenizer(found, tmp_path / "broken", tmp_path / "tokenizer.json")
    assert "many lines more" not in error.value.message


def test_without_transformers_the_reason_is_told(tmp_path: Path) -> None:
    found = Found(sys.executable, (3, 11), "1.3.0", is_stand_in=True, folder=Path(sys.prefix))
    with pytest.raises(ModelNotFound, match="ModuleNotFoundError: No module named 'transformers'"):
        make_tokenizer(found, tmp_path, tmp_path / "tokenizer.json")


def test_a_child_that_was_killed_is_no_model_that_lacks_something(found: Found, tmp_path: Path) -> None:
    with pytest.raises(ToolkitDied, match=r"was ended by SIGKILL in making tokenizer\.json of .*/large\. Most likely"):
        make_tokenizer(found, tmp_path / "large", tmp_path / "tokenizer.json")


def test_it_does_not_take_for_ever(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_tokenizer, "_PATIENCE", 1.0)
    with pytest.raises(ToolkitDied, match=r"did not make tokenizer\.json of .*/slow within 1 seconds.* --tokenizer"):
        make_tokenizer(found, tmp_path / "slow", tmp_path / "tokenizer.json")


def test_after_an_interruption_nothing_goes_on(found: Found, tmp_path: Path) -> None:
    began = tmp_path / "began"

    def interrupt() -> None:
        wait_for(lambda: began.exists() and began.read_text() != "")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        make_tokenizer(found, tmp_path / "slow", tmp_path / "tokenizer.json")
    thread.join()
    assert not is_alive(int(began.read_text()))
