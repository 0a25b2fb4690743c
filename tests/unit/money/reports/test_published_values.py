"""Which published value is newer than the row of its holding."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.holding import HoldingGreeks
from position_sync_dagster.domain.position_update import (
    GreeksSource,
    PriceKind,
    Source,
    ValueOrigin,
)
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.lake.schema import rows_of_positions, update_rows, updates_of
from position_sync_dagster.money.reports.book import newest_values
from tests.support.holdings import make_holding
from tests.support.spy_rows import NOW

EARLIER = NOW - timedelta(seconds=30)
QUEUED = make_holding(
    1, EARLIER, position=2.0, market_price=1.5, market_value=300.0, average_cost=120.0,
    value_source=ValueOrigin.PORTFOLIO, value_time=EARLIER,
)  # fmt: skip
OF_QUEUE = replace(
    from_portfolio(QUEUED, source=Source.QUEUE, now=EARLIER, by=Provenance()),
    update_id="of the row",
)
PUBLISHED = replace(
    QUEUED, market_price=1.7, market_value=340.0, unrealized_pnl=100.0, daily_pnl=40.0,
    value_source=ValueOrigin.PNL_SINGLE, value_time=None, received_at=NOW, followed=True,
)  # fmt: skip


def newest(row, holding):
    (update,) = updates_of(newest_values(update_rows([row]), rows_of_positions([holding], None)))
    return update


def test_a_queued_holding_has_the_value_that_was_published_since_its_row():
    newest_rows = newest(OF_QUEUE, PUBLISHED)
    assert newest_rows.market_value == 340.0
    assert newest_rows.unrealized_pnl == 100.0
    assert newest_rows.daily_pnl == 40.0
    assert newest_rows.market_price == 1.7
    assert newest_rows.price_kind == PriceKind.VALUE
    assert newest_rows.value_time is None
    assert newest_rows.value_source == ValueOrigin.PNL_SINGLE
    assert newest_rows.timestamp == NOW
    assert newest_rows.average_cost == 120.0
    assert newest_rows.update_id == ""


@pytest.mark.parametrize(
    ("row", "holding"),
    [
        (replace(OF_QUEUE, source=Source.STREAM), PUBLISHED),
        (OF_QUEUE, replace(PUBLISHED, position=3.0)),
        (OF_QUEUE, replace(PUBLISHED, received_at=EARLIER)),
        (OF_QUEUE, replace(QUEUED, received_at=NOW, market_value=310.0)),
        (OF_QUEUE, make_holding(2, NOW, market_value=1.0, value_source=ValueOrigin.PNL_SINGLE)),
    ],
)
def test_any_other_row_stays_as_it_is(row, holding):
    assert newest(row, holding) == row


GREEKS = HoldingGreeks(
    implied_vol=0.2, delta=0.5, gamma=0.01, vega=0.3, theta=-0.04, underlying_price=101.0,
    greeks_time=NOW, greeks_method="AMERICAN, rate 0.04", volatility_time=EARLIER,
)  # fmt: skip


def test_the_computed_greeks_of_a_queued_holding_are_those_that_are_published_or_unknown():
    old = replace(OF_QUEUE, delta=0.4, greeks_time=EARLIER, greeks_source=GreeksSource.MODEL)
    for holding in (QUEUED, PUBLISHED):
        newest_rows = newest(old, replace(holding, greeks=GREEKS))
        assert newest_rows.delta == 0.5
        assert newest_rows.greeks_time == NOW
        assert newest_rows.greeks_source is GreeksSource.MODEL
        assert newest_rows.greeks_method == "AMERICAN, rate 0.04"
        assert newest_rows.volatility_time == EARLIER
    newest_rows = newest(old, QUEUED)
    assert newest_rows.delta is None
    assert newest_rows.greeks_time is None
    assert newest_rows.greeks_source is None


def test_the_greeks_of_a_streamed_holding_are_those_of_its_row():
    streamed = replace(
        OF_QUEUE,
        source=Source.STREAM,
        delta=0.4,
        greeks_time=NOW,
        greeks_source=GreeksSource.GATEWAY,
    )
    assert newest(streamed, replace(QUEUED, greeks=GREEKS)) == streamed
