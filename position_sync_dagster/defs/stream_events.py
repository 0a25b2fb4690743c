"""The events of a stream run: what it tells Dagster, and when.

A materialization of the ledger makes everything derived from it old, and its checks as well. So a
span of the stream is an observation, which leaves both as they are. The stream materializes when
its state changes, each quarter of an hour, and when the registry was materialized after it; the
sensor `refresh_derived` then brings up to date what derives from it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.assets.external_tables import GATEWAY, observe_table
from position_sync_dagster.defs.assets.table_asset import DATA_VERSION
from position_sync_dagster.defs.checks import a_stream_watches
from position_sync_dagster.defs.checks.evaluation import CHECKS, TIME_LIMIT_S, evaluated
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.lake.schema.tables import (
    ACCOUNT_VALUES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    POSITION_QUEUE,
    POSITION_UPDATES,
)
from position_sync_dagster.sync.run_reports import StreamReport

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

MATERIALIZE_EVERY = timedelta(minutes=15)
"""How often the stream materializes what it writes while its state stays the same."""

AGAIN_FOR = timedelta(minutes=1)
"""After an outage the account is downloaded anew: until then checks may fail."""

AGAIN_EVERY = timedelta(seconds=2)
AGAIN_REST = 9
"""Between two such evaluations pass so many times the time of the last one: where tables are slow,
the streams of several logins would do nothing else, and keep each other and the drain waiting."""

SETTLED = (SessionState.LIVE, SessionState.BLIND)
"""The states that are worth a materialization. A stream that ended is followed by another, which
materializes; one that a person stopped leaves the tables as they are."""


class StreamEvents:
    """Turns the reports of a stream run into events; each row is counted in exactly one of them."""

    def __init__(self, lake: "Lake", settings: "Settings", instance: dg.DagsterInstance) -> None:
        self._lake = lake
        self._settings = settings
        self._instance = instance
        self._state: str = SessionState.STARTING
        self._materialized_at: datetime | None = None
        self._failed: tuple[tuple[str, str], ...] = ()
        self._again_at = self._again_until = datetime.min.replace(tzinfo=UTC)

    def of(self, report: StreamReport) -> "Iterator[dg.AssetMaterialization | dg.AssetObservation]":
        """Return the events of a report, those of the sources first."""
        changed = report.state != self._state and report.state in SETTLED
        due = changed or self._is_due(report.until)
        if changed and report.state == SessionState.LIVE:
            now = datetime.now(UTC)
            self._again_at, self._again_until = now + AGAIN_EVERY, now + AGAIN_FOR
        self._state = report.state
        if due:
            yield self._gateway(report)
            for spec in (BROKER_POSITIONS, CONTRACTS, GATEWAY_SESSIONS, ACCOUNT_VALUES):
                yield observe_table(self._lake, spec)
            yield self._materialization(POSITION_QUEUE.name, queue_numbers(report), report)
            yield self._materialization(POSITION_UPDATES.name, ledger_numbers(report), report)
            self._materialized_at = report.until
            return
        if report.enqueued:
            yield dg.AssetObservation(
                POSITION_QUEUE.name,
                description="Enqueued by the stream",
                metadata=queue_numbers(report),
            )
        if report.rows or report.reconnects:
            yield dg.AssetObservation(
                POSITION_UPDATES.name,
                description=f"Streamed: {report.state.lower()}",
                metadata=ledger_numbers(report),
            )

    def evaluate(self, run_id: str) -> None:
        """Evaluate the checks now, right after a materialization or at the end.

        These events belong to no run: Dagster stores one evaluation of a check for each run, at the
        place of the first, so that a later one would be taken for older than those of other runs.
        """
        watches = ((POSITION_UPDATES.name, a_stream_watches.CHECK_NAME),)
        checks = CHECKS if self._state in SETTLED else watches
        self._failed = self._logged(run_id, checks)

    def evaluate_again(self, run_id: str) -> None:
        """After the stream became LIVE, evaluate what failed, and log what passes by now."""
        now = datetime.now(UTC)
        if self._failed and self._again_at <= now < self._again_until:
            self._failed = self._logged(run_id, self._failed, only_passed=True)
            ended = datetime.now(UTC)
            self._again_at = ended + max(AGAIN_EVERY, AGAIN_REST * (ended - now))

    def _logged(
        self, run_id: str, checks: tuple[tuple[str, str], ...], *, only_passed: bool = False
    ) -> tuple[tuple[str, str], ...]:
        """Evaluate checks, log their results, and return those that do not pass."""
        failed = []
        for event in evaluated(
            self._lake,
            self._settings,
            self._instance,
            run_id=run_id,
            checks=checks,
            time_limit_s=TIME_LIMIT_S,
        ):
            if event.passed or not only_passed:
                self._instance.report_runless_asset_event(event)
            if not event.passed:
                failed.append((event.asset_key.to_user_string(), event.check_name))
        return tuple(failed)

    def _is_due(self, now: datetime) -> bool:
        if self._materialized_at is None or self._state not in SETTLED:
            return False
        if now - self._materialized_at >= MATERIALIZE_EVERY:
            return True
        registry = self._instance.get_latest_materialization_event(dg.AssetKey("active_strategies"))
        return registry is not None and registry.timestamp > self._materialized_at.timestamp()

    def _materialization(
        self, name: str, numbers: "dict[str, float | str]", report: StreamReport
    ) -> dg.AssetMaterialization:
        """Return a materialization with the table's Delta version.

        Without it, Dagster would show downstream assets as stale, or not, by chance.
        """
        version = numbers.setdefault("delta_version", self._version(name))
        return dg.AssetMaterialization(
            name,
            description=f"Streamed: {report.state.lower()}",
            metadata=numbers,
            tags={DATA_VERSION: str(version)},
        )

    def _version(self, name: str) -> int:
        return next(table for table in self._lake.tables if table.spec.name == name).version()

    def _gateway(self, report: StreamReport) -> dg.AssetObservation:
        return dg.AssetObservation(
            GATEWAY,
            description=f"The stream is {report.state.lower()}",
            metadata=known(
                state=str(report.state),
                gateway=self._settings.gateway_id,
                lines_in_use=report.lines_in_use,
                line_limit=report.line_limit,
                reconnects=report.reconnects,
                note=report.detail,
            ),
        )


def ledger_numbers(report: StreamReport) -> "dict[str, float | str]":
    """Return what a report says of `position_updates`; drains have other names.

    What seldom happens is left out when it did not, so that no plot is always zero.
    """
    numbers = known(
        rows=report.rows,
        commits=report.commits,
        lines_in_use=report.lines_in_use,
        legs_streamed=report.legs_streamed,
        tick_to_table_p50_s=report.tick_to_table_p50_s,
        tick_to_table_p95_s=report.tick_to_table_p95_s,
        reconnects=report.reconnects or None,
        promotions=report.promotions or None,
        demotions=report.demotions or None,
    )
    return {f"stream/{name}": value for name, value in numbers.items()} | known(
        event=f"Streamed: {report.rows} rows in {report.commits} commits",
        delta_version=report.version_to,
        delta_version_from=report.version_from,
        first_batch_id=report.first_batch_id,
        last_batch_id=report.last_batch_id,
        line_limit=str(report.line_limit),
        state=str(report.state),
        note=report.detail,
    )


def queue_numbers(report: StreamReport) -> "dict[str, float | str]":
    """Return what a report says of `position_queue`."""
    return known(enqueued=report.enqueued, delta_version=report.queue_version)


def known(**values: float | str | None) -> "dict[str, float | str]":
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
