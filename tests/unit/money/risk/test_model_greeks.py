"""The greeks of an account: what is due, why there are none, and which are worth a row."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from position_sync_dagster.domain.holding import HoldingGreeks
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.model import Exercise, NoVolatility
from position_sync_dagster.money.risk.model_greeks import (
    AccountGreeks,
    underlying_price,
)
from position_sync_dagster.money.risk.terms import (
    DatedDividend,
    ModelledLeg,
    NoGreeks,
    NotPriced,
    OptionTerms,
    Reason,
    as_options,
    compute,
)
from position_sync_dagster.sync.stream.parts import PublishedGreeks
from tests.support.holdings import make_book, make_holding

NOW = datetime(2028, 6, 1, 14, 0, tzinfo=UTC)
STOCK = 1
PUT = OptionTerms(
    right=Right.PUT, strike=100.0, expires_at=NOW + timedelta(days=90), exercise=Exercise.AMERICAN,
    rate=0.04,
)  # fmt: skip


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def value(greeks: AccountGreeks, spot: float, seconds: float, volatility: float = 0.3) -> None:
    """Report the value that the option has at a price of its underlying."""
    option = as_options([PUT], [at(seconds)], [spot])
    prices = model.prices(option, np.array([[spot]]), np.array([[volatility]]), model.COARSE)
    greeks.valued(7, float(prices[0, 0]), at(seconds))


def opened(session_open: bool | None = True) -> AccountGreeks:
    greeks = AccountGreeks(session_open=lambda _conid: session_open)
    greeks.add(7, PUT, STOCK)
    return greeks


def valued(session_open: bool | None = True) -> AccountGreeks:
    """Return greeks of an option whose value and whose underlying's price came at once."""
    greeks = opened(session_open)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    value(greeks, 100.0, 0)
    return greeks


def computed(greeks: AccountGreeks, seconds: float) -> list[ModelledLeg]:
    due = greeks.due(at(seconds))
    compute([leg for leg in due if leg.reason is None], at(seconds))
    return due


def only(modelled_legs: list[ModelledLeg]) -> ModelledLeg:
    assert len(modelled_legs) == 1
    return modelled_legs[0]


def test_the_volatility_is_that_of_the_underlying_price_at_the_time_of_the_value() -> None:
    greeks = opened()
    for seconds, spot in ((0, 100.0), (2, 95.0), (4, 90.0)):
        greeks.underlying_ticked(STOCK, spot, at(seconds))
    value(greeks, 95.0, 3)
    leg = only(computed(greeks, 5))
    assert leg.greeks is not None
    assert leg.greeks.implied_vol == pytest.approx(0.3, abs=1e-4)
    assert leg.greeks.underlying_price == 90.0
    assert leg.value_at == at(3)
    assert leg.spot_at == at(4)


@pytest.mark.parametrize("first_at", [10, 0])
def test_a_value_from_before_a_price_or_from_a_gap_in_the_prices_gives_no_greeks(
    first_at: int,
) -> None:
    greeks = opened()
    greeks.underlying_ticked(STOCK, 100.0, at(first_at))
    value(greeks, 90.0, first_at - 5 if first_at else 300)
    greeks.underlying_ticked(STOCK, 90.0, at(301))
    assert only(computed(greeks, 302)).reason is NoGreeks.NO_PRICE_THEN
    value(greeks, 90.0, 303)
    found = only(computed(greeks, 307)).greeks
    assert found is not None
    assert found.implied_vol == pytest.approx(0.3, abs=1e-4)
    assert not greeks.without


@pytest.mark.parametrize("below", [0.0, 0.5])
def test_an_option_worth_its_exercise_has_greeks_and_a_price_of_its_underlying(below) -> None:
    greeks = opened()
    greeks.underlying_ticked(STOCK, 70.0, at(0))
    greeks.valued(7, 30.0 - below, at(1))
    leg = only(computed(greeks, 2))
    assert leg.reason is None
    assert leg.greeks is not None
    assert leg.greeks.implied_vol is None
    assert leg.greeks.underlying_price == 70.0
    numbers = (leg.greeks.delta, leg.greeks.gamma, leg.greeks.vega, leg.greeks.theta)
    assert numbers == (-1.0, 0.0, 0.0, 0.0)


