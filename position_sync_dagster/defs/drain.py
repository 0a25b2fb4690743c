"""The sensor `drain_queue`, whose tick drains the queue and reports what was written.

A tick is Dagster's unit of frequent work: it needs no run, and its process has the tables open.
"""

import time

import dagster as dg

from position_sync_dagster.dagster_files import (
    CHECKS,
    DURATION,
    FAILED_TICK,
    TICK_PARTS,
    WORKED_TICK,
    PartOfTicks,
    note,
    note_all,
)
from position_sync_dagster.defs.composition import Composition, composition_of
from position_sync_dagster.defs.resources import (
    DRAIN_SENSOR,
    WRITTEN_BY,
    cursor_of,
    cursor_text,
    sensor,
)
from position_sync_dagster.defs.tick import TickCursor, Work
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import L, Lake


def drain_queue(
    context: dg.SensorEvaluationContext, composition: Composition[L]
) -> dg.SensorResult:
    """Value the waiting requests, derive what follows from the rows, and report both.

    Each tick applies a changed strategies file, drains the queue (after 20 s it begins no further
    batch), derives latest_positions with each report of the ledger, writes the further tables that
    are due, and evaluates the checks that are due. The result has a materialization for what was
    written, and a skip reason with the numbers. Each part fails alone: the checks of a table that
    cannot be read become unknown, and the skip reason names it. Requests of a drain that failed
    have leases that expire; a later tick goes on.
    """
    began = time.monotonic()
    settings = composition.read_settings()
    opened = composition.opened(settings)
    work = Work(
        lake=opened.lake,
        driver=opened.driver,
        written_by_ticks=composition.written_by_ticks,
        imported=composition.extension.imported,
        keys=composition.keys,
        settings=settings,
        instance=composition.instance_of(context),
        now=utc_now(),
        cursor=cursor_of(TickCursor, context.cursor),
    )
    events = work.tick(composition.extension.tick_parts)
    note_all(CHECKS, work.failing)
    for name, seconds in work.took_s.items():
        opened.parts[name] = opened.parts.get(name, PartOfTicks(name=name)).after(seconds)
    note_all(TICK_PARTS, opened.parts.values())
    note(DURATION, f"{time.monotonic() - began:.3f}")

    # Files that `doctor` and the supervisor look at: the programs work, with errors or without.
    if work.problems:
        note(FAILED_TICK, "; ".join(work.problems))
    else:
        note(WORKED_TICK)

    return dg.SensorResult(
        asset_events=events,
        skip_reason="; ".join(work.said),
        cursor=cursor_text(work.cursor),
    )


@dg.definitions
def draining(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Define the sensor."""
    composition = composition_of(context, Lake)
    made = sensor(
        drain_queue,
        composition,
        *composition.extension.tick_parts,
        automation=composition.automation,
        assets=dg.AssetSelection.tag(WRITTEN_BY, DRAIN_SENSOR),
    )
    return dg.Definitions(sensors=[made])
