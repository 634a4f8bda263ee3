"""All that can be said of a conversion before the weights are had."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkllm_converter.model_files import read_object
from rkllm_converter.options import NOT_QUANTISED, Options
from rkllm_converter.preflight.family import Verdict, config_of_gguf, judge, setting
from rkllm_converter.preflight.machine import Machine
from rkllm_converter.preflight.result import Preflight, margin_fits
from rkllm_converter.preflight.weights import is_quantised, judge_groups, judge_quantised
from rkllm_converter.source import Source
from rkllm_converter.toolkit.versions import Toolkit
from rkllm_converter.units import GB_IN_MB, MB, gb
from rkllm_facts.architecture import Architecture, architecture_of, gguf_architecture
from rkllm_facts.chips import chip
from rkllm_facts.errors import BadGguf, FactsError
from rkllm_facts.gguf import read_header
from rkllm_facts.planner import Plan, asked_mb, plan, remedies, reserved_mb

__all__ = ["memory_needed_mb", "preflight", "result_mb"]

_PROMPT = 128

_LOADED_BYTES = {"float32": 4, "float16": 4, "bfloat16": 2}
"""Of a weight on the CPU. 1.3.0 was reported to load float16 as float32 there; taken to hold for all releases."""

_STORED_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_F16 = (
    "The toolkits 1.1.4 and 1.2.1 refused to quantise a GGUF of type f16; whether this one does is not known. If it "
    "does, take the model as Hugging Face has it."
)
"""Source: issues 179 and 312 of airockchip/rknn-llm."""

_QUANTISED = "quantize_config.json"
_QUANTISED_AFAR = (
    f"The repository has a {_QUANTISED}, which is not read before the download, and its config.json tells nothing of "
    "that: its weights may be quantised. Look into it, or take the model as its makers published it."
)

_PROGRAM_MB = 2 * GB_IN_MB
_MARGIN = 1.05
_SPARE_MB = GB_IN_MB


@dataclass(frozen=True, slots=True)
class _Model:
    """`config` has at least what is judged here, for a GGUF file too. `why`: why there is no architecture.
    `values`: how many are loaded, 0 if not known."""

    config: Mapping[str, Any]
    architecture: Architecture | None
    why: str
    parameters: int | None
    values: int
    is_gguf: bool = False


def preflight(
    source: Source,
    options: Options,
    toolkit: Toolkit,
    *,
    output: Path,
    ram_mb: float,
    machine: Machine,
    has_custom_config: bool = False,
    python_version: tuple[int, int] | None = None,
) -> Preflight:
    """Nothing is read but the header of a GGUF file and a quantize_config.json; what this machine has comes with
    `machine`.

    `options` are legal (`rkllm_converter.options.check`); `output` is where the result goes, `ram_mb` the memory of the
    board, `python_version` of the Python that has the toolkit. With a --custom-config it is the user's word that the
    toolkit can convert the family, so that becomes a note.
    """
    model = _model(source)
    verdict = judge(model.config, toolkit, python_version, is_gguf=model.is_gguf)
    quantised = judge_quantised(model.config, options, chip(options.platform))
    board = _board(model, options, ram_mb)
    result = result_mb(board, model.values, options.quant)
    memory = None if result is None else memory_needed_mb(model.values, options, result)
    rooms = [*_rooms(source, output, result or 0.0, machine)]
    if machine.toolkit is not None and options.is_quantised:
        rooms.append(_room_of_toolkit(model.values, machine.toolkit, machine))
    problems = {
        "architecture": ("" if has_custom_config else verdict.unknown, verdict.other, quantised),
        "groups": (_groups(model, verdict, options),),
        "memory": (_memory(model, options, result, machine.memory_mb),),
        "disk": [room.problem for room in rooms],
    }
    scarcest = min(rooms, key=lambda room: room.there_mb - room.needed_mb)
    return Preflight(
        name=source.name,
        platform=options.platform,
        quant=options.quant,
        family=verdict.family,
        label=verdict.label,
        is_supported=not (verdict.unknown or verdict.other or quantised),
        parameters=model.parameters,
        memory_mb=memory,
        memory_there_mb=machine.memory_mb,
        download_mb=source.to_download / MB,
        disk_mb=scarcest.needed_mb,
        disk_there_mb=scarcest.there_mb,
        disk_folder=scarcest.folder,
        board=board,
        problems={kind: " ".join(filter(None, found)) for kind, found in problems.items() if any(found)},
        notes=(
            *_of_model(model, verdict, options, has_custom_config=has_custom_config),
            *_of_source(source, options),
            *_of_board(model, board),
        ),
    )


def memory_needed_mb(values: int, options: Options, result: float) -> float:
    """values x bytes of the dtype + result + 2 GB.

    The toolkit loads all weights at once, in its dtype (those of a GGUF file as float32); the .rkllm grows beside them;
    2 GB are for Python, torch and the activations of calibration. On a GPU the weights are there.
    """
    loaded = 0 if options.device == "cuda" else _LOADED_BYTES[options.dtype]
    return values * loaded / MB + result + _PROGRAM_MB


def result_mb(board: Plan | None, values: int, quant: str) -> float | None:
    """The size of the .rkllm: the planner's, or by the number of values and the bits of the type; None if neither is
    known."""
    if board is not None:
        return board.file_mb
    bits = 16 if quant == NOT_QUANTISED else int(quant[1 : quant.index("a")])
    return values * bits / 8 / MB if values else None


@dataclass(frozen=True, slots=True)
class _Room:
    folder: Path
    needed_mb: float
    there_mb: float
    problem: str


def _model(source: Source) -> _Model:
    if source.kind == "gguf" and source.path is not None:
        header = read_header(source.path)
        stored = sum(header.tensors.values())
        try:
            found = gguf_architecture(source.path)
        except BadGguf as error:
            return _Model(config_of_gguf(header), None, error.message, stored, stored, is_gguf=True)
        return _Model(config_of_gguf(header), found, "", found.parameters, found.parameters, is_gguf=True)
    config = _with_quantisation(source)
    kind = str(setting(config, "dtype", "torch_dtype")).removeprefix("torch.")
    stored = 0 if is_quantised(config) else source.weights_bytes // _STORED_BYTES.get(kind, 2)
    try:
        architecture = architecture_of(config)
    except FactsError as error:
        return _Model(config, None, error.message, stored or None, stored)
    # What sees or hears has more weights than its part for text, and all of them are loaded.
    return _Model(config, architecture, "", architecture.parameters, max(architecture.parameters, stored))


def _with_quantisation(source: Source) -> Mapping[str, Any]:
    """The config.json, with what older repositories have beside it."""
    if source.path is None or is_quantised(source.config):
        return source.config
    beside = read_object(source.path / _QUANTISED)
    return {**source.config, "quantization_config": beside} if beside else source.config


def _board(model: _Model, options: Options, ram_mb: float) -> Plan | None:
    if model.architecture is None or not options.is_quantised:
        return None
    return plan(
        model.architecture,
        platform=options.platform,
        dtype=options.quant,
        context=options.max_context,
        prompt_tokens=min(_PROMPT, options.max_context // 2),
        ram_mb=ram_mb,
    )


def _groups(model: _Model, verdict: Verdict, options: Options) -> str:
    return judge_groups(model.architecture, options.quant, chip(options.platform), family=verdict.family)


def _of_model(model: _Model, verdict: Verdict, options: Options, *, has_custom_config: bool) -> Iterator[str]:
    yield from verdict.notes
    if has_custom_config and verdict.unknown:
        yield f"{verdict.unknown} It is converted as --custom-config says."
    if options.device == "cuda":
        weights = f"{gb(model.values * 4 / MB)} as float32, half of it as float16" if model.values else "not known"
        yield f"The weights have to fit into the memory of the GPU, which is not looked at here: {weights}."
    trained = setting(model.config, "max_position_embeddings", "seq_length", "n_positions", "max_sequence_length")
    if isinstance(trained, int) and 0 < trained < options.max_context:
        yield (
            f"--max-context {options.max_context} is more than the {trained} tokens that the model was trained for: "
            "what is beyond them may be nonsense."
        )


def _of_source(source: Source, options: Options) -> Iterator[str]:
    if source.path is None and _QUANTISED in source.files and not is_quantised(source.config):
        yield _QUANTISED_AFAR
    if source.gguf_type == "f16" and options.is_quantised:
        yield _F16


def _of_board(model: _Model, board: Plan | None) -> Iterator[str]:
    if model.architecture is None:
        yield f"What to expect on the board is not known. {model.why}"
    elif board is None:
        yield "What to expect on the board is not known: nothing is known of models that are not quantised."
    else:
        yield from (note for note in board.notes if note != board.group_note)  # groups are judged by themselves
        if board.fits is False:
            yield _too_large(board)
        else:
            yield from _too_close(board)


def _too_close(board: Plan) -> Iterator[str]:
    """Where the planner says yes and rkllama, which asks for a margin, says no."""
    if board.fits and margin_fits(board) is False:
        ram = board.ram_mb or 0.0
        yield (
            f"It fits the board by a hair: rkllama asks for {gb(asked_mb(board))}, its margin included, and of "
            f"{gb(ram)} (--ram) the system leaves {gb(ram - reserved_mb(ram))}. It will refuse to load it, unless "
            "RKLLM_MEMORY_CHECK=no is set there."
        )


def _too_large(board: Plan) -> str:
    ram = board.ram_mb or 0.0
    found = "; ".join(one.what for one in remedies(board))
    return (
        f"It does not fit on the board: it needs {gb(board.memory_mb)}, and of {gb(ram)} (--ram) the system "
        f"leaves {gb(ram - reserved_mb(ram))}. It would fit with: {found or 'nothing that is known here'}."
    )


def _memory(model: _Model, options: Options, result: float | None, there: float) -> str:
    if result is None:
        return ""
    needed = memory_needed_mb(model.values, options, result)
    if needed <= there:
        return ""
    smaller = dataclasses.replace(options, dtype="bfloat16")
    is_enough = not model.is_gguf and memory_needed_mb(model.values, smaller, result) <= there
    less = "take --dtype bfloat16, which is enough, " if is_enough else ""
    return (
        f"The toolkit will need about {gb(needed)} of this computer's memory, and {gb(there)} are there, swap "
        f"included. End other programs, add swap, {less}or take a smaller model."
    )


def _rooms(source: Source, output: Path, result: float, machine: Machine) -> Iterator[_Room]:
    """What is needed on each disk. For the result it is its size and 5 %, and 1 GB: whether the toolkit writes files of
    its own beside it is not documented."""
    needed = result * _MARGIN + _SPARE_MB
    there = machine.disk(output)
    parts = [f"{gb(needed)} for the result"]
    if source.cache is not None and source.to_download:
        download = source.to_download / MB
        cache = machine.disk(source.cache)
        if cache.device == there.device:
            needed += download
            parts.append(f"{gb(download)} to download")
        else:
            yield _room(download, cache.free_mb, source.cache, [f"{gb(download)} to download"])
    yield _room(needed, there.free_mb, output, parts)


def _room_of_toolkit(values: int, folder: Path, machine: Machine) -> _Room:
    """The toolkit keeps files where it is installed while it quantises, up to the weights as float32.

    Source: the makers of 1.2.1, issue 308 of airockchip/rknn-llm; taken to hold for the later releases too. It is
    judged by itself, even where another folder is on the same disk: both estimates are generous.
    """
    needed, there = values * 4 / MB, machine.disk(folder).free_mb
    problem = (
        f"The disk of {folder} has {gb(there)} free, and the toolkit may keep {gb(needed)} there while it quantises. "
        "Make room, or install the toolkit on another disk."
    )
    return _Room(folder, needed, there, problem if needed > there else "")


def _room(needed: float, there: float, folder: Path, parts: list[str]) -> _Room:
    problem = (
        f"The disk of {folder} has {gb(there)} free, and {' and '.join(parts)} are needed. Make room, take another "
        "--output, or set HF_HOME to another folder."
    )
    return _Room(folder, needed, there, problem if needed > there else "")
