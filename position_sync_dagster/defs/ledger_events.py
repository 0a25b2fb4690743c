"""The reporter: Dagster is told what the ledger has, from the version that it was last told of.

Each row is counted in exactly one event, as one of `rows`. The version is read from the newest
event, since Dagster stores the events of a tick one by one and then its cursor: a crash in between
repeats nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.domain.update import Source
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES
from position_sync_dagster.lake.updates.position_updates import AddedBatches
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.counts import DrainReport

LEDGER = dg.AssetKey(POSITION_UPDATES.name)

LOOKED_AT = 20
"""Number of newest events in which the last reported version is looked for: those of runs, which
report no rows, may be between."""

THROUGH = "delta_version"
SINCE = "delta_version_from"


class Span(NamedTuple):
    """Rows of the ledger that no event has yet: those after the version `since`."""

    since: int
    added: AddedBatches


def unreported(lake: tables.Lake, instance: dg.DagsterInstance, cursor: int | None) -> Span:
    """Return what was added to the ledger since the newest event of a report.

    If the ledger has only older versions, as after a loss of power or in a new folder, what is
    added from now on counts.

    Args:
        lake: The tables.
        instance: The Dagster instance with the events.
        cursor: The version that the last tick reported; None at the first tick.
    """
    events = [*instance.fetch_materializations(LEDGER, limit=LOOKED_AT).records]
    if cursor is None:  # earlier releases reported rows of the stream by observations as well
        events += instance.fetch_observations(LEDGER, limit=LOOKED_AT).records
    found = [version for event in events if (version := _reported(event)) is not None]
    since = cursor or 0
    if found:
        since = max(found) if cursor is None else found[0]
    added = lake.updates.sync.count_after(since)
    return Span(min(since, added.version), added)


def _reported(record: dg.EventLogRecord) -> int | None:
    """Return the version through which an event reports rows; None if it reports none."""
    seen = record.asset_materialization or record.event_log_entry.asset_observation
    metadata = seen.metadata if seen is not None else {}
    if SINCE not in metadata or THROUGH not in metadata:
        return None
    version = metadata[THROUGH].value
    return version if isinstance(version, int) else None


def materialization(span: Span, report: DrainReport) -> dg.AssetMaterialization:
    """Return the event of the rows of a span, also of a span without rows.

    Args:
        span: The rows.
        report: The drain of the same tick, for how long its requests waited.
    """
    rows, batches = span.added.rows, span.added.batches
    drained, streamed = rows.get(Source.QUEUE, 0), rows.get(Source.STREAM, 0)
    waits = [one.oldest_wait_s for one in report.batches if one.oldest_wait_s is not None]
    through = span.added.version
    metadata = table_asset.known(
        rows=sum(rows.values()),
        rows_drained=drained,
        rows_streamed=streamed,
        batches=sum(batches.values()),
        oldest_wait_s=round(max(waits), 1) if waits else None,
        failed=report.failed or None,
        released=report.released or None,
        **{SINCE: span.since, THROUGH: through},
        note=report.reason,
    )
    return table_asset.runless(POSITION_UPDATES.name, metadata)


def gateway_states(lake: tables.Lake, settings: Settings, now: datetime) -> dict[str, str]:
    """Return the state of each login: that of its session while its lease lasts, else "OFFLINE"."""
    names = [login.gateway_id for login in settings.logins]
    sessions = lake.sessions.current_of(names)
    return {
        name: str(sessions[name].state)
        if name in sessions and sessions[name].is_alive(now)
        else "OFFLINE"
        for name in names
    }


def gateway_event(
    lake: tables.Lake, settings: Settings, states: dict[str, str]
) -> dg.AssetMaterialization:
    """Return the event of the gateway: the state of each login, its lines, and why."""
    sessions = lake.sessions.current_of(states)
    metadata: dict[str, dg.RawMetadataValue] = {}
    for name, state in states.items():
        prefix = f"{name}/" if len(states) > 1 else ""
        session = sessions.get(name)
        numbers = table_asset.known(
            state=state,
            gateway=name,
            lines_in_use=session.lines_in_use if session else None,
            line_limit=session.line_limit if session else None,
            note=session.detail if session else None,
        )
        metadata |= {f"{prefix}{key}": value for key, value in numbers.items()}
    return table_asset.runless(table_asset.GATEWAY, metadata)


PAGE, SEARCHED = 1000, 50_000
"""Number of events that `events_with` reads at once, and in all: the newest ones."""


def events_with(home: Path, versions: Sequence[int]) -> list[str]:
    """Return the events of a Dagster home that report the rows of these versions, as lines."""
    wanted, found, cursor = set(versions), list[str](), None
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for _page in range(SEARCHED // PAGE):
            page = instance.fetch_materializations(LEDGER, limit=PAGE, cursor=cursor)
            for record in page.records:
                through, since = _reported(record), _since(record)
                if through is None or not any(since < one <= through for one in wanted):
                    continue
                at = datetime.fromtimestamp(record.timestamp, UTC)
                found.append(
                    f"{record.storage_id} at {at:%Y-%m-%d %H:%M:%S} UTC: versions {since} to "
                    f"{through}"
                )
                wanted = {one for one in wanted if not since < one <= through}
            if not wanted or not page.has_more:
                break
            cursor = page.cursor
    return found


def _since(record: dg.EventLogRecord) -> int:
    seen = record.asset_materialization
    value = seen.metadata[SINCE].value if seen is not None and SINCE in seen.metadata else 0
    return value if isinstance(value, int) else 0
