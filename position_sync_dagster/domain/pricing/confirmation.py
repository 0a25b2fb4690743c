"""When the source of a row last confirmed its value; pure."""

from datetime import datetime

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.update import PositionUpdate, ValueOrigin

BROKER = (ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE)
"""The origins of values that the broker calculates."""


def confirmed_time(
    row: PositionUpdate, holding: BrokerPosition | None, now: datetime
) -> datetime | None:
    """Return the newest time at which its source is known to have confirmed a row's value.

    A row of market data is as old as it says. A row of the account feed may have been written long
    after the broker sent its value, and is not written again while the value stays the same: the
    time of the value counts, and each later time at which the broker confirmed the holding while
    it had the same value. Where neither is known, the value is at least as old as the row. A row
    that says that there is no value is as old as it says, or confirmed in the same way.

    Args:
        holding: What the broker reports of the holding; None where that is not known.

    Returns:
        None if the only time is one that a wrong clock wrote: the age is unknown.
    """
    times: list[datetime | None] = []
    no_value = row.value_source is ValueOrigin.NONE and row.market_value is None
    if row.position and (no_value or row.value_source in BROKER):
        times = [row.timestamp if no_value else row.value_time]
        if holding is not None and _agree(row, holding):
            times += [holding.confirmed_at, holding.value_time]
            if holding.value_source is ValueOrigin.PNL_SINGLE:
                times.append(holding.received_at)
    known = [at for at in times if at is not None and at <= now + SKEW]
    at = max(known, default=row.timestamp)
    return at if at <= now + SKEW else None


def _agree(row: PositionUpdate, holding: BrokerPosition) -> bool:
    return (row.position, row.market_price, row.market_value) == (
        holding.position,
        holding.market_price,
        holding.market_value,
    )
