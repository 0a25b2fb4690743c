"""Strategies proposed from the tables, made active when they are accepted, and named in a line."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

import polars as pl

from position_sync_dagster.domain.holding import BrokerPosition
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

# The proposal of a larger book is of the underlyings alone in which something was opened: each
# holding takes some 2 ms.
MOST_HELD = 1000

# Of more kinds than these the number alone is said.
MOST_KINDS = 3

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
    movements = [
        movement
        for movement in (lake.movements.records(None, one_of("conid", conids)) if keys else ())
        if movement.key in keys
    ]

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
    legs = []
    for strategy in strategies:
        for part in strategy.legs:
            leg = leg_of(
                part.instrument,
                strategy.name,
                now,
                account=strategy.account,
                quantity=part.quantity,
            )
            legs.append(leg)

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
    underlyings = min(len(symbols), sum(login.most_underlyings for login in settings.logins))
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
    """Return how many structures no strategy has, as `propose` lists them, if some are new."""
    changes = lake.position_changes.rows(minute - NEW, columns=CHANGE)
    has_grown = pl.col("after").abs() > pl.col("before").abs()
    has_turned = pl.col("after") * pl.col("before") < 0
    opened = changes.filter(has_grown | has_turned)
    if opened.is_empty():
        return None

    opened_keys = set(opened.select("account", "conid").iter_rows())
    is_large = all_broker_rows(lake, settings).height > MOST_HELD
    underlyings = {*opened["symbol"]} if is_large else None
    proposed = read_proposal(lake, settings, underlyings=underlyings).strategies
    new_kinds: Counter[str] = Counter()
    for strategy in proposed:
        keys = {(strategy.account, leg.conid) for leg in strategy.legs}
        if strategy.kind != SINGLE and not opened_keys.isdisjoint(keys):
            new_kinds[f"{strategy.underlying} {strategy.kind}"] += 1
    if not new_kinds:
        return None

    counted = []
    for kind, count in new_kinds.items():
        ending = "s" if count > 1 else ""
        counted.append(f"{count} {kind}{ending}")
    new = f"{new_kinds.total()} structures"
    if len(counted) <= MOST_KINDS:
        new = ", ".join(counted)
    text = f"{new} {'is' if new_kinds.total() == 1 else 'are'} in no strategy"
    if new_kinds.total() < len(proposed):
        least = "at least " if is_large else ""
        text = f"{least}{len(proposed)} structures are in no strategy, of which new: {new}"
    return f"{text}: `position-sync strategies propose`."
