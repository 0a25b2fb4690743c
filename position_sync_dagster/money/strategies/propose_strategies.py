"""Strategies proposed from the tables, made active when they are accepted, and named in a line."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

import polars as pl

from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.leg import few
from position_sync_dagster.lake.lake import all_broker_rows
from position_sync_dagster.lake.schema import broker_positions_of, one_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.strategies.proposals import (
    SINGLE,
    Proposal,
    ProposedStrategy,
    propose,
)
from position_sync_dagster.money.strategies.rules import leg_of
from position_sync_dagster.money.strategies.strategies_file import RuledFile
from position_sync_dagster.settings import Settings

OPTIONS = ("OPT", "FOP")
CHANGE = ("account", "conid", "symbol", "before", "after")

# A holding that was opened within this time, and that no strategy has, is named in a line.
NEW = timedelta(days=1)

# The most structures that the line names.
MOST_NAMED = 3

FIRST_STEP = (
    "No strategy is active, so nothing is streamed: `position-sync strategies propose` shows the "
    "strategies that the holdings look like, and `--accept all` makes them active."
)


def held(lake: MoneyLake, settings: Settings, *only: pl.Expr) -> list[BrokerPosition]:
    """Return what the logins hold, with multipliers that lead to the major unit of the currency.

    Args:
        only: Conditions for the rows of `broker_positions`.
    """
    rows = all_broker_rows(lake, settings).filter(pl.col("position") != 0, *only)
    quoted_in_cents = lake.contracts.quoted_in_cents()
    holdings = []
    for holding in broker_positions_of(rows):
        instrument = holding.instrument
        details = quoted_in_cents.get(instrument.conid)
        if details is not None:
            multiplier = instrument.multiplier / details.price_magnifier
            holding = replace(holding, instrument=replace(instrument, multiplier=multiplier))
        holdings.append(holding)
    return holdings


def read_proposal(
    lake: MoneyLake,
    settings: Settings,
    account: str | None = None,
    underlyings: Collection[str] | None = None,
) -> Proposal:
    """Return the strategies that the holdings look like and that are not active; blocks.

    Args:
        account: Only what this account holds.
        underlyings: Only contracts of these symbols.

    Raises:
        LakeError: A table cannot be used.
    """
    conditions: list[pl.Expr] = []
    if account is not None:
        conditions.append(pl.col("account") == account)
    if underlyings is not None:
        conditions.append(pl.col("symbol").is_in(underlyings))
    holdings = held(lake, settings, *conditions)

    keys = {holding.key for holding in holdings}
    conids = {conid for _account, conid in keys}
    recorded = lake.movements.records(None, one_of("conid", conids))
    movements = [movement for movement in recorded if movement.key in keys]

    registry = lake.registry.sync
    legs = registry.get_all_active()
    names = {leg.strategy_id for leg in (*legs, *registry.unresolved)}
    return propose(holdings, movements, legs, names=names)


def accept(
    lake: MoneyLake, settings: Settings, strategies: Sequence[ProposedStrategy], now: datetime
) -> None:
    """Add proposed strategies to the strategies file if there is one, and to the registry.

    Raises:
        StrategiesFileError: The file cannot be written, or has a mistake.
        LakeError: The table cannot be used.
    """
    legs = [
        leg_of(
            part.instrument, strategy.name, now, account=strategy.account, quantity=part.quantity
        )
        for strategy in strategies
        for part in strategy.legs
    ]
    if settings.strategies_file is not None:
        RuledFile(settings.strategies_file).add(legs)
    lake.registry.sync.add_many(legs)


def cost_in_lines(
    lake: MoneyLake, settings: Settings, strategies: Collection[ProposedStrategy]
) -> str | None:
    """Return what it costs in market data lines to make strategies active; None: nothing.

    Raises:
        LakeError: A table cannot be used.
    """
    holdings = held(lake, settings)
    conids = {holding.instrument.conid for holding in holdings}
    active = conids & {leg.conid for leg in lake.registry.legs}
    proposed = {leg.conid for strategy in strategies for leg in strategy.legs}
    if proposed <= active:
        return None

    options = [holding.instrument for holding in holdings if holding.instrument.right is not None]
    symbols = {option.symbol for option in options}
    budget = sum(login.max_lines - login.reserved_lines for login in settings.logins)
    most = sum(login.most_underlyings for login in settings.logins)
    underlyings = min(len(symbols), most)
    wanted = len(active | proposed)
    without = max(0, wanted + underlyings - budget)
    return (
        f"Market data lines: {budget}, of which up to {underlyings} are for underlyings. Active "
        f"legs that want one: {len(active)} now, {wanted} with these strategies. Legs that will "
        f"have none, so that the queue values them: {without}."
    )


def next_step(lake: MoneyLake, settings: Settings, now: datetime) -> str | None:
    """Return what to do about holdings that are in no strategy; None if there is nothing to do.

    Without any strategy that is the first step of a new user; otherwise the structures that were
    opened within a day and that no strategy has. Those are looked for again when a holding or a
    strategy has changed, and each minute: a live status asks every second.

    Raises:
        LakeError: A table cannot be used.
    """
    if not lake.registry.legs and not lake.registry.unresolved:
        is_option = pl.col("sec_type").is_in(OPTIONS)
        if held(lake, settings, is_option):
            return FIRST_STEP
        return None

    versions = (lake.registry.table.version(), lake.position_changes.table.version())
    return _in_no_strategy(lake, settings, now.replace(second=0, microsecond=0), versions)


@lru_cache(maxsize=2)
def _in_no_strategy(
    lake: MoneyLake, settings: Settings, minute: datetime, _versions: tuple[int, ...]
) -> str | None:
    """Return which structures are new and in no strategy; None without any."""
    changes = lake.position_changes.rows(minute - NEW, columns=CHANGE)
    has_grown = pl.col("after").abs() > pl.col("before").abs()
    has_turned = pl.col("after") * pl.col("before") < 0
    opened = changes.filter(has_grown | has_turned)
    if opened.is_empty():
        return None

    opened_keys = set(opened.select("account", "conid").iter_rows())
    proposed = read_proposal(lake, settings, underlyings={*opened["symbol"]}).strategies
    structures = [strategy for strategy in proposed if strategy.kind != SINGLE]
    new = [
        f"{structure.underlying} {structure.kind}"
        for structure in structures
        if any((structure.account, leg.conid) in opened_keys for leg in structure.legs)
    ]
    if not new:
        return None
    return f"New, and in no strategy: {few(new, MOST_NAMED)}: `position-sync strategies propose`."
