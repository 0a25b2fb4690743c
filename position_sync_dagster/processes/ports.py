"""Ports on this machine: free and taken ones, whether a gateway listens, and JSON over HTTP."""

import errno
import http.client
import json
import socket
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from position_sync_dagster.errors import PositionSyncError, SettingsError

if TYPE_CHECKING:
    from position_sync_dagster.settings import Settings


LOOPBACK = "127.0.0.1"
NEXT_PORTS = 50
"""The number of ports that are tried if the wanted one is taken."""


class PortTakenError(PositionSyncError):
    """Another program listens at a port that is needed."""

    exit_code = 2


def is_free(port: int) -> bool:
    """Return whether a server could listen at `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
        return True


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


CONNECT_TIMEOUT_S = 2.0


class ProbeResult(StrEnum):
    """The outcome of one attempt to connect. Each value completes the sentence of `advice`."""

    OPEN = "something listens"
    REFUSED = "nothing listens there"
    SILENT = "there is no answer"
    UNKNOWN = "the address is not known"


def probe(host: str, port: int) -> ProbeResult:
    """Connect, and close the connection at once."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return ProbeResult.REFUSED
    except (socket.gaierror, UnicodeError):  # the latter: no name of a host
        return ProbeResult.UNKNOWN
    except OSError:
        return ProbeResult.SILENT
    return ProbeResult.OPEN


def advice(host: str, port: int, result: ProbeResult) -> str:
    """Return a message for the user: the address that was tried, and what to change."""
    return (
        f"No gateway at {host}:{port}: {result}.\n"
        "  Start TWS or IB Gateway and log in; in its API settings enable socket clients and\n"
        "  compare the port. Another address: POSITION_SYNC_GATEWAY_HOST and\n"
        "  POSITION_SYNC_GATEWAY_PORT (TWS live 7496, paper 7497; Gateway live 4001, paper 4002),\n"
        "  in the environment or in .env. Everything keeps running, and the stream keeps trying."
    )


class GatewayProbes:
    """Probes the port of each gateway until something listens there."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], ProbeResult] = {}

    def look(self, settings: "Settings") -> list[str]:
        """Probe the ports that were not open yet; return a message for each change.

        While the gateways file cannot be read, there is none: others show that error.
        """
        try:
            logins = settings.logins
        except SettingsError:
            return []
        news = []
        for login in logins:
            address = (login.gateway_host, login.gateway_port)
            before = self._found.get(address)
            if before is ProbeResult.OPEN:
                continue
            found = self._found[address] = probe(*address)
            if found is not ProbeResult.OPEN and found != before:
                news.append(advice(*address, found))
            elif found is ProbeResult.OPEN and before is not None:
                news.append(f"Something listens at {login.gateway_address} now.")
        return news


def exchange_json(port: int, path: str, value: Any = None, *, timeout_s: float = 2.0) -> Any:
    """Return the JSON value that the server on 127.0.0.1 answers with.

    Args:
        value: What is posted, as JSON; None asks by GET.

    Raises:
        OSError: The server does not answer, or not with status 200.
        ValueError: The answer is not JSON.
    """
    method, body = ("GET", None) if value is None else ("POST", json.dumps(value))
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
