"""Risk and explained profit, from the tables: a book ready for scenarios, and past days.

A holding that is kept earns by its price. That part is split by the greeks at the beginning: what
they do not explain is the rest of the repricing. Trades earn from their price to the last one.
What remains is unexplained: a quantity that no trade explains, or a price that is not known.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from position_sync_dagster.domain.closes import Cause, EventKind, Side
from position_sync_dagster.domain.instrument import (
    MULTIPLIED_TYPES,
    ContractDetails,
    Right,
    contract_name,
)
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.lake import Lake, legs_at, rows_of_logins
from position_sync_dagster.lake.schema import PROFIT_EXPLAINED
from position_sync_dagster.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.risk.scenario_file import OwnScenarios, folder_of, read_scenarios
from position_sync_dagster.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.risk.terms import OPTION_TYPES, dated_dividends
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import Book, read_book
from position_sync_dagster.sync.reports.exposure import split


def read_risk(
    lake: Lake, settings: Settings, now: datetime
) -> tuple[Book, OwnScenarios, PricedLegs]:
    """Read the holdings, the file of scenarios, and the parts ready for scenarios; blocks.

    Raises:
        LakeError: A table cannot be used.
        ScenariosFileError: The file of scenarios has a mistake.
    """
    own = read_scenarios(folder_of(settings.strategies_file))
    book = read_book(lake, settings, now)
    is_option = pl.col("sec_type").is_in(list(OPTION_TYPES))
    conids = book.split.parts.filter(is_option).get_column("conid").unique()
    rows = lake.dividends.current()
    symbols = {row.conid: row.symbol for row in rows}
    given = Assumptions(
        now=book.now,
        details=lake.contracts.get(conids.to_list()),
        rates=dict(settings.interest_rates),
        dividends={symbols[conid]: paid for conid, paid in dated_dividends(rows).items()},
        betas=own.betas,
    )
    return book, own, PricedLegs.of(book.split.parts, given)


def leg_notes(book: Book) -> dict[str, list[str]]:
    """Return what is wrong with the legs of each strategy: another quantity, or nothing held."""
    notes: dict[str, list[str]] = {}
    for row in book.split.legs.iter_rows(named=True):
        if row["strategy_id"] == UNATTRIBUTED:
            continue
        if row["difference"] is not None:
            notes.setdefault(row["strategy_id"], []).append(row["difference"])
        elif not row["is_held"] and row["mismatch"] is None:
            leg = contract_name(book.legs[row["leg"]])
            end = row["closed"] or "not held"
            notes.setdefault(row["strategy_id"], []).append(f"{leg}: {end}")
    return notes


def risk_rows(
    legs: PricedLegs, own: OwnScenarios, run_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the rows of `risk_scenarios` for each strategy and each recorded scenario."""
    points, now = own.recorded, legs.given.now
    losses = {one.name: one.largest_loss for one in points}
    kept = ("account", "currency", "scenario", "spot", "vol", "days", "value", "profit", "left_out")
    return [
        {name: row[name] for name in kept}
        | {
            "made_at": now,
            "date": now.date(),
            "strategy_id": row["strategy"],
            "largest_loss": losses[row["scenario"]].get(row["strategy"]),
            "run_id": run_id,
        }
        for row in scenario_rows(legs, points, Breakdown.STRATEGY)
    ]


KEY = ["account", "conid"]

_BY_GREEKS = ("delta", "gamma", "vega", "theta")
# The parts of the profit; together they are the profit.
PARTS = (*_BY_GREEKS, "repricing", "trades", "fees", "assignments", "cash", "unexplained")

SMALLEST_UNEXPLAINED = 25.0
# More than this part of the gross move, and more than that amount, is to be named.
LARGEST_SHARE = 0.05

_STATE = ("position", "market_value", "multiplier", "magnifier", "right", "underlying_price",
          "implied_vol", *_BY_GREEKS)  # fmt: skip

_BOOKED_CODES = ["A", "Ex", "Ep", "GEA"]
_DELIVERIES = [Cause.ASSIGNED, Cause.EXERCISED]
_BY_BOOKING = [*_DELIVERIES, Cause.EXPIRED_WORTHLESS, Cause.CASH_SETTLED]

# Types of cash that are no profit.
_OWN_CASH = ("Deposits", "Withdrawals", "Deposits/Withdrawals", "Deposits & Withdrawals")