def test_a_value_far_below_the_intrinsic_value_is_wrong_and_gives_no_greeks() -> None:
    greeks = opened()
    greeks.underlying_ticked(STOCK, 70.0, at(0))
    greeks.valued(7, 20.0, at(1))
    leg = only(computed(greeks, 2))
    assert leg.greeks is None
    assert leg.reason == NoVolatility.BELOW_INTRINSIC


def test_an_older_value_than_the_last_is_not_used() -> None:
    greeks = opened()
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    value(greeks, 100.0, 10)
    computed(greeks, 10)
    greeks.valued(7, 50.0, at(5))
    greeks.underlying_ticked(STOCK, 101.0, at(16))
    leg = only(computed(greeks, 16))
    assert leg.greeks is not None
    assert leg.greeks.implied_vol == pytest.approx(0.3, abs=1e-4)


def test_only_what_moved_is_computed_again() -> None:
    greeks = valued()
    assert len(computed(greeks, 0)) == 1
    assert computed(greeks, 10) == []
    greeks.underlying_ticked(STOCK, 101.0, at(11))
    assert only(computed(greeks, 15)).spot_at == at(11)


@pytest.mark.parametrize(
    ("session_open", "reason"),
    [(True, NoGreeks.UNDERLYING_OLD), (None, NoGreeks.UNDERLYING_OLD), (False, None)],
)
def test_an_old_price_of_the_underlying_counts_only_while_it_does_not_trade(
    session_open: bool | None, reason: NoGreeks | None
) -> None:
    greeks = valued(session_open)
    leg = only(computed(greeks, 61))
    assert leg.reason is reason
    assert (leg.greeks is None) is (reason is not None)
    assert len(greeks.without) == (reason is not None)


def test_without_a_price_of_the_underlying_the_reason_is_counted() -> None:
    greeks = opened()
    assert only(computed(greeks, 0)).reason is NoGreeks.NO_VALUE
    greeks.valued(7, 5.0, at(5))
    assert only(computed(greeks, 5)).reason is NoGreeks.NO_UNDERLYING_PRICE
    assert [*greeks.without.values()] == [NoGreeks.NO_UNDERLYING_PRICE]


def test_while_the_model_computes_first_greeks_are_being_computed_and_later_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    greeks = valued()
    meanwhile: list[dict[int, Reason]] = []
    compute_greeks = model.greeks

    def slow(*given: Any) -> model.Greeks:
        meanwhile.append(greeks.without)
        return compute_greeks(*given)

    monkeypatch.setattr(model, "greeks", slow)
    assert greeks.without == {7: NoGreeks.BEING_COMPUTED}
    computed(greeks, 0)
    greeks.underlying_ticked(STOCK, 101.0, at(11))
    computed(greeks, 15)
    assert meanwhile == [{7: NoGreeks.BEING_COMPUTED}, {}]


def test_a_model_without_a_number_is_the_reason_once_it_has_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    greeks = valued()
    numbers = dict.fromkeys(("price", "delta", "gamma", "vega", "theta"), np.array([[np.nan]]))
    monkeypatch.setattr(model, "greeks", lambda *_: model.Greeks(**numbers))
    assert only(computed(greeks, 0)).reason is NoGreeks.NOT_COMPUTED
    assert greeks.without == {7: NoGreeks.NOT_COMPUTED}


def test_greeks_end_when_the_option_expires() -> None:
    greeks = valued(session_open=False)
    assert only(computed(greeks, 0)).greeks is not None
    assert only(computed(greeks, 91 * 86_400)).reason is NoGreeks.EXPIRED


