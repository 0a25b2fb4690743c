"""Which published values are newer than the newest row of a holding."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.holding import (
    GreeksSource,
    HoldingGreeks,
    PriceKind,
    Source,
    ValueOrigin,
)
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.lake.schema import broker_rows, update_rows, updates_of
from position_sync_dagster.sync.confirmations import newest_values
from tests.support.holdings import make_holding

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
EARLIER = NOW - timedelta(seconds=30)
HELD = make_holding(
    1, EARLIER, position=2.0, market_price=1.5, market_value=300.0, average_cost=120.0,
    value_source=ValueOrigin.PORTFOLIO, value_time=EARLIER,
)  # fmt: skip
ROW = replace(
    from_portfolio(HELD, source=Source.QUEUE, now=EARLIER, by=Provenance()), update_id="of the row"
)
PUBLISHED = replace(
    HELD, market_price=1.7, market_value=340.0, unrealized_pnl=100.0, daily_pnl=40.0,
    value_source=ValueOrigin.PNL_SINGLE, value_time=None, received_at=NOW, followed=True,
)  # fmt: skip


def newest(row, holding):
    (found,) = updates_of(newest_values(update_rows([row]), broker_rows([holding], None)))
    return found


def test_a_queued_holding_has_the_value_that_was_published_since_its_row():
    found = newest(ROW, PUBLISHED)
    assert (found.market_value, found.unrealized_pnl, found.daily_pnl) == (340.0, 100.0, 40.0)
    assert (found.market_price, found.price_kind, found.value_time) == (1.7, PriceKind.VALUE, None)
    assert (found.value_source, found.timestamp) == (ValueOrigin.PNL_SINGLE, NOW)
    assert (found.average_cost, found.update_id) == (120.0, "")


@pytest.mark.parametrize(
    ("row", "holding"),
    [
        (replace(ROW, source=Source.STREAM), PUBLISHED),
        (ROW, replace(PUBLISHED, position=3.0)),
        (ROW, replace(PUBLISHED, received_at=EARLIER)),
        (ROW, replace(HELD, received_at=NOW, market_value=310.0)),
        (ROW, make_holding(2, NOW, market_value=1.0, value_source=ValueOrigin.PNL_SINGLE)),
    ],
)
def test_any_other_row_stays_as_it_is(row, holding):
    assert newest(row, holding) == row


GREEKS = HoldingGreeks(
    implied_vol=0.2, delta=0.5, gamma=0.01, vega=0.3, theta=-0.04, underlying_price=101.0,
    greeks_time=NOW, greeks_method="AMERICAN, rate 0.04", volatility_time=EARLIER,
)  # fmt: skip


def test_the_computed_greeks_of_a_queued_holding_are_those_that_are_published_or_unknown():
    old = replace(ROW, delta=0.4, greeks_time=EARLIER, greeks_source=GreeksSource.MODEL)
    for holding in (HELD, PUBLISHED):
        found = newest(old, replace(holding, greeks=GREEKS))
        assert (found.delta, found.greeks_time) == (0.5, NOW)
        assert found.greeks_source is GreeksSource.MODEL
        assert (found.greeks_method, found.volatility_time) == ("AMERICAN, rate 0.04", EARLIER)
    found = newest(old, HELD)
    assert (found.delta, found.greeks_time, found.greeks_source) == (None, None, None)


def test_the_greeks_of_a_streamed_holding_are_those_of_its_row():
    streamed = replace(
        ROW, source=Source.STREAM, delta=0.4, greeks_time=NOW, greeks_source=GreeksSource.GATEWAY
    )
    assert newest(streamed, replace(HELD, greeks=GREEKS)) == streamed
