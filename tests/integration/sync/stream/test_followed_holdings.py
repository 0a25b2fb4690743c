"""Holdings without a line that PnLSingle follows: values seconds old, and unkind gateways."""

from contextlib import asynccontextmanager
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.position_update import Source, ValueOrigin
from position_sync_dagster.sync.broker_view import BrokerView
from position_sync_dagster.sync.drain import QueueWorker
from tests.support.booked_legs import PUT, A, B
from tests.support.streams import eventually, holding, published, requests

SPX_PUT = 921000006
FUTURE = 920000002
IN_CENTS = 921000004
OPEN = 9
STILL = {"autostep": True, "tick_interval_s": 3600.0}


@pytest.fixture
def following(stream_legs):
    """Stream the small book without an active leg, with short intervals."""

    @asynccontextmanager
    async def run(prepare=None, *, simulator=None, **settings):
        usual = dict(
            line_silence_s=0.5, account_quiet_s=0.5, refresh_interval_s=0.5,
            monitored_move_amount=0.01, publish_s=0.1, moved_interval_s=0.2,
            followed_s=0.5,
        )  # fmt: skip
        simulator = {"pnl_interval_s": 0.1} | (simulator or {})
        legs = stream_legs(prepare=prepare, simulator=simulator, **usual | settings)
        async with legs as (sim, streamer, _received):
            yield sim, streamer

    return run


@pytest.fixture
def drain(lake):
    """Drain what a stream without a lease published; return the newest row of each holding."""

    async def once(streamer):
        view = BrokerView(holdings=published(lake, streamer.settings), complete=True)
        values = SimpleNamespace(view=AsyncMock(return_value=view))
        worker = QueueWorker(
            lake.queue, values=values, updates=lake.updates, settings=streamer.settings
        )
        await worker.drain(10.0)
        rows = await lake.updates.latest()
        return {(row["account"], row["conid"]): row for row in rows.iter_rows(named=True)}

    return once


def by_pnl(row):
    return row.value_source is ValueOrigin.PNL_SINGLE and row.followed and row.daily_pnl is not None


def by_portfolio(row):
    return row.value_source is ValueOrigin.PORTFOLIO and row.market_value is not None


async def drained_with(column, drain, streamer, key):
    """Drain until the row of a holding has a value in this column; return the row."""

    async def found():
        row = (await drain(streamer)).get(key)
        if row and row[column] is not None:
            return row

        return None

    return await eventually(found)


async def test_a_monitored_holding_has_a_value_and_a_daily_profit_without_a_line(
    following, lake, drain
):
    async with following() as (sim, streamer):
        row = await holding(lake, streamer, (A, PUT), by_pnl)
        assert row.unrealized_pnl is not None
        await eventually(lambda: sim.stats()["pnl_subscriptions"] == OPEN)

        row = await drained_with("daily_pnl", drain, streamer, (A, PUT))
        assert row["source"] == Source.QUEUE
        assert row["value_source"] == ValueOrigin.PNL_SINGLE
        assert row["unrealized_pnl"] is not None
        assert sim.stats()["peak_lines"] == 0


@pytest.mark.parametrize("answer", ["unset", "closed", "other"])
async def test_a_message_that_cannot_count_changes_nothing_and_is_asked_for_again(
    following, lake, answer
):
    async with following() as (sim, streamer):
        before = await holding(lake, streamer, (A, PUT), by_pnl)
        asked = requests(sim, "reqPnLSingle")
        sim.position_pnl(A, PUT, answer)
        row = await holding(lake, streamer, (A, PUT), by_portfolio)
        assert row.position == before.position
        assert row.followed is False
        await eventually(lambda: requests(sim, "reqPnLSingle") > asked)
        sim.position_pnl(A, PUT, "values")
        await holding(lake, streamer, (A, PUT), by_pnl)


async def test_a_silent_subscription_leaves_the_value_to_the_account_feed_and_is_asked_again(
    following, lake
):
    async with following() as (sim, streamer):
        await holding(lake, streamer, (A, PUT), by_pnl)
        asked = requests(sim, "reqPnLSingle")
        sim.position_pnl(A, PUT, "ended")
        sim.position_pnl(A, PUT, "silent")  # until the other value has been seen
        sim.pin_quote(PUT, bid=39.9, ask=40.1, mark=40.0)
        row = await holding(lake, streamer, (A, PUT), by_portfolio)
        assert row.daily_pnl is None
        await eventually(lambda: requests(sim, "reqPnLSingle") > asked)
        sim.position_pnl(A, PUT)
        await holding(lake, streamer, (A, PUT), by_pnl)


async def test_after_1102_the_daily_profit_of_before_does_not_count_until_it_comes_again(
    following, lake
):
    async with following(line_silence_s=2.0) as (sim, streamer):
        await holding(lake, streamer, (A, PUT), by_pnl)
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        sim.position_pnl(A, None, "ended")
        sim.position_pnl(A, PUT, "silent")  # until it has been seen that the profit is gone
        sim.connectivity("restored_data_kept")
        await holding(lake, streamer, (A, PUT), lambda row: row.daily_pnl is None)
        sim.position_pnl(A, PUT)
        await holding(lake, streamer, (A, PUT), by_pnl)
        await eventually(lambda: streamer.detail is None)


@pytest.mark.parametrize("refused", [True, False])
async def test_what_a_gateway_does_not_follow_is_valued_by_its_portfolio_rows_and_asked_again(
    following, lake, refused
):
    limited = lambda sim: sim.position_pnl_limit(3, refused)  # noqa: E731
    async with following(limited) as (sim, streamer):
        await holding(lake, streamer, (B, FUTURE), by_pnl)
        row = await holding(lake, streamer, (A, PUT), by_portfolio)
        assert not row.followed
        sim.position_pnl_limit(None)
        await eventually(lambda: sim.stats()["pnl_subscriptions"] == OPEN)
        await holding(lake, streamer, (A, PUT), by_pnl)


async def test_an_account_without_portfolio_rows_is_valued_by_its_profit_subscriptions(
    following, lake, drain
):
    without = lambda sim: sim.portfolio_rows(B, sent=False)  # noqa: E731
    async with following(without) as (_sim, streamer):
        row = await holding(
            lake, streamer, (B, SPX_PUT), lambda row: by_pnl(row) and row.market_price
        )
        assert row.market_price == pytest.approx(row.market_value / row.position / 100)

        row = await drained_with("market_value", drain, streamer, (B, SPX_PUT))
        assert row["value_source"] == ValueOrigin.PNL_SINGLE
        assert row["price_kind"] == "VALUE"
        assert row["daily_pnl"] is not None


async def test_a_subscription_that_ends_in_an_account_without_portfolio_rows_is_requested_again(
    following, lake
):
    without = lambda sim: sim.portfolio_rows(B, sent=False)  # noqa: E731
    async with following(without, profit_silence_s=0.5) as (sim, streamer):
        await holding(lake, streamer, (B, SPX_PUT), by_pnl)
        sim.position_pnl(B, SPX_PUT, "ended")
        sim.position_pnl(B, SPX_PUT)
        sim.pin_quote(SPX_PUT, bid=39.9, ask=40.1, mark=40.0)
        await holding(lake, streamer, (B, SPX_PUT), lambda row: row.market_value == 4000)
