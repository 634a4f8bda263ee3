"""Files that give a vendor's hardware away."""

from __future__ import annotations

from pathlib import Path

import pytest

from exo.topology import Surroundings
from exo.topology.probes.signs import amd_sign, nvidia_sign


def add_display_adapter(around: Surroundings, card: str, pci_id: str) -> Path:
    device = around.sysfs / "class" / "drm" / card / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{pci_id}\n")
    return device.parent


def test_an_empty_machine_shows_nothing(around: Surroundings) -> None:
    assert nvidia_sign(around) == ""
    assert amd_sign(around) == ""


def test_a_machine_without_the_folders_shows_nothing(tmp_path: Path) -> None:
    none = tmp_path / "none"
    around = Surroundings(dev=none, proc=none, sysfs=none)
    assert nvidia_sign(around) == ""
    assert amd_sign(around) == ""


@pytest.mark.parametrize("node", ["nvidia0", "nvidia12"])
def test_a_device_node_of_nvidia(around: Surroundings, node: str) -> None:
    (around.dev / node).touch()
    assert nvidia_sign(around) == str(around.dev / node)


@pytest.mark.parametrize("node", ["nvidiactl", "nvidia-uvm"])
def test_the_control_nodes_are_there_without_a_gpu_too(around: Surroundings, node: str) -> None:
    (around.dev / node).touch()
    assert nvidia_sign(around) == ""


def test_the_driver_of_nvidia(around: Surroundings) -> None:
    (around.proc / "driver" / "nvidia").mkdir(parents=True)
    assert nvidia_sign(around) == str(around.proc / "driver" / "nvidia")


def test_display_adapters_by_vendor(around: Surroundings) -> None:
    add_display_adapter(around, "card0", "0x8086")
    nvidia = add_display_adapter(around, "card1", "0x10de")
    amd = add_display_adapter(around, "card2", "0x1002")
    assert nvidia_sign(around) == str(nvidia)
    assert amd_sign(around) == str(amd)


def test_a_device_that_cannot_be_read_does_not_hide_the_next(around: Surroundings) -> None:
    (around.sysfs / "class" / "drm" / "card0" / "device" / "vendor").mkdir(parents=True)
    amd = add_display_adapter(around, "card1", "0x1002")
    assert amd_sign(around) == str(amd)
