"""What is found out, and refused, before the first weight is fetched."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkllm_converter import __version__
from rkllm_converter.calibration import build
from rkllm_converter.errors import IllegalOptions, ModelNotFound, ToolkitMissing
from rkllm_converter.options import check
from rkllm_converter.preflight import Machine, Preflight, preflight
from rkllm_converter.request import Request, Watcher
from rkllm_converter.result.names import ADAPTER_CONFIG, name_fault
from rkllm_converter.result.record import hash_file
from rkllm_converter.result.tokenizer import BESIDE, INSTEAD, TOKENIZER
from rkllm_converter.source import Source, look
from rkllm_converter.toolkit.door import Found, find, has_gpu, run
from rkllm_converter.toolkit.versions import NEWEST, Toolkit, toolkit

__all__ = ["Prepared", "ToolkitDoor", "decisive", "prepare", "tokenizer_problem"]

_LARGEST_CONFIG = 4 << 20


@dataclass(frozen=True, slots=True)
class ToolkitDoor:
    """The ways to the toolkit, so that tests may give others."""

    find: Callable[[str | None], Found] = find
    has_gpu: Callable[[Found], bool] = has_gpu
    run: Callable[..., None] = run


@dataclass(frozen=True, slots=True)
class Prepared:
    """`found` is None if there is no toolkit, as a plan may do; `notes` is then why."""

    found: Found | None
    release: Toolkit
    source: Source
    tokenizer: Source | None
    report: Preflight
    notes: tuple[str, ...]


def prepare(request: Request, watcher: Watcher, door: ToolkitDoor, *, is_plan: bool) -> Prepared:
    """Options first, then the model's config.json, then what this machine has. Raises ConvertError.

    Problems of the pre-flight are in the report; whoever converts refuses them.
    """
    _check_request(request)
    here = look(request.model, revision=request.revision) if _is_here(request.model) else None
    found, release, missing = _toolkit(request, door, here.gguf_type if here else None, is_plan=is_plan)
    if found is not None:
        kind = "a STAND-IN for the toolkit" if found.is_stand_in else "toolkit"
        watcher.phase(f"{kind} {found.version} in {found.python}")
    if request.dataset is not None:
        build(request.dataset, None, samples=1, seed=0)  # so that a mistake in it is told before a download
    if found is not None and request.options.device == "cuda" and not is_plan and not door.has_gpu(found):
        raise IllegalOptions([f"--device cuda: {found.python} sees no GPU. Install its driver, or take --device cpu."])
    watcher.phase(f"looking at {request.model}")
    source = here or look(request.model, revision=request.revision)
    if source.kind == "gguf" and request.custom_config is not None:
        raise IllegalOptions([f"--custom-config {request.custom_config}: a GGUF file is loaded without. Leave it out."])
    tokenizer = look(request.tokenizer, needs_weights=False) if request.tokenizer else None
    if tokenizer is not None and tokenizer.kind == "gguf":
        raise IllegalOptions(
            [f"--tokenizer {request.tokenizer}: a GGUF file has none. Give the folder of the original."]
        )
    report = preflight(
        source,
        request.options,
        release,
        output=request.output,
        ram_mb=request.ram_mb,
        machine=Machine.here(found.folder if found else None),
        has_custom_config=request.custom_config is not None,
        python_version=found.python_version if found else None,
    )
    watcher.expect(report)
    return Prepared(found, release, source, tokenizer, report, (*missing, *_notes(request)))


def _is_here(model: str) -> bool:
    """Whether it can be looked at without the hub."""
    try:
        return Path(model).expanduser().exists()
    except RuntimeError:  # the home of a user that there is not
        return False


def _check_request(request: Request) -> None:
    """Raises IllegalOptions for what has nothing to do with the toolkit."""
    problems = [*_problems(request)]
    if problems:
        raise IllegalOptions(problems)


def _problems(request: Request) -> Iterator[str]:
    name = request.output.absolute().resolve().name
    fault = name_fault(name)
    if fault is not None:
        yield f"--output {request.output}: rkllama takes the folder's name for the model's, and {name!r} {fault}"
    yield from _of_files(request)
    if request.lora is not None:
        yield from _of_lora(request.lora)
    context = request.options.max_context
    if request.max_new_tokens is not None and request.max_new_tokens >= context:
        yield (
            f"--max-new-tokens {request.max_new_tokens}: prompt and answer share the context of {context} tokens. "
            f"Take less than {context}."
        )


def _of_files(request: Request) -> Iterator[str]:
    dataset, qparams, custom = request.dataset, request.qparams, request.custom_config
    for flag, path in (("dataset", dataset), ("qparams", qparams), ("custom-config", custom)):
        if path is not None and not path.is_file():
            yield f"--{flag} {path}: there is no such file."
    if qparams is not None and qparams.suffix != ".qparams":
        yield f"--qparams {qparams}: the toolkit takes a file that ends in .qparams."
    if custom is not None and custom.is_file() and not _is_json_object(custom):
        yield f"--custom-config {custom}: it holds no JSON object."
    if not request.options.is_quantised:
        for flag, path in (("dataset", dataset), ("qparams", qparams)):
            if path is not None:
                yield f"--{flag} {path}: with --quant none there is nothing to calibrate. Leave it out."


def _of_lora(folder: Path) -> Iterator[str]:
    if not (folder / ADAPTER_CONFIG).is_file():
        yield f"--lora {folder}: it has to be a folder with an {ADAPTER_CONFIG}."
    elif not [*folder.glob("adapter_model.*")]:
        yield f"--lora {folder}: it has no adapter_model.safetensors or adapter_model.bin."


def _toolkit(
    request: Request, door: ToolkitDoor, gguf: str | None, *, is_plan: bool
) -> tuple[Found | None, Toolkit, tuple[str, ...]]:
    """The toolkit, what is known of it, and why there is none. That options are illegal is told first in any case.

    A plan does without a toolkit, and says for which release it is then.
    """

    def checked(version: str) -> Toolkit:
        release = toolkit(request.toolkit_version or version)
        check(request.options, release, gguf=gguf, has_lora=request.lora is not None)
        return release

    try:
        found = door.find(request.toolkit_python)
    except ToolkitMissing as error:
        release = checked(NEWEST)
        if not is_plan:
            raise
        return None, release, (f"{error.message} So this is a plan for toolkit {release.version}.",)
    return found, checked(found.version), ()


def _is_json_object(path: Path) -> bool:
    try:
        return path.stat().st_size <= _LARGEST_CONFIG and isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _notes(request: Request) -> Iterator[str]:
    if request.options.export_embedding is False or request.options.export_tokenizer is False:
        yield "A file without its embedding or tokenizer needs a program that brings them: rkllama does not."
    if request.lora is not None:
        yield "The adapter becomes a file of its own beside the model. rkllama serves the model without it."


def tokenizer_problem(source: Source) -> ModelNotFound | None:
    """What hours of conversion would not bring: a tokenizer, or what one is made from."""
    beside = source.path.parent.iterdir() if source.kind == "gguf" and source.path else ()
    if {TOKENIZER, *INSTEAD} & {*source.files, *(path.name for path in beside)}:
        return None
    return ModelNotFound(
        f"{source.name} has no {TOKENIZER}, and nothing to make one from. Name a model that has one with --tokenizer, "
        "or go on with --ignore tokenizer: rkllama then serves it by text, and cannot count."
    )


def decisive(request: Request, prepared: Prepared) -> Mapping[str, Any]:
    """Everything that decides what comes out, as JSON."""
    files = {"dataset": request.dataset, "qparams": request.qparams, "custom_config": request.custom_config}
    return {
        "converter": __version__,
        "toolkit": prepared.release.version,
        "is_stand_in": bool(prepared.found and prepared.found.is_stand_in),
        "source": prepared.source.fingerprint,
        "tokenizer": _tokenizer_of(prepared),
        "options": dataclasses.asdict(request.options),
        "cores": request.options.cores,
        "samples": request.samples,
        "seed": request.seed,
        "max_new_tokens": request.answer_tokens,
        "files": {name: hash_file(path) if path else None for name, path in files.items()},
        "lora": _hashes(sorted(request.lora.iterdir())) if request.lora else {},
    }


def _tokenizer_of(prepared: Prepared) -> str | dict[str, str] | None:
    """Of a model that has its own, the source's fingerprint tells enough; beside a GGUF lie files of others."""
    if prepared.tokenizer is not None:
        return prepared.tokenizer.fingerprint
    path = prepared.source.path
    if prepared.source.kind != "gguf" or path is None:
        return None
    return _hashes([path.parent / name for name in (TOKENIZER, *INSTEAD, *BESIDE)])


def _hashes(paths: list[Path]) -> dict[str, str]:
    return {path.name: hash_file(path) for path in paths if path.is_file()}
