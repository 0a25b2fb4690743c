"""Sessions of the past, without the commits of their owners."""

from dataclasses import replace
from datetime import timedelta

import polars as pl

from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.codec import new_part, session_rows
from position_sync_dagster.lake.sessions import PAST
from position_sync_dagster.lake.storage.table import append


def add_past_sessions(lake: Lake, like: GatewaySession, count: int) -> None:
    """Add sessions that ended, each a moment newer than the one before, the first than `like`."""
    past = [
        replace(
            like,
            session_id=f"past-{number}",
            started_at=like.started_at + timedelta(milliseconds=number + 1),
            state=SessionState.ENDED,
        )
        for number in range(count)
    ]
    rows = session_rows(past).with_columns(
        bucket=pl.lit(PAST), part=pl.lit(new_part(like.started_at))
    )
    lake.sessions.table.transact(lambda handle: append(handle, rows, {}))
