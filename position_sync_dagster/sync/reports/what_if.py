"""The holdings of a book as scenarios need them, with what the tables know of their contracts."""

from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from position_sync_dagster.lake.lake import Lake
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
    kept = ("account", "currency", "scenario", "spot", "vol", "days", "value", "profit", "left_out")
    return [
        {name: row[name] for name in kept}
        | {
            "made_at": now,
            "date": now.date(),
            "strategy_id": row["strategy"],
            "largest_loss": own.largest_losses.get((row["scenario"], row["strategy"])),
            "run_id": run_id,
        }
        for row in legs.rows(points, Breakdown.STRATEGY)
    ]
