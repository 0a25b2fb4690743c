"""Free and taken TCP ports on 127.0.0.1."""

import errno
import socket

from position_sync_dagster.errors import PositionSyncError

LOOPBACK = "127.0.0.1"
NEXT_PORTS = 50
"""The number of ports that are tried where the wanted one is taken."""


class PortTakenError(PositionSyncError):
    """Another program listens at a port that is needed."""


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
        f"Port {port} of {LOOPBACK} is taken, so the {purpose} cannot have it.",
        remedy=f"End the program that listens there, or give another with {option}.",
    )


def first_free(wanted: int) -> int:
    """Return `wanted`, or the next port after it that is free.

    Raises:
        PortTakenError: The next ports are all taken.
    """
    for port in range(wanted, min(wanted + NEXT_PORTS, 65536)):
        if is_free(port):
            return port
    raise PortTakenError(
        f"The ports from {wanted} on are all taken.", remedy="Give another one that is free."
    )
