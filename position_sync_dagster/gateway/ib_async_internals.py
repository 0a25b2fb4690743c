"""What ib_async makes of each message: counted when understood, and said once when not."""

import logging
import sys
from collections.abc import Callable
from typing import Any

from ib_async import IB

from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.outage_log import LimitedLog

logger = logging.getLogger(__name__)

POSITION, POSITION_END = str(MessageType.POSITION.value), str(MessageType.POSITION_END.value)

LOG_EVERY_S = 60.0
"""A confused gateway sends hundreds of bad messages a second: one line for each kind in so long."""


class MessageReader:
    """Tell how many messages of a connection were understood; say what was not, now and then.

    ib_async reports each message that it cannot read with a trace, and each tick of a request
    that it does not know with a line: a confused gateway sends hundreds a second. A list of
    positions with one that could not be read has no end: what it lacks would pass for closed.
    """

    def __init__(self, ib: IB, gateway_id: str) -> None:
        self.understood = 0
        self._gateway_id = gateway_id
        self._type, self._failed, self._torn = "", False, False
        self._log = LimitedLog(logger, every_s=LOG_EVERY_S)
        decoder = ib.client.decoder
        self._interpret: Callable[[list[str]], None] = decoder.interpret
        decoder.interpret = self._read  # type: ignore[method-assign]
        decoder.logger = self  # type: ignore[assignment]
        ib.wrapper._logger = _Strays(ib.wrapper._logger, self)  # type: ignore[assignment]

    def _read(self, fields: list[str]) -> None:
        self._type, self._failed = fields[0] if fields else "", False
        if self._type == POSITION_END and self._torn:
            self._torn = False
            return
        self._interpret(fields)
        self._torn |= self._failed and self._type == POSITION
        self.understood += not self._failed

    def exception(self, _message: str) -> None:
        """Take what the decoder says of the message at hand; its values are nobody's business."""
        self._failed = True
        error = sys.exc_info()[1]
        error = (error and error.__context__) or error
        self._log.report(
            "unreadable message",
            f"{self._gateway_id} sent a message that cannot be read (type {self._type[:12]!a}, "
            f"{type(error).__name__}); it is left out",
        )

    def stray(self, message: str) -> None:
        """Take what the wrapper says of a tick that belongs to no request of ours."""
        self._log.report(
            "unknown request", f"{self._gateway_id} sent a tick that nobody asked for ({message})"
        )


class _Strays(logging.LoggerAdapter[logging.Logger]):
    """The wrapper's logger, without a line for each tick of an unknown request."""

    def __init__(self, inner: logging.Logger, reading: MessageReader) -> None:
        super().__init__(inner)
        self._reader = reading

    def error(self, msg: object, *args: object, **more: Any) -> None:
        if "Unknown reqId" in str(msg):
            self._reader.stray(str(msg))
        else:
            super().error(msg, *args, **more)
