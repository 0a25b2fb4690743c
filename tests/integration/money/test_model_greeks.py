"""Computed greeks of options without a line: their underlyings' lines, and what readers see."""

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from ib_gateway_simulator import load_book
from ib_gateway_simulator.market.underlying import OptionMarket
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import parse_trading_hours
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.position_update import GreeksSource, Source
from position_sync_dagster.domain.valuation import Provenance, from_portfolio, says_the_same
from position_sync_dagster.money.risk.model_greeks import ModelGreeks, Pace
from position_sync_dagster.sync.stream.contracts import ContractCache
from tests.support.booked_legs import CALL, PUT, STOCK, A, B
from tests.support.streams import eventually, published

FUTURE = 920000002
CORN = 920000003
INDEX = 920000004
CORN_CALL = 921000004
ES_PUT = 921000005
SPX_PUT = 921000006
OPEN = 9
STILL = {"tick_interval_s": 3600.0}
COMPUTED = {(A, CALL), (A, PUT), (A, CORN_CALL), (B, CALL), (B, ES_PUT), (B, SPX_PUT)}


@pytest.fixture
def computing(stream_legs):
    """Stream the small book, at today's prices, with greeks that are computed all the time."""

    @asynccontextmanager
    async def run(*legs, prepare=None, simulator=None, pace=None, **settings):
        book = replace(load_book("small"), as_of=None, option_market=OptionMarket())
        usual = {"underlying_lines": 10, "account_quiet_s": 0.5, "reserved_lines": 0}
        usual |= {"publish_s": 0.1, "followed_s": 0.5}
        quick = dict(prices_s=0.05, batch_s=0.2, first_s=0.1, choose_s=0.5)
        usual["greeks"] = partial(ModelGreeks, pace=Pace(**quick | (pace or {})))
        simulator = {"pnl_interval_s": 0.1} | (simulator or {})
        legs = stream_legs(
            *legs, book=book, prepare=prepare, simulator=simulator, rows=False, **usual | settings
        )
        async with legs as (sim, streamer, _received):  # type: ignore[attr-defined]
            yield sim, streamer

    return run


@pytest.fixture
def greeks(lake):
    """Return the greeks that are published, by holding."""

    def read(streamer):
        rows = published(lake, streamer.settings).values()
        return {row.key: row.greeks for row in rows if row.greeks is not None}

    return read


async def test_options_without_a_line_have_the_greeks_of_the_simulators_market(
    computing, greeks, lake
):
    """A drain writes them with their times, and once for a value."""
    async with computing(simulator=STILL) as (sim, streamer):
        await eventually(lambda: greeks(streamer).keys() >= COMPUTED)
        assert set(sim.stats()["lines_by_conid"]) == {str(c) for c in (STOCK, FUTURE, CORN, INDEX)}
        assert streamer.lines_in_use == 4
        assert streamer.underlying_lines == 4
        greeks_of_model = greeks(streamer)
        for key in COMPUTED:
            computed = greeks_of_model[key]
            truth = sim.greeks(key[1])[key[1]]
            assert computed.delta == pytest.approx(truth["delta"], abs=0.03), key
            assert computed.vega == pytest.approx(truth["vega"], rel=0.1), key
            assert computed.greeks_source is GreeksSource.MODEL
        assert greeks(streamer)[A, CORN_CALL].underlying_price == pytest.approx(450, rel=0.05)
        assert not set(streamer.routes.values()) & {LegState.STREAMED}

        holding = published(lake, streamer.settings)[A, PUT]
        row = from_portfolio(holding, source=Source.QUEUE, now=utc_now(), by=Provenance())
        assert row.greeks_source == GreeksSource.MODEL
        assert row.delta == holding.greeks.delta
        assert row.greeks_method.startswith("AMERICAN, rate 0.04, dividends unknown")
        assert row.greeks_time is not None
        assert row.volatility_time is not None
        assert says_the_same(replace(row, delta=row.delta + 0.1), row)
        assert not says_the_same(replace(row, delta=None, greeks_source=None), row)


