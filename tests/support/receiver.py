"""A server on this machine that a test answers for, and one that takes messages of apprise."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette

from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.served_figures import PageFigures
from tests.support.ports import free_port

PASSWORD = "hunter2"  # noqa: S105 - of a receiver that these tests start

# A status, headers and a body.
Answer = tuple[int, Mapping[str, str], bytes]


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], Answer]) -> Iterator[int]:
    """Answer each request by a function, and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Receiver:
    """Takes messages while `answer` is 200, and keeps what it took.

    Attributes:
        asked: How many messages were offered.
    """

    def __init__(self) -> None:
        self.answer = 200
        self.asked = 0
        self.messages: list[dict[str, str]] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Its address for apprise, with a password in it."""
        return f"json://me:{PASSWORD}@127.0.0.1:{self.port}/"

    def taken(self) -> list[tuple[str, str]]:
        """Return the title and text of each message."""
        return [(message["title"], message["message"]) for message in self.messages]

    def text(self) -> str:
        """Return the titles and texts of all messages."""
        return "\n".join(f"{title}\n{body}" for title, body in self.taken())

    def take(self, request: BaseHTTPRequestHandler) -> Answer:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.asked += 1
        if self.answer == 200:
            self.messages.append(json.loads(body))
        return self.answer, {}, b""


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """Run a receiver on a free port of this machine."""
    receiver = Receiver()
    with serving(receiver.take) as receiver.port:
        yield receiver


@contextmanager
def trickling_receiver() -> Iterator[tuple[str, list[bytes], Event]]:
    """Run a receiver that sends a byte of its answer now and then, and never ends it.

    Yields:
        Its address for apprise, what it was asked, and an event that is set by the first request.
    """
    asked: list[bytes] = []
    is_asked = Event()
    ended = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            is_asked.set()
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
                while not ended.wait(0.1):
                    self.wfile.write(b".")

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/", asked, is_asked
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving_app(app: Starlette) -> Iterator[int]:
    """Serve an app from a thread of this process, and yield the port."""
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="warning"))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.config.port
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving_pages(figures: PageFigures, **more: Any) -> Iterator[int]:
    """Serve the pages over figures, without Dagster's, and yield the port."""
    routes = money_routes(dagster=False, open_figures=lambda: figures, **more)
    with serving_app(Starlette(routes=routes)) as port:
        yield port