def explain_day(
    lake: Lake, settings: Settings, day: date, *, since: datetime, closed: datetime
) -> pl.DataFrame:
    """Return the rows of `profit_explained` of one trading day; blocks.

    Args:
        day: The trading day.
        since: The close before it.
        closed: Its close.

    Raises:
        LakeError: A table cannot be used.
    """
    ends = map(lake.updates.sync.last_before, (since, closed))
    before, after = (rows_of_logins(rows, settings) for rows in ends)
    if before.is_empty():
        begun = lake.updates.sync.begun_at()
        if after.is_empty() or begun is None or begun > since:
            return PROFIT_EXPLAINED.empty  # what was held already would count as profit
    details = lake.contracts.get({*before.get_column("conid"), *after.get_column("conid")})
    magnifier = _of_contract(details, "price_magnifier", pl.lit(1.0))
    before, after = (one.with_columns(magnifier=magnifier) for one in (before, after))
    of_type = pl.when(pl.col("sec_type").is_in(list(MULTIPLIED_TYPES))).then(100.0).otherwise(1.0)
    multiplier = _of_contract(details, "multiplier", of_type)
    trades = _trades(lake, multiplier, since, closed).select(
        *KEY,
        *("symbol", "currency", "quantity", "commission", "booked"),
        price=pl.col("price").fill_null(0.0) / magnifier,
        multiplier=multiplier,
    )
    found = explain(before, after, trades, days=(closed - since) / timedelta(days=1))
    found = pl.concat([found, _cash(lake, day)], how="diagonal_relaxed")
    rows = by_strategy(found, _shares(lake, before, after, since, closed))
    return rows.with_columns(
        session_date=pl.lit(day),
        since=pl.lit(since.astimezone(UTC)).dt.cast_time_unit("us"),
        closed_at=pl.lit(closed.astimezone(UTC)).dt.cast_time_unit("us"),
    ).select(list(PROFIT_EXPLAINED.columns))


def _of_contract(details: Mapping[int, ContractDetails], name: str, otherwise: pl.Expr) -> pl.Expr:
    """Return an attribute of the details of the contract of each row."""
    known = {conid: float(getattr(one, name)) for conid, one in details.items()}
    conid = pl.col("conid")
    return conid.replace_strict(known, default=otherwise, return_dtype=pl.Float64)


def _trades(lake: Lake, multiplier: pl.Expr, since: datetime, closed: datetime) -> pl.DataFrame:
    """Return executions of the time, and what was booked without one."""
    codes = pl.col("codes").fill_null("").str.split(";")
    is_coded = codes.list.set_intersection(_BOOKED_CODES).list.len() > 0
    executed = lake.executions.read().filter(pl.col("time") > since, pl.col("time") <= closed)
    executed = executed.with_columns(
        booked=(pl.col("transaction_type") == "BookTrade").fill_null(value=False) | is_coded,
        quantity=pl.when(side=Side.BUY).then("quantity").otherwise(-pl.col("quantity")),
    ).filter(pl.col("booked") | pl.col("price").is_not_null())
    # One without a price is left out: what it earned is not known, its quantity is unexplained.
    booked = executed.filter("booked").select(KEY)
    is_delivery, is_option = pl.col("cause").is_in(_DELIVERIES), pl.col("right").is_not_null()
    closes = lake.closures.current_rows().filter(
        pl.col("cause").is_in(_BY_BOOKING),
        pl.col("closed_at") > since,
        pl.col("closed_at") <= closed,
        is_option | ~is_delivery,  # of what is delivered the option says it, at its strike
    )
    closes = closes.join(booked, on=KEY, how="anti", maintain_order="left")
    paid = pl.when(cause=Cause.CASH_SETTLED).then("price")
    side = pl.when(right=Right.CALL).then(1.0).otherwise(-1.0)
    delivered = closes.filter(is_delivery).drop_nulls("counter_conid")
    delivered = delivered.with_columns(
        quantity=-side * pl.col("quantity") * multiplier,
        price="strike",
        conid="counter_conid",
        sec_type=pl.lit("STK"),
    ).join(booked, on=KEY, how="anti")
    free = pl.concat([closes.with_columns(price=paid), delivered]).with_columns(
        quantity=-pl.col("quantity"), commission=0.0, booked=pl.lit(value=True)
    )
    names = [*KEY, "symbol", "currency", "sec_type", "quantity", "price", "commission", "booked"]
    return pl.concat([executed.select(names), free.select(names)])


