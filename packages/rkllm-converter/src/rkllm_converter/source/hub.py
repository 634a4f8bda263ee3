"""Models of Hugging Face's hub, or of a server that answers alike (HF_ENDPOINT).

Files go to the cache of huggingface_hub (HF_HOME), in its layout, so that other programs find them too. They are
brought by its `http_get`: `snapshot_download` throws an unfinished file away, however large, and it makes paths of what
the server says without a look at it. No name, hash or size of the server's is used here before it is judged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rkllm_converter import __version__
from rkllm_converter.errors import HubUnreachable, ModelNotFound, SourceError
from rkllm_converter.source.hub_errors import explained, no_hub, without_password
from rkllm_converter.source.model import (
    CONFIG,
    LARGEST_CONFIG,
    Source,
    check_config_size,
    missing_shards,
    needed,
    parse_config,
    weights,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.hf_api import RepoSibling

__all__ = ["fetch_from_hub", "look_at_hub"]

_TIMEOUT = 30.0
_PROGRAM = "rkllm-convert"
_UNFINISHED = ".rkllm-convert.part"
_CHUNK = 1 << 20
_LOOK_AGAIN = 0.2
"""Seconds."""
_PATIENCE = 600.0
"""Seconds that another process may take for no byte more. When it has all it hashes them, which takes minutes."""
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_ETAG = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]*", re.ASCII)

Report = Callable[[int, int], None]


def _nothing(step: int) -> None:
    pass


@dataclass(frozen=True)
class _Hub:
    """Which hub is asked, and where its files go. Read from the environment at each call; None leaves it to the
    library. It looks for the token by itself: HF_TOKEN, or what `hf auth login` has left."""

    endpoint: str | None
    cache: Path

    @classmethod
    def here(cls) -> _Hub:
        from huggingface_hub import constants  # noqa: PLC0415 - needed for models of the hub only
        from huggingface_hub.utils import logging  # noqa: PLC0415

        # Otherwise the first request fetches a list of programs and keeps it, and each retry is told of.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        logging.set_verbosity(ERROR)
        endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or None
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise HubUnreachable(
                f"HF_ENDPOINT is {without_password(endpoint)!r}: it has to begin with http:// or https://."
            )
        home = os.environ.get("HF_HOME")
        cache = os.environ.get("HF_HUB_CACHE") or (f"{home}/hub" if home else constants.HF_HUB_CACHE)
        return cls(endpoint, Path(os.path.expandvars(cache)).expanduser().absolute())

    @property
    def address(self) -> str:
        """To be shown."""
        from huggingface_hub import constants  # noqa: PLC0415 - as above

        return without_password(self.endpoint or constants.ENDPOINT)

    def api(self) -> HfApi:
        from huggingface_hub import HfApi  # noqa: PLC0415 - as above

        return HfApi(self.endpoint, library_name=_PROGRAM, library_version=__version__)

    def folder(self, repository: str) -> Path:
        """Layout: huggingface_hub's guide to its cache."""
        return self.cache / f"models--{repository.replace('/', '--')}"

    def blob(self, repository: str, etag: str) -> Path:
        """Where the content of a file lies."""
        return self.folder(repository) / "blobs" / etag

    def cached(self, repository: str, revision: str, name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - as above

        found = try_to_load_from_cache(repository, name, cache_dir=self.cache, revision=revision)
        if not isinstance(found, str):
            return None
        whole, folders = Path(found).resolve(), (self.cache.resolve(), self.folder(repository).resolve())
        if not any(whole.is_relative_to(one) for one in folders):
            raise SourceError(f"{found} leads out of the cache, to {whole}. Delete it, and run the same command again.")
        return Path(found)

    def link(self, repository: str, revision: str, name: str, blob: Path) -> Path:
        """Put a file that is here into the folder of its commit."""
        at = self.folder(repository) / "snapshots" / revision / name
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)  # one that leads to nothing
        try:
            at.symlink_to(Path("..", "..", "blobs", blob.name))
        except FileExistsError:  # another process was faster
            pass
        except OSError:  # a file system without such links
            blob.replace(at)
        return at


