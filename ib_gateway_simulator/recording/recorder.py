"""The recorder: writes what passes through the proxy, disguised, line by line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from types import TracebackType
from typing import TextIO

from ib_gateway_simulator.errors import RecordingError
from ib_gateway_simulator.protocol import message_ids, request_ids
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.recording.disguise import REPORTS_OF_ORDERS, Disguise
from ib_gateway_simulator.recording.pseudonyms import Pseudonyms
from ib_gateway_simulator.recordings.entry import (
    GREETING,
    OFFER,
    Closed,
    Ender,
    Entry,
    Header,
    Message,
    Opened,
    Side,
)

log = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Recorder:
    """Writes one recording; use it as a context manager.

    The file is new and readable by its owner alone. Each line is written at once, so that a kill
    costs at most the last one. When the disk is full, the recording ends and the proxy goes on.

    Args:
        path: The file; it must not exist.
        keep_quantities: Write quantities and amounts as they are.
        monotonic: The clock of the entries, in seconds.
        now: The wall clock, for the header.
        random: The source of what replaces quantities.

    Attributes:
        entries: How many entries were written.
        failed: Why nothing is written any more, else None.

    Raises:
        RecordingError: On entering the context: the file exists or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keep_quantities: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
        random: Random | None = None,
    ) -> None:
        self.path = Path(path)
        self.entries = 0
        self.failed: str | None = None
        self._keep_quantities = keep_quantities
        self._monotonic = monotonic
        self._now = now
        self._names = Pseudonyms(random or SystemRandom(), keep_quantities=keep_quantities)
        self._disguises: dict[int, Disguise] = {}
        self._connections = 0
        self._file: TextIO | None = None
        self._began_at = 0.0

    def __enter__(self) -> Recorder:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise RecordingError(
                self.path, 0, "the file exists already; name another one"
            ) from None
        except OSError as error:
            raise RecordingError(
                self.path, 0, f"cannot be written: {error.strerror or error}"
            ) from None
        self._file = os.fdopen(descriptor, "w", encoding="ascii", buffering=1)
        self._began_at = self._monotonic()
        quantities = "replaced"
        if self._keep_quantities:
            quantities = "kept"

        self._write(Header(started_at=self._now(), quantities=quantities))  # type: ignore[arg-type]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            file = self._file
            self._file = None
            try:
                file.close()
            except OSError as problem:
                self._fail(problem)

    # -- what happens -------------------------------------------------------------------------

    def opened(self) -> int:
        """Record a new connection, and return its number."""
        self._connections += 1
        self._disguises[self._connections] = Disguise(self._names)
        self._put(Opened(at_s=self._at_s(), connection=self._connections))
        return self._connections

    def closed(self, connection: int, by: Ender) -> None:
        """Record the end of a connection."""
        self._disguises.pop(connection, None)
        self._put(Closed(at_s=self._at_s(), connection=connection, by=by))

    def offer(self, connection: int, versions: str) -> None:
        """Record the versions that a client offers."""
        self._message(connection, "client", OFFER, (versions,))

    def greeting(self, connection: int, fields: Fields) -> None:
        """Record the gateway's answer to the offer: its version, without its time and zone."""
        self._message(connection, "gateway", GREETING, (*fields[:1], ""))

    def request(self, connection: int, name: str, fields: Fields) -> None:
        """Record a request of the client. An order message is never recorded.

        Raises:
            ValueError: It is an order message.
        """
        if name in request_ids.ORDER_REQUESTS:
            raise ValueError("order messages are not recorded")
        self._message(connection, "client", name, self._disguises[connection].request(fields))

    def message(self, connection: int, fields: Fields) -> None:
        """Record a message of the gateway, unless it is a report of an order."""
        kind = fields[0] if fields else ""
        if kind in REPORTS_OF_ORDERS:
            return
        name = message_ids.NAMES.get(kind, f"message {kind}" if _is_id(kind) else "unreadable")
        written = self._disguises[connection].message(fields) if fields else None
        self._message(connection, "gateway", name, written)

    # -- writing ------------------------------------------------------------------------------

    def _at_s(self) -> float:
        return max(0.0, self._monotonic() - self._began_at)

    def _message(self, connection: int, sender: Side, name: str, fields: Fields | None) -> None:
        self._put(
            Message(
                at_s=self._at_s(), connection=connection, sender=sender, name=name, fields=fields
            )
        )

    def _put(self, entry: Entry) -> None:
        if self._write(entry):
            self.entries += 1

    def _write(self, record: Entry | Header) -> bool:
        if self._file is None or self.failed is not None:
            return False
        try:
            self._file.write(record.line() + "\n")
        except OSError as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: OSError) -> None:
        if self.failed is None:
            self.failed = error.strerror or str(error)
            log.error("%s: nothing is recorded any more: %s", self.path, self.failed)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 4
