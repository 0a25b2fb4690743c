"""Frames of the gateway's socket protocol: a length of 4 bytes, then fields that end with NUL."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from ib_gateway_simulator.errors import WireError

# The oldest version served: ibapi 9.81 has no newer one, and ib_async and ib_insync no older one.
MIN_SERVER_VERSION = 157

# The newest version served; ib_async 2.1 has no newer one.
MAX_SERVER_VERSION = 178

GREETING_PREFIX = b"API\0"
# The largest request accepted. The biggest real one, an order with conditions, has below 10 kB.
MAX_FRAME_BYTES = 1 << 20

_RANGE = re.compile(rb"v(\d{1,9})(?:\.\.(\d{1,9}))?(?: .*)?", re.DOTALL)
_LENGTH = struct.Struct(">I")


def frame(fields: Iterable[str]) -> bytes:
    """Return one message as bytes: length, then each field with its NUL."""
    payload = ("\0".join(fields) + "\0").encode("utf-8", "backslashreplace")
    return _LENGTH.pack(len(payload)) + payload


def negotiate(offer: bytes, *, newest: int = MAX_SERVER_VERSION) -> int | None:
    """Return the server version for a client's offer such as `v157..178`.

    Args:
        offer: The versions that the client reads.
        newest: The newest version of the gateway.

    Returns:
        The version, or None for a client that is too old or too new to be served.

    Raises:
        WireError: The offer cannot be read.
    """
    match = _RANGE.fullmatch(offer)
    if match is None:
        raise WireError(f"the version range {offer[:60]!r} cannot be read")
    lowest = int(match[1])
    highest = int(match[2] or match[1])
    version = min(highest, newest)
    if version < max(lowest, MIN_SERVER_VERSION):
        return None
    return version


class FrameReader:
    """Splits a stream of bytes into frames; the bytes may arrive in any pieces.

    Args:
        max_frame_bytes: The largest frame accepted.
        prefix: Whether the stream starts with `API`, as that of a client does.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, *, prefix: bool = True) -> None:
        self._buffer = bytearray()
        self._prefix_read = not prefix
        self._max_frame_bytes = max_frame_bytes

    def feed(self, data: bytes) -> None:
        """Append bytes as they came from the socket."""
        self._buffer += data

    def __len__(self) -> int:
        return len(self._buffer)

    def next_frame(self) -> bytes | None:
        """Return the next complete frame without its length, or None while it is incomplete.

        Raises:
            WireError: The stream does not start with `API`, or a length is larger than that of
                any request.
        """
        if not self._prefix_read:
            head = bytes(self._buffer[: len(GREETING_PREFIX)])
            if not GREETING_PREFIX.startswith(head):
                raise WireError(
                    f"the connection starts with {head!r} instead of {GREETING_PREFIX!r}"
                )
            if len(head) < len(GREETING_PREFIX):
                return None
            del self._buffer[: len(GREETING_PREFIX)]
            self._prefix_read = True
        if len(self._buffer) < _LENGTH.size:
            return None

        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self._max_frame_bytes:
            raise WireError(f"a frame announces {length} bytes, more than {self._max_frame_bytes}")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return payload


def fields_of(payload: bytes) -> list[str]:
    """Return the fields of a frame, without the empty piece after the last NUL."""
    fields = payload.decode("utf-8", "backslashreplace").split("\0")
    if fields[-1] == "":
        fields.pop()
    return fields
