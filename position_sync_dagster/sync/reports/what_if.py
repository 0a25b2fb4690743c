"""The holdings of a book as scenarios need them, with what the tables know of their contracts."""

import polars as pl

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.risk.scenarios import Assumptions, PricedLegs
from position_sync_dagster.risk.terms import OPTION_TYPES, dated_dividends
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.overview import Book


def read_assumptions(lake: Lake, settings: Settings, book: Book) -> Assumptions:
    """Read what the options of a book are priced with; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    is_option = pl.col("sec_type").is_in(list(OPTION_TYPES))
    conids = book.split.parts.filter(is_option).get_column("conid").unique()
    details: dict[int, ContractDetails] = lake.contracts.get(conids.to_list())
    rows = lake.dividends.current()
    symbols = {row.conid: row.symbol for row in rows}
    dividends = {symbols[conid]: paid for conid, paid in dated_dividends(rows).items()}
    return Assumptions(
        now=book.now,
        details=details,
        rates=dict(settings.interest_rates),
        dividends=dividends,
    )


def priced_legs(given: Assumptions, book: Book, strategy: str | None = None) -> PricedLegs:
    """Return the parts of all holdings, or of one strategy, ready for scenarios."""
    parts = book.split.parts
    if strategy is not None:
        parts = parts.filter(pl.col("strategy_id") == strategy)
    return PricedLegs(parts, given)
