"""moto's S3 alone, as a program: `python -m tests.support.store_server PORT`.

`moto.server` looks at the folders of all its services for each request, and does so for one request
at a time: on a busy machine it answers fewer requests than several hosts send.
"""

import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple


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
    """Keeps connections, and says nothing of requests."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), _Store(), threaded=True, request_handler=_Handler)
