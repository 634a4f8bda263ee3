"""One conversion from beginning to end.

Nothing is downloaded before the options are known to be legal, and no weights before the pre-flight has passed. The
result grows in a hidden folder and gets its name when it is whole.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkllm_converter import __version__
from rkllm_converter.calibration import ChatTemplate, build, dataset_hash
from rkllm_converter.errors import CallFailed, FolderError, IllegalOptions, ModelNotFound, ToolkitMissing
from rkllm_converter.options import check
from rkllm_converter.preflight import Machine, Preflight, preflight, refuse
from rkllm_converter.request import Outcome, Request, Watcher
from rkllm_converter.result.modelfile import modelfile_text
from rkllm_converter.result.record import FileRecord, Record, hash_file, identity, read_record, write_record
from rkllm_converter.result.staging import Staging, check_output, recover, staging
from rkllm_converter.result.tokenizer import INSTEAD, TOKENIZER, copy_tokenizer, end_texts
from rkllm_converter.result.verify import is_whole
from rkllm_converter.source import Source, fetch, look
from rkllm_converter.toolkit.calls import Call, Inputs, calls
from rkllm_converter.toolkit.door import Found, find, has_gpu, run
from rkllm_converter.toolkit.fast_tokenizer import make_tokenizer
from rkllm_converter.toolkit.versions import NEWEST, Toolkit, toolkit

__all__ = ["convert", "plan"]

_DATASET = "calibration.json"
_MODELFILE = "Modelfile"
_CALL_WORDS = {
    "load_huggingface": "the toolkit loads the model",
    "load_gguf": "the toolkit loads the model",
    "build": "the toolkit converts it",
    "export_rkllm": "the toolkit writes the .rkllm",
}


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is known before the first weight is fetched. `found` is None if there is no toolkit, as a plan may do."""

    found: Found | None
    kit: Toolkit
    source: Source
    tokenizer: Source | None
    report: Preflight


def plan(request: Request, watcher: Watcher) -> Outcome:
    """What a conversion would do and bring; nothing but config.json is fetched. Raises ConvertError.

    Without a toolkit the newest one that is known is taken, which a note says.
    """
    began = time.monotonic()
    prepared = _prepare(request, watcher, needs_toolkit=False)
    refuse(prepared.report, request.ignore)
    source = Path(request.model) if prepared.source.path is None else prepared.source.path
    inputs = _inputs(request, prepared.source, source, Path(_DATASET), request.output / _file_name(request, prepared))
    missing = () if prepared.found else (f"No toolkit was found: this is a plan for {prepared.kit.version}.",)
    return Outcome(
        status="planned",
        folder=request.output,
        seconds=time.monotonic() - began,
        preflight=prepared.report,
        calls=calls(request.options, inputs, prepared.kit),
        file_mb=prepared.report.board.file_mb if prepared.report.board else None,
        notes=missing,
    )


def convert(request: Request, watcher: Watcher) -> Outcome:
    """Make the folder `request.output`. Raises ConvertError; what was there before is then still there.

    To be called from the main thread, as the toolkit's process ends with the thread that has started it.
    """
    began, started = time.monotonic(), dt.datetime.now(dt.timezone.utc)
    recover(request.output)
    check_output(request.output, replace=request.replace or request.if_changed)
    prepared = _prepare(request, watcher, needs_toolkit=True)
    what = identity(_decisive(request, prepared))
    current = _current(request.output, what) if request.if_changed else None
    if current is not None:
        return Outcome(
            status="unchanged",
            folder=request.output,
            seconds=time.monotonic() - began,
            preflight=prepared.report,
            file_mb=max(one.bytes for one in current.files.values()) / 2**20,
        )
    refuse(prepared.report, request.ignore)
    with staging(request.output) as folders:
        try:
            check_output(request.output, replace=request.replace or request.if_changed)
            made = _make(request, prepared, folders, watcher)
            watcher.phase("checking and naming the files")
            record = Record(
                identity=what,
                converter=__version__,
                began=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
                seconds=round(time.monotonic() - began, 1),
                files=_files(folders.partial),
                **made.facts,
            )
            write_record(folders.partial, record)
            folders.place()
        except OSError as error:
            folders.discard()
            raise FolderError(f"{error.filename or folders.partial}: {error.strerror or error}.") from error
        except BaseException:  # also of a Ctrl-C: nothing half made stays
            folders.discard()
            raise
        folders.finish()
    return Outcome(
        status="done",
        folder=request.output,
        seconds=record.seconds,
        preflight=prepared.report,
        calls=made.calls,
        file_mb=record.files[made.file].bytes / 2**20,
    )


