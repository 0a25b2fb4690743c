"""Translation: IB's sentinels and spellings become None, numbers and days."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import nan

import pytest
from ib_async import Contract, OptionComputation, TickData, Ticker
from ib_async import ContractDetails as IBContractDetails

from position_sync_dagster.gateway.translate import (
    Arrivals,
    details_of,
    instrument_of,
    multiplier_of,
    quote_of,
    streamable,
)

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize("right", ["", "0", "?"])
def test_a_stock_has_neither_right_nor_strike_nor_multiplier(right):
    contract = Contract(conId=1, symbol="AAPL", secType="STK", currency="USD", right=right)
    stock = instrument_of(contract)
    assert stock.right is None
    assert stock.strike is None
    assert stock.multiplier == 1.0
    assert stock.expiry is None


@pytest.mark.parametrize(
    ("sec_type", "text", "multiplier"),
    [
        ("OPT", "100", 100.0),
        ("FUT", "0.1", 0.1),
        ("STK", "", 1.0),
        ("OPT", "", None),
        ("FUT", "", None),
        ("OPT", "nan", None),
        ("STK", "1.7976931348623157E308", None),
        ("OPT", "-100", None),
    ],
)
def test_a_multiplier_that_is_not_known_is_no_1(sec_type, text, multiplier):
    assert multiplier_of(sec_type, text) == multiplier
    contract = Contract(conId=1, symbol="X", secType=sec_type, multiplier=text)
    if multiplier is None:
        with pytest.raises(ValueError, match="multiplier"):
            instrument_of(contract)
    else:
        assert instrument_of(contract).multiplier == multiplier


@pytest.mark.parametrize(
    ("text", "day"),
    [("20261218 08:30:00 US/Central", date(2026, 12, 18)), ("202612", None), ("", None)],
)
def test_a_last_trade_date_is_a_day_or_unknown(text, day):
    contract = Contract(
        conId=1, symbol="ES", secType="FUT", lastTradeDateOrContractMonth=text, multiplier="50"
    )
    assert instrument_of(contract).expiry == day


@pytest.mark.parametrize(
    ("sec_type", "listed", "at", "exchange"),
    [
        ("OPT", "", "CME", "SMART"),
        ("FUT", "", "CME", "CME"),
        ("OPT", "SMART,CBOE", "SMART", "SMART"),
        ("OPT", "EUREX", "EUREX", "EUREX"),
        ("OPT", "EUREX,QBALGO", "", "EUREX"),
        ("FUT", "QBALGO,CME", "QBALGO", "CME"),
    ],
)
def test_options_stream_from_smart_unless_others_are_listed_and_futures_from_their_exchange(
    sec_type, listed, at, exchange
):
    contract = Contract(conId=1, symbol="X", secType=sec_type, exchange=at, multiplier="50")
    sent = IBContractDetails(contract=contract, validExchanges=listed, priceMagnifier=0)
    details = details_of(sent, seen_at=NOW)
    assert details.valid_exchanges == listed  # "": it names none; null stands for "never asked"
    assert details.price_magnifier == 1
    assert streamable(details).exchange == exchange


def test_an_index_option_settled_at_the_open_expires_after_its_last_trading_day():
    contract = Contract(
        conId=1, secType="OPT", lastTradeDateOrContractMonth="20260219", multiplier="100"
    )
    details = IBContractDetails(contract=contract, realExpirationDate="20260220")
    contract_details = details_of(details, seen_at=NOW)
    assert contract_details.last_trade_date == date(2026, 2, 19)
    assert contract_details.expires_on == date(2026, 2, 20)


def ticker(**fields):
    ticker = Ticker(contract=Contract(conId=1))  # a new one has no prices, whatever it is given
    for name, value in fields.items():
        setattr(ticker, name, value)
    return ticker


def test_an_absent_side_is_none_however_it_is_written():
    for absent in (nan, -1, 0):
        quote = quote_of(ticker(bid=absent, ask=absent, last=nan), Arrivals())
        assert quote.bid is None
        assert quote.ask is None
        assert quote.last is None


def test_unset_greeks_are_none_and_a_delta_of_minus_one_is_a_delta():
    unset = OptionComputation(0, -1, -2, -1, -1, -2, -2, -2, -1)
    quote = quote_of(ticker(modelGreeks=unset), Arrivals())
    assert {quote.implied_vol, quote.delta, quote.gamma, quote.vega, quote.theta} == {None}
    assert quote.underlying_price is None
    deep = OptionComputation(0, 0.2, -1.0, 1, 0, 0.0, 0.0, -0.1, 600.0)
    quote = quote_of(ticker(modelGreeks=deep), Arrivals())
    assert quote.delta == (-1)
    assert quote.gamma == 0
    assert quote.theta == (-0.1)
    assert quote.underlying_price == 600


@pytest.mark.parametrize("zero", ["undPrice", "impliedVol"])
def test_a_model_without_a_price_of_the_underlying_or_a_volatility_has_computed_nothing(zero):
    greeks = OptionComputation(0, 0.2, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, 600.0)
    quote = quote_of(ticker(modelGreeks=replace(greeks, **{zero: 0.0})), Arrivals(model=NOW))
    assert (quote.delta, quote.gamma, quote.vega, quote.theta) == (None,) * 4
    assert quote.model_price is None
    assert quote.greeks_time is None
    assert quote_of(ticker(modelGreeks=greeks), Arrivals(model=NOW)).greeks_time == NOW


def test_delayed_data_takes_the_delayed_time_of_its_last_trade():
    live = NOW
    late = NOW - timedelta(minutes=15)
    both = {"lastTimestamp": live, "delayedLastTimestamp": late}
    assert quote_of(ticker(marketDataType=3, **both), Arrivals()).last_time == late
    assert quote_of(ticker(marketDataType=1, **both), Arrivals()).last_time == live


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_what_came_as_frozen_or_delayed_data_is_no_live_price_once_the_line_is_live(kind):
    line = ticker(marketDataType=kind, bid=1.0, ask=1.2, markPrice=1.1)
    arrivals = Arrivals()
    line.time = NOW
    line.ticks = [TickData(NOW, 1, 1.0, 5), TickData(NOW, 37, 1.1, 0)]
    arrivals.note(line)
    line.marketDataType = 1
    assert quote_of(line, arrivals).market_data_type == kind
    line.time = NOW + timedelta(seconds=1)
    line.ticks = [TickData(NOW, 1, 1.0, 6)]
    arrivals.note(line)
    quote = quote_of(line, arrivals)
    assert quote.market_data_type == 1
    assert quote.quote_time == line.time
    assert quote.mark_time is None


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_a_halt_is_that_of_the_kind_of_data(kind):
    live = ticker(marketDataType=kind, halted=1.0, delayedHalted=0.0)
    assert quote_of(live, Arrivals()).halted is (kind in (1, 2))
    late = ticker(marketDataType=kind, halted=0.0, delayedHalted=2.0)
    assert quote_of(late, Arrivals()).halted is (kind in (3, 4))


@pytest.mark.parametrize(
    "conid", [0, -1, 2**31, 2**63, 10**5000], ids=["0", "-1", "2^31", "2^63", "huge"]
)
def test_a_conid_that_no_contract_has_cannot_be_read(conid):
    contract = Contract(conId=conid, symbol="SPY", secType="STK", currency="USD")
    with pytest.raises(ValueError, match="without a contract"):
        details_of(IBContractDetails(contract=contract), seen_at=NOW)
    contract.conId = 1
    details = details_of(IBContractDetails(contract=contract, underConId=conid), seen_at=NOW)
    assert details.under_conid is None
