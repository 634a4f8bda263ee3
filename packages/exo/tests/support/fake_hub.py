"""A server that answers as the Hugging Face hub does, with a second one as its storage, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, final
from urllib.parse import unquote, urlsplit

TOKEN = "hf_member"
STRANGER = "hf_stranger"
_LFS = (".gguf", ".rkllm", ".safetensors", ".bin", ".model")
_CHUNK = 1 << 16


@dataclass(frozen=True)
class HubRequest:
    """A request that came: `server` is `hub` or `cdn`; a header that was not sent is empty."""

    server: str
    method: str
    path: str
    range: str
    authorization: str
    user_agent: str
    accept_encoding: str


@dataclass
class _Repository:
    files: dict[str, bytes]
    base_model: str
    gated: bool
    commit: str
    revisions: set[str] = field(default_factory=set)


@final
class FakeHub:
    """The hub on a free port of 127.0.0.1, as a context manager. Use `url` as HF_ENDPOINT.

    Model files lie, as in the real one, on another origin (`cdn_url`), to which the hub redirects. `requests` holds
    whatever came, in order. `token` opens gated repositories, STRANGER is known but opens none of them.
    """

    def __init__(self, *, token: str = TOKEN) -> None:
        self.token = token
        self.requests: list[HubRequest] = []
        self.released = threading.Event()
        self._repositories: dict[str, _Repository] = {}
        self._wrong: set[str] = set()
        self._cuts: list[float] = []
        self._stalls: list[float] = []
        self._failures: list[tuple[int, str]] = []
        self._without_ranges = False
        self._lock = threading.Lock()
        self._hub = _Server(self, "hub")
        self._cdn = _Server(self, "cdn")
        self.url = self._hub.url
        self.cdn_url = self._cdn.url

    def __enter__(self) -> FakeHub:
        self._hub.start()
        self._cdn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.released.set()
        self._hub.stop()
        self._cdn.stop()

    def add(self, repo: str, files: Mapping[str, bytes], *, base_model: str = "", gated: bool = False) -> None:
        """Put a repository there, or another commit of it. Of a gated one only the files need a token."""
        content = b"".join(path.encode() + data for path, data in sorted(files.items()))
        commit = hashlib.sha1(repo.encode() + content, usedforsecurity=False).hexdigest()
        self._repositories[repo] = _Repository(dict(files), base_model, gated, commit, {"main", commit, "refs/pr/1"})

    def commit(self, repo: str) -> str:
        """The commit at which the branch `main` stands."""
        return self._repositories[repo].commit

    def cut_after(self, share: float, times: int) -> None:
        """Cut the next `times` answers with a file's content after this share of what each should have brought."""
        self._cuts += [share] * times

    def stall_after(self, share: float) -> None:
        """The next answer with a file's content stops after this share, until `released` is set."""
        self._stalls.append(share)

    def fail(self, status: int, times: int, *, retry_after: str = "") -> None:
        """Answer the next `times` requests with this status."""
        self._failures += [(status, retry_after)] * times

    def send_wrong_bytes(self, path: str, *, wrong: bool = True) -> None:
        """Send other bytes, of the same number, as the content of all files with this path."""
        (self._wrong.add if wrong else self._wrong.discard)(path)

    def ignore_ranges(self) -> None:
        """Answer every request for a part with the whole file."""
        self._without_ranges = True

    def content_requests(self, path: str) -> list[HubRequest]:
        """The requests for a file's content that were answered by the server that has it."""
        name = f"/{path}"
        return [one for one in self.requests if one.method == "GET" and one.server == "cdn" and one.path.endswith(name)]

    def _note(self, request: HubRequest) -> tuple[int, str] | None:
        """Log a request; returns the failure that it is to get."""
        with self._lock:
            self.requests.append(request)
            return self._failures.pop(0) if self._failures else None

    def _plan(self, length: int) -> tuple[int, bool]:
        """How many bytes of an answer are sent, and whether the connection stays open after them."""
        with self._lock:
            if self._stalls:
                return int(length * self._stalls.pop(0)), True
            return (int(length * self._cuts.pop(0)) if self._cuts else length), False


