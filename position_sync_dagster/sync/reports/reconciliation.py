"""Reconciliation: compare the broker's holdings with the newest rows and the registry."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.domain import reconciliation
from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.clock import Clock, elapsed, utc_now
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.lake.schema.codec import broker_rows, update_rows
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.drain import Coverage, LakeValues, ValueSource
from position_sync_dagster.sync.reports import confirmations

logger = logging.getLogger(__name__)

_KEY = ("account", "conid")
# The gateway_id of breaks of legs without an account, if there are several logins.
OF_STRATEGIES = "(strategies)"


# How long a difference lasts before it is confirmed: a change at the broker becomes a row by one
# drain, which begins within 5 s and takes some seconds.
CONFIRM_AFTER = timedelta(seconds=15)


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
    ) -> reconciliation.ReconciliationResult:
        """Return every difference between the snapshot, the rows and the legs.

        Args:
            complete: Whether the snapshot covers every account. If not, a missing holding is no
                difference.
            details: The known contract details by conid; each leg is compared with them.
        """
        scope = reconciliation.Scope(
            complete=complete,
            details=details or {},
            now=self._clock(),
            stale_after=self._stale_after,
        )
        holdings = broker_rows(snapshot, None)
        pairs = pairs_of(holdings, update_rows(list(latest)), scope.now)
        return reconciliation.compare(pairs, legs, scope)


class ReconciliationService:
    """Reconciles the lake with the broker's current data, and records the breaks.

    Args:
        lake, settings: By default as the environment says.
        values: The source of the broker's data: by default the tables. In one process with a
            streamer that writes no tables: `ConnectionValues(manager)`.

        interval: Seconds between two runs after `start`.

    Example:
        result = await ReconciliationService(lake, settings).run()
    """

    def __init__(
        self,
        lake: Lake | None = None,
        settings: Settings | None = None,
        *,
        values: ValueSource | None = None,
        interval: float = 300.0,
        clock: Clock = utc_now,
    ) -> None:
        self.interval = interval
        self._task: asyncio.Task[None] | None = None
        self._settings = settings = settings or load_settings()
        self._lake = lake = lake or Lake.of(settings, clock=clock)
        self._values = values
        self._published = LakeValues(lake, settings, clock=clock)
        self._clock = clock
        self._stale_after = timedelta(seconds=settings.stale_after_s)

    async def start(self) -> None:
        """Reconcile in the background, once per interval, until `stop`."""
        if self._task is None:
            await self._lake.initialize()
            self._task = asyncio.create_task(self._run_on())

    async def stop(self) -> None:
        """End the background task; a comparison in progress records nothing more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run_on(self) -> None:
        outage = OutageLog(logger)
        while True:
            try:
                result = await self.run()
                outage.fault = None
                logger.info("%d differences", len(result.discrepancies))
            except PositionSyncError as error:
                outage.report(error.what, text=str(error))
            await asyncio.sleep(self.interval)

    async def run(self, run_id: str | None = None) -> reconciliation.ReconciliationResult:
        """Compare, record the breaks of each login in one commit, and return the result.

        Discrepancies that a person has accepted are counted apart; those that were first seen less
        than CONFIRM_AFTER ago are named as unconfirmed.

        A login without current data is not compared, and its breaks do not change. Neither do
        those of absent holdings whose account is not covered.

        Raises:
            BrokerUnavailableError: The broker's data is not current; no break was changed.
        """
        result, holdings, coverage = await self._compare()
        first = holdings.group_by("gateway_id").agg(pl.col("snapshot_id").first())
        held = set(holdings.select(_KEY).iter_rows())
        await offload(
            self._lake.breaks.record,
            _by_login(result.discrepancies, self._settings),
            result.at,
            compared=lambda one: _is_compared(one, held, coverage),
            snapshots=dict(first.iter_rows()),
            run_id=run_id,
        )
        return self._judged(result)

    async def look(self) -> reconciliation.ReconciliationResult:
        """Compare as `run` does, without a write.

        Raises:
            BrokerUnavailableError: The broker's data is not current.
        """
        return self._judged((await self._compare())[0])

    async def _compare(
        self,
    ) -> tuple[reconciliation.ReconciliationResult, pl.DataFrame, Coverage]:
        """Return the result, the broker's holdings, and which accounts they cover."""
        holdings, coverage = await self._holdings()
        await self._lake.registry.refresh()
        followed = pl.col("sec_type").is_in(self._settings.sec_types)
        holdings = holdings.filter(followed)
        logins = [
            login.gateway_id
            for login in self._settings.logins
            if not login.accounts or not coverage.unavailable.issuperset(login.accounts)
        ]
        latest = rows_of_logins(await self._lake.updates.latest(), self._settings).filter(
            pl.col("gateway_id").is_in(logins),
            ~pl.col("account").is_in(list(coverage.unavailable)),
            followed.fill_null(value=True),  # other rows are of types no longer followed
        )
        now, legs = self._clock(), self._lake.registry.legs
        conids = {leg.conid for leg in legs}
        result = reconciliation.compare(
            pairs_of(holdings, latest, now),
            legs,
            reconciliation.Scope(
                complete=coverage.complete,
                details=await offload(self._lake.contracts.get, conids),
                now=now,
                stale_after=self._stale_after,
                covers=coverage.covers,
            ),
        )
        return result, holdings, coverage

    def _judged(
        self, result: reconciliation.ReconciliationResult
    ) -> reconciliation.ReconciliationResult:
        known = {(one.type, one.account, one.conid): one for one in self._lake.breaks.open_breaks()}
        left, unconfirmed = [], []
        for one in result.discrepancies:
            found = known.get((one.type, one.account, one.conid))
            if found is not None and found.state is reconciliation.BreakState.ACCEPTED:
                continue
            left.append(one)
            if found is not None and elapsed(found.opened_at, result.at) < CONFIRM_AFTER:
                unconfirmed.append(one)
        return replace(
            result,
            discrepancies=tuple(left),
            accepted=len(result.discrepancies) - len(left),
            unconfirmed=tuple(unconfirmed),
        )

    async def _holdings(self) -> tuple[pl.DataFrame, Coverage]:
        """Return the broker's current holdings, and which accounts they cover."""
        if self._values is None:
            return await self._published.rows()
        view = await self._values.view()
        return broker_rows(view.holdings.values(), None), view


