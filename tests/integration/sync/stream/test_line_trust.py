"""Values that a trader can trust: quiet lines, old trades, dead lines; when a value was true."""

import pytest

from position_sync_dagster.domain.position_update import PriceKind, ValueOrigin
from tests.support.booked_legs import CALL, PUT, A
from tests.support.streams import eventually, requests

# Profits of the account come often.
OFTEN = {"simulator": {"pnl_interval_s": 0.1}}


async def test_an_old_last_trade_inside_a_wide_quote_gives_way_to_the_mid(stream_legs):
    pin = lambda sim: sim.pin_quote(CALL, bid=1.0, ask=3.0, last=1.1, no_mark=True)  # noqa: E731
    more = {"max_last_age_s": 1.5, "pnl_subscriptions": 0}
    async with stream_legs(CALL, prepare=pin, **more) as (sim, _streamer, received):
        row = received.newest(A, CALL)
        sim.freeze()
        assert row.price_kind in (PriceKind.LAST, PriceKind.MID)
        row = await received.row(CALL, lambda row: row.price_kind is PriceKind.MID)
        assert row.market_price == 2.0


async def test_a_dead_line_among_live_ones_is_found_by_the_brokers_value_and_requested_again(
    stream_legs,
):
    async with stream_legs(CALL, PUT, settle_s=0.5, **OFTEN) as (sim, streamer, received):
        await received.row(PUT, lambda row: row.daily_pnl is not None)
        assert sim.silence_line(PUT) == 1
        sim.pin_quote(PUT, bid=60.0, ask=60.2, mark=60.1)
        row = await received.row(
            PUT, lambda row: row.market_price == 60.1 and row.value_source == "TICK"
        )
        assert row.price_kind == PriceKind.MARK
        assert row.value_source == "TICK"
        assert row.note is None

        doubted = [r for r in received.updates if r.conid == PUT and r.note]
        assert doubted[-1].value_source is ValueOrigin.PNL_SINGLE
        assert doubted[-1].market_value == pytest.approx(-3 * 60.1 * 100)
        assert "differs" in doubted[-1].note
        assert requests(sim, "reqMktData") == 3
        assert sim.stats()["lines_in_use"] == 2
        assert streamer.lines_in_use == 2
        assert all(r.note is None for r in received.updates if r.conid == CALL)


async def test_after_a_farm_returned_a_line_that_stays_silent_is_requested_again(stream_legs):
    async with stream_legs(PUT, line_silence_s=0.5) as (sim, streamer, received):
        sim.after_restore("dead")
        sim.farm("usfarm", 2103)
        await eventually(lambda: streamer.detail == "data farm usfarm is broken")
        sim.farm("usfarm", 2104)
        await eventually(lambda: requests(sim, "reqMktData") == 2)
        count = len(received.updates)

        def has_a_tick() -> bool:
            sources = [update.value_source for update in received.updates[count:]]
            return ValueOrigin.TICK in sources

        await eventually(has_a_tick)


@pytest.mark.parametrize("notice", [None, 2103])
async def test_a_model_that_ticks_keeps_no_dead_quote_alive(stream_legs, notice):
    async with stream_legs(PUT, settle_s=0.5, **OFTEN) as (sim, _streamer, received):
        await received.row(PUT, lambda row: row.daily_pnl is not None)
        sim.ticking(PUT, ["model"])
        if notice:
            sim.farm("usfarm", notice)
        sim.pin_quote(PUT, bid=60.0, ask=60.2, mark=60.1)
        moved = pytest.approx(-3 * 60.1 * 100)
        row = await received.row(PUT, lambda row: row.market_value == moved)
        assert row.value_source == ValueOrigin.PNL_SINGLE
        assert row.bid is None
        assert "differs" in row.note or "farm broke" in row.note


async def test_a_frozen_mark_has_no_value_time(stream_legs):
    async with stream_legs(CALL, prepare=lambda sim: sim.freeze(), market_data_type=2) as (*_, got):
        row = await got.row(CALL, lambda row: row.value_source is ValueOrigin.TICK)
    assert row.market_data_type == 2
    assert row.price_kind == PriceKind.MARK
    assert row.market_value is not None
    assert row.value_time is None


@pytest.mark.parametrize("said", [True, False])
async def test_a_delayed_quote_stands_beside_the_brokers_present_value(stream_legs, said):
    async with stream_legs(CALL, rows=False, delayed_fallback=True) as (sim, _streamer, received):
        sim.say_delayed(said)
        sim.pin_quote(CALL, bid=5.0, ask=6.0)
        sim.set_permission(CALL, 354)
        row = await received.row(CALL, lambda row: row.market_data_type == 3)
    assert row.bid == 5.0
    assert row.ask == 6.0
    assert row.value_source in (ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE)
    assert row.market_value is not None
