"""What a reader sees of a row: whether another row would tell anything new; pure."""

from operator import attrgetter

from position_sync_dagster.domain.update import PositionUpdate

VALUES = (
    "position",
    "market_price",
    "market_value",
    "average_cost",
    "unrealized_pnl",
    "realized_pnl",
    "daily_pnl",
    "price_kind",
    "value_source",
    "bid",
    "ask",
    "implied_vol",
    "delta",
    "gamma",
    "vega",
    "theta",
    "underlying_price",
    "market_data_type",
    "note",
)
"""The columns whose change makes a row worth writing; times, sizes and ids are none of them."""

_TERMS = (
    "symbol",
    "sec_type",
    "right",
    "strike",
    "expiry",
    "multiplier",
    "currency",
    "trading_class",
    "local_symbol",
    "gateway_id",
)

values_of = attrgetter(*VALUES)
"""Returns what readers see of the value of a row."""

_content_of = attrgetter(*VALUES, *_TERMS)


def says_the_same(row: PositionUpdate, known: PositionUpdate) -> bool:
    """Return whether a row would tell readers nothing that the known row of its holding does not.

    Which path wrote the newest row of a holding shows how the holding is valued now. So a row of
    another path is new, except that of a close.
    """
    if row.position and row.source is not known.source:
        return False
    return bool(_content_of(row) == _content_of(known))
