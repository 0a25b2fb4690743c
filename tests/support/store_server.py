"""moto's S3 alone, as a program: `python -m tests.support.store_server PORT`.

`moto.server` looks at the folders of all its services for each request, and does so for one request
at a time: on a busy machine it answers fewer requests than several hosts send.
"""

import sys
import threading
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple
from werkzeug.test import run_wsgi_app


class _Store:
    """A store in which no two conditional puts pass each other between check and write."""

    def __init__(self) -> None:
        self._application = create_backend_app("s3")
        self._conditional = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ:
            return self._application(environ, start_response)
        with self._conditional:
            return self._application(environ, start_response)


class _Handler(WSGIRequestHandler):
    """Keeps connections, which werkzeug's own closes after each answer, and says nothing."""

    protocol_version = "HTTP/1.1"

    def run_wsgi(self) -> None:
        """Read a request whole, and write its answer at once."""
        environ = self.make_environ()
        environ["wsgi.input"] = BytesIO(self.rfile.read(int(self.headers["Content-Length"] or 0)))
        parts, status, headers = run_wsgi_app(self.server.app, environ, buffered=True)
        body = b"".join(parts)
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(body))
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def log_request(self, *_: object) -> None:
        """Say nothing of requests."""


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), _Store(), threaded=True, request_handler=_Handler)
