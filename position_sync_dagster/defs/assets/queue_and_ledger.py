"""The assets on the way of a value to its row: strategies, queue and ledger."""

import asyncio
import logging

from position_sync_dagster.defs.assets.table_asset import (
    QUARTER_HOURLY,
    STREAM,
    Derived,
    derived_asset,
    known,
    plotted,
)
from position_sync_dagster.domain.clock import seconds_since, utc_now
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import ACTIVE_STRATEGIES, POSITION_QUEUE, POSITION_UPDATES
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import drain
from position_sync_dagster.yaml_file import saved_state

logger = logging.getLogger(__name__)

# Maximum number of rolled legs that an event lists.
MOST_ROLLED = 50


@derived_asset(ACTIVE_STRATEGIES)
def active_strategies(lake: Lake, settings: Settings, _run_id: str | None) -> Derived:
    """The legs of active strategies: these are valued by market data lines.

    Written by position-sync strategies, the library, or the strategies file, which the sensor
    drain_queue applies when it is saved; materializing does the same.

    How to read it: a row is the membership of a leg in a strategy, from added_at until
    removed_at, which is null while the leg is active. A leg without an account is held in any.
    """
    apply_file(lake, settings)
    return strategies_state(lake, settings)


def apply_file(lake: Lake, settings: Settings) -> None:
    """Make the table equal to the strategies file, if there is one, as it was saved last.

    Fields that nothing reads are named in the log: one of them may be mistyped.

    A file that is saved anew while it is applied is applied again: another program may have applied
    the newer one in between, and this one undone it.

    Raises:
        StrategiesFileError: The file cannot be read or has a mistake; nothing was changed.
        InvalidLegError: A leg is impossible; nothing was changed.
    """
    path = settings.strategies_file
    applied = None
    while path is not None and applied != (saved := saved_state(path)):
        file = lake.strategies_file(path)
        file.apply(lake.registry.sync)
        applied = saved
        for unread in file.unread():
            logger.warning("%s", unread)


def strategies_state(lake: Lake, settings: Settings) -> Derived:
    """Return how many legs and strategies are active, and which took the place of a rolled leg."""
    legs = lake.registry.sync.get_all_active()
    version = str(lake.registry.sync.version)
    rolled = [
        f"{leg.strategy_id}: {contract_name(leg)} ({leg.conid}) in the place of {leg.rolled_from} "
        f"since {leg.added_at:%Y-%m-%d %H:%M} UTC"
        for leg in legs
        if leg.rolled_from
    ]
    metadata = {
        "dagster/row_count": len(legs),
        "strategies": len({leg.strategy_id for leg in legs}),
        "conids": len({leg.conid for leg in legs}),
        "delta_version": version,
        "strategies_file": str(settings.strategies_file or "none: the table rules"),
    }
    if rolled:
        metadata["rolled"] = "; ".join(rolled[:MOST_ROLLED])
    return Derived(metadata=metadata, version=version)


@derived_asset(
    POSITION_QUEUE,
    deps=["active_strategies", "broker_positions"],
    writer=STREAM,
    freshness_policy=QUARTER_HOURLY,
)
def position_queue(lake: Lake, settings: Settings, _run_id: str | None) -> Derived:
    """Requests to value a position without a market data line.

    Written by the stream, which inserts a request when a position changed, and by interval.
    Materializing inserts one for each open holding of broker_positions that is in no strategy, if
    its security type is one that is valued.

    How to read it: a request is PENDING, then PROCESSING under a lease, then SUCCESS or FAILED;
    error_message says why. position-sync queue list shows the same.
    """
    requests = asyncio.run(drain.enqueue_monitored(lake, settings))
    return Derived(metadata={"requests": len(requests), **queue_state(lake).metadata})


def queue_state(lake: Lake) -> Derived:
    """Return what an event of the queue says: how many requests wait, run and failed."""
    backlog = lake.queue.sync.overview()
    metadata = {
        status.lower(): backlog.counts[status]
        for status in (QueueStatus.PENDING, QueueStatus.PROCESSING, QueueStatus.FAILED)
    }
    plots = plotted({"oldest_pending_s": seconds_since(backlog.oldest_pending_at, utc_now())})
    return Derived(metadata={**metadata, "delta_version": str(backlog.version), **plots})


@derived_asset(
    POSITION_UPDATES,
    deps=["position_queue", "active_strategies", "broker_positions", "contracts"],
    freshness_policy=QUARTER_HOURLY,
)
def position_updates(lake: Lake, settings: Settings, run_id: str | None) -> Derived:
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
    report = asyncio.run(drain.drain(lake, settings, run_id=run_id))
    if report.error is not None:
        raise report.error
    metadata = known(
        claimed=report.claimed,
        succeeded=report.succeeded,
        failed=report.failed,
        released=report.released,
        pending_after=lake.queue.sync.counts()[QueueStatus.PENDING],
        note=report.reason,
    )
    return Derived(metadata=metadata)


WRITTEN_BY_TICKS = (active_strategies, position_queue, position_updates)
