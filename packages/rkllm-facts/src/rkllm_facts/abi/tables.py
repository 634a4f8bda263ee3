"""From the JSON files of this package to typed tables. Nothing is read before it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, TypeVar

from rkllm_facts.abi.model import Enum, Field, Function, Header, Layout, Parameter, Release, Struct
from rkllm_facts.abi.types import CType
from rkllm_facts.abi.versions import Version
from rkllm_facts.errors import UnknownLayout, UnknownVersion, UnsupportedVersion

SUPPORTED = ("1.1.4", "1.2.0", "1.2.1b1", "1.2.3", "1.3.0")
"""The names of the layouts, oldest first; each is the newest release that has it."""

T = TypeVar("T", Struct, Enum, Function)


def releases() -> tuple[Release, ...]:
    """Every release known to exist, oldest first, the ones that are not supported too."""
    return tuple(
        Release(
            version=Version.parse(row["version"]),
            commit=row["commit"],
            date=row["date"],
            layout_id=row["layout_id"],
            layout=row["layout"],
            why_not=row["why_not"],
        )
        for row in _releases()
    )


def layouts() -> tuple[Layout, ...]:
    """Every supported layout, oldest first."""
    return tuple(layout(name) for name in SUPPORTED)


def layout(name: str) -> Layout:
    """The layout with a name of SUPPORTED. Raises UnknownLayout."""
    if name not in SUPPORTED:
        raise UnknownLayout(name, SUPPORTED)
    return _layout(name)


def layout_for_release(version: str | Version) -> Layout:
    """The layout of a release. Raises UnknownVersion; its subclass UnsupportedVersion if the release exists."""
    name = str(version)
    supported = [str(release.version) for release in releases() if release.layout]
    try:
        wanted = Version.parse(version) if isinstance(version, str) else version
    except ValueError as error:
        raise UnknownVersion(name, str(error), supported) from None
    for release in releases():
        if release.version == wanted:
            if release.layout is None:
                problem = f"librkllmrt {name} is known, but not supported: {release.why_not}."
                raise UnsupportedVersion(name, problem, supported)
            return layout(release.layout)
    raise UnknownVersion(name, f"Nothing is known of librkllmrt {name}.", supported)


def read(name: str) -> dict[str, Any]:
    """The JSON file of that name in this package, without the ending."""
    text = (files(__package__) / "data" / f"{name}.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def _releases() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read("releases")["releases"]
    return rows


@cache
def _layout(name: str) -> Layout:
    rows = [row for row in _releases() if row["layout"] == name]
    tables = {row["table"]: read(row["table"]) for row in rows}
    newest = tables[rows[-1]["table"]]
    return Layout(
        name=name,
        layout_id=rows[-1]["layout_id"],
        releases=tuple(row["version"] for row in rows),
        headers=tuple(_header(table) for table in tables.values()),
        data_model=newest["data_model"],
        structs=_by_name(_struct(key, value) for key, value in newest["structs"].items()),
        enums=_by_name(_enum(key, value) for key, value in newest["enums"].items()),
        functions=_by_name(map(_function, newest["functions"])),
        callbacks=_by_name(map(_function, newest["callbacks"])),
        macros=MappingProxyType(newest["macros"]),
        base_types=MappingProxyType(newest["base_types"]),
    )


def _by_name(entries: Iterable[T]) -> Mapping[str, T]:
    return MappingProxyType({entry.name: entry for entry in entries})


def _header(table: dict[str, Any]) -> Header:
    return Header(
        releases=(table["version"], *table["also_shipped_in"]),
        commit=table["source_commit"],
        path=table["header_path"],
        blob=table["header_blob"],
        sha256=table["header_sha256"],
        date=table["commit_date"],
    )


def _struct(name: str, entry: dict[str, Any]) -> Struct:
    """The tables write the members of an inner struct after it, as `image.n_image`."""
    rows = entry["fields"]
    fields = []
    for row in rows:
        if "." not in row["name"]:
            prefix = f"{row['name']}."
            inner = [_field(other, prefix) for other in rows if other["name"].startswith(prefix)]
            fields.append(_field(row, "", tuple(inner)))
    return Struct(name, entry["sizeof"], entry["alignof"], tuple(fields))


def _field(row: dict[str, Any], prefix: str, fields: tuple[Field, ...] = ()) -> Field:
    return Field(
        name=row["name"].removeprefix(prefix),
        offset=row["offset"],
        size=row["size"],
        type=CType.parse(row["type"]),
        in_union=row.get("in_union", False),
        pointee_const=row.get("pointee_const", False),
        fields=fields,
    )


def _enum(name: str, entry: dict[str, Any]) -> Enum:
    return Enum(name, entry["sizeof"], entry["signed"], MappingProxyType(entry["values"]))


def _function(row: dict[str, Any]) -> Function:
    parameters = (
        Parameter(one["name"], CType.parse(one["type"]), one.get("pointee_const", False)) for one in row["params"]
    )
    return Function(row["name"], CType.parse(row["returns"]), tuple(parameters))
