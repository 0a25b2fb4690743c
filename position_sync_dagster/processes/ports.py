"""Ports on this machine: free and taken ones."""

import errno
import socket

from position_sync_dagster.errors import UserError

LOOPBACK = "127.0.0.1"
# The number of ports that are tried if the wanted one is taken.
NEXT_PORTS = 50


class PortTakenError(UserError):
    """Another program listens at a port that is needed.

    End that program, or choose another port.
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
