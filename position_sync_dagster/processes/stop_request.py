"""Requests to stop this process: a stop signal, or the end of its parent.

The stop signals are blocked, and read by `check` and `pause`: a blocked signal waits until it is
read. Signal handlers would leave gaps: before a handler is installed and after it is removed,
SIGINT raises KeyboardInterrupt. The same happens during a query of polars, which installs a SIGINT
handler of its own when it is imported.
"""

import os
import signal
import time

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Polling interval during a pause, in seconds.
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


def block_stop_signals() -> None:
    """Block the stop signals until this process ends; `StopRequest` reads them.

    Call it in the main thread before other threads start. Threads inherit what is blocked, and a
    thread that does not block a signal receives it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


class StopRequest:
    """Raises `StopRequested` after a stop signal or the parent's end, where the work asks for it.

    Signals that arrive later stay blocked, so that nothing interrupts the end of the work.

    Args:
        end_with: A process id. When it is no longer the parent of this process, stop.
    """

    def __init__(self, *, end_with: int | None = None) -> None:
        self._end_with = end_with
        self._request: StopRequested | None = None

    def check(self) -> None:
        """Raise if this process shall stop.

        Raises:
            StopRequested: A stop signal has arrived, or the parent has ended.
        """
        # `sigtimedwait` would wait for them. After a stop of the process (Ctrl-Z), CPython returns
        # any number from it if its time is over, also that of SIGINT; and macOS does not have it.
        if self._request is None and (pending := signal.sigpending().intersection(STOP_SIGNALS)):
            found = signal.Signals(signal.sigwait(pending))
            self._request = StopRequested(REASONS[found], 128 + found)
        elif self._request is None and self._end_with not in (None, os.getppid()):
            self._request = StopRequested("the process that started this one is gone", 1)
        if self._request is not None:
            raise self._request

    def pause(self, seconds: float) -> None:
        """Wait for a time; end the wait early with an exception if this process shall stop.

        Raises:
            StopRequested: A stop signal has arrived, or the parent has ended.
        """
        deadline = time.monotonic() + seconds
        self.check()
        while (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, POLL_INTERVAL_S))
            self.check()
