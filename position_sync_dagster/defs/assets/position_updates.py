"""The asset `position_updates`: the ledger of values; materializing it drains the queue."""

import asyncio
from collections.abc import Mapping

import dagster as dg

from position_sync_dagster.defs.assets.money_metadata import seldom
from position_sync_dagster.defs.assets.table_asset import POSITIONS, data_version, table_asset
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import RELEASED
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES
from position_sync_dagster.sync.run_reports import BatchReport, DrainReport, StreamReport

MAX_BATCHES = 50
"""Batches shown with a run; the rows themselves name every batch."""


@table_asset(
    POSITION_UPDATES,
    group=POSITIONS,
    deps=["position_queue"],
    description="Every value of every position, streamed or drained: the ledger that all else is "
    "derived from. Materializing drains the queue.",
)
@dagster_failures
def position_updates(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Value the queue's requests in batches until it is empty or the time is up."""
    from position_sync_dagster.sync.drain.run import drain

    lake = position_sync.lake
    report = asyncio.run(drain(lake, position_sync.settings, run_id=context.run.run_id))
    version = report.version_to
    if version is None:
        version = lake.updates.table.version()
    if report.reason:
        context.log.warning(report.reason)
    if report.released:
        context.instance.add_run_tags(context.run.run_id, {RELEASED: str(report.released)})
    return dg.MaterializeResult(
        metadata=drain_metadata(report, version), data_version=data_version(version)
    )


def drain_metadata(report: DrainReport, version: int | None) -> dict[str, dg.MetadataValue]:
    """Return the numbers of a drain, which the UI plots, and a bounded table of its batches."""
    waits = [b.oldest_wait_s for b in report.batches if b.oldest_wait_s is not None]
    numbers: dict[str, float | int | None] = {
        "drain/rows": report.rows,
        "drain/batches": len(report.batches),
        "drain/commits": sum(batch.rows > 0 for batch in report.batches),
        "drain/claimed": report.claimed,
        "drain/succeeded": report.succeeded,
        "drain/unchanged": report.unchanged,
        "drain/pending_after": report.pending_after,
        "drain/oldest_wait_s": max(waits, default=None),
        "drain/duration_s": report.duration_s,
        "delta_version": version,
        "delta_version_from": report.version_from,
        "queue_version": report.queue_version,
        **seldom(
            **{
                "drain/failed": report.failed,
                "drain/released": report.released,
                "drain/rescued": report.rescued,
            }
        ),
    }
    metadata = _values(numbers)
    metadata["batch_table"] = dg.MetadataValue.table(
        [_batch_record(b) for b in report.batches[:MAX_BATCHES]],
        schema=_BATCH_SCHEMA,
    )
    texts = {
        "event": f"Drained: {report.rows} rows in {len(report.batches)} batches",
        "first_batch_id": report.first_batch_id,
        "last_batch_id": report.last_batch_id,
        "note": report.reason or "",
    }
    return metadata | _texts(texts)


def stream_metadata(report: StreamReport) -> dict[str, dg.MetadataValue]:
    """Return the numbers of the stream's report; those of drains have other names.

    What seldom happens is left out when it did not, so that no plot is always zero.
    """
    numbers: dict[str, float | int | None] = {
        "stream/rows": report.rows,
        "stream/commits": report.commits,
        "stream/lines_in_use": report.lines_in_use,
        "stream/legs_streamed": report.legs_streamed,
        "stream/tick_to_table_p50_s": report.tick_to_table_p50_s,
        "stream/tick_to_table_p95_s": report.tick_to_table_p95_s,
        "delta_version": report.version_to,
        "delta_version_from": report.version_from,
        **seldom(
            **{
                "stream/reconnects": report.reconnects,
                "stream/promotions": report.promotions,
                "stream/demotions": report.demotions,
            }
        ),
    }
    texts = {
        "event": f"Streamed: {report.rows} rows in {report.commits} commits",
        "first_batch_id": report.first_batch_id,
        "last_batch_id": report.last_batch_id,
        "line_limit": str(report.line_limit),
        "state": str(report.state),
        "note": report.detail,
    }
    return _values(numbers) | _texts(texts)


def _values(numbers: Mapping[str, float | int | None]) -> dict[str, dg.MetadataValue]:
    return {
        name: dg.MetadataValue.int(value)
        if isinstance(value, int)
        else dg.MetadataValue.float(value)
        for name, value in numbers.items()
        if value is not None
    }


def _texts(texts: Mapping[str, str | None]) -> dict[str, dg.MetadataValue]:
    return {name: dg.MetadataValue.text(text) for name, text in texts.items() if text is not None}


_BATCH_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("batch_id", "string"),
        *(dg.TableColumn(n, "int") for n in ("claimed", "succeeded", "failed", "released", "rows")),
        dg.TableColumn("delta_version", "int"),
        dg.TableColumn("oldest_wait_s", "float"),
        dg.TableColumn("duration_s", "float"),
        dg.TableColumn("note", "string"),
    ]
)


def _batch_record(batch: BatchReport) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "batch_id": batch.batch_id,
            "claimed": batch.claimed,
            "succeeded": batch.succeeded,
            "failed": batch.failed,
            "released": batch.released,
            "rows": batch.rows,
            "delta_version": batch.version if batch.version is not None else -1,
            "oldest_wait_s": round(batch.oldest_wait_s or 0.0, 3),
            "duration_s": round(batch.duration_s, 3),
            "note": batch.reason or "",
        }
    )