def explain(
    before: pl.DataFrame, after: pl.DataFrame, trades: pl.DataFrame, *, days: float
) -> pl.DataFrame:
    """Return the parts of the profit of each holding; pure.

    Args:
        before: The holdings at the beginning, one row for each account and conid: the columns of
            `position_updates` and `magnifier`.
        after: Those at the end.
        trades: What was traded meanwhile, with the columns account, conid, symbol, currency,
            quantity (signed), price (major unit), multiplier, commission and booked (a flag: the
            broker booked it for an assignment, an exercise or an expiry).
        days: The time between, in calendar days.

    Returns:
        Rows with account, conid, symbol, currency, profit, the parts, `gross_move` (the sum of the
        sizes of the parts) and `without_greeks`.
    """
    names = [*KEY, "symbol", "currency"]
    start = before.select(*names, pl.col(_STATE).name.suffix("_0"))
    end = after.select(*names, pl.col(_STATE).name.suffix("_1"))
    joined = start.join(end, on=names, how="full", coalesce=True)
    amounts = pl.col("position_0", "position_1", "quantity", "paid", "fees", "booked_quantity")
    joined = joined.join(_sums_of_trades(trades), on=names, how="full", coalesce=True)
    joined = joined.with_columns(amounts.fill_null(0.0))
    size = pl.coalesce("multiplier_0", "multiplier_1", "trade_multiplier")
    # What is gone has the price at which it went: 0 if it was booked.
    is_gone = (pl.col("position_1") == 0) & (pl.col("booked_quantity") != 0)
    price_1 = pl.when(is_gone).then(0.0).otherwise(pl.coalesce(_price("_1", size), "last_price"))
    rows = joined.with_columns(size=size, price_0=_price("_0", size), price_1=price_1)
    moved = pl.col("position_0") * size * (pl.col("price_1") - pl.col("price_0"))
    rows = rows.with_columns(
        held=pl.when(pl.col("position_0") == 0).then(0.0).otherwise(moved).fill_null(0.0),
        earned=(pl.col("quantity") * size * pl.col("price_1") - pl.col("paid")).fill_null(0.0),
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
        booked_quantity=pl.col("quantity").filter("booked").abs().sum(),
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
    # A share or a future has no greeks: its price is its delta.
    is_share = pl.col("right_0").is_null()
    parts = {name: kept * value.fill_null(0.0) for name, value in by_greeks.items()}
    parts["delta"] = pl.when(is_share).then(kept * pl.col("held")).otherwise(parts["delta"])
    # A quantity that came or went without a trade has its whole value unexplained.
    unknown = pl.col("missing") * pl.col("size") * pl.coalesce("price_1", "price_0")
    rows = rows.with_columns(**parts).with_columns(
        repricing=kept * pl.col("held") - pl.sum_horizontal(_BY_GREEKS),
        trades=kept * pl.col("earned"),
        assignments=(1 - kept) * (pl.col("held") + pl.col("earned")),
        cash=pl.lit(0.0),
        unexplained=unknown.fill_null(0.0),
        without_greeks=(pl.col("position_0") != 0) & pl.col("delta_0").is_null() & ~is_share,
    )
    return rows.with_columns(
        profit=pl.sum_horizontal(PARTS), gross_move=pl.sum_horizontal(pl.col(PARTS).abs())
    )


def _cash(lake: Lake, day: date) -> pl.DataFrame:
    """Return what a statement names of dividends, interest and fees, of each account."""
    is_own = pl.col("type").is_in(_OWN_CASH).fill_null(value=False)
    events = lake.statement_events.rows(since=day).drop_nulls("currency")
    total = pl.col("amount").sum()
    return (
        events.filter(pl.col("amount") != 0, ~is_own, kind=EventKind.CASH, day=day)
        .group_by("account", "currency")
        .agg(profit=total, cash=total, gross_move=total.abs())
    )


def _shares(
    lake: Lake, before: pl.DataFrame, after: pl.DataFrame, since: datetime, closed: datetime
) -> pl.DataFrame:
    """Return the share of each strategy in what was held at the beginning, or at the end."""
    kept = before.filter(pl.col("position") != 0)
    new = after.join(kept.select(KEY), on=KEY, how="anti").filter(pl.col("position") != 0)
    rows = pl.concat([kept, new], how="diagonal_relaxed")
    active = [*legs_at(lake, since), *legs_at(lake, closed)]
    legs = {(leg.strategy_id, leg.account, leg.conid): leg for leg in active}
    return split(legs.values(), rows).parts.select(*KEY, "strategy_id", "share")


def by_strategy(found: pl.DataFrame, shares: pl.DataFrame) -> pl.DataFrame:
    """Return the parts of the profit of each strategy and account, and of what is in none; pure.

    Args:
        found: What `explain` returned, and cash of accounts, which has no conid.
        shares: For each part of a holding: account, conid, strategy_id and share; together 1.
    """
    split_by = found.join(shares, on=KEY, how="left").with_columns(
        pl.col("strategy_id").fill_null(UNATTRIBUTED), pl.col("share").fill_null(1.0)
    )
    numbers = ("profit", *PARTS, "gross_move")
    named = pl.col("symbol") + " " + pl.col("conid").cast(pl.String)
    return (
        split_by.with_columns(pl.col(name) * pl.col("share") for name in numbers)
        .group_by("strategy_id", "account", "currency")
        .agg(
            pl.col(numbers).sum(),
            legs=pl.col("conid").count(),
            without_greeks=pl.col("without_greeks").sum(),
            unexplained_legs=named.filter(pl.col("unexplained").abs() > 0).sort().str.join(", "),
        )
        .with_columns(pl.col("unexplained_legs").replace("", None))
        .sort("strategy_id", "account", "currency")
    )


def of_newest_day(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the newest day of `profit_explained`; none of an empty table."""
    return rows.filter(pl.col("session_date") == pl.col("session_date").max())


def is_explained(row: Mapping[str, float]) -> bool:
    """Return whether what is unexplained is small, in itself or against the gross move."""
    unexplained = abs(row["unexplained"])
    return unexplained <= max(SMALLEST_UNEXPLAINED, LARGEST_SHARE * row["gross_move"])


def unexplained(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each row of which too much is unexplained."""
    return [
        f"{row['session_date']}: {row['unexplained']:,.0f} {row['currency']} of "
        f"{row['strategy_id']} in {row['account']} ({row['unexplained_legs']})"
        for row in rows
        if not is_explained(row)
    ]
