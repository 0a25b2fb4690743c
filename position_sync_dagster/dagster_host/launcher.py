"""The run launcher, the run queue before it, and the code server that starts runs in a deployment.

Each run is a process, forked from one that has already imported Dagster. The queue is Dagster's
own, polled twice a second, with a limit that follows the logins. The code server is Dagster's own
too: run it as `python -m position_sync_dagster.dagster_host.launcher`, with the options of `dagster
api grpc`.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, Self, cast

import dagster as dg
import psutil

from position_sync_dagster import dagster_host, run_slots
from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.processes.reaper import identified, identity_of

PROCESS_TAG = ".dagster/run_process"
"""The tag with the process of a run, for a termination by the daemon or the webserver. Dagster
hides tags that begin with a dot."""

PRIORITY_TAG = "dagster/priority"

NICENESS = 5
"""Added to the niceness of runs without a priority: a drain of thousands of requests keeps two
processors busy for seconds, and the stream, the sensors and the UI must not wait."""


class ForkedRunLauncher(dg.DefaultRunLauncher):
    """Starts the processes of runs, on the machine of Dagster's daemon.

    A run behaves as with Dagster's own launcher: its process executes the same function, a
    termination interrupts it, and a run whose process ended too early is reported as failed. Its
    parent is the fork server, which ends after the supervisor and the last run. If Dagster lacks a
    symbol for this, Dagster's own launcher is used.
    """

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        """Return the launcher, and make the storages of this process cheaper to use."""
        dagster_internals.keep_engines()
        dagster_internals.keep_migrations()
        return cls(inst_data)

    def launch_run(self, context: Any) -> None:
        """Start the process of a run, and return at once.

        The process begins the run after the run's tags are written: both rewrite the whole row of
        the run.
        """
        internals = dagster_internals.FORKED_RUNS.load()
        if internals is None:
            super().launch_run(context)
            return
        run = context.dagster_run
        if run.remote_job_origin is None or run.job_code_origin is None:
            raise ValueError(f"run {run.run_id} has no origin of its job")
        arguments = internals.ExecuteExternalJobArgs(
            job_origin=run.remote_job_origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
        )
        processes = dagster_host.process_context()
        receiver, begin = processes.Pipe(duplex=False)
        with receiver, begin:
            process = processes.Process(
                target=dagster_host.run_forked,
                args=(
                    *("run", dagster_host.output_to(1, 2), __name__, execute.__name__),
                    dg.serialize_value(arguments),
                    dg.serialize_value(run.job_code_origin),
                    receiver,
                ),
            )
            process.start()
            found = psutil.Process(process.pid)
            if PRIORITY_TAG not in run.tags:
                found.nice(min(found.nice() + NICENESS, 19))
            self._watch(process, found, run.run_id)
            self._instance.add_run_tags(run.run_id, {PROCESS_TAG: json.dumps(identity_of(found))})
            begin.send(None)

    def terminate(self, run_id: str) -> bool:
        """Interrupt the process of a run; return False if there is none."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if PROCESS_TAG not in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        process = process_of(run)
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
                return True
        self._instance.report_engine_event("The run has no process.", run, cls=type(self))
        return False

    def adopt_runs(self) -> None:
        """Watch the runs that an earlier daemon started, and report those whose process is gone.

        A run that is STARTING and has no process was in its launch when that daemon was killed.
        """
        begun = [
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.CANCELING,
        ]
        for run in self._instance.get_runs(dg.RunsFilter(statuses=begun)):
            found = process_of(run)
            ours = PROCESS_TAG in run.tags or run.status is dg.DagsterRunStatus.STARTING
            if found is not None:
                self._watch(None, found, run.run_id)
            elif ours:
                self._report_failed(run.run_id, "The process of the run ended without a daemon.")

    def _watch(self, *watched: Any) -> None:
        threading.Thread(target=self._report_end, args=watched, daemon=True).start()

    def _report_end(self, process: BaseProcess | None, found: psutil.Process, run_id: str) -> None:
        text = (
            "The process of the run, started by an earlier daemon, has ended for an unknown reason."
        )
        if process is not None:
            process.join()
            internals = dagster_internals.FORKED_RUNS.load()
            text = internals.get_run_crash_explanation(
                "The process of the run", process.exitcode or 0
            )
        found.wait()  # it may live longer than the fork server
        self._report_failed(run_id, text)

    def _report_failed(self, run_id: str, text: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        if run.status is dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, text)
            return
        self._instance.report_engine_event(text, run, cls=type(self))
        self._instance.report_run_failed(run)


