"""Where the profit of a day came from: the parts of a holding's profit, and those of strategies."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.money.past.movements import MovementKind, Section
from position_sync_dagster.money.profit.profit import (
    PROFIT_PARTS,
    _of_owners,
    by_strategy,
    explain_holdings,
    is_explained,
)
from position_sync_dagster.money.tables import MOVEMENTS

DAY = date(2026, 3, 6)
AT = datetime(2026, 3, 6, 17, tzinfo=UTC)
EXPIRY = date(2026, 3, 20)
NOTHING = pl.DataFrame(schema=DAILY_POSITIONS.polars)
OF_ACCOUNT: dict[str, Any] = {"account": "A", "symbol": "SPY", "currency": "USD"}
GREEKS: dict[str, Any] = {
    "underlying_price": 600.0, "implied_vol": 0.2, "delta": 0.5, "gamma": 0.01, "vega": 1.0,
    "theta": -0.2,
}  # fmt: skip


def held(conid: int, position: float, price: float, **values: Any) -> dict[str, Any]:
    terms = {"conid": conid, "right": "CALL", "strike": 600.0 + conid, "expiry": EXPIRY}
    terms["sec_type"] = "OPT"
    row = OF_ACCOUNT | GREEKS | terms | {"multiplier": 100.0, "magnifier": 1.0} | values
    return {"position": position, "market_value": position * price * row["multiplier"]} | row


SHARE: dict[str, Any] = dict.fromkeys(GREEKS)
SHARE |= {"multiplier": 1.0, "right": None, "strike": None, "expiry": None}
SHARE["sec_type"] = "STK"


def moved(conid: int, by: float, price: float, **values: Any) -> dict[str, Any]:
    trade = {"kind": MovementKind.TRADE, "section": Section.TRADES, "day": DAY, "at": AT}
    amounts = {"quantity": by, "price": price, "cash": -by * price * 100.0}
    fee = {"fee": -1.0, "fee_currency": "USD"}
    return OF_ACCOUNT | {"conid": conid} | trade | amounts | fee | values


def explained(
    before: list[dict[str, Any]], after: list[dict[str, Any]], movements: list[dict[str, Any]]
) -> pl.DataFrame:
    holdings = {**DAILY_POSITIONS.polars, "magnifier": pl.Float64()}
    return explain_holdings(
        pl.DataFrame(before, schema=holdings),
        pl.DataFrame(after, schema=holdings),
        pl.DataFrame(movements, schema=MOVEMENTS.polars),
        days=1.0,
    )


def of_strategies(frame: pl.DataFrame, *strategies: str) -> pl.DataFrame:
    """Return the rows of holdings, each with its strategy."""
    return frame.with_columns(strategy_id=pl.Series(strategies))


def row_of(frame: pl.DataFrame, conid: int) -> dict[str, Any]:
    row = frame.row(by_predicate=pl.col("conid") == conid, named=True)
    assert row["profit"] == pytest.approx(sum(row[name] or 0.0 for name in PROFIT_PARTS))
    return row


def test_a_kept_option_earns_by_its_greeks_and_the_rest_of_its_repricing() -> None:
    now = held(1, 2.0, 16.0, underlying_price=606.0, implied_vol=0.21)
    row = row_of(explained([held(1, 2.0, 12.0)], [now], []), 1)
    assert row["profit"] == pytest.approx(800.0)
    assert row["delta"] == pytest.approx(600.0)
    assert row["gamma"] == pytest.approx(36.0)
    assert row["vega"] == pytest.approx(200.0)
    assert row["theta"] == pytest.approx(-40.0)
    assert row["repricing"] == pytest.approx(4.0)


def test_an_underlying_in_pence_moves_by_a_hundredth_and_one_of_unknown_unit_by_nothing() -> None:
    before = held(1, 1.0, 12.0, underlying_price=600.0, magnifier=100.0)
    after = held(1, 1.0, 13.0, underlying_price=700.0, magnifier=100.0)
    assert row_of(explained([before], [after], []), 1)["delta"] == pytest.approx(50.0)
    unknown = explained([before | {"magnifier": None}], [after], [])
    assert row_of(unknown, 1)["delta"] is None
    assert row_of(unknown, 1)["profit"] == pytest.approx(100.0)


def test_a_trade_earns_from_its_price_to_the_last_and_costs_its_fee() -> None:
    bought = explained([], [held(1, 1.0, 13.0)], [moved(1, 1.0, 12.0)])
    row = row_of(bought, 1)
    assert row["trades"] == pytest.approx(100.0)
    assert row["fees"] == pytest.approx(-1.0)
    assert row["profit"] == pytest.approx(99.0)
    sold = explained([held(1, 1.0, 12.0)], [], [moved(1, -1.0, 15.0)])
    assert row_of(sold, 1)["profit"] == pytest.approx(299.0)


def test_what_was_opened_and_closed_within_the_day_earns_its_cash() -> None:
    trades = [moved(1, -1.0, 12.0), moved(1, 1.0, 9.0)]
    row = row_of(explained([], [], trades), 1)
    assert row["trades"] == pytest.approx(300.0)
    assert row["profit"] == pytest.approx(298.0)


def test_one_contract_under_two_symbols_is_one_holding() -> None:
    before = held(1, 1.0, 9.0, symbol="ESH7")
    after = held(1, 1.0, 8.0, symbol="ES")
    profits = explained([before], [after], [])
    assert profits.select("conid", "profit").rows() == [(1, -100.0)]


def test_an_assignment_earns_what_the_premium_and_the_shares_are_worth() -> None:
    booked = {"kind": MovementKind.ASSIGNMENT, "fee": 0.0}
    ended = moved(1, 1.0, 0.0, **booked)
    delivered = moved(5, -100.0, 600.0, cash=60_000.0, **booked)
    shares = held(5, -100.0, 610.0, **SHARE)
    profits = explained([held(1, -1.0, 11.0)], [shares], [ended, delivered])
    assert profits.get_column("assignments").sum() == pytest.approx(100.0)
    assert profits.get_column("profit").sum() == pytest.approx(1100.0 - 1000.0)
    assert profits.get_column("unexplained").sum() == 0


def test_a_share_earns_by_its_price_alone() -> None:
    before = held(5, 100.0, 600.0, **SHARE)
    after = held(5, 100.0, 582.0, **SHARE)
    row = row_of(explained([before], [after], []), 5)
    assert row["delta"] == pytest.approx(-1800.0)
    assert row["profit"] == pytest.approx(-1800.0)


def test_an_option_without_greeks_earns_by_its_repricing() -> None:
    unknown = SHARE | {"multiplier": 100.0, "right": "CALL", "sec_type": "OPT"}
    before = held(1, 1.0, 12.0, **unknown)
    after = held(1, 1.0, 9.0, **unknown)
    row = row_of(explained([before], [after], []), 1)
    assert row["delta"] is None
    assert row["theta"] is None
    assert row["repricing"] == pytest.approx(-300.0)


def test_an_option_whose_right_is_not_known_is_no_share() -> None:
    """A short one rises from 12 to 15, and 1 of it loses 300: its greeks say nothing of that."""
    unknown = SHARE | {"multiplier": 100.0, "sec_type": "OPT"}
    before = held(1, -1.0, 12.0, **unknown)
    after = held(1, -1.0, 15.0, **unknown)
    row = row_of(explained([before], [after], []), 1)
    assert row["profit"] == pytest.approx(-300.0)
    assert row["delta"] is None
    assert row["repricing"] == pytest.approx(-300.0)


@pytest.mark.parametrize(("without", "delta"), [(1, 1900.0), (3, None)])
def test_the_greeks_of_a_day_are_null_where_most_options_have_none(without, delta) -> None:
    """Twenty options rise by 1.00 as their underlying does by 2; each is as large as the others."""
    unknown = dict.fromkeys(("delta", "gamma", "vega", "theta"))
    before = [held(number, 1.0, 12.0, **unknown) for number in range(without)]
    before += [held(number, 1.0, 12.0) for number in range(without, 20)]
    after = [held(number, 1.0, 13.0, underlying_price=602.0) for number in range(20)]
    shares = held(99, 100.0, 9.0, **SHARE)
    profits = explained(before, [*after, shares], [moved(99, 100.0, 8.0)])
    (row,) = by_strategy(of_strategies(profits, *["s"] * 21)).to_dicts()

    assert row["delta"] == (None if delta is None else pytest.approx(delta))
    assert (row["vega"] is None) == (delta is None)
    assert (row["repricing"] is None) == (delta is None)
    assert row["profit"] is not None
    assert row["trades"] is not None
    assert row["fees"] is not None
    assert row["market"] == row["profit"] - row["trades"] - row["fees"]
    assert (row["greeks_unknown"] is None) == (delta is not None)
    named = "SPY 602C 20Mar26: delta, gamma, vega, theta"
    assert named in (row["greeks_unknown"] or named)


@pytest.mark.parametrize(
    ("end", "lacks", "named"),
    [
        (0, {"vega": None}, "vega"),
        (0, {"magnifier": None}, "the unit of its prices"),
        (0, {"underlying_price": None}, "the price of the underlying at the close before"),
        (
            1,
            {"underlying_price": None, "implied_vol": None},
            "the price of the underlying at the close, the implied volatility at the close",
        ),
    ],
)
def test_what_is_null_names_which_greek_or_which_input_is_not_known(end, lacks, named) -> None:
    ends = [held(2, 1.0, 12.0), held(2, 1.0, 13.0)]
    ends[end] |= lacks
    [row] = by_strategy(of_strategies(explained([ends[0]], [ends[1]], []), "a")).to_dicts()
    assert row["profit"] == pytest.approx(100.0)
    assert row["greeks_unknown"] == f"SPY 602C 20Mar26: {named}"


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ({"cash": None}, "what a movement paid"),
        ({"fee": None}, "a commission"),
        ({"fee_currency": None}, "a commission"),
        ({"quantity": None}, "a quantity that moved"),
    ],
)
def test_a_movement_of_which_a_number_is_not_known_makes_the_profit_unknown(missing, why) -> None:
    profits = explained([], [held(1, 1.0, 13.0)], [moved(1, 1.0, 12.0, **missing)])
    (row,) = profits.to_dicts()
    assert row["profit"] is None
    assert row["why_unknown"] == why


def test_a_commission_of_a_movement_without_a_currency_is_not_lost() -> None:
    booked = moved(1, 0.0, 0.0, kind=MovementKind.CORPORATE_ACTION, currency=None, cash=5.0)
    (row,) = explained([], [], [booked]).to_dicts()
    assert row["profit"] is None
    assert row["why_unknown"] == "a commission"


@pytest.mark.parametrize(
    ("end", "why"),
    [("before", "its value at the close before"), ("after", "its value at the close")],
)
def test_a_value_that_is_not_known_makes_the_profit_and_its_parts_unknown(end, why) -> None:
    ends = {name: held(1, 1.0, 12.0) for name in ("before", "after")}
    ends[end]["market_value"] = None
    (row,) = explained([ends["before"]], [ends["after"]], []).to_dicts()
    for name in ("profit", *PROFIT_PARTS[:6], "cash"):
        assert row[name] is None
    assert row["why_unknown"] == why


def test_a_quantity_without_a_movement_is_unexplained_and_named() -> None:
    profits = explained([held(1, 1.0, 12.0)], [held(1, 3.0, 12.0)], [])
    rows = by_strategy(of_strategies(profits, "s"))
    assert rows.get_column("unexplained").to_list() == pytest.approx([2400.0])
    assert rows.get_column("why_unknown").to_list() == ["SPY 601C 20Mar26: what moved 2.0"]
    assert rows.get_column("profit").to_list() == [None]
    assert not is_explained(rows.row(0, named=True))


def test_one_unknown_holding_makes_its_strategy_unknown_and_no_other() -> None:
    unvalued = held(2, 1.0, 13.0, market_value=None)
    before = [held(conid, 1.0, 12.0) for conid in (1, 2, 3)]
    profits = explained(before, [held(1, 1.0, 13.0), unvalued, held(3, 1.0, 14.0)], [])
    in_strategies = of_strategies(profits.sort("conid"), "s", "s", "t")
    rows = by_strategy(in_strategies).select("strategy_id", "profit", "legs_unknown")
    assert rows.rows() == [("s", None, 1), ("t", 200.0, 0)]


def test_what_is_gone_is_of_those_that_had_it_or_of_nobody() -> None:
    columns = {"account": pl.String, "conid": pl.Int64, "strategy_id": pl.String, "by": pl.Float64}
    owners = [("A", 1, "s", 1.0), ("A", 2, "UNATTRIBUTED", 1.0)]
    had = pl.DataFrame(owners, columns, orient="row")
    rows = pl.DataFrame([held(1, 0.0, 12.0), held(2, 1.0, 12.0), held(3, 0.0, 1.0)])
    has = had.filter(conid=2)
    assert _of_owners(rows, has, had)["strategy_id"].sort().to_list() == [UNATTRIBUTED, "s"]
    assert _of_owners(rows, has, has)["strategy_id"].to_list() == [UNATTRIBUTED]


def test_cash_of_an_account_is_in_no_strategy() -> None:
    profits = explained([held(1, 1.0, 12.0)], [held(1, 1.0, 13.0)], [])
    amounts = {"account": "A", "currency": "USD", "profit": 40.0, "cash": 40.0}
    cash = of_strategies(pl.DataFrame(amounts), UNATTRIBUTED)
    with_cash = pl.concat([of_strategies(profits, "s"), cash], how="diagonal_relaxed")
    rows = by_strategy(with_cash).select("strategy_id", "profit", "cash")
    assert rows.rows() == [("UNATTRIBUTED", 40.0, 40.0), ("s", 100.0, 0.0)]
