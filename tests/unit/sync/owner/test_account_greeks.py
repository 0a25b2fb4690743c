"""The greeks of an account: prices at the time of a value, what is due, and the budget."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.sync.owner import account_greeks
from position_sync_dagster.sync.owner.account_greeks import (
    AccountGreeks,
    ModelledLeg,
)
from position_sync_dagster.sync.owner.option_model import (
    Method,
    NoGreeks,
    OptionModel,
    OptionTerms,
)

NOW = datetime(2028, 6, 1, 14, 0, tzinfo=UTC)
MODEL = OptionModel()
STOCK = 1
PUT = OptionTerms(
    right=Right.PUT,
    strike=100.0,
    expires_at=NOW + timedelta(days=90),
    method=Method.AMERICAN,
    rate=0.04,
)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def price(spot: float, seconds: float, volatility: float = 0.3) -> float:
    return MODEL.price(PUT, spot=spot, years=PUT.years(at(seconds)), volatility=volatility)


class Book(AccountGreeks):
    """The greeks of options whose values the test sets."""

    def __init__(
        self, session_open: bool | None = True, processor: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.values: dict[int, tuple[float, datetime]] = {}
        super().__init__(
            value_of=self.values.get,
            session_open=lambda _conid: session_open,
            processor=processor,
        )

    def valued(self, conid: int, value: float, at: datetime) -> None:
        self.values[conid] = value, at


def compute(greeks: Book, seconds: float) -> list[ModelledLeg]:
    return greeks.compute(MODEL, at(seconds), monotonic=seconds, budget_s=1.0)


def only(found: list[ModelledLeg]) -> ModelledLeg:
    assert len(found) == 1
    return found[0]


def test_the_volatility_is_that_of_the_underlying_price_at_the_time_of_the_value() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    for seconds, spot in ((0, 100.0), (2, 95.0), (4, 90.0)):
        greeks.underlying_ticked(STOCK, spot, at(seconds))
    greeks.valued(7, price(95.0, 3), at(3))
    leg = only(compute(greeks, 5))
    assert leg.greeks is not None
    assert leg.greeks.implied_vol == pytest.approx(0.3, abs=1e-4)
    assert leg.greeks.underlying_price == 90.0
    assert (leg.value_at, leg.underlying_at) == (at(3), at(4))


def test_a_value_from_before_the_first_price_of_the_underlying_gives_no_greeks() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(10))
    greeks.valued(7, price(100.0, 5), at(5))
    assert only(compute(greeks, 11)).reason is NoGreeks.NO_PRICE_THEN
    greeks.valued(7, price(100.0, 12), at(12))
    assert only(compute(greeks, 17)).greeks is not None
    assert not greeks.without


def test_a_value_from_a_gap_in_the_prices_of_the_underlying_gives_no_greeks() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    greeks.valued(7, price(90.0, 300), at(300))
    greeks.underlying_ticked(STOCK, 90.0, at(301))
    assert only(compute(greeks, 302)).reason is NoGreeks.NO_PRICE_THEN
    greeks.valued(7, price(90.0, 303), at(303))
    found = only(compute(greeks, 307)).greeks
    assert found is not None
    assert found.implied_vol == pytest.approx(0.3, abs=1e-4)


def test_an_older_value_than_the_last_is_not_used() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    greeks.valued(7, price(100.0, 10), at(10))
    compute(greeks, 10)
    greeks.valued(7, 50.0, at(5))
    greeks.underlying_ticked(STOCK, 101.0, at(16))
    leg = only(compute(greeks, 16))
    assert leg.greeks is not None
    assert leg.greeks.implied_vol == pytest.approx(0.3, abs=1e-4)


def test_after_the_clock_was_set_back_an_hour_only_what_comes_then_counts() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    greeks.valued(7, price(100.0, 0), at(0))
    compute(greeks, 0)
    leg = only(greeks.compute(MODEL, at(-3595), monotonic=5.0, budget_s=1.0))
    assert leg.reason is NoGreeks.UNDERLYING_OLD
    assert greeks.stale(at(-3595)) == [STOCK]

    greeks.underlying_ticked(STOCK, 120.0, at(-3593))
    greeks.valued(7, price(120.0, -3592, volatility=0.5), at(-3592))
    leg = only(greeks.compute(MODEL, at(-3590), monotonic=10.0, budget_s=1.0))
    assert leg.greeks is not None
    assert leg.greeks.underlying_price == 120.0
    assert leg.greeks.implied_vol == pytest.approx(0.5, abs=1e-4)
    assert (leg.value_at, leg.underlying_at) == (at(-3592), at(-3593))


def test_only_what_moved_is_computed_again() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    greeks.valued(7, price(100.0, 0), at(0))
    assert len(compute(greeks, 0)) == 1
    assert compute(greeks, 10) == []
    greeks.underlying_ticked(STOCK, 101.0, at(11))
    assert compute(greeks, 12) == []  # not yet due again
    assert only(compute(greeks, 15)).underlying_at == at(11)


@pytest.mark.parametrize(
    ("session_open", "reason"),
    [(True, NoGreeks.UNDERLYING_OLD), (None, NoGreeks.UNDERLYING_OLD), (False, None)],
)
def test_an_old_price_of_the_underlying_counts_only_while_it_does_not_trade(
    session_open: bool | None, reason: NoGreeks | None
) -> None:
    greeks = Book(session_open)
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    greeks.valued(7, price(100.0, 0), at(0))
    leg = only(compute(greeks, 61))
    assert leg.reason is reason
    assert (leg.greeks is None) is (reason is not None)
    assert len(greeks.without) == (reason is not None)


def test_without_a_price_of_the_underlying_the_reason_is_counted() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    assert only(compute(greeks, 0)).reason is NoGreeks.NO_VALUE
    greeks.valued(7, 5.0, at(5))
    assert only(compute(greeks, 5)).reason is NoGreeks.NO_UNDERLYING_PRICE
    assert [*greeks.without.values()] == [NoGreeks.NO_UNDERLYING_PRICE]
    greeks.remove(7)
    assert not greeks.without


def test_greeks_end_when_the_option_expires() -> None:
    greeks = Book(session_open=False)
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    greeks.valued(7, price(100.0, 0), at(0))
    assert only(compute(greeks, 0)).greeks is not None
    assert only(compute(greeks, 91 * 86_400)).reason is NoGreeks.EXPIRED


def test_changed_terms_are_used_with_the_next_computation() -> None:
    greeks = Book()
    greeks.add(7, PUT, STOCK)
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    greeks.valued(7, price(100.0, 0), at(0))
    before = only(compute(greeks, 0)).greeks
    greeks.add(7, OptionTerms(**{**fields(PUT), "dividend_share": 0.02}), STOCK)
    after = only(compute(greeks, 5)).greeks
    assert before is not None
    assert after is not None
    assert after.implied_vol < before.implied_vol


def fields(terms: OptionTerms) -> dict[str, object]:
    return {name: getattr(terms, name) for name in OptionTerms.__dataclass_fields__}


def test_the_largest_come_first_and_the_others_keep_their_half_of_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(account_greeks, "LARGEST", 4)
    spent = iter(range(10_000))  # each look at the clock is a unit of processor time
    greeks = Book(processor=lambda: float(next(spent)))
    greeks.underlying_ticked(STOCK, 100.0, at(0))
    for conid in range(20):
        greeks.add(conid, PUT, STOCK, size=float(conid))
        greeks.valued(conid, price(100.0, 0), at(0))
    first = greeks.compute(MODEL, at(0), monotonic=0.0, budget_s=6.0)
    assert [leg.conid for leg in first] == [19, 18, 15, 14]
    second = greeks.compute(MODEL, at(1), monotonic=1.0, budget_s=100.0)
    assert [leg.conid for leg in second] == [17, 16, *range(13, -1, -1)]


@pytest.mark.parametrize(
    ("moved", "times"),
    [
        pytest.param(0.2, 13, id="delta moves: every five seconds"),
        pytest.param(0.01, 7, id="it hardly moves: every ten seconds, when greeks are published"),
    ],
)
def test_all_of_a_large_book_are_computed_in_turn(
    moved: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_greeks, "LARGEST", 4)
    greeks = Book()
    for conid in range(20):
        greeks.add(conid, PUT, STOCK, size=float(conid))
    seen: dict[int, int] = dict.fromkeys(range(20), 0)
    for second in range(61):
        greeks.underlying_ticked(STOCK, 100.0 + second * moved, at(second))
        for conid in range(20):
            greeks.valued(conid, price(100.0, second), at(second))
        for leg in compute(greeks, second):
            seen[leg.conid] += 1
    assert [seen[conid] for conid in (19, 16)] == [times, times]
    assert [seen[conid] for conid in (15, 0)] == [2, 2]  # once in a minute
