"""The positions as everybody is shown them: rows of the ledger with what follows from them."""

from functools import lru_cache

import polars as pl

from position_sync_dagster.domain.instrument import leg_name
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.domain.rules import exchange_date
from position_sync_dagster.lake.schema.codec import moment
from position_sync_dagster.sync.reports.book import Book
from position_sync_dagster.sync.reports.confirmations import FEEDS, PRICED
from position_sync_dagster.sync.reports.status import is_current

GREEKS = ("delta", "gamma", "vega", "theta", "implied_vol", "underlying_price")
KEY = ("account", "conid")

# The names of a position in the JSON, in order.
COLUMNS = (
    "account", "conid", "name", "symbol", "sec_type", "right", "strike", "expiry", "multiplier",
    "currency", "position", "market_price", "price_kind", "bid", "ask", "market_value",
    "average_cost", "unrealized", "today", "realised_today", "moneyness", "extrinsic", "greeks",
    "greeks_source", "days", "age_s", "greeks_age_s", "feed", "current", "source", "strategies",
    "shares",
)  # fmt: skip

_name = lru_cache(maxsize=100_000)(leg_name)


def position_rows(rows: pl.DataFrame, book: Book) -> pl.DataFrame:
    """Return rows of the ledger with the columns of the JSON, and the times of their ages.

    `strategies` and `shares` name who has which part; what is missing from 1 belongs to nobody.
    `moneyness` is a part of the strike, above 0 in the money; `extrinsic` is of one unit.
    """
    of_strategies = (
        book.split.parts.filter(pl.col("strategy_id") != UNATTRIBUTED)
        .sort("strategy_id")
        .group_by(KEY, maintain_order=True)
        .agg(strategies="strategy_id", shares="share")
    )
    sign = pl.when(pl.col("right") == "CALL").then(1.0).when(pl.col("right") == "PUT").then(-1.0)
    inside = sign * (pl.col("underlying_price") - pl.col("strike"))
    names = map(_name, *(rows.get_column(name) for name in ("symbol", "right", "strike", "expiry")))
    is_tick = pl.col("value_source") == "TICK"
    feed = pl.col("market_data_type").replace_strict(FEEDS, default="live", return_dtype=pl.String)

    def age(name: str) -> pl.Expr:
        passed = (moment(book.now) - pl.col(name)).dt.total_milliseconds() / 1000
        return passed.clip(0.0)

    return (
        rows.with_columns(pl.Series("name", [*names], pl.String))
        .join(of_strategies, on=KEY, how="left", maintain_order="left")
        .with_columns(
            unrealized="unrealized_pnl",
            today="daily_pnl",
            realised_today="realized_pnl",
            moneyness=inside / pl.col("strike"),
            extrinsic=pl.col("market_price") - inside.clip(0.0),
            greeks=pl.struct(GREEKS),
            days=(pl.col("expiry") - exchange_date(book.now)).dt.total_days(),
            confirmed_at=PRICED,
            greeks_at=pl.when(pl.col("delta").is_not_null()).then("greeks_time"),
            feed=pl.when(is_tick).then(feed),
            current=is_current(book.live_since),
            strategies=pl.col("strategies").fill_null([]),
            shares=pl.col("shares").fill_null([]),
        )
        .with_columns(age_s=age("confirmed_at"), greeks_age_s=age("greeks_at"))
    )


def open_positions(
    book: Book, strategy: str | None = None, underlying: str | None = None
) -> pl.DataFrame:
    """Return the open holdings by account and contract; those without an expiry come last.

    Args:
        strategy: Only the legs of this strategy.
        underlying: Only contracts on this symbol, in upper or lower case.
    """
    found = book.priced.filter(pl.col("position") != 0)
    if underlying is not None:
        found = found.filter(pl.col("symbol").str.to_uppercase() == underlying.upper())
    strike = pl.col("strike").fill_null(0.0)
    order = ("account", "symbol", "expiry", strike, "conid")
    rows = position_rows(found, book).sort(order, nulls_last=True)
    if strategy is None:
        return rows
    return rows.filter(pl.col("strategies").list.contains(pl.lit(strategy)))
