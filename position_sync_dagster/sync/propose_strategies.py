"""Strategies proposed from the tables, made active when they are accepted, and named in a line."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.domain.closes import current_executions
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.leg import few, leg_of
from position_sync_dagster.domain.proposals import Proposal, ProposedStrategy, propose
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.lake.schema import broker_positions_of, one_of
from position_sync_dagster.lake.strategies_file import StrategiesFile
from position_sync_dagster.settings import Settings

OPTIONS = ("OPT", "FOP")
CHANGE = ("account", "conid", "symbol", "before", "after")

# A holding that was opened within this time, and that no strategy has, is named in a line.
NEW = timedelta(days=1)

FIRST_STEP = (
    "No strategy is active, so nothing is streamed: `position-sync strategies propose` shows the "
    "strategies that the holdings look like, and `--accept all` makes them active."
)


def held(lake: Lake, settings: Settings, *only: pl.Expr) -> list[BrokerPosition]:
    """Return what the logins hold, with multipliers that lead to the major unit of the currency.

    Args:
        only: Conditions for the rows of `broker_positions`.
    """
    rows = all_broker_rows(lake, settings).filter(pl.col("position") != 0, *only)
    cents = {conid: one.price_magnifier for conid, one in lake.contracts.quoted_in_cents().items()}
    found = []
    for one in broker_positions_of(rows):
        terms = one.instrument
        if magnifier := cents.get(terms.conid):
            terms = replace(terms, multiplier=terms.multiplier / magnifier)
        found.append(replace(one, instrument=terms))
    return found


def read_proposal(
    lake: Lake,
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
    only = [] if account is None else [pl.col("account") == account]
    only += [] if underlyings is None else [pl.col("symbol").is_in(underlyings)]
    holdings = held(lake, settings, *only)
    keys = {one.key for one in holdings}
    conids = {conid for _account, conid in keys}
    trades = lake.executions.records(None, one_of("conid", conids)) if keys else []
    trades = [one for one in trades if (one.account, one.conid) in keys]
    registry = lake.registry.sync
    legs = registry.get_all_active()
    names = {leg.strategy_id for leg in (*legs, *registry.unresolved)}
    return propose(holdings, current_executions(trades), legs, names=names)


def accept(
    lake: Lake, settings: Settings, strategies: Sequence[ProposedStrategy], now: datetime
) -> None:
    """Add proposed strategies to the strategies file if there is one, and to the registry.

    Raises:
        StrategiesFileError: The file cannot be written, or has a mistake.
        LakeError: The table cannot be used.
    """
    legs = [
        leg_of(part.instrument, one.name, now, account=one.account, quantity=part.quantity)
        for one in strategies
        for part in one.legs
    ]
    if settings.strategies_file is not None:
        StrategiesFile(settings.strategies_file).add(legs)
    lake.registry.sync.add_many(legs)


def next_step(lake: Lake, settings: Settings, now: datetime) -> str | None:
    """Return what to do about holdings that are in no strategy; None if there is nothing to do.

    Without any strategy that is the first step of a new user; otherwise the structures that were
    opened within a day and that no strategy has.

    Raises:
        LakeError: A table cannot be used.
    """
    if not lake.registry.legs and not lake.registry.unresolved:
        return FIRST_STEP if held(lake, settings, pl.col("sec_type").is_in(OPTIONS)) else None
    changes = lake.position_changes.rows(now - NEW, columns=CHANGE)
    opened = changes.filter(
        (pl.col("after").abs() > pl.col("before").abs()) | (pl.col("after") * pl.col("before") < 0)
    )
    if opened.is_empty():
        return None
    keys = set(opened.select("account", "conid").iter_rows())
    new = Counter(
        f"{one.underlying} {one.kind}"
        for one in read_proposal(lake, settings, underlyings={*opened["symbol"]}).strategies
        if any((one.account, part.conid) in keys for part in one.legs)
    )
    if not new:
        return None
    named = few((f"{count} {what}{'s' * (count > 1)}" for what, count in new.items()), 3)
    verb = "is" if new.total() == 1 else "are"
    return f"{named} {verb} in no strategy: `position-sync strategies propose`."
