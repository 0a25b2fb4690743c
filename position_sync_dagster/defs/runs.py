"""Functions that jobs and sensors share: recent runs, records in `runs`, errors, cached instances.

A tick every 5 s must be cheap. Opening Dagster's instance takes 65 ms (its storages check their
Alembic revision each time), and a resource parameter or `context.instance` would open it at every
tick. Opening the tables takes another 30 ms. Both can be kept open and shared by threads.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial, wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar, cast

import dagster as dg

from position_sync_dagster import last_work, run_slots
from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs.libraries import tables
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.run_recorder import RunRecorder
from position_sync_dagster.sync.supervision import IN_PROGRESS, JobRun, RunState

DRAIN_JOB = run_slots.DRAIN_JOB
STREAM_JOB = run_slots.STREAM_JOB

CLOSE_JOB = "close_day"
IMPORT_JOB = "import_statements"
DERIVE_JOB = "derive_positions"

LOGINS = dg.DynamicPartitionsDefinition(name=run_slots.LOGINS)
"""The partitions of `stream_positions`, if a gateways file names several logins.

The supervisor adds and removes them according to the file, without a reload.
"""

REFRESHED = "position_sync/refreshed"
"""The tag of a refresh-only run, with the logins that it refreshes."""

REASON = "position_sync/reason"
"""The tag with the reason why a sensor requested the run: a few stable words, such as
requests_wait. The numbers are in the log of the run."""

RELEASED = "position_sync/given_back"
"""The tag with the number of requests that a drain released without a value."""

DRAINED = "position_sync/drained"
"""The tag of a drain run whose rows are written, even if its derived tables failed."""

STAYS = ".dagster/position_sync_stays"
"""The tag of a drain run that may stay, with the cursor of the tick that requested it. Dagster
hides tags that begin with a dot."""

REGISTRY_VERSION = "position_sync/registry_version"
"""The tag with the version of `active_strategies` that a run recorded."""

FILE_REFUSED = "position_sync/file_refused"
"""The tag of a run that refused the strategies file, which then waits until it is saved again."""

PARTITION = "dagster/partition"
"""Dagster's tag with the partition of a run."""

FAILURE_REASON = "dagster/failure_reason"
"""Dagster's tag with the reason why a run failed."""

OWN_FAULTS = frozenset({"STEP_FAILURE", "RUN_EXCEPTION", "JOB_INITIALIZATION_FAILURE"})
"""Failure reasons caused by the run itself; interrupted or killed runs have others, or none."""

_STATES = {
    dg.DagsterRunStatus.STARTING: RunState.STARTING,
    dg.DagsterRunStatus.STARTED: RunState.RUNNING,
    dg.DagsterRunStatus.CANCELING: RunState.CANCELING,
    dg.DagsterRunStatus.SUCCESS: RunState.ENDED,
    dg.DagsterRunStatus.FAILURE: RunState.FAILED,
    dg.DagsterRunStatus.CANCELED: RunState.CANCELED,
}


def recent_runs(
    instance: dg.DagsterInstance, job_name: str, *, limit: int, login: str | None = None
) -> Sequence[JobRun]:
    """Return the newest runs of a job, newest first.

    Args:
        instance: The Dagster instance.
        job_name: The job.
        limit: Maximum number of runs.
        login: Only runs of the partition of this login.
    """
    tags = {} if login is None else {PARTITION: login}
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags), limit=limit)
    return [_run_of(record) for record in records]


_IN_PROGRESS = [
    status for status in dg.DagsterRunStatus if _STATES.get(status, RunState.WAITING) in IN_PROGRESS
]


def streams_in_progress(instance: dg.DagsterInstance) -> dict[str, list[JobRun]]:
    """Return the streams that have not ended, newest first, by partition ("": without one).

    One query, however many partitions there are.
    """
    found: dict[str, list[JobRun]] = {}
    unended = dg.RunsFilter(job_name=STREAM_JOB, statuses=_IN_PROGRESS)
    for record in instance.get_run_records(unended):
        found.setdefault(record.dagster_run.tags.get(PARTITION, ""), []).append(_run_of(record))
    return found


