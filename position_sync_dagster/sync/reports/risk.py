"""Risk, from the tables: a book ready for scenarios, and their recorded results."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl

from position_sync_dagster.domain.instrument import (
    contract_name,
)
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.risk.scenario_file import OwnScenarios, folder_of, read_scenarios
from position_sync_dagster.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.risk.terms import OPTION_TYPES, dated_dividends
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import Book, read_book


def read_risk(
    lake: Lake, settings: Settings, now: datetime
) -> tuple[Book, OwnScenarios, PricedLegs]:
    """Read the holdings, the file of scenarios, and the parts ready for scenarios; blocks.

    Raises:
        LakeError: A table cannot be used.
        ScenariosFileError: The file of scenarios has a mistake.
    """
    own = read_scenarios(folder_of(settings.strategies_file))
    book = read_book(lake, settings, now)
    given = replace(assumptions_of(lake, settings, book), betas=own.betas)
    return book, own, PricedLegs.of(book.split.parts, given)


def assumptions_of(lake: Lake, settings: Settings, book: Book) -> Assumptions:
    """Read what the options of a book are priced with, without betas; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    is_option = pl.col("sec_type").is_in(list(OPTION_TYPES))
    conids = book.split.parts.filter(is_option).get_column("conid").unique()
    rows = lake.dividends.current()
    symbols = {row.conid: row.symbol for row in rows}
    return Assumptions(
        now=book.now,
        details=lake.contracts.get(conids.to_list()),
        rates=dict(settings.interest_rates),
        dividends={symbols[conid]: paid for conid, paid in dated_dividends(rows).items()},
    )


def leg_notes(book: Book) -> dict[str, list[str]]:
    """Return what is wrong with the legs of each strategy: another quantity, or nothing held."""
    notes: dict[str, list[str]] = {}
    for row in book.split.legs.iter_rows(named=True):
        if row["strategy_id"] == UNATTRIBUTED:
            continue
        if row["difference"] is not None:
            notes.setdefault(row["strategy_id"], []).append(row["difference"])
        elif not row["is_held"] and row["mismatch"] is None:
            leg = contract_name(book.legs[row["leg"]])
            end = row["closed"] or "not held"
            notes.setdefault(row["strategy_id"], []).append(f"{leg}: {end}")
    return notes


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
        for row in scenario_rows(legs, points, Breakdown.STRATEGY)
    ]
