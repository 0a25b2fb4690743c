"""Ports on this machine: free and taken ones, and JSON over HTTP."""

import errno
import json
import socket
from typing import Any

import psutil

from position_sync_dagster.errors import PositionSyncError, UserError

LOOPBACK = "127.0.0.1"
# The number of ports that are tried if the wanted one is taken.
NEXT_PORTS = 50


class PortTakenError(UserError):
    """Another program listens at a port that is needed.

    End that program, or choose another port.
    """


class NoAnswerError(PositionSyncError):
    """A program of ours does not answer at its port, or refuses.

    See the log of that program.
    """


def is_free(port: int) -> bool:
    """Return whether a server could listen at `port` now."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            return False
        raise
    return True


def is_listener(process_id: int, port: int) -> bool:
    """Return whether a process itself listens at `port`; another program may have taken it."""
    try:
        connections = psutil.Process(process_id).net_connections("tcp")
    except (psutil.Error, OSError):  # it has ended
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in connections
    )


def require_free(port: int, *, purpose: str, option: str) -> int:
    """Return `port` if it is free.

    Raises:
        PortTakenError: It is taken. The message names its purpose and the option that changes it.
    """
    if is_free(port):
        return port
    raise PortTakenError(
        f"Port {port} of {LOOPBACK} is taken, so the {purpose} cannot use it.",
        remedy=f"End the program that listens there, or choose another port with {option}.",
    )


def first_free(wanted: int) -> int:
    """Return `wanted`, or the next port after it that is free.

    Raises:
        PortTakenError: The next ports are all taken.
    """
    for port in range(wanted, min(wanted + NEXT_PORTS, 65536)):
        if is_free(port):
            return port
    raise PortTakenError(f"The ports from {wanted} on are all taken.", remedy="Name a free port.")


def exchange_json(port: int, path: str, value: Any = None, *, timeout_s: float) -> Any:
    """Return the JSON value that the server on 127.0.0.1 answers with.

    Args:
        value: What is posted, as JSON; None asks by GET.

    Raises:
        NoAnswerError: The server does not answer, or not with status 200 and JSON.
    """
    # The supervisor, which asks nothing, runs all the time: HTTP takes 3 MB.
    from http.client import HTTPException
    from urllib.request import ProxyHandler, Request, build_opener

    opener = build_opener(ProxyHandler({}))  # a proxy of the environment must not be asked
    body = None if value is None else json.dumps(value).encode()
    headers = {"Content-Type": "application/json"}
    request = Request(f"http://{LOOPBACK}:{port}{path}", body, headers)
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return json.load(answer)
    except (OSError, ValueError, HTTPException) as error:
        raise NoAnswerError(
            f"Port {port} of {LOOPBACK} does not answer: {error}.",
            remedy="See the log of its program.",
        ) from error
