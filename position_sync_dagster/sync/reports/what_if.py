"""The holdings of a book as scenarios need them, with what the tables know of their contracts."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.risk.scenarios import Assumptions, Breakdown, PricedLegs
from position_sync_dagster.risk.scenarios_file import OwnScenarios, folder_of, read_scenarios
from position_sync_dagster.risk.terms import OPTION_TYPES, dated_dividends
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import Book


def read_assumptions(
    lake: Lake, settings: Settings, book: Book, betas: Mapping[str, float] | None = None
) -> Assumptions:
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
        betas=betas or {},
    )


def read_own_scenarios(settings: Settings) -> OwnScenarios:
    """Read the file of scenarios.

    Raises:
        ScenariosFileError: It has a mistake.
    """
    return read_scenarios(folder_of(settings.strategies_file))


def risk_rows(
    legs: PricedLegs, own: OwnScenarios, run_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the rows of `risk_scenarios` for each strategy and each recorded scenario."""
    points, now = own.recorded, legs.given.now
    return [
        {
            "made_at": now,
            "date": now.date(),
            "strategy_id": row["strategy"],
            "account": row["account"],
            "currency": row["currency"],
            "scenario": row["scenario"],
            "spot": row["spot"],
            "vol": row["vol"],
            "days": row["days"],
            "value": row["value"],
            "profit": row["profit"],
            "left_out": row["left_out"],
            "largest_loss": own.largest_losses.get((row["scenario"], row["strategy"])),
            "run_id": run_id,
        }
        for row in legs.rows(points, Breakdown.STRATEGY)
    ]


def priced_legs(given: Assumptions, book: Book, strategy: str | None = None) -> PricedLegs:
    """Return the parts of all holdings, or of one strategy, ready for scenarios."""
    parts = book.split.parts
    if strategy is not None:
        parts = parts.filter(pl.col("strategy_id") == strategy)
    return PricedLegs(parts, given)
