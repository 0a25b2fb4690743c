"""The wish to end: a signal, a closed terminal, or the parent's end."""

import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_INTERVAL_S = 0.25
REASONS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "asked to end",
    signal.SIGHUP: "the terminal was closed",
}


class StopRequested(Exception):
    """Somebody wants an end; raised where it is noticed.

    Attributes:
        exit_code: The exit code by which a shell tells of it.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


class StopRequest:
    """Notice the wish to end, between `with StopRequest(…) as stop` and its end.

    Args:
        end_with: Process id of a parent; when it is the parent no more, that counts as the wish.
    """

    def __init__(self, *, end_with: int | None = None) -> None:
        self._end_with = end_with
        self._request: StopRequested | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before: dict[signal.Signals, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._request is None:
            self._request = StopRequested(REASONS[signal.Signals(number)], 128 + number)
            os.write(self._writer, b".")

    def check(self) -> None:
        """Raise if somebody wants an end.

        Raises:
            StopRequested: Somebody does.
        """
        if self._request is None and self._end_with not in (None, os.getppid()):
            self._request = StopRequested("the process that started this one is gone", 1)
        if self._request is not None:
            raise self._request

    def pause(self, seconds: float) -> None:
        """Wait so long, or until somebody wants an end.

        Raises:
            StopRequested: Somebody does.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            select.select([self._reader], [], [], min(left, LOOK_INTERVAL_S))

    def __enter__(self) -> Self:
        for sig in STOP_SIGNALS:
            self._before[sig] = signal.signal(sig, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sig, handler in self._before.items():
            signal.signal(sig, handler)  # type: ignore[arg-type]
        os.close(self._reader)
        os.close(self._writer)
