"""When a streamed value was true: the time of its source, never that of its arrival."""

import pytest

from position_sync_dagster.domain.holding import PriceKind, ValueOrigin
from tests.support.booked_legs import CALL, A, leg
from tests.support.streams import eventually, simulate


async def test_a_frozen_mark_has_no_value_time(streaming, lake):
    async with simulate() as sim:
        sim.freeze()
        await lake.registry.add_active(**leg(CALL))
        async with streaming(sim, market_data_type=2) as (_streamer, received):
            row = await eventually(
                lambda: (
                    (row := received.newest(A, CALL))
                    and row.value_source is ValueOrigin.TICK
                    and row
                )
            )
    assert (row.market_data_type, row.price_kind) == (2, PriceKind.MARK)
    assert row.market_value is not None
    assert row.value_time is None


@pytest.mark.parametrize("said", [True, False])
async def test_a_delayed_quote_stands_beside_the_brokers_present_value(stream_legs, said):
    async with stream_legs(CALL, rows=False, delayed_fallback=True) as (sim, _streamer, received):
        sim.say_delayed(said)
        sim.pin_quote(CALL, bid=5.0, ask=6.0)
        sim.set_permission(CALL, 354)
        row = await eventually(
            lambda: (row := received.newest(A, CALL)) and row.market_data_type == 3 and row
        )
    assert (row.bid, row.ask) == (5.0, 6.0)
    assert row.value_source in (ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE)
    assert row.market_value is not None
