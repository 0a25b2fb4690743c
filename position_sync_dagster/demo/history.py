"""The demo's past: statements of its last sessions, of which the newer half is recorded."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from position_sync_dagster.processes import dagster_dev
from position_sync_dagster.settings import Settings

SESSIONS = 10
"""How many past sessions have a statement."""

RECORDED = 5
"""How many of them, the newest, are in daily_positions from the start; the others wait for the
person who tries a backfill."""


def prepare(settings: Settings) -> None:
    """Write the statements of the last sessions into the folder of the settings."""
    from position_sync_dagster.simulator.books.loader import load_book
    from position_sync_dagster.simulator.statements import write_statements

    days = past_sessions(settings.calendar, datetime.now(UTC))
    write_statements(load_book("demo"), days, settings.flex_folder)


def record(settings: Settings, ui_port: int) -> None:
    """Launch the runs that import the statements and record the newest of the sessions.

    Raises:
        OSError, ValueError: Dagster's UI does not answer or refuses.
    """
    days = past_sessions(settings.calendar, datetime.now(UTC))[-RECORDED:]
    dagster_dev.launch(ui_port, "import_statements", {})
    dagster_dev.launch(
        ui_port,
        "close_day",
        {
            "dagster/asset_partition_range_start": days[0].isoformat(),
            "dagster/asset_partition_range_end": days[-1].isoformat(),
        },
    )


def past_sessions(calendar: str, now: datetime, count: int = SESSIONS) -> list[date]:
    """Return the last trading days that are over, oldest first."""
    from position_sync_dagster.sync.reports.exchange_days import exchange_days

    first = now.date() - timedelta(days=count * 3)
    exchange = exchange_days(calendar, first, now.date() + timedelta(days=1))
    local = now.astimezone(ZoneInfo(exchange.timezone))
    ends = local.date() if local.time() < exchange.settled_at else local.date() + timedelta(days=1)
    span = (first + timedelta(days=n) for n in range((ends - first).days))
    return [day for day in span if exchange.is_trading_day(day)][-count:]
