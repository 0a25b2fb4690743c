"""The trading days of an exchange as partitions: each is there from its close on."""

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

from position_sync_dagster.sync.reports.exchange_days import ExchangeDays, exchange_days

if TYPE_CHECKING:
    from position_sync_dagster.settings import Settings

METADATA_KEY = "position_sync/exchange_days"
"""The key under which a code location passes the days to the runs that it starts."""

YEARS_AHEAD = 2
"""How many years ahead holidays are looked up: a code location may run that long."""


class KnownDays(NamedTuple):
    """The days of an exchange, and the first of them that is a partition."""

    exchange: ExchangeDays
    first: date


def known_days(settings: "Settings") -> KnownDays:
    """Return the days of the exchange that the settings name.

    To look up the holidays takes as long as a third of starting a run, and the first day is to be
    the same in all processes. So the code location does it once, and each run that it starts takes
    over the result. A reload of the code location looks again.

    Raises:
        SettingsError: The exchange is not known.
    """
    context = DefinitionsLoadContext.get()
    if context.load_type is DefinitionsLoadType.RECONSTRUCTION:
        stored = context.reconstruction_metadata.get(METADATA_KEY)
        if stored is not None:
            first, text = json.loads(stored)
            days = ExchangeDays.from_text(text)
            if days.calendar == settings.calendar:
                return KnownDays(days, date.fromisoformat(first))
    start = _first_day(settings)
    last = date(datetime.now(UTC).year + YEARS_AHEAD, 12, 31)
    days = exchange_days(settings.calendar, start, last)
    context.add_to_pending_reconstruction_metadata(
        METADATA_KEY, json.dumps([start.isoformat(), days.to_text()])
    )
    return KnownDays(days, start)


def exchange_partitions(days: ExchangeDays, first: date) -> dg.TimeWindowPartitionsDefinition:
    """Return one partition per trading day, which begins when the day can be recorded.

    The window of a day is the time from its close to the next one, so that Dagster offers the
    day from its close on and not before. Weekends are no windows of their own: with them as
    exclusions Dagster would offer Monday from Saturday on.
    """
    at = days.settled_at
    return dg.TimeWindowPartitionsDefinition(
        start=first.isoformat(),
        fmt="%Y-%m-%d",
        timezone=days.timezone,
        cron_schedule=f"{at.minute} {at.hour} * * 1-5",
        end_offset=1,
        exclusions=days.settled_holidays(),
    )


def _first_day(settings: "Settings") -> date:
    """Return the setting, or the first day of the ledger or of a statement; else today."""
    if settings.daily_start:
        return date.fromisoformat(settings.daily_start)
    from position_sync_dagster.lake.updates.ledger_files import first_ledger_day

    found = [first_ledger_day(settings.table("position_updates"))]
    if settings.flex_folder.is_dir():
        # Few have statements, and the imports of their reader delay each first load.
        from position_sync_dagster.sync.history.statement_folder import StatementFolder

        found.append(StatementFolder(settings.flex_folder).first_day())
    return min((day for day in found if day is not None), default=datetime.now(UTC).date())
