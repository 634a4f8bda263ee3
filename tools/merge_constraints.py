"""Merge `pip list --format freeze` of several Pythons (files named VERSION.txt) into one constraints file."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path


def merge(freezes: dict[str, list[str]]) -> list[str]:
    """Lines `name==version`, with a marker where a version is not the same on every Python that has the package."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for python, lines in freezes.items():
        for line in lines:
            name, _, version = line.partition("==")
            found[name.lower()][version].append(python)
    merged = []
    for name in sorted(found):
        versions = found[name]
        for version, pythons in sorted(versions.items()):
            marker = " or ".join(f'python_version == "{python}"' for python in pythons) if len(versions) > 1 else ""
            merged.append(f"{name}=={version}" + (f" ; {marker}" if marker else ""))
    return merged


if __name__ == "__main__":
    print("# Versions that were tested together. `make lock` writes this file.")
    print(*merge({Path(name).stem: Path(name).read_text().split() for name in sys.argv[1:]}), sep="\n")
