"""The asset `strategy_exposure`, which the tick derives; its event shows the money of a book.

Money is first: a table of each currency, because currencies are never added, then the risk. In the
tables an unknown number is a dash; in the numbers that the UI plots it is left out.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.ledger_rows import newest_version
from position_sync_dagster.money.defs import strategy_checks as strategies
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import exposure
from position_sync_dagster.money.reports.book import Book, read_book
from position_sync_dagster.money.reports.columns import Column, Row
from position_sync_dagster.money.reports.money_tables import SUMS, money_lines, sums_table
from position_sync_dagster.money.tables import STRATEGY_EXPOSURE
from position_sync_dagster.settings import Settings

MOST_CURRENCIES = 5
MOST_STRATEGIES = 50

# The totals that the UI plots, by label. Long labels would leave no room for the tables.
PLOTS = {
    "daily": "daily_pnl", "value": "value", "unrealised": "unrealized_pnl", "delta": "dollar_delta",
    "theta": "theta",
}  # fmt: skip

# Shown instead of a currency for legs that are not held and have never been valued.
NOT_VALUED = "not valued"


def money_metadata(book: Book) -> "dict[str, dg.RawMetadataValue]":
    """Return the tables of each currency, money before risk, and the totals that the UI plots.

    A star marks a sum that leaves out a holding; such a sum is not plotted.
    """
    listed = [*book.strategies[:MOST_STRATEGIES], *book.rest, *book.totals]
    currencies = dict.fromkeys(sums.currency for sums in (*book.totals, *listed))
    shown: dict[str, dg.RawMetadataValue] = {}

    for label, columns in (("money", _MONEY), ("risk", _RISK)):
        for currency in list(currencies)[:MOST_CURRENCIES]:
            rows = [sums for sums in listed if sums.currency == currency]
            (title, *_others), lines = sums_table("strategy", rows)
            name = f"{label} {currency or NOT_VALUED}"
            shown[name] = aligned_table([title, *columns], lines)

    notes = money_lines(book)
    if notes:
        shown["notes"] = dg.MetadataValue.text("; ".join(notes))
    return shown | table_asset.plotted(_known_totals(book))


def _known_totals(book: Book) -> dict[str, float | None]:
    """Return the totals of currencies that leave nothing out."""
    numbers: dict[str, float | None] = {}
    for total in book.totals:
        if total.account is not None:
            continue
        for label, name in PLOTS.items():
            if name not in total.unknown:
                numbers[f"{label} {total.currency}"] = getattr(total, name)

    return numbers


_SUMS = {column.heading: column for column in SUMS}
_MONEY = [_SUMS[heading] for heading in ("value", "unreal", "daily", "legs", "oldest")]
_RISK = [_SUMS[heading] for heading in ("$delta", "$gamma 1%", "theta", "vega", "expiry")]


def aligned_table(columns: Iterable[Column], rows: Sequence[Row]) -> dg.TableMetadataValue:
    """Return a table of texts for the UI, its figures aligned to the right; pure.

    The UI aligns each cell to the left, in letters of one width: no-break spaces fill the cells.
    """
    texts: dict[str, list[str]] = {}
    for column in columns:
        cells = column.cells(rows)
        if not column.left:
            widest = max(map(len, cells), default=0)
            cells = [cell.rjust(widest).replace(" ", "\u00a0") for cell in cells]
        texts[column.heading] = cells

    cells_of_rows = zip(*texts.values(), strict=True)
    named_rows = [dict(zip(texts, cells, strict=True)) for cells in cells_of_rows]
    return table_asset.table_of(named_rows)


# What each column of exposures is made of, beside the legs and their holdings: columns of the
# ledger, or of another table; without an entry, the column of the same name.
_MADE_OF = {
    "asset_class": "sec_type", "notional": "market_value", "nearest_expiry": "expiry",
    "dollar_delta": "delta underlying_price", "gamma_1pct": "gamma underlying_price",
    "legs_without_value": "market_value", "legs_without_greeks": "delta gamma vega theta",
    "oldest_value_at": "value_time timestamp",
    "short_legs_in_money": "active_strategies.strike underlying_price",
    "short_legs_unknown": "underlying_price", "mismatches": "contracts.conid",
    "options": "right", "options_with_greeks": "delta", "options_modelled": "greeks_source",
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

    def make() -> tuple[tuple[Book, pl.DataFrame], pl.DataFrame]:
        book = read_book(lake, settings, now)
        sums = exposure.exposures(book.split, newest_version(book.priced) or None)
        return (book, sums), sums

    (book, sums), result = derived.derive_whole(table, make, run_id=run_id)
    metadata = (
        money_metadata(book)
        | _counts_of_legs(sums)
        | table_asset.replaced_whole(result, book.priced)
    )
    for column, label in (("mismatches", "mismatches"), ("differences", "quantities")):
        for strategy, text in sums.select("strategy_id", column).drop_nulls().iter_rows():
            metadata[f"{label}/{strategy}"] = text
    return Derived(metadata=metadata, checks=strategies.evaluated_limits(settings, book))


def _counts_of_legs(sums: pl.DataFrame) -> dict[str, str]:
    """Return the counts of strategies and of their legs, and of what is in none."""
    is_in_none = pl.col.strategy_id == UNATTRIBUTED
    unattributed = sums.filter(is_in_none)
    of_strategies = sums.filter(~is_in_none)
    return table_asset.counted(
        strategies=of_strategies["strategy_id"].n_unique(),
        legs=of_strategies["legs"].sum(),
        legs_held=of_strategies["legs_held"].sum(),
        unattributed=unattributed["legs"].sum(),
        without_value=of_strategies["legs_without_value"].sum(),
        without_greeks=of_strategies["legs_without_greeks"].sum(),
    )
