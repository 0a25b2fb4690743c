"""Risk and explained profit, from the tables: a book ready for scenarios, and past days."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from position_sync_dagster.domain.closures import Cause
from position_sync_dagster.domain.instrument import MULTIPLIED_TYPES, ContractDetails, Right
from position_sync_dagster.domain.leg import ActiveContract
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


BOOKED_CODES = frozenset({"A", "Ex", "Ep", "GEA"})

_BY_BOOKING = frozenset(
    {Cause.ASSIGNED, Cause.EXERCISED, Cause.EXPIRED_WORTHLESS, Cause.CASH_SETTLED}
)

# Types of cash that are no profit.
_OWN_CASH = ("Deposits", "Withdrawals", "Deposits/Withdrawals", "Deposits & Withdrawals")

_TRADES = {
    "account": pl.String, "conid": pl.Int64, "symbol": pl.String, "currency": pl.String,
    "quantity": pl.Float64, "price": pl.Float64, "multiplier": pl.Float64,
    "commission": pl.Float64, "booked": pl.Boolean,
}  # fmt: skip


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
    before, after = (_with_magnifier(one, details) for one in (before, after))
    trades = _trades(lake, details, since, closed)
    found = explained.explain(before, after, trades, days=(closed - since) / timedelta(days=1))
    rows = explained.by_strategy(found, _shares(lake, before, after, since, closed))
    rows = _with_cash(rows, lake, day)
    return rows.with_columns(
        session_date=pl.lit(day),
        since=pl.lit(since.astimezone(UTC)).dt.cast_time_unit("us"),
        closed_at=pl.lit(closed.astimezone(UTC)).dt.cast_time_unit("us"),
    ).select(list(PROFIT_EXPLAINED.columns))


def _with_magnifier(rows: pl.DataFrame, details: Mapping[int, ContractDetails]) -> pl.DataFrame:
    known = {conid: one.price_magnifier for conid, one in details.items()}
    magnifier = pl.col("conid").replace_strict(known, default=1, return_dtype=pl.Int64)
    return rows.with_columns(magnifier=magnifier)


def _trades(
    lake: Lake, details: Mapping[int, ContractDetails], since: datetime, closed: datetime
) -> pl.DataFrame:
    """Return executions of the time, and what was booked without one."""
    rows: list[dict[str, Any]] = []
    executions = lake.executions.read()
    during = executions.filter(pl.col("time") > since, pl.col("time") <= closed)
    for one in during.iter_rows(named=True):
        codes = {*(one["codes"] or "").split(";")}
        is_booked = one["transaction_type"] == "BookTrade" or bool(codes & BOOKED_CODES)
        if one["price"] is None and not is_booked:
            continue  # what it earned is not known: its quantity stays unexplained
        sign = 1.0 if one["side"] == Side.BUY else -1.0
        rows.append(
            _trade(one, sign * one["quantity"], one["price"] or 0.0, details, booked=is_booked)
            | {"commission": one["commission"]}
        )
    booked = {(row["account"], row["conid"]) for row in rows if row["booked"]}
    for closure in lake.closures.current():
        key = (closure.account, closure.conid)
        if not since < closure.closed_at <= closed or key in booked:
            continue
        is_delivery = closure.cause in (Cause.ASSIGNED, Cause.EXERCISED)
        if is_delivery and closure.right is None:
            continue  # the option says what came of it, at its strike
        if closure.cause in _BY_BOOKING:
            terms = {name: getattr(closure, name) for name in ("account", "conid", "symbol")}
            terms |= {"currency": closure.currency, "sec_type": closure.sec_type}
            paid = closure.price if closure.cause is Cause.CASH_SETTLED else 0.0
            rows.append(_trade(terms, -closure.quantity, paid or 0.0, details, booked=True))
            delivered = closure.counter_conid
            if delivered is not None and is_delivery and (closure.account, delivered) not in booked:
                side = 1.0 if closure.right is Right.CALL else -1.0
                terms |= {"conid": delivered, "sec_type": "STK"}
                units = side * closure.quantity * _multiplier(closure.conid, "OPT", details)
                price = closure.strike or 0.0
                rows.append(_trade(terms, units, price, details, booked=True))
    return pl.DataFrame(rows, schema=_TRADES, orient="row")


def _trade(
    one: Mapping[str, Any],
    quantity: float,
    price: float,
    details: Mapping[int, ContractDetails],
    *,
    booked: bool,
) -> dict[str, Any]:
    known = details.get(one["conid"])
    return {
        "account": one["account"],
        "conid": one["conid"],
        "symbol": one["symbol"],
        "currency": one["currency"],
        "quantity": quantity,
        "price": price / (known.price_magnifier if known else 1),
        "multiplier": _multiplier(one["conid"], one["sec_type"], details),
        "commission": 0.0,
        "booked": booked,
    }


def _multiplier(conid: int, sec_type: str, details: Mapping[int, ContractDetails]) -> float:
    known = details.get(conid)
    if known is not None:
        return known.multiplier
    return 100.0 if sec_type in MULTIPLIED_TYPES else 1.0


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
    cash: dict[tuple[str, str], float] = {}
    for event in lake.statement_events.records(since=day):
        is_own = event.kind is EventKind.CASH and event.day == day
        if is_own and event.amount and event.currency and event.type not in _OWN_CASH:
            key = (event.account, event.currency)
            cash[key] = cash.get(key, 0.0) + event.amount
    if not cash:
        return rows
    added = pl.DataFrame(
        [
            {"strategy_id": "UNATTRIBUTED", "account": account, "currency": currency}
            | dict.fromkeys(("profit", "cash"), amount)
            | {"gross_move": abs(amount)}
            for (account, currency), amount in cash.items()
        ]
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
