"""Fault lines and script records."""

from __future__ import annotations

import re

import pytest

from rkllm_sim.build import sources
from rkllm_sim.errors import BadOptions, BadScript
from rkllm_sim.records import FAULTS, check_fault, check_script


@pytest.mark.parametrize(
    "fault",
    [
        "load_fails",
        "segv_at=0",
        'segv_at=3 when "boom boom"',
        'run_fails when "\\u00e9"',
        "abort_ends=nothing",
        "oom_second_init",
        "oom_second_init=crash",
    ],
)
def test_right_faults(fault: str) -> None:
    check_fault(fault)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("", "no fault ''"),
        ("boom", "no fault 'boom'"),
        ("load_fails=1", "takes no value"),
        ("segv_at", "takes =NUMBER"),
        ("segv_at=", "takes =NUMBER"),
        ("segv_at=-1", "takes =NUMBER"),
        ("abort_ends", "=finish or =nothing or =error"),
        ("oom_second_init=", "no value or =crash"),
        ("segv_at=3 when boom", "may follow"),
        ('segv_at=3 if "boom"', "may follow"),
        ('segv_at=3 when "boom" now', "may follow"),
    ],
)
def test_wrong_faults(fault: str, why: str) -> None:
    with pytest.raises(BadOptions, match=why):
        check_fault(fault)


def test_the_library_knows_the_same_faults() -> None:
    source = (sources() / "faults.c").read_text(encoding="utf-8")
    assert set(re.findall(r"FAULT\((\w+), (?:FLAG|NUMBER|WORD)\)", source)) == set(FAULTS)


SCRIPT = r"""
# a comment
text "Hi \n \"you\""
token 5
pad 3
pad endless 151936
repeat 2 "a"
repeat endless "a"
bytes f09f9880
null
error
wait 2.5
when "x"
text "only for x"
otherwise
wait 7
"""


def test_every_record() -> None:
    check_script(SCRIPT)


def test_the_library_knows_the_same_records() -> None:
    source = (sources() / "script.c").read_text(encoding="utf-8")
    written = {line.partition(" ")[0] for line in SCRIPT.splitlines()} - {"", "#"}
    assert set(re.findall(r'IS\("(\w+)"\)', source)) == written


@pytest.mark.parametrize(
    "record",
    [
        "say",
        "text",
        "text Hi",
        'text "Hi',
        'text "a" "b"',
        "text 5",
        "token",
        "token -1",
        "pad",
        "pad many",
        "pad 3 x",
        "repeat 3",
        'repeat "a"',
        "bytes",
        "bytes f",
        "bytes xy",
        "null 1",
        "error 1",
        "wait",
        "wait -1",
        "when",
        "when x",
        "otherwise x",
        "otherwise",
        "end",
    ],
)
def test_a_wrong_record_is_named_with_its_line(record: str) -> None:
    with pytest.raises(BadScript, match=r"^Line 3 of the script: "):
        check_script(f'text "a"\n\n{record}\n')
