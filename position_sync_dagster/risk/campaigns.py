"""Campaigns: what strategies have earned since their first leg, through rolls and assignments.

The broker first names the strike as the cost of shares that an assignment left, and days later the
strike with the premium of the option, whose own profit is then 0. Here the option always has its
premium and the shares always have the strike: nothing counts twice, and nothing is missing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from position_sync_dagster.domain.closures import SLACK, Cause
from position_sync_dagster.domain.leg import NEGLIGIBLE

DELIVERED = (Cause.ASSIGNED.value, Cause.EXERCISED.value)
NEAR = timedelta(days=5)
"""Maximum time between the change of an option and that of the shares: statements come late."""

ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredLot:
    """Shares or futures that assignments and exercises left to a strategy.

    Attributes:
        first: When the first of them came; from then on, closes of the contract are in `realised`.
        quantity: What is left of them; None: not known, since others hold the same.
        size: Units of the underlying in one.
        cost: Cost of one unit.
        realised: The profit of what is gone, after `fees`.
    """

    strategy_id: str
    account: str
    conid: int
    currency: str
    first: datetime
    quantity: float | None
    size: float
    cost: float
    realised: float | None
    fees: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What a strategy has earned in a currency; None is not known.

    Attributes:
        since: Earlier closes are not in it.
        realised: What is closed earned, after fees.
        open: What is open would earn at the present value.
        fees: The commissions; they are in the cost and the profit of the others.
    """

    since: datetime | None
    realised: float | None
    open: float | None
    fees: float | None

    @property
    def profit(self) -> float | None:
        """Realised and open together."""
        known = self.realised is not None and self.open is not None
        return (self.realised or 0.0) + (self.open or 0.0) if known else None


