"""What a stream tells Dagster, kept while Dagster's storage is away.

The rows need the lake and the gateway, not Dagster. So a stream goes on when Postgres restarts or
cannot be reached: its events wait in order, and so do the lines of its log, which would otherwise
be written by the thread that values the ticks, and raise there.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.errors import PositionSyncError

if TYPE_CHECKING:
    from position_sync_dagster.defs.stream_events import StreamEvents
    from position_sync_dagster.sync.run_reports import StreamReport

PACKAGE = "position_sync_dagster"

RETRY_S = 5.0
"""Each try costs up to 7 s: Dagster itself tries six times to connect."""

MOST_LINES = 1000
"""Lines of the log that are kept; in a longer outage the oldest are lost, and events are not."""

Event = dg.AssetMaterialization | dg.AssetObservation


def is_storage_error(error: BaseException) -> bool:
    """Return whether Dagster's storage failed; its Postgres names the cause behind its own error.

    >>> is_storage_error(ValueError("something else"))
    False
    """
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, SQLAlchemyError) or isinstance(error.__cause__, SQLAlchemyError)


class PatientLog:
    """Logs the events of a stream and evaluates its checks, later where that is not possible now.

    Args:
        events: Makes the events of a report.
        log_event: Stores one event, and raises when the storage is away.
        run_id: The run of the stream.
    """

    def __init__(
        self, events: "StreamEvents", log_event: Callable[[Event], None], run_id: str
    ) -> None:
        self._events = events
        self._log_event = log_event
        self._run_id = run_id
        self._reports: deque[StreamReport] = deque()
        self._unlogged: deque[Event] = deque()
        self._evaluation_due = False
        self._lines: deque[logging.LogRecord] = deque(maxlen=MOST_LINES)
        self._handlers: list[logging.Handler] = []
        self._away_until = 0.0

    @contextmanager
    def keeping_lines(self) -> Iterator[None]:
        """Keep the package's log lines for `deliver`, whatever thread they come from."""
        package = logging.getLogger(PACKAGE)
        self._handlers = package.handlers
        package.handlers = [_Keeper(self._lines)]
        try:
            yield
        finally:
            package.handlers = self._handlers
            with suppress(PositionSyncError):
                self.deliver(now=True)

    def add(self, report: "StreamReport") -> None:
        """Log the events of a report after all that still wait."""
        self._reports.append(report)
        self.deliver()

    def deliver(self, *, now: bool = False) -> None:
        """Log what waits; return at once while the storage is away, unless it is `now` or never."""
        if time.monotonic() < self._away_until and not now:
            return
        with self._until_it_is_back():
            while self._lines:
                for handler in self._handlers:
                    handler.handle(self._lines[0])
                self._lines.popleft()
            while self._unlogged or self._reports:
                while self._unlogged:
                    self._log_event(self._unlogged[0])
                    event = self._unlogged.popleft()
                    self._evaluation_due |= isinstance(event, dg.AssetMaterialization)
                if self._reports:
                    self._unlogged.extend(self._events.of(self._reports[0]))
                    self._reports.popleft()
            if self._evaluation_due:
                self._events.evaluate(self._run_id)
                self._evaluation_due = False
            self._events.evaluate_again(self._run_id)

    @contextmanager
    def _until_it_is_back(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_storage_error(error):
                raise
            self._away_until = time.monotonic() + RETRY_S


class _Keeper(logging.Handler):
    """Keeps the records of a log, as they read now."""

    def __init__(self, kept: "deque[logging.LogRecord]") -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(
            TypeError, ValueError
        ):  # as for any handler, a bad format is no reason to end
            record.msg, record.args = record.getMessage(), None
        self._kept.append(record)
