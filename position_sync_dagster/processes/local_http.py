"""Read JSON from an HTTP server on this machine, without a proxy that the environment names."""

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
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"it answered {answer.status} {answer.reason}")
        return json.loads(body)
    except http.client.HTTPException as error:
        raise OSError(f"it does not speak HTTP: {error!r}") from error
    finally:
        connection.close()
