"""What a program at a port of this machine answers: JSON over HTTP."""

import json
from http.client import HTTPException
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.ports import LOOPBACK

_OPENER = build_opener(ProxyHandler({}))  # a proxy of the environment must not be asked


class NoAnswerError(PositionSyncError):
    """A program of ours does not answer at its port, or refuses.

    See the log of that program.
    """


def exchange_json(port: int, path: str, value: Any = None, *, timeout_s: float) -> Any:
    """Return the JSON value that the server on 127.0.0.1 answers with.

    Args:
        value: What is posted, as JSON; None asks by GET.

    Raises:
        NoAnswerError: The server does not answer, or not with status 200 and JSON.
    """
    body = None if value is None else json.dumps(value).encode()
    headers = {"Content-Type": "application/json"}
    request = Request(f"http://{LOOPBACK}:{port}{path}", body, headers)
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return json.load(answer)
    except (OSError, ValueError, HTTPException) as error:
        raise NoAnswerError(
            f"Port {port} of {LOOPBACK} does not answer: {error}.",
            remedy="See the log of its program.",
        ) from error