def look_at_hub(repository: str, revision: str | None, *, needs_weights: bool) -> Source:
    """A model of the hub; its config.json is brought. Raises SourceError and what is below it."""
    hub = _Hub.here()
    with explained(repository, revision, hub.address, hub.cache):
        info = _asked(hub, repository, revision)
    siblings = {entry.rfilename: entry for entry in info.siblings or [] if _is_sound(entry.rfilename)}
    commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):
        raise no_hub(repository, hub.address)
    files = needed({name: _size(entry) for name, entry in siblings.items()})
    _check_files(repository, commit, [*siblings], [*files], needs_weights=needs_weights)
    where = f"{CONFIG} of {repository}"
    check_config_size(files[CONFIG], where)
    with explained(repository, revision, hub.address, hub.cache):
        at = hub.cached(repository, commit, CONFIG) or _bring(hub, repository, commit, CONFIG, most=LARGEST_CONFIG)
        check_config_size(at.stat().st_size, where)
        config = at.read_bytes()
    missing = [name for name in files if hub.cached(repository, commit, name) is None]
    there = sum(_unfinished(hub, repository, siblings[name]) for name in missing)
    return Source(
        kind="hub",
        name=repository.rpartition("/")[2],
        repository=repository,
        revision=commit,
        config=parse_config(config, where),
        files=files,
        fingerprint=commit,
        to_download=max(sum(files[name] for name in missing) - there, 0),
        cache=hub.cache,
    )


def fetch_from_hub(source: Source, report: Report, *, tokenizer_only: bool) -> Path:
    """The folder of huggingface_hub's cache with the files of that commit. Raises SourceError and what is below it."""
    hub = _Hub.here()
    if source.repository is None or source.revision is None:
        raise ValueError("this model is not from the hub")
    large = weights(source.files)
    names = [*sorted({*source.files} - {*large}), *([] if tokenizer_only else large)]
    total, done = sum(source.files[name] for name in names), 0
    folder = None
    for name in names:
        at = hub.cached(source.repository, source.revision, name)
        if at is None:
            with explained(source.repository, source.revision, hub.address, hub.cache):
                at = _bring(hub, source.repository, source.revision, name, _from(done, report, total))
        done += source.files[name]
        report(done, total)
        folder = at.parent
    if folder is None:
        raise ModelNotFound(f"{source.repository} has no files that could be used.")
    return folder


def _asked(hub: _Hub, repository: str, revision: str | None) -> ModelInfo:
    try:
        return hub.api().model_info(repository, revision=revision, files_metadata=True, timeout=_TIMEOUT)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if type(error).__module__.startswith("huggingface_hub"):
            raise
        # a page of a proxy, or JSON of another kind: the library does not check what it reads
        raise no_hub(repository, hub.address) from error


def _is_sound(name: object) -> bool:
    """Whether it can be the name of a file in a repository, and be shown."""
    return isinstance(name, str) and name.isprintable() and not {"", ".", ".."} & {*name.split("/")}


def _check_files(repository: str, commit: str, names: list[str], chosen: list[str], *, needs_weights: bool) -> None:
    """Raises ModelNotFound, which says what is missing."""
    ggufs = [name for name in names if name.endswith(".gguf")]
    problem = ""
    if "adapter_config.json" in names and CONFIG not in names:
        problem = "is an adapter. Give the model it is for as --model, and a folder with this one as --lora."
    elif needs_weights and ggufs and (CONFIG not in names or not weights(chosen)):
        problem = f"has GGUF files only. Download one of type f16 or q4_0, such as {ggufs[0]}, and give that file."
    elif CONFIG not in names:
        problem = f"has no {CONFIG}. Take a repository that the transformers library can load."
    elif needs_weights and not weights(chosen):
        problem = "has no weights: neither .safetensors nor pytorch_model.bin. Take the repository that has them."
    elif needs_weights and (missing := missing_shards(chosen)):
        problem = f"lacks a part of the weights: {', '.join(missing[:5])}. Take another --revision."
    if problem:
        raise ModelNotFound(f"{repository} at {commit[:12]} {problem}")


