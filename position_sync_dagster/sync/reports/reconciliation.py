"""Reconciliation: compare the broker's holdings with the newest rows and the registry."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.reconciliation import ReconciliationResult, compare
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.drain.broker_view import LakeValues, ValueSource


class PositionReconciler:
    """Compares a broker snapshot with the newest rows and the active legs.

    Args:
        stale_after: Age of a row from which it is STALE.

    Example:
        result = PositionReconciler().reconcile(snapshot, latest, legs, complete=True)
        for discrepancy in result.discrepancies:
            print(discrepancy.type, discrepancy.conid, discrepancy.detail)
    """

    def __init__(
        self, *, stale_after: timedelta = timedelta(minutes=10), clock: Clock = utc_now
    ) -> None:
        self._stale_after = stale_after
        self._clock = clock

    def reconcile(
        self,
        snapshot: Iterable[BrokerPosition],
        latest: Iterable[PositionUpdate],
        legs: Iterable[ActiveContract] = (),
        *,
        complete: bool,
        details: Mapping[int, ContractDetails] | None = None,
    ) -> ReconciliationResult:
        """Return every difference between the snapshot, the rows and the legs.

        Args:
            complete: The snapshot covers every account. Otherwise a holding that it lacks is no
                difference.
            details: The contract details that are known, by conid: each leg is compared with them.
        """
        return compare(
            snapshot,
            latest,
            legs,
            complete=complete,
            details=details,
            now=self._clock(),
            stale_after=self._stale_after,
        )


class ReconciliationService:
    """Reconciles the lake with the broker's current data, and records the breaks.

    Args:
        lake, settings: By default those of the environment.
        values: The source of the broker's data: by default the tables. In one process with a
            streamer that writes no tables: `ConnectionValues(manager)`.

    Example:
        result = await ReconciliationService(lake, settings).run()
    """

    def __init__(
        self,
        lake: Lake | None = None,
        settings: Settings | None = None,
        *,
        values: ValueSource | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._settings = settings = settings or load_settings()
        self._lake = lake = lake or Lake.of(settings, clock=clock)
        self._values = values or LakeValues(
            lake.broker_positions, lake.sessions, settings, clock=clock
        )
        self._clock = clock
        self._reconciler = PositionReconciler(
            stale_after=timedelta(seconds=settings.stale_after_s), clock=clock
        )

    async def run(self, run_id: str | None = None) -> ReconciliationResult:
        """Compare, record the breaks in one commit, and return the result.

        Raises:
            BrokerUnavailableError: The broker's data is not current; no break was changed.
        """
        await self._lake.initialize()
        view = await self._values.view()
        await self._lake.registry.refresh()
        allowed = set(self._settings.sec_types)
        snapshot = [h for h in view.holdings.values() if h.instrument.sec_type in allowed]
        latest = [
            row
            for row in await self._lake.updates.latest_updates()
            if row.gateway_id == self._settings.gateway_id
        ]
        legs = self._lake.registry.legs
        details = await self._lake.contracts.get({leg.conid for leg in legs})
        result = self._reconciler.reconcile(
            snapshot, latest, legs, complete=view.complete, details=details
        )
        await self._lake.breaks.record(
            self._settings.gateway_id,
            result.discrepancies,
            at=result.at,
            snapshot_id=snapshot[0].snapshot_id if snapshot else None,
            run_id=run_id,
        )
        return result
