"""Reconciliation: compare the broker's holdings with the newest rows and the registry.

What becomes of a difference, as that it is confirmed, is decided in `domain/reconciliation.py`.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from operator import attrgetter

import polars as pl
from polars import DataFrame, col, lit, when

from position_sync_dagster.domain.clock import Clock, is_recent, utc_now
from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.holding import KEY, BrokerPosition, Key, grouped
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import NEGLIGIBLE_QUANTITY, ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.domain.reconciliation import (
    Break,
    Discrepancy,
    DiscrepancyType,
    ReconciliationResult,
)
from position_sync_dagster.errors import PositionSyncError, fault_of
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.lake.schema import moment, rows_of_positions, update_rows
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync import confirmations
from position_sync_dagster.sync.broker_view import Coverage, LakeValues, ValueSource
from position_sync_dagster.sync.confirmations import CONFIRMED, STALE_AFTER, with_confirmed

logger = logging.getLogger(__name__)

# The gateway_id of breaks of legs without an account, if a gateways file names the accounts of each
# login.
WITHOUT_LOGIN = "(strategies)"


# How long values may be old after the owner of their login became LIVE: after an outage of more
# than STALE_AFTER all are, until they are confirmed again.
CONFIRMED_WITHIN = timedelta(minutes=1)


class PositionReconciler:
    """Compares a broker snapshot with the newest rows and the active legs.

    Args:
        stale_after: Age of a row from which it is STALE.

    Example:
        result = PositionReconciler().reconcile(snapshot, latest, legs, complete=True)
        for discrepancy in result.discrepancies:
            print(discrepancy.type, discrepancy.conid, discrepancy.detail)
    """

    def __init__(self, *, stale_after: timedelta = STALE_AFTER, clock: Clock = utc_now) -> None:
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
        """Return every difference between the snapshot, the rows and the legs; for library users.

        Args:
            complete: Whether the snapshot covers every account. If not, a missing holding is no
                difference.
            details: The known contract details by conid; each leg is compared with them.
        """
        return reconciled(
            rows_of_positions(snapshot, None),
            update_rows(list(latest)),
            [leg for leg in legs if leg.removed_at is None],
            Coverage(complete=complete),
            details or {},
            now=self._clock(),
            stale_after=self._stale_after,
        )


def reconciled(
    holdings: DataFrame,
    latest: DataFrame,
    legs: Sequence[ActiveContract],
    coverage: Coverage,
    details: Mapping[int, ContractDetails],
    *,
    now: datetime,
    stale_after: timedelta,
) -> ReconciliationResult:
    """Compare what the broker holds with the rows and the registry.

    Args:
        holdings: Rows of `broker_positions`.
        latest: The newest row of each holding.
        legs: The active legs of strategies.
        coverage: Which accounts the holdings cover.
        details: The known contract details by conid; each leg is compared with them.
        now: The time of the comparison.
        stale_after: Age of a value from which it is STALE.
    """
    # An unknown quantity is NaN: it is neither zero nor an absence, and no two of them agree.
    quantity = col.position.fill_null(math.nan)
    ours = with_confirmed(latest, holdings, now).select(
        *KEY, _symbol="symbol", ours=quantity, confirmed_until=CONFIRMED
    )
    of_broker = holdings.select(*KEY, "symbol", held=quantity)
    joined = of_broker.join(ours, on=KEY, how="full", coalesce=True)
    symbol = pl.coalesce("symbol", "_symbol")
    pairs = joined.select(*KEY, symbol, "held", "ours", CONFIRMED).sort(KEY)

    is_claimed = col.conid.is_in([leg.conid for leg in legs])
    claimed = pairs.filter(is_claimed).drop_nulls("held")
    held = dict(zip(claimed.select(KEY).iter_rows(), claimed["held"], strict=True))
    discrepancies = [
        *_differences(pairs, coverage, now, stale_after),
        *_overclaimed(held, legs, complete=coverage.complete),
        *_mismatched(legs, details),
    ]
    return ReconciliationResult(
        at=now,
        complete=coverage.complete,
        checked=pairs.height,
        discrepancies=tuple(discrepancies),
    )


class ReconciliationService:
    """Reconciles the lake with the broker's current data, and records the breaks.

    Args:
        lake: The tables; by default those that the environment names.
        settings: By default as the environment says.
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
        self._task: asyncio.Task[None] | None = None  # from `start` to `stop`
        self._settings = settings = settings or load_settings()
        self._lake = lake = lake or Lake.of(settings, clock=clock)
        self._values = values
        # What the tables say of the holdings; it counts where `values` is not given.
        self._published = LakeValues(lake, settings, clock=clock)
        self._clock = clock

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
        """Reconcile once per interval until cancelled; an outage is logged once."""
        outage = OutageLog(logger)
        while True:
            try:
                result = await self.run()
                outage.fault = None
                logger.info("%d differences", len(result.discrepancies))
            except PositionSyncError as error:
                outage.report(fault_of(error), text=str(error))
            await asyncio.sleep(self.interval)

    async def run(self, run_id: str | None = None) -> ReconciliationResult:
        """Compare, record the breaks of each login in one commit, and return the result.

        The check `agrees_with_the_broker` calls it, also in ticks.

        Discrepancies that a person has accepted are counted apart, and those that were first seen
        only now are named as unconfirmed: see `ReconciliationResult.judged_by`.

        A login without current data is not compared, and its breaks do not change. Neither do
        those of absent holdings whose account is not covered, and STALE ones of an account whose
        owner has just become LIVE (`just_live`): its values had no time to be confirmed.

        Raises:
            BrokerUnavailableError: The broker's data is not current; no break was changed.
        """
        result, holdings, coverage, just_live = await self._compare()
        # Which download of each login was compared.
        snapshots = holdings.group_by("gateway_id").agg(col.snapshot_id.first())
        # Nearly always no break is open, and no key of a holding is made.
        held = cache(lambda: set(holdings.select(KEY).iter_rows()))
        await offload(
            self._lake.breaks.record,
            _by_login(result.discrepancies, self._settings),
            result.at,
            compared=lambda recorded: (
                _is_compared(recorded, held(), coverage)
                and not _may_be_confirmed(recorded, just_live)
            ),
            snapshots=dict(snapshots.iter_rows()),
            run_id=run_id,
        )
        return result.judged_by(self._lake.breaks.open_breaks())

    async def look(self) -> ReconciliationResult:
        """Compare as `run` does, without a write.

        Raises:
            BrokerUnavailableError: The broker's data is not current.
        """
        result, *_ = await self._compare()
        return result.judged_by(self._lake.breaks.open_breaks())

    async def _compare(
        self,
    ) -> tuple[ReconciliationResult, DataFrame, Coverage, set[str]]:
        """Return the result, the broker's holdings, which accounts they cover, and new ones.

        New are the accounts whose login is LIVE for a moment only: their old values are no
        difference yet, since they may still be confirmed.
        """
        holdings, coverage = await self._holdings()
        await self._lake.registry.refresh()
        has_wanted_type = col.sec_type.is_in(self._settings.sec_types)
        holdings = holdings.filter(has_wanted_type)
        covered_logins = [
            login.gateway_id
            for login in self._settings.logins
            if not login.accounts or not coverage.unavailable.issuperset(login.accounts)
        ]

        newest = rows_of_logins(await self._lake.updates.latest(), self._settings)
        latest = newest.filter(
            col.gateway_id.is_in(covered_logins),
            ~col.account.is_in(list(coverage.unavailable)),
            # The ledger may have rows of other types, from before a change of the setting.
            has_wanted_type.fill_null(value=True),
        )
        latest = await offload(self._dated_by_answers, latest)

        legs = self._lake.registry.legs
        details = await offload(self._lake.contracts.get, {leg.conid for leg in legs})
        result = reconciled(
            holdings,
            latest,
            legs,
            coverage,
            details,
            now=self._clock(),
            stale_after=confirmations.STALE_AFTER,
        )
        just_live = await offload(self._accounts_just_live, holdings, result.at)
        lasting = tuple(
            difference
            for difference in result.discrepancies
            if not _may_be_confirmed(difference, just_live)
        )
        return replace(result, discrepancies=lasting), holdings, coverage, just_live

    def _dated_by_answers(self, latest: DataFrame) -> DataFrame:
        """Return rows dated no earlier than they were confirmed as answers to requests; blocks.

        A value that stays the same is not written again: its older row answers the next request. If
        the broker has sent another one since, which the next request writes, `broker_positions`
        confirms the row no more, and the queue alone says until when it was confirmed.
        """
        now = self._clock()
        answers = self._lake.queue.sync.confirmations(now - confirmations.STALE_AFTER, now)
        times = [
            pl.max_horizontal(name, "confirmed_at").alias(name)
            for name in ("timestamp", "value_time")
        ]
        return latest.join(answers, on="update_id", how="left").with_columns(times)

    def _accounts_just_live(self, holdings: DataFrame, at: datetime) -> set[str]:
        """Return the accounts whose owner became LIVE less than CONFIRMED_WITHIN ago; blocks."""
        if self._values is not None:  # not of the tables: a connection has its own values
            return set()
        names = [login.gateway_id for login in self._settings.logins]
        just_live = [
            session.gateway_id
            for session in self._lake.sessions.current_of(names).values()
            if is_recent(session.state_since, CONFIRMED_WITHIN, at)
        ]
        return set(holdings.filter(col.gateway_id.is_in(just_live))["account"])

    async def _holdings(self) -> tuple[DataFrame, Coverage]:
        """Return the broker's current holdings, and which accounts they cover."""
        if self._values is None:
            return await self._published.rows()
        view = await self._values.view()
        return rows_of_positions(view.holdings.values(), None), view  # a view is a Coverage too


