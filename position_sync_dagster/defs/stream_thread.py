"""The stream's thread: its event loop runs outside Dagster's main thread."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from position_sync_dagster.sync.run_reports import StreamReport

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

POLL_S = 0.5
"""How often the main thread wakes: an interrupt is raised between two waits."""


class StreamThread:
    """Runs the stream in a thread with its own event loop.

    Dagster ends a run by raising in its main thread. Inside an event loop that exception would be
    lost in whichever task happens to run. So the loop runs here, and the main thread only waits.

    Example:
        thread = StreamThread(lake, settings, run_id=None)
        with thread.running(grace_s=15):
            for report in thread.reports():
                print(report.rows)
    """

    def __init__(self, lake: "Lake", settings: "Settings", *, run_id: str | None) -> None:
        self._lake = lake
        self._settings = settings
        self._run_id = run_id
        self._reports: queue.SimpleQueue[StreamReport] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._total: StreamReport | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    @contextmanager
    def running(self, *, grace_s: float) -> Iterator[None]:
        """Start the thread; at the end of the block, however it ends, stop the stream and wait.

        Args:
            grace_s: How long to wait for the thread to end, in seconds.
        """
        self._thread.start()
        self._ready.wait()
        try:
            yield
        finally:
            self._request_stop()
            self._thread.join(grace_s)

    def reports(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        between: Callable[[], None] = lambda: None,
        grace_s: float = 10.0,
    ) -> Iterator[StreamReport]:
        """Return each report when it arrives, until the stream has ended.

        Args:
            stop: Asked between two waits; once it is True, the stream is requested to end, and
                its last reports still arrive.
            between: Called between two waits, until the stream is requested to end.
            grace_s: How long to wait for that end, in seconds.
        """
        deadline: float | None = None
        while True:
            if deadline is None and stop():
                deadline = time.monotonic() + grace_s
                self._request_stop()
            if deadline is None:
                between()
            ended = not self._thread.is_alive()
            try:
                yield self._reports.get(timeout=0 if ended else POLL_S)
            except queue.Empty:
                if ended or (deadline is not None and time.monotonic() > deadline):
                    return

    def result(self) -> StreamReport:
        """Return the totals of the ended stream, or raise the error that ended it.

        Raises:
            TimeoutError: The stream did not end within its grace.
        """
        if self._error is not None:
            raise self._error
        if self._total is None:
            raise TimeoutError("The stream did not end in time.")
        return self._total

    def _work(self) -> None:
        try:
            self._total = asyncio.run(self._stream())
        except BaseException as error:  # noqa: BLE001 - carried to the main thread by result()
            self._error = error
        finally:
            self._ready.set()

    async def _stream(self) -> StreamReport:
        from position_sync_dagster.sync.stream.service import stream

        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        return await stream(
            self._lake,
            self._settings,
            run_id=self._run_id,
            stop=self._stop,
            report=self._reports.put,
        )

    def _request_stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                return  # the loop closed between the check and the call: the stream has ended
