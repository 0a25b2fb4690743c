"""The profit and loss of each strategy over the last hours, from the ledger."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.updates.ledger import SyncUpdates
from position_sync_dagster.sync.reports.exposure import exposures
from position_sync_dagster.sync.reports.money import add

SPAN = timedelta(hours=12)
"""A day of trading with the hours around it."""

POINTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfitLine:
    """The daily profit and loss of a strategy in one currency; None where it is not known."""

    strategy_id: str
    currency: str
    points: tuple[tuple[datetime, float | None], ...]


def profit_lines(
    updates: SyncUpdates, legs: Iterable[ActiveContract], now: datetime
) -> list[ProfitLine]:
    """Read the daily profit and loss of the strategies over the last SPAN; blocks.

    Today's legs count for the whole span: a leg that was made active at noon is in the morning's
    points as well.
    """
    legs = [leg for leg in legs if leg.removed_at is None]
    rows = updates.sampled({leg.conid for leg in legs}, now - SPAN, now, POINTS)
    return lines_of(rows, legs)


def lines_of(rows: pl.DataFrame, legs: list[ActiveContract]) -> list[ProfitLine]:
    """Sum the newest rows at each point by the shares that `exposures` gives to strategies."""
    found: dict[tuple[str, str], list[tuple[datetime, float | None]]] = defaultdict(list)
    newest: dict[tuple[str, int], PositionUpdate] = {}
    for part in rows.partition_by("slot", maintain_order=True):
        slot: datetime = part.item(0, "slot")
        newest |= {
            (row["account"], row["conid"]): _update(row) for row in part.iter_rows(named=True)
        }
        sums: dict[tuple[str, str], list[float | None]] = defaultdict(list)
        for one in exposures(legs, newest.values()):
            if one.currency is not None:
                sums[one.strategy_id, one.currency].append(one.daily_pnl)
        for key, values in sums.items():
            found[key].append((slot, add(values)))
    return [
        ProfitLine(strategy_id=strategy, currency=currency, points=tuple(points))
        for (strategy, currency), points in sorted(found.items())
    ]


def _update(row: dict[str, Any]) -> PositionUpdate:
    return PositionUpdate(
        conid=row["conid"],
        symbol=row["symbol"],
        right=None,
        position=row["position"],
        market_price=None,
        market_value=None,
        average_cost=None,
        unrealized_pnl=row["unrealized_pnl"],
        daily_pnl=row["daily_pnl"],
        timestamp=row["timestamp"],
        account=row["account"],
        sec_type=row["sec_type"],
        currency=row["currency"],
    )
