"""An S3 store that counts requests, delays them, loses them, answers with errors.

It is a process of its own, `python -m tests.support.store_proxy`: some calls of the clients
under test block their whole process until the store answers. Each line of its input is a `Plan` as
JSON; it answers with the requests since the last one.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from typing import Any, Self

from tests.support.objects import Answer, Objects, error

TOKEN = "session-token-of-the-tests"  # noqa: S105 - the store of the tests takes any
# S3 repeats an expired token in its answer.
ECHO = f"</Message><Token-0>{TOKEN}</Token-0><Message>"

# What S3 answers, by a name of ours: status, code and message.
ERRORS = {
    "denied": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", f"The provided token has expired.{ECHO}"),
    "bad signature": (403, "SignatureDoesNotMatch", "The request signature does not match."),
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
    "broken": (500, "InternalError", "We encountered an internal error. Please try again."),
    "no bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
    "region": (
        301,
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
    ),
}

# The connection ends before an answer.
CUT = "cut"

# The request is never answered, also when the fault is over.
HANG = "hang"

# The request reaches the store, and its answer is lost.
CUT_AFTER = "cut after"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the store sees it.

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


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests fail, and how.

    Attributes:
        fault: A key of ERRORS, CUT, CUT_AFTER or HANG.
        kind: Of the requests; empty for any.
        part: Of the path of the requests.
        times: How many of them fail; None for all.
        key_id: The access key that signed the requests; empty for any.
    """

    fault: str
    kind: str = ""
    part: str = ""
    times: int | None = None
    key_id: str = ""

    def fits(self, request: Request) -> bool:
        """Return whether the rule is about a request."""
        signed = request.headers.get("authorization", "")
        return (
            self.kind in ("", request.kind) and self.part in request.path and self.key_id in signed
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How the store treats requests.

    Attributes:
        latency_s: How long each request waits before the store answers.
        rules: The first one that fits decides.
        stripped: Headers, in lower case, that the store does not know.
    """

    latency_s: float = 0.0
    rules: tuple[Rule, ...] = ()
    stripped: tuple[str, ...] = ()


class StoreProxy:
    """A running store.

    Attributes:
        port: Where it listens.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        self.port = int(self._answer())
        self._plan = Plan()

    @property
    def url(self) -> str:
        """The address for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"

    def change(self, **changes: Any) -> list[Request]:
        """Change the plan, and return the requests since the last change."""
        self._plan = replace(self._plan, **changes)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(self._plan)).encode() + b"\n")
        self._process.stdin.flush()
        return [Request(*row) for row in json.loads(self._answer())]

    def reset(self) -> None:
        """Answer at once and without faults again, and forget the requests."""
        self._plan = Plan()
        self.change()

    def fail(self, *rules: Rule) -> None:
        """Let requests fail; without a rule none does."""
        self.change(rules=rules)

    def counts(self) -> Counter[str]:
        """Return how many requests of each kind there were since the last question."""
        return Counter(request.kind for request in self.change())

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()


class _Server:
    """The store in its own process."""

    def __init__(self) -> None:
        self._objects = Objects()
        self._plan = Plan()
        self._rules: list[Rule] = []
        self._requests: list[tuple[str, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the input ends."""
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0, limit=2**20)
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = json.loads(line)
            self._rules = [Rule(**rule) for rule in answer["rules"]]
            self._plan = Plan(**{**answer, "rules": ()})
            print(json.dumps(self._requests), flush=True)
            self._requests = []

    def _fault(self, request: Request) -> str | None:
        for index, rule in enumerate(self._rules):
            if rule.fits(request):
                if rule.times is not None:
                    self._rules[index] = replace(rule, times=rule.times - 1)
                    if rule.times <= 1:
                        del self._rules[index]
                return rule.fault
        return None

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Nothing else holds it once a client has gone that did not wait for its answer.
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await _read_request(reader)
                self._requests.append((request.method, request.path))
                fault = self._fault(request)
                await asyncio.sleep(self._plan.latency_s)
                if fault == CUT:
                    break
                if fault == HANG:
                    await reader.read()  # until the client gives up
                    break

                known = fault is not None and fault != CUT_AFTER
                answer = error(*ERRORS[fault]) if known else self._answer(request)
                if fault == CUT_AFTER:
                    break
                writer.write(_written(answer, request.method))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            with suppress(OSError):
                writer.close()

    def _answer(self, request: Request) -> Answer:
        kept = {n: v for n, v in request.headers.items() if n not in self._plan.stripped}
        return self._objects.answer(request.method, request.path, kept, request.body)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ", 2)
    headers = _headers(head[1:])
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


def _written(answer: Answer, method: str) -> bytes:
    """Return an answer as it is sent: that to HEAD has the length of a body, and none."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    if answer.status != 204:
        lines.append(f"content-length: {len(answer.body)}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if method == "HEAD" else head + answer.body


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


if __name__ == "__main__":
    asyncio.run(_Server().run())
