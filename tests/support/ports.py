"""Ports for the programs that tests start, and what a client of them needs."""

import random
import socket
import ssl
from contextlib import suppress

# For a client of httpx that speaks plain HTTP: by itself it reads all certificates of the machine,
# which takes 40 ms each time.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def free_port() -> int:
    """Return a free port of 127.0.0.1.

    It is none of those that the system hands out by itself: until the program that gets it has
    bound it, a connection of another test could take such a port.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