def _run_of(record: dg.RunRecord) -> JobRun:
    run = record.dagster_run
    state = _STATES.get(run.status, RunState.WAITING)
    launched = record.update_timestamp if state is RunState.STARTING else record.create_timestamp
    stays = state is RunState.RUNNING and STAYS in run.tags
    ended_early = state in (RunState.FAILED, RunState.CANCELED)
    unapplied = ended_early and not {REGISTRY_VERSION, FILE_REFUSED} & run.tags.keys()
    return JobRun(
        run_id=run.run_id,
        state=state,
        since=record.update_timestamp if stays else utc(record.start_time) or launched,
        ended_at=utc(record.end_time),
        own_fault=run.tags.get(FAILURE_REASON) in OWN_FAULTS and DRAINED not in run.tags,
        refreshed=run.tags.get(REFRESHED),
        released=int(run.tags.get(RELEASED, 0)),
        registry_version=int(run.tags[REGISTRY_VERSION]) if REGISTRY_VERSION in run.tags else None,
        submitted=run.status is not dg.DagsterRunStatus.NOT_STARTED,
        unapplied=unapplied if STRATEGIES in (run.asset_selection or ()) else None,
    )


def utc(timestamp: float | None) -> datetime | None:
    """Convert a timestamp of Dagster's storage to UTC; None stays None."""
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)


STRATEGIES = dg.AssetKey("active_strategies")

P = ParamSpec("P")
R = TypeVar("R")


Note = Callable[[object], None]
Block = Callable[[Sequence[Any], Mapping[str, Any]], AbstractContextManager[Note]]


def _within(block: Block, function: Callable[P, R]) -> Callable[P, R]:
    """Return a function, or one that yields events, that runs within a block.

    Args:
        block: Called with the arguments; its note is called with the result, or with each event.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with block(args, kwargs) as note:
            result = function(*args, **kwargs)
            note(result)
            return result

    @wraps(function)
    def generate(*args: P.args, **kwargs: P.kwargs) -> Iterator[object]:
        with block(args, kwargs) as note:
            for event in cast("Iterator[object]", function(*args, **kwargs)):
                note(event)
                yield event

    return cast("Callable[P, R]", generate) if inspect.isgeneratorfunction(function) else run


def dagster_failures(function: Callable[P, R]) -> Callable[P, R]:
    """Convert an error of the package to a Dagster failure with its cause and remedy.

    Such an error is expected, not a bug: a traceback would only hide its message.

    Example:
        @dg.op
        @dagster_failures
        def maintain_tables(position_sync: PositionSyncResource) -> None: ...
    """
    return _within(_translated, function)


@contextmanager
def _translated(_args: Sequence[Any], _kwargs: Mapping[str, Any]) -> Iterator[Note]:
    try:
        yield lambda event: None
    except PositionSyncError as error:
        raise dg.Failure(
            description=str(error),
            metadata={
                "error": type(error).__name__,
                "what": error.what,
                "remedy": error.remedy,
            },
            allow_retries=False,
        ) from None


SHORTEST_INTERVAL_S = 2
"""Minimum seconds between two ticks of a sensor. The daemon checks the sensors every 5 s, one after
the other. With an interval of 5 s, the check after a late tick would come too early, and that tick
would be missed."""

_lock = Lock()
_instances: list[tuple[object, dg.DagsterInstance]] = []


def cached_instance(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """Return the instance of a tick, opened at the first tick."""
    ref = context.instance_ref
    if ref is None:
        return context.instance
    with _lock:
        for known, instance in _instances:
            if known == ref:
                return instance
        dagster_internals.keep_engines()
        if ref.storage_data is not None and ref.storage_data.module_name == "dagster_postgres":
            dagster_internals.keep_postgres_connections()
        instance = dg.DagsterInstance.from_ref(ref)
        _instances[:] = [(ref, instance)]
        return instance


@lru_cache(maxsize=2)
def cached_lake(settings: Settings) -> "tables.Lake":
    """Return the tables of the settings, opened at the first tick."""
    return tables.Lake.of(settings)


Tick = Callable[[dg.SensorEvaluationContext], Any]


def sensor(
    *, job_name: str | None = None, minimum_interval_s: int = SHORTEST_INTERVAL_S
) -> Callable[[Tick], dg.SensorDefinition]:
    """Return the decorator of a tick: it defines a sensor that runs from the start.

    The docstring of the tick is what Dagster shows of the sensor.
    """

    def define(tick: Tick) -> dg.SensorDefinition:
        return dg.sensor(
            job_name=job_name,
            minimum_interval_seconds=minimum_interval_s,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description=inspect.getdoc(tick),
        )(fails_once(tick))

    return define


def fails_once(
    tick: Callable[[dg.SensorEvaluationContext], R],
) -> Callable[[dg.SensorEvaluationContext], R | dg.SkipReason]:
    """Raise the first error of an outage; skip later ticks with the same error, with its text.

    The daemon logs 200 lines for a failed tick, and the next tick comes after 5 s.
    """
    fault = ""

    @wraps(tick)
    def run(context: dg.SensorEvaluationContext) -> R | dg.SkipReason:
        nonlocal fault
        try:
            result = tick(context)
        except PositionSyncError as error:
            last_work.note(last_work.FAILED_TICK)
            found = error.what.partition(": ")[0]  # the rest may differ in each attempt
            if found == fault:
                return dg.SkipReason(str(error))
            fault = found
            raise
        fault = ""
        return result

    return run


COLUMNS = {
    "rows": "rows",
    "delta_version": "version_to",
    "delta_version_from": "version_from",
    "first_batch_id": "first_batch_id",
    "last_batch_id": "last_batch_id",
    "claimed": "claimed",
    "succeeded": "succeeded",
    "failed": "failed",
    "released": "released",
    "enqueued": "enqueued",
    "commits": "commits",
    "changed": "commits",
    "note": "reason",
}
"""Event metadata that a record keeps, and the column of each."""

AS_TEXT = frozenset({"rows", "delta_version"})
"""The counts that some events have as text, so that the UI does not plot them."""


def recorded(step: str, table: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Record each run of an asset or an op in the table `runs`: one commit, at its end.

    The record has the counts of the event that the step returns, or of the last one that it yields.

    Args:
        step: The name of the step in the record.
        table: The table that the step writes.

    Example:
        @dg.op
        @dagster_failures
        @recorded("maintain_tables")
        def maintain_tables(context, position_sync: PositionSyncResource) -> None: ...
    """
    return partial(_within, partial(_recorder, step, table))


