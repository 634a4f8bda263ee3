"""HTTP to one server: kept connections, time limits, lines of a stream, and errors in exo's words."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

import httpx2
import msgspec

from exo import __version__
from exo.inference.remote.errors import error_of, retry_after, shortened
from exo.inference.remote.settings import CONNECT_TIMEOUT, TIMEOUT, host_of
from exo.types import (
    Delta,
    ExoError,
    RemoteFailed,
    RemoteUnavailable,
    RunTimedOut,
    Sampling,
    UnsupportedParameter,
)

OnExchange = Callable[[str, str], None]
"""Called once for each exchange with the server: its path, and the status, or `error` if no answer came."""

ReadDeltas = Callable[["Stream", AsyncGenerator[bytes, None]], AsyncGenerator[Delta, None]]
"""A dialect's reading of the lines of an answer."""

T = TypeVar("T")
SAMPLING_HEADER = "x-exo-sampling"
QUICK = 5.0
_MIB = 1 << 20
_LONGEST_LINE = 16 * _MIB
_LONGEST_ANSWER = 128 * _MIB
"""Of an answer in one piece: the vectors of 2048 texts with 2048 numbers each."""
_LONGEST_REFUSAL = _MIB
_KEPT = 32
_SENDABLE = re.compile(r"[\x21-\x7e]{1,200}")
_REST = 1.0
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_CLOSED = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)


class _MayFail(msgspec.Struct):
    error: Any = None


_failure_decoder = msgspec.json.Decoder(_MayFail)


