"""Reading cluster.toml."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec

from exo.cluster.inventory import Inventory
from exo.cluster.inventory_check import InventoryFault, check, explain
from exo.types import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SYNTAX = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


def read_inventory(path: Path) -> Inventory:
    """The inventory in `path`, with its defaults. Paths of files begin at its folder.

    Raises ConfigurationError, which names the key at fault as a path such as `nodes[1].port`, or the line.
    """
    try:
        raw = path.read_bytes()
        return parse_inventory(raw.decode("utf-8"), base=path.parent)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"There is no inventory {path}. Name it with -i, or begin with a copy of deploy/cluster.example.toml."
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}, line {line}: this is not UTF-8.") from error
    except InventoryFault as fault:
        raise ConfigurationError(f"{path}{fault}") from fault


def parse_inventory(text: str, *, base: Path = Path()) -> Inventory:
    """As `read_inventory`; `base` is where relative paths of key files begin. Raises InventoryFault."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_fault(str(error), text) from error
    except RecursionError as error:
        raise InventoryFault("", "its values are nested too deeply") from error
    except ValueError as error:
        raise InventoryFault("", "a number in it has too many digits") from error
    try:
        msgspec.convert(tables, Inventory)
        defaults = tables.get("defaults", {})
        nodes = [{**defaults, **node} for node in tables["nodes"]]
        inventory = msgspec.convert({**tables, "nodes": nodes}, Inventory)
    except msgspec.ValidationError as error:
        raise explain(error, Inventory) from error
    check(inventory)
    keys = msgspec.structs.replace(
        inventory.keys,
        nodes_file=_at(base, inventory.keys.nodes_file),
        admin_file=_at(base, inventory.keys.admin_file),
    )
    return msgspec.structs.replace(inventory, keys=keys, secret_file=_at(base, inventory.secret_file))


def nodes_key(inventory: Inventory) -> str | None:
    """The key that reads metrics, None where there is none. Raises ConfigurationError."""
    return inventory.keys.nodes or _from_file("keys.nodes_file", inventory.keys.nodes_file)


def admin_key(inventory: Inventory) -> str | None:
    """The key that changes a node, or else the other one. Raises ConfigurationError."""
    own = inventory.keys.admin or _from_file("keys.admin_file", inventory.keys.admin_file)
    return own or nodes_key(inventory)


def _syntax_fault(message: str, text: str) -> InventoryFault:
    found = _SYNTAX.fullmatch(message)
    if found is None:
        return InventoryFault("", message)
    if found["line"] is None:
        return InventoryFault("", f"{found['what']} at the end of the file", line=text.count("\n") + 1)
    return InventoryFault("", found["what"], line=int(found["line"]), column=int(found["column"]))


def _at(base: Path, name: str | None) -> str | None:
    return None if name is None else str(base / Path(name).expanduser())


def _from_file(where: str, name: str | None) -> str | None:
    if name is None:
        return None
    try:
        key = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"The file {name} of {where} cannot be read: {why}.") from error
    if not re.fullmatch(r"[!-~]{1,500}", key):
        raise ConfigurationError(f"The file {name} of {where} has to hold one key on one line.")
    return key
