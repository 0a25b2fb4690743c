"""What Dagster stores of its sensors, for the supervisor, which imports no Dagster.

Dagster lets a sensor tick once the clock has passed the stored time of its last tick. After the
clock was set back by an hour, that takes an hour, also after a restart: such times are removed, if
no sensor has ticked for a while, before the programs are started again.

Run as `python -m position_sync_dagster.processes.sensor_states`, with DAGSTER_HOME; it prints the
findings as JSON.
"""

import json
import time
from dataclasses import asdict, dataclass

import dagster as dg

from position_sync_dagster.defs.dagster_internals import (
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)

# The sensor whose ticks are the sign of life of code server and daemon.
WATCHED = "drain_queue"

# Seconds by which the stored time of a tick may be ahead: more comes from before the clock was set
# back.
AHEAD_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorStates:
    """What was found in Dagster's storage.

    Attributes:
        reset: The sensors whose last tick was ahead of the clock; they tick again now.
        is_switched_off: Whether a person switched the sensor `drain_queue` off.
    """

    reset: tuple[str, ...] = ()
    is_switched_off: bool = False


def mend_tick_times(instance: dg.DagsterInstance, now: float) -> SensorStates:
    """Remove the times of ticks that are ahead of the clock; return what was found.

    Args:
        now: The current time, in seconds since 1970.
    """
    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    reset = []
    is_switched_off = False
    for state in states:
        if state.name == WATCHED and state.status is InstigatorStatus.STOPPED:
            is_switched_off = True
        data = state.instigator_data
        if isinstance(data, SensorInstigatorData) and _newest_time(data) > now + AHEAD_S:
            instance.update_instigator_state(state.with_data(_without_future(data, now)))
            reset.append(state.name)
    return SensorStates(reset=tuple(sorted(reset)), is_switched_off=is_switched_off)


def _newest_time(data: SensorInstigatorData) -> float:
    """Return the newest time that is stored of a sensor's ticks and switches."""
    times = (
        data.last_tick_timestamp,
        data.last_tick_start_timestamp,
        data.last_sensor_start_timestamp,
    )
    return max(at or 0.0 for at in times)


def _without_future(data: SensorInstigatorData, now: float) -> SensorInstigatorData:
    """Return the data without times of ticks; a switch on ahead of the clock was made now."""
    started_at = data.last_sensor_start_timestamp
    return data._replace(
        last_tick_timestamp=None,
        last_tick_start_timestamp=None,
        last_sensor_start_timestamp=None if started_at is None else min(started_at, now),
    )


def main() -> None:
    """Mend the tick times of the instance of DAGSTER_HOME, and print what was found."""
    with dg.DagsterInstance.get() as instance:
        mended = mend_tick_times(instance, time.time())
    print(json.dumps(asdict(mended)))  # noqa: T201 - the output of the program


if __name__ == "__main__":
    main()