def _may_be_confirmed(difference: Break | Discrepancy, just_live: Collection[str]) -> bool:
    """Return whether a STALE value may only be old because its owner has just become LIVE."""
    return difference.type is DiscrepancyType.STALE and difference.account in just_live


# The types of breaks that are looked for here; other comparisons have others.
LOOKED_FOR = (
    DiscrepancyType.MISSING,
    DiscrepancyType.SURPLUS,
    DiscrepancyType.QUANTITY,
    DiscrepancyType.STALE,
    DiscrepancyType.LEG_QUANTITY,
    DiscrepancyType.LEG_MISMATCH,
)


def _is_compared(brk: Break, held: Collection[Key], coverage: Coverage) -> bool:
    """Return whether a break would have been found again if it was still there.

    Args:
        brk: An open break; without an account it is of all accounts together.
        held: The holdings of the broker.
        coverage: Which accounts they cover.
    """
    if brk.type not in LOOKED_FOR:
        return False
    # A mismatch is one of a leg and its contract, whatever is held.
    if brk.type is DiscrepancyType.LEG_MISMATCH or (brk.account, brk.conid) in held:
        return True
    return coverage.covers(brk.account or None)


def _by_login(
    discrepancies: Iterable[Discrepancy], settings: Settings
) -> dict[str, list[Discrepancy]]:
    """Return the discrepancies by the `gateway_id` under which their breaks are recorded.

    A gateways file names the accounts of each: those of legs without an account, or of an account
    of no login, are under WITHOUT_LOGIN then. Without that file, all are of the one login.
    """
    login_of = {
        account: login.gateway_id for login in settings.logins for account in login.accounts or ()
    }

    without_login = WITHOUT_LOGIN if login_of else settings.logins[0].gateway_id
    return grouped(
        lambda discrepancy: login_of.get(discrepancy.account, without_login), discrepancies
    )