def execute(arguments: str, origin: str, begin: Connection) -> None:
    """Execute a run like the process of Dagster's own launcher.

    Args:
        arguments: Dagster's `ExecuteExternalJobArgs`, serialized.
        origin: The origin of the job, serialized.
        begin: The run begins when this connection receives a message.
    """
    begin.recv()
    internals = dagster_internals.FORKED_RUNS.load()
    dagster_internals.leave_out_canceled_runs()
    job = internals.recon_job_from_origin(dg.deserialize_value(origin))
    ended = multiprocessing.Event()
    try:
        internals.start_run_in_subprocess(arguments, job, SimpleQueue(), ended)
    finally:
        dagster_internals.close_connections()


def process_of(run: dg.DagsterRun) -> psutil.Process | None:
    """Return the process of a run; None if it has ended or never began."""
    identity = run.tags.get(PROCESS_TAG)
    return None if identity is None else identified(json.loads(identity))


LOOK_S = 0.5
"""Polling interval of the queue, in seconds; Dagster's own setting takes whole seconds only."""

SHARE = ".dagster/position_sync_share"
"""The tag with the share of a run that is no drain. Dagster hides tags that begin with a dot."""

STREAMS, OTHERS = "streams", "others"


class PromptRunQueue(dg.QueuedRunCoordinator):
    """Dagster's run queue, from which the daemon takes waiting runs every `LOOK_S`.

    A single request has its row after 4 s: it waits for the sensor, for this queue and for the
    drain. Polling once a second would add 0.3 s.

    A drain always finds a place: streams have two places for each login, other runs have six
    together, and the limit of all runs is greater by two. When a run is queued, it gets a tag with
    its share, because a run that a person launches from an asset has no tag of a job. The limit of
    a share holds its runs back before the limit of all runs is reached.
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


def execute_started(start_run: Callable[..., None], *args: Any) -> None:
    """Execute a run that a code server started, in its process."""
    dagster_host.answer_signals()
    start_run(*args)


def open_tables() -> None:
    """Begin to open the tables of the sensors in an object store, which takes seconds.

    The first tick of each sensor comes as soon as the code server listens, one after the other.
    If a table cannot be opened, that tick fails with the error.
    """
    from position_sync_dagster.defs import runs
    from position_sync_dagster.defs.libraries import threads
    from position_sync_dagster.defs.resources import POSITION_SYNC

    with suppress(PositionSyncError):
        settings = POSITION_SYNC.read_settings()
        if is_remote(str(settings.lake)):
            threads.begin(runs.cached_lake(settings).open_ahead)


def serve(options: Sequence[str]) -> None:
    """Run Dagster's code server, which forks its runs; Dagster's own way to start them is spawn.

    A deployment has code server and daemon in two containers, and runs in that of the code server.

    Args:
        options: Those of `dagster api grpc`.
    """
    internals = dagster_internals.RUNS_OF_CODE_SERVER.load()
    if internals is None:
        os.execvp("dagster", ["dagster", "api", "grpc", *options])  # noqa: S606, S607
    dagster_host.prepare_processes((signal.SIGINT, signal.SIGTERM))
    processes = dagster_host.process_context()

    def process_of_run(*, target: Callable[..., None], args: Sequence[Any]) -> Any:
        return processes.Process(target=execute_started, args=(target, *args))

    dagster_internals.start_runs_with(
        SimpleNamespace(Queue=processes.Queue, Event=processes.Event, Process=process_of_run)
    )
    open_tables()
    internals.api_cli(["grpc", *options])


if __name__ == "__main__":
    # The processes of the runs find the functions by the module's own name. If `__spec__` and
    # `__file__` were set, they would also execute the module as the main module of their parent.
    vars(sys.modules[__name__]).update(__spec__=None, __file__=None)
    import_module(f"{__package__}.launcher").serve(sys.argv[1:])
