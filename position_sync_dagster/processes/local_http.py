"""JSON from a server on this machine; a proxy in the environment is not asked."""

import http.client
import json
from typing import Any

from position_sync_dagster.processes.ports import LOOPBACK


def get_json(port: int, path: str, *, timeout_s: float = 2.0) -> Any:
    """Give what a server on 127.0.0.1 answers.

    Raises:
        OSError: It does not answer, or not with success.
        ValueError: The answer is no JSON.
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