def _prepare(request: Request, watcher: Watcher, *, needs_toolkit: bool) -> _Prepared:
    found, kit = _toolkit(request, needed=needs_toolkit)
    _check_files(request)
    watcher.phase(f"looking at {request.model}")
    source = look(request.model, revision=request.revision)
    check(request.options, kit, gguf=source.gguf_type, has_lora=request.lora is not None)
    tokenizer = look(request.tokenizer) if request.tokenizer else None
    if needs_toolkit:
        _check_tokenizer(tokenizer or source)
    if found is not None and request.options.device == "cuda" and needs_toolkit and not has_gpu(found):
        raise IllegalOptions([f"--device cuda: {found.python} sees no GPU. Install its driver, or take --device cpu."])
    report = preflight(
        source,
        request.options,
        kit,
        output=request.output,
        ram_mb=request.ram_mb,
        machine=Machine.here(Path(found.python).absolute().parent if found else None),
        has_custom_config=request.custom_config is not None,
        python_version=found.python_version if found else None,
    )
    return _Prepared(found, kit, source, tokenizer, report)


def _toolkit(request: Request, *, needed: bool) -> tuple[Found | None, Toolkit]:
    """The toolkit, and what is known of it. That the options are illegal is told first, toolkit or not."""

    def checked(version: str) -> Toolkit:
        kit = toolkit(request.toolkit_version or version)
        check(request.options, kit, has_lora=request.lora is not None)
        return kit

    try:
        found = find(request.toolkit_python)
    except ToolkitMissing:
        kit = checked(NEWEST)
        if needed:
            raise
        return None, kit
    return found, checked(found.version)


def _check_files(request: Request) -> None:
    """Raises IllegalOptions for files that are not there."""
    problems = []
    for flag, path in (
        ("dataset", request.dataset),
        ("qparams", request.qparams),
        ("custom-config", request.custom_config),
    ):
        if path is not None and not path.is_file():
            problems.append(f"--{flag} {path}: there is no such file.")
    if request.lora is not None and not (request.lora / "adapter_config.json").is_file():
        problems.append(f"--lora {request.lora}: it has to be a folder with an adapter_config.json.")
    if problems:
        raise IllegalOptions(problems)
    if request.dataset is not None:
        build(request.dataset, None, samples=1, seed=0)  # so that a mistake in it is told before a download


def _check_tokenizer(source: Source) -> None:
    """Raises ModelNotFound; what it has not, hours of conversion would not bring."""
    beside = source.path.parent.iterdir() if source.kind == "gguf" and source.path else ()
    if not {TOKENIZER, *INSTEAD} & {*source.files, *(path.name for path in beside)}:
        raise ModelNotFound(
            f"{source.name} has no {TOKENIZER}, and nothing to make one from. Name the model that it comes from, with "
            "--tokenizer."
        )


def _decisive(request: Request, prepared: _Prepared) -> Mapping[str, Any]:
    """Everything that decides what comes out, as JSON."""
    files = {"dataset": request.dataset, "qparams": request.qparams, "custom_config": request.custom_config}
    lora = sorted(request.lora.iterdir()) if request.lora else []
    return {
        "converter": __version__,
        "toolkit": prepared.kit.version,
        "is_stand_in": bool(prepared.found and prepared.found.is_stand_in),
        "source": prepared.source.fingerprint,
        "tokenizer": prepared.tokenizer.fingerprint if prepared.tokenizer else None,
        "options": dataclasses.asdict(request.options),
        "cores": request.options.cores,
        "samples": request.samples,
        "seed": request.seed,
        "max_new_tokens": request.answer_tokens,
        "files": {name: hash_file(path) if path else None for name, path in files.items()},
        "lora": {path.name: hash_file(path) for path in lora if path.is_file()},
    }


def _current(output: Path, what: str) -> Record | None:
    """The record of a result that would come out the same."""
    record = read_record(output)
    return record if record is not None and record.identity == what and is_whole(output, record) else None


@dataclass(frozen=True, slots=True)
class _Made:
    """`facts` are fields of the Record; `file` is the name of the .rkllm."""

    facts: dict[str, Any]
    file: str
    calls: tuple[Call, ...]


