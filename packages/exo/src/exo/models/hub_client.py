"""Asks the Hugging Face hub, or a server that answers alike, what a repository holds, and reads its files.

The names of things, the headers and the kinds of errors are those of `huggingface_hub`. Files are read here and not by
its `hf_hub_download`: that one throws an unfinished file away when it fails, and cannot be stopped while it waits.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2

from exo import __version__
from exo.models.background import in_background
from exo.models.hub_reference import is_safe
from exo.types import NothingToPull, PullError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

DEFAULT_ENDPOINT = "https://huggingface.co"
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new attempt; when they are used up, the pull fails."""
_LONGEST_PAUSE = 60.0
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_MAY_PASS = {408, 429, 500, 502, 503, 504}
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REPOSITORY_ID = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", re.ASCII)


class Interrupted(Exception):
    """An attempt failed, but the next one may succeed. Never leaves the modules of pull.

    `retry_after` is in seconds. `start_over`: what is on the disk does not fit to what the server has.
    """

    def __init__(self, reason: str, *, retry_after: float = 0.0, start_over: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.start_over = start_over


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: `size` in bytes, `sha256` in hex or empty, `key` the same for the same content."""

    path: str
    size: int | None
    sha256: str
    key: str


@dataclass(frozen=True)
class Repository:
    """What a repository holds at one commit; files with unsafe names are left out."""

    id: str
    commit: str
    files: Mapping[str, HubFile] = field(default_factory=dict)
    base_model: str = ""


class Patience:
    """Waits after each failure of a row a little longer, and gives up in the end."""

    def __init__(self, client: HubClient, repo_id: str) -> None:
        self._client = client
        self._repo_id = repo_id
        self._failures = 0

    def failed(self, failure: Interrupted) -> None:
        """Wait for the next attempt. Raises PullError if there is none, or if the pull was cancelled."""
        if self._failures >= len(PAUSES):
            raise PullError(
                f"{self._repo_id} could not be pulled from {self._client.endpoint}, after {len(PAUSES) + 1} attempts: "
                f"{failure.reason}. The same command goes on where this one stopped."
            ) from failure
        pause = max(PAUSES[self._failures], min(failure.retry_after, _LONGEST_PAUSE))
        self._failures += 1
        self._client.cancelled.wait(pause)
        self._client.raise_if_cancelled(self._repo_id)

    def reset(self) -> None:
        """There was progress: the next failure is the first of a row."""
        self._failures = 0


class HubClient:
    """One pull's view of the hub. `env` gives HF_ENDPOINT and HF_TOKEN; the process's own are not looked at."""

    def __init__(self, env: Mapping[str, str], cancelled: threading.Event) -> None:
        self.endpoint = (env.get("HF_ENDPOINT", "").strip() or DEFAULT_ENDPOINT).rstrip("/")
        self.cancelled = cancelled
        self._token = env.get("HF_TOKEN", "").strip()
        if not self.endpoint.startswith(("http://", "https://")):
            raise PullError(f"HF_ENDPOINT is {self.endpoint!r}: it has to begin with http:// or https://.")

    def raise_if_cancelled(self, repo_id: str) -> None:
        if self.cancelled.is_set():
            raise PullError(f"The pull of {repo_id} was cancelled. The same command goes on where it stopped.")

    def repository(self, repo_id: str, revision: str) -> Repository:
        """What the repository holds. Raises PullError; a hub that cannot be reached at all is not asked twice."""
        patience = Patience(self, repo_id)
        while True:
            try:
                found = list(in_background(self._ask(repo_id, revision), self.cancelled))
                self.raise_if_cancelled(repo_id)
                return found[0]
            except Interrupted as failure:
                if isinstance(failure.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                    raise PullError(
                        f"The hub {self.endpoint} cannot be reached: {failure.reason}. "
                        "Check the network of this machine, or name another hub in HF_ENDPOINT."
                    ) from failure
                patience.failed(failure)

    def content(self, repository: Repository, file: HubFile, start: int) -> Generator[tuple[int, bytes], None, None]:
        """One attempt to read a file from byte `start` on: pieces, each with its place in the file.

        The first piece is empty; its place is 0 if the server sends the whole file again. Raises Interrupted or
        PullError.
        """
        yield from in_background(self._stream(repository, file, start), self.cancelled)
        self.raise_if_cancelled(repository.id)

    def _ask(self, repo_id: str, revision: str) -> Generator[Repository, None, None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled  # noqa: PLC0415

        try:
            info = self._api().model_info(repo_id, revision=revision, files_metadata=True, timeout=_TIMEOUT.read)
        except HfHubHTTPError as error:
            raise self._explained(error, repo_id, revision) from error
        except httpx2.TransportError as error:
            raise Interrupted(_reason(error)) from error
        except httpx2.RequestError as error:
            raise PullError(f"The hub {self.endpoint} does not answer as a hub: {_reason(error)}.") from error
        except OfflineModeIsEnabled as error:
            raise PullError("HF_HUB_OFFLINE is set, so nothing can be pulled. Unset it.") from error
        except HFValidationError as error:
            raise NothingToPull(f"{repo_id!r} cannot be the name of a repository.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # a page of a proxy, or JSON of another kind
            raise PullError(
                f"{self.endpoint} answered for {repo_id} with something that is no description of a model. "
                "Check HF_ENDPOINT, and whether a proxy wants a log-in."
            ) from error
        siblings = info.siblings or []
        commit = info.sha or revision
        files = {entry.rfilename: _file(entry, f"{repo_id}@{commit}") for entry in siblings if is_safe(entry.rfilename)}
        yield Repository(repo_id, commit, files, _base_model(info.card_data))

    def _stream(self, repository: Repository, file: HubFile, start: int) -> Generator[tuple[int, bytes], None, None]:
        from huggingface_hub import hf_hub_url  # noqa: PLC0415

        url = hf_hub_url(repository.id, file.path, revision=repository.commit, endpoint=self.endpoint)
        headers = {**self._headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            with (
                httpx2.Client(follow_redirects=True, timeout=_TIMEOUT) as http,  # sends the token to one origin only
                http.stream("GET", url, headers=headers) as response,
            ):
                position = self._begin(response, repository, file, start)
                yield position, b""
                for piece in response.iter_bytes():
                    yield position, piece
                    position += len(piece)
        except httpx2.TransportError as error:
            raise Interrupted(_reason(error)) from error
        except httpx2.RequestError as error:
            raise PullError(f"{url} cannot be read: {_reason(error)}.") from error

    def _begin(self, response: httpx2.Response, repository: Repository, file: HubFile, start: int) -> int:
        """The place of the first byte that the response brings."""
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined] # noqa: PLC0415

        if response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
            raise Interrupted("the hub has fewer bytes of the file than this machine", start_over=True)
        if response.is_error and response.url.origin != httpx2.URL(self.endpoint).origin:
            # The link to the storage was good for a while only; the hub gives a new one.
            raise Interrupted(f"{response.url.host} answered {response.status_code}")
        try:
            hf_raise_for_status(response)
        except HfHubHTTPError as error:
            raise self._explained(error, repository.id, repository.commit, file.path) from error
        if response.status_code != httpx2.codes.PARTIAL_CONTENT:
            return 0
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise Interrupted("the hub sent another part of the file than asked for", start_over=True)
        return start

    def _explained(self, error: HfHubHTTPError, repo_id: str, revision: str, file: str = "") -> Exception:
        """What a refusal of the hub means for whoever pulls."""
        from huggingface_hub import errors  # noqa: PLC0415

        status = error.response.status_code
        if status in _MAY_PASS:
            after = error.response.headers.get("Retry-After", "")
            wait = float(after) if after.isascii() and after.isdigit() else 0.0
            return Interrupted(f"the hub answered {status}", retry_after=wait)
        kind: type[PullError] = PullError
        if isinstance(error, errors.GatedRepoError):
            text = (
                f"{repo_id} is gated: accept its terms at {self.endpoint}/{repo_id}, "
                "and set HF_TOKEN to a token of the account that did."
            )
        elif isinstance(error, errors.RepositoryNotFoundError) or status == httpx2.codes.NOT_FOUND:
            kind, text = NothingToPull, self._absent(error, repo_id, revision, file)
        elif status in {httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN}:
            wanted = "HF_TOKEN to another token, this one may not" if self._token else "HF_TOKEN to a token that may"
            text = f"{self.endpoint} refused {repo_id} ({status}): set {wanted} read it."
        else:
            text = f"{self.endpoint} answered {status} for {repo_id}: {error.server_message or 'no reason given'}."
        return kind(text)

    def _absent(self, error: HfHubHTTPError, repo_id: str, revision: str, file: str) -> str:
        from huggingface_hub import errors  # noqa: PLC0415

        if isinstance(error, errors.RevisionNotFoundError):
            return f"{repo_id} has no revision {revision!r}: check the branch, tag or commit."
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return f"{repo_id} has no file {file!r} at {revision}: check the path."
        return (
            f"There is no repository {repo_id} at {self.endpoint}, or it is private: check its name, "
            "or set HF_TOKEN to a token that may read it."
        )

    def _api(self) -> HfApi:
        _no_telemetry()
        from huggingface_hub import HfApi  # noqa: PLC0415

        return HfApi(self.endpoint, self._token or False, library_name="exo", library_version=__version__)

    def _headers(self) -> dict[str, str]:
        _no_telemetry()
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # noqa: PLC0415

        headers: dict[str, str] = build_hf_headers(
            token=self._token or False, library_name="exo", library_version=__version__
        )
        return headers


def _no_telemetry() -> None:
    """Otherwise the first request fetches a list of programs from the hub, and writes it to the user's cache."""
    from huggingface_hub import constants  # noqa: PLC0415

    constants.HF_HUB_DISABLE_TELEMETRY = True


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).rstrip(".")


def _file(entry: Any, origin: str) -> HubFile:
    sha256 = entry.lfs.sha256 if entry.lfs is not None and _SHA256.fullmatch(str(entry.lfs.sha256)) else ""
    content = sha256 or entry.blob_id or f"{origin}/{entry.rfilename}"
    size = entry.size if isinstance(entry.size, int) and entry.size >= 0 else None
    return HubFile(entry.rfilename, size, sha256, hashlib.sha256(content.encode()).hexdigest()[:16])


def _base_model(card_data: Any) -> str:
    """The first original that the card names; what is no repository counts as none."""
    named = card_data.get("base_model") if card_data is not None else None
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) and _REPOSITORY_ID.fullmatch(first) else ""
