"""A server that answers as Hugging Face's hub does: models with branches, gated ones, files that arrive slowly."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, final
from urllib.parse import unquote, urlsplit

__all__ = ["TOKEN", "Asked", "ConverterHub", "small_model"]

TOKEN = "hf_of_a_test"
_LARGE = (".safetensors", ".bin", ".gguf")
_PIECE = 1 << 16
_API = re.compile(r"/api/models/([^/]+/[^/]+)/revision/(.+)|/api/models/([^/]+/[^/]+)")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def small_model(config: Mapping[str, Any], **more: bytes) -> dict[str, bytes]:
    """The files of a model; `more` by names with `__` for a dot. The weights are no weights."""
    files = {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "model.safetensors": bytes(range(256)) * 64,
        "README.md": b"about",
    }
    return {**files, **{name.replace("__", "."): content for name, content in more.items()}}


@dataclass(frozen=True)
class Asked:
    """A request that came; a header that was not sent is empty."""

    method: str
    path: str
    range: str
    token: str
    storage: bool


@dataclass
class _Model:
    gated: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


@final
class ConverterHub:
    """On a free port of 127.0.0.1, as a context manager; `url` is for HF_ENDPOINT.

    Large files lie on another port, to which the hub redirects, as the real one does. `asked` has what came, in order.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.stopped = threading.Event()
        self._going_on = threading.Event()
        self._models: dict[str, _Model] = {}
        self._stall_after: int | None = None
        self._cuts: list[int] = []
        self._wrong = False
        self._broken: tuple[int, bytes] | None = None
        self._refused = 0
        self._lies: tuple[Mapping[str, str], Mapping[str, Any]] = ({}, {})
        self._servers = [_Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self})) for _ in range(2)]
        self._threads = [threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True) for one in self._servers]
        self.url, self.storage = (f"http://127.0.0.1:{one.server_address[1]}" for one in self._servers)

    def __enter__(self) -> ConverterHub:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._going_on.set()
        for server, thread in zip(self._servers, self._threads):
            server.shutdown()
            thread.join()
            server.server_close()

    def add(self, name: str, files: Mapping[str, bytes], *, branch: str = "main", gated: bool = False) -> str:
        """Put files there as the newest commit of a branch; returns its hash."""
        content = b"".join(path.encode() + data for path, data in sorted(files.items()))
        commit = hashlib.sha1(name.encode() + content, usedforsecurity=False).hexdigest()
        model = self._models.setdefault(name, _Model(gated))
        model.commits[commit] = dict(files)
        model.names |= {branch: commit, commit: commit}
        return commit

    def stall_after(self, size: int) -> None:
        """The next large file stops after so many bytes until `go_on`; `stopped` is set then."""
        self._stall_after = size

    def go_on(self) -> None:
        self._going_on.set()

    def cut_after(self, *sizes: int) -> None:
        """The next answers with a large file end after so many bytes each."""
        self._cuts += sizes

    def send_wrong_bytes(self, *, wrong: bool) -> None:
        """Of large files, as many as announced."""
        self._wrong = wrong

    def break_down(self, status: int, body: bytes = b"{}") -> None:
        """Answer everything with this."""
        self._broken = (status, body)

    def refuse_files(self, status: int) -> None:
        """Describe models, but answer with this when their files are asked for."""
        self._refused = status

    def lie(self, *, headers: Mapping[str, str] | None = None, described: Mapping[str, Any] | None = None) -> None:
        """Say this in the headers of all files when they are asked about, and in the descriptions of models."""
        self._lies = (headers or {}, described or {})

    def of_large_files(self) -> list[Asked]:
        return [one for one in self.asked if one.storage and one.method == "GET"]


class _Server(ThreadingHTTPServer):
    block_on_close = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ConverterHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        storage = self.server is self.hub._servers[1]
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range", ""), token, storage))
        if self.hub._broken is not None:
            status, body = self.hub._broken
            self._send(status, body, {"Content-Type": "text/html"})
        elif storage:
            name, _, file = path[1:].partition("@")
            commit, _, file = file.partition("/")
            self._content(self.hub._models[name].commits[commit][file])
        elif api := _API.fullmatch(path):
            self._describe(api[1] or api[3], api[2] or "main")
        elif (file_of := _FILE.fullmatch(path)) and self.hub._refused:
            self._refuse(self.hub._refused, "", "Not for you")
        elif file_of:
            self._resolve(file_of[1], file_of[2], file_of[3], token)
        else:
            self._refuse(404, "", "Not found")

    def _find(self, name: str, revision: str) -> tuple[_Model, str] | None:
        model = self.hub._models.get(name)
        if model is None:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif revision not in model.names:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return model, model.names[revision]
        return None

    def _describe(self, name: str, revision: str) -> None:
        found = self._find(name, revision)
        if found:
            files = found[0].commits[found[1]]
            info = {"id": name, "modelId": name, "sha": found[1], "private": False, "tags": []}
            siblings = [_sibling(path, content) for path, content in files.items()]
            info = {**info, "siblings": siblings, **self.hub._lies[1]}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, path: str, token: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        model, commit = found
        content = model.commits[commit].get(path)
        if model.gated and token != TOKEN:
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted.")
        elif content is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif path.endswith(_LARGE):
            headers = {
                "Location": f"{self.hub.storage}/{name}@{commit}/{path}?signature=x",
                "X-Repo-Commit": commit,
                "X-Linked-ETag": f'"{_sha256(content)}"',
                "X-Linked-Size": str(len(content)),
            }
            self._send(302, b"", {**headers, **self.hub._lies[0]})
        else:
            told = {"X-Repo-Commit": commit, "ETag": f'"{_blob(content)}"'}
            self._send(200, content, {**told, **self.hub._lies[0]} if self.command == "HEAD" else told)

    def _content(self, content: bytes) -> None:
        if self.hub._wrong:
            content = content[::-1]
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(found[1]) if found else 0
        part = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._send(206 if found else 200, content[begin:], {"Content-Range": part} if found else {}, large=True)

    def _refuse(self, status: int, code: str, message: str) -> None:
        coded = {"X-Error-Code": code} if code else {}
        self._send(status, json.dumps({"error": message}).encode(), {**coded, "X-Error-Message": message})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], *, large: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        stall, self.hub._stall_after = (self.hub._stall_after, None) if large else (None, self.hub._stall_after)
        cut = self.hub._cuts.pop(0) if large and self.hub._cuts else None
        length = next((one for one in (stall, cut) if one is not None), len(body))
        for begin in range(0, length, _PIECE):
            self.wfile.write(body[begin : min(begin + _PIECE, length)])
        self.wfile.flush()
        if stall is not None:
            self.hub.stopped.set()
            self.hub._going_on.wait()
            self.wfile.write(body[length:])


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": _blob(content)}
    if path.endswith(_LARGE):
        entry["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _blob(content: bytes) -> str:
    """As git names it."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
