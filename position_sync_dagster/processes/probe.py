"""Test whether something listens at the gateway's address, and advise what to do if not."""

import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from position_sync_dagster.errors import SettingsError

if TYPE_CHECKING:
    from position_sync_dagster.settings import Settings

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


class GatewayProbes:
    """Looks whether something listens at each gateway, until something did."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], ProbeResult] = {}

    def look(self, settings: "Settings") -> list[str]:
        """Probe the ports that were not open yet; return what is new, in words."""
        news = []
        for login in logins_of(settings):
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


def logins_of(settings: "Settings") -> "Sequence[Settings]":
    """Return the logins; none while the gateways file cannot be read, which `look` shows."""
    try:
        return settings.logins
    except SettingsError:
        return ()
