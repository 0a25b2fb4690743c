"""What jobs and sensors share: the resource of runs, names, cursors, errors, cached instances.

A tick every 5 s must be cheap. Opening Dagster's instance takes 65 ms (its storages check their
Alembic revision each time), and a resource parameter or `context.instance` would open it at every
tick. Opening the tables takes another 30 ms. Both can be kept open and shared by threads.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, cached_property, lru_cache, wraps
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field, TypeAdapter, ValidationError

from position_sync_dagster import dagster_files
from position_sync_dagster.errors import LakeError, PositionSyncError
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.threads import together
from position_sync_dagster.settings import Settings, load_settings

STREAM_JOB = "stream_positions"
CLOSE_JOB = "close_day"
IMPORT_JOB = "import_statements"

# The sensor whose tick drains the queue, and derives what follows.
DRAIN_SENSOR = "drain_queue"

# The tag of an asset that names the job or the sensor that writes it.
WRITTEN_BY = "position-sync/written_by"

# The asset that has no table.
GATEWAY = "gateway"

# The partitions of `stream_positions`, if a gateways file names several logins.
#
# The supervisor adds and removes them according to the file, without a reload.
LOGINS = dg.DynamicPartitionsDefinition(name="logins")

# Dagster's tag with the partition of a run.
PARTITION = "dagster/partition"

# The states of a run that has ended.
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


C = TypeVar("C")

_format: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def cursor_of(kind: type[C], text: str | None) -> C:
    """Parse the cursor of a sensor; return an empty one for None or for text of another format."""
    try:
        cursor: C = _format(kind).validate_json(text) if text else kind()
    except ValidationError:
        return kind()
    return cursor


def cursor_text(cursor: object) -> str:
    """Return the cursor of a sensor as the text that Dagster stores."""
    return _format(type(cursor)).dump_json(cursor).decode()


@contextmanager
def dagster_failures() -> Iterator[None]:
    """Convert an error of the package to a Dagster failure with its cause and remedy.

    Such an error is expected, not a bug: a traceback would only hide its message.

    Example:
        @dg.op
        @dagster_failures()
        def maintain_tables(position_sync: PositionSyncResource) -> None: ...
    """
    try:
        yield
    except PositionSyncError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__, "what": error.what, "remedy": error.remedy},
        ) from None


# Minimum seconds between two ticks. The daemon looks each 5 s: with 5 it would pass over every
# second look, and with 4 over one after a tick that waited for another sensor.
TICK_S = 2


def cached_instance(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """Return the instance of a tick, opened at the first tick."""
    ref = context.instance_ref
    if ref is None:
        return context.instance

    return _opened(dg.serialize_value(ref))


@lru_cache(maxsize=1)
def _opened(ref: str) -> dg.DagsterInstance:
    instance: Any = dg.deserialize_value(ref)
    return dg.DagsterInstance.from_ref(instance)


# The class of the lake; definitions above the core replace it by one with their tables.
LAKES: list[type[tables.Lake]] = [tables.Lake]


@lru_cache(maxsize=2)
def cached_lake(settings: Settings) -> tables.Lake:
    """Return the tables of the settings, created or migrated at the first tick.

    A table that cannot be is left out: its first use raises why, and the ticks use the others.
    """
    lake = LAKES[0].of(settings)
    together(_initialize, lake.tables)
    return lake


def _initialize(table: Table) -> None:
    with suppress(LakeError):
        table.initialize()


Tick = Callable[[dg.SensorEvaluationContext], Any]


def sensor(
    *,
    job_name: str | None = None,
    minimum_interval_s: int = TICK_S,
    assets: dg.AssetSelection | None = None,
) -> Callable[[Tick], dg.SensorDefinition]:
    """Return the decorator of a tick: it defines a sensor that runs from the start.

    The docstring of the tick is what Dagster shows of the sensor. The first error of an outage is
    raised; later ticks with the same error are skipped, with its text: the daemon logs 200 lines
    for a failed tick, and the next tick comes after 5 s.

    Args:
        job_name: The job that it requests runs of.
        minimum_interval_s: How often it ticks at most.
        assets: The assets that its ticks write: their pages show the sensor.
    """

    def define(tick: Tick) -> dg.SensorDefinition:
        fault = ""

        @dg.sensor(
            name=tick.__name__,
            job_name=job_name,
            minimum_interval_seconds=minimum_interval_s,
            target=assets,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description=inspect.getdoc(tick),
        )
        @wraps(tick)
        def run(context: dg.SensorEvaluationContext) -> Any:
            nonlocal fault
            try:
                result = tick(context)
            except PositionSyncError as error:
                dagster_files.note(dagster_files.FAILED_TICK, str(error))
                cause = error.what.partition(": ")[0]  # the rest may differ in each attempt
                if cause == fault:
                    return dg.SkipReason(str(error))
                fault = cause
                raise

            fault = ""
            return result

        return run

    return define


# The settings that the resource has too, by the types that a configuration of Dagster knows.
IN_RESOURCE: Mapping[str, type] = {
    "gateway_host": str,
    "gateway_port": int,
    "batch_size": str,
    "drain_interval_s": float,
    "history_days": int,
}


def _setting(name: str) -> Any:
    """Return the field of a setting; without a value it is that of the environment."""
    text = Settings.model_fields[name].description
    return Field(default=None, description=f"{text} (POSITION_SYNC_{name.upper()})")


class PositionSyncResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings and the tables of a run.

    Dagster makes one object per run, so the settings are read once and the tables are initialized
    once per run. Both happen at the first use and not in `setup_for_execution`: an error there
    fails the run as "resource initialization", while an error in a step is shown with its cause and
    remedy (`dagster_failures`).
    """

    path: str | None = _setting("lake")
    gateway_host: str | None = _setting("gateway_host")
    gateway_port: int | None = _setting("gateway_port")
    batch_size: str | None = _setting("batch_size")
    drain_interval_s: float | None = _setting("drain_interval_s")
    history_days: int | None = _setting("history_days")

    @cached_property
    def settings(self) -> Settings:
        """Return the settings as they were at the first use in the run.

        Raises:
            SettingsError: A value is malformed.
        """
        return self.read_settings()

    @cached_property
    def lake(self) -> Any:
        """Return the tables (`LAKES`), created or migrated at the first use in the run.

        Raises:
            SettingsError: A value is malformed.
            LakeError: A table cannot be used.
        """
        lake = LAKES[0].of(self.settings)
        lake.initialize_sync()
        return lake

    def read_settings(self) -> Settings:
        """Read the settings; a component and the fields take precedence over the environment.

        Raises:
            SettingsError: A value is malformed.
        """
        fields = {"lake": self.path} | {name: getattr(self, name) for name in IN_RESOURCE}
        given = {name: value for name, value in fields.items() if value is not None}
        return load_settings(**{**_of_component, **given})


