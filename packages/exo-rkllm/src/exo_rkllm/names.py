"""Names that clients use for a model's folder: `qwen2.5:1.5b` for `Qwen2.5-1.5B-Instruct-rk3588-w8a8-opt-0`.

As older servers have it: family and variants stand before the colon, the number of parameters behind it; chip,
quantisation, optimisation level and hybrid ratio are left out. Clients of Ollama write the fine-tuning behind the
size, so those names are made too. Everything here is a pure function of the names of folders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_QUANTIZATION = re.compile(r"(?<![a-z0-9])(w\d{1,2}a\d{1,2})(?:[-_]?(g\d{1,4}))?(?![a-z0-9])")
_PLATFORM = re.compile(r"(?<![a-z0-9])(r[kv]\d{4}[a-z]?)(?![a-z0-9])")
_OPTIONS = (
    re.compile(r"(?<![a-z0-9])opt(?:imi[sz]ation)?(?:[-_]?level)?[-_]?\d(?![a-z0-9.])"),
    re.compile(r"(?<![a-z0-9])hybrid(?:[-_]?(?:ratio|rate))?[-_]?\d+(?:\.\d+)?(?![a-z0-9])"),
    re.compile(r"(?<![a-z0-9])ctx[-_]?\d+k?(?![a-z0-9])"),
)
_UNDERSCORE = re.compile(r"(?<![0-9._])(\d)_(\d)(?![a-z0-9.])|(?<![a-z0-9._])(\d)_(\d)(?=[bm](?![a-z0-9]))")
"""2_5 and 1_8b stand for 2.5 and 1.8b. Qwen3_8B is no 3.8B: behind a family's digit a size begins anew."""

_SIZE = re.compile(r"(?:\d+x)?e?\d+(?:\.\d+)?[bm]")
_VERSION = re.compile(r"\d+(?:\.\d+)?[a-z]?")
_DETAIL = re.compile(r"v\d+(?:\.\d+)*|\d{4,}|\d+k|a\d+(?:\.\d+)?b|\d+(?:\.\d+)*")
"""What distinguishes releases: v0.3, 2507, a context of 4k, active parameters."""

_WORD_SIZES = ("mini", "tiny", "nano", "small", "medium", "large")
_TUNING = frozenset({"instruct", "chat", "it", "base", "sft", "dpo", "orpo", "rlhf"})
_EMPTY = frozenset({"rkllm", "rknn", "npu", "hf", "gguf", "ggml"})
_MAKERS = {"meta": "llama"}
"""First words that are no family if this one follows."""


@dataclass(frozen=True)
class _Parts:
    """What a folder's name tells, in lower case. `behind` are the words behind the size, in their order."""

    family: str
    apart: str
    variants: tuple[str, ...]
    size: str
    tuning: tuple[str, ...]
    details: tuple[str, ...]
    behind: tuple[str, ...]

    @property
    def extra(self) -> int:
        return len(self.variants) + len(self.tuning) + len(self.details)


def friendly_names(folder_name: str, *, huggingface_path: str = "") -> tuple[str, ...]:
    """Names for a folder, the plainest first; empty if there is none but its own.

    The repository counts where the folder's name has no size, and tells the fine-tuning where it is the same model.
    """
    own, original = _parts_of(folder_name, huggingface_path), _parts(huggingface_path.rpartition("/")[2])
    parts = [own] if own.tuning or _identity(own) != _identity(original) else [own, original]
    found = dict.fromkeys(name for one in parts for name in _forms(one))
    return tuple(name for name in found if name and name != folder_name)


