"""The drain that stays: in an object store its run drains again and again, with its tables open.

To open the tables takes a third of the requests of a drain, and to start its run some seconds. For
that reason a run that the sensor requested goes on after its drain: every few seconds it decides as
the sensor does, which sees a run in progress and requests none. It ends when anything else than a
drain is due.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs import drain, runs
from position_sync_dagster.defs.assets.table_asset import DATA_VERSION, STEPS
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.sync import drain_plan
from position_sync_dagster.sync.drain_plan import Step

STAY_S, LONGEST_S = 300.0, 360.0
"""After the first time, in seconds, a run ends instead of draining again: the next run opens the
tables, and takes its settings and its code anew. After the second it ends without that."""

LOOK_S = 5.0
"""Seconds between two looks for work, as between two ticks of the sensor."""

LATEST_S = 30.0
"""Seconds after which `latest_positions` is derived although nothing was drained: the stream writes
rows all the time."""

PAUSE_S = 0.1

Results = Iterator["dg.MaterializeResult[None]"]
Derive = Callable[..., Results]


def stay(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource, derive: Derive
) -> None:
    """Drain and derive again while there is work, if the run may stay; called at its end.

    Each drain is a materialization with its own rows, as that of a run, and the record of the run
    has the counts of all. After an interrupt the run ends as soon as it has done what it does.

    Args:
        derive: Materializes the asset of this step.
    """
    cursor = context.run.tags.get(runs.STAYS)
    if cursor is None or context.job_name != runs.DRAIN_JOB:
        return
    with dagster_internals.captured_interrupts() as is_interrupted:
        position_sync.write_kept_records()
        this = _Staying(context, position_sync, derive, cursor)
        while this.may_go_on() and (this.drained or waited(is_interrupted)):
            if is_interrupted() or not this.looks_and_works():
                break
        if not is_interrupted():
            this.derive_drained()
        run = context.instance.get_run_by_id(context.run.run_id)
        terminated = run is not None and run.status is dg.DagsterRunStatus.CANCELING
    if terminated:
        raise dg.DagsterExecutionInterruptedError


def waited(is_interrupted: Callable[[], bool]) -> bool:
    """Wait until the next look; return whether no interrupt came."""
    until = time.monotonic() + LOOK_S
    while not is_interrupted() and time.monotonic() < until:
        time.sleep(PAUSE_S)
    return not is_interrupted()


class _Staying:
    """A run that stays.

    Attributes:
        drained: It has drained, and not derived since: it looks again at once, since requests may
            have come meanwhile. They are drained first.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        position_sync: PositionSyncResource,
        derive: Derive,
        cursor: str,
    ) -> None:
        self._context = context
        self._position_sync = position_sync
        self._derive = derive
        self._cursor = drain_plan.DrainCursor.from_text(cursor)
        self._began = self._derived = time.monotonic()
        self.drained = False

    def may_go_on(self) -> bool:
        """Show that the run lives, and return whether its drains left nothing undone."""
        self._context.instance.add_run_tags(self._context.run.run_id, {runs.DRAINED: "true"})
        drained = self._position_sync.recorders.get(Step.DRAIN)
        return drained is not None and drained.record.reason is None

    def looks_and_works(self) -> bool:
        """Do what is due; return False if that is for another run."""
        try:
            plan = self._plan()
        except PositionSyncError as error:
            self._context.log.warning(f"The run ends, since it cannot look for work: {error}")
            return False
        for_s = time.monotonic() - self._began
        if plan is None or for_s >= (STAY_S if plan.steps else LONGEST_S):
            return False
        if plan.steps not in ((), drain_plan.DRAIN_AND_DERIVE):
            return False
        self._cursor = plan.cursor
        if plan.steps:
            self._context.log.info(f"The run drains again: {plan.reason}.")
            self._again(Step.DRAIN, STEPS[Step.DRAIN])
            self.drained = True
        is_old = time.monotonic() - self._derived >= LATEST_S
        if self.drained and (is_old or not plan.steps):
            self.derive_drained()
        elif is_old:
            self._derive_latest()
        return True

    def derive_drained(self) -> None:
        """Derive what drains have made out of date, and write what all of it recorded."""
        if self.drained:
            self._derive_latest()
            self._again(Step.EXPOSURE, self._derive)
            self._position_sync.write_kept_records()
            self.drained = False

    def _derive_latest(self) -> None:
        self._position_sync.looked_at.clear()
        self._again(Step.LATEST, STEPS[Step.LATEST])
        self._derived = time.monotonic()

    def _plan(self) -> drain_plan.DrainPlan | None:
        """Return what the sensor would request now; None if a derivation or other settings wait."""
        instance, position_sync, now = self._context.instance, self._position_sync, utc_now()
        settings = position_sync.settings
        if position_sync.read_settings() != settings:
            return None
        derivation = drain_plan.plan_derivation(
            drain.sources_materialized_at(instance), now=now, in_progress=None, last_run=None
        )
        if derivation.start and not self.drained:
            return None
        workload = drain.observe(
            instance, position_sync.lake, settings, now=now, of_run=self._context.run.run_id
        )
        # This run succeeded, whatever became of those before it.
        workload = replace(workload, unsuccessful_runs=0, last_unsuccessful_at=None)
        return drain_plan.plan_drain(
            workload, self._cursor, refresh_interval_s=settings.refresh_interval_s
        )

    def _again(self, step: Step, materialize: Derive) -> None:
        """Materialize an asset once more."""
        for result in materialize(self._context, position_sync=self._position_sync):
            version = result.data_version
            self._context.log_event(
                dg.AssetMaterialization(
                    step.value,
                    metadata=result.metadata,
                    tags={} if version is None else {DATA_VERSION: version.value},
                )
            )
            if step is Step.EXPOSURE:  # within its own step, whose recorder sees no other event
                columns = runs.columns_of_event(result.metadata or {})
                self._position_sync.recorders[step].note(**columns)