async def test_ticks_of_underlyings_alone_show_that_a_reported_loss_of_ib_is_over(
    computing,
):
    async with computing(data_despite_loss_s=0.3) as (sim, streamer):
        await eventually(lambda: streamer.underlying_lines == 4)
        sim.connectivity("reported_lost")
        await eventually(lambda: streamer.counts.reconnects == 1)
        await eventually(lambda: streamer.state is SessionState.LIVE)


async def test_without_a_spare_line_nothing_is_computed_and_the_underlyings_are_named(
    computing, lake, greeks
):
    async with computing(PUT, max_lines=1) as (sim, streamer):
        await eventually(lambda: "the underlying has no price (" in (streamer.greeks or ""))
        await eventually(lambda: lake.contracts.get({STOCK, INDEX}).keys() == {STOCK, INDEX})
        version = lake.broker_positions.table.version
        before = version()
        await eventually(lambda: version() > before + 3)  # it could have computed many times
        assert streamer.lines_in_use == 1
        assert streamer.underlying_lines == 0
        assert not greeks(streamer)
        assert sim.stats()["peak_lines"] == 1


async def test_a_streamer_that_is_used_alone_has_no_line_for_underlyings_and_computes_nothing(
    computing, greeks
):
    async with computing(PUT, underlying_lines=None) as (sim, streamer):
        await eventually(lambda: sim.stats()["pnl_subscriptions"] == OPEN)
        assert sim.stats()["peak_lines"] == 1
        assert streamer.underlying_lines == 0
        assert streamer.greeks is None
        assert not greeks(streamer)


async def test_an_underlying_takes_the_line_of_a_leg_so_that_the_legs_without_one_have_greeks(
    computing, greeks
):
    legs = (CALL, PUT, STOCK, ES_PUT, SPX_PUT)
    async with computing(*legs, max_lines=4, min_hold_s=0.1) as (sim, streamer):
        await eventually(lambda: (streamer.lines_in_use, streamer.underlying_lines) == (4, 1))
        assert streamer.routes[A, CALL] is LegState.STREAMED
        assert streamer.routes[A, PUT] is LegState.STREAMED
        overflow = [key for key, state in streamer.routes.items() if state is LegState.OVERFLOW]
        await eventually(lambda: {*overflow, (A, CORN_CALL)} & greeks(streamer).keys())
        # The stock is a leg and an underlying, with one line.
        assert sim.stats()["lines_by_conid"][str(STOCK)] == 1
        assert sim.stats()["peak_lines"] == 4
        # What the gateway sends for a leg with a line is not computed as well.
        await eventually(lambda: not {(A, CALL), (A, PUT)} & greeks(streamer).keys())


@pytest.mark.parametrize("sent", ["nothing", "zeros"])
async def test_a_streamed_leg_without_greeks_of_the_gateway_has_computed_ones_until_they_come(
    computing, lake, sent
):
    async def source():
        rows = (await lake.updates.latest()).filter(conid=CALL, account=A, source="STREAM")
        if not rows.height:
            return (None, None)

        return rows.select("greeks_source", "greeks_method").row(0)

    def spoil(sim):
        if sent == "zeros":
            sim.model_computed(CALL)
        else:
            sim.ticking(CALL, ["quote", "mark"])

    soon = {"look_s": 0.1, "greeks_within_s": 0.3}
    async with computing(CALL, prepare=spoil, pace=soon) as (sim, streamer):
        await eventually(lambda: streamer.routes.get((A, CALL)) is LegState.STREAMED)

        async def computed():
            return (await source())[0] == "MODEL"

        await eventually(computed)
        (row,) = (await lake.updates.latest()).filter(conid=CALL, account=A).to_dicts()
        assert row["delta"] == pytest.approx(sim.greeks(CALL)[CALL]["delta"], abs=0.03)
        assert row["price_kind"] == "MARK"
        assert row["value_source"] == "TICK"
        assert row["greeks_method"].startswith("AMERICAN")
        sim.ticking(CALL)
        sim.model_computed(CALL, computed=True)

        async def comes():
            return await source() == ("GATEWAY", None)

        await eventually(comes)


