"""Predictions against the simulator's own market, which is then moved as predicted."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import yaml

from ib_gateway_simulator import load_book
from ib_gateway_simulator.market.market import Market
from position_sync_dagster.domain.instrument import parse_expiry, parse_right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.money.risk.scenarios import Breakdown, Point, scenarios
from position_sync_dagster.money.risk.terms import DatedDividend, dividends_stated
from tests.support import money_rows
from tests.support.demo_book import strategies_text
from tests.support.extent import EVERYTHING
from tests.support.legs import leg

NOW = datetime(2026, 11, 27, 15, 0, tzinfo=UTC)
BOOK = load_book("demo", NOW.date())
HELD = {(opening.account, opening.conid): opening.quantity for opening in BOOK.openings}
STRATEGIES = strategies_text(NOW.date())


def legs() -> list[ActiveContract]:
    active_legs = []
    for strategy in yaml.safe_load(STRATEGIES)["strategies"]:
        for written in strategy["legs"]:
            terms = {
                "symbol": written["symbol"],
                "right": parse_right(written["right"]),
                "strike": float(written["strike"]),
                "expiry": parse_expiry(written["expiry"]),
            }
            quantity = written.get("quantity")
            strategy_id = strategy["strategy_id"]
            active_legs.append(leg(written["conid"], strategy_id, quantity=quantity, **terms))
    return active_legs


def market_now() -> Market:
    return Market(
        underlyings=BOOK.underlyings, contracts=BOOK.contracts, as_of=NOW, rate=BOOK.rate, seed=7,
        options=BOOK.option_market,
    )  # fmt: skip


def row(market: Market, account: str, conid: int, quantity: float) -> PositionUpdate:
    contract = BOOK.contracts[conid]
    greeks, spot = market.theory(conid)
    price = spot if greeks is None else greeks.price
    volatility = greeks.implied_vol if greeks else None
    value = quantity * price * contract.multiplier
    terms = {
        "symbol": contract.symbol,
        "right": parse_right(contract.right),
        "strike": contract.strike,
        "expiry": parse_expiry(contract.expiry),
        "multiplier": float(contract.multiplier),
    }
    return money_rows.row(
        conid, account=account, position=quantity, market_price=price, market_value=value,
        implied_vol=volatility, underlying_price=spot, **terms,
    )  # fmt: skip


def dividends(market: Market) -> dict[str, tuple[DatedDividend, ...]]:
    """Return what tick 456 says of each underlying."""
    found = {}
    for symbol in BOOK.underlyings:
        paid = market.dividends(symbol, 1.0)
        spot = market.spot(symbol)
        if paid:
            at, share = paid[0]
            year = sum(part for _at, part in paid) * spot
            day = NOW + timedelta(days=365 * at)
            found[symbol] = dividends_stated(day, spot * share, year)
    return found


def predicted_and_moved(points: list[Point]) -> pl.DataFrame:
    market = market_now()
    rows = [row(market, *key, quantity) for key, quantity in HELD.items()]
    parts = money_rows.book_of(rows, legs()).split.parts
    rates = {"USD": BOOK.rate}
    assumptions = Assumptions(now=NOW, rates=rates, dividends=dividends(market))
    priced = PricedLegs.of(parts, assumptions)
    assert priced.left_out() == {}

    predicted = scenarios(priced, points, Breakdown.STRATEGY)
    theory = {conid: market.theory(conid)[0] for conid in parts["conid"].unique()}
    values: list[dict[str, object]] = []
    for number, point in enumerate(points):
        moved = market_now()
        for symbol in BOOK.underlyings:
            moved.jump(symbol, 1 + point.spot / 100)

        moved.shift_volatility(point.vol)
        for entry in parts.iter_rows(named=True):
            before = theory[entry["conid"]]
            after, _ = moved.theory(entry["conid"])
            size = entry["position"] * entry["multiplier"] * entry["share"]
            assert before is not None
            assert after is not None

            change = size * (after.price - before.price)
            contracts = abs(entry["position"] * entry["share"])
            amounts = {"contracts": contracts, "moved": change, "gross": abs(change)}
            values.append({"strategy_id": entry["strategy_id"], "point": number} | amounts)

    by = ["strategy_id", "point"]
    sums = pl.DataFrame(values).group_by(by).agg(pl.col("moved", "gross", "contracts").sum())
    return predicted.with_columns(pl.col("point").cast(pl.Int64)).join(sums, on=by)


# Moves of prices in percent and of volatilities in points; `make test` plays the first one.
MOVES = ((-10, 5), (10, -5), (0, 5), (-10, -5), (10, 5))


def test_each_strategy_and_the_account_are_within_one_percent_of_the_move() -> None:
    moves = MOVES if EVERYTHING else MOVES[:1]
    found = predicted_and_moved([Point(spot=spot, vol=vol) for spot, vol in moves])
    account = found.group_by("point").agg(pl.col("profit", "moved", "gross", "contracts").sum())
    for row in [*found.iter_rows(named=True), *account.iter_rows(named=True)]:
        # The simulator's own prices are exact to two cents a share, where moves cancel, and its
        # dividends grow with the price.
        allowed = max(0.01 * abs(row["moved"]), 0.004 * row["gross"], 2.5 * row["contracts"])
        assert row["profit"] == pytest.approx(row["moved"], abs=allowed), row
