"""A host whose clock was ahead, and is right again: what is newest, current, and said of it."""

from datetime import timedelta

import polars as pl
import pytest
import time_machine

from position_sync_dagster.domain.clock import SKEW, utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import ClockSetBackError
from position_sync_dagster.money.campaigns.closes_of_strategies import read_closes
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import read_figures
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.money.tables import DividendSource, ExpectedDividend
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.stream.position_changes import changes_between
from tests.support.booked_legs import PUT, leg
from tests.support.clock import HandClock
from tests.support.holdings import make_holding
from tests.support.streams import Service, eventually, settings_for, simulate

HELD = 9
AHEAD = pytest.mark.parametrize(
    "ahead", [timedelta(days=365), timedelta(hours=1)], ids=["year", "hour"]
)


@AHEAD
async def test_after_a_clock_that_was_ahead_the_book_is_current_again_with_the_next_stream(
    lake, ahead
):
    await lake.registry.add_active(**leg(PUT))

    async def current(service: Service) -> bool:
        """Drain, and return whether each holding is current."""
        await drain(lake, service.settings)
        return read_figures(lake, service.settings, utc_now()).current == HELD

    right = utc_now()
    async with simulate(pnl_interval_s=0.1) as sim:
        settings = settings_for(sim, account_interval_s=0.3)
        with time_machine.travel(right + ahead):
            service = Service(lake, settings, complete=with_money)
            await eventually(lambda: current(service))
            rows_ahead = lake.updates.sync.count()

        with pytest.raises(ClockSetBackError):
            await service.task
        rows_ahead_at_end = lake.updates.sync.between(right + SKEW, right + 2 * ahead).height
        assert rows_ahead_at_end >= rows_ahead >= HELD

        service = Service(lake, settings, complete=with_money)
        await service.reaches(SessionState.LIVE)
        await eventually(lambda: current(service))
        now = utc_now()
        newest = lake.updates.sync.latest()
        assert newest.height == HELD
        assert newest.filter(pl.col("timestamp") > now + SKEW).is_empty()

        [named] = [text for text in read_status(lake, settings, now).hints if "clock" in text]
        assert f"{rows_ahead_at_end} rows of position_updates are dated up to" in named
        assert "0 open holdings have none yet" in named
        assert (await service.end()).rows > 0
    assert lake.updates.sync.as_of(right - SKEW).is_empty()


@AHEAD
def test_dividends_and_scenarios_of_a_clock_that_was_ahead_are_not_the_newest(lake, ahead):
    clock = HandClock()
    lake = MoneyLake(lake.path, clock=clock)
    right = clock.now
    for at, number in ((right + ahead, 1.0), (right, 2.0)):
        clock.now = at
        lake.dividends.add(
            [
                ExpectedDividend(
                    conid=1, symbol="SPY", source=DividendSource.STATED, amount=number, seen_at=at
                )
            ]
        )
        scenario = {"strategy_id": "s", "account": "A", "currency": "USD", "scenario": "up"}
        zeros = dict.fromkeys(("spot", "vol", "days", "value", "left_out"), 0)
        made = {"made_at": at, "date": at.date(), "profit": number}
        lake.risk_scenarios.record([scenario | zeros | made])
        assert [dividend.amount for dividend in lake.dividends.current()] == [number]
        assert lake.risk_scenarios.latest().get_column("profit").to_list() == [number]


@AHEAD
def test_a_change_of_a_clock_that_was_ahead_is_not_the_last_of_its_holding(lake, ahead):
    now = utc_now()
    lake.registry.sync.add_active(**leg(PUT, account="A"))
    opened = make_holding(PUT, now + ahead, position=5.0)
    closed = make_holding(PUT, now, position=0.0)
    for before, after in ((None, opened), (opened, closed)):
        published = {opened.key: before} if before else {}
        changes = changes_between(published, {opened.key: after}, {"A": now})
        lake.position_changes.add(changes)

    assert list(read_closes(lake).ends[PUT]) == ["A"]
