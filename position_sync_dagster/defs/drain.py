"""The sensor `drain_queue`, whose tick drains the queue and reports what was written.

A tick is Dagster's unit of frequent work: it needs no run, and its process has the tables open.
"""

import time
from datetime import UTC, datetime
from typing import TypeVar

import dagster as dg

from position_sync_dagster import dagster_files
from position_sync_dagster.defs import resources
from position_sync_dagster.defs.composition import Composition, composition_of
from position_sync_dagster.defs.tick import TickCursor, Work
from position_sync_dagster.lake.lake import Lake

L = TypeVar("L", bound=Lake)


@resources.sensor(assets=dg.AssetSelection.tag(resources.WRITTEN_BY, resources.DRAIN_SENSOR))
def drain_queue(
    context: dg.SensorEvaluationContext, composition: Composition[L]
) -> dg.SensorResult:
    """Value the waiting requests, derive what follows from the rows, and report both.

    Each tick applies a changed strategies file, drains the queue for at most 20 s, derives
    latest_positions when rows came, writes the further tables that are due, and evaluates the
    checks that are due. What takes longer than a second is computed beside the ticks. The result
    has a materialization for what was written, and a skip reason with the numbers. Each part fails
    alone:
    the checks of a table that cannot be read become unknown, and the skip reason names it. Requests
    of a drain that failed have leases that expire; a later tick goes on.
    """
    began = time.monotonic()
    settings = composition.read_settings()
    opened = composition.opened(settings)
    work = Work(
        lake=opened.lake,
        driver=opened.driver,
        derived=composition.derived,
        imported=composition.extension.imported,
        keys=composition.keys,
        settings=settings,
        instance=composition.instance_of(context),
        now=datetime.now(UTC),
        cursor=resources.cursor_of(TickCursor, context.cursor),
    )
    events = work.tick(composition.extension.tick_parts)
    dagster_files.note_checks(work.failing)
    dagster_files.note(dagster_files.DURATION, f"{time.monotonic() - began:.3f}")

    if work.problems:
        dagster_files.note(dagster_files.FAILED_TICK, "; ".join(work.problems))
    else:
        dagster_files.note(dagster_files.SENSORS)

    return dg.SensorResult(
        asset_events=events,
        skip_reason="; ".join(work.said),
        cursor=resources.cursor_text(work.cursor),
    )


@dg.definitions
def draining(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Define the sensor."""
    return dg.Definitions(sensors=[drain_queue(composition_of(context, Lake))])
