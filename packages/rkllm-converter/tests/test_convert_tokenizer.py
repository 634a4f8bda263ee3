"""A tokenizer.json made by the transformers of the toolkit's Python: its calls, and what is told when it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rkllm_converter.errors import ModelNotFound
from rkllm_converter.toolkit.door import Found
from rkllm_converter.toolkit.fast_tokenizer import make_tokenizer

pytestmark = pytest.mark.slow

TRANSFORMERS = """
import json
import tokenizers  # as the real one does: the library, not a module of this project

class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, folder, **options):
        if "broken" in folder:
            raise ValueError("no such tokenizer\\nand many lines more")
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
    return Found(sys.executable, (3, 11), "1.3.0", is_stand_in=True)


def test_transformers_makes_it_and_runs_no_code_of_the_model(found: Found, tmp_path: Path) -> None:
    target = tmp_path / "tokenizer.json"
    make_tokenizer(found, tmp_path / "model", target)
    asked = target.read_text()
    assert str(tmp_path / "model") in asked
    assert '"trust_remote_code": false' in asked


def test_what_goes_wrong_is_told_on_one_line(found: Found, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"ValueError: no such tokenizer\)\. Name a model .* --tokenizer") as error:
        make_tokenizer(found, tmp_path / "broken", tmp_path / "tokenizer.json")
    assert "many lines more" not in error.value.message


def test_without_transformers_the_reason_is_told(tmp_path: Path) -> None:
    found = Found(sys.executable, (3, 11), "1.3.0", is_stand_in=True)
    with pytest.raises(ModelNotFound, match="ModuleNotFoundError: No module named 'transformers'"):
        make_tokenizer(found, tmp_path, tmp_path / "tokenizer.json")
