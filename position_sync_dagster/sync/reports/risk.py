"""Risk and explained profit, from the tables: a book ready for scenarios, and past days."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from position_sync_dagster.domain.closures import Cause
from position_sync_dagster.domain.instrument import MULTIPLIED_TYPES, ContractDetails, Right
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.statement import EventKind, Side
from position_sync_dagster.lake.lake import Lake, legs_at, rows_of_logins
from position_sync_dagster.lake.schema.tables import PROFIT_EXPLAINED
from position_sync_dagster.risk import explained
from position_sync_dagster.risk.scenarios import (
    Assumptions,
    Breakdown,
    OwnScenarios,
    PricedLegs,
    folder_of,
    read_scenarios,
)
from position_sync_dagster.risk.terms import OPTION_TYPES, dated_dividends
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import Book, read_book
from position_sync_dagster.sync.reports.exposure import split


class RiskBook(NamedTuple):
    """A book, the scenarios of the file, and the parts of all holdings, ready for scenarios."""

    book: Book
    own: OwnScenarios
    legs: PricedLegs


def read_risk(lake: Lake, settings: Settings, now: datetime) -> RiskBook:
    """Read the holdings, what their options are priced with, and the file of scenarios; blocks.

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
    return RiskBook(book, own, PricedLegs(book.split.parts, given))


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
        for row in legs.rows(points, Breakdown.STRATEGY)
    ]


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
    before, after = (
        rows_of_logins(lake.updates.sync.last_before(at), settings) for at in (since, closed)
    )
    if before.is_empty():
        begun = lake.updates.sync.begun_at()
        if after.is_empty() or begun is None or begun > since:
            return PROFIT_EXPLAINED.empty  # what was held already would count as profit
    conids = {*before.get_column("conid"), *after.get_column("conid")}
    details = lake.contracts.get(conids)
    magnifier = _of_contract(details, "price_magnifier", pl.lit(1.0))
    before, after = (one.with_columns(magnifier=magnifier) for one in (before, after))
    of_type = pl.when(pl.col("sec_type").is_in(list(MULTIPLIED_TYPES))).then(100.0).otherwise(1.0)
    multiplier = _of_contract(details, "multiplier", of_type)
    trades = _trades(lake, multiplier, since, closed).select(
        *explained.KEY,
        *("symbol", "currency", "quantity", "commission", "booked"),
        price=pl.col("price").fill_null(0.0) / magnifier,
        multiplier=multiplier,
    )
    found = explained.explain(before, after, trades, days=(closed - since) / timedelta(days=1))
    rows = explained.by_strategy(found, _shares(lake, before, after, since, closed))
    rows = _with_cash(rows, lake, day)
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
    booked = executed.filter("booked").select(explained.KEY)
    is_delivery, is_option = pl.col("cause").is_in(_DELIVERIES), pl.col("right").is_not_null()
    closes = lake.closures.current_rows().filter(
        pl.col("cause").is_in(_BY_BOOKING),
        pl.col("closed_at") > since,
        pl.col("closed_at") <= closed,
        is_option | ~is_delivery,  # of what is delivered the option says it, at its strike
    )
    closes = closes.join(booked, on=explained.KEY, how="anti", maintain_order="left")
    paid = pl.when(cause=Cause.CASH_SETTLED).then("price")
    side = pl.when(right=Right.CALL).then(1.0).otherwise(-1.0)
    delivered = closes.filter(is_delivery).drop_nulls("counter_conid")
    delivered = delivered.with_columns(
        quantity=-side * pl.col("quantity") * multiplier,
        price="strike",
        conid="counter_conid",
        sec_type=pl.lit("STK"),
    ).join(booked, on=explained.KEY, how="anti")
    free = pl.concat([closes.with_columns(price=paid), delivered]).with_columns(
        quantity=-pl.col("quantity"), commission=0.0, booked=pl.lit(value=True)
    )
    names = [*explained.KEY, "symbol", "currency", "sec_type"]
    names += ["quantity", "price", "commission", "booked"]
    return pl.concat([executed.select(names), free.select(names)])


def _shares(
    lake: Lake, before: pl.DataFrame, after: pl.DataFrame, since: datetime, closed: datetime
) -> pl.DataFrame:
    """Return the share of each strategy in what was held at the beginning, or at the end."""
    kept = before.filter(pl.col("position") != 0)
    new = after.join(kept.select(explained.KEY), on=explained.KEY, how="anti")
    legs: dict[tuple[Any, ...], ActiveContract] = {}
    for at in (since, closed):
        for leg in legs_at(lake, at):
            legs[leg.strategy_id, leg.account, leg.conid] = leg
    both = pl.concat([kept, new], how="diagonal_relaxed").filter(pl.col("position") != 0)
    empty = pl.lit(None, pl.Datetime("us", "UTC"))
    rows = both.with_columns(priced_at=empty, confirmed_until=empty)
    parts = split(list(legs.values()), rows).parts
    return parts.select(*explained.KEY, "strategy_id", "share")


def _with_cash(rows: pl.DataFrame, lake: Lake, day: date) -> pl.DataFrame:
    """Add what a statement names of dividends, interest and fees, to what is in no strategy."""
    is_own = pl.col("type").is_in(_OWN_CASH).fill_null(value=False)
    events = lake.statement_events.rows(since=day).drop_nulls("currency")
    events = events.filter(pl.col("amount") != 0, ~is_own, kind=EventKind.CASH, day=day)
    if events.is_empty():
        return rows
    total = pl.col("amount").sum()
    added = events.group_by("account", "currency").agg(
        strategy_id=pl.lit(UNATTRIBUTED), profit=total, cash=total, gross_move=total.abs()
    )
    names = ["strategy_id", "account", "currency"]
    numbers = [name for name in rows.columns if rows.schema[name].is_numeric()]
    return (
        pl.concat([rows, added], how="diagonal_relaxed")
        .group_by(names)
        .agg(
            *(pl.col(name).sum() for name in numbers),
            pl.col("unexplained_legs").drop_nulls().first(),
        )
        .sort(names)
    )


def unexplained(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each row of which too much is unexplained."""
    return [
        f"{row['session_date']}: {row['unexplained']:,.0f} {row['currency']} of "
        f"{row['strategy_id']} in {row['account']} ({row['unexplained_legs']})"
        for row in rows
        if not explained.is_explained(row)
    ]