def _bring(
    hub: _Hub,
    repository: str,
    revision: str,
    name: str,
    report: Callable[[int], None] = _nothing,
    *,
    most: int | None = None,
) -> Path:
    """Put a file into the cache; what an earlier attempt has left is gone on with. `most`: bytes that it may have."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - as above
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # noqa: PLC0415 - not in __all__

    headers = build_hf_headers(library_name=_PROGRAM, library_version=__version__)
    url = hf_hub_url(repository, name, revision=revision, endpoint=hub.endpoint)
    found = get_hf_file_metadata(url, headers=headers, timeout=_TIMEOUT, endpoint=hub.endpoint)
    if found.etag is None or not _ETAG.fullmatch(found.etag):
        raise HubUnreachable(f"{hub.address} does not tell the ETag of {name}: it is no hub. Check HF_ENDPOINT.")
    if most is not None and (found.size or 0) > most:
        raise HubUnreachable(f"{name} of {repository} is larger than {hub.address} announced. Check HF_ENDPOINT.")
    blob = hub.blob(repository, found.etag)
    if blob.exists():
        return hub.link(repository, revision, name, blob)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _held(blob.with_name(blob.name + _UNFINISHED), report) as part:
        if not blob.exists():  # as it may by now, if another process was waited for
            _complete(part, url, headers, found.size, report, most=found.size if most is None else most)
            _check_content(part, found.etag, f"{name} of {repository}")
            Path(part.name).replace(blob)
    return hub.link(repository, revision, name, blob)


@contextlib.contextmanager
def _held(part: Path, report: Callable[[int], None]) -> Iterator[BinaryIO]:
    """An unfinished file, at its end, with no other process at work on it: that one is waited for while it gets on.

    `report` is told how far that one is.
    """
    part.touch()
    with part.open("r+b") as file:
        here, since = 0, time.monotonic()
        while not _is_locked(file):
            before, here = here, os.fstat(file.fileno()).st_size
            if here != before:
                since = time.monotonic()
                report(here)
            elif time.monotonic() - since > _PATIENCE:
                raise SourceError(
                    f"{part} is held by another process, and has not grown for {_PATIENCE:.0f} seconds. End that one, "
                    "and run the same command again."
                )
            time.sleep(_LOOK_AGAIN)
        file.seek(0, os.SEEK_END)
        yield file


def _is_locked(file: BinaryIO) -> bool:
    """By this process now, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _complete(
    part: BinaryIO,
    url: str,
    headers: dict[str, str],
    size: int | None,
    report: Callable[[int], None],
    *,
    most: int | None,
) -> None:
    from huggingface_hub.file_download import http_get  # noqa: PLC0415 - as above

    here = part.tell()
    if size is None or here > size:
        here = 0
        part.seek(0)
        part.truncate()
    report(here)

    def add(step: int) -> None:
        here = part.tell() + max(step, 0)
        if most is not None and here > most:
            part.truncate(0)
            raise HubUnreachable(f"{without_password(url)} is larger than announced. Check HF_ENDPOINT.")
        report(here)

    http_get(url, part, resume_size=here, headers=headers, expected_size=size, tqdm_class=_bar(add))
    part.flush()


def _check_content(part: BinaryIO, etag: str, what: str) -> None:
    """The ETag of a large file is its SHA-256; of others it is not, and they are taken as they came."""
    if not _SHA256.fullmatch(etag):
        return
    sha256 = hashlib.sha256()
    part.seek(0)
    while chunk := part.read(_CHUNK):
        sha256.update(chunk)
    if sha256.hexdigest() != etag:
        part.truncate(0)
        raise HubUnreachable(f"{what} did not arrive as the hub has it (SHA-256 differs). Run the same command again.")


def _unfinished(hub: _Hub, repository: str, entry: RepoSibling) -> int:
    """How many bytes of a file an earlier attempt has left."""
    sha256 = getattr(entry.lfs, "sha256", None)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        return 0
    try:
        return hub.blob(repository, sha256 + _UNFINISHED).stat().st_size
    except OSError:
        return 0


def _size(entry: RepoSibling) -> int:
    return entry.size if isinstance(entry.size, int) and entry.size > 0 else 0


def _from(begin: int, report: Report, total: int) -> Callable[[int], None]:
    return lambda here: report(begin + here, total)


def _bar(add: Callable[[int], None]) -> Any:
    """What huggingface_hub takes for tqdm: it is told of each piece, and shows nothing."""

    class Bar:
        def __init__(self, *args: Any, **options: Any) -> None:
            pass

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def update(self, step: float | None = 1) -> None:
            add(int(step or 0))

        def close(self) -> None:
            pass

    return Bar
