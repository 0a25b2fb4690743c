"""What jobs and sensors share: the resource of runs, names, keys, cursors and errors."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import dagster as dg
from pydantic import Field, TypeAdapter, ValidationError

from position_sync_dagster import dagster_files
from position_sync_dagster.errors import PositionSyncError, fault_of
from position_sync_dagster.lake.lake import L, Lake
from position_sync_dagster.settings import Settings, load_settings

STREAM_JOB = "stream_positions"
CLOSE_JOB = "close_day"

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


# Returns what reads and writes a kind of cursor. To make it takes as long as a tick without work.
_format_of: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def cursor_of(kind: type[C], text: str | None) -> C:
    """Parse the cursor of a sensor; return an empty one for None or for text of another format."""
    if text:
        with suppress(ValidationError):
            cursor: C = _format_of(kind).validate_json(text)
            return cursor
    return kind()


def cursor_text(cursor: object) -> str:
    """Return the cursor of a sensor as the text that Dagster stores."""
    return _format_of(type(cursor)).dump_json(cursor).decode()


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


class Automation(NamedTuple):
    """How the sensors and schedules of a project are made.

    Attributes:
        owners: Their owners, as Dagster shows them.
        status: Whether they run from the start, or once a person has started them.
    """

    owners: Sequence[str] = ()
    status: Literal["RUNNING", "STOPPED"] = "RUNNING"


# What a sensor does each time that it is due, with what its definitions are made of.
Tick = Callable[[dg.SensorEvaluationContext, C], Any]


def sensor(
    tick: Tick[C],
    composition: C,
    *parts: object,
    automation: Automation = Automation(),  # noqa: B008 - a frozen value
    job_name: str | None = None,
    minimum_interval_s: int = TICK_S,
    assets: dg.AssetSelection | None = None,
) -> dg.SensorDefinition:
    """Return the sensor of a tick; Dagster shows the tick's docstring.

    The first error of an outage is raised; later ticks with the same error are skipped, with its
    text: the daemon logs 200 lines for a failed tick, and the next tick comes after 5 s.

    Args:
        tick: What the sensor does each time that it is due.
        composition: What the tick gets besides its context.
        parts: What the tick does besides, as that of an extension: these docstrings are shown, too.
        automation: Its owners, and whether it runs from the start.
        job_name: The job that it requests runs of.
        minimum_interval_s: How often it ticks at most.
        assets: The assets that its ticks write: their pages show the sensor.
    """
    fault = ""  # with which the tick before failed

    @dg.sensor(
        name=tick.__name__,
        job_name=job_name,
        minimum_interval_seconds=minimum_interval_s,
        target=assets,
        default_status=dg.DefaultSensorStatus(automation.status),
        owners=automation.owners,
        description="\n\n".join(filter(None, map(inspect.getdoc, (tick, *parts)))),
    )
    def run(context: dg.SensorEvaluationContext) -> Any:
        """Do one tick; leave its error in a file for `doctor` and the supervisor."""
        nonlocal fault
        try:
            result = tick(context, composition)
        except PositionSyncError as error:
            dagster_files.note(dagster_files.FAILED_TICK, str(error))
            before, fault = fault, fault_of(error)
            if fault == before:
                return dg.SkipReason(str(error))
            raise

        fault = ""
        return result

    return run


# The settings that the resource has too, by the types that a configuration of Dagster knows.
IN_RESOURCE: Mapping[str, type] = {
    "gateway_host": str,
    "gateway_port": int,
    "batch_size": str,
    "drain_interval_s": float,
    "history_days": int,
}


def _setting(name: str) -> Any:
    """Return the field of a setting, as the page shows it; None is the value of the environment."""
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

    # What the composition gives its resource; Dagster makes the object anew from its fields alone.
    # The settings of the component are in `overrides`.
    lake_class: ClassVar[type[Lake]] = Lake
    overrides: ClassVar[Mapping[str, object]] = {}

    @cached_property
    def settings(self) -> Settings:
        """Return the settings as they were at the first use in the run.

        Raises:
            SettingsError: A value is malformed.
        """
        return self.read_settings()

    @cached_property
    def lake(self) -> Lake:
        """Return the tables, created or migrated at the first use in the run.

        Raises:
            SettingsError: A value is malformed.
            LakeError: A table cannot be used.
        """
        lake = self.lake_class.of(self.settings)
        lake.initialize_sync()
        return lake

    def lake_of(self, kind: type[L]) -> L:
        """Return the tables, as a lake of a class that has further ones.

        Raises:
            TypeError: The definitions were made without this class.
        """
        if not isinstance(self.lake, kind):
            raise TypeError(f"The definitions have no {kind.__name__}.")
        return self.lake

    def read_settings(self) -> Settings:
        """Read the settings: a field counts first, then a component, then the environment.

        Raises:
            SettingsError: A value is malformed.
        """
        fields = {"lake": self.path} | {name: getattr(self, name) for name in IN_RESOURCE}
        given = {name: value for name, value in fields.items() if value is not None}
        return load_settings(**{**self.overrides, **given})


class AssetKeys(NamedTuple):
    """The keys of our assets in Dagster: their names behind the prefix of the project."""

    prefix: tuple[str, ...] = ()

    def of(self, name: str) -> dg.AssetKey:
        """Return the key of an asset."""
        return dg.AssetKey([*self.prefix, name])

    def of_check(self, key: dg.AssetCheckKey) -> dg.AssetCheckKey:
        """Return the key of a check."""
        return dg.AssetCheckKey(self.of(key.asset_key.path[-1]), key.name)
