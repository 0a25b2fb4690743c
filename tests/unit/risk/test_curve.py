"""The profit over the price of the underlying: break-evens, greatest profit and loss, picture."""

import xml.etree.ElementTree as xml
from dataclasses import replace

import pytest

from position_sync_dagster.risk.scenarios import curves
from position_sync_dagster.web.risk_page import as_svg
from tests.unit.risk.test_scenarios import option, priced


def call(conid: int, strike: float, position: float, price: float):
    money = {"market_price": price, "market_value": position * 100 * price, "unrealized_pnl": 0.0}
    return option(conid, right="CALL", strike=strike, position=position, **money)


def model_price(strike: float) -> float:
    (curve,) = curves(priced([call(31, strike, 1.0, 0.0)]))
    return -curve.greatest_loss / 100  # what a worthless expiry loses


def test_a_spread_has_bounds_and_a_break_even_and_a_naked_call_has_an_unbounded_loss() -> None:
    low, high = model_price(600.0), model_price(620.0)
    (curve,) = curves(priced([call(31, 600.0, 1.0, low), call(32, 620.0, -1.0, high)]))
    assert curve.greatest_loss == pytest.approx(-100 * (low - high), abs=1)
    assert curve.greatest_profit == pytest.approx(2000 - 100 * (low - high), abs=1)
    (at,) = curve.break_evens
    assert at == pytest.approx(600 + low - high, abs=0.5)
    (naked,) = curves(priced([call(32, 620.0, -1.0, high)]))
    assert naked.greatest_loss is None
    assert naked.greatest_profit == pytest.approx(100 * high, abs=1)
    assert xml.fromstring(as_svg(curve)).tag == "svg"  # noqa: S314 - our own picture


def test_a_leg_without_a_price_or_a_known_profit_is_in_no_number_and_is_counted() -> None:
    (alone,) = curves(priced([call(31, 600.0, 1.0, 20.0)]))
    unknown = replace(call(32, 620.0, -1.0, 9.0), unrealized_pnl=None)
    unpriced = replace(call(33, 630.0, -1.0, 9.0), unrealized_pnl=500.0, implied_vol=None)
    (curve,) = curves(priced([call(31, 600.0, 1.0, 20.0), unknown, unpriced]))
    assert (alone.left_out, curve.left_out) == (0, 2)
    assert curve.at_expiry[-1] == pytest.approx(alone.at_expiry[-1])
