"""Alert messages about programs that stopped, sent by the supervisor.

The rules are those of the checks (`sync/alerts`): one message for an outage that lasts for
POSITION_SYNC_ALERT_AFTER_S, and one for its end. The end of all programs is sent at once.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta

from position_sync_dagster import last_work
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync import alerts

LOOK_S = 1.0
LAST_S = 15.0
"""Time limit of the last message, in seconds."""

ERROR = "ERROR"
WHAT_TO_DO = (
    "Read Dagster's log, which `make dev` and `make demo` name, and run `position-sync doctor`."
)


class OutageAlerts:
    """Sends messages about faults of the programs, in its own thread: a receiver may be slow.

    Attributes:
        states: The fault of each program, "" for one that works; the supervisor sets it.
    """

    def __init__(self) -> None:
        self.states: Mapping[str, str] = {}
        self._reason = ""
        self._ended = threading.Event()
        self._cursor = alerts.AlertCursor()
        self._log = OutageLog(logging.getLogger("position_sync_dagster.supervisor"))
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, reason: str) -> None:
        """Send the message that everything ends; wait for it at most LAST_S seconds."""
        self._reason = reason
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(LAST_S)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._look()
        self._look()

    def _look(self) -> None:
        states = list(self._checks())
        if all(state.passed for state in states) and not (
            self._cursor.breaks or self._cursor.outbox
        ):
            return
        try:
            settings = load_settings()
        except SettingsError as error:
            self._log.report(f"No message can be sent: {error.what}")
            return
        now = utc_now()
        self._cursor = alerts.follow(
            self._cursor,
            states,
            now=now,
            after=timedelta(seconds=0 if self._reason else settings.alert_after_s),
            severities=settings.alert_severities,
            receivers=len(settings.alert_urls),
        )
        for place, messages in alerts.due(self._cursor, now).items():
            title, body = alerts.together(messages)
            ok = alerts.deliver(settings.alert_urls[place], place, title=title, body=body)
            self._cursor = alerts.after_delivery(
                self._cursor, place, messages, ok=ok, now=utc_now()
            )

    def _checks(self) -> Iterator[alerts.CheckState]:
        now = utc_now()
        if self._reason:
            yield alerts.CheckState(
                name="Dagster",
                at=now,
                passed=False,
                severity=ERROR,
                description=f"Everything ends, also the stream. {self._reason}",
                what_to_do=WHAT_TO_DO,
            )
            return
        troubles = dict(self.states)
        for work in last_work.read().works:
            if work.program == last_work.SENSORS:
                late = f"The last sensor tick was at {work.at:%H:%M:%S} UTC: nothing is drained."
                troubles[work.program] = late if work.late else ""
        for program, trouble in troubles.items():
            yield alerts.CheckState(
                name=f"Dagster's {program}",
                at=now,
                passed=not trouble,
                severity=ERROR,
                description=trouble or "It works again.",
                what_to_do=WHAT_TO_DO if trouble else "",
            )
