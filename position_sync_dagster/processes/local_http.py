"""Exchange JSON with an HTTP server on this machine, without a proxy of the environment."""

import http.client
import json
from typing import Any

from position_sync_dagster.processes.ports import LOOPBACK


def get_json(port: int, path: str, *, timeout_s: float = 2.0) -> Any:
    """Return the JSON value that the server on 127.0.0.1 answers with.

    Raises:
        OSError: The server does not answer, or not with status 200.
        ValueError: The answer is not JSON.
    """
    return _exchange("GET", port, path, None, timeout_s)


def post_json(port: int, path: str, value: Any, *, timeout_s: float = 10.0) -> Any:
    """Send a JSON value, and return the one that the server on 127.0.0.1 answers with.

    Raises:
        OSError: The server does not answer, or not with status 200.
        ValueError: The answer is not JSON.
    """
    return _exchange("POST", port, path, json.dumps(value), timeout_s)


def _exchange(method: str, port: int, path: str, body: str | None, timeout_s: float) -> Any:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"it answered {answer.status} {answer.reason}")
        return json.loads(content)
    except http.client.HTTPException as error:
        raise OSError(f"it does not speak HTTP: {error!r}") from error
    finally:
        connection.close()
