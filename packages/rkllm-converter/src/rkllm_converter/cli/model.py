"""`rkllm-convert model`: one conversion."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rkllm_converter.calibration import DEFAULT_SAMPLES
from rkllm_converter.cli.progress import Lines
from rkllm_converter.cli.values import lower, memory_mb, positive
from rkllm_converter.convert import convert, plan
from rkllm_converter.errors import ConvertError
from rkllm_converter.options import NOT_QUANTISED, PLATFORMS, Options
from rkllm_converter.request import DEFAULT_RAM_MB, PROBLEMS, Outcome, Request
from rkllm_facts.errors import FactsError
from rkllm_facts.planner import usual_type

__all__ = ["add_to"]

_TEXT = """Converts a model and writes a folder that rkllama serves. Options that the chip or the toolkit does not allow
are refused before anything is downloaded."""
_PYTHON = "RKLLM_TOOLKIT_PYTHON"


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
        help="share of layers with other groups, from 0 to below 1",
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
    add("--ignore", action="append", choices=PROBLEMS, default=[], help="go on in spite of such a problem; repeatable")
    add(
        "--toolkit-python",
        default=os.environ.get(_PYTHON),
        metavar="PATH",
        help=f"the Python that has Rockchip's toolkit (default: {_PYTHON}, or this one)",
    )
    add("--toolkit-version", metavar="VERSION", help="treat the toolkit as this version")
    add("--dry-run", action="store_true", help="check, tell what to expect, and stop")
    add("--json", action="store_true", help="one object on stdout at the end")


def _model(flags: argparse.Namespace) -> int:
    began = time.monotonic()
    try:
        request = _request(flags)
        outcome = (plan if flags.dry_run else convert)(request, Lines())
    except (ConvertError, FactsError) as error:
        if flags.json:
            print(json.dumps(_failure(flags.output, error, time.monotonic() - began)))
        raise
    if flags.json:
        print(json.dumps(_success(outcome)))
    else:
        print("\n".join(_lines(outcome)))
    return 0


def _request(flags: argparse.Namespace) -> Request:
    if flags.quant is None:
        flags.quant = usual_type(flags.platform) if flags.platform in PLATFORMS else NOT_QUANTISED
    options = Options(**{field.name: getattr(flags, field.name) for field in fields(Options)})
    return Request(
        model=flags.model,
        output=flags.output,
        options=options,
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


def _lines(outcome: Outcome) -> Sequence[str]:
    if outcome.status == "unchanged":
        return [f"{outcome.folder} is current: nothing to do."]
    told = list(outcome.preflight.lines()) if outcome.preflight else []
    if outcome.status == "planned":
        return [*told, *outcome.notes, "The toolkit would be asked:", *(f"  {call}" for call in outcome.calls)]
    size = f", {outcome.file_mb:,.0f} MB" if outcome.file_mb else ""
    models = outcome.folder.parent
    return [
        *outcome.notes,
        f"{outcome.folder} is ready{size}, after {outcome.seconds:,.0f} s.",
        f"Serve it: rkllama serve --models {shlex.quote(str(models))}",
        "On a board: copy the folder into its ~/RKLLAMA/models.",
    ]


def _success(outcome: Outcome) -> dict[str, Any]:
    board = outcome.preflight.board if outcome.preflight else None
    return {
        "status": outcome.status,
        "folder": str(outcome.folder),
        "seconds": round(outcome.seconds, 1),
        "file_mb": outcome.file_mb,
        "tokens_per_s": round(board.tokens_per_s, 1) if board else None,
        "fits": board.fits if board else None,
        "preflight": outcome.preflight.as_json() if outcome.preflight else None,
        "calls": [{"method": call.method, "arguments": call.arguments} for call in outcome.calls],
        "notes": list(outcome.notes),
        "error": None,
    }


def _failure(output: Path, error: Exception, seconds: float) -> dict[str, Any]:
    return {
        "status": "failed",
        "folder": str(output),
        "seconds": round(seconds, 1),
        "file_mb": None,
        "tokens_per_s": None,
        "fits": None,
        "error": {"type": type(error).__name__, "message": str(error)},
    }
