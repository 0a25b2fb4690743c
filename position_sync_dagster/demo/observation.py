"""What the tables and the simulator say of a running demo."""

from datetime import datetime

from position_sync_dagster.demo import simulator_process
from position_sync_dagster.demo.acceptance import (
    AcceptanceResult,
    Coverage,
    Expectation,
    build_expectation,
    count_coverage,
    evaluate,
    is_complete,
)
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.status import Status, read_status


class Observer:
    """Look at a demo, again and again.

    Args:
        control_port: Of the simulator, which knows what is held.
        since: Rows from before are of an earlier session.
    """

    def __init__(
        self, lake: Lake, settings: Settings, *, control_port: int, since: datetime
    ) -> None:
        self._lake = lake
        self._settings = settings
        self._control_port = control_port
        self._since = since
        self.complete_after_s: float | None = None
        """Seconds from the start until each leg had a current row; None: not yet."""

    def status(self) -> Status:
        """Read how things stand."""
        return read_status(self._lake, self._settings, utc_now())

    def observe(self) -> tuple[Expectation, Coverage]:
        """Compare what is held with the rows of this session."""
        legs = self._lake.registry.sync.get_all_active()
        latest = self._lake.updates.sync.latest_updates()
        now = utc_now()
        expectation = build_expectation(simulator_process.held(self._control_port), legs)
        coverage = count_coverage(expectation, latest, since=self._since)
        if self.complete_after_s is None and is_complete(expectation, coverage):
            self.complete_after_s = (now - self._since).total_seconds()
        return expectation, coverage

    def evaluate(self, *, limit_s: float) -> tuple[AcceptanceResult, ...]:
        """Look for a last time, and compare with what the demo promises."""
        expectation, coverage = self.observe()
        counts = simulator_process.stats(self._control_port)
        return evaluate(
            expectation,
            coverage,
            complete_after_s=self.complete_after_s,
            limit_s=limit_s,
            peak_lines=counts["peak_lines"],
            order_messages=len(counts["orders_received"]),
        )
