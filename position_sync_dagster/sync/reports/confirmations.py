"""Until when the sources of the newest rows have confirmed their values."""

from collections.abc import Iterable
from datetime import datetime

from position_sync_dagster.domain.pricing.confirmation import confirmed_time
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings


def confirmed_times(
    rows: Iterable[PositionUpdate], lake: Lake, settings: Settings, now: datetime
) -> dict[Key, datetime | None]:
    """Return for each row, by account and conid, when its source last confirmed its value.

    A row is not written again while its value stays the same. So the age of a value is that of
    this confirmation, and not that of the row.

    Raises:
        LakeError: The table `broker_positions` cannot be used.
    """
    holdings = {h.key: h for h in lake.broker_positions.sync.read(settings.gateway_id)}
    return {
        (row.account, row.conid): confirmed_time(row, holdings.get((row.account, row.conid)), now)
        for row in rows
    }