# The types of breaks that other comparisons find.
_OF_OTHERS = (reconciliation.DiscrepancyType.STATEMENT, reconciliation.DiscrepancyType.UNEXPLAINED)


def _is_compared(one: reconciliation.Break, held: Collection[Key], coverage: Coverage) -> bool:
    """Return whether a break would have been found again if it was still there.

    Args:
        one: An open break; without an account it is of all accounts together.
        held: The holdings of the broker.
        coverage: Which accounts they cover.
    """
    if one.type in _OF_OTHERS:
        return False
    if one.type is reconciliation.DiscrepancyType.LEG_MISMATCH or (one.account, one.conid) in held:
        return True
    return coverage.covers(one.account or None)


def _by_login(
    discrepancies: Iterable[reconciliation.Discrepancy], settings: Settings
) -> dict[str, list[reconciliation.Discrepancy]]:
    """Return the discrepancies by login; with several logins, OF_STRATEGIES has the rest."""
    login_of = {name: one.gateway_id for one in settings.logins for name in one.accounts or ()}
    others = OF_STRATEGIES if login_of else settings.logins[0].gateway_id
    found = defaultdict[str, list[reconciliation.Discrepancy]](list)
    for one in discrepancies:
        found[login_of.get(one.account, others)].append(one)
    return found


def pairs_of(
    holdings: pl.DataFrame, latest: pl.DataFrame, now: datetime
) -> list[reconciliation.Pair]:
    """Return each holding of the broker with its newest row, in the order of account and conid.

    An unknown quantity is NaN, which equals nothing: it is neither zero nor an absence.

    Args:
        holdings: Rows of `broker_positions`.
        latest: The newest row of each holding.
        now: The current time.
    """
    quantity = pl.col("position").fill_null(math.nan)
    ours = confirmations.with_confirmed(latest, holdings, now).select(
        *_KEY, _symbol="symbol", ours=quantity, confirmed_at=confirmations.CONFIRMED
    )
    pairs = (
        holdings.select(*_KEY, "symbol", held=quantity)
        .join(ours, on=_KEY, how="full", coalesce=True)
        .select(*_KEY, pl.coalesce("symbol", "_symbol"), "held", "ours", "confirmed_at")
        .sort(_KEY)
    )
    return [reconciliation.Pair._make(row) for row in pairs.iter_rows()]
