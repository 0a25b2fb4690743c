"""Which price values a position, and what a row says of it: tables of real cases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain import valuation
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.domain.position_update import (
    GreeksSource,
    PriceKind,
    Source,
    TradingMode,
    ValueOrigin,
    trading_mode_of,
)
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.valuation import Provenance, factor_agrees, from_portfolio
from tests.support.holdings import make_holding

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
OPTION = Instrument(
    conid=7, symbol="SPY", sec_type="OPT", currency="USD", multiplier=100.0, right=Right.PUT,
    strike=500.0,
)  # fmt: skip
STOCK = Instrument(conid=8, symbol="SPY", sec_type="STK", currency="USD")
PENCE = Instrument(conid=9, symbol="VOD", sec_type="STK", currency="GBP")
CORN_CALL = Instrument(
    conid=11, symbol="ZC", sec_type="FOP", currency="USD", multiplier=5000.0, right=Right.CALL,
    strike=460.0,
)  # fmt: skip
FUTURE = Instrument(conid=10, symbol="ES", sec_type="FUT", currency="USD", multiplier=50.0)


def holding(instrument=OPTION, position=-3.0, **more):
    usual = {"account": "DUSIM0001", "instrument": instrument, "average_cost": 210.0}
    return make_holding(instrument.conid, NOW, position=position, **usual | more)


def value(held, quote, magnifier=1, trusted=True, **more):
    by = Provenance(session_id="s1", fencing_token=4, run_id="r1")
    moment = valuation.Moment(now=NOW, by=by, price_magnifier=magnifier)
    return valuation.revalue(held, quote, moment, trusted=trusted, **more)


def marked(price):
    return Quote(mark=price, mark_time=NOW, received_at=NOW, market_data_type=1)


# No bid, and an offer of a few ticks.
WORTHLESS = replace(marked(0.0), ask=0.05, min_tick=0.01)


def test_a_short_option_is_worth_its_signed_quantity_times_price_times_multiplier():
    row = value(holding(), marked(1.5))
    assert row.market_value == pytest.approx(-450.0)
    assert row.unrealized_pnl == pytest.approx(-450.0 + 3 * 210.0)
    assert row.price_kind == PriceKind.MARK
    assert row.value_source == ValueOrigin.TICK
    assert row.session_id == "s1"
    assert row.fencing_token == 4
    assert row.run_id == "r1"
    assert row.trading_mode is TradingMode.SIMULATED


@pytest.mark.parametrize(
    ("instrument", "position", "cost", "price", "magnifier", "worth", "profit"),
    [
        (STOCK, 10.0, 600.0, 620.0, 1, 6200.0, 200.0),
        (PENCE, 1000.0, 0.8, 75.0, 100, 750.0, -50.0),
        (FUTURE, 2.0, 250_000.0, 5100.0, 1, 510_000.0, 10_000.0),
    ],
    ids=["a stock without a multiplier", "quoted in pence", "the notional value of a future"],
)
def test_a_value_counts_the_multiplier_and_is_in_the_major_unit(
    instrument, position, cost, price, magnifier, worth, profit
):
    row = value(holding(instrument, position, average_cost=cost), marked(price), magnifier)
    assert row.market_price == price
    assert row.market_value == pytest.approx(worth)
    assert row.unrealized_pnl == pytest.approx(profit)


def test_a_futures_option_quoted_in_cents_is_valued_in_dollars():
    quote = Quote(bid=12.375, ask=12.625, received_at=NOW, market_data_type=3)
    row = value(holding(CORN_CALL, 2.0, average_cost=602.5), quote, magnifier=100)
    assert row.market_price == 12.5
    assert row.price_kind == PriceKind.MID
    assert row.market_data_type == 3
    assert row.market_value == pytest.approx(2 * 12.5 * 5000 / 100)
    assert row.unrealized_pnl == pytest.approx(1250.0 - 2 * 602.5)


def test_without_a_usable_price_the_money_is_unknown_and_not_zero():
    row = value(holding(), Quote(ask=0.05, last=1.2, received_at=NOW))
    assert row.market_price is None
    assert row.market_value is None
    assert row.unrealized_pnl is None
    assert row.position == (-3.0)
    assert row.ask == 0.05
    assert row.bid is None


def test_without_an_average_cost_the_profit_is_unknown():
    row = value(holding(average_cost=None), marked(1.5))
    assert row.market_value == pytest.approx(-450.0)
    assert row.unrealized_pnl is None


def test_a_line_without_a_tick_leaves_the_portfolio_value_in_force():
    row = value(VALUED, None, note="the line is dead")
    assert row.source == Source.STREAM
    assert row.value_source == ValueOrigin.PORTFOLIO
    assert row.note == "the line is dead"
    assert row.market_value == (-420.0)
    assert row.price_kind == PriceKind.PORTFOLIO


TOLD = NOW - timedelta(minutes=1)
BEFORE = NOW - timedelta(minutes=20)
VALUED = holding(
    market_price=1.4, market_value=-420.0, unrealized_pnl=210.0, value_time=TOLD,
    value_source=ValueOrigin.PORTFOLIO,
)  # fmt: skip


OLD_VALUE = replace(VALUED, value_time=BEFORE, received_at=BEFORE)


def test_a_delayed_price_does_not_replace_a_value_that_the_broker_gave_later():
    delayed = Quote(bid=1.0, ask=1.2, delta=-0.2, market_data_type=3)
    row = value(VALUED, delayed)
    assert row.market_value == (-420.0)
    assert row.value_source == ValueOrigin.PORTFOLIO
    assert row.bid == 1.0
    assert row.delta == (-0.2)
    assert row.market_data_type == 3
    assert value(OLD_VALUE, delayed).price_kind is PriceKind.MID
    confirmed = replace(OLD_VALUE, confirmed_at=TOLD)
    assert value(confirmed, delayed).value_source is ValueOrigin.PORTFOLIO
    by_profit = replace(confirmed, value_source=ValueOrigin.PNL_SINGLE)
    assert value(by_profit, delayed).price_kind is PriceKind.MID


def test_of_a_line_that_is_not_trusted_the_model_counts_where_the_broker_has_no_value():
    model = Quote(model_price=1.4, delta=-0.2, greeks_time=NOW)
    row = value(VALUED, model, trusted=False)
    assert row.value_source == ValueOrigin.PORTFOLIO
    assert row.delta == (-0.2)
    assert value(holding(), model, trusted=False).price_kind is PriceKind.MODEL


def test_of_a_quote_without_a_price_the_brokers_value_is_used_beside_its_bid_ask_and_greeks():
    quote = Quote(ask=0.05, last=1.2, delta=-0.01, received_at=NOW)
    row = value(VALUED, quote)
    assert row.market_value == (-420.0)
    assert row.price_kind == PriceKind.PORTFOLIO
    assert row.value_source == ValueOrigin.PORTFOLIO
    assert row.value_time == TOLD
    assert row.ask == 0.05
    assert row.bid is None
    assert row.delta == (-0.01)


def test_with_an_unknown_factor_the_brokers_value_is_used():
    row = value(VALUED, marked(1.5), magnifier=None)
    assert row.market_price == 1.4
    assert row.market_value == (-420.0)
    assert row.value_source is ValueOrigin.PORTFOLIO
    row = value(holding(), marked(1.5), magnifier=None)  # it gave none
    assert row.market_price == 1.5
    assert row.market_value is None


def test_the_model_price_values_a_holding_that_has_no_other_price():
    quote = Quote(ask=0.05, model_price=0.01, greeks_time=BEFORE, received_at=NOW)
    row = value(VALUED, quote)
    assert row.price_kind == PriceKind.MODEL
    assert row.value_source == ValueOrigin.TICK
    assert row.market_value == pytest.approx(-3.0)
    assert row.value_time == BEFORE
    assert row.greeks_time == BEFORE


def test_a_mark_of_zero_of_a_worthless_option_is_a_value_of_zero():
    row = value(VALUED, WORTHLESS)
    assert row.market_price == 0.0
    assert row.price_kind == PriceKind.MARK
    assert row.market_value == 0.0
    assert row.unrealized_pnl == pytest.approx(630.0)


def test_an_unchanged_quote_that_counts_is_used_with_the_time_of_its_tick():
    row = value(VALUED, Quote(bid=1.0, ask=1.2, quote_time=BEFORE))
    assert row.value_source == ValueOrigin.TICK
    assert row.price_kind == PriceKind.MID
    assert row.timestamp == NOW
    assert row.value_time == BEFORE


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_delayed_and_frozen_data_have_no_value_time_but_that_of_the_last_trade(kind):
    traded = NOW - timedelta(days=2)
    data = {"received_at": NOW, "market_data_type": kind}
    mark = value(OLD_VALUE, Quote(mark=1.3, mark_time=NOW, **data))
    mid = value(OLD_VALUE, Quote(bid=1.0, ask=1.2, **data))
    last = value(OLD_VALUE, Quote(bid=1.0, ask=1.2, last=1.1, last_time=traded, **data))
    undated = value(OLD_VALUE, Quote(bid=1.0, ask=1.2, last=1.1, **data))
    assert {row.value_source for row in (mark, mid, last, undated)} == {ValueOrigin.TICK}
    assert mark.value_time is None
    assert mid.value_time is None
    assert undated.value_time is None

    greeks = value(OLD_VALUE, Quote(bid=1.0, ask=1.2, delta=-0.2, greeks_time=NOW, **data))
    assert greeks.delta == (-0.2)
    assert greeks.greeks_source == GreeksSource.GATEWAY
    assert greeks.greeks_time is None
    if last.price_kind is PriceKind.LAST:
        assert last.value_time == traded


GREEKS = {"delta": 0.4, "gamma": 0.02, "vega": 62.0, "theta": -11.0, "underlying_price": 450.0}
IN_DOLLARS = {"gamma": 2.0, "vega": 0.62, "theta": -0.11, "underlying_price": 4.5}


@pytest.mark.parametrize("given", [{}, {"model_price": 13.0}])
def test_greeks_of_a_cent_quoted_contract_are_in_its_major_unit(given):
    row = value(holding(CORN_CALL, 2.0), replace(marked(12.5), **GREEKS, **given), magnifier=100)
    assert row.vega == pytest.approx(0.62)
    assert row.theta == pytest.approx(-0.11)
    assert row.delta == 0.4
    assert row.gamma == pytest.approx(2.0)
    assert row.underlying_price == 450.0
    unknown = value(holding(CORN_CALL, 2.0), replace(marked(12.5), **GREEKS), magnifier=None)
    assert unknown.delta == 0.4
    assert unknown.gamma is None
    assert unknown.vega is None
    assert unknown.theta is None


def test_greeks_that_the_gateway_gives_in_the_major_unit_stay_in_it():
    quote = replace(marked(12.5), **GREEKS | IN_DOLLARS, model_price=0.13)
    row = value(holding(CORN_CALL, 2.0), quote, magnifier=100)
    assert row.vega == pytest.approx(0.62)
    assert row.theta == pytest.approx(-0.11)
    assert row.delta == 0.4
    assert row.gamma == pytest.approx(2.0)
    assert row.underlying_price == pytest.approx(450.0)
    alone = value(holding(CORN_CALL, 2.0), replace(quote, mark=None, mark_time=None), magnifier=100)
    assert alone.price_kind == PriceKind.MODEL
    assert alone.market_price == pytest.approx(13.0)
    assert alone.market_value == pytest.approx(2 * 0.13 * 5000)


@pytest.mark.parametrize(
    "given",
    [{"model_price": 0.13}, {"underlying_price": 45.0}, {"underlying_price": None}],
    ids=["the two contradict each other", "between the units", "nothing to compare"],
)
def test_greeks_of_an_unclear_unit_are_unknown(given):
    quote = replace(marked(12.5), **GREEKS | given)
    row = value(holding(CORN_CALL, 2.0), quote, magnifier=100)
    assert row.gamma is None
    assert row.vega is None
    assert row.theta is None
    assert row.underlying_price is None
    assert row.delta == 0.4
    assert row.market_value == pytest.approx(1250.0)


def test_a_closed_position_is_an_explicit_zero_row():
    row = value(holding(position=0.0, realized_pnl=55.0), marked(1.5))
    assert row.position == 0.0
    assert row.market_value == 0.0
    assert row.unrealized_pnl == 0.0
    assert row.market_price is None
    assert row.realized_pnl == 55.0


def test_what_the_gateway_did_not_give_stays_null_in_a_drained_row():
    row = from_portfolio(holding(), source=Source.QUEUE, now=NOW, by=Provenance())
    assert row.market_price is None
    assert row.market_value is None
    assert row.unrealized_pnl is None
    assert row.value_source is ValueOrigin.NONE
    assert row.average_cost == 210.0


def test_a_drained_row_carries_the_time_of_its_source():
    told = NOW - timedelta(minutes=2)
    held = holding(market_price=1.4, market_value=-420.0, value_time=told)
    row = from_portfolio(held, source=Source.QUEUE, now=NOW, by=Provenance())
    assert row.timestamp == NOW
    assert row.value_time == told


@pytest.mark.parametrize(
    ("held", "magnifier", "agrees"),
    [
        (holding(market_price=1.5, market_value=-450.0), 1, True),
        (holding(market_price=1.5, market_value=-4.5), 1, False),
        (holding(PENCE, 1000.0, market_price=75.0, market_value=750.0), 100, True),
        (holding(PENCE, 1000.0, market_price=0.75, market_value=750.0), 100, True),
        (holding(PENCE, 1000.0, market_price=75.0, market_value=750.0), 1, False),
        (holding(position=1.0, market_price=0.0004, market_value=0.05), 1, True),
        (holding(position=2.0, market_price=0.00023, market_value=0.05), 1, True),
        (holding(position=1.0, market_price=0.0004, market_value=0.4), 1, False),
        (holding(), 1, None),
        (holding(market_price=0.0, market_value=0.0), 1, None),
    ],
)
def test_the_factor_is_checked_against_the_brokers_own_value(held, magnifier, agrees):
    assert factor_agrees(held, price_magnifier=magnifier) is agrees


@pytest.mark.parametrize(
    ("held", "of_value", "magnifier", "price"),
    [
        (holding(position=-3.0), -412.34, 1, 1.374467),
        (holding(CORN_CALL, position=2.0), 1262.5, 100, 12.625),
        (holding(position=2.0, market_price=1.5, market_value=300.0), 340.0, None, 1.7),
        (holding(PENCE, 2.0, market_price=72.5, market_value=1.45), 1.5, None, 75.0),
        (holding(PENCE, 2.0, market_price=0.725, market_value=1.45), 1.5, None, 0.75),
        (holding(market_price=None, market_value=None), 340.0, None, None),
        (holding(market_price=1.5, market_value=100.0), 340.0, None, None),
        (holding(), 0.0, 1, 0.0),
    ],
)
def test_the_brokers_value_means_a_price_where_the_unit_of_prices_is_known(
    held, of_value, magnifier, price
):
    price_of_value = valuation.price_of_value(held, of_value, price_magnifier=magnifier)
    assert price_of_value == (price if price is None else pytest.approx(price, abs=1e-6))


def test_the_price_that_follows_from_a_value_confirms_no_factor():
    held = holding(market_price=1.5, market_value=300.0, value_source=ValueOrigin.PNL_SINGLE)
    row = from_portfolio(held, source=Source.QUEUE, now=NOW, by=Provenance())
    assert row.market_price == 1.5
    assert row.price_kind == PriceKind.VALUE
    assert factor_agrees(held, price_magnifier=1) is None


def test_a_row_names_the_trading_class_and_the_local_symbol_where_the_broker_does():
    weekly = replace(OPTION, symbol="SPX", trading_class="SPXW", local_symbol="SPXW  260220P05")
    for row in (
        value(holding(weekly), marked(1.5)),
        value(holding(weekly, position=0.0), None),
        from_portfolio(holding(weekly), source=Source.QUEUE, now=NOW, by=Provenance()),
    ):
        assert row.trading_class == "SPXW"
        assert row.local_symbol == "SPXW  260220P05"
    row = value(holding(), marked(1.5))
    assert row.trading_class is None
    assert row.local_symbol is None


RECENT = NOW - timedelta(seconds=5)
OLD = NOW - timedelta(hours=3)
MINUTE = timedelta(seconds=60)
AHEAD = NOW + timedelta(hours=1)
DELAYED = 3

MARK = PriceKind.MARK
LAST = PriceKind.LAST
MID = PriceKind.MID
MODEL = PriceKind.MODEL


def quoted(**more: object) -> dict[str, object]:
    """Return a quote with a bid of 1.00 and an ask of 1.20."""
    return {"bid": 1.0, "ask": 1.2} | more


CASES = {}
CASES["young mark wins over all"] = (quoted(last=1.1, mark=1.15, mark_time=RECENT), (1.15, MARK))
CASES["a mark does not age: the gateway sends it when it changes"] = (
    quoted(last=1.1, last_time=RECENT, mark=1.12, mark_time=OLD),
    (1.12, MARK),
)
CASES["a quiet short wing: no bid, ask 0.05, mark 0.02"] = (
    dict(ask=0.05, last=1.2, last_time=RECENT, mark=0.02, mark_time=OLD),
    (0.02, MARK),
)
CASES["last on the bid counts as inside"] = (quoted(last=1.0, last_time=RECENT), (1.0, LAST))
CASES["a wide quote with an old last trade"] = (
    dict(bid=1.0, ask=3.0, last=1.1, last_time=NOW - MINUTE - timedelta(seconds=1)),
    (2.0, MID),
)
CASES["last of unknown age gives the mid"] = (quoted(last=1.0), (1.1, MID))
CASES["last of an exchange whose clock is a second ahead counts"] = (
    quoted(last=1.0, last_time=NOW + timedelta(seconds=1)),
    (1.0, LAST),
)
CASES["last from the future is of unknown age"] = (quoted(last=1.0, last_time=AHEAD), (1.1, MID))
CASES["last outside the quote gives the mid"] = (quoted(last=2.0, last_time=RECENT), (1.1, MID))
CASES["a mark that stands still while the quote moved away"] = (
    dict(bid=4.0, ask=4.1, mark=1.5, mark_time=OLD),
    (4.05, MID),
)
CASES["a mark outside of the quote by its width"] = (
    dict(bid=4.0, ask=4.1, mark=4.19, mark_time=OLD),
    (4.19, MARK),
)
CASES["a mark outside of a locked quote by one tick"] = (
    dict(bid=4.0, ask=4.0, mark=4.05, mark_time=OLD, min_tick=0.05),
    (4.05, MARK),
)
CASES["a mark of zero under a bid, as before the open"] = (
    dict(bid=0.95, mark=0.0, mark_time=RECENT, model_price=1.0),
    (1.0, MODEL),
)
CASES["a quote of nobody: the model"] = (dict(bid=0.01, ask=199.99, model_price=3.0), (3.0, MODEL))
CASES["a quote of nobody without a model"] = (dict(bid=0.01, ask=199.99), None)
CASES["a cheap option is a few ticks wide"] = (dict(bid=0.01, ask=0.05, min_tick=0.01), (0.03, MID))
CASES["locked quote"] = (dict(bid=1.0, ask=1.0), (1.0, MID))
CASES["crossed quote says nothing"] = (dict(bid=1.3, ask=1.2, last=1.25, last_time=RECENT), None)
CASES["crossed quote with a model"] = (dict(bid=1.3, ask=1.2, model_price=1.24), (1.24, MODEL))
CASES["a model price of zero is a price"] = (dict(model_price=0.0), (0.0, MODEL))
CASES["the mid comes before the model"] = (quoted(model_price=1.3), (1.1, MID))
CASES["halted without a mark: the model"] = (quoted(model_price=1.3, halted=True), (1.3, MODEL))
CASES["short worthless option: no bid, ask 0.05, last 1.20"] = (dict(ask=0.05, last=1.2), None)
CASES["only a bid"] = (dict(bid=1.0, last=1.0), None)
CASES["no quote at all"] = (dict(), None)
CASES["a worthless mark is a price"] = (
    dict(ask=0.05, mark=0.0, mark_time=RECENT, min_tick=0.01),
    (0.0, MARK),
)
CASES["a mark of zero without a quote is no data"] = (dict(mark=0.0, mark_time=RECENT), None)
CASES["a mark of zero under an ask of value is no data"] = (
    dict(ask=5.2, mark=0.0, mark_time=RECENT, min_tick=0.01, model_price=5.0),
    (5.0, MODEL),
)
CASES["a negative mark of a future is a price"] = (
    dict(mark=-37.63, mark_time=RECENT),
    (-37.63, MARK),
)
CASES["halted: the mark does not age"] = (
    quoted(last=1.1, mark=1.15, mark_time=OLD, halted=True),
    (1.15, MARK),
)
CASES["halted: the last trade before it"] = (
    quoted(last=1.1, last_time=RECENT, halted=True),
    (1.1, LAST),
)
CASES["halted: a frozen quote has no mid"] = (quoted(halted=True), None)
CASES["halted: a last trade outside of the frozen quote says nothing"] = (
    quoted(last=2.0, halted=True),
    None,
)
CASES["halted and worthless: no bid, ask 0.05, last 1.20"] = (
    dict(ask=0.05, last=1.2, halted=True),
    None,
)
CASES["delayed: the mark as live"] = (
    quoted(mark=1.15, mark_time=RECENT, market_data_type=DELAYED),
    (1.15, MARK),
)
CASES["delayed without a mark: the last trade is too old, so the mid"] = (
    quoted(last=1.2, last_time=OLD, market_data_type=DELAYED),
    (1.1, MID),
)
CASES["a futures option quoted in cents"] = (dict(bid=12.375, ask=12.625, last=11.0), (12.5, MID))


@pytest.mark.parametrize(("quote", "expected"), CASES.values(), ids=CASES.keys())
def test_the_price_of_a_quote(quote, expected):
    price = valuation.price_of(Quote(**quote), now=NOW)
    assert (None if price is None else (pytest.approx(price.value), price.kind)) == expected


def at(**quote):
    price = valuation.price_of(Quote(**quote), now=NOW)
    assert price is not None
    return price.at


def test_a_price_has_the_time_of_the_exchange_or_that_of_its_tick_and_never_now():
    traded = NOW - timedelta(seconds=50)
    assert at(bid=1.0, ask=1.2, last=1.1, last_time=traded, received_at=RECENT) == traded
    assert at(bid=1.0, ask=1.2, quote_time=OLD, received_at=NOW) == OLD
    assert at(mark=1.0, mark_time=RECENT, last_time=traded, received_at=NOW) == RECENT
    assert at(mark=1.0, mark_time=OLD, received_at=NOW) == OLD
    assert at(model_price=1.0, greeks_time=OLD, received_at=NOW) == OLD


@pytest.mark.parametrize(
    ("account", "mode"),
    [("DUSIM0001", "SIMULATED"), ("DU123", "PAPER"), ("DF99", "PAPER"), ("U123", "LIVE")],
)
def test_the_trading_mode_shows_in_the_account(account, mode):
    assert trading_mode_of(account) is TradingMode(mode)
