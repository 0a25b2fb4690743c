"""Functions that jobs and sensors share: recent runs, errors, cached instances and tables.

A tick every 5 s must be cheap. Opening Dagster's instance takes 65 ms (its storages check their
Alembic revision each time), and a resource parameter or `context.instance` would open it at every
tick. Opening the tables takes another 30 ms. Both can be kept open and shared by threads.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from position_sync_dagster import dagster_files
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import Settings

STREAM_JOB = "stream_positions"
CLOSE_JOB = "close_day"
IMPORT_JOB = "import_statements"

# The asset that has no table.
GATEWAY = "gateway"

# The partitions of `stream_positions`, if a gateways file names several logins.
#
# The supervisor adds and removes them according to the file, without a reload.
LOGINS = dg.DynamicPartitionsDefinition(name="logins")

# Dagster's tag with the partition of a run.
PARTITION = "dagster/partition"

# Dagster's tag with the reason why a run failed.
FAILURE_REASON = "dagster/failure_reason"

# Failure reasons caused by the run itself; interrupted or killed runs have others, or none.
OWN_FAULTS = frozenset({"STEP_FAILURE", "RUN_EXCEPTION", "JOB_INITIALIZATION_FAILURE"})

# The states of a run that has ended.
ENDED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A run of a job, as Dagster stores it.

    Attributes:
        since: When it began; before that, when it was created or launched.
        ended_at: None while it is in progress.
        own_fault: It failed by an error of its own; it was not interrupted, killed or given up.
    """

    run_id: str
    state: dg.DagsterRunStatus
    since: datetime
    ended_at: datetime | None = None
    own_fault: bool = False


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


_IN_PROGRESS = [status for status in dg.DagsterRunStatus if status not in ENDED]


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
    is_starting = run.status is dg.DagsterRunStatus.STARTING
    launched = record.update_timestamp if is_starting else record.create_timestamp
    return JobRun(
        run_id=run.run_id,
        state=run.status,
        since=utc(record.start_time) or launched,
        ended_at=utc(record.end_time),
        own_fault=run.tags.get(FAILURE_REASON) in OWN_FAULTS,
    )


def utc(timestamp: float | None) -> datetime | None:
    """Convert a timestamp of Dagster's storage to UTC; None stays None."""
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)


C = TypeVar("C")

_format: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def cursor_of(kind: type[C], text: str | None) -> C:
    """Parse the cursor of a sensor; return an empty one for None or for text of another format."""
    try:
        found: C = _format(kind).validate_json(text) if text else kind()
    except ValidationError:
        return kind()
    return found


def cursor_text(cursor: object) -> str:
    """Return the cursor of a sensor as the text that Dagster stores."""
    return _format(type(cursor)).dump_json(cursor).decode()


P = ParamSpec("P")
R = TypeVar("R")


def dagster_failures(function: Callable[P, R]) -> Callable[P, R]:
    """Convert an error of the package to a Dagster failure with its cause and remedy.

    Such an error is expected, not a bug: a traceback would only hide its message.

    Example:
        @dg.op
        @dagster_failures
        def maintain_tables(position_sync: PositionSyncResource) -> None: ...
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _translated():
            return function(*args, **kwargs)

    @wraps(function)
    def generate(*args: P.args, **kwargs: P.kwargs) -> Iterator[object]:
        with _translated():
            yield from cast("Iterator[object]", function(*args, **kwargs))

    return cast("Callable[P, R]", generate) if inspect.isgeneratorfunction(function) else run


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
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


# Minimum seconds between two ticks. The daemon looks each 5 s: with 5 it would pass over every
# second look, and with 4 over one after a tick that waited for another sensor.
TICK_S = 2


def cached_instance(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """Return the instance of a tick, opened at the first tick."""
    ref = context.instance_ref
    return context.instance if ref is None else _opened(dg.serialize_value(ref))


@lru_cache(maxsize=1)
def _opened(ref: str) -> dg.DagsterInstance:
    found: Any = dg.deserialize_value(ref)
    return dg.DagsterInstance.from_ref(found)


@lru_cache(maxsize=2)
def cached_lake(settings: Settings) -> tables.Lake:
    """Return the tables of the settings, created or migrated at the first tick."""
    lake = tables.Lake.of(settings)
    lake.initialize_sync()
    return lake


Tick = Callable[[dg.SensorEvaluationContext], Any]


def sensor(
    *, job_name: str | None = None, minimum_interval_s: int = TICK_S
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
            dagster_files.note(dagster_files.FAILED_TICK)
            found = error.what.partition(": ")[0]  # the rest may differ in each attempt
            if found == fault:
                return dg.SkipReason(str(error))
            fault = found
            raise
        fault = ""
        return result

    return run
