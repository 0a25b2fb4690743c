"""The exposure of each strategy."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.sync.reports.exposure import AssetClass, Exposure, exposures

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)


def leg(
    conid: int, strategy: str = "iron", quantity: float | None = None, account: str | None = None
) -> ActiveContract:
    return ActiveContract(
        conid=conid,
        symbol="SPY",
        right=Right.CALL,
        strike=500.0,
        expiry=date(2026, 4, 17),
        strategy_id=strategy,
        added_at=NOW,
        quantity=quantity,
        account=account,
    )


def row(conid: int, position: float = 4.0, **values: object) -> PositionUpdate:
    plain = PositionUpdate(
        conid=conid,
        symbol="SPY",
        right=Right.CALL,
        position=position,
        market_price=1.5,
        market_value=position * 150.0,
        average_cost=100.0,
        unrealized_pnl=position * 50.0,
        timestamp=NOW,
        account="DUSIM1",
        delta=0.5,
        gamma=0.01,
        vega=0.2,
        theta=-0.1,
    )
    return replace(plain, **values)  # type: ignore[arg-type]


def only(found: list[Exposure]) -> Exposure:
    assert len(found) == 1
    return found[0]


def test_a_strategy_sums_its_legs_with_their_signs() -> None:
    found = only(exposures([leg(1), leg(2)], [row(1, 4.0), row(2, -1.0)]))
    assert found.market_value == pytest.approx(450.0)
    assert found.unrealized_pnl == pytest.approx(150.0)
    assert found.delta == pytest.approx(0.5 * 3 * 100)
    assert (found.legs, found.legs_held) == (2, 2)


def test_a_shared_leg_is_divided_by_quantity_and_the_rest_is_the_open_holders() -> None:
    found = exposures([leg(1, "a", 1.0), leg(1, "b")], [row(1, 4.0)])
    assert [(e.strategy_id, e.market_value) for e in found] == [("a", 150.0), ("b", 450.0)]


def test_a_claim_on_more_than_is_held_is_cut_to_what_is_held() -> None:
    assert only(exposures([leg(1, quantity=9.0)], [row(1, 4.0)])).market_value == 600.0


def test_a_claim_on_the_other_side_holds_nothing() -> None:
    found = only(exposures([leg(1, quantity=-2.0)], [row(1, 4.0)]))
    assert (found.legs_held, found.market_value) == (0, None)


def test_a_leg_in_any_account_takes_its_part_of_all_of_them() -> None:
    rows = [row(1, 3.0), row(1, 1.0, account="DUSIM2")]
    assert only(exposures([leg(1, quantity=2.0)], rows)).market_value == pytest.approx(300.0)
    assert only(exposures([leg(1, account="DUSIM2")], rows)).market_value == pytest.approx(150.0)


def test_unknown_values_stay_unknown_and_are_counted() -> None:
    blank = row(2, market_value=None, unrealized_pnl=None, delta=None, gamma=None, vega=None)
    found = only(exposures([leg(1), leg(2)], [row(1), blank]))
    assert found.market_value == 600.0
    assert (found.legs_without_value, found.legs_without_greeks) == (1, 1)
    alone = only(exposures([leg(2)], [blank]))
    assert (alone.market_value, alone.unrealized_pnl, alone.delta) == (None, None, None)


def test_a_future_counts_as_notional_and_never_as_value() -> None:
    found = exposures([leg(1), leg(2)], [row(1), row(2, sec_type="FUT", market_value=250_000.0)])
    option, future = sorted(found, key=lambda e: e.asset_class != AssetClass.OPTION)
    assert (option.market_value, option.notional) == (600.0, None)
    assert (future.market_value, future.notional) == (None, 250_000.0)


def test_currencies_are_never_mixed() -> None:
    found = exposures([leg(1), leg(2)], [row(1), row(2, currency="EUR")])
    assert [e.currency for e in found] == ["EUR", "USD"]


def test_a_leg_that_is_not_held_is_counted_and_no_more() -> None:
    found = only(exposures([leg(1)], []))
    assert (found.currency, found.legs, found.legs_held) == (None, 1, 0)
    assert found.asset_class is AssetClass.UNKNOWN


def test_a_leg_that_ended_counts_nowhere() -> None:
    assert exposures([leg(1).ended(NOW)], [row(1)]) == []


def test_the_age_of_a_value_is_its_time_at_the_source() -> None:
    old = NOW - timedelta(minutes=3)
    found = only(exposures([leg(1), leg(2)], [row(1), row(2, value_time=old)]))
    assert found.oldest_value_at == old
