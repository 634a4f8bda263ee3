"""The files of each kind of program, and writing them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from exo import __version__
from exo.cluster.inventory import Inventory
from exo.cluster.inventory_reader import nodes_key, read_inventory
from exo.cluster.plain import plain
from exo.cluster.render.haproxy import haproxy_cfg
from exo.cluster.render.nginx import nginx_conf
from exo.cluster.render.prometheus import prometheus_files
from exo.types import ConfigurationError


@dataclass(frozen=True)
class RenderedFile:
    """A file by name; one with a key or a password in it is for its owner only."""

    name: str
    text: str
    has_secret: bool = False

    def write(self, folder: Path) -> Path:
        """Put it in `folder`, in place of an earlier one. Raises ConfigurationError."""
        path = folder / self.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number, temporary = tempfile.mkstemp(dir=folder, prefix=f".{self.name}.")
            try:
                with open(number, "w", encoding="utf-8") as out:  # noqa: PTH123 - a descriptor, not a path
                    out.write(self.text)
                Path(temporary).chmod(0o600 if self.has_secret else 0o644)
                Path(temporary).replace(path)
            except BaseException:  # also Ctrl-C: nothing half written may stay
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108 - as mkstemp named it
                raise
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigurationError(
                f"{path} cannot be written: {folder} is no folder, or is in none. Name another one with -o."
            ) from error
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
        return path


Renderer = Callable[[Inventory, str], list[RenderedFile]]


def _haproxy(inventory: Inventory, header: str) -> list[RenderedFile]:
    text = haproxy_cfg(inventory, header)
    return [RenderedFile("haproxy.cfg", text, has_secret=inventory.keys.stats is not None)]


def _nginx(inventory: Inventory, header: str) -> list[RenderedFile]:
    return [RenderedFile("nginx.conf", nginx_conf(inventory, header))]


def _prometheus(inventory: Inventory, header: str) -> list[RenderedFile]:
    key = nodes_key(inventory)
    return [
        RenderedFile(name, text, has_secret=key is not None and name == "prometheus.yml")
        for name, text in prometheus_files(inventory, key, header).items()
    ]


KINDS: Mapping[str, Renderer] = MappingProxyType({"haproxy": _haproxy, "nginx": _nginx, "prometheus": _prometheus})


def render(kind: str, path: Path) -> list[RenderedFile]:
    """The files for a kind of program from the inventory in `path`. Equal inventories give equal files.

    Raises ConfigurationError.
    """
    inventory = read_inventory(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    header = (
        f"# Made with:  exo cluster render {kind} -i {plain(path.name)}\n"
        f"# by exo {__version__} from an inventory with the SHA-256 {digest}… Change the inventory, not this file."
    )
    return KINDS[kind](inventory, header)
