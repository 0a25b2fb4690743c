"""Campaigns: what strategies have earned since their first leg, through rolls and assignments.

The broker first names the strike as the cost of shares that an assignment left, and days later the
strike with the premium of the option, whose own profit is then 0. Here the option always has its
premium and the shares always have the strike: nothing counts twice, and nothing is missing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from position_sync_dagster.domain.closes import SLACK, Cause
from position_sync_dagster.domain.leg import NEGLIGIBLE

DELIVERED = (Cause.ASSIGNED.value, Cause.EXERCISED.value)
# Maximum time between the change of an option and that of the shares: statements come late.
SOON = timedelta(days=5)

ROUNDING = 1e-6


@dataclass(slots=True, kw_only=True)
class DeliveredLot:
    """Shares or futures that assignments and exercises left to a strategy.

    Attributes:
        first: When the first of them came; from then on, closes of the contract are in `realised`.
        quantity: What is left of them; None: not known, since others hold the same.
        size: Units of the underlying in one.
        cost: Cost of one unit.
        realised: The profit of what is gone, after `fees`; None is not known.
    """

    strategy_id: str
    account: str
    conid: int
    currency: str
    first: datetime
    size: float
    quantity: float | None = 0.0
    cost: float = 0.0
    realised: float | None = 0.0
    fees: float | None = 0.0

    def trade(self, by: float, price: float, fees: float | None) -> None:
        """Close by the average cost, and open what is more than that."""
        held, gone = self.quantity or 0.0, 0.0
        if held * by < 0:
            gone = math.copysign(min(abs(held), abs(by)), held)
            held -= gone
        if self.realised is None or self.fees is None or fees is None:
            self.realised = self.fees = None
        else:
            self.realised += gone * self.size * (price - self.cost) - fees
            self.fees += fees
        if by + gone:
            self.cost = (self.cost * held + price * (by + gone)) / (held + by + gone)
        self.quantity = held + by + gone

    @property
    def is_here(self) -> pl.Expr:
        """Whether a row is of this contract, in this account."""
        return (pl.col("account") == self.account) & (pl.col("conid") == self.conid)


@dataclass(frozen=True, slots=True)
class Campaigns:
    """What strategies have realised.

    Attributes:
        realised: By strategy and currency the realised profit, with that of the lots, and the fees
            within it; None where it is not known.
        lots: What assignments and exercises left, also what is gone since.
    """

    realised: Mapping[tuple[str, str], tuple[float | None, float | None]]
    lots: Sequence[DeliveredLot]


def lots_of(closes: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame) -> list[DeliveredLot]:
    """Return what assignments and exercises left to strategies, also what is gone since.

    Args:
        closes: Rows of `closures` with strategies (a list, or null), is_divided, before,
            average_cost, multiplier, magnifier and fees of each.
        changes: Changes of quantities: account, conid, seen_at, before, after, average_cost.
        legs: The legs of strategies: strategy_id and conid.
    """
    names = ["strategies", "account", "counter_conid", "currency"]
    is_delivery = pl.col("cause").is_in(DELIVERED)
    given = closes.explode("strategies").drop_nulls(["strategies", "counter_conid"])
    given = given.filter(is_delivery, pl.col("right").is_not_null()).sort("closed_at")
    is_left = pl.col("conid").is_in(given["counter_conid"].unique().to_list())
    closes, changes = closes.filter(is_left, ~is_delivery), changes.filter(is_left)
    found = []
    for key, options in given.group_by(names, maintain_order=True):
        first = options.row(0, named=True)
        is_future = first["sec_type"] == "FOP"
        lot = DeliveredLot(
            **dict(zip(("strategy_id", "account", "conid", "currency"), key, strict=True)),
            first=first["closed_at"],
            size=first["multiplier"] if is_future else 1.0,
        )
        if not legs.filter(strategy_id=lot.strategy_id, conid=lot.conid).is_empty():
            lot.quantity, lot.cost = _start(first, changes.filter(lot.is_here))
            lot.realised = None if lot.quantity is None else 0.0
        later = closes.filter(lot.is_here, pl.col("closed_at") >= lot.first)
        events = [*options.iter_rows(named=True), *later.iter_rows(named=True)]
        for one in sorted(events, key=lambda one: one["closed_at"]):
            if lot.quantity is not None:
                _apply(one, lot)
        found.append(lot)
    return found


def _apply(one: Mapping[str, Any], lot: DeliveredLot) -> None:
    """Change what is left by a delivery, or by a close of the contract."""
    is_delivery = one["conid"] != lot.conid
    by = (None if one["is_divided"] else _units(one)) if is_delivery else _traded(one, lot)
    price, fees = (one["strike"], 0.0) if is_delivery else (one["price"], one["fees"])
    if by is None or (by and price is None):
        lot.quantity = lot.realised = None
    elif by:
        part = None if fees is None else fees * abs(by / one["quantity"])
        lot.trade(by, price / one["magnifier"], part)


def _units(option: Mapping[str, Any]) -> float:
    # An option on a future leaves one future.
    each = 1.0 if option["sec_type"] == "FOP" else option["multiplier"]
    return float(option["quantity"] * each * (1 if option["right"] == "CALL" else -1))


def _start(option: Mapping[str, Any], moved: pl.DataFrame) -> tuple[float | None, float]:
    """Return what a strategy had of a contract that is a leg of it, before the first delivery."""
    near = (pl.col("seen_at") - option["closed_at"]).abs()
    is_same = (pl.col("after") - pl.col("before") - _units(option)).abs() < ROUNDING
    at = moved.filter(near <= SOON, is_same).sort(near).select("before", "average_cost").rows()
    before, cost = at[0] if at else (None, None)
    return (before if cost is not None or not before else None), cost or 0.0


def _traded(close: Mapping[str, Any], lot: DeliveredLot) -> float | None:
    """Return by how much a close changed what is left; None: it is not known whose it was."""
    left, closed, before = lot.quantity or 0.0, float(close["quantity"]), close["before"]
    if left * closed <= 0:
        return 0.0
    if lot.strategy_id in (close["strategies"] or ()) and not close["is_divided"]:
        return -closed
    if before is not None and abs(left) >= abs(before) - ROUNDING:
        return -closed
    return None if before is None or abs(closed) < abs(before) - ROUNDING else -left


def campaigns_of(
    closes: pl.DataFrame, changes: pl.DataFrame, executions: pl.DataFrame, legs: pl.DataFrame
) -> Campaigns:
    """Return what strategies have realised since their first leg, and what was left to them.

    Args:
        closes: The rows of `closures` that count, with strategies (a list, or null), is_divided
            and magnifier.
        changes: Columns of `position_changes`.
        executions: The rows of `executions` that count.
        legs: Rows of `active_strategies`, also of legs that were removed.
    """
    of_change = changes.select("change_id", "before", "average_cost", "multiplier")
    paid = closes.select("change_id", "account", execution_id=pl.col("executions").str.split(","))
    fees = (
        paid.explode("execution_id")
        .join(executions, on=["account", "execution_id"], how="left")
        .group_by("change_id")
        .agg(fees=_known_sum("commission"))
    )
    closes = (
        closes.join(of_change, on="change_id", how="left", maintain_order="left")
        .join(fees, on="change_id", how="left", maintain_order="left")
        .with_columns(pl.col("multiplier").fill_null(100.0))
    )
    lots = lots_of(closes, changes, legs)
    of_lots = pl.DataFrame(list(map(asdict, lots)), _LOTS)
    own = _realised(closes, of_lots).with_columns(fees=0.0)
    of_legs = _fees_of_legs(executions, changes, legs).with_columns(realised=0.0)
    sums = pl.concat(one.select(own.columns) for one in (own, of_legs, of_lots))
    sums = sums.group_by("strategy_id", "currency").agg(_known_sum("realised"), _known_sum("fees"))
    return Campaigns({(row[0], row[1]): (row[2], row[3]) for row in sums.iter_rows()}, lots)


def _known_sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum()).alias(name)


# What is summed of lots, and since when closes of their contracts are in them.
_LOTS = {
    "strategy_id": pl.String(), "account": pl.String(), "conid": pl.Int64(),
    "currency": pl.String(), "first": pl.Datetime("us", "UTC"), "realised": pl.Float64(),
    "fees": pl.Float64(),
}  # fmt: skip


def _realised(closes: pl.DataFrame, lots: pl.DataFrame) -> pl.DataFrame:
    """Return the realised profit of strategies, without their lots; null where it is not known."""
    by_delivery = pl.col("cause").is_in(DELIVERED) & pl.col("right").is_not_null()
    premium = -pl.col("quantity") * pl.col("average_cost")
    own = (
        pl.when(pl.col("is_divided").fill_null(value=False)).then(None)
        .when(~by_delivery).then("realized_pnl")
        .when(pl.col("counter_conid").is_not_null()).then(premium)
    )  # fmt: skip
    rows = closes.with_columns(realised=own).explode("strategies").drop_nulls("strategies")
    key = ["strategies", "account", "conid"]
    since = lots.select(*key[1:], "first", strategies="strategy_id").unique(key)
    is_before = (pl.col("closed_at") < pl.col("first")) & ~pl.col("cause").is_in(DELIVERED)
    rows = rows.join(since, on=key, how="left").filter(pl.col("first").is_null() | is_before)
    return rows.group_by(strategy_id="strategies", currency="currency").agg(_known_sum("realised"))


def _fees_of_legs(
    executions: pl.DataFrame, changes: pl.DataFrame, legs: pl.DataFrame
) -> pl.DataFrame:
    """Return the commissions of the contracts of legs, from when their holding was opened.

    They are not known where several strategies had the contract, or all of them a part of it.
    """
    key = ["account", "conid"]
    most = changes.group_by(key).agg(most=pl.max_horizontal(pl.col("before", "after").abs()).max())
    opened = changes.filter(pl.col("before") == 0).select(*key, opened_at="seen_at")
    of_leg = ["account", "strategy_id", "added_at", "removed_at", "quantity"]
    removed, account = pl.col("removed_at"), pl.col("account_leg")
    claim = pl.col("quantity_leg").abs().fill_null(math.inf).sum().over("at")
    is_whole = claim >= pl.col("most").fill_null(0.0) * (1 - NEGLIGIBLE)
    is_alone = pl.col("strategy_id").n_unique().over("at") == 1
    is_same = pl.col("commission_currency").fill_null(pl.col("currency")) == pl.col("currency")
    return (
        executions.with_row_index("at")
        .join(legs.select("conid", *of_leg), on="conid", suffix="_leg")
        .filter(account.is_null() | (account == pl.col("account")))
        .with_columns(until=pl.col("added_at") + SLACK)
        .sort("until")
        .join_asof(
            opened.sort("opened_at"),
            left_on="until",
            right_on="opened_at",
            by=key,
            check_sortedness=False,
        )
        .filter(
            pl.col("time") >= pl.coalesce("opened_at", "added_at") - SLACK,
            removed.is_null() | (pl.col("time") <= removed),
        )
        .join(most, on=key, how="left")
        .with_columns(fees=pl.when(is_whole & is_alone & is_same).then("commission"))
        .unique(["at", "strategy_id"])
        .group_by("strategy_id", "currency")
        .agg(_known_sum("fees"))
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
    for one in lots:
        own = parts.filter(one.is_here)
        parts = parts.filter(~one.is_here)
        leg = own.select((pl.col("position") * pl.col("share")).sum()).item()
        if one.quantity is None or (not own.is_empty() and abs(leg - one.quantity) > ROUNDING):
            return None
        if one.quantity:
            is_enough = pl.col("position") / one.quantity >= 1 - ROUNDING
            worth = pl.col("market_value") / pl.col("position") - one.size * one.cost
            earned = priced.filter(one.is_here, is_enough).select(one.quantity * worth).to_series()
            if earned.is_empty() or earned[0] is None:
                return None
            profit += earned[0]
    unrealized = parts.get_column("unrealized_pnl")
    return None if unrealized.null_count() else profit + float(unrealized.sum())
