"""One conversion from beginning to end.

Nothing is downloaded before the options are known to be legal, and no weights before the pre-flight has passed. The
result grows in a hidden folder and gets its name when it is whole.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rkllm_converter import __version__
from rkllm_converter.calibration import ChatTemplate, advice, build, dataset_hash
from rkllm_converter.errors import CallFailed, FolderError, ModelNotFound, SourceError, VerifyFailed
from rkllm_converter.preflight import refuse
from rkllm_converter.prepare import Prepared, ToolkitDoor, decisive, prepare, tokenizer_problem
from rkllm_converter.request import NO_TOKENIZER, Outcome, Request, Watcher
from rkllm_converter.result.modelfile import modelfile_text
from rkllm_converter.result.names import MODEL_SUFFIX, MODELFILE
from rkllm_converter.result.record import FileRecord, Record, identity, read_record, write_record
from rkllm_converter.result.staging import Staging, check_output, recover, staging
from rkllm_converter.result.tokenizer import TOKENIZER, copy_tokenizer, end_texts
from rkllm_converter.result.verify import is_whole
from rkllm_converter.source import Source, check_folder, fetch
from rkllm_converter.toolkit.calls import Call, Inputs, calls
from rkllm_converter.toolkit.door import Found
from rkllm_converter.toolkit.fast_tokenizer import make_tokenizer
from rkllm_converter.units import MB

__all__ = ["convert", "plan"]

_DATASET = "calibration.json"
_LONGEST_NAME = 128
_CALL_WORDS = {
    "load_huggingface": "the toolkit loads the model",
    "load_gguf": "the toolkit loads the model",
    "build": "the toolkit converts it",
    "export_rkllm": "the toolkit writes the .rkllm",
}
_DOOR = ToolkitDoor()


@dataclass(frozen=True, slots=True)
class _Clock:
    """When a conversion began: for durations, and for people."""

    began: float = field(default_factory=time.monotonic)
    at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.timezone.utc))

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.began, 1)


def plan(request: Request, watcher: Watcher, door: ToolkitDoor = _DOOR) -> Outcome:
    """What a conversion would do and bring; nothing but config.json is fetched. Raises ConvertError.

    Without a toolkit the newest one that is known is taken, which a note says; so does a note what a conversion would
    refuse because the model is not whole.
    """
    clock = _Clock()
    check_output(request.output, replace=request.replace or request.if_changed)
    prepared = prepare(request, watcher, door, is_plan=True)
    refuse(prepared.report, request.ignore)
    model = Path(request.model) if prepared.source.path is None else prepared.source.path
    board = prepared.report.board
    return Outcome(
        status="planned",
        folder=request.output,
        seconds=clock.seconds,
        preflight=prepared.report,
        calls=_calls(request, prepared, model, Path(_DATASET), request.output),
        file_mb=board.file_mb if board else None,
        is_stand_in=bool(prepared.found and prepared.found.is_stand_in),
        notes=(*prepared.notes, *_missing(prepared)),
    )


def convert(request: Request, watcher: Watcher, door: ToolkitDoor = _DOOR) -> Outcome:
    """Make the folder `request.output`. Raises ConvertError; what was there before is then still there.

    To be called from the main thread, as the toolkit's process ends with the thread that has started it.
    """
    clock = _Clock()
    check_output(request.output, replace=request.replace or request.if_changed)
    prepared = prepare(request, watcher, door, is_plan=False)
    recover(request.output)
    check_output(request.output, replace=request.replace or request.if_changed)  # an earlier result may be back
    what = identity(decisive(request, prepared))
    record = _current(request.output, what) if request.if_changed else None
    if record is not None:
        return _outcome("unchanged", request, prepared, record, clock)
    problem = tokenizer_problem(prepared.tokenizer or prepared.source)
    if problem is not None and NO_TOKENIZER not in request.ignore:
        raise problem
    refuse(prepared.report, request.ignore)
    record = _Conversion(request, prepared, watcher, door, what, clock).run()
    return _outcome("done", request, prepared, record, clock)


def _outcome(
    status: Literal["done", "unchanged"], request: Request, prepared: Prepared, record: Record, clock: _Clock
) -> Outcome:
    return Outcome(
        status=status,
        folder=request.output,
        seconds=clock.seconds,
        preflight=prepared.report,
        file_mb=max(one.bytes for name, one in record.files.items() if name.endswith(MODEL_SUFFIX)) / MB,
        is_stand_in=record.is_stand_in,
        notes=prepared.notes,
    )


def _missing(prepared: Prepared) -> Iterator[str]:
    """What a conversion would refuse, that a plan can do without."""
    source = prepared.source
    problem: SourceError | None = tokenizer_problem(prepared.tokenizer or source)
    if problem is not None:
        yield f"A conversion would be refused: {problem.message}"
    if source.kind == "folder" and source.path is not None:
        try:
            check_folder(source.path, [*source.files])
        except SourceError as error:
            yield f"A conversion would be refused: {error.message}"


def _current(output: Path, what: str) -> Record | None:
    """The record of a result that would come out the same; a damaged one does not count."""
    try:
        record = read_record(output)
    except VerifyFailed:
        return None
    return record if record is not None and record.identity == what and is_whole(output, record) else None


@dataclass(frozen=True, slots=True)
class _Conversion:
    """One that has been checked. `identity` is what its result will be known by."""

    request: Request
    prepared: Prepared
    watcher: Watcher
    door: ToolkitDoor
    identity: str
    clock: _Clock

    def run(self) -> Record:
        """Make the result and give it its name, or leave nothing but the log."""
        with staging(self.request.output, replace=self.request.replace or self.request.if_changed) as folders:
            try:
                calibration = self._make(folders)
                self.watcher.phase("checking and naming the files")
                record = self._record(folders.partial, calibration)
                write_record(folders.partial, record)
                folders.place()
            except OSError as error:
                folders.discard()
                raise FolderError(f"{error.filename or folders.partial}: {error.strerror or error}.") from error
            except BaseException:  # also of a Ctrl-C: nothing half made stays
                folders.discard()
                raise
            folders.finish()
        return record

    @property
    def _found(self) -> Found:
        if self.prepared.found is None:
            raise ValueError("without a toolkit there are plans only")
        return self.prepared.found

    def _make(self, folders: Staging) -> dict[str, Any] | None:
        """Fill the partial folder, but for conversion.json. Returns what that says of the calibration.

        What may be wrong with the small files is found before the weights are fetched.
        """
        tokenizer = self._fetch_tokenizer()
        folders.begin()
        copy_tokenizer(tokenizer, folders.partial)
        template = ChatTemplate.of(tokenizer)
        if template is None:
            self.watcher.note("The model has no chat template. If it is for chats, put chat_template.jinja beside it.")
        dataset, calibration = self._calibration(template, folders.work)
        if not (folders.partial / TOKENIZER).is_file():
            self._make_tokenizer(tokenizer, folders.partial / TOKENIZER)
        asked = _calls(self.request, self.prepared, self._fetch(), dataset, folders.partial)
        self.watcher.note(f"What the toolkit says goes to {folders.log}")
        self.door.run(self._found, asked, log=folders.log, began=lambda method: self.watcher.phase(_CALL_WORDS[method]))
        for path in folders.work.glob("*.qparams"):  # what another conversion may be given
            path.rename(folders.partial / path.name)
        self._check_export(folders.partial)
        self._write_modelfile(folders.partial, template)
        return calibration

    def _make_tokenizer(self, source: Path, target: Path) -> None:
        self.watcher.phase(f"making a {TOKENIZER}")
        try:
            make_tokenizer(self._found, source, target)
        except ModelNotFound as error:
            if NO_TOKENIZER not in self.request.ignore:
                raise
            self.watcher.note(error.message)

    def _fetch_tokenizer(self) -> Path:
        """The folder that it is in."""
        source = self.prepared.tokenizer or self.prepared.source
        if source.path is None:
            self.watcher.phase(f"fetching the tokenizer of {source.repository} at {str(source.revision)[:12]}")
        if source.kind == "gguf" and source.path is not None:
            return source.path.parent
        return fetch(source, report=self.watcher.progress, tokenizer_only=True)

    def _fetch(self) -> Path:
        """Where the model is."""
        source = self.prepared.source
        if source.path is None:
            self.watcher.phase(f"fetching {source.repository} at {str(source.revision)[:12]}")
        return fetch(source, report=self.watcher.progress)

    def _calibration(self, template: ChatTemplate | None, work: Path) -> tuple[Path | None, dict[str, Any] | None]:
        """The file for the toolkit, and what conversion.json says of it; nothing without quantisation."""
        if not self.request.options.is_quantised:
            return None, None
        self.watcher.phase("writing the calibration data")
        entries = build(self.request.dataset, template, samples=self.request.samples, seed=self.request.seed)
        hint = advice(entries, self.request.samples, self.request.dataset)
        if hint is not None:
            self.watcher.note(hint)
        path = work / _DATASET
        path.write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")
        name = self.request.dataset.name if self.request.dataset else "built in"
        return path, {
            "dataset": name,
            "sha256": dataset_hash(entries),
            "samples": len(entries),
            "seed": self.request.seed,
        }

    def _check_export(self, folder: Path) -> None:
        """Raises CallFailed unless the toolkit has left what it was asked for, and plain files only."""
        wanted = folder / _file_name(self.request, self.prepared.source)
        problem = ""
        if wanted.is_symlink() or not wanted.is_file() or not wanted.stat().st_size:
            problem = f"it said that it was done, and {wanted.name} is missing or empty"
        for path in folder.rglob("*"):
            plain = (path.is_file() or path.is_dir()) and not path.is_symlink()
            if not plain or not path.name.isprintable():
                problem = f"it has left {path.name!r}, which cannot be part of a result"
        if problem:
            raise CallFailed("export_rkllm", f"export_rkllm of the toolkit failed: {problem}. Look into its log.")

    def _write_modelfile(self, folder: Path, template: ChatTemplate | None) -> None:
        file = _file_name(self.request, self.prepared.source)
        others = sorted(path.name for path in folder.glob(f"*{MODEL_SUFFIX}") if path.name != file)
        text = modelfile_text(
            file,
            repository=self.prepared.source.repository or "",
            context=self.request.options.max_context,
            max_new_tokens=self.request.answer_tokens,
            stop=end_texts(folder),
            thinking=_thinking(template),
            adapter=others[0] if others and self.request.lora else None,
        )
        (folder / MODELFILE).write_text(text, encoding="utf-8")

    def _record(self, folder: Path, calibration: dict[str, Any] | None) -> Record:
        """Of everything that is in `folder` now."""
        found, source, lora = self._found, self.prepared.source, self.request.lora
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return Record(
            identity=self.identity,
            converter=__version__,
            toolkit=found.version,
            is_stand_in=found.is_stand_in,
            python=".".join(map(str, found.python_version)),
            source={
                "kind": source.kind,
                "name": source.name,
                "repository": source.repository,
                "revision": source.revision,
                "fingerprint": source.fingerprint,
                "tokenizer": self.prepared.tokenizer.fingerprint if self.prepared.tokenizer else None,
                "lora": lora.name if lora else None,
            },
            options={**dataclasses.asdict(self.request.options), "npu_cores": self.request.options.cores},
            inputs=decisive(self.request, self.prepared),
            ignored=sorted(self.request.ignore),
            calibration=calibration,
            began=self.clock.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            files={path.relative_to(folder).as_posix(): FileRecord.of(path) for path in files},
            seconds=self.clock.seconds,
        )


def _calls(request: Request, prepared: Prepared, model: Path, dataset: Path | None, folder: Path) -> tuple[Call, ...]:
    """What the toolkit is asked for, with the result in `folder`. It may go to another folder, so paths are whole."""
    inputs = Inputs(
        model=model if prepared.source.path is None else model.absolute(),
        is_gguf=prepared.source.kind == "gguf",
        lora=request.lora.absolute() if request.lora else None,
        custom_config=request.custom_config.absolute() if request.custom_config else None,
        qparams=request.qparams.absolute() if request.qparams else None,
        dataset=dataset,
        export_path=folder / _file_name(request, prepared.source),
    )
    return calls(request.options, inputs, prepared.release)


def _file_name(request: Request, source: Source) -> str:
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", source.name).strip("-.")[:_LONGEST_NAME] or "model"
    return f"{name}-{request.options.platform}-{request.options.quant}{MODEL_SUFFIX}"


def _thinking(template: ChatTemplate | None) -> tuple[str, str] | None:
    """The markers of reasoning, if the template has them: a model may have such tokens and never think."""
    markers = template.thinking if template else None
    return markers if template and markers and markers[1] in template.text else None
