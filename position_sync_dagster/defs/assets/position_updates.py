"""The asset `position_updates`: the ledger of values; materializing it drains the queue."""

import asyncio
import time
from collections.abc import Iterator

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs import runs
from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.strategy_exposure import seldom
from position_sync_dagster.defs.checks.evaluation import TIME_LIMIT_S, evaluated
from position_sync_dagster.defs.checks.ledger import observe_breaks
from position_sync_dagster.defs.libraries import refresh, tables
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES
from position_sync_dagster.sync.run_recorder import BatchReport, DrainReport

DRAIN_POOL = "drain"
"""One run at a time may have this step: a drain that a person launches waits for the running one
(`concurrency.pools` in `dagster.yaml`)."""

CHECKS_FIRST_S, LOOK_AGAIN_S = 2.0, 1.0
"""After evaluating checks for the first of these times, a drain looks for new requests, and then
at intervals of the second. It ends if there are any: no other drain begins before it has ended."""

MAX_BATCHES = 50
"""Maximum number of batches shown with a run; the rows name every batch."""


@table_asset.table_asset(
    POSITION_UPDATES,
    deps=["position_queue", "active_strategies", "broker_positions", "contracts"],
    job=runs.STREAM_JOB,
    pool=DRAIN_POOL,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def position_updates(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> Iterator[dg.MaterializeResult[None]]:
    """The ledger: every value of every position, streamed or drained, and what reports are made of.

    Written by the job stream_positions, with one commit a second, and by drain_positions,
    with one commit a batch of requests. Materializing drains the queue.

    How to read it: rows are only appended; the newest row of a holding is its value. source is
    STREAM or QUEUE; run_id, session_id, batch_id and request_id name the writer. An
    unknown value is null, never zero.

    Events: each row is counted in exactly one of them, as stream/rows or as drain/rows. The
    stream observes once a minute, and materializes when its state changes and each quarter of an
    hour; each drain materializes.

    Live: [the money page](/money) shows these figures as they move, second by second.
    """
    lake = position_sync.lake
    with dagster_internals.captured_interrupts() as is_interrupted:
        report = asyncio.run(
            refresh.drain(
                lake, position_sync.settings, run_id=context.run.run_id, stop=is_interrupted
            )
        )
        result = ended(context, lake, report)
        interrupted = is_interrupted()
    # Also after an interrupt or an error, the event names all rows that were written.
    yield result
    if interrupted:
        raise dg.DagsterExecutionInterruptedError
    if report.error is not None:
        raise report.error
    # The checks are not planned: while a planned one waits for its step, Dagster shows no result.
    if context.job_name == runs.DRAIN_JOB:
        run_id, look_at = context.run.run_id, time.monotonic() + CHECKS_FIRST_S
        for event in evaluated(
            lake,
            position_sync.settings,
            context.instance,
            run_id=run_id,
            time_limit_s=TIME_LIMIT_S - report.duration_s,
        ):
            context.log_event(event)
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + LOOK_AGAIN_S
            if requests_came(lake, report):
                context.log.info("Requests wait: refresh_derived evaluates the other checks.")
                break
        with lake.looked_at_once():
            context.log_event(observe_breaks(lake))


def ended(
    context: dg.AssetExecutionContext, lake: "tables.Lake", report: DrainReport
) -> dg.MaterializeResult[None]:
    """Tag the run of a drain for the sensor, and return the event of the drain."""
    version = lake.updates.table.version() if report.version_to is None else report.version_to
    context.log.info(
        f"{report.claimed} requests claimed, {report.rows} rows in {report.duration_s:.1f} s"
    )
    if report.reason:
        context.log.warning(report.reason)
    if report.released:
        context.instance.add_run_tags(context.run.run_id, {runs.RELEASED: str(report.released)})
    if context.job_name == runs.DRAIN_JOB and report.error is None:
        context.instance.add_run_tags(context.run.run_id, {runs.DRAINED: "true"})
    return dg.MaterializeResult(
        metadata=drain_metadata(report, version), data_version=dg.DataVersion(str(version))
    )


def requests_came(lake: "tables.Lake", report: DrainReport) -> bool:
    """Return whether more requests wait now than a drain left."""
    left = report.pending_after
    return left is not None and lake.queue.sync.overview().counts[QueueStatus.PENDING] > left


def drain_metadata(report: DrainReport, version: int) -> "dict[str, dg.RawMetadataValue]":
    """Return the numbers of a drain, which the UI plots, and a table of its first batches."""
    waits = [b.oldest_wait_s for b in report.batches if b.oldest_wait_s is not None]
    drained = table_asset.known(
        rows=report.rows,
        batches=len(report.batches),
        commits=report.commits,
        claimed=report.claimed,
        succeeded=report.succeeded,
        unchanged=report.unchanged,
        pending_after=report.pending_after,
        oldest_wait_s=max(waits, default=None),
        duration_s=report.duration_s,
        **seldom(failed=report.failed, released=report.released, rescued=report.rescued),
    )
    return (
        {f"drain/{name}": value for name, value in drained.items()}
        | table_asset.known(
            delta_version=version,
            delta_version_from=report.version_from,
            queue_version=report.queue_version,
            event=f"Drained: {report.rows} rows in {len(report.batches)} batches",
            first_batch_id=report.first_batch_id,
            last_batch_id=report.last_batch_id,
            note=report.reason or "",
        )
        | {"batch_table": table_asset.event_table(report.batches[:MAX_BATCHES], _BATCHES)}
    )


_BATCHES: table_asset.Columns[BatchReport] = {
    **table_asset.attributes("batch_id", "claimed", "succeeded", "failed", "released", "rows"),
    "delta_version": lambda one: -1 if one.version_to is None else one.version_to,
    "oldest_wait_s": lambda one: round(one.oldest_wait_s or 0.0, 3),
    "duration_s": lambda one: round(one.duration_s, 3),
    "note": lambda one: one.reason or "",
}