class Link:
    """The connections to one server. `timeout` and `connect_timeout` as in RemoteSettings; `host` is for messages.

    Raises RemoteUnavailable if the server cannot be reached, RunTimedOut for its silence, RemoteFailed for a
    connection that broke, and what `error_of` makes of an error answer.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str = "",
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        on_exchange: OnExchange | None = None,
    ) -> None:
        self.host = host_of(url)
        self._url = url
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._on_exchange = on_exchange
        headers = {"accept-encoding": "identity", "user-agent": f"exo/{__version__}"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._http = httpx2.AsyncClient(
            headers=headers,
            trust_env=False,
            verify=url.startswith("https:"),  # certificates are only read where they are needed
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=_KEPT),
        )

    async def get(self, path: str, kind: type[T], *, timeout: float = QUICK) -> T:
        """The JSON that a path answers, `timeout` as in `post`."""
        return await self._whole("GET", path, None, kind, timeout)

    async def post(
        self, path: str, body: dict[str, Any], kind: type[T], *, timeout: float | None = None, request_id: str = ""
    ) -> T:
        """The JSON that is answered to `body`.

        `timeout` is for the whole exchange, in seconds; making a connection has its own limit. Without it only the
        link's limit counts, which is for each silence: a server that sends white space meanwhile may take longer.
        """
        return await self._whole("POST", path, body, kind, timeout, request_id=request_id)

    @contextlib.asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any], request_id: str) -> AsyncIterator[Stream]:
        """An answer that comes in pieces; leaving the context before its end closes the connection."""
        response = await self._send("POST", path, body, None, request_id)
        try:
            if response.status_code != httpx2.codes.OK:
                raise await self._refusal(path, response)
            yield Stream(self, path, response)
        finally:
            await response.aclose()

    async def deltas(
        self, path: str, body: dict[str, Any], request_id: str, read: ReadDeltas
    ) -> AsyncGenerator[Delta, None]:
        """What `read` makes of the lines of an answer; the rest of it is taken in after the last delta."""
        async with (
            self.stream(path, body, request_id) as stream,
            contextlib.aclosing(stream.lines()) as lines,
            contextlib.aclosing(read(stream, lines)) as deltas,
        ):
            async for delta in deltas:
                yield delta
            await stream.drain(lines)

    async def close(self) -> None:
        await self._http.aclose()

    def failure(self, error: httpx2.TransportError, what: str, *, limit: float | None = None) -> ExoError:
        """The exception for a connection that does not work; `what` had happened to the answer until then.

        `limit` is that of the question, in place of the link's own.
        """
        reason = shortened(str(error)) or type(error).__name__
        if isinstance(error, _UNREACHABLE):
            return RemoteUnavailable(
                f"The server at {self.host} cannot be reached: {reason}. Check that it runs, and its address."
            )
        if isinstance(error, httpx2.TimeoutException):
            if limit is not None:
                return self._too_slow(limit)
            return RunTimedOut(
                f"The server at {self.host} gave no sign of life for too long ({what}). Send the request again, or "
                "raise EXO_REMOTE_TIMEOUT."
            )
        return RemoteFailed(f"The server at {self.host} broke off, {what}: {reason}. Send the request again.")

    async def _whole(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        kind: type[T],
        limit: float | None,
        *,
        request_id: str = "",
    ) -> T:
        asking = self._ask(method, path, body, limit, request_id)
        try:
            content = await asyncio.wait_for(asking, None if limit is None else self._connect_timeout + limit)
        except asyncio.TimeoutError:
            raise self._too_slow(limit or 0) from None
        try:
            with contextlib.suppress(msgspec.ValidationError):  # no object, so no error
                if _failure_decoder.decode(content or b"{}").error is not None:  # after the status had been sent
                    raise error_of(self.host, path, httpx2.codes.INTERNAL_SERVER_ERROR, content)
            return msgspec.json.decode(content or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteFailed(
                f"The server at {self.host} answered to {path} what cannot be read: {shortened(str(error))}."
            ) from error

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, limit: float | None, request_id: str
    ) -> bytes:
        response = await self._send(method, path, body, limit, request_id)
        try:
            if response.status_code != httpx2.codes.OK:
                raise await self._refusal(path, response, limit)
            content, complete = await self._content(response, _LONGEST_ANSWER, "before the answer was complete", limit)
        finally:
            await response.aclose()
        if not complete:
            raise RemoteFailed(
                f"The server at {self.host} answered to {path} with more than {_LONGEST_ANSWER // _MIB} MiB, which is "
                "not read. Ask for less at once."
            )
        return content

    async def _content(
        self, response: httpx2.Response, longest: int, what: str, limit: float | None
    ) -> tuple[bytes, bool]:
        """The body up to so many bytes, and whether that is all of it."""
        content = bytearray()
        try:
            async with contextlib.aclosing(response.aiter_bytes()) as pieces:
                async for piece in pieces:
                    content += piece
                    if len(content) > longest:
                        return bytes(content[:longest]), False
        except httpx2.TransportError as error:
            raise self.failure(error, what, limit=limit) from error
        except httpx2.DecodingError as error:
            raise RemoteFailed(
                f"The server at {self.host} sent what cannot be read: {shortened(str(error))}."
            ) from error
        return bytes(content), True

    def _too_slow(self, limit: float) -> RunTimedOut:
        return RunTimedOut(
            f"The server at {self.host} did not answer within {limit:g} seconds. Look at what it is busy with."
        )

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, limit: float | None, request_id: str
    ) -> httpx2.Response:
        """The response as soon as its head is there; its body has to be read or closed."""
        status = "error"
        try:
            response = await self._send_again(method, path, body, limit or self._timeout, request_id)
            status = str(response.status_code)
        except httpx2.TransportError as error:
            raise self.failure(error, "before it answered", limit=limit) from error
        finally:
            if self._on_exchange is not None:
                self._on_exchange(path, status)
        return response

    async def _send_again(
        self, method: str, path: str, body: dict[str, Any] | None, timeout: float, request_id: str
    ) -> httpx2.Response:
        """Send; once more if the server had closed the kept connection before it could know of the request."""
        fresh = False

        async def trace(event: str, info: object) -> None:  # noqa: ARG001 - as httpx2 calls it
            nonlocal fresh
            fresh = fresh or event == "connection.connect_tcp.started"

        headers = {"x-request-id": request_id} if _SENDABLE.fullmatch(request_id) else {}
        if body is not None:
            headers["content-type"] = "application/json"
        request = self._http.build_request(
            method,
            self._url + path,
            content=None if body is None else msgspec.json.encode(body),
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=self._connect_timeout, pool=None),
            extensions={"trace": trace},
        )
        try:
            return await self._http.send(request, stream=True)
        except _CLOSED:
            if fresh:
                raise
            return await self._http.send(request, stream=True)

    async def _refusal(self, path: str, response: httpx2.Response, limit: float | None = None) -> ExoError:
        status = response.status_code
        if response.has_redirect_location:
            return RemoteFailed(
                f"The server at {self.host} redirects {path} to {shortened(response.headers['location'])!r} (status "
                f"{status}), which is not followed. Give the address that it leads to in place of this one."
            )
        what = f"in the middle of an error answer (status {status})"
        try:
            content, _ = await self._content(response, _LONGEST_REFUSAL, what, limit)
        except ExoError as error:
            return error
        return error_of(self.host, path, status, content, retry_after(response.headers.get("retry-after")))


class Stream:
    """An answer on its way. `pieces` counts those of its text, for the message about a connection that breaks."""

    def __init__(self, link: Link, path: str, response: httpx2.Response) -> None:
        self.pieces = 0
        self._link = link
        self._path = path
        self._response = response

    @property
    def sampling(self) -> Sampling | None:
        """The values that the server says it uses in place of the request's."""
        text = self._response.headers.get(SAMPLING_HEADER)
        if text is None:
            return None
        values = dict(part.strip().split("=", 1) for part in text.split(",") if "=" in part)
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(values, Sampling, strict=False)
        return None

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The lines that are not empty, wherever the bytes were cut; the last one needs no line end."""
        rest: list[bytes] = []
        held = 0
        try:
            async with contextlib.aclosing(self._response.aiter_raw()) as pieces:
                async for piece in pieces:
                    first, *others = piece.split(b"\n")
                    rest.append(first)
                    held += len(first)
                    if not others:
                        if held > _LONGEST_LINE:
                            raise self._endless()
                        continue
                    whole = (b"".join(rest), *others[:-1])
                    rest, held = [others[-1]], len(others[-1])
                    for line in whole:
                        if stripped := line.strip():
                            yield stripped
        except httpx2.TransportError as error:
            raise self._link.failure(error, f"after {self.pieces} pieces of its answer") from error
        if last := b"".join(rest).strip():
            yield last

    async def drain(self, lines: AsyncGenerator[bytes, None]) -> None:
        """Read what follows the end of the answer, so that the connection can be used again."""
        with contextlib.suppress(asyncio.TimeoutError, ExoError):
            await asyncio.wait_for(_exhaust(lines), _REST)

    def error(self, content: bytes) -> ExoError:
        """The exception for an error within the stream."""
        return error_of(self._link.host, self._path, 500, content)

    def unreadable(self, line: bytes) -> RemoteFailed:
        text = shortened(line[:100].decode("utf-8", "replace"))
        return RemoteFailed(f"The server at {self._link.host} sent what cannot be read: {text!r}.")

    def _endless(self) -> RemoteFailed:
        return RemoteFailed(
            f"The server at {self._link.host} sent more than {_LONGEST_LINE // _MIB} MiB without a line end after "
            f"{self.pieces} pieces of its answer, which cannot be read. Check its address."
        )

    def without_logprobs(self) -> UnsupportedParameter:
        """The server has ignored that probabilities were asked for."""
        return UnsupportedParameter(
            f"The server at {self._link.host} told no probabilities of its tokens; it may be too old for them. Leave "
            "logprobs out.",
            param="logprobs",
        )

    def unfinished(self) -> RemoteFailed:
        """The server ended the stream as if it were complete, but no piece said why the answer ends."""
        return RemoteFailed(
            f"The server at {self._link.host} broke off its answer after {self.pieces} pieces, without saying why. "
            "Send the request again."
        )


async def _exhaust(lines: AsyncGenerator[bytes, None]) -> None:
    async for _ in lines:
        pass
