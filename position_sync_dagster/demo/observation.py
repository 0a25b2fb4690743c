"""Read the state of a running demo from the tables and from the simulator."""

from datetime import datetime

from position_sync_dagster.demo import simulator_process
from position_sync_dagster.demo.acceptance import (
    AcceptanceResult,
    Coverage,
    Expectation,
    count_coverage,
    evaluate,
    expect_paths,
    is_complete,
)
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.money import Ages
from position_sync_dagster.sync.reports.overview import Overview, OverviewReader


class Observer:
    """Reads the state of one run of the demo.

    Args:
        lake: The tables.
        settings: The settings of the demo's home.
        control_port: The control port of the simulator, which knows the positions held.
        since: The start of the run. Older rows belong to an earlier run.
    """

    def __init__(
        self, lake: Lake, settings: Settings, *, control_port: int, since: datetime
    ) -> None:
        self._lake = lake
        self._settings = settings
        self._control_port = control_port
        self._since = since
        self._overviews = OverviewReader(lake, settings)
        self.complete_after_s: float | None = None
        """Seconds from the start until each leg had a current row; None until then."""

    def overview(self) -> Overview:
        """Read what the live status shows, of which only what came since the last time."""
        return self._overviews.read(utc_now())

    def coverage(self) -> tuple[Expectation, Coverage]:
        """Compare the positions held with the rows of this run."""
        legs = self._lake.registry.sync.get_all_active()
        latest = self._lake.updates.sync.latest_updates()
        now = utc_now()
        expectation = expect_paths(simulator_process.held(self._control_port), legs)
        holdings = self._lake.broker_positions.sync.read(self._settings.gateway_id)
        confirmed = Ages.of(latest, holdings, now).confirmed
        coverage = count_coverage(expectation, latest, since=self._since, confirmed=confirmed)
        if self.complete_after_s is None and is_complete(expectation, coverage):
            self.complete_after_s = (now - self._since).total_seconds()
        return expectation, coverage

    def acceptance(self, *, limit_s: float) -> tuple[AcceptanceResult, ...]:
        """Read the tables a last time, and return the results of the acceptance test."""
        expectation, coverage = self.coverage()
        counts = simulator_process.stats(self._control_port)
        return evaluate(
            expectation,
            coverage,
            complete_after_s=self.complete_after_s,
            limit_s=limit_s,
            peak_lines=counts["peak_lines"],
            order_messages=len(counts["orders_received"]),
        )
