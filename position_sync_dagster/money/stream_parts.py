"""What money adds to a stream: causes of closes, rolls, rules of legs, and computed greeks.

What its gateway says is counted beside (`processes/heard/daily.py`).
"""

from dataclasses import replace
from functools import partial

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.risk.model_greeks import ModelGreeks
from position_sync_dagster.money.strategies.leg_followers import RollFollower, RuleFollower
from position_sync_dagster.processes.heard.daily import with_counts
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import time_zone_of
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.router import StreamTables


def with_money(
    tables: StreamTables, lake: MoneyLake, settings: Settings, own: Ownership
) -> StreamTables:
    """Return the parts of a stream with those of money.

    Example:
        await stream(lake, settings, stop=stop, complete=with_money)
    """
    file = settings.strategies_file
    time_zone_of(settings.calendar)  # loads calendars for a second, and no message waits yet
    run_id = own.session.run_id
    parts = with_counts(tables, lake, settings, own)
    return replace(
        parts,
        followers=(
            *parts.followers,
            CloseExplainer(lake, run_id=run_id),
            RollFollower(lake, settings),  # after the causes of closes
        ),
        rules=None if file is None else RuleFollower(lake.registry, file, calendar=lake.calendar),
        greeks=partial(ModelGreeks, dividends=lake.dividends),
    )
