"""Malformed requests, made from a node's OpenAPI document: the same ones for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from abuse.hostile import damaged, hostile
from abuse.sample import places, sample

_DELETING = frozenset({"/api/delete", "/rm"})
_LEFT_OUT = frozenset({"/v1/drain"})
"""A request that says so well would have every later one refused with 503, as it should be."""
_NAMES = frozenset({"model", "model_name", "source", "from"})
_HOLE = "\ufdd0"
"""Stands in a body where something comes that JSON has no way to write."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW", "post", "G\xcbT")
_PATHS = (
    "/",
    "//",
    "*",
    "/..%2f..%2fetc/passwd",
    "/v1/models/%00",
    "/v1/models/%ff%fe",
    "/v1/models/" + "x" * 30_000,
    "/v1/models/%F0%9F%A6%99?a=%zz",
    "/v1/responses/%2e%2e/input_items?limit=" + "9" * 5_000,
    "/v1/responses/x/input_items?order=%00&after=" + "%ff" * 100,
    "/api/blobs/" + "../" * 50,
    "/v1/chat/completions/",
    "/V1/MODELS",
    "http://localhost/v1/models",
    "http://[::1/v1/models",
    "/\xe9\xff",
    "/v1/models?" + "&".join(f"a{number}=1" for number in range(3_000)),
    "",
)
_TYPES = (
    "text/plain",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-16",
    "application/json; charset=\x01",
    "application/",
    "/",
    ";;;;",
    "",
    "x" * 5_000,
)
_CODINGS = (
    "Content-Encoding: gzip",
    "Content-Encoding: br, br",
    "Expect: 100-continue",
    "Expect: nothing",
    "TE: trailers",
)
_KEYS = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Basic a2V5",
    "Bearer \xff\xfe",
    "bearer\t",
    "Bearer " + "k" * 20_000,
    "\0",
)
_HEADERS = (
    "X-Request-Id: " + "a" * 1_000,
    "X-Request-Id: \xff\xfe",
    "Origin: http://evil.example",
    "Origin: null",
    "Origin: http://[::1",
    "Host: evil.example",
    "Host: ",
    "Host: \xff:x",
    "Content-Length: 5",
    "No colon",
    ": no name",
    " folded: line",
    "Na me: x",
    "X: \0",
    "X: a\rY: b",
    "Upgrade: websocket\r\nConnection: Upgrade",
    "Access-Control-Request-Method: \xff",
    "anthropic-version: \xff",
    "Cookie: " + "a=b; " * 2_000,
    "Accept: " + "text/" * 500,
)
_CHUNKS = (
    b"zz\r\n{}\r\n0\r\n\r\n",
    b"-1\r\n{}\r\n0\r\n\r\n",
    b"ffffffffffffffffff\r\n{}",
    b"5\r\n{}\r\n0\r\n\r\n",
    b"1\r\n{}\r\n0\r\n\r\n",
    b"2\n{}\n0\n\n",
    b"2;" + b"x" * 5_000 + b"\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"2\r\n{}\r\n",
    b"",
)
_FIRST_LINES = (
    b"GET /\r\n\r\n",
    b"GET / HTTP/0.9\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n" * 1_000,
    b"\0" * 1_000,
    b"GET  /  HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: localhost\n\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\n\r\n",
    b"",
)


@dataclass(frozen=True)
class Target:
    """A node, as far as requests for it need to know it. `model` can be asked; no request names it to delete it."""

    document: Mapping[str, Any]
    model: str
    key: str


@dataclass(frozen=True)
class Attack:
    """The bytes of one connection. `ends`: with them the client says that no more will come.

    `vanishes`: it breaks the connection off at once and waits for nothing.
    """

    kind: str
    sent: bytes
    ends: bool = False
    vanishes: bool = False


@dataclass(frozen=True)
class _Request:
    """What a well-formed request would be."""

    target: Target
    method: str
    path: str
    value: Any
    random: Random

    @property
    def body(self) -> bytes:
        return b"" if self.value is None else json.dumps(self.value).encode()