async def test_an_underlying_that_stands_still_in_its_session_gives_no_greeks_and_is_named(
    computing, greeks
):
    async with computing(pace={"price_age": timedelta(seconds=1)}) as (sim, streamer):
        await eventually(lambda: greeks(streamer).keys() >= COMPUTED)
        sim.ticking(STOCK, ["model"])  # a stock has none: nothing comes
        of_stock = {(A, CALL), (A, PUT), (B, CALL)}
        await eventually(lambda: not of_stock & greeks(streamer).keys())
        assert (B, SPX_PUT) in greeks(streamer)
        await eventually(lambda: "older than a minute in its session (AAPL)" in streamer.greeks)
        sim.ticking(STOCK)
        await eventually(lambda: greeks(streamer).keys() >= COMPUTED)


async def test_greeks_by_a_price_from_outside_the_session_of_the_underlying_have_no_time(
    computing, greeks, monkeypatch
):
    today = utc_now().date()
    days = (f"{today + timedelta(days=n):%Y%m%d}:CLOSED" for n in (-1, 0, 1))
    closed = parse_trading_hours(";".join(days), "UTC")
    hours = ContractCache.hours
    monkeypatch.setattr(
        ContractCache, "hours", lambda self, c: closed if c == STOCK else hours(self, c)
    )
    async with computing() as (_sim, streamer):
        await eventually(lambda: greeks(streamer).keys() >= COMPUTED)
        greeks_of_model = greeks(streamer)
        assert greeks_of_model[A, CALL].greeks_time is None
        assert greeks_of_model[A, PUT].greeks_time is None
        assert greeks_of_model[A, CORN_CALL].greeks_time is not None


@pytest.mark.parametrize("before_the_start", [True, False])
async def test_an_option_whose_terms_changed_has_greeks_of_its_present_terms(
    computing, greeks, lake, before_the_start
):
    def change(sim):
        gateway = sim._gateway
        held = gateway.ledger.holding(A, PUT)
        later = replace(held.contract, strike=round(0.85 * held.contract.strike))
        gateway.book.contracts[PUT] = later
        gateway.ledger._holdings[A, PUT] = replace(held, contract=later)

    async with computing() as (sim, streamer):
        await eventually(lambda: greeks(streamer).keys() >= COMPUTED)
        await eventually(lambda: lake.contracts.get({PUT}))
        if not before_the_start:
            await _has_greeks_of_the_market(sim, streamer, greeks, change)
    if before_the_start:
        async with computing(prepare=change) as (sim, streamer):
            await _has_greeks_of_the_market(sim, streamer, greeks)


async def _has_greeks_of_the_market(sim, streamer, greeks, change=lambda sim: None):
    change(sim)
    sim.fill(A, PUT, 1)

    def is_true():
        greeks_of_put = greeks(streamer).get((A, PUT))
        truth = sim.greeks(PUT)[PUT]["delta"]
        return greeks_of_put is not None and greeks_of_put.delta == pytest.approx(truth, abs=0.01)

    await eventually(is_true)


async def test_a_refused_underlying_gives_no_greeks_and_is_named(computing, greeks):
    refuse = lambda sim: sim.set_permission(INDEX, 354)  # noqa: E731
    async with computing(prepare=refuse) as (_sim, streamer):
        await eventually(lambda: greeks(streamer).keys() >= COMPUTED - {(B, SPX_PUT)})
        await eventually(lambda: "the underlying has no price (SPX)" in streamer.greeks)
        assert (B, SPX_PUT) not in greeks(streamer)
        assert "No market data: 1 underlying without a price, since " in streamer.detail
        assert streamer.underlying_lines == 3
