"""Files that show that a vendor's hardware is there, whether its library is installed or not."""

from __future__ import annotations

from contextlib import suppress

from exo.topology.contract import Surroundings

NVIDIA_PCI_ID = "0x10de"
AMD_PCI_ID = "0x1002"


def nvidia_sign(around: Surroundings) -> str:
    """A path that shows an NVIDIA GPU, or an empty text."""
    driver = around.proc / "driver" / "nvidia"
    nodes = [path for path in around.dev.glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]
    found = [str(path) for path in (*sorted(nodes), driver) if path.exists()]
    return found[0] if found else _display_adapter(around, NVIDIA_PCI_ID)


def amd_sign(around: Surroundings) -> str:
    """A path that shows an AMD GPU, or an empty text."""
    return _display_adapter(around, AMD_PCI_ID)


def _display_adapter(around: Surroundings, pci_id: str) -> str:
    for path in sorted((around.sysfs / "class" / "drm").glob("*/device/vendor")):
        with suppress(OSError):  # one device that cannot be read says nothing of the others
            if path.read_text("utf-8", "replace").strip().lower() == pci_id:
                return str(path.parent.parent)
    return ""
