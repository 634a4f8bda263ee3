"""All probes together: none of them can stop the node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import msgspec
import pytest

from exo.topology import (
    PROBES,
    Accelerator,
    Findings,
    Machine,
    Memory,
    NodeCapabilities,
    Probe,
    Reader,
    Surroundings,
    probe,
)

GPU = Accelerator(vendor="nvidia", name="L4")


def good(around: Surroundings, reader: Reader) -> Findings:
    reader.note("Good: one thing: Not Supported")
    return Findings(memory=Memory(total=7), accelerators=(GPU,))


def failing(error: BaseException) -> Probe:
    def one(around: Surroundings, reader: Reader) -> Findings:
        reader.note("Bad: noted before")
        raise error

    return one


def giving(value: Any) -> Probe:
    def one(around: Surroundings, reader: Reader) -> Findings:
        found: Findings = value
        return found

    return one


def test_no_probe_finds_nothing() -> None:
    assert probe({}) == NodeCapabilities()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("odd"), "RuntimeError: odd"), (SystemExit(1), "SystemExit: 1"), (KeyError("x"), "KeyError: 'x'")],
)
@pytest.mark.parametrize("bad_first", [True, False])
def test_a_probe_that_raises_loses_nothing_else(
    around: Surroundings, *, error: BaseException, reason: str, bad_first: bool
) -> None:
    probes: Mapping[str, Probe] = {"bad": failing(error), "good": good}
    if not bad_first:
        probes = dict(reversed(list(probes.items())))
    found = probe(probes, around=around)
    assert found.memory == Memory(total=7)
    assert found.accelerators == (GPU,)
    assert set(found.unknown) == {"Good: one thing: Not Supported", "Bad: noted before", f"Probe bad: {reason}"}


def test_a_probe_that_hangs_loses_nothing_else(around: Surroundings, never: Event) -> None:
    def hangs(around: Surroundings, reader: Reader) -> Findings:
        never.wait()
        return Findings()

    found = probe({"slow": hangs, "good": good}, around=around, timeout=0.5)
    assert found.accelerators == (GPU,)
    assert found.unknown == ("Probe slow: did not end in time", "Good: one thing: Not Supported")


@pytest.mark.slow
def test_a_reading_that_hangs_leaves_its_probe_time_to_hand_over(around: Surroundings, never: Event) -> None:
    def one(around: Surroundings, reader: Reader) -> Findings:
        reader.read("Slow", never.wait, limit=3600)
        return Findings(accelerators=(GPU,))

    found = probe({"one": one}, around=around, timeout=2)
    assert found.accelerators == (GPU,)
    assert len(found.unknown) == 1
    assert found.unknown[0].startswith("Slow: no answer within ")


def test_probes_run_side_by_side(around: Surroundings) -> None:
    barrier = Barrier(2)

    def meets(around: Surroundings, reader: Reader) -> Findings:
        barrier.wait(60)
        return Findings(accelerators=(GPU,))

    assert probe({"one": meets, "two": meets}, around=around, timeout=60).accelerators == (GPU, GPU)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        Findings(accelerators=(Accelerator(name=b"bytes"),)),  # type: ignore[arg-type]  # what a careless probe does
        Findings(machine=None),  # type: ignore[arg-type]  # what a careless probe does
        Findings(accelerators=(object(),)),  # type: ignore[arg-type]  # what a careless probe does
    ],
)
def test_findings_of_a_wrong_type_lose_nothing_else(around: Surroundings, value: Any) -> None:
    found = probe({"odd": giving(value), "good": good}, around=around)
    assert found.accelerators == (GPU,)
    assert found.unknown[0].startswith("Probe odd: ")
    assert msgspec.json.decode(msgspec.json.encode(found), type=NodeCapabilities) == found


def test_the_earlier_probe_is_believed(around: Surroundings) -> None:
    first = Findings(machine=Machine(model="one"))
    second = Findings(machine=Machine(model="two", cpu_model="two"))
    found = probe({"first": giving(first), "second": giving(second)}, around=around)
    assert found.machine == Machine(model="one", cpu_model="two")


def test_a_machine_without_a_free_thread(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    assert probe({"good": good}, around=around) == NodeCapabilities(
        unknown=("Probe good: RuntimeError: can't start new thread",)
    )


def test_the_real_probes_on_a_machine_without_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psutil", "pynvml", "pyamdgpuinfo"):
        monkeypatch.setitem(sys.modules, name, None)
    none = tmp_path / "none"
    found = probe(around=Surroundings(dev=none, proc=none, sysfs=none, platform="linux"))
    assert found.machine.architecture
    assert found.memory == Memory()
    assert found.accelerators == ()
    assert [sentence.split(":")[0] for sentence in found.unknown] == [
        "CPU model name",
        "CPU physical cores",
        "CPU logical cores",
        "Memory total",
        "Memory available",
    ]


def test_the_real_probes_on_the_real_machine() -> None:
    found = probe()
    assert list(PROBES) == ["host", "nvidia", "amd", "apple"]
    assert found.machine.architecture
    assert found.memory.total
    assert msgspec.json.decode(msgspec.json.encode(found), type=NodeCapabilities) == found


def test_importing_loads_no_library() -> None:
    code = "import sys, exo.topology; print([n for n in ('psutil', 'pynvml', 'pyamdgpuinfo') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
