"""The trading days of an exchange as partitions."""

from datetime import UTC, date, datetime

import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

from position_sync_dagster.sync.reports.exchange_days import ExchangeDays, exchange_days

METADATA_KEY = "position_sync/exchange_days"
"""The key under which a code location passes the days to the runs that it starts."""

YEARS_AHEAD = 2
"""How many years ahead holidays are looked up: a code location may run that long."""

WEEKENDS = "0 0 * * 6,0"


def known_days(calendar: str, first: date) -> ExchangeDays:
    """Return the days of an exchange from `first` on.

    To look up the holidays takes as long as a third of starting a run. So the code location does
    it once, and each run that it starts takes over the result.

    Raises:
        SettingsError: The exchange is not known.
    """
    context = DefinitionsLoadContext.get()
    if context.load_type is DefinitionsLoadType.RECONSTRUCTION:
        stored = context.reconstruction_metadata.get(METADATA_KEY)
        if stored is not None:
            days = ExchangeDays.from_text(stored)
            if days.calendar == calendar:
                return days
    last = date(datetime.now(UTC).year + YEARS_AHEAD, 12, 31)
    days = exchange_days(calendar, first, last)
    context.add_to_pending_reconstruction_metadata(METADATA_KEY, days.to_text())
    return days


def exchange_partitions(days: ExchangeDays, start: str) -> dg.DailyPartitionsDefinition:
    """Return one partition per trading day. Today's is included: it is filled after the close."""
    return dg.DailyPartitionsDefinition(
        start_date=start,
        timezone=days.timezone,
        end_offset=1,
        exclusions=[WEEKENDS, *days.midnights()],
    )
