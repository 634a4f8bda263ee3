"""An inventory that is read again whenever its file changes, or that of its secret."""

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
        self.inventory, self.secret, self._stamps = _read(path)
        self._complaint = ""

    def refresh(self) -> bool:
        """Whether it has changed. What cannot be read is logged, changes nothing, and is tried again the next time."""
        if not self._complaint and self._stamps == (_stamp(self.path), _stamp(self.inventory.secret_file)):
            return False
        try:
            inventory, secret, self._stamps = _read(self.path)
        except ConfigurationError as error:
            if error.message != self._complaint:
                logger.error("%s The inventory stays as it was.", error.message)  # noqa: TRY400 - the message says it all
            self._complaint = error.message
            return False
        self._complaint = ""
        changed = (inventory, secret) != (self.inventory, self.secret)
        self.inventory, self.secret = inventory, secret
        if changed:
            logger.info("the inventory %s has changed; its nodes: %d", self.path, len(inventory.nodes))
        return changed


def _read(path: Path) -> tuple[Inventory, bytes | None, tuple[_Stamp, _Stamp]]:
    """With the stamps of both files from before they were read."""
    stamp = _stamp(path)
    inventory = read_inventory(path)
    name = inventory.secret_file
    stamps = stamp, _stamp(name)
    return inventory, None if name is None else read_secret(Path(name)), stamps


def _stamp(path: Path | str | None) -> _Stamp:
    """What differs after a change: editors replace the file, or write into it."""
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
