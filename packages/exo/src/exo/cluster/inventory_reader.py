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
    """The inventory in `path`, with its defaults, and with the contents of key files in place of their names.

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
    try:
        msgspec.convert(tables, Inventory)
        defaults = tables.get("defaults", {})
        nodes = [{**defaults, **node} for node in tables["nodes"]]
        inventory = msgspec.convert({**tables, "nodes": nodes}, Inventory)
    except msgspec.ValidationError as error:
        raise explain(error, Inventory) from error
    check(inventory)
    keys = inventory.keys
    own = msgspec.structs.replace(
        keys,
        nodes=_from_file("keys.nodes_file", keys.nodes_file, base) or keys.nodes,
        admin=_from_file("keys.admin_file", keys.admin_file, base) or keys.admin,
    )
    secret = None if inventory.secret_file is None else str(base / Path(inventory.secret_file).expanduser())
    return msgspec.structs.replace(inventory, keys=own, secret_file=secret)


def _syntax_fault(message: str, text: str) -> InventoryFault:
    found = _SYNTAX.fullmatch(message)
    if found is None:
        return InventoryFault("", message)
    if found["line"] is None:
        return InventoryFault("", f"{found['what']} at the end of the file", line=text.count("\n") + 1)
    return InventoryFault("", found["what"], line=int(found["line"]), column=int(found["column"]))


def _from_file(where: str, name: str | None, base: Path) -> str | None:
    if name is None:
        return None
    try:
        key = (base / Path(name).expanduser()).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryFault(where, f"the file cannot be read: {error}") from error
    if not re.fullmatch(r"[!-~]{1,500}", key):
        raise InventoryFault(where, "the file has to hold one key on one line")
    return key
