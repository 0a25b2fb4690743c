"""A receiver of messages over HTTP, as `json://127.0.0.1:PORT` of apprise."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASSWORD = "hunter2"  # noqa: S105 - of a receiver that these tests start


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
        return [(one["title"], one["message"]) for one in self.messages]


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """Run a receiver on a free port of this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.asked += 1
            if receiver.answer == 200:
                receiver.messages.append(json.loads(body))
            self.send_response(receiver.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
