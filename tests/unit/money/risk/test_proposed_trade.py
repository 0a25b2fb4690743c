"""A trade that somebody thinks of: how it is written, and which volatility prices it."""

from datetime import date, timedelta

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import UserError
from position_sync_dagster.money.risk.hypothetical_book import HypotheticalBook
from position_sync_dagster.money.risk.proposed_trade import (
    ProposedTrade,
    ProposedTradeError,
    nearest_option,
    parse_trade,
)
from position_sync_dagster.money.trading_days import expiry_moment
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


def test_the_nearest_option_has_the_volatility_first_in_time_then_by_the_strike() -> None:
    held = legs_with((90.0, EXPIRY, 0.3), (100.0, EXPIRY, 0.2), (95.0, LATER, 0.9))

    def volatility(strike: float, day: date) -> float | None:
        nearest = nearest_option(held, strike, expiry_moment(day), NOW)
        if nearest is None:
            return None

        return nearest.row["implied_vol"]

    assert volatility(94.0, EXPIRY) == 0.3
    assert volatility(120.0, EXPIRY) == 0.2
    assert volatility(120.0, LATER + timedelta(days=90)) == 0.9
    assert nearest_option([], 95.0, expiry_moment(EXPIRY), NOW) is None


def test_a_price_is_refused_while_it_may_be_in_cents_of_the_currency() -> None:
    put = leg(1, "PUT", 100.0, 1.0, 2.0, currency="GBP")
    book = money_rows.book_of([put], [])
    trade = parse_trade(f"1 IWM {EXPIRY:%Y%m%d} P 100 @3")
    with pytest.raises(ProposedTradeError, match="in its currency or in cents"):
        HypotheticalBook(book=book, legs=priced([put])).apply(trade)
