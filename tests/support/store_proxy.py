"""A proxy before an S3 store: counts requests, delays them, loses them, answers with errors."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

ERRORS = {
    "denied": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "bad signature": (403, "SignatureDoesNotMatch", "The request signature does not match."),
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
    "broken": (500, "InternalError", "We encountered an internal error. Please try again."),
    "region": (
        301,
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
    ),
}
"""What S3 answers, by a name of ours: status, code and message."""

CUT = "cut"
"""The connection ends before an answer."""

CUT_AFTER = "cut after"
"""The request reaches the store, and its answer is lost."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the proxy sees it.

    Attributes:
        path: With the query.
        headers: By their names in lower case.
    """

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def kind(self) -> str:
        """Return what the request does: PUT, GET, HEAD, LIST, DELETE, POST."""
        return "LIST" if self.method == "GET" and "list-type=" in self.path else self.method


Fault = Callable[[Request], str | None]
"""Names the fault of a request: a key of ERRORS, CUT, CUT_AFTER; None for none."""


class StoreProxy:
    """Passes requests on to the store at a port of this machine.

    Attributes:
        latency_s: How long each request waits before it is passed on.
        fault: Chooses the fault of each request.
        stripped: Headers of requests, in lower case, that are not passed on.
        requests: What was asked, in order, with or without a fault.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0
        self.latency_s = 0.0
        self.fault: Fault = no_fault
        self.stripped: frozenset[str] = frozenset()
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        """The address for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> Counter[str]:
        """Return how many requests of each kind there were."""
        return Counter(request.kind for request in self.requests)

    def reset(self) -> None:
        """Pass everything on at once again, and forget the requests."""
        self.latency_s, self.fault, self.stripped = 0.0, no_fault, frozenset()
        self.requests = []

    def __enter__(self) -> Self:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20), self._loop
        )
        self._server = started.result(timeout=60)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                request = await _read_request(reader)
                self.requests.append(request)
                fault = self.fault(request)
                await asyncio.sleep(self.latency_s)
                if fault == CUT:
                    break
                if fault is not None and fault != CUT_AFTER:
                    writer.write(_error(*ERRORS[fault], head=request.method == "HEAD"))
                    await writer.drain()
                    continue
                if upstream is None:
                    upstream = await asyncio.open_connection(
                        "127.0.0.1", self._upstream, limit=2**20
                    )
                answer, lasting = await self._pass_on(request, *upstream)
                if not lasting:
                    upstream[1].close()
                    upstream = None
                if fault == CUT_AFTER:
                    break
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for one in (writer, upstream[1] if upstream else None):
                if one is not None:
                    with suppress(OSError):
                        one.close()

    async def _pass_on(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[bytes, bool]:
        kept = {n: v for n, v in request.headers.items() if n not in self.stripped}
        lines = [f"{request.method} {request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in kept.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + request.body)
        await writer.drain()
        return await _read_answer(reader, without_body=request.method == "HEAD")


def no_fault(_: Request) -> None:
    """Pass each request on."""


def always(fault: str) -> Fault:
    """Return a fault of every request."""
    return lambda _: fault


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ", 2)
    headers = _headers(head[1:])
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


async def _read_answer(reader: asyncio.StreamReader, *, without_body: bool) -> tuple[bytes, bool]:
    """Return an answer as it came, with its length, and whether another one can follow it."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = _headers(lines[1:])
    lasting = headers.get("connection", "").lower() != "close" and lines[0].startswith("HTTP/1.1")
    if without_body or lines[0].split(" ")[1] in ("204", "304"):
        return _answer(lines[0], headers, b""), lasting
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.pop("transfer-encoding", "") == "chunked":
        body = await _read_chunks(reader)
    else:
        body, lasting = await reader.read(), False
    headers["content-length"] = str(len(body))
    return _answer(lines[0], headers, body), lasting


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


def _answer(status: str, headers: dict[str, str], body: bytes) -> bytes:
    kept = {name: value for name, value in headers.items() if name != "connection"}
    lines = [status.replace("HTTP/1.0", "HTTP/1.1")]
    lines += [f"{name}: {value}" for name, value in kept.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _error(status: int, code: str, message: str, *, head: bool) -> bytes:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
        f"<Message>{message}</Message><RequestId>0</RequestId></Error>"
    ).encode()
    lines = [f"HTTP/1.1 {status} {code}", "content-type: application/xml"]
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + (b"" if head else body)
