"""What the commands work on: a server that runs, or else the folder of the models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import httpx2
import msgspec

from exo.models import HubLibrary, ModelDescription, Progress, Report, with_from
from exo.types import AuthenticationFailed, ConfigurationError, EngineError, ExoError, ModelNotFound, RequestError

if TYPE_CHECKING:  # a command that has a server needs none of it
    from exo_rkllm.catalogue import Catalogue

NO_SERVER = "No rkllama server answers; `rkllama serve` starts one."
_TIMEOUT = httpx2.Timeout(None, connect=5.0)
_PROBE = httpx2.Timeout(5.0)
_Found = TypeVar("_Found")


class Model(msgspec.Struct, kw_only=True):
    """A line of `list` or `ps`. `size` in bytes, the times as RFC 3339; of `details` only what is shown."""

    name: str
    size: int = 0
    modified_at: str = ""
    expires_at: str = ""
    context_length: int = 0
    details: dict[str, Any] = {}


class Backend(Protocol):
    """Raises ExoError with whatever the server said."""

    def models(self) -> list[Model]: ...
    def left_out(self) -> list[str]:
        """A sentence for each folder that cannot be served; a server tells nothing of them."""
        ...

    def running(self) -> list[Model]: ...
    def show(self, model: str) -> dict[str, Any]: ...
    def pull(self, reference: str, report: Report, *, force: bool) -> None: ...
    def pull_tokenizer(self, model: str, repository: str, report: Report) -> None: ...
    def create(self, name: str, modelfile: str, report: Report, *, force: bool) -> None: ...
    def copy(self, source: str, destination: str, *, force: bool) -> None: ...
    def remove(self, model: str) -> list[str]: ...
    def stop(self, model: str) -> None: ...


class _Line(msgspec.Struct):
    status: str = ""
    digest: str = ""
    total: int | None = None
    completed: int | None = None
    error: str = ""


class _Tags(msgspec.Struct):
    models: list[Model]


class _Left(msgspec.Struct):
    left: list[str] = []


class _Refused(msgspec.Struct):
    error: str
    code: str = ""


class Server:
    """A server of the Ollama dialect. Raises ConfigurationError for a `url` that is no address."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = url
        self._has_key = bool(key)
        try:
            self._http = httpx2.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False)
        except httpx2.InvalidURL:
            raise _no_address(url) from None

    def answers(self) -> bool:
        """Whether something listens there.

        Raises EngineError if it does not speak HTTP, or is stuck: it may be a server that has the models in use.
        """
        try:
            self._http.get("/api/version", timeout=_PROBE)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            return False
        except UnicodeError:  # what the resolver says of a name that can be none
            raise _no_address(self.url) from None
        except httpx2.TransportError as error:
            raise EngineError(
                f"What listens at {self.url} gives no answer: {error}. End it, or name another port."
            ) from error
        return True

    def models(self) -> list[Model]:
        return self._decode(self._ask("GET", "/api/tags"), _Tags).models

    def left_out(self) -> list[str]:
        return []

    def running(self) -> list[Model]:
        return self._decode(self._ask("GET", "/api/ps"), _Tags).models

    def show(self, model: str) -> dict[str, Any]:
        return self._decode(self._ask("POST", "/api/show", model=model), dict[str, Any])

    def pull(self, reference: str, report: Report, *, force: bool) -> None:
        self._follow("/api/pull", report, model=reference, force=force)

    def pull_tokenizer(self, model: str, repository: str, report: Report) -> None:
        self._follow("/api/pull", report, model=model, tokenizer=True, repository=repository)

    def create(self, name: str, modelfile: str, report: Report, *, force: bool) -> None:
        self._follow("/api/create", report, model=name, modelfile=modelfile, force=force)

    def copy(self, source: str, destination: str, *, force: bool) -> None:
        self._ask("POST", "/api/copy", source=source, destination=destination, force=force)

    def remove(self, model: str) -> list[str]:
        answer = self._ask("DELETE", "/api/delete", model=model)
        return self._decode(answer, _Left).left if answer else []

    def stop(self, model: str) -> None:
        self._ask("POST", "/api/generate", model=model, keep_alive=0, stream=False)

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, **body: Any) -> bytes:
        try:
            response = self._http.request(method, path, json=body or None)
        except httpx2.TransportError as error:
            raise EngineError(f"The connection to {self.url} broke: {error}.") from error
        if response.status_code != httpx2.codes.OK:
            raise self._refusal(response.content)
        return response.content

    def _follow(self, path: str, report: Report, **body: Any) -> None:
        try:
            with self._http.stream("POST", path, json=body) as response:
                if response.status_code != httpx2.codes.OK:
                    raise self._refusal(response.read())
                status = ""
                for line in self._lines(response):
                    if line.error:
                        raise EngineError(line.error)
                    status = line.status
                    report(Progress(line.status, line.digest, line.total, line.completed))
        except httpx2.TransportError as error:
            raise EngineError(f"The connection to {self.url} broke: {error}.") from error
        if status != "success":
            raise EngineError(f"The server at {self.url} ended its answer too early; its log may say why.")

    def _refusal(self, content: bytes) -> ExoError:
        found = self._decode(content, _Refused)
        if found.code == AuthenticationFailed.code:
            if self._has_key:
                return RequestError("The server does not know the API key that was given.")
            return RequestError("The server asks for an API key: give it with --api-key or in RKLLAMA_API_KEY.")
        return RequestError(found.error)

    def _decode(self, content: bytes | str, kind: type[_Found]) -> _Found:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise EngineError(f"Something that is no rkllama server answers at {self.url}.") from None

    def _lines(self, response: httpx2.Response) -> Iterator[_Line]:
        begun = b""
        for piece in response.iter_bytes():  # its own lines end at U+2028 too, which a name may have
            *lines, begun = (begun + piece).split(b"\n")
            yield from (self._decode(line, _Line) for line in lines if line.strip())
        if begun.strip():
            yield self._decode(begun, _Line)


