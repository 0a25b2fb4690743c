"""Fifty strategies of all kinds against an oracle that shares no code with the payoffs.

The oracle knows legs as (kind, strike, quantity, cost of a unit). It looks at the profit at very
many prices, bisects between those at which its sign changes, and calls a side unbounded that still
moves at a thousand times the highest strike. Legs that live on are priced by a binomial tree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk.payoff import payoffs
from position_sync_dagster.money.risk.terms import DatedDividend
from tests.support.contracts import contract_details
from tests.unit.money.risk.binomial_tree import tree_price
from tests.unit.money.risk.test_payoff import LATER, leg, priced
from tests.unit.money.risk.test_scenarios import EXPIRY, NOW, share

# Kind, strike, quantity, cost: C and P expire first, c and p live on, S is a share or a future.
Leg = tuple[str, float, float, float]

YEARS_LATER = (LATER - EXPIRY).days / 365


@dataclass(frozen=True)
class Case:
    name: str
    legs: tuple[Leg, ...]
    multiplier: float = 100.0
    sec_type: str = "OPT"
    currency: str = "USD"
    index: str = ""
    dividend: float = 0.0


def legs(text: str) -> tuple[Leg, ...]:
    """Return legs that are written as kind and strike, quantity and cost."""
    written = []
    for leg_text in text.split(","):
        named, quantity, cost = leg_text.split()
        written.append((named[0], float(named[1:] or 0), float(quantity), float(cost)))
    return tuple(written)


def turned(sides: tuple[Leg, ...]) -> tuple[Leg, ...]:
    """Return legs that are sold where these are bought."""
    return tuple((kind, strike, -quantity, cost) for kind, strike, quantity, cost in sides)


CONDOR = legs("P90 1 0.4, P95 -1 1.1, C105 -1 1.2, C110 1 0.5")
FLY = legs("C95 1 6.5, C100 -2 3.25, C105 1 1.25")
VERTICAL = legs("P95 -2 1.5, P90 2 0.75")
STRANGLE = legs("P92 -3 0.9, C108 -3 1.1")
CALENDAR = legs("C100 -1 3.0, c100 1 5.0")
SHORT_CALENDAR = legs("C100 1 3.0, c100 -1 5.0")
PUT_CALENDAR = legs("P95 -1 1.1, p95 1 2.4")
CALL_CONDOR = legs("C90 1 11, C95 -1 7, C105 -1 1.5, C110 1 0.6")
IRON_FLY = legs("P90 1 0.4, P100 -1 2.5, C100 -1 2.6, C110 1 0.5")
DIAGONAL = legs("C104 -1 1.5, c98 1 6.0")

# The name of each strategy, and its legs.
PLAIN = """\
long call: C100 2 3.1
long put: P100 2 2.9
naked call: C105 -4 1.3
naked put: P95 -10 6.5
call spread: C100 1 3.0, C110 -1 0.8
call credit spread: C100 -1 3.0, C110 1 0.8
put debit spread: P100 5 2.5, P80 -5 0.1
straddle: P100 1 2.5, C100 1 2.75
short straddle: P100 -1 2.5, C100 -1 2.75
guts: C95 1 6.2, P105 1 6.4
broken wing: P100 1 2.5, P95 -2 1.1, P85 1 0.2
box: C95 1 6.4, C105 -1 1.4, P95 -1 1.2, P105 1 6.1
ratio spread: C100 1 3.0, C105 -2 1.3
back spread: C100 -1 3.0, C105 2 1.3
put ratio: P100 1 2.5, P95 -3 1.0
ladder: C95 1 6.3, C100 -1 3.0, C110 -1 0.6
covered call: S 100 98.2, C105 -1 1.3
half covered call: S 100 98.2, C105 -2 1.3
covered put: S -100 101.0, P95 -1 1.2
protective put: S 100 98.2, P95 1 1.2
collar: S 200 97.0, P92 2 0.9, C108 -2 1.0
jade lizard: P92 -1 1.6, C105 -1 1.3, C110 1 0.5
reverse jade lizard: P88 1 0.3, P93 -1 1.0, C108 -1 1.1
risk reversal: P92 -1 0.9, C108 1 0.9
synthetic: P100 -1 2.5, C100 1 3.0
conversion: S 100 100.0, P100 1 2.5, C100 -1 3.0
seagull: P90 -1 0.5, C100 1 3.0, C110 -1 0.7
shares alone: S 150 99.0
shares sold short: S -50 99.0
put calendar: P98 -2 2.0, p98 2 4.1
"""
ROWS = [row.split(": ") for row in PLAIN.splitlines()]
CASES = [Case(name, legs(text)) for name, text in ROWS]
# What is compared with its opposite or a part of it.
CASES += [
    Case("put spread", VERTICAL),
    Case("strangle", STRANGLE),
    Case("iron condor", CONDOR),
    Case("reverse iron condor", turned(CONDOR)),
    Case("unbalanced condor", CONDOR[:3] + legs("C110 3 0.5")),
    Case("condor a call short", CONDOR[:3]),
    Case("call condor", CALL_CONDOR),
    Case("butterfly", FLY),
    Case("short butterfly", turned(FLY)),
    Case("iron butterfly", IRON_FLY),
    Case("calendar", CALENDAR),
    Case("diagonal", DIAGONAL),
    Case("double calendar", PUT_CALENDAR + legs("C105 -1 1.2, c105 1 2.6")),
]
# Other multipliers and currencies, and what is settled in cash.
CASES += [
    Case("mini condor", CONDOR, multiplier=10.0),
    Case("fly of a thousand", FLY, multiplier=1000.0),
    Case("condor in euros", CONDOR, currency="EUR"),
    Case("index in the morning", CONDOR, index="AM"),
    Case("index in the evening", VERTICAL, index="PM"),
]
# Futures, and a part that lives on under other terms.
CASES += [
    Case("strangle on a future", STRANGLE, multiplier=50.0, sec_type="FOP"),
    Case("calendar with a dividend", CALENDAR, dividend=1.0),
    Case("short calendar in euros", SHORT_CALENDAR, currency="EUR"),
    Case("covered call on a future", legs("S 1 98.0, C105 -1 1.5"), 50.0, "FOP"),
]  # fmt: skip


def rows_of(case: Case) -> list[PositionUpdate]:
    rows = []
    for number, (kind, strike, quantity, cost) in enumerate(case.legs, 1):
        if kind == "S":
            size = 1.0
            sec_type = "STK"
            if case.sec_type == "FOP":
                size = case.multiplier
                sec_type = "FUT"

            money = {"average_cost": cost * size, "market_price": 100.0, "currency": case.currency}
            terms = {"symbol": "IWM", "sec_type": sec_type, "multiplier": size}
            rows.append(share(number, position=quantity, **terms, **money))
            continue
        right = "PUT"
        if kind in "Cc":
            right = "CALL"

        expiry = EXPIRY
        if kind in "cp":
            expiry = LATER

        # Without contract details the value says that an option on a future is not in cents.
        value: dict[str, Any] = {
            "market_price": cost, "market_value": quantity * cost * case.multiplier,
        }  # fmt: skip
        terms = {"multiplier": case.multiplier, "expiry": expiry, "sec_type": case.sec_type}
        value |= {"currency": case.currency, "implied_vol": 0.2}
        rows.append(leg(number, right, strike, quantity, cost, **terms, **value))
    return rows


def profit_of(case: Case) -> Callable[[float], float]:
    def worth(kind: str, strike: float, price: float) -> float:
        if kind == "S":
            return price
        if kind in "CP":
            return max(0.0, price - strike if kind == "C" else strike - price)
        paid = ((30 / 365, case.dividend),) if case.dividend else ()
        rate = {"USD": 0.04, "EUR": 0.02}[case.currency]
        return tree_price(
            call=kind == "c", spot=price, strike=strike, years=YEARS_LATER, rate=rate,
            volatility=0.2, dividends=paid, steps=150 if paid else 300,
        )  # fmt: skip

    def profit(price: float) -> float:
        total = 0.0
        for kind, strike, quantity, cost in case.legs:
            size = 1.0 if kind == "S" and case.sec_type == "OPT" else case.multiplier
            total += quantity * size * (worth(kind, strike, price) - cost)
        return total

    return profit


def crossing(profit: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if profit(low) * profit(middle) > 0 else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_strategy_has_the_payoff_of_the_oracle(case: Case) -> None:
    details = {}
    if case.index:
        days = {"last_trade_date": EXPIRY, "expires_on": EXPIRY}
        if case.index == "AM":
            days["last_trade_date"] = EXPIRY - timedelta(days=1)
        for number, (kind, strike, _quantity, _cost) in enumerate(case.legs, 1):
            right = "PUT"
            if kind == "C":
                right = "CALL"

            details[number] = contract_details(
                number, symbol="IWM", under_sec_type="IND", strike=strike, right=right, **days
            )
    ends = (EXPIRY - NOW.date()).days
    paid = [DatedDividend(ex_date=NOW + timedelta(days=ends + 30), amount=case.dividend)]
    given = {}
    if case.dividend:
        given = {"IWM": paid}

    (payoff,) = payoffs(priced(rows_of(case), details=details, dividends=given))

    profit = profit_of(case)
    lives_on = any(kind in "cp" for kind, *_terms in case.legs)
    if lives_on:
        strikes = [strike for _kind, strike, *_rest in case.legs]
        prices = [0.01, 60.0, 90.0, 96.0, *strikes, 102.0, 110.0, 140.0, 400.0]
    else:
        prices = [number / 2 for number in range(500)]
    profits = [profit(price) for price in prices]

    close = {"abs": 1e-6} if not lives_on else {"abs": 0.03 * case.multiplier}
    far = 0.0
    if not lives_on:
        far = profit(2_000_000.0) - profit(1_000_000.0)

    assert (payoff.greatest_profit is None) == (far > 1)
    assert (payoff.greatest_loss is None) == (far < -1)

    if payoff.greatest_profit is not None and not lives_on:
        assert payoff.greatest_profit == pytest.approx(max(profits), **close)
    if payoff.greatest_loss is not None and not lives_on:
        assert payoff.greatest_loss == pytest.approx(min(profits), **close)
    if lives_on:
        assert payoff.greatest_profit is not None
        assert payoff.greatest_loss is not None
        assert payoff.greatest_profit >= max(profits) - close["abs"]
        assert payoff.greatest_loss <= min(profits) + close["abs"]

    for corner in payoff.corners:
        if not lives_on:
            assert corner.profit == pytest.approx(profit(corner.price), **close)
    assert payoff.break_evens is not None
    for price in payoff.break_evens:
        assert profit(price) == pytest.approx(0.0, **close)
    if not lives_on:
        signs = zip(prices, profits, prices[1:], profits[1:], strict=False)
        expected = [crossing(profit, p, q) for p, a, q, b in signs if a * b < 0]
        for price in expected:
            assert any(abs(price - even) < 1e-6 for even in payoff.break_evens)


def test_there_are_fifty_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 50
