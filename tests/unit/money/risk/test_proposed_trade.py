"""A trade that somebody thinks of: how it is written, and which volatility prices it."""

from datetime import date, timedelta

import pytest

from position_sync_dagster.domain.exchange_time import expiry_moment
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import UserError
from position_sync_dagster.money.risk.hypothetical_book import HypotheticalBook
from position_sync_dagster.money.risk.proposed_trade import (
    ProposedTrade,
    ProposedTradeError,
    parse_trade,
    volatility_between,
)
from tests.support import money_rows
from tests.unit.money.risk.test_payoff import LATER, leg, priced
from tests.unit.money.risk.test_scenarios import EXPIRY, NOW


@pytest.mark.parametrize(
    ("text", "trade"),
    [
        (
            "-2 SPY 20270115 C 650 @3.20",
            ProposedTrade(
                quantity=-2.0, symbol="SPY", expiry=date(2027, 1, 15), right=Right.CALL,
                strike=650.0, price=3.2,
            ),
        ),
        ("+1 es 2027-03-19", ProposedTrade(quantity=1.0, symbol="ES", expiry=date(2027, 3, 19))),
        ("100 SPY @ 620", ProposedTrade(quantity=100.0, symbol="SPY", price=620.0)),
        ("5 BRK B", ProposedTrade(quantity=5.0, symbol="BRK B")),
    ],
)  # fmt: skip
def test_a_trade_is_read_as_a_person_writes_it(text: str, trade: ProposedTrade) -> None:
    assert parse_trade(text) == trade


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SPY",
        "0 SPY",
        "2000000000 SPY",
        "1 SPY @2000000000",
        "1 SPY 20270115 X 650",
        "1 SPY 20271315 C 650",
        "1 SPY @x",
        "1. . SPY",
    ],
)
def test_what_is_no_trade_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_trade(text)
    assert issubclass(ProposedTradeError, UserError)


def legs_with(*volatilities: tuple[float, date, float]):
    rows = [
        leg(n, "PUT", strike, 1.0, 1.0, expiry=expiry, implied_vol=volatility)
        for n, (strike, expiry, volatility) in enumerate(volatilities, 1)
    ]
    return list(priced(rows))


def test_a_volatility_is_between_two_strikes_and_that_of_the_last_one_beyond() -> None:
    held = legs_with((90.0, EXPIRY, 0.3), (100.0, EXPIRY, 0.2), (80.0, EXPIRY, 0.9))
    at = expiry_moment(EXPIRY)
    between = volatility_between(held, 95.0, at, NOW)
    assert between is not None
    assert between.volatility == pytest.approx(0.25)
    assert between.source == "IWM 90P 19Jun26 and IWM 100P 19Jun26"
    above = volatility_between(held, 120.0, at, NOW)
    assert above is not None
    assert above.volatility == 0.2
    assert above.source == "IWM 100P 19Jun26"
    assert volatility_between([], 95.0, at, NOW) is None


def test_a_volatility_between_two_expiries_has_the_variance_between_theirs() -> None:
    held = legs_with((100.0, EXPIRY, 0.2), (100.0, LATER, 0.3))
    middle = EXPIRY + timedelta(days=45)
    between = volatility_between(held, 100.0, expiry_moment(middle), NOW)
    assert between is not None
    days = [(day - NOW.date()).days + 5 / 24 for day in (EXPIRY, middle, LATER)]
    part = (days[1] - days[0]) / (days[2] - days[0])
    variance = 0.04 * days[0] + part * (0.09 * days[2] - 0.04 * days[0])
    assert between.volatility == pytest.approx((variance / days[1]) ** 0.5, rel=1e-3)
    late = volatility_between(held, 100.0, expiry_moment(LATER + timedelta(days=90)), NOW)
    assert late is not None
    assert late.volatility == 0.3


def test_a_price_is_refused_while_it_may_be_in_cents_of_the_currency() -> None:
    put = leg(1, "PUT", 100.0, 1.0, 2.0, currency="GBP")
    book = money_rows.book_of([put], [])
    trade = parse_trade(f"1 IWM {EXPIRY:%Y%m%d} P 100 @3")
    with pytest.raises(ProposedTradeError, match="in its currency or in cents"):
        HypotheticalBook(book=book, legs=priced([put])).apply(trade)
