"""Where the profit of a time came from: prices, volatility, time, trades, assignments and cash.

A holding that is kept earns by its price. That part is split by the greeks at the beginning: what
they do not explain is the rest of the repricing. Trades earn from their price to the last one.
What remains is unexplained: a quantity that no trade explains, or a price that is not known.
"""

from collections.abc import Mapping

import polars as pl

KEY = ["account", "conid"]

BY_GREEKS = ("delta", "gamma", "vega", "theta")
# The parts of the profit; together they are the profit.
PARTS = (*BY_GREEKS, "repricing", "trades", "fees", "assignments", "cash", "unexplained")

SMALLEST_UNEXPLAINED = 25.0
# More than this part of the gross move, and more than that amount, is to be named.
LARGEST_SHARE = 0.05

_STATE = ("position", "market_value", "multiplier", "magnifier", "right", "underlying_price",
          "implied_vol", *BY_GREEKS)  # fmt: skip

# A trade that the broker booked for an assignment, an exercise or an expiry.
BOOKED = "booked"


def explain(
    before: pl.DataFrame, after: pl.DataFrame, trades: pl.DataFrame, *, days: float
) -> pl.DataFrame:
    """Return the parts of the profit of each holding.

    Args:
        before: The holdings at the beginning, one row for each account and conid: the columns of
            `position_updates` and `magnifier`.
        after: Those at the end.
        trades: What was traded meanwhile, with the columns account, conid, symbol, currency,
            quantity (signed), price (major unit), multiplier, commission and booked (a flag).
        days: The time between, in calendar days.

    Returns:
        Rows with account, conid, symbol, currency, profit, the parts, `gross_move` (the sum of the
        sizes of the parts) and `without_greeks`.
    """
    names = [*KEY, "symbol", "currency"]
    traded = _sums_of_trades(trades)
    start = before.select(*names, *(pl.col(n).alias(f"{n}_0") for n in _STATE))
    end = after.select(*names, *(pl.col(n).alias(f"{n}_1") for n in _STATE))
    joined = start.join(end, on=names, how="full", coalesce=True)
    joined = joined.join(traded, on=names, how="full", coalesce=True).with_columns(
        pl.col(n).fill_null(0.0)
        for n in ("position_0", "position_1", "quantity", "paid", "fees", "booked_quantity")
    )
    size = pl.coalesce("multiplier_0", "multiplier_1", "trade_multiplier")
    price_0 = _price("_0", size)
    # What is gone has the price at which it went: 0 if it was booked.
    is_gone = (pl.col("position_1") == 0) & (pl.col("booked_quantity") != 0)
    price_1 = pl.when(is_gone).then(0.0).otherwise(pl.coalesce(_price("_1", size), "last_price"))
    rows = joined.with_columns(size=size, price_0=price_0, price_1=price_1).with_columns(
        held=pl.when(pl.col("position_0") == 0)
        .then(0.0)
        .otherwise(pl.col("position_0") * size * (pl.col("price_1") - pl.col("price_0"))),
        earned=pl.col("quantity") * size * pl.col("price_1") - pl.col("paid"),
        missing=pl.col("position_1") - pl.col("position_0") - pl.col("quantity"),
    )
    return _split(rows, days).select(*names, "profit", *PARTS, "gross_move", "without_greeks")


def _price(end: str, size: pl.Expr) -> pl.Expr:
    held = pl.col(f"position{end}") * size
    return pl.when(held != 0).then(pl.col(f"market_value{end}") / held)


def _sums_of_trades(trades: pl.DataFrame) -> pl.DataFrame:
    amount = pl.col("quantity") * pl.col("price") * pl.col("multiplier")
    return trades.group_by(*KEY, "symbol", "currency").agg(
        pl.col("quantity").sum(),
        paid=amount.sum(),
        fees=-pl.col("commission").fill_null(0.0).sum(),
        booked_quantity=pl.col("quantity").filter(pl.col(BOOKED)).abs().sum(),
        last_price=pl.col("price").last(),
        trade_multiplier=pl.col("multiplier").first(),
    )


def _split(rows: pl.DataFrame, days: float) -> pl.DataFrame:
    """Split what was held by the greeks, and add the profit and its parts."""
    units = pl.col("position_0") * pl.col("size")
    moved = (pl.col("underlying_price_1") - pl.col("underlying_price_0")) / pl.col("magnifier_0")
    points = (pl.col("implied_vol_1") - pl.col("implied_vol_0")) * 100
    by_greeks = {
        "delta": units * pl.col("delta_0") * moved,
        "gamma": units * pl.col("gamma_0") * moved**2 / 2,
        "vega": units * pl.col("vega_0") * points,
        "theta": units * pl.col("theta_0") * days,
    }
    # 0 of what was booked for an assignment: all that it earned is of that.
    kept = pl.when(pl.col("booked_quantity") == 0).then(1.0).otherwise(0.0)
    held, earned = pl.col("held").fill_null(0.0), pl.col("earned").fill_null(0.0)
    # A share or a future has no greeks: its price is its delta.
    is_share = pl.col("right_0").is_null()
    parts = {name: kept * value.fill_null(0.0) for name, value in by_greeks.items()}
    parts["delta"] = pl.when(is_share).then(kept * held).otherwise(parts["delta"])
    # A quantity that came or went without a trade has its whole value unexplained.
    unknown = pl.col("missing") * pl.col("size") * pl.col("price_1").fill_null(pl.col("price_0"))
    rows = rows.with_columns(**parts).with_columns(
        repricing=kept * held - pl.sum_horizontal(BY_GREEKS),
        trades=kept * earned,
        assignments=(1 - kept) * (held + earned),
        cash=pl.lit(0.0),
        unexplained=unknown.fill_null(0.0),
        without_greeks=(pl.col("position_0") != 0) & pl.col("delta_0").is_null() & ~is_share,
    )
    return rows.with_columns(
        profit=pl.sum_horizontal(PARTS), gross_move=pl.sum_horizontal(pl.col(PARTS).abs())
    )


def of_newest_day(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the newest day of `profit_explained`; none of an empty table."""
    return rows.filter(pl.col("session_date") == pl.col("session_date").max())


def by_strategy(found: pl.DataFrame, shares: pl.DataFrame) -> pl.DataFrame:
    """Return the parts of the profit of each strategy and account, and of what is in none.

    Args:
        found: What `explain` returned.
        shares: For each part of a holding: account, conid, strategy_id and share; together 1.
    """
    split = found.join(shares, on=KEY, how="left").with_columns(
        pl.col("strategy_id").fill_null("UNATTRIBUTED"), pl.col("share").fill_null(1.0)
    )
    numbers = ("profit", *PARTS, "gross_move")
    named = pl.col("symbol") + " " + pl.col("conid").cast(pl.String)
    return (
        split.with_columns(pl.col(name) * pl.col("share") for name in numbers)
        .group_by("strategy_id", "account", "currency")
        .agg(
            *(pl.col(name).sum() for name in numbers),
            legs=pl.len(),
            without_greeks=pl.col("without_greeks").sum(),
            unexplained_legs=named.filter(pl.col("unexplained").abs() > 0).sort().str.join(", "),
        )
        .with_columns(pl.col("unexplained_legs").replace("", None))
        .sort("strategy_id", "account", "currency")
    )


def is_explained(row: Mapping[str, float]) -> bool:
    """Return whether what is unexplained is small, in itself or against the gross move."""
    unexplained = abs(row["unexplained"])
    return unexplained <= max(SMALLEST_UNEXPLAINED, LARGEST_SHARE * row["gross_move"])
