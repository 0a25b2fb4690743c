"""What expiring legs leave, whether an account can deliver it, and early assignment."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk.deliveries import (
    early_assignments,
    expiries,
    expiry_report,
    uncovered_calls,
    undated_options,
)
from position_sync_dagster.money.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.money.risk.terms import DatedDividend, NotPriced
from tests.support import money_rows
from tests.support.contracts import contract_details
from tests.support.legs import leg as claim
from tests.unit.money.risk.test_scenarios import EXPIRY, NOW, RATES, option, share

SOON = NOW.date() + timedelta(days=4)


def leg(conid: int, right: str, strike: float, position: float, **values: object) -> PositionUpdate:
    """Return an option on IWM at 100, with a time value of 1."""
    spot = values.get("underlying_price", 100.0)
    intrinsic = 0.0
    if isinstance(spot, float):
        intrinsic = max(0.0, spot - strike if right == "CALL" else strike - spot)
    value = position * 100 * (intrinsic + 1.0)
    usual = {"symbol": "IWM", "underlying_price": 100.0, "market_value": value}
    usual |= {"right": right, "strike": strike, "position": position}
    return option(conid, **usual | values)


def shares(position: float, **values: object) -> PositionUpdate:
    money = {"market_price": 100.0, "market_value": position * 100}
    return share(50, **{"symbol": "IWM", "position": position} | money | values)


def priced(*rows: PositionUpdate, claims: tuple = (), **given: object) -> PricedLegs:
    parts = money_rows.book_of(list(rows), list(claims)).split.parts
    assumed = Assumptions(**{"now": NOW, "rates": RATES} | given)  # type: ignore[arg-type]
    return PricedLegs.of(parts, assumed)


def ending(*rows: PositionUpdate, until: date = EXPIRY, **given: object) -> dict[int, dict]:
    return {row["conid"]: row for row in expiries(priced(*rows, **given), until=until)}


def test_a_short_call_in_the_money_takes_shares_and_is_uncovered_beyond_those_held():
    row = ending(leg(1, "CALL", 95.0, -3.0), shares(200.0))[1]
    assert row["units"] == (-300.0)
    assert row["cash"] == 28_500.0
    assert row["missing"] == 100.0
    assert row["is_uncovered"]
    row = ending(leg(1, "CALL", 95.0, -2.0), shares(200.0))[1]
    assert row["units"] == (-200.0)
    assert row["is_uncovered"] is False
    assert row["is_pinned"] is False
    assert ending(leg(1, "CALL", 95.0, -3.0), until=EXPIRY - timedelta(days=1)) == {}


def test_two_short_calls_do_not_both_have_the_same_shares():
    rows = ending(leg(1, "CALL", 95.0, -1.0), leg(2, "CALL", 97.0, -1.0), shares(100.0))
    assert rows[1]["missing"] == 0.0
    assert rows[2]["missing"] == 100.0


def test_a_short_call_is_covered_by_a_long_one_of_the_same_expiry_if_both_are_in_the_money():
    rows = ending(leg(1, "CALL", 96.0, -1.0), leg(2, "CALL", 99.0, 1.0))
    assert rows[1]["is_uncovered"] is False
    assert rows[2]["is_uncovered"] is False
    rows = ending(leg(1, "CALL", 96.0, -1.0), leg(2, "CALL", 105.0, 1.0))
    assert rows[1]["missing"] == 100.0


def test_a_long_call_that_expires_later_covers_and_one_that_expired_before_does_not():
    later = leg(2, "CALL", 105.0, 1.0, expiry=EXPIRY + timedelta(days=30))
    assert not ending(leg(1, "CALL", 96.0, -1.0), later)[1]["is_uncovered"]
    before = replace(later, expiry=EXPIRY - timedelta(days=30))
    assert ending(leg(1, "CALL", 96.0, -1.0), before)[1]["is_uncovered"]


def test_shares_that_an_earlier_expiry_takes_cover_no_later_one():
    near = leg(1, "CALL", 95.0, -1.0, expiry=SOON)
    rows = ending(near, leg(2, "CALL", 95.0, -1.0), shares(100.0))
    assert rows[1]["missing"] == 0.0
    assert rows[2]["missing"] == 100.0


def test_shares_of_another_strategy_cover_in_the_same_account_and_in_no_other():
    claims = (claim(1, "calls", symbol="IWM", right="CALL", strike=95.0, expiry=EXPIRY),)
    call = leg(1, "CALL", 95.0, -1.0)
    assert not ending(call, shares(100.0), claims=claims)[1]["is_uncovered"]
    other = shares(100.0, account="DUSIM0002")
    assert ending(call, other, claims=claims)[1]["is_uncovered"]


def test_a_long_put_in_the_money_without_shares_leaves_them_short():
    assert ending(leg(1, "PUT", 110.0, 1.0))[1]["missing"] == 100.0
    rows = ending(leg(1, "PUT", 110.0, 1.0), leg(2, "PUT", 105.0, -1.0))
    assert rows[1]["missing"] == 0.0


def test_an_option_near_its_strike_is_pinned_and_one_on_an_index_is_settled_in_cash():
    assert ending(leg(1, "CALL", 99.6, -3.0))[1]["is_pinned"]
    days = {"last_trade_date": EXPIRY - timedelta(days=1), "expires_on": EXPIRY}
    index = contract_details(1, symbol="IWM", under_sec_type="IND", strike=90.0, **days)
    row = ending(leg(1, "CALL", 90.0, -3.0), details={1: index})[1]
    assert row["units"] == 0.0
    assert row["cash"] == (-3000.0)
    assert row["is_uncovered"] is False
    assert row["is_cash_settled"] is True
    assert row["is_in_the_morning"] is True


ES = {"symbol": "ES", "multiplier": 50.0, "underlying_price": 6510.0}


def of_es(conid: int, right: str, strike: float, position: float) -> PositionUpdate:
    worth = {"market_price": 110.0, "market_value": position * 50.0 * 110.0}
    return leg(conid, right, strike, position, sec_type="FOP", **ES, **worth)


def future(expiry: date = EXPIRY + timedelta(days=90)) -> PositionUpdate:
    money = {"market_price": 6510.0, "market_value": 325_500.0, "position": 1.0}
    return share(51, sec_type="FUT", symbol="ES", multiplier=50.0, expiry=expiry, **money)


def test_an_option_on_a_future_leaves_its_mark_and_one_future():
    row = ending(of_es(1, "PUT", 6600.0, -1.0))[1]
    assert row["units"] == 1.0
    assert row["cash"] == (-4500.0)
    assert row["is_uncovered"] is False


def test_a_short_call_on_a_future_is_covered_by_the_future_that_it_is_on():
    call = of_es(1, "CALL", 6500.0, -1.0)
    row = ending(call, future())[1]
    assert row["units"] == (-1.0)
    assert row["missing"] == 0.0
    assert ending(call)[1]["missing"] == 1.0
    terms = {"sec_type": "FOP", "under_conid": 99, "strike": 6500.0}
    days = {"last_trade_date": EXPIRY, "expires_on": EXPIRY}
    of_another_month = contract_details(1, **terms, **days)
    assert ending(call, future(), details={1: of_another_month})[1]["missing"] == 1.0


def test_a_future_that_expires_is_listed():
    row = ending(future(expiry=SOON), until=SOON)[51]
    assert row["cash"] == 0.0
    assert row["units"] is None
    assert "delivers is not known" in row["reason"]
    days = {"last_trade_date": SOON, "expires_on": SOON, "right": None, "strike": None}
    details = {51: contract_details(51, sec_type="FUT", under_sec_type="IND", **days)}
    row = ending(future(expiry=SOON), until=SOON, details=details)[51]
    assert row["units"] == 0.0
    assert row["is_cash_settled"] is True
    assert row["reason"] is None


def test_a_future_that_is_named_by_its_month_alone_expires_on_the_day_of_its_details():
    days = {"last_trade_date": None, "expires_on": SOON, "right": None, "strike": None}
    details = {51: contract_details(51, sec_type="FUT", **days)}
    (row,) = ending(future(expiry=None), until=SOON, details=details).values()
    assert row["expires_at"].date() == SOON


def test_a_leg_without_a_price_is_listed_with_the_reason():
    row = ending(leg(1, "CALL", 95.0, -1.0, underlying_price=None))[1]
    assert row["units"] is None
    assert row["cash"] is None
    assert row["is_uncovered"] is None
    assert row["reason"] == NotPriced.NO_PRICE
    no_terms = leg(1, "CALL", 95.0, -1.0, expiry=None)
    assert ending(no_terms) == {}
    (undated,) = undated_options(priced(no_terms))
    assert undated["reason"] == NotPriced.NO_TERMS


def test_the_price_of_another_leg_of_the_underlying_counts_and_a_volatility_is_not_needed():
    bare = leg(1, "CALL", 95.0, -1.0, underlying_price=None, implied_vol=None)
    assert ending(bare, shares(100.0))[1]["units"] == -100.0
    assert ending(bare, leg(2, "CALL", 105.0, 1.0))[1]["units"] == -100.0


def test_moments_are_those_of_new_york():
    terms = {"symbol": "IWM", "right": "CALL", "strike": 95.0, "trading_class": "IWM"}
    terms |= {"sec_type": "OPT", "under_sec_type": "STK"}
    days = {"last_trade_date": EXPIRY, "expires_on": EXPIRY}
    chicago = contract_details(
        1, time_zone="US/Central", last_trade_time="15:00:00", **terms, **days
    )
    call = leg(1, "CALL", 95.0, -1.0)
    rows = ending(call, replace(call, conid=2), details={1: chicago})
    moment = datetime(2026, 6, 19, 16, 0, tzinfo=ZoneInfo("America/New_York"))
    assert {row["expires_at"].isoformat() for row in rows.values()} == {moment.isoformat()}

    tokyo = replace(chicago, time_zone="Asia/Tokyo", last_trade_time="07:00:00")
    day_before = EXPIRY - timedelta(days=1)
    assert set(ending(call, until=day_before, details={1: tokyo})) == {1}


def test_today_is_the_day_of_the_calendar_s_exchange():
    """At 02:00 UTC on 5 March it is the 5th in Hong Kong, and still the 4th in New York."""
    day = date(2026, 3, 5)
    call = leg(1, "CALL", 95.0, -1.0, expiry=day)
    now = datetime(2026, 3, 5, 2, tzinfo=UTC)
    terms = {"symbol": "IWM", "right": "CALL", "strike": 95.0, "sec_type": "OPT"}
    ends = {"last_trade_date": day, "last_trade_time": "16:00:00", "time_zone": "Asia/Hong_Kong"}
    details = {1: contract_details(1, under_sec_type="STK", trading_class="IWM", **terms, **ends)}
    expected = {"XNYS": 0, "XHKG": 1}
    for calendar, number in expected.items():
        legs = priced(call, now=now, calendar=calendar, details=details)
        report = expiry_report(legs, days=0)
        assert len(report["expiries"]) == number


def assigned(*rows: PositionUpdate, **given: object) -> dict[int, dict]:
    return {row["conid"]: row for row in early_assignments(priced(*rows, **given)).likely}


def worth(row: PositionUpdate, price: float) -> PositionUpdate:
    return replace(row, market_price=price, market_value=row.position * 100 * price)


DEEP_PUT = leg(1, "PUT", 300.0, -1.0, underlying_price=241.0, implied_vol=None)


@pytest.mark.parametrize("price", [59.0, 58.9, 59.04])
def test_a_short_put_at_or_near_its_intrinsic_value_may_be_assigned_without_a_volatility(price):
    row = assigned(worth(DEEP_PUT, price))[1]
    assert row["extrinsic"] == pytest.approx(price - 59.0)
    assert row["leg"] == "IWM 300P 19Jun26"
    assert assigned(worth(DEEP_PUT, price), rates={}) == {1: row}, "it needs no rate"


def test_puts_of_two_years_far_above_parity_are_not_assigned():
    far = replace(DEEP_PUT, expiry=EXPIRY + timedelta(days=730))
    assert assigned(worth(far, 88.0)) == {}


def test_a_call_without_a_dividend_is_assigned_below_its_intrinsic_value_and_not_at_it():
    call = leg(1, "CALL", 89.0, -1.0, expiry=SOON, implied_vol=None)
    assert assigned(worth(call, 10.9))[1]["ex_date"] is None
    assert assigned(worth(call, 11.0)) == {}
    assert assigned(worth(call, 11.1)) == {}


def test_a_call_is_assigned_in_the_days_before_an_ex_date_whose_dividend_exceeds_its_time_value():
    call = worth(leg(1, "CALL", 89.0, -1.0), 11.5)

    def before(days: int, amount: float, **given: object) -> list[int]:
        paid = [DatedDividend(ex_date=NOW + timedelta(days=days), amount=amount)]
        return [*assigned(call, dividends={"IWM": paid}, **given)]

    assert before(1, 1.5) == [1]
    assert before(1, 1.5, rates={}) == [1]  # the rule needs no rate
    assert before(1, 0.3) == []
    assert before(40, 1.5) == []  # its holder waits
    assert assigned(call) == {}  # no dividend is known


def test_an_option_on_an_index_is_never_assigned_early_and_one_on_a_future_may_be():
    days = {"last_trade_date": EXPIRY, "expires_on": EXPIRY}
    index = contract_details(1, symbol="IWM", under_sec_type="IND", strike=300.0, **days)
    assert assigned(worth(DEEP_PUT, 59.0), details={1: index}) == {}
    put = of_es(1, "PUT", 7000.0, -1.0)
    below = replace(put, market_price=490.0, market_value=-490.0 * 50)
    assert [*assigned(below)] == [1]


def test_what_cannot_be_judged_is_listed_and_in_doubt_if_it_may_be_in_the_money():
    no_value = replace(DEEP_PUT, market_value=None)
    no_price = replace(DEEP_PUT, conid=2, symbol="XYZ", underlying_price=None)
    out = replace(leg(3, "CALL", 120.0, -1.0), market_value=None, symbol="AAA")
    result = early_assignments(priced(no_value, no_price, out))
    assert result.likely == []
    in_the_money = {row["conid"]: row["in_the_money"] for row in result.left_out}
    assert in_the_money == {1: True, 2: None, 3: False}
    assert [row["conid"] for row in result.doubtful] == [1, 2]


def test_a_call_sold_above_the_price_without_shares_is_uncovered_if_it_is_exercised():
    calls = (leg(1, "CALL", 120.0, -2.0), leg(2, "CALL", 130.0, 1.0))
    (uncovered,) = uncovered_calls(priced(*calls))
    assert uncovered["conid"] == 1
    assert uncovered["missing"] == 100.0
    assert uncovered_calls(priced(*calls, shares(100.0))) == []
