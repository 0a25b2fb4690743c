"""The drain that stays: in an object store its run drains again and again, with its tables open.

Opening the tables takes a third of the requests of a drain, and starting its run takes some
seconds. For that reason a run that the sensor requested goes on after its drain: every few seconds
it makes the decision of the sensor, which sees a run in progress and requests no other. A run that
recorded the registry also goes on, since the stream then queues what it no longer streams. The run
ends when anything other than a drain is due. Where Postgres counts requests (`lake/sessions.py`),
it drains as soon as some come.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs import drain, runs
from position_sync_dagster.defs.assets.table_asset import DATA_VERSION, STEPS
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.sync import drain_plan
from position_sync_dagster.sync.run_recorder import RunRecorder

STAY_S, LONGEST_S = 300.0, 360.0
"""After the first time, in seconds, a run ends instead of draining again: the next run opens the
tables, and reads its settings and its code anew. After the second time it ends even if no drain is
due."""

LOOK_S = 5.0
"""Seconds between two looks for work, as between two ticks of the sensor; also the least time
between two drains."""

SOON_S, SOON_FOR_S = 1.0, 30.0
"""Seconds between two looks of a run that has not drained yet, and how many seconds this interval
holds: the stream is starting."""

ASK_S = 0.5
"""Seconds between two queries of Postgres whether requests came."""

LATEST_S = 30.0
"""Seconds after which `latest_positions` is derived although nothing was drained: the stream writes
rows all the time."""

PAUSE_S = 0.1


def stay(context: dg.AssetExecutionContext, position_sync: PositionSyncResource) -> None:
    """Drain and derive again while there is work, if the run may stay; called at its end.

    Each drain is a materialization with its own rows, as if it had a run of its own, and the record
    of the run has the counts of all drains. After an interrupt the run ends as soon as its present
    step is done.
    """
    cursor = context.run.tags.get(runs.STAYS)
    if cursor is None or context.job_name != runs.DRAIN_JOB:
        return
    with dagster_internals.captured_interrupts() as is_interrupted:
        position_sync.write_kept_records()
        this = _Staying(context, position_sync, cursor)
        while this.may_go_on() and (this.drained or waited(is_interrupted, this)):
            if is_interrupted() or not this.looks_and_works():
                break
        if not is_interrupted():
            this.derive_drained()
        run = context.instance.get_run_by_id(context.run.run_id)
        terminated = run is not None and run.status is dg.DagsterRunStatus.CANCELING
    if terminated:
        raise dg.DagsterExecutionInterruptedError


def waited(is_interrupted: Callable[[], bool], this: "_Staying") -> bool:
    """Wait until the next look, or until requests come; return whether no interrupt came."""
    until = time.monotonic() + this.look_s
    while not is_interrupted() and time.monotonic() < until and not this.woken():
        time.sleep(PAUSE_S)
    return not is_interrupted()


class _Staying:
    """A run that stays.

    Attributes:
        drained: The run has drained, and has not derived since. It looks again at once: requests
            that came meanwhile are drained first.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        position_sync: PositionSyncResource,
        cursor: str,
    ) -> None:
        self._context = context
        self._position_sync = position_sync
        self._cursor = drain_plan.DrainCursor.from_text(cursor)
        self._began = self._derived = time.monotonic()
        self._drained_at = self._asked_at = -math.inf
        self.drained = False

    @property
    def look_s(self) -> float:
        """The seconds until the next look."""
        is_new = self._recorded is None and time.monotonic() - self._began < SOON_FOR_S
        return SOON_S if is_new else LOOK_S

    def woken(self) -> bool:
        """Return whether requests were enqueued since the last look, and may be drained now."""
        now = time.monotonic()
        if now - self._drained_at < LOOK_S or now - self._asked_at < ASK_S:
            return False
        self._asked_at = now
        return drain.quiet_of(self._position_sync.lake).is_over()

    def may_go_on(self) -> bool:
        """Show that the run lives, and return whether its drains left nothing undone."""
        self._context.instance.add_run_tags(self._context.run.run_id, {runs.DRAINED: "true"})
        return self._recorded is None or self._recorded.record.reason is None

    @property
    def _recorded(self) -> RunRecorder | None:
        """What its drains recorded; None before the first."""
        return self._position_sync.recorders.get(drain_plan.Step.DRAIN)

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
            self._drained_at = time.monotonic()
            self._again(drain_plan.Step.DRAIN)
            self.drained = True
        is_old = time.monotonic() - self._derived >= LATEST_S
        if self.drained and (is_old or not plan.steps):
            self.derive_drained()
        elif is_old and self._recorded is not None:
            self._derive_latest()
        return True

    def derive_drained(self) -> None:
        """Derive the tables that drains have made out of date, and write the kept records."""
        if self.drained:
            self._derive_latest()
            self._again(drain_plan.Step.EXPOSURE)
            self._position_sync.write_kept_records()
            self.drained = False

    def _derive_latest(self) -> None:
        self._position_sync.looked_at.clear()
        self._again(drain_plan.Step.LATEST)
        self._derived = time.monotonic()

    def _plan(self) -> drain_plan.DrainPlan | None:
        """Return what the sensor would request; None if a derivation is due or settings changed."""
        instance, position_sync, now = self._context.instance, self._position_sync, utc_now()
        settings = position_sync.settings
        if position_sync.read_settings() != settings:
            return None
        workload = drain.observe(
            instance, position_sync.lake, settings, now=now, of_run=self._context.run.run_id
        )
        # This run succeeded, whatever became of those before it.
        workload = replace(workload, unsuccessful_runs=0, last_unsuccessful_at=None)
        plan = drain_plan.plan_drain(
            workload, self._cursor, refresh_interval_s=settings.refresh_interval_s
        )
        if plan.steps or self.drained:  # the run itself then derives what a derivation would
            return plan
        derivation = drain_plan.plan_derivation(
            drain.sources_materialized_at(instance), now=now, in_progress=None, last_run=None
        )
        return None if derivation.start else plan

    def _again(self, step: drain_plan.Step) -> None:
        """Materialize an asset once more."""
        for result in STEPS[step](self._context, position_sync=self._position_sync):
            version = result.data_version
            self._context.log_event(
                dg.AssetMaterialization(
                    step.value,
                    metadata=result.metadata,
                    tags={} if version is None else {DATA_VERSION: version.value},
                )
            )
