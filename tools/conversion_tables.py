"""Write the tables of docs/CONVERSION.md that the code knows, or with --check say which of them differ from it.

python tools/conversion_tables.py [--check]

Each stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rkllm_converter.options import Options
from rkllm_converter.preflight.check import memory_needed_mb, result_mb
from rkllm_converter.preflight.weights import judge_groups
from rkllm_converter.toolkit.versions import TOOLKITS
from rkllm_converter.units import GB_IN_MB, MB, gb
from rkllm_facts import benchmark
from rkllm_facts.architecture import known_architecture
from rkllm_facts.chips import CHIPS
from rkllm_facts.chips import chip as chip_of
from rkllm_facts.planner import LEAST_CONTEXT, LONGEST_CONTEXT, Plan, asked_mb, plan, reserved_mb, usual_type

PAGE = Path(__file__).resolve().parent.parent / "docs/CONVERSION.md"

_MODELS = (
    "Qwen2.5-0.5B-Instruct",
    "Qwen3-0.6B",
    "Llama-3.2-1B-Instruct",
    "Qwen2.5-1.5B-Instruct",
    "DeepSeek-R1-Distill-Qwen-1.5B",
    "Qwen3-1.7B",
    "gemma-2-2b-it",
    "Qwen2.5-3B-Instruct",
    "Llama-3.2-3B-Instruct",
    "Phi-3-mini-4k-instruct",
    "Qwen3-4B",
    "Qwen2.5-7B-Instruct",
    "DeepSeek-R1-Distill-Qwen-7B",
)
_BOARDS_GB = (4, 8, 16)
_BOARD_CHIPS = ("rk3588", "rk3576")
_CONTEXT = 4096
_STEP = 1024
_STORED_BYTES = 2
_MEASURED = (("Qwen2", "0.5B"), ("InternLM2", "1.8B"), ("TeleChat2", "3B"), ("Phi3", "3.8B"))
_MEASURED_TYPES = (("RK3588", "w8a8"), ("RK3576", "w4a16"), ("RK3576", "w4a16_g128"), ("RK3576", "w8a8"))
_SDK = "1.3.0"
_PREDICTED = ("Qwen2.5-1.5B-Instruct", "Qwen2.5-3B-Instruct")
_PREDICTED_TYPES = (
    ("rk3588", ("w8a8", "w8a8_g512", "w8a8_g256", "w8a8_g128")),
    ("rk3576", ("w4a16", "w4a16_g128", "w4a16_g64", "w4a16_g32", "w8a8")),
)


def tables() -> dict[str, str]:
    """Name and text of every table."""
    return {
        "types": _table(("chip", "`--platform`", "types", "NPU cores"), _types()),
        "measured": _table(("model", "chip", "type", "first token after", "tokens/s", "memory"), _measured()),
        "predicted": _table(("model", "chip", "type", "first token after", "tokens/s", "file", "memory"), _predicted()),
        "cache": _table(("model", "MB for 1024 tokens", "for 4096", "for 16384"), _cache()),
        "computer": _table(("model", "download", "`float32`", "`bfloat16`", "result w8a8", "w4a16"), _computer()),
        "boards": _table(
            ("model", "chip and type", "memory at 4096", *(f"{size} GB" for size in _BOARDS_GB), "tokens/s"), _boards()
        ),
        "toolkits": _table(("release", "Pythons", "algorithms", "transformers", "chooses parts"), _toolkits()),
        "families": _table(("family", "`model_type`", "since"), _families()),
    }


def rendered(page: str) -> str:
    """The page with every table as it should be. Raises ValueError if the page lacks one, or has another."""
    known = tables()
    named = re.findall(r"^<!-- table: (\S+) -->$", page, re.MULTILINE)
    if sorted(named) != sorted(known):
        raise ValueError(f"tables of the page: {named}; of the code: {[*known]}")
    for name, text in known.items():
        page = re.sub(
            rf"(?<=^<!-- table: {name} -->\n).*?(?=^<!-- end -->$)",
            lambda _, text=text: f"{text}\n",  # type: ignore[misc] # bound now, not at the end
            page,
            count=1,
            flags=re.MULTILINE | re.DOTALL,
        )
    return page


def _types() -> Iterator[Sequence[str]]:
    names: dict[str, list[str]] = {}
    for one in CHIPS:
        names.setdefault(one.target_platform, []).append(one.name)
    for platform, these in names.items():
        here = next(one for one in CHIPS if one.target_platform == platform)
        usual = usual_type(here.name)
        types = (f"**{kind}**" if kind == usual else kind for kind in here.types)
        yield ", ".join(these), f"`{platform}`", ", ".join(types), ", ".join(map(str, here.npu_cores))


def _measured() -> Iterator[Sequence[str]]:
    for model, params in _MEASURED:
        for chip, kind in _MEASURED_TYPES:
            (row,) = benchmark.find(sdk_version=_SDK, platform=chip, model=model, params=params, dtype=kind)
            memory = "" if row.memory_mb is None else f"{row.memory_mb:.0f} MB"
            yield f"{model} {params}", chip, kind, f"{row.ttft_ms:.0f} ms", f"{row.tokens_per_s:.1f}", memory


def _predicted() -> Iterator[Sequence[str]]:
    """Without the types that the pre-flight refuses for a model."""
    for name in _PREDICTED:
        for chip, kinds in _PREDICTED_TYPES:
            for kind in kinds:
                if judge_groups(known_architecture(name), kind, chip_of(chip)):
                    continue
                found = _plan(name, chip, kind)
                yield (
                    name,
                    chip.upper(),
                    kind,
                    f"{found.ttft_ms:.0f} ms",
                    f"{found.tokens_per_s:.1f}",
                    f"{found.file_mb:.0f} MB",
                    f"{found.memory_mb:.0f} MB",
                )


def _cache() -> Iterator[Sequence[str]]:
    for name in _MODELS:
        one = known_architecture(name).kv_values * 2 * _STEP / MB
        yield name, f"{one:.0f}", *(f"{one * context / _STEP:.0f}" for context in (_CONTEXT, LONGEST_CONTEXT))


def _computer() -> Iterator[Sequence[str]]:
    for name in _MODELS:
        values = known_architecture(name).parameters
        results = {kind: _plan(name, chip, kind) for chip, kind in (("rk3588", "w8a8"), ("rk3576", "w4a16"))}
        result = result_mb(results["w8a8"], values, "w8a8") or 0.0
        needed = (
            memory_needed_mb(values, Options(platform="rk3588", quant="w8a8", dtype=dtype), result)
            for dtype in ("float32", "bfloat16")
        )
        sizes = (values * _STORED_BYTES / MB, *needed, *(one.file_mb for one in results.values()))
        yield name, *(gb(size) for size in sizes)


def _boards() -> Iterator[Sequence[str]]:
    for name in _MODELS:
        for chip in _BOARD_CHIPS:
            kind = usual_type(chip)
            found = _plan(name, chip, kind)
            longest = (_longest(name, chip, kind, size * GB_IN_MB) for size in _BOARDS_GB)
            yield (
                name,
                f"{chip.upper()} {kind}",
                f"{found.memory_mb:.0f} MB",
                *longest,
                f"{found.tokens_per_s:.1f}",
            )


def _longest(name: str, chip: str, kind: str, ram_mb: float) -> str:
    """The longest context that a node loads, in steps of 1024 tokens, or 512; in brackets what fits without the margin
    that it asks for, where that is more."""
    contexts = (*range(LONGEST_CONTEXT, 0, -_STEP), LEAST_CONTEXT)
    plans = [_plan(name, chip, kind, context=context, ram_mb=ram_mb) for context in contexts]
    fitting = next((one.context for one in plans if one.fits), None)
    left = ram_mb - reserved_mb(ram_mb)
    loaded = next((one.context for one in plans if asked_mb(one) <= left), None)
    if loaded == fitting:
        return "no" if fitting is None else str(fitting)
    return f"{'no' if loaded is None else loaded} ({fitting})"


def _plan(name: str, chip: str, kind: str, *, context: int = _CONTEXT, ram_mb: float | None = None) -> Plan:
    return plan(known_architecture(name), platform=chip, dtype=kind, context=context, ram_mb=ram_mb)


def _toolkits() -> Iterator[Sequence[str]]:
    for one in TOOLKITS:
        yield (
            one.version,
            ", ".join(f"{major}.{minor}" for major, minor in one.pythons),
            ", ".join(one.algorithms),
            one.transformers,
            "yes" if one.exports_parts else "no",
        )


def _families() -> Iterator[Sequence[str]]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for kind, name in TOOLKITS[-1].families.items():
        since = next(one.version for one in TOOLKITS if kind in one.families)
        kinds.setdefault((name, since), []).append(kind)
    for (name, since), these in sorted(kinds.items(), key=lambda item: (item[0][1], item[0][0].lower())):
        yield (
            name,
            ", ".join(f"`{kind}`" for kind in these),
            f"{since} or earlier" if since == TOOLKITS[0].version else since,
        )


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = (f"| {' | '.join(line)} |" for line in (head, *lines))
    first, *others = rows
    return "\n".join((first, f"|{'---|' * len(head)}", *others))


def main(arguments: list[str]) -> int:
    is_check = arguments == ["--check"]
    if arguments and not is_check:
        print(__doc__, file=sys.stderr)
        return 2
    before = PAGE.read_text(encoding="utf-8")
    after = rendered(before)
    if before == after:
        return 0
    print(f"{'differs' if is_check else 'written'}: docs/{PAGE.name}")
    if not is_check:
        PAGE.write_text(after, encoding="utf-8")
    return int(is_check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
