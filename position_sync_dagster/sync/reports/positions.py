"""The positions as everybody is shown them: rows of the ledger with what follows from them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import polars as pl

from position_sync_dagster.domain.instrument import leg_name
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.domain.rules import exchange_date
from position_sync_dagster.lake.lake import Lake, Past
from position_sync_dagster.lake.schema.codec import moment
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import Book, book_at, read_book
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


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Return positions by account and contract; those without an expiry come last."""
    strike = pl.col("strike").fill_null(0.0)
    return rows.sort("account", "symbol", "expiry", strike, "conid", nulls_last=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionQuery:
    """Which positions to read, and in which order.

    Attributes:
        strategy: Only the legs of this strategy.
        underlying: Only contracts on this symbol, in upper or lower case.
        expiring: Only contracts that expire within this time, or have expired.
        sort: A name of `SORTED_BY`, the smallest first; with "-" before it the greatest first. What
            is unknown comes last. By default they are in the order of account and contract.
        limit: Maximum number of positions.
        past: Read the rows as of this moment instead of the newest rows.
    """

    strategy: str | None = None
    underlying: str | None = None
    expiring: timedelta | None = None
    sort: str | None = None
    limit: int | None = None
    past: Past | None = None


_SIZE = pl.col("position") * pl.col("multiplier")
_NAMES = pl.col("strategies")
# What positions may be sorted by: the headings of the columns in a terminal.
SORTED_BY: dict[str, pl.Expr] = {
    "account": pl.col("account"),
    "conid": pl.col("conid"),
    "leg": pl.col("symbol"),
    "qty": pl.col("position"),
    "price": pl.col("market_price"),
    "value": pl.col("market_value"),
    "unreal": pl.col("unrealized_pnl"),
    "daily": pl.col("daily_pnl"),
    **{name: pl.col(name) * _SIZE for name in ("delta", "gamma", "theta", "vega")},
    "currency": pl.col("currency"),
    "strategy": pl.when(pl.col("strategies").list.len() > 0).then(
        pl.col("strategies").list.join(",")
    ),
    "by": pl.col("source"),
    "source": pl.coalesce("price_kind", "value_source"),
    "age": pl.col("age_s"),
    "greeks": pl.col("greeks_age_s"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionList:
    """Positions, as `position_rows` returns them.

    Attributes:
        total: The number of all positions that were asked for, shown or not.
        book: The holdings and strategies of the moment.
    """

    rows: pl.DataFrame
    total: int
    book: Book


def read_positions(
    lake: Lake, settings: Settings, now: datetime, query: PositionQuery
) -> PositionList:
    """Read the newest rows of the positions that are asked for; blocks.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The tables do not know the moment that is asked for.
    """
    if query.past is None:
        book = read_book(lake, settings, now)
    else:
        book = book_at(lake, settings, query.past, now)
    found = book.priced.filter(pl.col("position") != 0)
    if query.underlying is not None:
        found = found.filter(pl.col("symbol").str.to_uppercase() == query.underlying.upper())
    if query.expiring is not None:
        found = found.filter(pl.col("expiry") <= (book.now + query.expiring).date())
    rows = in_order(position_rows(found, book))
    if query.strategy is not None:
        rows = rows.filter(pl.col("strategies").list.contains(pl.lit(query.strategy)))
    if query.sort is not None:
        order, descending = SORTED_BY[query.sort.removeprefix("-")], query.sort.startswith("-")
        rows = rows.sort(order, descending=descending, nulls_last=True, maintain_order=True)
    return PositionList(rows=rows[: query.limit], total=rows.height, book=book)
