"""The numbers that limits are compared with; what is not known of one holding is not known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.lake.schema import rows_of_positions, update_rows
from position_sync_dagster.money.campaigns.closes_of_strategies import Closes
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import (
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.exposure import Claims, split
from position_sync_dagster.money.strategies.limit_readings import evaluate
from position_sync_dagster.money.strategies.limits import (
    OF_ACCOUNTS,
    SUMS_OF_MONEY,
    Bound,
    Limit,
    LimitState,
    Measure,
)
from position_sync_dagster.sync.confirmations import CONFIRMED, PRICED
from tests.support import money_rows
from tests.support.holdings import make_holding
from tests.support.legs import leg

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
LOGIN = "127.0.0.1:4002"
PUT = Right.PUT
EURO = AccountSummary(
    account="DUSIM1", currency="EUR", exchange_rates='{"USD": 0.8}', timestamp=NOW
)
HOLDS = LimitState.HOLDS
BROKEN = LimitState.BROKEN
UNKNOWN = LimitState.UNKNOWN


def row(conid: int, position: float = 1.0, **values: object) -> PositionUpdate:
    terms = {"right": Right.CALL, "strike": 450.0, "expiry": date(2026, 3, 20)}
    whose = {"account": "DUSIM1", "gateway_id": LOGIN, "position": position}
    profits = {"unrealized_pnl": position * 50.0, "daily_pnl": position * 5.0}
    prices = {"market_price": 1.5, "market_value": position * 150.0, "underlying_price": 440.0}
    usual = terms | whose | profits | prices | {"delta": 0.5}
    return money_rows.row(conid, **usual | values)


def book(
    legs: Sequence[ActiveContract],
    rows: Sequence[PositionUpdate],
    ages: Mapping[int, float | None] | None = None,
    ends: Mapping[int, str] | None = None,
    **values: object,
) -> Book:
    """Return a book of rows; `ages` are seconds since each conid was confirmed."""
    frame = update_rows(rows)
    times = []
    for conid in frame["conid"]:
        age = (ages or {}).get(conid, 1.0)
        times.append(None if age is None else NOW - timedelta(seconds=age))

    column = pl.Series(times, dtype=pl.Datetime("us", "UTC"))
    priced = frame.with_columns(column.alias(CONFIRMED), column.alias(PRICED))
    claims = Claims(legs)
    parts = split(claims, priced, end_of=lambda entry: (ends or {}).get(entry.conid))
    live_since = {LOGIN: NOW - timedelta(minutes=6)}
    plain = Book(
        now=NOW, priced=priced, claims=claims, split=parts, live_since=live_since, logins=(LOGIN,)
    )
    return replace(plain, **values)  # type: ignore[arg-type]


LEGS = [leg(1, strategy_id="a"), leg(2, strategy_id="a", right=PUT)]
ROWS = [row(1, -1.0), row(2, 2.0, right=PUT)]
SHORT = "short_in_money"


OF_ACCOUNT: dict[str, Any] = {"strategy_id": None, "account": "DUSIM1"}
Answer = tuple[LimitState, float | None, str]


def outcome(measure: str, book: Book, **values: object) -> Answer:
    plain = {"strategy_id": "a", "measure": Measure(measure), "bound": Bound.MAX, "value": 0.0}
    (evaluated,) = evaluate([Limit(**plain | values)], book)  # type: ignore[arg-type]
    return evaluated.outcome, evaluated.reading.number, evaluated.text


def in_usd(measure: str, book: Book, **values: object) -> Answer:
    return outcome(measure, book, currency="USD", **values)


@pytest.mark.parametrize(
    ("measure", "currency", "number"),
    [
        ("unrealized_pnl", "USD", 50.0),
        ("daily_pnl", "USD", 5.0),
        ("dollar_delta", "USD", 0.5 * 100 * 440),
        ("theta", "USD", -10.0),
        ("vega", "USD", 20.0),
        ("unrealized_pnl", "EUR", 40.0),
        ("days_to_expiry", None, 11),
        (SHORT, None, 0),
        ("value_age_s", None, 9.0),
        ("missing_legs", None, 0),
    ],
)
def test_the_number_of_each_measure(measure, currency, number) -> None:
    read_book = book(LEGS, ROWS, {1: 9.0}, accounts=(EURO,))
    assert outcome(measure, read_book, currency=currency)[1] == pytest.approx(number)
    of_account = outcome(measure, read_book, currency=currency, **OF_ACCOUNT)
    assert of_account[1] == pytest.approx(number)


@pytest.mark.parametrize(
    ("measure", "missing"),
    [
        ("unrealized_pnl", "unrealized_pnl"),
        ("unrealized_pnl", "nan"),
        ("daily_pnl", "daily_pnl"),
        ("dollar_delta", "delta"),
        ("dollar_delta", "underlying_price"),
        ("theta", "theta"),
        ("vega", "vega"),
    ],
)
def test_a_sum_without_one_of_its_parts_is_unknown(measure, missing) -> None:
    values: dict[str, float | None] = {missing: None}
    if missing == "nan":
        values = {"unrealized_pnl": float("nan")}

    read_book = book(LEGS, [ROWS[0], row(2, 2.0, right=PUT, **values)])
    state, number, text = in_usd(measure, read_book, value=-1e9)
    assert state == UNKNOWN
    assert number is None
    assert "SPY 450P 20Mar26" in text


DOUBTS = {
    "gateway": (book(LEGS, ROWS, live_since={}), f"the gateway of {LOGIN} is not connected"),
    "late": (book(LEGS, ROWS, {2: 361.0}), "not confirmed lately: SPY 450P 20Mar26"),
    "never": (book(LEGS, ROWS, {2: None}), "not confirmed lately: SPY 450P 20Mar26"),
    "contract": (book(LEGS, ROWS, unresolved=frozenset({"a"})), "the contract of a leg"),
    "legs": (book([], ROWS), "the strategy has no active leg"),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_nothing_holds_while_something_of_it_is_not_certain(doubt) -> None:
    found, why = DOUBTS[doubt]
    for measure in {*Measure} - OF_ACCOUNTS:
        state, _number, text = in_usd(measure, found, value=1e9)
        assert state is UNKNOWN, measure
        assert why in text, measure


@pytest.mark.parametrize("subject", [{}, OF_ACCOUNT])
@pytest.mark.parametrize(
    ("conid", "position", "of_strategy"), [(2, 3.0, True), (2, 0.0, True), (9, 1.0, False)]
)
def test_nothing_holds_while_the_ledger_lacks_a_quantity_that_the_broker_reports(
    subject, conid, position, of_strategy
) -> None:
    holding = make_holding(conid, NOW, position=position, account="DUSIM1")
    reported = rows_of_positions([holding], None)
    read_book = book(LEGS, ROWS, reported=reported)
    state, _number, text = in_usd("theta", read_book, value=1e9, **subject)
    assert state is (UNKNOWN if subject or of_strategy else HOLDS)
    assert ("no row has been written since" in text) == (state is UNKNOWN)
    holding = make_holding(2, NOW, position=2.0, account="DUSIM1")
    written = book(LEGS, ROWS, reported=rows_of_positions([holding], None))
    assert in_usd("theta", written, value=1e9, **subject)[0] is HOLDS


def test_an_old_value_is_a_break_also_while_the_gateway_is_away() -> None:
    away = book(LEGS, ROWS, {1: 500.0}, live_since={})
    assert outcome("value_age_s", away, value=120.0)[0] is BROKEN
    assert outcome("value_age_s", away, value=600.0)[0] is UNKNOWN


def test_a_short_option_in_the_money_is_a_break_beside_one_that_is_not_known() -> None:
    in_money = row(1, -1.0, underlying_price=451.0)
    assert outcome(SHORT, book(LEGS, [in_money, ROWS[1]]))[:2] == (BROKEN, 1)
    unknown = row(2, -2.0, right=PUT, underlying_price=None)
    assert outcome(SHORT, book(LEGS, [in_money, unknown]))[:2] == (BROKEN, 1)
    assert outcome(SHORT, book(LEGS, [ROWS[0], unknown]))[0] is UNKNOWN


@pytest.mark.parametrize("measure", sorted(SUMS_OF_MONEY - OF_ACCOUNTS))
def test_a_limit_in_a_currency_without_a_rate_is_unknown(measure) -> None:
    in_pounds = {"currency": "GBP"}
    for accounts in ((), (EURO,), (replace(EURO, exchange_rates='{"GBP": 1.25}'),)):
        read_book = book(LEGS, ROWS, accounts=accounts)
        for subject in ({}, OF_ACCOUNT):
            state, number, text = outcome(measure, read_book, **in_pounds, **subject)
            assert state == UNKNOWN
            assert number is None
            assert "account DUSIM1 has values in USD, and the broker has sent no" in text
            assert "exchange rate to GBP" in text
    both = replace(EURO, exchange_rates='{"GBP": 1.25, "USD": 0.8}')
    known = outcome(measure, book(LEGS, ROWS, accounts=(both,)), **in_pounds)[1]
    in_dollars = in_usd(measure, book(LEGS, ROWS))[1]
    assert known == pytest.approx(in_dollars * 0.8 / 1.25)


GREEKLESS: dict[str, object] = dict.fromkeys(("gamma", "theta", "vega"))


@pytest.mark.parametrize("measure", ["theta", "vega", "gamma_1pct"])
def test_greeks_need_no_rate_of_a_currency_in_which_no_option_is_held(measure) -> None:
    shares = row(3, 100.0, right=None, sec_type="STK", currency="CHF", **GREEKLESS)
    read_book = book(LEGS, [*ROWS, shares], accounts=(EURO,))
    number = in_usd(measure, read_book, **OF_ACCOUNT)[1]
    assert number is not None
    assert number == in_usd(measure, book(LEGS, ROWS), **OF_ACCOUNT)[1]


def test_closed_legs_have_no_sums_and_are_missing() -> None:
    closed = book(LEGS, [row(1, 0.0), row(2, 0.0)])
    assert in_usd("unrealized_pnl", closed)[:2] == (HOLDS, 0.0)
    assert outcome("days_to_expiry", closed, bound=Bound.MIN, value=7.0)[:2] == (HOLDS, None)
    assert outcome("value_age_s", closed)[:2] == (HOLDS, None)
    assert outcome("missing_legs", closed)[:2] == (BROKEN, 2)
    known = book(LEGS, [row(1, 0.0), row(2, 0.0)], ends={1: "expired on 2026-03-20"})
    assert outcome("missing_legs", known)[:2] == (BROKEN, 1)
    assert outcome("missing_legs", book(LEGS, [ROWS[0]]), **OF_ACCOUNT)[:2] == (BROKEN, 1)


def test_an_account_of_which_nothing_is_known_holds_no_limit() -> None:
    typo = {"strategy_id": None, "account": "DUSIM11"}
    assert in_usd("unrealized_pnl", book(LEGS, ROWS), **typo)[0] is UNKNOWN
    flat = book([], [], accounts=(EURO,))
    assert in_usd("unrealized_pnl", flat, **OF_ACCOUNT)[:2] == (HOLDS, 0.0)


def of_put(worth: float | None, measure: str = "reached", **limit: Any) -> Answer:
    """Return what is said of a put that was sold for 200, less 1."""
    at = NOW - timedelta(days=3)
    day = at.date()
    terms = {"symbol": "SPY", "sec_type": "OPT", "right": "PUT", "strike": 450.0}
    terms |= {"conid": 2, "expiry": date(2026, 3, 20), "multiplier": 100.0}
    amounts = {"quantity": -1.0, "price": 2.0, "cash": 200.0, "fee": -1.0}
    sold = Movement(
        movement_id="1", kind=MovementKind.TRADE, section=Section.TRADES, account="DUSIM1",
        day=day, session_date=day, at=at, currency="USD", fee_currency="USD",
        source=MovementSource.API, **terms, **amounts,
    )  # fmt: skip
    legs = [leg(2, strategy_id="a", right=PUT, since=day)]
    rows = [row(2, -1.0, right=PUT, market_value=worth)]
    closes = Closes(since=at, parts=attributed([sold], legs, {}))
    return outcome(measure, book(legs, rows, closes=closes), **limit)


def test_a_target_is_reached_and_left():
    assert of_put(-120.0, value=0.5)[:2] == (HOLDS, pytest.approx(79 / 200))
    state, number, text = of_put(-80.0, value=0.5)
    assert state == BROKEN
    assert number == pytest.approx(119 / 200)
    assert text == "strategy a: reached 59.5 %; the max is 50.0 %."
    state, number, text = of_put(None, value=0.5)
    assert state == UNKNOWN
    assert number is None
    assert text.endswith("its profit is not known.")


def test_a_loss_is_compared_with_the_credit():
    assert of_put(-400.0, "loss_of_credit", value=2.0)[:2] == (HOLDS, pytest.approx(201 / 200))
    assert of_put(-700.0, "loss_of_credit", value=2.0)[:2] == (BROKEN, pytest.approx(501 / 200))
    assert of_put(None, "loss_of_credit", value=2.0)[0] is UNKNOWN


def test_a_limit_of_kinds_is_one_of_the_strategies_that_began_as_one_of_them():
    of_kind = {"value": 0.5, "kinds": frozenset({"short-put", "iron-condor"})}
    assert of_put(-80.0, **of_kind)[0] is BROKEN
    with pytest.raises(ValueError, match="not enough values"):
        of_put(-80.0, value=0.5, kinds=frozenset({"long-put"}))


def test_a_strategy_whose_opening_nothing_says_has_reached_nobody_knows_what():
    state, _number, text = outcome("reached", book(LEGS, ROWS), value=0.5)
    assert state is UNKNOWN
    assert "no trade says how it was opened" in text
    flat = book(LEGS, [row(1, 0.0), row(2, 0.0)])
    assert outcome("reached", flat, value=0.5)[:2] == (HOLDS, None)


MARGINS = replace(
    EURO, gateway_id=LOGIN, net_liquidation=1000.0, excess_liquidity=80.0, maintenance_margin=400.0
)
WITHOUT_EXCESS = replace(MARGINS, excess_liquidity=None)


@pytest.mark.parametrize(
    ("measure", "currency", "accounts", "number", "outcome"),
    [
        ("cushion", None, [MARGINS], 0.08, BROKEN),
        ("excess_liquidity", "EUR", [MARGINS], 80.0, HOLDS),
        ("maintenance_margin", "USD", [MARGINS], 500.0, HOLDS),
        ("maintenance_margin", "GBP", [MARGINS], None, UNKNOWN),
        ("cushion", None, [WITHOUT_EXCESS], None, UNKNOWN),
        ("cushion", None, [replace(MARGINS, gateway_id="away")], None, UNKNOWN),
        ("cushion", None, [], None, UNKNOWN),
    ],
)
def test_the_margins_of_an_account_are_the_brokers_numbers(
    measure, currency, accounts, number, outcome
):
    terms = {"measure": Measure(measure), "bound": Bound.MIN, "value": 0.1, "currency": currency}
    limit = Limit(account="DUSIM1", **terms)
    (evaluated,) = evaluate([limit], book([], [], accounts=tuple(accounts)))
    assert evaluated.reading.number == number
    assert evaluated.outcome == outcome