POSITION_SYNC = PositionSyncResource()

_of_component: dict[str, object] = {}
_key_prefix: list[str] = []


def set_component_settings(given: Mapping[str, object], key_prefix: Iterable[str] = ()) -> None:
    """Set the settings and the prefix that a component gives to all definitions of this process.

    For sensors and steps the settings take precedence over the environment. They belong to the
    process: each process of Dagster loads the definitions of one code location, which has one such
    component.
    """
    _of_component.clear()
    _of_component.update(given)
    _key_prefix[:] = key_prefix


def key_of(name: str) -> dg.AssetKey:
    """Return the key of an asset of ours in Dagster: its name behind the prefix of the project."""
    return dg.AssetKey([*_key_prefix, name])


def check_key_of(key: dg.AssetCheckKey) -> dg.AssetCheckKey:
    """Return the key of a check of ours in Dagster."""
    return dg.AssetCheckKey(key_of(key.asset_key.path[-1]), key.name)


@dg.definitions
def resources() -> dg.Definitions:
    """Define the resource of every run, with the values that its page shows."""
    shown: dict[str, Any] = {}
    with suppress(PositionSyncError):  # runs and ticks say what is wrong with a setting
        settings = POSITION_SYNC.read_settings()
        shown = {name: kind(getattr(settings, name)) for name, kind in IN_RESOURCE.items()}
    return dg.Definitions(resources={"position_sync": PositionSyncResource(**shown)})
