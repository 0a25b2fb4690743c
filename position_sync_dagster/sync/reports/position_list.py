"""The list of positions: their newest rows, with ages and strategies."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract, contract_mismatch
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.lake import Lake, all_broker_rows, rows_of_logins
from position_sync_dagster.lake.schema.codec import updates_of
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.confirmations import PRICED, newest_values, with_priced
from position_sync_dagster.sync.reports.money import Ages
from position_sync_dagster.sync.reports.past import NO_HOLDINGS, Past, legs_at, rows_at

_ORDER = ("account", "symbol", "expiry", "strike", "conid")
"""The order of the positions; those without an expiry come last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionList:
    """Positions for the terminal.

    Attributes:
        rows: The newest row of each position, in the order of account and contract.
        ages: How old their prices and greeks are.
        strategies_of: The strategies of each holding that is in one.
        total: The number of all positions, shown or not.
    """

    rows: tuple[PositionUpdate, ...]
    ages: Ages
    strategies_of: Mapping[Key, list[str]]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionQuery:
    """Which positions to read, and in which order.

    Attributes:
        strategy: Only the legs of this strategy.
        underlying: Only contracts on this symbol, in upper or lower case.
        expiring: Only contracts that expire within this time, or have expired.
        sort: A name of `SORTED_BY`, the smallest first; with "-" before it the greatest first. What
            is unknown comes last. By default they are in the order of account and contract.
        limit: Maximum number of positions.
        past: Instead of the newest rows, those of a moment.
    """

    strategy: str | None = None
    underlying: str | None = None
    expiring: timedelta | None = None
    sort: str | None = None
    limit: int | None = None
    past: Past | None = None


_SIZE = pl.col("position") * pl.col("multiplier")
_AGES = {"age": PRICED, "greeks": "greeks_time"}
SORTED_BY: dict[str, pl.Expr] = {
    "account": pl.col("account"),
    "conid": pl.col("conid"),
    "leg": pl.col("symbol"),
    "qty": pl.col("position"),
    "price": pl.col("market_price"),
    "value": pl.col("market_value"),
    "unreal": pl.col("unrealized_pnl"),
    "daily": pl.col("daily_pnl"),
    **{name: pl.col(name) * _SIZE for name in ("delta", "gamma", "theta", "vega")},
    "currency": pl.col("currency"),
    "strategy": pl.col("strategy"),
    "by": pl.col("source"),
    "source": pl.coalesce("price_kind", "value_source"),
    **{name: -pl.col(at).to_physical() for name, at in _AGES.items()},
}
"""What positions may be sorted by: the headings of the columns in a terminal."""


def read_positions(
    lake: Lake, settings: Settings, now: datetime, query: PositionQuery
) -> PositionList:
    """Read the newest rows of the positions that are asked for; blocks.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The tables do not know the moment that is asked for.
    """
    strategy = query.strategy
    if query.past is None:
        legs = lake.registry.sync.get_all_active()
        broker = all_broker_rows(lake, settings)
        found = newest_values(rows_of_logins(lake.updates.sync.latest(), settings), broker)
    else:
        found, broker = rows_at(lake, settings, query.past, now), NO_HOLDINGS
        legs, now = legs_at(lake, query.past.at), query.past.at
    if query.underlying is not None:
        found = found.filter(pl.col("symbol").str.to_uppercase() == query.underlying.upper())
    if query.expiring is not None:
        found = found.filter(pl.col("expiry") <= (now + query.expiring).date())
    found = found.filter(pl.col("position") != 0)
    if strategy is not None:
        found = found.filter(is_leg_of(lake, strategy, legs))
    ordered = found.sort(
        *(pl.col(name).fill_null(0.0) if name == "strike" else name for name in _ORDER),
        nulls_last=True,
    )
    ordered = with_priced(ordered, broker, now, band=settings.value_band)
    if query.sort is not None:
        ordered = _sorted(ordered, query.sort, _matching(lake, legs))
    shown = ordered if query.limit is None else ordered.head(query.limit)
    rows = tuple(updates_of(shown))
    conids = {row.conid for row in rows}
    matching = _matching(lake, [leg for leg in legs if leg.conid in conids])
    return PositionList(
        rows=rows,
        ages=Ages.of(shown, now),
        strategies_of=strategies_by_holding(rows, matching),
        total=ordered.height,
    )


def _sorted(rows: pl.DataFrame, by: str, legs: Iterable[ActiveContract]) -> pl.DataFrame:
    """Return rows by a column; rows that are equal in it keep their order."""
    name = by.removeprefix("-")
    if name == "strategy":
        of = _names(rows.select("account", "conid").iter_rows(), legs)
        keys = rows.select("account", "conid").iter_rows()
        rows = rows.with_columns(
            strategy=pl.Series([",".join(of.get(k, ())) or None for k in keys])
        )
    order = SORTED_BY[name].alias("_order")
    return (
        rows.with_columns(order)
        .sort("_order", descending=by.startswith("-"), nulls_last=True, maintain_order=True)
        .drop("_order", "strategy", strict=False)
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
    return matching_legs(legs, lake.contracts.get({leg.conid for leg in legs}))


def strategies_by_holding(
    rows: Iterable[PositionUpdate], legs: Iterable[ActiveContract]
) -> dict[Key, list[str]]:
    """Return the strategies of each holding that has any, sorted by name."""
    return _names(((row.account, row.conid) for row in rows), legs)


def _names(keys: Iterable[Key], legs: Iterable[ActiveContract]) -> dict[Key, list[str]]:
    by_conid: dict[int, list[ActiveContract]] = defaultdict(list)
    for leg in legs:
        by_conid[leg.conid].append(leg)
    found: dict[Key, list[str]] = {}
    for account, conid in keys:
        of_conid = by_conid.get(conid, ())
        names = {leg.strategy_id for leg in of_conid if leg.account in (None, account)}
        if names:
            found[account, conid] = sorted(names)
    return found


def is_leg_of(lake: Lake, strategy: str, legs: Iterable[ActiveContract]) -> pl.Expr:
    """Return the condition that a row is of one of these legs that is in a strategy."""
    anywhere, named = set(), defaultdict(set)
    for leg in _matching(lake, [leg for leg in legs if leg.strategy_id == strategy]):
        if leg.account is None:
            anywhere.add(leg.conid)
        else:
            named[leg.account].add(leg.conid)
    wanted = pl.col("conid").is_in(anywhere)
    for account, conids in named.items():
        wanted |= (pl.col("account") == account) & pl.col("conid").is_in(conids)
    return wanted