class Store:
    """The folder of the models, where no server runs."""

    url = ""

    def __init__(self, catalogue: Catalogue, library: HubLibrary) -> None:
        self._catalogue = catalogue
        self._library = library

    def models(self) -> list[Model]:
        return [self._model(name) for name in self._catalogue.scan()]

    def left_out(self) -> list[str]:
        return self._catalogue.left_out()

    def running(self) -> list[Model]:
        raise EngineError(NO_SERVER)

    def show(self, model: str) -> dict[str, Any]:
        found = self._catalogue.describe(self._id(model))
        return {
            "modelfile": with_from(found.modelfile, found.id),
            "template": found.template,
            "system": found.system,
            "license": found.licence,
            "parameters": "\n".join(_parameters(found)),
            "details": _details(found),
            "model_info": {f"{found.family}.context_length": found.context_length},
            "capabilities": found.capabilities,
        }

    def pull(self, reference: str, report: Report, *, force: bool) -> None:
        self._library.pull(reference, report=report, force=force)

    def pull_tokenizer(self, model: str, repository: str, report: Report) -> None:
        written = self._library.pull_tokenizer(self._id(model), repository, report=report)
        report(Progress(f"brought {', '.join(written)}" if written else "nothing was missing"))

    def create(self, name: str, modelfile: str, report: Report, *, force: bool) -> None:
        self._library.create(name, modelfile, report=report, force=force)

    def copy(self, source: str, destination: str, *, force: bool) -> None:
        self._library.copy(self._id(source), destination, force=force)

    def remove(self, model: str) -> list[str]:
        return self._library.delete(self._id(model))

    def stop(self, model: str) -> None:  # noqa: ARG002 - as of a server
        raise EngineError(NO_SERVER)

    def _id(self, name: str) -> str:
        found = self._catalogue.resolve(name)
        if found is None:
            raise ModelNotFound(name, list(self._catalogue.scan()))
        return found

    def _model(self, name: str) -> Model:
        found = self._catalogue.describe(name)
        modified = datetime.fromtimestamp(found.modified, timezone.utc).isoformat()
        return Model(name=name, size=found.size, modified_at=modified, details=_details(found))


def _no_address(url: str) -> ConfigurationError:
    return ConfigurationError(f"{url} is no address of a server: give --host a name or an IP address.")


def _details(found: ModelDescription) -> dict[str, Any]:
    return {
        "format": found.format,
        "family": found.family,
        "parameter_size": found.parameter_size,
        "quantization_level": found.quantization,
    }


def _parameters(found: ModelDescription) -> Iterator[str]:
    """As the server shows them."""
    for name, value in found.parameters.items():
        for one in value if isinstance(value, list) else [value]:
            yield f"{name:<30} {json.dumps(one, ensure_ascii=False)}"
