"""Folders of models, and what is in them."""

from __future__ import annotations

from pathlib import Path

MODELFILE = (
    'FROM="x.rkllm"\nHUGGINGFACE_PATH="Qwen/Qwen2.5-1.5B"\nSYSTEM="Be brief."\nTEMPERATURE=0.5\nTOP_K=7\n'
    'STOP="a"\nSTOP="b"\nVISION_ENCODER="v.rknn"\n'
)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def tree(root: Path) -> dict[str, str]:
    """Content of every file by its path; links are shown as such."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }


def is_linked(one: Path, other: Path) -> bool:
    return one.samefile(other) and not one.is_symlink()
