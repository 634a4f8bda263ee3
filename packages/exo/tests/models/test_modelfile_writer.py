from __future__ import annotations

from exo.models import parse_modelfile
from exo.models.modelfile_writer import write_assignments


def test_assignments_are_lines_of_an_environment_file() -> None:
    assert (
        write_assignments({"FROM": "x.rkllm", "HUGGINGFACE_PATH": "a/b"}) == 'FROM="x.rkllm"\nHUGGINGFACE_PATH="a/b"\n'
    )


def test_assignments_come_back_as_they_were() -> None:
    strange = "a \"b\"\\c #d\ne\r'f'.rkllm"
    text = write_assignments({"FROM": strange, "SYSTEM": ""})
    found = parse_modelfile(text)
    assert (found.from_, found.system, len(text.splitlines())) == (strange, "", 2)
