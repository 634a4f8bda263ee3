"""An inventory that is read again whenever its file changes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeAlias

from exo.cluster.inventory import Inventory
from exo.cluster.inventory_reader import read_inventory
from exo.cluster.membership.secret import read_secret
from exo.types import ConfigurationError

_Stamp: TypeAlias = tuple[int, int, int] | None

logger = logging.getLogger(__name__)


class InventoryFile:
    """The inventory of a file and the secret that it names, as they were when both could be read last.

    Raises ConfigurationError if the first time they cannot.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = _stamp(path)
        self.inventory, self.secret = _read(path)

    def refresh(self) -> bool:
        """Whether it has changed. An edit that cannot be read is logged, and changes nothing."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            inventory, secret = _read(self.path)
        except ConfigurationError as error:
            logger.error("%s The inventory stays as it was.", error.message)  # noqa: TRY400 - the message says it all
            return False
        changed = (inventory, secret) != (self.inventory, self.secret)
        self.inventory, self.secret = inventory, secret
        if changed:
            logger.info("the inventory %s has changed; its nodes: %d", self.path, len(inventory.nodes))
        return changed


def _read(path: Path) -> tuple[Inventory, bytes | None]:
    inventory = read_inventory(path)
    return inventory, None if inventory.secret_file is None else read_secret(Path(inventory.secret_file))


def _stamp(path: Path) -> _Stamp:
    """What differs after a change: editors replace the file, or write into it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