def _make(request: Request, prepared: _Prepared, folders: Staging, watcher: Watcher) -> _Made:
    """Fill the partial folder, but for conversion.json."""
    found = prepared.found
    assert found is not None  # noqa: S101 - _prepare has raised otherwise
    source, tokenizer = _fetch(prepared, watcher)
    folders.begin()
    copy_tokenizer(tokenizer, folders.partial)
    if not (folders.partial / TOKENIZER).is_file():
        watcher.phase(f"making a {TOKENIZER}")
        make_tokenizer(found, tokenizer, folders.partial / TOKENIZER)
    template = ChatTemplate.of(tokenizer)
    dataset, calibration = _calibration(request, template, folders.work, watcher)
    file = _file_name(request, prepared)
    inputs = _inputs(request, prepared.source, source, dataset, folders.partial / file)
    asked = calls(request.options, inputs, prepared.kit)
    try:
        run(found, asked, log=folders.log, began=lambda method: watcher.phase(_CALL_WORDS[method]))
    except CallFailed as error:
        raise CallFailed(error.method, f"{error.message}\nAll that the toolkit said: {folders.log}") from None
    _write_modelfile(request, prepared.source, folders.partial, file, template)
    facts = {
        "toolkit": found.version,
        "is_stand_in": found.is_stand_in,
        "python": ".".join(map(str, found.python_version)),
        "source": _source_facts(request, prepared),
        "options": {**dataclasses.asdict(request.options), "npu_cores": request.options.cores},
        "calibration": calibration,
    }
    return _Made(facts, file, asked)


def _fetch(prepared: _Prepared, watcher: Watcher) -> tuple[Path, Path]:
    """Where the model is, and the folder of its tokenizer."""
    source = prepared.source
    if source.path is None:
        watcher.phase(f"fetching {source.repository} at {str(source.revision)[:12]}")
    model = fetch(source, report=watcher.progress)
    if prepared.tokenizer is not None:
        watcher.phase(f"fetching the tokenizer of {prepared.tokenizer.name}")
        return model, fetch(prepared.tokenizer, report=watcher.progress, tokenizer_only=True)
    return model, model if model.is_dir() else model.parent


def _calibration(
    request: Request, template: ChatTemplate | None, work: Path, watcher: Watcher
) -> tuple[Path | None, dict[str, Any] | None]:
    """The file for the toolkit, and what conversion.json says of it; nothing without quantisation."""
    if not request.options.is_quantised:
        return None, None
    watcher.phase("writing the calibration data")
    entries = build(request.dataset, template, samples=request.samples, seed=request.seed)
    path = work / _DATASET
    path.write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")
    name = request.dataset.name if request.dataset else "built in"
    return path, {"dataset": name, "sha256": dataset_hash(entries), "samples": len(entries), "seed": request.seed}


def _inputs(request: Request, source: Source, model: Path, dataset: Path | None, export: Path) -> Inputs:
    return Inputs(
        model=model,
        is_gguf=source.kind == "gguf",
        lora=request.lora,
        custom_config=request.custom_config,
        qparams=request.qparams,
        dataset=dataset,
        export_path=export,
    )


def _file_name(request: Request, prepared: _Prepared) -> str:
    return f"{prepared.source.name}-{request.options.platform}-{request.options.quant}.rkllm"


def _write_modelfile(request: Request, source: Source, folder: Path, file: str, template: ChatTemplate | None) -> None:
    adapter = next((path.name for path in sorted(folder.glob("*.rkllm")) if path.name != file), None)
    text = modelfile_text(
        file,
        repository=source.repository or "",
        context=request.options.max_context,
        max_new_tokens=request.answer_tokens,
        stop=end_texts(folder),
        thinking=_thinking(template),
        adapter=adapter,
    )
    (folder / _MODELFILE).write_text(text, encoding="utf-8")


def _thinking(template: ChatTemplate | None) -> tuple[str, str] | None:
    """The markers of reasoning, if the template has them: a model may have such tokens and never think."""
    markers = template.thinking if template else None
    return markers if template and markers and markers[1] in template.text else None


def _files(folder: Path) -> dict[str, FileRecord]:
    return {
        path.relative_to(folder).as_posix(): FileRecord.of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _source_facts(request: Request, prepared: _Prepared) -> dict[str, Any]:
    source = prepared.source
    return {
        "kind": source.kind,
        "name": source.name,
        "repository": source.repository,
        "revision": source.revision,
        "fingerprint": source.fingerprint,
        "tokenizer": prepared.tokenizer.fingerprint if prepared.tokenizer else None,
        "lora": request.lora.name if request.lora else None,
    }
