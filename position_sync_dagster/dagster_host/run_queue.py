"""The run queue: Dagster's own, polled twice a second, with a limit that follows the logins."""

from typing import Any, cast

import dagster as dg

from position_sync_dagster import run_slots

LOOK_S = 0.5
"""Polling interval of the queue, in seconds; Dagster's own setting takes whole seconds only."""

SHARE = ".dagster/position_sync_share"
"""The tag of a run that leaves a place for a drain. Dagster hides tags that begin with a dot."""

STREAMS, OTHERS = "streams", "others"


class PromptRunQueue(dg.QueuedRunCoordinator):
    """Dagster's run queue, from which the daemon takes waiting runs every `LOOK_S`.

    A single request has its row after 4 s: it waits for the sensor, for this queue and for the
    drain. Polling once a second would add 0.3 s.

    A drain always finds a place: streams have two for each login, other runs have six together, and
    the limit of all runs is two more. Each run gets its share as a tag when it is queued: the limit
    of a tag holds runs back before that of all runs is reached, and a run that a person launches
    from an asset has no tag of a job.
    """

    @property
    def dequeue_interval_seconds(self) -> float:  # type: ignore[override]
        """Return the polling interval in seconds."""
        return LOOK_S

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """Return the settings of Dagster's queue, without the polling interval and the limit."""
        own = cast("dict[str, dg.Field]", super().config_type())
        decided = ("dequeue_interval_seconds", "max_concurrent_runs")
        return {name: field for name, field in own.items() if name not in decided}

    def get_run_queue_config(self) -> Any:
        """Return the limits of this moment; those in `concurrency.runs` of `dagster.yaml` win."""
        logins = max(1, len(self._instance.get_dynamic_partitions(run_slots.LOGINS)))
        config = super().get_run_queue_config()
        shares = [
            {"key": SHARE, "value": STREAMS, "limit": run_slots.FOR_A_LOGIN * logins},
            {"key": SHARE, "value": OTHERS, "limit": run_slots.FOR_OTHERS - run_slots.FOR_DRAINS},
        ]
        return config._replace(
            max_concurrent_runs=run_slots.needed(logins),
            tag_concurrency_limits=[*config.tag_concurrency_limits, *shares],
        )

    def submit_run(self, context: Any) -> dg.DagsterRun:
        """Queue a run, with the tag of its share; a drain has none."""
        run = context.dagster_run
        if run.job_name != run_slots.DRAIN_JOB:
            share = STREAMS if run.job_name == run_slots.STREAM_JOB else OTHERS
            self._instance.add_run_tags(run.run_id, {SHARE: share})
        return super().submit_run(context)


def fixed_limit(instance: dg.DagsterInstance) -> int | None:
    """Return how many runs an instance may have in progress at once.

    Returns:
        None if there is no limit, or if it follows the logins.
    """
    named = "max_concurrent_runs" in instance.get_settings("concurrency").get("runs", {})
    if isinstance(instance.run_coordinator, PromptRunQueue) and not named:
        return None
    limits = instance.get_concurrency_config().run_queue_config
    return None if limits is None or limits.max_concurrent_runs < 0 else limits.max_concurrent_runs
