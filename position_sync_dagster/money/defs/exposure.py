"""The asset `strategy_exposure`, which the tick derives; the UI plots the totals of its events."""

from datetime import UTC, datetime

import polars as pl

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.ledger_rows import newest_version
from position_sync_dagster.money.defs import strategy_checks as strategies
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import exposure
from position_sync_dagster.money.reports.book import Book, read_book
from position_sync_dagster.money.tables import STRATEGY_EXPOSURE
from position_sync_dagster.settings import Settings

# The totals that the UI plots, by label.
PLOTS = {
    "daily": "daily_pnl", "value": "value", "unrealised": "unrealized_pnl", "delta": "dollar_delta",
    "theta": "theta",
}  # fmt: skip


def plots_of(book: Book) -> dict[str, float | None]:
    """Return the totals of currencies that leave nothing out."""
    numbers: dict[str, float | None] = {}
    for total in book.totals:
        if total.account is not None:
            continue
        for label, name in PLOTS.items():
            if name not in total.unknown:
                numbers[f"{label} {total.currency}"] = getattr(total, name)
    return numbers


# What each column of exposures is made of, beside the legs and their holdings: columns of the
# ledger, or of another table; without an entry, the column of the same name.
_MADE_OF = {
    "asset_class": "sec_type", "notional": "market_value", "nearest_expiry": "expiry",
    "dollar_delta": "delta underlying_price", "gamma_1pct": "gamma underlying_price",
    "legs_without_value": "market_value", "legs_without_greeks": "delta gamma vega theta",
    "oldest_value_at": "value_time timestamp",
    "short_legs_in_money": "active_strategies.strike underlying_price",
    "short_legs_unknown": "underlying_price", "mismatches": "contracts.conid",
    "legs_closed": "closures.cause", "closed": "closures.cause closures.closed_at",
}  # fmt: skip
_LEGS = (
    "active_strategies.strategy_id active_strategies.conid active_strategies.quantity "
    "active_strategies.removed_at position multiplier"
)


@derived_asset(
    STRATEGY_EXPOSURE,
    deps=["position_updates", "active_strategies", "contracts", "closures"],
    metadata=table_asset.column_lineage(STRATEGY_EXPOSURE, _MADE_OF, every=_LEGS),
    money_first=True,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def strategy_exposure(lake: MoneyLake, settings: Settings, run_id: str | None) -> Derived:
    """The holdings of each strategy, and their value.

    Written by the sensor drain_queue after each report of the ledger; the table is replaced whole.

    How to read it: one row per strategy, account, currency and class of asset, and one with the
    strategy UNATTRIBUTED for what no strategy has of an account: together they are all holdings.
    Sums are over known values; the number of legs left out is beside them, and how many options
    have greeks. Futures count as notional, never as value.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    now = datetime.now(UTC)
    table = lake.derived_table(STRATEGY_EXPOSURE)

    def make() -> tuple[Book, pl.DataFrame]:
        book = read_book(lake, settings, now)
        return book, exposure.exposures(book.split, newest_version(book.priced) or None)

    book, result = derived.derive_whole(table, make, run_id=run_id)
    metadata = table_asset.replaced_whole(result, book.priced)
    metadata |= table_asset.plotted(plots_of(book))
    return Derived(metadata=metadata, checks=strategies.evaluated_limits(settings, book))
