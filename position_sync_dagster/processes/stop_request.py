"""Requests to stop this process: a stop signal, or the end of its parent.

The stop signals are blocked, and read by `check` and `pause`: a blocked signal waits until it is
read. Signal handlers would leave gaps: before a handler is installed and after it is removed,
SIGINT raises KeyboardInterrupt. The same happens during a query of polars, which installs a SIGINT
handler of its own when it is imported.
"""

import os
import signal
import time
from typing import Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Polling interval of the parent during a pause, in seconds, for a process that ends with it.
PARENT_LOOK_S = 0.5

# Polling interval of the signals during a pause, in seconds.
POLL_INTERVAL_S = 0.2

REASONS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "asked to end",
    signal.SIGHUP: "the terminal was closed",
}


class StopRequested(Exception):
    """The process shall stop.

    Attributes:
        reason: The cause, for a message.
        exit_code: The exit code for work that was stopped before its end: 128 + n for signal n,
            as a shell shows it, else 1.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


def block_stop_signals() -> set[signal.Signals]:
    """Block the stop signals from now on; return those that were not blocked before.

    Call it in the main thread before other threads start. Threads inherit what is blocked, and a
    thread that does not block a signal receives it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    return set(STOP_SIGNALS).difference(before)


class StopRequest:
    """Raises `StopRequested` after a stop signal or the parent's end, inside its `with` block.

    It is raised only by `check` and `pause`. Signals that arrive later in the block are ignored,
    so that nothing interrupts the end of the work.

    Args:
        end_with: A process id. When it is no longer the parent of this process, stop.
    """

    def __init__(self, *, end_with: int | None = None) -> None:
        self._end_with = end_with
        self._request: StopRequested | None = None
        self._blocked: set[signal.Signals] = set()

    def check(self) -> None:
        """Raise if this process shall stop.

        Raises:
            StopRequested: A stop signal has arrived, or the parent has ended.
        """
        if self._request is None:
            self._request = self._read_request()
        if self._request is not None:
            raise self._request

    def pause(self, seconds: float) -> None:
        """Wait for a time; end the wait early with an exception if this process shall stop.

        Raises:
            StopRequested: A stop signal has arrived, or the parent has ended.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            if self._end_with is not None:
                left_s = min(left_s, PARENT_LOOK_S)
            self._request = _wait_for_signal(left_s)

    def _read_request(self) -> StopRequested | None:
        if (request := _wait_for_signal(0.0)) is not None:
            return request
        if self._end_with not in (None, os.getppid()):
            return StopRequested("the process that started this one is gone", 1)
        return None

    def __enter__(self) -> Self:
        self._blocked = block_stop_signals()
        return self

    def __exit__(self, *_: object) -> None:
        while _wait_for_signal(0.0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._blocked)


def _wait_for_signal(seconds: float) -> StopRequested | None:
    """Take the first stop signal that is pending; without one, wait for a part of the time.

    `sigtimedwait` would wait for them. After a stop of the process (Ctrl-Z), CPython returns any
    number from it if its time is over, also that of SIGINT; and macOS does not have it.
    """
    pending = signal.sigpending().intersection(STOP_SIGNALS)
    if not pending:
        time.sleep(min(seconds, POLL_INTERVAL_S))
        return None
    sig = signal.Signals(signal.sigwait(pending))
    return StopRequested(REASONS[sig], 128 + sig)