@dataclass
class _Wire:
    """A request on its way to bytes. Headers are text in latin-1."""

    method: str
    path: str
    body: bytes
    key: str
    content_type: str = "application/json"
    length: str | None = None
    more: Sequence[str] = field(default_factory=list)
    """Further headers, in place of Content-Length if they begin with Transfer-Encoding."""

    def encode(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"Authorization: {self.key}", f"Content-Type: {self.content_type}", *self.more]
        if not any(line.startswith("Transfer-Encoding") for line in self.more):
            lines.append(f"Content-Length: {len(self.body) if self.length is None else self.length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def attack(target: Target, seed: int, number: int) -> Attack:
    """The attack of that number; what comes before it does not change it."""
    random = Random(f"{seed}/{number}")
    kind = random.choice(list(_KINDS))
    return _KINDS[kind](kind, _request(target, random))


def _request(target: Target, random: Random) -> _Request:
    paths = target.document["paths"]
    operations = [(path, method) for path, methods in paths.items() for method in methods if path not in _LEFT_OUT]
    path, method = random.choice([one for one in operations if "requestBody" in paths[one[0]][one[1]]] * 3 + operations)
    content = paths[path][method].get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    value = None if schema is None else sample(schema, target.document, random)
    if isinstance(value, dict):
        model = "nobody" if path in _DELETING else target.model
        value |= dict.fromkeys(_NAMES & value.keys(), model)
    path = path.replace("{model}", target.model).replace("{id}", "resp_1").replace("{digest}", "sha256:1")
    return _Request(target, method.upper(), path, value, random)


def _wire(request: _Request, **changes: Any) -> _Wire:
    plain = {
        "method": request.method,
        "path": request.path,
        "body": request.body,
        "key": f"Bearer {request.target.key}",
    }
    return _Wire(**(plain | changes))


def _value(kind: str, request: _Request) -> Attack:
    """Something in the place of one value."""
    return Attack(kind, _wire(request, body=_spoiled(request)).encode())


def _spoiled(request: _Request) -> bytes:
    found = list(places(request.value))
    if not found:
        return hostile(request.random)
    where, name = request.random.choice(found)
    where[name] = _HOLE
    return request.body.replace(json.dumps(_HOLE).encode(), hostile(request.random))


def _field(kind: str, request: _Request) -> Attack:
    """A field is missing, comes twice, or has a name that nobody knows."""
    fields = dict(request.value) if isinstance(request.value, dict) else {}
    name = request.random.choice([*fields, "nobody", "", "__class__", "\0"])
    if request.random.random() < 0.3:
        fields.pop(name, None)
        return Attack(kind, _wire(request, body=json.dumps(fields).encode()).encode())
    pieces = [json.dumps({one: value}).encode()[1:-1] for one, value in fields.items()]
    pieces.insert(request.random.randint(0, len(pieces)), json.dumps(name).encode() + b":" + hostile(request.random))
    return Attack(kind, _wire(request, body=b"{" + b",".join(pieces) + b"}").encode())


def _broken(kind: str, request: _Request) -> Attack:
    """JSON that is damaged."""
    return Attack(kind, _wire(request, body=damaged(request.random, request.body)).encode())


def _encoded(kind: str, request: _Request) -> Attack:
    """Text in another encoding, or compressed, or no text at all."""
    random, text = request.random, request.body.decode()
    bodies = [text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + request.body, b"\x1f\x8b\x08\0" * 20]
    body = random.choice([*bodies, random.randbytes(300), request.body + b"\0", b" " * 50_000 + request.body])
    return Attack(kind, _wire(request, body=body).encode())


def _type(kind: str, request: _Request) -> Attack:
    """A wrong content type, or a header that says the body is something else."""
    random = request.random
    more = [random.choice(_CODINGS)] if random.random() < 0.3 else []
    return Attack(kind, _wire(request, content_type=random.choice(_TYPES), more=more).encode(), ends=True)


def _key(kind: str, request: _Request) -> Attack:
    more = ["X-Api-Key: \xff"] if request.random.random() < 0.2 else []
    return Attack(kind, _wire(request, key=request.random.choice(_KEYS), more=more).encode(), ends=True)


def _headers(kind: str, request: _Request) -> Attack:
    """Headers that are wrong, or far too many, or far too long."""
    random = request.random
    flood = [f"X-{number}: {'y' * random.choice([1, 100])}" for number in range(random.choice([50, 500, 5_000]))]
    more = random.choice([flood, random.choices(_HEADERS, k=random.randint(1, 3))])
    return Attack(kind, _wire(request, more=more).encode(), ends=True)


def _length(kind: str, request: _Request) -> Attack:
    """A length that is not that of the body, or none at all."""
    size = len(request.body)
    wrong = [size + 1, size + 10_000, size - 1, -1, 10**9, 10**30, "", "abc", "1e3", "0x10", "1, 2", "+5", " 7", "٣"]
    length = str(request.random.choice(wrong)).encode("utf-8").decode("latin-1")
    return Attack(kind, _wire(request, length=length).encode(), ends=True)


def _cut(kind: str, request: _Request) -> Attack:
    """The connection ends before the request does."""
    data = _wire(request).encode()
    return Attack(kind, data[: request.random.randrange(len(data) + 1)], ends=True)


def _gone(kind: str, request: _Request) -> Attack:
    """The client asks properly, and is gone before the answer."""
    return Attack(kind, _wire(request).encode(), vanishes=True)


def _chunked(kind: str, request: _Request) -> Attack:
    coding = request.random.choice(["chunked", "chunked, chunked", "gzip, chunked", "identity", "x", ""])
    body = request.random.choice(_CHUNKS)
    more = [f"Transfer-Encoding: {coding}", *(["Content-Length: 2"] if request.random.random() < 0.2 else [])]
    return Attack(kind, _wire(request, body=body, more=more).encode(), ends=True)


def _method(kind: str, request: _Request) -> Attack:
    return Attack(kind, _wire(request, method=request.random.choice(_METHODS)).encode(), ends=True)


def _path(kind: str, request: _Request) -> Attack:
    random = request.random
    path = random.choice([*_PATHS, request.path + random.choice(["/", "//", "%00", ";a", "?stream=x", "#x", " "])])
    return Attack(kind, _wire(request, path=path).encode(), ends=True)


def _start(kind: str, request: _Request) -> Attack:
    """No request of HTTP/1.1 at all."""
    line = request.random.choice(_FIRST_LINES)
    return Attack(kind, request.random.choice([line, damaged(request.random, line)]), ends=True)


def _bytes(kind: str, request: _Request) -> Attack:
    """A request with damage anywhere in it."""
    return Attack(kind, damaged(request.random, _wire(request).encode()), ends=True)


def _ahead(kind: str, request: _Request) -> Attack:
    """Several requests on one connection, before any is answered."""
    data = _wire(request).encode().replace(b"Connection: close\r\n", b"")
    return Attack(kind, data * request.random.choice([2, 5, 20]), ends=True)


_KINDS: Mapping[str, Callable[[str, _Request], Attack]] = {
    "value": _value,
    "another value": _value,  # these find the most
    "field": _field,
    "broken JSON": _broken,
    "encoding": _encoded,
    "content type": _type,
    "key": _key,
    "headers": _headers,
    "length": _length,
    "cut": _cut,
    "gone": _gone,
    "chunks": _chunked,
    "method": _method,
    "path": _path,
    "first line": _start,
    "damaged": _bytes,
    "ahead": _ahead,
}
