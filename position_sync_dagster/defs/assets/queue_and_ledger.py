"""The assets on the way of a value to its row: strategies, queue and ledger."""

import asyncio
from collections.abc import Sequence

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import STREAM_JOB
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema import tables as specs
from position_sync_dagster.lake.strategies_file import follow_file
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import drain

# Maximum number of rolled legs that an event lists.
MOST_ROLLED = 50


@table_asset.table_asset(specs.ACTIVE_STRATEGIES)
def active_strategies(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """The legs of active strategies: these are valued by market data lines.

    Written by position-sync strategies, the library, or the strategies file, which the sensor
    drain_queue applies when it is saved; materializing does the same.

    How to read it: a row is the membership of a leg in a strategy, from added_at until
    removed_at, which is null while the leg is active. A leg without an account is held in any.
    """
    apply_file(position_sync.lake, position_sync.settings)
    found = strategies_event(position_sync.lake, position_sync.settings)
    version = position_sync.lake.registry.sync.version
    return dg.MaterializeResult(metadata=found.metadata, data_version=dg.DataVersion(str(version)))


def apply_file(lake: tables.Lake, settings: Settings) -> None:
    """Make the table equal to the strategies file, if there is one.

    Raises:
        StrategiesFileError: The file cannot be read or has a mistake; nothing was changed.
        InvalidLegError: A leg is impossible; nothing was changed.
    """
    path = settings.strategies_file
    if path is not None:
        follow_file(lake.registry.sync, path)


def strategies_event(lake: tables.Lake, settings: Settings) -> dg.AssetMaterialization:
    """Return the event of the table: how many legs and strategies are active, and which rolled."""
    registry = lake.registry.sync
    legs = registry.get_all_active()
    metadata: dict[str, dg.RawMetadataValue] = {
        "dagster/row_count": len(legs),
        "strategies": len({leg.strategy_id for leg in legs}),
        "conids": len({leg.conid for leg in legs}),
        "delta_version": str(registry.version),
        "strategies_file": str(settings.strategies_file or "none: the table rules"),
        **_rolled(legs),
    }
    return table_asset.runless(specs.ACTIVE_STRATEGIES.name, metadata, str(registry.version))


def _rolled(legs: Sequence[ActiveContract]) -> dict[str, dg.MetadataValue]:
    """Return the legs that took the place of others by rolls, one line each."""
    lines = [
        f"- {leg.strategy_id}: {contract_name(leg)} "
        f"({leg.conid}) in the place of {leg.rolled_from} since {leg.added_at:%Y-%m-%d %H:%M} UTC"
        for leg in legs
        if leg.rolled_from
    ]
    return {"rolled": dg.MetadataValue.md("\n".join(lines[:MOST_ROLLED]))} if lines else {}


@table_asset.table_asset(
    specs.POSITION_QUEUE,
    deps=["active_strategies", "broker_positions"],
    job=STREAM_JOB,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def position_queue(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Requests to value a position without a market data line.

    Written by the stream, which inserts a request when a position changed, and by interval.
    Materializing inserts one for each holding of broker_positions that is in no strategy.

    How to read it: a request is PENDING, then PROCESSING under a lease, then SUCCESS or FAILED;
    error_message says why. position-sync queue list shows the same.
    """
    lake, settings = position_sync.lake, position_sync.settings
    requests = asyncio.run(drain.enqueue_monitored(lake, settings))
    if not requests:
        context.log.warning(
            "Nothing is queued: broker_positions has no holding outside the strategies. The job "
            "stream_positions reads the holdings from the gateway."
        )
    found = queue_event(lake)
    return dg.MaterializeResult(
        metadata={"requests": len(requests), **found.metadata},
        data_version=dg.DataVersion(table_asset.FOLLOWED),
    )


def queue_event(lake: tables.Lake) -> dg.AssetMaterialization:
    """Return the event of the table: how many requests wait, and how many failed."""
    backlog = lake.queue.sync.overview()
    metadata: dict[str, dg.RawMetadataValue] = {
        "pending": backlog.counts[QueueStatus.PENDING],
        "processing": backlog.counts[QueueStatus.PROCESSING],
        "failed": backlog.counts[QueueStatus.FAILED],
        "delta_version": str(backlog.version),
    }
    return table_asset.runless(specs.POSITION_QUEUE.name, metadata)


@table_asset.table_asset(
    specs.POSITION_UPDATES,
    deps=["position_queue", "active_strategies", "broker_positions", "contracts"],
    job=STREAM_JOB,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def position_updates(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """The ledger: every value of every position, streamed or drained, and what reports are made of.

    Written by the job stream_positions, with one commit a second, and by the sensor drain_queue,
    with one commit a batch of requests. Materializing drains the queue as a tick does.

    How to read it: rows are only appended; the newest row of a holding is its value. source is
    STREAM or QUEUE; run_id, session_id, batch_id and request_id name the writer. An
    unknown value is null, never zero.

    Events: each row is counted in exactly one of them, as one of rows, whoever wrote it: drained
    rows at once, streamed ones once a minute. delta_version_from and delta_version are the versions
    around them. The event of a run has no rows; the next tick reports them.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    lake, run_id = position_sync.lake, context.run.run_id
    report = asyncio.run(drain.drain(lake, position_sync.settings, run_id=run_id))
    if report.error is not None:
        raise report.error
    return dg.MaterializeResult(
        metadata=table_asset.known(
            claimed=report.claimed,
            succeeded=report.succeeded,
            failed=report.failed,
            released=report.released,
            pending_after=lake.queue.sync.counts()[QueueStatus.PENDING],
            duration_s=round(report.duration_s, 2),
            note=report.reason,
        ),
        data_version=dg.DataVersion(table_asset.FOLLOWED),
    )
