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
from position_sync_dagster.domain.clock import Clock, elapsed, utc_now
from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.holding import BrokerPosition, Key, grouped
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import NEGLIGIBLE, ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.breaks import break_key
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.lake.schema import broker_rows, moment, update_rows
from position_sync_dagster.lake.storage.table import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync import confirmations
from position_sync_dagster.sync.drain import Coverage, LakeValues, ValueSource

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
        rows = update_rows(list(latest))
        coverage = Coverage(complete=complete)
        return self._compare(broker_rows(snapshot, None), rows, legs, coverage, details or {})

    def _compare(
        self,
        holdings: pl.DataFrame,
        latest: pl.DataFrame,
        legs: Iterable[ActiveContract],
        coverage: Coverage,
        details: Mapping[int, ContractDetails],
    ) -> reconciliation.ReconciliationResult:
        """Compare what the broker holds with the rows and the registry.

        Args:
            holdings: Rows of `broker_positions`.
            latest: The newest row of each holding.
            legs: The legs of strategies.
            coverage: Which accounts the holdings cover.
            details: As in `reconcile`.
        """
        now, legs = self._clock(), [leg for leg in legs if leg.removed_at is None]
        # An unknown quantity is NaN, which equals nothing: it is neither zero nor an absence.
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
        is_claimed = pl.col("conid").is_in([leg.conid for leg in legs])
        of_legs = pairs.filter(is_claimed).drop_nulls("held")
        held = {(account, conid): at for account, conid, at in of_legs[*_KEY, "held"].iter_rows()}
        return reconciliation.ReconciliationResult(
            at=now,
            complete=coverage.complete,
            checked=pairs.height,
            discrepancies=(
                *_differences(pairs, coverage, now, self._stale_after),
                *_overclaimed(held, legs, complete=coverage.complete),
                *_mismatched(legs, details),
            ),
        )


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
        stale_after = timedelta(seconds=settings.stale_after_s)
        self._reconciler = PositionReconciler(stale_after=stale_after, clock=clock)

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
        legs = self._lake.registry.legs
        details = await offload(self._lake.contracts.get, {leg.conid for leg in legs})
        result = self._reconciler._compare(holdings, latest, legs, coverage, details)
        return result, holdings, coverage

    def _judged(
        self, result: reconciliation.ReconciliationResult
    ) -> reconciliation.ReconciliationResult:
        known = {break_key(one): one for one in self._lake.breaks.open_breaks()}
        found = [(one, known.get(break_key(one))) for one in result.discrepancies]
        accepted = reconciliation.BreakState.ACCEPTED
        left = [(one, of) for one, of in found if of is None or of.state is not accepted]
        return replace(
            result,
            discrepancies=tuple(one for one, _of in left),
            accepted=len(found) - len(left),
            unconfirmed=tuple(
                one for one, of in left if of and elapsed(of.opened_at, result.at) < CONFIRM_AFTER
            ),
        )

    async def _holdings(self) -> tuple[pl.DataFrame, Coverage]:
        """Return the broker's current holdings, and which accounts they cover."""
        if self._values is None:
            return await self._published.rows()
        view = await self._values.view()
        return broker_rows(view.holdings.values(), None), view


# The types of breaks that other comparisons find.
_OF_OTHERS = (DiscrepancyType.STATEMENT, DiscrepancyType.UNEXPLAINED)


def _is_compared(one: reconciliation.Break, held: Collection[Key], coverage: Coverage) -> bool:
    """Return whether a break would have been found again if it was still there.

    Args:
        one: An open break; without an account it is of all accounts together.
        held: The holdings of the broker.
        coverage: Which accounts they cover.
    """
    if one.type in _OF_OTHERS:
        return False
    if one.type is DiscrepancyType.LEG_MISMATCH or (one.account, one.conid) in held:
        return True
    return coverage.covers(one.account or None)


def _by_login(
    discrepancies: Iterable[Discrepancy], settings: Settings
) -> dict[str, list[Discrepancy]]:
    """Return the discrepancies by login; with several logins, OF_STRATEGIES has the rest."""
    login_of = {name: one.gateway_id for one in settings.logins for name in one.accounts or ()}
    others = OF_STRATEGIES if login_of else settings.logins[0].gateway_id
    return grouped(lambda one: login_of.get(one.account, others), discrepancies)