@contextmanager
def _recorder(
    step: str, table: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[Note]:
    """Record the block; yield a function that takes the events of the step."""
    context, position_sync = args[0], cast("PositionSyncResource", kwargs["position_sync"])
    recorder, settings = position_sync.recorders.get(step), position_sync.settings
    if recorder is None:
        recorder = position_sync.recorders[step] = RunRecorder(
            position_sync.lake.runs,
            run_id=context.run.run_id,
            job=context.run.job_name,
            step=step,
            gateway_id=settings.gateway_id if settings.gateways_file is None else None,
            kept=position_sync.kept_records,
        )
        recorder.note(table_name=table, partitions=_partitions(context))

    def note(event: object) -> None:
        if isinstance(event, dg.MaterializeResult | dg.AssetMaterialization):
            columns = columns_of_event(event.metadata or {})
            (recorder.count if "claimed" in columns else recorder.note)(**columns)

    with recorder:
        yield note


def columns_of_event(metadata: Any) -> dict[str, Any]:
    """Return the columns of a record from the metadata of an event; pure.

    A name may have a prefix, as in `drain/rows`.
    """
    values = {
        name.rpartition("/")[2]: value.value if isinstance(value, dg.MetadataValue) else value
        for name, value in metadata.items()
    }
    for name in AS_TEXT & values.keys():
        values[name] = int(values[name])
    found = {column: values[name] for name, column in COLUMNS.items() if name in values}
    if "claimed" in found:  # a drain leaves out counts of zero
        found = {"failed": 0, "released": 0} | found
    if not found.get("reason"):
        found.pop("reason", None)
    return found


def _partitions(context: Any) -> str | None:
    if not getattr(context, "has_partition_key_range", False) and not context.has_partition_key:
        return None
    keys = context.partition_keys
    return keys[0] if len(keys) == 1 else f"{keys[0]}...{keys[-1]}"