def assign_names(folders: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Friendly names of folders (name to repository or ""), so that none leads to two of them.

    A name that several could have goes to one whose own name says it, not its repository's; of these to the plainest:
    the fewest words beside family and size, then the shortest name, then the first one. The others get it with their
    quantisation, if that tells them apart. No name is that of another folder, in whatever case. The order of the
    folders does not matter.
    """
    taken = Counter(name.lower() for name in folders)
    wanted = {
        folder: [
            name
            for name in friendly_names(folder, huggingface_path=path)
            if taken[name] == (name == folder.lower())  # its own name, in another case, misleads nobody
        ]
        for folder, path in folders.items()
    }
    claims = _claims(wanted)
    order = sorted(
        folders,
        key=lambda folder: (not _parts(folder).size, _parts_of(folder, folders[folder]).extra, len(folder), folder),
    )
    owners = {name: min(those, key=order.index) for name, those in claims.items()}
    further = {folder: _with_quantization(folder, wanted[folder], claims, owners) for folder in wanted}
    unique = {
        name for name, those in _claims(further).items() if len(those) == 1 and name not in owners and not taken[name]
    }
    return {
        folder: (
            *(name for name in wanted[folder] if owners[name] == folder),
            *(name for name in further[folder] if name in unique),
        )
        for folder in folders
    }


def quantization_of(name: str) -> str:
    """`W8A8`, `W4A16_G64`; empty if the name does not say."""
    found = _QUANTIZATION.search(name.lower())
    return "_".join(part for part in found.groups() if part).upper() if found else ""


def parameter_size_of(name: str) -> str:
    """`1.5B`, `135M`; empty if the name does not say."""
    size = _parts(name).size
    return size.upper() if size and size not in _WORD_SIZES else ""


def platform_of(name: str) -> str:
    """`rk3588`; empty if the name does not say."""
    found = _PLATFORM.search(name.lower())
    return found[1] if found else ""


def _claims(names: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for folder, those in names.items():
        for name in those:
            claims.setdefault(name, []).append(folder)
    return claims


def _with_quantization(
    folder: str, wanted: Iterable[str], claims: Mapping[str, list[str]], owners: Mapping[str, str]
) -> list[str]:
    """The names that went to another folder, with the quantisation, where no other that wants the name has the same."""
    own = quantization_of(folder)
    found = []
    for name in wanted:
        if owners[name] != folder and own and [quantization_of(rival) for rival in claims[name]].count(own) == 1:
            head, colon, tag = name.partition(":")
            found.append(f"{head}-{own.lower().replace('_', '-')}{colon}{tag}")
    return found


def _identity(parts: _Parts) -> tuple[str, tuple[str, ...], str]:
    return parts.family, parts.variants, parts.size


def _parts_of(folder: str, huggingface_path: str) -> _Parts:
    """What the folder's name tells, or that of its repository if only that one has a size."""
    own, original = _parts(folder), _parts(huggingface_path.rpartition("/")[2])
    return own if own.size or not original.size else original


def _parts(name: str) -> _Parts:
    words = _words(name)
    if len(words) > 1 and words[1].startswith(_MAKERS.get(words[0], "\n")):
        words = words[1:]
    family, apart, rest = "".join(words[:1]), "".join(words[:1]), words[1:]
    if rest and not _SIZE.fullmatch(rest[0]) and _VERSION.fullmatch(rest[0]) and family.isalpha():
        family, apart, rest = family + rest[0], f"{family}-{rest[0]}", rest[1:]
    size = next((word for word in rest if _SIZE.fullmatch(word)), "")
    size = size or next((word for word in rest if word in _WORD_SIZES), "")
    at = rest.index(size) if size else len(rest)
    others = [*rest[:at], *rest[at + 1 :]]
    details = tuple(word for word in others if _DETAIL.fullmatch(word))
    return _Parts(
        family=family,
        apart=apart,
        variants=tuple(word for word in others if word not in _TUNING and word not in details),
        size=size,
        tuning=tuple(word for word in others if word in _TUNING),
        details=details,
        behind=tuple(rest[at + 1 :]),
    )


def _words(name: str) -> list[str]:
    text = _UNDERSCORE.sub(lambda found: found[0].replace("_", "."), name.lower())
    for pattern in (_QUANTIZATION, _PLATFORM, *_OPTIONS):
        text = pattern.sub("-", text)
    words = (word.strip(".+") for word in re.split(r"[-_:/\s]+", text))
    return [word for word in (re.sub(r"\.(?:rkllm|gguf)$", "", word) for word in words) if word and word not in _EMPTY]


def _forms(parts: _Parts) -> Iterable[str]:
    """All names, the plainest first."""
    for family in dict.fromkeys((parts.family, parts.apart)):
        for variants in _variants(parts.variants):
            yield from _forms_of(_joined(family, *variants), parts)
        if parts.variants[:1] == ("vl",) and parts.size:
            yield from _forms_of(_joined(f"{family}vl", *parts.variants[1:]), parts)


def _forms_of(head: str, parts: _Parts) -> Iterable[str]:
    tuned = _joined(head, *parts.tuning)
    if not parts.size:
        yield from (_joined(head, *parts.details), _joined(tuned, *parts.details))
        return
    size = parts.size
    yield f"{head}:{size}"
    if parts.tuning:
        yield from (f"{tuned}:{size}", f"{head}:{_joined(size, *parts.tuning)}")
    if parts.details:
        behind = [word for word in parts.behind if word not in parts.variants]
        yield f"{head}:{_joined(size, *parts.details)}"
        yield f"{head}:{_joined(size, *behind)}"
        yield f"{_joined(tuned, *parts.details)}:{size}"


def _variants(variants: tuple[str, ...]) -> list[tuple[str, ...]]:
    """As they are; for a distilled model first without the words that say from what into what."""
    if "distill" in variants:
        return [variants[: variants.index("distill")], variants]
    return [variants]


def _joined(*words: str) -> str:
    return "-".join(word for word in words if word)