@dataclass(frozen=True, slots=True)
class Campaigns:
    """What strategies have realised.

    Attributes:
        realised: By strategy and currency the realised profit, with that of the lots, and the fees
            within it; None where it is not known.
        lots: What assignments and exercises left to strategies, also what is gone since.
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
    given = closes.explode("strategies").drop_nulls(["strategies", "counter_conid"])
    given = given.filter(pl.col("cause").is_in(DELIVERED), pl.col("right").is_not_null())
    found = []
    for (strategy, account, conid, currency), options in given.group_by(names, maintain_order=True):
        of_contract = (pl.col("account") == account) & (pl.col("conid") == conid)
        moved = changes.filter(of_contract)
        first = options.get_column("closed_at").min()
        is_leg = not legs.filter(strategy_id=strategy, conid=conid).is_empty()
        start = _start(options.row(0, named=True), moved) if is_leg else (0.0, 0.0)
        others = closes.filter(
            of_contract, pl.col("closed_at") >= first, ~pl.col("cause").is_in(DELIVERED)
        )
        events = [*_deliveries(options), *others.iter_rows(named=True)]
        kept = _kept(start, sorted(events, key=lambda one: one["closed_at"]), str(strategy))
        # An option on a future leaves one future, anything else leaves units.
        is_future = options.item(0, "sec_type") == "FOP"
        size = options.item(0, "multiplier") if is_future else 1.0
        found.append(
            DeliveredLot(
                strategy_id=str(strategy),
                account=str(account),
                conid=int(str(conid)),
                currency=str(currency),
                first=first,  # type: ignore[arg-type]
                size=size,
                quantity=kept.quantity if kept.is_known else None,
                cost=kept.cost,
                realised=kept.profit(size),
                fees=kept.fees,
            )
        )
    return found


def _units(option: Mapping[str, Any]) -> float:
    each = 1.0 if option["sec_type"] == "FOP" else option["multiplier"]
    return float(option["quantity"] * each * (1 if option["right"] == "CALL" else -1))


def _deliveries(options: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for one in options.iter_rows(named=True):
        known = not one["is_divided"]
        price = one["strike"] / one["magnifier"]
        yield {"closed_at": one["closed_at"], "by": _units(one) if known else None, "price": price}


def _start(option: Mapping[str, Any], moved: pl.DataFrame) -> tuple[float, float] | None:
    """Return what a strategy had of a contract that is a leg of it, before the first delivery."""
    near = (pl.col("seen_at") - option["closed_at"]).abs()
    units = pl.col("after") - pl.col("before")
    at = moved.filter(near <= NEAR, (units - _units(option)).abs() < ROUNDING).sort(near)
    if at.is_empty():
        return None
    before, cost = at.row(0, named=True)["before"], at.row(0, named=True)["average_cost"]
    return (before, cost) if cost is not None or not before else None


@dataclass(slots=True)
class _Kept:
    quantity: float = 0.0
    cost: float = 0.0
    realised: float = 0.0
    fees: float | None = 0.0
    is_known: bool = True

    def profit(self, size: float) -> float | None:
        """Return the realised profit, after fees; None if it is not known."""
        known = self.is_known and self.fees is not None
        return self.realised * size - (self.fees or 0.0) if known else None

    def trade(self, by: float, price: float) -> None:
        """Close by the average cost, and open what is more than that."""
        gone = 0.0
        if self.quantity * by < 0:
            gone = math.copysign(min(abs(self.quantity), abs(by)), self.quantity)
            self.realised += gone * (price - self.cost)
            self.quantity -= gone
        opened = by + gone
        if opened:
            self.cost = (self.cost * self.quantity + price * opened) / (self.quantity + opened)
            self.quantity += opened


def _kept(
    start: tuple[float, float] | None, events: Iterable[Mapping[str, Any]], strategy: str
) -> _Kept:
    if start is None:
        return _Kept(is_known=False)
    kept = _Kept(start[0], start[1] or 0.0)
    for one in events:
        by = one["by"] if "by" in one else _traded_of(one, kept.quantity, strategy)
        price = one["price"]
        if by is None or (by and price is None):
            kept.is_known = False
            return kept
        if by:
            if "fees" in one:
                fees, part = one["fees"], abs(by / one["quantity"])
                kept.fees = None if fees is None or kept.fees is None else kept.fees + fees * part
                price /= one["magnifier"]
            kept.trade(by, price)
    return kept


def _traded_of(close: Mapping[str, Any], quantity: float, strategy: str) -> float | None:
    """Return by how much a close changed what is kept; None: it is not known whose it was."""
    if not quantity or quantity * close["quantity"] <= 0:
        return 0.0
    before = close["before"]
    if strategy in (close["strategies"] or ()) and not close["is_divided"]:
        return -float(close["quantity"])
    if before is None:
        return None
    if abs(quantity) >= abs(before) - ROUNDING:
        return -float(close["quantity"])
    return -quantity if abs(close["quantity"]) >= abs(before) - ROUNDING else None


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
    of_lots = [(one.strategy_id, one.currency, one.realised, one.fees) for one in lots]
    sums = pl.concat(
        [
            _realised(closes, lots).with_columns(fees=0.0),
            _fees_of_legs(executions, changes, legs).with_columns(realised=0.0).select(*_SUMS),
            pl.DataFrame(of_lots, schema=_SUMS, orient="row"),
        ]
    )
    sums = sums.group_by("strategy_id", "currency").agg(_known_sum("realised"), _known_sum("fees"))
    return Campaigns({(row[0], row[1]): (row[2], row[3]) for row in sums.iter_rows()}, lots)


_SUMS = {
    "strategy_id": pl.String, "currency": pl.String, "realised": pl.Float64, "fees": pl.Float64,
}  # fmt: skip


def _known_sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum()).alias(name)


def _realised(closes: pl.DataFrame, lots: Iterable[DeliveredLot]) -> pl.DataFrame:
    """Return the realised profit of strategies, without their lots; null where it is not known."""
    by_delivery = pl.col("cause").is_in(DELIVERED) & pl.col("right").is_not_null()
    premium = -pl.col("quantity") * pl.col("average_cost")
    own = (
        pl.when(pl.col("is_divided").fill_null(value=False)).then(None)
        .when(~by_delivery).then("realized_pnl")
        .when(pl.col("counter_conid").is_not_null()).then(premium)
    )  # fmt: skip
    rows = closes.with_columns(realised=own).explode("strategies").drop_nulls("strategies")
    for one in lots:
        rows = rows.filter(
            (pl.col("strategies") != one.strategy_id)
            | (pl.col("account") != one.account)
            | (pl.col("conid") != one.conid)
            | ((pl.col("closed_at") < one.first) & ~pl.col("cause").is_in(DELIVERED))
        )
    return (
        rows.group_by("strategies", "currency")
        .agg(_known_sum("realised"))
        .rename({"strategies": "strategy_id"})
    )


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
        here = (pl.col("account") == one.account) & (pl.col("conid") == one.conid)
        own = parts.filter(here).select(pl.col("position") * pl.col("share")).sum().item()
        is_leg, parts = not parts.filter(here).is_empty(), parts.filter(~here)
        left = one.quantity
        if left is None or (is_leg and abs(own - left) > ROUNDING):
            return None
        if not left:
            continue
        held = priced.filter(here, pl.col("position") / left >= 1 - ROUNDING).drop_nulls(
            "market_value"
        )
        if held.is_empty():
            return None
        value, position = held.row(0, named=True)["market_value"], held.item(0, "position")
        profit += left * (value / position - one.size * one.cost)
    unrealized = parts.get_column("unrealized_pnl")
    return None if unrealized.null_count() else profit + float(unrealized.sum())
