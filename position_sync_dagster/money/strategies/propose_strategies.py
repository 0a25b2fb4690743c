"""Strategies proposed from the tables, and what it costs to make them active."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from polars import Expr, col

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import OPTION_TYPES
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake.lake import all_broker_rows
from position_sync_dagster.lake.schema import broker_positions_of, one_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.magnifiers import quoted_in_cents
from position_sync_dagster.money.strategies.proposals import ProposedStrategy, propose
from position_sync_dagster.money.strategies.rules import leg_of
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import day_of

FIRST_STEP = (
    "No strategy is active, so nothing is streamed: `position-sync strategies propose` shows the "
    "strategies that the holdings look like, and `--accept all` makes them active."
)


def held(lake: MoneyLake, settings: Settings, *only: Expr) -> list[BrokerPosition]:
    """Return what the logins hold, with multipliers that lead to the major unit of the currency.

    Args:
        only: Conditions for the rows of `broker_positions`.
    """
    rows = all_broker_rows(lake, settings).filter(col.position != 0, *only)
    in_cents = quoted_in_cents(lake.contracts)
    holdings = []
    for holding in broker_positions_of(rows):
        instrument = holding.instrument
        details = in_cents.get(instrument.conid)
        if details is not None:
            multiplier = instrument.multiplier / details.price_magnifier
            holding = replace(holding, instrument=replace(instrument, multiplier=multiplier))
        holdings.append(holding)
    return holdings


def read_proposal(
    lake: MoneyLake,
    settings: Settings,
    account: str | None = None,
    underlying: str | None = None,
) -> list[ProposedStrategy]:
    """Return the strategies that the holdings look like and that are not active; blocks.

    Args:
        account: Only what this account holds.
        underlying: Only contracts of this symbol, as written or in capitals.

    Raises:
        LakeError: A table cannot be used.
    """
    conditions: list[Expr] = []
    if account is not None:
        conditions.append(col.account == account)
    if underlying is not None:
        conditions.append(col.symbol.is_in([underlying, underlying.upper()]))
    holdings = held(lake, settings, *conditions)

    conids = {holding.instrument.conid for holding in holdings}

    registry = lake.registry.sync
    legs = registry.get_all_active()
    names = {leg.strategy_id for leg in (*legs, *registry.unresolved)}
    movements = lake.movements.records(None, one_of("conid", conids))
    today = day_of(settings.calendar, utc_now())
    return propose(holdings, movements, legs, names=names, today=today)


def legs_of(strategies: Iterable[ProposedStrategy], now: datetime) -> list[ActiveContract]:
    """Return the legs of proposed strategies, as the registry has them."""
    legs = []
    for strategy in strategies:
        for part in strategy.legs:
            more = {"account": strategy.account, "quantity": part.quantity}
            legs.append(leg_of(part.instrument, strategy.name, now, **more))
    return legs


def cost_in_lines(
    lake: MoneyLake, settings: Settings, legs: Iterable[ActiveContract]
) -> str | None:
    """Return what it costs in market data lines to make legs active; None: nothing.

    Raises:
        LakeError: A table cannot be used.
    """
    instruments = [holding.instrument for holding in held(lake, settings)]
    active = {leg.conid for leg in lake.registry.legs}
    active &= {instrument.conid for instrument in instruments}
    proposed = {leg.conid for leg in legs}
    if proposed <= active:
        return None

    symbols = {instrument.symbol for instrument in instruments if instrument.right is not None}
    budget = sum(login.max_lines - login.reserved_lines for login in settings.logins)
    underlyings = min(len(symbols), sum(login.most_underlyings for login in settings.logins))
    wanted = len(active | proposed)
    without = max(0, wanted + underlyings - budget)
    return (
        f"Market data lines: {budget}, of which up to {underlyings} are for underlyings. Active "
        f"legs that want one: {len(active)} now, {wanted} with these strategies. Legs that will "
        f"have none, so that the queue values them: {without}."
    )


def first_step(lake: MoneyLake, settings: Settings) -> str | None:
    """Return the first step of a new user, who holds options; None once there is a strategy.

    Raises:
        LakeError: A table cannot be used.
    """
    if lake.registry.legs or lake.registry.unresolved:
        return None
    if held(lake, settings, col.sec_type.is_in(list(OPTION_TYPES))):
        return FIRST_STEP
    return None