def test_changed_terms_are_used_with_the_next_computation() -> None:
    greeks = valued()
    before = only(computed(greeks, 0)).greeks
    greeks.add(7, replace(PUT, dividends=(DatedDividend(ex_date=at(9e5), share=0.02),)), STOCK)
    after = only(computed(greeks, 5)).greeks
    assert before is not None
    assert after is not None
    assert after.implied_vol < before.implied_vol


def test_an_option_that_the_model_does_not_fit_is_counted_with_its_reason() -> None:
    greeks = opened()
    greeks.add(7, NotPriced.ADJUSTED, STOCK)
    assert only(computed(greeks, 0)).greeks is None
    assert greeks.without == {7: NotPriced.ADJUSTED}
    assert computed(greeks, 5) == []
    greeks.add(7, PUT, STOCK)
    computed(greeks, 10)
    assert greeks.without == {7: NoGreeks.NO_VALUE}


def test_ticks_without_a_price_make_no_price_of_an_underlying_young() -> None:
    def found(sec_type: str = "STK", **values: float | datetime) -> tuple[float, datetime] | None:
        quote = Quote(received_at=NOW, **values)  # type: ignore[arg-type]
        return underlying_price(quote, sec_type, now=NOW)

    before = at(-300)
    sides: Any = {"bid": 99.9, "ask": 100.1}
    assert found(mark=100.0, mark_time=before) == (100.0, before)
    assert found(**sides, quote_time=before) == (100.0, before)
    assert found(**sides, quote_time=before, mark=100.0, mark_time=at(-540)) == (100.0, before)
    assert found("IND", last=6500.0, quote_time=before) == (6500.0, before)
    assert found(last=100.0, quote_time=before) is None


HOLDING = make_holding(7, NOW, position=2.0)
GREEKS = HoldingGreeks(
    implied_vol=0.3, delta=-0.4, gamma=0.02, vega=0.2, theta=-0.03, underlying_price=450.0,
    greeks_time=NOW, greeks_method="AMERICAN, rate 0.04", volatility_time=NOW,
)  # fmt: skip


def later(seconds=0.0, **changes):
    at = NOW + timedelta(seconds=seconds)
    return replace(GREEKS, greeks_time=at, volatility_time=at, **changes)


@pytest.fixture
def published():
    published_greeks = PublishedGreeks()
    published_greeks.take(7, GREEKS)
    return published_greeks


def greeks_of(holding, published):
    """Return the greeks with which a holding is published, and priced."""
    book = make_book(lambda: NOW)
    book.put(holding)
    priced = book.get(holding.key, published)
    assert book.reported([holding.key], published)[holding.key].greeks == priced.greeks
    return priced.greeks


@pytest.mark.parametrize(
    ("result", "is_news"),
    [
        (later(0.0), False),
        (later(0.0, delta=-0.401), True),
        (later(1.0), True),
        (None, True),
    ],
)
def test_a_result_is_published_when_it_says_something_else(published, result, is_news):
    changes = published.changes
    changes.take()
    published.take(7, result)
    assert (changes.take() == {7}) is is_news
    assert greeks_of(HOLDING, published) == result
    assert greeks_of(replace(HOLDING, position=0.0), published) is None


def test_options_of_an_account_that_left_the_login_have_their_greeks_until_they_close(published):
    book = make_book(lambda: NOW)
    left = [replace(HOLDING, account="B"), replace(HOLDING, account="C", position=0.0)]
    book.remember(left)
    reported = book.reported(greeks=published)
    assert [reported[holding.key].greeks for holding in left] == [GREEKS, None]
    assert [holding.greeks for holding in book.reported().values()] == [None, None]


def test_greeks_that_are_not_known_any_more_are_published_once_as_unknown(published):
    published.take(7, None)
    assert greeks_of(HOLDING, published) is None
    changes = published.changes
    changes.take()
    published.take(7, None)
    assert not changes