_DETAILS = {
    DiscrepancyType.MISSING: "held at the broker, no row",
    DiscrepancyType.SURPLUS: "not held at the broker",
    DiscrepancyType.QUANTITY: "quantities differ",
}


def _differences(
    pairs: pl.DataFrame, coverage: Coverage, now: datetime, stale_after: timedelta
) -> Iterable[Discrepancy]:
    """Yield where a holding of the broker differs from its newest row."""
    held, ours = pl.col("held").fill_null(0.0), pl.col("ours")
    absent = [one for one in pairs.get_column("account").unique() if coverage.covers(one)]
    is_absence_known = pl.col("held").is_not_null() | pl.col("account").is_in(absent)
    is_fresh = pl.col("confirmed_at") >= moment(now - stale_after)
    differs = (
        pl.when(ours.is_null() & (held != 0))
        .then(pl.lit("MISSING"))
        .when((held == 0) & (ours != 0))
        .then(pl.when(is_absence_known).then(pl.lit("SURPLUS")))
        .when((held != ours) | held.is_nan())
        .then(pl.lit("QUANTITY"))
        .when(ours.is_not_null() & (held != 0) & ~is_fresh.fill_null(value=False))
        .then(pl.lit("STALE"))
    )
    found = pairs.with_columns(held, kind=differs).drop_nulls("kind")
    for account, conid, symbol, expected, actual, confirmed_at, name in found.iter_rows():
        age = "the row's time lies in the future: its age is unknown"
        if confirmed_at is not None:
            age = f"the value is {(now - confirmed_at).total_seconds():.0f} s old"
        kind = DiscrepancyType(name)
        detail = _DETAILS.get(kind, age)
        yield Discrepancy(kind, account, conid, symbol, expected, actual, detail)


def _overclaimed(
    positions: Mapping[Key, float], legs: Iterable[ActiveContract], *, complete: bool
) -> Iterable[Discrepancy]:
    """Yield where strategies claim more than is held: in an account, then in all of them together.

    All accounts together have the name "". They are compared if every account is covered, and only
    for contracts with a leg without an account; the claims of legs with an account count too.
    """
    claiming = [leg for leg in legs if leg.quantity is not None]
    anywhere = {leg.conid for leg in claiming if complete and leg.account is None}
    held = defaultdict[Key, float](float, positions)
    for (_account, conid), position in positions.items():
        held["", conid] += position
    claims: defaultdict[Key, float] = defaultdict(float)
    symbols: dict[Key, str] = {}
    for leg in claiming:
        for account in (leg.account, "" if leg.conid in anywhere else None):
            if account is not None:
                claims[account, leg.conid] += leg.quantity or 0.0
                symbols.setdefault((account, leg.conid), leg.symbol)
    for key in sorted(claims, key=lambda one: (not one[0], one)):
        there, claimed = held[key], claims[key]
        too_much = abs(claimed) > abs(there) * (1 + NEGLIGIBLE) or claimed * there < 0
        if abs(there) > NEGLIGIBLE and too_much:
            detail = f"strategies claim more than {'is held' if key[0] else 'all accounts hold'}"
            kind = DiscrepancyType.LEG_QUANTITY
            yield Discrepancy(kind, *key, symbols[key], there, claimed, detail)


def _mismatched(
    legs: Iterable[ActiveContract], details: Mapping[int, ContractDetails]
) -> Iterable[Discrepancy]:
    """Yield where legs differ from the contract of their conid, once for each contract."""
    found: dict[Key, list[str]] = defaultdict(list)
    symbols: dict[Key, str] = {}
    for leg in legs:
        if difference := contract_mismatch(leg, details.get(leg.conid)):
            key = (leg.account or "", leg.conid)
            found[key].append(f"strategy {leg.strategy_id}: {difference}")
            symbols.setdefault(key, leg.symbol)
    for key, differences in sorted(found.items()):
        kind, detail = DiscrepancyType.LEG_MISMATCH, "; ".join(differences)
        yield Discrepancy(kind, *key, symbols[key], None, None, detail)
