"""Campaigns: what strategies have earned since their first leg, through rolls and assignments.

The broker first names the strike as the cost of shares that an assignment left, and days later the
strike with the premium of the option, whose own profit is then 0. Here the option always has its
premium and the shares always have the strike: nothing counts twice, and nothing is missing.

Prices, multipliers and fees are those of `movements`; where one is not known, the profit that needs
it is not. A fee in another currency than the contract's stays in its own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from position_sync_dagster.domain.closes import SLACK, Cause
from position_sync_dagster.domain.holding import QUANTITY_ROUNDING
from position_sync_dagster.domain.leg import NEGLIGIBLE
from position_sync_dagster.domain.movements import MovementKind, known_sum
from position_sync_dagster.lake.derived import sum_if_known

DELIVERED = (Cause.ASSIGNED.value, Cause.EXERCISED.value)
# Maximum time between the change of an option and that of the shares: statements come late.
SOON = timedelta(days=5)

# What of a movement says how a holding closed.
_MONEY = ("multiplier", "price", "fee", "fee_currency")


@dataclass(slots=True, kw_only=True)
class DeliveredLot:
    """Shares or futures that assignments and exercises left to a strategy.

    Attributes:
        first: When the first of them came; from then on, closes of the contract are in `realised`.
        quantity: What is left of them; None: not known, since others hold the same.
        size: Units of the underlying in one; None: not known.
        cost: Cost of one unit.
        realised: The profit of what is gone, after `fees`; None is not known.
        other_fees: Fees in other currencies, by currency.
    """

    strategy_id: str
    account: str
    conid: int
    currency: str
    first: datetime
    size: float | None
    quantity: float | None = 0.0
    cost: float = 0.0
    realised: float | None = 0.0
    fees: float | None = 0.0
    other_fees: dict[str, float] = field(default_factory=dict)

    def trade(self, by: float, price: float, fees: float | None) -> None:
        """Close by the average cost, and open what is more than that."""
        held = self.quantity or 0.0
        gone = 0.0
        if held * by < 0:
            gone = math.copysign(min(abs(held), abs(by)), held)
            held -= gone

        if self.realised is None or self.fees is None or self.size is None or fees is None:
            self.realised = None
            self.fees = None
        else:
            self.realised += gone * self.size * (price - self.cost) - fees
            self.fees += fees

        opened = by + gone
        if opened:
            self.cost = (self.cost * held + price * opened) / (held + opened)
        self.quantity = held + opened

    def lose_track(self) -> None:
        """Record that it is not known what is left, or what it earned."""
        self.quantity = None
        self.realised = None

    @property
    def is_here(self) -> pl.Expr:
        """Whether a row is of this contract, in this account."""
        return (pl.col("account") == self.account) & (pl.col("conid") == self.conid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """What a strategy has realised in one currency.

    Attributes:
        profit: With that of its lots, after fees; None is not known.
        fees: Those in the same currency; None is not known.
        other_fees: Those of its contracts in other currencies, by currency.
    """

    profit: float | None = 0.0
    fees: float | None = 0.0
    other_fees: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Campaigns:
    """What strategies have realised.

    Attributes:
        realised: By strategy and currency.
        lots: What assignments and exercises left, also what is gone since.
    """

    realised: Mapping[tuple[str, str], Realised]
    lots: Sequence[DeliveredLot]


def campaigns_of(
    closes: pl.DataFrame, changes: pl.DataFrame, movements: pl.DataFrame, legs: pl.DataFrame
) -> Campaigns:
    """Return what strategies have realised since their first leg, and what was left to them.

    Args:
        closes: The rows of `closures` that count, with strategies (a list, or null), is_divided
            and magnifier (null: not known).
        changes: Columns of `position_changes`.
        movements: Rows of `movements`.
        legs: Rows of `active_strategies`, also of legs that were removed.
    """
    held = changes.select("change_id", "before", "average_cost")
    with_held = closes.join(held, on="change_id", how="left", maintain_order="left")
    with_money = _with_money(with_held, movements)
    lots = lots_of(with_money, changes, legs)

    realised = _realised(with_money, lots)
    fees = _fees_of_legs(movements, changes, legs)
    keys = {*realised, *fees, *((lot.strategy_id, lot.currency) for lot in lots)}
    return Campaigns({key: _together(key, realised, fees, lots) for key in keys}, lots)


# A strategy and a currency.
_Key = tuple[str, str]


def _together(
    key: _Key,
    realised: Mapping[_Key, float | None],
    fees_of_legs: Mapping[_Key, Mapping[str | None, float | None]],
    lots: Iterable[DeliveredLot],
) -> Realised:
    """Return what closed legs, lots and fees make for one strategy in one currency."""
    profits = [realised.get(key, 0.0)]  # a strategy of which nothing closed has realised nothing
    fees: list[float | None] = []
    other_fees: dict[str, float] = {}
    for currency, amount in fees_of_legs.get(key, {}).items():
        if currency is None or currency == key[1] or amount is None:
            fees.append(amount)
        else:
            other_fees[currency] = amount

    for lot in lots:
        if (lot.strategy_id, lot.currency) == key:
            profits.append(lot.realised)
            fees.append(lot.fees)
            for currency, amount in lot.other_fees.items():
                other_fees[currency] = other_fees.get(currency, 0.0) + amount
    return Realised(profit=known_sum(profits), fees=known_sum(fees), other_fees=other_fees)


def _with_money(closes: pl.DataFrame, movements: pl.DataFrame) -> pl.DataFrame:
    """Return closes with the price, multiplier and fees of the movements that are their evidence.

    The price is in the major unit. A value is null if it is so in one of the movements, or without
    any.
    """
    rows = closes.drop("price").with_row_index("row")
    key = ["account", "conid", "evidence"]
    listed = pl.concat_str("executions", "events", "change_id", separator=",", ignore_nulls=True)
    named = rows.select("row", "account", "conid", evidence=listed.str.split(","))
    of_movements = movements.select(
        "account",
        "conid",
        *_MONEY,
        moved=pl.col("quantity").abs(),
        evidence=pl.coalesce("execution_id", "event_id", "change_id"),
    )
    evidence = named.explode("evidence").join(of_movements, on=key)

    is_one_currency = pl.col("fee_currency").n_unique() == 1
    paid = pl.col("price") * pl.col("moved")
    money = (
        evidence.with_columns(paid=paid, fees=-pl.col("fee"))
        .group_by("row")
        .agg(
            sum_if_known(pl.col("fees")),
            sum_if_known(pl.col("paid")),
            sum_if_known(pl.col("moved")),
            pl.col("multiplier").first(),
            fee_currency=pl.when(is_one_currency).then(pl.col("fee_currency").first()),
        )
        .with_columns(price=pl.col("paid") / pl.col("moved"))
    )
    columns = ["row", "price", "multiplier", "fees", "fee_currency"]
    joined = rows.join(money.select(columns), on="row", how="left", maintain_order="left")
    return joined.drop("row")


def lots_of(closes: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame) -> list[DeliveredLot]:
    """Return what assignments and exercises left to strategies, also what is gone since.

    Args:
        closes: Rows of `closures` with strategies (a list, or null), is_divided, before,
            average_cost, magnifier, and the multiplier, price, fees and fee_currency of movements.
        changes: Changes of quantities: account, conid, seen_at, before, after, average_cost.
        legs: The legs of strategies: strategy_id and conid.
    """
    is_delivery = pl.col("cause").is_in(DELIVERED)
    given = closes.explode("strategies").drop_nulls(["strategies", "counter_conid"])
    given = given.filter(is_delivery, pl.col("right").is_not_null()).sort("closed_at")

    is_left = pl.col("conid").is_in(given["counter_conid"].unique().to_list())
    closes_of_lots = closes.filter(is_left, ~is_delivery)
    changes_of_lots = changes.filter(is_left)

    lots: list[DeliveredLot] = []
    names = ["strategies", "account", "counter_conid", "currency"]
    for (strategy, account, conid, currency), options in given.group_by(names, maintain_order=True):
        first = options.row(0, named=True)
        lot = DeliveredLot(
            strategy_id=str(strategy),
            account=str(account),
            conid=int(conid),
            currency=str(currency),
            first=first["closed_at"],
            size=first["multiplier"] if first["sec_type"] == "FOP" else 1.0,
        )
        if not legs.filter(strategy_id=lot.strategy_id, conid=lot.conid).is_empty():
            lot.quantity, lot.cost = _start(first, changes_of_lots.filter(lot.is_here))
            lot.realised = None if lot.quantity is None else 0.0

        later = closes_of_lots.filter(lot.is_here, pl.col("closed_at") >= lot.first)
        events = [*options.iter_rows(named=True), *later.iter_rows(named=True)]
        events.sort(key=lambda event: event["closed_at"])
        for event in events:
            if lot.quantity is not None:
                _apply(event, lot)
        lots.append(lot)
    return lots


def _apply(event: Mapping[str, Any], lot: DeliveredLot) -> None:
    """Change what is left by a delivery, or by a close of the contract."""
    if event["conid"] != lot.conid:
        _deliver(event, lot)
        return

    by = _traded(event, lot)
    if by == 0:
        return
    if by is None or event["price"] is None:
        lot.lose_track()
        return

    fees = event["fees"]
    part = None if fees is None else fees * abs(by / event["quantity"])
    charged_in = event["fee_currency"]
    if part and charged_in is not None and charged_in != lot.currency:
        lot.other_fees[charged_in] = lot.other_fees.get(charged_in, 0.0) + part
        part = 0.0
    lot.trade(by, event["price"], part)


def _deliver(option: Mapping[str, Any], lot: DeliveredLot) -> None:
    """Add what an option left, at its strike in the major unit; the broker charges no fee."""
    units = None if option["is_divided"] else _units(option)
    if units is None or option["strike"] is None or option["magnifier"] is None:
        lot.lose_track()
    else:
        lot.trade(units, option["strike"] / option["magnifier"], 0.0)


def _units(option: Mapping[str, Any]) -> float | None:
    """Return what an option delivered; None if its multiplier is not known."""
    # An option on a future leaves one future.
    each = 1.0 if option["sec_type"] == "FOP" else option["multiplier"]
    if each is None:
        return None
    side = 1.0 if option["right"] == "CALL" else -1.0
    return float(option["quantity"] * each * side)


def _start(option: Mapping[str, Any], moved: pl.DataFrame) -> tuple[float | None, float]:
    """Return what a strategy had of a contract that is a leg of it, before the first delivery."""
    units = _units(option)
    if units is None:
        return None, 0.0

    near = (pl.col("seen_at") - option["closed_at"]).abs()
    is_same = (pl.col("after") - pl.col("before") - units).abs() < QUANTITY_ROUNDING
    nearest = moved.filter(near <= SOON, is_same).sort(near).select("before", "average_cost").rows()
    if not nearest:
        return None, 0.0
    before, cost = nearest[0]
    if not before:
        return 0.0, 0.0  # nothing was held, and nothing has a cost
    return (before, cost) if cost is not None else (None, 0.0)


def _traded(close: Mapping[str, Any], lot: DeliveredLot) -> float | None:
    """Return by how much a close changed what is left; None: it is not known whose it was."""
    left = lot.quantity or 0.0
    closed = float(close["quantity"])
    before = close["before"]
    if left * closed <= 0:
        return 0.0

    if lot.strategy_id in (close["strategies"] or ()) and not close["is_divided"]:
        return -closed
    if before is None:
        return None
    if abs(left) >= abs(before) - QUANTITY_ROUNDING:
        return -closed
    return None if abs(closed) < abs(before) - QUANTITY_ROUNDING else -left


def _realised(closes: pl.DataFrame, lots: Sequence[DeliveredLot]) -> dict[_Key, float | None]:
    """Return the realised profit of strategies, without their lots; None where it is not known."""
    by_delivery = pl.col("cause").is_in(DELIVERED) & pl.col("right").is_not_null()
    premium = -pl.col("quantity") * pl.col("average_cost")
    profit = (
        pl.when(pl.col("is_divided").fill_null(value=False)).then(None)
        .when(~by_delivery).then("realized_pnl")
        .when(pl.col("counter_conid").is_not_null()).then(premium)
    )  # fmt: skip
    rows = closes.with_columns(profit=profit).explode("strategies").drop_nulls("strategies")

    # What lots have realised is in them.
    key = ["strategies", "account", "conid"]
    schema = {
        "strategies": pl.String(), "account": pl.String(), "conid": pl.Int64(),
        "first": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    first_of_lots = [(lot.strategy_id, lot.account, lot.conid, lot.first) for lot in lots]
    since = pl.DataFrame(first_of_lots, schema=schema, orient="row").unique(key)
    is_before = (pl.col("closed_at") < pl.col("first")) & ~pl.col("cause").is_in(DELIVERED)
    rows = rows.join(since, on=key, how="left").filter(pl.col("first").is_null() | is_before)

    sums = rows.group_by("strategies", "currency").agg(sum_if_known(pl.col("profit")))
    return {(strategy, currency): profit for strategy, currency, profit in sums.iter_rows()}


def _fees_of_legs(
    movements: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame
) -> dict[_Key, dict[str | None, float | None]]:
    """Return the fees of the contracts of legs, from when their holding was opened.

    They are not known where several strategies had the contract, or all of them a part of it.

    Returns:
        By strategy and currency of the contract: the fees by their own currency.
    """
    key = ["account", "conid"]
    trades = _trades_of_legs(movements, changes, legs)
    most = changes.group_by(key).agg(most=pl.max_horizontal(pl.col("before", "after").abs()).max())
    # A leg without a quantity claims the whole holding.
    claim = pl.col("quantity_leg").abs().fill_null(math.inf).sum().over("trade")
    # Of a contract that no change names nothing was held at most.
    is_whole = claim >= pl.col("most").fill_null(0.0) * (1 - NEGLIGIBLE)
    is_alone = pl.col("strategy_id").n_unique().over("trade") == 1
    with_fees = trades.join(most, on=key, how="left").with_columns(
        fees=pl.when(is_whole & is_alone).then(-pl.col("fee"))
    )
    sums = (
        with_fees.unique(["trade", "strategy_id"])
        .group_by("strategy_id", "currency", "fee_currency")
        .agg(sum_if_known(pl.col("fees")))
    )

    fees: dict[_Key, dict[str | None, float | None]] = {}
    for strategy, currency, fee_currency, amount in sums.iter_rows():
        fees.setdefault((strategy, currency), {})[fee_currency] = amount
    return fees


def _trades_of_legs(
    movements: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame
) -> pl.DataFrame:
    """Return the trades of each leg's contract, from when its holding was opened.

    Returns:
        A row for each trade (its number is `trade`) and leg.
    """
    # A statement without times names the day of a trade alone.
    began = pl.col("day").cast(pl.Datetime("us", "UTC"))
    trades = movements.filter(kind=MovementKind.TRADE.value)
    numbered = trades.with_columns(at=pl.coalesce("at", began)).with_row_index("trade")

    of_leg = ["conid", "account", "strategy_id", "added_at", "removed_at", "quantity"]
    account = pl.col("account_leg")
    of_strategies = numbered.join(legs.select(of_leg), on="conid", suffix="_leg").filter(
        account.is_null() | (account == pl.col("account"))
    )

    opened = changes.filter(pl.col("before") == 0)
    openings = opened.select("account", "conid", opened_at="seen_at").sort("opened_at")
    in_order = of_strategies.with_columns(until=pl.col("added_at") + SLACK).sort("until")
    with_opening = in_order.join_asof(
        openings,
        left_on="until",
        right_on="opened_at",
        by=["account", "conid"],
        check_sortedness=False,
    )

    removed = pl.col("removed_at")
    return with_opening.filter(
        pl.col("at") >= pl.coalesce("opened_at", "added_at") - SLACK,
        removed.is_null() | (pl.col("at") <= removed),
    )


def open_profit(
    lots: Iterable[DeliveredLot], parts: pl.DataFrame, priced: pl.DataFrame
) -> float | None:
    """Return the profit of what is open of a strategy in one currency, with its lots.

    Args:
        lots: The lots of the strategy.
        parts: Its parts of holdings: account, conid, position, share and unrealized_pnl.
        priced: All holdings: account, conid, position and market_value.
    """
    profit = 0.0
    for lot in lots:
        of_leg = parts.filter(lot.is_here)
        parts = parts.filter(~lot.is_here)
        held = of_leg.select((pl.col("position") * pl.col("share")).sum()).item()
        is_other = not of_leg.is_empty() and abs(held - (lot.quantity or 0.0)) > QUANTITY_ROUNDING
        if lot.quantity is None or lot.size is None or is_other:
            return None

        earned = _earned(lot, priced)
        if earned is None:
            return None
        profit += earned

    unrealized = parts.get_column("unrealized_pnl")
    return None if unrealized.null_count() else profit + float(unrealized.sum())


def _earned(lot: DeliveredLot, priced: pl.DataFrame) -> float | None:
    """Return the profit of what is left of a lot; None if it is not held, or has no value."""
    if not lot.quantity or lot.size is None:
        return 0.0 if lot.size is not None else None
    is_enough = pl.col("position") / lot.quantity >= 1 - QUANTITY_ROUNDING
    held = priced.filter(lot.is_here, is_enough)
    if held.is_empty():
        return None

    [row] = held.select("position", "market_value").head(1).iter_rows(named=True)
    if row["market_value"] is None:
        return None
    return float(lot.quantity * (row["market_value"] / row["position"] - lot.size * lot.cost))
