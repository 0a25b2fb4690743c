"""Risk, from the tables: a book ready for scenarios, and their recorded results."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from polars import col

from position_sync_dagster.domain.instrument import OPTION_TYPES, contract_name
from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.book import Book, read_book
from position_sync_dagster.money.risk.priced_legs import EVERY_PART, Assumptions, Choice, PricedLegs
from position_sync_dagster.money.risk.scenario_file import (
    OwnScenarios,
    folder_of,
    read_scenarios,
)
from position_sync_dagster.money.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.money.risk.terms import dated_dividends
from position_sync_dagster.settings import Settings


def read_risk(
    lake: MoneyLake, settings: Settings, now: datetime
) -> tuple[Book, OwnScenarios, PricedLegs]:
    """Read the holdings, the file of scenarios, and the parts ready for scenarios; blocks.

    Raises:
        LakeError: A table cannot be used.
        ScenariosFileError: The file of scenarios has a mistake.
    """
    scenarios = read_scenarios(folder_of(settings.strategies_file))
    book = read_book(lake, settings, now)
    return book, scenarios, price_legs(lake, settings, book, scenarios)


def price_legs(
    lake: MoneyLake,
    settings: Settings,
    book: Book,
    scenarios: OwnScenarios,
    choice: Choice = EVERY_PART,
) -> PricedLegs:
    """Return the parts of the holdings of a book, ready for scenarios; blocks.

    Args:
        choice: The only parts that are priced.

    Raises:
        LakeError: A table cannot be used.
    """
    rows = lake.dividends.current()
    symbols = {row.conid: row.symbol for row in rows}
    dividends = {symbols[conid]: paid for conid, paid in dated_dividends(rows).items()}

    is_option = col.sec_type.is_in(list(OPTION_TYPES))
    conids = {*book.split.parts.filter(is_option)["conid"]}
    contracts = book.claims.contracts
    details = {conid: contracts[conid] for conid in conids & contracts.keys()}
    without_leg = conids - details.keys()
    if without_leg:
        details |= lake.contracts.get(without_leg)
    given = Assumptions(
        now=book.now,
        details=details,
        rates=dict(settings.interest_rates),
        dividends=dividends,
        betas=scenarios.betas,
        calendar=book.calendar,
    )
    return PricedLegs.of(book.split.parts, given, choice)


def leg_notes(book: Book) -> dict[str, list[str]]:
    """Return what is wrong with the legs of each strategy: another quantity, or nothing held."""
    notes = defaultdict[str, list[str]](list)
    is_absent = ~col.is_held & col.mismatch.is_null()
    is_wrong = col.difference.is_not_null() | is_absent
    in_strategies = book.split.legs.filter(col.strategy_id != UNATTRIBUTED, is_wrong)
    rows = in_strategies.select("strategy_id", "difference", "leg", "closed").iter_rows()
    for strategy, difference, number, end in rows:
        absent = difference or f"{contract_name(book.legs[number])}: {end or 'not held'}"
        notes[strategy].append(absent)
    return notes


def risk_rows(
    legs: PricedLegs, scenarios: OwnScenarios, run_id: str | None = None
) -> list[dict[str, Any]]:
    """Return what `risk_scenarios` records of each strategy and each recorded scenario."""
    now = legs.given.now
    largest_losses = {point.name: point.largest_loss for point in scenarios.recorded}
    made = {"made_at": now, "date": now.date(), "run_id": run_id}
    rows = []
    for result in scenario_rows(legs, scenarios.recorded, Breakdown.STRATEGY):
        strategy = result["strategy"]
        largest_loss = largest_losses[result["scenario"]].get(strategy)
        rows.append(result | made | {"strategy_id": strategy, "largest_loss": largest_loss})
    return rows
