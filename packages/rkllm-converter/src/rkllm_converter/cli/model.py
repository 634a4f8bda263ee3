"""`rkllm-convert model`: one conversion."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from rkllm_converter.calibration import DEFAULT_SAMPLES
from rkllm_converter.cli.progress import ProgressLines
from rkllm_converter.cli.saying import say
from rkllm_converter.cli.values import lower, memory_mb, positive, toolkit_python
from rkllm_converter.convert import convert, plan
from rkllm_converter.errors import ConvertError, PreflightFailed
from rkllm_converter.options import NOT_QUANTISED, PLATFORMS, Options
from rkllm_converter.preflight import titled
from rkllm_converter.request import DEFAULT_RAM_MB, IGNORABLE, STAND_IN, Outcome, Request
from rkllm_converter.source import look
from rkllm_converter.units import duration, mb
from rkllm_facts.chips import GGUF_EQUIVALENTS
from rkllm_facts.errors import FactsError
from rkllm_facts.planner import usual_type

__all__ = ["add_to"]

_TEXT = """Converts a model and writes a folder that rkllama serves. Options that the chip or the toolkit does not allow
are refused before anything is downloaded."""


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser("model", help="convert one model", description=_TEXT)
    _add_what(parser)
    _add_toolkit_options(parser)
    _add_calibration(parser)
    _add_how(parser)
    parser.set_defaults(action=_model)


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what").add_argument
    add("--model", required=True, help="owner/name at the Hugging Face hub, a folder, or a .gguf file (f16 or q4_0)")
    add(
        "--output", required=True, type=Path, metavar="FOLDER", help="the folder of the result; its name is the model's"
    )
    add("--revision", metavar="REV", help="a branch, tag or commit at the hub (default: main)")
    add("--tokenizer", metavar="MODEL", help="where the tokenizer is, if not with the model, as for a .gguf")
    add("--lora", type=Path, metavar="FOLDER", help="an adapter for the model")
    add("--max-new-tokens", type=positive, metavar="N", help="longest answer (default: half of the context)")
    add("--force", action="store_true", help="replace an earlier result")
    add("--if-changed", action="store_true", help="replace an earlier result only if it would come out otherwise")


def _add_toolkit_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how it is converted").add_argument
    add("--platform", required=True, type=lower, metavar="CHIP", help=f"one of {', '.join(PLATFORMS)}")
    add(
        "--quant",
        type=lower,
        metavar="TYPE",
        help=f"such as w8a8, w8a8_g128 or w4a16; {NOT_QUANTISED} for none (default: the chip's usual one)",
    )
    add("--algorithm", type=lower, default="normal", help="normal, or grq for w4a16 on a GPU (default: normal)")
    add(
        "--opt-level",
        dest="optimization_level",
        type=int,
        default=1,
        metavar="N",
        help="0 or 1, more accurate (default: 1)",
    )
    add("--npu-cores", type=int, metavar="N", help="(default: all that the chip has)")
    add(
        "--max-context",
        type=int,
        default=4096,
        metavar="N",
        help="tokens, a multiple of 32 up to 16384 (default: 4096)",
    )
    add(
        "--hybrid-rate",
        type=float,
        default=0.0,
        metavar="R",
        help="ratio of quantisation with and without groups, from 0 to below 1",
    )
    add("--device", type=lower, default="cpu", help="cpu or cuda (default: cpu)")
    add("--dtype", type=lower, default="float32", help="float32, float16 or bfloat16 (default: float32)")
    add(
        "--custom-config",
        type=Path,
        metavar="FILE",
        help="description of an architecture that the toolkit does not know",
    )
    add("--qparams", type=Path, metavar="FILE", help="parameters of an earlier quantisation")
    for part in ("tokenizer", "embedding"):
        add(
            f"--export-{part}",
            action=argparse.BooleanOptionalAction,
            help="toolkit 1.3.0 only (default: the toolkit's)",
        )


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("calibration").add_argument
    add(
        "--dataset", type=Path, metavar="FILE", help="texts or chats, .txt, .json or .jsonl (default: a set of its own)"
    )
    add("--samples", type=positive, default=DEFAULT_SAMPLES, metavar="N", help=f"(default: {DEFAULT_SAMPLES})")
    add("--seed", type=int, default=0, metavar="N", help="another choice of samples (default: 0)")


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("this run").add_argument
    add("--ram", type=memory_mb, default=float(DEFAULT_RAM_MB), metavar="SIZE", help="the board's memory (default: 8G)")
    add(
        "--ignore",
        action="append",
        choices=IGNORABLE,
        default=[],
        help="go on in spite of such a problem; repeatable",
    )
    add("--toolkit-python", **toolkit_python())
    add("--toolkit-version", metavar="VERSION", help="treat the toolkit as this version")
    add("--dry-run", action="store_true", help="check, tell what to expect, and stop")
    add("--json", action="store_true", help="one object on stdout at the end")


def _model(flags: argparse.Namespace) -> int:
    began = time.monotonic()
    lines = ProgressLines(sys.stdout if flags.dry_run and not flags.json else sys.stderr)
    try:
        outcome = (plan if flags.dry_run else convert)(_request(flags), lines)
    except (ConvertError, FactsError, OSError, KeyboardInterrupt) as error:
        if flags.json:
            say(json.dumps(_answer("failed", flags.output, time.monotonic() - began, error=error)))
        if not isinstance(error, PreflightFailed):
            raise
        kinds = [kind for kind in lines.problems if kind not in flags.ignore]
        ignore = " ".join(f"--ignore {kind}" for kind in kinds)
        say(f"rkllm-convert: refused for the problems above. To go on in spite of them: {ignore}", sys.stderr)
        return 2
    if flags.json:
        say(json.dumps(_answer(outcome.status, outcome.folder, outcome.seconds, outcome=outcome)))
    else:
        say("\n".join(_lines(outcome)))
    return 0


def _request(flags: argparse.Namespace) -> Request:
    chosen = {field.name: getattr(flags, field.name) for field in fields(Options)}
    chosen["quant"] = chosen["quant"] or _usual_quant(flags.model, flags.platform)
    return Request(
        model=flags.model,
        output=flags.output,
        options=Options(**chosen),
        revision=flags.revision,
        tokenizer=flags.tokenizer,
        lora=flags.lora,
        custom_config=flags.custom_config,
        qparams=flags.qparams,
        dataset=flags.dataset,
        samples=flags.samples,
        seed=flags.seed,
        max_new_tokens=flags.max_new_tokens,
        ram_mb=flags.ram,
        ignore=frozenset(flags.ignore),
        toolkit_python=flags.toolkit_python,
        toolkit_version=flags.toolkit_version,
        replace=flags.force,
        if_changed=flags.if_changed,
    )


def _usual_quant(model: str, platform: str) -> str:
    """What a GGUF file that is quantised becomes; otherwise what one would take on that chip."""
    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        taken_over = GGUF_EQUIVALENTS.get(look(model).gguf_type or "")
        if taken_over is not None:
            return taken_over
    return usual_type(platform) if platform in PLATFORMS else NOT_QUANTISED


def _lines(outcome: Outcome) -> Iterator[str]:
    if outcome.status == "unchanged":
        yield f"{outcome.folder} is current: nothing to do."
    elif outcome.status == "planned":
        yield from (line for one in outcome.notes for line in titled("note:", one))
        yield f"{outcome.folder} can be made so: nothing was done yet."
    else:
        yield from outcome.notes
        size = f", {mb(outcome.file_mb)}" if outcome.file_mb is not None else ""
        yield f"{outcome.folder} is ready{size}, after {duration(outcome.seconds)}."
        if outcome.is_stand_in:
            yield STAND_IN
        else:
            chip = outcome.preflight.platform
            yield f"Copy the folder into ~/RKLLAMA/models of a board with {chip}, and run rkllama serve there."


def _answer(
    status: str, folder: Path, seconds: float, *, outcome: Outcome | None = None, error: BaseException | None = None
) -> dict[str, Any]:
    """What --json prints. Sizes in MB of 2^20 bytes."""
    report = outcome.preflight if outcome else None
    board = report.board if report else None
    file_mb = outcome.file_mb if outcome else None
    return {
        "status": status,
        "folder": str(folder),
        "seconds": round(seconds, 1),
        "file_mb": None if file_mb is None else round(file_mb, 3),
        "tokens_per_s": round(board.tokens_per_s, 1) if board else None,
        "fits": board.fits if board else None,
        "is_stand_in": outcome.is_stand_in if outcome else None,
        "preflight": report.as_json() if report else None,
        "calls": [{"method": call.method, "arguments": call.arguments} for call in outcome.calls] if outcome else [],
        "notes": list(outcome.notes) if outcome else [],
        "error": {"type": type(error).__name__, "message": str(error)} if error is not None else None,
    }
