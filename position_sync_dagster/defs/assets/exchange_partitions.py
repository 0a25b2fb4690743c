"""The exchange's days as partitions."""

from datetime import UTC, date, datetime

import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

from position_sync_dagster.sync.reports.exchange_days import ExchangeDays, exchange_days

METADATA_KEY = "position_sync/exchange_days"
"""Where a code location keeps the days for the runs that it starts."""

YEARS_AHEAD = 2
"""How long a code location may run before it has to know further holidays."""

WEEKENDS = "0 0 * * 6,0"


def known_days(calendar: str, first: date) -> ExchangeDays:
    """Give the days of an exchange from `first` on.

    Looking up the holidays takes as long as a third of starting a run. So the code location does
    it, and each run that it starts takes over what it found.

    Raises:
        SettingsError: The exchange is not known.
    """
    context = DefinitionsLoadContext.get()
    if context.load_type is DefinitionsLoadType.RECONSTRUCTION:
        kept = context.reconstruction_metadata.get(METADATA_KEY)
        if kept is not None:
            days = ExchangeDays.from_text(kept)
            if days.calendar == calendar:
                return days
    last = date(datetime.now(UTC).year + YEARS_AHEAD, 12, 31)
    days = exchange_days(calendar, first, last)
    context.add_to_pending_reconstruction_metadata(METADATA_KEY, days.to_text())
    return days


def exchange_partitions(days: ExchangeDays, start: str) -> dg.DailyPartitionsDefinition:
    """Give one partition per session, today's included: it must exist after today's close."""
    return dg.DailyPartitionsDefinition(
        start_date=start,
        timezone=days.timezone,
        end_offset=1,
        exclusions=[WEEKENDS, *days.midnights()],
    )