_DETAILS = {
    DiscrepancyType.MISSING: "held at the broker, no row",
    DiscrepancyType.SURPLUS: "not held at the broker",
    DiscrepancyType.QUANTITY: "quantities differ",
}


def _differences(
    pairs: DataFrame, coverage: Coverage, now: datetime, stale_after: timedelta
) -> Iterable[Discrepancy]:
    """Yield where a holding of the broker differs from its newest row, the first kind that applies.

    That the broker does not list a holding says something only where its account is covered.

    Args:
        pairs: The holdings of either side: the quantity of the broker (`held`) and of the newest
            row (`ours`), null where a side lacks it, and CONFIRMED of that row.
        coverage: Which accounts the broker's holdings cover.
        now: The time of the comparison.
        stale_after: Age of a value from which it is STALE.
    """
    covered = [account for account in pairs["account"].unique() if coverage.covers(account)]
    comparable = pairs.filter(col.held.is_not_null() | col.account.is_in(covered))
    is_fresh = col(CONFIRMED) >= moment(now - stale_after)

    held = col.held.fill_null(0.0)  # a holding that the broker does not list
    ours = col.ours
    is_missing = ours.is_null() & (held != 0)
    is_surplus = (held == 0) & (ours != 0)
    has_another_quantity = (held != ours) | held.is_nan()  # for Polars NaN equals itself
    is_stale = ours.is_not_null() & (held != 0) & ~is_fresh.fill_null(value=False)

    kind_of_difference = (
        when(is_missing)
        .then(lit("MISSING"))
        .when(is_surplus)
        .then(lit("SURPLUS"))
        .when(has_another_quantity)
        .then(lit("QUANTITY"))
        .when(is_stale)
        .then(lit("STALE"))
    )
    differing = comparable.with_columns(held, kind=kind_of_difference).drop_nulls("kind")
    for row in differing.to_dicts():
        confirmed_until = row[CONFIRMED]
        age = "the row's time lies in the future: its age is unknown"
        if confirmed_until is not None:
            age = f"the value is {(now - confirmed_until).total_seconds():.0f} s old"

        kind = DiscrepancyType(row["kind"])
        detail = _DETAILS.get(kind, age)
        yield Discrepancy(
            kind, row["account"], row["conid"], row["symbol"], row["held"], row["ours"], detail
        )