class _Server:
    def __init__(self, hub: FakeHub, name: str) -> None:
        self._http = _Http(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "name": name}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    block_on_close = True  # no thread outlives the server
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    name: str

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.path = unquote(urlsplit(self.path).path)
        said = self.headers
        came = HubRequest(
            self.name,
            self.command,
            self.path,
            said.get("Range", ""),
            said.get("Authorization", ""),
            said.get("User-Agent", ""),
            said.get("Accept-Encoding", ""),
        )
        failure = self.hub._note(came)
        if failure is not None:
            self._refuse(failure[0], "", "try later", {"Retry-After": failure[1]} if failure[1] else {})
        elif self.name == "cdn":
            self._storage()
        elif api := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self.path):
            self._model_info(api[1], api[2] or "main")
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", self.path):
            self._resolve(file[1], file[2], file[3])
        else:
            self._refuse(404, "", "Not found")

    def _repository(self, repo: str, revision: str) -> _Repository | None:
        """The repository at a revision, or None after a refusal. One that is missing is kept secret from strangers."""
        sent = self.headers.get("Authorization", "")
        found = self.hub._repositories.get(repo)
        if sent not in {"", f"Bearer {self.hub.token}", f"Bearer {STRANGER}"}:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif found is None:
            self._refuse(404 if sent else 401, "RepoNotFound", "Repository not found")
        elif revision not in found.revisions:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return found
        return None

    def _model_info(self, repo: str, revision: str) -> None:
        found = self._repository(repo, revision)
        if found is None:
            return
        card = {"base_model": found.base_model} if found.base_model else {}
        info = {
            "id": repo,
            "modelId": repo,
            "sha": found.commit,
            "private": False,
            "gated": "manual" if found.gated else False,
            "cardData": card,
            "tags": [],
            "siblings": [_sibling(path, content) for path, content in found.files.items()],
        }
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        found = self._repository(repo, revision)
        if found is None:
            return
        sent = self.headers.get("Authorization", "")
        if found.gated and sent != f"Bearer {self.hub.token}":
            self._refuse(403 if sent else 401, "GatedRepo", f"Access to model {repo} is restricted.")
        elif path not in found.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif path.endswith(_LFS):
            content = found.files[path]
            headers = {
                "Location": f"{self.hub.cdn_url}/{repo}/{found.commit}/{path}?signature=x",
                "X-Repo-Commit": found.commit,
                "X-Linked-Etag": f'"{_sha256(content)}"',
                "X-Linked-Size": str(len(content)),
                "ETag": f'"{_sha256(content)}"',
            }
            self._send(302, b"Found. Redirecting", headers)
        else:
            self._content(found.files[path], path, {"X-Repo-Commit": found.commit})

    def _storage(self) -> None:
        if self.headers.get("Authorization"):
            self._refuse(400, "", "Only one way to log in is allowed")
            return
        owner, repo, _, path = self.path.removeprefix("/").split("/", 3)
        self._content(self.hub._repositories[f"{owner}/{repo}"].files[path], path, {})

    def _content(self, content: bytes, path: str, headers: dict[str, str]) -> None:
        if path in self.hub._wrong:
            content = bytes(byte ^ 0xFF for byte in content)
        headers = {**headers, "Accept-Ranges": "bytes", "ETag": f'"{_sha256(content)}"'}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or self.hub._without_ranges:
            self._send(200, content, headers)
        elif int(asked[1]) >= len(content):
            self._send(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
        else:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], headers)

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        coded = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {**coded, "X-Error-Message": message, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        length, stays = self.hub._plan(len(body)) if "Accept-Ranges" in headers else (len(body), False)
        for begin in range(0, length, _CHUNK):
            self.wfile.write(body[begin : min(begin + _CHUNK, length)])
        self.wfile.flush()
        if stays:
            self.hub.released.wait()
        if length < len(body):
            self.connection.shutdown(socket.SHUT_RDWR)


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    header = f"blob {len(content)}\0".encode()
    blob = hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
    if path.endswith(_LFS):
        entry["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
