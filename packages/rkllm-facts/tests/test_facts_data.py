"""The data are records: made from headers by a compiler, or copied from Rockchip's pages. Nobody edits them by hand.

What is not pinned here has tests of its own: the architectures, and the constants that are fitted to these records.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest

RECORDS = {
    "abi/data/1.1.0.json": "31db93d68c19f833da541dd98eafbf13e067ecdceb2721d0c20ccfe996f06d69",
    "abi/data/1.2.0.json": "82df12372268ce4bd0acf3e30c14b7f8c09b7e2bd5d476f518c9b7f4978acac5",
    "abi/data/1.2.1b1.json": "f2e38902a0d091efa3be684fa08c8477a074ccaa09d23112bf34e63179a735d6",
    "abi/data/1.2.1.json": "99f80515f36f3c10a250ad7fa1bc329031fbf643868e0684e82e09ad8a58dd1f",
    "abi/data/1.2.3.json": "48a0caecba15314ae0cad790d8bb11ce3ffb953c216fcf5a7148543efcb66964",
    "abi/data/1.3.0.json": "a9b61d369a9b2093e7a62901953c5d7cbc2c133c1cbcce1f2df8ed87292a73c2",
    "data/text.csv": "187b2756826ca42c2be30458e2f2d6fd2554c2f45b26c855dde3b49dccc90e53",
    "data/multimodal.csv": "53a6179697a12d577e421b01d5ac2eae606fbbcbde15a06016d3dee3c771b18e",
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_what_it_was(name: str) -> None:
    content = files("rkllm_facts").joinpath(*name.split("/")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == RECORDS[name]


def test_every_file_of_data_is_read_by_somebody() -> None:
    found = {
        f"{folder}/{file.name}"
        for folder in ("abi/data", "data")
        for file in files("rkllm_facts").joinpath(*folder.split("/")).iterdir()
    }
    assert found == {*RECORDS, "abi/data/releases.json", "data/architectures.json", "data/planner.json"}