def _overclaimed(
    positions: Mapping[Key, float], legs: Iterable[ActiveContract], *, complete: bool
) -> Iterable[Discrepancy]:
    """Yield where strategies claim more than is held: in an account, then in all of them together.

    All accounts together have the name "". They are compared if every account is covered, and only
    for contracts with a leg without an account; the claims of legs with an account count too.
    """
    held = defaultdict[Key, float](float, positions)
    for (_account, conid), position in positions.items():
        held[ALL_ACCOUNTS, conid] += position

    claiming = [leg for leg in legs if leg.quantity is not None]
    in_any_account = {leg.conid for leg in claiming if complete and leg.account is None}
    of_account = [leg for leg in claiming if leg.account is not None]
    of_any = [leg for leg in claiming if leg.conid in in_any_account]
    claims = [
        *sorted(grouped(attrgetter("account", "conid"), of_account).items()),
        *sorted(grouped(lambda leg: (ALL_ACCOUNTS, leg.conid), of_any).items()),
    ]
    for (account, conid), legs_of_key in claims:
        quantity = held[account, conid]
        claimed = sum(leg.quantity or 0.0 for leg in legs_of_key)

        is_too_much = abs(claimed) > abs(quantity) * (1 + NEGLIGIBLE_QUANTITY)
        is_opposite = claimed * quantity < 0
        # A leg of what is not held waits for its fill: that is no difference.
        if abs(quantity) <= NEGLIGIBLE_QUANTITY or not (is_too_much or is_opposite):
            continue

        place = "all accounts hold" if account == ALL_ACCOUNTS else "is held"
        yield Discrepancy(
            DiscrepancyType.LEG_QUANTITY,
            account,
            conid,
            legs_of_key[0].symbol,
            quantity,
            claimed,
            f"strategies claim more than {place}",
        )


# The name of all accounts together.
ALL_ACCOUNTS = ""


def _mismatched(
    legs: Iterable[ActiveContract], details: Mapping[int, ContractDetails]
) -> Iterable[Discrepancy]:
    """Yield where legs differ from the contract of their conid, once for each contract."""
    mismatches = {
        leg: mismatch
        for leg in legs
        if (mismatch := contract_mismatch(leg, details.get(leg.conid)))
    }
    by_key = grouped(lambda leg: (leg.account or ALL_ACCOUNTS, leg.conid), mismatches)
    for key, of_key in sorted(by_key.items()):
        yield Discrepancy(
            DiscrepancyType.LEG_MISMATCH,
            *key,
            of_key[0].symbol,
            expected=None,
            actual=None,
            detail="; ".join(f"strategy {leg.strategy_id}: {mismatches[leg]}" for leg in of_key),
        )
