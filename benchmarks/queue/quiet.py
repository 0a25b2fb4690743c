"""Rows of the ledger an hour for monitored holdings whose values do not change."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from benchmarks.bench import Bench
from benchmarks.outcome import Line
from benchmarks.queue.values import FIRST_CONID
from benchmarks.timing import median
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.holding import BrokerPosition, Completeness
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus, Reason
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain import drain
from tests.support.settings import make_settings

LEGS = 5_000

ACCOUNT = "DUSIM0001"


class Hours:
    """A clock that is set by hand, and goes on from there as usual."""

    def __init__(self) -> None:
        self._ahead = timedelta(hours=-6)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def set(self, at: datetime) -> None:
        """Go on from a moment."""
        self._ahead = at - datetime.now(UTC)


def quiet(bench: Bench) -> None:
    """Publish, queue and drain 5,000 unchanged holdings at each refresh of two hours."""
    legs, hours = bench.size((LEGS, 2), (100, 1))
    settings = make_settings(gateway_port=7497, drain_time_limit_s=600.0)
    clock = Hours()
    lake = MoneyLake(bench.new_folder("quiet"), clock=clock)
    took = asyncio.run(_refreshes(lake, settings, clock, legs, hours))
    # Every holding has its first row at the first refresh; what counts is what follows.
    since_s = (len(took) - 1) * settings.refresh_interval_s
    rows = (lake.updates.sync.count() - legs) * 3600 / since_s
    requests = lake.queue.sync.counts()[QueueStatus.SUCCESS] / hours
    state = f"{legs:,} legs, {requests:,.0f} requests an hour"
    bench.report.add(
        "Quiet holdings",
        [
            Line(what="rows of the ledger an hour", state=state, ours=rows, unit="rows"),
            Line(
                what="drain of all legs, as by a new process",
                state=state,
                ours=median(took),
                samples=len(took),
            ),
        ],
    )


async def _refreshes(
    lake: MoneyLake, settings: Settings, clock: Hours, legs: int, hours: int
) -> list[float]:
    """Return how long each drain took, in milliseconds."""
    took = []
    await lake.initialize()
    began = clock()
    session = lake.sessions.acquire(
        settings.gateway_id, Owner.REFRESH, lease_s=1.0, run_id=None, host="h", pid=1
    )
    for number in range(int(hours * 3600 / settings.refresh_interval_s)):
        clock.set(began + timedelta(seconds=number * settings.refresh_interval_s))
        now = clock()
        holdings = [_holding(settings, FIRST_CONID + leg, began, now) for leg in range(legs)]
        lake.broker_positions.replace(settings.gateway_id, holdings, session=session)
        await lake.queue.insert_many(
            QueueRequest(h.instrument.conid, "SPY", account=ACCOUNT, reason=Reason.REFRESH)
            for h in holdings
        )
        clock.set(now + timedelta(seconds=2))  # the lease is over: nobody owns the login
        fresh = MoneyLake(lake.path, clock=clock)  # each drain is a process of its own
        started = time.perf_counter()
        report = await drain(fresh, settings, clock=clock)
        took.append((time.perf_counter() - started) * 1e3)
        assert report.succeeded == legs, report
    return took


def _holding(
    settings: Settings, conid: int, valued_at: datetime, confirmed_at: datetime
) -> BrokerPosition:
    return BrokerPosition(
        gateway_id=settings.gateway_id,
        account=ACCOUNT,
        instrument=Instrument(conid=conid, symbol="SPY", sec_type="OPT", currency="USD"),
        position=1.0,
        average_cost=100.0,
        market_price=1.5,
        market_value=150.0,
        unrealized_pnl=50.0,
        value_source=ValueOrigin.PORTFOLIO,
        value_time=confirmed_at,
        received_at=confirmed_at,
        position_time=valued_at,
        confirmed_at=confirmed_at,
        snapshot_id="s",
        completeness=Completeness.COMPLETE,
    )
