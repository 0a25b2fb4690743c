"""A generated year of closes: changes, executions, statements and the causes that followed."""

from datetime import UTC, datetime, timedelta

import polars as pl

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.execution import FROM_GATEWAY, Side
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import FLEX, Cause, EventKind, Stage

ACCOUNT = "DU1"
SYMBOLS = 50
DAYS = 365
HOUR = timedelta(hours=1)
FIRST_CONID = 1_000_000


def write_history(lake: MoneyLake, closes: int, now: datetime) -> None:
    """Write a year of closes; those of today have provisional causes, the others stated ones.

    Each closes an option that was opened an hour before. One of two is sold and, by the same order,
    replaced by the next contract; the others expire. Statements of each day name both. None closes
    over midnight: while the statement of one of its days has not named it, it is judged each time.
    """
    apart = pl.duration(microseconds=DAYS * 86_400_000_000 // closes)
    today = now.astimezone(NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)
    number = pl.arange(closes, eager=True)
    name = pl.concat_str(pl.lit("close-"), pl.col("n"))
    every = pl.DataFrame({"n": number}).with_columns(
        account=pl.lit(ACCOUNT),
        conid=FIRST_CONID + pl.col("n"),
        symbol=pl.concat_str(pl.lit("SYM"), pl.col("n") % SYMBOLS),
        sec_type=pl.lit("OPT"),
        right=pl.lit(Right.CALL.value),
        strike=pl.lit(100.0),
        expiry=pl.lit(now.date()),
        currency=pl.lit("USD"),
        seen_at=pl.lit(now - HOUR) - apart * (closes - 1 - pl.col("n")),
        is_sold=pl.col("n") % 2 == 0,
        change_id=name,
    )
    every = every.with_columns(is_stated=pl.col("seen_at") < pl.lit(today.astimezone(UTC)))
    stated_at = pl.col("seen_at") + pl.duration(hours=6)
    changes = every.with_columns(
        multiplier=pl.lit(100.0), before=pl.lit(1.0), after=pl.lit(0.0), average_cost=pl.lit(50.0),
        since=pl.col("seen_at") - pl.duration(seconds=1), gateway_id=pl.lit("g"),
        snapshot_id=pl.lit("s"),
    )  # fmt: skip
    opened = changes.with_columns(
        change_id=pl.concat_str(pl.lit("open-"), pl.col("n")),
        before=pl.lit(0.0),
        after=pl.lit(1.0),
        seen_at=pl.col("seen_at") - apart - pl.duration(hours=1),
    )
    add(lake.position_changes.table, pl.concat([changes, opened]))
    contracts = every.with_columns(
        local_symbol=pl.lit(""), trading_class=pl.lit(""), exchange=pl.lit("SMART"),
        under_conid=1 + pl.col("n") % SYMBOLS, multiplier=pl.lit(100.0),
        price_magnifier=pl.lit(1, pl.Int64), last_trade_date=pl.lit(now.date()),
        under_sec_type=pl.lit("STK"), seen_at=pl.col("seen_at"),
    )  # fmt: skip
    add(lake.contracts.table, contracts)
    execution = every.with_columns(
        execution_id=name, time=pl.col("seen_at"), side=pl.lit(Side.SELL.value),
        quantity=pl.lit(1.0), price=pl.lit(1.5), commission=pl.lit(0.65),
        commission_currency=pl.lit("USD"), realized_pnl=pl.lit(99.35), order_id=name,
        attributes=pl.lit("{}"),
    )  # fmt: skip
    traded = execution.filter("is_sold").with_columns(
        source=pl.lit(FROM_GATEWAY), statement=pl.lit(""), stated_at=pl.col("seen_at")
    )
    stated = execution.filter("is_stated").with_columns(
        source=pl.lit(FLEX),
        statement=pl.lit("day.xml"),
        stated_at=stated_at,
        codes=pl.when("is_sold").then(pl.lit("C")).otherwise(pl.lit("C;Ep")),
        price=pl.when("is_sold").then(1.5).otherwise(0.0),
        transaction_type=pl.when("is_sold")
        .then(pl.lit("ExchTrade"))
        .otherwise(pl.lit("BookTrade")),
    )
    add(lake.executions.table, pl.concat([traded, stated], how="diagonal"))
    cause = pl.when("is_sold").then(pl.lit(Cause.TRADED.value))
    closure = every.with_columns(
        closed_at=pl.col("seen_at"), quantity=pl.lit(1.0), price=pl.lit(1.5),
        realized_pnl=pl.lit(99.35), detail=pl.lit("traded"), executions=name, order_ids=name,
    )  # fmt: skip
    at_once = closure.with_columns(
        cause=cause.otherwise(pl.lit(Cause.EXPIRED_WORTHLESS.value)),
        stage=pl.lit(Stage.PROVISIONAL.value),
        judged_at=pl.col("seen_at") + pl.duration(seconds=5),
    )
    by_statement = at_once.filter("is_stated").with_columns(
        stage=pl.lit(Stage.STATED.value),
        statement=pl.lit("day.xml"),
        judged_at=stated_at + pl.duration(minutes=5),
    )
    add(lake.closures.table, pl.concat([at_once, by_statement], how="diagonal"))
    days = pl.DataFrame({"day": [today.date() - timedelta(days=n) for n in range(1, DAYS)]})
    periods = days.with_columns(
        event_id=pl.concat_str(pl.lit("period-"), pl.col("day")),
        kind=pl.lit(EventKind.PERIOD.value), account=pl.lit(ACCOUNT), attributes=pl.lit("{}"),
        source=pl.lit(FLEX), statement=pl.lit("day.xml"), first_day=pl.col("day"),
        stated_at=pl.col("day").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=30),
    )  # fmt: skip
    add(lake.statement_events.table, periods)


def add(table: Table, rows: pl.DataFrame) -> None:
    """Append rows in a file for each month, as maintenance leaves them."""
    spec = table.spec
    named = pl.concat(
        [spec.empty, rows.select(set(rows.columns) & {*spec.columns})], how="diagonal"
    )
    for part in named.sort(spec.order).iter_slices(max(1, named.height // 12 + 1)):
        table.transact(lambda handle, part=part: write(handle, part, {}))
