"""Where the profit of a day came from."""

from typing import Any

import polars as pl
import pytest

from position_sync_dagster.sync.reports.risk import PARTS, by_strategy, explain, is_explained


def held(conid: int, position: float, price: float, **values: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "account": "A", "conid": conid, "symbol": "SPY", "currency": "USD", "multiplier": 100.0,
        "magnifier": 1, "underlying_price": 600.0, "implied_vol": 0.2, "delta": 0.5, "gamma": 0.01,
        "vega": 1.0, "theta": -0.2, "position": position, "right": "CALL",
    }  # fmt: skip
    row = usual | values
    return row | {"market_value": position * price * row["multiplier"]}


SHARE = dict.fromkeys(("underlying_price", "implied_vol", "delta", "gamma", "vega", "theta"))
SHARE |= {"multiplier": 1.0, "right": None}  # type: ignore[dict-item]
TYPES = {
    name: pl.Int64 if name == "conid" else pl.String if isinstance(value, str) else pl.Float64
    for name, value in held(1, 1.0, 1.0).items()
}


def trade(conid: int, quantity: float, price: float, **values: Any) -> dict[str, Any]:
    usual = {"account": "A", "symbol": "SPY", "currency": "USD", "multiplier": 100.0}
    more = {"commission": 1.0, "booked": False}
    return usual | {"conid": conid, "quantity": quantity, "price": price} | more | values


def explained(
    before: list[dict[str, Any]], after: list[dict[str, Any]], trades: list[dict[str, Any]]
) -> pl.DataFrame:
    return explain(
        pl.DataFrame(before, schema=TYPES),
        pl.DataFrame(after, schema=TYPES),
        pl.DataFrame([*trades, trade(0, 0.0, 0.0)]).head(len(trades)),
        days=1.0,
    )


def one(frame: pl.DataFrame, conid: int) -> dict[str, Any]:
    row = frame.row(by_predicate=pl.col("conid") == conid, named=True)
    assert row["profit"] == pytest.approx(sum(row[name] for name in PARTS))
    return row


def test_a_kept_option_earns_by_its_greeks_and_the_rest_of_its_repricing() -> None:
    now = held(1, 2.0, 16.0, underlying_price=606.0, implied_vol=0.21)
    row = one(explained([held(1, 2.0, 12.0)], [now], []), 1)
    assert row["profit"] == pytest.approx(800.0)
    found = [row[name] for name in ("delta", "gamma", "vega", "theta", "repricing")]
    assert found == pytest.approx([600.0, 36.0, 200.0, -40.0, 4.0])


def test_a_trade_earns_from_its_price_to_the_last_and_costs_its_fee() -> None:
    row = one(explained([], [held(1, 1.0, 13.0)], [trade(1, 1.0, 12.0)]), 1)
    assert (row["trades"], row["fees"], row["profit"]) == pytest.approx((100.0, -1.0, 99.0))
    closed = one(explained([held(1, 1.0, 12.0)], [], [trade(1, -1.0, 15.0)]), 1)
    assert closed["profit"] == pytest.approx(299.0)


def test_an_assignment_earns_what_the_premium_and_the_shares_are_worth() -> None:
    before = [held(1, -1.0, 11.0)]
    after = [held(5, -100.0, 610.0, **SHARE)]
    booked = {"booked": True, "commission": 0.0}
    found = explained(
        before, after, [trade(1, 1.0, 0.0, **booked),
                        trade(5, -100.0, 600.0, multiplier=1.0, **booked)],
    )  # fmt: skip
    assert found.get_column("assignments").sum() == pytest.approx(100.0)
    assert found.get_column("profit").sum() == pytest.approx(1100.0 - 1000.0)
    assert found.get_column("unexplained").sum() == 0


def test_a_share_earns_by_its_price_alone() -> None:
    row = one(explained([held(5, 100.0, 600.0, **SHARE)], [held(5, 100.0, 582.0, **SHARE)], []), 5)
    assert (row["delta"], row["profit"]) == pytest.approx((-1800.0, -1800.0))


def test_an_option_without_greeks_earns_by_its_repricing_and_is_counted() -> None:
    unknown = SHARE | {"multiplier": 100.0, "right": "CALL"}
    row = one(explained([held(1, 1.0, 12.0, **unknown)], [held(1, 1.0, 9.0, **unknown)], []), 1)
    assert (row["delta"], row["repricing"]) == pytest.approx((0.0, -300.0))
    assert row["without_greeks"]


def test_a_quantity_without_a_trade_is_unexplained_and_named() -> None:
    found = explained([held(1, 1.0, 12.0)], [held(1, 3.0, 12.0)], [])
    assert one(found, 1)["unexplained"] == pytest.approx(2400.0)
    shares = pl.DataFrame(
        {"account": ["A", "A"], "conid": [1, 1], "strategy_id": ["s", "t"], "share": [0.25, 0.75]}
    )
    rows = by_strategy(found, shares)
    assert rows.get_column("unexplained").to_list() == pytest.approx([600.0, 1800.0])
    assert set(rows.get_column("unexplained_legs")) == {"SPY 1"}
    assert not is_explained(rows.row(0, named=True))
    assert rows.get_column("profit").sum() == pytest.approx(found.get_column("profit").sum())


def test_cash_of_an_account_is_in_no_strategy_and_no_leg() -> None:
    found = explained([held(1, 1.0, 12.0)], [held(1, 1.0, 13.0)], [])
    cash = {"account": ["A"], "currency": ["USD"], "profit": [40.0], "cash": [40.0]}
    shares = {"account": ["A"], "conid": [1], "strategy_id": ["s"], "share": [1.0]}
    both = pl.concat([found, pl.DataFrame(cash)], how="diagonal_relaxed")
    rows = by_strategy(both, pl.DataFrame(shares)).select("strategy_id", "profit", "cash", "legs")
    assert rows.rows() == [("UNATTRIBUTED", 40.0, 40.0, 0), ("s", 100.0, 0.0, 1)]
