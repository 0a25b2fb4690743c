"""The exposure of each strategy."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import product
from types import SimpleNamespace

import hypothesis
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.instrument import ContractDetails, Right
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate, ValueOrigin
from position_sync_dagster.money.past.owned_parts import PART_COLUMNS, owned_at
from position_sync_dagster.money.reports import exposure
from tests.support import money_rows
from tests.support.contracts import contract_details
from tests.support.extent import examples
from tests.support.legs import leg

PUT = Right.PUT
NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
BROKER = ValueOrigin.PORTFOLIO


def row(conid: int, position: float = 4.0, **values: object) -> PositionUpdate:
    terms = {"right": Right.CALL, "strike": None, "expiry": None, "underlying_price": None}
    holding = {"account": "DUSIM1", "timestamp": NOW, "position": position, "delta": 0.5}
    money = {"market_price": 1.5, "market_value": position * 150.0}
    profits = {"unrealized_pnl": position * 50.0, "daily_pnl": None}
    return money_rows.row(conid, **terms | holding | money | profits | values)


def exposures(
    legs: list[ActiveContract],
    rows: list[PositionUpdate],
    *,
    details: dict[int, ContractDetails] | None = None,
    every: bool = False,
) -> list[SimpleNamespace]:
    """Return the exposure of strategies, or of `every` part, with each column as an attribute."""
    claims = exposure.Claims(legs, details or {})
    read_rows = exposure.exposures(exposure.split(claims, money_rows.priced_rows(rows)))
    rows = read_rows.iter_rows(named=True)
    return [SimpleNamespace(**row) for row in rows if every or row["strategy_id"] != UNATTRIBUTED]


every_part = partial(exposures, every=True)


def only(rows_of_strategies: list[SimpleNamespace]) -> SimpleNamespace:
    assert len(rows_of_strategies) == 1
    return rows_of_strategies[0]


def test_a_strategy_sums_its_legs_with_their_signs() -> None:
    campaign = only(exposures([leg(1), leg(2)], [row(1, 4.0), row(2, -1.0)]))
    assert campaign.market_value == pytest.approx(450.0)
    assert campaign.unrealized_pnl == pytest.approx(150.0)
    assert campaign.delta == pytest.approx(0.5 * 3 * 100)
    assert campaign.legs == 2
    assert campaign.legs_held == 2


def test_a_shared_leg_is_divided_by_quantity_and_the_rest_is_the_open_holders() -> None:
    first, second = exposures([leg(1, "a", quantity=1.0), leg(1, "b")], [row(1, 4.0)])
    assert first.strategy_id == "a"
    assert first.market_value == 150.0
    assert second.strategy_id == "b"
    assert second.market_value == 450.0


def test_a_leg_in_any_account_takes_its_part_of_all_of_them() -> None:
    rows = [row(1, 3.0), row(1, 1.0, account="DUSIM2")]
    first, second = exposures([leg(1, quantity=2.0)], rows)
    assert first.account == "DUSIM1"
    assert first.market_value == 225
    assert second.account == "DUSIM2"
    assert second.market_value == 75
    assert only(exposures([leg(1, account="DUSIM2")], rows)).market_value == pytest.approx(150.0)


def test_unknown_values_stay_unknown_and_are_counted() -> None:
    blank = row(2, market_value=None, unrealized_pnl=None, delta=None, gamma=None, vega=None)
    entry = only(exposures([leg(1), leg(2)], [row(1), blank]))
    assert entry.market_value is None, "half of it is no sum"
    assert entry.delta is None, "half of it is no sum"
    assert entry.legs_without_value == 1
    assert entry.legs_without_greeks == 1
    alone = only(exposures([leg(2)], [blank]))
    assert alone.market_value is None
    assert alone.unrealized_pnl is None
    assert alone.delta is None


def test_only_a_sum_that_lacks_something_is_weighed_and_what_is_shared_counts_once() -> None:
    stock = {"right": None, "sec_type": "STK", "delta": None}
    owners = {1: "whole", 2: "most", 3: "most", 4: "half", 5: "half"}
    legs = [leg(conid, owner) for conid, owner in owners.items()]
    legs += [leg(6, "some", quantity=1.0), leg(6, "other", quantity=3.0), leg(7, "anywhere")]
    rows = [row(conid, **stock) for conid in (1, 2, 4, 6)]
    rows[1] = row(2, 40.0, **stock)
    rows += [row(conid, **stock, market_value=1.0, daily_pnl=1.0) for conid in (3, 5)]
    rows += [row(7, market_value=None, account=name) for name in ("DUSIM1", "DUSIM2")]
    for number in (0, 1, 3):  # those of little value have no profit, or those of nearly all
        rows[number] = replace(rows[number], daily_pnl=2.0)
    rows[4] = replace(rows[4], daily_pnl=None)
    rows[2] = replace(rows[2], daily_pnl=None)

    parts = exposure.split(exposure.Claims(legs), money_rows.priced_rows(rows)).parts
    by_strategy = exposure.summed(parts, ["strategy_id"])
    profits = dict(by_strategy.select("strategy_id", "daily_pnl").iter_rows())
    known = {"whole": 2.0, "most": 2.0, "some": 0.5, "other": 1.5}
    assert profits == known | {"half": None, "anywhere": None}

    [total] = exposure.summed(parts, ["currency"]).iter_rows(named=True)
    assert total["holdings"] == 8
    assert total["of_daily_pnl"] == 8
    assert total["without_daily_pnl"] == 4
    assert total["legs_without_value"] == 1
    assert total["without_market_value"] == 2


def test_a_future_counts_as_notional_and_never_as_value() -> None:
    rows = exposures([leg(1), leg(2)], [row(1), row(2, sec_type="FUT", market_value=250_000.0)])
    option, future = sorted(rows, key=lambda e: e.asset_class != "OPTION")
    assert option.market_value == 600.0
    assert option.notional is None
    assert future.market_value is None
    assert future.notional == 250_000.0


def test_a_warrant_is_an_option_and_one_without_its_right_lacks_its_greeks() -> None:
    warrant = row(1, sec_type="WAR")
    unnamed = row(2, sec_type="OPT", right=None, delta=None)
    (sums,) = exposures([leg(1), leg(2)], [warrant, unnamed])
    assert sums.asset_class == "OPTION"
    assert sums.market_value == 1200.0
    assert sums.legs_without_greeks == 1


def test_a_leg_that_is_not_held_is_counted_and_no_more() -> None:
    campaign = only(exposures([leg(1)], []))
    assert campaign.currency is None
    assert campaign.legs == 1
    assert campaign.legs_held == 0
    assert campaign.asset_class == "UNKNOWN"


def test_a_leg_that_ended_counts_nowhere() -> None:
    assert exposures([leg(1).ended(NOW)], [row(1)]) == []


def test_greeks_of_several_underlyings_are_summed_as_dollar_delta() -> None:
    spy = row(1, 4.0, underlying_price=500.0)
    spx = row(2, -1.0, symbol="SPX", underlying_price=5000.0, delta=0.2)
    strategy_row = only(exposures([leg(1), leg(2)], [spy, spx]))
    assert strategy_row.dollar_delta == pytest.approx(0.5 * 4 * 100 * 500 - 0.2 * 100 * 5000)


def test_dollar_delta_of_a_contract_quoted_in_cents_is_in_its_currency() -> None:
    corn = {"multiplier": 5000.0, "market_price": 12.5, "underlying_price": 450.0}
    strategy_row = only(exposures([leg(1)], [row(1, 2.0, market_value=1250.0, **corn)]))
    assert strategy_row.dollar_delta == pytest.approx(0.5 * 2 * 5000 * 450 / 100)
    unknown = only(exposures([leg(1)], [row(1, 2.0, market_value=None, **corn)]))
    assert unknown.dollar_delta is None


def test_the_hedge_in_stock_has_its_value_as_dollar_delta() -> None:
    stock = row(1, -100.0, sec_type="STK", right=None, multiplier=1.0, delta=None)
    assert only(exposures([leg(1)], [stock])).dollar_delta == stock.market_value


def test_the_time_of_the_oldest_price_is_named() -> None:
    old = NOW - timedelta(minutes=3)
    rows = [row(1), row(2, value_time=old, value_source=BROKER)]
    assert only(exposures([leg(1), leg(2)], rows)).oldest_value_at == old


@pytest.mark.parametrize(
    ("right", "price", "position", "in_money", "unknown"),
    [
        (Right.CALL, 501.0, -1.0, 1, 0),
        (Right.CALL, 499.0, -1.0, 0, 0),
        (Right.PUT, 499.0, -1.0, 1, 0),
        (Right.PUT, 501.0, -1.0, 0, 0),
        (Right.CALL, 501.0, 1.0, 0, 0),
        (Right.CALL, None, -1.0, 0, 1),
    ],
)
def test_short_legs_in_the_money_are_counted(
    right: Right, price: float | None, position: float, in_money: int, unknown: int
) -> None:
    held = row(1, position, right=right, strike=500.0, underlying_price=price)
    strategy_row = only(exposures([leg(1)], [held]))
    assert strategy_row.short_legs_in_money == in_money
    assert strategy_row.short_legs_unknown == unknown


def test_a_leg_that_is_another_contract_than_its_conid_is_in_no_sum_and_is_named() -> None:
    contract = {"symbol": "SPY", "trading_class": "SPY", "strike": 500.0}
    day = date(2026, 4, 17)
    contract |= {"last_trade_date": day, "expires_on": day}
    details = {1: contract_details(1, **contract), 2: contract_details(2, **contract, right=PUT)}
    terms = {"right": Right.CALL, "strike": 500.0, "expiry": day}
    legs = [leg(1, **terms), leg(2, quantity=1.0, **terms), leg(2, "t", **terms)]
    right = replace(legs[2], right=PUT)
    rows = exposures([*legs[:2], right], [row(1), row(2)], details=details)
    iron, entry = rows

    assert iron.legs == 2
    assert iron.legs_held == 2
    assert iron.market_value == 600.0
    assert iron.legs_without_value == 1
    assert iron.legs_without_greeks == 1
    assert iron.mismatches == "SPY 500C 17Apr26: its right is PUT, not CALL"
    assert entry.market_value == 600.0  # nothing of it is claimed
    assert entry.mismatches is None


def test_a_mismatched_leg_alone_has_no_value_even_where_nothing_is_held() -> None:
    details = {1: contract_details(1)}
    for held in ([row(1)], []):
        campaign = only(exposures([leg(1)], held, details=details))
        assert campaign.market_value is None
        assert campaign.delta is None
        assert campaign.oldest_value_at is None
        assert campaign.legs == 1
        assert campaign.legs_held == len(held)
        assert campaign.legs_without_value == 1
        assert "its symbol is SPX, not SPY" in campaign.mismatches


def test_legs_that_claim_more_than_is_held_share_it_by_their_quantities_and_are_named() -> None:
    claims = [leg(1, "a", quantity=3.0), leg(1, "b", quantity=1.0)]
    first, second = every_part(claims, [row(1, 2.0)])
    assert first.strategy_id == "a"
    assert first.market_value == 225.0
    assert second.strategy_id == "b"
    assert second.market_value == 75.0
    assert first.differences == "SPY 575P 15Dec28: claims 3, has 1.5"


def test_what_no_strategy_has_of_a_leg_is_unattributed_and_named() -> None:
    rest, strategy = every_part([leg(1, "a", quantity=1.0)], [row(1, 4.0), row(2, 2.0)])
    assert rest.strategy_id == UNATTRIBUTED
    assert rest.account == "DUSIM1"
    assert rest.legs == 2
    assert rest.market_value == 450.0 + 300.0
    assert strategy.market_value == 150.0
    assert rest.differences == "SPY: 3 of 4 in no strategy"
    assert strategy.differences is None


def test_gamma_is_the_change_of_dollar_delta_when_the_underlying_moves_by_one_percent() -> None:
    held = row(1, 4.0, underlying_price=500.0)
    strategy_row = only(exposures([leg(1)], [held]))
    moved = replace(held, delta=0.5 + 0.01 * 5.0)  # the underlying rises from 500 to 505
    assert strategy_row.gamma_1pct == pytest.approx(0.01 * 4 * 100 * 5.0 * 500.0)
    change = only(exposures([leg(1)], [moved])).dollar_delta - strategy_row.dollar_delta
    assert strategy_row.gamma_1pct == pytest.approx(change)


ACCOUNTS = ("DUSIM1", "DUSIM2", "DUSIM3")
UNDERLYINGS = {
    1: {"symbol": "SPY", "currency": "USD"},
    2: {"symbol": "ESTX50", "currency": "EUR"},
    3: {"symbol": "SPX", "currency": "USD"},
}
MONEY = ("market_value", "unrealized_pnl", "daily_pnl")
GREEKS = ("delta", "gamma", "vega", "theta")
# What is not known may leave a sum without a number; see `money/sums.py`.
numbers = st.integers(-50, 50).map(float)


@st.composite
def books(draw: st.DrawFn) -> tuple[list[ActiveContract], list[PositionUpdate]]:
    rows = []
    for account, (conid, underlying) in product(ACCOUNTS, UNDERLYINGS.items()):
        if draw(st.booleans()):
            position = draw(st.sampled_from([-5.0, -2.0, 0.0, 1.0, 3.0, 4.0]))
            values = {name: draw(numbers) for name in (*MONEY, *GREEKS)}
            holding = {"account": account, "underlying_price": 100.0} | underlying
            rows.append(row(conid, position, **holding, **values))

    conids = st.integers(1, 4)  # the fourth is not held
    quantities = st.none() | st.sampled_from([-3.0, -1.0, 1.0, 2.0, 6.0])
    accounts = st.sampled_from([None, *ACCOUNTS])
    terms = st.tuples(st.sampled_from("abc"), accounts, conids, quantities)
    keys = draw(st.lists(terms, max_size=8, unique_by=lambda terms_of_leg: terms_of_leg[:3]))
    legs = [
        leg(conid, strategy, account=account, quantity=quantity)
        for strategy, account, conid, quantity in keys
    ]
    return legs, rows


@given(book=books(), wrong=st.sets(st.integers(1, 3), max_size=1))
@hypothesis.settings(max_examples=examples(60), deadline=None)
def test_strategies_and_the_rest_are_all_holdings_nothing_twice_and_nothing_missing(
    book: tuple[list[ActiveContract], list[PositionUpdate]], wrong: set[int]
) -> None:
    legs, rows = book
    details = {conid: contract_details(conid) for conid in wrong}  # another contract than the leg
    found = every_part(legs, rows, details=details)
    whole = every_part([], rows, details=details)
    assert {leg.strategy_id for leg in whole} <= {UNATTRIBUTED}

    for active_leg in whole:
        key = (active_leg.account, active_leg.currency, "OPTION")
        parts = [part for part in found if (part.account, part.currency, part.asset_class) == key]
        for name in (*MONEY, *GREEKS):
            expected = getattr(active_leg, name)
            values = [getattr(part, name) for part in parts]
            known = [value for value in values if value is not None]
            assert (sum(known) if known else None) == pytest.approx(expected, abs=1e-6)

    held = {(r.account, r.conid): r.position for r in rows}
    no_parts = pl.DataFrame(schema=PART_COLUMNS)
    owned = owned_at(money_rows.priced_rows(rows), no_parts, legs).rows_by_key(KEY)
    assert owned.keys() == {key for key, position in held.items() if position}

    for key, owners in owned.items():
        assert all(part * held[key] > 0 for _strategy, part in owners)
        assert sum(part for _strategy, part in owners) == pytest.approx(held[key])
        for strategy, part in owners:
            account, conid = key
            of_contract = [leg for leg in legs if leg.conid == conid]
            of_strategy = [leg for leg in of_contract if leg.strategy_id == strategy]
            sizes = [leg.quantity for leg in of_strategy if leg.account in (None, account)]
            if sizes and None not in sizes:
                claimed = sum(max(0.0, (size or 0.0) * held[key]) for size in sizes)
                assert part * held[key] <= claimed + 1e-6


def test_what_a_strategy_traded_is_its_own_until_it_closes_also_without_a_leg() -> None:
    put = 1
    shares = 2
    parts = [("m1", "DUSIM1", shares, "wheel", 100.0, 1.0, False)]
    parts += [("m2", "DUSIM1", shares, UNATTRIBUTED, 300.0, 1.0, True)]
    owned = pl.DataFrame(parts, PART_COLUMNS, orient="row")
    stock = {"sec_type": "STK", "right": None, "multiplier": 1.0, "delta": None}
    rows = [row(shares, 400.0, market_value=20_000.0, **stock)]
    claims = exposure.Claims([leg(put, "wheel")])
    split = exposure.split(claims, money_rows.priced_rows(rows), owned=owned)

    read_rows = exposure.exposures(split).filter(asset_class="STOCK")
    values = dict(read_rows.select("strategy_id", "market_value").iter_rows())
    assert values == {UNATTRIBUTED: 15_000.0, "wheel": 5_000.0}
    moved = [row(shares, 300.0, market_value=15_000.0, **stock)]
    later = exposure.split(claims, money_rows.priced_rows(moved), owned=owned)
    assert set(later.parts["strategy_id"]) == {UNATTRIBUTED}, "its movement is not known yet"
