"""Reconciliation: compare the broker's holdings with the newest rows and the registry."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.reconciliation import (
    Discrepancy,
    ReconciliationResult,
    compare,
)
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.codec import moment, updates_of
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.drain.broker_view import LakeValues, ValueSource
from position_sync_dagster.sync.reports.confirmations import CONFIRMED, said_of, with_confirmed

OF_STRATEGIES = "(strategies)"
"""In the place of a login: breaks of legs that name no account, where there are several logins."""


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
        self._stale_after = timedelta(seconds=settings.stale_after_s)

    async def run(self, run_id: str | None = None) -> ReconciliationResult:
        """Compare, record the breaks of each login in one commit, and return the result.

        Of a login without current data nothing is compared, and its breaks stay as they are.

        Raises:
            BrokerUnavailableError: The broker's data is not current; no break was changed.
        """
        await self._lake.initialize()
        view = await self._values.view()
        await self._lake.registry.refresh()
        allowed = set(self._settings.sec_types)
        snapshot = [h for h in view.holdings.values() if h.instrument.sec_type in allowed]
        logins = {
            login.gateway_id: login.accounts
            for login in self._settings.logins
            if not login.accounts or not view.unavailable.issuperset(login.accounts)
        }
        latest = (await self._lake.updates.latest()).filter(
            pl.col("gateway_id").is_in(list(logins)),
            ~pl.col("account").is_in(list(view.unavailable)),
        )
        now = self._clock()
        agreeing = agreeing_rows(snapshot, latest, now=now, stale_after=self._stale_after)
        others = latest.join(agreeing, on=["account", "conid"], how="anti")
        legs = self._lake.registry.legs
        details = await self._lake.contracts.get({leg.conid for leg in legs})
        result = compare(
            snapshot,
            updates_of(others),
            legs,
            complete=view.complete,
            details=details,
            now=now,
            stale_after=self._stale_after,
            agreed=frozenset(agreeing.select("account", "conid").iter_rows()),
            covers=view.covers,
        )
        of_login = _by_login(result.discrepancies, logins)
        for gateway_id, found in of_login.items():
            ids = (h.snapshot_id for h in snapshot if h.gateway_id == gateway_id)
            await self._lake.breaks.record(
                gateway_id, found, at=result.at, snapshot_id=next(ids, None), run_id=run_id
            )
        return result


def _by_login(
    discrepancies: Iterable[Discrepancy], logins: Mapping[str, tuple[str, ...] | None]
) -> dict[str, list[Discrepancy]]:
    """Return the discrepancies of each login; of several, those of no account are apart.

    Args:
        discrepancies: What was found.
        logins: The accounts of each login, by its name; None: all.
    """
    by_account = {name: login for login, names in logins.items() for name in names or ()}
    others = OF_STRATEGIES if by_account else next(iter(logins))
    found: dict[str, list[Discrepancy]] = {login: [] for login in (*logins, others)}
    for one in discrepancies:
        found[by_account.get(one.account, others)].append(one)
    return found


def agreeing_rows(
    snapshot: Iterable[BrokerPosition],
    latest: pl.DataFrame,
    *,
    now: datetime,
    stale_after: timedelta,
) -> pl.DataFrame:
    """Return the newest rows that `compare` would find no fault with, decided in columns."""
    said = said_of(snapshot)
    held = said.select("account", "conid", held="position")
    same = (
        latest.join(held, on=["account", "conid"], how="left")
        .filter(pl.col("position") == pl.col("held").fill_null(0.0))
        .select(latest.columns)
    )
    is_fresh = pl.col(CONFIRMED) >= moment(now - stale_after)
    return with_confirmed(same, said, now).filter((pl.col("position") == 0) | is_fresh)
