"""The list of positions: their newest rows, with ages and strategies."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract, contract_mismatch
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.lake import Lake, all_broker_rows, rows_of_logins
from position_sync_dagster.lake.schema.codec import updates_of
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.confirmations import (
    CONFIRMED,
    newest_values,
    with_confirmed,
)
from position_sync_dagster.sync.reports.money import Ages

_ORDER = ("account", "symbol", "expiry", "strike", "conid")
"""The order of the positions; those without an expiry come last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionList:
    """Positions for the terminal.

    Attributes:
        rows: The newest row of each position, in the order of account and contract.
        ages: When the sources of these rows last confirmed their values.
        strategies_of: The strategies of each holding that is in one.
        total: The number of all positions, shown or not.
    """

    rows: tuple[PositionUpdate, ...]
    ages: Ages
    strategies_of: Mapping[Key, list[str]]
    total: int


def read_positions(
    lake: Lake,
    settings: Settings,
    now: datetime,
    *,
    strategy: str | None = None,
    closed: bool = False,
    limit: int | None = None,
) -> PositionList:
    """Read the newest rows of positions, at most `limit`; blocks.

    Args:
        strategy: Return only the legs of this strategy.
        closed: Return closed positions too.
        limit: Maximum number of positions to return.

    Raises:
        LakeError: A table cannot be used.
    """
    legs = lake.registry.sync.get_all_active()
    broker = all_broker_rows(lake, settings)
    found = newest_values(rows_of_logins(lake.updates.sync.latest(), settings), broker)
    if not closed:
        found = found.filter(pl.col("position") != 0)
    if strategy is not None:
        of_strategy = [leg for leg in legs if leg.strategy_id == strategy]
        found = found.filter(_is_leg(_matching(lake, of_strategy)))
    ordered = found.sort(
        *(pl.col(name).fill_null(0.0) if name == "strike" else name for name in _ORDER),
        nulls_last=True,
    )
    shown = ordered if limit is None else ordered.head(limit)
    rows = tuple(updates_of(shown))
    conids = {row.conid for row in rows}
    matching = _matching(lake, [leg for leg in legs if leg.conid in conids])
    held = shown.filter(pl.col("position") != 0)
    confirmed = with_confirmed(held, broker, now)
    times = confirmed.select("account", "conid", CONFIRMED).iter_rows()
    return PositionList(
        rows=rows,
        ages=Ages(now=now, confirmed={(account, conid): at for account, conid, at in times}),
        strategies_of=strategies_by_holding(rows, matching),
        total=ordered.height,
    )


def matching_legs(
    legs: Iterable[ActiveContract], details: Mapping[int, ContractDetails]
) -> list[ActiveContract]:
    """Return the legs without those that do not match the contract of their conid."""
    return [
        leg
        for leg in legs
        if leg.conid not in details or not contract_mismatch(leg, details[leg.conid])
    ]


def _matching(lake: Lake, legs: Collection[ActiveContract]) -> list[ActiveContract]:
    return matching_legs(legs, lake.contracts.sync.get({leg.conid for leg in legs}))


def strategies_by_holding(
    rows: Iterable[PositionUpdate], legs: Iterable[ActiveContract]
) -> dict[Key, list[str]]:
    """Return the strategies of each holding that has any, sorted by name."""
    by_conid: dict[int, list[ActiveContract]] = defaultdict(list)
    for leg in legs:
        by_conid[leg.conid].append(leg)
    found: dict[Key, list[str]] = {}
    for row in rows:
        of_conid = by_conid.get(row.conid, ())
        names = {leg.strategy_id for leg in of_conid if leg.account in (None, row.account)}
        if names:
            found[row.account, row.conid] = sorted(names)
    return found


def _is_leg(legs: Iterable[ActiveContract]) -> pl.Expr:
    """Return the condition that a row is of one of these legs."""
    anywhere, named = set(), defaultdict(set)
    for leg in legs:
        if leg.account is None:
            anywhere.add(leg.conid)
        else:
            named[leg.account].add(leg.conid)
    wanted = pl.col("conid").is_in(anywhere)
    for account, conids in named.items():
        wanted |= (pl.col("account") == account) & pl.col("conid").is_in(conids)
    return wanted
