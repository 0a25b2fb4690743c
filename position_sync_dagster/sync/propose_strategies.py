"""Strategies proposed from the tables, made active when they are accepted, and named in a line."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.proposals import Proposal, ProposedStrategy, propose
from position_sync_dagster.domain.statement import current_executions
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.lake.registry.strategies_file import add_to_file
from position_sync_dagster.lake.schema.codec import broker_positions_of
from position_sync_dagster.settings import Settings

NEW = timedelta(days=1)
"""A holding that was opened within this time, and that no strategy has, is named in a line."""

FIRST_STEP = (
    "No strategy is active, so nothing is streamed: `position-sync strategies propose` shows the "
    "strategies that the holdings look like, and `--accept all` makes them active."
)


def held(lake: Lake, settings: Settings) -> list[BrokerPosition]:
    """Return what the logins hold, with multipliers that lead to the major unit of the currency."""
    cents = lake.contracts.quoted_in_cents()
    return [
        one
        if (quoted := cents.get(one.instrument.conid)) is None
        else replace(
            one,
            instrument=replace(
                one.instrument, multiplier=one.instrument.multiplier / quoted.price_magnifier
            ),
        )
        for one in broker_positions_of(
            all_broker_rows(lake, settings).filter(pl.col("position") != 0)
        )
    ]


def read_proposal(
    lake: Lake, settings: Settings, account: str | None = None, underlying: str | None = None
) -> Proposal:
    """Return the strategies that the holdings look like and that are not active; blocks.

    Args:
        account: Only what this account holds.
        underlying: Only contracts of this symbol.

    Raises:
        LakeError: A table cannot be used.
    """
    holdings = [
        one
        for one in held(lake, settings)
        if account in (None, one.account) and underlying in (None, one.instrument.symbol)
    ]
    keys = {one.key for one in holdings}
    trades = (one for one in lake.executions.records() if (one.account, one.conid) in keys)
    registry = lake.registry.sync
    legs = registry.get_all_active()
    names = {leg.strategy_id for leg in (*legs, *registry.unresolved)}
    return propose(holdings, current_executions(trades), legs, names=names)


def legs_of_proposed(strategies: Iterable[ProposedStrategy], now: datetime) -> list[ActiveContract]:
    """Return the legs of proposed strategies, each with its account and quantity."""
    return [
        ActiveContract(
            conid=part.conid,
            symbol=part.instrument.symbol,
            right=part.instrument.right,
            strike=part.instrument.strike,
            expiry=part.instrument.expiry,
            strategy_id=one.name,
            added_at=now,
            quantity=part.quantity,
            account=one.account,
        )
        for one in strategies
        for part in one.legs
    ]


def accept(
    lake: Lake, settings: Settings, strategies: Sequence[ProposedStrategy], now: datetime
) -> None:
    """Add proposed strategies to the strategies file if there is one, and to the registry.

    Raises:
        StrategiesFileError: The file cannot be written, or has a mistake.
        LakeError: The table cannot be used.
    """
    legs = legs_of_proposed(strategies, now)
    if settings.strategies_file is not None:
        add_to_file(settings.strategies_file, legs)
    lake.registry.sync.add_many(legs)


def next_step(lake: Lake, settings: Settings, now: datetime) -> str | None:
    """Return what to do about holdings that are in no strategy; None if there is nothing to do.

    Without any strategy that is the first step of a new user; otherwise the structures that were
    opened within a day and that no strategy has.

    Raises:
        LakeError: A table cannot be used.
    """
    registry = lake.registry.sync
    registry.refresh()
    if not registry.legs and not registry.unresolved:
        return FIRST_STEP
    opened = {
        change.key
        for change in lake.position_changes.records(now - NEW)
        if abs(change.after) > abs(change.before) or change.after * change.before < 0
    }
    return unclaimed_line(read_proposal(lake, settings), opened) if opened else None


def unclaimed_line(proposal: Proposal, opened: set[Key]) -> str | None:
    """Return a line about the proposed strategies that have a contract which was opened; pure."""
    new = Counter(
        (one.underlying, str(one.kind))
        for one in proposal.strategies
        if any((one.account, part.conid) in opened for part in one.legs)
    )
    if not new:
        return None
    named = [f"{count} {symbol} {kind}{'s' * (count > 1)}" for (symbol, kind), count in new.items()]
    verb = "is" if sum(new.values()) == 1 else "are"
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    what = ", ".join(named[:3])
    return f"{what}{more} {verb} in no strategy: `position-sync strategies propose`."
