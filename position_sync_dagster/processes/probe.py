"""Test whether something listens at the gateway's address, and advise what to do if not."""

import socket
from enum import StrEnum

CONNECT_TIMEOUT_S = 2.0


class ProbeResult(StrEnum):
    """The outcome of one attempt to connect. Each value completes the sentence of `advice`."""

    OPEN = "something listens"
    REFUSED = "nothing listens there"
    SILENT = "there is no answer"
    UNKNOWN = "the address is not known"


def probe(host: str, port: int, *, timeout_s: float = CONNECT_TIMEOUT_S) -> ProbeResult:
    """Connect, and close the connection at once."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except ConnectionRefusedError:
        return ProbeResult.REFUSED
    except socket.gaierror:
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
